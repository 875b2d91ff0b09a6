"""The card of a domain: what is said of what it publishes, good and bad, and of a DNS that does not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import pytest

from mailguard.dkim.signing_key import SigningKey, generate_ed25519, generate_rsa
from mailguard.dns.answers import Answers, evaluate
from mailguard.dns.question import Dnssec, Status
from mailguard.dns.validation import ValidationStatus
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.explain.explanation import Explanation
from mailguard.mtasts.policy import StsPolicy
from mailguard.mtasts.result import FetchOutcome, FetchReason
from mailguard.scorecard.card import Mark
from mailguard.scorecard.domain_card import domain_card
from mailguard.spf.check import check_host
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus

US = Domain.parse("us.test")
Zone = Mapping[str, Mapping[str, Sequence[object]]]


def key_record(pem: bytes) -> bytes:
    return SigningKey.from_bytes(pem, domain="us.test", selector="s").record()


GOOD_KEY = key_record(generate_ed25519())
WEAK_KEY = key_record(generate_rsa(1024))
GOOD: dict[str, dict[str, Sequence[object]]] = {
    "us.test": {"MX": [(10, "mx.us.test")], "TXT": [b"v=spf1 mx -all", b"site-verification=1"]},
    "mx.us.test": {"A": ["192.0.2.1"]},
    "_25._tcp.mx.us.test": {"TLSA": [(3, 1, 1, "ab" * 32)]},
    "s._domainkey.us.test": {"TXT": [GOOD_KEY]},
    "_dmarc.us.test": {"TXT": [b"v=DMARC1; p=reject; rua=mailto:dmarc@us.test"]},
    "_mta-sts.us.test": {"TXT": [b"v=STSv1; id=1"]},
    "_smtp._tls.us.test": {"TXT": [b"v=TLSRPTv1; rua=mailto:tls@us.test"]},
}
SIGNED = {
    ("us.test", "MX"): Dnssec.SECURE,
    ("mx.us.test", "A"): Dnssec.SECURE,
    ("mx.us.test", "AAAA"): Dnssec.SECURE,
    ("_25._tcp.mx.us.test", "TLSA"): Dnssec.SECURE,
}


def fetched(text: str = "version: STSv1\nmode: enforce\nmx: mx.us.test\nmax_age: 604800\n") -> FetchOutcome:
    policy = StsPolicy.parse(text.encode())
    assert isinstance(policy, StsPolicy), policy
    return FetchOutcome(reason=FetchReason.FETCHED, policy=policy)


def scored(
    zone: Zone,
    *,
    status: Mapping[tuple[str, str], Status] | None = None,
    dnssec: Mapping[tuple[str, str], Dnssec] | None = None,
    selectors: Sequence[str] = ("s",),
    policy_file: FetchOutcome | None = None,
    validation: ValidationStatus = ValidationStatus.VALIDATES,
) -> Explanation:
    resolver = ZoneResolver(zone, status=status or {}, dnssec=SIGNED if dnssec is None else dnssec)
    return evaluate(
        lambda answers: domain_card(
            US,
            selectors,
            answers,
            policy_file=fetched() if policy_file is None else policy_file,
            resolver=validation,
        ),
        resolver,
        deadline=0,
    )


def part(card: Explanation, title: str) -> Explanation:
    return next(each for each in card.children if each.title == title)


def said(card: Explanation) -> set[tuple[str, str]]:
    return {(each.title, each.detail) for each in card.children}


def with_changes(changes: Zone) -> Zone:
    return {**GOOD, **changes}


def test_a_domain_that_has_everything() -> None:
    card = scored(GOOD)
    assert {each.title: each.status for each in card.children} == {
        "MX": "ok",
        "SPF": "ok",
        "DKIM": "ok",
        "DMARC": "ok",
        "MTA-STS": "ok",
        "TLSRPT": "ok",
        "DANE": "ok",
    }
    assert card.status == "ok"


def spf(*records: str, **more: Mapping[str, Sequence[object]]) -> Zone:
    own = {**GOOD["us.test"], "TXT": [record.encode() for record in records]}
    return {**GOOD, "us.test": own, **{name.replace("_", "."): entry for name, entry in more.items()}}


LONG = {f"a{n}.test": {"TXT": [f"v=spf1 include:a{n + 1}.test -all".encode()]} for n in range(12)}
CASES: list[tuple[str, str, Zone, str, str]] = [
    ("no SPF", "SPF", spf("other"), "problem", "us.test has no SPF record"),
    # What people paste into the forms of their providers: blanks, quotes, the semicolon of other records.
    *(
        (f"no SPF, {label}", "SPF", spf(text), "problem", f"us.test has a text that is no SPF record: {shown}")
        for label, text, shown in (
            ("a blank in front", " v=spf1 mx -all", " v=spf1 mx"),
            ("quotes", '"v=spf1 mx -all"', '"v=spf1 mx'),
            ("a semicolon", "v=spf1; mx -all", "v=spf1; mx"),
            ("a tab", "v=spf1\tmx -all", r"v=spf1\tmx"),
            ("no version tag", "spf1 mx -all", "spf1 mx"),
        )
    ),
    (
        "an include of no SPF",
        "SPF",
        spf("v=spf1 include:b.test -all", b_test={"TXT": [b"V=SPF1;mx"]}),
        "problem",
        "b.test has a text that is no SPF record: V=SPF1;mx",
    ),
    (
        "two SPF",
        "SPF",
        spf("v=spf1 -all", "v=spf1 mx -all"),
        "problem",
        "us.test has 2 SPF records: receivers answer permerror: v=spf1 -all and v=spf1 mx -all",
    ),
    (
        "not valid",
        "SPF",
        spf("v=spf1 ip4:1.2.3 -all"),
        "problem",
        "the record of us.test is not valid: in its term 1 an IPv4 network is missing or wrong: v=spf1 ip4:1.2.3",
    ),
    # A name that a form has ended with the domain once more.
    (
        "the domain twice",
        "SPF",
        spf(us_test_us_test={"TXT": [b"v=spf1 mx -all"]}),
        "problem",
        "the SPF record stands at us.test.us.test, and belongs at us.test",
    ),
    ("+all", "SPF", spf("v=spf1 mx +all"), "problem", "+all: everybody may send for us.test"),
    ("all is +all", "SPF", spf("v=spf1 mx all"), "problem", "all: everybody may send"),
    ("?all", "SPF", spf("v=spf1 mx ?all"), "note", "?all: nothing is said of all other hosts"),
    ("no all", "SPF", spf("v=spf1 mx"), "note", "the record of us.test says nothing of all other hosts"),
    (
        "include of +all",
        "SPF",
        spf("v=spf1 include:b.test -all", b_test={"TXT": [b"v=spf1 +all"]}),
        "problem",
        "b.test, which is included, ends with +all: everybody may send for us.test",
    ),
    (
        "include of an include of +all",
        "SPF",
        spf(
            "v=spf1 include:b.test -all",
            b_test={"TXT": [b"v=spf1 include:c.test -all"]},
            c_test={"TXT": [b"v=spf1 all"]},
        ),
        "problem",
        "c.test, which is included, ends with all: everybody",
    ),
    (
        "-include of +all",
        "SPF",
        spf("v=spf1 mx -include:b.test ~all", b_test={"TXT": [b"v=spf1 +all"]}),
        "ok",
        "",
    ),
    (
        "?include of a wide network",
        "SPF",
        spf("v=spf1 mx ?include:b.test -all", b_test={"TXT": [b"v=spf1 ip4:0.0.0.0/0 -all"]}),
        "ok",
        "",
    ),
    (
        "an include that fails a wide network",
        "SPF",
        spf("v=spf1 mx include:b.test -all", b_test={"TXT": [b"v=spf1 -ip4:0.0.0.0/0 ip4:192.0.2.1 -all"]}),
        "ok",
        "",
    ),
    (
        "include of a wide network",
        "SPF",
        spf("v=spf1 mx include:b.test -all", b_test={"TXT": [b"v=spf1 ip4:0.0.0.0/0 -all"]}),
        "problem",
        "ip4:0.0.0.0/0: so many",
    ),
    (
        "wide a",
        "SPF",
        {
            **spf("v=spf1 a/0 -all"),
            "us.test": {"TXT": [b"v=spf1 a/0 -all"], "A": ["192.0.2.1"], "MX": [(1, "mx.us.test")]},
        },
        "problem",
        "a/0: so many",
    ),
    ("wide mx", "SPF", spf("v=spf1 mx/1 -all"), "problem", "mx/1: so many"),
    ("wide mx for IPv6", "SPF", spf("v=spf1 mx//20 -all"), "note", "mx//20: so many"),
    ("wide a of nothing", "SPF", spf("v=spf1 mx a:gone.test/0 -all"), "note", "a:gone.test/0: gone.test has no such"),
    ("-a of all", "SPF", spf("v=spf1 -a:mx.us.test/0 mx ~all"), "ok", ""),
    (
        "exists that always answers",
        "SPF",
        spf("v=spf1 exists:mx.us.test -all"),
        "problem",
        "exists:mx.us.test: mx.us.test has an address: everybody",
    ),
    ("-exists that always answers", "SPF", spf("v=spf1 mx -exists:mx.us.test ~all"), "ok", ""),
    ("exists of nothing", "SPF", spf("v=spf1 exists:no.test -all"), "note", "exists:no.test: no.test has no such"),
    (
        "three voids by exists",
        "SPF",
        spf("v=spf1 exists:a1.test exists:a2.test exists:a3.test -all"),
        "problem",
        "3 of its names do not exist or have no address; 2 may",
    ),
    (
        "three hosts without IPv6",
        "SPF",
        spf("v=spf1 a:mx.us.test a:mx.us.test a:mx.us.test -all"),
        "problem",
        "3 of its names do not exist or have no address, for clients with IPv6; 2 may",
    ),
    ("ptr", "SPF", spf("v=spf1 ptr -all"), "note", "ptr: ptr is slow"),
    ("wide", "SPF", spf("v=spf1 ip4:10.0.0.0/8 -all"), "problem", "ip4:10.0.0.0/8: so many"),
    ("rather wide", "SPF", spf("v=spf1 ip4:10.0.0.0/12 -all"), "note", "ip4:10.0.0.0/12: so many"),
    ("wide IPv6", "SPF", spf("v=spf1 ip6:2001::/16 -all"), "problem", "ip6:2001::/16: so many"),
    ("void", "SPF", spf("v=spf1 a:gone.test -all"), "note", "a:gone.test: gone.test has no such record"),
    (
        "three voids",
        "SPF",
        spf("v=spf1 a:gone1.test a:gone2.test mx:gone3.test -all"),
        "problem",
        "3 of its names do not exist",
    ),
    (
        "include of nothing",
        "SPF",
        spf("v=spf1 include:no.test -all"),
        "problem",
        "no.test, which is included, has no",
    ),
    ("a circle", "SPF", spf("v=spf1 include:us.test -all"), "problem", "include: us.test leads back to itself"),
    ("too long", "SPF", {**spf("v=spf1 include:a0.test -all"), **LONG}, "problem", "it needs 13 look-ups"),
    (
        "redirect",
        "SPF",
        {**spf("v=spf1 redirect=r.test"), "r.test": {"TXT": [b"v=spf1 +all"]}},
        "problem",
        "+all: every",
    ),
    (
        "redirect to nothing",
        "SPF",
        spf("v=spf1 redirect=no.test"),
        "problem",
        "no.test has no SPF record to redirect",
    ),
    (
        "a sender behind all",
        "SPF",
        spf("v=spf1 mx -all ip4:192.0.2.9 exp=x.test"),
        "problem",
        "ip4:192.0.2.9: it stands behind -all in the record of us.test, and is never looked at",
    ),
    (
        "a redirect beside all",
        "SPF",
        spf("v=spf1 mx ~ALL other=x Redirect=r.test"),
        "problem",
        "Redirect=r.test: it stands behind ~ALL",
    ),
    (
        "a sender behind the all of an include",
        "SPF",
        spf("v=spf1 include:b.test -all", b_test={"TXT": [b"v=spf1 -all mx"]}),
        "note",
        "mx: it stands behind -all in the record of b.test",
    ),
    ("modifiers behind all", "SPF", spf("v=spf1 mx -all exp=x.test other=y"), "ok", ""),
    (
        "no key",
        "DKIM",
        with_changes({"s._domainkey.us.test": {}}),
        "problem",
        "s: s._domainkey.us.test has no record",
    ),
    (
        "two keys",
        "DKIM",
        with_changes({"s._domainkey.us.test": {"TXT": [GOOD_KEY, GOOD_KEY + b";"]}}),
        "problem",
        "s: 2 records",
    ),
    # A key that was cut at 255 octets, by hand or by a form that takes no more.
    (
        "a key in two records",
        "DKIM",
        with_changes({"s._domainkey.us.test": {"TXT": [WEAK_KEY[:100], WEAK_KEY[100:]]}}),
        "problem",
        "s: 2 records, and not all have a p=: a long key is one record of several strings",
    ),
    ("revoked", "DKIM", with_changes({"s._domainkey.us.test": {"TXT": [b"v=DKIM1; p="]}}), "note", "s: revoked"),
    ("weak", "DKIM", with_changes({"s._domainkey.us.test": {"TXT": [WEAK_KEY]}}), "note", "s: rsa, 1024 bits: too"),
    (
        "in testing",
        "DKIM",
        with_changes({"s._domainkey.us.test": {"TXT": [GOOD_KEY + b"; t=y"]}}),
        "note",
        "s: ed25519, 256 bits, in testing",
    ),
    (
        "broken key",
        "DKIM",
        with_changes({"s._domainkey.us.test": {"TXT": [b"v=DKIM1; p=!!"]}}),
        "problem",
        "s: p= is",
    ),
    (
        "no MX",
        "MX",
        with_changes({"us.test": {"TXT": [b"v=spf1 -all"], "A": ["192.0.2.1"]}}),
        "note",
        "us.test has no MX",
    ),
    (
        "null MX",
        "MX",
        with_changes({"us.test": {"TXT": [b"v=spf1 -all"], "MX": [(0, "")]}}),
        "ok",
        "us.test takes no mail",
    ),
    ("an MX without address", "MX", with_changes({"mx.us.test": {}}), "problem", "10 mx.us.test: it has no address"),
    (
        "an MX that is an address",
        "MX",
        with_changes({"us.test": {"TXT": [b"v=spf1 -all"], "MX": [(10, "192.0.2.1")]}}),
        "problem",
        "10 192.0.2.1: it is an address",
    ),
    (
        "null MX beside another",
        "MX",
        with_changes({"us.test": {"TXT": [b"v=spf1 -all"], "MX": [(0, ""), (10, "mx.us.test")]}}),
        "problem",
        "a null MX stands beside other hosts",
    ),
    ("an MX with IPv6 alone", "MX", with_changes({"mx.us.test": {"AAAA": ["2001:db8::1"]}}), "ok", "10 mx.us.test"),
    ("no TLSRPT", "TLSRPT", with_changes({"_smtp._tls.us.test": {}}), "note", "_smtp._tls.us.test has no record"),
    (
        "TLSRPT without rua",
        "TLSRPT",
        with_changes({"_smtp._tls.us.test": {"TXT": [b"v=TLSRPTv1;"]}}),
        "problem",
        "v=TLSRPTv1;: no rua=",
    ),
    (
        "two TLSRPT",
        "TLSRPT",
        with_changes({"_smtp._tls.us.test": {"TXT": [b"v=TLSRPTv1; rua=mailto:a@us.test", b"v=TLSRPTv1; rua=x:"]}}),
        "problem",
        "_smtp._tls.us.test has 2 records",
    ),
    *(
        (f"TLSRPT {label}", "TLSRPT", with_changes({"_smtp._tls.us.test": {"TXT": [text]}}), mark, detail)
        for label, text, mark, detail in (
            ("without mailto", b"v=TLSRPTv1; rua=tls@us.test", "problem", "v=TLSRPTv1; rua=tls@us.test: no rua="),
            ("to http", b"v=TLSRPTv1; rua=http://us.test/r", "problem", "v=TLSRPTv1; rua=http://us.test/r: no rua="),
            ("with nothing in rua", b"v=TLSRPTv1; rua=", "problem", "v=TLSRPTv1; rua=: no rua="),
            ("in another tag", b"v=TLSRPTv1; xrua=mailto:a@us.test", "problem", "v=TLSRPTv1; xrua="),
            (
                "without a semicolon",
                b"v=TLSRPTv1 rua=mailto:a@us.test",
                "problem",
                "v=TLSRPTv1 rua=mailto:a@us.test:",
            ),
            ("in small letters", b"v=tlsrptv1; rua=mailto:a@us.test", "problem", "v=tlsrptv1; rua=mailto:a@us.test:"),
            ("to https", b"v=TLSRPTv1 ;rua=mailto:a@us.test , https://us.test/r; x=y", "ok", ""),
        )
    ),
    ("no MTA-STS", "MTA-STS", with_changes({"_mta-sts.us.test": {}}), "note", "us.test has no MTA-STS record"),
    (
        "MTA-STS in other letters",
        "MTA-STS",
        with_changes({"_mta-sts.us.test": {"TXT": [b"v=STSV1; id=1"]}}),
        "problem",
        "v=STSV1; id=1: it counts as none",
    ),
    (
        "an id that is a date",
        "MTA-STS",
        with_changes({"_mta-sts.us.test": {"TXT": [b"v=STSv1; id=2026-11-23"]}}),
        "problem",
        '_mta-sts.us.test TXT: its id is not 1 to 32 letters and digits: "2026-11-23"',
    ),
    ("broken MTA-STS", "MTA-STS", with_changes({"_mta-sts.us.test": {"TXT": [b"v=STSv1;"]}}), "problem", ""),
    ("no TLSA", "DANE", with_changes({"_25._tcp.mx.us.test": {}}), "note", "mx.us.test: opportunistic: "),
    (
        "TLSA of no use",
        "DANE",
        with_changes({"_25._tcp.mx.us.test": {"TLSA": [(0, 1, 1, "ab" * 32)]}}),
        "problem",
        "mx.us.test: encrypt-unauthenticated: ",
    ),
]


@pytest.mark.parametrize(
    ("title", "zone", "mark", "detail"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_what_is_found(title: str, zone: Zone, mark: str, detail: str) -> None:
    found = part(scored(zone), title)
    assert found.status == mark
    if detail or mark != "ok":
        assert [each for each in said(found) if each[0] == mark and each[1].startswith(detail)], found.text()
    if mark != "ok":
        assert scored(zone).status == mark


def test_an_mx_record_that_names_an_alias() -> None:
    zone: Zone = {
        **GOOD,
        "us.test": {**GOOD["us.test"], "MX": [(10, "mail.us.test"), (20, "mx.us.test")]},
        "mail.us.test": {"CNAME": ["mx.us.test"]},
    }
    assert said(part(scored(zone), "MX")) == {
        ("note", "10 mail.us.test: it is an alias of mx.us.test"),
        ("ok", "20 mx.us.test"),
    }


def test_the_obsolete_tags_of_dmarc_are_named() -> None:
    zone = with_changes({"_dmarc.us.test": {"TXT": [b"v=DMARC1; p=reject; pct=50; ri=1; rua=mailto:d@us.test"]}})
    found = part(scored(zone), "DMARC")
    assert found.status == "problem"
    assert "pct=, ri= means nothing to RFC 9989" in found.text()


def test_the_look_ups_are_counted() -> None:
    zone = spf(
        "v=spf1 mx a:mx.us.test include:b.test ip4:192.0.2.0/24 -all",
        b_test={"TXT": [b"v=spf1 exists:%{i}.x.test include:%{d}.y.test -all"]},
    )
    found = part(scored(zone), "SPF")
    assert found.facts == (("look-ups", "5 of 10"), ("voids", "1 of 2"))
    assert "what it names hangs on the message" in found.text()


@pytest.mark.parametrize(
    ("outcome", "mark", "text"),
    [
        (fetched("version: STSv1\nmode: testing\nmx: mx.us.test\nmax_age: 604800\n"), "note", "mode testing"),
        (
            fetched("version: STSv1\nmode: enforce\nmx: other.test\nmax_age: 604800\n"),
            "problem",
            "mx.us.test is an MX",
        ),
        (FetchOutcome(reason=FetchReason.STATUS, detail="status 404"), "problem", "the policy file: status 404"),
    ],
)
def test_the_policy_file(outcome: FetchOutcome, mark: str, text: str) -> None:
    found = part(scored(GOOD, policy_file=outcome), "MTA-STS")
    assert found.status == mark
    assert text in found.text()


def test_a_dns_that_does_not_answer_is_neither_good_nor_bad() -> None:
    names = [
        ("us.test", "MX"),
        ("us.test", "TXT"),
        ("s._domainkey.us.test", "TXT"),
        ("_dmarc.us.test", "TXT"),
        ("_mta-sts.us.test", "TXT"),
        ("_smtp._tls.us.test", "TXT"),
    ]
    card = scored(GOOD, status=dict.fromkeys(names, Status.TEMPFAIL))
    assert {each.title: each.status for each in card.children} == dict.fromkeys(
        ("MX", "SPF", "DKIM", "DMARC", "MTA-STS", "TLSRPT", "DANE"), "unknown"
    ) | {"DMARC": part(card, "DMARC").status}
    assert part(card, "DMARC").status in ("unknown", "problem")


def test_a_host_whose_address_the_dns_does_not_tell_is_unknown() -> None:
    status = {("mx.us.test", "A"): Status.TEMPFAIL}
    assert part(scored(GOOD, status=status), "MX").status == "unknown"
    both = with_changes({"mx.us.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}})
    assert part(scored(both, status=status), "MX").status == "ok"


@pytest.mark.parametrize(
    ("term", "name", "rdtype"),
    [
        ("a:h.test", "h.test", "A"),
        ("a:h.test", "h.test", "AAAA"),
        ("mx:h.test", "h.test", "MX"),
        ("exists:h.test", "h.test", "A"),
        ("include:h.test", "h.test", "TXT"),
    ],
)
@pytest.mark.parametrize("status", [Status.TEMPFAIL, Status.BOGUS])
def test_what_a_term_names_and_the_dns_does_not_tell(term: str, name: str, rdtype: str, status: Status) -> None:
    found = part(scored(spf(f"v=spf1 {term} -all"), status={(name, rdtype): status}), "SPF")
    assert found.status == "unknown", found.text()


VOIDS = [
    "v=spf1 exists:a1.test exists:a2.test exists:a3.test -all",
    "v=spf1 a:mx.us.test a:mx.us.test a:mx.us.test -all",
    "v=spf1 mx:gone.us.test a:no1.test mx:no2.test -all",
    "v=spf1 mx:gone.us.test a:mx.us.test a:no.test -all",
    "v=spf1 a:six.test a:six.test a:mx.us.test a:mx.us.test -all",
    "v=spf1 ip4:192.0.2.77 a:six.test a:six.test a:six.test -all",
]


def evaluated(zone: Zone, client: str) -> SpfResult:
    envelope = Envelope(client_ip=ip_address(client), helo=b"x.test", mail_from=b"a@us.test")

    def evaluation(answers: Answers) -> SpfResult:
        return check_host(envelope, answers, identity=SpfIdentity.MAIL_FROM, now=0.0)

    return evaluate(evaluation, ZoneResolver(zone), deadline=0)


@pytest.mark.parametrize("record", VOIDS)
def test_voids_are_counted_as_the_engine_counts(record: str) -> None:
    """RFC 7208 §4.6.4: whoever connects, the card and the evaluation agree on whether there are too many."""
    zone = {
        **spf(record),
        "six.test": {"AAAA": ["2001:db8::6"]},
        "gone.us.test": {"MX": [(1, "g1.test"), (2, "g2.test"), (3, "g3.test")]},
    }
    results = [evaluated(zone, client) for client in ("192.0.2.9", "2001:db8::9")]
    # The engine gives up at the third.
    assert {result.status for result in results} <= {SpfStatus.PERMERROR, SpfStatus.FAIL}
    is_refused = SpfStatus.PERMERROR in {result.status for result in results}
    found = part(scored(zone), "SPF")
    assert (found.status == "problem") is is_refused, found.text()
    counted = int(dict(found.facts)["voids"].partition(" ")[0])
    assert min(counted, 3) == max(result.voids for result in results)


def test_a_long_record_is_read_in_few_rounds() -> None:
    """Each round begins the card again, and there is an end of them."""
    record = " ".join(["v=spf1", *[f"a:h{n}.test" for n in range(20)], "-all"])
    hosts = {f"h{n}.test": {"A": [f"192.0.2.{n}"], "AAAA": [f"2001:db8::{n + 1}"]} for n in range(20)}
    found = part(scored({**spf(record), **hosts}), "SPF")
    assert found.status == "problem"
    assert "it needs 20 look-ups" in found.text()
    assert "unknown" not in found.text()


def test_a_problem_weighs_more_than_what_is_unknown() -> None:
    zone = {name: entry for name, entry in GOOD.items() if name != "s._domainkey.us.test"}
    card = scored(zone, status={("us.test", "TXT"): Status.TEMPFAIL})
    assert Mark(card.status) is Mark.PROBLEM


@pytest.mark.parametrize("status", [Status.TEMPFAIL, Status.BOGUS])
def test_tlsa_records_that_the_dns_does_not_tell_are_unknown(status: Status) -> None:
    found = part(scored(GOOD, status={("_25._tcp.mx.us.test", "TLSA"): status}), "DANE")
    assert (found.status, "senders that know DANE do not deliver" in found.text()) == ("unknown", True)


def test_a_resolver_that_does_not_validate_says_nothing_of_dane() -> None:
    """Whose zone is signed is not told to sign it."""
    blind = part(scored(GOOD, dnssec={}, validation=ValidationStatus.NO_TRUSTED_SERVER), "DANE")
    assert (blind.status, "cannot be told: no-trusted-server" in blind.text()) == ("note", True)
    assert "sign the zone" in part(scored(GOOD, dnssec={}), "DANE").text()
    assert part(scored(GOOD, validation=ValidationStatus.SOME_UNTRUSTED), "DANE").status == "ok"
