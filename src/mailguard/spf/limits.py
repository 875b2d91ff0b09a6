"""The ceilings of an SPF evaluation (RFC 7208 §4.6.4), and those that are ours."""

from __future__ import annotations

__all__ = ["MAX_HOSTS", "MAX_QUERIES", "MAX_RECORD_OCTETS", "MAX_TERMS", "MAX_VOIDS"]

# RFC 7208 §4.6.4: terms that look something up, over all included and redirected records together.
MAX_TERMS = 10
# RFC 7208 §4.6.4: terms that look up what does not exist; the third is one too many.
MAX_VOIDS = 2
# RFC 7208 §4.6.4: address look-ups for one "mx" (more is an error) and for one "ptr" (more are ignored).
MAX_HOSTS = 10
# The limits of the RFC together allow 111 queries for one check, a lever for attacks on others' name servers. The
# records of large senders need fewer than 20.
MAX_QUERIES = 30
# RFC 7208 §3.4 wants records to fit into 512 octets; what large senders publish stays below 2,000.
MAX_RECORD_OCTETS = 8_192
