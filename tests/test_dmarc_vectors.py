"""DMARC against the cases of others: the RFC's worked examples, mail-auth, authheaders (see each SOURCE.txt).

Every key of `expect` is compared. The rows of authheaders that we decide otherwise are named, with the sentence of
the RFC that says so.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from dmarc_asking import asked_and_judged, dkim, judged, records, spf
from mailguard.dmarc.evaluate import strictest
from mailguard.dmarc.report_destination import report_destinations
from mailguard.dmarc.report_uri import ReportUri
from mailguard.dmarc.result import Aligned, DmarcStatus, DmarcVerdict
from mailguard.dns.answers import evaluate
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.message import Message
from mailguard.pipeline import verify_dkim
from mailguard.spf.result import SpfIdentity
from vectors import require
from zone0 import NOW

Case = Mapping[str, Any]


def tree_walk_cases() -> tuple[list[Case], list[Case]]:
    document = yaml.safe_load((require("dmarc-treewalk") / "cases.yaml").read_text("utf-8"))
    return document["cases"], document["external_destinations"]


def tree_walk_verdicts(case: Case) -> list[tuple[DmarcVerdict, tuple[str, ...]]]:
    """The verdict for each author domain, and what was asked for it."""
    assert not case.get("servfail")
    author = case["header_from_domain"]
    authors = author if isinstance(author, list) else [author] if author is not None else []
    (sender,) = case["spf"] or [None]
    identity = SpfIdentity.HELO if sender and sender.get("scope") == "helo" else SpfIdentity.MAIL_FROM
    resolver = ZoneResolver(case["zone"])
    return [
        asked_and_judged(
            domain,
            resolver,
            spf=spf(sender["domain"], sender["result"], identity=identity) if sender else None,
            dkim=[dkim(one["domain"], one["result"]) for one in case["dkim"]],
        )
        for domain in authors
    ]


def aligned(verdict: DmarcVerdict, method: str) -> bool:
    return any(one.method == method and one.aligned is Aligned.YES for one in verdict.alignments)


def asked_for_records(asked: tuple[str, ...]) -> list[str]:
    return [question.removesuffix(" TXT") for question in asked if question.startswith("_dmarc.")]


Observer = Callable[[DmarcVerdict, tuple[str, ...]], object]
OBSERVED: dict[str, Observer] = {
    "result": lambda verdict, asked: verdict.status.value,
    "policy": lambda verdict, asked: verdict.policy.value if verdict.policy else None,
    "org_domain": lambda verdict, asked: verdict.organizational_domain,
    "policy_domain": lambda verdict, asked: verdict.record_domain,
    "spf_aligned": lambda verdict, asked: aligned(verdict, "spf"),
    "dkim_aligned": lambda verdict, asked: aligned(verdict, "dkim"),
    # What is asked for the author domain stands first; the walks of identifiers come after it.
    "dmarc_queries_in_order": lambda verdict, asked: asked_for_records(asked)[: len(verdict.walk)],
    "rua": lambda verdict, asked: [uri.text for uri in verdict.record.rua] if verdict.record else None,
}


def test_every_tree_walk_case() -> None:
    cases, _ = tree_walk_cases()
    assert len(cases) == 29
    compared = 0
    special = 0
    for case in cases:
        verdicts = tree_walk_verdicts(case)
        expected = dict(case["expect"])
        if case["header_from_domain"] is None:
            # There is nobody to judge: message.py finds no author domain, so that DMARC is not asked (5.3.1).
            assert expected == {"result": "none-or-permerror", "dmarc_evaluated": False}
            assert verdicts == []
            special += 1
            continue
        if "dmarc_pass_possible" in expected:
            assert expected.pop("dmarc_pass_possible") is False
            verdict = strictest([verdict for verdict, _ in verdicts])
            assert (verdict.status, verdict.policy and verdict.policy.value) == (DmarcStatus.FAIL, "reject")
            special += 1
            continue
        ((verdict, asked),) = verdicts
        observed = {key: OBSERVED[key](verdict, asked) for key in expected}
        assert observed == expected, case["id"]
        compared += 1
    assert (compared, special) == (27, 2)


@pytest.mark.attack("M09")
def test_every_external_destination() -> None:
    _, cases = tree_walk_cases()
    assert len(cases) == 6
    for case in cases:
        resolver = ZoneResolver(records(case["zone"]))
        uris = ReportUri.parse_list(case["rua"].encode())
        policy_domain = Domain.parse(case["policy_domain"])
        found = evaluate(
            lambda answers, uris=uris, domain=policy_domain: report_destinations(domain, uris, answers),  # type: ignore[misc]  # bound at once
            resolver,
            deadline=time.monotonic() + 60,
        )
        assert [uri.text for destination in found for uri in destination.send_to] == case["send_to"], case["id"]


# -- authheaders --------------------------------------------------------------------------------------------------


# What we say in place of its result and policy, and why.
DIFFERENT: dict[str, tuple[str, str | None, str]] = {
    "test_authenticate_dmarc_bad": (
        "fail",
        "none",
        'RFC 9989 §4.8: "Syntax errors in the remainder of the record MUST be discarded", so that "reject" without '
        '"=" is put aside, and p=none holds for a message that nothing authenticates',
    ),
    "test_authenticate_dmarc_nofrom": (
        "permerror",
        None,
        "RFC 9989 §5.3.1: without an author domain DMARC validation is not possible; there is no policy to name",
    ),
    "test_authenticate_dmarc_psdsub": (
        "fail",
        "none",
        'RFC 9989 §4.10.1: "the Domain Owner Assessment Policy is taken from the "sp" tag (if any) if the Author '
        'Domain exists"; example.gov exists, and the record at gov has sp=none',
    ),
}
_EXPECTED = re.compile(r"dmarc=(\w+)(?: \(.*?\))?(?: header\.from=(\S+) policy\.dmarc=(\w+))?$")
_PREVIOUS = re.compile(r"dkim=(\w+) header\.d=([\w.]+)")


def authheaders_zone(dns: Mapping[str, str | None]) -> ZoneResolver:
    """None is a name that does not exist, "" one without a record; any other text stands for any record."""
    zone: dict[str, dict[str, list[str]]] = {}
    for name, text in dns.items():
        if text is not None:
            zone[name] = {"TXT": [text]} if text else {"NS": ["ns.test"]}
    return ZoneResolver(zone)


def authheaders_verdict(case: Case, raw: bytes, resolver: ZoneResolver) -> DmarcVerdict | None:
    """None where the message names no author domain."""
    message = Message.parse(raw)
    if case["prev_ar"]:
        results = [dkim(domain, status) for status, domain in _PREVIOUS.findall(case["prev_ar"])]
    else:
        results = list(verify_dkim(message, resolver=resolver, now=NOW))
    verdicts = [judged(domain, resolver, dkim=results) for domain in message.author.domains]
    if not verdicts:
        assert message.malformed is not None
        return None
    return verdicts[0] if len(verdicts) == 1 else strictest(verdicts)


@pytest.mark.attack("D01", "D32", "F16", "F22")
def test_every_case_of_authheaders() -> None:
    folder = require("dmarc-authheaders")
    document = json.loads((folder / "cases.json").read_text("utf-8"))
    resolver = authheaders_zone(document["dns"])
    assert len(document["cases"]) == 12
    without_dmarc, different = [], []
    for case in document["cases"]:
        raw = (folder / case["message"]).read_bytes()
        verdict = authheaders_verdict(case, raw, resolver)
        found = _EXPECTED.search(case["expected_ar"])
        if found is None:
            without_dmarc.append(case["name"])
            continue
        observed = ("permerror", None) if verdict is None else (verdict.status.value, policy_of(verdict))
        if case["name"] in DIFFERENT:
            assert observed == DIFFERENT[case["name"]][:2], case["name"]
            assert observed != (found[1], found[3]), "it is no different any more"
            different.append(case["name"])
            continue
        assert observed == (found[1], found[3]), case["name"]
        assert verdict is not None
        assert found[2] in (None, verdict.author_domain), case["name"]
    assert without_dmarc == ["test_authenticate_dkim"]
    assert sorted(different) == sorted(DIFFERENT)


def policy_of(verdict: DmarcVerdict) -> str | None:
    return verdict.policy.value if verdict.policy else None
