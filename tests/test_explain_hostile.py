"""explain() never raises, and what it says is safe to print: for any results, and for whatever can be judged."""

from __future__ import annotations

import json
from enum import Enum
from ipaddress import IPv4Address
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from explained import tree_of
from generated_messages import MessageClass, generate
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.record import AlignmentMode, DmarcPolicy, DmarcRecord
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.explain import Explanation, explain
from mailguard.inbound import InboundRules, Judged
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.message import MalformedReason, Message
from mailguard.pipeline import authenticate
from mailguard.policy import Policy, decide
from mailguard.rule import Mode
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus
from zone0 import NOW, Records, mail


def assert_printable(tree: Explanation) -> None:
    text = tree.text()
    assert all(" " <= character <= "~" or character == "\n" for character in text)
    assert json.loads(json.dumps(tree.to_json())) == tree.to_json()


HOSTILE = st.one_of(
    st.text(max_size=20), st.sampled_from(["\x1b[2J", "\r\nX: y", "\N{RIGHT-TO-LEFT OVERRIDE}", "{0}"])
)
# Made without the check, so that what a result may never hold is harmless all the same.
ANY_DOMAIN = st.one_of(st.sampled_from(["bank.test", "a.bank.test", "evil.test", "xn--bcher-kva.test"]), HOSTILE).map(
    Domain
)
MAYBE = st.none()


def drawn(enum: type[Enum]) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(enum))


SPF_RESULTS = st.builds(
    SpfResult,
    status=drawn(SpfStatus),
    reason=drawn(SpfReason),
    detail=HOSTILE,
    identity=drawn(SpfIdentity),
    domain=MAYBE | ANY_DOMAIN,
    is_null_sender=st.booleans(),
    mechanism=MAYBE | HOSTILE,
    record=MAYBE | HOSTILE | st.just("v=spf1 include:a.test redirect=bank.test ?include:\x1b -all"),
    lookups=st.integers(0, 40),
    voids=st.integers(0, 5),
    explanation=MAYBE | HOSTILE,
    is_permissive=st.booleans(),
)
DKIM_RESULTS = st.builds(
    DkimResult,
    status=drawn(DkimStatus),
    reason=drawn(DkimReason),
    detail=HOSTILE,
    domain=MAYBE | ANY_DOMAIN,
    selector=MAYBE | HOSTILE,
    identity=MAYBE | HOSTILE,
    algorithm=MAYBE | HOSTILE,
    key_bits=MAYBE | st.integers(0, 9000),
    signature_prefix=MAYBE | HOSTILE,
    testing=st.booleans(),
)
ALIGNMENTS = st.builds(
    Alignment,
    method=st.sampled_from(["spf", "dkim"]),
    domain=ANY_DOMAIN,
    result=HOSTILE,
    selector=MAYBE | HOSTILE,
    mode=drawn(AlignmentMode),
    aligned=drawn(Aligned),
    organizational_domain=MAYBE | ANY_DOMAIN,
    counts=st.booleans(),
)
VERDICTS = st.builds(
    DmarcVerdict,
    status=drawn(DmarcStatus),
    reason=drawn(DmarcReason),
    detail=HOSTILE,
    author_domain=MAYBE | ANY_DOMAIN,
    policy=MAYBE | drawn(DmarcPolicy),
    policy_tag=MAYBE | st.sampled_from(["p", "sp", "np"]),
    is_testing=st.booleans(),
    record=MAYBE | st.just(DmarcRecord.parse(b"v=DMARC1; p=reject; rua=\x1b")),
    record_domain=MAYBE | ANY_DOMAIN,
    organizational_domain=MAYBE | ANY_DOMAIN,
    alignments=st.lists(ALIGNMENTS, max_size=3).map(tuple),
    walk=st.lists(HOSTILE, max_size=3).map(tuple),
)
ADDRESSES = st.ip_addresses()
EVIDENCE = st.builds(
    Evidence,
    envelope=st.builds(
        Envelope, client_ip=MAYBE | ADDRESSES, helo=st.binary(max_size=20), mail_from=st.binary(max_size=20)
    ),
    author_domains=st.lists(ANY_DOMAIN, max_size=3).map(tuple),
    malformed=MAYBE | drawn(MalformedReason),
    malformed_detail=HOSTILE,
    spf=MAYBE | SPF_RESULTS,
    helo_spf=MAYBE | SPF_RESULTS,
    dkim=st.lists(DKIM_RESULTS, max_size=3).map(tuple),
    ignored_signatures=st.integers(0, 3),
    iprev=MAYBE | st.builds(IprevResult, drawn(IprevStatus), HOSTILE, ADDRESSES, MAYBE | ANY_DOMAIN),
)
QUESTIONS = st.builds(
    Question, st.sampled_from(["a.test", "bank.test", "s1._domainkey.bank.test"]), drawn(RecordType)
)
TEXTS = st.sampled_from([b"v=spf1 include:bank.test", b"v=spf1 \xff", b"\0"])
ANSWERS = st.tuples(QUESTIONS, drawn(Status)).flatmap(
    lambda both: st.builds(
        Answer,
        st.just(both[0]),
        st.just(both[1]),
        st.lists(TEXTS, max_size=3 * (both[0].rdtype is RecordType.TXT and both[1] is Status.NOERROR)).map(tuple),
        detail=HOSTILE,
    )
)
HEADERS = st.one_of(
    st.sampled_from(
        [mail("<ceo@bank.test>"), b"", b"From: \xff\x1b@bank.test\r\n\r\n", mail('<a@b.test>, "\x07@c" <d@e.test>')]
    ),
    st.binary(max_size=60).map(lambda value: b"From: " + value + b"\r\n\r\nx"),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    raw=HEADERS,
    evidence=EVIDENCE,
    verdict=MAYBE | VERDICTS,
    verdicts=st.lists(VERDICTS, max_size=3),
    answers=st.lists(ANSWERS, max_size=6),
    mode=drawn(Mode),
)
def test_no_result_makes_it_raise_or_print_what_strangers_wrote(
    raw: bytes,
    evidence: Evidence,
    verdict: DmarcVerdict | None,
    verdicts: list[DmarcVerdict],
    answers: list[Answer],
    mode: Mode,
) -> None:
    judged = Judged(evidence, verdict, tuple(verdicts))
    tree = explain(Message.parse(raw), judged, decide(judged, policy=Policy(mode=mode)), answers=answers)
    assert_printable(tree)


