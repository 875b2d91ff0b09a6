"""LiveResolver and its servers: which to ask, whom to trust, outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dns_asking import PATIENCE_S, SHORT_S, ask, open_files, resolver_of, txt
from dns_clock import ask_here, lent_to, pass_time, run_by_hand, until, until_count
from dns_fault_server import Behaviour, FaultServer, Request, after, garbage, says, silence, truth
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Dnssec, Status
from mailguard.dns.servers import server_addresses
from sandbox_place import free_port


@pytest.mark.attack("N01")
def test_whose_ad_bit_counts() -> None:
    servers = server_addresses(
        ["127.0.0.1", "127.8.8.8", "::1", "192.0.2.53", "2001:DB8:0::53", "192.0.2.54", "127.0.0.1"],
        port=53,
        trust_ad=["192.0.2.54", "2001:db8::53"],
        resolv_conf="/nonexistent",
    )
    assert [(server.address, server.trust_ad) for server in servers] == [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("192.0.2.53", False),
        ("2001:db8::53", True),
        ("192.0.2.54", True),
    ]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (None, ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("# nameserver 192.0.2.1\nnameserver\nnameserver nonsense\n", ["127.0.0.1"]),
        ("nameserver 192.0.2.1 # x\n\nnameserver\t2001:db8::1\n", ["192.0.2.1", "2001:db8::1"]),
        ("".join(f"nameserver 192.0.2.{number}\n" for number in range(5)), ["192.0.2.0", "192.0.2.1", "192.0.2.2"]),
    ],
)
def test_resolv_conf(tmp_path: Path, text: str | None, addresses: list[str]) -> None:
    if text is not None:
        (tmp_path / "resolv.conf").write_text(text)
    with LiveResolver(ResolverConfig(resolv_conf=str(tmp_path / "resolv.conf"))) as resolver:
        assert [server.address for server in resolver.servers] == addresses


class Trio:
    """Three servers at one port of three loopback addresses."""

    def __init__(self, stack: ExitStack, *behaviours: Behaviour) -> None:
        first = stack.enter_context(FaultServer(behaviours[0], address="127.0.0.1"))
        self.servers = [first]
        for number, behaviour in enumerate(behaviours[1:], 2):
            address = f"127.0.0.{number}"
            self.servers.append(stack.enter_context(FaultServer(behaviour, address=address, port=first.port)))

    def asked(self) -> list[int]:
        return [len(server.requests) for server in self.servers]


@pytest.mark.attack("N14")
@pytest.mark.parametrize(
    "broken",
    [silence, after(60.0, truth), says(rcode="SERVFAIL"), says(rcode="REFUSED"), says(rcode="FORMERR"), garbage],
    ids=["dead", "slow", "servfail", "refused", "formerr", "garbage"],
)
def test_a_broken_server_is_asked_last_and_comes_back(request: pytest.FixtureRequest, broken: Behaviour) -> None:
    now = [1000.0]
    refuses = request.node.callspec.id in ("servfail", "refused", "formerr")

    async def main(trio: Trio, resolver: LiveResolver) -> None:
        async with lent_to(resolver):
            for number in range(10):
                in_vain = 1 if number < 2 and not refuses else 0
                answer = await ask_here(
                    resolver, f"{number}.test", lost=lambda: trio.asked()[0], times=in_vain, timeout_s=SHORT_S
                )
                assert answer.status is Status.NOERROR
            assert trio.asked() == [2, 10, 0]
            # Still broken: it is tried beside a look-up, which does not wait for it.
            now[0] += 60
            assert (await ask_here(resolver, "x.test")).texts() == (b"x.test",)
            await until(lambda: trio.asked() == [3, 11, 0])
            await pass_time(SHORT_S)
            trio.servers[0].behaviour = truth
            now[0] += 60
            assert (await ask_here(resolver, "y.test")).texts() == (b"y.test",)
            await until(lambda: trio.asked() == [4, 12, 0])
            # The answer that ends the blame is perhaps on its way.
            end = time.monotonic() + PATIENCE_S
            while not (await ask_here(resolver, f"{time.monotonic_ns()}.test")).detail.startswith("127.0.0.1:"):
                assert time.monotonic() < end

    with ExitStack() as stack:
        trio = Trio(stack, broken, truth, truth)
        run_by_hand(main(trio, resolver_of(*trio.servers, query_timeout_s=SHORT_S, clock=lambda: now[0])))


@pytest.mark.attack("N14")
@pytest.mark.parametrize("everywhere", [silence, says(rcode="SERVFAIL")], ids=["silence", "servfail"])
def test_a_strangers_broken_zone_blames_no_server(everywhere: Behaviour) -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield from (everywhere if request.name.endswith("evil.test") else truth)(request, server)

    async def main(trio: Trio, resolver: LiveResolver) -> None:
        async with lent_to(resolver):
            # Both servers, twice.
            in_vain = 4 if everywhere is silence else 0
            for number in range(5):
                answer = await ask_here(
                    resolver, f"{number}.evil.test", lost=lambda: sum(trio.asked()), times=in_vain, timeout_s=SHORT_S
                )
                assert answer.status is Status.TEMPFAIL
            before = trio.asked()
            for number in range(5):
                assert (await ask_here(resolver, f"{number}.test")).detail.startswith("127.0.0.1:")
            assert trio.asked() == [before[0] + 5, before[1]]

    with ExitStack() as stack:
        trio = Trio(stack, behaviour, behaviour)
        run_by_hand(main(trio, resolver_of(*trio.servers, query_timeout_s=SHORT_S)))


def test_bogus_is_not_asked_of_another_server() -> None:
    """A server that does not validate would answer, and the forgery would be believed."""

    def bogus(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield request.reply(rcode="SERVFAIL", ede=(6,))

    with ExitStack() as stack:
        trio = Trio(stack, bogus, truth)
        resolver = stack.enter_context(resolver_of(*trio.servers))
        answer = ask(resolver, "a.test")
        assert (answer.status, answer.dnssec) == (Status.BOGUS, Dnssec.BOGUS)
        assert trio.asked() == [1, 0]


def test_a_lost_packet_is_asked_for_again() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if len(server.requests) > 1:
            yield from truth(request, server)

    async def main(server: FaultServer, resolver: LiveResolver) -> None:
        async with lent_to(resolver):
            answer = await ask_here(resolver, "a.test", lost=lambda: len(server.requests), times=1, timeout_s=SHORT_S)
            assert answer.status is Status.NOERROR

    with FaultServer(behaviour) as server:
        run_by_hand(main(server, resolver_of(server, query_timeout_s=SHORT_S)))


def test_an_answer_ends_the_blame() -> None:
    """Every second packet to the first server is lost, never two in a row: it stays the first."""

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if len(server.requests) % 2 == 0:
            yield from truth(request, server)

    async def main(trio: Trio, resolver: LiveResolver) -> None:
        async with lent_to(resolver):
            for number in range(8):
                answer = await ask_here(
                    resolver, f"{number}.test", lost=lambda: trio.asked()[0], times=1 - number % 2, timeout_s=SHORT_S
                )
                assert answer.status is Status.NOERROR
            assert trio.asked() == [8, 4]

    with ExitStack() as stack:
        trio = Trio(stack, behaviour, truth)
        run_by_hand(main(trio, resolver_of(*trio.servers, query_timeout_s=SHORT_S)))


@pytest.mark.attack("N15", "N16")
@pytest.mark.parametrize("outage", ["port closed", "silent"])
def test_a_resolver_that_is_dead_at_start_is_in_service_once_it_is_back(outage: str) -> None:
    now = [1000.0]
    timeout_s = 0.3
    questions = [txt(f"{number}.test") for number in range(30)]

    async def statuses(resolver: LiveResolver, lost: Callable[[], int], times: int) -> set[Status]:
        due = lost()
        asking = asyncio.ensure_future(resolver.resolve_async(questions, deadline=time.monotonic() + PATIENCE_S))
        for _ in range(times):
            due += len(questions)
            await until_count(lost, due)
            await pass_time(timeout_s)
        await until(asking.done)
        return {answer.status for answer in (await asking).values()}

    async def main(stack: ExitStack, resolver: LiveResolver, port: int) -> None:
        servers = [stack.enter_context(FaultServer(silence, port=port))] if outage == "silent" else []
        in_vain = 2 * len(servers)

        def lost() -> int:
            return sum(len(server.requests) for server in servers)

        async with lent_to(resolver):
            answer = await ask_here(resolver, "warm.test", lost=lost, times=in_vain, timeout_s=timeout_s)
            assert answer.status is Status.TEMPFAIL
            files = open_files()
            assert await statuses(resolver, lost, in_vain) == {Status.TEMPFAIL}
            await until(lambda: open_files() == files)
            if outage == "silent":
                servers[0].behaviour = truth
            else:
                stack.enter_context(FaultServer(truth, port=port))
                files = open_files()
            # The failures are forgotten five seconds later; other names are answered at once.
            assert (await ask_here(resolver, "new.test")).status is Status.NOERROR
            now[0] += 5.1
            assert await statuses(resolver, lost, 0) == {Status.NOERROR}
            await until(lambda: open_files() == files)

    with ExitStack() as stack:
        port = free_port()
        config = ResolverConfig(nameservers=("127.0.0.1",), port=port, query_timeout_s=timeout_s)
        run_by_hand(main(stack, LiveResolver(config, clock=lambda: now[0]), port))
