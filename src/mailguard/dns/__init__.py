"""Questions to the DNS and their answers. Only this package imports dnspython and cachetools."""
