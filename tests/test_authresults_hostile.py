"""Authentication-Results: whatever strangers chose, two readers find exactly what was meant (RFC 8601 §2.2).

`MAILGUARD_EXAMPLES=100000 pytest tests/test_authresults_hostile.py` looks for longer.
"""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authresults_evidence import DKIM_PASS, NOTHING, PASS, US
from authresults_meant import check, meant
from authresults_reader import Clause, read_strictly
from mailguard.authresults import build, build_login
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.record import DmarcPolicy
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.message import MalformedReason
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

EXAMPLES = int(os.environ.get("MAILGUARD_EXAMPLES", "400"))
LONG_NAME = ".".join(["a" * 60] * 4)


def test_the_reader_is_strict() -> None:
    for value in (
        b" mx.us.test;\r\n\tdkim=pass header.d=a;b",
        b" mx.us.test; dkim=pass reason=a@b",
        b" mx.us.test; dkim=pass (a(b)",
        b" mx.us.test; dkim=pass\r\n\r\n",
        b" mx.us.test; dkim=pass header.s=a/b",
        b" mx.us.test; dkim=pass header.i=@test",
        b" mx.us.test; dkim=pass header.d=a.test\r\nX: y",
        b' mx.us.test; dkim=pass header.d="a',
        b" mx.us.test; dkim=pass\xff",
    ):
        with pytest.raises((AssertionError, UnicodeDecodeError)):
            read_strictly(value)


# -- what may come in -----------------------------------------------------------------------------------------------

HOSTILE = st.lists(
    st.sampled_from(
        [
            *';()"\\\r\n\0\t @=,/<>[]:?%',
            "a",
            "x" * 70,
            "y" * 700,
            "dkim=pass",
            "= pass",
            "=PASS",
            " header.d=bank.test",
            "; dkim=pass header.d=bank.test",
            "\r\nX-Evil: 1",
            "\r\n\t",
            "ö",
            "\udc80",
            "\u2028",
            "\u202e",
            "=?utf-8?q?x?=",
            '"@',
            "@evil.test",
        ]
    ),
    max_size=8,
).map("".join)
OCTETS = HOSTILE.map(lambda text: text.encode("utf-8", "surrogateescape")) | st.binary(max_size=40)
# The constructor, not `parse`: the builder is to be safe even with a name that nobody checked.
NAMES = st.builds(Domain, st.sampled_from(["bank.test", "xn--bcher-kva.test", LONG_NAME, "a.test"]) | HOSTILE)
ADDRESSES = st.sampled_from([*map(ip_address, ("192.0.2.1", "2001:db8::1", "fe80::1%eth0", 'fe80::1%"; dmarc=pass'))])
DKIM = st.builds(
    DkimResult,
    status=st.sampled_from(DkimStatus),
    reason=st.sampled_from(DkimReason),
    detail=HOSTILE,
    domain=st.none() | NAMES,
    selector=st.none() | st.just("s1") | HOSTILE,
    identity=st.none() | st.builds("{}@{}".format, HOSTILE, NAMES) | HOSTILE,
    algorithm=st.none() | st.just("rsa-sha256") | HOSTILE,
    signature_prefix=st.none() | st.just("ab+/CD==") | HOSTILE,
    key_bits=st.none() | st.integers(min_value=0, max_value=8192),
    testing=st.booleans(),
)
SPF = st.builds(
    SpfResult,
    status=st.sampled_from(SpfStatus),
    reason=st.sampled_from(SpfReason),
    detail=HOSTILE,
    identity=st.sampled_from(SpfIdentity),
    domain=st.none() | NAMES,
    is_null_sender=st.booleans(),
    mechanism=st.none() | HOSTILE,
    record=st.none() | HOSTILE,
    explanation=st.none() | HOSTILE,
)
IPREV = st.builds(IprevResult, st.sampled_from(IprevStatus), HOSTILE, ADDRESSES, st.none() | NAMES)
VERDICTS = st.builds(
    DmarcVerdict,
    status=st.sampled_from(DmarcStatus),
    reason=st.sampled_from(DmarcReason),
    detail=HOSTILE,
    author_domain=st.none() | NAMES,
    policy=st.none() | st.sampled_from(DmarcPolicy),
    is_testing=st.booleans(),
)
ENVELOPES = st.builds(
    Envelope, client_ip=st.none(), helo=OCTETS, mail_from=OCTETS, login=st.none() | st.just(b"ceo@bank.test") | OCTETS
)
EVIDENCE = st.builds(
    Evidence,
    envelope=ENVELOPES,
    author_domains=st.lists(NAMES, max_size=3).map(tuple),
    malformed=st.none() | st.sampled_from(MalformedReason),
    malformed_detail=HOSTILE,
    spf=st.none() | SPF,
    helo_spf=st.none() | SPF,
    dkim=st.lists(DKIM, max_size=4).map(tuple),
    ignored_signatures=st.integers(min_value=0, max_value=3),
    iprev=st.none() | IPREV,
)


