"""TLS for those who connect to this host. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity
from mailguard.audit.postfix import Postfix, Service
from mailguard.audit.restriction_list import words
from mailguard.audit.times import DAY_S, seconds
from mailguard.audit.tls_protocols import WEAK_GRADES, is_old, lowest_version, modern_versions, unknown_word

__all__ = ["CHECKS", "offers_tls", "requires_tls"]

REQUIRED = frozenset({"encrypt", "fingerprint", "verify", "secure"})
"""smtpd(8) takes those that are for clients as `encrypt`, and warns."""


def requires_tls(postfix: Postfix, service: Service) -> bool:
    """Whether nothing passes in the clear. The level, where there is one, takes the place of the older names."""
    level = security_level(postfix, service)
    return (
        postfix.is_on("smtpd_tls_wrappermode", service)
        or level in REQUIRED
        or (not level and postfix.is_on("smtpd_enforce_tls", service))
    )


def security_level(postfix: Postfix, service: Service) -> str:
    """smtpd_tls_security_level, which may be written in any case."""
    return postfix.value("smtpd_tls_security_level", service).lower()


def offers_tls(postfix: Postfix, service: Service) -> bool:
    """Whether a client can have TLS at all."""
    level = security_level(postfix, service)
    discarded = words(postfix.value("smtpd_discard_ehlo_keywords", service).lower())
    if "starttls" in discarded and not postfix.is_on("smtpd_tls_wrappermode", service):
        return False
    return requires_tls(postfix, service) or level == "may" or (not level and postfix.is_on("smtpd_use_tls", service))


def tls_offered(facts: HostFacts) -> Iterator[Found]:
    """Port 25."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        if not offers_tls(postfix, service):
            name, value = "smtpd_tls_security_level", "may"
            discarded = words(postfix.value("smtpd_discard_ehlo_keywords", service))
            kept = [word for word in discarded if word.lower() != "starttls"]
            if len(kept) < len(discarded):
                name, value = "smtpd_discard_ehlo_keywords", ", ".join(kept)
            what = f"STARTTLS is not offered: {postfix.shown(name, service)}"
            yield Found(service.place, what, (postfix.setting(name, value, service),))


