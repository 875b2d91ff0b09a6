"""The resolver that Postfix asks: on this host, and validating. Pure.

Told from configuration files. Whether the resolver does validate is seen only by asking it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear

__all__ = ["CHECKS"]

RESOLVERS = ("unbound", "named", "kresd", "pdns_recursor", "dnsmasq", "systemd-resolved")
"""The programs whose configuration is read, the first that is there being the one asked."""
STUB = "127.0.0.53"

_TRUST_ANCHOR = re.compile(r"(?:auto-)?trust-anchor(?:-file)?:|trusted-keys-file:")


def local(facts: HostFacts) -> Iterator[Found]:
    """Every nameserver of /etc/resolv.conf; without any, that is 127.0.0.1."""
    foreign = [each for each in facts.nameservers if not _is_loopback(each)]
    if foreign:
        commands = (
            "apt install unbound",
            "# then have /etc/resolv.conf say: nameserver 127.0.0.1",
            "# and copy it for the chroot: postfix reload, or systemctl restart postfix",
        )
        yield Found("/etc/resolv.conf", f"names are looked up at {', '.join(foreign)}", commands)


def validates(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Of a resolver on this host."""
    if any(not _is_loopback(each) for each in facts.nameservers):
        return
    if STUB in facts.nameservers:
        yield from _resolved(facts.settings.get("systemd-resolved", ()))
        return
    name = next((each for each in RESOLVERS[:-1] if each in facts.settings), "")
    lines = facts.settings.get(name, ())
    if not name:
        yield Unclear(
            "the resolver on this host is none of " + ", ".join(RESOLVERS) + "; ask it: delv dnssec-failed.org"
        )
    elif name == "unbound":
        yield from _unbound(lines)
    elif name == "named" and _says(lines, r"dnssec-validation\s+no"):
        yield Found("named.conf", "dnssec-validation no", ("# set dnssec-validation auto; then: rndc reconfig",))
    elif name == "kresd" and _says(lines, r"trust_anchors\.remove|dnssec:\s*false"):
        yield Found("kresd.conf", "its trust anchor is removed", ("# take that line out; then restart kresd",))
    elif name == "pdns_recursor" and not _says(lines, r"dnssec\s*=\s*(?:validate|log-fail)|validation:\s*validate"):
        yield Found(
            "recursor.conf", "dnssec = validate is missing", ("# set dnssec=validate; restart pdns-recursor",)
        )
    elif name == "dnsmasq" and not _says(lines, r"dnssec\b"):
        yield Found("dnsmasq.conf", "dnssec is missing", ("# set dnssec and trust-anchor; restart dnsmasq",))


def _unbound(lines: Sequence[str]) -> Iterator[Found]:
    modules = [line for line in lines if line.startswith("module-config:")]
    place = "unbound.conf"
    if modules and "validator" not in modules[-1]:
        yield Found(place, modules[-1], ('# set module-config: "validator iterator"; then: unbound-control reload',))
    elif _says(lines, r"val-permissive-mode:\s*yes"):
        yield Found(place, "val-permissive-mode: yes", ("# take that line out; then: unbound-control reload",))
    elif not any(_TRUST_ANCHOR.match(line) for line in lines):
        anchor = "auto-trust-anchor-file: /var/lib/unbound/root.key"
        commands = (
            f"printf 'server:\\n    {anchor}\\n' > /etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf",
            "systemctl restart unbound",
        )
        yield Found(place, "it has no trust anchor", commands)


def _resolved(lines: Sequence[str]) -> Iterator[Found]:
    found = [line.partition("=")[2].strip().lower() for line in lines if line.upper().startswith("DNSSEC=")]
    if not found or found[-1] not in ("yes", "true", "1", "on"):
        commands = (
            "mkdir -p /etc/systemd/resolved.conf.d",
            "printf '[Resolve]\\nDNSSEC=yes\\n' > /etc/systemd/resolved.conf.d/dnssec.conf",
            "systemctl restart systemd-resolved",
        )
        yield Found("resolved.conf", f"DNSSEC={found[-1] if found else ''} in systemd-resolved", commands)


def _says(lines: Sequence[str], pattern: str) -> bool:
    return any(re.match(pattern, line) for line in lines)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


CHECKS = (
    Check(
        "resolver-local",
        Severity.WARNING,
        "Names are looked up at a resolver on this host (`/etc/resolv.conf`)",
        "Answers from elsewhere can be forged on the way, DNSSEC or not; and blocklists do not answer public"
        " resolvers.",
        local,
    ),
    Check(
        "resolver-validates",
        Severity.WARNING,
        "That resolver validates DNSSEC",
        "Without it there is no DANE, and SPF, DKIM and DMARC rest on answers that anybody can forge.",
        validates,
    ),
)
