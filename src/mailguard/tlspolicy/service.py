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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial

from mailguard.clock import clock_that_never_sleeps
from mailguard.config import Config, DnsConfig
from mailguard.dane.discover import InsecureMx
from mailguard.dns.answers import Resolver
from mailguard.dns.live import open_resolver
from mailguard.dns.servers import ServerAddress, server_addresses
from mailguard.dns.validation import Validation
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
from mailguard.tlspolicy.postfix_settings import RESOLV_CONF, faults, read_settings, resolver_copy
from mailguard.tlspolicy.reload import Reload, ReplaceableResolver, trust_fields
from mailguard.tlspolicy.reply_cache import CacheBounds, ReplyCache
from mailguard.tlspolicy.resolvers import VALIDATION_INTERVAL_S, ResolverWatch, resolver_config, validation_of
from mailguard.tlspolicy.server import Server, ServerLimits

__all__ = ["check_surroundings", "look_up", "overrides_of", "run"]

DNS_PORT = 53
_LOGGER = "mailguard"


def overrides_of(config: Config) -> Overrides:
    """Those of the configuration. Raises ConfigError."""
    try:
        return Overrides(config.tlspolicy.overrides)
    except ValueError as error:
        raise ConfigError(f"tlspolicy.overrides: {error}") from None


def check_surroundings(config: Config) -> tuple[Validation, list[str] | None]:
    """Whether the resolver validates, and what is wrong with Postfix's settings; None where there is no Postfix."""
    return validation_of(config), _settings_faults(config)


def _settings_faults(config: Config) -> list[str] | None:
    postconf = config.tlspolicy.postconf
    if postconf is None or not os.path.exists(postconf):
        return None
    try:
        settings = read_settings(postconf)
        copy = resolver_copy(postconf, settings)
    except OSError as error:
        return [f"Postfix's settings cannot be read: {error}"]
    found = faults(settings, config.tlspolicy.listen, mixed=Mixed(config.tlspolicy.mixed))
    return [*found, *_other_resolvers(config.dns, copy=copy)]


async def look_up(config: Config, next_hop: NextHop) -> Decision:
    """What is found for `next_hop` now; nothing is kept."""
    with open_resolver(resolver_config(config)) as resolver:
        resolver.use_this_loop()
        async with _opened(config, resolver, None) as (destinations, _):
            return await destinations.decision(next_hop)


