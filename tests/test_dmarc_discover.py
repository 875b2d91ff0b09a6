"""Tree walk, Organizational Domain and policy discovery (RFC 9989 §4.10), and discovery as in RFC 7489 §6.6.3."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from dmarc_asking import SERVFAIL, asked_and_judged, judged, records, resolver_of
from mailguard.dmarc.discover import Walk, discover, tree_walk
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dns.answers import Answers, Unanswered, evaluate
from mailguard.dns.question import Status
from mailguard.domain import Domain

NONE, PSD_Y, PSD_N = "v=DMARC1; p=none", "v=DMARC1; p=reject; psd=y", "v=DMARC1; p=quarantine; psd=n"
VERY_DEEP = "x." * 52 + "a.b.c.d.e.f.g.h"
DEEP = "a.b.c.d.e.f.g.h.i.j.mail.example.com"


def walked(start: str, zone: Mapping[str, object], *failing: str) -> tuple[Walk, list[str]]:
    """The walk, and the names that were asked, in order."""
    asked: list[str] = []

    def evaluation(answers: Answers) -> Walk:
        walk = tree_walk(Domain.parse(start), answers)
        asked[:] = [answer.question.name for answer in answers.consumed]
        return walk

    walk = evaluate(evaluation, resolver_of(records(zone), failing), deadline=time.monotonic() + 60)
    return walk, asked


@pytest.mark.attack("M05")
@pytest.mark.parametrize(
    ("start", "names"),
    [
        ("test", ["test"]),
        ("example.test", ["example.test", "test"]),
        ("a.b.c.d.e.f.g", ["a.b.c.d.e.f.g", "b.c.d.e.f.g", "c.d.e.f.g", "d.e.f.g", "e.f.g", "f.g", "g"]),
        # With eight labels, one less and seven are the same.
        (
            "a.b.c.d.e.f.g.h",
            ["a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", "c.d.e.f.g.h", "d.e.f.g.h", "e.f.g.h", "f.g.h", "g.h", "h"],
        ),
        (
            "x.a.b.c.d.e.f.g.h",
            ["x.a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", "c.d.e.f.g.h", "d.e.f.g.h", "e.f.g.h", "f.g.h", "g.h", "h"],
        ),
        (
            VERY_DEEP,
            [VERY_DEEP, "b.c.d.e.f.g.h", "c.d.e.f.g.h", "d.e.f.g.h", "e.f.g.h", "f.g.h", "g.h", "h"],
        ),
    ],
    ids=["1", "2", "7", "8", "9", "60"],
)
def test_the_names_of_a_walk(start: str, names: list[str]) -> None:
    walk, asked = walked(start, {})
    assert asked == [f"_dmarc.{name}" for name in names]
    assert walk.organizational_domain == start


def test_all_names_are_asked_for_at_once() -> None:
    answers = Answers()
    with pytest.raises(Unanswered):
        tree_walk(Domain.parse(DEEP), answers)
    assert len(answers.missing) == 8


@pytest.mark.parametrize(("octets", "is_asked"), [(246, True), (247, False)])
def test_a_name_that_would_be_too_long_is_not_asked_for(octets: int, is_asked: bool) -> None:
    """RFC 1035 §2.3.4: 253 characters, "_dmarc." included."""
    below = ".".join(["b" * 59] * 3) + ".test"
    start = "a" * (octets - len(below) - 1) + "." + below
    _, asked = walked(start, {})
    assert (f"_dmarc.{start}" in asked) is is_asked
    assert "_dmarc.test" in asked


@pytest.mark.attack("M05")
@pytest.mark.parametrize(
    ("start", "zone", "organizational_domain", "queries"),
    [
        pytest.param("a.example.com", {}, "a.example.com", 3, id="no record: the start itself"),
        pytest.param(
            "a.example.com", {"_dmarc.example.com": NONE}, "example.com", 3, id="the record with fewest labels"
        ),
        pytest.param(
            "a.b.example.com",
            {"_dmarc.a.b.example.com": NONE, "_dmarc.b.example.com": NONE, "_dmarc.example.com": NONE},
            "example.com",
            4,
            id="of several records the one with fewest labels",
        ),
        pytest.param("a.b.example.com", {"_dmarc.com": NONE}, "com", 4, id="a top-level domain without psd"),
        pytest.param(
            "example.com", {"_dmarc.example.com": PSD_N, "_dmarc.com": NONE}, "example.com", 1, id="psd=n ends"
        ),
        pytest.param(
            "a.b.example.com",
            {"_dmarc.a.b.example.com": NONE, "_dmarc.b.example.com": PSD_N, "_dmarc.example.com": NONE},
            "b.example.com",
            2,
            id="psd=n above another record",
        ),
        pytest.param("a.b.example.com", {"_dmarc.com": PSD_Y}, "example.com", 4, id="psd=y: one label below it"),
        pytest.param(
            "a.b.example.com",
            {"_dmarc.b.example.com": NONE, "_dmarc.com": PSD_Y},
            "example.com",
            4,
            id="psd=y: one label below it, though another name has the record",
        ),
        pytest.param(
            "a.b.example.com",
            {"_dmarc.example.com": PSD_Y, "_dmarc.com": NONE},
            "b.example.com",
            3,
            id="psd=y ends the walk",
        ),
        pytest.param("bank.example", {"_dmarc.bank.example": PSD_Y}, "bank.example", 1, id="psd=y at the start"),
        pytest.param(
            "bank.example",
            {"_dmarc.bank.example": PSD_Y, "_dmarc.example": PSD_Y},
            "bank.example",
            1,
            id="psd=y at the start, and above",
        ),
        pytest.param(DEEP, {"_dmarc.h.i.j.mail.example.com": PSD_Y}, "g.h.i.j.mail.example.com", 3, id="deep, psd=y"),
        pytest.param(
            DEEP,
            {"_dmarc.g.h.i.j.mail.example.com": PSD_Y},
            "f.g.h.i.j.mail.example.com",
            2,
            id="deep, psd=y: the name below it was never asked for",
        ),
        pytest.param(
            DEEP,
            {"_dmarc.f.g.h.i.j.mail.example.com": PSD_N, "_dmarc.b.c.d.e.f.g.h.i.j.mail.example.com": PSD_N},
            DEEP,
            8,
            id="deep: what was skipped is not seen",
        ),
    ],
)
def test_the_organizational_domain(
    start: str, zone: Mapping[str, object], organizational_domain: str, queries: int
) -> None:
    walk, asked = walked(start, zone)
    assert walk.organizational_domain == organizational_domain
    assert len(asked) == queries


@pytest.mark.attack("M01")
def test_several_records_at_a_name_are_none_and_the_walk_goes_on() -> None:
    zone = {"_dmarc.a.example.com": [PSD_N, NONE], "_dmarc.example.com": "v=DMARC1; p=reject"}
    walk, asked = walked("a.example.com", zone)
    assert walk.organizational_domain == "example.com"
    assert len(asked) == 3
    verdict = judged("a.example.com", resolver_of(records(zone)))
    assert verdict.record_domain == "example.com"
    assert verdict.walk == (
        "_dmarc.a.example.com: two records",
        "_dmarc.example.com: record",
        "_dmarc.com: no record",
    )
    three = judged("a.test", resolver_of(records({"_dmarc.a.test": [NONE, NONE, NONE]})))
    assert three.status is DmarcStatus.NONE
    assert three.walk[0] == "_dmarc.a.test: 3 records"


@pytest.mark.attack("M01", "M02")
def test_what_is_no_record_beside_one_does_not_count() -> None:
    zone = {"_dmarc.a.test": ["v=spf1 -all", "v=dmarc1; p=none", "junk", "v=DMARC1; p=reject", "x" * 5_000]}
    verdict = judged("a.test", resolver_of(records(zone)))
    assert (verdict.status, verdict.record_domain) == (DmarcStatus.FAIL, "a.test")


@pytest.mark.parametrize("failure", [Status.TEMPFAIL, Status.BOGUS], ids=lambda status: status.value)
def test_a_missing_answer_leaves_open_what_hangs_on_it(failure: Status) -> None:
    zone = {"_dmarc.example.com": NONE}
    walk, asked = walked("a.example.com", zone, "_dmarc.com")
    assert len(asked) == 3
    assert walk.organizational_domain is None
    assert walk.highest_organizational_domain == "com"
    walk, _ = walked("a.b.example.com", zone, "_dmarc.b.example.com")
    assert walk.organizational_domain is None
    assert walk.highest_organizational_domain == "example.com"
    # What the walk would not have reached is no matter.
    walk, asked = walked("a.example.com", {"_dmarc.example.com": PSD_N}, "_dmarc.com")
    assert walk.organizational_domain == "example.com"
    assert "_dmarc.com" not in asked
    resolver = resolver_of(records(zone), ["_dmarc.com"], failure)
    assert judged("a.example.com", resolver).walk[-1] == "_dmarc.com: no answer"


def test_a_name_that_would_be_too_long_is_not_asked_for_and_is_no_error() -> None:
    """Somebody could otherwise write a From domain whose policy is never known."""
    label = "x" * 60
    author = f"{label}.{label}.{label}.{'y' * 54}.bank.test"
    Domain.parse(author)
    assert len("_dmarc." + author) > 253
    verdict, asked = asked_and_judged(author, resolver_of(records({"_dmarc.bank.test": "v=DMARC1; p=reject"})))
    assert not [name for name in asked if label in name and name.startswith(f"_dmarc.{label}.{label}.{label}")]
    assert (verdict.status, verdict.record_domain) == (DmarcStatus.FAIL, "bank.test")
    assert verdict.walk[0] == f"_dmarc.{author}: no record: the name would be too long"


# -- which record holds -------------------------------------------------------------------------------------------


def policy_of(verdict: DmarcVerdict) -> str:
    return f"{verdict.policy.value} {verdict.policy_tag} at {verdict.record_domain}" if verdict.policy else "none"


SP_NP = "v=DMARC1; p=reject; sp=quarantine; np=none"


@pytest.mark.attack("M05")
@pytest.mark.parametrize(
    ("author", "zone", "policy"),
    [
        pytest.param("example.com", {"_dmarc.example.com": SP_NP}, "reject p at example.com", id="its own"),
        pytest.param(
            "a.example.com",
            {"_dmarc.example.com": SP_NP, "a.example.com": "here"},
            "quarantine sp at example.com",
            id="the Organizational Domain's",
        ),
        pytest.param(
            "a.example.com", {"_dmarc.example.com": SP_NP}, "none np at example.com", id="that does not exist"
        ),
        pytest.param(
            "a.example.com",
            {"_dmarc.a.example.com": SP_NP, "_dmarc.example.com": NONE},
            "reject p at a.example.com",
            id="its own before that of the Organizational Domain",
        ),
        pytest.param(
            "a.b.example.com",
            {"_dmarc.b.example.com": SP_NP, "_dmarc.example.com": NONE},
            "none p at example.com",
            id="one in between is nobody's here",
        ),
        pytest.param(
            "a.b.example.com",
            {"_dmarc.b.example.com": SP_NP, "_dmarc.com": PSD_Y},
            "reject p at com",
            id="one in between, below a PSD",
        ),
        pytest.param(
            "a.example.com", {"_dmarc.com": "v=DMARC1; p=none; sp=reject; psd=y"}, "reject sp at com", id="the PSD's"
        ),
        pytest.param(
            "a.example.com",
            {"_dmarc.example.com": NONE, "_dmarc.com": PSD_Y},
            "none p at example.com",
            id="the PSD's is never beside the Organizational Domain's",
        ),
        pytest.param(
            "bank.example", {"_dmarc.bank.example": PSD_Y}, "reject p at bank.example", id="a PSD that sends itself"
        ),
        pytest.param(DEEP, {"_dmarc.example.com": SP_NP}, "none np at example.com", id="deep"),
        pytest.param("a.example.com", {}, "none", id="no record"),
    ],
)
def test_policy_discovery(author: str, zone: Mapping[str, object], policy: str) -> None:
    verdict = judged(author, resolver_of(records(zone)))
    assert policy_of(verdict) == policy
    assert verdict.status is (DmarcStatus.NONE if policy == "none" else DmarcStatus.FAIL)


@pytest.mark.attack("M02")
@pytest.mark.parametrize("unusable", ["v=DMARC1", "v=DMARC1; p=x", "v=DMARC1; p=reject; sp=x"])
def test_discovery_does_not_climb_past_a_record_that_cannot_be_used(unusable: str) -> None:
    zone = {"_dmarc.a.example.com": unusable, "_dmarc.example.com": "v=DMARC1; p=reject"}
    verdict = judged("a.example.com", resolver_of(records(zone)))
    assert (verdict.status, verdict.reason) == (DmarcStatus.NONE, DmarcReason.RECORD_UNUSABLE)
    assert (verdict.record_domain, verdict.policy) == ("a.example.com", None)
    zone = {"_dmarc.example.com": unusable}
    verdict = judged("a.example.com", resolver_of(records(zone)))
    assert verdict.reason is DmarcReason.RECORD_UNUSABLE


def existence_asked(author: str, record: str) -> bool:
    _, asked = asked_and_judged(author, resolver_of(records({"_dmarc.example.com": record})))
    return f"{author} A" in asked


def test_whether_it_exists_is_asked_only_where_that_makes_a_difference() -> None:
    assert existence_asked("a.example.com", "v=DMARC1; p=reject; np=none")
    assert existence_asked("a.example.com", "v=DMARC1; p=reject; sp=none; np=reject")
    assert not existence_asked("a.example.com", "v=DMARC1; p=reject")
    assert not existence_asked("a.example.com", "v=DMARC1; p=reject; sp=none")
    assert not existence_asked("a.example.com", "v=DMARC1; p=reject; sp=x; np=none")
    assert not existence_asked("example.com", "v=DMARC1; p=reject; np=none")


@pytest.mark.attack("M05")
@pytest.mark.parametrize(
    ("answer", "policy"),
    [
        (Status.NXDOMAIN, "none np at example.com"),
        (Status.NODATA, "quarantine sp at example.com"),
        (SERVFAIL, "none"),
        (Status.BOGUS, "none"),
    ],
    ids=lambda value: value.value if isinstance(value, Status) else "",
)
def test_only_nxdomain_is_not_there(answer: Status, policy: str) -> None:
    """RFC 9989 §3.2.13; that there is neither A nor MX means nothing."""
    resolver = resolver_of(records({"_dmarc.example.com": SP_NP}), ["a.example.com"], answer)
    verdict = judged("a.example.com", resolver)
    assert policy_of(verdict) == policy
    if policy == "none":
        assert (verdict.status, verdict.reason) == (DmarcStatus.TEMPERROR, DmarcReason.POLICY_UNAVAILABLE)
        assert verdict.record_domain == "example.com"


@pytest.mark.parametrize("failure", [Status.TEMPFAIL, Status.BOGUS], ids=lambda status: status.value)
def test_whether_it_exists_need_not_be_known_where_both_ask_for_the_same(failure: Status) -> None:
    zone = records({"_dmarc.example.com": "v=DMARC1; p=none; sp=reject; np=reject"})
    verdict = judged("a.example.com", resolver_of(zone, ["a.example.com"], failure))
    assert (verdict.status, policy_of(verdict)) == (DmarcStatus.FAIL, "reject sp at example.com")
    assert policy_of(judged("a.example.com", resolver_of(zone))) == "reject np at example.com"


def test_existence_is_asked_of_the_name_itself() -> None:
    """That nothing is at `_dmarc.` below it is no proof that it does not exist, nor that something is."""
    zone = {"_dmarc.example.com": SP_NP, "a.example.com": "here"}
    assert policy_of(judged("a.example.com", resolver_of(records(zone)))) == "quarantine sp at example.com"
    below = {"_dmarc.example.com": SP_NP, "_dmarc.a.example.com": "junk"}
    assert policy_of(judged("a.example.com", resolver_of(records(below)))) == "none np at example.com"


def test_an_alias_exists_whatever_it_leads_to() -> None:
    """RFC 8020 §2, RFC 6604: the NXDOMAIN denies the name at the end of the aliases."""
    zone = records({"_dmarc.example.com": SP_NP})
    zone["a.example.com"] = {"CNAME": ["gone.esp.test"]}
    zone["esp.test"] = {"A": ["192.0.2.9"]}
    assert policy_of(judged("a.example.com", resolver_of(zone))) == "quarantine sp at example.com"


@pytest.mark.attack("M03")
@pytest.mark.parametrize("failing", ["_dmarc.a.b.test", "_dmarc.b.test", "_dmarc.test"])
@pytest.mark.parametrize("failure", [Status.TEMPFAIL, Status.BOGUS], ids=lambda status: status.value)
@pytest.mark.parametrize("zone", [{}, {"_dmarc.b.test": "v=DMARC1; p=reject"}], ids=["no record", "record"])
def test_no_answer_is_never_no_policy(failing: str, failure: Status, zone: Mapping[str, object]) -> None:
    verdict = judged("a.b.test", resolver_of(records(zone), [failing], failure))
    assert (verdict.status, verdict.reason) == (DmarcStatus.TEMPERROR, DmarcReason.POLICY_UNAVAILABLE)
    assert (verdict.policy, verdict.record, verdict.organizational_domain) == (None, None, None)


def test_its_own_record_holds_whatever_fails_above() -> None:
    zone = {"_dmarc.a.b.test": "v=DMARC1; p=reject"}
    verdict = judged("a.b.test", resolver_of(records(zone), ["_dmarc.b.test", "_dmarc.test"]))
    assert (verdict.status, verdict.reason) == (DmarcStatus.FAIL, DmarcReason.NOTHING_PASSED)
    assert verdict.organizational_domain is None


def test_a_walk_belongs_to_a_discovery_only_without_a_list_of_suffixes() -> None:
    found = evaluate(
        lambda answers: discover(Domain("a.test"), answers), resolver_of({}), deadline=time.monotonic() + 60
    )
    assert found.walk is not None
    assert found.walk.start == "a.test"
