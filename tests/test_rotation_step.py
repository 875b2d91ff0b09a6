"""Keys that take turns, without the world: what one step makes of each stage."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from mailguard.rotation.state import MAX_GENERATIONS, MAX_USED, Rotation, Stage
from mailguard.rotation.step import (
    DAY_S,
    MIN_KEEP_S,
    OLD_WORKERS_S,
    RotationRules,
    Seen,
    confirmed,
    step,
    with_loaded,
)
from mailguard.rotation.words import said_of
from mailguard_milter import worker
from rotation_made import NOW, generation, key, rotation

HOUR_S = 3_600
RULES = RotationRules(max_age_s=100 * DAY_S, lifetime_s=7 * DAY_S, settle_s=HOUR_S)
KEEP_S = MIN_KEEP_S + OLD_WORKERS_S + HOUR_S
THERE, LOST, SILENT = Seen(), Seen(lost=("ns2 has nothing",)), Seen(silent=("ns2: no answer",))
GONE = Seen(lost=("ns2 has nothing",), is_gone=True)
REVOKED = replace(GONE, is_revoked=True)


def stages(found: Rotation) -> str:
    return " ".join(f"{each.name}:{each.stage.value}" for each in found.generations)


C, P, W, S, R, X = Stage
# id, what there is and since when, what the servers have, what there is then
STEPS: list[tuple[str, list[tuple[str, Stage, float]], list[Seen], str]] = [
    ("nothing", [], [], ""),
    ("not published", [("a", C, 0)], [LOST], "a:created"),
    ("a server does not answer", [("a", C, 0)], [SILENT], "a:created"),
    ("published", [("a", C, 9 * DAY_S)], [THERE], "a:published"),
    ("it settles", [("a", P, HOUR_S - 1)], [THERE], "a:published"),
    ("it has settled", [("a", P, HOUR_S)], [THERE], "a:switching"),
    ("a server lost it while it settled", [("a", P, HOUR_S)], [LOST], "a:created"),
    ("a server is silent when it has settled", [("a", P, HOUR_S)], [SILENT], "a:created"),
    ("it is not confirmed", [("a", S, 0), ("b", W, 9 * DAY_S)], [THERE, THERE], "a:signing b:switching"),
    ("a server loses it before that", [("a", S, 0), ("b", W, DAY_S)], [THERE, LOST], "a:signing b:created"),
    ("a server is silent before that", [("a", S, 0), ("b", W, 0)], [THERE, SILENT], "a:signing b:switching"),
    ("a server lags", [("a", S, 0), ("b", C, 0)], [THERE, LOST], "a:signing b:created"),
    ("the one that signs is lost", [("a", S, 0)], [LOST], "a:signing"),
    ("retired", [("a", R, KEEP_S - 1)], [THERE], "a:retired"),
    ("retired long enough", [("a", R, KEEP_S)], [THERE], "a:removable"),
    ("gone too early", [("a", R, DAY_S)], [GONE], "a:retired"),
    ("revoked", [("a", R, DAY_S)], [REVOKED], "a:removable"),
    ("revoked while the daemon has it", [("a", R, 0)], [REVOKED], "a:retired"),
    ("revoked on some servers", [("a", R, DAY_S)], [replace(REVOKED, is_gone=False)], "a:retired"),
    ("revoked, and signs", [("a", S, DAY_S)], [REVOKED], "a:signing"),
    ("a wrong record was seen", [("a", P, HOUR_S)], [Seen(other_ttl_s=2 * HOUR_S)], "a:published"),
    ("it is forgotten", [("a", P, 2 * HOUR_S)], [Seen(other_ttl_s=2 * HOUR_S)], "a:switching"),
    ("a wrong record for ever", [("a", P, 7 * DAY_S)], [Seen(other_ttl_s=99 * DAY_S)], "a:switching"),
    ("records that live longer", [("a", P, DAY_S - 1)], [Seen(ttl_s=7 * DAY_S)], "a:published"),
    ("for a day at most", [("a", P, DAY_S)], [Seen(ttl_s=7 * DAY_S)], "a:switching"),
    ("still there", [("a", X, 0)], [THERE], "a:removable"),
    ("the clock went back: retired again", [("a", X, -DAY_S)], [GONE], "a:retired"),
    ("the clock went back: it settles from now", [("a", P, -9 * DAY_S)], [THERE], "a:published"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "seen", "after"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS])
def test_one_step(before: list[tuple[str, Stage, float]], seen: list[Seen], after: str) -> None:
    found = rotation(*(generation(name, stage, ago=ago) for name, stage, ago in before))
    taken = step(found, seen, now=NOW, rules=RULES)
    assert stages(taken.rotation) == after
    assert all(each.since <= NOW for each in taken.rotation.generations)
    for was, each in zip(found.generations, taken.rotation.generations, strict=True):
        assert each.stage is was.stage or each.since == NOW, "what a stage waits for begins with it"


@pytest.mark.parametrize(("there", "expected"), [(GONE, ["a"]), (LOST, []), (THERE, []), (SILENT, [])])
def test_what_is_forgotten(there: Seen, expected: list[str]) -> None:
    taken = step(rotation(generation("a", X)), [there], now=NOW, rules=RULES)
    assert [each.name for each in taken.forgotten] == expected
    assert stages(taken.rotation) == "a:removable", "its files go first"


def test_what_holds_published_keys() -> None:
    held = replace(RULES, held="nobody reads them")
    found = rotation(generation("a", P, ago=DAY_S))
    assert stages(step(found, [THERE], now=NOW, rules=held).rotation) == "a:published"


def test_the_old_retires_when_the_daemon_has_said_so_and_not_before() -> None:
    found = rotation(generation("a", S, lifetime_s=7 * DAY_S), generation("b", W))
    after = confirmed(found, now=NOW, rules=RULES)
    assert stages(after) == "a:retired b:signing"
    assert [each.until for each in after.generations] == [NOW + KEEP_S, NOW + RULES.max_age_s]
    assert [each.selector for each in found.signing] == ["b"], "what the daemon reads while it switches"
    assert confirmed(after, now=NOW + DAY_S, rules=RULES) == after


def test_old_workers_end_before_what_is_counted_with() -> None:
    assert worker.DRAIN_DEADLINE_S + worker.HUNG_AFTER_S + worker.HUNG_GRACE_S < OLD_WORKERS_S


@pytest.mark.parametrize(
    ("lifetime_s", "ttl_s", "expected_s"),
    [
        (30 * DAY_S, 0, 30 * DAY_S + HOUR_S),
        (DAY_S, 0, MIN_KEEP_S + HOUR_S),
        (7 * DAY_S, DAY_S, 8 * DAY_S),
        # Caches forget earlier than that.
        (7 * DAY_S, 365 * DAY_S, 14 * DAY_S),
    ],
)
def test_records_stay_for_the_longest_life_of_a_signature_and_of_a_record(
    lifetime_s: float, ttl_s: float, expected_s: float
) -> None:
    found = rotation(generation("a", S, lifetime_s=lifetime_s), generation("b", W))
    found = step(found, [Seen(ttl_s=ttl_s), THERE], now=NOW, rules=replace(RULES, lifetime_s=DAY_S)).rotation
    # Lowered in the configuration afterwards: signatures of before live as long as they did.
    found = confirmed(found, now=NOW, rules=RULES)
    old = found.generations[0]
    assert old.until == NOW + expected_s + OLD_WORKERS_S
    for late_s, stage in ((-1, "a:retired"), (0, "a:removable")):
        taken = step(found, [THERE, THERE], now=old.until + late_s, rules=replace(RULES, lifetime_s=DAY_S))
        assert stages(taken.rotation).startswith(stage)


@pytest.mark.attack("V09")
def test_keys_that_the_daemon_went_back_to_sign_for_as_long_as_others() -> None:
    found = with_loaded(
        rotation(generation("a", R, lifetime_s=7 * DAY_S)),
        [key("a").fingerprint],
        now=NOW,
        lifetime_s=30 * DAY_S,
    )
    for days, after in ((30, "a:retired"), (31, "a:removable")):
        assert stages(step(found, [THERE], now=NOW + days * DAY_S, rules=RULES).rotation) == after


@pytest.mark.attack("V09")
@pytest.mark.parametrize(("stage", "after"), [(C, "a:created"), (S, "a:signing"), (X, "a:retired")])
def test_one_key_that_the_daemon_has_is_enough_to_have_signed(stage: Stage, after: str) -> None:
    pair = replace(generation("a", stage, ago=DAY_S), keys=(key("a"), key("b")))
    found = with_loaded(rotation(pair), [key("a").fingerprint], now=NOW)
    assert stages(found).replace(", b", "") == after
    (each,) = found.generations
    assert each.has_signed
    assert each.since == (NOW if stage is X else NOW - DAY_S)


@pytest.mark.attack("V09")
@pytest.mark.parametrize("stage", [P, W, S])
def test_from_the_switch_on_signatures_are_counted_with_that_live_as_long_as_any(stage: Stage) -> None:
    """Whether or not the daemon can be asked what it signs with."""
    for longest_s, lifetime_s in ((7 * DAY_S, 7 * DAY_S), (30 * DAY_S, 7 * DAY_S), (7 * DAY_S, 30 * DAY_S)):
        found = rotation(generation("a", stage, ago=HOUR_S, lifetime_s=longest_s))
        (each,) = step(found, [THERE], now=NOW, rules=replace(RULES, lifetime_s=lifetime_s)).rotation.generations
        assert each.lifetime_s == max(longest_s, lifetime_s)
        assert each.has_signed


@pytest.mark.parametrize(
    ("before", "make_new", "expected"),
    [
        ([], False, True),
        ([("a", S, 99 * DAY_S)], False, False),
        ([("a", S, 100 * DAY_S)], False, True),
        ([("a", S, 0)], True, True),
        ([("a", S, 200 * DAY_S), ("b", C, 0)], True, False),
        ([("a", S, 200 * DAY_S), ("b", W, 0)], True, False),
        ([("a", R, 0)], False, True),
        ([(f"r{number}", R, 0) for number in range(MAX_GENERATIONS - 1)], True, False),
    ],
)
def test_when_new_keys_are_made(before: list[tuple[str, Stage, float]], make_new: bool, expected: bool) -> None:
    found = rotation(*(generation(name, stage, ago=ago) for name, stage, ago in before))
    taken = step(found, [LOST] * len(before), now=NOW, rules=RULES, make_new=make_new)
    assert taken.makes_keys is expected
    assert bool(taken.notes) is (make_new and not expected)


def test_what_is_forgotten_makes_room() -> None:
    names = [f"r{number}" for number in range(MAX_GENERATIONS - 2)]
    found = rotation(*(generation(name, R) for name in names), generation("x", X))
    for there, expected in ((GONE, True), (THERE, False)):
        taken = step(found, [*[THERE] * len(names), there], now=NOW, rules=RULES, make_new=True)
        assert taken.makes_keys is expected


def test_a_clock_that_was_wrong_by_a_minute_is_not_told() -> None:
    for ahead_s, notes in ((60, 0), (DAY_S, 1)):
        found = rotation(generation("a", S, ago=-ahead_s))
        assert len(step(found, [THERE], now=NOW, rules=RULES).notes) == notes


def test_names_run_out_one_day() -> None:
    found = replace(rotation(), used=tuple(f"s{number}" for number in range(MAX_USED - 1)))
    taken = step(found, [], now=NOW, rules=RULES)
    assert (taken.makes_keys, taken.notes) == (
        False,
        (f"no further keys are made: {MAX_USED} selectors have been used",),
    )


@pytest.mark.parametrize(
    ("stage", "has_signed", "after"),
    [(C, False, "b:removable"), (P, False, "b:removable"), (W, True, "b:retired"), (C, True, "b:retired")],
)
def test_what_comes_can_be_given_up(stage: Stage, has_signed: bool, after: str) -> None:
    coming = replace(generation("b", stage, ago=DAY_S), has_signed=has_signed)
    old = generation("a", S, ago=200 * DAY_S)
    taken = step(rotation(old, coming), [THERE, THERE], now=NOW, rules=RULES, discard=True)
    assert stages(taken.rotation) == f"a:signing {after}"
    assert taken.rotation.generations[1].since == NOW
    assert not taken.makes_keys
    assert [each.selector for each in taken.rotation.signing] == ["a"]


@pytest.mark.attack("V09")
def test_never_two_sign_and_never_one_that_is_lacking() -> None:
    """Whatever there is and whatever the servers have: also nobody's records are forgotten that may be needed."""
    days = (0, 9, 200)
    kinds = [[generation(name, stage, ago=ago * DAY_S) for stage in Stage for ago in days] for name in ("a", "b")]
    for first, second in product(*kinds):
        if first.stage is second.stage is S or {first.stage, second.stage} <= {C, P, W}:
            continue
        before = rotation(first, second)
        for seen in product((THERE, LOST, SILENT, GONE), repeat=2):
            taken = step(before, seen, now=NOW, rules=RULES)
            there = dict(zip("ab", seen, strict=True))
            signed = [each.name for each in before.at(S, W)]
            for each in taken.rotation.signing:
                assert each.selector in signed or not there[each.selector].lacking
            assert len(taken.rotation.at(S)) <= 1
            for gone in taken.forgotten:
                was = next(each for each in before.generations if each.name == gone.name)
                assert was.stage in (R, X)
                assert was.stage is X or NOW - was.since >= KEEP_S
            assert Rotation.parse(taken.rotation.text().encode()) == taken.rotation


