"""Mutated sessions through the native engine's conversation and the real session (benchmarks/fuzz_conversation.py).

ATTACKS.md rows: P07, X08, X11, X12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from mmap import mmap
from random import Random
from typing import ClassVar

import pytest

import fuzz_conversation
from fuzz_conversation import Trial, fuzz
from fuzz_protocol import Broken
from mailguard_milter.conversation import Conversation
from mailguard_milter.protocol import EndOfMessage, Event
from mailguard_milter.session import Session
from postfix_capture import SESSIONS

COUNT = 1_500
OF_EACH = 100


@pytest.mark.attack("P07", "X08", "X11", "X12")
def test_mutated_sessions() -> None:
    said: list[str] = []
    messages = fuzz(COUNT, seed=3, say=said.append)
    assert messages > COUNT // 10
    assert said[-1].startswith(f"{COUNT} of {COUNT} sessions, {messages} messages judged, ")


@pytest.mark.attack("X08")
@pytest.mark.parametrize("name", SESSIONS)
def test_mutated_recordings(name: str) -> None:
    """What Postfix said, with a signature among it."""
    trial, random = Trial(), Random(name)
    for _ in range(OF_EACH):
        octets = bytearray(SESSIONS[name])
        for _ in range(random.randint(0, 4)):
            octets[random.randrange(len(octets))] = random.randrange(256)
        trial.session(bytes(octets), random)
    assert trial.messages


class _Mute(Conversation):
    """It forgets the answer to a message without content."""

    def take(self, events: Iterator[Event]) -> None:
        (event,) = events
        super().take(iter((event,)))
        if isinstance(event, EndOfMessage):
            self.out.clear()


class _Talkative(Conversation):
    """It answers what has no answer."""

    def take(self, events: Iterator[Event]) -> None:
        super().take(events)
        self.out.append(b"\0\0\0\1c")


class _Raising(Session):
    def headers(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        raise KeyError(fields)


class _Keeping(Conversation):
    """It does not count a message that was aborted as over."""

    def _end_message(self) -> None:
        self.began = None


class _Hoarding(Session):
    """It forgets nothing. What it keeps is new to the process: its heap may have had room."""

    hoard: ClassVar[list[mmap]] = []

    def abort(self) -> None:
        super().abort()
        kept = mmap(-1, 200_000)
        kept.write(bytes(200_000))
        self.hoard.append(kept)


def test_growth_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_conversation, "Session", _Hoarding)
    with pytest.raises(Broken, match=r"memory grew from \d+ to \d+ kB in 2000 sessions"):
        fuzz(2_000, seed=3, say=lambda said: None)
    _Hoarding.hoard.clear()


@pytest.mark.parametrize(
    ("name", "faulty", "what"),
    [
        ("Conversation", _Mute, "EndOfMessage.* was answered with b''"),
        ("Conversation", _Talkative, "was answered with b'Oc'"),
        ("Conversation", _Keeping, "messages are left"),
        ("Session", _Raising, "internal errors: .*KeyError"),
    ],
    ids=["mute", "talkative", "keeping", "raising"],
)
def test_a_fault_would_be_found(monkeypatch: pytest.MonkeyPatch, name: str, faulty: type, what: str) -> None:
    monkeypatch.setattr(fuzz_conversation, name, faulty)
    with pytest.raises(Broken, match=rf"session \d+ with seed 3: .*{what}"):
        fuzz(50, seed=3)
