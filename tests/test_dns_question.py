"""Answer: its records are of the type that it says. What was made of an answer is made once, and goes with it."""

from __future__ import annotations

from typing import Any

import pytest

from mailguard.dns.question import MX, TLSA, Answer, Question, RecordType, Status

QUESTION = Question("a.test", RecordType.TXT)


RECORDS: dict[RecordType, bytes | str | MX | TLSA] = {
    RecordType.A: "192.0.2.1",
    RecordType.AAAA: "2001:db8::1",
    RecordType.CNAME: "b.test",
    RecordType.MX: MX(10, "mx.a.test"),
    RecordType.PTR: "a.test",
    RecordType.TLSA: TLSA(3, 1, 1, b"x"),
    RecordType.TXT: b"v=spf1 -all",
}


@pytest.mark.parametrize("rdtype", RECORDS)
@pytest.mark.parametrize("record", [*RECORDS.values(), (10, "mx.a.test"), (b"v=spf1", b" -all"), None], ids=repr)
def test_a_record_is_of_the_type_or_refused(rdtype: RecordType, record: Any) -> None:
    """Somebody's own Resolver may have text for a TXT record: no reader would see it, and find no SPF record."""
    question, meant = Question("a.test", rdtype), RECORDS[rdtype]
    assert Answer(question, Status.NODATA).records == ()
    if type(record) is type(meant):
        assert Answer(question, Status.NOERROR, (meant, record)).records == (meant, record)
    else:
        with pytest.raises(TypeError, match=rf"^a\.test {rdtype.value}: .* not {type(record).__name__}$"):
            Answer(question, Status.NOERROR, (record,))


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
