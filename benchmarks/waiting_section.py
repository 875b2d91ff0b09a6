"""Mail that waits for the DNS, and what it does to other mail: latency.

Every message comes from a domain that nobody has asked for yet. Two cases:

- 60 sessions begin together, and the DNS takes 200 ms for each answer: nobody can be quicker than that, and who is
  much slower lets messages wait for each other;
- mail arrives in 8 sessions, and the DNS takes 20 ms: by itself, and while 10 more sessions wait for one zone whose
  answers take 5 s. What becomes of the mail from that zone is not judged, but that it waits meanwhile is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench_record import Context, Record
from cold_section import waits
from compared_daemon import ComparedDaemon, Task
from load_section import started
from measurement import Measured, Subject, measure
from milter_replies import WrongReply
from name_server import NameServer, SlowZone
from sample_mail import Sample, domain_name, incoming, records_of, zone_text
from scenarios import MAILGUARD, NATIVE, RSPAMD, Contender, Plan, contenders

__all__ = ["ALONE", "AT_ONCE", "BESIDE_WAITING", "SECTION", "waiting_section", "waiting_takes"]

SECTION = "waiting"
TAKING_PART = (RSPAMD, MAILGUARD, NATIVE)
SIZE = 2048
SESSIONS, SLOW_DNS_S = 60, 0.2
CONCURRENCY, USUAL_DNS_S, MESSAGES = 8, 0.02, 300
WAITING = 10
SLOW_ZONE = SlowZone("slow.example", 5.0)
# For the mail from the slow zone to have asked, well before its first answer.
HEAD_START_S = 0.5
# For the estimate: a round of one contender, in both cases.
ROUND_S = 12.0

AT_ONCE = f"inbound, {SESSIONS} sessions at once, DNS {SLOW_DNS_S * 1000:.0f} ms"
ALONE = f"inbound, {CONCURRENCY} sessions, DNS {USUAL_DNS_S * 1000:.0f} ms"
BESIDE_WAITING = f"{ALONE}, while {WAITING} wait for a zone that takes {SLOW_ZONE.delay_s:.0f} s"

Running = Mapping[Contender, Sequence[ComparedDaemon]]


def waiting_section(context: Context) -> list[Record]:
    """Both cases."""
    records: list[Record] = []
    # The first round wakes everybody up.
    rounds = context.plan.rounds + 1
    zone = zone_text(range(rounds * SESSIONS), context.keys)
    with NameServer(zone, delay_s=SLOW_DNS_S) as server, ExitStack() as stack:
        context.progress.heading(AT_ONCE)
        records += _at_once(context, server, _start(context, stack, records))
    zone = zone_text(range(rounds * 2 * MESSAGES), context.keys)
    zone += records_of([domain_name(number, SLOW_ZONE.name) for number in range(rounds * WAITING)], context.keys)
    with NameServer(zone, delay_s=USUAL_DNS_S, slow=SLOW_ZONE), ExitStack() as stack:
        context.progress.heading(BESIDE_WAITING)
        records += _beside_waiting(context, _start(context, stack, records))
    return records


def waiting_takes(plan: Plan) -> float:
    """Seconds, about."""
    return sum(2 * each.starts_in_s + (plan.rounds + 1) * ROUND_S for each in _taking_part())


def _taking_part() -> list[Contender]:
    return [contender for contender in contenders(Task.JUDGE) if contender.name in TAKING_PART]


def _start(context: Context, stack: ExitStack, records: list[Record]) -> Running:
    return started(context, stack, Task.JUDGE, _taking_part(), records)


def _mail(context: Context, first: int, count: int, *, parent: str = "example") -> list[Sample]:
    """Each from a domain of its own."""
    domains = range(first, first + count)
    return incoming(SIZE, count, domains=domains, keys=context.keys, algorithms=("rsa",), parent=parent)


def _in_turn(running: Running, number: int) -> list[Contender]:
    turn = number % max(len(running), 1)
    return [*list(running)[turn:], *list(running)[:turn]]


def _note(context: Context, record: Record, measured: Measured) -> None:
    record.runs.append(measured)
    context.progress.line(
        f"{record.contender:36} p50 {measured.p50_s * 1e3:6.1f} ms, p99 {measured.p99_s * 1e3:6.1f} ms: {record.row}"
    )


def _at_once(context: Context, server: NameServer, running: Running) -> list[Record]:
    records = {contender: Record(SECTION, AT_ONCE, contender.name) for contender in running}
    for number in range(context.plan.rounds + 1):
        mail = _mail(context, number * SESSIONS, SESSIONS)
        for contender in _in_turn(running, number):
            record = records[contender]
            known = len(server.queries())
            subject = Subject(running[contender], mail, contender.expected(running[contender]), context.keys)
            # Not repeated if it is void: it would not be new any more.
            measured = context.attempt(
                record, measure, subject, context.generator, contender, concurrency=SESSIONS, count=SESSIONS
            )
            if measured is None or number == 0:
                continue
            queries = server.queries()[known:]
            rounds = waits(queries, [sample.domain for sample in mail], delay_s=SLOW_DNS_S)
            record.figures.setdefault("queries a message", []).append(len(queries) / SESSIONS)
            record.figures.setdefault("rounds a message", []).append(sum(rounds) / len(rounds))
            _note(context, record, measured)
        context.generator.forget()
    return list(records.values())


def _beside_waiting(context: Context, running: Running) -> list[Record]:
    records = {
        (contender, row): Record(SECTION, row, contender.name)
        for row in (ALONE, BESIDE_WAITING)
        for contender in running
    }
    for number in range(context.plan.rounds + 1):
        mail = {
            row: _mail(context, (2 * number + at) * MESSAGES, MESSAGES)
            for at, row in enumerate((ALONE, BESIDE_WAITING))
        }
        slow = _mail(context, number * WAITING, WAITING, parent=SLOW_ZONE.name)
        for contender in _in_turn(running, number):
            for row, act in ((ALONE, _alone), (BESIDE_WAITING, _beside)):
                daemons = running[contender]
                subject = Subject(daemons, mail[row], contender.expected(daemons), context.keys)
                record = records[contender, row]
                measured = context.attempt(record, act, context, subject, (contender, row), slow)
                if measured is not None and number > 0:
                    _note(context, record, measured)
        context.generator.forget()
    return list(records.values())


def _alone(context: Context, subject: Subject, key: object, slow: Sequence[Sample]) -> Measured:
    return measure(subject, context.generator, key, concurrency=CONCURRENCY, count=MESSAGES)


def _beside(context: Context, subject: Subject, key: object, slow: Sequence[Sample]) -> Measured:
    """Raises WrongReply, too, if the mail from the slow zone did not wait."""
    generator = context.generator
    waiting = generator.prepare((key, "slow"), slow, [daemon.negotiated() for daemon in subject.daemons])
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(generator.run, waiting, concurrency=WAITING, count=WAITING)
        time.sleep(HEAD_START_S)
        measured = _alone(context, subject, key, slow)
        if load.done():
            raise WrongReply(f"mail from a zone that takes {SLOW_ZONE.delay_s:g} s has not waited for it")
        load.result()
    return measured
