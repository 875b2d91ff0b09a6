"""What the milters answered, and whether it is right: a daemon must not win by doing less.

load.c keeps, for each message, its latency and the packets that the milters sent at its end. They are judged here,
after the clock was stopped:

- signing: exactly the signatures that were asked for were inserted, by their d= and a=, and the message is accepted;
  of a sample the signatures are verified by mailguard and by dkimpy, in the message as Postfix would deliver it;
- judging: the inserted Authentication-Results say dkim=pass for each signature, spf=pass and dmarc=pass, each for the
  right domain. A part of the chain is judged by its own part of that.

A message that fails makes the whole run void. No state.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

import dkim

from bench_keys import BenchKeys
from mailguard import Message, ZoneResolver, verify_dkim
from sample_mail import AUTHSERV_ID, Sample

__all__ = ["Answered", "Expected", "WrongReply", "check", "check_all", "check_signatures", "read_replies"]

_RESULT = struct.Struct("=IIQ")
INSERT, ADD, CHANGE = b"i", b"h", b"m"
ACCEPTING = (b"a", b"c")
ALGORITHMS = {"rsa": "rsa-sha256", "ed25519": "ed25519-sha256"}


class Expected(Enum):
    """What a daemon, or a chain of them, has to do with a message."""

    SIGNED = "signed"
    JUDGED = "judged"
    """SPF, DKIM and DMARC."""
    SPF = "spf"
    DKIM = "dkim"
    DMARC = "dmarc"
    ACCEPTED = "accepted"
    """Nothing but to let it pass: for a milter that does nothing."""


class WrongReply(Exception):
    """A milter did not do what was expected of it: the run is void."""


@dataclass(slots=True)
class Answered:
    """The answer to one message."""

    number: int
    """Of the message in the script."""
    latency_s: float
    inserted: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Fields that were inserted on top or added, in order; values as the milter gave them."""
    removed: int = 0
    """Fields that were changed or deleted."""
    verdicts: list[bytes] = field(default_factory=list)
    """The last packet of each milter."""


def read_replies(octets: bytes) -> Iterator[Answered]:
    """The answers in a file of load.c's."""
    view = memoryview(octets)
    at = 0
    while at < len(octets):
        number, length, latency_ns = _RESULT.unpack_from(view, at)
        at += _RESULT.size
        yield _answered(number, latency_ns / 1e9, bytes(view[at : at + length]))
        at += length


def _answered(number: int, latency_s: float, packets: bytes) -> Answered:
    found = Answered(number, latency_s)
    at = 0
    while at < len(packets):
        (length,) = struct.unpack_from("!I", packets, at + 1)
        packet = packets[at + 5 : at + 5 + length]
        at += 5 + length
        kind = packet[:1]
        if kind in (INSERT, ADD):
            name, value, _ = packet[5 if kind == INSERT else 1 :].split(b"\0", 2)
            found.inserted.append((name, value))
        elif kind == CHANGE:
            found.removed += 1
        else:
            found.verdicts.append(packet)
    return found


def check(answered: Answered, sample: Sample, expected: Expected) -> None:
    """Raise WrongReply unless the answer is the expected one."""
    if answered.removed:
        raise WrongReply("a header field was changed or removed")
    for verdict in answered.verdicts:
        if verdict[:1] not in ACCEPTING:
            raise WrongReply(f"the message was not accepted: {verdict!r}")
    _CHECKS[expected](answered, sample)


def _accepted(answered: Answered, sample: Sample) -> None:
    if not answered.inserted:
        raise WrongReply("no header field was inserted")


def _signed(answered: Answered, sample: Sample) -> None:
    signatures = [_tags(value) for name, value in answered.inserted if name.lower() == b"dkim-signature"]
    got = sorted((tags.get("d", ""), tags.get("a", "")) for tags in signatures)
    wanted = sorted((sample.domain, ALGORITHMS[name]) for name in sample.algorithms)
    if got != wanted:
        raise WrongReply(f"signatures: {wanted} were to be made, {got} were")


def _tags(value: bytes) -> dict[str, str]:
    text = re.sub(r"\s+", "", value.decode("ascii", "replace"))
    return dict(tag.partition("=")[::2] for tag in text.split(";") if tag)


def _results(answered: Answered) -> list[str]:
    """The clauses of all Authentication-Results of ours, comments and folds removed."""
    clauses = []
    for name, value in answered.inserted:
        if name.lower() != b"authentication-results":
            continue
        text = re.sub(r"\([^()]*\)", " ", " ".join(value.decode("ascii", "replace").split()))
        identity, *rest = (clause.strip() for clause in text.split(";"))
        if identity == AUTHSERV_ID:
            clauses += rest
    return clauses


def _judged(*methods: str) -> Callable[[Answered, Sample], None]:
    def judge(answered: Answered, sample: Sample) -> None:
        clauses = _results(answered)
        for method in methods:
            wanted = len(sample.algorithms) if method == "dkim" else 1
            got = [clause for clause in clauses if clause.startswith(f"{method}=pass ")]
            right = [clause for clause in got if sample.domain in re.split(r"[\s=@<>]", clause)]
            # Whether the HELO name has an SPF record is of no importance here.
            wrong = [
                clause for clause in clauses if re.match(f"{method}=(?!pass )", clause) and "smtp.helo=" not in clause
            ]
            if len(right) < wanted or wrong:
                raise WrongReply(f"{method}=pass for {sample.domain} is wanted {wanted} times: {clauses}")

    return judge


_CHECKS: dict[Expected, Callable[[Answered, Sample], None]] = {
    Expected.ACCEPTED: _accepted,
    Expected.SIGNED: _signed,
    Expected.JUDGED: _judged("spf", "dkim", "dmarc"),
    Expected.SPF: _judged("spf"),
    Expected.DKIM: _judged("dkim"),
    Expected.DMARC: _judged("dmarc"),
}


def check_signatures(answered: Answered, sample: Sample, keys: BenchKeys, *, now: float) -> None:
    """Raise WrongReply unless mailguard and dkimpy both verify every signature that was inserted."""
    raw = _as_delivered(answered, sample)
    records = {f"{selector}._domainkey.{sample.domain}": record for selector, record in keys.records().items()}
    resolver = ZoneResolver({name: {"TXT": [record]} for name, record in records.items()})
    results = verify_dkim(Message.parse(raw), resolver=resolver, now=now)
    if [result.status.value for result in results] != ["pass"] * len(sample.algorithms):
        raise WrongReply(f"mailguard does not verify a signature: {results}")
    for index in range(len(results)):
        if not dkim.DKIM(raw).verify(index, dnsfunc=_dns_function(records)):
            raise WrongReply(f"dkimpy does not verify the signature number {index}")


def _dns_function(records: dict[str, str]) -> Callable[..., bytes | None]:
    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        record = records.get(name.decode().rstrip("."))
        return None if record is None else record.encode()

    return look_up


def _as_delivered(answered: Answered, sample: Sample) -> bytes:
    """With the inserted fields on top, as Postfix writes them."""
    top = []
    for name, value in reversed(answered.inserted):
        blank = b"" if value[:1] in (b" ", b"\t") else b" "
        top.append(b"%b:%b%b\r\n" % (name, blank, value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))
    return b"".join(top) + sample.raw


def check_all(answers: Sequence[Answered], samples: Sequence[Sample], expected: Expected) -> None:
    """Raise WrongReply at the first wrong answer."""
    for answered in answers:
        check(answered, samples[answered.number], expected)
