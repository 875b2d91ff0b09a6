"""ReportUri: where a DMARC record asks reports to be sent (RFC 9989 §4.6, RFC 9989 §4.8).

Of the URI schemes, mailto (RFC 6068) and https (RFC 3986) are read; others are ignored, as RFC 9989 §4.7 wants of
unsupported ones. Left out: sending, and whether an external destination agrees (report_destination.py). Values are
frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = ["MAX_REPORT_URIS", "ReportUri"]

# RFC 9989 sets no limit. Each costs whoever sends reports a look-up and a message a day; lists in use are shorter.
MAX_REPORT_URIS = 10
# How many items of a list are looked at, valid or not: a record has room for a thousand.
MAX_LIST_ITEMS = 32
MAX_URI_CHARS = 1_024
# RFC 5321 §4.5.3.1.1
MAX_LOCAL_PART_CHARS = 64

_WSP = b" \t"
# RFC 9989 §4.8, obs-dmarc-report-size: the most octets that RFC 7489 let one ask for; it is ignored.
_OBSOLETE_SIZE = re.compile(rb"![0-9]{1,20}[kmgtKMGT]?\Z")
# RFC 3986: all that a URI may consist of, without "," and "!", which RFC 9989 §4.8 wants encoded.
_URI = re.compile(rb"(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+;=-]|%[0-9A-Fa-f]{2})+")
# RFC 5322 §3.2.3, dot-atom: quoted local parts are not for addresses that programs write to.
_LOCAL_PART = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(rb"//([A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:[/?#]|\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportUri:
    """One destination, syntactically valid."""

    text: str
    """The URI as published, without the obsolete size; printable ASCII without white space, "," and "!"."""
    host: Domain
    """The destination host of RFC 9990 §4: the domain of the address, or the host of the URL."""
    address: str | None = None
    """For mailto: the one address, percent-decoded, a dot-atom before the "@", without the URI's header fields."""

    @classmethod
    def parse(cls, item: bytes) -> Self | None:
        """Read one item of rua or ruf. None for what is not a URI or of a scheme that nobody reports to."""
        item = _OBSOLETE_SIZE.sub(b"", item.strip(_WSP))
        if len(item) > MAX_URI_CHARS or not _URI.fullmatch(item):
            return None
        scheme, _, rest = item.partition(b":")
        text = item.decode("ascii")
        match scheme.lower():
            case b"mailto":
                return cls._mailto(text, rest)
            case b"https":
                return cls._https(text, rest)
        return None

    @classmethod
    def parse_list(cls, value: bytes) -> tuple[Self, ...]:
        """The valid items of rua or ruf, each once, in order: `MAX_REPORT_URIS` of the first `MAX_LIST_ITEMS`."""
        found: dict[Self, None] = {}
        for item in value.split(b",", MAX_LIST_ITEMS)[:MAX_LIST_ITEMS]:
            uri = cls.parse(item)
            if uri is not None:
                found[uri] = None
            if len(found) == MAX_REPORT_URIS:
                break
        return tuple(found)

    @classmethod
    def _mailto(cls, text: str, rest: bytes) -> Self | None:
        # RFC 6068 §2: the address ends at "?"; header fields such as bcc= are never taken from a stranger's record.
        path = rest.partition(b"#")[0].partition(b"?")[0]
        decoded = _PERCENT.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), path)
        local_part, at, domain = decoded.rpartition(b"@")
        # Decoded, it may be anything, CRLF and a second address included; a dot-atom and a Domain are neither.
        if not at or len(local_part) > MAX_LOCAL_PART_CHARS or not _LOCAL_PART.fullmatch(local_part):
            return None
        host = _domain(domain)
        if host is None:
            return None
        return cls(text=text, host=host, address=f"{local_part.decode('ascii')}@{host}")

    @classmethod
    def _https(cls, text: str, rest: bytes) -> Self | None:
        authority = _AUTHORITY.match(rest)
        host = _domain(authority[1]) if authority else None
        return None if host is None else cls(text=text, host=host)


def _domain(octets: bytes) -> Domain | None:
    try:
        return Domain.parse(octets)
    except DomainError:
        return None