def test_what_is_said() -> None:
    def said(stage: Stage, there: Seen, **more: Any) -> str:
        (each,) = step(rotation(generation("a", stage, **more)), [there], now=NOW, rules=RULES).rotation.generations
        return said_of(each, there, now=NOW, rules=RULES, is_forgotten=False)

    assert said(C, LOST) == ("a (created): publish its records, then run this again; not yet there: ns2 has nothing")
    assert said(C, SILENT) == (
        "a (created): it waits for its records to be on every server; could not be asked: ns2: no answer; each must"
        " answer this host, or no longer be a name server of the zone"
    )
    assert said(C, THERE) == (
        "a (published): every server has its records; it can sign in 60 minutes, when this is run again"
    )
    assert said(W, THERE) == "a (switching): it signs when the daemon says that it does"
    assert said(X, THERE) == "a (removable): remove its records on every server, then run this again"
    assert said(S, SILENT).startswith("a (signing): it signs; could not be asked: ns2: no answer")
    assert "make others with --new" in said(S, replace(LOST, is_revoked=True))
    assert said(S, THERE, ago=101 * DAY_S) == "a (signing): it signs; the next keys are due"
    assert said(S, LOST) == "a (signing): it signs, and its records are not on every server: ns2 has nothing"
    assert said(R, THERE) == "a (retired): it signs no more; its records stay for 7 days"
    assert "its records are needed and lacking: ns2 has nothing" in said(R, LOST)
