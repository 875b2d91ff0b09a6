"""Tag=value lists (RFC 6376 §3.2): DKIM signatures and keys, ARC, DMARC, MTA-STS, TLSRPT.

Linear in the input. Safe to share between threads. What a tag means is for the caller.
"""

from __future__ import annotations

import binascii
import re

from mailguard.errors import TagListError

__all__ = ["TagList", "base64_octets"]

# A signature with 1,000 signed names is about 20 kB; Postfix cuts a header field at 60,000.
MAX_TAG_LIST_BYTES = 65_536
MAX_PADDING = 2
# RFC 6376 defines 14 tags for a signature; unknown ones are ignored, but not without end.
MAX_TAGS = 128
# How much of a stranger's tag name an error repeats.
MAX_SHOWN_CHARS = 20

_WSP = b" \t\r\n"
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_CONTROLS = bytes(c for c in range(0x20) if c not in _WSP) + b"\x7f"


class TagList(dict[str, bytes]):
    """The values by the names of their tags, in the order in which these stand, without white space around them."""

    __slots__ = ("_specifications",)
    _specifications: list[bytes]

    @classmethod
    def parse(cls, octets: bytes) -> TagList:
        """Read `octets`: a field value or a TXT record, folded or not, CRLF or LF.

        Raises TagListError for a malformed list and for a name that occurs twice (RFC 6376 §3.2: "Tags
        with duplicate names MUST NOT occur within a single tag-list").
        """
        if len(octets) > MAX_TAG_LIST_BYTES:
            raise TagListError("the tag list is too long")
        if octets.translate(None, _CONTROLS) != octets:
            raise TagListError("the tag list has a control character")
        tags = cls()
        tags._specifications = specifications = octets.split(b";", MAX_TAGS + 1)
        for specification in specifications:
            name, equals, value = specification.partition(b"=")
            if not equals:
                if specification.strip(_WSP):
                    raise TagListError("a tag has no equals sign")
                if len(specifications) == 1:
                    raise TagListError("the tag list is empty")
                # Nothing may follow the last semicolon but white space (RFC 6376 §3.2, tag-list).
                if len(tags) < len(specifications) - 1:
                    raise TagListError("a semicolon follows no tag")
                break
            word = name.strip(_WSP)
            if not word.isalpha() and _NAME.fullmatch(word) is None:  # bytes.isalpha(): ASCII alone
                raise TagListError("a tag has a malformed name")
            key = word.decode("ascii")
            if key in tags:
                raise TagListError(f"the tag {key[:MAX_SHOWN_CHARS]}= occurs twice")
            tags[key] = value.strip(_WSP)
        if len(tags) > MAX_TAGS:
            raise TagListError(f"the tag list has more than {MAX_TAGS} tags")
        return tags

    def compact(self, name: str) -> bytes:
        """The value without any white space, for base64 and for words in which folding may fall anywhere."""
        return self[name].translate(None, _WSP)

    def without_value(self, name: str) -> bytes:
        """What was read, without all that stands between the "=" of this tag and the next ";" or the end."""
        specifications = self._specifications.copy()
        number = list(self).index(name)
        word, equals, _ = specifications[number].partition(b"=")
        specifications[number] = word + equals
        return b";".join(specifications)


def base64_octets(text: bytes) -> bytes:
    """The octets of base64 without white space in it. Raises ValueError.

    RFC 6376 §2.10, base64string: up to two "=" at the end, whether RFC 2045 §6.8 wants them for that length or not.
    The octets are the same, and keys lose them in web forms.
    """
    digits = text.rstrip(b"=")
    if len(text) - len(digits) > MAX_PADDING or (text and not digits):
        raise ValueError("the padding is not that of base64")
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
