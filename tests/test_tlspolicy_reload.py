"""SIGHUP: the configuration and the resolvers are read again, and nobody's protection is lost by it.

With real unbounds where they are installed: one that validates, another that does, and one that does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dns_asking import wait_for
from mailguard.config import Config
from mailguard.dns.answers import Resolver
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Answer, Question, RecordType
from mailguard.dns.servers import ServerAddress
from mailguard.dns.validation import Validation, ValidationStatus
from mailguard.dns.zone import ZoneResolver
from mailguard.tlspolicy import reload, resolvers
from mailguard.tlspolicy.destinations import LookupRules
from mailguard.tlspolicy.override import Overrides
from mailguard.tlspolicy.reload import Reload, ReplaceableResolver
from mailguard.tlspolicy.reply_cache import CacheBounds, ReplyCache
from mailguard.tlspolicy.service import _apply
from mailguard.tlspolicy.socketmap import encode_request
from test_tlspolicy_serve import TLSA, Serving, configured, serving, starting
from tlspolicy_site import Client, TlsPolicySite
from unbound_site import UNBOUND, Unbound

NEEDS_UNBOUND = pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
SIGNED = f"@ MX 10 mx\nmx A 192.0.2.1\n_25._tcp.mx TLSA {TLSA}\n_26._tcp.mx TLSA {TLSA}\n_27._tcp.mx TLSA {TLSA}\n"
MORE = 'dnssec_probe = "mx.signed.test"\nmta_sts = false\n'


def asking(port: int, address: str = "127.0.0.1") -> str:
    return f'nameservers = ["{address}"]\nport = {port}'


def reloaded(server: Serving, event: str = "event=reloaded") -> str:
    """Have it read all again; the lines that it writes at that, up to the one with `event`."""
    before, known = server.log.count(event), len(server.log)
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log.count(event) > before or server.process.poll() is not None)
    assert server.process.poll() is None, server.log
    return server.log[known:]


@NEEDS_UNBOUND
@pytest.mark.attack("N02", "T02")
def test_resolvers_that_would_turn_dane_off_are_not_taken(tmp_path: Path) -> None:
    with (
        Unbound({"signed.test.": SIGNED}, signed=["signed.test."]) as validating,
        Unbound({"signed.test.": SIGNED}) as credulous,
        Unbound({"signed.test.": SIGNED}, signed=["signed.test."]) as other,
        serving(configured(tmp_path, dns=asking(validating.port), more=MORE)) as server,
    ):
        assert "dnssec=trusted resolvers=127.0.0.1" in server.log
        assert server.ask("signed.test") == "OK dane-only"
        for dns in (asking(credulous.port), asking(credulous.port, "192.0.2.53")):
            configured(tmp_path, dns=dns, more=MORE)
            said = reloaded(server)
            assert 'event="DNSSEC would not be trusted any more: the old resolvers stay"' in said
            assert "level=warning" in said
            assert "event=reloaded dnssec=trusted resolvers=127.0.0.1\n" in said
        assert server.ask("[mx.signed.test]:26") == "OK dane-only"
        assert not credulous.asked() or {name for name, _ in credulous.asked()} == {"mx.signed.test"}
        # The old ones are gone: mail waits, until others come that validate.
        validating.kill()
        assert server.ask("[mx.signed.test]:27") == "TEMP"
        reloaded(server)
        assert server.ask("[mx.signed.test]:27") == "TEMP"
        configured(tmp_path, dns=asking(other.port), more=MORE)
        assert "stay" not in reloaded(server)
        assert server.ask("[mx.signed.test]:27") == "OK dane-only"
        assert server.end() == 0
        assert "Traceback" not in server.log


@NEEDS_UNBOUND
@pytest.mark.attack("N02")
def test_trust_that_comes_with_a_reload(tmp_path: Path) -> None:
    with (
        Unbound({"signed.test.": SIGNED}, signed=["signed.test."]) as validating,
        Unbound({"signed.test.": SIGNED}) as credulous,
    ):
        for before, word in (
            (asking(validating.port, "192.0.2.53"), "untrusted"),
            (asking(credulous.port), "trusted"),
        ):
            with serving(configured(tmp_path, dns=before, more=MORE)) as server:
                assert f"dnssec={word} " in server.log
                wait_for(lambda: "DANE is off" in server.log)
                # What was found out without trust is not at hand any more: it might be protected.
                unprotected = server.ask("signed.test") if word == "trusted" else "NOTFOUND"
                assert unprotected == "NOTFOUND"
                configured(tmp_path, dns=asking(validating.port), more=MORE)
                assert "dnssec=trusted resolvers=127.0.0.1" in reloaded(server)
                assert server.ask("signed.test") == "OK dane-only"


def test_overrides_and_rules_count_at_once(tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text("plain.test. MX 10 mx.plain.test.\nmx.plain.test. A 192.0.2.1\n")
    dns = f'zone_file = "{zone}"'
    with serving(configured(tmp_path, dns=dns, more="mta_sts = false")) as server, Client(server.path) as client:
        assert client.ask("plain.test").status.value == "NOTFOUND"
        assert "dnssec=untrusted" in server.log
        more = 'mta_sts = false\nconnections = 7\n[tlspolicy.overrides]\n"plain.test" = "encrypt"\n'
        configured(tmp_path, dns=dns, more=more)
        said = reloaded(server)
        assert 'event="changed: that takes effect at the next start" keys=tlspolicy.connections' in said
        # On the same connection, and though the reply was at hand.
        assert client.ask("plain.test").text == "encrypt"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('mixed = "none"', "mixed"),
        ('[tlspolicy.overrides]\n"plain.test" = "encrypted"', "tlspolicy.overrides: plain.test"),
    ],
)
def test_a_configuration_with_an_error_is_not_taken(tmp_path: Path, more: str, why: str) -> None:
    zone = tmp_path / "zone"
    zone.write_text("plain.test. MX 10 mx.plain.test.\nmx.plain.test. A 192.0.2.1\n")
    dns = f'zone_file = "{zone}"'
    good = 'mta_sts = false\n[tlspolicy.overrides]\n"plain.test" = "encrypt"\n'
    with serving(configured(tmp_path, dns=dns, more=good)) as server:
        configured(tmp_path, dns=dns, more=more)
        event = 'event="reload failed; the old configuration stays"'
        assert why in reloaded(server, event)
        assert server.ask("plain.test") == "OK encrypt"
        # And the next time it is right.
        configured(tmp_path, dns=dns, more=good.replace('"encrypt"', '"may"'))
        reloaded(server)
        assert server.ask("plain.test") == "OK may"


def test_a_look_up_by_the_rules_of_before_is_for_those_who_asked_before(tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text("m.test. MX 10 mx.m.test.\nmx.m.test. A 192.0.2.1\n")
    with TlsPolicySite(ZoneResolver.from_file(zone)) as site, site.client() as before, site.client() as after:
        site.resolver.delay_s = 0.3
        asked = len(site.resolver.asked)
        before.send(encode_request(b"QUERY", b"m.test"))
        wait_for(lambda: site.destinations._under_way)
        site.in_loop(changed(site))
        after.send(encode_request(b"QUERY", b"m.test"))
        assert (before.reply().status.value, after.reply().status.value) == ("NOTFOUND", "NOTFOUND")
        mx = site.resolver.asked[asked:].count(Question("m.test", RecordType.MX))
        assert mx == 2, "it is looked up anew"
        wait_for(lambda: not (site.destinations._under_way or site.destinations._outdated))


def test_what_a_reload_changes_of_look_ups_of_policies() -> None:
    def read(**more: object) -> Config:
        return Config.model_validate({"authserv_id": "x.test", "tlspolicy": {"postconf": None}, **more})

    before, after = read(), read(dns={"deadline_s": 3.0}, log={"format": "json"})
    with TlsPolicySite(ZoneResolver({})) as site:
        _apply(site.destinations, site.source, before, after, False)
        assert site.source.lookup_s == 3.0
    assert reload._changed_at_start_alone(before, after) == ["log.format"]


async def changed(site: TlsPolicySite) -> None:
    cache = ReplyCache(CacheBounds(), draw=lambda: 0.5)
    site.destinations.change(Overrides({}), LookupRules(deadline_s=2.0), cache)


# In the process of the server: who blocks a signal goes on when there is a file beside this one.
HELD = """
import os, signal, time

