"""How many addresses a term of an SPF record lets in (RFC 7208 §5.3 to RFC 7208 §5.6). Pure."""

from __future__ import annotations

from mailguard.spf.record import Term
from mailguard.spf.result import SpfStatus

__all__ = ["is_rather_wide", "is_too_wide"]

# A network of this size is nobody's own mail servers; the square of that is a good part of the Internet.
WIDE_IP4_PREFIX = 16
WIDE_IP6_PREFIX = 32


def is_rather_wide(term: Term) -> bool:
    """Whether it lets in more than one's own servers."""
    return _is_wider(term, WIDE_IP4_PREFIX, WIDE_IP6_PREFIX)


def is_too_wide(term: Term) -> bool:
    """Whether it lets in so many that it says next to nothing."""
    return _is_wider(term, WIDE_IP4_PREFIX // 2 + 1, WIDE_IP6_PREFIX // 2 + 1)


def _is_wider(term: Term, prefix4: int, prefix6: int) -> bool:
    if term.status is not SpfStatus.PASS:
        return False
    return (term.mechanism in ("ip4", "a", "mx") and term.prefix4 < prefix4) or (
        term.mechanism in ("ip6", "a", "mx") and term.prefix6 < prefix6
    )
