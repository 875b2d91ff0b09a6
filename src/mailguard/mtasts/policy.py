"""StsPolicy: which hosts may take a domain's mail, and what happens where one is another.

RFC 8461 §3.2 (the file), RFC 8461 §4 (what is asked of a host). Left out: where a policy comes from (fetch.py) and
how long it is kept (cache.py). Linear in the input. Values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self

from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import DomainError
from mailguard.mtasts.malformed import Malformed, shown

__all__ = ["MAX_AGE_S", "MAX_PATTERNS", "MAX_POLICY_BYTES", "StsMode", "StsPolicy", "matches"]

# RFC 8461 §3.3 suggests it.
MAX_POLICY_BYTES = 65_536
# RFC 8461 has no bound. What large providers publish has a dozen; thousands would fit into the octets, and fill the
# memory of every sender.
MAX_PATTERNS = 256
# RFC 8461 §3.2: one year of 365.25 days.
MAX_AGE_S = 31_557_600

# RFC 8461 §3.2, sts-policy-term: one CR at most belongs to the LF behind it; any other is a control character.
_LINE_END = re.compile(r"\r?\n")
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*([^ \t](?:.*[^ \t])?)[ \t]*", re.DOTALL)
# RFC 8461 §3.2, sts-policy-vchar and the spaces between: no controls, those of C1 included.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_AGE = re.compile(r"[0-9]{1,10}")
# RFC 5321 §4.1.2, Domain.
_DOMAIN = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


class StsMode(Enum):
    """What a sender does where a host does not satisfy the policy (RFC 8461 §5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy as its domain published it."""

    mode: StsMode
    mx: tuple[str, ...]
    """The patterns: lower-case names, with `*.` in front where one label more is wanted. Each once, in order."""
    max_age_s: int
    """At most `MAX_AGE_S`."""

    @property
    def text(self) -> str:
        """The policy written anew, with what is known of it and nothing else; `parse` reads it back."""
        patterns = "".join(f"mx: {pattern}\n" for pattern in self.mx)
        return f"version: STSv1\nmode: {self.mode.value}\n{patterns}max_age: {self.max_age_s}\n"

    @classmethod
    def parse(cls, octets: bytes) -> Self | Malformed:
        """Read a policy. Lines end with CRLF or LF, the last one with either or nothing."""
        if len(octets) > MAX_POLICY_BYTES:
            return Malformed(f"it has more than {MAX_POLICY_BYTES} octets")
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError as error:
            return Malformed(f"octet {error.start} is not UTF-8")
        fields: dict[str, str] = {}
        mx: dict[str, None] = {}
        lines = _LINE_END.split(text)
        if lines[-1] == "":
            lines.pop()
        for number, line in enumerate(lines, start=1):
            found = _LINE.fullmatch(line)
            if found is None or _CONTROL.search(found[2]):
                return Malformed(f"line {number} is not key: value: {shown(line.encode())}")
            key, value = found[1], found[2]
            if key == "mx":
                pattern = _pattern(value)
                if pattern is None:
                    return Malformed(f"line {number}: {shown(value.encode())} is not a pattern for hosts")
                mx[pattern] = None
                if len(mx) > MAX_PATTERNS:
                    return Malformed(f"line {number}: it names more than {MAX_PATTERNS} different mx")
            # RFC 8461 §3.2: of any other key that occurs again, the first counts.
            fields.setdefault(key, value)
        return cls._checked(fields, tuple(mx))

    @classmethod
    def _checked(cls, fields: dict[str, str], mx: tuple[str, ...]) -> Self | Malformed:
        for key in ("version", "mode", "max_age"):
            if key not in fields:
                return Malformed(f"it has no {key}")
        if fields["version"] != "STSv1":
            return Malformed(f"its version is {shown(fields['version'].encode())}, not STSv1")
        mode = _MODES.get(fields["mode"])
        if mode is None:
            return Malformed(f"its mode is {shown(fields['mode'].encode())}, not enforce, testing or none")
        if _MAX_AGE.fullmatch(fields["max_age"]) is None:
            return Malformed(f"its max_age is {shown(fields['max_age'].encode())}, not 1 to 10 digits")
        if not mx and mode is not StsMode.NONE:
            return Malformed(f"its mode is {mode.value}, and it names no mx")
        # A longer one is cut to the longest there can be: a policy that asks for too much is still meant.
        return cls(mode, mx, min(int(fields["max_age"]), MAX_AGE_S))

    def allows(self, mx_host: str) -> bool:
        """Whether one of the patterns matches the name of an MX record (RFC 8461 §4.1)."""
        return any(matches(pattern, mx_host) for pattern in self.mx)


_MODES = {mode.value: mode for mode in StsMode}


def _pattern(value: str) -> str | None:
    name = value.removeprefix("*.")
    if len(name) > MAX_DOMAIN_CHARS or _DOMAIN.fullmatch(name) is None:
        return None
    # An address is no name, though the grammar of RFC 5321 lets it pass for one.
    return None if name.rpartition(".")[2].isdigit() else value.lower()


def matches(pattern: str, mx_host: str) -> bool:
    """RFC 8461 §4.1: `*.` stands for exactly one label. Either may end with a dot, and be written with U-labels."""
    wildcard, host = pattern.startswith("*."), _comparable(mx_host)
    wanted = _comparable(pattern.removeprefix("*.")) if wildcard else _comparable(pattern)
    if wanted is None or host is None or "*" in wanted:
        return False
    if wildcard:
        label, _, host = host.partition(".")
        return bool(label) and host == wanted
    return host == wanted


def _comparable(name: str) -> str | None:
    """Lower case, A-labels, no trailing dot. Host names with "_" are compared too; None for what is no name."""
    name = name.removesuffix(".")
    if name.isascii():
        return name.lower() or None
    try:
        return Domain.parse(name)
    except DomainError:
        return None
