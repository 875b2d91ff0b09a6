"""Record: one DNS record to publish, and why.

RFC 1035 §3.3 (character-strings have at most 255 octets), RFC 1035 §5.1 (how records are written). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_TTL_S", "Record", "quoted_strings", "zone_line"]

DEFAULT_TTL_S = 3_600
# RFC 1035 §3.3.
MAX_STRING_OCTETS = 255


def quoted_strings(octets: bytes) -> str:
    """`octets` as the character-strings of a TXT record in a zone file."""
    pieces = [octets[start : start + MAX_STRING_OCTETS] for start in range(0, len(octets), MAX_STRING_OCTETS)]
    return " ".join(f'"{"".join(map(_escaped, piece))}"' for piece in pieces or [b""])


def zone_line(name: str, record: bytes) -> str:
    """A TXT record as a line of a zone file; `name` without trailing dot."""
    return f"{name}. {DEFAULT_TTL_S} IN TXT {quoted_strings(record)}"


def _escaped(octet: int) -> str:
    if octet in b'"\\':
        return f"\\{chr(octet)}"
    return chr(octet) if 0x20 <= octet < 0x7F else f"\\{octet:03d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record. `name` and the names in `value` are absolute, lower case and without trailing dot."""

    name: str
    rdtype: str
    value: str
    """TXT: the text, however long, in printable ASCII. Other types: as in a zone file, where names end with a dot."""
    why: str
    """One line for people."""
    ttl_s: int = DEFAULT_TTL_S
    held_back: str = ""
    """Why it must not be published as things are; empty for a record to publish."""
    zone: str = ""
    """The zone that it belongs in, where that is not the one of the domain asked for: somebody else's, perhaps."""
    replaces: bool = True
    """Whether nothing else of this type belongs at the name; the texts at the domain itself have many owners, and a
    certificate in use has a TLSA beside the next one's."""

    @property
    def rdata(self) -> str:
        """The value as a zone file has it."""
        return quoted_strings(self.value.encode("ascii")) if self.rdtype == "TXT" else self.value
