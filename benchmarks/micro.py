"""Micro-benchmarks of the library, by pytest-benchmark: what single functions cost, without sockets and without DNS.

    .venv/bin/python -m pytest benchmarks/micro.py

Look-ups are answered from a dictionary, as a warm cache does it, so that `authenticate` is the work of a message and
no more. Messages are those of the comparison (sample_mail.py). Left out: anything that waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from ipaddress import ip_address

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import mailguard
from bench_keys import BenchKeys
from mailguard import (
    Answer,
    Answers,
    BodyDigests,
    BodyRequest,
    Canonicalization,
    Envelope,
    Message,
    Question,
    Resolver,
    ZoneResolver,
    authresults,
    sign_dkim,
    verify_dkim,
)
from mailguard.dkim.verify import plan_verification
from mailguard.dmarc.evaluate import judge
from mailguard.dns.answers import evaluate
from mailguard.domain import Domain
from mailguard.inbound import Judged, judge_inbound, plan_inbound
from mailguard.spf.check import check_host
from mailguard.spf.result import SpfIdentity
from sample_mail import AUTHSERV_ID, CLIENT, Sample, domain_name, incoming, outgoing
from scenarios import size_name

SIZES = (2 * 1024, 10 * 1024, 100 * 1024, 1024 * 1024)
CHUNK_OCTETS = 65_535
FAR_S = 3600.0


@cache
def keys() -> BenchKeys:
    return BenchKeys.generate()


@cache
def received(size: int) -> Sample:
    return incoming(size, 1, domains=[0], keys=keys(), algorithms=("rsa",))[0]


@cache
def written(size: int) -> Sample:
    return outgoing(size, 1, algorithms=("rsa",))[0]


class WarmResolver(ZoneResolver):
    """Has everything at hand that it was asked for once."""

    def __init__(self, entries: Mapping[str, Mapping[str, Sequence[object]]]) -> None:
        super().__init__(entries)
        self._known: dict[Question, Answer] = {}

    def at_hand(self, question: Question) -> Answer | None:
        found = self._known.get(question)
        if found is None:
            found = self._known[question] = self.resolve([question], deadline=0.0)[question]
        return found


@pytest.fixture(scope="module")
def resolver() -> Iterator[Resolver]:
    domain = domain_name(0)
    entries = {
        domain: {"TXT": [f"v=spf1 ip4:{CLIENT}/32 -all"]},
        f"mail.{domain}": {"A": [CLIENT]},
        f"_dmarc.{domain}": {"TXT": ["v=DMARC1; p=reject"]},
    }
    entries |= {f"{name}._domainkey.{domain}": {"TXT": [record]} for name, record in keys().records().items()}
    with WarmResolver(entries) as zone:
        yield zone


def envelope_of(sample: Sample) -> Envelope:
    return Envelope(client_ip=ip_address(CLIENT), helo=sample.helo, mail_from=sample.mail_from)


def judged(sample: Sample, resolver: Resolver) -> Judged:
    message = Message.parse(sample.raw)
    plan = plan_inbound(message, envelope_of(sample))
    digests = BodyDigests(plan.body_requests)
    digests.update(sample.body)
    digests.finish()
    return evaluate(
        lambda answers: judge_inbound(plan, digests, answers, now=time.time()),
        resolver,
        deadline=time.monotonic() + FAR_S,
    )


@pytest.mark.parametrize("size", SIZES, ids=size_name)
@pytest.mark.parametrize("form", list(Canonicalization), ids=lambda form: str(form.value))
def test_body_digest(benchmark: BenchmarkFixture, form: Canonicalization, size: int) -> None:
    """RFC 6376 §3.4.3 and §3.4.4: canonicalization and SHA-256, in the chunks in which Postfix hands bodies over."""
    body = received(size).body
    chunks = [body[at : at + CHUNK_OCTETS] for at in range(0, len(body), CHUNK_OCTETS)]

    def run() -> BodyDigests:
        digests = BodyDigests((BodyRequest(form),))
        for chunk in chunks:
            digests.update(chunk)
        digests.finish()
        return digests

    assert benchmark(run).digest(BodyRequest(form))


def test_parse_message(benchmark: BenchmarkFixture) -> None:
    raw = received(SIZES[0]).raw
    assert benchmark(lambda: Message.parse(raw).author.domains) == (domain_name(0),)


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
@pytest.mark.parametrize("size", SIZES, ids=size_name)
def test_sign(benchmark: BenchmarkFixture, size: int, algorithm: str) -> None:
    message = Message.parse(written(size).raw)
    signing = keys().signing_keys("us.example", algorithms=(algorithm,))
    assert len(benchmark(lambda: sign_dkim(message, keys=signing, now=time.time()))) == 1


@pytest.mark.parametrize("size", SIZES, ids=size_name)
def test_verify(benchmark: BenchmarkFixture, resolver: Resolver, size: int) -> None:
    message = Message.parse(received(size).raw)
    (result,) = benchmark(lambda: verify_dkim(message, resolver=resolver, now=time.time()))
    assert result.status.value == "pass"


def test_plan_verification(benchmark: BenchmarkFixture) -> None:
    message = Message.parse(received(SIZES[0]).raw)
    assert len(benchmark(lambda: plan_verification(message)).questions) == 1


def test_spf(benchmark: BenchmarkFixture, resolver: Resolver) -> None:
    envelope = envelope_of(received(SIZES[0]))
    result = benchmark(
        lambda: check_host(
            envelope, Answers(at_hand=resolver.at_hand), identity=SpfIdentity.MAIL_FROM, now=time.time()
        )
    )
    assert result.status.value == "pass"


def test_dmarc(benchmark: BenchmarkFixture, resolver: Resolver) -> None:
    evidence = judged(received(SIZES[0]), resolver).evidence
    domain = Domain.parse(domain_name(0))
    verdict = benchmark(
        lambda: judge(domain, spf=evidence.spf, dkim=evidence.dkim, answers=Answers(at_hand=resolver.at_hand))
    )
    assert verdict.status.value == "pass"


def test_authentication_results(benchmark: BenchmarkFixture, resolver: Resolver) -> None:
    """RFC 8601 §2.2."""
    found = judged(received(SIZES[0]), resolver)
    field = benchmark(lambda: authresults.build(AUTHSERV_ID, found.evidence, found.verdict))
    assert b"dmarc=pass" in field.value


@pytest.mark.parametrize("size", SIZES, ids=size_name)
def test_authenticate(benchmark: BenchmarkFixture, resolver: Resolver, size: int) -> None:
    """The whole of it: from the octets of a message to what is to be done."""
    sample = received(size)
    raw = sample.raw
    outcome = benchmark(
        lambda: mailguard.authenticate(
            raw, ip=CLIENT, helo=sample.helo, mail_from=sample.mail_from, resolver=resolver
        )
    )
    assert outcome.dmarc.status.value == "pass"
