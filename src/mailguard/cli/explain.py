"""`mailguard explain`: why a message is judged as it is, from its From down to each record that was used.

A message in a file is judged anew, with the DNS as it is now; one that the daemon has judged, by its queue id, with
the answers of then (recorded.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from mailguard.cli.client_options import ClientAddress, client_options, reverse_path
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.message_file import STANDARD_INPUT, read_message
from mailguard.cli.parameters import FILE, JSON_OPTION, POSIX_SECONDS, ZONE_OPTION
from mailguard.cli.recorded import judge_recorded, looks_like_queue_id
from mailguard.cli.tree_report import show
from mailguard.cli.waiting import waiting
from mailguard.config import DEFAULT_PATH, load
from mailguard.configured_dns import resolver_config
from mailguard.dmarc.result import DmarcVerdict
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.explain import explain as explain_outcome
from mailguard.inbound import InboundRules
from mailguard.judging import inbound_rules, policy_of
from mailguard.outcome import Outcome
from mailguard.pipeline import authenticate
from mailguard.policy import Policy, decide
from mailguard.rule import Disposition

__all__ = ["explain"]

_EXIT_CODES = {
    Disposition.ACCEPT: ExitCode.PASS,
    Disposition.HEADER: ExitCode.PASS,
    Disposition.QUARANTINE: ExitCode.FAIL,
    Disposition.REJECT: ExitCode.FAIL,
    Disposition.TEMPFAIL: ExitCode.TEMPORARY,
}


@click.command()
@click.argument("message", type=FILE, default=STANDARD_INPUT)
@client_options
@click.option(
    "-c", "--config", "config_file", type=FILE, metavar="CONFIG", help="Judge by this configuration of the daemon."
)
@ZONE_OPTION
@click.option("--now", type=POSIX_SECONDS, metavar="SECONDS", help="Judge as at this POSIX time.")
@JSON_OPTION
def explain(
    message: str,
    ip: ClientAddress | None,
    helo: str | None,
    mail_from: str | None,
    config_file: str | None,
    zone: str | None,
    now: int | None,
    as_json: bool,
) -> int:
    """Explain how the message in the file MESSAGE (or standard input) is judged, and what to do about it.

    MESSAGE may also be a queue id of Postfix: of a message that the daemon has judged, if [trace] is enabled in its
    configuration (-c). It is judged with the DNS answers of then. A file of that name comes first.

    SPF needs --ip and --mail-from, and --helo too if the reverse path is null. Without them, DMARC is judged by DKIM
    alone. Without -c, the message is judged by the default policy: what DMARC asks for is done.

    Ends with 0 if the message would be accepted, 1 if it would be refused or quarantined, 75 if it would be
    refused for a time because the DNS does not answer.
    """
    if looks_like_queue_id(message) and not Path(message).exists():
        if any(option is not None for option in (ip, helo, mail_from, zone, now)):
            raise click.UsageError(
                f"there is no file {message}, and for a queue id all but -c and --json is recorded"
            )
        return _explain_recorded(message, config_file or DEFAULT_PATH, as_json=as_json)
    if (ip is None) != (mail_from is None):
        raise click.UsageError(
            f"--ip and --mail-from go together; {'--ip' if ip is None else '--mail-from'} is missing"
        )
    if helo is not None and ip is None:
        raise click.UsageError("--helo needs --ip and --mail-from")
    raw = read_message(message)
    rules, policy, resolver_config = _settings(config_file, zone)
    with waiting("asking the DNS"), open_resolver(resolver_config) as resolver:
        outcome = authenticate(
            raw,
            ip=ip,
            helo=helo or "",
            mail_from=reverse_path(mail_from or ""),
            resolver=resolver,
            now=now,
            policy=policy,
            rules=rules,
        )
    return _show_outcome(outcome if ip is not None else _without_client(outcome, policy), as_json=as_json)


def _show_outcome(outcome: Outcome, *, as_json: bool) -> ExitCode:
    """Print why, and say with which exit code to end. For an outcome from anywhere."""
    show(explain_outcome(outcome.message, outcome.judged, outcome.decision, answers=outcome.answers), as_json=as_json)
    return _EXIT_CODES[outcome.decision.would]


def _explain_recorded(queue_id: str, config_file: str, *, as_json: bool) -> ExitCode:
    recorded = judge_recorded(queue_id, config_file)
    for note in recorded.notes:
        click.echo(f"note: {note}", err=as_json)
    return _show_outcome(recorded.outcome, as_json=as_json)


def _settings(config_file: str | None, zone: str | None) -> tuple[InboundRules, Policy, ResolverConfig]:
    if config_file is None:
        # The client's name costs two look-ups, and tells a reader more than its address.
        return InboundRules(checks_iprev=True), Policy(), ResolverConfig(zone_file=zone)
    config = load(config_file)
    return inbound_rules(config), policy_of(config), resolver_config(config.dns, zone_file=zone)


def _without_client(outcome: Outcome, policy: Policy) -> Outcome:
    """SPF was asked about nobody: what it says of that is no result, and no rule is to follow from it."""
    judged = outcome.judged
    judged = replace(
        judged,
        evidence=replace(judged.evidence, spf=None, helo_spf=None),
        verdict=_said_without_spf(judged.verdict) if judged.verdict is not None else None,
        verdicts=tuple(map(_said_without_spf, judged.verdicts)),
    )
    return replace(outcome, judged=judged, decision=decide(judged, policy=policy))


def _said_without_spf(verdict: DmarcVerdict) -> DmarcVerdict:
    return replace(verdict, detail=f"without SPF, which was not checked: {verdict.detail}")
