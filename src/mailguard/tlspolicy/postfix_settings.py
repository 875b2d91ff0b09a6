"""Whether Postfix's settings let what the socketmap says have its effect. Pure, but for what asks postconf.

TLS_README and postconf(5): `dane` without DNSSEC look-ups is opportunistic TLS, and `dane-only` then keeps all mail
back; `secure` without certification authorities trusts nobody. Only main.cf is read: what -o sets for a service in
master.cf is not seen.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from mailguard.tlspolicy.decide import Mixed

__all__ = ["RESOLV_CONF", "faults", "read_settings", "resolver_copy"]

POSTCONF_TIMEOUT_S = 10.0
RESOLV_CONF = "/etc/resolv.conf"
NAMES = (
    "mail_version",
    "queue_directory",
    "smtp_dns_support_level",
    "smtp_host_lookup",
    "smtp_tls_security_level",
    "smtp_tls_policy_maps",
    "smtp_tls_CAfile",
    "smtp_tls_CApath",
    "tls_append_default_CA",
)
_OLDEST = (3, 4)
_WITH_TLSRPT = (3, 10)


def read_settings(postconf: str) -> dict[str, str]:
    """The settings by name; those that this Postfix does not have are missing. Raises OSError."""
    done = _run(postconf, "-x", *NAMES)
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    found = {name.strip(): value.strip() for name, equals, value in pairs if equals}
    if not found:
        said = done.stderr.strip().splitlines()
        raise OSError(said[-1] if said else f"{postconf} says nothing")
    return found


def resolver_copy(postconf: str, settings: Mapping[str, str]) -> str | None:
    """The resolv.conf that smtp(8) reads in a chroot, if it runs in one that has it. Raises OSError.

    Debian copies it there when Postfix is started, and not when it is reloaded.
    """
    copy = settings.get("queue_directory", "") + RESOLV_CONF
    is_chrooted = _run(postconf, "-Fh", "smtp/unix/chroot").stdout.strip() == "y"
    return copy if is_chrooted and os.path.exists(copy) else None


def _run(postconf: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [postconf, *arguments],
            capture_output=True,
            timeout=POSTCONF_TIMEOUT_S,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{postconf} did not end within {POSTCONF_TIMEOUT_S:g} s") from None


def faults(settings: Mapping[str, str], addresses: Sequence[str], *, mixed: Mixed = Mixed.DANE) -> list[str]:
    """What is wrong, each in a sentence with what to do; `addresses` are those that are listened on."""
    found = []
    if settings.get("smtp_dns_support_level", "").lower() != "dnssec":
        found.append(
            "Postfix does not ask for DNSSEC, so that it uses no TLSA record: it keeps back all mail for destinations"
            " with DANE, or sends it unauthenticated; run: postconf -e smtp_dns_support_level=dnssec"
        )
    if "dns" not in settings.get("smtp_host_lookup", "dns").replace(",", " ").lower().split():
        found.append("Postfix does not look hosts up in the DNS; run: postconf -e smtp_host_lookup=dns")
    maps = settings.get("smtp_tls_policy_maps", "")
    if not any(_is_named(maps, address) for address in addresses):
        address = addresses[0].replace("inet6:", "inet:") if addresses else "ADDRESS"
        ours = f"socketmap:{address}:QUERY"
        # What the administrator demands himself stays, and goes before what is looked up.
        tables = f"{maps}, {ours}" if maps else ours
        found.append(
            "Postfix does not ask here, unless a service in master.cf does; run: postconf -e"
            f" {shlex.quote(f'smtp_tls_policy_maps={tables}')}"
        )
    level = settings.get("smtp_tls_security_level", "").lower()
    if level in ("", "none"):
        found.append(
            "Postfix sends without TLS where nothing is demanded; run: postconf -e smtp_tls_security_level=dane"
        )
    elif level not in ("may", "dane") and mixed is Mixed.DANE:
        found.append(
            f"smtp_tls_security_level is {level}, and the reply dane, for destinations of which only some hosts have"
            " DANE, takes its place: mail to the others may go out in the clear; set mixed"
            ' = "dane-only" in [tlspolicy]; or, if mail for all destinations without DANE and MTA-STS may, run:'
            " postconf -e smtp_tls_security_level=dane"
        )
    authorities = settings.get("smtp_tls_CAfile", "") + settings.get("smtp_tls_CApath", "")
    if not authorities and settings.get("tls_append_default_CA", "no") != "yes":
        found.append(
            "Postfix trusts no certification authority, so that it keeps back all mail for destinations with MTA-STS;"
            " run: postconf -e smtp_tls_CAfile=/etc/ssl/certs/ca-certificates.crt"
        )
    version = _version(settings.get("mail_version", ""))
    if version is not None and version < _OLDEST:
        found.append("this Postfix is older than 3.4 and does not know servername, which replies for MTA-STS have")
    if version is not None and version < _WITH_TLSRPT and "querywithtlsrpt" in maps.lower():
        found.append(
            "QUERYwithTLSRPT needs Postfix 3.10; this one keeps mail for destinations with MTA-STS back: use QUERY"
        )
    return found


def _is_named(maps: str, address: str) -> bool:
    """Whether a table is a socketmap at `address`; for a unix socket, the path may be that of a chroot."""
    kind, _, place = address.partition(":")
    for table in maps.replace(",", " ").split():
        if "socketmap:" not in table:
            continue
        where, _, _ = table.partition("socketmap:")[2].rpartition(":")
        found_kind, _, found_place = where.partition(":")
        if kind == "unix" and found_kind == "unix" and place.endswith("/" + found_place.lstrip("/")):
            return True
        if kind != "unix" and found_kind == "inet" and found_place.rpartition(":")[2] == place.rpartition(":")[2]:
            return True
    return False


def _version(text: str) -> tuple[int, int] | None:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
