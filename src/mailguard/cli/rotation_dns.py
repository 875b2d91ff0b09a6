"""RotationDns: what the authoritative servers of a domain have of its keys.

RFC 6376 §3.6.2 (where keys are), RFC 6376 §6.1.2 (how a verifier takes them). The servers are those of the zone that
_domainkey.DOMAIN is in. No name of a key is asked for with a recursive resolver: that would remember for others that
it is not there yet.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count

from mailguard.cli.live_records import live_records
from mailguard.cli.new_keys import GENERATORS, default_selector
from mailguard.config import DnsConfig
from mailguard.dkim.key import KeyRecord, KeyRecordError
from mailguard.dkim.result import DkimReason
from mailguard.dkim.signature import key_name
from mailguard.dns.authoritative import AuthoritativeDns, Unreachable
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import ConfigError
from mailguard.records.compare import Found
from mailguard.records.record import Record
from mailguard.rotation.state import RotatedKey, Rotation
from mailguard.rotation.step import Seen
from mailguard.taglist import TagList

__all__ = ["RotationDns"]

# A name for each month and a few more: who has used all of these has another problem.
MAX_NAMES_TRIED = 20
RANDOM_OCTETS = 8
# With a selector of ours, or a random name in its place, and ._domainkey. before it, it is a name still.
MAX_ROTATED_CHARS = MAX_DOMAIN_CHARS - len("._domainkey.") - len("mg") - 2 * RANDOM_OCTETS

REVOKED = "a revoked key (p= is empty)"

_ByServer = Mapping[str, Found]


class RotationDns:
    """The servers of one domain, asked within one half minute."""

    def __init__(self, config: DnsConfig, domain: Domain, silences: dict[str, int], *, is_quiet: bool) -> None:
        """`silences` are the servers' (dns/authoritative.py), of all domains of one command. Quiet: without progress.

        Raises Unreachable, and ConfigError for a domain with too long a name.
        """
        if len(domain) > MAX_ROTATED_CHARS:
            raise ConfigError(
                f"its name is too long for the selectors of rotation (over {MAX_ROTATED_CHARS} characters)"
            )
        self._domain = domain
        self._servers = AuthoritativeDns(config.nameservers, port=config.port, silences=silences)
        self._is_quiet = is_quiet
        self._zones: set[str] = set()
        self.any_ttl_s = 0
        """So long a cache may keep what a wildcard says of the names that `free_names` gave."""

    def seen(self, rotation: Rotation) -> list[Seen]:
        """What there is of each generation."""
        live = self._live([key.name(self._domain) for each in rotation.generations for key in each.keys])
        return [_seen_of(self._domain, each.keys, live) for each in rotation.generations]

    def negative_ttl_s(self) -> int:
        """So long a resolver may know that a record was not there. Raises Unreachable.

        Where a name is an alias, the zone of its target says it too.
        """
        zones = {self._servers.zone_of(f"_domainkey.{self._domain}"), *self._zones}
        return max(self._servers.negative_ttl_s(zone) for zone in zones)

    def fault_for_verifiers(self, keys: Sequence[RotatedKey]) -> str:
        """What keeps a recursive resolver from finding keys that every server has; empty if nothing does.

        A signature of the zone that is missing or wrong (DNSSEC), say, or servers that only it knows of.
        """
        for key in keys:
            name = key.name(self._domain)
            try:
                fault = _fault(key, self._servers.resolved(name, "TXT").values)
            except Unreachable as error:
                return f"the resolver of this host does not find them: {error}"
            if fault:
                return f"the resolver of this host has {fault} at {name}"
        return ""

    def free_names(self, now: float, taken: frozenset[str]) -> dict[str, str]:
        """A selector for a new key of each algorithm: not in `taken`, and with nothing at it on any server.

        Raises Unreachable where a server cannot be asked.
        """
        today = datetime.fromtimestamp(now, UTC).date()
        for number in count(1):
            suffix = "" if number == 1 else str(number)
            names = {algorithm: default_selector(algorithm, today) + suffix for algorithm in GENERATORS}
            if not taken & set(names.values()) and self._are_free(list(names.values())):
                return names
            if number > MAX_NAMES_TRIED + len(taken):
                raise ConfigError(f"{names['rsa']}._domainkey.{self._domain}: this name and those before are taken")
        raise AssertionError

    def _are_free(self, selectors: Sequence[str]) -> bool:
        # What a wildcard says of any name at all says nothing of these.
        any_name = f"mg{secrets.token_hex(RANDOM_OCTETS)}"
        live = self._live([key_name(selector, self._domain) for selector in (*selectors, any_name)])
        elsewhere = live[key_name(any_name, self._domain)]
        for selector in selectors:
            there = live[key_name(selector, self._domain)]
            faults = [f"{server}: {found.fault}" for server, found in there.items() if found.fault]
            if faults or not there:
                raise Unreachable("; ".join(faults) or "no server was found")
            if there != elsewhere and any(found.values for found in there.values()):
                return False
            # An alias shows in who answered.
            if there.keys() != elsewhere.keys():
                return False
        self.any_ttl_s = max(found.ttl_s for found in elsewhere.values())
        return True

    def _live(self, names: Sequence[str]) -> dict[str, _ByServer]:
        records = [Record(name=name, rdtype="TXT", value="", why="") for name in dict.fromkeys(names)]
        live = live_records(self._servers, records, is_quiet=self._is_quiet) if records else {}
        self._zones |= {found.zone for by_server in live.values() for found in by_server.values() if found.zone}
        return {name: found for (name, _), found in live.items()}


def _seen_of(domain: Domain, keys: Sequence[RotatedKey], live: Mapping[str, _ByServer]) -> Seen:
    lost: list[str] = []
    silent: list[str] = []
    is_gone = is_revoked = True
    ttl_s = other_ttl_s = 0
    for key in keys:
        name = key.name(domain)
        if not live[name]:
            silent.append("no server was found")
        for server, found in live[name].items():
            ttl_s = max(ttl_s, found.ttl_s)
            if found.fault:
                silent.append(f"{server}: {found.fault}")
            elif fault := _fault(key, found.values):
                lost.append(f"{server} has {fault} at {name}")
                is_revoked &= fault == REVOKED
                other_ttl_s = max(other_ttl_s, found.ttl_s)
            is_gone &= not found.fault and not any(_has(key, value) for value in found.values)
    is_gone &= not silent
    return Seen(
        tuple(dict.fromkeys(lost)),
        tuple(dict.fromkeys(silent)),
        is_gone,
        is_revoked and bool(lost),
        ttl_s,
        other_ttl_s,
    )


def _has(key: RotatedKey, value: str) -> bool:
    """Whether the key is in a record, whatever else is."""
    published = TagList.parse(key.record.encode("ascii")).compact("p").decode("ascii")
    return published.rstrip("=") in "".join(value.split())  # RFC 6376 §2.10: base64 need have no "=" at its end


def _fault(key: RotatedKey, values: Sequence[str]) -> str:
    """What a verifier would find there instead of the key; empty if it would find the key."""
    if len(values) != 1:
        return f"{len(values)} records" if values else "nothing"
    try:
        found = KeyRecord.parse(values[0].encode("utf-8"), key_type=key.algorithm)
    except KeyRecordError as error:
        if error.reason is DkimReason.KEY_REVOKED:
            return REVOKED
        return f"a record that no signature verifies with ({error})"
    own = KeyRecord.parse(key.record.encode("ascii"), key_type=key.algorithm)
    if found.key != own.key:
        return "another key"
    return "the key marked as a test (t=y)" if found.testing else ""
