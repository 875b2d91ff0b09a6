"""Judged messages for the tests of traces: generated messages, random zones, rules, policies. The same in every run.

Ed25519 alone, so that a thousand take a few seconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from generated_messages import MessageClass, generate
from mailguard.dkim.canonical import BodyDigests
from mailguard.dkim.verify import BodyLengthRule, VerifyRules
from mailguard.dns.answers import Answers, Resolver, evaluate
from mailguard.dns.question import Dnssec, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.inbound import InboundPlan, InboundRules, judge_inbound, plan_inbound
from mailguard.message import Message
from mailguard.outcome import Outcome
from mailguard.policy import DomainPolicy, OverrideKind, Policy, TrustedSource, decide
from mailguard.rule import Disposition, Mode, Rule
from mailguard.trace import Trace
from zone0 import DAY_S, NOW, ed25519_key, key_record, mail, sign_as, zone

__all__ = ["Case", "Scene", "case", "judge_message", "judge_scene", "scene"]

VERSION = "0.1.0"
DOMAINS = (
    "example.com",
    "bank.test",
    "evil.test",
    "us.test",
    "lists.test",
    "a.b.sub.test",
    "none.test",
    "xn--bcher-kva.test",
)
CLIENTS = ("192.0.2.10", "198.51.100.66", "203.0.113.25", "127.0.0.1", "2001:db8::25", "::ffff:192.0.2.10", None)
SPF_TERMS = (
    "a", "mx", "ptr", "ip4:192.0.2.0/24", "ip6:2001:db8::/32", "include:lists.test", "include:nowhere.test",
    "exists:%{ir}.%{v}.list.test", "a:%{d2}", "exists:%{l}.users.test", "ip4:198.51.100.66", "include:loop.test",
)  # fmt: skip
SPF_ENDS = ("-all", "-all", "~all", "?all", "+all", "redirect=lists.test", "exp=why.test -all", "", "-all x!")
DMARC_RECORDS = (
    "v=DMARC1; p=reject", "v=DMARC1; p=quarantine", "v=DMARC1; p=none", "v=DMARC1; p=reject; aspf=s; adkim=s",
    "v=DMARC1; p=none; sp=reject; np=quarantine", "v=DMARC1; p=reject; t=y", "v=DMARC1; p=oops; rua=mailto:r@us.test",
    "v=DMARC1", "v=DMARC1; p=reject; psd=y", "not one", b"v=DMARC1; p=reject; x=\xff\x00\xfe",
)  # fmt: skip
AUTHORS = (
    b"From: <x@%s>",
    b'From: "a, b" <x@%s>',
    b"From: x@%s, y@bank.test",
    b"From: x@%s\r\nFrom: y@evil.test",
    b"X-No: from@%s",
    b"From: (%s",
    b"From: <x@%s>\r\nX-Octets: \xff\x80\x00 \xfe",
    b"From: \xff\xfe <x@%s>",
    b"From: <@%s:x@evil.test>",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A message that was judged, and everything that led to it."""

    plan: InboundPlan
    digests: BodyDigests
    rules: InboundRules
    policy: Policy
    outcome: Outcome

    def trace(self, queue_id: str = "4bZk1x2Qp3z") -> Trace:
        return Trace.of(self.outcome, plan=self.plan, digests=self.digests, version=VERSION, queue_id=queue_id)


def judge_message(
    raw: bytes,
    *,
    resolver: Resolver | None = None,
    envelope: Envelope | None = None,
    rules: InboundRules | None = None,
    policy: Policy | None = None,
    now: float = NOW,
) -> Case:
    """Judge `raw` as the daemon does: its header as a message without a body. By default under zone Z0."""
    whole = Message.parse(raw)
    rules, policy = rules or InboundRules(), policy or Policy()
    if envelope is None:
        envelope = Envelope(client_ip=IPv4Address("198.51.100.66"), helo=b"mx.evil.test", mail_from=b"x@evil.test")
    plan = plan_inbound(replace(whole, body=None), envelope, rules)
    digests = BodyDigests(plan.body_requests)
    digests.update(whole.body or b"")
    digests.finish()

    def judged(answers: Answers) -> Outcome:
        found = judge_inbound(plan, digests, answers, now=now)
        decision = decide(found, policy=policy)
        return Outcome(message=plan.message, judged=found, decision=decision, now=now, answers=answers.consumed)

    outcome = evaluate(judged, resolver or ZoneResolver(zone()), deadline=0.0)
    return Case(plan, digests, rules, policy, outcome)


