"""Who writes as whom, through the real Postfix: submission with STARTTLS, real logins by Dovecot, and PostfixAdmin.

Group L of the attack table, and the three attacks of espoofer that begin with a login (RFC 5322 §3.6.2 says whom From
and Sender name). Every domain here is ours and has a key: without the check, each of these messages goes out signed
in the name of another user or of another tenant. The tenants are those of postfixadmin_site.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

import zone0
from database_site import SqliteFiles
from dovecot_site import LoginSite, open_login_site, why_no_dovecot
from engine_process import only
from postfix_site import STRANGER, fields_named
from postfixadmin_site import alias_row, mailbox, statements
from sandbox_place import make_public_directory
from sender_mail import ALICE, BOB, CEO, OTHERS, assert_refused, assert_signed, mail, rows, written
from vectors import require

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(why_no_dovecot() is not None, reason=str(why_no_dovecot()))]

HELPDESK = "helpdesk@us.test"
QUOTED = "o'brien@us.test"
# Logins that would be more than a login in a query that is put together from pieces.
INJECTING = "x' or '1'='1@us.test"
PERCENT = "%@us.test"
ATTACKER, ADMIN = "attacker@example.com", "admin@example.com"
USERS = (ALICE, BOB, CEO, HELPDESK, QUOTED, INJECTING, PERCENT, ATTACKER, ADMIN, "gone@us.test")
LISTED_CLIENT = "203.0.113.9"
NETWORKS = """
[[sign.networks]]
networks = ["203.0.113.0/24"]
domains = ["us.test", "alias.test"]
"""
# helpdesk has the whole of another tenant's domain; example.com is in no database.
SENDERS = """
[senders]
sources = ["inline", "postfixadmin"]
# The most that there may be: one query gets a third of it.
deadline_s = 10.0
recipient_delimiter = "+"
[senders.inline]
own_address = false
[senders.inline.logins]
"helpdesk@us.test" = ["helpdesk@us.test", "straße@us.test", "@other.test"]
"attacker@example.com" = ["attacker@example.com"]
"admin@example.com" = ["admin@example.com"]
[senders.postfixadmin]
database = "sqlite"
path = "{path}"
"""
MAIN = {
    "non_smtpd_milters": "$smtpd_milters",
    "internal_mail_filter_classes": "bounce",
    "transport_maps": "inline:{ {nobody@us.test = error:5.1.1 nobody has this address} }",
    "smtpd_reject_unlisted_recipient": "no",
}


# id: (the message, the domain that signs it)
PERMITTED = {
    "own address": (written(ALICE), "us.test"),
    "own address, other case": (written("Alice@US.Test", sender="ALICE@us.test"), "us.test"),
    "own address, quoted": (written('"alice"@us.test', sender='"alice"@us.test'), "us.test"),
    "with a name": (mail(ALICE, ALICE, 'From: "Alice, of us" <alice@us.test>', "To: <bob@us.test>"), "us.test"),
    "tag": (written("alice+shop@us.test", sender="alice+shop@us.test"), "us.test"),
    "alias": (written("sales@us.test", sender="sales@us.test"), "us.test"),
    "alias of an alias": (written("team@us.test", sender="team@us.test"), "us.test"),
    "alias, own reverse path": (written("sales@us.test"), "us.test"),
    "alias in the other tenant's domain": (written("info@other.test", sender="info@other.test"), "other.test"),
    "alias domain": (written("alice@alias.test", sender="alice@alias.test"), "alias.test"),
    "catch-all": (written("whatever@us.test", login=BOB, sender="whoever@us.test"), "us.test"),
    "quote in a login": (written(QUOTED, login=QUOTED), "us.test"),
    "L11 whole domain": (written(CEO, login=HELPDESK), "other.test"),
    "L11 whole domain, any address": (written("new@other.test", login=HELPDESK, sender=CEO), "other.test"),
    "L07 reverse path that Postfix folds": (
        written(CEO, login=HELPDESK, sender="straße@us.test"),
        "other.test",
    ),
    "L05 null sender": (written(ALICE, sender=""), "us.test"),
    "two mailboxes and a Sender": (
        mail(ALICE, ALICE, "From: <alice@us.test>, <sales@us.test>", "Sender: <alice@us.test>"),
        "us.test",
    ),
    "Sender and Resent-From": (
        mail(ALICE, ALICE, "Resent-From: <alice@us.test>", "Sender: <sales@us.test>", "From: <alice@us.test>"),
        "us.test",
    ),
    "L06 Reply-To of another tenant": (
        mail(ALICE, ALICE, "From: <alice@us.test>", "Reply-To: <ceo@other.test>"),
        "us.test",
    ),
}

# id: (the message, the rule, what the reply names)
FORBIDDEN = {
    "L01 another tenant": (written(CEO), "sender-from", f"{CEO} in From"),
    "L01 another tenant, its reverse path too": (written(CEO, sender=CEO), "sender-envelope", f"{CEO} in MAIL FROM"),
    "L01 back": (written(ALICE, login="ceo@other.test"), "sender-from", f"{ALICE} in From"),
    "L02 reverse path": (written(ALICE, sender=BOB), "sender-envelope", f"{BOB} in MAIL FROM"),
    "L02 alias of somebody else": (
        written("shop@alias.test", sender="shop@alias.test"),
        "sender-envelope",
        "shop@alias.test in MAIL FROM",
    ),
    "L03 From": (written(BOB), "sender-from", f"{BOB} in From"),
    "L03 From in angle brackets in a name": (
        mail(ALICE, ALICE, 'From: "alice@us.test" <bob@us.test>'),
        "sender-from",
        f"{BOB} in From",
    ),
    "L03 a tag that is somebody's": (written("alice+own@us.test"), "sender-from", "alice+own@us.test in From"),
    "L03 catch-all of somebody else": (written("whatever@us.test"), "sender-from", "whatever@us.test in From"),
    "L03 inactive alias": (written("sleeping@us.test"), "sender-from", "sleeping@us.test in From"),
    "L03 inactive mailbox": (
        written("gone@us.test", login="gone@us.test"),
        "sender-envelope",
        "gone@us.test in MAIL FROM",
    ),
    "L04 two mailboxes": (
        mail(ALICE, ALICE, "From: <alice@us.test>, <bob@us.test>", "Sender: <alice@us.test>"),
        "sender-from",
        f"{BOB} in From",
    ),
    "L04 two mailboxes without Sender": (
        mail(ALICE, ALICE, "From: <alice@us.test>, <sales@us.test>"),
        "sender-from",
        "no Sender",
    ),
    "L05 null sender": (written(BOB, sender=""), "sender-from", f"{BOB} in From"),
    "L06 Sender": (
        mail(ALICE, ALICE, "From: <alice@us.test>", "Sender: <ceo@other.test>"),
        "sender-sender",
        f"{CEO} in Sender",
    ),
    "L06 Resent-From": (
        mail(ALICE, ALICE, "Resent-From: <ceo@other.test>", "From: <alice@us.test>"),
        "sender-resent",
        f"{CEO} in Resent-From",
    ),
    "L09 a query in the login": (written(ALICE, login=INJECTING, sender=""), "sender-from", f"{ALICE} in From"),
    "L09 a wildcard in the login": (written(ALICE, login=PERCENT, sender=""), "sender-from", f"{ALICE} in From"),
    "L11 not the domain's subdomain": (
        written("a@sub.other.test", login=HELPDESK),
        "sender-from",
        "a@sub.other.test in From",
    ),
}


@pytest.fixture(scope="module")
def tenants() -> Iterator[str]:
    """The configuration of the sources."""
    directory = make_public_directory("mailguard-tenants-")
    files = SqliteFiles(directory)
    rows = [*statements(files.dialect), mailbox(files.dialect, CEO), alias_row(files.dialect, CEO, CEO)]
    files.create("tenants", rows)
    yield SENDERS.format(path=directory / "tenants.sqlite")
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def enforcing(engine: str, tenants: str) -> Iterator[LoginSite]:
    with open_login_site(
        users=USERS, senders=tenants, sign=NETWORKS, others=OTHERS, main=MAIN, engine=engine
    ) as made:
        yield made


@pytest.fixture(scope="module")
def monitoring(engine: str, tenants: str) -> Iterator[LoginSite]:
    with open_login_site(
        mode="monitor", users=USERS, senders=tenants, sign=NETWORKS, others=OTHERS, engine=engine
    ) as made:
        yield made


@pytest.mark.parametrize("name", rows(PERMITTED))
def test_what_is_permitted_is_signed(enforcing: LoginSite, name: str) -> None:
    sent, domain = PERMITTED[name]
    recipient = enforcing.mail.recipient()
    answer, record = enforcing.send(sent.content, login=sent.login, sender=sent.sender, recipient=recipient)
    assert (answer.code, record["action"]) == (250, "sign"), (answer, record)
    assert not {"would", "rule"} & record.keys()
    assert_signed(enforcing, recipient, domain)
    assert ("sender-reply-to" in str(record.get("noted"))) == name.startswith("L06"), record


@pytest.mark.parametrize("name", rows(FORBIDDEN))
def test_what_is_not_is_refused_and_nobody_gets_it(enforcing: LoginSite, name: str) -> None:
    sent, rule, named = FORBIDDEN[name]
    forbidden, permitted = enforcing.mail.recipient(), enforcing.mail.recipient()
    known = len(enforcing.records(sent.login))
    with enforcing.log_in(sent.login) as client:
        answer = client.transmit(sent.content, sender=sent.sender, recipient=forbidden)
        assert_refused(answer, rule, named)
        assert f"login {sent.login} " in answer.text.decode() or "no Sender" in named
        (record,) = enforcing.records_after(sent.login, known, 1)
        assert (record["role"], record["action"], record["rule"]) == ("sign", "reject", rule), record
        assert not {"d", "s", "would"} & record.keys()
    # Whoever comes next has no part of it.
    answer, _ = enforcing.send(written(BOB, login=BOB).content, login=BOB, recipient=permitted)
    assert answer.code == 250
    assert_signed(enforcing, permitted, "us.test")
    # Nothing is under way any more that could still get there.
    enforcing.mail.postfix.wait_empty()
    assert enforcing.mail.is_empty(forbidden)


@only("libmilter")
@pytest.mark.parametrize("name", rows(FORBIDDEN))
def test_monitor_signs_it_and_tells(monitoring: LoginSite, name: str) -> None:
    sent, rule, named = FORBIDDEN[name]
    recipient = monitoring.mail.recipient()
    answer, record = monitoring.send(sent.content, login=sent.login, sender=sent.sender, recipient=recipient)
    assert answer.code == 250, answer
    assert (record["would"], record["rule"]) == ("reject", rule), record
    assert named in str(record["reason"]), record
    # A subdomain is nobody's and has no key.
    is_ours = b"sub.other.test" not in sent.header
    assert record["action"] == ("sign" if is_ours else "accept"), record
    if is_ours:
        assert_signed(monitoring, recipient, str(record["d"]))
    else:
        assert fields_named(monitoring.mail.delivered_to(recipient), "DKIM-Signature") == []


# --- espoofer ----------------------------------------------------------------------------------------------------

# id: (the rule that refuses it, the domain that signs it in monitor mode)
ESPOOFER = {
    # Of two From fields nobody can tell which one is shown: it is signed in neither mode.
    "client_a1": ("malformed", ""),
    "client_a2": ("sender-from", "example.com"),
    "client_a3": ("sender-from", "example.com"),
}
ESPOOFER_ROWS = [
    pytest.param("client_a1", marks=pytest.mark.attack("L04")),
    pytest.param("client_a2", marks=pytest.mark.attack("L04")),
    pytest.param("client_a3", marks=pytest.mark.attack("L03")),
]


def espoofer(name: str) -> tuple[bytes, str]:
    """A message and its reverse path."""
    folder = require("espoofer")
    (case,) = [each for each in json.loads((folder / "cases.json").read_text(encoding="ascii")) if each["id"] == name]
    return (folder / case["file"]).read_bytes(), case["mail_from"].removeprefix("<").removesuffix(">")


@pytest.mark.parametrize("name", ESPOOFER_ROWS)
def test_espoofer_is_refused(enforcing: LoginSite, name: str) -> None:
    content, sender = espoofer(name)
    recipient = enforcing.mail.recipient()
    answer, record = enforcing.send(content, login=ATTACKER, sender=sender, recipient=recipient)
    assert (answer.code, record["action"], record["rule"]) == (550, "reject", ESPOOFER[name][0]), (answer, record)
    if name != "client_a1":
        assert_refused(answer, "sender-from", f"{ADMIN} in From")
    own = zone0.mail(f"<{ATTACKER}>")
    permitted = enforcing.mail.recipient()
    assert enforcing.send(own, login=ATTACKER, recipient=permitted)[0].code == 250
    assert_signed(enforcing, permitted, "example.com")
    assert enforcing.mail.is_empty(recipient)


@only("libmilter")
@pytest.mark.parametrize("name", ESPOOFER_ROWS)
def test_espoofer_is_told_of_in_monitor_mode(monitoring: LoginSite, name: str) -> None:
    content, sender = espoofer(name)
    rule, domain = ESPOOFER[name]
    recipient = monitoring.mail.recipient()
    answer, record = monitoring.send(content, login=ATTACKER, sender=sender, recipient=recipient)
    assert (answer.code, record["would"], record["rule"]) == (250, "reject", rule), (answer, record)
    assert record["action"] == ("sign" if domain else "accept")
    if domain:
        assert_signed(monitoring, recipient, domain)
    else:
        assert fields_named(monitoring.mail.delivered_to(recipient), "DKIM-Signature") == []


# --- Sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.attack("L15")
def test_each_message_of_a_session_is_judged_for_itself(enforcing: LoginSite) -> None:
    known = len(enforcing.records(ALICE))
    own, other = zone0.mail(f"<{ALICE}>"), zone0.mail(f"<{CEO}>")
    refused, delivered = [], []
    with enforcing.log_in(ALICE) as client:
        for _ in range(2):
            delivered.append(enforcing.mail.recipient())
            assert client.transmit(own, sender=ALICE, recipient=delivered[-1]).code == 250
            assert client.command(b"RSET").code == 250
            refused.append(enforcing.mail.recipient())
            assert_refused(
                client.transmit(other, sender=ALICE, recipient=refused[-1]), "sender-from", f"{CEO} in From"
            )
        # A reverse path that was taken back counts for nothing, neither against the message nor for it.
        assert client.command(b"MAIL FROM:<%b>" % CEO.encode()).code == 250
        assert client.command(b"RSET").code == 250
        delivered.append(enforcing.mail.recipient())
        assert client.transmit(own, sender=ALICE, recipient=delivered[-1]).code == 250
        assert client.command(b"MAIL FROM:<%b>" % ALICE.encode()).code == 250
        assert client.command(b"RSET").code == 250
        refused.append(enforcing.mail.recipient())
        assert_refused(client.transmit(own, sender=CEO, recipient=refused[-1]), "sender-envelope", CEO)
    for recipient in delivered:
        assert_signed(enforcing, recipient, "us.test")
    assert all(map(enforcing.mail.is_empty, refused))
    actions = [record["action"] for record in enforcing.records_after(ALICE, known, 6)]
    assert actions == ["sign", "reject", "sign", "reject", "sign", "reject"]


@pytest.mark.attack("L03")
def test_what_one_login_may_another_may_not(enforcing: LoginSite) -> None:
    """The same address, by turns, in sessions that are open at the same time: an answer is for its login alone."""
    known = len(enforcing.records(ALICE)), len(enforcing.records(BOB))
    with enforcing.log_in(ALICE) as alice, enforcing.log_in(BOB, mechanism="LOGIN") as bob:
        for _ in range(3):
            content = zone0.mail(f"<{BOB}>")
            assert bob.transmit(content, sender=BOB, recipient=enforcing.mail.recipient()).code == 250
            answer = alice.transmit(content, sender=BOB, recipient=enforcing.mail.recipient())
            assert_refused(answer, "sender-envelope", BOB)
    assert {each["action"] for each in enforcing.records_after(ALICE, known[0], 3)} == {"reject"}
    assert {each["action"] for each in enforcing.records_after(BOB, known[1], 3)} == {"sign"}


@pytest.mark.attack("L07")
def test_a_login_in_capitals_is_the_same_account(enforcing: LoginSite) -> None:
    known = len(enforcing.records(ALICE))
    with enforcing.log_in("ALICE@US.TEST") as client:
        recipient = enforcing.mail.recipient()
        assert client.transmit(zone0.mail(f"<{ALICE}>"), sender=ALICE, recipient=recipient).code == 250
        assert client.transmit(zone0.mail(f"<{BOB}>"), sender=ALICE, recipient=enforcing.mail.recipient()).code == 550
    assert_signed(enforcing, recipient, "us.test")
    assert [each["action"] for each in enforcing.records_after(ALICE, known, 2)] == ["sign", "reject"]


# --- Without a login ---------------------------------------------------------------------------------------------


@pytest.mark.attack("L12")
@pytest.mark.parametrize(
    ("header", "sender", "rule"),
    [
        ("From: <any@us.test>", "any@us.test", None),
        ("From: <any@us.test>", "else@alias.test", None),
        ("From: <any@us.test>", "", None),
        ("From: <any@us.test>", CEO, "sender-envelope"),
        ("From: <any@us.test>\r\nSender: <ceo@other.test>", "any@us.test", "sender-sender"),
        ("From: <any@us.test>\r\nResent-From: <ceo@other.test>", "any@us.test", "sender-resent"),
    ],
)
def test_a_listed_network_has_its_domains_alone(
    enforcing: LoginSite, header: str, sender: str, rule: str | None
) -> None:
    recipient = enforcing.mail.recipient()
    content = header.encode() + b"\r\nSubject: An offer\r\n\r\n" + zone0.BODY
    answer = enforcing.mail.send(content, sender=sender, recipient=recipient, client=LISTED_CLIENT)
    if rule is None:
        assert answer.code == 250, answer
        assert_signed(enforcing, recipient, "us.test")
    else:
        assert_refused(answer, rule, f"client {LISTED_CLIENT} may not use {CEO}")
        assert enforcing.mail.is_empty(recipient)


@pytest.mark.attack("L12")
@pytest.mark.parametrize(("client", "author"), [(LISTED_CLIENT, CEO), (STRANGER, ALICE), (None, ALICE)])
def test_for_the_other_domains_a_client_is_a_stranger(enforcing: LoginSite, client: str | None, author: str) -> None:
    recipient = enforcing.mail.recipient()
    answer = enforcing.mail.send(zone0.mail(f"<{author}>"), sender=author, recipient=recipient, client=client)
    assert (answer.code, enforcing.mail.record(answer.queue_id)["role"]) == (250, "verify")
    assert fields_named(enforcing.mail.delivered_to(recipient), "DKIM-Signature") == []


@pytest.mark.attack("L17")
def test_a_bounce_reaches_the_sender(enforcing: LoginSite) -> None:
    """It is from MAILER-DAEMON, with the null sender, and nobody has logged in for it."""
    answer, _ = enforcing.send(zone0.mail(f"<{ALICE}>"), login=ALICE, recipient="nobody@us.test")
    assert answer.code == 250
    # Other mail is for mailboxes of other names, and may still be on its way.
    message = enforcing.mail.delivered_to(ALICE)
    assert [each.sender for each in enforcing.mail.postfix.delivered() if each.recipient == ALICE] == [""]
    assert b"MAILER-DAEMON" in fields_named(message, "From")[0]
    enforcing.mail.postfix.wait_empty()
