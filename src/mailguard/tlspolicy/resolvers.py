"""Which resolvers are asked, whether their word counts, and what is said of them while the server runs.

RFC 7672 §2.1.1 (a resolver to trust). Blocks where it asks them; the watch is for one event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mailguard import configured_dns
from mailguard.config import Config
from mailguard.dns.live import ResolverConfig
from mailguard.dns.question import Question, RecordType
from mailguard.dns.servers import ServerAddress, server_addresses
from mailguard.dns.validation import PROBE, Validation, ValidationStatus, check_validation, only_trusted
from mailguard.errors import ConfigError
from mailguard.tlspolicy.policy_source import in_thread

__all__ = ["ResolverWatch", "addresses", "named_servers", "resolver_config", "validation_of"]

# What validates now may cease to: a resolver is replaced, or its trust anchor expires.
VALIDATION_INTERVAL_S = 600.0
# Until the resolver says something: both start with the host.
VALIDATION_AGAIN_S = 15.0
VALIDATION_TIME_S = 10.0
_LOGGER = "mailguard"


def resolver_config(config: Config) -> ResolverConfig:
    """How names are looked up: never at a server whose word does not count where there is one whose word does.

    When the trusted one failed, answers of the other would make what DANE protects look unsigned (RFC 7672 §2.1.1).
    """
    made = configured_dns.resolver_config(config.dns)
    if made.zone_file is not None:
        return made
    try:
        return only_trusted(made)
    except ConfigError:
        return made


def validation_of(config: Config, servers: Sequence[ServerAddress] = ()) -> Validation:
    """Whether those of the configuration validate, or these, which are asked already. Takes up to 10 seconds."""
    probe = config.tlspolicy.dnssec_probe
    question = PROBE if probe is None else Question(probe, RecordType.A)
    deadline = time.monotonic() + VALIDATION_TIME_S
    found = resolver_config(config)
    if servers:
        # What counted when they were first asked still does.
        trusted = tuple(server.address for server in servers if server.trust_ad)
        found = replace(found, nameservers=addresses(servers), port=servers[0].port, trust_ad=trusted, zone_file=None)
    return check_validation(found, deadline=deadline, probe=question)


def addresses(servers: Iterable[ServerAddress]) -> tuple[str, ...]:
    """Without their ports."""
    return tuple(server.address for server in servers)


def named_servers(config: Config) -> tuple[ServerAddress, ...]:
    """Those that a server would ask that started now."""
    found = resolver_config(config)
    if found.zone_file is not None:
        return ()
    return server_addresses(
        found.nameservers, port=found.port, trust_ad=found.trust_ad, resolv_conf=found.resolv_conf
    )


class ResolverWatch:
    """What was said of the resolver last."""

    def __init__(self, config: Config, asked: tuple[ServerAddress, ...]) -> None:
        """`asked` are the servers of this process: resolv.conf is not read again for look-ups. None for a file."""
        self._config = config
        self._asked = self._named = asked
        self._before: ValidationStatus | None = None

    async def look(self) -> float:
        """Examine it, and say what has changed; in how many seconds again."""
        if self._asked:
            self._compare(await in_thread(lambda: named_servers(self._config)))
        validation = await in_thread(lambda: validation_of(self._config, self._asked))
        log, before = logging.getLogger(_LOGGER), self._before
        self._before = validation.status
        if validation.status is before:
            pass
        elif not validation.status.is_reliable:
            fields = {
                "status": validation.status.value,
                "cause": validation.message.partition("\n")[0],
                "remedy": "mailguard tlspolicy check",
            }
            log.error("DANE is off", extra={"fields": fields})
        elif before is not None:
            log.info("DANE is on", extra={"fields": {"resolver": validation.message}})
        return VALIDATION_AGAIN_S if validation.status is ValidationStatus.NO_ANSWER else VALIDATION_INTERVAL_S

    def _compare(self, named: tuple[ServerAddress, ...]) -> None:
        if named not in (self._named, self._asked):
            fields = {
                "asked": ", ".join(addresses(self._asked)),
                "named": ", ".join(addresses(named)),
                "remedy": "reload this server",
            }
            logging.getLogger(_LOGGER).error("the resolvers have changed", extra={"fields": fields})
        self._named = named
