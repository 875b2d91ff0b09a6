"""One measurement: a contender under load for a while, and what came of it.

Replies are judged when the clock has stopped. A wrong reply, a milter that hangs up or one that does not start makes
the measurement void: it says why and has no figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench_keys import BenchKeys
from compared_daemon import ComparedDaemon
from load_generator import Load, LoadGenerator
from milter_replies import Expected, check_all, check_signatures
from process_usage import Memory
from sample_mail import Sample
from spread import percentile

__all__ = ["Measured", "Subject", "measure"]

# What a daemon does after its last reply belongs to the messages: closing, and logging, for which mailguard gathers
# lines for a tenth of a second.
SETTLING_S = 0.25
VERIFIED_SIGNATURES = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """Times are in seconds, memory in octets."""

    messages: int
    seconds: float
    cpu_s: dict[str, float]
    """User and system time of each daemon."""
    p50_s: float
    p95_s: float
    p99_s: float
    memory: Memory

    @property
    def cpu_per_message_s(self) -> float:
        return sum(self.cpu_s.values()) / self.messages

    @property
    def messages_per_second(self) -> float:
        return self.messages / self.seconds


@dataclass(frozen=True, slots=True)
class Subject:
    """A contender that runs, and its load."""

    daemons: Sequence[ComparedDaemon]
    samples: Sequence[Sample]
    expected: Expected
    keys: BenchKeys

    def check(self, load: Load) -> None:
        """Raise WrongReply unless all is right."""
        check_all(load.answers, self.samples, self.expected)
        if self.expected is Expected.SIGNED:
            step = max(1, len(load.answers) // VERIFIED_SIGNATURES)
            for answered in load.answers[::step][:VERIFIED_SIGNATURES]:
                check_signatures(answered, self.samples[answered.number], self.keys, now=time.time())


def measure(
    subject: Subject,
    generator: LoadGenerator,
    key: object,
    *,
    concurrency: int,
    seconds: float = 3600.0,
    count: int = 0,
) -> Measured:
    """Load for `seconds` or with `count` messages. Raises WrongReply, LoadError, DaemonError."""
    prepared = generator.prepare(key, subject.samples, [daemon.negotiated() for daemon in subject.daemons])
    before = {daemon.name: daemon.cpu_seconds() for daemon in subject.daemons}
    load = generator.run(prepared, concurrency=concurrency, seconds=seconds, count=count)
    time.sleep(SETTLING_S)
    used = {daemon.name: daemon.cpu_seconds() - before[daemon.name] for daemon in subject.daemons}
    subject.check(load)
    latencies = [answered.latency_s for answered in load.answers]
    memory = [daemon.memory() for daemon in subject.daemons]
    return Measured(
        messages=load.messages,
        seconds=load.seconds,
        cpu_s=used,
        p50_s=percentile(latencies, 50),
        p95_s=percentile(latencies, 95),
        p99_s=percentile(latencies, 99),
        memory=Memory(rss=sum(each.rss for each in memory), pss=sum(each.pss for each in memory)),
    )
