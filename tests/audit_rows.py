"""What `mailguard audit` is to find, and what it is not: changes of the hardened host in audit_host.py.

A row is the check, what is different, and the change.
"""

from __future__ import annotations

from audit_host import (
    CERTIFICATE,
    HARDENED,
    KEY,
    PASSWORDS,
    TABLE,
    Change,
    both,
    certificate,
    file,
    host,
    main,
    postfix,
    service,
    settings,
    without,
)
from mailguard.audit.facts import MailguardFacts, TableFacts

__all__ = ["BAD", "GOOD", "UNCLEAR", "Row"]

Row = tuple[str, str, Change]

OLD = ("smtpd_forbid_bare_newline", "smtpd_forbid_unauth_pipelining")
PERMITTED = "reject_non_fqdn_recipient, check_policy_service inet:127.0.0.1:10023, reject_rbl_client x.test"
LOGIN_25 = service(
    "smtp/inet",
    smtpd_sasl_auth_enable="yes",
    smtpd_sender_restrictions="reject_sender_login_mismatch,reject_non_fqdn_sender",
)
# Users log in on one more port, where TLS is optional.
PORT_2525 = service(
    "2525/inet",
    "smtpd",
    smtpd_sasl_auth_enable="yes",
    smtpd_relay_restrictions="permit_sasl_authenticated,reject",
    smtpd_sender_restrictions="reject_sender_login_mismatch",
)