@dataclass(frozen=True, slots=True)
class Scene:
    """A message before it is judged, and all that its verdict will rest on."""

    raw: bytes
    resolver: Resolver
    envelope: Envelope
    rules: InboundRules
    policy: Policy
    now: float


def scene(number: int) -> Scene:
    """Scene `number`."""
    source = random.Random(f"judged/{number}")
    return Scene(
        raw=_message(source, number),
        resolver=_resolver(source),
        envelope=_envelope(source),
        rules=_rules(source),
        policy=_policy(source),
        now=NOW + source.choice((0, 0.25, -DAY_S, 30 * DAY_S)),
    )


def judge_scene(found: Scene, resolver: Resolver) -> Case:
    """Judge, with the answers of this resolver."""
    return judge_message(
        found.raw,
        resolver=resolver,
        envelope=found.envelope,
        rules=found.rules,
        policy=found.policy,
        now=found.now,
    )


def case(number: int) -> Case:
    """Scene `number`, judged."""
    found = scene(number)
    return judge_scene(found, found.resolver)


def _message(source: random.Random, number: int) -> bytes:
    domain = source.choice(DOMAINS)
    if source.random() < 0.3:
        domain = "example.com"
        kinds = [kind for kind in MessageClass if kind is not MessageClass.LARGE]
        raw = generate(source.choice(kinds), number)
    else:
        author = source.choice(AUTHORS[:2]) if source.random() < 0.7 else source.choice(AUTHORS)
        raw = author % domain.encode() + b"\r\n" + mail().partition(b"\r\n")[2]
    for _ in range(source.choice((0, 1, 1, 2, 4))):
        raw = _signed(source, raw, domain if source.random() < 0.6 else source.choice(DOMAINS))
    if source.random() < 0.15:
        raw += b"appended\r\n"
    return raw


def _signed(source: random.Random, raw: bytes, domain: str) -> bytes:
    tags: dict[str, str | bytes | None] = {}
    if source.random() < 0.2:
        tags["l"] = source.choice(("0", "3", "999999"))
    if source.random() < 0.2:
        tags["x"] = str(NOW + source.choice((-1, 1)) * 5 * DAY_S)
        tags["t"] = str(NOW - 10 * DAY_S)
    if source.random() < 0.1:
        tags[source.choice(("a", "v", "bh", "q"))] = source.choice(("", "9", "rsa-sha1", b"\xff\x00"))
    forms = ("relaxed/relaxed", "simple/simple", "relaxed/simple", "simple")
    # One key for all, so that whether it verifies depends on the record.
    return sign_as(ed25519_key(7), raw, d=domain, s=source.choice(("s1", "s2")), c=source.choice(forms), tags=tags)


