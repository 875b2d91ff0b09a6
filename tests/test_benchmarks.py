"""The comparison's parts work: replies that are judged, statistics, tables, charts, and what processes use.

Nothing is measured here. What the daemons that are compared do is seen when the comparison runs (benchmarks/run.sh).
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bar_chart import FLOOR_COLOUR, NATIVE_COLOUR, OTHER_COLOUR, OWN_COLOUR, Bar, Panel, chart
from bench_keys import BenchKeys
from bench_record import Context, Progress, Record
from cold_section import waits
from compared_daemon import Task
from daemon_rspamd import Rspamd, RspamdWithoutLanguages
from goals import GOALS
from mailguard import Message, ZoneResolver, verify_dkim
from measurement import Measured
from milter_replies import Answered, Expected, WrongReply, check, check_signatures, read_replies
from milter_script import packet
from name_server import Query
from process_usage import Memory, cpu_seconds, descendants, memory
from report import Results
from result_charts import result_charts
from sample_mail import CLIENT, Sample, domain_name, incoming, outgoing, records_of
from scenarios import CHAIN, Plan, contenders
from spread import Spread, digits, percentile

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def keys() -> BenchKeys:
    return BenchKeys.generate()


# The replies

DOMAIN = domain_name(0)
SIGNATURE = b"v=1; a=rsa-sha256;\n\td=us.example; s=r1; b=abc"
RESULTS = (
    f"mx.us.example;\n\tspf=pass (a comment) smtp.mailfrom=bounce@{DOMAIN};\n\tdkim=pass header.d={DOMAIN};"
    f"\n\tdmarc=pass header.from={DOMAIN}"
)


def answer(*fields: tuple[bytes, str | bytes], verdict: bytes = b"c", removed: int = 0) -> Answered:
    inserted = [(name, value.encode() if isinstance(value, str) else value) for name, value in fields]
    return Answered(0, 0.001, inserted, removed, [verdict])


AR = b"Authentication-Results"


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        pytest.param(answer((b"DKIM-Signature", SIGNATURE)), Expected.SIGNED, id="signed"),
        pytest.param(answer((AR, RESULTS)), Expected.JUDGED, id="judged"),
        pytest.param(answer((b"authentication-results", f" {RESULTS}")), Expected.JUDGED, id="with a blank"),
        pytest.param(
            answer(*((AR, f"mx.us.example; {clause}") for clause in RESULTS.split(";")[1:])),
            Expected.JUDGED,
            id="in three fields",
        ),
        pytest.param(
            answer((AR, f"{RESULTS}; spf=none smtp.helo=mail.{DOMAIN}")),
            Expected.JUDGED,
            id="no HELO SPF",
        ),
        pytest.param(answer((AR, f"mx.us.example; spf=pass smtp.mailfrom={DOMAIN}")), Expected.SPF, id="SPF alone"),
        pytest.param(answer((b"X-Noop", b"yes")), Expected.ACCEPTED, id="accepted"),
    ],
)
def test_right_replies(answered: Answered, expected: Expected) -> None:
    check(answered, _expecting(expected), expected)


def _expecting(expected: Expected) -> Sample:
    (sample,) = outgoing(2048, 1, algorithms=("rsa",))
    return sample if expected is Expected.SIGNED else replace(sample, domain=DOMAIN)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        pytest.param(answer(), Expected.SIGNED, id="no signature"),
        pytest.param(
            answer((b"DKIM-Signature", SIGNATURE), (b"DKIM-Signature", SIGNATURE)), Expected.SIGNED, id="two"
        ),
        pytest.param(
            answer((b"DKIM-Signature", SIGNATURE.replace(b"us.ex", b"evil.ex"))), Expected.SIGNED, id="another domain"
        ),
        pytest.param(
            answer((b"DKIM-Signature", SIGNATURE.replace(b"rsa-", b"ed25519-"))),
            Expected.SIGNED,
            id="algorithm",
        ),
        pytest.param(answer((b"DKIM-Signature", SIGNATURE), verdict=b"t"), Expected.SIGNED, id="tempfail"),
        pytest.param(answer((b"DKIM-Signature", SIGNATURE), verdict=b"y451 no\0"), Expected.SIGNED, id="a reply"),
        pytest.param(answer((AR, RESULTS), removed=1), Expected.JUDGED, id="a field was removed"),
        pytest.param(answer(), Expected.JUDGED, id="no results"),
        pytest.param(answer((AR, RESULTS.replace("mx.us", "mx.other"))), Expected.JUDGED, id="another host"),
        pytest.param(answer((AR, RESULTS.replace("dkim=pass", "dkim=fail"))), Expected.JUDGED, id="DKIM fails"),
        pytest.param(answer((AR, RESULTS.replace("dmarc=pass", "dmarc=none"))), Expected.JUDGED, id="no DMARC"),
        pytest.param(answer((AR, f"{RESULTS}; dkim=fail header.d={DOMAIN}")), Expected.JUDGED, id="one more fails"),
        pytest.param(answer((AR, RESULTS.replace(DOMAIN, "d0001.example"))), Expected.JUDGED, id="another sender"),
        pytest.param(answer((AR, f"mx.us.example; spf=passable x={DOMAIN}")), Expected.SPF, id="not quite pass"),
        pytest.param(answer(), Expected.ACCEPTED, id="nothing at all"),
    ],
)
def test_wrong_replies(answered: Answered, expected: Expected) -> None:
    with pytest.raises(WrongReply):
        check(answered, _expecting(expected), expected)


def test_two_signatures_need_two_passes() -> None:
    sample = replace(_expecting(Expected.JUDGED), algorithms=("rsa", "ed25519"))
    with pytest.raises(WrongReply):
        check(answer((AR, RESULTS)), sample, Expected.JUDGED)
    check(answer((AR, f"{RESULTS}; dkim=pass header.d={DOMAIN}")), sample, Expected.JUDGED)


def test_signatures_are_verified_twice(keys: BenchKeys) -> None:
    sample = replace(outgoing(2048, 1, algorithms=("rsa", "ed25519"))[0], domain=DOMAIN)
    (signed,) = incoming(2048, 1, domains=[0], keys=keys, algorithms=("rsa", "ed25519"))
    values = [value for name, value in signed.fields if name == b"DKIM-Signature"]
    plain = replace(sample, fields=tuple(f for f in signed.fields if f[0] != b"DKIM-Signature"), body=signed.body)
    # Two milters may differ in who writes the blank after the colon.
    inserted = [(b"DKIM-Signature", values[0].lstrip()), (b"DKIM-Signature", values[1])]
    check_signatures(Answered(0, 0.1, inserted), plain, keys, now=time.time())
    with pytest.raises(WrongReply, match="mailguard"):
        check_signatures(Answered(0, 0.1, inserted[:1]), plain, keys, now=time.time())
    with pytest.raises(WrongReply):
        check_signatures(
            Answered(0, 0.1, inserted), replace(plain, body=plain.body + b"x\r\n"), keys, now=time.time()
        )


def test_read_replies() -> None:
    packets = b"\0" + packet(b"i", b"\0\0\0\0A\x00 1\0") + b"\0" + packet(b"h", b"B\x002\0") + b"\1" + packet(b"a")
    octets = struct.pack("=IIQ", 7, len(packets), 5_000_000) + packets + struct.pack("=IIQ", 8, 0, 1)
    first, second = read_replies(octets)
    assert (first.number, first.latency_s, first.verdicts) == (7, 0.005, [b"a"])
    assert first.inserted == [(b"A", b" 1"), (b"B", b"2")]
    assert second.inserted == []


# The messages


@pytest.mark.parametrize("size", [2048, 10_240, 102_400])
def test_samples(keys: BenchKeys, size: int) -> None:
    (sent_by_us,) = outgoing(size, 1, algorithms=("rsa",))
    assert abs(len(sent_by_us.raw) - size) <= 80
    assert outgoing(size, 1, algorithms=("rsa",)) == [sent_by_us]
    (sample,) = incoming(size, 1, domains=[3], keys=keys, algorithms=("rsa", "ed25519"))
    records = {f"{name}._domainkey.{sample.domain}": {"TXT": [text]} for name, text in keys.records().items()}
    results = verify_dkim(Message.parse(sample.raw), resolver=ZoneResolver(records), now=time.time())
    assert [(result.status.value, result.domain) for result in results] == [("pass", "d0003.example")] * 2


def test_domains_below_a_zone(keys: BenchKeys) -> None:
    (sample,) = incoming(2048, 1, domains=[3], keys=keys, algorithms=("rsa",), parent="slow.example")
    assert sample.domain == domain_name(3, "slow.example") == "d0003.slow.example"
    assert b"s=r1" in dict(sample.fields)[b"DKIM-Signature"]
    names = [line.split(" ")[0] for line in records_of([sample.domain], keys).splitlines()]
    assert names == [
        "d0003.slow.example.",
        "_dmarc.d0003.slow.example.",
        "r1._domainkey.d0003.slow.example.",
        "e1._domainkey.d0003.slow.example.",
        "mail.d0003.slow.example.",
    ]


def test_samples_differ(keys: BenchKeys) -> None:
    found = incoming(2048, 4, domains=[0, 1], keys=keys, algorithms=("rsa",))
    assert len({sample.body for sample in found}) == 4
    assert [sample.domain for sample in found] == [domain_name(number) for number in (0, 1, 0, 1)]
    assert {sample.client_address.decode() for sample in found} == {CLIENT}


# Statistics


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([1.0], 99, 1.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        (list(range(1, 101)), 95, 95),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 102)), 99, 100),
        ([5.0, 1.0], 0, 1.0),
        ([5.0, 1.0], 100, 5.0),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(1234.6, "1235"), (99.94, "99.9"), (9.994, "9.99"), (0.12345, "0.123"), (0.0, "0.000")]
)
def test_digits(value: float, expected: str) -> None:
    assert digits(value) == expected


def test_spread() -> None:
    found = Spread.of([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)
    # A slow round that is slow for both changes nothing.
    assert Spread.of_ratios([1.0, 10.0, 1.1], [2.0, 20.0, 2.2]) == Spread(0.5, 0.5, 0.5, 3)
    for act in (lambda: Spread.of([]), lambda: percentile([], 50)):
        with pytest.raises(ValueError, match="no values"):
            act()
    with pytest.raises(ValueError, match="argument"):
        Spread.of_ratios([1.0], [1.0, 2.0])


# Results


def run_of(cpu_ms: float, *, messages: int = 1000) -> Measured:
    used = {"a": cpu_ms * messages / 1e3}
    return Measured(messages, 2.0, used, 0.001, 0.002, 0.003, Memory(rss=2 << 20, pss=1 << 20))


@pytest.fixture
def results() -> Results:
    row = "inbound, 2 KB, concurrency 8"
    return Results(
        machine={"processor": "one | two", "cores": "2", "opendkim (Debian)": "2.11"},
        remarks=["a quick run"],
        records=[
            Record("load", row, "mailguard", [run_of(1.0), run_of(3.0), run_of(2.0)]),
            Record("load", row, CHAIN, [run_of(10.0), run_of(30.0), run_of(20.0)]),
            Record("load", row, "rspamd", void="a wrong <reply>\nin two lines"),
            Record("memory", "one worker", "mailguard", void="why"),
        ],
        floor={"RSA-2048 sign": Spread(3e-4, 2e-4, 4e-4, 3)},
        configurations={"opendkim": "Mode v\n"},
    )


def test_markdown(results: Results) -> None:
    text = results.to_markdown(["inbound-cpu.svg"])
    lines = text.splitlines()
    assert "**a quick run**" in lines
    assert [line for line in lines if line.startswith("## ")][:2] == ["## At a glance", "## Goals"]
    assert "| inbound, 2 KB: CPU ms a message |  |  |  | 20.0 | void | 2.00 |  |" in lines
    assert "| processor | one \\| two |" in lines
    assert "![inbound-cpu.svg](inbound-cpu.svg)" in lines
    assert any(line.startswith("| mailguard | 2.00 (1.00 to 3.00) | 500 (500 to 500) | 1.00 |") for line in lines)
    assert any(line.startswith("| rspamd | void: a wrong <reply> in two lines |") for line in lines)
    assert "Mode v" in lines
    tables = [line for line in lines if line.startswith("|")]
    for above, below in pairwise(tables):
        if below.startswith("| --- "):
            assert above.count(" | ") == below.count(" | ")


def test_json(results: Results) -> None:
    document = json.loads(results.to_json())
    assert [len(record["runs"]) for record in document["records"]] == [3, 3, 0, 0]
    assert document["records"][0]["runs"][0]["cpu_per_message_s"] == pytest.approx(0.001)
    assert document["records"][2]["void"].startswith("a wrong")


def test_colours_tell_whose_bar_it_is(results: Results) -> None:
    row = results.records[0].row
    names = [
        "no-op (native engine)",
        "rspamd",
        "mailguard",
        "mailguard, 1 worker",
        "mailguard, native engine, 1 worker",
    ]
    records = [Record("load", row, name, [run_of(1.0)]) for name in names]
    text = result_charts(records, results.machine, [])["inbound-cpu.svg"]
    colours = re.findall(r'<rect x="\d+" y="\d+" width="[\d.]+" height="16" fill="(#\w+)"/>', text)
    assert colours == [FLOOR_COLOUR, OTHER_COLOUR, OWN_COLOUR, OWN_COLOUR, NATIVE_COLOUR]


def test_charts(results: Results) -> None:
    found = results.charts()
    assert set(found) == {"inbound-cpu.svg", "inbound-rate.svg"}
    root = ElementTree.fromstring(found["inbound-cpu.svg"])  # noqa: S314 - of our own making
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert "void: a wrong <reply>\nin two lines" in texts
    assert "20.0 ms" in texts


def test_chart_is_well_formed_and_within_its_bounds() -> None:
    bars = [
        Bar("<big> & own", Spread(2.0, 1.0, 4.0, 3), "2 ms"),
        Bar("none", Spread(0.0, 0.0, 0.0, 3), "0 ms"),
        Bar("void", None, "void: why"),
    ]
    root = ElementTree.fromstring(chart("a & b", [Panel("one", bars), Panel("two", bars[2:])], ["n"]))  # noqa: S314
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    rectangles = [element for element in root.iter() if element.tag.endswith("rect")][1:]
    assert len(rectangles) == 2
    for rectangle in rectangles:
        assert float(rectangle.attrib["x"]) + float(rectangle.attrib["width"]) <= width
        assert float(rectangle.attrib["y"]) + float(rectangle.attrib["height"]) <= height
    lines = [element.attrib["d"] for element in root.iter() if element.tag.endswith("path")]
    assert len(lines) == 2
    assert all(float(x) <= width for line in lines for x in re.findall(r"[MH]([0-9.]+)", line))


class Failing:
    """Fails so many times, and then does not."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self, result: str) -> str:
        self.left -= 1
        if self.left >= 0:
            raise WrongReply(f"{self.left} left")
        return result