BAD: list[Row] = [
    (
        "open-relay",
        "permit first",
        main(smtpd_relay_restrictions="permit", smtpd_recipient_restrictions=f"{PERMITTED}, permit"),
    ),
    ("open-relay", "only warned of", main(smtpd_relay_restrictions="warn_if_reject reject_unauth_destination")),
    ("open-relay", "both empty", service("smtp/inet", smtpd_relay_restrictions="")),
    ("open-relay", "in another service", service("2525/inet", "smtpd", smtpd_relay_restrictions="permit")),
    ("trusted-networks", "the world", main(mynetworks="127.0.0.0/8 0.0.0.0/0")),
    ("trusted-networks", "the world, by IPv6", main(mynetworks="127.0.0.0/8, [::]/0")),
    ("trusted-networks", "a provider", main(mynetworks="127.0.0.0/8 93.184.0.0/16")),
    ("trusted-networks", "in a service", service("smtp/inet", mynetworks="0.0.0.0/0")),
    (
        "trusted-networks",
        "in a table",
        both(main(mynetworks="cidr:/etc/postfix/nets"), host(networks={"/etc/postfix/nets": ("93.0.0.0/8",)})),
    ),
    (
        "neighbours",
        "subnet",
        main("mynetworks", mynetworks_style="subnet", mynetworks="127.0.0.0/8 93.184.216.0/24"),
    ),
    (
        "submission-for-logins",
        "no reject",
        service(
            "submission/inet",
            smtpd_relay_restrictions="-",
            **{"smtpd_sender_restrictions": "reject_sender_login_mismatch"},
        ),
    ),
    ("untrusted-routing", "on", main(allow_untrusted_routing="yes")),
    ("xclient", "a stranger", main(smtpd_authorized_xclient_hosts="127.0.0.1, 93.184.216.34")),
    ("xclient", "a name", service("smtp/inet", smtpd_authorized_xclient_hosts="proxy.example.net")),
    ("tls-offered", "none", service("smtp/inet", smtpd_tls_security_level="none")),
    ("tls-offered", "empty", service("smtp/inet", smtpd_tls_security_level="")),
    ("tls-not-forced", "encrypt", service("smtp/inet", smtpd_tls_security_level="encrypt")),
    ("submission-encrypted", "may", service("submission/inet", smtpd_tls_security_level="may")),
    ("submission-encrypted", "from main.cf", service("submissions/inet", smtpd_tls_wrappermode="-")),
    ("tls-mandatory-protocols", "TLS 1.0", main(smtpd_tls_mandatory_protocols=">=TLSv1")),
    ("tls-mandatory-protocols", "the old form", main(smtpd_tls_mandatory_protocols="!SSLv2, !SSLv3")),
    ("tls-mandatory-protocols", "all", main(smtpd_tls_mandatory_protocols="")),
    (
        "tls-mandatory-protocols",
        "in a service",
        service("submission/inet", smtpd_tls_mandatory_protocols="TLSv1.1 TLSv1.2"),
    ),
    ("tls-offered-protocols", "TLS 1.1", main(smtpd_tls_protocols=">=0x0302")),
    ("tls-ciphers", "export", main(smtpd_tls_ciphers="export")),
    ("tls-ciphers", "low, mandatory", service("submission/inet", smtpd_tls_mandatory_ciphers="low")),
    ("tls-session-cache", "two days", main(smtpd_tls_session_cache_timeout="2d")),
    ("tls-session-cache", "of the client", main(smtp_tls_session_cache_timeout="86401")),
    ("tls-renegotiation", "empty", main(tls_ssl_options="")),
    ("tls-renegotiation", "another", main(tls_ssl_options="NO_COMPRESSION")),
    ("certificate-present", "none named", main(smtpd_tls_cert_file="", smtpd_tls_key_file="")),
    ("certificate-present", "damaged", host(certificates={CERTIFICATE: "there is no certificate in it"})),
    ("certificate-valid", "over", certificate(begins_day=-90, ends_day=-1)),
    ("certificate-valid", "not yet", certificate(begins_day=1)),
    ("certificate-renewed", "a year's", certificate(begins_day=-355, ends_day=10)),
    ("certificate-renewed", "six days'", certificate(begins_day=-6, ends_day=1)),
    ("certificate-name", "another", certificate(name="www.example.com")),
    ("certificate-name", "a wildcard above", certificate(name="*.com")),
    ("private-key", "for all", file(KEY, 0o644)),
    ("private-key", "for a group", file(KEY, 0o640, gid=109)),
    ("private-key", "of a user", file(KEY, 0o600, uid=33)),
    ("outbound-tls", "none", main(smtp_tls_security_level="none")),
    ("outbound-tls", "empty", main(smtp_tls_security_level="")),
    ("outbound-authenticated", "may", main(smtp_tls_security_level="may", smtp_tls_policy_maps="")),
    ("outbound-tls", "in master.cf", service("smtp/unix", smtp_tls_security_level="none")),
    ("outbound-dnssec", "enabled", main(smtp_dns_support_level="enabled")),
    ("outbound-dnssec", "empty", main(smtp_dns_support_level="")),
    ("outbound-authorities", "none", main(smtp_tls_CAfile="")),
    ("outbound-protocols", "TLS 1.0", main(smtp_tls_mandatory_protocols=">=TLSv1")),
    (
        "outbound-password",
        "in the clear",
        main(smtp_sasl_auth_enable="yes", smtp_sasl_security_options="noanonymous"),
    ),
    ("login-under-tls", "a third port", both(PORT_2525, service("2525/inet", smtpd_tls_auth_only="no"))),
    ("login-not-anonymous", "empty", service("submission/inet", smtpd_sasl_security_options="")),
    ("login-not-anonymous", "under TLS", service("submission/inet", smtpd_sasl_tls_security_options="noplaintext")),
    ("submission-separate", "on 25", LOGIN_25),
    ("sender-login", "no maps", main(smtpd_sender_login_maps="")),
    (
        "sender-login",
        "permitted before",
        service(
            "submission/inet",
            smtpd_sender_restrictions="permit_sasl_authenticated,reject_sender_login_mismatch",
        ),
    ),
    ("sender-login", "not asked", service("submissions/inet", smtpd_sender_restrictions="-")),
    ("helo-required", "no", main(smtpd_helo_required="no")),
    ("helo-restrictions", "empty", main(smtpd_helo_restrictions="")),
    (
        "helo-restrictions",
        "behind a permit",
        main(smtpd_helo_restrictions="permit, reject_invalid_helo_hostname"),
    ),
    ("sender-restrictions", "empty", main(smtpd_sender_restrictions="")),
    (
        "sender-restrictions",
        "only warned of",
        main(smtpd_sender_restrictions="warn_if_reject reject_non_fqdn_sender"),
    ),
    (
        "recipient-restrictions",
        "none",
        main(smtpd_recipient_restrictions="check_policy_service inet:127.0.0.1:10023, reject_rbl_client x.test"),
    ),
    ("unknown-recipients", "accepted", main(smtpd_reject_unlisted_recipient="no")),
    ("unknown-recipients", "no table", main(local_recipient_maps="")),
    ("vrfy-disabled", "no", main(disable_vrfy_command="no")),
    ("banner-version", "in it", main(smtpd_banner="mx.example.com ESMTP Postfix (3.7.11)")),
    (
        "blocklists",
        "none",
        main(smtpd_recipient_restrictions="reject_non_fqdn_recipient, check_policy_service inet:127.0.0.1:10023"),
    ),
    (
        "greylisting",
        "none",
        main(smtpd_recipient_restrictions="reject_non_fqdn_recipient, reject_rbl_client zen.spamhaus.org"),
    ),
    ("connection-count", "none", main(smtpd_client_connection_count_limit="0")),
    ("connection-count", "in a service", service("submission/inet", smtpd_client_connection_count_limit="0")),
    ("connection-rate", "none", main(smtpd_client_connection_rate_limit="0")),
    ("message-rate", "none", main(smtpd_client_message_rate_limit="0")),
    ("login-rate", "none", main(smtpd_client_auth_rate_limit="0")),
    ("error-limit", "100", main(smtpd_hard_error_limit="100")),
    ("message-size", "none", main(message_size_limit="0")),
    ("smuggling-end-of-data", "no", main(smtpd_forbid_bare_newline="no")),
    ("smuggling-end-of-data", "in a service", service("submission/inet", smtpd_forbid_bare_newline="no")),
    (
        "smuggling-end-of-data",
        "old, BDAT open",
        both(without(*OLD), main(smtpd_data_restrictions="reject_unauth_pipelining")),
    ),
    ("smuggling-pipelining", "no", main(smtpd_forbid_unauth_pipelining="no")),
    ("authentication", "no milter", both(main(smtpd_milters=""), host(mailguard=None))),
    ("authentication", "DKIM alone", both(main(smtpd_milters="inet:opendkim:12301"), host(mailguard=None))),
    ("authentication", "passed by", service("smtp/inet", receive_override_options="no_milters")),
    ("milter-default-action", "accept", main(milter_default_action="accept")),
    (
        "milter-default-action",
        "of one milter",
        main(smtpd_milters="{ unix:mailguard/mailguard.sock, default_action = accept }"),
    ),
    ("originating", "in main.cf", main(milter_macro_daemon_name="ORIGINATING")),
    ("mailguard-enforces", "monitor", host(mailguard=MailguardFacts("monitor", (), ()))),
    ("resolver-local", "a provider's", host(nameservers=("127.0.0.1", "9.9.9.9"))),
    ("resolver-validates", "no anchor", settings("unbound", "server:")),
    (
        "resolver-validates",
        "no validator",
        settings("unbound", "auto-trust-anchor-file: x", 'module-config: "iterator"'),
    ),
    (
        "resolver-validates",
        "the stub",
        both(host(nameservers=("127.0.0.53",)), settings("systemd-resolved", "[Resolve]")),
    ),
    (
        "resolver-validates",
        "the stub, at will",
        both(host(nameservers=("127.0.0.53",)), settings("systemd-resolved", "DNSSEC=allow-downgrade")),
    ),
    ("resolver-validates", "named", both(settings("unbound"), settings("named", "dnssec-validation no;"))),
    ("resolver-validates", "dnsmasq", both(settings("unbound"), settings("dnsmasq", "cache-size=1000"))),
    ("resolver-validates", "pdns", both(settings("unbound"), settings("pdns_recursor", "dnssec=process"))),
    ("resolver-validates", "kresd", both(settings("unbound"), settings("kresd", "trust_anchors.remove('.')"))),
    ("configuration-files", "for a group", file("/etc/postfix/main.cf", 0o664, gid=1000)),
    ("configuration-files", "of a user", file("/etc/postfix", 0o755, uid=1000)),
    ("password-files", "a table's", file(TABLE, 0o644)),
    (
        "password-files",
        "a relay host's",
        both(
            main(smtp_sasl_password_maps=f"hash:{PASSWORDS}"), file(PASSWORDS, 0o600), file(f"{PASSWORDS}.db", 0o644)
        ),
    ),
    ("database-user", "root", host(tables={TABLE: TableFacts("mysql", "root", has_password=True)})),
    (
        "database-user",
        "PostfixAdmin's",
        both(
            settings("postfixadmin", "$CONF['database_user'] = 'pfa';"),
            host(tables={TABLE: TableFacts("pgsql", "pfa", has_password=True)}),
        ),
    ),
    ("login-guard", "not there", host(programs=frozenset())),
    ("login-guard", "no jail", settings("fail2ban", "[sshd]", "enabled = true", "[postfix-sasl]", "port = smtp")),
    ("limits-counted", "no anvil", service("anvil/unix", "none")),
    ("misspelt-parameters", "one", lambda facts: postfix(facts, unused=(("main.cf", "smtpd_helo_requierd=yes"),))),
    ("soft-bounce", "on", main(soft_bounce="yes")),
]

