"""Mutated sessions of the milter protocol: some of those that benchmarks/fuzz_protocol.py tries, and what it watches.

ATTACKS.md rows: X08, X11, X12.
"""

from __future__ import annotations

from random import Random

import pytest

import fuzz_protocol
from fuzz_protocol import Broken, fuzz, mutated_session, try_replies, try_session
from mailguard_milter import protocol
from postfix_capture import SESSIONS

COUNT = 2_000


@pytest.mark.attack("X08", "X11", "X12")
def test_mutated_sessions() -> None:
    said: list[str] = []
    refused = fuzz(COUNT, seed=2, say=said.append)
    # Neither all nor none: both ways are tried.
    assert COUNT // 10 < refused < COUNT * 9 // 10
    assert said[-1].startswith(f"{COUNT} of {COUNT} sessions, {refused} refused")


def test_a_session_is_the_same_in_every_run() -> None:
    assert mutated_session(Random("2/7")) == mutated_session(Random("2/7"))
    assert mutated_session(Random("2/7")) != mutated_session(Random("2/8"))


@pytest.mark.parametrize("name", SESSIONS)
def test_mutated_recordings(name: str) -> None:
    random = Random(name)
    for _ in range(200):
        octets = bytearray(SESSIONS[name])
        for _ in range(random.randint(1, 4)):
            octets[random.randrange(len(octets))] = random.randrange(256)
        try_session(bytes(octets), random)


class _Wrong(protocol.Decoder):
    """A decoder with one fault."""

    def feed(self, data: bytes) -> list[protocol.Event]:
        return [event for event in super().feed(data) if not isinstance(event, protocol.Mail)]


class _Raising(protocol.Decoder):
    def feed(self, data: bytes) -> list[protocol.Event]:
        if b"\xff" in data:
            raise KeyError(data)
        return super().feed(data)


class _Greedy(protocol.Decoder):
    """Its events depend on how the octets come."""

    def feed(self, data: bytes) -> list[protocol.Event]:
        return super().feed(data)[:3]


@pytest.mark.parametrize(
    ("decoder", "what"),
    [(_Wrong, "comes after"), (_Raising, "KeyError"), (_Greedy, "not the same")],
    ids=["order", "exception", "parts"],
)
def test_a_fault_would_be_found(monkeypatch: pytest.MonkeyPatch, decoder: type[protocol.Decoder], what: str) -> None:
    monkeypatch.setattr(fuzz_protocol, "Decoder", decoder)
    with pytest.raises(Broken, match=rf"session \d+ with seed 2: .*{what}"):
        fuzz(500, seed=2, say=lambda said: None)


def test_a_wrong_reply_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "quarantine", lambda reason: b"\0\0\0\1q" + reason)
    with pytest.raises(Broken, match="a reply of 1 octets"):
        _try_many_replies()


def _try_many_replies() -> None:
    random = Random(2)
    for _ in range(1_000):
        try_replies(random)


def test_growing_memory_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(10_000, 100_000, 1_000))
    monkeypatch.setattr(fuzz_protocol, "resident_kb", lambda: next(sizes))
    with pytest.raises(Broken, match="memory grew from 10000 to 13000 kB in 4000 sessions"):
        fuzz(4_000, seed=2, say=lambda said: None)
