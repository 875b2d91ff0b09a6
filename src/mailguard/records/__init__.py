"""DNS records to publish: made from keys and choices, written in the forms that name servers and hosters take."""
