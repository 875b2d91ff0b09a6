"""`mailguard dns DOMAIN`: the records to publish, from configuration and keys, and how what is live compares."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from mailguard.cli.dns_report import comparison_json, comparison_text, exit_code
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.live_records import live_records
from mailguard.cli.parameters import as_domain
from mailguard.config import DEFAULT_PATH, Config, load
from mailguard.configured_dns import resolver_config
from mailguard.dkim.signing_key import KeyPermissions, SigningKey
from mailguard.dns.answers import Resolver
from mailguard.dns.authoritative import AuthoritativeDns, normal_rdata
from mailguard.dns.live import open_resolver
from mailguard.dns.question import Dnssec, Question, RecordType
from mailguard.domain import Domain
from mailguard.errors import DomainError, KeyFileError
from mailguard.key_places import keys_of
from mailguard.pipeline import LOOKUP_TIME_S
from mailguard.records.choices import Choices, MailHost, PublicKey, Stage
from mailguard.records.compare import compare
from mailguard.records.fingerprints import certificate_key_digest, sshfp
from mailguard.records.generate import policy_address, policy_file, records
from mailguard.records.render import FORMATS, Publication
from mailguard.senders.identity import Unusable, parse_address
from mailguard.spf.record import Record as SpfRecord
from mailguard.spf.record import RecordError

__all__ = ["dns"]

SSH_KEYS = "/etc/ssh/ssh_host_*_key.pub"
# The order in which a host of several preferences is named.
PREFERENCE_STEP = 10
MAX_FILE_BYTES = 1 << 20


@click.command()
@click.argument("domain", callback=as_domain)
@click.option(
    "-c", "--config", "config_file", metavar="CONFIG", help=f"Take the keys from it. [default: {DEFAULT_PATH}]"
)
@click.option(
    "--policy",
    "stage",
    type=click.Choice([stage.value for stage in Stage]),
    default=Stage.NONE.value,
    show_default=True,
    help="How far you are: what DMARC asks for; with it SPF and MTA-STS become strict.",
)
@click.option(
    "--report-to", "reports", metavar="ADDRESS", default="", help="For reports; default: postmaster@DOMAIN."
)
@click.option("--mx", "mx", metavar="HOST", multiple=True, help="A host that takes mail; default: what is live.")
@click.option("--spf", "senders", metavar="TERM", multiple=True, help='Who sends, as SPF writes it; default: "mx".')
@click.option("--certificate", metavar="FILE", help="That of the hosts that take mail (PEM), for TLSA.")
@click.option("--ssh-host", metavar="HOST", help=f"Make SSHFP for the keys of this machine ({SSH_KEYS}).")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="zone", show_default=True)
@click.option("--diff", is_flag=True, help="Compare with what each authoritative server publishes.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def dns(
    domain: Domain,
    config_file: str | None,
    stage: str,
    reports: str,
    mx: Sequence[str],
    senders: Sequence[str],
    certificate: str | None,
    ssh_host: str | None,
    form: str,
    diff: bool,
    as_json: bool,
) -> ExitCode:
    """Print the DNS records to publish for DOMAIN, each with the reason for it.

    Begin with --policy none, read the reports, and go on to quarantine and reject when all your mail passes.

    With --diff it ends with 0 if every server has exactly these, 1 if one has not, 75 if one did not answer.
    """
    config = _configuration(config_file)
    with open_resolver(resolver_config(config.dns) if config is not None else None) as resolver:
        choices = Choices(
            domain=domain,
            stage=Stage(stage),
            keys=tuple(_public_keys(config, domain)),
            hosts=_hosts(domain, mx, certificate, resolver),
            senders=tuple(senders) or ("mx",),
            reports=_report_address(reports),
            host_keys=tuple(_host_keys(ssh_host)),
        )
    _check_spf(choices)
    for note in _notes(choices, config_file or DEFAULT_PATH):
        click.echo(f"mailguard: note: {note}", err=True)
    wanted = records(choices)
    if not diff:
        publication = Publication(domain, wanted, policy_file(choices), policy_address(choices))
        click.echo(FORMATS["json" if as_json else form](publication), nl=False)
        return ExitCode.PASS
    authoritative = AuthoritativeDns(config.dns.nameservers if config else (), port=config.dns.port if config else 53)
    compared = compare(wanted, live_records(authoritative, wanted), normal=normal_rdata)
    click.echo(comparison_json(compared) if as_json else comparison_text(compared))
    return exit_code(compared)


def _configuration(path: str | None) -> Config | None:
    """None where nobody named one and there is none: a domain can be looked at from anywhere."""
    if path is None and not os.path.exists(DEFAULT_PATH):
        return None
    return load(path or DEFAULT_PATH)


def _public_keys(config: Config | None, domain: Domain) -> Iterator[PublicKey]:
    for owner, selector, file in keys_of(config) if config is not None else ():
        if config is None or owner != domain:
            continue
        # Root looks at the keys of the daemon's user; nothing is signed.
        found = os.stat(file).st_uid if os.geteuid() == 0 and os.path.exists(file) else None
        key = SigningKey.load(
            file,
            domain=owner,
            selector=selector,
            permissions=KeyPermissions(config.sign.key_permissions),
            owner=found,
        )
        yield PublicKey(key.selector, key.public_name, key.record(), key.algorithm, key.bits)


def _hosts(domain: Domain, named: Sequence[str], certificate: str | None, resolver: Resolver) -> tuple[MailHost, ...]:
    deadline = time.monotonic() + LOOKUP_TIME_S
    if named:
        hosts = [MailHost(name=_host(name), preference=PREFERENCE_STEP * at) for at, name in enumerate(named, 1)]
    else:
        live = resolver.resolve([Question(domain, RecordType.MX)], deadline=deadline).popitem()[1]
        hosts = [
            MailHost(name=_host(mx.exchange), preference=mx.preference)
            for mx in sorted(live.exchanges())
            if mx.exchange
        ]
    digest = certificate_key_digest(_read(certificate)) if certificate is not None else None
    if digest is None:
        return tuple(hosts)
    answers = resolver.resolve([Question(host.name, RecordType.A) for host in hosts], deadline=deadline)
    signed = {question.name for question, answer in answers.items() if answer.dnssec is Dnssec.SECURE}
    return tuple(replace(host, key_digest=digest, is_signed=host.name in signed) for host in hosts)


def _host(name: str) -> Domain:
    try:
        return Domain.parse(name.removesuffix("."))
    except DomainError as error:
        raise click.UsageError(f"{name!r} is not the name of a host: {error}") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None


def _report_address(address: str) -> str:
    if not address:
        return ""
    read = parse_address(address)
    if isinstance(read, Unusable) or not read.exact.isascii() or any(mark in address for mark in ",;! %"):
        raise click.UsageError(f"--report-to: {address!r} is not an address that a record can hold")
    return read.exact


def _host_keys(host: str | None) -> Iterator[tuple[Domain, str]]:
    if host is None:
        return
    found = sorted(glob.glob(SSH_KEYS))
    if not found:
        raise click.UsageError(f"--ssh-host: there is no {SSH_KEYS}")
    for path in found:
        if (value := sshfp(_read(path).decode("utf-8", "replace"))) is not None:
            yield _host(host), value


def _check_spf(choices: Choices) -> None:
    for term in choices.senders:
        if term.lstrip("+-~?").lower() == "all":
            raise click.UsageError(f"--spf {term}: the record ends with ~all, or with -all for --policy reject")
    try:
        SpfRecord.parse(f"v=spf1 {' '.join(choices.senders)}".encode())
    except RecordError as error:
        raise click.UsageError(f"--spf: {error}") from None


def _notes(choices: Choices, config_file: str) -> Iterator[str]:
    if not choices.keys:
        yield (
            f"no key of {choices.domain} is known, so that there is no DKIM record; make one with mailguard key new"
            f" and name it in {config_file}"
        )
    if not choices.hosts:
        yield f"{choices.domain} has no MX now: name the hosts that take its mail with --mx, for MX and MTA-STS"
