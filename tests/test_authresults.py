"""Authentication-Results: all results together, and DKIM (RFC 8601 §2.2, RFC 8601 §2.7.1)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import authres
import pytest

from authresults_evidence import (
    DKIM_PASS,
    DKIM_PROPERTIES,
    ENVELOPE,
    EVIL,
    FAIL,
    FROM_BANK,
    HELO_PASS,
    IPREV_PASS,
    NOTHING,
    PASS,
    SPF_PASS,
    US,
    clause_of,
    clauses_of,
)
from authresults_reader import Clause, read_strictly
from mailguard.authresults import build, build_login
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.result import DmarcVerdict

# -- the whole field ------------------------------------------------------------------------------------------------


def test_everything_in_its_order() -> None:
    evidence = replace(
        FROM_BANK,
        envelope=replace(ENVELOPE, login=b"ceo@bank.test"),
        iprev=IPREV_PASS,
        spf=SPF_PASS,
        helo_spf=HELO_PASS,
        dkim=(DKIM_PASS, replace(DKIM_PASS, domain=EVIL)),
    )
    field = build(US, evidence, PASS, shows_login=True)
    assert field.name == b"Authentication-Results"
    assert field.value.startswith(b" mx.us.test;"), "SMFIP_HDR_LEADSPC: the blank is ours to write"
    assert read_strictly(field.value) == (
        US,
        [
            Clause("auth", "pass", properties=[("smtp.auth", "ceo@bank.test")]),
            Clause("iprev", "pass", "mail.bank.test", properties=[("policy.iprev", "192.0.2.1")]),
            Clause("spf", "pass", properties=[("smtp.mailfrom", "bank.test")]),
            Clause("spf", "pass", properties=[("smtp.helo", "evil.test")]),
            Clause("dkim", "pass", "2048-bit key", properties=DKIM_PROPERTIES),
            Clause("dkim", "pass", "2048-bit key", properties=[("header.d", "evil.test"), *DKIM_PROPERTIES[1:]]),
            Clause("dmarc", "pass", properties=[("header.from", "bank.test"), ("policy.dmarc", "reject")]),
        ],
    )


ORDINARY = [
    ("all pass", {"dkim": (DKIM_PASS,), "helo_spf": HELO_PASS, "iprev": IPREV_PASS}, PASS, ""),
    ("a reason", {"dkim": (replace(DKIM_PASS, status=DkimStatus.FAIL, detail="it was changed; why?"),)}, FAIL, ""),
    ("quotes", {"dkim": (replace(DKIM_PASS, signature_prefix="ab/cd+12"),)}, PASS, ""),
    ("a comment", {"dkim": ()}, FAIL, "policy overridden: mailing_list lists.example.org; see above"),
]


@pytest.mark.parametrize(
    ("more", "verdict", "override"), [row[1:] for row in ORDINARY], ids=[row[0] for row in ORDINARY]
)
def test_an_ordinary_field_is_the_one_that_authres_writes(
    more: dict[str, Any], verdict: DmarcVerdict, override: str
) -> None:
    field = build(US, replace(FROM_BANK, spf=SPF_PASS, **more), verdict, override=override)
    text = field.value.decode("ascii").replace("\r\n\t", " ")
    read = authres.AuthenticationResultsHeader.parse(f"Authentication-Results:{text}")
    # Of what authres writes, it reads all but the comments.
    assert f" {read.header_value()}" == re.sub(r" \([^)]*\)", "", text)


def test_what_was_not_checked_is_not_mentioned() -> None:
    """An own client: no SPF, no iprev, no verdict. RFC 8601 §2.7.1: none is the result without a signature."""
    evidence = replace(FROM_BANK, envelope=replace(ENVELOPE, login=b"ceo"))
    assert build(US, evidence, None).value == b" mx.us.test;\r\n\tdkim=none"
    assert build(US, replace(evidence, envelope=ENVELOPE), None, shows_login=True).value == (
        b" mx.us.test;\r\n\tdkim=none"
    )


@pytest.mark.parametrize("authserv_id", ["", "a b", "a;b", "bücher.test", "a\r\nX: y", '"a"', "a/b"])
def test_an_id_that_is_no_token_is_misuse(authserv_id: str) -> None:
    with pytest.raises(ValueError, match="authserv-id"):
        build(authserv_id, NOTHING, None)
    with pytest.raises(ValueError, match="authserv-id"):
        build_login(authserv_id, replace(ENVELOPE, login=b"ceo"))


# -- dkim -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(DkimStatus))
def test_each_status_of_dkim_is_the_word_of_rfc_8601(status: DkimStatus) -> None:
    clause = clause_of("dkim", replace(NOTHING, dkim=(replace(DKIM_PASS, status=status, detail="why"),)))
    reason = None if status is DkimStatus.PASS else "why"
    assert clause == Clause("dkim", status.value, "2048-bit key", reason, DKIM_PROPERTIES)


def test_a_key_in_testing_is_told() -> None:
    clause = clause_of("dkim", replace(NOTHING, dkim=(replace(DKIM_PASS, testing=True, key_bits=None),)))
    assert clause.comment == "testing"


def test_what_the_signature_did_not_say_is_left_out() -> None:
    unread = DkimResult(status=DkimStatus.PERMERROR, reason=DkimReason.SYNTAX, detail="v= is not 1")
    assert clauses_of(replace(NOTHING, dkim=(unread,))) == [Clause("dkim", "permerror", "", "v= is not 1", [])]


IDENTITIES = [
    ("a plain local part", "ceo.x+y@bank.test", "ceo.x+y@bank.test"),
    ("none", "@bank.test", "@bank.test"),
    ("with a result in it", "dmarc=pass@bank.test", "@bank.test"),
    ("quoted", '"ceo"@bank.test', "@bank.test"),
    ("two dots", "a..b@bank.test", "@bank.test"),
    ("a dot at the end", "a.@bank.test", "@bank.test"),
    ("65 characters", "a" * 65 + "@bank.test", "@bank.test"),
    ("not ASCII", "ö@bank.test", "@bank.test"),
]


@pytest.mark.parametrize(("identity", "shown"), [row[1:] for row in IDENTITIES], ids=[row[0] for row in IDENTITIES])
def test_of_the_local_part_of_i_only_a_plain_one_is_repeated(identity: str, shown: str) -> None:
    clause = clause_of("dkim", replace(NOTHING, dkim=(replace(DKIM_PASS, identity=identity),)))
    assert dict(clause.properties)["header.i"] == shown


@pytest.mark.parametrize(("prefix", "shown"), [("abcd+/12", "abcd+/12"), ("dmarc=pa", "dmarc"), ("=abc", None)])
def test_the_signature_is_repeated_up_to_what_no_base64_has_in_the_middle(prefix: str, shown: str | None) -> None:
    clause = clause_of("dkim", replace(NOTHING, dkim=(replace(DKIM_PASS, signature_prefix=prefix),)))
    assert dict(clause.properties).get("header.b") == shown
