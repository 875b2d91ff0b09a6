"""What the commands about DANE and MTA-STS take from the configuration, and the resolver that they need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import config_if_any
from mailguard.cli.parameters import FILE
from mailguard.cli.standard_error import tell
from mailguard.cli.waiting import waiting
from mailguard.config import DEFAULT_PATH
from mailguard.dane.discover import InsecureMx
from mailguard.dns.live import ResolverConfig
from mailguard.dns.question import Question, RecordType
from mailguard.dns.validation import PROBE, ValidationStatus, check_validation, only_trusted
from mailguard.errors import ConfigError

__all__ = ["LOOKUP_TIME_S", "RESOLVER_CONFIG_OPTION", "Settings", "settings", "validating"]

# All look-ups together, and the test of the resolver: nothing waits for it but the one who asks.
LOOKUP_TIME_S = 20.0
VALIDATION_TIME_S = 10.0

RESOLVER_CONFIG_OPTION = click.option(
    "-c",
    "--config",
    "config_file",
    type=FILE,
    metavar="CONFIG",
    help=f"Take the resolver from it. [default: {DEFAULT_PATH}]",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """From [dns] and [tlspolicy], or their defaults."""

    resolver: ResolverConfig
    probe: Question = PROBE
    insecure_mx: InsecureMx = InsecureMx.MAY
    ca_file: str | None = None
    allowed_networks: Sequence[IPv4Network | IPv6Network] = ()
    https_port: int = 443


def settings(path: str | None) -> Settings:
    """Those of the configuration, or the defaults where nobody named one and there is none. Raises ConfigError."""
    config = config_if_any(path)
    if config is None:
        return Settings(resolver=ResolverConfig())
    found, policy = config.dns, config.tlspolicy
    return Settings(
        resolver=ResolverConfig(
            nameservers=found.nameservers, port=found.port, zone_file=found.zone_file, trust_ad=found.trust_ad
        ),
        probe=PROBE if policy.dnssec_probe is None else Question(policy.dnssec_probe, RecordType.A),
        insecure_mx=InsecureMx(policy.insecure_mx),
        ca_file=policy.ca_file,
        allowed_networks=policy.allowed_networks,
        https_port=policy.https_port,
    )


def validating(found: Settings) -> ResolverConfig:
    """The resolvers whose word about DNSSEC counts, once they have shown that they validate.

    Raises ConfigError, with what to do, where there is none; ends the command with 75 where none answers.
    """
    deadline = time.monotonic() + VALIDATION_TIME_S
    with waiting("asking the resolver whether it validates DNSSEC"):
        validation = check_validation(found.resolver, deadline=deadline, probe=found.probe)
    if validation.status is ValidationStatus.NO_ANSWER:
        tell(validation.message)
        raise click.exceptions.Exit(ExitCode.TEMPORARY)
    if not validation.status.is_reliable:
        raise ConfigError(validation.message.rstrip())
    return only_trusted(found.resolver)
