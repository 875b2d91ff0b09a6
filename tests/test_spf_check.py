"""check_host() (RFC 7208 §4 to §6): which record, which term, which result; absent, twice, malformed, servfail."""

from __future__ import annotations

import pytest

from mailguard.dns.question import Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.spf.check import sender_questions
from mailguard.spf.identity import read_identity
from mailguard.spf.record import Record, RecordError
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus
from spf_asking import BANK_IP, EVIL_IP, TARGETS, V6, Z0, Zone, envelope, record, recorded, result_of, session


def found(result: SpfResult) -> tuple[str, str]:
    return result.status.value, result.reason.value


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([], ("none", "no-record"), id="§4.5 absent"),
        pytest.param(["v=spf1 -all"], ("fail", "match"), id="§4.5 one"),
        pytest.param(["V=SpF1 -all"], ("fail", "match"), id="§4.5 case"),
        pytest.param(["v=spf1"], ("neutral", "no-match"), id="§4.7 empty record"),
        pytest.param(["v=spf1   -all  "], ("fail", "match"), id="§4.6.1 several spaces"),
        pytest.param(
            ["hello", "v=spf1 -all"], ("fail", "match"), id="S11 beside other TXT", marks=pytest.mark.attack("S11")
        ),
        pytest.param(
            ["v=spf1 -all", "v=spf1 +all"],
            ("permerror", "several-records"),
            id="S11 two",
            marks=pytest.mark.attack("S11"),
        ),
        pytest.param(
            ["v=spf1 -all", "v=spf1 -all"],
            ("permerror", "several-records"),
            id="S11 the same twice",
            marks=pytest.mark.attack("S11"),
        ),
        pytest.param([("v=sp", "f1 -", "all")], ("fail", "match"), id="§3.3 several strings"),
        pytest.param(["v=spf10 -all"], ("none", "no-record"), id="§4.5 v=spf10"),
        pytest.param(["v=spf1\t-all"], ("none", "no-record"), id="§4.5 tab ends the version"),
        pytest.param(["v=spf1\n"], ("none", "no-record"), id="§4.5 newline ends the version"),
        pytest.param([" v=spf1 -all"], ("none", "no-record"), id="§4.5 leading space"),
        pytest.param(["v = spf1 -all"], ("none", "no-record"), id="§4.5 spaces around ="),
    ],
)
def test_which_record(texts: list[object], expected: tuple[str, str]) -> None:
    asked = session({"evil.test": {"TXT": texts, "A": [EVIL_IP]}})
    assert found(asked.result) == expected
    assert asked.questions == ["evil.test TXT"], "type 99 is never asked for"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.NXDOMAIN, ("none", "no-record")),
        (Status.NODATA, ("none", "no-record")),
        (Status.TEMPFAIL, ("temperror", "dns")),
        (Status.BOGUS, ("temperror", "dns")),
    ],
    ids=lambda value: value.value if isinstance(value, Status) else "",
)
def test_the_look_up_of_the_record(status: Status, expected: tuple[str, str]) -> None:
    result = session(Z0, status={("evil.test", "TXT"): status}).result
    assert found(result) == expected
    assert result.voids == result.lookups == 0
    assert result.domain == "evil.test"