def tls_not_forced(facts: HostFacts) -> Iterator[Found]:
    """RFC 3207: a server that is known to the public must not require it."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        if requires_tls(postfix, service):
            # For the service alone: submission may have its level from main.cf.
            names = {"smtpd_tls_security_level": "may"}
            if postfix.is_on("smtpd_tls_wrappermode", service):
                names["smtpd_tls_wrappermode"] = "no"
            commands = tuple(postfix.service_setting(name, value, service) for name, value in names.items())
            yield Found(service.place, "TLS is required of every server that sends mail to this one", commands)


def submission_encrypted(facts: HostFacts) -> Iterator[Found]:
    """Ports 587 and 465."""
    postfix = facts.postfix
    for service in postfix.submission_services:
        if not requires_tls(postfix, service):
            command = postfix.service_setting("smtpd_tls_security_level", "encrypt", service)
            what = f"clients may send in the clear: {postfix.shown('smtpd_tls_security_level', service)}"
            yield Found(service.place, what, (command,))


def mandatory_protocols(facts: HostFacts) -> Iterator[Found]:
    """Where TLS is required."""
    postfix = facts.postfix
    services = tuple(each for each in postfix.public_services if requires_tls(postfix, each))
    yield from _old_versions(postfix, "smtpd_tls_mandatory_protocols", services)


def offered_protocols(facts: HostFacts) -> Iterator[Found]:
    """Where it is not."""
    postfix = facts.postfix
    services = tuple(each for each in postfix.mx_services if not requires_tls(postfix, each))
    yield from _old_versions(postfix, "smtpd_tls_protocols", tuple(s for s in services if offers_tls(postfix, s)))


def ciphers(facts: HostFacts) -> Iterator[Found]:
    """The grade, not the single ciphers, which OpenSSL keeps up to date."""
    postfix = facts.postfix
    seen = set()
    for service in postfix.public_services:
        for name in ("smtpd_tls_ciphers", "smtpd_tls_mandatory_ciphers"):
            grade, place = postfix.value(name, service), postfix.place(name, service)
            if grade.lower() in WEAK_GRADES and (place, name) not in seen:
                seen.add((place, name))
                yield Found(place, f"{name} = {grade}", (postfix.setting(name, "medium", service),))


def session_cache(facts: HostFacts) -> Iterator[Found]:
    """tlsmgr(8) reads these, from main.cf alone."""
    postfix = facts.postfix
    for name in ("smtpd_tls_session_cache_timeout", "smtp_tls_session_cache_timeout"):
        value = postfix.value(name)
        life = seconds(value)
        if life is not None and life > DAY_S:
            yield Found("main.cf", f"{name} = {value}", (postfix.setting(name, "3600s"),))


def renegotiation(facts: HostFacts) -> Iterator[Found]:
    """TLS 1.3 has none; in TLS 1.2 a client can ask for it as often as it likes."""
    postfix = facts.postfix
    options = postfix.value("tls_ssl_options")
    if not postfix.knows("tls_ssl_options") or not any(offers_tls(postfix, s) for s in postfix.public_services):
        return
    names = options.upper().replace(",", " ").split()
    if "NO_RENEGOTIATION" not in names and not options.startswith("0x"):
        new = ", ".join(filter(None, (options, "NO_RENEGOTIATION")))
        yield Found("main.cf", postfix.shown("tls_ssl_options"), (postfix.setting("tls_ssl_options", new),))


def _old_versions(postfix: Postfix, name: str, services: tuple[Service, ...]) -> Iterator[Found]:
    seen = set()
    for service in services:
        value, place = postfix.value(name, service), postfix.place(name, service)
        if place in seen:
            continue
        command = postfix.setting(name, modern_versions(postfix.version), service)
        unknown = unknown_word(value, postfix.version)
        if unknown:
            seen.add(place)
            what = f"{postfix.shown(name, service)}: Postfix does not know {unknown}, and switches TLS off"
            yield Found(place, what, (command,))
        elif is_old(value):
            seen.add(place)
            yield Found(place, f"{postfix.shown(name, service)}: {lowest_version(value)} is admitted", (command,))


CHECKS = (
    Check(
        "tls-offered",
        Severity.WARNING,
        "Port 25 offers STARTTLS (`smtpd_tls_security_level = may`)",
        "Without it, everybody on the way reads the mail that comes in.",
        tls_offered,
    ),
    Check(
        "tls-not-forced",
        Severity.NOTICE,
        "Port 25 does not require TLS",
        "Servers without it cannot deliver then, which a public mail server must let them (RFC 3207). DANE and"
        " MTA-STS tell senders that this one has TLS.",
        tls_not_forced,
    ),
    Check(
        "submission-encrypted",
        Severity.CRITICAL,
        "Submission requires TLS (`smtpd_tls_security_level = encrypt`, or `smtpd_tls_wrappermode = yes`)",
        "Who stands in between can take STARTTLS out of the offer, and reads mail and passwords.",
        submission_encrypted,
    ),
    Check(
        "tls-mandatory-protocols",
        Severity.WARNING,
        "Where TLS is required, it is TLS 1.2 or later (`smtpd_tls_mandatory_protocols`)",
        "TLS 1.0 and 1.1 are broken and forbidden (RFC 8996). No mail program in use needs them.",
        mandatory_protocols,
    ),
    Check(
        "tls-offered-protocols",
        Severity.NOTICE,
        "Where TLS is offered, it is TLS 1.2 or later (`smtpd_tls_protocols`)",
        "TLS 1.0 and 1.1 are broken (RFC 8996). A server that knows nothing newer then sends in the clear: see in the"
        " log whether there still is one.",
        offered_protocols,
    ),
    Check(
        "tls-ciphers",
        Severity.WARNING,
        "The grade of ciphers is medium or high (`smtpd_tls_ciphers`, `smtpd_tls_mandatory_ciphers`)",
        "The grades below admit ciphers that are broken within minutes, or none at all.",
        ciphers,
    ),
    Check(
        "tls-session-cache",
        Severity.WARNING,
        "TLS sessions are kept for 24 hours at most (`smtpd_tls_session_cache_timeout`,"
        " `smtp_tls_session_cache_timeout`)",
        "Who obtains the key of a session reads all that was sent while it was kept.",
        session_cache,
    ),
    Check(
        "tls-renegotiation",
        Severity.NOTICE,
        "Clients cannot renegotiate (`tls_ssl_options = NO_RENEGOTIATION`)",
        "Each renegotiation costs the server far more than the client: a cheap way to keep it busy.",
        renegotiation,
    ),
)
