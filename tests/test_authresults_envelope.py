"""Authentication-Results: SPF, iprev and a login (RFC 8601 §2.7.2, RFC 8601 §2.7.3, RFC 8601 §2.7.4)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from authresults_evidence import (
    BANK,
    ENVELOPE,
    EVIL,
    FAIL,
    FROM_BANK,
    HELO_PASS,
    IPREV_PASS,
    NOTHING,
    SPF_PASS,
    US,
    clause_of,
    clauses_of,
)
from authresults_reader import Clause, read_strictly
from mailguard.authresults import build, build_login
from mailguard.dmarc.result import DmarcReason
from mailguard.domain import Domain
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.spf.result import SpfIdentity, SpfReason, SpfStatus

# -- spf ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(SpfStatus))
def test_each_status_of_spf_is_the_word_of_rfc_8601(status: SpfStatus) -> None:
    clause = clause_of("spf", replace(NOTHING, spf=replace(SPF_PASS, status=status, detail="why")))
    reason = None if status is SpfStatus.PASS else "why"
    assert clause == Clause("spf", status.value, "", reason, [("smtp.mailfrom", "bank.test")])


def test_for_a_null_sender_the_helo_name_was_checked() -> None:
    """RFC 7208 §2.4; RFC 8601 §4: the parameter that yielded the result."""
    clause = clause_of("spf", replace(NOTHING, spf=replace(SPF_PASS, is_null_sender=True)))
    assert clause.properties == [("smtp.helo", "bank.test")]


@pytest.mark.attack("E12")
def test_a_pass_for_the_helo_name_is_told_as_that() -> None:
    fail = replace(SPF_PASS, status=SpfStatus.FAIL, reason=SpfReason.NO_MATCH, detail="no match", domain=EVIL)
    evidence = replace(FROM_BANK, spf=fail, helo_spf=replace(HELO_PASS, domain=BANK))
    clauses = clauses_of(evidence, replace(FAIL, reason=DmarcReason.NOTHING_PASSED))
    assert [(one.method, one.result, one.properties[:1]) for one in clauses] == [
        ("spf", "fail", [("smtp.mailfrom", "evil.test")]),
        ("spf", "pass", [("smtp.helo", "bank.test")]),
        ("dkim", "none", []),
        ("dmarc", "fail", [("header.from", "bank.test")]),
    ]


# id, reverse path, HELO, as the HELO is checked, the domain that SPF found, the property
SENDERS: list[tuple[str, bytes, bytes, bool, str | None, bytes]] = [
    (
        "E03 a parenthesis",
        b"any@bank.test(a.evil.test",
        b"h",
        False,
        None,
        b'smtp.mailfrom="bank.test?a.evil.test"',
    ),
    (
        "E04 an apostrophe",
        b"any@bank.test'@any.evil.test",
        b"h",
        False,
        "any.evil.test",
        b"smtp.mailfrom=any.evil.test",
    ),
    ("E08 8-bit local part", "ö@evil.test".encode(), b"h", False, "evil.test", b"smtp.mailfrom=evil.test"),
    ("E08 8-bit domain", b"a@\xff.test", b"h", False, None, b'smtp.mailfrom="?.test"'),
    ("E14 1,000 characters", b"a@b.test", b"x" * 1000, True, None, b"smtp.helo=" + b"x" * 315 + b"..."),
    ("E14 literal", b"a@b.test", b"[x]", True, None, b'smtp.helo="[x]"'),
    ("E14 spaces", b"a@b.test", b"a  b", True, None, b'smtp.helo="a b"'),
    ("E14 parenthesis", b"a@b.test", b"a(b", True, None, b'smtp.helo="a?b"'),
    ("E14 semicolon", b"a@b.test", b"a;b", True, None, b'smtp.helo="a?b"'),
    ("E14 a result", b"a@b.test", b"x; dmarc=pass", True, None, b'smtp.helo="x? dmarc?pass"'),
    ("E14 a quote", b"a@b.test", b'x"; dmarc=pass', True, None, b'smtp.helo="x?? dmarc?pass"'),
    ("E14 one label", b"a@b.test", b"localhost", True, None, b"smtp.helo=localhost"),
    ("E14 line end", b"a@b.test", b"a\r\nX-Evil: 1", True, None, b'smtp.helo="a??X-Evil: 1"'),
]


@pytest.mark.attack("E")
@pytest.mark.parametrize(
    ("mail_from", "helo", "is_helo", "domain", "written"),
    [row[1:] for row in SENDERS],
    ids=[row[0] for row in SENDERS],
)
def test_of_a_sender_the_domain_is_named_or_quoted(
    mail_from: bytes, helo: bytes, is_helo: bool, domain: str | None, written: bytes
) -> None:
    result = replace(
        SPF_PASS,
        status=SpfStatus.NONE,
        detail="there is no domain",
        identity=SpfIdentity.HELO if is_helo else SpfIdentity.MAIL_FROM,
        domain=None if domain is None else Domain.parse(domain),
    )
    evidence = replace(NOTHING, envelope=replace(ENVELOPE, mail_from=mail_from, helo=helo), spf=result)
    value = build(US, evidence, None).value
    name = b"smtp.helo" if is_helo else b"smtp.mailfrom"
    assert name + value.partition(name)[2].partition(b";\r\n")[0] == written
    assert [one.result for one in read_strictly(value)[1]] == ["none", "none"]


@pytest.mark.parametrize("mail_from", [b"", b"a@"])
def test_no_domain_at_all_is_no_property(mail_from: bytes) -> None:
    result = replace(SPF_PASS, status=SpfStatus.PERMERROR, detail="not an address", domain=None)
    evidence = replace(NOTHING, envelope=replace(ENVELOPE, mail_from=mail_from), spf=result)
    assert clause_of("spf", evidence) == Clause("spf", "permerror", "", "not an address", [])


def test_a_pass_names_nothing_but_a_validated_domain() -> None:
    assert clause_of("spf", replace(NOTHING, spf=replace(SPF_PASS, domain=None))) == Clause("spf", "pass")


# -- iprev ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [IprevStatus.FAIL, IprevStatus.TEMPERROR, IprevStatus.PERMERROR])
def test_iprev_says_why_not(status: IprevStatus) -> None:
    result = IprevResult(status, "there is no PTR record", ip_address("2001:db8::1"), ())
    assert clause_of("iprev", replace(NOTHING, iprev=result)) == Clause(
        "iprev", status.value, "", "there is no PTR record", [("policy.iprev", "2001:db8::1")]
    )


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("192.0.2.1", b"policy.iprev=192.0.2.1;"),
        ("2001:db8::1", b'policy.iprev="2001:db8::1";'),
        ("::ffff:192.0.2.1", b'policy.iprev="::ffff:192.0.2.1";'),
        ("fe80::1%eth0", b'policy.iprev="fe80::1%eth0";'),
    ],
)
def test_an_address_with_colons_is_quoted(address: str, written: bytes) -> None:
    evidence = replace(NOTHING, iprev=replace(IPREV_PASS, address=ip_address(address)))
    written_as = build(US, evidence, None).value.replace(b"::ffff:c000:201", b"::ffff:192.0.2.1")
    assert written in written_as


# -- auth -----------------------------------------------------------------------------------------------------------

# id, the login, as it is written
LOGINS = [
    ("a word", b"ceo", b"ceo"),
    ("an address", b"ceo@bank.test", b"ceo@bank.test"),
    ("blanks", b"the ceo", b'"the ceo"'),
    ("a result", b"x; dmarc=pass", b'"x? dmarc?pass"'),
    ("an address of one label", b"ceo@localhost", b'"ceo@localhost"'),
    ("an address that begins with a slash", b"/ceo@bank.test", b'"/ceo@bank.test"'),
    ("an address with a result", b"dmarc=pass@bank.test", b"dmarc?pass@bank.test"),
    ("quotes", b'"a b"@bank.test', b'"?a b?@bank.test"'),
    ("a domain after a backslash", b"BANK\\ceo", b'"BANK?ceo"'),
    ("two at signs", b"a@b@c", b'"a@b@c"'),
    ("UTF-8", "bücher".encode(), b'"b?cher"'),
    ("not UTF-8", b"\xff", b'"?"'),
    ("blanks alone", b"  ", b"unknown"),
]


@pytest.mark.attack("R09")
@pytest.mark.parametrize(("login", "written"), [row[1:] for row in LOGINS], ids=[row[0] for row in LOGINS])
def test_the_login_of_mail_that_is_signed(login: bytes, written: bytes) -> None:
    field = build_login(US, replace(ENVELOPE, login=login))
    assert field.name == b"Authentication-Results"
    assert field.value == b" mx.us.test;\r\n\tauth=pass smtp.auth=" + written
    (clause,) = read_strictly(field.value)[1]
    assert (clause.method, clause.result, clause.reason) == ("auth", "pass", None)
    evidence = replace(NOTHING, envelope=replace(ENVELOPE, login=login))
    assert clauses_of(evidence, shows_login=True)[0] == clause


@pytest.mark.parametrize("login", [None, b""])
def test_nobody_is_called_authenticated_without_a_login(login: bytes | None) -> None:
    with pytest.raises(ValueError, match="authenticate"):
        build_login(US, replace(ENVELOPE, login=login))
    evidence = replace(NOTHING, envelope=replace(ENVELOPE, login=login))
    assert [one.method for one in clauses_of(evidence, shows_login=True)] == ["dkim"]
