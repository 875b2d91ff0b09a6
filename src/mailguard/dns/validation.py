"""Is there a validating resolver whose word counts? Asked by what uses DANE, before it relies on that.

RFC 4035 §4.9.3 and RFC 7672 §2.1.1 (a stub resolver trusts a validating one over a safe way alone). The AD bit counts
from loopback and from the addresses in `trust_ad` (servers.py). Every server that may be asked has to be trusted and
has to validate: when the one in front fails, the next is asked, and a destination that was protected by DANE would
look unsigned. Left out: what the answers lead to. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NoReturn

from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Answer, Dnssec, Question, RecordType
from mailguard.dns.servers import ServerAddress
from mailguard.errors import ConfigError

__all__ = ["PROBE", "UNBOUND_LINES", "Validation", "ValidationStatus", "check_validation", "only_trusted"]

# Signed, and there as long as the DNS is. Not a name of one label: systemd-resolved does not look those up.
PROBE = Question("in-addr.arpa", RecordType.A)

UNBOUND_LINES = """\
server:
    interface: 127.0.0.1
    module-config: "validator iterator"
    auto-trust-anchor-file: "/var/lib/unbound/root.key"
    ede: yes
"""
"""What makes unbound validate, and say so when validation is what failed."""

_INSTALL = f"""\
Install unbound on this host, put these lines into /etc/unbound/unbound.conf.d/mailguard.conf where they are missing,

{UNBOUND_LINES}
and name it in mailguard.toml: [dns] nameservers = ["127.0.0.1"]
"""


class ValidationStatus(Enum):
    """Whether DNSSEC can be relied on."""

    VALIDATES = "validates"
    NO_TRUSTED_SERVER = "no-trusted-server"
    SOME_UNTRUSTED = "some-untrusted"
    """When the trusted ones fail, answers come from servers whose AD bit does not count."""
    DOES_NOT_VALIDATE = "does-not-validate"
    NO_ANSWER = "no-answer"
    """A trusted server does not answer, or finds bogus what is not: its trust anchor or its clock is wrong."""

    @property
    def is_reliable(self) -> bool:
        """Whether the word of the trusted servers counts."""
        return self in (ValidationStatus.VALIDATES, ValidationStatus.SOME_UNTRUSTED)


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found out."""

    status: ValidationStatus
    message: str
    """For people: what is wrong and what to do, in several lines; one sentence if nothing is."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a Validation is not true or false: compare its status")


def only_trusted(config: ResolverConfig) -> ResolverConfig:
    """`config` without the servers whose AD bit does not count. Raises ConfigError if none is left."""
    trusted = tuple(server.address for server in _servers(config) if server.trust_ad)
    if not trusted:
        raise ConfigError(f"no resolver is trusted to validate DNSSEC.\n{_INSTALL}")
    return replace(config, nameservers=trusted)


def check_validation(config: ResolverConfig, *, deadline: float, probe: Question = PROBE) -> Validation:
    """Ask each trusted server of `config` for `probe`, a name that is known to be signed.

    `deadline` is a reading of `time.monotonic()` in seconds. Raises ConfigError for an impossible configuration.
    """
    servers = _servers(config)
    untrusted = [server.address for server in servers if not server.trust_ad]
    trusted = [server for server in servers if server.trust_ad]
    if not trusted:
        asked = f"names are looked up at {_listed(untrusted)}" if servers else "answers come from a file"
        reason = "no DNS answer counts as validated, so that DANE is off"
        return Validation(ValidationStatus.NO_TRUSTED_SERVER, f"{asked}: {reason}.\n{_INSTALL}{_trust(untrusted)}")
    for server in trusted:
        answer = _ask(config, server, probe, deadline)
        if answer.has_failed:
            return Validation(
                ValidationStatus.NO_ANSWER, f"{_of(server, probe)} {answer.status.value}: {answer.detail}."
            )
        if answer.dnssec is not Dnssec.SECURE:
            message = (
                f"{_of(server, probe)} an answer without AD: it does not validate, so that DANE is off.\n{_INSTALL}"
            )
            return Validation(ValidationStatus.DOES_NOT_VALIDATE, message)
    if untrusted:
        message = (
            f"when {_listed([server.address for server in trusted])} fails, names are looked up at"
            f" {_listed(untrusted)}, whose word does not count: what DANE protects would look unsigned."
            f" Name trusted resolvers alone in [dns] nameservers.\n{_trust(untrusted)}"
        )
        return Validation(ValidationStatus.SOME_UNTRUSTED, message)
    return Validation(
        ValidationStatus.VALIDATES, f"{_listed([server.address for server in trusted])} validates DNSSEC."
    )


def _servers(config: ResolverConfig) -> tuple[ServerAddress, ...]:
    if config.zone_file is not None:
        return ()
    with LiveResolver(config) as resolver:
        return resolver.servers


def _ask(config: ResolverConfig, server: ServerAddress, probe: Question, deadline: float) -> Answer:
    with LiveResolver(replace(config, nameservers=(server.address,))) as resolver:
        return resolver.resolve([probe], deadline=deadline)[probe]


def _of(server: ServerAddress, probe: Question) -> str:
    return f"{server.address} gives for {probe}"


def _trust(addresses: Iterable[str]) -> str:
    quoted = ", ".join(f'"{address}"' for address in addresses)
    if not quoted:
        return ""
    return f"If they validate and nobody can get between them and this host: [dns] trust_ad = [{quoted}]\n"


def _listed(addresses: Iterable[str]) -> str:
    return " and ".join(addresses)
