"""Overrides: what the administrator says of destinations, before anything is looked up.

A value is a policy as in smtp_tls_policy_maps (postconf(5)), checked here as far as the entry tells, because
Postfix keeps mail back that has a policy with an error in it; or `default` (nothing is found:
smtp_tls_security_level counts) or `discover` (looked up, whatever is said of a parent). A key is what Postfix asks
for, in any spelling. What is said of a parent counts before what is looked up for a domain below it. Pure;
immutable, safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mailguard.config_file import did_you_mean
from mailguard.tlspolicy.next_hop import NextHop, Parent, parents_of, parse_key

__all__ = ["DEFAULT", "Overrides"]

DEFAULT = "default"
DISCOVER = "discover"

_LEVELS = ("none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure")
_PKIX = frozenset({"verify", "secure"})
# postconf(5), smtp_tls_policy_maps; `enable_rpk` needs Postfix 3.9, `servername` 3.4.
_ATTRIBUTES = frozenset(
    {"ciphers", "connection_reuse", "enable_rpk", "exclude", "match", "protocols", "servername", "tafile"}
)
_YES_NO = ("yes", "no")
_WORDS = {
    "ciphers": ("export", "low", "medium", "high", "null"),
    "connection_reuse": _YES_NO,
    "enable_rpk": _YES_NO,
}
# postconf(5), smtp_tls_mandatory_protocols: a name, one that is excluded, or a bound, also as a hexadecimal number.
_VERSIONS = r"SSLv3|TLSv1(?:\.[1-3])?"
_PROTOCOL = re.compile(rf"!?(?:SSLv2|{_VERSIONS})|[<>]=(?:None|{_VERSIONS}|(?:0x)?[0-9a-f]+)", re.IGNORECASE)
_PAIR = "[0-9A-Fa-f]{2}"
_FINGERPRINT = re.compile(rf"{_PAIR}(?::?{_PAIR})*")
_REPEATABLE = frozenset({"match", "tafile"})
_MAX_POLICY_CHARS = 8_192
_SEPARATOR = re.compile(r"[ \t,]+")


class Overrides:
    """The table of the configuration, read."""

    def __init__(self, table: Mapping[str, str]) -> None:
        """Raises ValueError, which says what is wrong with which entry."""
        self._said: dict[str, str] = {}
        for key, policy in table.items():
            asked = parse_key(key.encode("utf-8", "surrogateescape"))
            if asked is None:
                raise ValueError(
                    f'"{key}" is no destination: write "example.com", ".example.com" for its subdomains,'
                    ' "[mail.example.com]:587" or "[192.0.2.1]"'
                )
            if str(asked) in self._said:
                raise ValueError(f'"{key}" stands there twice')
            self._said[str(asked)] = _checked(key, policy)

    def policy_for(self, key: bytes, asked: NextHop | Parent | None) -> str | None:
        """What is said of `key`, also parsed: a policy for Postfix, or DEFAULT; None for nothing, or DISCOVER.

        Of a parent by itself nothing is said: Postfix asks for it after a name that is exempt from its override.
        """
        said = self._said
        if not said or isinstance(asked, Parent):
            return None
        names: Iterable[object] = (asked, *asked.parents()) if asked is not None else parents_of(key)
        found = next((said[str(name)] for name in names if str(name) in said), None)
        return None if found == DISCOVER else found

    def __eq__(self, other: object) -> bool:
        return self._said == other._said if isinstance(other, Overrides) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._said.items()))

    def __len__(self) -> int:
        return len(self._said)


def _checked(key: str, policy: str) -> str:
    if policy in (DEFAULT, DISCOVER):
        return policy
    if len(policy) > _MAX_POLICY_CHARS or not policy.isascii() or not policy.isprintable():
        raise ValueError(f"{key}: a policy is at most {_MAX_POLICY_CHARS} printable ASCII characters")
    level, *attributes = _SEPARATOR.split(policy.strip(" ,")) or [""]
    level = level.lower()
    if level not in _LEVELS:
        levels = (DEFAULT, DISCOVER, *_LEVELS)
        raise ValueError(f'{key}: "{level}" is no security level; use {", ".join(levels)}{_hint(level, levels)}')
    names = []
    for attribute in attributes:
        name, equals, value = attribute.partition("=")
        names.append(name.lower())
        if not equals or not value or name.lower() not in _ATTRIBUTES:
            raise ValueError(f'{key}: "{attribute}" is none of {", ".join(sorted(_ATTRIBUTES))} with its value')
        if name.lower() == "tafile" and level not in _PKIX:
            raise ValueError(f"{key}: tafile is for the levels verify and secure")
        if name.lower() == "match" and level not in _PKIX | {"fingerprint"}:
            raise ValueError(f"{key}: match is for the levels fingerprint, verify and secure")
        fault = _fault(level, name.lower(), value)
        if fault:
            raise ValueError(f'{key}: "{attribute}": {fault}')
    twice = next((name for name in names if names.count(name) > 1 and name not in _REPEATABLE), None)
    if twice is not None:
        raise ValueError(f"{key}: {twice} is given twice")
    return " ".join([level, *attributes])


def _fault(level: str, name: str, value: str) -> str:
    """What Postfix would find wrong with the value of an attribute; empty for nothing."""
    words = _WORDS.get(name)
    if words is not None and value.lower() not in words:
        return f"{name} is one of {', '.join(words)}{_hint(value, words)}"
    if name == "protocols":
        wrong = next((token for token in filter(None, value.split(":")) if not _PROTOCOL.fullmatch(token)), None)
        if wrong is not None:
            return (
                f'"{wrong}" is no protocol: SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3, also with >=, <= or ! before it'
            )
    is_fingerprint = name == "match" and level == "fingerprint"
    if is_fingerprint and not all(_FINGERPRINT.fullmatch(token) for token in value.split("|")):
        return "fingerprints are hexadecimal digits in pairs, with colons between them or not, and | between two"
    return ""


def _hint(value: str, words: Iterable[str]) -> str:
    return did_you_mean(value, ", ".join(f'"{word}"' for word in words))
