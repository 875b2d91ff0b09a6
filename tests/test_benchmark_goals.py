"""The goals of the comparison: which there are, what is measured for them, and how figures are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import waiting_section
from bench_keys import BenchKeys
from bench_record import Record
from compare import SECTIONS, main
from compared_daemon import Task
from daemon_mailguard import Mailguard, MailguardNative, MailguardNativeWithOneWorker, MailguardWithOneWorker
from goals import GOALS, Goal, cpu, goals_for, judge_goals, judge_limits
from goals_plan import goals_plan
from mailguard.config import load
from measurement import Measured
from overview import overview
from process_usage import Memory
from scaling_section import name_of
from scenarios import (
    CHAIN,
    KB,
    MB,
    NATIVE,
    ONE_WORKER,
    RSPAMD_WITHOUT_LANGUAGES,
    Plan,
    Scenario,
    contenders,
)
from spread import Spread
from through_postfix import row_name

INBOUND = "inbound, 2 KB, concurrency 8"


def run_of(cpu_ms: float = 1.0, *, p99_ms: float = 3.0, messages: int = 1000) -> Measured:
    used = {"a": cpu_ms * messages / 1e3}
    return Measured(messages, 2.0, used, 0.001, 0.002, p99_ms / 1e3, Memory(rss=2 << 20, pss=1 << 20))


def row_of(name: str, *cpu_ms: float, row: str = INBOUND) -> Record:
    return Record("load", row, name, [run_of(each) for each in cpu_ms])


# Quotients


def test_goals() -> None:
    records = [
        row_of("mailguard", 1.0, 3.0, 2.0),
        row_of(NATIVE, 0.5, 1.5, 1.0),
        row_of(CHAIN, 10.0, 30.0, 20.0),
        row_of("rspamd"),
    ]
    judgements = {(each.goal.what, each.goal.own, each.goal.other): each for each in judge_goals(records, GOALS)}
    assert len(judgements) == len(GOALS)
    cheap = judgements["inbound, 2 KB: CPU a message", "mailguard", CHAIN]
    assert cheap.measured == Spread(0.1, 0.1, 0.1, 3)
    assert cheap.verdict == "reached"
    assert judgements["inbound, 2 KB: messages a second", "mailguard", CHAIN].verdict == "missed by 88%"
    assert judgements["inbound, 2 KB: CPU a message", NATIVE, "rspamd"].verdict == "not measured"
    missed = Goal("", "load", INBOUND, cpu, CHAIN, 0.025, own=NATIVE)
    assert [each.verdict for each in judge_goals(records, [missed])] == ["missed by 100%"]
    # What counts is not rounded.
    missed = replace(missed, bound=0.0499)
    assert [each.verdict for each in judge_goals(records, [missed])] == ["missed by less than 1%"]


@pytest.mark.parametrize(
    ("row", "own", "other", "bound"),
    [
        ("sign, RSA-2048, 2 KB, concurrency 8", "no-op (native engine)", "no-op (pymilter)", 0.35),
        ("sign, RSA-2048, 2 KB, concurrency 8", "no-op (native engine)", "no-op (libmilter engine)", 0.35),
        ("sign, RSA-2048, 2 KB, concurrency 8", NATIVE, "opendkim", 0.30),
        ("sign, RSA-2048, 10 KB, concurrency 8", NATIVE, "opendkim", 0.30),
        ("sign, RSA-2048, 10 MB, concurrency 8", NATIVE, "opendkim", 0.70),
        ("inbound, 10 KB, concurrency 8", NATIVE, CHAIN, 0.17),
        (INBOUND, NATIVE, "rspamd", 1.0),
        ("inbound, 10 KB, concurrency 8", NATIVE, "rspamd", 0.45),
        ("sign, RSA-2048, 10 KB, 10 sessions", NATIVE, "mailguard", 1.1),
        ("inbound, 10 KB, 10 sessions", NATIVE, "mailguard", 1.1),
    ],
)
def test_goals_of_the_native_engine(row: str, own: str, other: str, bound: float) -> None:
    (goal,) = [each for each in GOALS if (each.row, each.own, each.other) == (row, own, other)]
    assert goal.bound == bound
    assert goal.reached(bound)
    assert not goal.reached(bound - 0.01 if goal.at_least else bound + 0.01)
    assert goal.at_least == ("sessions" in row)


@pytest.mark.parametrize(("cores", "what"), [(2, "CPU a message"), (4, "messages a second")])
def test_goal_of_scaling_depends_on_the_cores(cores: int, what: str) -> None:
    *others, one, two = goals_for(cores)
    assert tuple(others) == GOALS
    assert [goal.what.rpartition(", ")[2] for goal in (one, two)] == [what] * 2


# Limits


def grown(*megabytes: float) -> Record:
    figures = {
        f"{kind} {when}": [value * (1 << 20)] for when, value in enumerate(megabytes) for kind in ("RSS", "PSS")
    }
    return Record("memory", "one worker, inbound", NATIVE, figures=figures)


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [
        pytest.param((30, 50, 50.5, 51), ["reached", "reached", "reached"], id="all is well"),
        pytest.param((30, 50, 61, 61), ["missed", "missed", "reached"], id="it grows"),
        pytest.param((30, 50, 50, 60), ["reached", "reached", "missed"], id="large messages stay"),
        pytest.param((), ["not measured"] * 3, id="void"),
    ],
)
def test_limits_of_memory(megabytes: tuple[float, ...], expected: list[str]) -> None:
    limits = judge_limits([grown(*megabytes)])
    assert [limit.verdict for limit in limits] == expected
    assert {limit.own for limit in limits} <= {NATIVE}


@pytest.mark.parametrize(
    ("rounds", "warm", "expected"),
    [([1.0, 1.0, 9.0], [0.0], ["reached"] * 2), ([2.0], [0.1], ["missed"] * 2)],
    ids=["one wait", "two waits"],
)
@pytest.mark.parametrize("name", ONE_WORKER)
def test_limits_of_look_ups(name: str, rounds: list[float], warm: list[float], expected: list[str]) -> None:
    figures = {"queries a message": [4.0], "rounds a message": rounds, "warm queries a message": warm}
    record = Record("cold", "row", name, [run_of()], figures=figures)
    assert [limit.verdict for limit in judge_limits([record])] == expected
    assert judge_limits([replace(record, contender="rspamd")]) == []
    record.make_void("why")
    assert [(limit.measured, limit.verdict) for limit in judge_limits([record])] == [("", "not measured")] * 2


def waited(row: str, *p99_ms: float, name: str = NATIVE) -> Record:
    return Record("waiting", row, name, [run_of(p99_ms=each) for each in p99_ms])


@pytest.mark.parametrize(
    ("at_once", "alone", "beside", "expected"),
    [
        pytest.param((250, 900, 259), (30, 90, 40), (79, 20, 95), ["259.00 reached", "49.00 reached"], id="reached"),
        pytest.param((261,), (30,), (81,), ["261.00 missed", "51.00 missed"], id="missed"),
        pytest.param((), (30,), (), [" not measured"] * 2, id="void"),
        pytest.param((205,), (), (30,), ["205.00 reached", " not measured"], id="one of two void"),
    ],
)
def test_limits_of_waiting(
    at_once: tuple[float, ...], alone: tuple[float, ...], beside: tuple[float, ...], expected: list[str]
) -> None:
    records = [
        waited(waiting_section.AT_ONCE, *at_once),
        waited(waiting_section.ALONE, *alone),
        waited(waiting_section.BESIDE_WAITING, *beside),
        # The other engine is measured, and has no limit.
        waited(waiting_section.AT_ONCE, 4800, name="mailguard"),
    ]
    assert [f"{limit.measured} {limit.verdict}" for limit in judge_limits(records)] == expected
    assert judge_limits([]) == []


# The plan for the goals


@pytest.mark.parametrize("cores", [2, 4])
def test_plan_for_the_goals_measures_both_sides_of_each(cores: int) -> None:
    goals = goals_for(cores)
    plan = goals_plan(goals)
    rows = {scenario.name: scenario for scenario in plan.scenarios}
    assert {goal.row for goal in goals if goal.section == "load"} == set(rows)
    for goal in goals:
        for name in (goal.own, goal.other):
            assert plan.wants(goal.section, goal.row, name)
            if goal.section in ("load", "cold", "postfix"):
                task = (
                    rows[goal.row].task if goal.row in rows else Task.SIGN_RSA if "sign" in goal.row else Task.JUDGE
                )
                assert name in [contender.name for contender in contenders(task)]
    assert {
        row_name(task, sessions) for task in (Task.SIGN_RSA, Task.JUDGE) for sessions in plan.postfix_sessions
    } == {goal.row for goal in goals if goal.section == "postfix"}
    assert (plan.rounds, plan.seconds, plan.memory_messages) == (5, 1.0, 100_000)


@pytest.mark.parametrize(
    ("row", "name", "expected"),
    [
        ("sign, RSA-2048, 2 KB, concurrency 8", "no-op (C)", True),
        ("sign, RSA-2048, 2 KB, concurrency 8", "rspamd", False),
        ("sign, RSA-2048, 100 KB, concurrency 8", "rspamd", True),
        ("sign, RSA-2048, 100 KB, concurrency 8", RSPAMD_WITHOUT_LANGUAGES, True),
        ("sign, RSA-2048, 2 KB, concurrency 8", RSPAMD_WITHOUT_LANGUAGES, False),
        ("sign, RSA-2048, 100 KB, concurrency 8", NATIVE, True),
        ("sign, RSA-2048, 2 KB, concurrency 8", "dkimpy-milter", False),
        ("inbound, 100 KB, concurrency 8", CHAIN, False),
        ("a row that is not named", "dkimpy-milter", True),
    ],
)
def test_plan_for_the_goals_leaves_others_out(row: str, name: str, *, expected: bool) -> None:
    assert goals_plan(GOALS).wants("load", row, name) == expected


def test_large_messages_are_measured_for_longer() -> None:
    plan = goals_plan(GOALS)
    seconds = {scenario.size: plan.seconds_for(scenario) for scenario in plan.scenarios}
    assert (seconds[1 * MB], seconds[10 * MB]) == (1.0, 3.0)
    assert replace(plan, seconds=4.0).seconds_for(Scenario(Task.SIGN_RSA, 10 * MB, 8)) == 4.0


def test_estimate() -> None:
    minutes = {
        kind: sum(section.takes(plan) for section in SECTIONS.values()) / 60
        for kind, plan in (("quick", Plan.quick()), ("goals", goals_plan(goals_for(2))), ("full", Plan.full()))
    }
    assert minutes["quick"] < minutes["goals"] < minutes["full"]
    assert 25 <= minutes["goals"] <= 40
    assert all(section.takes(goals_plan(GOALS)) > 10 for section in SECTIONS.values())


def test_a_run_is_quick_or_for_the_goals(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--goals"])
    assert "not allowed with" in capsys.readouterr().err


# mailguard's two engines


@pytest.fixture(scope="module")
def keys() -> BenchKeys:
    return BenchKeys.generate()


@pytest.mark.parametrize(
    ("kind", "engine", "workers"),
    [
        (Mailguard, "libmilter", 0),
        (MailguardNative, "native", 0),
        (MailguardWithOneWorker, "libmilter", 1),
        (MailguardNativeWithOneWorker, "native", 1),
    ],
)
@pytest.mark.parametrize("task", [Task.SIGN_RSA, Task.JUDGE])
def test_engine_is_what_the_name_says(
    keys: BenchKeys, tmp_path: Path, kind: type[Mailguard], engine: str, workers: int, task: Task
) -> None:
    daemon = kind(task, keys)
    daemon.directory = tmp_path
    ((name, text),) = daemon.files().items()
    (tmp_path / name).write_text(text)
    config = load(tmp_path / name)
    assert config.engine == engine
    assert (config.listeners[0].workers == 1) == bool(workers)
    assert ("native" in kind.name, "1 worker" in kind.name) == (engine == "native", bool(workers))


def test_one_worker_has_one_name() -> None:
    assert (name_of("mailguard", 1), name_of(NATIVE, 1)) == ONE_WORKER
    assert name_of(NATIVE, 2) == "mailguard, native engine, 2 workers"


# The first table


def test_overview() -> None:
    memory = Record("memory", "one worker, inbound", NATIVE, figures=grown(30, 50, 51, 52).figures)
    heads, rows = overview(
        [
            row_of("mailguard", 2.0, 4.0, 3.0),
            row_of("rspamd"),
            row_of("no-op (pymilter)", 0.2),
            Record("load", INBOUND, CHAIN, void="a reason"),
            Record("waiting", waiting_section.AT_ONCE, NATIVE, [run_of(p99_ms=250)]),
            Record("postfix", row_name(Task.JUDGE, 10), "mailguard", [run_of()]),
            memory,
        ]
    )
    assert heads == (
        "",
        "no-op (pymilter)",
        "no-op (libmilter engine)",
        "no-op (native engine)",
        "opendkim, or the chain",
        "rspamd",
        "mailguard",
        NATIVE,
    )
    assert rows == [
        ("inbound, 2 KB: CPU ms a message", "0.200", "", "", "void", "", "3.00", ""),
        (f"{waiting_section.AT_ONCE}: p99 ms", "", "", "", "", "", "", "250"),
        ("Postfix, inbound, 10 KB, 10 sessions: messages/s", "", "", "", "", "", "500", ""),
        ("one worker, inbound: RSS MB after all messages", "", "", "", "", "", "", "51.0"),
    ]
    assert overview([]) == (heads, [])


def test_every_row_of_the_first_table_can_be_there() -> None:
    names = {scenario.name for scenario in Plan.full().scenarios}
    assert {Scenario(task, size, 8).name for task in Task for size in (2 * KB, 10 * MB)} <= names
