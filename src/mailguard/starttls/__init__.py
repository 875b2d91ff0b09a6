"""What mail servers show in TLS: a live handshake after STARTTLS, and the certificates as they are presented."""
