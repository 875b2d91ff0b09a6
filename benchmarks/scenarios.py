"""What is measured: the scenarios, and who takes part in each.

A scenario is one kind of message at one size and one concurrency. A contender is one daemon, or a chain of them that
together does the same work. No state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compared_daemon import ComparedDaemon, Task
from daemon_dkimpy import DkimpyMilter
from daemon_mailguard import Mailguard, MailguardNative, MailguardNativeWithOneWorker, MailguardWithOneWorker
from daemon_noop import NoopC, NoopLibmilter, NoopNative, NoopPymilter
from daemon_opendkim import OpenDkim
from daemon_opendmarc import OpenDmarc, OpenDmarcWithSpf
from daemon_pyspf import PySpfMilter
from daemon_rspamd import Rspamd, RspamdWithoutLanguages
from milter_replies import Expected

__all__ = [
    "CHAIN",
    "FLOOR",
    "MAILGUARD",
    "NATIVE",
    "NOOP_LIBMILTER",
    "NOOP_NATIVE",
    "NOOP_PYMILTER",
    "ONE_WORKER",
    "OPENDKIM",
    "RSPAMD",
    "RSPAMD_WITHOUT_LANGUAGES",
    "WITH_ONE_WORKER",
    "Contender",
    "Plan",
    "Scenario",
    "contenders",
    "size_name",
]

KB, MB = 1024, 1024 * 1024
SIZES = (2 * KB, 10 * KB, 100 * KB, 1 * MB, 10 * MB)
CONCURRENCIES = (1, 8, 32)
USUAL_CONCURRENCY = 8
USUAL_DOMAINS = 50
MANY_DOMAINS = 1000
LARGE, LARGE_S = 10 * MB, 3.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One daemon, or several that a message passes one after the other."""

    name: str
    daemons: tuple[type[ComparedDaemon], ...]
    whole: bool = True
    """It does all that the task asks for, and takes part everywhere. Parts are measured by themselves only once."""

    def expected(self, running: Sequence[ComparedDaemon]) -> Expected:
        """What has to come out."""
        return running[0].expected if len(running) == 1 else Expected.JUDGED

    @property
    def starts_in_s(self) -> float:
        """About; for an estimate."""
        return sum(daemon.starts_in_s for daemon in self.daemons)


MAILGUARD = "mailguard"
NATIVE = "mailguard, native engine"
ONE_WORKER = ("mailguard, 1 worker", "mailguard, native engine, 1 worker")
RSPAMD = "rspamd"
RSPAMD_WITHOUT_LANGUAGES = "rspamd, no languages"
OPENDKIM = "opendkim"
CHAIN = "opendkim + pyspf-milter + opendmarc"
NOOP_PYMILTER = "no-op (pymilter)"
NOOP_LIBMILTER = "no-op (libmilter engine)"
NOOP_NATIVE = "no-op (native engine)"

_FLOOR = (
    Contender("no-op (C)", (NoopC,)),
    Contender(NOOP_PYMILTER, (NoopPymilter,)),
    Contender(NOOP_LIBMILTER, (NoopLibmilter,)),
    Contender(NOOP_NATIVE, (NoopNative,)),
)
FLOOR = tuple(each.name for each in _FLOOR)
_SIGNERS = (
    *_FLOOR,
    Contender(OPENDKIM, (OpenDkim,)),
    Contender("dkimpy-milter", (DkimpyMilter,)),
    Contender(RSPAMD, (Rspamd,)),
    Contender(RSPAMD_WITHOUT_LANGUAGES, (RspamdWithoutLanguages,)),
    Contender(MAILGUARD, (Mailguard,)),
    Contender(NATIVE, (MailguardNative,)),
)
_JUDGES = (
    *_FLOOR,
    Contender(CHAIN, (OpenDkim, PySpfMilter, OpenDmarc)),
    Contender(RSPAMD, (Rspamd,)),
    Contender(RSPAMD_WITHOUT_LANGUAGES, (RspamdWithoutLanguages,)),
    Contender(MAILGUARD, (Mailguard,)),
    Contender(NATIVE, (MailguardNative,)),
    Contender("opendkim alone (DKIM)", (OpenDkim,), whole=False),
    Contender("dkimpy-milter alone (DKIM)", (DkimpyMilter,), whole=False),
    Contender("pyspf-milter alone (SPF)", (PySpfMilter,), whole=False),
    Contender("opendmarc alone (own SPF, no DKIM)", (OpenDmarcWithSpf,), whole=False),
)
WITH_ONE_WORKER = tuple(
    Contender(name, (daemon,))
    for name, daemon in zip(ONE_WORKER, (MailguardWithOneWorker, MailguardNativeWithOneWorker), strict=True)
)