# -- what is read ---------------------------------------------------------------------------------------------------

DKIM_FAIL = replace(DKIM_PASS, status=DkimStatus.FAIL, detail="a@b; dkim=pass header.d=bank.test")


def signed(result: DkimResult) -> Evidence:
    return replace(NOTHING, dkim=(result,))


@pytest.mark.attack("R09")
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    evidence=EVIDENCE,
    verdict=st.none() | VERDICTS,
    is_of_the_author=st.booleans(),
    override=HOSTILE,
    shows_login=st.booleans(),
)
@example(signed(DKIM_FAIL), None, False, "", False)
@example(signed(replace(DKIM_PASS, identity="@a.test; dkim=pass")), None, False, "", False)
@example(signed(replace(DKIM_PASS, identity="/x@bank.test")), None, False, "", False)
@example(signed(replace(DKIM_PASS, identity="@test", domain=Domain("test"))), None, False, "", False)
@example(signed(replace(DKIM_PASS, signature_prefix="a@;b")), None, False, "", False)
@example(signed(replace(DKIM_FAIL, detail="=(x)pass; =?utf-8?q?=22=3B_dmarc=3Dpass?=")), None, False, "", False)
@example(signed(replace(DKIM_PASS, domain=Domain("bank.test(.evil.test"), selector='"')), None, False, "", False)
@example(signed(replace(DKIM_FAIL, detail="x " * 2500)), PASS, True, "=pass" * 200, False)
def test_hostile_values_are_read_back_as_what_was_meant(
    evidence: Evidence, verdict: DmarcVerdict | None, is_of_the_author: bool, override: str, shows_login: bool
) -> None:
    if is_of_the_author and verdict is not None and verdict.author_domain is not None:
        evidence = replace(evidence, author_domains=(verdict.author_domain,))
    value = build(US, evidence, verdict, override=override, shows_login=shows_login).value
    check(value, meant(evidence, verdict, override, shows_login))
    if evidence.malformed is not None or len(evidence.author_domains) != 1:
        assert b"dmarc=pass" not in value.lower()
    if evidence.malformed is not None:
        assert b"dkim=pass" not in value.lower()


@pytest.mark.attack("R09")
@settings(max_examples=EXAMPLES, deadline=None)
@given(envelope=ENVELOPES.filter(lambda one: bool(one.login)))
def test_hostile_logins_are_read_back_as_what_was_meant(envelope: Envelope) -> None:
    expected = meant(replace(NOTHING, envelope=envelope), None, "", True)[:1]
    check(build_login(US, envelope).value, expected)


@pytest.mark.attack("R09")
@settings(max_examples=min(EXAMPLES, 100), deadline=None)
@given(
    selector=st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}", fullmatch=True),
    local_part=st.from_regex(r"[a-zXYZ019!#$%&'*+\-?^_`{|}~]{1,20}(\.[a-z]{1,9})?", fullmatch=True),
    domain=st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){1,3}", fullmatch=True),
    prefix=st.text("abcdefABC019+/", min_size=1, max_size=12),
)
def test_ordinary_values_are_exact_for_both_readers(selector: str, local_part: str, domain: str, prefix: str) -> None:
    detail = f"there is no key at {selector}._domainkey.{domain}"
    result = DkimResult(
        status=DkimStatus.PERMERROR,
        reason=DkimReason.KEY_MISSING,
        detail=detail,
        domain=Domain.parse(domain),
        selector=selector,
        identity=f"{local_part}@{domain}",
        algorithm="rsa-sha256",
        signature_prefix=prefix,
    )
    spf = SpfResult(
        status=SpfStatus.SOFTFAIL,
        reason=SpfReason.MATCH,
        detail=f"~all of {domain} matches",
        identity=SpfIdentity.MAIL_FROM,
        domain=Domain.parse(domain),
    )
    written = [
        ("header.d", domain),
        ("header.i", f"{local_part}@{domain}"),
        ("header.a", "rsa-sha256"),
        ("header.s", selector),
        ("header.b", prefix),
    ]
    check(
        build(US, replace(NOTHING, dkim=(result,), spf=spf), None).value,
        [
            Clause("spf", "softfail", "", f"~all of {domain} matches", [("smtp.mailfrom", domain)]),
            Clause("dkim", "permerror", "", detail, written),
        ],
    )
