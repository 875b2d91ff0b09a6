"""What `mailguard audit` is not to find, and what it cannot tell: changes of the hardened host in audit_host.py.

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
from audit_rows import BARRIER, IREDAPD, OLD, PERMITTED, PORT_2525, SENDERS, SNI, Row
from mailguard.audit.facts import MailguardFacts

__all__ = ["GOOD", "UNCLEAR"]

INLINE = "check_client_access inline:{ {192.0.2.1 = permit, reject} }, " + BARRIER
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
    (
        "open-relay",
        "a table before one of two barriers",
        main(smtpd_recipient_restrictions=f"check_sender_access {SENDERS}, {PERMITTED}, {BARRIER}"),
    ),
    (
        "open-relay",
        "a table that permits nobody",
        both(
            main(smtpd_relay_restrictions=f"check_sender_access proxy:{SENDERS}, {BARRIER}"),
            host(access={SENDERS: False}),
        ),
    ),
    ("open-relay", "a table with the word in it", main(smtpd_relay_restrictions=INLINE)),
    (
        "open-relay",
        "behind the barrier",
        main(smtpd_relay_restrictions=f"{BARRIER}, permit_dnswl_client list.test, permit_tls_all_clientcerts"),
    ),
    (
        "open-relay",
        "a backup of known networks",
        main(smtpd_relay_restrictions=f"permit_mx_backup, {BARRIER}", permit_mx_backup_networks="192.0.2.0/24"),
    ),
    ("open-relay", "in capitals", main(smtpd_relay_restrictions="Permit_Mynetworks, Reject_Unauth_Destination")),
    (
        "open-relay",
        "whoever it is for",
        main(relay_domains="static:all", relay_recipient_maps="hash:/etc/users"),
    ),
    (
        "open-relay",
        "for its own users alone",
        main(
            relay_domains="static:all",
            relay_recipient_maps="static:all",
            smtpd_relay_restrictions=f"{PERMITTED}, reject",
        ),
    ),
    (
        "open-relay",
        "for its own users alone, others are to come back",
        main(
            relay_domains="static:all",
            relay_recipient_maps="static:all",
            smtpd_relay_restrictions=f"{PERMITTED}, defer",
        ),
    ),
    ("open-relay", "none of its own", main(relay_domains="!static:all")),
    ("open-relay", "on loopback alone", service("127.0.0.1:10025/inet", "smtpd", smtpd_relay_restrictions="permit")),
    ("trusted-networks", "private and one's own", main(mynetworks="10.0.0.0/8 [fd00::]/16 93.184.216.34/32")),
    ("trusted-networks", "behind a provider's NAT", main(mynetworks="127.0.0.0/8 100.64.0.0/10")),
    ("trusted-networks", "excluded", main(mynetworks="!93.0.0.0/8 127.0.0.0/8")),
    ("neighbours", "set by hand", main(mynetworks_style="subnet")),
    ("neighbours", "the host alone", main("mynetworks", mynetworks_style="host")),
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
    (
        "submission-for-logins",
        "others are to come back",
        service(
            "submission/inet",
            smtpd_relay_restrictions="permit_sasl_authenticated,defer",
            smtpd_sender_restrictions="reject_sender_login_mismatch",
        ),
    ),
    ("xclient", "a private proxy", main(smtpd_authorized_xclient_hosts="127.0.0.1 [::1] 10.0.0.2")),
    ("xclient", "this host by its name", main(smtpd_authorized_xclient_hosts="localhost")),
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
    ("private-key", "for Debian's group", file(KEY, 0o640, gid=107, group="ssl-cert")),
    ("private-key", "a table", both(main(tls_server_sni_maps="hash:/etc/postfix/sni"), file(SNI, 0o600))),
    ("outbound-authenticated", "MTA-STS alone", main(smtp_tls_security_level="may")),
    ("outbound-dnssec", "hosts too", main(smtp_host_lookup="dns, native")),
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
        "login-under-tls",
        "no password in the clear",
        both(
            PORT_2525,
            service(
                "2525/inet",
                smtpd_tls_auth_only="no",
                smtpd_sasl_security_options="NoPlaintext,NoAnonymous",
                smtpd_sasl_tls_security_options="NoAnonymous",
            ),
        ),
    ),
    (
        "sender-login",
        "mailguard's",
        both(main(smtpd_sender_login_maps=""), host(mailguard=MailguardFacts("enforce", ("postfixadmin",), {}))),
    ),
    (
        "sender-login",
        "mailguard's, by another name of its host",
        both(
            main(smtpd_sender_login_maps="", smtpd_milters="inet:localhost:7777"),
            host(mailguard=MailguardFacts("enforce", ("inline",), {"inet:127.0.0.1:7777": "auto"})),
        ),
    ),
    (
        "unknown-recipients",
        "as a restriction",
        main(smtpd_reject_unlisted_recipient="no", smtpd_relay_restrictions="reject_unlisted_recipient, reject"),
    ),
    (
        "unknown-recipients",
        "tables of each class",
        main(
            relay_domains="example.org",
            relay_recipient_maps="hash:/etc/postfix/relay",
            virtual_mailbox_domains="example.net",
            virtual_mailbox_maps=f"proxy:mysql:{TABLE}",
        ),
    ),
    (
        "unknown-recipients",
        "the server behind is asked",
        main(
            relay_domains="example.org",
            smtpd_recipient_restrictions=f"{PERMITTED}, {BARRIER}, reject_unverified_recipient",
        ),
    ),
    ("unknown-recipients", "local domains", main(relay_domains="mx.example.com, localhost")),
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
        "two programs at their usual ports",
        both(
            main(smtpd_milters="inet:127.0.0.1:8891 inet:127.0.0.1:8893"),
            settings("opendmarc", "SPFSelfValidate true"),
            host(mailguard=None),
        ),
    ),
    (
        "milter-default-action",
        "each milter has its own",
        main(
            milter_default_action="accept",
            smtpd_milters="{ unix:mailguard/mailguard.sock, default_action = tempfail }",
        ),
    ),
    (
        "authentication",
        "an address of our configuration",
        both(
            main(smtpd_milters="inet:127.0.0.1:7777"),
            host(mailguard=MailguardFacts("enforce", (), {"inet:127.0.0.1:7777": "auto"})),
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
    ("login-guard", "every jail", settings("fail2ban", "[DEFAULT]", "enabled = true", "[postfix-sasl]")),
    ("login-guard", "another one", host(programs=frozenset({"crowdsec"}))),
    (
        "login-guard",
        "nobody logs in",
        both(service("submission/inet", "none"), service("submissions/inet", "none"), host(programs=frozenset())),
    ),
    ("limits-counted", "a null client", NULL_CLIENT),
    (
        "misspelt-parameters",
        "the port in a table that it has by itself",
        lambda facts: postfix(facts, unused=(("mysql:/x.cf", "port=3306"), ("pgsql:/x.cf", "port = 5432"))),
    ),
]

UNCLEAR: list[tuple[str, Change]] = [
    ("private-key", host(files={**HARDENED.files, KEY: "Permission denied"})),
    ("open-relay", main(smtpd_relay_restrictions=f"check_sender_access mysql:/x.cf, {BARRIER}")),
    ("open-relay", main(smtpd_relay_restrictions=f"check_policy_service inet:192.0.2.1:9, {BARRIER}")),
    ("open-relay", main(smtpd_relay_restrictions=f"warn_if_reject check_policy_service inet:192.0.2.1:9, {BARRIER}")),
    ("trusted-networks", main(mynetworks="127.0.0.0/8 socketmap:inet:192.0.2.1:9:nets")),
    ("certificate-present", host(certificates={})),
    ("trusted-networks", main(mynetworks="127.0.0.0/8 cidr:/etc/postfix/nets")),
    ("trusted-networks", main(mynetworks="127.0.0.0/8 /etc/postfix/nets")),
    ("trusted-networks", main(mynetworks="127.0.0.0/8 hash:/etc/postfix/nets")),
    ("authentication", both(main(smtpd_milters="inet:192.0.2.7:9999"), host(mailguard=None))),
    ("authentication", service("smtp/inet", smtpd_proxy_filter="127.0.0.1:10024")),
    ("authentication", service("smtp/inet", smtpd_milter_maps="cidr:/etc/postfix/milters")),
    ("sender-login", service("submission/inet", smtpd_sender_restrictions=f"{IREDAPD},permit_sasl_authenticated")),
    ("resolver-validates", settings("unbound")),
    ("configuration-files", host(files={k: v for k, v in HARDENED.files.items() if not k.endswith("main.cf")})),
    ("database-user", host(tables={TABLE: "Permission denied"})),
]