def contenders(task: Task) -> list[Contender]:
    """Who can do it."""
    group = _JUDGES if task is Task.JUDGE else _SIGNERS
    return [each for each in group if all(task in daemon.tasks for daemon in each.daemons)]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the results."""

    task: Task
    size: int
    concurrency: int
    signatures: tuple[str, ...] = ("rsa",)
    """That messages from outside carry."""
    domains: int = USUAL_DOMAINS
    """From which messages from outside come, in turn."""
    with_parts: bool = False

    @property
    def name(self) -> str:
        """For people."""
        kind = self.task.value
        if self.task is Task.JUDGE:
            kind += ", two signatures" if len(self.signatures) == 2 else ""
            kind += f", {self.domains} domain{'s' * (self.domains > 1)}" if self.domains != USUAL_DOMAINS else ""
        return f"{kind}, {size_name(self.size)}, concurrency {self.concurrency}"

    @property
    def samples(self) -> int:
        """How many different messages there are: enough that no cache of whole messages could help."""
        if self.task is Task.JUDGE and self.domains == MANY_DOMAINS:
            return MANY_DOMAINS
        return max(3, min(100, 16 * MB // self.size))

    def takes_part(self, contender: Contender) -> bool:
        return contender.whole or self.with_parts


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    """For each measurement."""
    scenarios: tuple[Scenario, ...]
    cold_messages: int
    memory_messages: int
    postfix_messages: int
    postfix_sessions: tuple[int, ...]
    only: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    """By section and row: the contenders that are measured there. In rows that are not named here it is all."""

    def wants(self, section: str, row: str, contender: str) -> bool:
        """Whether it is measured there."""
        return contender in self.only.get((section, row), (contender,))

    def seconds_for(self, scenario: Scenario) -> float:
        """For each measurement. Of large messages there have to be some ten, of each contender."""
        return max(self.seconds, LARGE_S) if scenario.size >= LARGE else self.seconds

    @classmethod
    def full(cls) -> Plan:
        """Every size with every concurrency."""
        return cls(
            rounds=5,
            seconds=3.0,
            scenarios=_scenarios(SIZES, CONCURRENCIES),
            cold_messages=100,
            memory_messages=100_000,
            postfix_messages=2_000,
            postfix_sessions=(1, 10, 50),
        )

    @classmethod
    def quick(cls) -> Plan:
        """To see that everything works: minutes, and figures that are not to be quoted."""
        return cls(
            rounds=2,
            seconds=0.7,
            scenarios=_scenarios((2 * KB, 100 * KB), (USUAL_CONCURRENCY,)),
            cold_messages=15,
            memory_messages=4_000,
            postfix_messages=150,
            postfix_sessions=(10,),
        )


def _scenarios(sizes: Sequence[int], concurrencies: Sequence[int]) -> tuple[Scenario, ...]:
    found = [
        Scenario(task, size, concurrency)
        for task in (Task.SIGN_RSA, Task.SIGN_ED25519, Task.SIGN_BOTH)
        for size in sizes
        for concurrency in concurrencies
    ]
    for signatures in (("rsa",), ("rsa", "ed25519")):
        found += [
            Scenario(
                Task.JUDGE,
                size,
                concurrency,
                signatures,
                with_parts=(size, concurrency, len(signatures)) == (sizes[0], USUAL_CONCURRENCY, 1),
            )
            for size in sizes
            for concurrency in concurrencies
        ]
    found += [Scenario(Task.JUDGE, sizes[0], USUAL_CONCURRENCY, domains=domains) for domains in (1, MANY_DOMAINS)]
    return tuple(found)


def size_name(octets: int) -> str:
    """2 KB, 1 MB."""
    return f"{octets // MB} MB" if octets >= MB else f"{octets // KB} KB"
