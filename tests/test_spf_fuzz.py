"""Random records, senders, HELO names and answers: a result always comes out, and what it asks can be asked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard.dns.answers import Answers, Unanswered, evaluate
from mailguard.dns.names import why_unaskable
from mailguard.dns.question import MX, Answer, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.spf.check import check_host
from mailguard.spf.limits import MAX_QUERIES, MAX_TERMS, MAX_VOIDS
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus
from spf_asking import EVIL_IP, NOW, envelope

V6 = "2001:db8::66"
MACROS = [
    "%{s}",
    "%{l}",
    "%{o}",
    "%{d}",
    "%{i}",
    "%{p}",
    "%{v}",
    "%{h}",
    "%{ir}",
    "%{d2}",
    "%{L1r-}",
    "%{S.+}",
    "%%",
    "%_",
    "%-",
]
BAD_MACROS = ["%", "%{", "%{c}", "%{z}", "%{d0}", "%(d)", "%{d99999999999999999999}"]
NAMES = ["a.test", "b.test", "evil.test", "n.test", "mx.test", "x..test", "A.Test.", "a" * 64 + ".test", "c.test"]

name = st.one_of(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from([*MACROS, "x", ".", "-"]), min_size=1, max_size=4).map(
        lambda parts: "".join(parts) + ".test"
    ),
    st.sampled_from(MACROS),
    st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12),
    st.sampled_from(BAD_MACROS),
)
prefix = st.sampled_from(["", "", "", "/24", "/0", "/33", "//64", "/24//0", "//129", "/" + "9" * 40, "/"])
directive = st.one_of(
    st.sampled_from(
        ["all", "a", "mx", "ptr", "include", "foo", "ip4", f"ip4:{EVIL_IP}", "ip4:192.0.2.0/24", "ip6:2001:db8::/32"]
    ),
    st.builds(
        "{}:{}{}".format,
        st.sampled_from(["a", "mx", "ptr", "include", "exists", "include", "A", "EXISTS", "ip4", "ip6", "foo"]),
        name,
        prefix,
    ),
)
modifier = st.builds(
    "{}={}".format, st.sampled_from(["redirect", "exp", "Redirect", "unknown", "a.b-c_d", "1"]), name
)
term = st.one_of(st.builds("{}{}".format, st.sampled_from(["", "+", "-", "~", "?", "", "-"]), directive), modifier)
texts = st.lists(term, max_size=7).map(lambda terms: " ".join(["v=spf1", *terms]).encode())
good_term = st.builds(
    "{}{}".format,
    st.sampled_from(["", "-", "~", "?"]),
    st.one_of(
        st.sampled_from(["a", "mx", "ptr", f"ip4:{EVIL_IP}", "ip4:192.0.2.0/24", "all"]),
        st.builds(
            "{}:{}".format,
            st.sampled_from(["a", "mx", "ptr", "include", "include", "exists"]),
            st.sampled_from(["a.test", "b.test", "c.test", "n.test", "%{p}.a.test", "%{ir}.%{d}", "%{l}.b.test"]),
        ),
    ),
)
good_texts = st.lists(good_term, min_size=1, max_size=8).map(lambda terms: " ".join(["v=spf1", *terms]).encode())
octets = st.one_of(
    texts, good_texts, st.binary(max_size=40), st.binary(max_size=40).map(lambda junk: b"v=spf1 " + junk)
)


class Anything(ZoneResolver):
    """Answers every question somehow, always in the same way: chosen by its hash and a seed."""

    def __init__(self, records: list[bytes], seed: int, *, faults: bool = True) -> None:
        super().__init__({})
        self._records = records
        self._seed = seed
        self._faults = faults
        self.asked: list[Question] = []

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        batch = list(questions)
        self.asked += batch
        return {question: self._say(question) for question in batch}

    def _say(self, question: Question) -> Answer:
        digest = hashlib.sha256(f"{self._seed} {question}".encode()).digest()
        if digest[0] < 70:
            # 40 NXDOMAIN, 20 NODATA, the rest faults.
            status = Status.NXDOMAIN if digest[0] < 40 else Status.NODATA
            if digest[0] >= 60 and self._faults:
                status = Status.TEMPFAIL if digest[0] < 65 else Status.BOGUS
            return Answer(question, status)
        return Answer(question, Status.NOERROR, tuple(self._some(question.rdtype, digest)))

    def _some(self, rdtype: RecordType, digest: bytes) -> list[bytes | str | MX]:
        hosts = ["a.test", "b.test", "host.evil.test", "a\\000b.test", "a\\058b.test", "", "evil.test", "\\255"]
        count = digest[1] % 12 + 1
        match rdtype:
            case RecordType.TXT:
                return [self._records[digest[2] % len(self._records)], *([b"x"] if digest[3] % 2 else [])]
            case RecordType.A:
                return [EVIL_IP if digest[2] % 5 == 0 else f"192.0.2.{digest[2]}"]
            case RecordType.AAAA:
                return [V6 if digest[2] % 5 == 0 else f"2001:db8:1::{digest[2]}"]
            case RecordType.MX:
                return [MX(number, hosts[digest[number + 4] % 8]) for number in range(count)]
            case _:
                return [hosts[digest[number + 4] % 8] for number in range(count)]


plain_paths = [
    b"x@evil.test",
    b"",
    b"a.b-c+d@evil.test",
    b'"a b"@evil.test',
    "ö@evil.test".encode(),
    b"x" * 200 + b"@a.test",
]
paths = st.one_of(st.sampled_from(plain_paths), st.binary(max_size=30).map(lambda junk: junk + b"@evil.test"))
helos = st.one_of(st.sampled_from([b"evil.test", b"", b"[1.2.3.4]", b"JUMPIN' JUPITER"]), st.binary(max_size=30))


def check(
    resolver: Anything, mail_from: bytes, helo: bytes, ip: str, identity: SpfIdentity
) -> tuple[SpfResult, list[Answer]]:
    consumed: list[Answer] = []

    def evaluation(answers: Answers) -> SpfResult:
        result = check_host(envelope(mail_from, ip, helo), answers, identity=identity, now=NOW)
        consumed[:] = answers.consumed
        return result

    return evaluate(evaluation, resolver, deadline=time.monotonic() + 60), consumed


@settings(max_examples=400)
@given(
    st.lists(octets, min_size=1, max_size=4),
    st.integers(0, 2**32),
    paths,
    helos,
    st.sampled_from([EVIL_IP, V6]),
    st.sampled_from(list(SpfIdentity)),
)
def test_a_result_always_comes_out(
    records: list[bytes], seed: int, mail_from: bytes, helo: bytes, ip: str, identity: SpfIdentity
) -> None:
    resolver = Anything(records, seed)
    result, consumed = check(resolver, mail_from, helo, ip, identity)
    for question in resolver.asked:
        assert not why_unaskable(question.name), question
    assert len(resolver.asked) == len(set(resolver.asked)) <= MAX_QUERIES + MAX_TERMS - 1
    assert len(consumed) <= MAX_QUERIES
    assert result.lookups <= MAX_TERMS
    assert result.voids <= MAX_VOIDS + 1
    for text in (result.detail, result.record or "x", result.mechanism or "x", result.explanation or "x"):
        assert text.isascii()
        assert text.isprintable()
    assert len(result.detail) <= 250
    assert "cannot be evaluated" not in result.detail, "the catch-all was needed"
    failed = [answer for answer in consumed if answer.status in (Status.TEMPFAIL, Status.BOGUS)]
    if failed and result.status is SpfStatus.FAIL:
        # It may stand beside a failed look-up of one of several mail servers, or of an explanation; of nothing else.
        has_mail_servers = any(answer.question.rdtype is RecordType.MX for answer in consumed)
        assert has_mail_servers or b"exp=" in b" ".join(records).lower()
    assert (result.reason is SpfReason.DNS) == (result.status is SpfStatus.TEMPERROR)
    assert failed or result.status is not SpfStatus.TEMPERROR


@settings(max_examples=150)
@given(st.lists(good_texts, min_size=1, max_size=4), st.integers(0, 2**32), st.sampled_from([EVIL_IP, V6]))
def test_asking_ahead_changes_no_result(records: list[bytes], seed: int, ip: str) -> None:
    ahead, consumed = check(Anything(records, seed), b"x@evil.test", b"evil.test", ip, SpfIdentity.MAIL_FROM)
    alone = Anything(records, seed)
    known: dict[Question, Answer] = {}
    while True:
        answers = Answers(known)
        try:
            result = check_host(envelope(ip=ip), answers, identity=SpfIdentity.MAIL_FROM, now=NOW)
        except Unanswered:
            known.update(alone.resolve(answers.missing[:1], deadline=0.0))
            continue
        break
    assert result == ahead
    assert list(answers.consumed) == consumed
