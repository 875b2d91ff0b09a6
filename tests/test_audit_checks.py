"""Every check of `mailguard audit`: a hardened host passes, and one thing that is wrong trips exactly one check."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from audit_good_rows import GOOD, UNCLEAR
from audit_host import HARDENED, TABLE, Change, both, certificate, host, main, postfix, service, without
from audit_rows import BAD, Row
from mailguard.audit.checks import CHECKS, run_checks
from mailguard.audit.facts import HostFacts, MailguardFacts, TableFacts
from mailguard.audit.finding import Result, Severity


def tripped(facts: HostFacts) -> dict[str, Result]:
    return {result.check.id: result for result in run_checks(facts) if result.found or result.unclear}


def ids(rows: list[Row]) -> list[str]:
    return [f"{check}: {label}" for check, label, _ in rows]


def test_a_hardened_host_passes_everything() -> None:
    assert tripped(HARDENED) == {}
    assert len(CHECKS) >= 25


def test_each_check_is_named_once_and_says_what_and_why() -> None:
    names = [check.id for check in CHECKS]
    assert len(set(names)) == len(names)
    for check in CHECKS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", check.id)
        assert check.rule.rstrip(".") == check.rule
        assert check.why.endswith(".")


def test_each_check_has_a_bad_configuration() -> None:
    assert {check for check, _, _ in BAD} == {check.id for check in CHECKS}


@pytest.mark.parametrize(("check", "label", "change"), BAD, ids=ids(BAD))
def test_one_bad_setting_trips_exactly_its_check(check: str, label: str, change: Change) -> None:
    found = tripped(change(HARDENED))
    assert list(found) == [check]
    assert not found[check].unclear
    for each in found[check].found:
        assert each.place
        assert each.what
        assert each.commands
        assert "  " not in each.what


@pytest.mark.parametrize(("check", "label", "change"), GOOD, ids=ids(GOOD))
def test_other_ways_to_do_it_well_pass(check: str, label: str, change: Change) -> None:
    assert tripped(change(HARDENED)) == {}


@pytest.mark.parametrize(("check", "change"), UNCLEAR, ids=[check for check, _ in UNCLEAR])
def test_what_cannot_be_told_is_said_and_is_no_finding(check: str, change: Change) -> None:
    found = tripped(change(HARDENED))
    assert list(found) == [check]
    assert not found[check].found
    assert found[check].unclear


# -- what the commands say -----------------------------------------------------------------------------------------

COMMANDS: list[tuple[str, Change, str]] = [
    (
        "trusted-networks",
        main(mynetworks="127.0.0.0/8, [::]/0 hash:/etc/postfix/x !10.0.0.0/8"),
        "postconf -e 'mynetworks = 127.0.0.0/8 hash:/etc/postfix/x !10.0.0.0/8'",
    ),
    (
        "smuggling-end-of-data",
        main(smtpd_forbid_bare_newline="no"),
        "postconf -e 'smtpd_forbid_bare_newline = yes'",
    ),
    (
        "misspelt-parameters",
        both(
            lambda facts: postfix(facts, unused=(("master.cf", "smtpd_typo=1"),)),
            service("submission/inet", smtpd_typo="1"),
        ),
        "postconf -PX 'submission/inet/smtpd_typo'",
    ),
    (
        "misspelt-parameters",
        lambda facts: postfix(facts, unused=(("pgsql:/x/y.cf", "port=3306"),)),
        "# in /x/y.cf: write hosts = HOST:PORT in its place",
    ),
    (
        "misspelt-parameters",
        lambda facts: postfix(facts, unused=(("mysql:/x/y.cf", "passwrd=secret"),)),
        "# in /x/y.cf: mend or take it out",
    ),
    ("helo-required", main(smtpd_helo_required="no"), "postconf -e 'smtpd_helo_required = yes'"),
    (
        "helo-required",
        service("smtp/inet", smtpd_helo_required="no"),
        "postconf -P 'smtp/inet/smtpd_helo_required=yes'",
    ),
    (
        "submission-encrypted",
        service("submission/inet", smtpd_tls_security_level="-"),
        "postconf -P 'submission/inet/smtpd_tls_security_level=encrypt'",
    ),
    (
        "tls-mandatory-protocols",
        both(main(smtpd_tls_mandatory_protocols=""), lambda facts: postfix(facts, version=(3, 5, 25))),
        "postconf -e 'smtpd_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1'",
    ),
    (
        "sender-restrictions",
        main(smtpd_sender_restrictions=""),
        "postconf -e 'smtpd_sender_restrictions = reject_non_fqdn_sender, reject_unknown_sender_domain, '"
        '"$(postconf -h smtpd_sender_restrictions)"',
    ),
    (
        "sender-login",
        service("submission/inet", smtpd_sender_restrictions="-"),
        "postconf -P 'submission/inet/smtpd_sender_restrictions=reject_sender_login_mismatch,'"
        "\"$(postconf -h smtpd_sender_restrictions | tr -s ', ' ,)\"",
    ),
    (
        "greylisting",
        main(smtpd_recipient_restrictions="reject_non_fqdn_recipient, reject_rbl_client x.test, permit"),
        "postconf -e 'smtpd_recipient_restrictions = '"
        "\"$(postconf -h smtpd_recipient_restrictions | sed 's/[, ]*permit$//')\""
        "', permit_mynetworks, permit_sasl_authenticated, check_policy_service inet:127.0.0.1:10023, permit'",
    ),
    # Submission may have its level from main.cf.
    (
        "tls-not-forced",
        main(smtpd_tls_security_level="encrypt"),
        "postconf -P 'smtp/inet/smtpd_tls_security_level=may'",
    ),
    # Others may need what the list has already.
    (
        "smuggling-end-of-data",
        both(
            without("smtpd_forbid_bare_newline", "smtpd_forbid_unauth_pipelining"),
            main(smtpd_data_restrictions="reject_unauth_pipelining", smtpd_discard_ehlo_keywords="dsn"),
            service("submission/inet", smtpd_discard_ehlo_keywords="chunking"),
            service("submissions/inet", smtpd_discard_ehlo_keywords="chunking"),
        ),
        "postconf -e 'smtpd_discard_ehlo_keywords = dsn, chunking'",
    ),
    (
        "xclient",
        main(smtpd_authorized_xclient_hosts="10.0.0.2, 93.184.216.34"),
        "postconf -e 'smtpd_authorized_xclient_hosts = 10.0.0.2'",
    ),
    (
        "tls-offered",
        main(smtpd_discard_ehlo_keywords="dsn starttls"),
        "postconf -e 'smtpd_discard_ehlo_keywords = dsn'",
    ),
    (
        "unknown-recipients",
        main(local_recipient_maps="", mailbox_transport="lmtp:unix:private/dovecot-lmtp", local_transport="local:x"),
        "# set local_recipient_maps to a table of those who have a mailbox",
    ),
    (
        "sender-login",
        service("submission/inet", smtpd_sender_restrictions="check_policy_service,{inet:127.0.0.1:9,timeout=9s}"),
        "# in master.cf, submission/inet/smtpd_sender_restrictions: put in front: reject_sender_login_mismatch",
    ),
    (
        "milter-default-action",
        main(smtpd_milters="{ unix:mailguard/mailguard.sock, default_action = Accept }, inet:127.0.0.1:9"),
        "postconf -e 'smtpd_milters = { unix:mailguard/mailguard.sock, default_action=tempfail }, inet:127.0.0.1:9'",
    ),
    (
        "misspelt-parameters",
        lambda facts: postfix(facts, unused=(("main.cf", "it's=1"),), postconf="postconf -c '/x y'"),
        "postconf -c '/x y' -X 'it'\\''s'",
    ),
]


@pytest.mark.parametrize(("check", "change", "command"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_the_command_names_the_place_where_it_is_set(check: str, change: Change, command: str) -> None:
    (found,) = tripped(change(HARDENED))[check].found
    assert found.commands[-1] == command


def test_what_nothing_reads_in_a_table_is_named_without_its_value() -> None:
    """It may be a password."""
    facts = postfix(HARDENED, unused=(("mysql:/x/y.cf", "passwrd=secret"),))
    (found,) = tripped(facts)["misspelt-parameters"].found
    assert (found.place, found.what) == ("/x/y.cf", "nothing reads passwrd")


def test_a_setting_of_a_service_follows_from_another_one_of_it() -> None:
    """smtpd_sasl_tls_security_options is $smtpd_sasl_security_options, also where a service sets the latter."""
    facts = service("submission/inet", smtpd_sasl_security_options="")(HARDENED)
    (result,) = tripped(facts).values()
    assert [found.what for found in result.found] == [
        "smtpd_sasl_security_options is empty",
        "smtpd_sasl_tls_security_options is empty",
    ]


def test_a_fix_takes_no_encryption_away() -> None:
    """`dane` may send in the clear what `encrypt` does not."""
    facts = main(smtp_tls_security_level="encrypt", smtp_tls_policy_maps="")(HARDENED)
    (found,) = tripped(facts)["outbound-authenticated"].found
    assert all(command.startswith("#") for command in found.commands)


def test_what_has_to_be_filled_in_is_no_command() -> None:
    changes = (
        main(smtpd_tls_cert_file="", smtpd_tls_key_file=""),
        host(tables={TABLE: TableFacts("pgsql", "root", has_password=True)}),
        both(main(smtpd_milters=""), host(mailguard=None)),
    )
    for change in changes:
        for result in tripped(change(HARDENED)).values():
            assert all(command.startswith("#") for found in result.found for command in found.commands)


ELSEWHERE = [
    ("xclient", "smtpd_authorized_xclient_hosts", "93.184.216.34", "93.184.216.35"),
    ("untrusted-routing", "allow_untrusted_routing", "yes", "yes"),
    ("error-limit", "smtpd_hard_error_limit", "99", "98"),
]


@pytest.mark.parametrize(("check", "name", "here", "there"), ELSEWHERE, ids=[row[0] for row in ELSEWHERE])
def test_what_is_accepted_of_one_service_hides_no_other(check: str, name: str, here: str, there: str) -> None:
    change = both(service("smtp/inet", **{name: here}), service("submission/inet", **{name: there}))
    found = tripped(change(HARDENED))[check].found
    assert [each.place for each in found] == ["smtp/inet", "submission/inet"]


def test_a_configuration_of_ours_that_cannot_be_read() -> None:
    unread = host(mailguard=None, mailguard_problem="mailguard.toml: Permission denied")
    found = tripped(both(main(smtpd_sender_login_maps=""), unread)(HARDENED))
    assert {check: bool(result.unclear) for check, result in found.items()} == {
        "sender-login": True,
        "mailguard-enforces": True,
    }
    assert not any(result.found for result in found.values())


def test_monitor_mode_holds_no_login_to_its_addresses() -> None:
    ours = host(mailguard=MailguardFacts("monitor", ("inline",), {}))
    found = tripped(both(main(smtpd_sender_login_maps=""), ours)(HARDENED))
    assert list(found) == ["sender-login", "mailguard-enforces"]
    assert "refuses nothing in monitor mode" in found["sender-login"].found[0].what


def test_what_stands_in_main_cf_is_found_once() -> None:
    found = tripped(main(milter_default_action="accept")(HARDENED))["milter-default-action"].found
    assert [each.place for each in found] == ["smtp/inet"]


def test_a_finding_is_the_same_at_another_time() -> None:
    """A baseline goes by its text."""
    change: Callable[[HostFacts], HostFacts] = certificate(begins_day=-355, ends_day=10)
    today, tomorrow = change(HARDENED), both(change, host(now=HARDENED.now + 86_400))(HARDENED)
    assert tripped(today)["certificate-renewed"] == tripped(tomorrow)["certificate-renewed"]


def test_severities_are_exit_codes() -> None:
    assert [each.value for each in Severity] == [1, 2, 3]
    assert {check.severity for check in CHECKS} == set(Severity)


def test_a_class_that_names_itself_ends() -> None:
    loop = main(smtpd_restriction_classes="a b", a="b, b", b="a, a", smtpd_client_restrictions="a")
    assert tripped(loop(HARDENED)) == {}
