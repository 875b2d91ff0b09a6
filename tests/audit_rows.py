"""What `mailguard audit` is to find: changes of the hardened host in audit_host.py.

A row is the check, what is different, and the change.
"""

from __future__ import annotations

from audit_host import (
    CERTIFICATE,
    HARDENED,
    KEY,
    OUR_SOCKET,
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

__all__ = ["BAD", "BARRIER", "IREDAPD", "OLD", "PERMITTED", "PORT_2525", "SENDERS", "SNI", "Row"]

Row = tuple[str, str, Change]

OLD = ("smtpd_forbid_bare_newline", "smtpd_forbid_unauth_pipelining")
PERMITTED = "reject_non_fqdn_recipient, check_policy_service inet:127.0.0.1:10023, reject_rbl_client x.test"
BARRIER = "reject_unauth_destination"
IREDAPD = "check_policy_service,inet:127.0.0.1:7777"
SENDERS = "hash:/etc/postfix/senders"
SNI = "/etc/postfix/sni.db"
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
    ("open-relay", "a permit that only warns", main(smtpd_relay_restrictions=f"warn_if_reject permit, {BARRIER}")),
    ("open-relay", "in capitals", main(smtpd_relay_restrictions=f"PERMIT, {BARRIER}")),
    (
        "open-relay",
        "everybody's certificate",
        main(smtpd_relay_restrictions=f"permit_tls_all_clientcerts, {BARRIER}"),
    ),
    ("open-relay", "a backup of all", main(smtpd_relay_restrictions=f"permit_mx_backup, {BARRIER}")),
    ("open-relay", "a list of others", main(smtpd_relay_restrictions=f"permit_dnswl_client list.test, {BARRIER}")),
    ("open-relay", "OK for all", main(smtpd_relay_restrictions=f"check_client_access static:OK, {BARRIER}")),
    ("open-relay", "OK in braces", main(smtpd_relay_restrictions=f"check_client_access static:{{OK}}, {BARRIER}")),
    ("open-relay", "for every domain", main(relay_domains="a.test, static:all", relay_recipient_maps="static:all")),
    (
        "open-relay",
        "for every domain, by one of two tables",
        main(relay_domains="static:all", relay_recipient_maps="hash:/etc/users, static:all"),
    ),
    (
        "open-relay",
        "for every domain, and else refused",
        main(
            relay_domains="static:all",
            relay_recipient_maps="static:all",
            smtpd_relay_restrictions=f"{PERMITTED}, permit_auth_destination, reject",
        ),
    ),
    (
        "open-relay",
        "for every domain, in a service",
        both(
            service("smtp/inet", relay_domains="proxy:static:all"),
            main(smtpd_recipient_restrictions=f"{PERMITTED}, reject_unverified_recipient"),
        ),
    ),
    (
        "open-relay",
        "OK of a table that only warns",
        main(smtpd_relay_restrictions=f"warn_if_reject check_client_access static:OK, {BARRIER}"),
    ),
    (
        "open-relay",
        "OK for a sender",
        both(
            main(
                smtpd_relay_restrictions=f"check_sender_access {SENDERS}, {BARRIER}",
                smtpd_recipient_restrictions=f"{PERMITTED}, check_helo_access {SENDERS}, {BARRIER}",
            ),
            host(access={SENDERS: True}),
        ),
    ),
    (
        "open-relay",
        "listening where master says",
        service("smtp/inet", inet_interfaces="127.0.0.1", smtpd_relay_restrictions="permit"),
    ),
    ("open-relay", "both empty", service("smtp/inet", smtpd_relay_restrictions="")),
    ("open-relay", "in another service", service("2525/inet", "smtpd", smtpd_relay_restrictions="permit")),
    ("trusted-networks", "the world", main(mynetworks="127.0.0.0/8 0.0.0.0/0")),
    ("trusted-networks", "the world, by IPv6", main(mynetworks="127.0.0.0/8, [::]/0")),
    ("trusted-networks", "a table for all", main(mynetworks="127.0.0.0/8 static:all")),
    ("trusted-networks", "a table in place", main(mynetworks="cidr:{ {0.0.0.0/0 yes} }")),
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
    ("neighbours", "class", main("mynetworks", mynetworks_style="class", mynetworks="93.184.216.0/24")),
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
    ("tls-offered", "not said", service("smtp/inet", smtpd_discard_ehlo_keywords="chunking, StartTLS")),
    ("tls-not-forced", "in capitals", service("smtp/inet", smtpd_tls_security_level="Encrypt")),
    ("tls-not-forced", "encrypt", service("smtp/inet", smtpd_tls_security_level="encrypt")),
    ("submission-encrypted", "may", service("submission/inet", smtpd_tls_security_level="may")),
    (
        "submission-encrypted",
        "the older name does not count",
        service("submission/inet", smtpd_tls_security_level="may", smtpd_enforce_tls="yes"),
    ),
    ("submission-encrypted", "from main.cf", service("submissions/inet", smtpd_tls_wrappermode="-")),
    ("tls-mandatory-protocols", "TLS 1.0", main(smtpd_tls_mandatory_protocols=">=TLSv1")),
    ("tls-mandatory-protocols", "the old form", main(smtpd_tls_mandatory_protocols="!SSLv2, !SSLv3")),
    ("tls-mandatory-protocols", "not readable", main(smtpd_tls_mandatory_protocols=">=TLSv1.2, !TLSv12")),
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
    ("certificate-present", "no key", host(files={**HARDENED.files, KEY: "No such file or directory"})),
    ("certificate-valid", "over", certificate(begins_day=-90, ends_day=-1)),
    ("certificate-valid", "not yet", certificate(begins_day=1)),
    ("certificate-renewed", "a year's", certificate(begins_day=-355, ends_day=10)),
    ("certificate-renewed", "six days'", certificate(begins_day=-6, ends_day=1)),
    ("certificate-name", "another", certificate(name="www.example.com")),
    ("certificate-name", "a wildcard above", certificate(name="*.com")),
    ("private-key", "for all", file(KEY, 0o644)),
    ("private-key", "for a group", file(KEY, 0o640, gid=109)),
    ("private-key", "writable", file(KEY, 0o660, gid=107, group="ssl-cert")),
    ("private-key", "in a table", both(main(tls_server_sni_maps="hash:/etc/postfix/sni"), file(SNI, 0o644))),
    ("private-key", "of a user", file(KEY, 0o600, uid=33)),
    ("outbound-tls", "none", main(smtp_tls_security_level="none")),
    ("outbound-tls", "empty", main(smtp_tls_security_level="")),
    ("outbound-authenticated", "may", main(smtp_tls_security_level="may", smtp_tls_policy_maps="")),
    ("outbound-tls", "in master.cf", service("smtp/unix", smtp_tls_security_level="none")),
    ("outbound-dnssec", "enabled", main(smtp_dns_support_level="enabled")),
    ("outbound-dnssec", "past the DNS", main(smtp_host_lookup="native")),
    ("outbound-dnssec", "empty", main(smtp_dns_support_level="")),
    ("outbound-authorities", "none", main(smtp_tls_CAfile="")),
    ("outbound-protocols", "TLS 1.0", main(smtp_tls_mandatory_protocols=">=TLSv1")),
    (
        "outbound-password",
        "in the clear",
        main(smtp_sasl_auth_enable="yes", smtp_sasl_security_options="noanonymous"),
    ),
    (
        "outbound-password",
        "the older name does not count",
        main(smtp_sasl_auth_enable="yes", smtp_sasl_security_options="noanonymous", smtp_enforce_tls="yes"),
    ),
    (
        "outbound-password",
        "by another service",
        service("relay/unix", "smtp", smtp_sasl_auth_enable="yes", smtp_sasl_security_options="noanonymous"),
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
    (
        "sender-login",
        "past mailguard",
        both(
            main(smtpd_sender_login_maps=""),
            service("submission/inet", smtpd_milters="unix:opendkim/opendkim.sock"),
            host(mailguard=MailguardFacts("enforce", ("inline",), {OUR_SOCKET: "auto"})),
        ),
    ),
    (
        "sender-login",
        "at a listener that only verifies",
        both(
            main(smtpd_sender_login_maps=""),
            host(mailguard=MailguardFacts("enforce", ("inline",), {OUR_SOCKET: "verify"})),
        ),
    ),
    (
        "sender-login",
        "mailguard only tells",
        both(
            main(smtpd_sender_login_maps=""),
            host(mailguard=MailguardFacts("enforce", ("inline",), {OUR_SOCKET: "auto"}, keeps_senders_back=False)),
        ),
    ),
    (
        "sender-login",
        "a policy service that logins do not come to",
        service("submission/inet", smtpd_sender_restrictions=f"permit_sasl_authenticated,{IREDAPD}"),
    ),
    (
        "sender-login",
        "a policy service that does something else",
        service("submission/inet", smtpd_sender_restrictions="check_policy_service,inet:127.0.0.1:9999"),
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
    ("unknown-recipients", "of mailboxes elsewhere", main(virtual_mailbox_domains="example.org")),
    ("unknown-recipients", "of a server behind", main(relay_domains="mx.example.com, example.org")),
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
    ("message-size", "in a service", service("smtp/inet", message_size_limit="0")),
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
    (
        "authentication",
        "a listener that only signs",
        host(mailguard=MailguardFacts("enforce", (), {OUR_SOCKET: "sign"})),
    ),
    ("authentication", "passed by", service("smtp/inet", receive_override_options="no_milters")),
    ("milter-default-action", "accept", main(milter_default_action="accept")),
    ("milter-default-action", "of users' mail", service("submission/inet", milter_default_action="accept")),
    (
        "milter-default-action",
        "of one milter",
        main(smtpd_milters="{ unix:mailguard/mailguard.sock, default_action = accept }"),
    ),
    ("originating", "in main.cf", main(milter_macro_daemon_name="ORIGINATING")),
    ("mailguard-enforces", "monitor", host(mailguard=MailguardFacts("monitor", (), {}))),
    ("resolver-local", "a provider's", host(nameservers=("127.0.0.1", "9.9.9.9"))),
    ("resolver-validates", "no anchor", settings("unbound", "server:")),
    (
        "resolver-validates",
        "not meant",
        settings("unbound", "auto-trust-anchor-file: x", "val-permissive-mode: yes"),
    ),
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
    ("password-files", "in main.cf", main(smtp_sasl_password_maps="static:us:secret")),
    ("password-files", "in master.cf", service("relay/unix", "smtp", smtp_sasl_password_maps="inline:{r=us:secret}")),
    (
        "password-files",
        "of a service",
        both(service("relay/unix", "smtp", smtp_sasl_password_maps=f"hash:{PASSWORDS}"), file(PASSWORDS, 0o644)),
    ),
    (
        "password-files",
        "of a directory",
        both(host(tables={"/etc/l.cf": TableFacts("ldap", "cn=admin", has_password=True)}), file("/etc/l.cf", 0o644)),
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
    ("misspelt-parameters", "in a table", lambda facts: postfix(facts, unused=(("mysql:/x.cf", "passwrd=secret"),))),
    ("soft-bounce", "on", main(soft_bounce="yes")),
    ("soft-bounce", "in a service", service("smtp/inet", soft_bounce="yes")),
]
