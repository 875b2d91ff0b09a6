"""The control channel: what is said arrives as it was said, and a text that is too long is cut."""

from __future__ import annotations

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