MATCHES = [
    ("§5.1 all", "all"),
    ("§5.1 ALL", "ALL"),
    ("§4.6.2 +", "+all"),
    ("§5.2 pass", "include:pass.test"),
    ("§5.2 through redirect", "include:deep.test"),
    ("§5.3 a", "a:a.test"),
    ("§5.3 A", "A:A.Test"),
    ("§5.3 a, trailing dot", "a:a.test."),
    ("§5.3 a/24", "a:far.test/24"),
    ("§5.3 a/0", "a:b.test/0"),
    ("§5.3 a, dual", "a:far.test/24//128"),
    ("§5.4 mx", "mx:mx.test"),
    ("§5.5 ptr", "ptr:a.test"),
    ("§5.5 ptr, itself", "ptr:host.a.test"),
    ("§5.6 ip4", f"ip4:{EVIL_IP}"),
    ("§5.6 ip4/24", "ip4:198.51.100.0/24"),
    ("§5.6 ip4, host bits", "ip4:198.51.100.9/24"),
    ("§5.6 ip4/0", "ip4:0.0.0.0/0"),
    ("§5.6 IP4", f"Ip4:{EVIL_IP}/32"),
    ("§5.7 exists", "exists:only.a.test"),
]
NO_MATCHES = [
    ("§5.2 fail", "include:fail.test"),
    ("§5.2 softfail", "include:soft.test"),
    ("§5.2 neutral", "include:neutral.test"),
    ("§5.3 a", "a:b.test"),
    ("§5.3 a/25", "a:far.test/28"),
    ("§5.3 own domain has no address", "a"),
    ("§5.4 no MX", "mx:a.test"),
    ("§5.4 null MX", "mx:null.test"),
    ("§5.5 another name", "ptr:b.test"),
    ("§5.5 not validated", "ptr:bank.test"),
    ("§5.5 end of a label", "ptr:t.a.test"),
    ("§5.6 ip4", "ip4:198.51.100.67"),
    ("§5.6 ip6 for an IPv4 client", "ip6:::/0"),
    ("§5.6 mapped", f"ip6:::ffff:{EVIL_IP}"),
    ("§5.7 exists", "exists:pass.test"),
]


@pytest.mark.parametrize("qualifier", ["+", "-", "~", "?"])
@pytest.mark.parametrize(("case", "term"), MATCHES, ids=[case for case, _ in MATCHES])
def test_what_matches(case: str, term: str, qualifier: str) -> None:
    if term[0] in "+-~?":
        term = term[1:]
    result = record(f"v=spf1 {qualifier}{term} include:nosuch.test", more=TARGETS)
    word = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}[qualifier]
    assert found(result) == (word, "match")
    assert result.mechanism == f"{qualifier}{term}"


@pytest.mark.parametrize(("case", "term"), NO_MATCHES, ids=[case for case, _ in NO_MATCHES])
def test_what_does_not_match(case: str, term: str) -> None:
    assert found(record(f"v=spf1 {term}", more=TARGETS)) == ("neutral", "no-match")
    last = record(f"v=spf1 -{term} ?all", more=TARGETS)
    assert (last.status, last.mechanism) == (SpfStatus.NEUTRAL, "?all")


