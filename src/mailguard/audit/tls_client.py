"""TLS for the mail that this host sends. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity
from mailguard.audit.postfix import Postfix, Service
from mailguard.audit.restriction_list import words
from mailguard.audit.tls_protocols import is_old, lowest_version, modern_versions

__all__ = ["CHECKS"]

DANE = frozenset({"dane", "dane-only"})
ENCRYPTED = frozenset({"encrypt", "dane-only", "fingerprint", "verify", "secure"})
AUTHENTICATED = frozenset({"dane", "dane-only", "fingerprint", "verify", "secure"})
LOGIN_OVERRIDES = frozenset({"smtp_sasl_auth_enable", "smtp_sasl_password_maps", "smtp_sasl_security_options"})
"""Where one of these is set, a service logs in by itself."""
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"


def tls_used(facts: HostFacts) -> Iterator[Found]:
    """smtp_tls_security_level, and what it was called before."""
    postfix, service = facts.postfix, facts.postfix.outbound_service
    if not _uses_tls(facts):
        what = f"mail is sent in the clear: {postfix.shown('smtp_tls_security_level', service)}"
        yield Found(postfix.place("smtp_tls_security_level", service), what, _dane(facts))


def _dane(facts: HostFacts) -> tuple[str, str]:
    postfix, service = facts.postfix, facts.postfix.outbound_service
    return (
        postfix.setting("smtp_dns_support_level", "dnssec", service),
        postfix.setting("smtp_tls_security_level", "dane", service),
    )


def servers_authenticated(facts: HostFacts) -> Iterator[Found]:
    """DANE by the level, MTA-STS by a table of policies."""
    postfix, service = facts.postfix, facts.postfix.outbound_service
    level = _level(postfix, service)
    if not _uses_tls(facts) or level in AUTHENTICATED or postfix.value("smtp_tls_policy_maps", service):
        return
    if level in ENCRYPTED:
        # With `dane`, mail to a server without a TLSA record could be sent in the clear again.
        commands: tuple[str, ...] = (
            "# for a relay host with a certificate that others trust: smtp_tls_security_level = secure, and"
            " smtp_tls_CAfile; for one with TLSA records: dane-only",
        )
    else:
        commands = (
            *_dane(facts),
            "# and smtp_tls_policy_maps with a resolver of MTA-STS policies, for domains without DNSSEC",
        )
    what = f"{postfix.shown('smtp_tls_security_level', service)}, and smtp_tls_policy_maps is empty"
    yield Found(postfix.place("smtp_tls_security_level", service), what, commands)


def dane_has_dnssec(facts: HostFacts) -> Iterator[Found]:
    """Postfix says so once in its log, and sends on without."""
    postfix, service = facts.postfix, facts.postfix.outbound_service
    level = _level(postfix, service)
    if level in DANE and postfix.value("smtp_dns_support_level", service) != "dnssec":
        what = f"smtp_tls_security_level = {level}, but {postfix.shown('smtp_dns_support_level', service)}"
        yield Found(
            postfix.place("smtp_dns_support_level", service),
            what,
            (postfix.setting("smtp_dns_support_level", "dnssec", service),),
        )
    lookup = postfix.value("smtp_host_lookup", service)
    if level in DANE and lookup and "dns" not in words(lookup.lower()):
        what = f"smtp_tls_security_level = {level}, but smtp_host_lookup = {lookup}"
        command = postfix.setting("smtp_host_lookup", "dns", service)
        yield Found(postfix.place("smtp_host_lookup", service), what, (command,))


def policies_have_authorities(facts: HostFacts) -> Iterator[Found]:
    """A policy of MTA-STS is `secure`, which needs certificate authorities."""
    postfix, service = facts.postfix, facts.postfix.outbound_service
    names = ("smtp_tls_CAfile", "smtp_tls_CApath", "smtp_tls_trust_anchor_file")
    level = _level(postfix, service)
    if not postfix.value("smtp_tls_policy_maps", service) and level not in ("verify", "secure"):
        return
    if not any(postfix.value(name, service) for name in names) and not postfix.is_on(
        "tls_append_default_CA", service
    ):
        what = f"no certificate authority is configured in {', '.join(names)}"
        yield Found(
            postfix.place("smtp_tls_CAfile", service), what, (postfix.setting("smtp_tls_CAfile", CA_FILE, service),)
        )


def protocols(facts: HostFacts) -> Iterator[Found]:
    """Where TLS is required, as DANE and the policies of MTA-STS do."""
    postfix, service = facts.postfix, facts.postfix.outbound_service
    value = postfix.value("smtp_tls_mandatory_protocols", service)
    if _uses_tls(facts) and is_old(value):
        what = f"{postfix.shown('smtp_tls_mandatory_protocols', service)}: {lowest_version(value)} is admitted"
        command = postfix.setting("smtp_tls_mandatory_protocols", modern_versions(postfix.version), service)
        yield Found(postfix.place("smtp_tls_mandatory_protocols", service), what, (command,))


def password_encrypted(facts: HostFacts) -> Iterator[Found]:
    """This host's own login at a relay host, also by a service for single destinations."""
    postfix = facts.postfix
    outbound = postfix.outbound_service
    yield from _password(postfix, outbound)
    for service in postfix.running("smtp"):
        if LOGIN_OVERRIDES & service.overrides.keys() and service is not outbound:
            yield from _password(postfix, service)


