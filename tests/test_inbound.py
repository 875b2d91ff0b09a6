"""What a message from outside is looked up for: before its body is there, and then in how many rounds."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from mailguard.dkim.canonical import BodyDigests, BodyRequest
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.envelope import Envelope
from mailguard.inbound import MAX_AUTHOR_DOMAINS, InboundPlan, InboundRules, Judged, judge_inbound, plan_inbound
from mailguard.message import MalformedReason, Message
from zone0 import BODY, NOW, ke, key_record, mail, sign_as

SUFFIXES = """// ===BEGIN ICANN DOMAINS===
test
// ===END ICANN DOMAINS===
// ===BEGIN PRIVATE DOMAINS===
// ===END PRIVATE DOMAINS===
"""
KEY = "s1._domainkey.evil.test"
WALK = ["_dmarc.bank.test", "_dmarc.test"]


def plan_of(raw: bytes, ip: str | None = "198.51.100.66", **rules: Any) -> InboundPlan:
    envelope = Envelope(
        client_ip=ip_address(ip) if ip else None,
        helo=rules.pop("helo", b"mail.evil.test"),
        mail_from=rules.pop("mail_from", b"x@evil.test"),
    )
    return plan_inbound(Message.parse(raw), envelope, InboundRules(**rules))


class Counted(BodyDigests):
    """Knows how often a signature was checked."""

    checks = 0

    def digest(self, request: BodyRequest) -> bytes | None:
        self.checks += 1
        return super().digest(request)


def rounds_of(plan: InboundPlan, zone: Any, failing: Sequence[str] = ()) -> tuple[list[list[str]], Judged]:
    """The names that were missing in each round, sorted, and what came out."""
    digests = Counted(plan.body_requests)
    digests.update(BODY)
    digests.finish()
    known: dict[Question, Answer] = {}
    rounds: list[list[str]] = []
    resolver = ZoneResolver(zone, status={(name, "*"): Status.TEMPFAIL for name in failing})
    while len(rounds) < 10:
        answers = Answers(known)
        try:
            judged = judge_inbound(plan, digests, answers, now=NOW)
            assert digests.checks == len(plan.signatures.chosen), "no round repeats the cryptography"
            return rounds, judged
        except Unanswered:
            rounds.append(sorted(str(question) for question in answers.missing))
            known.update(resolver.resolve(answers.missing, deadline=0))
    raise AssertionError("it never has enough")


PLAIN = mail("<ceo@bank.test>")
WIDE = {"evil.test": {"TXT": ["v=spf1 +all"]}, "_dmarc.evil.test": {"TXT": ["v=DMARC1; p=reject"]}}
SIGNED = sign_as(ke(), PLAIN, d="evil.test")


@pytest.mark.parametrize(
    ("raw", "given", "names"),
    [
        pytest.param(PLAIN, {}, ["evil.test", *WALK], id="no signature"),
        pytest.param(SIGNED, {}, [KEY, "evil.test", *WALK], id="a signature"),
        pytest.param(sign_as(ke(), SIGNED, d="evil.test"), {}, [KEY, "evil.test", *WALK], id="twice the same key"),
        pytest.param(SIGNED, {"mail_from": b""}, [KEY, "mail.evil.test", *WALK], id="null path: the HELO name"),
        pytest.param(SIGNED, {"mail_from": b"x"}, [KEY, *WALK], id="no domain in the path"),
        pytest.param(SIGNED, {"ip": None}, [KEY, *WALK], id="no address"),
        pytest.param(SIGNED, {"ip": "127.0.0.1"}, [KEY], id="a client of our own"),
        pytest.param(SIGNED, {"ip": "::ffff:127.0.0.1"}, [KEY], id="a client of our own, mapped"),
        pytest.param(mail("bank.test"), {}, ["evil.test"], id="no author domain"),
        pytest.param(
            mail("<a@bank.test>, <b@mail.bank.test>"),
            {},
            ["evil.test", *WALK, "_dmarc.mail.bank.test"],
            id="several author domains",
        ),
        pytest.param(
            mail(", ".join(f"<a@bank{number}.test>" for number in range(MAX_AUTHOR_DOMAINS + 1))),
            {},
            ["evil.test"],
            id="more author domains than are judged",
        ),
    ],
)
def test_what_can_be_asked_before_the_body(raw: bytes, given: dict[str, Any], names: list[str]) -> None:
    questions = plan_of(raw, **given).questions
    assert [question.name for question in questions] == names
    assert {question.rdtype.value for question in questions} == {"TXT"}


def test_a_malformed_message_is_nobodys() -> None:
    """No domain's rules hold for it, and no policy is asked for, though From may have been read."""
    plan = plan_of(PLAIN.replace(b"\r\n\r\n", b"\r\nno field\r\n\r\n", 1))
    assert plan.message.author.domains == ("bank.test",)
    assert (plan.malformed, plan.author_domains) == (MalformedReason.HEADER_SYNTAX, ())


