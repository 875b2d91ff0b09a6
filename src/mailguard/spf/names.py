"""Names that SPF looks up: what a <target-name> becomes (RFC 7208 §4.8), and which names are not looked up at all.

A question may have any printable ASCII but the backslash, since macros put local parts there (RFC 7208 §7.2). A name
with other octets, with an empty label or a long one is never asked for, and so nothing matches it; RFC 7208 §4.8
leaves open what it means. Linear in the input. Pure; safe to share between threads.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from mailguard.dns.question import RecordType
from mailguard.domain import MAX_DOMAIN_CHARS

__all__ = ["address_type", "host_name", "target_name"]

# A label has 1 to 63 characters (RFC 1035 §2.3.4).
_LABEL = r"[ -\-/-@\[\]-~]{1,63}+"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_ESCAPE = re.compile(r"\\([0-9]{3})")


def target_name(text: str) -> str:
    """The <target-name> of an expanded domain-spec; "" for one that cannot be looked up.

    Lower case, without the trailing dot, cut from the left to 253 characters.
    """
    name = text.removesuffix(".")
    if len(name) > MAX_DOMAIN_CHARS:
        # RFC 7208 §7.3: "by removing successive domain labels (and their following dots)".
        dot = name.find(".", len(name) - MAX_DOMAIN_CHARS - 1)
        name = name[dot + 1 :] if dot >= 0 else ""
    # Before the case is changed: U+212A in lower case is an ASCII "k".
    if not name.isascii():
        return ""
    name = name.lower()
    # Alone, "@" is what master files call the origin; dnspython would ask for the root.
    return name if _NAME.fullmatch(name) and name != "@" else ""


def host_name(text: str) -> str:
    """`target_name` for a name from an answer, which has odd octets escaped as \\DDD."""
    return target_name(_ESCAPE.sub(_octet, text) if "\\" in text else text)


def _octet(found: re.Match[str]) -> str:
    octet = chr(int(found[1]))
    # A dot inside of a label separates nothing; that name has no question.
    return "\\" if octet == "." else octet


def address_type(client: IPv4Address | IPv6Address) -> RecordType:
    """RFC 7208 §5: A records are fetched for an IPv4 client, AAAA records for an IPv6 one."""
    return RecordType.A if client.version == 4 else RecordType.AAAA
