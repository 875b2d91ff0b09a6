"""Domain: a lower-case A-label domain name, validated once.

RFC 1035 §2.3.4 (sizes), RFC 5890 (A-labels and U-labels), UTS 46 (mapping, and symbols in A-labels), RFC 8616
(U-labels in mail authentication). Left out: address literals and the names of DNS records that are not host names
(those begin with `_` and are made from a Domain by the code that asks for them). Values are immutable and safe to
share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import idna

from mailguard.errors import DomainError

__all__ = ["Domain", "is_equal_or_below"]

# RFC 1035 §2.3.4: 255 octets on the wire are 253 characters of text.
MAX_DOMAIN_CHARS = 253
MAX_LABEL_CHARS = 63
# A U-label has at least one octet for each character of its A-label; longer input is refused unread.
MAX_INPUT_BYTES = 1024

_NONE: Collection[str] = ()
_LDH = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
# All that _check() wants of labels, at once: the right size, no hyphen at either end. A-labels are left to it.
_PLAIN_LABEL = r"(?!-|xn--)[a-z0-9-]{1,63}+(?<!-)"
# Not "*+": before Python 3.11.5 a possessive group keeps the dot of a repetition that fails after it.
_PLAIN_NAME = re.compile(rf"{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*")


class Domain(str):
    """A host name in its one comparable form: lower case, A-labels, no trailing dot.

    A `str`, so that it prints, compares and hashes as its text. Make one with `Domain.parse`, or, where the name of
    something else than a host will do, with `Domain.parse_any`.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str | bytes) -> Domain:
        """The domain that `text` names; bytes are UTF-8. U-labels are mapped (UTS 46) and become A-labels.

        Raises DomainError for anything that is not a host name: an empty or over-long label, a trailing
        dot, `_`, a leading or trailing hyphen, an A-label that does not decode and encode to itself, a U-label that
        IDNA 2008 does not allow.
        """
        if isinstance(text, bytes):
            if len(text) > MAX_INPUT_BYTES:
                raise DomainError("the name is too long")
            try:
                text = text.decode("utf-8")
            except UnicodeDecodeError:
                raise DomainError("the name is not UTF-8") from None
        elif len(text) > MAX_INPUT_BYTES:
            raise DomainError("the name is too long")
        name, made = (text.lower(), _NONE) if text.isascii() else _to_ascii(text)
        if len(name) > MAX_DOMAIN_CHARS or _PLAIN_NAME.fullmatch(name) is None:
            _check(name, made)
        return cls(name)

    @classmethod
    def parse_any(cls, text: str) -> Domain:
        """The same, for a name that need not be a host's: ASCII labels may have `_`, which the DNS does not mind."""
        if "_" not in text or not text.isascii():
            return cls.parse(text)
        cls.parse(text.replace("_", "a"))  # all else that is wrong with it
        return cls(text.lower())

    def is_equal_or_below(self, ancestor: str) -> bool:
        """Whether this name is `ancestor` or one of its subdomains."""
        return is_equal_or_below(self, ancestor)

    @property
    def unicode(self) -> str:
        """The name with U-labels, for people and for comparison with EAI header fields. Symbols stay as they are."""
        return ".".join([_u_label(label) if label.startswith("xn--") else label for label in self.split(".")])


def is_equal_or_below(name: str, ancestor: str) -> bool:
    """Whether `name` is `ancestor` or one of its subdomains; both in lower case and without trailing dot."""
    return name == ancestor or name.endswith("." + ancestor)


def _to_ascii(text: str) -> tuple[str, Collection[str]]:
    """The name, and those of its labels that were made from U-labels."""
    try:
        # UTS 46 maps U+3002 and the other full stops of RFC 3490 §3.1 to "." and full-width letters to ASCII.
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        # Label by label: what applies to U-labels (no "--" in place 3) does not bind the ASCII labels beside them.
        labels = mapped.split(".")
        made = {label: idna.alabel(label).decode("ascii") for label in labels if not label.isascii()}
        return ".".join([made.get(label, label) for label in labels]), made.values()
    except (idna.IDNAError, UnicodeError, IndexError):
        raise DomainError("the name is not a valid internationalized name") from None


def _check(name: str, made: Collection[str]) -> None:
    """Raise DomainError for what is no host name. The A-labels in `made` are known to be right."""
    if not name or len(name) > MAX_DOMAIN_CHARS:
        raise DomainError("the name is empty" if not name else "the name is too long")
    for label in name.split("."):
        if not label:
            raise DomainError("a label is empty")
        if len(label) > MAX_LABEL_CHARS:
            raise DomainError("a label has more than 63 characters")
        if not _LDH.issuperset(label):
            raise DomainError("a label has a character other than letters, digits and hyphen")
        if label[0] == "-" or label[-1] == "-":
            raise DomainError("a label begins or ends with a hyphen")
        if label.startswith("xn--") and label not in made:
            _check_a_label(label)


def _check_a_label(label: str) -> None:
    if _u_label(label) == label and not _is_of_symbols(label):
        raise DomainError("a label that begins with xn-- is not an A-label")


def _u_label(label: str) -> str:
    """The U-label; the label itself where RFC 5890 §2.3.2.1 knows none: it does not convert back to itself."""
    try:
        found = idna.ulabel(label)
        return found if idna.alabel(found).decode("ascii") == label else label
    except (idna.IDNAError, UnicodeError, IndexError):
        return label


def _is_of_symbols(label: str) -> bool:
    """Whether UTS 46 has it for a name, though IDNA 2008 does not allow a character of it.

    Registries sell names of emoji. In the DNS and in SMTP they are names as any other, and mail comes from them.
    """
    try:
        text = label.removeprefix("xn--").encode("ascii").decode("punycode")
        again = idna.uts46_remap(text, std3_rules=False, transitional=False).encode("punycode").decode("ascii")
    except (idna.IDNAError, UnicodeError, IndexError):
        return False
    return not text.isascii() and f"xn--{again}" == label