def test_what_can_be_asked_with_a_list_of_public_suffixes(tmp_path: Path) -> None:
    """RFC 7489 §6.6.3: the author domain and its Organizational Domain."""
    (tmp_path / "list.dat").write_text(SUFFIXES)
    suffixes = PublicSuffixes.load(str(tmp_path / "list.dat"))
    questions = plan_of(mail("<ceo@a.mail.bank.test>"), suffixes=suffixes).questions
    assert [question.name for question in questions] == ["evil.test", "_dmarc.a.mail.bank.test", "_dmarc.bank.test"]


FIRST = [f"{KEY} TXT", "_dmarc.bank.test TXT", "_dmarc.test TXT", "evil.test TXT", "mail.evil.test TXT"]


@pytest.mark.parametrize(
    ("given", "later"),
    [
        pytest.param({}, [], id="nothing of the sender is below the author domain"),
        pytest.param({"mail_from": b"x@a.bank.test"}, ["_dmarc.a.bank.test TXT"], id="the path is below it"),
        pytest.param({"mail_from": b"", "helo": b"a.bank.test"}, ["_dmarc.a.bank.test TXT"], id="HELO, null path"),
        pytest.param({"mail_from": b"x@a.bank.test", "ip": None}, ["_dmarc.a.bank.test TXT"], id="no address"),
    ],
)
def test_all_is_asked_in_two_rounds(given: dict[str, Any], later: list[str]) -> None:
    """The first asks for the keys, SPF and the author's walk, the second for the walks that could align."""
    zone = {"_dmarc.bank.test": {"TXT": ["v=DMARC1; p=reject"]}}
    rounds, _ = rounds_of(plan_of(SIGNED, **given), zone)
    path = given.get("mail_from", b"x@evil.test").decode().rpartition("@")[2]
    helo = given.get("helo", b"mail.evil.test").decode()
    spf = {f"{name} TXT" for name in (path, helo) if name and "ip" not in given}
    assert rounds == [sorted({*FIRST[:3], *spf}), *([later] if later else [])]


@pytest.mark.parametrize(
    ("given", "identities"),
    [
        ({}, ["evil.test", "mail.evil.test"]),
        ({"checks_helo": False}, ["evil.test", None]),
        ({"mail_from": b""}, ["mail.evil.test", None]),
        ({"mail_from": b"", "checks_helo": False}, ["mail.evil.test", None]),
        ({"ip": "127.0.0.1"}, [None, None]),
    ],
    ids=["both", "no HELO", "null path", "null path, no HELO", "a client of our own"],
)
def test_which_identities_spf_checks(given: dict[str, Any], identities: list[str | None]) -> None:
    """RFC 7208 §2.3, RFC 7208 §2.4."""
    _, judged = rounds_of(plan_of(PLAIN, **given), {})
    results = (judged.evidence.spf, judged.evidence.helo_spf)
    assert [result.domain if result is not None else None for result in results] == identities


@pytest.mark.attack("S22")
@pytest.mark.parametrize(
    ("record", "counts", "expected"),
    [
        pytest.param("v=spf1 +all", True, "pass", id="as the RFCs have it"),
        pytest.param("v=spf1 +all", False, "fail", id="withheld"),
        pytest.param("v=spf1 ip4:128.0.0.0/1", False, "fail", id="half of all addresses"),
        pytest.param("v=spf1 ip4:198.51.100.0/24", False, "pass", id="a narrow term"),
        pytest.param("v=spf1 include:nowhere.test", False, "fail", id="no pass"),
        pytest.param("v=spf1 ip4:198.51.100.0/24 +all", False, "pass", id="a narrow term before a wide one"),
    ],
)
def test_whether_a_permissive_pass_counts(record: str, counts: bool, expected: str) -> None:
    zone = {**WIDE, "evil.test": {"TXT": [record]}}
    plan = plan_of(mail("<x@evil.test>"), counts_permissive_spf=counts)
    _, judged = rounds_of(plan, zone)
    assert judged.verdict is not None
    assert judged.verdict.status.value == expected


