"""Our own users' mail and the names that it bears, as dialogues of the session: who is refused, and who is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailguard.explain.rule_advice import KEYS, RULES
from mailguard.rule import Rule
from mailguard_milter.actions import Accept, Reply
from mailguard_milter.conclusion import Conclusion
from mailguard_milter.session import Macros
from milter_peer import STRANGER, Field, Peer, configuration, reply
from submitted_mail import ALICE, IN_NETWORK, LOOPBACK, is_signed, keys, login, peer, submitted

__all__ = ["keys"]

# id, what differs from alice writing as alice, the rule that refuses, or none
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("own", {}, ""),
    ("L02 envelope of another", {"envelope": b"bob@us.test"}, "sender-envelope"),
    ("L02 envelope permitted", {"envelope": b"sales@us.test"}, ""),
    ("L02 envelope without domain", {"envelope": b"alice"}, "sender-envelope"),
    ("L03 From of another", {"sender": b"bob@us.test"}, "sender-from"),
    ("L03 From of another, a name like ours", {"sender": b'"alice@us.test" <bob@us.test>'}, "malformed|sender-from"),
    ("L01 From of another tenant", {"sender": b"<ceo@other.test>"}, "sender-from"),
    ("L01 From of a domain that is not ours", {"sender": b"<ceo@elsewhere.test>"}, "sender-from"),
    ("L03 From permitted", {"sender": b"<sales@us.test>"}, ""),
    ("L11 From in a permitted domain", {"sender": b"<any@shop.us.test>"}, ""),
    ("L11 a domain below it is not", {"sender": b"<any@x.shop.us.test>"}, "sender-from"),
    ("L07 tag", {"sender": b"<alice+x@us.test>", "envelope": b"alice+y@us.test"}, ""),
    ("L07 case", {"sender": b"<Alice@US.test>", "envelope": b"ALICE@us.TEST"}, ""),
    ("L07 login in other case", {"who": b"Alice@Us.Test"}, ""),
    ("L07 full-width letters are another login", {"who": "ａlice@us.test".encode()}, "sender-envelope"),
    ("L07 NFD is NFC", {"who": "uu\u0308@us.test".encode(), "sender": "\u00fc@us.test".encode()}, "sender-envelope"),
    (
        "L07 NFD is NFC, in both",
        {
            "who": "uu\u0308@us.test".encode(),
            "sender": "\u00fc@us.test".encode(),
            "envelope": "u\u0308@us.test".encode(),
        },
        "",
    ),
    ("L04 two From fields", {"more": [(b"From", b" <bob@us.test>")]}, "malformed"),
    ("L04 two domains", {"sender": b"<alice@us.test>, <x@other.test>"}, "malformed"),
    ("L04 two mailboxes", {"sender": b"<alice@us.test>, <sales@us.test>"}, "sender-from"),
    ("L04 two mailboxes, one of another", {"sender": b"<alice@us.test>, <bob@us.test>"}, "sender-from"),
    (
        "L04 two mailboxes and a Sender",
        {"sender": b"<alice@us.test>, <sales@us.test>", "more": [(b"Sender", b" <sales@us.test>")]},
        "",
    ),
    (
        "L04 two mailboxes and a Sender of another",
        {"sender": b"<alice@us.test>, <sales@us.test>", "more": [(b"Sender", b" <bob@us.test>")]},
        "sender-sender",
    ),
    (
        "L04 a Sender does not lend somebody else's address",
        {"sender": b"<alice@us.test>, <bob@us.test>", "more": [(b"Sender", b" <alice@us.test>")]},
        "sender-from",
    ),
    ("L05 null sender, own From", {"envelope": b""}, ""),
    ("L05 null sender, From of another", {"envelope": b"", "sender": b"bob@us.test"}, "sender-from"),
    ("L06 Sender of another", {"more": [(b"Sender", b" <ceo@other.test>")]}, "sender-sender"),
    ("L06 Sender permitted", {"more": [(b"Sender", b" <sales@us.test>")]}, ""),
    ("L06 two Sender fields", {"more": [(b"Sender", b" <sales@us.test>")] * 2}, "sender-sender"),
    ("L06 Sender not readable", {"more": [(b"Sender", b" <sales@us.test")]}, "sender-sender"),
    ("L06 Sender empty", {"more": [(b"Sender", b"")]}, "sender-sender"),
    ("L06 Resent-From of another", {"more": [(b"Resent-From", b" <ceo@other.test>")]}, "sender-resent"),
    ("L06 Resent-From permitted", {"more": [(b"Resent-From", b" <sales@us.test>")]}, ""),
    (
        "L06 the second Resent-From of another",
        {"more": [(b"Resent-From", b" <alice@us.test>"), (b"Resent-From", b" <bob@us.test>")]},
        "sender-resent",
    ),
    ("L06 Resent-Sender of another", {"more": [(b"Resent-Sender", b" <ceo@other.test>")]}, "sender-resent"),
    ("L08 a login of odd octets", {"who": b"u\xff\xfe"}, "sender-envelope"),
    ("L08 a login with CR LF", {"who": b"alice@us.test\r\n"}, "sender-envelope"),
    ("L08 a login with NUL", {"who": b"alice@us.test\0alice@us.test"}, "sender-envelope"),
    ("L08 a login with an escape", {"who": b"\x1b[31malice@us.test"}, "sender-envelope"),
    ("L08 a login of 8 kB", {"who": b"a" * 8192}, "sender-envelope"),
    ("L08 a login that is a format", {"who": b"%s%n"}, "sender-envelope"),
    ("L09 a login that is a pattern", {"who": b"*"}, "sender-envelope"),
    ("L09 a login that is a path", {"who": b"../../alice@us.test"}, "sender-envelope"),
    ("L12 network, its domain", {"who": None, "client": IN_NETWORK}, ""),
    (
        "L12 network, its other domain in the envelope",
        {"who": None, "client": IN_NETWORK, "envelope": b"b@other.test"},
        "",
    ),
    (
        "L12 network, another domain in the envelope",
        {"who": None, "client": IN_NETWORK, "envelope": b"b@elsewhere.test"},
        "sender-envelope",
    ),
    (
        "L12 network, another domain in Sender",
        {"who": None, "client": IN_NETWORK, "more": [(b"Sender", b" <x@sub.us.test>")]},
        "sender-sender",
    ),
    (
        "L12 network, 8 bits in From",
        {"who": None, "client": IN_NETWORK, "sender": b"<m\xfcller@us.test>"},
        "sender-from",
    ),
    ("L17 network, a bounce of our own", {"who": None, "client": IN_NETWORK, "envelope": b""}, ""),
    ("L08 8 bits in From", {"sender": b"<m\xfcller@us.test>"}, "sender-from"),
    ("L08 8 bits in Sender", {"more": [(b"Sender", b" <m\xfcller@us.test>")]}, "sender-sender"),
    # Python's email, and others, read the first.
    ("L03 an address before the angle address", {"sender": b"bob@us.test <alice@us.test>"}, "sender-from"),
    ("L03 words and an address before it", {"sender": b"The CEO bob@us.test <alice@us.test>"}, "sender-from"),
    ("L03 the own address before it", {"sender": b"alice@us.test <alice@us.test>"}, ""),
    ("L03 the own address before it, in capitals", {"sender": b"Alice@us.test <alice@us.test>"}, ""),
    ("L03 the own address before it, in quotes", {"sender": b'"alice"@us.test <alice@us.test>'}, ""),
    ("L03 the own address before it, with a tag", {"sender": b"alice+x@us.test <alice@us.test>"}, ""),
    ("L03 another own address before it", {"sender": b"sales@us.test <alice@us.test>"}, ""),
    ("L04 one mailbox twice", {"sender": b"alice@us.test, Alice <alice@us.test>"}, ""),
    (
        "L04 two mailboxes, an address before one",
        {"sender": b"alice@us.test <alice@us.test>, <sales@us.test>"},
        "sender-from",
    ),
    ("L06 an address before it in Sender", {"more": [(b"Sender", b" bob@us.test <alice@us.test>")]}, "sender-sender"),
    (
        "L17 this host, a web application",
        {"who": None, "client": LOOPBACK, "envelope": b"www-data@web.us.test", "sender": b"info@us.test"},
        "",
    ),
    ("L18 this host, forwarded mail", {"who": None, "client": LOOPBACK, "envelope": b"SRS0=x@forward.test"}, ""),
    ("L17 this host, a notice", {"who": None, "client": LOOPBACK, "envelope": b"double-bounce@mx.us.test"}, ""),
    ("100 mailboxes in From", {"sender": b", ".join(b"<a%d@shop.us.test>" % n for n in range(100))}, "sender-from"),
]


@pytest.mark.attack("L01", "L02", "L03", "L04", "L05", "L06", "L07", "L08", "L09", "L11", "L12", "L17")
@pytest.mark.parametrize(("differs", "rule"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_who_may_write_as_whom(keys: Path, mode: str, differs: dict[str, Any], rule: str) -> None:
    conclusion = submitted(peer(keys, mode=mode), **differs)
    record = conclusion.record
    assert record["role"] == "sign"
    assert str(record.get("rule", "")) in rule.split("|")
    if not rule:
        assert record["action"] == ("sign" if is_signed(conclusion) else "accept")
        assert record["reason"] in ("signed", "unsigned: no key is configured for shop.us.test")
        assert "would" not in record
    elif mode == "enforce":
        refused = reply(conclusion)
        assert (refused.code, record["action"]) == ("550", "reject")
        assert refused.text.endswith(f"[{record['rule']}]")
        assert refused.enhanced == ("5.6.0" if record["rule"] == "malformed" else "5.7.1")
    else:
        assert record["would"] == "reject"
        assert conclusion.actions[-1] == Accept()
        is_ours = record["rule"] != "malformed" and b"elsewhere" not in differs.get("sender", b"")
        assert is_signed(conclusion) is is_ours


def test_the_reply_names_the_login_the_address_and_the_rule_and_the_log_the_source_too(keys: Path) -> None:
    conclusion = submitted(peer(keys), sender=b"bob@us.test")
    said = "login alice@us.test may not use bob@us.test in From"
    assert reply(conclusion) == Reply("550", "5.7.1", f"mailguard: {said} [sender-from]")
    assert str(conclusion.record["reason"]).startswith(f"{said} (")
    assert "inline: " in str(conclusion.record["reason"])


@pytest.mark.attack("L08")
def test_what_is_not_ascii_in_a_reply_is_made_harmless(keys: Path) -> None:
    conclusion = submitted(peer(keys), who="\u00fcbel@us.test".encode(), sender=b"bob@us.test")
    assert reply(conclusion).text.isascii()
    assert "?bel@us.test" in reply(conclusion).text


@pytest.mark.attack("L06")
def test_reply_to_is_told_and_not_refused(keys: Path) -> None:
    conclusion = submitted(peer(keys), more=[(b"Reply-To", b" <ceo@other.test>, <alice@us.test>")])
    assert is_signed(conclusion)
    assert conclusion.record["reason"] == "signed"
    assert str(conclusion.record["noted"]).startswith(
        "sender-reply-to: login alice@us.test may not use ceo@other.test in Reply-To"
    )
    assert "alice@us.test in Reply-To" not in str(conclusion.record["noted"])
    refused = submitted(peer(keys), sender=b"bob@us.test", more=[(b"Reply-To", b" <ceo@other.test>")])
    assert (refused.record["rule"], refused.record["noted"]) == ("sender-from", conclusion.record["noted"])


@pytest.mark.attack("L13", "L08")
@pytest.mark.parametrize("macros", [login(b"", b"EXTERNAL"), login(None)], ids=["not named", "undecodable"])
def test_a_login_that_nobody_knows_may_use_nothing(keys: Path, macros: Macros) -> None:
    found = peer(keys).connect()
    conclusion = found.send([(b"From", b" <alice@us.test>")], macros=macros, mail_from=b"<alice@us.test>")
    assert conclusion.record["role"] == "sign"
    assert reply(conclusion).text.startswith("mailguard: an unknown login may not use")


@pytest.mark.attack("L15")
def test_each_message_of_a_session_is_looked_at(keys: Path) -> None:
    found = peer(keys).connect()
    first: list[Field] = [(b"From", b" <alice@us.test>")]
    second: list[Field] = [(b"From", b" <bob@us.test>")]

    def send(fields: list[Field], who: bytes = ALICE) -> Conclusion:
        macros = {**login(who), "{mail_addr}": ALICE}
        return found.send(fields, macros=macros, mail_from=b"<alice@us.test>")

    assert is_signed(send(first))
    assert reply(send(second)).text.endswith("[sender-from]")
    found.session.mail(b"<alice@us.test>", login(ALICE))
    found.header(second)
    found.session.abort()
    assert is_signed(send(first))
    # Logged in anew as somebody else, in the same connection.
    assert reply(send(first, b"bob@us.test")).text.endswith("[sender-envelope]")


def test_the_reverse_path_is_what_postfix_reads(keys: Path) -> None:
    found = peer(keys).connect()
    macros = {**login(ALICE), "{mail_addr}": b"bob@us.test"}
    conclusion = found.send([(b"From", b" <alice@us.test>")], macros=macros, mail_from=b"<alice@us.test>")
    assert reply(conclusion).text.endswith("[sender-envelope]")


@pytest.mark.parametrize(("envelope", "is_refused"), [(b"alice+x@us.test", False), (b"alice@other.test", True)])
def test_sendmail_tells_a_mailbox_of_its_own_without_its_domain(
    keys: Path, envelope: bytes, is_refused: bool
) -> None:
    macros = {**login(ALICE), "{mail_addr}": b"alice"}
    conclusion = peer(keys).connect().send([(b"From", ALICE)], macros=macros, mail_from=b"<" + envelope + b">")
    assert is_signed(conclusion) is not is_refused
    assert not is_refused or reply(conclusion).text.endswith(
        "may not use alice@other.test in MAIL FROM [sender-envelope]"
    )


@pytest.mark.attack("L07")
@pytest.mark.parametrize(("who", "is_refused"), [(b"Alice@us.test", False), (ALICE, True)])
def test_of_two_accounts_that_differ_in_case_each_is_its_own_reverse_path(
    keys: Path, who: bytes, is_refused: bool
) -> None:
    """Postfix tells the path in lower case."""
    found = peer(
        keys, senders={"login_case": "significant", "inline": {"logins": {"Alice@us.test": [], "alice@us.test": []}}}
    )
    macros = {**login(who), "{mail_addr}": ALICE}
    fields = [(b"From", b" <" + who + b">")]
    conclusion = found.connect().send(fields, macros=macros, mail_from=b"<Alice@us.test>")
    assert is_signed(conclusion) is not is_refused


@pytest.mark.attack("L02")
@pytest.mark.parametrize(
    ("written", "read", "is_refused"),
    [
        (b"alice%us.test@hosted.test", ALICE, True),
        (b'"alice@us.test"@hosted.test', ALICE, True),
        (b"us.test!alice@hosted.test", ALICE, True),
        (b"alice%us.test@[127.0.0.1]", ALICE, True),
        (b"@relay.test:alice@us.test", ALICE, False),
        (b"alice@us.test.", ALICE, False),
        (b'"alice"@us.test', ALICE, False),
        (b"Alice@US.test", ALICE, False),
        (b"alice", ALICE, False),
    ],
)
def test_a_reverse_path_that_shows_another_address_than_postfix_reads(
    keys: Path, written: bytes, read: bytes, is_refused: bool
) -> None:
    found = peer(keys).connect()
    macros = {**login(ALICE), "{mail_addr}": read}
    conclusion = found.send([(b"From", b" <alice@us.test>")], macros=macros, mail_from=b"<" + written + b">")
    assert is_signed(conclusion) is not is_refused
    if is_refused:
        assert reply(conclusion).text.endswith("[sender-envelope]")


MANY = b", ".join(b"<alice+%d@us.test>" % number for number in range(60))


@pytest.mark.parametrize(
    ("actions", "differs"),
    [
        ({"header_from": "log"}, {"sender": MANY, "more": [(b"Sender", b" bob@us.test")]}),
        ({"sender": "log"}, {"more": [(b"Sender", b" " + MANY), (b"Resent-From", b" bob@us.test")]}),
        (
            {"sender": "off"},
            {
                "sender": b"<alice@us.test>, <sales@us.test>",
                "more": [(b"Sender", b" " + MANY), (b"Resent-From", b" bob@us.test")],
            },
        ),
        ({}, {"more": [(b"Resent-From", b" " + MANY + b", bob@us.test")]}),
    ],
)
def test_many_addresses_do_not_hide_what_comes_after_them(
    keys: Path, actions: dict[str, str], differs: dict[str, Any]
) -> None:
    assert isinstance(submitted(peer(keys, senders={"actions": actions}), **differs).actions[-1], Reply)


def test_a_service_of_our_own_without_login_is_trusted_by_its_name(keys: Path) -> None:
    found = peer(keys)
    found.connect(STRANGER, {"{daemon_name}": b"ORIGINATING"})
    conclusion = found.send([(b"From", b" <bob@us.test>")], macros={"{mail_addr}": b"x@us.test"})
    assert is_signed(conclusion)


def test_without_sources_nobody_is_asked(keys: Path) -> None:
    found = Peer(configuration(keys, mode="enforce"))
    assert is_signed(submitted(found, sender=b"bob@us.test", envelope=b"x@elsewhere.test"))


# As it is written, and as Postfix tells it.
FOLDED = [
    ("straße@us.test", "strasse@us.test"),
    ("νίκος@us.test", "νίκοσ@us.test"),
    ("x@straße.test", "x@strasse.test"),
    ("\u0130x@us.test", "i\u0307x@us.test"),
    ("\ufb01n@us.test", "fin@us.test"),
]


@pytest.mark.attack("L07")
@pytest.mark.parametrize(("written", "told"), FOLDED)
def test_a_reverse_path_that_postfix_folds_is_what_is_written(keys: Path, written: str, told: str) -> None:
    logins = {"alice@us.test": [written], "bob@us.test": [told]}
    found = peer(keys, senders={"inline": {"logins": logins}}).connect()

    def send(who: bytes, path: str) -> Conclusion:
        macros = {**login(who), "{mail_addr}": told.encode()}
        return found.send([(b"From", b" " + who)], macros=macros, mail_from=b"<%b>" % path.encode())

    assert is_signed(send(b"alice@us.test", written))
    assert reply(send(b"bob@us.test", written)).text.endswith("in MAIL FROM [sender-envelope]")
    assert is_signed(send(b"bob@us.test", told))
    assert reply(send(b"alice@us.test", told)).text.endswith("in MAIL FROM [sender-envelope]")


@pytest.mark.parametrize("sender", [b"Miller, Ann <alice@us.test>", b"<alice@us.test", b"nobody"])
def test_no_setting_lets_a_malformed_message_of_a_login_pass(keys: Path, sender: bytes) -> None:
    conclusion = submitted(peer(keys, policy={"malformed": "accept"}), sender=sender)
    assert reply(conclusion).text.endswith("[malformed]")
    assert conclusion.record["role"] == "sign"
    assert KEYS[Rule.MALFORMED] == "policy.malformed"
    assert "that of your own users is never signed, and refused in enforce mode" in RULES[Rule.MALFORMED].receiver
