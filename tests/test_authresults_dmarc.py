"""Authentication-Results: DMARC (RFC 9989 §9.1), and what is said of malformed messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authresults_evidence import (
    BANK,
    DKIM_PASS,
    DKIM_PROPERTIES,
    EVIL,
    FAIL,
    FROM_BANK,
    NOTHING,
    PASS,
    US,
    clause_of,
    clauses_of,
)
from authresults_reader import Clause
from mailguard.authresults import build
from mailguard.dmarc.record import DmarcPolicy
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.domain import Domain
from mailguard.message import MalformedReason

# -- dmarc ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [*DmarcPolicy, None])
@pytest.mark.parametrize("status", list(DmarcStatus))
def test_each_status_of_dmarc_with_the_policy_in_effect(status: DmarcStatus, policy: DmarcPolicy | None) -> None:
    """RFC 9989 §9.1: header.from and policy.dmarc."""
    clause = clause_of("dmarc", FROM_BANK, replace(PASS, status=status, policy=policy, detail="why"))
    expected = [("header.from", "bank.test")] + ([("policy.dmarc", policy.value)] if policy is not None else [])
    reason = None if status is DmarcStatus.PASS else "why"
    assert clause == Clause("dmarc", status.value, "", reason, expected)


def test_an_override_and_a_policy_in_testing_are_told() -> None:
    override = "policy overridden: mailing_list dkim=lists.example.org"
    testing = "t=y: one step weaker than published"
    verdict = replace(FAIL, is_testing=True)
    assert clause_of("dmarc", FROM_BANK, FAIL, override=override).comment == override
    assert clause_of("dmarc", FROM_BANK, verdict).comment == testing
    assert clause_of("dmarc", FROM_BANK, verdict, override=override).comment == f"{override}, {testing}"


def test_a_trusted_name_makes_no_pass_for_those_who_look_for_text() -> None:
    value = build(US, FROM_BANK, FAIL, override="policy overridden: mailing_list dkim=pass.example.org").value
    assert b"dkim=pass" not in value
    assert "dkim:pass.example.org" in clause_of("dmarc", FROM_BANK, FAIL, override="x dkim=pass.example.org").comment


SEVERAL = [
    ("two domains", (BANK, EVIL), PASS),
    ("none", (), PASS),
    ("another domain", (EVIL,), PASS),
    ("no domain in the verdict", (BANK,), replace(PASS, author_domain=None)),
    ("the verdict says several", (BANK,), replace(PASS, reason=DmarcReason.SEVERAL_DOMAINS)),
]


@pytest.mark.attack("F")
@pytest.mark.parametrize(
    ("authors", "verdict"), [row[1:] for row in SEVERAL], ids=[f"F16 {row[0]}" for row in SEVERAL]
)
def test_a_pass_is_for_one_author_domain(authors: tuple[Domain, ...], verdict: DmarcVerdict) -> None:
    clause = clause_of("dmarc", replace(NOTHING, author_domains=authors), verdict)
    assert (clause.result, clause.reason) == ("permerror", "From does not name one domain that passes")


@pytest.mark.parametrize("status", [DmarcStatus.FAIL, DmarcStatus.NONE, DmarcStatus.TEMPERROR])
def test_with_several_author_domains_the_strictest_verdict_stands(status: DmarcStatus) -> None:
    evidence = replace(NOTHING, author_domains=(BANK, EVIL))
    assert clause_of("dmarc", evidence, replace(FAIL, status=status)).result == status.value


# -- malformed messages ---------------------------------------------------------------------------------------------

TWO_FROMS = replace(
    NOTHING, malformed=MalformedReason.SEVERAL_FROM, malformed_detail="there are 2 From fields", dkim=(DKIM_PASS,)
)
MALFORMED_VERDICT = DmarcVerdict(
    status=DmarcStatus.PERMERROR, reason=DmarcReason.MALFORMED, detail="malformed message: x", author_domain=None
)


@pytest.mark.attack("F01", "D07")
@pytest.mark.parametrize("verdict", [None, MALFORMED_VERDICT, PASS], ids=["own client", "malformed", "pass"])
def test_beside_a_malformed_message_nothing_passes(verdict: DmarcVerdict | None) -> None:
    """A signature that verifies need not cover what makes the message malformed, such as a second From."""
    assert clauses_of(TWO_FROMS, verdict) == [
        Clause(
            "dkim",
            "policy",
            "2048-bit key",
            "the signature verifies, but the message is malformed",
            DKIM_PROPERTIES,
        ),
        Clause("dmarc", "permerror", "", "malformed message: there are 2 From fields", []),
    ]


def test_why_a_malformed_message_was_accepted() -> None:
    override = "policy overridden: local_policy network 192.0.2.1"
    assert clause_of("dmarc", TWO_FROMS, MALFORMED_VERDICT, override=override).comment == override
