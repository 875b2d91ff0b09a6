"""The session as dialogues: events in, a conclusion out.

Whose mail is signed, what Postfix does not tell, several messages in one connection, malformed messages. What is
delivered after the actions is judged in test_session_delivery.py; the keys are those of test_keyring.py.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailguard.dns.answers import Answers
from mailguard.message import MAX_FIELDS, MAX_HEADER_BYTES
from mailguard_milter.actions import Accept, InsertHeader, Reply
from mailguard_milter.session import Macros
from milter_peer import (
    ALICE,
    NOBODY,
    NOW,
    STRANGER,
    Address,
    Field,
    Peer,
    configuration,
    delivered,
    field_values,
    make_keys,
    message,
    reply,
    signed_by_us,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


LOOPBACK = ip_address("127.0.0.1")
NETWORKS = [{"networks": ["192.0.2.0/28", "2001:db8::/64"], "domains": ["us.test"]}]
ROLES: list[tuple[str, str, Address | None, Macros, Macros, bytes, str]] = [
    ("a stranger", "auto", STRANGER, {}, NOBODY, b"x@us.test", "verify"),
    ("a login", "auto", STRANGER, {}, ALICE, b"x@us.test", "sign"),
    ("a login of odd octets", "auto", STRANGER, {}, {"{auth_authen}": b"u\xff'|*/..%s"}, b"x@us.test", "sign"),
    ("L08 a login that cannot be decoded", "auto", STRANGER, {}, {"{auth_authen}": None}, b"x@us.test", "sign"),
    ("an empty login", "auto", STRANGER, {}, {**NOBODY, "{auth_authen}": b""}, b"x@us.test", "verify"),
    ("E15 AUTH= alone is no login", "auto", STRANGER, {}, {**NOBODY, "{auth_author}": b"a"}, b"x@us.test", "verify"),
    ("the daemon name", "auto", STRANGER, {"{daemon_name}": b"ORIGINATING"}, NOBODY, b"x@us.test", "sign"),
    ("another daemon name", "auto", STRANGER, {"{daemon_name}": b"smtpd"}, NOBODY, b"x@us.test", "verify"),
    (
        "a daemon name in lower case",
        "auto",
        STRANGER,
        {"{daemon_name}": b"originating"},
        NOBODY,
        b"x@us.test",
        "verify",
    ),
    ("a daemon name not decoded", "auto", STRANGER, {"{daemon_name}": None}, NOBODY, b"x@us.test", "verify"),
    ("an empty daemon name", "auto", STRANGER, {"{daemon_name}": b""}, NOBODY, b"x@us.test", "verify"),
    ("E20 L12 L18 loopback", "auto", LOOPBACK, {}, NOBODY, b"x@us.test", "verify"),
    ("E20 loopback, IPv6", "auto", ip_address("::1"), {}, NOBODY, b"x@us.test", "verify"),
    ("E16 no address", "auto", None, {}, NOBODY, b"x@us.test", "verify"),
    ("L12 a listed network and domain", "auto", ip_address("192.0.2.9"), {}, NOBODY, b"x@us.test", "sign"),
    ("L12 the same in IPv6", "auto", ip_address("2001:db8::9"), {}, NOBODY, b"x@us.test", "sign"),
    ("E16 the same, mapped", "auto", ip_address("::ffff:192.0.2.9"), {}, NOBODY, b"x@us.test", "sign"),
    ("L12 beside the network", "auto", ip_address("192.0.2.16"), {}, NOBODY, b"x@us.test", "verify"),
    ("L12 a domain not listed", "auto", ip_address("192.0.2.9"), {}, NOBODY, b"x@other.test", "verify"),
    ("L12 a subdomain is not listed", "auto", ip_address("192.0.2.9"), {}, NOBODY, b"x@a.us.test", "verify"),
    ("L12 two domains", "auto", ip_address("192.0.2.9"), {}, NOBODY, b"x@us.test>, <x@other.test", "verify"),
    ("L12 no author", "auto", ip_address("192.0.2.9"), {}, NOBODY, b"", "verify"),
    ("verify: a login", "verify", STRANGER, {}, ALICE, b"x@us.test", "verify"),
    (
        "verify: the daemon name",
        "verify",
        STRANGER,
        {"{daemon_name}": b"ORIGINATING"},
        NOBODY,
        b"x@us.test",
        "verify",
    ),
    ("verify: a listed network", "verify", ip_address("192.0.2.9"), {}, NOBODY, b"x@us.test", "verify"),
    ("sign: a login", "sign", STRANGER, {}, ALICE, b"x@us.test", "sign"),
    ("sign: a listed network", "sign", ip_address("192.0.2.9"), {}, NOBODY, b"x@us.test", "sign"),
    ("sign: a listed network, a subdomain", "sign", ip_address("192.0.2.9"), {}, NOBODY, b"x@web.us.test", "none"),
    ("sign: a stranger", "sign", STRANGER, {}, NOBODY, b"x@us.test", "none"),
    ("sign: loopback", "sign", LOOPBACK, {}, NOBODY, b"x@us.test", "none"),
]


@pytest.mark.attack("L12", "L18", "E15", "E16", "E20", "L08")
@pytest.mark.parametrize(
    ("listener", "client", "at_connect", "at_mail", "sender", "expected"),
    [row[1:] for row in ROLES],
    ids=[row[0] for row in ROLES],
)
def test_whose_mail_it_is(
    keys: Path,
    listener: str,
    client: Address | None,
    at_connect: Macros,
    at_mail: Macros,
    sender: bytes,
    expected: str,
) -> None:
    peer = Peer(configuration(keys, sign={"networks": NETWORKS}), role=listener).connect(client, at_connect)
    fields = message(sender)
    conclusion = peer.send(fields, macros=at_mail)
    assert conclusion.record["role"] == expected
    if expected == "none":
        told = "unsigned: the client is not authenticated, nor listed for the domain in From"
        assert conclusion.record["reason"] == told
    after = delivered(fields, b"Hello\r\n", conclusion)
    assert bool(field_values(after, b"DKIM-Signature")) is (expected == "sign")
    assert bool(field_values(after, b"Authentication-Results")) is (expected == "verify")


@pytest.mark.attack("L08")
def test_a_login_that_cannot_be_decoded_is_a_login(keys: Path) -> None:
    conclusion = Peer(configuration(keys)).connect().send(message(), macros={"{auth_authen}": None})
    assert conclusion.record["role"] == "sign"
    assert conclusion.record["login"] == b"(undecodable)"
    assert "warning" not in conclusion.record


@pytest.mark.attack("E16")
@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (None, "unknown"),
        (ip_address("::ffff:192.0.2.10"), "192.0.2.10"),
        (ip_address("2001:db8::1"), "2001:db8::1"),
        (IPv6Address("fe80::1%eth0"), "fe80::1%eth0"),
    ],
)
def test_the_log_names_the_client(keys: Path, client: Address | None, expected: str) -> None:
    assert Peer(configuration(keys)).connect(client).send(message()).record["client"] == expected


MISSING: list[tuple[str, str, Macros, bytes, str]] = [
    ("L14 none at all", "sign", {}, b"<a@us.test>", "milter_mail_macros"),
    ("L14 on a listener for both", "auto", {}, b"<a@us.test>", "milter_mail_macros"),
    ("L14 only the queue id", "sign", {"i": b"4abc"}, b"<a@us.test>", "milter_mail_macros"),
    (
        "L13 a mechanism without a login",
        "sign",
        {**NOBODY, "{auth_type}": b"EXTERNAL"},
        b"<a@us.test>",
        "{auth_authen}",
    ),
    (
        "L13 a mechanism with an empty login",
        "sign",
        {**NOBODY, "{auth_type}": b"EXTERNAL", "{auth_authen}": b""},
        b"<a@us.test>",
        "{auth_authen}",
    ),
    ("not authenticated", "sign", NOBODY, b"<a@us.test>", ""),
    ("the null sender has no {mail_addr}", "sign", {}, b"<>", ""),
    ("a login", "sign", ALICE, b"<a@us.test>", ""),
    ("a login alone", "sign", {"{auth_authen}": b"alice"}, b"<a@us.test>", ""),
    ("a listener that only verifies does not care", "verify", {}, b"<a@us.test>", ""),
]


@pytest.mark.attack("L13", "L14")
@pytest.mark.parametrize(
    ("listener", "macros", "mail_from", "said"), [row[1:] for row in MISSING], ids=[row[0] for row in MISSING]
)
def test_missing_macros_are_said(keys: Path, listener: str, macros: Macros, mail_from: bytes, said: str) -> None:
    monitor = Peer(configuration(keys), role=listener).connect().send(message(), macros=macros, mail_from=mail_from)
    assert monitor.actions[-1] == Accept()
    enforce = (
        Peer(configuration(keys, mode="enforce"), role=listener)
        .connect()
        .send(message(), macros=macros, mail_from=mail_from)
    )
    if said:
        assert said in str(monitor.record["warning"])
        assert monitor.record["action"] == "accept"
        assert not any(isinstance(action, InsertHeader) for action in monitor.actions) or listener == "auto"
        if listener == "sign":
            assert (reply(enforce).code, reply(enforce).enhanced) == ("451", "4.7.0")
            assert said in str(enforce.record["reason"])
            assert (enforce.record["action"], enforce.record["rule"]) == ("tempfail", "macros-missing")
            assert (monitor.record["would"], monitor.record["rule"]) == ("tempfail", "macros-missing")
        else:
            assert enforce.actions[-1] == Accept()
    else:
        assert "warning" not in monitor.record
        assert enforce.actions[-1] == Accept()


LONG = b" " + b"x" * 998


@pytest.mark.parametrize(
    ("fields", "body", "macros", "said"),
    [
        # A mail program that does not fold References, and one that writes HTML in one line.
        ([(b"References", LONG)], b"Hello\r\n", ALICE, "a signed header field has a line of more than 998 octets"),
        ([], b"x" * 999 + b"\r\n", ALICE, "the body has a line of more than 998 octets"),
        ([(b"X-Report", LONG)], b"x" * 998 + b"\r\n", ALICE, None),
        ([(b"References", LONG)], b"x" * 999 + b"\r\n", NOBODY, None),
    ],
    ids=["signed field", "body", "field not signed", "from outside"],
)
def test_lines_that_postfix_breaks_are_said_of_what_is_signed(
    keys: Path, fields: list[Field], body: bytes, macros: Macros, said: str | None
) -> None:
    peer = Peer(configuration(keys)).connect()
    conclusion = peer.send([*message(), *fields], body, macros=macros, chunks=100)
    assert conclusion.record["action"] == ("sign" if macros is ALICE else "accept")
    assert conclusion.record.get("warning") == said
    # The next message of the session is another.
    assert "warning" not in peer.send(message(), macros=macros).record


def test_who_is_known_without_a_login_needs_no_macros(keys: Path) -> None:
    """A message of a listed service for whose domain there is no key passes, though no login could be seen."""
    peer = Peer(configuration(keys, mode="enforce"), role="sign")
    for sender, action in ((b"x@us.test", "sign"), (b"x@elsewhere.test", "accept")):
        peer.connect(STRANGER, {"{daemon_name}": b"ORIGINATING"})
        conclusion = peer.send(message(sender), macros={}, mail_from=b"<a@us.test>")
        assert (conclusion.actions[-1], conclusion.record["action"]) == (Accept(), action)
        assert "milter_mail_macros" in str(conclusion.record["warning"])
        assert "would" not in conclusion.record


Before = Callable[[Peer, list[Field]], object]


def _aborted_after_the_header(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)
    peer.header(forged)
    peer.session.end_of_header()
    peer.session.abort()


def _aborted_in_the_body(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)
    peer.header(forged)
    peer.session.end_of_header()
    peer.session.body(b"half a bo")
    peer.session.abort()


def _header_after_an_abort(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)
    peer.session.abort()
    peer.header(forged)
    peer.session.end_of_header()
    peer.session.body(b"half a bo")
    peer.session.abort()


def _mail_again_without_abort(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)
    peer.header(forged)
    peer.session.end_of_header()
    peer.session.body(b"half a bo")


def _only_mail(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)


def _helo_again(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)
    peer.header(forged)
    peer.session.helo(b"client.test")


def _connected_again(peer: Peer, forged: list[Field]) -> None:
    peer.session.mail(b"<a@us.test>", ALICE)
    peer.header(forged)
    peer.connect(STRANGER, {"{daemon_name}": b"smtpd"})


def _complete(peer: Peer, forged: list[Field]) -> None:
    peer.send(forged, b"another body\r\n", macros=ALICE)


def _refused(peer: Peer, forged: list[Field]) -> None:
    peer.send([*forged, (b"From", b" <second@us.test>")], macros=ALICE)


BEFORE: list[tuple[str, Before]] = [
    ("E17 aborted after the header", _aborted_after_the_header),
    ("E17 aborted in the body", _aborted_in_the_body),
    ("E17 a header after an abort", _header_after_an_abort),
    ("E18 MAIL again without an abort", _mail_again_without_abort),
    ("E18 MAIL twice in a row", _only_mail),
    ("E18 E19 HELO again", _helo_again),
    ("X10 the connection is used again", _connected_again),
    ("L15 a signed message", _complete),
    ("E17 a refused message", _refused),
]


@pytest.mark.attack("E17", "E18", "E19", "X10", "L15")
@pytest.mark.parametrize("before", [row[1] for row in BEFORE], ids=[row[0] for row in BEFORE])
def test_nothing_of_the_last_message_reaches_the_next(keys: Path, before: Before) -> None:
    fields, body = signed_by_us(keys)
    forged: list[Field] = [
        (b"Authentication-Results", b" mx.us.test; dmarc=pass"),
        (b"Authentication-Results", b" mx.us.test; dmarc=pass"),
        *message(b"mallory@us.test"),
    ]
    fresh = Peer(configuration(keys, mode="enforce")).connect().send(fields, body)
    assert str(fresh.record["dkim"]).startswith("pass d=us.test")
    used = Peer(configuration(keys, mode="enforce")).connect()
    before(used, forged)
    assert used.send(fields, body) == fresh


@pytest.mark.attack("E17")
def test_an_abort_forgets_the_message_at_once(keys: Path) -> None:
    session = Peer(configuration(keys)).connect().session
    session.mail(b"<alice@us.test>", ALICE)
    session.headers([(b"From", b" <alice@us.test>")])
    session.abort()
    # No MTA goes on without MAIL; one that does is nobody's client.
    session.headers([(b"From", b" <alice@us.test>")])
    session.end_of_header()
    record = session.end_of_message(Answers(closed=True), now=NOW).record
    assert (record["role"], record["login"], record["mail_from"], record["client"]) == (
        "verify",
        None,
        b"",
        "unknown",
    )


@pytest.mark.attack("L15", "E18")
def test_each_message_has_its_own_login_and_author(keys: Path) -> None:
    peer = Peer(configuration(keys)).connect()
    said = [
        peer.send(message(b"alice@us.test"), macros=ALICE).record,
        peer.send(message(b"alice@other.test"), macros=ALICE).record,
        peer.send(message(b"alice@us.test")).record,
        peer.send(message(b"alice@nowhere.test"), macros={"{auth_authen}": b"bob"}).record,
    ]
    assert [(one["role"], one.get("d"), one["login"]) for one in said] == [
        ("sign", "us.test", b"alice"),
        ("sign", "other.test", b"alice"),
        ("verify", None, None),
        ("sign", None, b"bob"),
    ]
    assert [(one.get("s"), one.get("a")) for one in said[:2]] == [
        ("r1 e1", "rsa-sha256 ed25519-sha256"),
        ("o1", "ed25519-sha256"),
    ]


def test_helo_drops_the_message_that_is_under_way(keys: Path) -> None:
    """RFC 5321 §4.1.4."""
    session = Peer(configuration(keys)).connect().session
    session.mail(b"<alice@us.test>", ALICE)
    session.helo(b"client.test")
    session.headers(message())
    session.end_of_header()
    record = session.end_of_message(Answers(closed=True), now=NOW).record
    assert (record["role"], record["login"], record["mail_from"]) == ("verify", None, b"")


def test_a_message_without_mail_is_nobodys(keys: Path) -> None:
    session = Peer(configuration(keys, mode="enforce")).connect().session
    for fields in ([], message()):
        assert session.rcpt() == ()
        session.headers(fields)
        session.end_of_header()
        session.body(b"Hello\r\n")
        conclusion = session.end_of_message(Answers(closed=True), now=NOW)
        assert (conclusion.record["role"], conclusion.record["client"]) == ("verify", "unknown")
        assert not any(
            isinstance(each, InsertHeader) and each.name == b"DKIM-Signature" for each in conclusion.actions
        )
        session.abort()
    session.body(b"Hello\r\n")  # before any header


def test_the_end_of_a_message_without_header_is_an_error_for_the_engine(keys: Path) -> None:
    session = Peer(configuration(keys)).connect().session
    session.mail(b"<a@us.test>", ALICE)
    with pytest.raises(ValueError, match="header"):
        session.end_of_message(Answers(), now=NOW)


MALFORMED: list[tuple[str, list[Field], str]] = [
    ("F01 D47 two From fields", [(b"From", b" <x@evil.test>"), *message()], "2 From fields"),
    ("F02 the other way round", [*message(), (b"From", b" <x@evil.test>")], "2 From fields"),
    (
        "F03 in other letters",
        [*message(), (b"fROM", b" <x@evil.test>"), (b"FROM", b" <y@evil.test>")],
        "3 From fields",
    ),
    ("F06 a blank before the colon", [*message(), (b"From ", b" <x@evil.test>")], "2 From fields"),
    ("F14 D47 no From", [(b"Sender", b" <alice@us.test>"), (b"To", b" <bob@us.test>")], "no From field"),
    ("F22 no address", [(b"From", b" alice@us.test x@evil.test")], "From"),
    ("F38 empty", [(b"From", b"")], "From"),
    ("F09 a NUL", [(b"From", b" <x@evil.test>\0<alice@us.test>")], "NUL"),
    ("F45 no header", [], "no From field"),
    ("F42 too many fields", [*message(), *[(b"a", b"b")] * 20_000], "1000 fields"),
    ("F42 too many octets", [*message(), *[(b"a", b"b" * 60_000)] * 5], "262144 octets"),
    ("F43 one field too large", [*message(), (b"a", b"b" * 300_000)], "262144 octets"),
]


@pytest.mark.attack("F01", "F02", "F03", "F06", "F14", "F38", "F42", "F45", "L04")
@pytest.mark.parametrize(("fields", "said"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_enforcing_refuses_a_malformed_message(keys: Path, fields: list[Field], said: str) -> None:
    for macros, role in ((NOBODY, "verify"), (ALICE, "sign")):
        conclusion = Peer(configuration(keys, mode="enforce")).connect().send(fields, macros=macros)
        assert (reply(conclusion).code, reply(conclusion).enhanced) == ("550", "5.6.0")
        assert said in reply(conclusion).text
        assert (conclusion.record["role"], conclusion.record["action"]) == (role, "reject")
        assert said in str(conclusion.record["reason"])


@pytest.mark.attack("F01", "F02", "F03", "F06", "F14", "F38", "F42", "F45", "D47")
@pytest.mark.parametrize(("fields", "said"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_monitoring_annotates_a_malformed_message_and_never_signs_it(
    keys: Path, fields: list[Field], said: str
) -> None:
    verified = Peer(configuration(keys)).connect().send(fields)
    after = delivered(fields, b"", verified)
    (written,) = field_values(after, b"Authentication-Results")
    assert b"dmarc=permerror" in written
    assert b"dmarc=pass" not in written
    assert b"dkim=pass" not in written
    assert (verified.record["would"], verified.record["rule"]) == ("reject", "malformed")
    assert said in str(verified.record["reason"])
    # RFC 6376 §5.4: a signer answers for what it signs; nobody can for two authors.
    signed = Peer(configuration(keys)).connect().send(fields, macros=ALICE)
    assert signed.actions == (Accept(),)
    assert str(signed.record["reason"]).startswith("unsigned: malformed message")
    assert (signed.record["would"], signed.record["rule"]) == ("reject", "malformed")


@pytest.mark.attack("F16", "L04", "D47")
@pytest.mark.parametrize("mode", ["monitor", "enforce"])
def test_two_author_domains_are_lent_no_signature(keys: Path, mode: str) -> None:
    fields = [(b"From", b" <x@evil.test>, <alice@us.test>")]
    conclusion = Peer(configuration(keys, mode=mode)).connect().send(fields, macros=ALICE)
    assert "several domains" in str(conclusion.record["reason"])
    if mode == "enforce":
        assert (reply(conclusion).code, reply(conclusion).enhanced) == ("550", "5.6.0")
    else:
        assert conclusion.actions == (Accept(),)


@pytest.mark.attack("D07", "F01")
def test_a_second_from_breaks_our_signatures_and_is_malformed(keys: Path) -> None:
    fields, body = signed_by_us(keys)
    signature, rest = fields[1], fields[2:]
    assert signature[0] == b"DKIM-Signature"
    conclusion = Peer(configuration(keys)).connect().send([(b"From", b" <x@evil.test>"), signature, *rest], body)
    assert str(conclusion.record["dkim"]).startswith("fail d=us.test"), "oversigned: a second From breaks it"
    after = delivered([], b"", conclusion)
    assert b"=pass" not in after
    assert b"dmarc=permerror" in after


@pytest.mark.attack("R01", "D47")
def test_a_malformed_message_keeps_no_forged_results(keys: Path) -> None:
    fields = [(b"Authentication-Results", b" mx.us.test; dmarc=pass"), *message(), (b"From", b" <x@evil.test>")]
    for macros in (NOBODY, ALICE):
        conclusion = Peer(configuration(keys)).connect().send(fields, macros=macros)
        assert b"dmarc=pass" not in delivered(fields, b"", conclusion)


@pytest.mark.attack("F42")
@pytest.mark.parametrize(
    ("count", "name", "value"),
    [
        (100_000, b"x%d", b" y"),
        (100_000, b"x", b" y"),
        (50, b"x%d" + b"n" * 60_000, b" y"),
        (50, b"x", b" y" * 30_000),
        (50, b"Authentication-Results", b" mx.evil.test;" + b"y" * 60_000),
    ],
    ids=["many names", "many fields", "long names", "long values", "long results of others"],
)
def test_a_header_beyond_the_bounds_is_not_kept(keys: Path, count: int, name: bytes, value: bytes) -> None:
    session = Peer(configuration(keys)).connect().session
    session.mail(b"<a@us.test>", NOBODY)
    session.headers(message())
    tracemalloc.start()
    try:
        for number in range(count):
            # Octets of its own for each field, as from a socket.
            session.headers([(name % number if b"%" in name else name, bytes(bytearray(value)))])
        session.end_of_header()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000, f"{peak} octets for {MAX_FIELDS} fields that are kept"


def test_exactly_the_bound_is_well_formed(keys: Path) -> None:
    most = [*message(), *[(b"a", b" b")] * (MAX_FIELDS - 3)]
    assert Peer(configuration(keys, mode="enforce")).connect().send(most).actions[-1] == Accept()
    used = sum(len(name) + len(value) for name, value in message()) + 1
    largest = [*message(), (b"a", b"b" * (MAX_HEADER_BYTES - used))]
    assert Peer(configuration(keys, mode="enforce")).connect().send(largest).actions[-1] == Accept()
    largest[-1] = (b"a", b"b" * (MAX_HEADER_BYTES - used + 1))
    assert reply(Peer(configuration(keys, mode="enforce")).connect().send(largest)).code == "550"


NAMES = st.sampled_from(
    [b"From", b"from", b"From ", b"To", b"Authentication-Results", b"DKIM-Signature", b"", b"\xff", b"a b", b"X-Y"]
)
VALUES = st.binary(max_size=60) | st.sampled_from(
    [
        b" <alice@us.test>",
        b" mx.us.test; dmarc=pass",
        b" <a@b\n .test>",
        b" =?utf-8?q?a?=",
        b"\n\n",
        b" v=1; d=us.test",
    ]
)


@pytest.mark.attack("P06", "P16", "R14")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(st.tuples(NAMES, VALUES), max_size=8),
    body=st.binary(max_size=80),
    macros=st.sampled_from([NOBODY, ALICE, {"{auth_authen}": None}, {}]),
    mode=st.sampled_from(["monitor", "enforce"]),
    mail_from=st.binary(max_size=40),
)
def test_any_octets_end_in_actions_that_can_be_carried_out(
    keys: Path, fields: list[Field], body: bytes, macros: Macros, mode: str, mail_from: bytes
) -> None:
    conclusion = Peer(configuration(keys, mode=mode)).connect().send(fields, body, macros=macros, mail_from=mail_from)
    assert isinstance(conclusion.actions[-1], Accept | Reply)
    assert not any(isinstance(action, Accept | Reply) for action in conclusion.actions[:-1])
    if isinstance(conclusion.actions[-1], Reply):
        assert len(conclusion.actions) == 1, "R14: a message that is refused or put off is not changed"
