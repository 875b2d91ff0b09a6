"""The server of a configuration, from its start to its end: `run`. And `look_up`, the same once, without a server.

Order at the start: sockets first, so that what is wrong with them is said at once; then what was kept, then clients.
What is wrong around it (no validating resolver, Postfix without DNSSEC) is said, and keeps nobody from starting:
MTA-STS does not need it. For one process with one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from mailguard.config import Config, DnsConfig
from mailguard.dane.discover import InsecureMx
from mailguard.dns.answers import Resolver
from mailguard.dns.live import LiveResolver, ResolverConfig, open_resolver
from mailguard.dns.question import Question, RecordType
from mailguard.dns.servers import ServerAddress, server_addresses
from mailguard.dns.validation import PROBE, Validation, ValidationStatus, check_validation, only_trusted
from mailguard.domain import Domain
from mailguard.errors import ConfigError, MissingExtraError
from mailguard.mtasts.cache import CacheLimits, PolicyCache
from mailguard.mtasts.result import FetchOutcome
from mailguard.mtasts.store import PolicyStore
from mailguard.tlspolicy.decide import Decision, Mixed
from mailguard.tlspolicy.destinations import Destinations, LookupRules
from mailguard.tlspolicy.listening import ListeningSocket, open_socket
from mailguard.tlspolicy.next_hop import NextHop
from mailguard.tlspolicy.override import Overrides
from mailguard.tlspolicy.policy_source import PolicySource, in_thread
from mailguard.tlspolicy.postfix_settings import faults, read_settings
from mailguard.tlspolicy.reply_cache import CacheBounds, ReplyCache
from mailguard.tlspolicy.server import Server, ServerLimits

__all__ = ["check_surroundings", "look_up", "overrides_of", "resolver_config", "run"]

# What validates now may cease to: a resolver is replaced, or its trust anchor expires.
VALIDATION_INTERVAL_S = 600.0
# Until the resolver says something: both start with the host.
VALIDATION_AGAIN_S = 15.0
VALIDATION_TIME_S = 10.0
DNS_PORT = 53
_LOGGER = "mailguard"


def overrides_of(config: Config) -> Overrides:
    """Those of the configuration. Raises ConfigError."""
    try:
        return Overrides(config.tlspolicy.overrides)
    except ValueError as error:
        raise ConfigError(f"tlspolicy.overrides: {error}") from None


def resolver_config(config: Config) -> ResolverConfig:
    """How names are looked up: never at a server whose word does not count where there is one whose word does.

    When the trusted one failed, answers of the other would make what DANE protects look unsigned (RFC 7672 §2.1.1).
    """
    dns = config.dns
    made = ResolverConfig(
        nameservers=dns.nameservers,
        port=dns.port,
        query_timeout_s=dns.query_timeout_s,
        cache_entries=dns.cache_entries,
        cache_bytes=dns.cache_bytes,
        trust_ad=dns.trust_ad,
        zone_file=dns.zone_file,
    )
    if made.zone_file is not None:
        return made
    try:
        return only_trusted(made)
    except ConfigError:
        return made


def check_surroundings(config: Config) -> tuple[Validation, list[str] | None]:
    """Whether the resolver validates, and what is wrong with Postfix's settings; None where there is no Postfix."""
    return _validation(config), _settings_faults(config)


def _settings_faults(config: Config) -> list[str] | None:
    postconf = config.tlspolicy.postconf
    if postconf is None or not os.path.exists(postconf):
        return None
    try:
        found = faults(read_settings(postconf), config.tlspolicy.listen, mixed=Mixed(config.tlspolicy.mixed))
    except OSError as error:
        return [f"Postfix's settings cannot be read: {error}"]
    return [*found, *_other_resolvers(config.dns)]


async def look_up(config: Config, next_hop: NextHop) -> Decision:
    """What is found for `next_hop` now; nothing is kept."""
    with open_resolver(resolver_config(config)) as resolver:
        resolver.use_this_loop()
        async with _opened(config, resolver, None) as (destinations, _):
            return await destinations.decision(next_hop)


