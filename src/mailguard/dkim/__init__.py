"""DKIM: RFC 6376, with RFC 8301 (algorithms), RFC 8463 (Ed25519) and RFC 8616 (internationalized domains)."""
