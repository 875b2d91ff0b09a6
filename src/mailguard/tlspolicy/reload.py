"""What SIGHUP changes while the server runs: the resolvers, the overrides, and the rules of look-ups.

Clients stay connected, and what is known of MTA-STS policies stays. Resolvers that would make what DANE protects look
unsigned do not take the place of resolvers that validate (RFC 7672 §2.1.1): those stay, and where they are gone, mail
waits. For one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from mailguard.config import Config
from mailguard.dns.answers import Peek, Resolver
from mailguard.dns.live import LiveResolver, open_resolver
from mailguard.dns.question import Answer, Question
from mailguard.dns.servers import ServerAddress, trust_word
from mailguard.dns.validation import ValidationStatus
from mailguard.errors import MailguardError
from mailguard.tlspolicy.policy_source import in_thread
from mailguard.tlspolicy.resolvers import addresses, named_servers, resolver_config, validation_of

__all__ = ["Reload", "ReplaceableResolver", "trust_fields"]

# Look-ups that have begun at the old one end before it is closed: none is waited for longer.
LINGER_S = 60.0
# Of [tlspolicy], what a running server can change.
_CHANGED_AT_ONCE = frozenset({"overrides", "insecure_mx", "mixed", "dnssec_probe", "postconf"})
_LOGGER = "mailguard"


def trust_fields(servers: Iterable[ServerAddress]) -> dict[str, str]:
    """For a line of the log: whether DNSSEC is trusted, and of whom."""
    listed = tuple(servers)
    return {"dnssec": trust_word(listed), "resolvers": ", ".join(addresses(listed))}


class ReplaceableResolver(Resolver):
    """Asks another resolver, in whose place a further one can be put. Closes each."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._old: set[Resolver] = set()

    @property
    def servers(self) -> tuple[ServerAddress, ...]:
        """Those that are asked; none where answers come from a file."""
        return self._resolver.servers if isinstance(self._resolver, LiveResolver) else ()

    def replace(self, resolver: Resolver) -> None:
        """Ask this one from now on. To be called on the event loop."""
        old, self._resolver = self._resolver, resolver
        self._old.add(old)
        asyncio.get_running_loop().call_later(LINGER_S, self._let_go, old)

    def _let_go(self, old: Resolver) -> None:
        self._old.discard(old)
        old.close()

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """See Resolver.resolve."""
        return self._resolver.resolve(questions, deadline=deadline)

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """See Resolver.resolve_async."""
        return await self._resolver.resolve_async(questions, deadline=deadline)

    def prefetch(self, questions: Iterable[Question]) -> None:
        """See Resolver.prefetch."""
        self._resolver.prefetch(questions)

    def at_hand(self, question: Question) -> Answer | None:
        """See Resolver.at_hand."""
        return self._resolver.at_hand(question)

    def reader(self) -> Peek:
        """See Resolver.reader."""
        return self._resolver.reader()

    def use_this_loop(self) -> None:
        """See Resolver.use_this_loop."""
        self._resolver.use_this_loop()

    def close(self) -> None:
        """See Resolver.close."""
        for each in (self._resolver, *self._old):
            each.close()


class Reload:
    """What has been read last, and reading it again."""

    def __init__(
        self,
        config: Config,
        resolver: ReplaceableResolver,
        read: Callable[[], Config],
        apply: Callable[[Config, Config, bool], None],
    ) -> None:
        """`read` reads the configuration anew and blocks; `apply` takes what has changed, but for the resolver.

        Its last argument says whether others are asked from now on.
        """
        self.config = config
        self._dns = resolver_config(config)
        self._resolver = resolver
        self._read = read
        self._apply = apply

    async def again(self) -> None:
        """Read the configuration and resolv.conf, and say what came of it. Raises nothing that they may hold."""
        log = logging.getLogger(_LOGGER)
        try:
            config = await in_thread(self._read)
            named = await in_thread(lambda: named_servers(config))
            is_kept = await self._would_lose_trust(config, named)
            is_new = not is_kept and self._take_over(config, named)
        except MailguardError as error:
            log.error("reload failed; the old configuration stays", extra={"fields": {"why": str(error)}})
            return
        before, self.config = self.config, config
        self._apply(before, config, is_new)
        asked = self._resolver.servers
        if is_kept:
            fields = {
                "asked": ", ".join(addresses(asked)),
                "named": ", ".join(addresses(named)) or "a file",
                "remedy": "name resolvers that validate; a restart takes these, and turns DANE off",
            }
            log.warning("DNSSEC would not be trusted any more: the old resolvers stay", extra={"fields": fields})
        if waiting := _changed_at_start_alone(before, config):
            log.warning(
                "changed: that takes effect at the next start", extra={"fields": {"keys": ", ".join(waiting)}}
            )
        log.info("reloaded", extra={"fields": trust_fields(asked)})

    async def _would_lose_trust(self, config: Config, named: tuple[ServerAddress, ...]) -> bool:
        asked = self._resolver.servers
        if named == asked or trust_word(asked) != "trusted":
            return False
        if trust_word(named) == "trusted":
            found = await in_thread(lambda: validation_of(config, named))
            if found.status.is_reliable:
                return False
        # Only what is there can be lost. One that does not answer now may have gone with the old resolv.conf.
        before = await in_thread(lambda: validation_of(config, asked))
        return before.status.is_reliable or before.status is ValidationStatus.NO_ANSWER

    def _take_over(self, config: Config, named: tuple[ServerAddress, ...]) -> bool:
        """Whether there was anything to take over."""
        dns = resolver_config(config)
        if (dns, named) == (self._dns, self._resolver.servers) and dns.zone_file is None:
            return False
        # These, which were examined, whatever resolv.conf says by now.
        fresh = open_resolver(replace(dns, nameservers=addresses(named)))
        try:
            fresh.use_this_loop()
        except OSError:
            fresh.close()
            raise
        self._resolver.replace(fresh)
        self._dns = dns
        return True


def _changed_at_start_alone(before: Config, after: Config) -> list[str]:
    old, new = before.tlspolicy.model_dump(), after.tlspolicy.model_dump()
    changed = [f"tlspolicy.{key}" for key in new if key not in _CHANGED_AT_ONCE and new[key] != old[key]]
    return [*changed, *(["log.format"] if before.log.format != after.log.format else [])]
