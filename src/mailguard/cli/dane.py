"""`mailguard dane`: what a domain's TLSA records and certificates are to senders, and how to change them safely."""

from __future__ import annotations

import os
import time

import click

from mailguard.cli.dane_certificates import certificate_nodes, read_chain, record_for, record_words
from mailguard.cli.dane_report import EXIT_CODES, dane_tree
from mailguard.cli.dane_rollover import rollover_tree
from mailguard.cli.dane_settings import LOOKUP_TIME_S, RESOLVER_CONFIG_OPTION, Settings, settings, validating
from mailguard.cli.dane_visits import Visit, addresses_of, starttls, visits
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.json_report import print_json
from mailguard.cli.parameters import FILE, JSON_OPTION, as_domain
from mailguard.cli.standard_error import note, tell
from mailguard.cli.tree_report import show
from mailguard.cli.waiting import waiting
from mailguard.dane.certificate import Certificate
from mailguard.dane.destination import SMTP_PORT, Destination, DestinationKind
from mailguard.dane.record import CertificateUsage, MatchingType, Selector
from mailguard.dane.result import HostReason
from mailguard.dns.live import open_resolver
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.explain import Explanation
from mailguard.pipeline import check_dane
from mailguard.records.record import DEFAULT_TTL_S
from mailguard.starttls.presented import Handshake, HandshakeStatus

__all__ = ["dane"]

_PORT = click.option("--port", type=click.IntRange(1, 65_535), default=SMTP_PORT, show_default=True)


@click.group(no_args_is_help=False)
def dane() -> None:
    """DANE: TLSA records, the certificates that servers show, and how to change both. docs/dane.md has more."""


@dane.command()
@click.argument("destination", metavar="DOMAIN")
@click.option("--port", type=click.IntRange(1, 65_535), help="That of the servers.  [default: 25]")
@RESOLVER_CONFIG_OPTION
@click.option("--no-connect", is_flag=True, help="Ask the DNS alone.")
@JSON_OPTION
def check(destination: str, port: int | None, config_file: str | None, no_connect: bool, as_json: bool) -> ExitCode:
    """Show what DANE demands of delivery to DOMAIN, or to [HOST], and what each of its servers shows in TLS.

    Ends with 0 if every server has TLSA records and a certificate that matches, 1 if one has not, 75 if something
    cannot be found out now, 78 if there is no resolver that validates DNSSEC.
    """
    _destination(destination)
    found = settings(config_file)
    client = None if no_connect else starttls(found.ca_file)
    trusted = validating(found)
    with waiting(f"asking the DNS about {destination}"), open_resolver(trusted) as resolver:
        policy = check_dane(destination, resolver=resolver, port=port, insecure_mx=found.insecure_mx)
        unasked = [host.name for host in policy.hosts if host.reason is HostReason.INSECURE_MX]
        deadline = time.monotonic() + LOOKUP_TIME_S
        others = addresses_of(unasked, resolver, deadline=deadline) if client is not None else {}
    shown = None
    if client is not None:
        hosts = [
            Visit(host.name, host.base_domain or host.name, host.addresses or others.get(host.name, ()))
            for host in policy.hosts
        ]
        with waiting(f"connecting to the servers of {destination}"):
            shown = visits(client, policy.port, hosts)
    tree, mark = dane_tree(policy, shown, now=time.time())
    show(tree, as_json=as_json)
    return EXIT_CODES[mark]