async def run(config: Config, *, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called when clients are answered. Raises ConfigError."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    sockets: list[ListeningSocket] = []
    try:
        for address in config.tlspolicy.listen:
            opened = open_socket(address, mode=config.tlspolicy.mode_bits, group=config.tlspolicy.group)
            sockets.append(opened)
        with open_resolver(resolver_config(config)) as resolver:
            # The zone of a file has nothing to do with it, and a server that is down is no error.
            resolver.use_this_loop()
            store = PolicyStore(config.tlspolicy.cache_file)
            async with _opened(config, resolver, store) as (destinations, policies):
                listening = [one.socket for one in sockets]
                await _serve(config, resolver, destinations, policies, listening, over, ready, stopping)
            await in_thread(store.close)
    finally:
        for each in sockets:
            each.close()


async def _serve(
    config: Config,
    resolver: Resolver,
    destinations: Destinations,
    policies: PolicySource | None,
    sockets: list[socket.socket],
    over: asyncio.Event,
    ready: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    log = logging.getLogger(_LOGGER)
    kept = await policies.load() if policies is not None else 0
    limits = ServerLimits(connections=config.tlspolicy.connections, idle_s=config.tlspolicy.idle_s)
    server = Server(destinations, limits)
    await server.start(sockets)
    ready()
    log.info("started", extra={"fields": {"listen": ",".join(config.tlspolicy.listen), "policies": kept}})
    steady = [server.sweep(), destinations.refresh(), _watch(config, resolver)]
    if policies is not None:
        steady.append(policies.keep_fresh())
    tasks = [asyncio.create_task(each) for each in steady]
    ended = asyncio.create_task(_until(over))
    try:
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        # None of them ends by itself: one that has is an error of ours, and is raised.
        for task in tasks:
            if task.done():
                task.result()
    finally:
        stopping()
        await server.close()
        for task in [ended, *tasks]:
            task.cancel()
        await asyncio.gather(ended, *tasks, return_exceptions=True)
    log.info("stopped")


async def _until(event: asyncio.Event) -> None:
    await event.wait()


@contextlib.asynccontextmanager
async def _opened(
    config: Config, resolver: Resolver, store: PolicyStore | None
) -> AsyncIterator[tuple[Destinations, PolicySource | None]]:
    settings = config.tlspolicy
    policies = None
    if settings.mta_sts:
        limits = CacheLimits(refreshes=settings.refreshes, fetches=settings.fetches + settings.refreshes)
        cache = PolicyCache(store, draw=random.random, limits=limits)
        policies = PolicySource(cache, limits, _fetch(config, resolver), resolver, lookup_s=config.dns.deadline_s)
    bounds = CacheBounds(
        entries=settings.cache_entries,
        bytes=settings.cache_bytes,
        refreshed_while_asked_s=settings.prefetch_s,
    )
    rules = LookupRules(
        deadline_s=config.dns.deadline_s,
        insecure_mx=InsecureMx(settings.insecure_mx),
        mixed=Mixed(settings.mixed),
        refreshes=settings.refreshes,
    )
    destinations = Destinations(
        resolver,
        policies,
        overrides=overrides_of(config),
        cache=ReplyCache(bounds, draw=random.random),
        rules=rules,
    )
    try:
        yield destinations, policies
    finally:
        await destinations.close()
        if policies is not None:
            await policies.close()


def _fetch(config: Config, resolver: Resolver) -> Callable[[Domain], FetchOutcome]:
    settings = config.tlspolicy
    try:
        # Only MTA-STS needs the extra [mta-sts].
        from mailguard.mtasts.fetch import PolicyFetcher
    except MissingExtraError as error:
        raise ConfigError(f"{error}; or set mta_sts = false in [tlspolicy]") from None
    return PolicyFetcher(
        resolver, ca_file=settings.ca_file, allowed_networks=settings.allowed_networks, port=settings.https_port
    ).fetch


def _other_resolvers(dns: DnsConfig, resolv_conf: str = "/etc/resolv.conf") -> Iterator[str]:
    """Postfix asks those of resolv.conf, and believes them: they have to validate as well."""
    if not dns.nameservers or dns.port != DNS_PORT or dns.zone_file is not None:
        return
    postfix = [server.address for server in server_addresses((), port=DNS_PORT, trust_ad=(), resolv_conf=resolv_conf)]
    others = [address for address in postfix if address not in dns.nameservers]
    if others:
        yield (
            f"Postfix looks names up at {', '.join(others)} of {resolv_conf}, which [dns] does not name: one that"
            " does not validate DNSSEC makes it keep mail for destinations with DANE back"
            "; name the same resolvers in both"
        )


def _validation(config: Config, servers: Sequence[ServerAddress] = ()) -> Validation:
    """Whether those of the configuration validate, or these, which are asked already."""
    probe = config.tlspolicy.dnssec_probe
    question = PROBE if probe is None else Question(probe, RecordType.A)
    deadline = time.monotonic() + VALIDATION_TIME_S
    found = resolver_config(config)
    if servers:
        found = replace(found, nameservers=_addresses(servers))
    return check_validation(found, deadline=deadline, probe=question)


def _addresses(servers: Iterable[ServerAddress]) -> tuple[str, ...]:
    return tuple(server.address for server in servers)


def _named_servers(config: Config) -> tuple[ServerAddress, ...]:
    """Those that a server would ask that started now."""
    found = resolver_config(config)
    return server_addresses(
        found.nameservers, port=found.port, trust_ad=found.trust_ad, resolv_conf=found.resolv_conf
    )


async def _watch(config: Config, resolver: Resolver) -> None:
    """Say what is wrong around us, once for each thing; what `resolver` asks is watched for as long as this runs."""
    watch = _Watch(config, resolver.servers if isinstance(resolver, LiveResolver) else ())
    log = logging.getLogger(_LOGGER)
    try:
        for fault in await in_thread(lambda: _settings_faults(config)) or ():
            log.error("Postfix's settings", extra={"fields": {"fault": fault}})
    except Exception:  # the edge: what only warns must not end what serves
        log.exception("Postfix's settings could not be examined: our own error")
    while True:
        pause_s = VALIDATION_INTERVAL_S
        try:
            pause_s = await watch.look()
        except Exception:  # the edge, as above
            log.exception("the resolver could not be examined: our own error")
        await asyncio.sleep(pause_s)


class _Watch:
    """What was said of the resolver last."""

    def __init__(self, config: Config, asked: tuple[ServerAddress, ...]) -> None:
        """`asked` are the servers of this process: resolv.conf is not read again for look-ups. None for a file."""
        self._config = config
        self._asked = self._named = asked
        self._before: ValidationStatus | None = None

    async def look(self) -> float:
        """Examine it, and say what has changed; in how many seconds again."""
        if self._asked:
            self._compare(await in_thread(lambda: _named_servers(self._config)))
        validation = await in_thread(lambda: _validation(self._config, self._asked))
        log, before = logging.getLogger(_LOGGER), self._before
        self._before = validation.status
        if validation.status is before:
            pass
        elif validation.status not in (ValidationStatus.VALIDATES, ValidationStatus.SOME_UNTRUSTED):
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
                "asked": ", ".join(_addresses(self._asked)),
                "named": ", ".join(_addresses(named)),
                "remedy": "restart this server",
            }
            logging.getLogger(_LOGGER).error("the resolvers have changed", extra={"fields": fields})
        self._named = named
