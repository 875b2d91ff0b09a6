"""`mailguard check DOMAIN`: one scorecard of what a domain publishes about its mail."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from mailguard.cli.dane_settings import settings
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import config_if_any
from mailguard.cli.parameters import FILE, JSON_OPTION, as_domain, as_selectors
from mailguard.cli.standard_error import note
from mailguard.cli.tree_report import show_scorecard
from mailguard.cli.waiting import waiting
from mailguard.config import DEFAULT_PATH
from mailguard.configured_dns import resolver_config
from mailguard.dns.answers import Resolver, evaluate
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.dns.question import Question, RecordType
from mailguard.dns.validation import check_validation
from mailguard.domain import Domain
from mailguard.errors import MissingExtraError
from mailguard.key_places import keys_of
from mailguard.mtasts.result import FetchOutcome
from mailguard.scorecard.domain_card import domain_card

__all__ = ["check"]

# All look-ups together: nothing waits for it but the one who asks.
LOOKUP_TIME_S = 20.0


@click.command()
@click.argument("domain", callback=as_domain)
@click.option(
    "--selector", "selectors", callback=as_selectors, multiple=True, metavar="NAME", help="A DKIM selector."
)
@click.option(
    "-c",
    "--config",
    "config_file",
    type=FILE,
    metavar="CONFIG",
    help=f"Take selectors and resolver from it. [{DEFAULT_PATH}]",
)
@click.option(
    "--zone", type=FILE, metavar="FILE", help="Take the DNS answers from this master file, and fetch nothing."
)
@click.option("--no-fetch", is_flag=True, help="Do not fetch the policy file of MTA-STS.")
@JSON_OPTION
def check(
    domain: Domain, selectors: Sequence[str], config_file: str | None, zone: str | None, no_fetch: bool, as_json: bool
) -> ExitCode:
    """Show what DOMAIN publishes for MX, SPF, DKIM, DMARC, MTA-STS, TLSRPT and DANE, and what to do about it.

    Each part is ok, a note (something could be better), a problem, or unknown (the DNS did not answer). Ends with 0
    if there is no problem, 1 if there is one, 75 if something is unknown and nothing else is wrong.
    """
    asked, known = ResolverConfig(zone_file=zone), list(selectors)
    config = config_if_any(config_file)
    if config is not None:
        known += [selector for _, selector, _ in keys_of(config, domain)]
        asked = resolver_config(config.dns, zone_file=zone)
    with waiting(f"asking the DNS about {domain}"), open_resolver(asked) as resolver:
        fetched = None if no_fetch or asked.zone_file is not None else _policy_file(domain, resolver)
        deadline = time.monotonic() + LOOKUP_TIME_S
        validation = check_validation(asked, deadline=deadline, probe=settings(config_file).probe).status
        selected = tuple(dict.fromkeys(known))
        card = evaluate(
            lambda answers: domain_card(domain, selected, answers, policy_file=fetched, resolver=validation),
            resolver,
            deadline=deadline,
        )
    return show_scorecard(card, as_json=as_json)


def _policy_file(domain: Domain, resolver: Resolver) -> FetchOutcome | None:
    """None where the domain has no MTA-STS record, or where nothing can be fetched."""
    question = Question(f"_mta-sts.{domain}", RecordType.TXT)
    answers = resolver.resolve([question], deadline=time.monotonic() + LOOKUP_TIME_S)
    if not answers[question].texts():
        return None
    try:
        from mailguard.mtasts.fetch import PolicyFetcher
    except MissingExtraError as error:
        note(str(error))
        return None
    return PolicyFetcher(resolver).fetch(domain)
