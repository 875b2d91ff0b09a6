"""External report destinations: who has not agreed is sent nothing (RFC 9990 §4)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dmarc_asking import records, resolver_of
from mailguard.dmarc.report_destination import Authorization, ReportDestination, report_destinations
from mailguard.dmarc.report_uri import MAX_REPORT_URIS, ReportUri
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers, evaluate
from mailguard.dns.question import Status
from mailguard.domain import Domain

OWN, AUTHORIZED, REDIRECTED = Authorization.OWN, Authorization.AUTHORIZED, Authorization.REDIRECTED
REFUSED, OTHER_HOST = Authorization.REFUSED, Authorization.OTHER_HOST
TOO_LONG, UNAVAILABLE = Authorization.NAME_TOO_LONG, Authorization.UNAVAILABLE
EXTERNAL = "a.test._report._dmarc.r.org"


def found(
    rua: str,
    zone: Mapping[str, object],
    *,
    domain: str = "a.test",
    failing: Sequence[str] = (),
    status: Status = Status.TEMPFAIL,
    suffixes: PublicSuffixes | None = None,
) -> tuple[tuple[ReportDestination, ...], list[str]]:
    """The destinations, and what was asked."""
    asked: list[str] = []

    def evaluation(answers: Answers) -> tuple[ReportDestination, ...]:
        uris = ReportUri.parse_list(rua.encode())
        result = report_destinations(Domain.parse(domain), uris, answers, suffixes)
        asked[:] = [answer.question.name for answer in answers.consumed]
        return result

    resolver = resolver_of(records(zone), failing, status)
    return evaluate(evaluation, resolver, deadline=time.monotonic() + 60), asked


@pytest.mark.attack("M09")
@pytest.mark.parametrize(
    ("rua", "zone", "authorization", "send_to"),
    [
        pytest.param("mailto:d@a.test", {}, OWN, ["mailto:d@a.test"], id="the same name"),
        pytest.param(
            "mailto:d@b.a.test", {"_dmarc.a.test": "v=DMARC1"}, OWN, ["mailto:d@b.a.test"], id="the same organization"
        ),
        pytest.param("mailto:d@b.a.test", {}, REFUSED, [], id="below it, without a record that says so"),
        pytest.param("mailto:d@r.org", {}, REFUSED, [], id="absent"),
        pytest.param("mailto:d@r.org", {EXTERNAL: "v=DMARC1"}, AUTHORIZED, ["mailto:d@r.org"], id="authorized"),
        pytest.param("mailto:d@r.org", {EXTERNAL: "v=DMARC1;"}, AUTHORIZED, ["mailto:d@r.org"], id="a semicolon"),
        pytest.param("https://r.org/x", {EXTERNAL: "v=DMARC1"}, AUTHORIZED, ["https://r.org/x"], id="https"),
        pytest.param("mailto:d@r.org", {EXTERNAL: "v=DMARC1x"}, REFUSED, [], id="another version"),
        pytest.param("mailto:d@r.org", {EXTERNAL: "v=dmarc1"}, REFUSED, [], id="lower case"),
        pytest.param("mailto:d@r.org", {EXTERNAL: "p=none; v=DMARC1"}, REFUSED, [], id="v is not first"),
        pytest.param(
            "mailto:d@r.org",
            {EXTERNAL: ["junk", "v=DMARC1", "v=DMARC1"]},
            AUTHORIZED,
            ["mailto:d@r.org"],
            id="several",
        ),
        pytest.param(
            "mailto:d@r.org", {"*._report._dmarc.r.org": "v=DMARC1"}, AUTHORIZED, ["mailto:d@r.org"], id="a wildcard"
        ),
        pytest.param(
            "mailto:d@r.org",
            {EXTERNAL: "v=DMARC1; rua=mailto:e@r.org,https://r.org/"},
            REDIRECTED,
            ["mailto:e@r.org", "https://r.org/"],
            id="redirected",
        ),
        pytest.param(
            "mailto:d@r.org", {EXTERNAL: "v=DMARC1; rua=mailto:e@victim.org"}, OTHER_HOST, [], id="another host"
        ),
        pytest.param(
            "mailto:d@r.org", {EXTERNAL: "v=DMARC1; rua=mailto:e@x.r.org"}, OTHER_HOST, [], id="below the host"
        ),
        pytest.param(
            "mailto:d@r.org",
            {EXTERNAL: ["v=DMARC1; rua=mailto:e@r.org", "v=DMARC1; rua=mailto:e@victim.org"]},
            OTHER_HOST,
            [],
            id="another host beside",
        ),
        pytest.param("mailto:d@r.org", {EXTERNAL: "v=DMARC1; rua="}, AUTHORIZED, ["mailto:d@r.org"], id="empty rua"),
        pytest.param(
            "mailto:d@r.org",
            {"_dmarc.r.org": "v=DMARC1; p=none"},
            REFUSED,
            [],
            id="its own policy record is no agreement",
        ),
    ],
)
def test_one_destination(
    rua: str, zone: Mapping[str, object], authorization: Authorization, send_to: list[str]
) -> None:
    ((destination,), _) = found(rua, zone)
    assert destination.uri.text == rua
    assert destination.authorization is authorization
    assert [uri.text for uri in destination.send_to] == send_to
    with pytest.raises(TypeError):
        bool(destination)


@pytest.mark.parametrize("status", [Status.TEMPFAIL, Status.BOGUS], ids=lambda status: status.value)
def test_no_answer_sends_nothing(status: Status) -> None:
    agreed = {EXTERNAL: "v=DMARC1"}
    ((destination,), _) = found("mailto:d@r.org", {}, failing=[EXTERNAL], status=status)
    assert (destination.authorization, destination.send_to) == (UNAVAILABLE, ())
    # It may be of the same organization, or not: agreement suffices either way, refusal does not.
    ((destination,), _) = found("mailto:d@r.org", agreed, failing=["_dmarc.r.org"], status=status)
    assert destination.authorization is AUTHORIZED
    ((destination,), _) = found("mailto:d@r.org", {}, failing=["_dmarc.org"], status=status)
    assert (destination.authorization, destination.send_to) == (UNAVAILABLE, ())


def test_a_name_that_would_be_too_long_is_no_agreement() -> None:
    label = "x" * 60
    domain = f"{label}.{label}.{label}.{label[:50]}.test"
    ((destination,), asked) = found("mailto:d@r.org", {"*._report._dmarc.r.org": "v=DMARC1"}, domain=domain)
    assert (destination.authorization, destination.send_to) == (TOO_LONG, ())
    assert not [name for name in asked if "_report" in name]


def test_all_is_asked_for_at_once_and_the_number_is_bounded() -> None:
    uris = [uri for number in range(40) for uri in ReportUri.parse_list(f"mailto:d@r{number}.org".encode())]
    answers = Answers(closed=True)
    destinations = report_destinations(Domain("a.test"), uris, answers)
    assert len(destinations) == MAX_REPORT_URIS
    assert {destination.authorization for destination in destinations} == {UNAVAILABLE}
    (_, asked) = found("mailto:d@r.org,mailto:e@r.org", {})
    assert sorted(asked) == sorted(set(asked))
    (_, asked) = found("mailto:d@a.test", {})
    assert asked == []


def test_the_organizational_domain_of_the_record_counts() -> None:
    """The record of b.a.test, whose organization is a.test: a destination at a.test is its own."""
    ((destination,), _) = found("mailto:d@a.test", {"_dmarc.a.test": "v=DMARC1"}, domain="b.a.test")
    assert destination.authorization is OWN
    zone = {"_dmarc.a.test": "v=DMARC1", "_dmarc.b.a.test": "v=DMARC1; psd=n"}
    ((destination,), _) = found("mailto:d@a.test", zone, domain="b.a.test")
    assert destination.authorization is REFUSED


def test_by_public_suffixes(tmp_path: Path) -> None:
    marks = [f"// ==={mark} {kind} DOMAINS===" for kind in ("ICANN", "PRIVATE") for mark in ("BEGIN", "END")]
    path = tmp_path / "list.dat"
    path.write_text("\n".join([marks[0], "test", "org", *marks[1:]]), encoding="utf-8")
    suffixes = PublicSuffixes.load(str(path))
    ((destination,), asked) = found("mailto:d@b.a.test", {}, suffixes=suffixes)
    assert (destination.authorization, asked) == (OWN, [])
    ((destination,), asked) = found("mailto:d@b.test", {}, suffixes=suffixes)
    assert (destination.authorization, asked) == (REFUSED, ["a.test._report._dmarc.b.test"])
