"""A mail host that is hardened in every way that `mailguard audit` knows, as values, and how to change one thing.

It has postscreen's place taken by smtpd itself on port 25, submission on 587 and 465, and a service on loopback that
takes mail back from a content filter. The defaults are those that `postconf -dx` of Postfix 3.7 prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mailguard.audit.facts import CertificateFacts, FileFacts, HostFacts, MailguardFacts, TableFacts
from mailguard.audit.postfix import Postfix, Service

__all__ = [
    "CERTIFICATE",
    "HARDENED",
    "HARDENED_MAIN",
    "KEY",
    "NOW",
    "OUR_SOCKET",
    "PASSWORDS",
    "SERVICES",
    "TABLE",
    "Change",
    "both",
    "certificate",
    "file",
    "host",
    "main",
    "postfix",
    "service",
    "settings",
    "without",
]

NOW = 1_800_000_000.0
DAY_S = 86_400
CERTIFICATE = "/etc/ssl/mail/fullchain.pem"
KEY = "/etc/ssl/mail/privkey.pem"
TABLE = "/etc/postfix/sql/mailboxes.cf"
PASSWORDS = "/etc/postfix/sasl_passwd"
OUR_SOCKET = "unix:/var/spool/postfix/mailguard/mailguard.sock"

DEFAULTS: Mapping[str, str] = {
    "allow_untrusted_routing": "no",
    "default_transport": "smtp",
    "disable_vrfy_command": "no",
    "inet_interfaces": "all",
    "local_recipient_maps": "proxy:unix:passwd.byname hash:/etc/aliases",
    "mail_version": "3.7.11",
    "message_size_limit": "10240000",
    "milter_default_action": "tempfail",
    "milter_macro_daemon_name": "mx.example.com",
    "mydestination": "mx.example.com, localhost.example.com, localhost",
    "myhostname": "mx.example.com",
    "mynetworks": "127.0.0.0/8 [::1]/128",
    "mynetworks_style": "host",
    "postscreen_dnsbl_action": "ignore",
    "postscreen_dnsbl_sites": "",
    "postscreen_bare_newline_enable": "no",
    "postscreen_non_smtp_command_enable": "no",
    "postscreen_pipelining_enable": "no",
    "receive_override_options": "",
    "relay_domains": "",
    "relay_recipient_maps": "",
    "smtp_dns_support_level": "",
    "smtp_enforce_tls": "no",
    "smtp_sasl_auth_enable": "no",
    "smtp_sasl_password_maps": "",
    "smtp_sasl_security_options": "noplaintext, noanonymous",
    "smtp_tls_CAfile": "",
    "smtp_tls_CApath": "",
    "smtp_tls_mandatory_protocols": ">=TLSv1",
    "smtp_tls_policy_maps": "",
    "smtp_tls_security_level": "",
    "smtp_tls_session_cache_timeout": "3600s",
    "smtp_tls_trust_anchor_file": "",
    "smtp_tls_wrappermode": "no",
    "smtp_use_tls": "no",
    "smtpd_authorized_xclient_hosts": "",
    "smtpd_banner": "mx.example.com ESMTP Postfix",
    "smtpd_client_auth_rate_limit": "0",
    "smtpd_client_connection_count_limit": "50",
    "smtpd_client_connection_rate_limit": "0",
    "smtpd_client_message_rate_limit": "0",
    "smtpd_client_restrictions": "",
    "smtpd_data_restrictions": "",
    "smtpd_discard_ehlo_keywords": "",
    "smtpd_end_of_data_restrictions": "",
    "smtpd_enforce_tls": "no",
    "smtpd_forbid_bare_newline": "no",
    "smtpd_forbid_unauth_pipelining": "no",
    "smtpd_hard_error_limit": "20",
    "smtpd_helo_required": "no",
    "smtpd_helo_restrictions": "",
    "smtpd_milters": "",
    "smtpd_recipient_restrictions": "",
    "smtpd_reject_unlisted_recipient": "yes",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    "smtpd_restriction_classes": "",
    "smtpd_sasl_auth_enable": "no",
    "smtpd_sasl_security_options": "noanonymous",
    "smtpd_sasl_tls_security_options": "noanonymous",
    "smtpd_sender_login_maps": "",
    "smtpd_sender_restrictions": "",
    "smtpd_tls_auth_only": "no",
    "smtpd_tls_cert_file": "",
    "smtpd_tls_chain_files": "",
    "smtpd_tls_ciphers": "medium",
    "smtpd_tls_dcert_file": "",
    "smtpd_tls_dkey_file": "",
    "smtpd_tls_eccert_file": "",
    "smtpd_tls_eckey_file": "",
    "smtpd_tls_key_file": "",
    "smtpd_tls_mandatory_ciphers": "medium",
    "smtpd_tls_mandatory_protocols": ">=TLSv1",
    "smtpd_tls_protocols": ">=TLSv1",
    "smtpd_tls_security_level": "",
    "smtpd_tls_session_cache_timeout": "3600s",
    "smtpd_tls_wrappermode": "no",
    "smtpd_use_tls": "no",
    "soft_bounce": "no",
    "tls_append_default_CA": "no",
    "tls_ssl_options": "",
    "virtual_mailbox_domains": "",
    "virtual_mailbox_maps": "",
}
ALIASES: Mapping[str, str] = {
    "smtpd_sasl_tls_security_options": "smtpd_sasl_security_options",
    "smtpd_tls_dkey_file": "smtpd_tls_dcert_file",
    "smtpd_tls_eckey_file": "smtpd_tls_eccert_file",
}

HARDENED_MAIN: Mapping[str, str] = {
    "disable_vrfy_command": "yes",
    "mynetworks": "127.0.0.0/8 [::1]/128",
    "smtp_dns_support_level": "dnssec",
    "smtp_tls_CAfile": "/etc/ssl/certs/ca-certificates.crt",
    "smtp_tls_mandatory_protocols": ">=TLSv1.2",
    "smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8461:postfix",
    "smtp_tls_security_level": "dane",
    "smtpd_banner": "mx.example.com ESMTP",
    "smtpd_client_auth_rate_limit": "10",
    "smtpd_client_connection_rate_limit": "60",
    "smtpd_client_message_rate_limit": "100",
    "smtpd_forbid_bare_newline": "normalize",
    "smtpd_forbid_unauth_pipelining": "yes",
    "smtpd_helo_required": "yes",
    "smtpd_helo_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject_invalid_helo_hostname",
    "smtpd_milters": "unix:mailguard/mailguard.sock",
    "smtpd_recipient_restrictions": "reject_non_fqdn_recipient, reject_unknown_recipient_domain,"
    " check_policy_service inet:127.0.0.1:10023, reject_rbl_client zen.spamhaus.org",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
    "smtpd_sender_login_maps": f"proxy:mysql:{TABLE}",
    "smtpd_sender_restrictions": "reject_non_fqdn_sender, reject_unknown_sender_domain",
    "smtpd_tls_auth_only": "yes",
    "smtpd_tls_cert_file": CERTIFICATE,
    "smtpd_tls_key_file": KEY,
    "smtpd_tls_mandatory_protocols": ">=TLSv1.2",
    "smtpd_tls_protocols": ">=TLSv1.2",
    "smtpd_tls_security_level": "may",
    "tls_ssl_options": "NO_RENEGOTIATION",
}
SUBMISSION: Mapping[str, str] = {
    "milter_macro_daemon_name": "ORIGINATING",
    "smtpd_relay_restrictions": "permit_sasl_authenticated,reject",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sender_restrictions": "reject_sender_login_mismatch,permit_sasl_authenticated,reject",
}
SERVICES: tuple[Service, ...] = (
    Service("smtp", "inet", "smtpd", {}),
    Service("submission", "inet", "smtpd", {**SUBMISSION, "smtpd_tls_security_level": "encrypt"}),
    Service("submissions", "inet", "smtpd", {**SUBMISSION, "smtpd_tls_wrappermode": "yes"}),
    Service(
        "127.0.0.1:10026",
        "inet",
        "smtpd",
        {
            "receive_override_options": "no_milters",
            "smtpd_tls_security_level": "none",
            "smtpd_relay_restrictions": "permit_mynetworks,reject",
        },
    ),
    Service("smtp", "unix", "smtp", {}),
    Service("anvil", "unix", "anvil", {}),
    Service("tlsmgr", "unix", "tlsmgr", {}),
)

HARDENED = HostFacts(
    postfix=Postfix(
        version=(3, 7, 11),
        main={**DEFAULTS, **HARDENED_MAIN},
        aliases=ALIASES,
        explicit=frozenset(HARDENED_MAIN),
        services=SERVICES,
        unused=(),
        directory="/etc/postfix",
    ),
    now=NOW,
    files={
        "/etc/postfix": FileFacts(0o755, 0, 0),
        "/etc/postfix/main.cf": FileFacts(0o644, 0, 0),
        "/etc/postfix/master.cf": FileFacts(0o644, 0, 0),
        KEY: FileFacts(0o600, 0, 0, holds_key=True),
        CERTIFICATE: FileFacts(0o644, 0, 0, holds_key=False),
        TABLE: FileFacts(0o640, 0, 109),
    },
    certificates={
        CERTIFICATE: CertificateFacts(
            NOW - 20 * DAY_S, NOW + 70 * DAY_S, ("mx.example.com",), begins="2026-12-26", ends="2027-03-26"
        )
    },
    tables={TABLE: TableFacts("mysql", "postfix", has_password=True)},
    networks={},
    programs=frozenset({"fail2ban-client"}),
    settings={
        "unbound": ("server:", 'auto-trust-anchor-file: "/var/lib/unbound/root.key"'),
        "fail2ban": ("[DEFAULT]", "enabled = false", "[postfix-sasl]", "port = smtp", "enabled = true"),
    },
    nameservers=("127.0.0.1",),
    mailguard=MailguardFacts("enforce", (), {OUR_SOCKET: "auto"}),
)

Change = Callable[[HostFacts], HostFacts]


def postfix(facts: HostFacts, **changes: object) -> HostFacts:
    """With other fields in what is known of Postfix."""
    return replace(facts, postfix=replace(facts.postfix, **changes))  # type: ignore[arg-type]  # named by the caller


def main(*implicit: str, **changes: str) -> Change:
    """Other values in main.cf; the names in `implicit` do not stand there."""

    def change(facts: HostFacts) -> HostFacts:
        explicit = (facts.postfix.explicit | changes.keys()) - set(implicit)
        return postfix(facts, main={**facts.postfix.main, **changes}, explicit=explicit)

    return change


def without(*names: str) -> Change:
    """A Postfix that has no such parameters."""

    def change(facts: HostFacts) -> HostFacts:
        return postfix(facts, main={name: value for name, value in facts.postfix.main.items() if name not in names})

    return change


def service(place: str, command: str = "", **overrides: str) -> Change:
    """Other overrides for a service, or one more service. An override of "-" is taken away."""

    def change(facts: HostFacts) -> HostFacts:
        name, _, kind = place.rpartition("/")
        known = {each.place: each for each in facts.postfix.services}
        old = known.get(place, Service(name, kind, command, {}))
        new = {key: value for key, value in {**old.overrides, **overrides}.items() if value != "-"}
        follows = {name: new[other] for name, other in ALIASES.items() if other in new}
        known[place] = replace(old, command=command or old.command, overrides=new, follows=follows)
        return postfix(facts, services=tuple(each for each in known.values() if each.command != "none"))

    return change


def file(path: str, mode: int, uid: int = 0, gid: int = 0, group: str = "") -> Change:
    """Other permissions."""
    return lambda facts: replace(facts, files={**facts.files, path: FileFacts(mode, uid, gid, group=group)})


def certificate(path: str = CERTIFICATE, *, begins_day: int = -20, ends_day: int = 70, name: str = "") -> Change:
    """Another certificate; days are counted from now."""
    known = CertificateFacts(
        NOW + begins_day * DAY_S, NOW + ends_day * DAY_S, (name or "mx.example.com",), begins="day 1", ends="day 2"
    )
    return lambda facts: replace(facts, certificates={**facts.certificates, path: known})


def settings(program: str, *lines: str) -> Change:
    """Another configuration of a program; without lines, none at all."""

    def change(facts: HostFacts) -> HostFacts:
        kept = {name: value for name, value in facts.settings.items() if name != program}
        return replace(facts, settings={**kept, program: lines} if lines else kept)

    return change


def host(**changes: object) -> Change:
    """With other fields."""
    return lambda facts: replace(facts, **changes)  # type: ignore[arg-type]  # named by the caller


def both(*changes: Change) -> Change:
    """One after the other."""

    def change(facts: HostFacts) -> HostFacts:
        for each in changes:
            facts = each(facts)
        return facts

    return change