@pytest.mark.attack("S23")
@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("ip6:2001:db8::66", "pass"),
        ("ip6:2001:DB8::66", "pass"),
        ("IP6:2001:0db8:0:0:0:0:0:0066", "pass"),
        ("ip6:2001:db8:0:0::66/128", "pass"),
        ("ip6:2001:db8::67", "neutral"),
        ("ip6:2001:db8::/32", "pass"),
        ("ip6:2001:db8::67/127", "pass"),
        ("ip6:2001:db8::67/128", "neutral"),
        ("ip6:::/0", "pass"),
        ("ip6:8000::/1", "neutral"),
        ("ip6:2001:db8::198.51.100.66", "neutral"),
        ("ip4:0.0.0.0/0", "neutral"),
        ("a:a.test", "pass"),
        ("a:far.test/32//112", "pass"),
        ("a:far.test/0//128", "neutral"),
        ("mx:mx.test", "pass"),
        ("ip6:2001:db8::/129", "permerror"),
        ("ip6:2001:db8::/0128", "permerror"),
        ("ip6:2001:db8::66%eth0", "permerror"),
        ("ip6:2001:db8:::66", "permerror"),
        ("ip6:2001:db8::12345", "permerror"),
        ("ip6:1:2:3:4:5:6:7:8:9", "permerror"),
        ("ip6:[2001:db8::66]", "permerror"),
        ("ip6:", "permerror"),
        ("ip6", "permerror"),
        ("ip6:2001:db8::66//128", "permerror"),
    ],
)
def test_ip6(term: str, expected: str) -> None:
    assert record(f"v=spf1 {term}", V6, TARGETS).status.value == expected


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param("foo", id="§4.6.1 no mechanism"),
        pytest.param("-", id="§4.6.1 qualifier alone"),
        pytest.param("--all", id="§4.6.1 two qualifiers"),
        pytest.param("=all", id="§4.6.1 =all"),
        pytest.param("*all", id="§4.6.1 *all"),
        pytest.param("all:x.test", id="§5.1 all with a name"),
        pytest.param("all/8", id="§5.1 all with a prefix"),
        pytest.param("all.", id="§5.1 all."),
        pytest.param("include", id="§5.2 no name"),
        pytest.param("include:", id="§5.2 empty name"),
        pytest.param("include:a.test/24", id="§5.2 prefix"),
        pytest.param("a:", id="§5.3 empty name"),
        pytest.param("a:/24", id="§5.3 empty name, prefix"),
        pytest.param("a:test", id="§7.1 one label"),
        pytest.param("a:test.", id="§7.1 one label, dot"),
        pytest.param("a:a.123", id="§7.1 digits as toplabel"),
        pytest.param("a:a.-b", id="§7.1 toplabel begins with a hyphen"),
        pytest.param("a:a.b-", id="§7.1 toplabel ends with a hyphen"),
        pytest.param("a:a.test,", id="§7.1 comma"),
        pytest.param("a:1.2.3.4", id="§7.1 an address as name"),
        pytest.param("a/33", id="§5.3 /33"),
        pytest.param("a//129", id="§5.3 //129"),
        pytest.param("a/", id="§5.3 empty prefix"),
        pytest.param("a/01", id="§12 leading zero"),
        pytest.param("a/24/64", id="§12 one slash"),
        pytest.param("mx/33", id="§5.4 /33"),
        pytest.param("mx:a.test:25", id="§5.4 port"),
        pytest.param("ptr/24", id="§5.5 prefix"),
        pytest.param("ptr/a.test", id="§5.5 slash for colon"),
        pytest.param("mx/a.test", id="§5.4 slash for colon"),
        pytest.param("ip6:fe80::1%eth0", id="§5.6 zone"),
        pytest.param("ptr:", id="§5.5 empty name"),
        pytest.param("ip4", id="§5.6 no address"),
        pytest.param("ip4:", id="§5.6 empty address"),
        pytest.param("ip4:1.2.3", id="§5.6 three numbers"),
        pytest.param("ip4:1.2.3.256", id="§5.6 256"),
        pytest.param("ip4:1.2.3.04", id="§5.6 leading zero"),
        pytest.param("ip4:1.2.3.4/33", id="§5.6 /33"),
        pytest.param("ip4:1.2.3.4//32", id="§5.6 //32"),
        pytest.param("ip4=1.2.3.4 foo", id="§4.6.1 modifier, then no mechanism"),
        pytest.param("exists", id="§5.7 no name"),
        pytest.param("exists:a.test/24", id="§5.7 prefix"),
        pytest.param("redirect=", id="§6.1 empty"),
        pytest.param("redirect=a.test redirect=a.test", id="§6 redirect twice"),
        pytest.param("redirect=a.test REDIRECT=a.test", id="§6 redirect twice, case"),
        pytest.param("exp=", id="§6.2 empty"),
        pytest.param("exp=a.test exp=a.test", id="§6 exp twice"),
        pytest.param("redirect=test", id="§6.1 one label"),
        pytest.param("1=a.test", id="§4.6.1 a modifier's name begins with a letter"),
        pytest.param("unknown=%x", id="§6 unknown modifier with a bad macro"),
        pytest.param("ipv4:1.2.3.4", id="common mistake"),
        pytest.param("a\tb:a.test", id="tab"),
    ],
)
def test_a_syntax_error_anywhere_is_a_permerror(terms: str) -> None:
    """RFC 7208 §4.6: also behind a term that would match."""
    for text in (f"v=spf1 {terms}", f"v=spf1 +all {terms}", f"v=spf1 {terms} -all"):
        with pytest.raises(RecordError):
            # pyspf reads the terms again, and must not be the one that notices.
            Record.parse(text.encode())
        asked = recorded(text)
        assert found(asked.result) == ("permerror", "record-syntax"), text
        assert len(asked.questions) == 1
        assert terms not in asked.result.detail


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("include: a.test", "a name is missing"),
        ("a:/24", "a name is missing"),
        ("redirect=", "a name is missing"),
        ("include", "a name is missing, or a prefix is wrong or too much"),
        ("mx/01", "a name is missing, or a prefix is wrong or too much"),
        ("include:a.test/24", "a prefix is wrong or too much"),
        ("a:a.test/01", "a prefix is wrong or too much"),
        ("a:a.test/33", "a prefix is too long"),
        ("ip4:192.0.2.0/024", "an IPv4 network is missing or wrong"),
        ("ip6:2001:db8::/064", "an IPv6 network is missing or wrong"),
        ("mx:test", "a name does not end in a top-level domain"),
    ],
)
def test_what_is_wrong_with_a_term_is_told(term: str, said: str) -> None:
    asked = record(f"v=spf1 mx {term} -all")
    assert asked.detail == f"the record of evil.test is not valid: in its term 2 {said}"


