"""Third-party SPF suites, run on their own zone data.

What passing means is in the SOURCE.txt of each. A case whose result we do not share is named here with the sentence
of RFC 7208 that decides it; where only its names are wrong (of one label), it is also run with names that are right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from mailguard.dns.answers import evaluate
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.envelope import Envelope
from mailguard.spf.check import check_host
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus
from spf_asking import NOW
from vectors import require

SUITES = {
    "spf-openspf-rfc7208": ("rfc7208-tests.yml", 203),
    "spf-pyspf": ("pyspf-tests.yml", 16),
    "spf-blitiri": ("blitirispf-tests.yml", 21),
}

UNKNOWN_MODIFIER = (
    'RFC 7208 §6: "Unrecognized modifiers MUST be ignored no matter where, or how often, they appear in a record."'
)
NOT_MULTI_LABEL = (
    'RFC 7208 §4.3: "If the <domain> is malformed [...] or is not a multi-label domain name [...] check_host()'
    ' immediately returns the result "none"."'
)
NO_TOPLABEL = 'RFC 7208 §7.1: domain-end = ( "." toplabel [ "." ] ) / macro-expand'

# (suite, section, case): our result, and what decides.
DIFFERENT: dict[tuple[str, str, str], tuple[str, str]] = {
    ("spf-pyspf", "corner cases", "default-modifier"): ("neutral", UNKNOWN_MODIFIER),
    ("spf-pyspf", "corner cases", "default-modifier-harsh"): ("neutral", UNKNOWN_MODIFIER),
    ("spf-blitiri", "Resolution limits", "resolution-with-10-lookups"): ("permerror", NO_TOPLABEL),
    ("spf-blitiri", "MX resolution limits", "mx-resolution-10-terms"): ("none", NOT_MULTI_LABEL),
    ("spf-blitiri", "MX resolution limits", "mx-resolution-11-terms"): ("none", NOT_MULTI_LABEL),
    ("spf-blitiri", "NXDOMAIN tests", "one-mx-not-found"): ("none", NOT_MULTI_LABEL),
    ("spf-blitiri", "NXDOMAIN tests", "all-mx-not-found"): ("none", NOT_MULTI_LABEL),
    ("spf-blitiri", "NXDOMAIN tests", "include-not-found"): ("none", NOT_MULTI_LABEL),
    ("spf-blitiri", "NXDOMAIN tests", "redirect-not-found"): ("none", NOT_MULTI_LABEL),
}
# Sections whose names have one label: repeated with names of two, which must give the suite's result.
ONE_LABEL = ("Resolution limits", "MX resolution limits", "NXDOMAIN tests")
SINGLE = re.compile(r"(?:^|(?<=[:=@]))(d[0-9]{2}|doesnotexist|domain|mx1[01]|blah[0-9]|sender)(?=\s|$)")

Case = tuple[str, str, str, dict[str, Any], dict[str, Any]]


def cases(suite: str) -> list[Case]:
    """(suite, section, name, test, zone data)."""
    path = require(suite) / SUITES[suite][0]
    found = []
    for section in yaml.safe_load_all(path.read_text("utf-8")):
        if section is not None:
            about = str(section.get("description") or section.get("comment") or "").strip()
            found += [(suite, about, name, test, section["zonedata"]) for name, test in section["tests"].items()]
    return found


def zone(data: dict[str, Any]) -> ZoneResolver:
    """An entry "SPF" stands for TXT unless the name has TXT of its own; TIMEOUT is for all that is not listed."""
    records: dict[str, dict[str, list[object]]] = {}
    status: dict[tuple[str, str], Status] = {}
    for name, entries in data.items():
        entry = records.setdefault(name, {})
        has_txt = any(isinstance(one, dict) and "TXT" in one for one in entries)
        for one in entries:
            if one == "TIMEOUT" or {"TIMEOUT", "SERVFAIL"} & set(one):
                status[name, "*"] = Status.TEMPFAIL
                continue
            ((kind, value),) = one.items()
            if value == "NONE" or (kind == "SPF" and has_txt):
                continue
            kind = "TXT" if kind == "SPF" else kind
            entry.setdefault(kind, []).append(tuple(value) if isinstance(value, list) else value)
        if (name, "*") in status:
            status |= {(name, kind): Status.NOERROR for kind in entry}
    return ZoneResolver(records, status=status)


def judge(test: dict[str, Any], data: dict[str, Any]) -> SpfResult:
    asked = Envelope(
        client_ip=ip_address(test["host"]),
        helo=test.get("helo", "").encode(),
        mail_from=test["mailfrom"].encode(),
    )
    return evaluate(
        lambda answers: check_host(asked, answers, identity=SpfIdentity.MAIL_FROM, now=NOW), zone(data), deadline=0.0
    )


def failures(test: dict[str, Any], result: SpfResult, wanted: tuple[str, ...]) -> Iterator[str]:
    if result.status.value not in wanted:
        yield f"{result.status.value} instead of {' or '.join(wanted)}: {result.detail}"
    explanation = test.get("explanation")
    if explanation is not None and result.status is SpfStatus.FAIL:
        # DEFAULT is the library's own text, and ours is none.
        expected = None if explanation == "DEFAULT" else explanation
        if result.explanation != expected:
            yield f"explained as {result.explanation!r} instead of {explanation!r}"


@pytest.mark.attack("S18", "S19", "S20", "S23")
@pytest.mark.parametrize("suite", SUITES)
def test_suite(suite: str) -> None:
    found = cases(suite)
    assert len(found) == SUITES[suite][1]
    wrong = []
    for _, section, name, test, data in found:
        result = test["result"]
        wanted = tuple(result) if isinstance(result, list) else (result,)
        if (suite, section, name) in DIFFERENT:
            wanted = (DIFFERENT[suite, section, name][0],)
            assert wanted[0] not in test["result"], f"{name} is not different"
        wrong += [f"{section}: {name}: {failure}" for failure in failures(test, judge(test, data), wanted)]
    assert not wrong, "\n".join(wrong)


def test_every_difference_is_a_case() -> None:
    found = {case[:3] for suite in SUITES for case in cases(suite)}
    assert not DIFFERENT.keys() - found


def two_labels(text: object) -> Any:
    """The same with `.example` behind each name of one label."""
    if isinstance(text, dict):
        return {two_labels(key): two_labels(value) for key, value in text.items()}
    if isinstance(text, list):
        return [two_labels(value) for value in text]
    if not isinstance(text, str):
        return text
    return SINGLE.sub(r"\1.example", text)


def test_sections_with_names_of_one_label_pass_with_names_of_two() -> None:
    wrong, count = [], 0
    for suite, section, name, test, data in cases("spf-blitiri"):
        if section in ONE_LABEL:
            count += 1
            renamed = two_labels(test)
            result = judge(renamed, two_labels(data))
            wrong += [f"{suite}: {section}: {name}: {one}" for one in failures(test, result, (test["result"],))]
    assert not wrong, "\n".join(wrong)
    assert count == 9
