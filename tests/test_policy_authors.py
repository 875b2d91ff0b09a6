"""What several author domains, the null sender and the form of an address change in what is done with a message."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.inbound import MAX_AUTHOR_DOMAINS
from mailguard.outcome import Outcome
from mailguard.pipeline import authenticate
from mailguard.policy import DomainPolicy, OverrideKind, Policy, TrustedSource
from mailguard.rule import Disposition, Rule

ACCEPT, HEADER, QUARANTINE = Disposition.ACCEPT, Disposition.HEADER, Disposition.QUARANTINE
TEMPFAIL, REJECT = Disposition.TEMPFAIL, Disposition.REJECT
ZONE: dict[str, dict[str, list[object]]] = {
    "evil.test": {"TXT": ["v=spf1 -all"]},
    "_dmarc.evil.test": {"TXT": ["v=DMARC1; p=quarantine"]},
    "_dmarc.bank.test": {"TXT": ["v=DMARC1; p=quarantine"]},
    "_dmarc.own.test": {"TXT": ["v=DMARC1; p=none"]},
    "good.test": {"TXT": ["v=spf1 +all"]},
    "_dmarc.good.test": {"TXT": ["v=DMARC1; p=reject"]},
}
SILENT = {("_dmarc.silent.test", "TXT"): Status.TEMPFAIL}


def judged(
    authors: str,
    policy: Policy,
    *,
    ip: str = "198.51.100.66",
    helo: str = "mx.evil.test",
    mail_from: str = "x@evil.test",
    zone: dict[str, dict[str, list[object]]] = ZONE,
    status: dict[tuple[str, str], Status] = SILENT,
) -> Outcome:
    raw = b"From: %b\r\nSubject: t\r\n\r\nhi\r\n" % authors.encode()
    resolver = ZoneResolver(zone, status=status)
    return authenticate(raw, ip=ip, helo=helo, mail_from=mail_from, resolver=resolver, policy=policy, now=1.75e9)


OWN = DomainPolicy(domain=Domain("own.test"), actions={Rule.DMARC_NONE: REJECT})
WEAK = Policy(actions={Rule.DMARC_QUARANTINE: HEADER}, domains=(OWN,))
PATIENT = Policy(actions={Rule.DMARC_TEMPERROR: ACCEPT})


@pytest.mark.attack("F16")
@pytest.mark.parametrize(
    ("authors", "policy", "expected"),
    [
        ("ceo@own.test", WEAK, (REJECT, Rule.DMARC_NONE)),
        ("ceo@own.test, x@evil.test", WEAK, (REJECT, Rule.DMARC_NONE)),
        ("x@evil.test, ceo@own.test", WEAK, (REJECT, Rule.DMARC_NONE)),
        ("x@evil.test", WEAK, (HEADER, Rule.DMARC_QUARANTINE)),
        ("ceo@bank.test", PATIENT, (QUARANTINE, Rule.DMARC_QUARANTINE)),
        ("ceo@bank.test, x@silent.test", PATIENT, (QUARANTINE, Rule.DMARC_QUARANTINE)),
        ("x@silent.test", PATIENT, (ACCEPT, Rule.NO_OBJECTION)),
        ("ceo@bank.test, x@silent.test", Policy(), (TEMPFAIL, Rule.DMARC_TEMPERROR)),
    ],
)
def test_another_domain_in_from_makes_nothing_weaker(
    authors: str, policy: Policy, expected: tuple[Disposition, Rule]
) -> None:
    """What is done for each domain is compared, not what each asks for."""
    decision = judged(authors, policy).decision
    assert (decision.disposition, decision.rule) == expected
    if "bank.test" in authors and policy is PATIENT:
        assert "policy of bank.test is quarantine" in decision.reason


def test_the_rules_of_one_domain_are_not_those_of_another_in_from() -> None:
    friend = DomainPolicy(domain=Domain("bank.test"), actions={Rule.DMARC_QUARANTINE: REJECT})
    decision = judged("a@bank.test, b@own.test", Policy(domains=(friend,))).decision
    assert [(each.rule, each.disposition) for each in decision.findings][:2] == [
        (Rule.DMARC_QUARANTINE, REJECT),
        (Rule.DMARC_NONE, ACCEPT),
    ]


@pytest.mark.parametrize(
    ("authors", "rule"),
    [
        ("a@unknown.test, b@nowhere.test", Rule.DMARC_PERMERROR),
        ("a@good.test, b@unknown.test", Rule.DMARC_PERMERROR),
        ("a@good.test, b@own.test", Rule.DMARC_NONE),
        ("a@unknown.test", Rule.NO_OBJECTION),
        ("a@good.test", Rule.NO_OBJECTION),
    ],
)
def test_several_domains_none_of_which_fails_are_a_permerror(authors: str, rule: Rule) -> None:
    policy = Policy(actions={Rule.DMARC_PERMERROR: REJECT})
    decision = judged(authors, policy, mail_from="x@good.test").decision
    assert (decision.rule, decision.disposition) == (rule, REJECT if rule is Rule.DMARC_PERMERROR else ACCEPT)


def test_more_domains_than_are_judged_are_malformed() -> None:
    """RFC 9989 §11.5: judging many is work that an attacker can cause, and judging some of them is incomplete."""
    authors = [f"a@own{number}.test" for number in range(MAX_AUTHOR_DOMAINS)]
    decision = judged(", ".join([*authors[1:], "ceo@bank.test"]), Policy()).decision
    assert (decision.rule, decision.disposition) == (Rule.DMARC_QUARANTINE, QUARANTINE)
    decision = judged(", ".join([*authors, "ceo@bank.test"]), Policy()).decision
    assert (decision.rule, decision.disposition) == (Rule.MALFORMED, REJECT)


def test_the_rules_of_a_domain_are_none_for_a_message_of_nobody() -> None:
    lenient = DomainPolicy(domain=Domain("own.test"), actions={Rule.MALFORMED: ACCEPT})
    for authors in ("nobody", "ceo@own.test <x@evil.test>"):
        decision = judged(authors, Policy(domains=(lenient,))).decision
        assert (decision.rule, decision.disposition) == (Rule.MALFORMED, REJECT)


@pytest.mark.parametrize("mail_from", ["", "x@good.test"], ids=["null sender", "a sender"])
def test_what_follows_from_the_helo_name_follows_for_the_null_sender_too(mail_from: str) -> None:
    policy = Policy(actions={Rule.HELO_FAIL: REJECT})
    decision = judged("a@unknown.test", policy, helo="evil.test", mail_from=mail_from).decision
    assert (decision.disposition, decision.rule) == (REJECT, Rule.HELO_FAIL)
    passing = judged("a@unknown.test", policy, helo="good.test", mail_from=mail_from).decision
    assert passing.disposition is ACCEPT


@pytest.mark.parametrize("action", [HEADER, TEMPFAIL])
def test_an_action_for_a_missing_answer_that_somebody_has_chosen_is_taken(action: Disposition) -> None:
    status = {("evil.test", "TXT"): Status.TEMPFAIL}
    policy = Policy(actions={Rule.SPF_TEMPERROR: action})
    assert judged("a@unknown.test", policy, status=status).decision.disposition is action
    assert judged("a@unknown.test", Policy(), status=status).decision.disposition is ACCEPT


@pytest.mark.parametrize("ip", ["198.51.100.66", "::ffff:198.51.100.66", "::ffff:c633:6442"])
def test_an_ipv4_client_in_ipv6_form_is_in_the_networks_of_ipv4(ip: str) -> None:
    source = TrustedSource(kind=OverrideKind.TRUSTED_FORWARDER, networks=(ip_network("198.51.100.0/24"),))
    outcome = judged("ceo@bank.test", Policy(trusted=(source,)), ip=ip)
    assert outcome.decision.disposition is ACCEPT
    assert outcome.decision.override is not None
    assert outcome.decision.override.identity == "network 198.51.100.66"


@pytest.mark.parametrize("fault", [Status.TEMPFAIL, Status.BOGUS])
def test_no_fault_in_the_clients_reverse_zone_makes_a_fail_uncertain_by_its_explanation(fault: Status) -> None:
    """The client's reverse zone is the client's, and the explanation is told to nobody who decides."""
    zone: dict[str, dict[str, list[object]]] = {
        "bank.test": {"TXT": ["v=spf1 ip4:192.0.2.10 -all exp=why.bank.test"]},
        "why.bank.test": {"TXT": ["%{i} (%{p}) may not send"]},
        "_dmarc.bank.test": {"TXT": ["v=DMARC1; p=reject"]},
    }
    status = {("66.100.51.198.in-addr.arpa", "PTR"): fault}
    decision = judged("ceo@bank.test", PATIENT, mail_from="x@bank.test", zone=zone, status=status).decision
    assert (decision.disposition, decision.rule) == (REJECT, Rule.DMARC_REJECT)
