"""Mail from outside through the session: what Authentication-Results says, what is answered, what the log says.

Zone Z0 of the attack table; by default the attacker's client, HELO name and reverse path, and enforcement on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

import zone0
from mailguard.authserv_id import OwnIds
from mailguard.dns.answers import Answers
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard_milter.actions import Accept, DeleteHeader, InsertHeader, Quarantine, Reply
from mailguard_milter.conclusion import Conclusion
from mailguard_milter.session import Macros
from milter_peer import ALICE, NOBODY, US, Address, Field, Peer, configuration, make_keys
from zone0 import BANK, EVIL, NOW

BANK_CLIENT = ip_address("192.0.2.10")
EVIL_CLIENT = ip_address("198.51.100.66")
CEO = b" <ceo@bank.test>"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


def judged(
    keys: Path,
    author: bytes | list[Field] = CEO,
    *,
    mail_from: bytes = b"x@evil.test",
    read_as: bytes | None = None,
    helo: bytes = b"evil.test",
    client: Address | None = EVIL_CLIENT,
    zone: zone0.Records | None = None,
    status: Mapping[tuple[str, str], Status] | None = None,
    macros: Macros | None = None,
    mode: str = "enforce",
    **config: Any,
) -> Conclusion:
    """What becomes of a message. `read_as` is {mail_addr}, by default what the path shows."""
    resolver = ZoneResolver(zone0.zone(zone), status=status or {})
    peer = Peer(configuration(keys, mode=mode, **config), resolver=resolver).connect(client, helo=helo)
    fields = author if isinstance(author, list) else [(b"From", author), (b"Subject", b" An offer")]
    default: Macros = {"{mail_addr}": mail_from if read_as is None else read_as}
    return peer.send(fields, macros=default if macros is None else macros, mail_from=b"<%b>" % mail_from, now=NOW)


def results(conclusion: Conclusion) -> str:
    """Our Authentication-Results, unfolded."""
    found = [
        each.value.decode("ascii")
        for each in conclusion.actions
        if isinstance(each, InsertHeader) and each.name == b"Authentication-Results"
    ]
    (value,) = found
    assert OwnIds([US]).claimed_by(value.encode())
    return " ".join(value.split())


def clauses(conclusion: Conclusion, method: str) -> list[str]:
    return [part.strip() for part in results(conclusion).split(";")[1:] if part.strip().startswith(f"{method}=")]


def refusal(conclusion: Conclusion) -> Reply:
    (only,) = conclusion.actions
    assert isinstance(only, Reply)
    return only


# -- which identity is checked --------------------------------------------------------------------------------------

# In monitor, so that the results can be seen: id, reverse path, as Postfix reads it, HELO, spf clause.
ENVELOPES: list[tuple[str, bytes, bytes | None, bytes, str]] = [
    ("E01", b"any@nosuch.bank.test", None, b"evil.test", "spf=none .*smtp.mailfrom=nosuch.bank.test"),
    ("E02", b"(any@bank.test", b"", b"evil.test", "spf=pass smtp.helo=evil.test"),
    ("E02 without the macro", b"(any@bank.test", None, b"evil.test", "spf=fail .*smtp.mailfrom=bank.test"),
    ("E03", b"any@bank.test(a.evil.test", b"any@bank.test", b"evil.test", "spf=permerror "),
    ("E04", b"any@bank.test'@any.evil.test", None, b"evil.test", "spf=pass smtp.mailfrom=any.evil.test"),
    ("E05", b"@bank.test,@any.test:'any@evil.test", b"'any@evil.test", b"evil.test", "spf=pass .*=evil.test"),
    ("E06", b'"x@bank.test"@evil.test', None, b"evil.test", "spf=pass smtp.mailfrom=evil.test"),
    ("E07 percent", b"a%bank.test@evil.test", None, b"evil.test", "spf=pass smtp.mailfrom=evil.test"),
    ("E07 bang", b"bank.test!a@evil.test", None, b"evil.test", "spf=pass smtp.mailfrom=evil.test"),
    ("E07 rewritten", b"a%bank.test@evil.test", b"a@bank.test", b"evil.test", "spf=permerror "),
    ("E07 Sendmail", b"Any+list@other.test", b"any", b"evil.test", "spf=fail .*smtp.mailfrom=other.test"),
    ("E07 Sendmail rewritten", b"any@other.test", b"other", b"evil.test", "spf=permerror "),
    ("E07 Sendmail routed", b"@any.test:any@other.test", b"any", b"evil.test", "spf=permerror "),
    ("E08", "ö@evil.test".encode(), None, b"evil.test", "spf=pass smtp.mailfrom=evil.test"),
    ("E08 folded", "x@straße.test".encode(), b"x@strasse.test", b"evil.test", "spf=none .*=xn--strae-oqa.test "),
    ("E09", b"\xff@evil.test", None, b"evil.test", "spf=permerror "),
    ("E11 null sender", b"", None, b"bank.test", "spf=fail .*smtp.helo=bank.test"),
    ("E14 long", b"", None, b"a" * 1_000, "spf=(none|permerror) "),
    ("E14 literal", b"", None, b"[x]", "spf=(none|permerror) "),
    ("E14 odd", b"", None, b'a b(c;d"e', "spf=(none|permerror) "),
    ("E19 no HELO", b"", None, b"", "spf=(none|permerror) "),
]


@pytest.mark.attack("E")
@pytest.mark.parametrize(
    ("mail_from", "read_as", "helo", "expected"), [row[1:] for row in ENVELOPES], ids=[row[0] for row in ENVELOPES]
)
def test_which_identity_spf_judges(
    keys: Path, mail_from: bytes, read_as: bytes | None, helo: bytes, expected: str
) -> None:
    conclusion = judged(
        keys, mail_from=mail_from, read_as=read_as, helo=helo, mode="monitor", spf={"check_helo": False}
    )
    (clause,) = clauses(conclusion, "spf")
    assert re.match(expected, f"{clause} "), clause
    assert "pass" not in clause or "bank.test" not in clause
    (dmarc,) = clauses(conclusion, "dmarc")
    assert dmarc.startswith("dmarc=fail"), dmarc
    assert "(" not in re.sub(r'"[^"]*"|\([^()]*\)', "", results(conclusion)), "an open comment"
    assert conclusion.record["would"] == "reject"


@pytest.mark.attack("E10")
def test_a_u_label_is_judged_as_its_a_label(keys: Path) -> None:
    zone: zone0.Records = {
        "xn--bcher-kva.test": {"TXT": ["v=spf1 ip4:198.51.100.66 -all"]},
        "_dmarc.xn--bcher-kva.test": {"TXT": ["v=DMARC1; p=reject"]},
    }
    sender = "a@bücher.test".encode()
    conclusion = judged(keys, b" <" + sender + b">", mail_from=sender, zone=zone)
    assert clauses(conclusion, "spf")[0].endswith("smtp.mailfrom=xn--bcher-kva.test")
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=pass")


@pytest.mark.attack("E12")
def test_a_helo_pass_is_no_identifier_beside_another_sender(keys: Path) -> None:
    conclusion = judged(keys, helo=b"bank.test", client=BANK_CLIENT, mode="monitor")
    assert "smtp.helo=bank.test" in clauses(conclusion, "spf")[1]
    assert clauses(conclusion, "spf")[1].startswith("spf=pass")
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=fail")


def test_the_null_sender_counts_with_the_helo_name(keys: Path) -> None:
    conclusion = judged(keys, mail_from=b"", helo=b"bank.test", client=BANK_CLIENT)
    assert len(clauses(conclusion, "spf")) == 1, "the same name is not checked twice"
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=pass")


@pytest.mark.attack("E16")
@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (None, "none"),
        (ip_address("fe80::1%eth0"), "none"),
        (ip_address("::ffff:192.0.2.10"), "pass"),
        (ip_address("192.0.2.10"), "pass"),
        (ip_address("2001:db8::1"), "fail"),
    ],
    ids=str,
)
def test_clients_of_every_kind(keys: Path, client: Address | None, expected: str) -> None:
    conclusion = judged(keys, mail_from=b"x@bank.test", client=client, mode="monitor")
    assert clauses(conclusion, "spf")[0].startswith(f"spf={expected}")


@pytest.mark.attack("E15")
def test_parameters_of_mail_are_no_part_of_the_path(keys: Path) -> None:
    """libmilter hands them over apart; AUTH= claims an author, and counts for nothing."""
    macros: Macros = {"{mail_addr}": b"x@evil.test", "{auth_author}": b"ceo@bank.test"}
    conclusion = judged(keys, macros=macros)
    assert refusal(conclusion).code == "550"
    assert conclusion.record["login"] is None


@pytest.mark.attack("E17", "E18", "E19")
def test_the_last_helo_holds_and_nothing_is_left_of_a_dropped_message(keys: Path) -> None:
    peer = Peer(configuration(keys), resolver=ZoneResolver(zone0.zone())).connect(BANK_CLIENT, helo=b"evil.test")
    peer.session.mail(b"<x@bank.test>", {"{mail_addr}": b"x@bank.test"})
    peer.session.rcpt()
    peer.session.headers([(b"From", CEO)])
    peer.session.abort()
    peer.session.helo(b"bank.test")
    conclusion = peer.send([(b"From", b" <x@evil.test>")], mail_from=b"<>", macros={"{mail_addr}": b""}, now=NOW)
    assert clauses(conclusion, "spf") == ["spf=pass smtp.helo=bank.test"]
    assert "header.from=evil.test" in clauses(conclusion, "dmarc")[0]


# -- what follows ---------------------------------------------------------------------------------------------------


def signed(domain: str = EVIL, author: str = "<ceo@bank.test>") -> list[Field]:
    """The header of a message signed by `domain`, for the body that Peer sends."""
    key = zone0.ke() if domain == EVIL else zone0.kb()
    raw = zone0.sign_as(key, zone0.mail(author, b"Hello\r\n"), d=domain)
    return [(field.name, field.value.replace(b"\r\n", b"\n")) for field in Message.parse(raw).fields]


DMARC = "_dmarc.bank.test"
POLICIES: list[tuple[str, list[str], str, str]] = [
    ("reject", ["v=DMARC1; p=reject"], "550 5.7.26", "dmarc-reject"),
    ("quarantine", ["v=DMARC1; p=quarantine"], "quarantine", "dmarc-quarantine"),
    ("none", ["v=DMARC1; p=none"], "accept", "dmarc-none"),
    ("M10 t=y", ["v=DMARC1; p=reject; t=y"], "quarantine", "dmarc-quarantine"),
    ("M10 pct=0", ["v=DMARC1; p=reject; pct=0"], "550 5.7.26", "dmarc-reject"),
    ("M01 two records", ["v=DMARC1; p=reject", "v=DMARC1; p=none"], "accept", "no-objection"),
    ("no record", ["v=spf1 -all"], "accept", "no-objection"),
]


@pytest.mark.attack("D01", "M01", "M10")
@pytest.mark.parametrize(("records", "end", "rule"), [row[1:] for row in POLICIES], ids=[row[0] for row in POLICIES])
def test_what_the_domain_asks_for_is_done(keys: Path, records: list[str], end: str, rule: str) -> None:
    conclusion = judged(keys, signed(EVIL), zone={DMARC: {"TXT": records}})
    assert conclusion.record["rule"] == rule
    if end.startswith("550"):
        reply = refusal(conclusion)
        assert f"{reply.code} {reply.enhanced}" == end
        for part in ("bank.test", "SPF pass for evil.test (not aligned)", "DKIM pass for evil.test (not aligned)"):
            assert part in reply.text
        return
    assert conclusion.actions[-1] == Accept()
    if len(records) > 1:
        assert "there are several at bank.test" in str(conclusion.record["reason"])
    assert any(isinstance(each, Quarantine) for each in conclusion.actions) is (end == "quarantine")
    assert clauses(conclusion, "dkim")[0].startswith("dkim=pass")


@pytest.mark.parametrize(("domain", "client"), [(BANK, EVIL_CLIENT), (EVIL, BANK_CLIENT)], ids=["dkim", "spf"])
def test_one_aligned_pass_is_enough(keys: Path, domain: str, client: Address) -> None:
    conclusion = judged(keys, signed(domain), mail_from=b"x@bank.test", client=client)
    assert conclusion.actions[-1] == Accept()
    (dmarc,) = clauses(conclusion, "dmarc")
    assert dmarc.startswith("dmarc=pass")
    assert "header.from=bank.test" in dmarc
    assert "policy.dmarc=reject" in dmarc


@pytest.mark.attack("D32")
def test_a_failing_signature_of_the_author_and_a_passing_one_of_another(keys: Path) -> None:
    fields = [(name, value) for name, value in signed(BANK) if name.lower() == b"dkim-signature"]
    broken = [(name, re.sub(rb"bh=[^;]*", b"bh=" + b"A" * 43 + b"=", value)) for name, value in fields]
    conclusion = judged(keys, [*broken, *signed(EVIL)], mode="monitor")
    assert [clause.split()[0] for clause in clauses(conclusion, "dkim")] == ["dkim=fail", "dkim=pass"]
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=fail")


@pytest.mark.attack("D37")
def test_a_key_that_does_not_exist_is_no_reason_to_wait(keys: Path) -> None:
    conclusion = judged(keys, signed(BANK), status={("s1._domainkey.bank.test", "TXT"): Status.NXDOMAIN})
    assert refusal(conclusion).code == "550"


DOWN = Status.TEMPFAIL
OUTAGES: list[tuple[str, dict[tuple[str, str], Status], str, bytes, str, str]] = [
    ("D36 the author's key", {("s1._domainkey.bank.test", "TXT"): DOWN}, "p=reject", b"x@evil.test", "451", "fail"),
    ("D36 bogus", {("s1._domainkey.bank.test", "TXT"): Status.BOGUS}, "p=reject", b"x@evil.test", "451", "fail"),
    ("D36 p=none", {("s1._domainkey.bank.test", "TXT"): DOWN}, "p=none", b"x@evil.test", "250", "temperror"),
    ("the author's SPF", {(BANK, "TXT"): DOWN}, "p=reject", b"x@bank.test", "451", "temperror"),
    ("N09 bogus SPF", {(BANK, "TXT"): Status.BOGUS}, "p=reject", b"x@bank.test", "451", "temperror"),
    ("M03 policy", {(DMARC, "TXT"): DOWN}, "p=reject", b"x@evil.test", "451", "temperror"),
    ("M03 N09 bogus policy", {(DMARC, "TXT"): Status.BOGUS}, "p=reject", b"x@evil.test", "451", "temperror"),
    ("SPF of another", {(EVIL, "TXT"): DOWN}, "p=reject", b"x@evil.test", "550", ""),
]


@pytest.mark.attack("D36", "M03", "N09")
@pytest.mark.parametrize(
    ("status", "policy", "mail_from", "code", "result"), [row[1:] for row in OUTAGES], ids=[row[0] for row in OUTAGES]
)
def test_the_dns_fails(
    keys: Path, status: dict[tuple[str, str], Status], policy: str, mail_from: bytes, code: str, result: str
) -> None:
    """Never a refusal for what the DNS did not say, and no delay where that could change nothing."""
    zone: zone0.Records = {DMARC: {"TXT": [f"v=DMARC1; {policy}"]}}
    fields = signed(BANK) if any("_domainkey" in name for name, _ in status) else CEO
    conclusion = judged(keys, fields, mail_from=mail_from, zone=zone, status=status)
    if code == "250":
        assert conclusion.actions[-1] == Accept()
        assert clauses(conclusion, "dmarc")[0].startswith("dmarc=temperror")
    else:
        assert refusal(conclusion).code == code
        if code == "451":
            assert refusal(conclusion).enhanced.startswith("4.7.")
            assert conclusion.record["dmarc"] == "temperror"
    watched = judged(keys, fields, mail_from=mail_from, zone=zone, status=status, mode="monitor")
    assert watched.actions[-1] == Accept()
    assert watched.record.get("would") == {"451": "tempfail", "550": "reject", "250": None}[code]


@pytest.mark.attack("M04")
def test_an_aligned_pass_does_not_wait_for_the_policy(keys: Path) -> None:
    conclusion = judged(keys, signed(BANK), status={(DMARC, "TXT"): DOWN})
    assert conclusion.actions[-1] == Accept()
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=temperror")


# -- From with several domains --------------------------------------------------------------------------------------

BOTH = b" <x@evil.test>, <ceo@bank.test>"


@pytest.mark.attack("F16", "F22")
@pytest.mark.parametrize("author", [BOTH, b" <ceo@bank.test>, <x@evil.test>", b" ceo@bank.test,<x@evil.test>"])
def test_the_strictest_of_several_domains_stands(keys: Path, author: bytes) -> None:
    reply = refusal(judged(keys, author))
    assert (reply.code, reply.enhanced) == ("550", "5.7.26")
    assert "bank.test" in reply.text


def test_several_domains_are_never_a_pass(keys: Path) -> None:
    zone: zone0.Records = {"_dmarc.evil.test": {"TXT": ["v=DMARC1; p=reject"]}, DMARC: {"TXT": ["v=DMARC1; p=none"]}}
    conclusion = judged(keys, [(b"From", BOTH), *signed(EVIL)[:1]], zone=zone, mode="monitor")
    assert "dmarc=pass" not in results(conclusion)
    both = judged(keys, [(b"From", BOTH)], mail_from=b"x@evil.test", zone={**zone, DMARC: {"TXT": []}})
    assert clauses(both, "dmarc")[0].split()[0] == "dmarc=permerror"
    assert both.record["rule"] == "dmarc-permerror"


def test_more_domains_than_are_judged_are_malformed(keys: Path) -> None:
    author = b", ".join(b"<a@d%d.test>" % number for number in range(5))
    assert refusal(judged(keys, b" " + author)).enhanced == "5.6.0"


@pytest.mark.attack("F17")
def test_several_mailboxes_of_one_domain_are_judged_as_one(keys: Path) -> None:
    conclusion = judged(keys, b" <a@bank.test>, <b@bank.test>", mail_from=b"x@bank.test", client=BANK_CLIENT)
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=pass")


# -- trust ----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("M12")
def test_results_that_came_with_the_message_count_for_nothing(keys: Path) -> None:
    forged = [
        (
            b"Authentication-Results",
            b" mx.us.test; spf=pass smtp.mailfrom=bank.test; dmarc=pass header.from=bank.test",
        ),
        (b"Authentication-Results", b" other.test; spf=pass smtp.mailfrom=bank.test"),
        (b"Received-SPF", b" pass (mx.us.test: domain of bank.test) client-ip=192.0.2.10"),
    ]
    conclusion = judged(keys, [*forged, (b"From", CEO)], mode="monitor")
    assert clauses(conclusion, "dmarc")[0].startswith("dmarc=fail")
    assert [each for each in conclusion.actions if isinstance(each, DeleteHeader)] == [
        DeleteHeader(b"Authentication-Results", 1)
    ]


LIST = [{"type": "mailing_list", "dkim": ["evil.test"]}]


def test_a_trusted_list_is_accepted_and_told(keys: Path) -> None:
    conclusion = judged(keys, signed(EVIL), trusted=LIST)
    assert conclusion.actions[-1] == Accept()
    (dmarc,) = clauses(conclusion, "dmarc")
    assert dmarc.startswith("dmarc=fail (policy overridden: mailing_list dkim=evil.test)")
    assert conclusion.record["override"] == "mailing_list dkim=evil.test"
    assert refusal(judged(keys, CEO, trusted=LIST)).code == "550", "only with its signature"


def test_a_trusted_host_is_looked_up_without_being_asked_to(keys: Path) -> None:
    zone: zone0.Records = {
        "66.100.51.198.in-addr.arpa": {"PTR": ["out.lists.test"]},
        "out.lists.test": {"A": ["198.51.100.66"]},
    }
    trusted = [{"type": "trusted_forwarder", "ptr": ["lists.test"]}]
    conclusion = judged(keys, zone=zone, trusted=trusted)
    assert conclusion.record["override"] == "trusted_forwarder ptr=out.lists.test"
    assert refusal(judged(keys, trusted=trusted)).code == "550"


@pytest.mark.attack("E20")
@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_mail_of_this_host_is_not_judged_by_its_address(keys: Path, client: str) -> None:
    conclusion = judged(keys, client=ip_address(client))
    assert conclusion.actions[-1] == Accept()
    assert conclusion.record["rule"] == "internal-client"
    assert not clauses(conclusion, "spf")
    assert not clauses(conclusion, "dmarc")


# -- what is written ------------------------------------------------------------------------------------------------


def inserted(conclusion: Conclusion, name: bytes) -> list[bytes]:
    return [each.value for each in conclusion.actions if isinstance(each, InsertHeader) and each.name == name]


def test_a_marked_message_names_its_rule_and_a_forged_mark_is_removed(keys: Path) -> None:
    fields = [(b"X-Mailguard-Policy", b" no-objection"), (b"From", CEO)]
    conclusion = judged(keys, fields, policy={"dmarc": {"reject": "header"}})
    assert inserted(conclusion, b"X-Mailguard-Policy") == [b" dmarc-reject"]
    assert DeleteHeader(b"X-Mailguard-Policy", 1) in conclusion.actions


def test_only_results_are_taken_for_forged_results(keys: Path) -> None:
    """What our own users write under the name of our mark stays, even where it reads like a result of ours."""
    fields = [(b"X-Mailguard-Policy", f" {US}; spf=pass".encode()), (b"From", b" <alice@us.test>")]
    assert not any(isinstance(each, DeleteHeader) for each in judged(keys, fields, macros=ALICE).actions)
    fields[0] = (b"Authentication-Results", fields[0][1])
    assert DeleteHeader(b"Authentication-Results", 1) in judged(keys, fields, macros=ALICE).actions


@pytest.mark.attack("R01")
@pytest.mark.parametrize(("role", "macros"), [("auto", ALICE), ("sign", NOBODY)], ids=["our own", "a stranger"])
def test_forged_results_are_removed_from_what_is_neither_signed_nor_verified(
    keys: Path, role: str, macros: Macros
) -> None:
    fields = [(b"Authentication-Results", f" {US}; spf=pass".encode()), (b"From", CEO)]
    conclusion = Peer(configuration(keys), role=role).connect().send(fields, macros=macros)
    assert str(conclusion.record["reason"]).startswith("unsigned: ")
    assert conclusion.actions == (DeleteHeader(b"Authentication-Results", 1), Accept())


def test_received_spf_and_iprev_are_written_where_wanted(keys: Path) -> None:
    plain = judged(keys, mode="monitor")
    assert not inserted(plain, b"Received-SPF")
    assert not clauses(plain, "iprev")
    wanted = judged(keys, mode="monitor", results={"received_spf": True, "iprev": True})
    (field,) = inserted(wanted, b"Received-SPF")
    assert field.lower().startswith(b" pass ")
    assert clauses(wanted, "iprev")[0].startswith("iprev=permerror")


def test_the_login_is_told_only_where_wanted(keys: Path) -> None:
    peer_fields = [(b"From", b" <alice@us.test>")]
    for wanted, expected in ((False, 0), (True, 1)):
        peer = Peer(configuration(keys, results={"login": wanted})).connect(helo=b"c.test")
        conclusion = peer.send(peer_fields, macros=ALICE, mail_from=b"<alice@us.test>")
        found = inserted(conclusion, b"Authentication-Results")
        assert len(found) == expected
        assert all(b"auth=pass" in value and b"smtp.auth=alice" in value for value in found)
        peer = Peer(configuration(keys, results={"login": wanted}), role="verify").connect(helo=b"c.test")
        assert len(clauses(peer.send(peer_fields, macros=ALICE), "auth")) == expected


def test_no_login_is_told_of_who_has_none(keys: Path) -> None:
    networks = [{"networks": ["192.0.2.0/28"], "domains": ["us.test"]}]
    config = configuration(keys, results={"login": True}, sign={"networks": networks})
    conclusion = Peer(config).connect(ip_address("192.0.2.9")).send([(b"From", b" <alice@us.test>")])
    assert conclusion.record["action"] == "sign"
    assert not inserted(conclusion, b"Authentication-Results")


def test_the_log_line_has_what_is_needed_to_count(keys: Path) -> None:
    record = judged(keys, mode="monitor").record
    expected = {"role": "verify", "client": "198.51.100.66", "helo": b"evil.test", "mail_from": b"x@evil.test"}
    expected |= {"from": "ceo@bank.test", "domain": "bank.test", "action": "accept", "would": "reject"}
    expected |= {"rule": "dmarc-reject", "dmarc": "fail", "policy": "reject", "spf": "pass d=evil.test"}
    assert {key: record.get(key) for key in expected} == expected


# -- what is asked beforehand ---------------------------------------------------------------------------------------


def test_spf_is_asked_at_the_first_recipient_and_the_rest_at_the_end_of_the_header(keys: Path) -> None:
    peer = Peer(configuration(keys), resolver=ZoneResolver(zone0.zone())).connect(EVIL_CLIENT, helo=b"evil.test")
    peer.session.mail(b"<x@evil.test>", {"{mail_addr}": b"x@evil.test"})
    assert [str(each) for each in peer.session.rcpt()] == ["evil.test TXT"]
    assert peer.session.rcpt() == (), "once is enough"
    peer.header(signed(EVIL))
    asked = {str(each) for each in peer.session.end_of_header()}
    assert {"s1._domainkey.evil.test TXT", "_dmarc.bank.test TXT"} <= asked


def test_nothing_is_asked_for_our_own_users(keys: Path) -> None:
    peer = Peer(configuration(keys)).connect(helo=b"c.test")
    peer.session.mail(b"<alice@us.test>", ALICE)
    assert peer.session.rcpt() == ()
    peer.header([(b"From", b" <alice@us.test>")])
    assert peer.session.end_of_header() == ()


@pytest.mark.attack("R01", "R02")
@pytest.mark.parametrize("mode", ["monitor", "enforce"])
@pytest.mark.parametrize("macros", [NOBODY, ALICE], ids=["outside", "our own"])
@pytest.mark.parametrize(
    "filling",
    [[(b"a", b"")] * 997, [(b"a", b"x" * 60_000)] * 5],
    ids=["behind 1,000 fields", "behind 262,144 octets"],
)
def test_more_forged_results_than_postfix_can_remove_are_refused(
    keys: Path, mode: str, macros: Macros, filling: list[Field]
) -> None:
    """Of 1 MB of short fields, 1,000 at the end take Postfix 8 s; left in, they would speak in our name."""
    forged: Field = (b"Authentication-Results", b" mx.us.test; dmarc=pass")

    def concluded(forgeries: int) -> Conclusion:
        session = Peer(configuration(keys, mode=mode)).connect().session
        session.mail(b"<alice@us.test>", macros)
        for field in [forged, forged, (b"From", b" <alice@us.test>"), *filling, *[forged] * forgeries]:
            session.headers([field])
        session.end_of_header()
        return session.end_of_message(Answers(closed=True), now=zone0.NOW)

    most = concluded(10)
    assert most.record["rule"] == "malformed"
    assert most.record["forged_results_removed"] == 12
    assert sum(isinstance(each, DeleteHeader) for each in most.actions) == (12 if mode == "monitor" else 0)
    conclusion = concluded(11)
    assert (refusal(conclusion).code, refusal(conclusion).enhanced) == ("550", "5.6.0")
    assert conclusion.record["rule"] == "too-many-removals"
