"""The control channel: what is said arrives as it was said; a long text is cut, and an unknown word is skipped."""

from __future__ import annotations

import socket

import pytest

from mailguard_milter.channel import MAX_PACKET_BYTES, MAX_TEXT_CHARS, Channel, Closed, Word


@pytest.mark.attack("V06")
@pytest.mark.parametrize("character", ["x", '"', "\n", "\0", "ü", "\U0001f4e7", "\udcff"])
def test_a_text_of_any_length_arrives(character: str) -> None:
    one, other = Channel.pair()
    for length in (0, 1, MAX_TEXT_CHARS, MAX_TEXT_CHARS + 1, 2 * MAX_PACKET_BYTES):
        one.send(Word.FAILED, why=character * length, code=78)
        assert other.receive() == (Word.FAILED, {"why": character * min(length, MAX_TEXT_CHARS), "code": 78})
    assert other.receive() is None
    one.close()
    with pytest.raises(Closed):
        other.receive()
    other.close()


@pytest.mark.attack("V06")
@pytest.mark.parametrize("packet", [b'{"word": "shout"}', b'{"why": "cut', b"{}"], ids=["new-word", "cut", "no-word"])
def test_what_another_version_says_besides_is_skipped(packet: bytes) -> None:
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(reading)
    writing.send(packet)
    assert channel.receive() is None
    writing.send(packet)
    writing.send(b'{"word": "ready", "more": 1}')
    assert channel.receive() == (Word.READY, {"more": 1})
    writing.close()
    with pytest.raises(Closed):
        channel.receive()
    channel.close()
