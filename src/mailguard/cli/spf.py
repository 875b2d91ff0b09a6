"""`mailguard spf check`: may this client send for this domain, by which term of which record (RFC 7208)."""

from __future__ import annotations

import time

import click

from mailguard.cli.client_options import ClientAddress, client_options, reverse_path
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.parameters import JSON_OPTION, POSIX_SECONDS, ZONE_OPTION
from mailguard.cli.tree_report import show
from mailguard.cli.waiting import waiting
from mailguard.dns.answers import Answers, evaluate
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.envelope import Envelope
from mailguard.explain import Explanation
from mailguard.explain.spf_node import spf_node
from mailguard.pipeline import LOOKUP_TIME_S
from mailguard.spf.check import check_host
from mailguard.spf.result import SpfIdentity, SpfStatus

__all__ = ["spf"]


@click.group(no_args_is_help=False)
def spf() -> None:
    """Look at what domains publish for SPF."""


@spf.command()
@client_options
@ZONE_OPTION
@click.option("--now", type=POSIX_SECONDS, metavar="SECONDS", help="Check as at this POSIX time.")
@JSON_OPTION
def check(
    ip: ClientAddress | None,
    helo: str | None,
    mail_from: str | None,
    zone: str | None,
    now: int | None,
    as_json: bool,
) -> int:
    """Check whether the client may send for the domain of the reverse path, or without --mail-from for its HELO name.

    Shows the records that were used, and how many of the look-ups that RFC 7208 allows they took. Ends with 0 for a
    pass, 75 if the DNS does not answer, otherwise 1.
    """
    if ip is None:
        raise click.UsageError("--ip is missing")
    if not mail_from and helo is None:
        raise click.UsageError("give --mail-from, or --helo for the HELO name and for a null reverse path")
    identity = SpfIdentity.HELO if mail_from is None else SpfIdentity.MAIL_FROM
    envelope = Envelope(
        client_ip=ip,
        helo=(helo or "").encode("utf-8", "surrogateescape"),
        mail_from=reverse_path(mail_from or ""),
    )
    checked_at = time.time() if now is None else float(now)

    def checked(answers: Answers) -> tuple[SpfStatus, Explanation]:
        result = check_host(envelope, answers, identity=identity, now=checked_at)
        known = {answer.question: answer for answer in answers.consumed}
        return result.status, spf_node(result, envelope, known)

    with waiting("asking the DNS"), open_resolver(ResolverConfig(zone_file=zone)) as resolver:
        status, explanation = evaluate(checked, resolver, deadline=time.monotonic() + LOOKUP_TIME_S)
    show(explanation, as_json=as_json)
    if status is SpfStatus.TEMPERROR:
        return ExitCode.TEMPORARY
    return ExitCode.PASS if status is SpfStatus.PASS else ExitCode.FAIL