change_mask = signal.pthread_sigmask

def change_and_wait(how, numbers):
    before = change_mask(how, numbers)
    while how == signal.SIG_BLOCK and not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
        time.sleep(0.01)
    return before

signal.pthread_sigmask = change_and_wait
"""


def test_sighup_while_it_starts(tmp_path: Path) -> None:
    """It ends nothing, and is obeyed once all is there."""
    held = tmp_path / "held"
    held.mkdir()
    (held / "sitecustomize.py").write_text(HELD)
    python_path = os.pathsep.join([str(held), *filter(None, [os.environ.get("PYTHONPATH")])])
    file = configured(tmp_path, dns=asking(9), more="mta_sts = false")
    with starting(file, {"PYTHONPATH": python_path}) as server:
        status = Path(f"/proc/{server.process.pid}/status")
        while not re.search(r"^SigBlk:\s+0*1$", status.read_text(), re.MULTILINE):
            assert server.process.poll() is None
            assert "event=started" not in server.log
            time.sleep(0.01)
        server.process.send_signal(signal.SIGHUP)
        (held / "go").touch()
        wait_for(lambda: "event=reloaded" in server.log or server.process.poll() is not None)
        assert server.process.poll() is None
        assert server.end() == 0


# -- resolv.conf ---------------------------------------------------------------------------------------------------

CONFIG = Config.model_validate({"authserv_id": "x.test", "tlspolicy": {"postconf": None}})


@pytest.mark.attack("N02")
@pytest.mark.parametrize(
    ("before", "validates_before", "after", "is_taken"),
    [
        # Those on loopback count; whether they validate, too, is in the last number.
        ("127.0.0.1", "validates", "192.0.2.53", False),
        ("127.0.0.1", "validates", "127.0.0.9", False),
        ("127.0.0.1", "no-answer", "192.0.2.53", False),
        ("127.0.0.1", "no-answer", "127.0.0.9", False),
        ("127.0.0.1", "validates", "127.0.0.2", True),
        ("127.0.0.1", "no-answer", "127.0.0.2", True),
        ("127.0.0.1", "does-not-validate", "192.0.2.53", True),
        ("192.0.2.53", "no-trusted-server", "192.0.2.54", True),
        ("192.0.2.53", "no-trusted-server", "127.0.0.1", True),
    ],
)
def test_resolv_conf_is_read_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    before: str,
    validates_before: str,
    after: str,
    is_taken: bool,
) -> None:
    file = tmp_path / "resolv.conf"
    config = ResolverConfig(resolv_conf=str(file))

    def validation(_: Config, servers: tuple[ServerAddress, ...]) -> Validation:
        statuses = {before: validates_before, "127.0.0.2": "validates", "127.0.0.9": "does-not-validate"}
        return Validation(ValidationStatus(statuses[servers[0].address]), "as made up")

    for module in (reload, resolvers):
        monkeypatch.setattr(module, "resolver_config", lambda _: config)
    monkeypatch.setattr(reload, "validation_of", validation)
    caplog.set_level(logging.INFO)

    async def again() -> tuple[str, ...]:
        file.write_text(f"nameserver {before}\n")
        with ReplaceableResolver(LiveResolver(config)) as resolver:
            resolver.use_this_loop()
            reading = Reload(CONFIG, resolver, lambda: CONFIG, lambda *_: None)
            await reading.again()
            assert resolvers.addresses(resolver.servers) == (before,)
            file.write_text(f"nameserver {after}\n")
            await reading.again()
            return resolvers.addresses(resolver.servers)

    assert asyncio.run(again()) == ((after,) if is_taken else (before,))
    said = [record.getMessage() for record in caplog.records]
    warned = ["DNSSEC would not be trusted any more: the old resolvers stay"] if not is_taken else []
    assert said == ["reloaded", *warned, "reloaded"]


def test_an_error_of_ours_ends_nothing(tmp_path: Path) -> None:
    """As when there is no file left for another resolver."""
    file = configured(tmp_path, dns=asking(9), more="mta_sts = false")
    with serving(file) as server:
        # A directory in its place.
        text = file.read_text()
        file.unlink()
        file.mkdir()
        assert re.search(r"event=\"reload failed[^\"]*\"", reloaded(server, "reload failed"))
        file.rmdir()
        file.write_text(text)
        assert "dnssec=trusted" in reloaded(server)


class Slow(ZoneResolver):
    """Answers from a zone when it is let go on, and at once from then on."""

    def __init__(self, address: str) -> None:
        super().__init__({"us.test": {"A": [address]}})
        self.go_on = asyncio.Event()
        self.is_closed = False

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        await self.go_on.wait()
        return await super().resolve_async(questions, deadline=deadline)

    def close(self) -> None:
        self.is_closed = True


def test_a_look_up_under_way_ends_at_the_resolver_that_it_was_put_to(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question("us.test", RecordType.A)
    waiting: list[tuple[float, Callable[..., None], tuple[Resolver, ...]]] = []

    async def ask(resolver: Resolver) -> tuple[str, ...]:
        return (await resolver.resolve_async([question], deadline=time.monotonic() + 60))[question].names()

    async def replaced() -> None:
        old, new = Slow("192.0.2.1"), Slow("192.0.2.2")
        new.go_on.set()
        resolver = ReplaceableResolver(old)
        first = asyncio.create_task(ask(resolver))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_later", lambda delay, call, *more: waiting.append((delay, call, more)))
            resolver.replace(new)
        assert await ask(resolver) == ("192.0.2.2",)
        assert not first.done()
        assert not old.is_closed
        old.go_on.set()
        assert await first == ("192.0.2.1",)
        ((delay, call, more),) = waiting
        assert delay == reload.LINGER_S
        call(*more)
        assert (old.is_closed, new.is_closed) == (True, False)

    asyncio.run(replaced())


def test_at_the_end_resolvers_that_were_replaced_are_closed_too() -> None:
    old, new = Slow("192.0.2.1"), Slow("192.0.2.2")

    async def ended() -> None:
        with ReplaceableResolver(old) as resolver:
            resolver.replace(new)
            assert not old.is_closed

    asyncio.run(ended())
    assert (old.is_closed, new.is_closed) == (True, True)
