"""The certificates of the server, and the files with their keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mailguard.audit.facts import CertificateFacts, FileFacts, HostFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear
from mailguard.audit.postfix import Postfix, Service, quoted
from mailguard.audit.restriction_list import words
from mailguard.audit.table_files import table_files
from mailguard.audit.times import DAY_S
from mailguard.audit.tls_server import offers_tls

__all__ = ["CHECKS", "certificate_files", "key_files", "sni_tables"]

CERTIFICATE_FILES = ("smtpd_tls_chain_files", "smtpd_tls_cert_file", "smtpd_tls_eccert_file", "smtpd_tls_dcert_file")
KEY_FILES = ("chain_files", "key_file", "eckey_file", "dkey_file")
MISSING = "No such file or directory"
"""How files that are not there are told of."""
KEY_GROUPS = frozenset({"ssl-cert"})
"""Debian's, for programs that share a key and do not begin as root."""
# Certificates that live six days are renewed after four.
SOON_S, SOON_SHARE = 14 * DAY_S, 6


def certificate_files(postfix: Postfix, service: Service) -> tuple[str, ...]:
    """The files that this service shows its certificates from."""
    names = CERTIFICATE_FILES[:1] if postfix.value(CERTIFICATE_FILES[0], service) else CERTIFICATE_FILES[1:]
    found = (path for name in names for path in words(postfix.value(name, service)))
    return tuple(dict.fromkeys(path for path in found if path != "none"))


def key_files(postfix: Postfix, service: Service | None = None) -> tuple[str, ...]:
    """The files with private keys that a service names, or those of every service and of the mail that goes out."""
    services = (service,) if service is not None else (None, *postfix.public_services)
    sides = ("smtpd",) if service is not None else ("smtpd", "smtp")
    names = [f"{side}_tls_{name}" for side in sides for name in KEY_FILES]
    found = (path for each in services for name in names for path in words(postfix.value(name, each)))
    return tuple(dict.fromkeys(path for path in found if path != "none"))


def sni_tables(postfix: Postfix) -> tuple[str, ...]:
    """The tables made by `postmap -F` from tls_server_sni_maps: the private keys are in them."""
    return tuple(files[-1] for files in table_files(postfix.value("tls_server_sni_maps")) if len(files) > 1)