@pytest.mark.attack("S12")
@pytest.mark.parametrize(
    "octets",
    [b"v=spf1 \xff +all", b"v=spf1 ip4:1.2.3.4\x00 +all", b"v=spf1 a:\r\nX.test +all", b"v=spf1 +all\n",
     b"v=spf1 exists:%{l}\x01.evil.test +all", "v=spf1 include:bücher.test +all".encode(), b"v=spf1 x=\x7f +all"],
    ids=["8-bit", "NUL", "CRLF", "LF at the end", "control in a name", "U-label", "DEL in a modifier"],
)  # fmt: skip
def test_odd_octets_in_a_record_are_a_permerror(octets: bytes) -> None:
    result = record(octets)
    assert found(result) == ("permerror", "record-syntax")
    assert result.record is not None
    assert result.record.isascii()
    assert result.record.isprintable()


@pytest.mark.attack("S18")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("redirect=pass.test", ("pass", "match"), id="§6.1 followed"),
        pytest.param("Redirect=pass.test", ("pass", "match"), id="§4.6.1 case of the name"),
        pytest.param("redirect=pass.test -all", ("fail", "match"), id="§5.1 ignored beside all"),
        pytest.param("-all redirect=pass.test", ("fail", "match"), id="§5.1 ignored behind all"),
        pytest.param("a:a.test redirect=fail.test", ("pass", "match"), id="§6.1 not reached"),
        pytest.param("redirect=pass.test a:b.test", ("pass", "match"), id="§6.1 before the mechanisms"),
        pytest.param("redirect=nosuch.test", ("permerror", "no-included-record"), id="§6.1 to none"),
        pytest.param("redirect=a.test", ("permerror", "no-included-record"), id="§6.1 to a name without TXT"),
        pytest.param("redirect=broken.test", ("permerror", "record-syntax"), id="§6.1 to a broken one"),
        pytest.param("redirect=twice.test", ("permerror", "several-records"), id="§6.1 to two"),
        pytest.param("redirect=a..test", ("permerror", "no-included-record"), id="§6.1 to a malformed name"),
        pytest.param("redirect=deep.test", ("pass", "match"), id="§6.1 to a redirect"),
        pytest.param("include:nosuch.test +all", ("permerror", "no-included-record"), id="§5.2 none"),
        pytest.param("include:broken.test +all", ("permerror", "record-syntax"), id="§5.2 permerror"),
        pytest.param("include:twice.test +all", ("permerror", "several-records"), id="§5.2 two"),
        pytest.param("include:a..test +all", ("permerror", "no-included-record"), id="§5.2 malformed name"),
        pytest.param("+all include:nosuch.test", ("pass", "match"), id="§5.1 behind all"),
        pytest.param("unknown=a.test other=%{c} unknown=x +all", ("pass", "match"), id="§6 unknown modifiers"),
        pytest.param("default=fail", ("neutral", "no-match"), id="§6 default= is unknown"),
        pytest.param("op=auth ?all", ("neutral", "match"), id="§6 op= is unknown"),
    ],
)
def test_include_and_modifiers(text: str, expected: tuple[str, str]) -> None:
    assert found(record(f"v=spf1 {text}", more=TARGETS)) == expected