def _resolver(source: random.Random) -> ZoneResolver:
    names: dict[str, dict[str, Sequence[object]]] = {}
    key = key_record(ed25519_key(7), tags=source.choice(("", "", "t=y; ")))
    for domain in (*DOMAINS, "mx.evil.test", "sub.test", "loop.test", "users.test"):
        terms = " ".join(source.sample(SPF_TERMS, source.randrange(4)))
        names[domain] = {
            "TXT": [f"v=spf1 {terms} {source.choice(SPF_ENDS)}", *["v=spf1 -all"] * (source.random() < 0.05)]
        }
        names[domain]["A"] = [source.choice(("192.0.2.10", "203.0.113.25"))]
        names[domain]["MX"] = [(10, f"mx.{domain}"), (0, ".")][: source.randrange(3)]
        names[f"mx.{domain}"] = {"A": ["192.0.2.10"], "AAAA": ["2001:db8::25"]}
        if source.random() < 0.7:
            names[f"_dmarc.{domain}"] = {"TXT": source.sample(DMARC_RECORDS, source.choice((1, 1, 1, 2)))}
        for selector in ("s1", "s2"):
            if source.random() < 0.85:
                names[f"{selector}._domainkey.{domain}"] = {
                    "TXT": [source.choice((key, key, key, b"p=", b"v=DKIM1; p=\xff\x00"))]
                }
    names["loop.test"] = {"TXT": ["v=spf1 include:loop.test -all"]}
    names["why.test"] = {"TXT": ["%{i} is not %{d}", b"\xff\xfe"][: source.choice((1, 2))]}
    names["25.113.0.203.in-addr.arpa"] = {"PTR": ["mx.lists.test"]}
    names["alias.test"] = {"CNAME": ["bank.test"]}
    status: dict[tuple[str, str], Status] = {}
    dnssec: dict[tuple[str, str], Dnssec] = {}
    for name in (*names, "25.113.0.203.in-addr.arpa", "_dmarc.test", "list.test"):
        if source.random() < 0.12:
            status[name, source.choice(("*", "TXT", "A"))] = source.choice(list(Status))
        if source.random() < 0.3:
            dnssec[name, "*"] = source.choice(list(Dnssec))
    # NOERROR without records is no answer that a zone could give.
    return ZoneResolver(
        names, status={at: said for at, said in status.items() if said is not Status.NOERROR}, dnssec=dnssec
    )


def _envelope(source: random.Random) -> Envelope:
    sender = source.choice(
        (b"x@%s", b"x@bounces.%s", b"", b"x", b"@%s", b"\xff\x00@%s", b'"a b"@%s', b"x@alias.test")
    )
    mail_from = sender.replace(b"%s", source.choice(DOMAINS).encode())
    client = source.choice(CLIENTS)
    return Envelope(
        client_ip=_address(client),
        helo=source.choice((b"mx.evil.test", b"mx.bank.test", b"[192.0.2.10]", b"", b"\xff\x00", b"none.test")),
        mail_from=mail_from,
        rcpt_to=source.choice(((), (b"alice@us.test", b"b\xff@us.test"))),
        mail_from_as_read=source.choice((None, None, None, b"other@evil.test", mail_from)),
        login=source.choice((None, None, None, b"alice", b"\xff")),
    )


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    return None if text is None else ip_address(text)


def _rules(source: random.Random) -> InboundRules:
    return InboundRules(
        verifying=VerifyRules(
            max_signatures=source.choice((1, 2, 10)),
            body_length=source.choice(list(BodyLengthRule)),
            clock_skew_s=300,
        ),
        checks_helo=source.random() < 0.7,
        checks_iprev=source.random() < 0.5,
        receiver=source.choice(("unknown", "mx.us.test")),
        internal_networks=source.choice(((ip_network("127.0.0.0/8"),), ())),
    )


def _policy(source: random.Random) -> Policy:
    def actions() -> Mapping[Rule, Disposition]:
        return {rule: source.choice(list(Disposition)) for rule in source.sample(list(Rule), source.randrange(8))}

    trusted = TrustedSource(
        kind=source.choice(list(OverrideKind)),
        networks=source.choice(((), (ip_network("203.0.113.0/24"),))),
        logins=("alice",),
        dkim=(Domain("lists.test"),),
        spf=(Domain("us.test"),),
        ptr=(Domain("lists.test"),),
    )
    return Policy(
        mode=source.choice(list(Mode)),
        actions=actions(),
        domains=(DomainPolicy(domain=Domain("bank.test"), subdomains=True, actions=actions()),),
        trusted=source.choice(((), (trusted,))),
    )
