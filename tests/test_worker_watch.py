"""What a worker's main thread does about a callback that does not end, and about memory that it does not get.

ATTACKS.md rows: V16, V17.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from itertools import cycle

import pytest

from mailguard_milter import worker
from mailguard_milter.channel import Channel, Word
from mailguard_milter.log import Format, Log, Severity, StderrSink
from mailguard_milter.refusal import EX_SOFTWARE

HUNG_AFTER_S = 60.0
PATIENCE_S = 30.0


class OneCallback:
    """An engine with one message, whose end of message is running, on a clock of the test's own."""

    is_serving = True
    failure: BaseException | None = None

    def __init__(self, *, pauses: dict[float, float], takes_s: float) -> None:
        """`pauses`: after so many seconds the machine is stopped for so many; `takes_s` is of its own running."""
        self.now = 1000.0
        self._ran_s = 0.0
        self._pauses = pauses
        self._takes_s = takes_s

    def sleep(self, seconds: float) -> None:
        """The worker waits; meanwhile the callback runs."""
        self._ran_s += seconds
        self.now += seconds
        for after in [after for after in self._pauses if after <= self._ran_s]:
            self.now += self._pauses.pop(after)

    @property
    def messages(self) -> int:
        return int(self._ran_s < self._takes_s)

    def sessions(self) -> int:
        return self.messages

    def longest_callback_s(self) -> float:
        return self.now - 1000.0 if self.messages else 0.0

    def trouble(self, now: float) -> str | None:
        return None

    def start(self) -> None:
        """It has begun."""

    def detach(self) -> None:
        """It accepts nothing anyway."""


class OneSession(OneCallback):
    """An engine with one session that stays open and has no message."""

    messages = 0

    def sessions(self) -> int:
        return 1


def ended_with(engine: OneCallback, monkeypatch: pytest.MonkeyPatch, *words: Word) -> tuple[int, float]:
    """The exit code of a worker whose parent says these words and is gone, and after how many seconds."""
    monkeypatch.setattr("time.monotonic", lambda: engine.now)
    monkeypatch.setattr("time.sleep", engine.sleep)
    parent, mine = Channel.pair()
    for word in words:
        parent.send(word)
    parent.close()
    log = Log(StderrSink(), Format.LOGFMT, timestamps=False)
    code = worker._Watch(engine, mine, log, hung_after_s=HUNG_AFTER_S).run()
    mine.close()
    return code, engine.now - 1000.0


def test_one_that_never_ends_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    code, after_s = ended_with(OneCallback(pauses={}, takes_s=3600.0), monkeypatch)
    assert code == EX_SOFTWARE
    assert after_s == pytest.approx(HUNG_AFTER_S + worker.HUNG_GRACE_S, abs=1.0)


@pytest.mark.attack("V17")
def test_one_that_the_machine_was_stopped_in_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = ended_with(OneCallback(pauses={1.0: 400.0}, takes_s=4.0), monkeypatch)
    assert code == 0


def test_one_that_does_not_end_after_that_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    code, after_s = ended_with(OneCallback(pauses={1.0: 400.0}, takes_s=3600.0), monkeypatch)
    assert code == EX_SOFTWARE
    assert after_s == pytest.approx(401.0 + worker.HUNG_GRACE_S, abs=2.5)


@pytest.mark.parametrize("words", [[Word.STOP], [Word.DRAIN, Word.STOP], [Word.STOP, Word.DRAIN]])
def test_who_has_to_stop_does_not_wait_for_sessions(words: list[Word], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the parent's end, which is an order to drain, take that back."""
    code, after_s = ended_with(OneSession(pauses={}, takes_s=0.0), monkeypatch, *words)
    assert (code, after_s < worker.STOP_DEADLINE_S) == (0, True)


@pytest.mark.parametrize("words", [[], [Word.DRAIN]])
def test_who_has_to_drain_waits_for_sessions_until_its_deadline(
    words: list[Word], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, after_s = ended_with(OneSession(pauses={}, takes_s=0.0), monkeypatch, *words)
    assert code == 0
    assert after_s == pytest.approx(worker.DRAIN_DEADLINE_S, abs=1.0)


@pytest.mark.attack("V16")
@pytest.mark.parametrize(
    ("looks", "expected"), [([True], EX_SOFTWARE), ([True, True, False], 0)], ids=["for good", "now and then"]
)
def test_a_worker_that_gets_no_memory_ends(looks: list[bool], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    is_full = cycle(looks)
    monkeypatch.setattr(worker, "is_full", lambda: next(is_full))
    monkeypatch.setattr(worker, "STARVED_AFTER_S", 4 * worker.TICK_S)
    parent, mine = Channel.pair()
    stop = threading.Timer(12 * worker.TICK_S, parent.send, [Word.STOP])
    stop.start()
    log = Log(StderrSink(), Format.LOGFMT, timestamps=False)
    idle = OneCallback(pauses={}, takes_s=0.0)
    assert worker._Watch(idle, mine, log, hung_after_s=HUNG_AFTER_S).run() == expected
    stop.cancel()
    parent.close()
    mine.close()


def test_what_cannot_be_told_for_want_of_memory_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would print that, too, for every callback of libmilter's."""

    class FullLog(Log):
        def event(self, name: str, severity: Severity = Severity.INFO, **fields: object) -> None:
            raise MemoryError

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(logging.getLogger("asyncio"), "handlers", [])
    worker._send_uncaught_to(FullLog(StderrSink(), Format.LOGFMT, timestamps=True))
    sys.excepthook(MemoryError, MemoryError(), None)


def test_what_goes_wrong_on_an_event_loop_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(logging.getLogger("asyncio"), "handlers", [])
    log = Log(StderrSink(), Format.LOGFMT, timestamps=False)
    log.start()
    worker._send_uncaught_to(log)

    async def main() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "no memory", "exception": MemoryError()})

    asyncio.run(main())
    log.close(timeout_s=PATIENCE_S)
    assert capfd.readouterr().err == 'event=uncaught error="MemoryError: " place=asyncio\n'
