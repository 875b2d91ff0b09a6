"""What becomes of our own users' mail under a name that is not theirs: actions, alignment, a source that is down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailguard.config_senders import SendersConfig
from mailguard.dns.answers import Resolver
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.sender_sources import open_senders
from mailguard.senders.combine import Senders
from mailguard.senders.identity import Address, Login, LoginRules
from mailguard.senders.permission import Permission, PermissionStatus
from mailguard_milter.actions import Accept, InsertHeader, Quarantine, Reply
from mailguard_milter.conclusion import Conclusion
from mailguard_milter.sender_lookups import SenderLookups
from milter_peer import Peer, reply
from submitted_mail import LOGINS, is_signed, keys, peer, submitted

__all__ = ["keys"]

# What the actions do


@pytest.mark.parametrize(
    ("word", "kind", "action"),
    [
        ("off", [InsertHeader, InsertHeader, Accept], "sign"),
        ("log", [InsertHeader, InsertHeader, Accept], "sign"),
        ("header", [InsertHeader, InsertHeader, InsertHeader, Accept], "sign"),
        ("quarantine", [InsertHeader, InsertHeader, Quarantine, Accept], "quarantine"),
        ("reject", [Reply], "reject"),
    ],
)
def test_what_each_action_does(keys: Path, word: str, kind: list[type], action: str) -> None:
    conclusion = submitted(peer(keys, senders={"actions": {"header_from": word}}), sender=b"bob@us.test")
    assert [type(each) for each in conclusion.actions] == kind
    assert conclusion.record["action"] == action
    assert ("noted" in conclusion.record) is (word == "log")
    assert ("rule" in conclusion.record) is (word not in ("off", "log"))
    if word == "header":
        assert conclusion.actions[0] == InsertHeader(b"X-Mailguard-Policy", b" sender-from")
    if word == "quarantine":
        text = "mailguard: login alice@us.test may not use bob@us.test in From [sender-from]"
        assert Quarantine(text) in conclusion.actions


@pytest.mark.parametrize(
    ("word", "kind", "action"),
    [
        ("log", [Accept], "accept"),
        ("header", [InsertHeader, Accept], "accept"),
        ("quarantine", [Quarantine, Accept], "quarantine"),
        ("reject", [Reply], "reject"),
    ],
)
def test_a_message_that_no_key_signs_is_marked_and_held_as_well(
    keys: Path, word: str, kind: list[type], action: str
) -> None:
    conclusion = submitted(peer(keys, senders={"actions": {"header_from": word}}), sender=b"ceo@bank.test")
    assert [type(each) for each in conclusion.actions] == kind
    assert conclusion.record["action"] == action
    assert (conclusion.record.get("rule") == "sender-from") is (word != "log")
    assert "would" not in conclusion.record


@pytest.mark.attack("L08")
def test_what_is_not_ascii_in_the_reason_of_the_hold_queue_is_made_harmless(keys: Path) -> None:
    found = peer(keys, senders={"actions": dict.fromkeys(("envelope", "header_from"), "quarantine")})
    held = submitted(found, who="\u00fcbel@us.test".encode()).actions[-2]
    assert isinstance(held, Quarantine)
    assert held.reason.startswith("mailguard: login ?bel@us.test may not use alice@us.test")


def test_in_monitor_mode_nothing_is_held(keys: Path) -> None:
    found = peer(keys, mode="monitor", senders={"actions": {"header_from": "quarantine"}})
    conclusion = submitted(found, sender=b"bob@us.test")
    assert (conclusion.record["action"], conclusion.record["would"]) == ("sign", "quarantine")
    assert [type(each) for each in conclusion.actions] == [InsertHeader, InsertHeader, Accept]


MANY = b", ".join(b"<bob+%d@us.test>" % number for number in range(60))


@pytest.mark.parametrize(
    ("differs", "off"),
    [
        ({"envelope": b"bob@us.test"}, "envelope"),
        ({"sender": b"<bob@us.test>"}, "header_from"),
        ({"sender": b"<alice@us.test>, <sales@us.test>"}, "header_from"),
        ({"more": [(b"Sender", b" <bob@us.test>")]}, "sender"),
        ({"more": [(b"Sender", b" broken")]}, "sender"),
        ({"more": [(b"Resent-From", b" <bob@us.test>")]}, "resent"),
        ({"more": [(b"Reply-To", b" <bob@us.test>")]}, "reply_to"),
        # Nor does it use up the addresses that are looked at.
        ({"more": [(b"Sender", b" " + MANY), (b"Resent-From", b" <sales@us.test>")]}, "sender"),
    ],
)
def test_each_rule_can_be_off(keys: Path, differs: dict[str, Any], off: str) -> None:
    conclusion = submitted(peer(keys, senders={"actions": {off: "off"}}), **differs)
    assert is_signed(conclusion)
    assert conclusion.record["reason"] == "signed"
    assert not {"rule", "noted", "would"} & conclusion.record.keys()


@pytest.mark.attack("L04")
@pytest.mark.parametrize("word", ["off", "log"])
def test_a_sender_of_another_tells_not_which_of_several_authors_sends(keys: Path, word: str) -> None:
    """RFC 5322 §3.6.2, though the rule for Sender itself refuses nothing."""
    found = peer(keys, senders={"actions": {"sender": word}})
    several = b"<alice@us.test>, <sales@us.test>"
    assert is_signed(submitted(found, sender=several, more=[(b"Sender", b" <sales@us.test>")]))
    refused = submitted(found, sender=several, more=[(b"Sender", b" <bob@us.test>")])
    assert reply(refused).text.endswith("no Sender tells which of them sends it [sender-from]")


@pytest.mark.attack("L05")
def test_the_null_sender_is_a_rule_of_its_own(keys: Path) -> None:
    found = peer(keys, senders={"actions": {"header_from": "off"}})
    assert is_signed(submitted(found, sender=b"bob@us.test"))
    conclusion = submitted(found, sender=b"bob@us.test", envelope=b"")
    assert reply(conclusion).text == (
        "mailguard: login alice@us.test may not use bob@us.test in From of a message with the null sender"
        " [sender-null]"
    )
    off = peer(keys, senders={"actions": {"header_from": "off", "null_sender": "off"}})
    assert is_signed(submitted(off, sender=b"bob@us.test", envelope=b""))


# Alignment

RECORDS = {
    "_dmarc.us.test": {"TXT": [b"v=DMARC1; p=none"]},
    "_dmarc.other.test": {"TXT": [b"v=DMARC1; p=none"]},
}
ALIGNMENT = [
    ("one domain", "relaxed", b"alice@us.test", b"sales@us.test", ""),
    ("one domain", "strict", b"alice@us.test", b"sales@us.test", ""),
    ("below", "relaxed", b"any@shop.us.test", b"alice@us.test", ""),
    ("below", "strict", b"any@shop.us.test", b"alice@us.test", "sender-alignment"),
    ("another", "relaxed", b"wide@other.test", b"alice@us.test", "sender-alignment"),
    ("null sender", "strict", b"", b"alice@us.test", ""),
    ("no domain", "relaxed", b"x@[192.0.2.1]", b"alice@us.test", "sender-alignment"),
    ("no name of a host", "relaxed", b"x@a_b.evil.test", b"alice@us.test", "sender-alignment"),
]


def over(zone: ZoneResolver, found: Peer) -> Resolver:
    """The sources of `found`, and another DNS."""
    senders = open_senders(found.service.config.senders)
    assert senders is not None
    return SenderLookups(zone, senders)


@pytest.mark.parametrize(("how", "envelope", "sender", "rule"), [row[1:] for row in ALIGNMENT])
def test_the_reverse_path_and_from_may_have_to_agree(
    keys: Path, how: str, envelope: bytes, sender: bytes, rule: str
) -> None:
    logins = {"alice@us.test": [*LOGINS["alice@us.test"], "wide@other.test"]}
    actions = {"alignment": "reject", "envelope": "off"}
    senders = {"alignment": how, "actions": actions, "inline": {"logins": logins}}
    found = peer(keys, senders=senders)
    found.resolver = over(ZoneResolver(RECORDS), found)
    conclusion = submitted(found, envelope=envelope, sender=sender)
    assert conclusion.record.get("rule", "") == rule
    assert is_signed(conclusion) is not bool(rule)


@pytest.mark.parametrize(("word", "code"), [("reject", "451"), ("quarantine", "451"), ("header", ""), ("log", "")])
def test_alignment_waits_for_the_dns_where_it_could_keep_the_message_back(keys: Path, word: str, code: str) -> None:
    senders = {"actions": {"alignment": word}}
    found = peer(keys, senders=senders)
    silent = {(name, "TXT"): Status.TEMPFAIL for name in ("_dmarc.shop.us.test", "_dmarc.us.test", "_dmarc.test")}
    found.resolver = over(ZoneResolver({}, status=silent), found)
    conclusion = submitted(found, envelope=b"any@shop.us.test")
    if code:
        assert reply(conclusion).code == code
        assert conclusion.record["rule"] == "sender-unavailable"
    else:
        assert is_signed(conclusion)
        assert str(conclusion.record["noted"]).startswith("sender-unavailable: ")


@pytest.mark.parametrize(
    ("private", "envelope", "rule"),
    [
        ("shop.us.test", b"any@shop.us.test", "sender-alignment"),
        ("shop.us.test", b"sales@us.test", ""),
        # Without records in the DNS, its Organizational Domain would be another.
        ("elsewhere.test", b"any@shop.us.test", ""),
    ],
)
def test_the_list_of_suffixes_tells_alignment_too(
    keys: Path, tmp_path: Path, private: str, envelope: bytes, rule: str
) -> None:
    suffixes = tmp_path / "list.dat"
    marks = "// ===BEGIN ICANN DOMAINS===\ntest\n// ===END ICANN DOMAINS===\n"
    suffixes.write_text(marks + f"// ===BEGIN PRIVATE DOMAINS===\n{private}\n// ===END PRIVATE DOMAINS===\n")
    dmarc = {"organizational_domain": "psl", "suffix_list": str(suffixes)}
    found = peer(keys, senders={"actions": {"alignment": "reject"}}, dmarc=dmarc)
    assert conclusion_rule(submitted(found, envelope=envelope)) == rule


def conclusion_rule(conclusion: Conclusion) -> str:
    return str(conclusion.record.get("rule", ""))


# A source that is down


class Down(Senders):
    """Its source cannot be asked."""

    def _ask(self, login: Login, address: Address) -> Permission:
        return Permission(PermissionStatus.UNAVAILABLE, login.exact, address.exact, reason="db: connection refused")


@pytest.mark.attack("L10")
@pytest.mark.parametrize(("mode", "word"), [("enforce", "reject"), ("enforce", "log"), ("monitor", "reject")])
def test_a_source_that_is_down_makes_the_mail_wait(keys: Path, mode: str, word: str) -> None:
    actions = dict.fromkeys(("envelope", "header_from"), word)
    found = peer(keys, mode=mode, senders={"actions": actions})
    found.resolver = SenderLookups(ZoneResolver({}), Down((), rules=LoginRules()))
    conclusion = submitted(found)
    record = conclusion.record
    if (mode, word) == ("enforce", "reject"):
        assert reply(conclusion) == Reply(
            "451",
            "4.4.3",
            "mailguard: whether login alice@us.test may use alice@us.test could not be looked up"
            " [sender-unavailable]; try again later",
        )
        assert (record["action"], record["rule"]) == ("tempfail", "sender-unavailable")
    else:
        assert is_signed(conclusion)
        assert record.get("would") == ("tempfail" if word == "reject" else None)
    assert "db: connection refused" in f"{record['reason']} {record.get('noted')}"


@pytest.mark.attack("L10")
def test_a_refusal_that_stands_comes_before_waiting(keys: Path) -> None:
    found = peer(keys)
    found.resolver = SenderLookups(ZoneResolver({}), Down((), rules=LoginRules()))
    assert reply(submitted(found, who=b"\xff")).text.endswith("[sender-envelope]")
    conclusion = submitted(found, more=[(b"Sender", b" broken")])
    assert reply(conclusion).text.endswith("[sender-sender]")


def test_settings_that_would_have_no_effect_are_errors() -> None:
    with pytest.raises(ValueError, match="actions and alignment have no effect"):
        SendersConfig.model_validate({"actions": {"envelope": "log"}})
    with pytest.raises(ValueError, match="actions and alignment have no effect"):
        SendersConfig.model_validate({"alignment": "strict"})
