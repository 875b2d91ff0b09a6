"""The server of TLS policies for tests: in this process, on an event loop of its own, with a DNS that can be broken.

Clients are real sockets, or Postfix's postmap. What is fetched is a function of the test's, and so are both clocks.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mailguard.dns.answers import Resolver
from mailguard.dns.question import Answer, Question, Status
from mailguard.domain import Domain
from mailguard.mtasts.cache import CacheLimits, PolicyCache
from mailguard.mtasts.result import FetchOutcome, FetchReason
from mailguard.mtasts.store import PolicyStore
from mailguard.tlspolicy.destinations import Destinations, LookupRules
from mailguard.tlspolicy.listening import ListeningSocket, open_socket
from mailguard.tlspolicy.override import Overrides
from mailguard.tlspolicy.policy_source import PolicySource
from mailguard.tlspolicy.reply_cache import CacheBounds, ReplyCache
from mailguard.tlspolicy.server import Server, ServerLimits
from mailguard.tlspolicy.socketmap import Reply, encode_request, parse_reply
from postfix_commands import write_main_cf

__all__ = [
    "PATIENCE_S",
    "POSTMAP",
    "SETTINGS",
    "BreakableResolver",
    "Client",
    "TlsPolicySite",
    "nothing_to_fetch",
]

POSTMAP = shutil.which("postmap", path="/usr/sbin:/usr/bin:/usr/local/sbin")
PATIENCE_S = 30.0
SETTINGS = {
    "mail_version": "3.7.11",
    "smtp_dns_support_level": "dnssec",
    "smtp_host_lookup": "dns",
    "smtp_tls_security_level": "dane",
    "smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8461:QUERY",
    "smtp_tls_CAfile": "",
    "smtp_tls_CApath": "/etc/ssl/certs",
    "tls_append_default_CA": "no",
}
T = TypeVar("T")


def nothing_to_fetch(domain: Domain) -> FetchOutcome:
    return FetchOutcome(reason=FetchReason.NO_ADDRESS, detail="made up")


class BreakableResolver(Resolver):
    """Another resolver, in front of which everything, or what a test names, can be made to fail or to wait."""

    def __init__(self, truth: Resolver) -> None:
        self.truth = truth
        self.fails: Callable[[Question], bool] = lambda question: False
        self.delay_s = 0.0
        self.asked: list[Question] = []

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        wanted = list(questions)
        self.asked += wanted
        answers = self.truth.resolve(wanted, deadline=deadline)
        return {
            question: Answer(question, Status.TEMPFAIL, detail="broken") if self.fails(question) else answer
            for question, answer in answers.items()
        }

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return self.resolve(questions, deadline=deadline)

    def prefetch(self, questions: Iterable[Question]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self.truth.close()


class Client:
    """A socketmap client that says what it is told to."""

    def __init__(self, path: str | int) -> None:
        """`path` of a unix socket, or a port on 127.0.0.1."""
        self.socket = socket.socket(socket.AF_UNIX if isinstance(path, str) else socket.AF_INET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path if isinstance(path, str) else ("127.0.0.1", path))
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> Reply:
        while True:
            end = self._received.find(b",")
            colon = self._received.find(b":")
            if colon > 0:
                end = colon + int(self._received[:colon]) + 2
                if len(self._received) >= end:
                    found = parse_reply(self._received[:end])
                    assert found is not None
                    self._received = self._received[end:]
                    return found
            octets = self.socket.recv(65_536)
            assert octets, "the server has closed"
            self._received += octets

    def ask(self, key: str, *, map_name: bytes = b"QUERY") -> Reply:
        self.send(encode_request(map_name, key.encode()))
        return self.reply()

    def is_closed(self, *, within_s: float = PATIENCE_S) -> bool:
        """Whether the server closes; what it sends before is dropped."""
        self.socket.settimeout(within_s)
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True


class _ClientTime:
    """The clock by which clients are idle: that of the loop, and what a test lets pass at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.passed_s = 0.0

    def time(self) -> float:
        return self._loop.time() + self.passed_s


class TlsPolicySite:
    """A context manager: entered, it serves on a unix socket and on a port of 127.0.0.1."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        fetch: Callable[[Domain], FetchOutcome] = nothing_to_fetch,
        store: PolicyStore | None = None,
        overrides: Overrides | None = None,
        limits: ServerLimits | None = None,
        bounds: CacheBounds | None = None,
        sts_limits: CacheLimits | None = None,
        rules: LookupRules | None = None,
    ) -> None:
        self.resolver = BreakableResolver(resolver)
        self.now = 1_800_000_000.0
        """The time of day, and of the cache of replies too."""
        self.policies = PolicyCache(store, draw=lambda: 0.5, limits=sts_limits)
        self._sts_limits = sts_limits or CacheLimits()
        self._fetch = fetch
        self._overrides = overrides or Overrides({})
        self._limits = limits or ServerLimits()
        self.cache = ReplyCache(bounds or CacheBounds(), draw=lambda: 0.5)
        self._rules = rules or LookupRules()
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="mailguard-tlspolicy-"))
        write_main_cf(self.directory)
        self.path = str(self.directory / "socketmap")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait(PATIENCE_S)
        assert self._failure is None, self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert self._failure is None, self._failure

    def client(self) -> Client:
        return Client(self.path)

    def ask(self, key: str, *, map_name: bytes = b"QUERY") -> str:
        """`OK dane-only`, `NOTFOUND`, `TEMP`: the reason of what failed is left out."""
        with self.client() as client:
            reply = client.ask(key, map_name=map_name)
        return f"OK {reply.text}" if reply.status.value == "OK" else reply.status.value

    def postmap(self, key: str, *, map_name: str = "QUERY", inet: bool = False) -> tuple[int, str, str]:
        """What Postfix's own client makes of it: exit code, standard output, standard error."""
        assert POSTMAP is not None
        place = f"inet:127.0.0.1:{self.port}" if inet else f"unix:{self.path}"
        done = subprocess.run(
            [POSTMAP, "-c", str(self.directory), "-q", key, f"socketmap:{place}:{map_name}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def pass_time(self, seconds: float) -> None:
        """For clients, whose idle time no test has to wait for; the sweep comes a second later at most."""
        self._client_time.passed_s += seconds

    def in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()
            raise

    async def _serve(self) -> None:
        self.loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.source = PolicySource(
            self.policies, self._sts_limits, self._fetch, self.resolver, lookup_s=8.0, now=lambda: self.now
        )
        self.destinations = Destinations(
            self.resolver,
            self.source,
            overrides=self._overrides,
            cache=self.cache,
            rules=self._rules,
            clock=lambda: self.now,
        )
        inet = socket.create_server(("127.0.0.1", 0))
        inet.setblocking(False)
        self.port = inet.getsockname()[1]
        sockets = [open_socket(f"unix:{self.path}", mode=0o600, group=None), ListeningSocket(inet)]
        await self.source.load()
        self.server = Server(self.destinations, self._limits)
        self._client_time = _ClientTime(self.loop)
        await self.server.start([one.socket for one in sockets])
        self.server._loop = self._client_time  # type: ignore[assignment]  # it asks for nothing else from now on
        steady = (self.server.sweep(), self.destinations.refresh(), self.source.keep_fresh())
        self.tasks = tasks = [asyncio.create_task(each) for each in steady]
        self._ready.set()
        await self._over.wait()
        await self.server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.destinations.close()
        await self.source.close()
        for one in sockets:
            one.close()
