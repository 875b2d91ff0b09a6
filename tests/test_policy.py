"""policy.decide: every rule, in monitor and in enforce, per domain, with trusted sources, and with the DNS silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.record import AlignmentMode, DmarcPolicy
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.inbound import Judged
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.message import MalformedReason
from mailguard.policy import (
    Decision,
    DomainPolicy,
    OverrideKind,
    Policy,
    TrustedSource,
    decide,
)
from mailguard.rule import Disposition, Mode, Rule
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

ACCEPT, HEADER, QUARANTINE = Disposition.ACCEPT, Disposition.HEADER, Disposition.QUARANTINE
TEMPFAIL, REJECT = Disposition.TEMPFAIL, Disposition.REJECT

BANK = Domain("bank.test")
EVIL = Domain("evil.test")
LISTS = Domain("lists.test")
CLIENT = ip_address("198.51.100.66")


def spf(status: str = "fail", domain: Domain = EVIL) -> SpfResult:
    return SpfResult(
        status=SpfStatus(status),
        reason=SpfReason.DNS if status == "temperror" else SpfReason.MATCH,
        detail="said so",
        identity=SpfIdentity.MAIL_FROM,
        domain=domain,
    )


def dkim(status: str = "pass", domain: Domain = EVIL, *, testing: bool = False) -> DkimResult:
    return DkimResult(
        status=DkimStatus(status), reason=DkimReason.VERIFIED, detail="said so", domain=domain, testing=testing
    )


def evidence(**more: Any) -> Evidence:
    values: dict[str, Any] = {
        "envelope": Envelope(client_ip=CLIENT, helo=b"evil.test", mail_from=b"x@evil.test"),
        "author_domains": (BANK,),
        "spf": spf("pass"),
        **more,
    }
    return Evidence(**values)


def verdict(status: str, policy: str | None = None, *, aligned_pass: bool = False) -> DmarcVerdict:
    alignment = Alignment(
        method="dkim", domain=BANK, result="pass", mode=AlignmentMode.RELAXED, aligned=Aligned.YES, counts=True
    )
    return DmarcVerdict(
        status=DmarcStatus(status),
        reason=DmarcReason.NOTHING_PASSED,
        detail="DMARC says so",
        author_domain=BANK,
        policy=DmarcPolicy(policy) if policy else None,
        alignments=(alignment,) if aligned_pass else (),
    )


FAILS = verdict("fail", "reject")
PASSES = verdict("pass", "reject", aligned_pass=True)


def ruled(policy: Policy = Policy(), found: DmarcVerdict | None = FAILS, **more: Any) -> Decision:  # noqa: B008 - frozen
    return decide(Judged(evidence(**more), found), policy=policy)


def actions(**by_name: Disposition) -> Policy:
    return Policy(actions={Rule(name.replace("_", "-")): action for name, action in by_name.items()})


DMARC: list[tuple[str, DmarcVerdict, Rule, Disposition, str]] = [
    ("pass", PASSES, Rule.NO_OBJECTION, ACCEPT, ""),
    ("none", verdict("none"), Rule.NO_OBJECTION, ACCEPT, ""),
    ("fail reject", FAILS, Rule.DMARC_REJECT, REJECT, "550 5.7.26"),
    ("fail quarantine", verdict("fail", "quarantine"), Rule.DMARC_QUARANTINE, QUARANTINE, ""),
    ("fail none", verdict("fail", "none"), Rule.DMARC_NONE, ACCEPT, ""),
    ("temperror, policy unknown", verdict("temperror"), Rule.DMARC_TEMPERROR, TEMPFAIL, "451 4.7.0"),
    ("temperror, reject", verdict("temperror", "reject"), Rule.DMARC_TEMPERROR, TEMPFAIL, "451 4.7.0"),
    ("temperror, quarantine", verdict("temperror", "quarantine"), Rule.DMARC_TEMPERROR, TEMPFAIL, "451 4.7.0"),
    ("temperror, none", verdict("temperror", "none"), Rule.NO_OBJECTION, ACCEPT, ""),
    ("M04 temperror, aligned pass", verdict("temperror", aligned_pass=True), Rule.NO_OBJECTION, ACCEPT, ""),
]


@pytest.mark.attack("M03", "M04")
@pytest.mark.parametrize(
    ("found", "rule", "would", "code"), [row[1:] for row in DMARC], ids=[row[0] for row in DMARC]
)
def test_what_follows_from_dmarc(found: DmarcVerdict, rule: Rule, would: Disposition, code: str) -> None:
    decision = ruled(found=found)
    assert (decision.rule, decision.would, decision.disposition) == (rule, would, would)
    refusal = decision.refusal
    assert (f"{refusal.code} {refusal.enhanced}" if refusal else "") == code
    if refusal:
        assert f"[{rule.value}]" in refusal.text


@pytest.mark.parametrize("found", [row[1] for row in DMARC], ids=[row[0] for row in DMARC])
def test_monitor_refuses_nothing_and_tells_what_enforcing_does(found: DmarcVerdict) -> None:
    enforcing, monitoring = ruled(found=found), ruled(Policy(mode=Mode.MONITOR), found)
    assert monitoring.disposition is ACCEPT
    assert monitoring.would is enforcing.would
    assert replace(monitoring, disposition=enforcing.disposition) == enforcing


@pytest.mark.parametrize("policy", list(DmarcPolicy))
def test_a_fail_that_is_refused_is_refused_as_one_whatever_was_asked_for(policy: DmarcPolicy) -> None:
    """RFC 7372 §3: several checks failed."""
    rule = Rule(f"dmarc-{policy.value}")
    refusal = ruled(Policy(actions={rule: REJECT}), verdict("fail", policy.value)).refusal
    assert refusal is not None
    assert (refusal.code, refusal.enhanced) == ("550", "5.7.26")
    assert refusal.text.endswith(f"[{rule.value}]")


def test_monitor_writes_the_header_field() -> None:
    policy = replace(actions(dmarc_reject=HEADER), mode=Mode.MONITOR)
    assert ruled(policy).disposition is HEADER


@pytest.mark.attack("M13")
def test_a_refusal_names_the_identifiers_the_reason_and_the_rule() -> None:
    refusal = ruled(spf=spf("pass"), dkim=(dkim("fail", BANK),)).refusal
    assert refusal is not None
    for part in ("DMARC says so", "SPF pass for evil.test", "DKIM fail for bank.test", "[dmarc-reject]"):
        assert part in refusal.text
    assert refusal.text.isascii()
    assert refusal.text.isprintable()


BY_THEMSELVES: list[tuple[str, Rule, dict[str, Any], str]] = [
    ("spf fail", Rule.SPF_FAIL, {"spf": spf("fail")}, "5.7.23"),
    ("spf softfail", Rule.SPF_SOFTFAIL, {"spf": spf("softfail")}, "5.7.23"),
    ("spf neutral", Rule.SPF_NEUTRAL, {"spf": spf("neutral")}, "5.7.23"),
    ("spf none", Rule.SPF_NONE, {"spf": spf("none")}, "5.7.23"),
    ("spf permerror", Rule.SPF_PERMERROR, {"spf": spf("permerror")}, "5.7.24"),
    ("helo fail", Rule.HELO_FAIL, {"helo_spf": spf("fail")}, "5.7.23"),
    ("helo permerror", Rule.HELO_PERMERROR, {"helo_spf": spf("permerror")}, "5.7.24"),
    ("dkim no signature", Rule.DKIM_NO_PASS, {}, "5.7.20"),
    ("dkim fail", Rule.DKIM_NO_PASS, {"dkim": (dkim("fail"),)}, "5.7.20"),
    ("dkim testing", Rule.DKIM_NO_PASS, {"dkim": (dkim("pass", BANK, testing=True),)}, "5.7.20"),
    ("dkim other domain", Rule.DKIM_NO_AUTHOR_PASS, {"dkim": (dkim("pass"),)}, "5.7.22"),
    ("iprev", Rule.IPREV_FAIL, {"iprev": IprevResult(IprevStatus.FAIL, "no name", CLIENT)}, "5.7.25"),
    ("iprev no name", Rule.IPREV_FAIL, {"iprev": IprevResult(IprevStatus.PERMERROR, "no", CLIENT)}, "5.7.25"),
]


@pytest.mark.parametrize(
    ("rule", "more", "code"), [row[1:] for row in BY_THEMSELVES], ids=[row[0] for row in BY_THEMSELVES]
)
def test_each_check_decides_only_where_it_is_told_to(rule: Rule, more: dict[str, Any], code: str) -> None:
    assert ruled(found=PASSES, **more).disposition is ACCEPT
    decision = ruled(Policy(actions={rule: REJECT}), PASSES, **more)
    assert (decision.disposition, decision.rule) == (REJECT, rule)
    assert decision.refusal is not None
    assert decision.refusal.enhanced == code


UNCERTAIN = replace(spf("softfail"), is_uncertain=True)
TEMPORARY: list[tuple[str, Rule, Rule, dict[str, Any], str]] = [
    ("spf", Rule.SPF_TEMPERROR, Rule.SPF_FAIL, {"spf": spf("temperror")}, "4.7.24"),
    ("spf softfail", Rule.SPF_TEMPERROR, Rule.SPF_SOFTFAIL, {"spf": spf("temperror")}, "4.7.24"),
    ("spf uncertain", Rule.SPF_TEMPERROR, Rule.SPF_SOFTFAIL, {"spf": UNCERTAIN}, "4.7.24"),
    ("helo", Rule.HELO_TEMPERROR, Rule.HELO_FAIL, {"helo_spf": spf("temperror")}, "4.7.24"),
    ("helo uncertain", Rule.HELO_TEMPERROR, Rule.HELO_SOFTFAIL, {"helo_spf": UNCERTAIN}, "4.7.24"),
    ("dkim", Rule.DKIM_TEMPERROR, Rule.DKIM_NO_PASS, {"dkim": (dkim("temperror", BANK),)}, "4.7.0"),
    (
        "iprev",
        Rule.IPREV_TEMPERROR,
        Rule.IPREV_FAIL,
        {"iprev": IprevResult(IprevStatus.TEMPERROR, "silent", CLIENT)},
        "4.7.0",
    ),
]


@pytest.mark.parametrize(
    ("rule", "depends_on", "more", "code"), [row[1:] for row in TEMPORARY], ids=[row[0] for row in TEMPORARY]
)
@pytest.mark.parametrize("strict", [QUARANTINE, TEMPFAIL, REJECT, HEADER, ACCEPT])
def test_a_missing_answer_delays_only_what_it_could_keep_back(
    rule: Rule, depends_on: Rule, more: dict[str, Any], code: str, strict: Disposition
) -> None:
    decision = ruled(Policy(actions={depends_on: strict}), PASSES, **more)
    if strict.keeps_back:
        assert (decision.disposition, decision.rule) == (TEMPFAIL, rule)
        assert decision.refusal is not None
        assert decision.refusal.enhanced == code
    else:
        assert decision.disposition is ACCEPT


def test_what_fails_into_a_tempfail_waits_for_the_dns_too() -> None:
    policy = actions(dmarc_reject=TEMPFAIL)
    assert ruled(policy).disposition is TEMPFAIL
    for found in (verdict("temperror", "reject"), verdict("temperror")):
        assert ruled(policy, found).rule is Rule.DMARC_TEMPERROR


def test_a_dkim_pass_of_the_author_needs_no_other_key() -> None:
    signatures = (dkim("pass", BANK), dkim("temperror", EVIL))
    assert ruled(actions(dkim_no_pass=REJECT), PASSES, dkim=signatures).disposition is ACCEPT


def test_a_refusal_that_stands_whatever_the_dns_says_does_not_wait() -> None:
    policy = actions(spf_fail=REJECT)
    assert ruled(policy, verdict("temperror"), spf=spf("fail")).rule is Rule.SPF_FAIL


def test_waiting_comes_before_quarantine() -> None:
    policy = actions(spf_fail=QUARANTINE)
    assert ruled(policy, verdict("temperror"), spf=spf("fail")).disposition is TEMPFAIL


def test_the_findings_tell_everything_the_strictest_first() -> None:
    decision = ruled(actions(spf_fail=QUARANTINE), spf=spf("fail"))
    assert [(each.rule, each.disposition) for each in decision.findings] == [
        (Rule.DMARC_REJECT, REJECT),
        (Rule.SPF_FAIL, QUARANTINE),
        (Rule.DKIM_NO_PASS, ACCEPT),
    ]


# -- domains ------------------------------------------------------------------------------------------------------

SUB = Domain("mail.bank.test")
OWN = [
    DomainPolicy(domain=BANK, subdomains=True, actions={Rule.DMARC_NONE: QUARANTINE, Rule.SPF_FAIL: HEADER}),
    DomainPolicy(domain=SUB, actions={Rule.DMARC_NONE: REJECT}),
]
PER_DOMAIN: list[tuple[str, tuple[Domain, ...], Disposition]] = [
    ("the domain", (BANK,), QUARANTINE),
    ("nearest", (SUB,), REJECT),
    ("subdomain", (Domain("a.bank.test"),), QUARANTINE),
    ("below the nearest, which is for itself only", (Domain("x.mail.bank.test"),), QUARANTINE),
    ("another", (EVIL,), ACCEPT),
    ("a name that only ends alike", (Domain("notbank.test"),), ACCEPT),
    ("several: the strictest", (EVIL, SUB, BANK), REJECT),
]


@pytest.mark.parametrize(("authors", "expected"), [row[1:] for row in PER_DOMAIN], ids=[row[0] for row in PER_DOMAIN])
def test_a_domain_has_rules_of_its_own(authors: tuple[Domain, ...], expected: Disposition) -> None:
    policy = Policy(domains=tuple(OWN))
    assert ruled(policy, verdict("fail", "none"), author_domains=authors).disposition is expected


# -- trusted sources ----------------------------------------------------------------------------------------------


def trusting(**more: Any) -> Policy:
    source = TrustedSource(kind=OverrideKind.MAILING_LIST, **more)
    return Policy(trusted=(source,))


CONFIRMED = IprevResult(IprevStatus.PASS, "confirmed", CLIENT, (Domain("host.isp.test"), Domain("out.lists.test")))
UNCONFIRMED = IprevResult(IprevStatus.FAIL, "not confirmed", CLIENT)
SUBLIST = Domain("a.lists.test")
ENVELOPE = Envelope(client_ip=CLIENT, helo=b"x", mail_from=b"x@evil.test", login=b"alice")
TRUSTED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("dkim", {"dkim": (LISTS,)}, {"dkim": (dkim("pass", LISTS),)}, "dkim=lists.test"),
    ("dkim subdomain", {"dkim": (LISTS,)}, {"dkim": (dkim("pass", SUBLIST),)}, "dkim=a.lists.test"),
    ("dkim second signature", {"dkim": (LISTS,)}, {"dkim": (dkim("fail"), dkim("pass", LISTS))}, "dkim=lists.test"),
    ("dkim fails", {"dkim": (LISTS,)}, {"dkim": (dkim("fail", LISTS),)}, ""),
    ("dkim testing", {"dkim": (LISTS,)}, {"dkim": (dkim("pass", LISTS, testing=True),)}, ""),
    ("dkim other", {"dkim": (LISTS,)}, {"dkim": (dkim("pass", EVIL),)}, ""),
    ("dkim ends alike", {"dkim": (LISTS,)}, {"dkim": (dkim("pass", Domain("xlists.test")),)}, ""),
    ("spf", {"spf": (LISTS,)}, {"spf": spf("pass", LISTS)}, "spf=lists.test"),
    ("spf fails", {"spf": (LISTS,)}, {"spf": spf("softfail", LISTS)}, ""),
    ("the HELO name is no sender", {"spf": (LISTS,)}, {"helo_spf": spf("pass", LISTS)}, ""),
    ("ptr", {"ptr": (LISTS,)}, {"iprev": CONFIRMED}, "ptr=out.lists.test"),
    ("ptr not confirmed", {"ptr": (LISTS,)}, {"iprev": UNCONFIRMED}, ""),
    ("ptr of another", {"ptr": (EVIL,)}, {"iprev": CONFIRMED}, ""),
    ("network", {"networks": (ip_network("198.51.100.0/24"),)}, {}, "network 198.51.100.66"),
    ("other network", {"networks": (ip_network("203.0.113.0/24"),)}, {}, ""),
    ("login", {"logins": ("alice",)}, {"envelope": ENVELOPE}, "login"),
    ("other login", {"logins": ("bob",)}, {"envelope": ENVELOPE}, ""),
    ("no login", {"logins": ("",)}, {}, ""),
]


@pytest.mark.attack("M11")
@pytest.mark.parametrize(
    ("source", "more", "identity"), [row[1:] for row in TRUSTED], ids=[row[0] for row in TRUSTED]
)
def test_only_a_verified_identity_sets_policy_aside(
    source: dict[str, Any], more: dict[str, Any], identity: str
) -> None:
    decision = ruled(trusting(**source), **more)
    if not identity:
        assert (decision.disposition, decision.override) == (REJECT, None)
        return
    assert decision.disposition is ACCEPT
    assert decision.override is not None
    assert (decision.override.kind, decision.override.identity) == (OverrideKind.MAILING_LIST, identity)
    assert identity in decision.reason
    assert "dmarc-reject" in decision.reason


def test_an_override_is_told_only_where_it_made_a_difference() -> None:
    assert ruled(trusting(dkim=(LISTS,)), PASSES, dkim=(dkim("pass", LISTS),)).override is None


MALFORMED: list[tuple[str, dict[str, Any], dict[str, Any], Disposition]] = [
    ("network", {"networks": (ip_network("198.51.100.0/24"),)}, {}, ACCEPT),
    ("login", {"logins": ("alice",)}, {"envelope": ENVELOPE}, ACCEPT),
    ("a signature need not cover what is wrong", {"dkim": (LISTS,)}, {"dkim": (dkim("pass", LISTS),)}, REJECT),
    ("spf", {"spf": (LISTS,)}, {"spf": spf("pass", LISTS)}, REJECT),
    ("ptr", {"ptr": (LISTS,)}, {"iprev": CONFIRMED}, REJECT),
    ("an answer that is missing", {"dkim": (LISTS,)}, {"dkim": (dkim("temperror", LISTS),)}, REJECT),
]


@pytest.mark.parametrize(
    ("source", "more", "expected"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_what_excuses_a_malformed_message(
    source: dict[str, Any], more: dict[str, Any], expected: Disposition
) -> None:
    broken = {
        "malformed": MalformedReason.NO_FROM,
        "malformed_detail": "there is no From field",
        "author_domains": (),
    }
    found = replace(verdict("permerror"), reason=DmarcReason.MALFORMED, author_domain=None)
    decision = ruled(trusting(**source), found, **broken, **more)
    assert (decision.rule, decision.disposition) == (Rule.MALFORMED, expected)
    if expected is REJECT:
        assert decision.refusal is not None
        assert (decision.refusal.code, decision.refusal.enhanced) == ("550", "5.6.0")


WAITING: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dkim", {"dkim": (LISTS,)}, {"dkim": (dkim("temperror", LISTS),)}),
    ("spf", {"spf": (LISTS,)}, {"spf": spf("temperror", LISTS)}),
    ("spf uncertain", {"spf": (LISTS,)}, {"spf": replace(spf("neutral", LISTS), is_uncertain=True)}),
    ("ptr", {"ptr": (LISTS,)}, {"iprev": IprevResult(IprevStatus.TEMPERROR, "silent", CLIENT)}),
    ("a name", {"ptr": (LISTS,)}, {"iprev": IprevResult(IprevStatus.TEMPERROR, "", CLIENT, (), (SUBLIST,))}),
    ("beside a name", {"ptr": (LISTS,)}, {"iprev": IprevResult(IprevStatus.PASS, "", CLIENT, (EVIL,), (SUBLIST,))}),
    (
        "ptr while SPF fails too",
        {"ptr": (LISTS,)},
        {"iprev": IprevResult(IprevStatus.TEMPERROR, "silent", CLIENT), "spf": spf("temperror")},
    ),
]


@pytest.mark.parametrize(("source", "more"), [row[1:] for row in WAITING], ids=[row[0] for row in WAITING])
def test_a_trusted_source_that_could_not_be_verified_is_not_refused(
    source: dict[str, Any], more: dict[str, Any]
) -> None:
    decision = ruled(trusting(**source), **more)
    assert (decision.disposition, decision.rule) == (TEMPFAIL, Rule.TRUSTED_TEMPERROR)
    assert ruled(trusting(dkim=(Domain("unrelated.test"),)), **more).disposition is REJECT


def test_a_name_that_is_not_listed_is_not_waited_for() -> None:
    found = IprevResult(IprevStatus.TEMPERROR, "silent", CLIENT, (), (EVIL,))
    assert ruled(trusting(ptr=(LISTS,)), iprev=found).disposition is REJECT


def test_no_signature_excuses_a_malformed_message_whatever_decides() -> None:
    """A signature need not cover what is wrong, such as a second From."""
    policy = replace(trusting(dkim=(LISTS,)), actions={Rule.MALFORMED: QUARANTINE, Rule.SPF_FAIL: REJECT})
    broken = {"malformed": MalformedReason.SEVERAL_FROM, "malformed_detail": "there are 2", "author_domains": ()}
    found = replace(verdict("permerror"), reason=DmarcReason.MALFORMED, author_domain=None)
    decision = ruled(policy, found, spf=spf("fail"), dkim=(dkim("pass", LISTS),), **broken)
    assert (decision.disposition, decision.override) == (REJECT, None)


KEYS: list[tuple[str, dict[Rule, Disposition], tuple[DkimResult, ...], Disposition]] = [
    (
        "refused either way",
        {Rule.DKIM_NO_PASS: REJECT, Rule.DKIM_NO_AUTHOR_PASS: REJECT},
        (dkim("temperror", LISTS),),
        REJECT,
    ),
    ("a pass is there", {Rule.DKIM_NO_PASS: REJECT}, (dkim("pass", EVIL), dkim("temperror", LISTS)), ACCEPT),
    ("it might be the pass", {Rule.DKIM_NO_PASS: REJECT}, (dkim("temperror", LISTS),), TEMPFAIL),
    ("it might be the author's", {Rule.DKIM_NO_AUTHOR_PASS: REJECT}, (dkim("temperror", BANK),), ACCEPT),
    (
        "it might be the author's, beside another",
        {Rule.DKIM_NO_AUTHOR_PASS: REJECT},
        (dkim("pass", EVIL), dkim("temperror", BANK)),
        TEMPFAIL,
    ),
]


@pytest.mark.parametrize(
    ("chosen", "signatures", "expected"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS]
)
def test_a_key_is_waited_for_where_it_could_change_something(
    chosen: dict[Rule, Disposition], signatures: tuple[DkimResult, ...], expected: Disposition
) -> None:
    assert ruled(Policy(actions=chosen), PASSES, dkim=signatures).disposition is expected


# -- clients of our own -------------------------------------------------------------------------------------------


@pytest.mark.attack("E20", "L17")
@pytest.mark.parametrize(
    "more",
    [
        {"spf": None},
        {"spf": None, "malformed": MalformedReason.NO_FROM, "malformed_detail": "no From"},
        {"spf": None, "dkim": (dkim("fail"),)},
    ],
    ids=["plain", "malformed", "dkim fails"],
)
def test_mail_of_an_internal_client_is_never_refused(more: dict[str, Any]) -> None:
    decision = ruled(actions(dkim_no_pass=REJECT), None, **more)
    assert (decision.disposition, decision.rule) == (ACCEPT, Rule.INTERNAL_CLIENT)


# -- whatever comes in --------------------------------------------------------------------------------------------

NAMES = st.sampled_from([BANK, EVIL, LISTS, SUB])
DKIM = st.lists(
    st.builds(dkim, st.sampled_from([each.value for each in DkimStatus]), NAMES, testing=st.booleans()), max_size=3
)
VERDICTS = st.builds(
    verdict,
    st.sampled_from([each.value for each in DmarcStatus]),
    st.sampled_from([None, "none", "quarantine", "reject"]),
    aligned_pass=st.booleans(),
)


@given(
    spf=st.builds(spf, st.sampled_from([each.value for each in SpfStatus]), NAMES),
    signatures=DKIM,
    found=VERDICTS,
    chosen=st.dictionaries(st.sampled_from(Rule), st.sampled_from(Disposition)),
    mode=st.sampled_from(Mode),
)
def test_every_decision_has_a_rule_and_a_reason(
    spf: SpfResult,
    signatures: Sequence[DkimResult],
    found: DmarcVerdict,
    chosen: dict[Rule, Disposition],
    mode: Mode,
) -> None:
    decision = ruled(Policy(mode=mode, actions=chosen), found, spf=spf, dkim=tuple(signatures))
    assert decision.reason
    if mode is Mode.MONITOR:
        assert decision.disposition in (ACCEPT, HEADER)
    else:
        assert decision.disposition is decision.would
    assert (decision.refusal is not None) == (decision.would in (TEMPFAIL, REJECT))
