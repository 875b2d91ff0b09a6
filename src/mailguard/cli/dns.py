"""`mailguard dns DOMAIN`: the records to publish, from configuration and keys, and how what is live compares."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from mailguard.cli.dns_report import comparison_json, comparison_text, exit_code
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import config_if_any
from mailguard.cli.json_report import print_json
from mailguard.cli.live_records import live_records
from mailguard.cli.mail_hosts import NoAnswer, host_name, mail_hosts, with_certificates
from mailguard.cli.parameters import FILE, JSON_OPTION, as_domain
from mailguard.cli.record_zones import zones_of
from mailguard.cli.rotation_settings import date_of
from mailguard.cli.standard_error import note, tell
from mailguard.cli.waiting import waiting
from mailguard.config import DEFAULT_PATH, Config
from mailguard.configured_dns import resolver_config
from mailguard.dkim.signing_key import KeyPermissions, SigningKey
from mailguard.dns.answers import Resolver
from mailguard.dns.authoritative import TOTAL_TIME_S, AuthoritativeDns, Unreachable, normal_rdata
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.dns.question import Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import KeyFileError
from mailguard.guarded_file import read_beginning
from mailguard.key_places import keys_of, rotation_of, signer_of
from mailguard.records.choices import Choices, PublicKey, Stage
from mailguard.records.compare import compare
from mailguard.records.fingerprints import certificate_key_digest, sshfp
from mailguard.records.generate import policy_address, policy_file, records
from mailguard.records.record import Record
from mailguard.records.render import FORMATS, Publication
from mailguard.rotation.state import Stage as KeyStage
from mailguard.rotation.words import record_note
from mailguard.scorecard.spf_width import is_too_wide
from mailguard.senders.identity import Unusable, parse_address
from mailguard.spf.record import Published as SpfPublished
from mailguard.spf.record import Record as SpfRecord
from mailguard.spf.record import RecordError

__all__ = ["dns"]

SSH_KEYS = "/etc/ssh/ssh_host_*_key.pub"
MAX_FILE_BYTES = 1 << 20
# What the zones are called is worth a moment; without an answer the names say it nearly as well.
ZONE_TIME_S = 6.0
# RFC 5322 §3.2.3, dot-atom: nobody sends reports to other local parts.
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


@click.command()
@click.argument("domain", callback=as_domain)
@click.option(
    "-c",
    "--config",
    "config_file",
    type=FILE,
    metavar="CONFIG",
    help=f"Take the keys from it. [default: {DEFAULT_PATH}]",
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
@click.option(
    "--certificate",
    "certificates",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="That of the hosts that take mail (PEM), for TLSA: the one in use, and once more the next.",
)
@click.option("--ssh-host", metavar="HOST", help=f"Make SSHFP for the keys of this machine ({SSH_KEYS}).")
@click.option("--zone", metavar="NAME", help="The zone that DOMAIN is in; default: what the DNS says.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="zone", show_default=True)
@click.option("--diff", is_flag=True, help="Compare with what each authoritative server publishes.")
@JSON_OPTION
def dns(
    domain: Domain,
    config_file: str | None,
    stage: str,
    reports: str,
    mx: Sequence[str],
    senders: Sequence[str],
    certificates: Sequence[str],
    ssh_host: str | None,
    zone: str | None,
    form: str,
    diff: bool,
    as_json: bool,
) -> ExitCode:
    """Print the DNS records to publish for DOMAIN, each with the reason for it.

    Begin with --policy none, read the reports, and go on to quarantine and reject when all your mail passes.

    With --diff it ends with 0 if every server has exactly these, 1 if one has not, 75 if one did not answer.
    """
    config = config_if_any(config_file)
    _check_spf(senders)
    if zone is not None and not domain.is_equal_or_below(zone := host_name(zone)):
        raise click.UsageError(f"--zone: {domain} is not in {zone}")
    digests = tuple(map(_key_digest, certificates))
    asked = resolver_config(config.dns) if config is not None else ResolverConfig()
    with open_resolver(asked) as resolver:
        try:
            with waiting(f"asking the DNS about {domain}"):
                hosts, takes_mail = mail_hosts(domain, mx, resolver)
        except NoAnswer as error:
            tell(str(error))
            return ExitCode.TEMPORARY
        # --diff asks every server itself.
        published_spf = "" if diff else _published_spf(domain, resolver)
        if digests:
            with waiting("asking the DNS for TLSA records"):
                hosts = with_certificates(hosts, digests, resolver, asked)
    choices = Choices(
        domain=domain,
        stage=Stage(stage),
        keys=tuple(_public_keys(config, domain)),
        hosts=hosts,
        takes_mail=takes_mail,
        senders=tuple(senders) or (("mx",) if takes_mail else ()),
        published_spf=published_spf,
        reports=_report_address(reports),
        host_keys=tuple(_host_keys(ssh_host)),
        zone=zone or "",
    )
    signer = signer_of(config, domain) if config is not None else None
    for each in _notes(choices, signer, config_file or DEFAULT_PATH):
        note(each)
    try:
        authoritative = _authoritative(config, TOTAL_TIME_S if diff else ZONE_TIME_S)
    except Unreachable as error:
        tell(str(error))
        return ExitCode.TEMPORARY
    if not diff:
        with waiting(f"asking for the zone of {domain}"):
            found = zones_of(choices, authoritative)
        for each in found.notes:
            note(each)
        choices = replace(choices, zone=found.zone, zones=found.zones)
    wanted = records(choices)
    _check_names(wanted)
    if not diff:
        publication = Publication(domain, wanted, policy_file(choices), policy_address(choices), choices.zone)
        click.echo(FORMATS["json" if as_json else form](publication), nl=False)
        return ExitCode.PASS
    with waiting(f"asking the name servers of {domain}"):
        compared = compare(wanted, live_records(authoritative, wanted), normal=normal_rdata)
    print_json(comparison_json(compared)) if as_json else click.echo(comparison_text(compared))
    return exit_code(compared)


def _published_spf(domain: Domain, resolver: Resolver) -> str:
    """Empty if there is none, or nobody knows."""
    question = Question(domain, RecordType.TXT)
    with waiting(f"asking the DNS about {domain}"):
        answer = resolver.resolve([question], deadline=time.monotonic() + ZONE_TIME_S)[question]
    return SpfPublished.of(answer).shown or ""


def _authoritative(config: Config | None, total_time_s: float) -> AuthoritativeDns:
    """Raises Unreachable."""
    nameservers, port = (config.dns.nameservers, config.dns.port) if config else ((), 53)
    return AuthoritativeDns(nameservers, port=port, total_time_s=total_time_s)


def _public_keys(config: Config | None, domain: Domain) -> Iterator[PublicKey]:
    if config is None:
        return
    rule = config.domains.get(domain)
    if rule is not None and (rotation := rotation_of(domain, rule)) is not None:
        for generation in rotation.generations:
            # Also the records of keys that come, and of those whose mail is on its way.
            for each in generation.keys if generation.stage is not KeyStage.REMOVABLE else ():
                record = each.record.encode("ascii")
                note = f"; {said}" if (said := record_note(generation, date_of(generation.until or 0))) else ""
                yield PublicKey(each.selector, each.name(domain), record, each.algorithm, each.bits, note)
        return
    for owner, selector, file in keys_of(config, domain):
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


def _key_digest(path: str) -> bytes:
    octets = read_beginning(path, max_octets=MAX_FILE_BYTES)
    try:
        return certificate_key_digest(octets)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None


def _report_address(address: str) -> str:
    if not address:
        return ""
    read = parse_address(address)
    if isinstance(read, Unusable) or not read.exact.isascii() or _LOCAL_PART.fullmatch(read.local_part) is None:
        raise click.UsageError(f"--report-to: {address!r} is not an address that a record can hold")
    return read.exact


def _host_keys(host: str | None) -> Iterator[tuple[Domain, str]]:
    if host is None:
        return
    found = sorted(glob.glob(SSH_KEYS))
    if not found:
        raise click.UsageError(f"--ssh-host: there is no {SSH_KEYS}")
    for path in found:
        if (value := sshfp(read_beginning(path, max_octets=MAX_FILE_BYTES).decode("utf-8", "replace"))) is not None:
            yield host_name(host), value


def _check_spf(senders: Sequence[str]) -> None:
    for text in senders:
        if not text or len(text.split()) != 1 or text.lower().startswith("v="):
            raise click.UsageError(f"--spf {text!r}: it takes one term, such as ip4:192.0.2.1; give it once for each")
        try:
            record = SpfRecord.parse(f"v=spf1 {text}".encode())
        except RecordError as error:
            raise click.UsageError(f"--spf: {error}") from None
        if record.redirect is not None:
            raise click.UsageError(
                f"--spf {text}: with the all at the end of the record it means nothing; use include:"
            )
        for term in record.terms:
            if term.mechanism == "all":
                raise click.UsageError(f"--spf {text}: the record ends with ~all, or with -all for --policy reject")
            if is_too_wide(term):
                raise click.UsageError(f"--spf {text}: so many addresses are not your own servers")
    try:
        SpfRecord.parse(f"v=spf1 {' '.join(senders)}".encode())
    except RecordError as error:
        raise click.UsageError(f"--spf: {error}") from None


def _check_names(wanted: Sequence[Record]) -> None:
    for record in wanted:
        if len(record.name) > MAX_DOMAIN_CHARS:
            raise click.UsageError(f"{record.name}: a name has at most {MAX_DOMAIN_CHARS} characters")


def _notes(choices: Choices, signer: Domain | None, config_file: str) -> Iterator[str]:
    if not choices.keys and signer is not None and signer != choices.domain:
        yield (
            f"mail of {choices.domain} is signed with the keys of {signer}: mailguard dns {signer} prints their"
            " records"
        )
    elif not choices.keys:
        yield (
            f"no key of {choices.domain} is known, so that there is no DKIM record; make one with mailguard key new"
            f" and name it in {config_file}"
        )
    if not choices.takes_mail:
        none = "where it sends none either, v=spf1 -all and --policy reject say so"
        yield f"{choices.domain} takes no mail (null MX); {none}"
        if not choices.reports:
            yield "reports cannot be sent to it: name an address elsewhere with --report-to"
    elif not choices.hosts:
        yield f"{choices.domain} has no MX now: name the hosts that take its mail with --mx, for MX and MTA-STS"