def test_an_explanation_names_this_host_and_the_time() -> None:
    """RFC 7208 §7.3: %{r} and %{t}."""
    texts = {"evil.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["%{r} %{t}"]}}
    _, judged = rounds_of(plan_of(mail("<x@evil.test>"), receiver="mx.us.test"), texts)
    assert judged.evidence.spf is not None
    assert judged.evidence.spf.explanation == f"mx.us.test {NOW:.0f}"


@pytest.mark.attack("S22")
def test_why_a_withheld_pass_is_none() -> None:
    zone = {**WIDE, "evil.test": {"TXT": ["v=spf1 +all"]}}
    _, judged = rounds_of(plan_of(mail("<x@evil.test>"), counts_permissive_spf=False), zone)
    assert judged.verdict is not None
    assert judged.verdict.detail.startswith("no pass of SPF or DKIM is one that counts; the policy of evil.test")


@pytest.mark.attack("S22")
@pytest.mark.parametrize("counts", [True, False])
def test_what_the_dns_did_not_answer_is_no_fail(counts: bool) -> None:
    """Also where a term that covers everything comes after it."""
    zone = {**WIDE, "evil.test": {"TXT": ["v=spf1 include:broken.test +all"]}}
    plan = plan_of(mail("<x@evil.test>"), counts_permissive_spf=counts)
    _, judged = rounds_of(plan, zone, failing=["broken.test"])
    assert judged.evidence.spf is not None
    assert judged.verdict is not None
    assert (judged.evidence.spf.status.value, judged.verdict.status.value) == ("temperror", "temperror")


@pytest.mark.attack("S22")
def test_a_signature_counts_beside_a_permissive_pass() -> None:
    signed = sign_as(ke(), mail("<x@evil.test>"), d="evil.test")
    zone = {**WIDE, KEY: {"TXT": [key_record(ke()).decode()]}}
    _, judged = rounds_of(plan_of(signed, counts_permissive_spf=False), zone)
    assert judged.verdict is not None
    assert [(each.method, each.counts) for each in judged.verdict.alignments] == [("spf", False), ("dkim", True)]
    assert judged.verdict.status.value == "pass"


@pytest.mark.parametrize(
    ("raw", "given"),
    [
        pytest.param(SIGNED, {}, id="signed by another"),
        pytest.param(sign_as(ke(), mail("<a@evil.test>"), d="evil.test"), {}, id="all of one domain"),
        pytest.param(mail("<a@mail.evil.test>"), {"mail_from": b"x@b.evil.test"}, id="below the record"),
        pytest.param(mail("<a@evil.test>"), {"mail_from": b""}, id="null path"),
        pytest.param(mail("<a@evil.test>, <b@bank.test>"), {}, id="several author domains"),
    ],
)
def test_messages_before_change_nothing(raw: bytes, given: dict[str, Any]) -> None:
    """What is kept with the answers is what comes out without it, and the answers are noted as read all the same."""
    resolver = ZoneResolver({**WIDE, KEY: {"TXT": [key_record(ke())]}})
    kept: dict[Question, Answer] = {}

    def at_hand(question: Question) -> Answer:
        return kept.get(question) or kept.setdefault(question, resolver.resolve([question], deadline=0)[question])

    def judged(plan: InboundPlan, answers: Answers) -> tuple[Judged, tuple[Answer, ...]]:
        digests = BodyDigests(plan.body_requests)
        digests.update(BODY)
        digests.finish()
        return judge_inbound(plan, digests, answers, now=NOW), answers.consumed

    plan = plan_of(raw, **given)
    first = judged(plan, Answers(at_hand=at_hand))
    for _ in range(2):
        assert judged(plan, Answers(at_hand=at_hand)) == first
    assert judged(plan, Answers(resolver.resolve(kept, deadline=0))) == first