RSPAMD = both(
    main(
        smtpd_milters="inet:127.0.0.1:11332",
        smtpd_recipient_restrictions="reject_non_fqdn_recipient",
    ),
    host(mailguard=None),
)
POSTSCREEN = both(
    service("smtp/inet", "postscreen"),
    service("smtpd/pass", "smtpd"),
    main(
        postscreen_dnsbl_sites="zen.spamhaus.org*2",
        postscreen_dnsbl_action="enforce",
        postscreen_bare_newline_enable="yes",
        smtpd_recipient_restrictions="reject_non_fqdn_recipient",
    ),
)
NULL_CLIENT = both(
    main(
        inet_interfaces="loopback-only",
        smtpd_helo_required="no",
        smtpd_milters="",
        smtpd_recipient_restrictions="",
        smtpd_tls_security_level="",
    ),
    host(mailguard=None),
)

GOOD: list[Row] = [
    ("outbound-tls", "of a content filter", service("filter/unix", "smtp", smtp_tls_security_level="none")),
    (
        "outbound-tls",
        "in master.cf",
        both(main(smtp_tls_security_level="none"), service("smtp/unix", smtp_tls_security_level="dane")),
    ),
    (
        "open-relay",
        "the barrier among the recipients",
        main(
            smtpd_relay_restrictions="",
            smtpd_recipient_restrictions=f"{PERMITTED}, reject_unauth_destination, permit",
        ),
    ),
    (
        "open-relay",
        "the barrier in a class",
        main(
            smtpd_restriction_classes="ours",
            ours="permit_mynetworks, reject_unauth_destination",
            smtpd_relay_restrictions="ours",
        ),
    ),
    ("open-relay", "on loopback alone", service("127.0.0.1:10025/inet", "smtpd", smtpd_relay_restrictions="permit")),
    ("trusted-networks", "private and one's own", main(mynetworks="10.0.0.0/8 [fd00::]/16 93.184.216.34/32")),
    ("trusted-networks", "excluded", main(mynetworks="!93.0.0.0/8 127.0.0.0/8")),
    ("neighbours", "set by hand", main(mynetworks_style="subnet")),
    (
        "submission-for-logins",
        "by the client list",
        service(
            "submission/inet",
            smtpd_relay_restrictions="-",
            smtpd_sender_restrictions="reject_sender_login_mismatch",
            smtpd_client_restrictions="permit_sasl_authenticated,reject",
        ),
    ),
    ("xclient", "a private proxy", main(smtpd_authorized_xclient_hosts="127.0.0.1 [::1] 10.0.0.2")),
    ("tls-offered", "the older name", main(smtpd_tls_security_level="", smtpd_use_tls="yes")),
    ("tls-mandatory-protocols", "the old form", main(smtpd_tls_mandatory_protocols="!SSLv2,!SSLv3,!TLSv1,!TLSv1.1")),
    ("tls-mandatory-protocols", "a range", main(smtpd_tls_mandatory_protocols=">=TLSv1.2, <=TLSv1.3")),
    ("tls-session-cache", "a day", main(smtpd_tls_session_cache_timeout="24h")),
    ("tls-renegotiation", "among others", main(tls_ssl_options="NO_COMPRESSION, NO_RENEGOTIATION")),
    (
        "certificate-present",
        "chain files, the key apart",
        both(
            main(smtpd_tls_chain_files=f"{KEY}, {CERTIFICATE}", smtpd_tls_cert_file="", smtpd_tls_key_file=""),
            lambda facts: host(certificates={**facts.certificates, KEY: "there is no certificate in it"})(facts),
        ),
    ),
    ("certificate-name", "a wildcard", certificate(name="*.example.com")),
    ("certificate-renewed", "six days', new", certificate(begins_day=-1, ends_day=5)),
    ("private-key", "for root's group", file(KEY, 0o640)),
    ("outbound-authenticated", "MTA-STS alone", main(smtp_tls_security_level="may")),
    ("outbound-authorities", "the system's", main(smtp_tls_CAfile="", tls_append_default_CA="yes")),
    (
        "outbound-password",
        "encrypted",
        main(
            smtp_sasl_auth_enable="yes", smtp_sasl_security_options="noanonymous", smtp_tls_security_level="encrypt"
        ),
    ),
    ("login-under-tls", "a third port", PORT_2525),
    (
        "sender-login",
        "mailguard's",
        both(main(smtpd_sender_login_maps=""), host(mailguard=MailguardFacts("enforce", ("postfixadmin",), ()))),
    ),
    (
        "unknown-recipients",
        "as a restriction",
        main(smtpd_reject_unlisted_recipient="no", smtpd_relay_restrictions="reject_unlisted_recipient, reject"),
    ),
    ("blocklists", "rspamd", RSPAMD),
    ("blocklists", "postscreen", POSTSCREEN),
    (
        "greylisting",
        "a milter",
        both(
            main(
                smtpd_milters="unix:mailguard/mailguard.sock, unix:/run/milter-greylist/milter-greylist.sock",
                smtpd_recipient_restrictions="reject_non_fqdn_recipient, reject_rbl_client zen.spamhaus.org",
            )
        ),
    ),
    (
        "smuggling-end-of-data",
        "an old Postfix",
        both(
            without(*OLD),
            main(
                smtpd_data_restrictions="reject_unauth_pipelining",
                smtpd_discard_ehlo_keywords="chunking, silent-discard",
            ),
        ),
    ),
    ("login-rate", "an old Postfix", without("smtpd_client_auth_rate_limit")),
    (
        "authentication",
        "three programs",
        both(
            main(
                smtpd_milters="unix:opendkim/opendkim.sock, { inet:127.0.0.1:8893, connect_timeout=10s }",
                smtpd_recipient_restrictions=f"check_policy_service unix:private/policyd-spf, {PERMITTED}",
            ),
            host(mailguard=None),
        ),
    ),
    (
        "authentication",
        "an address of our configuration",
        both(
            main(smtpd_milters="inet:127.0.0.1:7777"),
            host(mailguard=MailguardFacts("enforce", (), ("inet:127.0.0.1:7777",))),
        ),
    ),
    (
        "resolver-validates",
        "the stub",
        both(host(nameservers=("127.0.0.53",)), settings("systemd-resolved", "[Resolve]", "DNSSEC=yes")),
    ),
    ("resolver-validates", "named", both(settings("unbound"), settings("named", "dnssec-validation auto;"))),
    (
        "password-files",
        "a relay host's",
        both(
            main(smtp_sasl_password_maps=f"lmdb:{PASSWORDS}"),
            file(PASSWORDS, 0o600),
            file(f"{PASSWORDS}.lmdb", 0o600),
        ),
    ),
    ("login-guard", "another one", host(programs=frozenset({"crowdsec"}))),
    (
        "login-guard",
        "nobody logs in",
        both(service("submission/inet", "none"), service("submissions/inet", "none"), host(programs=frozenset())),
    ),
    ("limits-counted", "a null client", NULL_CLIENT),
]

UNCLEAR: list[tuple[str, Change]] = [
    ("private-key", host(files={**HARDENED.files, KEY: "Permission denied"})),
    ("certificate-present", host(certificates={})),
    ("trusted-networks", main(mynetworks="127.0.0.0/8 cidr:/etc/postfix/nets")),
    ("trusted-networks", main(mynetworks="127.0.0.0/8 hash:/etc/postfix/nets")),
    ("authentication", both(main(smtpd_milters="inet:192.0.2.7:9999"), host(mailguard=None))),
    ("resolver-validates", settings("unbound")),
    ("configuration-files", host(files={k: v for k, v in HARDENED.files.items() if not k.endswith("main.cf")})),
    ("database-user", host(tables={TABLE: "Permission denied"})),
]
