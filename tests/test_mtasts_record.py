"""The record of MTA-STS (RFC 8461 §3.1): what one is, and which of several counts."""

from __future__ import annotations

import pytest

from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.mtasts.malformed import Malformed
from mailguard.mtasts.record import MAX_RECORD_BYTES, Discovery, DiscoveryStatus, StsRecord, discover, record_question

DOMAIN = Domain.parse("good.test")
QUESTION = Question("_mta-sts.good.test", RecordType.TXT)
TTL_S = 120


def found(*texts: bytes, status: Status = Status.NOERROR) -> Discovery:
    return discover(DOMAIN, Answers({QUESTION: Answer(QUESTION, status, texts, ttl_s=TTL_S)}))


@pytest.mark.parametrize(
    ("text", "record"),
    [
        pytest.param(b"v=STSv1; id=20160831085700Z;", StsRecord("20160831085700Z"), id="of-the-rfc"),
        pytest.param(b"v=STSv1;id=a", StsRecord("a"), id="short"),
        pytest.param(b"v=STSv1\t ; \tid=a \t; \tx=y ; ", StsRecord("a", (("x", "y"),)), id="white-space"),
        pytest.param(b"v=STSv1;note=b;id=a", StsRecord("a", (("note", "b"),)), id="any-order"),
        pytest.param(b"v=STSv1; id=a; id=b; x=1; x=2", StsRecord("a", (("x", "1"),)), id="first-counts"),
        pytest.param(b"v=STSv1; id=a; id=not-an-id", StsRecord("a"), id="later-id-is-any-field"),
        pytest.param(b"v=STSv1; id=" + b"a" * 32, StsRecord("a" * 32), id="longest-id"),
        pytest.param(b"v=STSv1; id=a; x=:<>~!", StsRecord("a", (("x", ":<>~!"),)), id="any-character"),
    ],
)
def test_records(text: bytes, record: StsRecord) -> None:
    assert StsRecord.parse(text) == record
    assert found(text) == Discovery(status=DiscoveryStatus.FOUND, record=record, ttl_s=TTL_S)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"v=STSv1",
        b"v=STSv1 id=a",
        b"V=STSv1; id=a",
        b"v=stsv1; id=a",
        b" v=STSv1; id=a",
        b"v=STSv10; id=a",
        b"id=a;v=STSv1;",
    ],
)
def test_what_is_no_record_of_this_version(text: bytes) -> None:
    assert StsRecord.parse(text) is None
    assert found(text).status is DiscoveryStatus.ABSENT
    # RFC 8461 §3.1: it is discarded before records are counted.
    assert found(text, b"v=STSv1; id=a").record == StsRecord("a")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"v=STSv1;", "no id"),
        (b"v=STSv1; id=", "not name=value"),
        (b"v=STSv1; id=a-b", "letters and digits"),
        (b"v=STSv1; id=" + b"a" * 33, "letters and digits"),
        (b"v=STSv1; ID=a", "no id"),
        (b"v=STSv1;; id=a", "a field is empty"),
        (b"v=STSv1; id=a;;", "a field is empty"),
        (b"v=STSv1; id =a", "not name=value"),
        (b"v=STSv1; id=a b", "not name=value"),
        (b"v=STSv1; id=a ", "not name=value"),
        (b"v=STSv1; id=a\n", "not name=value"),
        (b"v=STSv1; id=a; x=\xc3\xa9", r"xc3"),
        (b"v=STSv1; id=a; x=" + b"y" * MAX_RECORD_BYTES, "more than"),
    ],
)
def test_malformed_records(text: bytes, why: str) -> None:
    read = StsRecord.parse(text)
    assert isinstance(read, Malformed)
    assert why in read.detail
    assert read.detail.isascii()
    assert read.detail.isprintable()
    assert found(text).status is DiscoveryStatus.MALFORMED
    # It counts as one of several all the same.
    assert found(text, b"v=STSv1; id=a").status is DiscoveryStatus.SEVERAL


@pytest.mark.parametrize(
    ("status", "expected", "ttl_s"),
    [
        (Status.NXDOMAIN, DiscoveryStatus.ABSENT, TTL_S),
        (Status.NODATA, DiscoveryStatus.ABSENT, TTL_S),
        (Status.TEMPFAIL, DiscoveryStatus.UNAVAILABLE, 0),
        (Status.BOGUS, DiscoveryStatus.UNAVAILABLE, 0),
    ],
)
def test_the_dns_may_have_nothing(status: Status, expected: DiscoveryStatus, ttl_s: int) -> None:
    discovery = found(status=status)
    assert (discovery.status, discovery.record, discovery.ttl_s) == (expected, None, ttl_s)


def test_two_records_are_none() -> None:
    assert found(b"v=STSv1; id=a", b"v=STSv1; id=a").status is DiscoveryStatus.SEVERAL


def test_of_thousands_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: bytes) -> None:
        raise AssertionError(text)

    monkeypatch.setattr(StsRecord, "parse", refuse)
    discovery = found(*[b"v=STSv1; id=a"] * 4_000)
    assert discovery.status is DiscoveryStatus.SEVERAL
    assert "4000 records" in discovery.detail


def test_only_the_domain_itself_is_asked() -> None:
    """RFC 8461 §3.4: no policy of a parent."""
    answers = Answers()
    with pytest.raises(Unanswered):
        discover(Domain.parse("a.good.test"), answers)
    assert answers.missing == (Question("_mta-sts.a.good.test", RecordType.TXT),)


def test_a_name_that_is_too_long_has_no_record() -> None:
    domain = Domain.parse(".".join(["a" * 62] * 4))
    assert record_question(domain) is None
    assert discover(domain, Answers()).status is DiscoveryStatus.ABSENT


def test_a_discovery_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError):
        bool(found())
