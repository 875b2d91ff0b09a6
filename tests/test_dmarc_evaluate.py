"""The DMARC verdict: alignment, what counts as passed, what a missing answer may change (RFC 9989 §4.4, §5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dmarc_asking import bank, dkim, judged, outcome, records, resolver_of, spf
from mailguard.dkim.result import DkimResult
from mailguard.dmarc.evaluate import judge, needs, strictest
from mailguard.dmarc.record import AlignmentMode, DmarcPolicy
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.message import Message
from mailguard.spf.result import SpfIdentity, SpfResult
from zone0 import zone as zone0

REJECT = "v=DMARC1; p=reject"
BANK = ZoneResolver(zone0())
PASS, FAIL, NONE = DmarcStatus.PASS, DmarcStatus.FAIL, DmarcStatus.NONE
TEMPERROR, PERMERROR = DmarcStatus.TEMPERROR, DmarcStatus.PERMERROR


# -- what counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "signatures", "expected"),
    [
        pytest.param(None, [], (FAIL, DmarcReason.NOTHING_PASSED), id="nothing"),
        pytest.param(spf("bank.test"), [], (PASS, DmarcReason.ALIGNED), id="SPF"),
        pytest.param(None, [dkim("bank.test")], (PASS, DmarcReason.ALIGNED), id="DKIM"),
        pytest.param(
            spf("nosuch.bank.test", "none"),
            [],
            (FAIL, DmarcReason.NOTHING_PASSED),
            id="E01",
            marks=pytest.mark.attack("E01"),
        ),
        pytest.param(spf("bank.test", "fail"), [], (FAIL, DmarcReason.NOTHING_PASSED), id="SPF fail"),
        pytest.param(spf("bank.test", "softfail"), [], (FAIL, DmarcReason.NOTHING_PASSED), id="SPF softfail"),
        pytest.param(spf("bank.test", "neutral"), [], (FAIL, DmarcReason.NOTHING_PASSED), id="SPF neutral"),
        pytest.param(spf("bank.test", "permerror"), [], (FAIL, DmarcReason.NOTHING_PASSED), id="SPF permerror"),
        pytest.param(
            spf("bank.test", identity=SpfIdentity.HELO),
            [],
            (FAIL, DmarcReason.NOTHING_PASSED),
            id="E12 HELO",
            marks=pytest.mark.attack("E12"),
        ),
        pytest.param(spf("bank.test", is_null_sender=True), [], (PASS, DmarcReason.ALIGNED), id="a bounce"),
        pytest.param(
            spf("bank.test", "fail", is_null_sender=True),
            [],
            (FAIL, DmarcReason.NOTHING_PASSED),
            id="E11",
            marks=pytest.mark.attack("E11"),
        ),
        pytest.param(
            spf("evil.test"),
            [dkim("evil.test")],
            (FAIL, DmarcReason.NOT_ALIGNED),
            id="D01",
            marks=pytest.mark.attack("D01"),
        ),
        pytest.param(
            None,
            [dkim("bank.test", "fail"), dkim("evil.test")],
            (FAIL, DmarcReason.NOT_ALIGNED),
            id="D32",
            marks=pytest.mark.attack("D32"),
        ),
        pytest.param(None, [dkim("evil.test"), dkim("bank.test")], (PASS, DmarcReason.ALIGNED), id="one of two"),
        pytest.param(
            None,
            [dkim("bank.test", "permerror")],
            (FAIL, DmarcReason.NOTHING_PASSED),
            id="D37",
            marks=pytest.mark.attack("D37"),
        ),
        pytest.param(None, [dkim("bank.test", "policy")], (FAIL, DmarcReason.NOTHING_PASSED), id="DKIM policy"),
        pytest.param(None, [dkim("bank.test", "neutral")], (FAIL, DmarcReason.NOTHING_PASSED), id="DKIM neutral"),
        pytest.param(
            None, [dkim("bank.test", testing=True)], (FAIL, DmarcReason.NOTHING_PASSED), id="a key in testing"
        ),
        pytest.param(
            None, [replace(dkim("bank.test"), domain=None)], (FAIL, DmarcReason.NOTHING_PASSED), id="DKIM without d="
        ),
        pytest.param(
            replace(spf("bank.test"), domain=None), [], (FAIL, DmarcReason.NOTHING_PASSED), id="SPF without a domain"
        ),
    ],
)
def test_what_passes(
    sender: SpfResult | None, signatures: Sequence[DkimResult], expected: tuple[DmarcStatus, DmarcReason]
) -> None:
    verdict = judged("bank.test", BANK, spf=sender, dkim=signatures)
    assert outcome(verdict) == expected
    assert (verdict.policy, verdict.policy_tag) == (DmarcPolicy.REJECT, "p")
    assert verdict.has_aligned_pass is (verdict.status is PASS)


def test_a_verdict_tells_what_it_rests_on() -> None:
    resolver = resolver_of(records({"_dmarc.bank.test": "v=DMARC1; p=none; sp=reject; t=y"}))
    verdict = judged("a.bank.test", resolver, spf=spf("evil.test"), dkim=[dkim("b.bank.test", "fail")])
    assert (verdict.author_domain, verdict.record_domain) == ("a.bank.test", "bank.test")
    assert verdict.organizational_domain == "bank.test"
    assert (verdict.policy, verdict.policy_tag, verdict.is_testing) == (DmarcPolicy.QUARANTINE, "sp", True)
    assert verdict.record is not None
    assert verdict.record.text == "v=DMARC1; p=none; sp=reject; t=y"
    assert verdict.walk == (
        "_dmarc.a.bank.test: no record",
        "_dmarc.bank.test: record",
        "_dmarc.test: no record",
    )
    by_spf, by_dkim = verdict.alignments
    assert (by_spf.method, by_spf.domain, by_spf.result) == ("spf", "evil.test", "pass")
    assert (by_spf.counts, by_spf.aligned, by_spf.organizational_domain) == (True, Aligned.NO, None)
    assert (by_dkim.method, by_dkim.selector, by_dkim.result, by_dkim.counts) == ("dkim", "s1", "fail", False)
    assert (by_dkim.aligned, by_dkim.organizational_domain) == (Aligned.YES, "bank.test")
    assert verdict.detail == (
        "nothing that passes is aligned with a.bank.test; "
        "the policy of a.bank.test is quarantine (sp= at bank.test, one step weaker for t=y)"
    )
    with pytest.raises(TypeError):
        bool(verdict)


@pytest.mark.parametrize(
    ("resolver", "sender", "detail"),
    [
        (bank(), spf("bank.test"), "SPF passes for bank.test, which is aligned with bank.test"),
        (bank(), None, "neither SPF nor DKIM passes; the policy of bank.test is reject (p= at bank.test)"),
        (resolver_of({}), None, "there is no DMARC record for bank.test"),
        (
            bank(D__bank__test="v=DMARC1"),
            None,
            "the DMARC record at _dmarc.bank.test has no usable policy (p= is missing) and asks for no reports",
        ),
        (
            bank(D__bank__test="v=DMARC1; p=reject; sp=x; rua=mailto:d@bank.test"),
            None,
            "neither SPF nor DKIM passes; "
            "the policy of bank.test is none (at bank.test sp= cannot be read or stands there twice)",
        ),
        (resolver_of({}, ["_dmarc.test"]), None, "the DNS does not say which DMARC policy bank.test has"),
        (
            resolver_of(records({"_dmarc.test": "v=DMARC1; p=none; np=reject"}), ["bank.test"]),
            None,
            "the DNS does not say whether bank.test exists, on which its DMARC policy depends",
        ),
        (
            bank(),
            spf("bank.test", "temperror"),
            "the DNS did not answer what could have made it pass; "
            "the policy of bank.test is reject (p= at bank.test)",
        ),
    ],
    ids=range(8),
)
def test_the_sentence_for_people(resolver: ZoneResolver, sender: SpfResult | None, detail: str) -> None:
    assert judged("bank.test", resolver, spf=sender).detail == detail


# -- missing answers ----------------------------------------------------------------------------------------------


@pytest.mark.attack("M03", "M04", "N09")
@pytest.mark.parametrize("failure", [Status.TEMPFAIL, Status.BOGUS], ids=lambda status: status.value)
@pytest.mark.parametrize("failing", ["_dmarc.bank.test", "_dmarc.test"])
@pytest.mark.parametrize(
    ("sender", "signatures", "has_aligned_pass"),
    [
        pytest.param(None, [], False, id="M03"),
        pytest.param(spf("evil.test"), [dkim("evil.test")], False, id="M03 another domain"),
        pytest.param(spf("bank.test"), [], True, id="M04 SPF"),
        pytest.param(None, [dkim("bank.test")], True, id="M04 DKIM"),
        # The record that did not come may ask for strict alignment.
        pytest.param(None, [dkim("mail.bank.test")], False, id="M03 a subdomain"),
        pytest.param(None, [dkim("bank.test", testing=True)], False, id="M03 a key in testing"),
        pytest.param(spf("bank.test", "temperror"), [], False, id="M03 SPF has no answer either"),
    ],
)
def test_the_policy_is_not_known(
    failure: Status, failing: str, sender: SpfResult | None, signatures: list[DkimResult], has_aligned_pass: bool
) -> None:
    verdict = judged("bank.test", resolver_of({}, [failing], failure), spf=sender, dkim=signatures)
    assert outcome(verdict) == (TEMPERROR, DmarcReason.POLICY_UNAVAILABLE)
    assert verdict.policy is None
    assert verdict.has_aligned_pass is has_aligned_pass


@pytest.mark.attack("D36", "N09")
@pytest.mark.parametrize(
    ("sender", "signatures", "expected"),
    [
        pytest.param(None, [dkim("bank.test", "temperror")], TEMPERROR, id="D36"),
        pytest.param(None, [dkim("mail.bank.test", "temperror")], TEMPERROR, id="D36 a subdomain"),
        pytest.param(spf("bank.test", "temperror"), [], TEMPERROR, id="SPF"),
        pytest.param(spf("bank.test", "temperror"), [dkim("bank.test")], PASS, id="another passes"),
        pytest.param(spf("bank.test", "temperror"), [dkim("evil.test")], TEMPERROR, id="another domain passes"),
        pytest.param(spf("evil.test", "temperror"), [], FAIL, id="it could never be aligned"),
        # A "ptr" that did not match for want of an answer.
        pytest.param(replace(spf("bank.test", "softfail"), is_uncertain=True), [], TEMPERROR, id="SPF uncertain"),
        pytest.param(replace(spf("evil.test", "softfail"), is_uncertain=True), [], FAIL, id="nor this"),
        pytest.param(spf("evil.test"), [dkim("evil.test", "temperror")], FAIL, id="nor could this"),
        pytest.param(
            spf("bank.test", "temperror", identity=SpfIdentity.HELO), [], FAIL, id="HELO counts for nothing"
        ),
        pytest.param(replace(spf("bank.test", "temperror"), domain=None), [], FAIL, id="no domain"),
    ],
)
def test_spf_or_dkim_is_not_known(
    sender: SpfResult | None, signatures: list[DkimResult], expected: DmarcStatus
) -> None:
    verdict = judged("bank.test", BANK, spf=sender, dkim=signatures)
    assert verdict.status is expected
    assert verdict.policy is DmarcPolicy.REJECT
    if expected is TEMPERROR:
        assert verdict.reason is DmarcReason.AUTHENTICATION_UNAVAILABLE


@pytest.mark.attack("D36", "M08", "N09")
@pytest.mark.parametrize(
    ("tags", "sender", "signatures", "expected"),
    [
        pytest.param("aspf=s", spf("a.bank.test", "temperror"), [], FAIL, id="SPF, strict"),
        pytest.param("adkim=s", None, [dkim("a.bank.test", "temperror")], FAIL, id="DKIM, strict"),
        pytest.param("adkim=s", spf("a.bank.test", "temperror"), [], TEMPERROR, id="SPF, DKIM strict"),
        pytest.param("aspf=s; adkim=s", spf("bank.test", "temperror"), [], TEMPERROR, id="the same domain, strict"),
    ],
)
def test_what_strict_alignment_rules_out_is_not_waited_for(
    tags: str, sender: SpfResult | None, signatures: list[DkimResult], expected: DmarcStatus
) -> None:
    """RFC 9989 §5.3.6 is for errors that the result hangs on."""
    resolver = resolver_of(records({"_dmarc.bank.test": f"{REJECT}; {tags}"}))
    assert judged("bank.test", resolver, spf=sender, dkim=signatures).status is expected


@pytest.mark.parametrize("status", ["none", "quarantine", "reject"])
def test_a_pass_needs_no_answer_on_existence(status: str) -> None:
    inherited = records({"_dmarc.bank.test": f"v=DMARC1; p={status}; sp=none; np=reject"})
    resolver = resolver_of(inherited, ["a.bank.test"])
    passing = judged("a.bank.test", resolver, dkim=[dkim("a.bank.test")])
    assert (passing.status, passing.policy) == (PASS, None)
    assert outcome(judged("a.bank.test", resolver)) == (TEMPERROR, DmarcReason.POLICY_UNAVAILABLE)


# -- asking before it is known what passed ------------------------------------------------------------------------


def rounds_of(author: str, candidates: Sequence[str], resolver: ZoneResolver) -> tuple[dict[Question, object], int]:
    known: dict[Question, object] = {}
    for number in range(10):
        answers = Answers(known)  # type: ignore[arg-type]  # what the resolver gives
        try:
            needs(Domain.parse(author), candidates=map(Domain.parse, candidates), answers=answers)
        except Unanswered:
            known.update(resolver.resolve(answers.missing, deadline=0))
            continue
        return known, number
    raise AssertionError("it never has enough")


@pytest.mark.parametrize(
    ("author", "candidates", "names", "rounds"),
    [
        ("bank.test", [], {"_dmarc.bank.test", "_dmarc.test"}, 1),
        ("bank.test", ["bank.test", "evil.test"], {"_dmarc.bank.test", "_dmarc.test"}, 1),
        ("bank.test", ["mail.bank.test"], {"_dmarc.bank.test", "_dmarc.test", "_dmarc.mail.bank.test"}, 2),
        (
            "a.shop.test",
            ["b.shop.test"],
            {"_dmarc.a.shop.test", "_dmarc.shop.test", "_dmarc.test", "a.shop.test", "_dmarc.b.shop.test"},
            2,
        ),
        ("strict.test", ["a.strict.test"], {"_dmarc.strict.test", "_dmarc.test"}, 1),
        ("nobody.test", ["a.nobody.test"], {"_dmarc.nobody.test", "_dmarc.test"}, 1),
    ],
)
def test_judge_asks_nothing_that_needs_did_not(
    author: str, candidates: list[str], names: set[str], rounds: int
) -> None:
    resolver = bank(D__shop__test="v=DMARC1; p=none; np=reject", D__strict__test="v=DMARC1; p=none; adkim=s; aspf=s")
    known, number = rounds_of(author, candidates, resolver)
    assert {question.name for question in known} == names
    assert number == rounds
    answers = Answers(known)  # type: ignore[arg-type]  # what the resolver gave
    results = [dkim(candidate) for candidate in candidates]
    judge(Domain(author), spf=None, dkim=results, answers=answers)
    assert answers.missing == ()


def test_judge_alone_asks_for_all_walks_and_for_existence_together() -> None:
    resolver = bank(D__shop__test="v=DMARC1; p=none; np=reject")
    known: dict[Question, Answer] = {}
    rounds = []
    results = [dkim("b.shop.test"), dkim("evil.test"), dkim("c.b.shop.test")]
    while True:
        answers = Answers(known)
        try:
            judge(Domain("a.shop.test"), spf=spf("d.shop.test"), dkim=results, answers=answers)
        except Unanswered:
            rounds.append({question.name for question in answers.missing})
            known.update(resolver.resolve(answers.missing, deadline=0))
            continue
        break
    later = ("b.shop.test", "c.b.shop.test", "d.shop.test")
    assert rounds == [
        {"_dmarc.a.shop.test", "_dmarc.shop.test", "_dmarc.test"},
        {"a.shop.test", *(f"_dmarc.{name}" for name in later)},
    ]


# -- several author domains ---------------------------------------------------------------------------------------


def verdict_of(status: DmarcStatus, policy: str | None = None) -> DmarcVerdict:
    return DmarcVerdict(
        status=status,
        reason=DmarcReason.NO_RECORD,
        detail="made up",
        author_domain=Domain("bank.test"),
        policy=DmarcPolicy(policy) if policy else None,
    )


ORDER = [
    verdict_of(NONE),
    verdict_of(PERMERROR),
    verdict_of(FAIL, "none"),
    verdict_of(FAIL, "quarantine"),
    verdict_of(TEMPERROR, "quarantine"),
    verdict_of(TEMPERROR),
    verdict_of(FAIL, "reject"),
]


@pytest.mark.attack("F16")
def test_a_missing_policy_beside_a_pass_hides_no_other_domain() -> None:
    """Whoever makes the DNS of his own domain fail is not to be asked to try again, instead of being refused."""
    passed = Alignment(
        method="spf",
        domain=Domain("evil.test"),
        result="pass",
        mode=AlignmentMode.RELAXED,
        aligned=Aligned.YES,
        counts=True,
    )
    silent = replace(verdict_of(TEMPERROR), author_domain=Domain("evil.test"), alignments=(passed,))
    for verdict in (verdict_of(FAIL, "none"), verdict_of(TEMPERROR), verdict_of(FAIL, "reject")):
        assert strictest([silent, verdict]) == verdict
        assert strictest([verdict, silent]) == verdict
    assert strictest([verdict_of(NONE), silent]) == silent


@pytest.mark.attack("F16", "F22")
def test_the_strictest_stands() -> None:
    for weaker, verdict in enumerate(ORDER):
        for other in ORDER[: weaker + 1]:
            assert strictest([other, verdict]) == verdict
            assert strictest([verdict, other]) == verdict
    assert strictest(ORDER) == ORDER[-1]
    with pytest.raises(ValueError, match="empty"):
        strictest([])


@pytest.mark.attack("F16", "F22")
@pytest.mark.parametrize("policy", ["none", "quarantine", "reject"])
def test_a_pass_of_one_domain_is_none_for_the_message(policy: str) -> None:
    passing = verdict_of(PASS, policy)
    for others in ([], [passing], [verdict_of(NONE)]):
        verdict = strictest([passing, *others])
        assert outcome(verdict) == (PERMERROR, DmarcReason.SEVERAL_DOMAINS)
    assert strictest([passing, verdict_of(FAIL, "none")]).status is FAIL
    assert strictest([verdict_of(TEMPERROR), passing]).status is TEMPERROR


# -- From as the attacker writes it -------------------------------------------------------------------------------


@pytest.mark.attack("F")
@pytest.mark.parametrize(
    ("written", "authors", "status"),
    [
        pytest.param(b"<x@evil.test>, <ceo@bank.test>", ["evil.test", "bank.test"], FAIL, id="F16"),
        pytest.param(b"<a@us.test>, <b@us.test>", ["us.test"], NONE, id="F17"),
        pytest.param(b"<x@evil.test>, bogus", [], None, id="F18"),
        pytest.param(b"=?utf-8?B?PGNlb0BiYW5rLnRlc3Q+?=,<x@evil.test>", [], None, id="F19"),
        pytest.param(b"<@evil.test,@any.test:ceo@bank.test>", [], None, id="F20"),
        pytest.param(rb"<ceo@bank.test>\,<x@evil.test>", [], None, id="F21"),
        pytest.param(b"ceo@bank.test,<x@evil.test>", ["bank.test", "evil.test"], FAIL, id="F22"),
        pytest.param(b"<ceo@bank.test.>", [], None, id="F30 dot"),
        pytest.param(b"<ceo@BANK.Test>", ["bank.test"], FAIL, id="F30 case"),
        pytest.param("<ceo@b\u0430nk.test>".encode(), ["xn--bnk-6cd.test"], NONE, id="F33"),
        pytest.param("<ceo@bank\u3002test>".encode(), ["bank.test"], FAIL, id="F34"),
        pytest.param("<ceo@bank\uff0etest>".encode(), ["bank.test"], FAIL, id="F34 full width"),
    ],
)
def test_the_bank_is_never_lent_a_pass(written: bytes, authors: list[str], status: DmarcStatus | None) -> None:
    """The attacker's SPF and signature pass for evil.test. Without authors the message is malformed."""
    message = Message.parse(b"From: " + written + b"\r\n\r\nHello\r\n")
    assert list(message.author.domains) == authors
    verdicts = [
        judged(domain, BANK, spf=spf("evil.test"), dkim=[dkim("evil.test")]) for domain in message.author.domains
    ]
    if not verdicts:
        assert message.malformed is not None
        return
    verdict = verdicts[0] if len(verdicts) == 1 else strictest(verdicts)
    assert verdict.status is status
    if "bank.test" in authors:
        assert (verdict.author_domain, verdict.policy) == ("bank.test", DmarcPolicy.REJECT)
