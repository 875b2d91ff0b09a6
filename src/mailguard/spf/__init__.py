"""SPF (RFC 7208): may this client send mail for this domain?"""
