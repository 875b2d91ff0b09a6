"""What the hardening guides recommend for a mail host, as checks of what its configuration says."""