@pytest.mark.parametrize(
    ("failures", "result", "void", "repeated"),
    [(0, "done", "", []), (1, "done", "", ["0 left"]), (2, None, "0 left", ["1 left"])],
    ids=["right", "wrong once", "wrong twice"],
)
def test_a_void_run_is_repeated_once(
    keys: BenchKeys, tmp_path: Path, failures: int, result: str | None, void: str, repeated: list[str]
) -> None:
    context = Context(Plan.quick(), keys, None, Progress(io.StringIO()), {}, tmp_path)  # type: ignore[arg-type]  # not used
    record = Record("load", "row", "rspamd", [run_of(1.0)])
    assert context.attempt_twice(record, Failing(failures), "done") == result
    assert (record.void, record.repeated, bool(record.runs)) == (void, repeated, not void)
    # What is void stays so.
    assert context.attempt_twice(record, Failing(0), "done") == (None if void else "done")
    text = Results({"cores": "2"}, [], [record], {}, {}).to_markdown()
    assert ("was void and was repeated" in text) == bool(repeated)


def test_only_a_known_failure_is_a_void_run(keys: BenchKeys, tmp_path: Path) -> None:
    context = Context(Plan.quick(), keys, None, Progress(io.StringIO()), {}, tmp_path)  # type: ignore[arg-type]  # not used
    with pytest.raises(ZeroDivisionError):
        context.attempt(Record("load", "row", "rspamd"), lambda: 1 // 0)


# What processes use


def test_cpu_of_a_process_and_of_its_ended_children() -> None:
    spin = "import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert descendants(process.pid) == [process.pid]
        assert process.pid in descendants(os.getpid())
        assert cpu_seconds([process.pid]) >= 0.04
        used = memory(process.pid)
        assert 0 < used.pss <= used.rss
        process.communicate(b"\n")
    assert descendants(process.pid) == []
    assert cpu_seconds([process.pid]) == 0


# The rest


def test_waits_are_counted_for_each_domain() -> None:
    queries = [Query(0.0, "a.test"), Query(0.002, "_dmarc.a.test"), Query(0.03, "x.a.test"), Query(0.03, "b.test")]
    assert waits(queries, ["a.test", "b.test", "c.test", "test"]) == [2, 1, 0, 2]
    # Where an answer takes longer, what comes 28 ms later has not waited for one.
    assert waits(queries, ["a.test"], delay_s=0.2) == [1]


def test_plans() -> None:
    full, quick = Plan.full(), Plan.quick()
    assert full.rounds >= 5
    names = [scenario.name for scenario in full.scenarios]
    assert len(set(names)) == len(names)
    assert {goal.row for goal in GOALS if goal.section == "load"} <= set(names)
    assert {scenario.name for scenario in quick.scenarios} <= set(names)
    for task in Task:
        names = [contender.name for contender in contenders(task)]
        assert names.index("mailguard") + 1 == names.index("mailguard, native engine")
    # Debian's opendkim has one algorithm for all its keys.
    assert "opendkim" not in [contender.name for contender in contenders(Task.SIGN_BOTH)]


@pytest.mark.parametrize("task", [Task.SIGN_RSA, Task.JUDGE])
def test_rspamd_without_languages_differs_by_that_alone(keys: BenchKeys, tmp_path: Path, task: Task) -> None:
    as_shipped, without = Rspamd(task, keys), RspamdWithoutLanguages(task, keys)
    for daemon in (as_shipped, without):
        daemon.directory = tmp_path
    (left, right) = (set(each.files()["rspamd.conf"].splitlines()) for each in (as_shipped, without))
    (line,) = left ^ right
    assert "," not in without.name, "rspamd reads the path of its socket up to a comma"
    found = re.fullmatch(r'lang_detection \{ languages = "(.*)"; \}', line)
    assert found
    # Nothing is put there.
    assert (Path(found[1]).parent, list(without.files())) == (tmp_path, ["rspamd.conf"])


def test_comparison_refuses_to_run_in_the_network_of_the_machine() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent / 'contrib'}"}
    environment.pop("MAILGUARD_BENCHMARK_NETWORK", None)
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "compare.py"), "--quick"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "benchmarks/run.sh" in done.stderr


@pytest.fixture(autouse=True)
def _no_files_are_left(tmp_path: Path) -> Iterator[None]:
    before = set(BENCHMARKS.iterdir())
    yield
    assert {path for path in BENCHMARKS.iterdir() if path.name != "__pycache__"} <= before
