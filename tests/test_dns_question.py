"""Answer.read: what was made of an answer is made once, and goes with the answer."""

from __future__ import annotations

from mailguard.dns.question import Answer, Question, RecordType, Status

QUESTION = Question("a.test", RecordType.TXT)


def answer() -> Answer:
    return Answer(QUESTION, Status.NOERROR, (b"one", b"two"))


def test_it_is_read_once_for_each_key() -> None:
    made: list[str] = []

    def reader(found: Answer) -> int:
        made.append("")
        return len(found.records)

    one = answer()
    assert [one.read("count", reader), one.read("count", reader), one.read(("count", 2), reader)] == [2, 2, 2]
    assert len(made) == 2
    answer().read("count", reader)
    assert len(made) == 3, "another answer is read by itself"


def test_what_was_read_is_no_part_of_the_value() -> None:
    one, other = answer(), answer()
    one.read("count", lambda found: len(found.records))
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)