def _password(postfix: Postfix, service: Service | None) -> Iterator[Found]:
    level = _level(postfix, service)
    options = words(postfix.value("smtp_sasl_security_options", service))
    is_encrypted = level in ENCRYPTED or (not level and postfix.is_on("smtp_enforce_tls", service))
    if not postfix.is_on("smtp_sasl_auth_enable", service) or "noplaintext" in (word.lower() for word in options):
        return
    if not is_encrypted and not postfix.is_on("smtp_tls_wrappermode", service):
        names = ("smtp_sasl_security_options", "smtp_tls_security_level")
        what = ", and ".join(postfix.shown(name, service) for name in names)
        fixed = ", ".join(("noplaintext", *options))
        commands = (
            postfix.setting("smtp_sasl_security_options", fixed, service),
            postfix.setting("smtp_sasl_tls_security_options", "noanonymous", service),
        )
        place = service.place if service is not None and LOGIN_OVERRIDES & service.overrides.keys() else "main.cf"
        yield Found(place, what, commands)


def _level(postfix: Postfix, service: Service | None) -> str:
    return postfix.value("smtp_tls_security_level", service).lower()


def _uses_tls(facts: HostFacts) -> bool:
    postfix, service = facts.postfix, facts.postfix.outbound_service
    level = _level(postfix, service)
    older = any(postfix.is_on(name, service) for name in ("smtp_use_tls", "smtp_enforce_tls"))
    return level not in ("", "none") or (not level and older)


CHECKS = (
    Check(
        "outbound-tls",
        Severity.WARNING,
        "Mail is sent by TLS where the other side offers it (`smtp_tls_security_level`)",
        "Without it, everybody on the way reads the mail that goes out.",
        tls_used,
    ),
    Check(
        "outbound-authenticated",
        Severity.WARNING,
        "Servers are authenticated by DANE (`smtp_tls_security_level = dane`) or by MTA-STS (`smtp_tls_policy_maps`)",
        "Opportunistic TLS goes to whoever answers: who can forge an MX record or remove STARTTLS reads the mail.",
        servers_authenticated,
    ),
    Check(
        "outbound-dnssec",
        Severity.WARNING,
        "DANE has what it needs: `smtp_dns_support_level = dnssec`, and `smtp_host_lookup` names the DNS",
        "Without it, Postfix looks for no TLSA record, and DANE does nothing.",
        dane_has_dnssec,
    ),
    Check(
        "outbound-authorities",
        Severity.WARNING,
        "Where policies demand a valid certificate, certificate authorities are configured (`smtp_tls_CAfile`)",
        "Otherwise no certificate is valid, and mail to domains with MTA-STS is deferred.",
        policies_have_authorities,
    ),
    Check(
        "outbound-protocols",
        Severity.WARNING,
        "Where TLS is required of others, it is TLS 1.2 or later (`smtp_tls_mandatory_protocols`)",
        "TLS 1.0 and 1.1 are broken and forbidden (RFC 8996); DANE and MTA-STS are then worth little.",
        protocols,
    ),
    Check(
        "outbound-password",
        Severity.CRITICAL,
        "This host's own password for a relay host is sent under TLS alone",
        "Who stands in between can take STARTTLS out of the offer, and has the password.",
        password_encrypted,
    ),
)
