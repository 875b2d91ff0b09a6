"""`mailguard dmarc check`: what a domain publishes for DMARC, and what is wrong with it (RFC 9989)."""

from __future__ import annotations

import time

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.parameters import FILE, JSON_OPTION, ZONE_OPTION, as_domain
from mailguard.cli.tree_report import show
from mailguard.cli.waiting import waiting
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import evaluate
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.domain import Domain
from mailguard.explain.dmarc_check import Usability, check_domain
from mailguard.pipeline import LOOKUP_TIME_S

__all__ = ["dmarc"]

_EXIT_CODES = {
    Usability.USABLE: ExitCode.PASS,
    Usability.UNUSABLE: ExitCode.FAIL,
    Usability.UNKNOWN: ExitCode.TEMPORARY,
}


@click.group(no_args_is_help=False)
def dmarc() -> None:
    """Look at what domains publish for DMARC."""


@dmarc.command()
@click.argument("domain", callback=as_domain)
@click.option("--compare-7489", is_flag=True, help="Compare with RFC 7489, by a list of public suffixes.")
@click.option(
    "--suffix-list", type=FILE, metavar="FILE", help="That list. Default: the one of the package publicsuffixlist."
)
@ZONE_OPTION
@JSON_OPTION
def check(domain: Domain, compare_7489: bool, suffix_list: str | None, zone: str | None, as_json: bool) -> int:
    """Show which DMARC policy holds for mail from DOMAIN, where it comes from, and what is wrong with it.

    Ends with 0 if there is a record whose policy can be read, 1 if not, 75 if the DNS does not answer.
    """
    if suffix_list is not None and not compare_7489:
        raise click.UsageError("--suffix-list needs --compare-7489")
    suffixes = PublicSuffixes.load(suffix_list) if compare_7489 else None
    with waiting(f"asking the DNS about {domain}"), open_resolver(ResolverConfig(zone_file=zone)) as resolver:
        deadline = time.monotonic() + LOOKUP_TIME_S
        checked = evaluate(lambda answers: check_domain(domain, answers, suffixes), resolver, deadline=deadline)
    show(checked.explanation, as_json=as_json)
    return _EXIT_CODES[checked.usability]