async def run(
    config: Config, *, read: Callable[[], Config], ready: Callable[[], None], stopping: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called when clients are answered. Raises ConfigError.

    At SIGHUP `read` gives the configuration anew; who calls this may have blocked that signal until now.
    """
    over, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
    sockets: list[ListeningSocket] = []
    try:
        for address in config.tlspolicy.listen:
            opened = open_socket(address, mode=config.tlspolicy.mode_bits, group=config.tlspolicy.group)
            sockets.append(opened)
        with ReplaceableResolver(open_resolver(resolver_config(config))) as resolver:
            # The zone of a file has nothing to do with it, and a server that is down is no error.
            resolver.use_this_loop()
            store = PolicyStore(config.tlspolicy.cache_file)
            async with _opened(config, resolver, store) as (destinations, policies):
                listening = [one.socket for one in sockets]
                reload = Reload(config, resolver, partial(_checked, read), partial(_apply, destinations, policies))
                await _serve(reload, resolver, destinations, policies, listening, (over, hangup), ready, stopping)
            await in_thread(store.close)
    finally:
        for each in sockets:
            each.close()


async def _serve(
    reload: Reload,
    resolver: ReplaceableResolver,
    destinations: Destinations,
    policies: PolicySource | None,
    sockets: list[socket.socket],
    signals: tuple[asyncio.Event, asyncio.Event],
    ready: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    log, config, (over, hangup) = logging.getLogger(_LOGGER), reload.config, signals
    kept = await policies.load() if policies is not None else 0
    limits = ServerLimits(connections=config.tlspolicy.connections, idle_s=config.tlspolicy.idle_s)
    server = Server(destinations, limits)
    await server.start(sockets)
    ready()
    fields = {"listen": ",".join(config.tlspolicy.listen), "policies": kept, **trust_fields(resolver.servers)}
    log.info("started", extra={"fields": fields})
    steady = [server.sweep(), destinations.refresh(), _follow(reload, resolver, hangup)]
    if policies is not None:
        steady.append(policies.keep_fresh())
    tasks = [asyncio.create_task(each) for each in steady]
    ended = asyncio.create_task(over.wait())
    try:
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        # None of them ends by itself: one that has is an error of ours, and is raised.
        for task in tasks:
            if task.done():
                task.result()
    finally:
        stopping()
        await server.close()
        for each in (ended, *tasks):
            each.cancel()
        await asyncio.gather(ended, *tasks, return_exceptions=True)
    log.info("stopped")


async def _follow(reload: Reload, resolver: ReplaceableResolver, hangup: asyncio.Event) -> None:
    """Watch what is around us, and read all of it again at each SIGHUP."""
    while True:
        watching = asyncio.create_task(_watch(reload.config, resolver.servers))
        called = asyncio.create_task(hangup.wait())
        try:
            await asyncio.wait([watching, called], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                # It does not end by itself.
                watching.result()
        finally:
            for task in (watching, called):
                task.cancel()
            await asyncio.gather(watching, called, return_exceptions=True)
        hangup.clear()
        try:
            await reload.again()
        except Exception:  # the edge: what serves goes on as it is
            logging.getLogger(_LOGGER).exception("reload failed: our own error")


def _checked(read: Callable[[], Config]) -> Config:
    config = read()
    overrides_of(config)
    return config


def _apply(
    destinations: Destinations, policies: PolicySource | None, before: Config, config: Config, is_resolver_new: bool
) -> None:
    if policies is not None:
        policies.lookup_s = config.dns.deadline_s
    # What looked unsigned to resolvers that did not validate may be protected (RFC 7672 §2.1.1).
    if is_resolver_new or (overrides_of(config), _rules(config)) != (overrides_of(before), _rules(before)):
        destinations.change(overrides_of(config), _rules(config), _reply_cache(config))


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
    destinations = Destinations(
        resolver,
        policies,
        overrides=overrides_of(config),
        cache=_reply_cache(config),
        rules=_rules(config),
        clock=clock_that_never_sleeps(),
    )
    try:
        yield destinations, policies
    finally:
        await destinations.close()
        if policies is not None:
            await policies.close()


def _reply_cache(config: Config) -> ReplyCache:
    settings = config.tlspolicy
    bounds = CacheBounds(
        entries=settings.cache_entries,
        bytes=settings.cache_bytes,
        refreshed_while_asked_s=settings.prefetch_s,
    )
    return ReplyCache(bounds, draw=random.random)


def _rules(config: Config) -> LookupRules:
    settings = config.tlspolicy
    return LookupRules(
        deadline_s=config.dns.deadline_s,
        insecure_mx=InsecureMx(settings.insecure_mx),
        mixed=Mixed(settings.mixed),
        refreshes=settings.refreshes,
    )


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


def _other_resolvers(dns: DnsConfig, resolv_conf: str = RESOLV_CONF, *, copy: str | None = None) -> Iterator[str]:
    """Postfix asks those of resolv.conf, or of a copy in a chroot, and believes them: they must validate as well."""
    if dns.port != DNS_PORT or dns.zone_file is not None:
        return
    ours = _addresses(dns.nameservers, resolv_conf)
    others = [address for address in _addresses((), copy or resolv_conf) if address not in ours]
    if others:
        where = "[dns]" if dns.nameservers else resolv_conf
        remedy = f"; then systemctl restart postfix copies {resolv_conf} there, a reload does not" if copy else ""
        yield (
            f"Postfix looks names up at {', '.join(others)} of {copy or resolv_conf}, which {where} does not name:"
            " one that does not validate DNSSEC makes it keep mail for destinations with DANE back"
            f"; name the same resolvers in both{remedy}"
        )


def _addresses(nameservers: Iterable[str], resolv_conf: str) -> list[str]:
    found = server_addresses(nameservers, port=DNS_PORT, trust_ad=(), resolv_conf=resolv_conf)
    return [server.address for server in found]


async def _watch(config: Config, asked: tuple[ServerAddress, ...]) -> None:
    """Say what is wrong around us, once for each thing; the servers that are `asked`, for as long as this runs."""
    watch = ResolverWatch(config, asked)
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
