"""What the library's functions say to arguments of another type: never a verdict, and never about something else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

import mailguard as m
from mailguard.dkim.signing_key import generate_ed25519

KEY = m.SigningKey.from_bytes(generate_ed25519(), domain="a.test", selector="s")
ZONE = m.ZoneResolver(
    {
        "a.test": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"], "MX": [(10, "mx.a.test")]},
        "mx.a.test": {"A": ["192.0.2.1"]},
        "_dmarc.a.test": {"TXT": ["v=DMARC1; p=reject"]},
        KEY.public_name: {"TXT": [KEY.record()]},
    }
)
NOW = 1_800_000_000
RAW = b"From: <x@a.test>\r\n\r\nHello.\r\n"
MESSAGE = m.Message.parse(RAW)
SIGNED = m.Message.from_fields([*m.sign_dkim(MESSAGE, keys=[KEY], now=NOW), *MESSAGE.fields], MESSAGE.body)
ENVELOPE: dict[str, Any] = {"client_ip": ip_address("192.0.2.1"), "helo": b"a.test", "mail_from": b"x@a.test"}
RESULTS = m.verify_dkim(SIGNED, resolver=ZONE, now=NOW)
DOMAIN = m.Domain.parse("a.test")
RECORD = m.parse_tlsa("3 1 1 " + "ab" * 32)
QUESTION = m.Question("a.test", m.RecordType.TXT)
TEXT: Any = "text"
MILLISECONDS = NOW * 1000
UTC_NOW: Any = datetime.fromtimestamp(NOW, tz=UTC)


def authenticate(raw: Any = RAW, **given: Any) -> m.Outcome:
    arguments = {"ip": "192.0.2.1", "helo": "a.test", "mail_from": "x@a.test", "resolver": ZONE, "now": NOW}
    return m.authenticate(raw, **{**arguments, **given})


def check_spf(identity: Any = m.SpfIdentity.MAIL_FROM, now: Any = NOW, **envelope: Any) -> m.SpfResult:
    return m.check_spf(m.Envelope(**{**ENVELOPE, **envelope}), resolver=ZONE, identity=identity, now=now)


def verify_dkim(message: Any = SIGNED, *, resolver: Any = ZONE, now: Any = NOW, rules: Any = None) -> object:
    return m.verify_dkim(message, resolver=resolver, now=now, rules=rules)


def sign_dkim(message: Any = MESSAGE, *, keys: Any = (KEY,), now: Any = NOW, rules: Any = None) -> object:
    return m.sign_dkim(message, keys=keys, now=now, rules=rules)


def evaluate_dmarc(author_domain: Any = DOMAIN, *, spf: Any = None, dkim: Any = RESULTS) -> m.DmarcVerdict:
    return m.evaluate_dmarc(author_domain, spf=spf, dkim=dkim, resolver=ZONE)


def check_dane(domain: Any = "a.test", **given: Any) -> object:
    return m.check_dane(domain, resolver=ZONE, **given)


def verify_tlsa(chain: Any = (b"",), records: Any = (RECORD,), reference_ids: Any = ("a.test",)) -> object:
    return m.verify_tlsa(chain, records, reference_ids=reference_ids, now=NOW)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: authenticate(RAW.decode()), "raw: bytes is needed, not str"),
        (lambda: authenticate(bytearray(RAW)), "raw: bytes is needed, not bytearray"),
        (lambda: authenticate(None), "raw: bytes is needed, not None"),
        (lambda: authenticate(ip=3_221_225_985), "ip: str or IPv4Address or IPv6Address or None is needed, not int"),
        (lambda: authenticate(ip=ip_network("192.0.2.1")), "not IPv4Network"),
        (lambda: authenticate(helo=None), "helo: str or bytes is needed, not None"),
        (lambda: authenticate(mail_from=None), "mail_from: str or bytes is needed, not None"),
        (lambda: authenticate(now=UTC_NOW), "now: float or int is needed, not datetime"),
        (lambda: authenticate(now=True), "now: float or int is needed, not bool"),
        (lambda: authenticate(policy={}), "policy: Policy or None is needed, not dict"),
        (lambda: authenticate(rules=m.VerifyRules()), "rules: InboundRules or None is needed, not VerifyRules"),
        (lambda: authenticate(resolver="192.0.2.53"), "resolver: Resolver or None is needed, not str"),
        (lambda: m.Message.parse(memoryview(RAW)), "raw: bytes is needed, not memoryview"),  # type: ignore[arg-type]
        (lambda: check_spf(identity="helo"), "identity: SpfIdentity is needed, not str"),
        (lambda: check_spf(mail_from=None), "mail_from: bytes is needed, not None"),
        (lambda: check_spf(mail_from="x@a.test"), "mail_from: bytes is needed, not str"),
        (lambda: check_spf(helo="a.test"), "helo: bytes is needed, not str"),
        (lambda: check_spf(client_ip="192.0.2.1"), "client_ip: IPv4Address or IPv6Address or None is needed"),
        (lambda: check_spf(now="now"), "now: float or int is needed, not str"),
        (lambda: verify_dkim(RAW), "message: Message is needed, not bytes"),
        (lambda: verify_dkim(resolver=None), "resolver: Resolver is needed, not None"),
        (lambda: verify_dkim(now=UTC_NOW), "now: float or int is needed, not datetime"),
        (lambda: verify_dkim(rules={}), "rules: VerifyRules or None is needed, not dict"),
        (lambda: sign_dkim(RAW), "message: Message is needed, not bytes"),
        (lambda: sign_dkim(keys=[None]), "keys: SigningKey is needed, not None"),
        (lambda: sign_dkim(rules={}), "rules: SigningRules or None is needed, not dict"),
        (lambda: evaluate_dmarc("A.TEST"), "author_domain: Domain is needed, not str"),
        (lambda: evaluate_dmarc(spf=m.SpfStatus.PASS), "spf: SpfResult or None is needed, not SpfStatus"),
        (lambda: evaluate_dmarc(dkim=[m.DkimStatus.PASS]), "dkim: DkimResult is needed, not DkimStatus"),
        (lambda: check_dane(b"a.test"), "domain: str is needed, not bytes"),
        (lambda: check_dane(port=2.5), "port: int or None is needed, not float"),
        (lambda: check_dane(port=True), "port: int or None is needed, not bool"),
        (lambda: check_dane(insecure_mx="none"), "insecure_mx: InsecureMx is needed, not str"),
        (lambda: verify_tlsa(b"der"), "chain: several of bytes are needed, not bytes"),
        (lambda: verify_tlsa(records=["3 1 1 ab"]), "records: TLSA is needed, not str"),
        (lambda: verify_tlsa(reference_ids="a.test"), "reference_ids: several of str are needed, not str"),
        (lambda: m.tlsa_of(TEXT), "certificate: bytes is needed, not str"),
        (lambda: m.SigningKey.from_bytes(TEXT, domain="a.test", selector="s"), "octets: bytes is needed, not str"),
        (lambda: m.open_resolver(TEXT), "config: ResolverConfig or None is needed, not str"),
        (lambda: m.Policy(mode=TEXT), "mode: Mode is needed, not str"),
        (lambda: m.Policy(actions={TEXT: m.Disposition.ACCEPT}), "a rule in actions: Rule is needed, not str"),
        (
            lambda: m.Policy(actions={m.Rule.DMARC_REJECT: TEXT}),
            "an action in actions: Disposition is needed, not str",
        ),
        (lambda: m.DomainPolicy(domain=TEXT), "domain: Domain is needed, not str"),
        (lambda: m.TrustedSource(kind=TEXT), "kind: OverrideKind is needed, not str"),
        (
            lambda: m.TrustedSource(kind=m.OverrideKind.MAILING_LIST, dkim=DOMAIN),  # type: ignore[arg-type]
            "dkim: several of Domain are needed, not Domain",
        ),
        (lambda: m.InboundRules(checks_helo=TEXT), "checks_helo: bool is needed, not str"),
        (lambda: m.VerifyRules(body_length=TEXT), "body_length: BodyLengthRule is needed, not str"),
        (lambda: m.OwnIds("mx.a.test"), "ids: several of str are needed, not str"),
        (lambda: m.Answer(QUESTION, TEXT), "status: Status is needed, not str"),
        (lambda: m.Answer(QUESTION, m.Status.NODATA, dnssec=TEXT), "dnssec: Dnssec is needed, not str"),
        (lambda: m.SigningRules(body_canonicalization=TEXT), "body_canonicalization: Canonicalization is needed"),
    ],
)
def test_another_type_is_refused_by_its_name(call: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        call()
    assert said in str(raised.value)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), -1, MILLISECONDS, 10**400])
@pytest.mark.parametrize("call", [authenticate, check_spf, verify_dkim, sign_dkim])
def test_a_time_is_posix_seconds(call: Callable[..., object], now: float) -> None:
    """With NaN no signature would have expired, with milliseconds each."""
    with pytest.raises(ValueError, match="now: POSIX seconds are needed"):
        call(now=now)


@pytest.mark.parametrize("now", [0, 10**12])
def test_the_first_and_the_last_time_are_posix_seconds(now: int) -> None:
    """Those that `--now` takes."""
    assert sign_dkim(now=now)


def test_what_is_awaited_says_the_same() -> None:
    with pytest.raises(TypeError, match="raw: bytes is needed, not str"):
        asyncio.run(m.authenticate_async(TEXT, ip=None, helo="", mail_from="", resolver=ZONE))


def test_results_may_come_from_a_generator() -> None:
    """The evaluation begins again when an answer is there; what can be read once was gone then."""
    assert evaluate_dmarc(dkim=(one for one in RESULTS)).status is m.DmarcStatus.PASS


def test_where_there_are_no_records_an_answer_has_none() -> None:
    with pytest.raises(ValueError, match="no records where the status is nxdomain"):
        m.Answer(QUESTION, m.Status.NXDOMAIN, (b"v=spf1 +all",))


def test_ids_may_come_from_a_generator() -> None:
    """The field's own id cannot be read; what is read twice must not be gone the second time."""
    assert m.OwnIds(each for each in ["mx.a.test"]).claimed_by(b" (mx.a.test; dkim=pass")
