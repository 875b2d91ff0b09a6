"""MTA-STS (RFC 8461), seen by who sends: records, policies, fetching them and keeping them."""
