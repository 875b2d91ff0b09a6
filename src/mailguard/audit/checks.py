"""Every check, in the order in which they are shown, and how they are run. Pure."""

from __future__ import annotations

from mailguard.audit import (
    certificates,
    host,
    limits,
    milters,
    relay,
    resolver,
    restrictions,
    sasl,
    smuggling,
    tls_client,
    tls_server,
)
from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Result, Unclear

__all__ = ["CHECKS", "THEMES", "run_checks"]

THEMES: tuple[tuple[str, tuple[Check, ...]], ...] = (
    ("Relaying", relay.CHECKS),
    ("TLS for mail that comes in", tls_server.CHECKS),
    ("Certificates and keys", certificates.CHECKS),
    ("TLS for mail that goes out", tls_client.CHECKS),
    ("Logins", sasl.CHECKS),
    ("Clients, senders and recipients", restrictions.CHECKS),
    ("Limits", limits.CHECKS),
    ("SMTP smuggling", smuggling.CHECKS),
    ("SPF, DKIM and DMARC", milters.CHECKS),
    ("The resolver", resolver.CHECKS),
    ("The host", host.CHECKS),
)
CHECKS: tuple[Check, ...] = tuple(check for _, checks in THEMES for check in checks)


def run_checks(facts: HostFacts) -> tuple[Result, ...]:
    """What each check finds on this host."""
    results = []
    for check in CHECKS:
        outcome = tuple(dict.fromkeys(check.run(facts)))
        found = tuple(each for each in outcome if isinstance(each, Found))
        unclear = tuple(each for each in outcome if isinstance(each, Unclear))
        results.append(Result(check, found, unclear))
    return tuple(results)
