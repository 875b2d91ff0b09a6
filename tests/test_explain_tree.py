"""explain(): what the tree says for each kind of verdict, with each kind of record and of failure."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from explained import EVIL_CLIENT, block, judged, tree_of
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.explain import explain
from mailguard.inbound import InboundRules, Judged
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.policy import OverrideKind, Policy, TrustedSource
from mailguard.rule import Mode
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus
from zone0 import BANK, kb, mail, sign_as

BANK_CLIENT = "192.0.2.10"

BANK_MAIL = mail("<ceo@bank.test>")
SIGNED = sign_as(kb(), BANK_MAIL, d=BANK)
TRUSTED = Policy(trusted=(TrustedSource(kind=OverrideKind.MAILING_LIST, networks=(ip_network("198.51.100.0/24"),)),))
DMARC_NAME = "_dmarc.bank.test"

# (id, message, how it came, heading of the node, what stands in it)
TREES: list[tuple[str, bytes, dict[str, Any], str, list[str]]] = [
    (
        "forged from",
        BANK_MAIL,
        {},
        "message: reject (dmarc-reject)",
        ["From: ok", "SPF: pass (match)", "HELO: pass (match)", "DKIM: none", "DMARC: fail (not-aligned)"],
    ),
    (
        "not aligned",
        BANK_MAIL,
        {},
        "SPF evil.test: not aligned (pass)",
        [
            "evil.test vs bank.test: from the right, test is the same, then evil is not bank",
            "what to do: sending side: send with a reverse path at bank.test",
        ],
    ),
    (
        "the walk",
        mail("<ceo@mail.bank.test>"),
        {},
        "DMARC: fail (not-aligned)",
        [
            "asked: _dmarc.mail.bank.test: no record",
            "asked: _dmarc.bank.test: record",
            "asked: _dmarc.test: no record",
            "organizational domain: bank.test",
            "record: v=DMARC1; p=reject",
            "record at: _dmarc.bank.test",
            "policy in effect: reject, by p=",
            "if the message is yours, sign with d=mail.bank.test",
        ],
    ),
    (
        "sp, t=y",
        mail("<ceo@mail.bank.test>"),
        {"more": {DMARC_NAME: {"TXT": ["v=DMARC1; p=none; sp=reject; t=y"]}, "mail.bank.test": {"A": ["192.0.2.1"]}}},
        "DMARC: fail (not-aligned)",
        ["policy in effect: quarantine, by sp=", "testing: t=y makes the policy one step weaker than published"],
    ),
    (
        "no record",
        mail("<x@other.test>"),
        {},
        "DMARC: none (no-record)",
        ["asked: _dmarc.other.test: no record", "publish a TXT record at _dmarc.other.test"],
    ),
    (
        "several records",
        BANK_MAIL,
        {"more": {DMARC_NAME: {"TXT": ["v=DMARC1; p=reject", "v=DMARC1; p=none"]}}},
        "DMARC: none (no-record)",
        ["asked: _dmarc.bank.test: two records"],
    ),
    (
        "unusable record",
        BANK_MAIL,
        {"more": {DMARC_NAME: {"TXT": ["v=DMARC1; p=rejct"]}}},
        "DMARC: none (record-unusable)",
        ["record: v=DMARC1; p=rejct", "write p=none, p=quarantine or p=reject"],
    ),
    (
        "servfail for the policy",
        BANK_MAIL,
        {"failing": {(DMARC_NAME, "TXT"): Status.TEMPFAIL}},
        "DMARC: temperror (policy-unavailable)",
        ["asked: _dmarc.bank.test: no answer", "receiving side: try again later"],
    ),
    (
        "servfail for the policy: what follows",
        BANK_MAIL,
        {"failing": {(DMARC_NAME, "TXT"): Status.TEMPFAIL}},
        "decision: tempfail (dmarc-temperror)",
        ["reply: 451 4.7.0 mailguard: ", "[dmarc-temperror]", "set policy.dmarc.temperror"],
    ),
    (
        "spf pass",
        mail("<x@evil.test>"),
        {},
        "SPF: pass (match)",
        [
            "reverse path: <x@evil.test>",
            "domain: evil.test",
            f"client: {EVIL_CLIENT}",
            "record: v=spf1 ip4:198.51.100.66 -all",
            "term that matched: ip4:198.51.100.66",
            "look-ups: 0 of 10",
            "voids: 0 of 2",
        ],
    ),
    (
        "spf fail",
        BANK_MAIL,
        {"mail_from": "ceo@bank.test"},
        "SPF: fail (match)",
        [
            "term that matched: -all",
            f"write ip4:{EVIL_CLIENT} into the TXT record of bank.test, right after v=spf1",
            f"receiving side: if {EVIL_CLIENT} forwards mail to your users, list it under [[trusted]]",
        ],
    ),
    (
        "spf fail, IPv6",
        BANK_MAIL,
        {"mail_from": "ceo@bank.test", "ip": "2001:db8::1"},
        "SPF: fail (match)",
        ["write ip6:2001:db8::1 into the TXT record of bank.test"],
    ),
    (
        "spf fail, IPv4 in IPv6",
        BANK_MAIL,
        {"mail_from": "ceo@bank.test", "ip": "::ffff:192.0.2.99"},
        "SPF: fail (match)",
        ["write ip4:192.0.2.99 into the TXT record of bank.test"],
    ),
    (
        "spf explanation",
        BANK_MAIL,
        {
            "mail_from": "ceo@bank.test",
            "more": {BANK: {"TXT": ["v=spf1 -all exp=e.bank.test"]}, "e.bank.test": {"TXT": ["%{i} may not"]}},
        },
        "SPF: fail (match)",
        [f"explanation, in the domain's own words: {EVIL_CLIENT} may not"],
    ),
    (
        "spf servfail",
        BANK_MAIL,
        {"mail_from": "ceo@bank.test", "failing": {(BANK, "TXT"): Status.TEMPFAIL}},
        "SPF: temperror (dns)",
        ["sending side: if it stays, look at the name servers of bank.test", "receiving side: try again later"],
    ),
    (
        "spf permissive",
        mail("<x@evil.test>"),
        {"more": {"evil.test": {"TXT": ["v=spf1 +all"]}}},
        "SPF: pass (match)",
        [
            "permissive: the term covers half of all addresses or more",
            "end the record of evil.test with -all or ~all",
        ],
    ),
    (
        "spf permissive, withheld",
        mail("<x@evil.test>"),
        {
            "more": {"evil.test": {"TXT": ["v=spf1 +all"]}, "_dmarc.evil.test": {"TXT": ["v=DMARC1; p=reject"]}},
            "rules": InboundRules(counts_permissive_spf=False),
        },
        "SPF evil.test: aligned (pass)",
        ["counts: no: its term covers too many addresses"],
    ),
    (
        "spf includes",
        mail("<x@evil.test>"),
        {
            "more": {
                "evil.test": {"TXT": ["v=spf1 include:a.test include:b.test include:%{d}.test -all"]},
                "a.test": {"TXT": ["v=spf1 redirect=c.test"]},
                "c.test": {"TXT": [f"v=spf1 ip4:{EVIL_CLIENT}"]},
            }
        },
        "SPF: pass (match)",
        [
            "term that matched: include:a.test",
            "    include:a.test: record\n      record: v=spf1 redirect=c.test\n      redirect=c.test: record",
            "include:b.test: not asked",
            "look-ups: 2 of 10",
        ],
    ),
    (
        "null sender",
        mail("<x@evil.test>"),
        {"mail_from": ""},
        "SPF: pass (match)",
        ["reverse path: <>, for which postmaster at the HELO name stands", "HELO name: evil.test"],
    ),
    (
        "no helo",
        mail("<x@evil.test>"),
        {"mail_from": "", "helo": ""},
        "SPF: none (no-domain)",
        ["HELO name: none", "give the full name of the host with HELO"],
    ),
    (
        "body changed",
        SIGNED.replace(b"world", b"whirl"),
        {},
        "DKIM signature 1: fail (body-hash)",
        [
            "d: bank.test",
            "s: s1",
            "a: rsa-sha256",
            "key asked for at: s1._domainkey.bank.test",
            "key record: v=DKIM1; k=rsa; p=MIIB",
            "key size: 2048 bits",
            "a footer, a virus scanner",
            "receiving side: if a mailing list or a forwarder",
        ],
    ),
    (
        "selector missing",
        sign_as(kb(), BANK_MAIL, d=BANK, s="s9"),
        {},
        "DKIM signature 1: permerror (key-missing)",
        [
            "key asked for at: s9._domainkey.bank.test",
            "there: the name does not exist",
            "publish the key as a TXT record at s9._domainkey.bank.test",
        ],
    ),
    (
        "key servfail",
        SIGNED,
        {"failing": {("s1._domainkey.bank.test", "TXT"): Status.BOGUS}},
        "DKIM signature 1: temperror (key-unavailable)",
        ["there: DNSSEC validation failed: the zone says bogus"],
    ),
    (
        "signature unreadable",
        b"DKIM-Signature: \x1b[2J;;;\r\n" + BANK_MAIL,
        {},
        "DKIM signature 1: permerror (syntax)",
        ["what to do: sending side: repair the DKIM-Signature field"],
    ),
    (
        "signed and aligned",
        SIGNED,
        {},
        "DKIM bank.test s=s1: aligned (pass)",
        ["bank.test vs bank.test: the same name", "counts: yes"],
    ),
    (
        "signed and aligned: what follows",
        SIGNED,
        {},
        "decision: accept (no-objection)",
        ["rule: no-objection: No rule applies to the message."],
    ),
    (
        "strict",
        sign_as(kb(), mail("<ceo@mail.bank.test>"), d=BANK),
        {"more": {DMARC_NAME: {"TXT": ["v=DMARC1; p=reject; adkim=s"]}}},
        "DKIM bank.test s=s1: not aligned (pass)",
        ["which strict alignment asks for", "sending side: sign with d=mail.bank.test, exactly"],
    ),
    (
        "from absent",
        BANK_MAIL.replace(b"From: <ceo@bank.test>\r\n", b""),
        {},
        "From: malformed (no-from)",
        ["there is no From field", "what to do: sending side: write a From field"],
    ),
    (
        "from twice",
        b"From: <x@evil.test>\r\n" + BANK_MAIL,
        {},
        "From: malformed (several-from)",
        ["field: <x@evil.test>", "field: <ceo@bank.test>"],
    ),
    (
        "from malformed",
        mail(b"ceo@bank.test\x1b[2J <x@evil.test"),
        {},
        "From: malformed (from-syntax)",
        ["field: ceo@bank.test\\x1b[2J <x@evil.test", "put quotes around a display name"],
    ),
    (
        "from malformed: what follows",
        mail(b"ceo@bank.test\x1b[2J <x@evil.test"),
        {},
        "decision: reject (malformed)",
        ["reply: 550 5.6.0 mailguard: malformed message", "sending side: see the advice for From"],
    ),
    (
        "several domains",
        mail("<ceo@bank.test>, <x@evil.test>"),
        {},
        "DMARC: fail (not-aligned)",
        ["DMARC for bank.test: fail (not-aligned)", "DMARC for evil.test: none (no-record)"],
    ),
    (
        "several domains: from",
        mail("<ceo@bank.test>, <x@evil.test>"),
        {},
        "From: several domains (several-from-domains)",
        ["mailbox: ceo@bank.test", "mailbox: x@evil.test", "domains: bank.test, evil.test"],
    ),
    (
        "flags",
        mail('"ceo@bank.test" <x@evil.test>'),
        {},
        "From: ok",
        ["display-name-address: A display name in From looks like an address."],
    ),
    (
        "our own client",
        BANK_MAIL,
        {"ip": "127.0.0.1"},
        "message: accept (internal-client)",
        ["SPF: not checked", "the client 127.0.0.1 is in an internal network", "DMARC: not checked"],
    ),
    (
        "monitor",
        BANK_MAIL,
        {"policy": Policy(mode=Mode.MONITOR)},
        "message: reject (dmarc-reject)",
        ["done: accept", "decision: accept (dmarc-reject)", "enforcing would do: reject"],
    ),
    (
        "overridden",
        BANK_MAIL,
        {"policy": TRUSTED},
        "decision: accept (dmarc-reject)",
        [f"overridden by: mailing_list: network {EVIL_CLIENT}"],
    ),
    (
        "a rule that does nothing",
        BANK_MAIL,
        {"mail_from": "ceo@bank.test"},
        "decision: reject (dmarc-reject)",
        ["rule spf-fail: accept"],
    ),
    (
        "look-ups",
        SIGNED,
        {},
        "look-ups",
        ["TXT _dmarc.bank.test: 1 record", "TXT s1._domainkey.bank.test: 1 record", "TXT _dmarc.test: the name does"],
    ),
]


@pytest.mark.parametrize(("raw", "how", "heading", "said"), [pytest.param(*row[1:], id=row[0]) for row in TREES])
def test_the_tree_says(raw: bytes, how: dict[str, Any], heading: str, said: list[str]) -> None:
    text = block(tree_of(judged(raw, **how)).text(), heading)
    for each in said:
        assert each in text, text


def test_a_message_that_passes_needs_no_advice() -> None:
    outcome = judged(SIGNED, mail_from="ceo@bank.test", ip=BANK_CLIENT, helo="bank.test")
    text = tree_of(outcome).text()
    assert "what to do" not in text
    assert text.splitlines()[0] == "message: accept (no-objection)"


def test_what_did_not_pass_is_not_told_to_change_its_name() -> None:
    text = tree_of(judged(BANK_MAIL, mail_from="x@other.test")).text()
    assert "what to do" not in block(text, "SPF other.test: not aligned (fail)")
    assert "counts: no: fail is no pass" in text


@pytest.mark.parametrize("status", IprevStatus)
def test_iprev(status: IprevStatus) -> None:
    """RFC 8601 §3."""
    address = ip_address(EVIL_CLIENT)
    name = Domain("mx.evil.test") if status is IprevStatus.PASS else None
    found = IprevResult(status, "said so", address, (name,) if name else ())
    outcome = judged(BANK_MAIL)
    evidence = Evidence(envelope=outcome.evidence.envelope, author_domains=(Domain(BANK),), iprev=found)
    text = block(explain(outcome.message, Judged(evidence, None), outcome.decision).text(), f"iprev: {status.value}")
    assert f"client: {EVIL_CLIENT}" in text
    assert ("name: mx.evil.test" in text) is (status is IprevStatus.PASS)
    assert ("what to do: " in text) is (status is not IprevStatus.PASS)


def test_spf_that_nobody_asked_about() -> None:
    outcome = judged(BANK_MAIL)
    evidence = Evidence(envelope=Envelope(client_ip=None, helo=b"", mail_from=b""), author_domains=(Domain(BANK),))
    text = explain(outcome.message, Judged(evidence, outcome.dmarc), outcome.decision).text()
    assert "give --ip and --mail-from" in block(text, "SPF: not checked")


def test_an_outcome_explains_itself() -> None:
    outcome = judged(BANK_MAIL)
    assert outcome.explain().text().startswith("message: reject (dmarc-reject)\n")
    assert outcome.to_json()["status"] == "reject"


def test_without_the_answers_the_rest_is_there() -> None:
    outcome = judged(SIGNED)
    text = explain(outcome.message, outcome.judged, outcome.decision).text()
    assert "look-ups\n" not in text
    assert "key record" not in text
    assert "key asked for at: s1._domainkey.bank.test" in text


def test_a_record_that_includes_itself_and_many_others_ends() -> None:
    targets = " ".join(f"include:{n}.test" for n in range(60))
    more = {"evil.test": {"TXT": [f"v=spf1 include:evil.test {targets} -all"]}}
    text = block(tree_of(judged(mail("<x@evil.test>"), more=more)).text(), "SPF: permerror (too-many-lookups)")
    assert text.count("include:evil.test: ") == 1
    assert "include:evil.test: shown above\n" in text
    assert "include:18.test: " in text
    assert "include:19.test: " not in text
    assert "41 more" in text


def test_records_that_all_include_each_other_are_shown_once() -> None:
    """As a tree of all paths it would have some ten million nodes."""
    names = [f"{n}.test" for n in range(11)]
    record = " ".join(["v=spf1", *(f"include:{name}" for name in names), "-all"])
    known = {
        question: Answer(question, Status.NOERROR, (record.encode(),))
        for question in (Question(name, RecordType.TXT) for name in names)
    }
    outcome = judged(mail("<x@0.test>"))
    spf = SpfResult(
        status=SpfStatus.PERMERROR,
        reason=SpfReason.TOO_MANY_LOOKUPS,
        detail="said so",
        identity=SpfIdentity.MAIL_FROM,
        domain=Domain("0.test"),
        record=record,
    )
    evidence = Evidence(envelope=outcome.evidence.envelope, spf=spf)
    answers = tuple(known.values())
    text = explain(outcome.message, Judged(evidence, outcome.dmarc), outcome.decision, answers=answers).text()
    assert text.count(": record\n") >= 10
    assert len(text.splitlines()) < 300


def test_very_many_mailboxes_and_signatures_are_counted() -> None:
    author = ", ".join(f"<a{n}@bank.test>" for n in range(50))
    top = b"DKIM-Signature: v=1; a=rsa-sha256; d=bank.test; s=x; h=from; bh=AAAA; b=AAAA\r\n" * 12
    text = tree_of(judged(top + mail(author))).text()
    assert "further mailboxes: 40" in text
    assert "DKIM: not verified\n    2 further signatures" in text
