"""DMARC policy records: what is one, what each tag says, what an error in one leads to (RFC 9989 §4.7, §4.8)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import best_cpu_s
from mailguard.dmarc.record import (
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARS,
    AlignmentMode,
    AuthorStanding,
    DmarcPolicy,
    DmarcRecord,
    FailureOption,
    PublicSuffixFlag,
)

NONE, QUARANTINE, REJECT = DmarcPolicy.NONE, DmarcPolicy.QUARANTINE, DmarcPolicy.REJECT
ITSELF, SUBDOMAIN = AuthorStanding.ITSELF, AuthorStanding.SUBDOMAIN
NONEXISTENT = AuthorStanding.NONEXISTENT_SUBDOMAIN
ALL, ANY, DKIM, SPF = FailureOption


def record_of(text: bytes) -> DmarcRecord:
    record = DmarcRecord.parse(text)
    assert record is not None
    return record


@pytest.mark.attack("M02")
@pytest.mark.parametrize(
    ("text", "is_record"),
    [
        pytest.param(b"v=DMARC1", True, id="the version alone"),
        pytest.param(b"v=DMARC1;", True, id="a semicolon at the end"),
        pytest.param(b"v=DMARC1; p=none", True, id="as usual"),
        pytest.param(b"v = DMARC1 ;p=none", True, id="white space around = and ;"),
        pytest.param(b"v\t=\tDMARC1\t;\tp=none", True, id="tabs"),
        pytest.param(b"v=DMARC1 ", True, id="white space at the end"),
        # "v" in the grammar of RFC 9989 §4.8 stands for either case, %s"DMARC1" does not.
        pytest.param(b"V=DMARC1; p=none", True, id="V"),
        pytest.param(b"v=DMARC1;;p=none;;", True, id="empty tags"),
        pytest.param(b"v=DMARC1; v=DMARC1; p=none", True, id="the version twice"),
        pytest.param(b"v=DMARC1; \xff\xfe\x00; p=none", True, id="octets of any kind after it"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b"v=dmarc1; p=reject", False, id="lower case"),
        pytest.param(b"v=Dmarc1; p=reject", False, id="mixed case"),
        pytest.param(b"v=DMARC1x; p=reject", False, id="a longer word"),
        pytest.param(b"v=DMARC10; p=reject", False, id="another version"),
        pytest.param(b"v=DMARC; p=reject", False, id="no number"),
        pytest.param(b"v=DMARC1 p=reject", False, id="no semicolon"),
        pytest.param(b"v=DMARC1, p=reject", False, id="a comma"),
        pytest.param(b"vDMARC1; p=reject", False, id="no equals sign"),
        pytest.param(b"v=; p=reject", False, id="no version"),
        pytest.param(b"p=reject; v=DMARC1", False, id="v is not first"),
        pytest.param(b";v=DMARC1; p=reject", False, id="something before it"),
        pytest.param(b" v=DMARC1; p=reject", False, id="white space before it"),
        pytest.param(b"\xef\xbb\xbfv=DMARC1; p=reject", False, id="a byte order mark before it"),
        pytest.param(b'"v=DMARC1; p=reject"', False, id="quotes around it"),
        pytest.param(b"v=DMARC1\r\n; p=reject", False, id="a line end, which is no WSP"),
        pytest.param(b"v=spf1 -all", False, id="SPF"),
        pytest.param(b"a wildcard's text", False, id="some text"),
    ],
)
def test_what_is_a_record(text: bytes, is_record: bool) -> None:
    assert (DmarcRecord.parse(text) is not None) is is_record
    assert DmarcRecord.is_one(text) is is_record


def test_defaults() -> None:
    record = record_of(b"v=DMARC1")
    assert (record.p, record.sp, record.np) == (None, None, None)
    assert record.psd is PublicSuffixFlag.UNKNOWN
    assert record.is_testing is False
    assert (record.adkim, record.aspf) == (AlignmentMode.RELAXED, AlignmentMode.RELAXED)
    assert (record.rua, record.ruf, record.failure_options) == ((), (), (ALL,))
    assert (record.invalid, record.obsolete) == ((), ())
    written = record_of(b"v=DMARC1; psd=u; t=n; adkim=r; aspf=r; fo=0")
    assert replace(written, text=record.text) == record


def test_every_tag() -> None:
    record = record_of(
        b"v=DMARC1; p=reject; sp=quarantine; np=none; psd=n; t=y; adkim=s; aspf=s; "
        b"rua=mailto:a@x.test,https://r.test/d; ruf=mailto:f@x.test; fo=1:d:s; pct=50; rf=afrf; ri=86400; zz=1"
    )
    assert (record.p, record.sp, record.np) == (REJECT, QUARANTINE, NONE)
    assert record.psd is PublicSuffixFlag.NO
    assert record.is_testing is True
    assert (record.adkim, record.aspf) == (AlignmentMode.STRICT, AlignmentMode.STRICT)
    assert [uri.text for uri in record.rua] == ["mailto:a@x.test", "https://r.test/d"]
    assert [uri.text for uri in record.ruf] == ["mailto:f@x.test"]
    assert record.failure_options == (ANY, DKIM, SPF)
    assert record.obsolete == ("pct", "rf", "ri")
    assert record.invalid == ()


def test_the_order_after_v_is_free() -> None:
    ordered, mixed = record_of(b"v=DMARC1; p=reject; sp=none"), record_of(b"v=DMARC1; sp=none; p=reject")
    assert (ordered.p, ordered.sp) == (mixed.p, mixed.sp) == (REJECT, NONE)


@pytest.mark.parametrize(
    ("tag", "read"),
    [
        ("p=Reject", lambda record: record.p is REJECT),
        ("p=QUARANTINE", lambda record: record.p is QUARANTINE),
        ("p = none", lambda record: record.p is NONE),
        ("sp=NONE", lambda record: record.sp is NONE),
        ("np=rejecT", lambda record: record.np is REJECT),
        ("adkim=S", lambda record: record.adkim is AlignmentMode.STRICT),
        ("aspf=\tS\t", lambda record: record.aspf is AlignmentMode.STRICT),
        ("t=Y", lambda record: record.is_testing),
        ("psd=Y", lambda record: record.psd is PublicSuffixFlag.YES),
        ("psd=U", lambda record: record.psd is PublicSuffixFlag.UNKNOWN),
        ("fo=D", lambda record: record.failure_options == (DKIM,)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_words_stand_in_either_case(tag: str, read: object) -> None:
    record = record_of(b"v=DMARC1; " + tag.encode())
    assert callable(read)
    assert read(record)
    assert record.invalid == ()


@pytest.mark.attack("M02")
@pytest.mark.parametrize(
    ("tags", "invalid"),
    [
        pytest.param(b"p=", ("p",), id="p empty"),
        pytest.param(b"p=rejected", ("p",), id="p unknown word"),
        pytest.param(b"p=rej ect", ("p",), id="p white space inside"),
        pytest.param(b"p=none; sp=all", ("sp",), id="sp"),
        pytest.param(b"p=none; np=", ("np",), id="np"),
        pytest.param(b"p=none; t=yes", ("t",), id="t=yes is n"),
        pytest.param(b"p=none; psd=yes", ("psd",), id="psd"),
        pytest.param(b"p=none; adkim=strict; aspf=x", ("adkim", "aspf"), id="alignment"),
        pytest.param(b"p=none; rua=a@x.test", ("rua",), id="rua without a scheme"),
        pytest.param(b"p=none; ruf=mailto:", ("ruf",), id="ruf without an address"),
        pytest.param(b"p=none; fo=0:1", ("fo",), id="fo 0 and 1"),
        pytest.param(b"p=none; fo=d:d", ("fo",), id="fo a word twice"),
        pytest.param(b"p=none; fo=x", ("fo",), id="fo unknown word"),
        pytest.param(b"p=none; fo=", ("fo",), id="fo empty"),
    ],
)
def test_a_value_that_is_not_valid_counts_as_absent(tags: bytes, invalid: tuple[str, ...]) -> None:
    record = record_of(b"v=DMARC1; " + tags)
    assert record.invalid == invalid
    default = record_of(b"v=DMARC1" + (b"; p=none" if "p" not in invalid else b""))
    for name in ("p", "sp", "np", "is_testing", "psd", "adkim", "aspf", "rua", "ruf", "failure_options"):
        assert getattr(record, name) == getattr(default, name), name


@pytest.mark.attack("M02")
@pytest.mark.parametrize(
    ("tags", "invalid", "p"),
    [
        pytest.param(b"p=reject; p=reject", ("p",), None, id="the same twice"),
        pytest.param(b"p=reject; p=none", ("p",), None, id="p twice"),
        pytest.param(b"p=none; p=none; p=reject", ("p",), None, id="three times"),
        pytest.param(b"p=reject; sp=none; sp=reject", ("sp",), REJECT, id="sp twice"),
        pytest.param(b"p=reject; adkim=s; adkim=s", ("adkim",), REJECT, id="adkim twice"),
        pytest.param(b"p=reject; psd=y; psd=n", ("psd",), REJECT, id="psd twice"),
        pytest.param(b"p=reject; zz=1; zz=2", (), REJECT, id="an unknown tag twice"),
        pytest.param(b"p=reject; pct=1; pct=2", (), REJECT, id="an obsolete tag twice"),
        pytest.param(b"p=reject; P=none", (), REJECT, id="names are case-sensitive"),
    ],
)
def test_a_repeated_tag_has_no_value_and_the_record_stands(
    tags: bytes, invalid: tuple[str, ...], p: DmarcPolicy | None
) -> None:
    record = record_of(b"v=DMARC1; " + tags)
    assert (record.invalid, record.p) == (invalid, p)
    assert record.sp is None
    assert record.adkim is AlignmentMode.RELAXED
    assert record.psd is PublicSuffixFlag.UNKNOWN


@pytest.mark.parametrize("junk", [b"reject", b"=", b"=reject", b"p", b"1=2", b"\x00\xff", b"p:none", b"a b=c"])
def test_errors_after_the_version_are_put_aside(junk: bytes) -> None:
    """RFC 9989 §4.8."""
    record = record_of(b"v=DMARC1; " + junk + b"; p=quarantine")
    assert record.p is QUARANTINE
    assert record.invalid == ()


# -- the policy that holds ----------------------------------------------------------------------------------------


@pytest.mark.attack("M05", "M10")
@pytest.mark.parametrize(
    ("tags", "standing", "policy", "tag", "is_testing"),
    [
        (b"p=reject", ITSELF, REJECT, "p", False),
        (b"p=reject; sp=none; np=quarantine", ITSELF, REJECT, "p", False),
        (b"p=reject; sp=none; np=quarantine", SUBDOMAIN, NONE, "sp", False),
        (b"p=reject; sp=none; np=quarantine", NONEXISTENT, QUARANTINE, "np", False),
        (b"p=reject; sp=none", NONEXISTENT, NONE, "sp", False),
        (b"p=none; np=reject", SUBDOMAIN, NONE, "p", False),
        (b"p=none; np=reject", NONEXISTENT, REJECT, "np", False),
        (b"p=reject", SUBDOMAIN, REJECT, "p", False),
        (b"p=reject", NONEXISTENT, REJECT, "p", False),
        (b"p=reject; t=y", ITSELF, QUARANTINE, "p", True),
        (b"p=quarantine; t=y", ITSELF, NONE, "p", True),
        (b"p=none; t=y", ITSELF, NONE, "p", False),
        (b"p=none; sp=reject; t=y", SUBDOMAIN, QUARANTINE, "sp", True),
        (b"p=none; np=quarantine; t=y", NONEXISTENT, NONE, "np", True),
        (b"p=reject; t=n", ITSELF, REJECT, "p", False),
        (b"p=reject; t=yes", ITSELF, REJECT, "p", False),
        (b"p=reject; pct=0", ITSELF, REJECT, "p", False),
        (b"p=quarantine; pct=10; rf=x; ri=1", ITSELF, QUARANTINE, "p", False),
    ],
)
def test_the_policy_that_is_asked_for(
    tags: bytes, standing: AuthorStanding, policy: DmarcPolicy, tag: str, is_testing: bool
) -> None:
    requested = record_of(b"v=DMARC1; " + tags).requested(standing)
    assert requested is not None
    assert (requested.policy, requested.tag, requested.is_testing) == (policy, tag, is_testing)


@pytest.mark.attack("M02")
@pytest.mark.parametrize("standing", list(AuthorStanding), ids=lambda standing: standing.value)
@pytest.mark.parametrize(
    "tags", [b"", b"sp=reject", b"p=", b"p=x", b"p=reject; p=reject", b"p=reject; sp=x", b"p=reject; np="]
)
@pytest.mark.parametrize(
    ("reports", "is_applied"),
    [
        (b"", False),
        (b"; rua=", False),
        (b"; rua=a@x.test", False),
        (b"; rua=ftp://x.test/", False),
        (b"; rua=mailto:a@x.test; rua=mailto:a@x.test", False),
        (b"; ruf=mailto:a@x.test", False),
        (b"; rua=junk,mailto:a@x.test!10m", True),
        (b"; rua=https://x.test/r", True),
    ],
)
def test_without_a_valid_policy_it_hangs_on_rua(
    tags: bytes, standing: AuthorStanding, reports: bytes, is_applied: bool
) -> None:
    """RFC 9989 §4.10.1: p=none where reports are asked for, nothing at all where they are not."""
    requested = record_of(b"v=DMARC1; t=y; " + tags + reports).requested(standing)
    if is_applied:
        assert requested is not None
        assert (requested.policy, requested.tag, requested.is_testing) == (NONE, None, False)
    else:
        assert requested is None


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (b"p=none", ""),
        (b"p=reject; sp=none; np=none", ""),
        (b"p=reject; adkim=x; rua=x", ""),
        (b"", "p= is missing"),
        (b"p=x", "p= cannot be read or stands there twice"),
        (b"p=reject; p=reject", "p= cannot be read or stands there twice"),
        (b"p=reject; sp=x", "sp= cannot be read or stands there twice"),
        (b"np=", "p= is missing, np= cannot be read or stands there twice"),
    ],
)
def test_why_no_policy_of_a_record_counts(tags: bytes, fault: str) -> None:
    assert record_of(b"v=DMARC1; " + tags).policy_fault == fault


# -- bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.attack("M02")
def test_a_very_long_record_is_none() -> None:
    start = b"v=DMARC1; p=reject; x="
    assert DmarcRecord.parse(start + b"y" * (MAX_RECORD_BYTES - len(start))) is not None
    assert DmarcRecord.parse(start + b"y" * (MAX_RECORD_BYTES - len(start) + 1)) is None
    assert not DmarcRecord.is_one(start + b"y" * (MAX_RECORD_BYTES - len(start) + 1))
    assert DmarcRecord.parse(b"v=DMARC1; " + b"p=reject;" * 7_000) is None
    assert best_cpu_s(lambda: DmarcRecord.parse(b"v=DMARC1; " + b"p=reject;" * 7_000)) < 0.05


def test_the_text_is_kept_to_be_shown() -> None:
    text = b"v=DMARC1;  p=Reject; x=\xc3\xa4\r\n\x00\x7f"
    assert record_of(text).text == "v=DMARC1;  p=Reject; x=\\xc3\\xa4\\x0d\\x0a\\x00\\x7f"
    long = record_of(b"v=DMARC1;" + b"\xff" * (MAX_RECORD_BYTES - 9)).text
    assert len(long) == MAX_TEXT_CHARS
    assert long.endswith("...")


tags = st.sampled_from(
    [b"p", b"sp", b"np", b"psd", b"t", b"adkim", b"aspf", b"rua", b"ruf", b"fo", b"pct", b"v", b"P"]
)
words = st.sampled_from(
    [b"none", b"reject", b"y", b"s", b"0:d", b"mailto:a@b.test!1k", b"https://h.test/", b",", b""]
)
likely = st.lists(st.one_of(st.tuples(tags, words).map(b"=".join), st.binary(max_size=20)), max_size=12).map(
    b"; ".join
)


@given(st.one_of(st.binary(max_size=300), likely.map(lambda rest: b"v=DMARC1; " + rest)))
def test_any_octets_are_a_record_or_none(text: bytes) -> None:
    record = DmarcRecord.parse(text)
    assert DmarcRecord.is_one(text) is (record is not None)
    if record is None:
        assert not text.startswith(b"v=DMARC1;")
        return
    assert record.text.isascii()
    assert record.text.isprintable()
    for uri in (*record.rua, *record.ruf):
        assert uri.text.isascii()
        assert uri.text.isprintable()
    for standing in AuthorStanding:
        requested = record.requested(standing)
        assert (requested is None) <= (not record.rua)


@given(likely)
def test_reading_again_what_is_shown_gives_the_same(rest: bytes) -> None:
    record = record_of(b"v=DMARC1; " + rest)
    if record.text.encode() == b"v=DMARC1; " + rest:
        assert DmarcRecord.parse(record.text.encode()) == record