TXT = st.one_of(
    st.sampled_from(
        [
            "v=DMARC1; p=reject; rua=mailto:a@b.test",
            "v=DMARC1; p=quarantine; t=y; sp=none; np=reject; adkim=s",
            "v=DMARC1",
            "v=DMARC1; p=\x1b",
            "v=DMARC1; psd=y; p=none",
            "v=spf1 mx a include:b.test ~all exp=e.test",
            "v=spf1 redirect=a.test",
            "v=spf1 +all",
            "v=spf1 ip4:x",
            "\x1b[2J%{i}",
        ]
    ),
    st.binary(max_size=30),
)
NAMES = st.sampled_from(
    ["example.com", "_dmarc.example.com", "_dmarc.com", "a.test", "b.test", "e.test", "x._domainkey.example.com"]
)
ZONES = st.dictionaries(NAMES, st.fixed_dictionaries({"TXT": st.lists(TXT, min_size=1, max_size=2)}), max_size=7)
FAILURES = st.dictionaries(st.tuples(NAMES, st.just("TXT")), drawn(Status), max_size=2)
SIGNATURE = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x; h=from; bh=" + b"A" * 43 + b"=; b=AAAA\r\n"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from([kind for kind in MessageClass if kind is not MessageClass.LARGE]),
    number=st.integers(0, 50),
    signatures=st.integers(0, 2),
    names=ZONES,
    failing=FAILURES,
    client=st.one_of(MAYBE, st.just(IPv4Address("127.0.0.1")), ADDRESSES),
    helo=st.one_of(st.sampled_from(["a.test", "", "[192.0.2.1]"]), st.text(max_size=10)),
    mail_from=st.one_of(st.sampled_from(["x@a.test", "", "x@example.com", "\x1b@b.test"]), st.text(max_size=10)),
)
def test_whatever_is_judged_can_be_explained(
    kind: MessageClass,
    number: int,
    signatures: int,
    names: Records,
    failing: dict[tuple[str, str], Status],
    client: IPv4Address | None,
    helo: str,
    mail_from: str,
) -> None:
    outcome = authenticate(
        SIGNATURE * signatures + generate(kind, number),
        ip=client,
        helo=helo.encode("utf-8", "replace"),
        mail_from=mail_from.encode("utf-8", "replace"),
        resolver=ZoneResolver(names, status=failing),
        now=NOW,
        rules=InboundRules(checks_iprev=True),
    )
    assert_printable(tree_of(outcome))
    assert_printable(outcome.explain())
