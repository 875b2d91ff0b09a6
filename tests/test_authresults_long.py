"""Authentication-Results: long fields are folded, and their length is bounded (RFC 5322 §2.1.1)."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from authresults_evidence import DKIM_PASS, FAIL, FROM_BANK, HELO_PASS, IPREV_PASS, NOTHING, SPF_PASS, US
from authresults_meant import MAX_FIELD_OCTETS, check_octets
from authresults_reader import read_strictly
from mailguard.authresults import build
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

FIRST_WORD = re.compile(r'[^ "]+(?:"[^"]*")?')
LONG_NAME = ".".join(["a" * 60] * 4)
DKIM_FAIL = replace(DKIM_PASS, status=DkimStatus.FAIL, detail="the body was changed after it was signed")


@pytest.mark.attack("R10")
def test_long_fields_are_folded_between_words() -> None:
    results = tuple(
        replace(
            DKIM_FAIL, domain=Domain(LONG_NAME), identity=f"{'i' * 64}@{LONG_NAME}", selector=f"{n}.{LONG_NAME[:180]}"
        )
        for n in range(10)
    )
    value = build(US, replace(NOTHING, dkim=results), None).value
    assert len(value) > 2080
    check_octets(value)
    clauses = read_strictly(value)[1]
    assert [dict(clause.properties)["header.s"] for clause in clauses] == [
        f"{n}.{LONG_NAME[:180]}" for n in range(10)
    ]


def test_ordinary_fields_have_short_lines() -> None:
    evidence = replace(
        FROM_BANK,
        iprev=IPREV_PASS,
        spf=SPF_PASS,
        helo_spf=HELO_PASS,
        dkim=(DKIM_PASS, replace(DKIM_FAIL, testing=True)),
    )
    value = build(US, evidence, FAIL, override="policy overridden: mailing_list dkim=lists.example.org").value
    assert max(map(len, value.split(b"\r\n"))) <= 78


@pytest.mark.parametrize("result", [DKIM_PASS, DKIM_FAIL], ids=["without quotes", "with a quoted reason"])
def test_each_line_holds_as_many_words_as_fit(result: DkimResult) -> None:
    """Less than 78 characters, or one longer word; what stands in quotes is not broken."""
    result = replace(result, signature_prefix="abcd")
    for length in range(1, 100):
        evidence = replace(NOTHING, dkim=(replace(result, selector="s" * length), result))
        lines = build(US, evidence, None).value.decode().split("\r\n\t")
        assert lines.pop(0) == f" {US};"
        assert all(len(line) < 78 or " " not in line for line in lines)
        for line, following in pairwise(lines):
            word = FIRST_WORD.match(following)
            assert word is not None
            assert line.endswith(";") or len(f"{line} {word[0]}") >= 78
        reason = f' reason="{result.detail}"' if result.status is DkimStatus.FAIL else ""
        rest = "header.d=bank.test header.i=@bank.test header.a=rsa-sha256"
        assert " ".join(lines) == "; ".join(
            f"dkim={result.status.value} (2048-bit key){reason} {rest} header.s={selector} header.b=abcd"
            for selector in ("s" * length, "s1")
        )


def longest_signature(status: DkimStatus) -> DkimResult:
    return DkimResult(
        status=status,
        reason=DkimReason.SIGNATURE,
        detail="d" * 5000,
        domain=Domain(LONG_NAME),
        selector="s" * 5000,
        identity=f"{'i' * 64}@{LONG_NAME}",
        algorithm="a" * 5000,
        signature_prefix="b" * 5000,
        key_bits=2048,
    )


@pytest.mark.attack("R11")
def test_twenty_signatures_are_listed() -> None:
    evidence = replace(NOTHING, dkim=(DKIM_PASS,) * 20, ignored_signatures=1980)
    value = build(US, evidence, None).value
    clauses = read_strictly(value)[1]
    assert len(clauses) == 20
    assert clauses[-1].comment == "2048-bit key, 1980 further signatures were not verified"
    assert len(value) < 20 * 200
    unsigned = replace(NOTHING, ignored_signatures=3)
    assert read_strictly(build(US, unsigned, None).value)[1][0].comment == "3 further signatures were not verified"


@pytest.mark.attack("R11")
def test_of_more_than_twenty_those_that_pass_are_listed_and_the_rest_is_counted() -> None:
    results = [replace(DKIM_FAIL, selector=f"s{number}", detail="why") for number in range(50)]
    results[30] = replace(DKIM_PASS, selector="s30")
    results[49] = replace(DKIM_PASS, selector="s49")
    clauses = read_strictly(build(US, replace(NOTHING, dkim=tuple(results), ignored_signatures=7), None).value)[1]
    assert [dict(one.properties)["header.s"] for one in clauses] == [*(f"s{n}" for n in range(18)), "s30", "s49"]
    assert [one.result for one in clauses] == ["fail"] * 18 + ["pass"] * 2
    assert (
        clauses[-1].comment
        == "2048-bit key, 30 further signatures are not listed, 7 further signatures were not verified"
    )


@pytest.mark.attack("R11")
def test_the_longest_field_fits_into_libmilter() -> None:
    spf = SpfResult(
        status=SpfStatus.FAIL, reason=SpfReason.MATCH, detail="d" * 5000, identity=SpfIdentity.HELO, domain=None
    )
    evidence = Evidence(
        envelope=Envelope(client_ip=None, helo=b"h" * 5000, mail_from=b"m" * 5000, login=b"l" * 5000),
        author_domains=(Domain(LONG_NAME),),
        spf=spf,
        helo_spf=spf,
        iprev=IprevResult(IprevStatus.FAIL, "d" * 5000, ip_address("2001:db8::1"), (Domain(LONG_NAME),)),
        dkim=tuple(longest_signature(status) for status in DkimStatus) * 10,
        ignored_signatures=10**6,
    )
    verdict = DmarcVerdict(
        status=DmarcStatus.FAIL,
        reason=DmarcReason.NOT_ALIGNED,
        detail="d" * 5000,
        author_domain=Domain(LONG_NAME),
        is_testing=True,
    )
    value = build(US, evidence, verdict, override="o" * 5000, shows_login=True).value
    check_octets(value)
    assert 20_000 < len(value) < MAX_FIELD_OCTETS * 3 // 4