@pytest.mark.parametrize("first", ["", "exists:void.test "], ids=["plain", "by pyspf"])
@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("include:nosuch.test", "an include cannot be followed: nosuch.test has no SPF record"),
        ("include:a..test", "an include cannot be followed: it names what cannot be looked up"),
        ("include:deep2.test", "a redirect cannot be followed: a.test has no SPF record"),
        ("redirect=a.test", "a redirect cannot be followed: a.test has no SPF record"),
        ("redirect=a..test", "a redirect cannot be followed: it names what cannot be looked up"),
        ("include:%{l}.nosuch.test", "an include cannot be followed: x?1.nosuch.test has no SPF record"),
    ],
)
def test_it_is_told_which_name_has_no_record(term: str, said: str, first: str) -> None:
    more: Zone = {**TARGETS, "deep2.test": {"TXT": ["v=spf1 redirect=a.test"]}}
    asked = record(f"v=spf1 {first}{term}", more=more, mail_from="x;1@evil.test")
    assert (asked.reason, asked.detail) == (SpfReason.NO_INCLUDED_RECORD, said)


@pytest.mark.attack("S22")
@pytest.mark.parametrize(
    ("text", "ip", "expected"),
    [
        ("+all", EVIL_IP, True),
        ("all", EVIL_IP, True),
        ("ip4:0.0.0.0/0", EVIL_IP, True),
        ("ip4:128.0.0.0/1", EVIL_IP, True),
        ("ip4:192.0.0.0/2", EVIL_IP, False),
        (f"ip4:{EVIL_IP}", EVIL_IP, False),
        ("a:b.test/0", EVIL_IP, True),
        ("a:b.test/0//128", EVIL_IP, True),
        ("a:far.test/24//0", EVIL_IP, False),
        ("ip6:::/1", V6, True),
        ("ip6:2001::/16", V6, False),
        ("a:b.test/32//0", V6, True),
        ("include:pass.test", EVIL_IP, True),
        ("include:narrow.test", EVIL_IP, False),
        ("include:wide.test", EVIL_IP, True),
        ("redirect=pass.test", EVIL_IP, True),
        ("exists:only.a.test", EVIL_IP, False),
        ("ptr:a.test", EVIL_IP, False),
    ],
)
def test_a_pass_that_says_nothing_is_marked(text: str, ip: str, *, expected: bool) -> None:
    more: Zone = {
        **TARGETS,
        "narrow.test": {"TXT": [f"v=spf1 ip4:{EVIL_IP} +all"]},
        "wide.test": {"TXT": ["v=spf1 -include:fail.test include:pass.test"]},
    }
    result = record(f"v=spf1 {text}", ip, more)
    assert result.status is SpfStatus.PASS
    assert result.is_permissive is expected


@pytest.mark.attack("S22")
@pytest.mark.parametrize("text", ["?all", "~all", "-all", "-ip4:0.0.0.0/0", "-include:pass.test"])
def test_only_a_pass_is_permissive(text: str) -> None:
    assert not record(f"v=spf1 {text}", more=TARGETS).is_permissive


