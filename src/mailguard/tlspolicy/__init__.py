"""The TLS policy of each destination, for Postfix: DANE (RFC 7672) before MTA-STS (RFC 8461), over a socketmap."""
