"""DANE for SMTP (RFC 7672): TLSA records, where they are looked for, and what they say of a certificate chain."""