@pytest.mark.attack("S22")
def test_an_included_pass_that_did_not_decide_is_not_marked() -> None:
    more: Zone = {"x.test": {"TXT": ["v=spf1 -include:wide.test"]}, "wide.test": {"TXT": ["v=spf1 +all"]}}
    result = record(f"v=spf1 include:x.test ip4:{EVIL_IP}", more=more)
    assert (result.status, result.mechanism, result.is_permissive) == (SpfStatus.PASS, f"ip4:{EVIL_IP}", False)


@pytest.mark.attack("S24")
def test_a_result_belongs_to_one_client_and_one_sender() -> None:
    """One resolver, one zone; the DNS is all that is kept between checks."""
    zone: Zone = {
        "bank.test": {"TXT": [f"v=spf1 ip4:{BANK_IP} -exists:%{{l}}.bank.test ?all"]},
        "spam.bank.test": {"A": ["127.0.0.2"]},
    }
    resolver = ZoneResolver(zone)
    outcomes = []
    checks = (
        ("a@bank.test", BANK_IP),
        ("a@bank.test", EVIL_IP),
        ("spam@bank.test", EVIL_IP),
        ("b@bank.test", BANK_IP),
    )
    for mail_from, ip in checks:
        outcomes.append(result_of(resolver, mail_from, ip).status.value)
    assert outcomes == ["pass", "neutral", "fail", "pass"]


def test_what_a_result_tells() -> None:
    result = record(f"v=spf1 include:fail.test a:nosuch.test ip4:{EVIL_IP} -all", more=TARGETS)
    assert result == SpfResult(
        status=SpfStatus.PASS,
        reason=SpfReason.MATCH,
        detail="the domain permits the client",
        identity=SpfIdentity.MAIL_FROM,
        domain=result.domain,
        mechanism=f"ip4:{EVIL_IP}",
        record=f"v=spf1 include:fail.test a:nosuch.test ip4:{EVIL_IP} -all",
        lookups=2,
        voids=1,
    )
    assert result.domain == "evil.test"
    with pytest.raises(TypeError):
        bool(result)


def test_after_a_redirect_the_term_is_that_of_the_target_and_the_record_the_first() -> None:
    result = record("v=spf1 redirect=fail.test", more=TARGETS)
    assert (result.mechanism, result.record) == ("-all", "v=spf1 redirect=fail.test")


def test_what_is_told_is_bounded() -> None:
    long = "v=spf1 " + " ".join(["ip4:192.0.2.1"] * 500) + " -all"
    assert record(long).record == long
    name = ".".join(["a" * 60] * 4) + ".test"
    result = record(
        f"v=spf1 -a:{name} ?all", more={name[name.index(".") + 1 :]: {"A": [EVIL_IP]}, name: {"A": [EVIL_IP]}}
    )
    assert result.status is SpfStatus.FAIL
    assert result.mechanism == f"-a:{name}"[:200]


@pytest.mark.parametrize(
    ("mail_from", "ip", "expected"),
    [
        ("a@bank.test", EVIL_IP, [Question("bank.test", RecordType.TXT)]),
        ("a@BANK.Test", EVIL_IP, [Question("bank.test", RecordType.TXT)]),
        ("a@bücher.test", EVIL_IP, [Question("xn--bcher-kva.test", RecordType.TXT)]),
        ("", EVIL_IP, [Question("evil.test", RecordType.TXT)]),
        ("a@bank.test(a.evil.test", EVIL_IP, []),
        ("a@[192.0.2.1]", EVIL_IP, []),
        ("a@bank", EVIL_IP, []),
        (b"\xff@bank.test", EVIL_IP, []),
        ("a@bank.test\0", EVIL_IP, []),
        ("a@bank.test", None, []),
        ("a@bank.test", "fe80::1%eth0", []),
    ],
)
def test_first_questions(mail_from: str | bytes, ip: str | None, expected: list[Question]) -> None:
    asked = envelope(mail_from, ip)
    assert list(sender_questions(read_identity(asked, SpfIdentity.MAIL_FROM), asked)) == expected
    first = session(Z0, mail_from, ip).rounds[:1]
    assert first == ([tuple(expected)] if expected else [])
