"""`mailguard check`: what is said of what a domain publishes, good and bad, and of a DNS that does not answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cli_process import Command, mailguard_command
from mailguard.dkim.signing_key import SigningKey, generate_ed25519, generate_rsa
from mailguard.dns.answers import evaluate
from mailguard.dns.question import Dnssec, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.explain.explanation import Explanation
from mailguard.mtasts.policy import StsPolicy
from mailguard.mtasts.result import FetchOutcome, FetchReason
from mailguard.scorecard.card import Mark
from mailguard.scorecard.domain_card import domain_card

__all__ = ["mailguard_command"]

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
) -> Explanation:
    resolver = ZoneResolver(zone, status=status or {}, dnssec=SIGNED if dnssec is None else dnssec)
    return evaluate(
        lambda answers: domain_card(
            US, selectors, answers, policy_file=fetched() if policy_file is None else policy_file
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
    ("two SPF", "SPF", spf("v=spf1 -all", "v=spf1 mx -all"), "problem", "us.test has 2 SPF records"),
    ("not valid", "SPF", spf("v=spf1 ip4:1.2.3 -all"), "problem", "the record of us.test is not valid: "),
    ("+all", "SPF", spf("v=spf1 mx +all"), "problem", "+all: everybody may send for us.test"),
    ("all is +all", "SPF", spf("v=spf1 mx all"), "problem", "all: everybody may send"),
    ("?all", "SPF", spf("v=spf1 mx ?all"), "note", "?all: nothing is said of all other hosts"),
    ("no all", "SPF", spf("v=spf1 mx"), "note", "the record of us.test says nothing of all other hosts"),
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
    ("no MTA-STS", "MTA-STS", with_changes({"_mta-sts.us.test": {}}), "note", "us.test has no MTA-STS record"),
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
    assert [each for each in said(found) if each[0] == mark and each[1].startswith(detail)], found.text()
    if mark != "ok":
        assert scored(zone).status == mark


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
    assert found.facts == (("look-ups", "5 of 10"), ("voids", "0 of 2"))
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


def test_a_problem_weighs_more_than_what_is_unknown() -> None:
    zone = {name: entry for name, entry in GOOD.items() if name != "s._domainkey.us.test"}
    card = scored(zone, status={("us.test", "TXT"): Status.TEMPFAIL})
    assert Mark(card.status) is Mark.PROBLEM


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('@ MX 0 .\n@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=reject; rua=mailto:d@us.test"\n', 0),
        ("@ MX 0 .\n", 1),
    ],
)
def test_the_command(mailguard_command: Command, tmp_path: Path, text: str, code: int) -> None:
    zone = tmp_path / "zone"
    zone.write_text(f"$ORIGIN us.test.\n{text}")
    done = mailguard_command("check", "us.test", "--zone", zone)
    assert done.code == code, done.out
    assert done.out.startswith("mail of us.test: ")
    as_json = json.loads(mailguard_command("check", "us.test", "--zone", zone, "--json").out)
    assert [each["title"] for each in as_json["children"]][:2] == ["MX", "SPF"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["us test"], 64, "is not a domain name"),
        (["us.test", "--selector", "a b"], 64, "is not a selector"),
        (["us.test", "--zone", "/no/such"], 78, "/no/such"),
        (["us.test", "-c", "/no/such"], 78, "/no/such"),
    ],
)
def test_mistakes(mailguard_command: Command, arguments: list[str], code: int, text: str) -> None:
    done = mailguard_command("check", *arguments)
    assert (done.code, done.out) == (code, "")
    assert text in done.err
    assert "Traceback" not in done.err
