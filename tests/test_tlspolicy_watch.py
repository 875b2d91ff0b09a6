"""What the server says of the resolver while it runs: of the one that it asks, whatever resolv.conf says by now.

ATTACKS.md rows: T01.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mailguard.config import Config
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Question
from mailguard.dns.validation import Validation, ValidationStatus
from mailguard.tlspolicy import resolvers, service

GOOD = ValidationStatus.VALIDATES
OFF = ValidationStatus.NO_TRUSTED_SERVER
CONFIG = Config.model_validate({"authserv_id": "x.test", "tlspolicy": {"postconf": None}})


class Around:
    """resolv.conf, and what is said of resolvers: those on loopback validate."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.examined: list[tuple[str, ...]] = []
        self.fails_once: Exception | None = None

    def names(self, *addresses: str) -> None:
        # In one step: the thread that examines may read at any time.
        new = self._path.with_name("new")
        new.write_text("".join(f"nameserver {address}\n" for address in addresses))
        new.replace(self._path)

    def config(self, config: Config) -> ResolverConfig:
        return ResolverConfig(resolv_conf=str(self._path))

    def validation(self, config: ResolverConfig, *, deadline: float, probe: Question) -> Validation:
        error, self.fails_once = self.fails_once, None
        if error is not None:
            raise error
        servers = LiveResolver(config).servers
        self.examined.append(tuple(server.address for server in servers))
        return Validation(GOOD if all(server.trust_ad for server in servers) else OFF, "as made up")


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Around:
    made = Around(tmp_path / "resolv.conf")
    monkeypatch.setattr(resolvers, "resolver_config", made.config)
    monkeypatch.setattr(resolvers, "check_validation", made.validation)
    for module in (resolvers, service):
        monkeypatch.setattr(module, "VALIDATION_INTERVAL_S", 0.01)
    return made


def watched(around: Around, change: Callable[[], None]) -> None:
    """Examined a few times, then `change`, then a few times more."""

    async def watch() -> None:
        task = asyncio.create_task(service._watch(CONFIG, LiveResolver(around.config(CONFIG)).servers))
        for act in (change, lambda: None):
            seen = len(around.examined)
            while len(around.examined) < seen + 3:
                await asyncio.sleep(0.01)
                assert not task.done(), task
            act()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(watch(), 30))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.attack("T01")
def test_the_resolver_of_the_start_is_the_one_that_counts(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    """A resolv.conf that is right only after the start does not make answers count."""
    around.names("192.0.2.53")
    watched(around, lambda: around.names("127.0.0.1"))
    assert set(around.examined) == {("192.0.2.53",)}
    assert said(caplog) == ["DANE is off", "the resolvers have changed"]
    fields = caplog.records[1].__dict__["fields"]
    assert (fields["asked"], fields["named"], fields["remedy"]) == ("192.0.2.53", "127.0.0.1", "reload this server")


def test_nothing_is_said_while_nothing_changes(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    around.names("127.0.0.1")
    watched(around, lambda: None)
    assert said(caplog) == []


def test_an_error_of_ours_does_not_end_it(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    around.names("127.0.0.1")
    around.fails_once = RuntimeError("an error of ours")

    def fail() -> None:
        around.fails_once = RuntimeError("an error of ours")

    watched(around, fail)
    assert said(caplog) == ["the resolver could not be examined: our own error"] * 2