@dane.command()
@click.argument("target", type=FILE, metavar="CERT|HOST")
@click.option("--host", callback=as_domain, help="The server's name.  [default: the first in the certificate]")
@_PORT
@click.option("--usage", type=click.IntRange(0, 3), default=int(CertificateUsage.DANE_EE), show_default=True)
@click.option("--selector", type=click.IntRange(0, 1), default=int(Selector.SPKI), show_default=True)
@click.option("--matching-type", type=click.IntRange(0, 2), default=int(MatchingType.SHA2_256), show_default=True)
@RESOLVER_CONFIG_OPTION
@JSON_OPTION
def tlsa(
    target: str,
    host: Domain | None,
    port: int,
    usage: int,
    selector: int,
    matching_type: int,
    config_file: str | None,
    as_json: bool,
) -> ExitCode:
    """Print the TLSA record for a certificate: a file (PEM or DER, with its chain), or what HOST shows on its port.

    Of an authority (--usage 2) it is the record of the last certificate of the chain.
    """
    found = settings(config_file)
    if os.path.exists(target):
        chain = read_chain(target)
        name = host or _first_name(chain[0])
    else:
        name = host or _host(target)
        with waiting(f"connecting to {target}"):
            shown = _shown(target, port, name, found)
        if shown.status is not HandshakeStatus.DONE:
            said = Explanation(target, detail=shown.detail)
            tell(f"{said.title}: {said.detail}")
            return ExitCode.TEMPORARY
        chain = shown.chain
        note(f"this is what {shown.address} shows now; whether it is {target} is for you to know")
    if usage in (CertificateUsage.PKIX_TA, CertificateUsage.PKIX_EE):
        note("senders of mail ignore usages 0 and 1 (RFC 7672, section 3.1.3)")
    record = record_for(chain, usage=usage, selector=selector, matching_type=matching_type)
    owner = f"_{port}._tcp.{name}"
    if as_json:
        made = {"name": owner, "type": "TLSA", "ttl": DEFAULT_TTL_S, "value": str(record)}
        print_json(made)
        return ExitCode.PASS
    for node in certificate_nodes(chain[-1:] if usage in (0, 2) else chain[:1], (), now=time.time()):
        click.echo("".join(f"; {name}: {value}\n" for name, value in node.facts if name != "record"), nl=False)
    click.echo(f"{owner}. {DEFAULT_TTL_S} IN TLSA {record}\n")
    for field, value in (("name", owner), ("type", "TLSA"), *record_words(record)):
        click.echo(f"{field}: {value}")
    return ExitCode.PASS


@dane.command()
@click.argument("certificate", type=FILE, metavar="CERT")
@click.option("--host", callback=as_domain, required=True, help="The server that is to have it.")
@_PORT
@RESOLVER_CONFIG_OPTION
@JSON_OPTION
def rollover(certificate: str, host: Domain, port: int, config_file: str | None, as_json: bool) -> ExitCode:
    """Say whether senders that know DANE would accept CERT (PEM, with its chain) on HOST, before it is put there.

    Compares it with the TLSA records that are published now, and prints those to publish. Ends with 0 if it can be
    deployed, 1 if senders would keep their mail, 75 if the DNS does not say, 78 if no resolver validates DNSSEC.
    """
    chain = read_chain(certificate)
    trusted = validating(settings(config_file))
    with waiting(f"asking the DNS about {host}"), open_resolver(trusted) as resolver:
        policy = check_dane(str(Destination(host, DestinationKind.HOST, port)), resolver=resolver)
    tree, mark = rollover_tree(policy.hosts[0], chain, port=port, now=time.time())
    show(tree, as_json=as_json)
    return EXIT_CODES[mark]


def _destination(text: str) -> Destination:
    try:
        return Destination.parse(text)
    except (DomainError, ValueError) as error:
        raise click.UsageError(f"{text!r}: {error}") from None


def _host(text: str) -> Domain:
    try:
        return Domain.parse(text)
    except DomainError as error:
        raise click.UsageError(f"{text!r} is neither a file nor the name of a host: {error}") from None


def _first_name(der: bytes) -> Domain:
    for name in Certificate.parse(der).dns_ids:
        if "*" not in name:
            try:
                return Domain.parse(name)
            except DomainError:
                continue
    raise click.UsageError("the certificate has no name of a host: give it with --host")


def _shown(target: str, port: int, name: Domain, found: Settings) -> Handshake:
    """What the first address that can be reached shows."""
    deadline = time.monotonic() + LOOKUP_TIME_S
    client = starttls(found.ca_file)
    host = _host(target)
    with open_resolver(found.resolver) as resolver:
        addresses = addresses_of([host], resolver, deadline=deadline)[host]
    shown = visits(client, port, [Visit(host, name, addresses)])[host]
    detail = "it has no address that is known, and is no file"
    none = Handshake(address="", port=port, status=HandshakeStatus.UNREACHABLE, detail=detail)
    return next((each for each in shown if each.status is HandshakeStatus.DONE), (*shown, none)[0])
