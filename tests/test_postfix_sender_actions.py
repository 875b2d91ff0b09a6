"""Mail of logins through the real Postfix and Dovecot: each action that there is, and a login that is not told.

The source is Postfix's own table, as smtpd_sender_login_maps has it, or each login's own address. Group L of the
attack table.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

import zone0
from dovecot_site import LoginSite, open_login_site, why_no_dovecot
from engine_process import only
from postfix_commands import write_main_cf
from postfix_site import fields_named
from sandbox_place import clean_environment, make_public_directory, write_file
from sender_mail import ALICE, BOB, CEO, DIRECT, OTHERS, assert_refused, assert_signed, mail, rows, written

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(why_no_dovecot() is not None, reason=str(why_no_dovecot()))]

PATIENCE_S = 30.0
POLL_S = 0.02

TABLE = """\
alice@us.test   alice@us.test
bob@us.test     bob@us.test, carol@us.test
@other.test     alice@us.test
"""
LENIENT = """
[senders]
sources = ["postfix"]
[senders.postfix]
maps = "hash:{table}"
[senders.actions]
envelope = "off"
header_from = "quarantine"
sender = "header"
resent = "log"
null_sender = "reject"
alignment = "reject"
"""


@pytest.fixture(scope="module")
def lenient(engine: str) -> Iterator[LoginSite]:
    directory = make_public_directory("mailguard-table-")
    write_file(directory / "owners", TABLE)
    write_main_cf(directory)
    command = ["postmap", "-c", str(directory), f"hash:{directory}/owners"]
    subprocess.run(command, env=clean_environment(), check=True)
    (directory / "owners.db").chmod(0o644)
    senders = LENIENT.format(table=directory / "owners")
    with pytest.MonkeyPatch.context() as patch:
        # The daemon has postmap list the table.
        patch.setenv("MAIL_CONFIG", str(directory))
        with open_login_site(
            users=(ALICE, BOB, "carol@us.test"), senders=senders, others=OTHERS, submission=DIRECT, engine=engine
        ) as made:
            yield made
    shutil.rmtree(directory)


# id: (the message, its place, the rule, the domain that signs it)
DONE = {
    "L02 delegate": (written(BOB, login="carol@us.test", sender=BOB), "delivered", None, "us.test"),
    "L02 not the delegate's own": (written("carol@us.test", login="carol@us.test"), "held", "sender-from", "us.test"),
    "L02 not the delegate's master": (written(BOB, sender=ALICE), "held", "sender-from", "us.test"),
    "L02 off": (written(ALICE, sender=BOB), "delivered", None, "us.test"),
    "L11 whole domain": (written(CEO, sender=CEO), "delivered", None, "other.test"),
    "L06 Sender": (
        mail(ALICE, ALICE, "From: <alice@us.test>", "Sender: <bob@us.test>"),
        "marked",
        "sender-sender",
        "us.test",
    ),
    "L06 Resent-From": (
        mail(ALICE, ALICE, "Resent-From: <bob@us.test>", "From: <alice@us.test>"),
        "delivered",
        "",
        "us.test",
    ),
    "L05 null sender": (written(ALICE, sender=""), "delivered", None, "us.test"),
    "L05 null sender of somebody else": (written(BOB, sender=""), "refused", "sender-null", ""),
    "alignment": (written(CEO, sender=ALICE), "refused", "sender-alignment", ""),
}


@only("native")
@pytest.mark.parametrize("name", rows(DONE))
def test_what_is_done_is_what_is_configured(lenient: LoginSite, name: str) -> None:
    sent, place, rule, domain = DONE[name]
    recipient = lenient.mail.recipient()
    answer, record = lenient.send(sent.content, login=sent.login, sender=sent.sender, recipient=recipient)
    assert record.get("rule") == (rule or None), record
    assert ("noted" in record) == (rule == "" or name == "L05 null sender of somebody else"), record
    if place == "refused":
        assert_refused(answer, str(rule), "")
        return
    assert answer.code == 250, answer
    assert (answer.queue_id in lenient.mail.postfix.held()) == (place == "held")
    if place == "held":
        assert lenient.mail.is_empty(recipient)
        lenient.mail.postfix.release(answer.queue_id)
    message = assert_signed(lenient, recipient, domain)
    marks = [b" sender-sender"] if place == "marked" else []
    assert fields_named(message, "X-Mailguard-Policy") == marks


# --- Two accounts that differ in case alone -----------------------------------------------------------------------

TWO_ACCOUNTS = """
[senders]
sources = ["inline"]
login_case = "significant"
[senders.inline.logins]
"Alice@us.test" = ["ceo@other.test"]
"""


@pytest.mark.attack("L07")
@only("native")
def test_two_accounts_that_differ_in_case_alone(engine: str) -> None:
    with open_login_site(
        users=(ALICE, "Alice@us.test"),
        senders=TWO_ACCOUNTS,
        others=OTHERS,
        submission=DIRECT,
        folds_case=False,
        engine=engine,
    ) as site:
        content = written(CEO).content
        answer, record = site.send(content, login=ALICE)
        assert_refused(answer, "sender-from", f"login {ALICE} may not use {CEO}")
        recipient = site.mail.recipient()
        answer, record = site.send(content, login="Alice@us.test", sender="Alice@us.test", recipient=recipient)
        assert (answer.code, record["login"]) == (250, "Alice@us.test")
        assert_signed(site, recipient, "other.test")
        # What the one has been granted the other still has not.
        assert_refused(site.send(content, login=ALICE)[0], "sender-from", f"login {ALICE} may not use {CEO}")


# --- Without the name of the login ------------------------------------------------------------------------------

OWN_ALONE = """
[senders]
sources = ["inline"]
"""
# What an administrator may have left of milter_mail_macros. Postfix is asked for what is missing.
TRIMMED = {
    "L14 nothing of a login": "{mail_host}",
    "L14 the sender alone": "{mail_addr}",
    "L14 no name": "{auth_type} {mail_addr}",
}


@pytest.mark.attack("L14", "L13")
@pytest.mark.parametrize("engine", ["libmilter", "native"], indirect=True)
@pytest.mark.parametrize("left", TRIMMED.values(), ids=TRIMMED)
def test_a_login_is_asked_for_whatever_main_cf_says(engine: str, left: str) -> None:
    main = {"milter_mail_macros": left}
    with open_login_site(
        users=(ALICE,), senders=OWN_ALONE, others=OTHERS, main=main, submission=DIRECT, engine=engine
    ) as site:
        recipient = site.mail.recipient()
        with site.log_in(ALICE) as client:
            answer = client.transmit(zone0.mail(f"<{ALICE}>"), sender=ALICE, recipient=recipient)
        assert answer.code == 250
        assert_signed(site, recipient, "us.test")
        assert "warning" not in record_after(site, 0)
        recipient = site.mail.recipient()
        with site.log_in(ALICE) as client:
            answer = client.transmit(zone0.mail(f"<{CEO}>"), sender=ALICE, recipient=recipient)
        assert_refused(answer, "sender-from", f"login {ALICE} may not use {CEO}")
        assert site.mail.is_empty(recipient)


def record_after(site: LoginSite, known: int) -> dict[str, object]:
    """It is written after the answer."""
    end = time.monotonic() + PATIENCE_S
    while len(records := site.mail.records()) <= known:
        assert time.monotonic() < end, site.mail.daemon.log_tail()
        time.sleep(POLL_S)
    return records[known]


@pytest.mark.attack("L13")
@only("libmilter")
def test_a_client_certificate_is_no_login(engine: str) -> None:
    """Postfix lets the client relay and tells no {auth_type}: it is nobody's login, and nothing is signed for it."""
    with open_login_site(
        users=(ALICE,),
        senders=OWN_ALONE,
        others=OTHERS,
        submission={
            **DIRECT,
            "smtpd_tls_ask_ccert": "yes",
            "relay_clientcerts": "static:any",
            "smtpd_tls_fingerprint_digest": "sha256",
            "smtpd_recipient_restrictions": "permit_tls_clientcerts, reject",
            "smtpd_relay_restrictions": "permit_tls_clientcerts, reject",
        },
        engine=engine,
    ) as site:
        for author in (ALICE, CEO):
            recipient = site.mail.recipient()
            with site.encrypted(with_certificate=True) as client:
                answer = client.transmit(zone0.mail(f"<{author}>"), sender=author, recipient=recipient)
            assert answer.code == 250, answer
            assert site.mail.record(answer.queue_id)["role"] == "verify"
            assert fields_named(site.mail.delivered_to(recipient), "DKIM-Signature") == []
        with site.encrypted(with_certificate=False) as client:
            assert client.begin(sender=ALICE, recipient=recipient).code == 554
