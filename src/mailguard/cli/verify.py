"""`mailguard verify`: what becomes of a message's DKIM signatures here, and why (RFC 6376 §6).

Left out: SPF and DMARC, which need the SMTP session.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.json_report import print_json
from mailguard.cli.message_file import STANDARD_INPUT, read_message
from mailguard.cli.parameters import FILE, JSON_OPTION, POSIX_SECONDS, ZONE_OPTION
from mailguard.cli.verify_report import Judged, report_json, show
from mailguard.cli.waiting import waiting
from mailguard.dkim.canonical import BodyDigests
from mailguard.dkim.result import DkimStatus
from mailguard.dkim.second_opinion import SecondOpinion, second_opinion
from mailguard.dkim.verify import plan_verification
from mailguard.dkim.verify import verify as verify_plan
from mailguard.dns.answers import Resolver, evaluate
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.message import Message
from mailguard.pipeline import LOOKUP_TIME_S

__all__ = ["verify"]


@click.command()
@click.argument("file", type=FILE, default=STANDARD_INPUT)
@click.option("--second-opinion", "ask_dkimpy", is_flag=True, help="Show the verdict of dkimpy beside ours.")
@JSON_OPTION
@ZONE_OPTION
@click.option("--now", type=POSIX_SECONDS, metavar="SECONDS", help="Judge as at this POSIX time.")
def verify(file: str, ask_dkimpy: bool, as_json: bool, zone: str | None, now: int | None) -> int:
    """Verify the DKIM signatures of the message in FILE (or standard input).

    Ends with 0 if a signature passes and the message is not malformed, such as by two From fields: which of them a
    reader shows, no signature says. With 75 if none passes and a key could not be looked up, 2 if there is none,
    otherwise 1.
    """
    raw = read_message(file)
    message = Message.parse(raw)
    with waiting("asking the DNS for keys"), open_resolver(ResolverConfig(zone_file=zone)) as resolver:
        judged_at = time.time() if now is None else now
        judged, ignored = _judge(message, raw, resolver, now=judged_at, ask_dkimpy=ask_dkimpy)
    code = _exit_code(message, judged, ignored)
    if as_json:
        print_json(report_json(message, judged, ignored, code))
    else:
        show(message, judged, ignored, code)
    return code


def _judge(
    message: Message, raw: bytes, resolver: Resolver, *, now: float, ask_dkimpy: bool
) -> tuple[tuple[Judged, ...], int]:
    """Each verified signature, from the top, and how many there are beyond those."""
    plan = plan_verification(message)
    if message.body is None:
        raise AssertionError("a message that was parsed whole has a body")
    digests = BodyDigests(plan.body_requests)
    digests.update(message.body)
    digests.finish()
    deadline = time.monotonic() + LOOKUP_TIME_S
    results = evaluate(lambda answers: verify_plan(plan, digests, answers, now=now), resolver, deadline=deadline)
    opinions: Sequence[SecondOpinion | None] = (None,) * len(results)
    if ask_dkimpy:
        deadline = time.monotonic() + LOOKUP_TIME_S
        every = evaluate(lambda answers: second_opinion(raw, answers), resolver, deadline=deadline)
        chosen = {id(field) for field, _ in plan.chosen}
        fields = message.named(b"dkim-signature")
        opinions = [opinion for field, opinion in zip(fields, every, strict=True) if id(field) in chosen]
    pairs = zip(results, opinions, strict=True)
    return tuple(Judged(result, opinion) for result, opinion in pairs), plan.ignored


def _exit_code(message: Message, judged: Sequence[Judged], ignored: int) -> ExitCode:
    statuses = {each.result.status for each in judged}
    if not statuses and not ignored:
        return ExitCode.NO_SIGNATURE
    if DkimStatus.PASS in statuses:
        # What makes it malformed need not be signed (RFC 6376 §8.15): no domain answers for all of it.
        return ExitCode.PASS if message.malformed is None else ExitCode.FAIL
    return ExitCode.TEMPORARY if DkimStatus.TEMPERROR in statuses else ExitCode.FAIL
