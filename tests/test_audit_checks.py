"""Every check of `mailguard audit`: a hardened host passes, and one thing that is wrong trips exactly one check."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from audit_host import HARDENED, Change, both, certificate, host, main, postfix, service
from audit_rows import BAD, GOOD, UNCLEAR, Row
from mailguard.audit.checks import CHECKS, run_checks
from mailguard.audit.facts import HostFacts, MailguardFacts
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
        "postconf -e 'smtpd_forbid_bare_newline = normalize'",
    ),
    (
        "misspelt-parameters",
        both(
            lambda facts: postfix(facts, unused=(("master.cf", "smtpd_typo=1"),)),
            service("submission/inet", smtpd_typo="1"),
        ),
        "postconf -PX 'submission/inet/smtpd_typo'",
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
        "', check_policy_service inet:127.0.0.1:10023, permit'",
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


def test_a_setting_of_a_service_follows_from_another_one_of_it() -> None:
    """smtpd_sasl_tls_security_options is $smtpd_sasl_security_options, also where a service sets the latter."""
    facts = service("submission/inet", smtpd_sasl_security_options="")(HARDENED)
    (result,) = tripped(facts).values()
    assert [found.what for found in result.found] == [
        "smtpd_sasl_security_options is empty",
        "smtpd_sasl_tls_security_options is empty",
    ]


def test_monitor_mode_holds_no_login_to_its_addresses() -> None:
    ours = host(mailguard=MailguardFacts("monitor", ("inline",), ()))
    found = tripped(both(main(smtpd_sender_login_maps=""), ours)(HARDENED))
    assert list(found) == ["sender-login", "mailguard-enforces"]
    assert "refuses nothing in monitor mode" in found["sender-login"].found[0].what


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
