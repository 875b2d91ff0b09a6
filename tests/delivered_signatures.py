"""What three implementations say of the signatures of a delivered message: mailguard, dkimpy and OpenDKIM.

OpenDKIM is its library, libopendkim, fed with the octets; keys come from memory. A peer says only whether some
signature verifies, so each one is shown to it alone.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dkim

from mailguard.dkim.verify import VerifyRules
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import verify_dkim

__all__ = ["Verifiers", "with_each_signature_alone"]

_POINTER, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_KEY_LOOKUP = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _SIZE)
# libopendkim 2.11, dkim.h.
_OK, _FOUND, _NOT_FOUND = 0, 0, 3
_FUNCTIONS = {
    "dkim_init": (_POINTER, [_POINTER, _POINTER]),
    "dkim_set_key_lookup": (_INT, [_POINTER, _KEY_LOOKUP]),
    "dkim_verify": (_POINTER, [_POINTER, _TEXT, _POINTER, _POINTER]),
    "dkim_chunk": (_INT, [_POINTER, _TEXT, _SIZE]),
    "dkim_eom": (_INT, [_POINTER, _POINTER]),
    "dkim_sig_getselector": (_TEXT, [_POINTER]),
    "dkim_sig_getdomain": (_TEXT, [_POINTER]),
    "dkim_free": (_INT, [_POINTER]),
    "dkim_close": (None, [_POINTER]),
}
_SIGNATURE = re.compile(rb"(?m)^DKIM-Signature:.*\r\n(?:[ \t].*\r\n)*")


@dataclass(frozen=True, slots=True)
class Verifiers:
    """The three, with the keys that they find in the DNS: `records` by name without a final dot."""

    records: Mapping[str, bytes]

    def verdicts(self, raw: bytes) -> dict[str, list[str]]:
        """By selector, who verifies that signature. `raw` has CRLF line ends; the time is now."""
        found: dict[str, list[str]] = {}
        for alone in with_each_signature_alone(raw):
            ((selector, passes),) = self.mailguard(alone)
            who = ["mailguard"] * passes + ["dkimpy"] * self.dkimpy(alone) + ["opendkim"] * self.opendkim(alone)
            found[selector] = found.get(selector, []) + who
        return found

    def mailguard(self, raw: bytes) -> list[tuple[str, bool]]:
        """The selectors, from the top, and whether each signature passes."""
        resolver = ZoneResolver({name: {"TXT": [record]} for name, record in self.records.items()})
        rules = VerifyRules(clock_skew_s=0)
        results = verify_dkim(Message.parse(raw), resolver=resolver, now=time.time(), rules=rules)
        return [(result.selector or "", result.status.value == "pass") for result in results]

    def dkimpy(self, raw: bytes) -> bool:
        def text_record(name: bytes, timeout: float = 0) -> bytes | None:
            return self.records.get(name.decode("ascii").removesuffix("."))

        try:
            return bool(dkim.DKIM(raw).verify(dnsfunc=text_record))
        except dkim.DKIMException:
            return False

    def opendkim(self, raw: bytes) -> bool:
        """Raises OSError where the library is not installed (libopendkim11)."""
        c = ctypes.CDLL("libopendkim.so.11")
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(c, name)
            function.restype, function.argtypes = result, arguments

        def look_up(_message: int, signature: int, buffer: int, size: int) -> int:
            name = c.dkim_sig_getselector(signature) + b"._domainkey." + c.dkim_sig_getdomain(signature)
            record = self.records.get(name.decode("ascii"))
            if record is None or len(record) >= size:
                return _NOT_FOUND
            ctypes.memmove(buffer, record + b"\0", len(record) + 1)
            return _FOUND

        callback = _KEY_LOOKUP(look_up)
        library = c.dkim_init(None, None)
        status = _INT()
        assert c.dkim_set_key_lookup(library, callback) == _OK
        handle = c.dkim_verify(library, b"test", None, ctypes.byref(status))
        assert handle, status
        try:
            steps = [c.dkim_chunk(handle, raw, len(raw)), c.dkim_chunk(handle, None, 0)]
            return [*steps, c.dkim_eom(handle, None)] == [_OK] * 3
        finally:
            c.dkim_free(handle)
            c.dkim_close(library)


def with_each_signature_alone(raw: bytes) -> Iterator[bytes]:
    """The message once for each of its signatures, from the top, without the others."""
    header, separator, body = raw.partition(b"\r\n\r\n")
    header += b"\r\n"
    spans = [match.span() for match in _SIGNATURE.finditer(header)]
    for kept in spans:
        alone = header
        for start, end in reversed(spans):
            if (start, end) != kept:
                alone = alone[:start] + alone[end:]
        yield alone + separator.removeprefix(b"\r\n") + body