def present(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Every file is there and can be read as a certificate."""
    postfix = facts.postfix
    for service in _with_tls(postfix):
        if not certificate_files(postfix, service):
            commands = (
                "# get a certificate, such as with certbot certonly, and then:",
                f"# {postfix.setting(CERTIFICATE_FILES[0], '/path/privkey.pem, /path/fullchain.pem', service)}",
            )
            yield Found(service.place, "TLS is offered without a certificate", commands)
    for path, service in dict(_missing_keys(facts)).items():
        if path not in facts.certificates:
            advice = f"# name the file with the key: postconf -e, or -P for {service.place}"
            yield Found(path, f"the private key is not there: {MISSING}", (advice,))
    for path, certificate in _certificates(facts).items():
        if path not in facts.certificates:
            yield Unclear(f"{path}: {certificate}")
        elif isinstance(certificate, str):
            yield Found(path, certificate, (f"openssl x509 -noout -subject -dates -in {quoted(path)}",))


def valid(facts: HostFacts) -> Iterator[Found]:
    """Today."""
    for path, certificate in _readable(facts):
        if certificate.not_before > facts.now:
            yield Found(path, f"it is valid only from {certificate.begins} on", ("timedatectl",))
        elif certificate.not_after <= facts.now:
            commands = ("certbot renew", "postfix reload")
            yield Found(path, f"it has been invalid since {certificate.ends}", commands)


def renewed(facts: HostFacts) -> Iterator[Found]:
    """Well before its end."""
    for path, certificate in _readable(facts):
        life = certificate.not_after - certificate.not_before
        if 0 < certificate.not_after - facts.now < min(SOON_S, life / SOON_SHARE):
            commands = ("certbot renew", "systemctl list-timers certbot.timer", "postfix reload")
            yield Found(path, f"it ends on {certificate.ends} and has not been renewed", commands)


def names_host(facts: HostFacts) -> Iterator[Found]:
    """The name in Postfix's greeting, which is the one in the MX record as a rule."""
    host = facts.postfix.value("myhostname").lower()
    found = list(_readable(facts))
    if found and not any(_covers(name, host) for _, certificate in found for name in certificate.names):
        path, certificate = found[0]
        shown = ", ".join(certificate.names[:5]) or "no DNS name"
        commands = (f"certbot certonly --expand -d {quoted(host)}", "postfix reload")
        yield Found(path, f"it is for {shown}, and not for myhostname = {host}", commands)


def keys_private(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Only root: Postfix reads them before it becomes another user."""
    tables = [path for path in sni_tables(facts.postfix) if path in facts.files]
    reported = {path for path, _ in _missing_keys(facts)}
    for path in (*key_files(facts.postfix), *tables):
        file = facts.files.get(path, "it was not looked at")
        if isinstance(file, str):
            if path not in reported:
                yield Unclear(f"{path}: {file}")
            continue
        if file.holds_key is False and path not in tables:
            # smtpd_tls_chain_files may name certificates by themselves.
            continue
        in_group = file.mode & 0o070 and file.gid and (file.group not in KEY_GROUPS or file.mode & 0o020)
        others = file.mode & 0o007 or in_group
        if file.uid or others:
            commands = (f"chown root:root {quoted(path)}", f"chmod 0600 {quoted(path)}")
            yield Found(path, f"it has mode {file.mode:04o}, owner {file.uid}, group {file.gid}", commands)


def _missing_keys(facts: HostFacts) -> Iterator[tuple[str, Service]]:
    """Without its key a certificate is of no use."""
    for service in _with_tls(facts.postfix):
        for path in key_files(facts.postfix, service):
            if facts.files.get(path) == MISSING:
                yield path, service


def _with_tls(postfix: Postfix) -> tuple[Service, ...]:
    return tuple(each for each in postfix.public_services if offers_tls(postfix, each))


def _certificates(facts: HostFacts) -> Mapping[str, CertificateFacts | str]:
    paths = (path for service in _with_tls(facts.postfix) for path in certificate_files(facts.postfix, service))
    unknown = "it could not be read"
    found = {path: facts.certificates.get(path, unknown) for path in paths}
    # In smtpd_tls_chain_files a key may have a file of its own.
    return {path: each for path, each in found.items() if not (isinstance(each, str) and _is_key(facts, path))}


def _is_key(facts: HostFacts, path: str) -> bool:
    file = facts.files.get(path)
    return isinstance(file, FileFacts) and file.holds_key is True


def _readable(facts: HostFacts) -> Iterator[tuple[str, CertificateFacts]]:
    for path, certificate in _certificates(facts).items():
        if not isinstance(certificate, str):
            yield path, certificate


def _covers(name: str, host: str) -> bool:
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


CHECKS = (
    Check(
        "certificate-present",
        Severity.CRITICAL,
        "Where TLS is offered there is a certificate that can be read",
        "Without one every attempt at TLS fails, and mail is deferred or sent in the clear.",
        present,
    ),
    Check(
        "certificate-valid",
        Severity.CRITICAL,
        "The certificates are valid today",
        "Mail programs refuse to log in, and servers that follow MTA-STS do not deliver.",
        valid,
    ),
    Check(
        "certificate-renewed",
        Severity.WARNING,
        "The certificates are valid for 14 days more, or for a sixth of their life",
        "It should have been renewed by now: something keeps it from being so.",
        renewed,
    ),
    Check(
        "certificate-name",
        Severity.WARNING,
        "A certificate is for `myhostname`",
        "A client that authenticates the server, as MTA-STS and mail programs do, finds another name and gives up.",
        names_host,
    ),
    Check(
        "private-key",
        Severity.CRITICAL,
        "Only root can read the private keys, or Debian's group ssl-cert",
        "Who has the key can pretend to be this host. Postfix reads it as root.",
        keys_private,
    ),
)
