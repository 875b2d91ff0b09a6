"""`mailguard mta-sts`: what a domain's MTA-STS policy is to senders, and whether its servers satisfy it."""

from __future__ import annotations

import time

import click

from mailguard.cli.dane_report import EXIT_CODES
from mailguard.cli.dane_settings import LOOKUP_TIME_S, RESOLVER_CONFIG_OPTION, settings
from mailguard.cli.dane_visits import Visit, addresses_of, starttls, visits
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.mta_sts_report import MxHosts, hosts_of, sts_tree
from mailguard.cli.parameters import FILE, JSON_OPTION, as_domain
from mailguard.cli.tree_report import show
from mailguard.cli.waiting import waiting
from mailguard.dane.destination import SMTP_PORT
from mailguard.dns.answers import Answers, evaluate
from mailguard.dns.live import open_resolver
from mailguard.domain import Domain
from mailguard.mtasts.record import Discovery, DiscoveryStatus, discover

__all__ = ["mta_sts"]


@click.group("mta-sts", no_args_is_help=False)
def mta_sts() -> None:
    """MTA-STS: a domain's policy, and whether its servers satisfy it."""


@mta_sts.command()
@click.argument("domain", callback=as_domain)
@RESOLVER_CONFIG_OPTION
@click.option("--ca-file", type=FILE, metavar="FILE", help="Trust these authorities (PEM) in place of the system's.")
@click.option("--no-connect", is_flag=True, help="Connect to no mail server. The policy is fetched all the same.")
@JSON_OPTION
def check(domain: Domain, config_file: str | None, ca_file: str | None, no_connect: bool, as_json: bool) -> ExitCode:
    """Show the MTA-STS record and policy of DOMAIN, and what each of its servers shows in TLS.

    Ends with 0 if there is a policy that every server satisfies, 1 if not, 75 if something cannot be found out now.
    """
    from mailguard.mtasts.fetch import PolicyFetcher

    found = settings(config_file)
    authorities = ca_file or found.ca_file
    with waiting(f"asking the DNS and the servers of {domain}"), open_resolver(found.resolver) as resolver:

        def look_up(answers: Answers) -> tuple[Discovery, MxHosts]:
            return discover(domain, answers), hosts_of(domain, answers)

        # What is wrong with --ca-file is said in any case.
        fetcher = PolicyFetcher(
            resolver, ca_file=authorities, allowed_networks=found.allowed_networks, port=found.https_port
        )
        deadline = time.monotonic() + LOOKUP_TIME_S
        discovery, hosts = evaluate(look_up, resolver, deadline=deadline)
        fetched = None
        if discovery.status is DiscoveryStatus.FOUND:
            fetched = fetcher.fetch(domain)
        shown = None
        if not no_connect:
            client = starttls(authorities)
            deadline = time.monotonic() + LOOKUP_TIME_S
            addresses = addresses_of([name for _, name in hosts.named], resolver, deadline=deadline)
            shown = visits(client, SMTP_PORT, [Visit(name, name, addresses[name]) for _, name in hosts.named])
    tree, mark = sts_tree(domain, discovery, fetched, hosts, shown, now=time.time())
    show(tree, as_json=as_json)
    return EXIT_CODES[mark]
