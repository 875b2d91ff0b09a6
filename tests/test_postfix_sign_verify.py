"""Signing, verifying and sessions through the real Postfix and the real daemon; what counts is the delivered file.

RFC 6376 §3.4, RFC 8601 §5, RFC 5321 §4.1.4. Malformed messages, what Postfix changes, load and large messages have
files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

import zone0
from postfix_site import (
    ALICE,
    ALL_THREE,
    SIGNED_BY_US,
    STRANGER,
    Client,
    PostfixSite,
    fields_named,
    header_fields,
    open_site,
)

pytestmark = pytest.mark.postfix

LISTED_CLIENT = "203.0.113.9"
PATTERN = """
key_pattern = "keys/{domain}/{selector}.pem"
key_selectors = ["p1"]
[[sign.networks]]
networks = ["203.0.113.0/24"]
domains = ["us.test", "listed.test"]
"""
PATTERN_KEY = zone0.ed25519_key(7)


@pytest.fixture(scope="module")
def site() -> Iterator[PostfixSite]:
    with open_site(
        sign=PATTERN,
        inbound={
            "smtpd_sasl_auth_enable": "yes",
            "message_size_limit": "400000",
            # The defaults until 3.8: so messages can be smuggled.
            "smtpd_forbid_bare_newline": "no",
            "smtpd_forbid_unauth_pipelining": "no",
        },
    ) as made:
        yield made


@pytest.fixture(scope="module")
def normalizing() -> Iterator[PostfixSite]:
    """Postfix as it is from 3.9 on: only <CR><LF>.<CR><LF> ends a message."""
    with open_site(workers=1, inbound={"smtpd_forbid_bare_newline": "normalize"}) as made:
        yield made


# --- Signing: the octets that Postfix delivers -------------------------------------------------------------------

FIELDS = {
    "plain": b"From: <alice@us.test>\r\nTo: <bob@us.test>\r\nSubject: Hello\r\n",
    "no space": b"From:<alice@us.test>\r\nTo:<bob@us.test>\r\nSubject:Hello\r\n",
    "many spaces": b"From:    <alice@us.test>\r\nTo:  <bob@us.test>\r\nSubject:   Hello   world  \r\n",
    "tabs": b"From:\t<alice@us.test>\r\nTo: \t <bob@us.test>\r\nSubject:\t\tHello\tworld\t\r\n",
    "folds": b"From: Alice\r\n\t<alice@us.test>\r\nTo: <bob@us.test>,\r\n <eve@us.test>\r\n"
    b"Subject: Hello \r\n \t world\r\n\tagain \t\r\n  and again\r\n",
    "fold first": b"From:\r\n <alice@us.test>\r\nTo:\r\n\t<bob@us.test>\r\nSubject: \r\n\tHello\r\n",
    "blank fold": b"From:\r\n \t\r\n <alice@us.test>\r\nTo: <bob@us.test>\r\nSubject: Hello\r\n \t \r\n world\r\n",
    "empty value": b"From: <alice@us.test>\r\nTo: <bob@us.test>\r\nSubject:\r\nCc:\r\nReply-To: \t \r\n",
    "8 bits": b'From: "Al\xefce" <alice@us.test>\r\nTo: <bob@us.test>\r\nSubject: H\xc3\xa9llo \xff\r\n',
    "long": b"From: <alice@us.test>\r\nTo: <bob@us.test>\r\nReferences:"
    + b"".join(b"\r\n <%04d@us.test>" % number for number in range(200))
    + b"\r\nSubject: "
    + b"long " * 180
    + b"\r\n",
    "mixed case": b"fROM: <alice@us.test>\r\nTO: <bob@us.test>\r\nsubject:  Hello\r\nsender: <alice@us.test>\r\n",
    "mailing list": b"From: <alice@us.test>\r\nTo: <bob@us.test>\r\nList-Id:<l.us.test>\r\n"
    b"List-Unsubscribe:\t<mailto:l@us.test>\r\nList-Unsubscribe-Post:  One-Click\r\nX-Other : gap\r\n",
}
BODIES = {
    "plain": b"Hello,\r\n\r\nworld.\r\n",
    "empty": b"",
    "only blank lines": b"\r\n\r\n\r\n",
    "blanks": b"one  two \t three\t\r\n \t\r\n  four  \r\n\r\n\r\n",
    "dots": b".\r\n..\r\n.leading\r\n\r\n.\r\n",
    "8 bits": bytes(range(128, 256)) + b"\r\n",
    "long lines": b"\r\n".join(b"word " * 190 for _ in range(20)) + b"\r\n",
}
SHAPES = [(header, "plain") for header in FIELDS] + [("plain", body) for body in BODIES if body != "plain"]


@pytest.fixture(
    scope="module",
    params=[
        ("relaxed/relaxed", "libmilter"),
        ("relaxed/simple", "libmilter"),
        ("simple/relaxed", "libmilter"),
        ("simple/simple", "libmilter"),
        # In this form every octet counts.
        ("simple/simple", "native"),
    ],
    ids=" ".join,
)
def forms(request: pytest.FixtureRequest) -> Iterator[tuple[str, PostfixSite]]:
    form, engine = request.param
    with open_site(sign=f'canonicalization = "{form}"', engine=engine) as made:
        yield form, made


@pytest.mark.attack("D43")
@pytest.mark.parametrize(("header", "body"), SHAPES)
def test_the_signatures_cover_what_postfix_delivers(forms: tuple[str, PostfixSite], header: str, body: str) -> None:
    form, site = forms
    sent = FIELDS[header] + b"\r\n" + BODIES[body]
    message = site.submit(sent)
    assert site.verifiers.verdicts(message) == SIGNED_BY_US
    for signature in fields_named(message, "DKIM-Signature"):
        assert f"c={form};".encode() in signature
    # The fields went through unchanged, so that it is these octets which were signed.
    expected = [re.sub(rb"\A([^:]*?)[ \t]+:", rb"\1:", field) for field in header_fields(sent)]
    assert [field for field in header_fields(message) if field in expected] == expected
    assert message.partition(b"\r\n\r\n")[2] == BODIES[body]


@pytest.mark.attack("R12", "P28")
def test_a_login_is_signed_and_the_next_hop_says_so_on_top(site: PostfixSite) -> None:
    message = site.submit(zone0.mail("Alice <alice@us.test>"))
    names = [field.partition(b":")[0].decode() for field in header_fields(message)]
    assert names[:5] == ["Authentication-Results", "Received", "DKIM-Signature", "DKIM-Signature", "Received"]
    assert names.count("Authentication-Results") == 1
    results = header_fields(message)[0].replace(b"\r\n\t", b" ").decode()
    assert results.startswith("Authentication-Results: mx.us.test; dkim=pass (2048-bit key) header.d=us.test ")
    assert re.findall(r"dkim=(\w+)[^;]* header\.a=([\w-]+) header\.s=(\w+)", results) == [
        ("pass", "rsa-sha256", "r1"),
        ("pass", "ed25519-sha256", "e1"),
    ]
    # One blank, which with SMFIP_HDR_LEADSPC is our own.
    assert all(re.match(rb"[\w-]+: \S", field) for field in header_fields(message)[:5])
    assert site.verifiers.verdicts(message) == SIGNED_BY_US


@pytest.mark.parametrize(
    ("change", "passing"),
    [
        ((b"Hello,", b"Hello;"), []),
        ((b"Subject: An offer", b"Subject: An Offer"), []),
        ((b"\r\nSubject: ", b"\r\nSubject: other\r\nSubject: "), []),
        ((b"\r\nSubject: ", b"\r\nReply-To: <x@evil.test>\r\nSubject: "), []),
        ((b"\r\nSubject: ", b"\r\nX-Spam: no\r\nSubject: "), ALL_THREE),
        ((b"\r\nSubject: ", b"\r\nSubject:  \t"), ALL_THREE),
    ],
    ids=["body", "subject", "second subject", "added reply-to", "unsigned field", "white space"],
)
def test_the_verifiers_tell_a_changed_message_from_a_delivered_one(
    site: PostfixSite, change: tuple[bytes, bytes], passing: list[str]
) -> None:
    message = site.submit(zone0.mail("<alice@us.test>"))
    assert message.count(change[0]) == 1
    assert site.verifiers.verdicts(message.replace(*change)) == {"r1": passing, "e1": passing}


# --- Who is signed ---------------------------------------------------------------------------------------------


def signed_selectors(message: bytes) -> list[str]:
    return [
        found.decode()
        for value in fields_named(message, "DKIM-Signature")
        for found in re.findall(rb"s=(\w+);", value)
    ]


@pytest.mark.attack("L18")
def test_a_client_on_this_host_without_a_login_is_not_signed(site: PostfixSite) -> None:
    message = site.receive(zone0.mail("<alice@us.test>"), client=None)
    assert b"[127.0.0.1]" in fields_named(message, "Received")[0]
    assert signed_selectors(message) == []
    assert fields_named(message, "Authentication-Results") == [b" mx.us.test;\r\n\tdkim=none"]


@pytest.mark.attack("L12")
@pytest.mark.parametrize(
    ("client", "author", "role", "selectors"),
    [
        (LISTED_CLIENT, "alice@us.test", "sign", ["r1", "e1"]),
        (LISTED_CLIENT, "a@other.test", "verify", []),
        (LISTED_CLIENT, "ceo@bank.test", "verify", []),
        (LISTED_CLIENT, "a@listed.test", "sign", []),
        (STRANGER, "alice@us.test", "verify", []),
    ],
)
def test_a_listed_network_is_signed_for_its_domains_alone(
    site: PostfixSite, client: str, author: str, role: str, selectors: list[str]
) -> None:
    recipient = site.recipient()
    answer = site.send(zone0.mail(f"<{author}>"), client=client, recipient=recipient)
    assert site.record(answer.queue_id)["role"] == role
    message = site.delivered_to(recipient)
    assert signed_selectors(message) == selectors
    assert bool(fields_named(message, "Authentication-Results")) == (role == "verify")


def test_the_name_of_the_service_makes_its_clients_ours() -> None:
    name = {"milter_macro_daemon_name": "ORIGINATING"}
    with open_site(workers=1, inbound=name) as site:
        message = site.receive(zone0.mail("<alice@us.test>"))
        assert site.verifiers.verdicts(message) == SIGNED_BY_US
        # Ours, and not the bank's.
        assert signed_selectors(site.receive(zone0.mail("<ceo@bank.test>"))) == []


@pytest.mark.attack("E15")
def test_what_a_client_says_of_its_own_login_is_not_believed(site: PostfixSite) -> None:
    with site.connect() as client:
        recipient = site.recipient()
        assert client.command(b"MAIL FROM:<a@evil.test> AUTH=<alice@us.test> BODY=8BITMIME").code == 250
        assert client.command(b"RCPT TO:<%b>" % recipient.encode()).code == 250
        assert client.command(b"DATA").code == 354
        client.send(zone0.mail("<alice@us.test>") + b".\r\n")
        assert site.record(client.answer().queue_id)["role"] == "verify"
    assert signed_selectors(site.delivered_to(recipient)) == []


@pytest.mark.parametrize(("login", "logged"), [(b"u+FF+FE", "u??"), (b"a+0D+0Ab", "a??b"), (b"al+C3+BC", "al\u00fc")])
def test_an_odd_login_is_a_login(site: PostfixSite, login: bytes, logged: str) -> None:
    recipient = site.recipient()
    with site.connect(client=None) as client:
        assert client.command(b"XCLIENT ADDR=%b LOGIN=%b" % (STRANGER.encode(), login)).code == 220
        client.ehlo()
        answer = client.transmit(zone0.mail("<alice@us.test>"), sender=ALICE, recipient=recipient)
    record = site.record(answer.queue_id)
    assert (record["role"], record["login"]) == ("sign", logged)
    assert site.verifiers.verdicts(site.delivered_to(recipient)) == SIGNED_BY_US


# --- Authentication-Results in what comes in -------------------------------------------------------------------

FORGED = b"Authentication-Results: mx.us.test; dmarc=pass header.from=bank.test"
FOREIGN = [b"Authentication-Results: mx%d.example.com; spf=pass" % number for number in range(6)]


# What a message from a domain without records has, for MAIL FROM, HELO, signatures and From.
UNSIGNED = [b"spf=none", b"spf=none", b"dkim=none", b"dmarc=none"]


def clauses(results: bytes) -> list[bytes]:
    """How each clause of a field of ours begins; each has a line of its own."""
    return re.findall(rb"\r\n\t(\w+=\w+)", results)


def received_results(site: PostfixSite, fields: Sequence[bytes]) -> list[bytes]:
    """The Authentication-Results fields of the delivered message, without ours on top."""
    message = site.receive(b"".join(field + b"\r\n" for field in fields) + zone0.mail("<x@evil.test>"))
    first, *others = [
        field for field in header_fields(message) if field.lower().startswith(b"authentication-results")
    ]
    assert first.startswith(b"Authentication-Results: mx.us.test;\r\n\t")
    assert clauses(first) == UNSIGNED
    assert header_fields(message)[0] == first
    return others


@pytest.mark.attack("R01", "P27")
@pytest.mark.parametrize("forged", [1, 5])
def test_forged_results_go_and_foreign_ones_stay(site: PostfixSite, forged: int) -> None:
    assert received_results(site, [FORGED] * forged) == []
    mixed = [field for foreign in FOREIGN[:forged] for field in (FORGED, foreign, FORGED)]
    assert received_results(site, mixed) == FOREIGN[:forged]


@pytest.mark.attack("R02", "P27")
def test_the_second_third_and_fifth_of_six_are_forged(site: PostfixSite) -> None:
    forged = {1, 2, 4}
    fields = [FORGED if number in forged else FOREIGN[number] for number in range(6)]
    assert received_results(site, fields) == [FOREIGN[number] for number in (0, 3, 5)]


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"Authentication-Results: MX.US.TEST; spf=pass", id="R03 case"),
        pytest.param(b"Authentication-Results: mx.us.test.; spf=pass", id="R03 dot"),
        pytest.param(b"Authentication-Results: (c)mx.us.test; spf=pass", id="R03 comment"),
        pytest.param(b"Authentication-Results:  mx(c).us.test; spf=pass", id="R03 comment inside"),
        pytest.param(b'Authentication-Results: "mx.us.test"; spf=pass', id="R03 quoted"),
        pytest.param(b"Authentication-Results: mx.us.test 1; spf=pass", id="R03 version"),
        pytest.param(b"Authentication-Results: mx.us.test/1; spf=pass", id="R03 slash version"),
        pytest.param(b"Authentication-Results:\r\n\tmx.us.test\r\n ; spf=pass", id="R03 folded"),
        pytest.param(b"Authentication-Results:mx.us.test; spf=pass", id="R03 no space"),
        pytest.param(b"Authentication-Results: mx.us.test", id="R03 alone"),
        pytest.param(b"Authentication-Results: =?utf-8?q?mx.us.test?=; spf=pass", id="R04 encoded word"),
        pytest.param(b"authentication-RESULTS: mx.us.test; spf=pass", id="R05 case"),
        pytest.param(b"Authentication-Results  : mx.us.test; spf=pass", id="R05 blanks"),
        pytest.param(b"Authentication-Results: (((mx.us.test; spf=pass", id="R06 unparsable"),
    ],
)
@pytest.mark.attack("R")
def test_every_spelling_of_our_name_is_removed(site: PostfixSite, field: bytes) -> None:
    assert received_results(site, [FOREIGN[0], field, FOREIGN[1]]) == FOREIGN[:2]


def test_forged_results_go_from_what_is_signed_too(site: PostfixSite) -> None:
    message = site.submit(FORGED + b"\r\n" + FOREIGN[0] + b"\r\n" + zone0.mail("<alice@us.test>"))
    found = fields_named(message, "Authentication-Results")
    assert len(found) == 2
    assert found[0].startswith(b" mx.us.test;\r\n\tdkim=pass")
    assert found[1] == FOREIGN[0].partition(b":")[2]
    assert site.verifiers.verdicts(message) == SIGNED_BY_US


@pytest.mark.attack("D01")
def test_a_stranger_s_signature_is_reported_for_the_stranger(site: PostfixSite) -> None:
    message = site.receive(zone0.sign_as(zone0.ke(), zone0.mail("<ceo@bank.test>")))
    (results,) = fields_named(message, "Authentication-Results")
    assert b"dkim=pass (256-bit key) header.d=evil.test" in results
    # From alone names the bank.
    assert clauses(results) == [b"spf=none", b"spf=none", b"dkim=pass", b"dmarc=none"]
    assert results.count(b"bank.test") == 2
    assert results.endswith(b'for bank.test"\r\n\theader.from=bank.test')
    broken = zone0.sign_as(zone0.ke(), zone0.mail("<x@evil.test>")).replace(b"world", b"World")
    (results,) = fields_named(site.receive(broken), "Authentication-Results")
    assert b"dkim=fail" in results


# --- Sessions --------------------------------------------------------------------------------------------------


def in_the_middle(client: Client, recipient: str) -> None:
    assert client.command(b"MAIL FROM:<first@evil.test>").code == 250
    assert client.command(b"RCPT TO:<%b>" % recipient.encode()).code == 250


def after_a_message(client: Client, recipient: str) -> None:
    forged = FORGED + b"\r\n" + zone0.sign_as(zone0.ke(), zone0.mail("<x@evil.test>"))
    assert client.transmit(forged, sender="first@evil.test", recipient=recipient).code == 250


def after_a_refused_message(client: Client, recipient: str) -> None:
    malformed = FORGED + b"\r\nFrom: <x@evil.test>\r\n" + zone0.mail("<ceo@bank.test>")
    assert client.transmit(malformed, sender="first@evil.test", recipient=recipient).code == 550


def after_one_that_postfix_drops(client: Client, recipient: str) -> None:
    """Postfix hands the message over while it arrives, and aborts when it becomes too large."""
    too_large = FORGED + b"\r\n" + zone0.mail("<ceo@bank.test>", body=b"0123456789\r\n" * 40_000)
    answer = client.transmit(too_large, sender="first@evil.test", recipient=recipient)
    assert (answer.code, answer.text[:5]) == (552, b"5.3.4")


def after_reset(client: Client, recipient: str) -> None:
    in_the_middle(client, recipient)
    assert client.command(b"RSET").code == 250


def after_ehlo(client: Client, recipient: str) -> None:
    in_the_middle(client, recipient)
    assert client.command(b"EHLO other.test").code == 250


def after_nested_mail(client: Client, recipient: str) -> None:
    assert client.command(b"MAIL FROM:<first@evil.test>").code == 250
    assert client.command(b"MAIL FROM:<second@evil.test>").code == 503
    assert client.command(b"RSET").code == 250


def after_helo_that_is_not_text(client: Client, recipient: str) -> None:
    assert client.command(b"HELO \xff\xfe").code == 500


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(after_a_message, marks=pytest.mark.attack("E18")),
        pytest.param(after_a_refused_message, marks=pytest.mark.attack("E17")),
        pytest.param(after_one_that_postfix_drops, marks=pytest.mark.attack("E17")),
        pytest.param(after_reset, marks=pytest.mark.attack("E18")),
        pytest.param(after_ehlo, marks=pytest.mark.attack("E18")),
        pytest.param(after_nested_mail, marks=pytest.mark.attack("E18")),
        pytest.param(after_helo_that_is_not_text, marks=pytest.mark.attack("E13")),
    ],
)
def test_nothing_carries_over_to_the_next_message(site: PostfixSite, before: object) -> None:
    assert callable(before)
    with site.connect() as client:
        before(client, site.recipient())
        for number in range(2):
            recipient = site.recipient()
            fields = b"".join(field + b"\r\n" for field in (FOREIGN[0], FORGED, FOREIGN[1]))
            signed = zone0.sign_as(zone0.ke(), zone0.mail("<x@evil.test>"), s="s1")
            answer = client.transmit(fields + signed, sender=f"n{number}@evil.test", recipient=recipient)
            record = site.record(answer.queue_id)
            assert (record["mail_from"], record["forged_results_removed"]) == (f"n{number}@evil.test", 1)
            results = fields_named(site.delivered_to(recipient), "Authentication-Results")
            assert len(results) == 3
            assert b"dkim=pass (256-bit key) header.d=evil.test" in results[0]
            assert results[1:] == [field.partition(b":")[2] for field in FOREIGN[:2]]


def test_messages_of_one_session_are_signed_each_for_itself(site: PostfixSite) -> None:
    recipients = [site.recipient() for _ in range(3)]
    with site.connect("submission", client=None, login=True) as client:
        for number, recipient in enumerate(recipients):
            content = zone0.mail("<alice@us.test>", body=b"body %d\r\n" % number * (number + 1))
            assert client.transmit(content, sender=ALICE, recipient=recipient).code == 250
            assert client.command(b"RSET").code == 250
    for recipient in recipients:
        assert site.verifiers.verdicts(site.delivered_to(recipient)) == SIGNED_BY_US


def smuggle(client: Client, end: bytes, *, visible_to: str, smuggled_to: str) -> None:
    """A signed message whose end another server did not take for one, and what comes to light where it is one."""
    assert client.begin(sender="x@evil.test", recipient=visible_to).code == 354
    visible = zone0.sign_as(zone0.ke(), zone0.mail("<x@evil.test>", body=b"Hello\r\n"))
    commands = b"MAIL FROM:<ceo@bank.test>\r\nRCPT TO:<%b>\r\nDATA\r\n" % smuggled_to.encode()
    smuggled = FORGED + b"\r\nFrom: <ceo@bank.test>\r\nSubject: smuggled\r\n\r\nsmuggled\r\n.\r\n"
    client.send(visible.removesuffix(b"\r\n") + end + commands + smuggled)


@pytest.mark.attack("X01", "X02")
@pytest.mark.parametrize(
    ("end", "ends_message"),
    [(b"\n.\r\n", True), (b"\r\n.\n", True), (b"\n.\n", True), (b"\r.\r", False), (b"\r\n.\r", False)],
)
def test_a_smuggled_message_is_judged_for_itself(site: PostfixSite, end: bytes, ends_message: bool) -> None:
    first, second = site.recipient(), site.recipient()
    with site.connect() as client:
        smuggle(client, end, visible_to=first, smuggled_to=second)
        assert site.record(client.answer().queue_id)["mail_from"] == "x@evil.test"
        (results,) = fields_named(site.delivered_to(first), "Authentication-Results")
        if not ends_message:
            # All of it is one body, which the signature does not cover.
            assert b"dkim=fail" in results
            return
        assert b"dkim=pass" in results
        assert [client.answer().code for _ in range(3)] == [250, 250, 354]
        record = site.record(client.answer().queue_id)
        assert (record["mail_from"], record["client"], record["role"]) == ("ceo@bank.test", STRANGER, "verify")
    (results,) = fields_named(site.delivered_to(second), "Authentication-Results")
    assert clauses(results) == UNSIGNED


@pytest.mark.attack("X01", "X02")
@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r\n.\n", b"\n.\n", b"\r.\r", b"\r\n.\r"])
def test_what_is_smuggled_past_a_postfix_of_today_is_one_body(normalizing: PostfixSite, end: bytes) -> None:
    first, second = normalizing.recipient(), normalizing.recipient()
    with normalizing.connect() as client:
        smuggle(client, end, visible_to=first, smuggled_to=second)
        assert normalizing.record(client.answer().queue_id)["mail_from"] == "x@evil.test"
        assert client.command(b"NOOP").code == 250, "nothing else was answered"
    (results,) = fields_named(normalizing.delivered_to(first), "Authentication-Results")
    assert b"dkim=fail" in results
    assert normalizing.is_empty(second)


@pytest.mark.attack("X03")
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_chunks_that_split_lines_change_nothing(site: PostfixSite, size: int) -> None:
    content = FORGED + b"\r\n" + zone0.sign_as(zone0.ke(), zone0.mail("<x@evil.test>"))
    recipient = site.recipient()
    with site.connect() as client:
        client.send(b"MAIL FROM:<x@evil.test>\r\nRCPT TO:<%b>\r\n" % recipient.encode())
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        client.send(b"".join(b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks) + b"BDAT 0 LAST\r\n")
        assert {client.answer().code for _ in range(2 + len(chunks) + 1)} == {250}
    (results,) = fields_named(site.delivered_to(recipient), "Authentication-Results")
    assert b"dkim=pass" in results


@pytest.mark.parametrize("line", [b"one\ntwo", b"one\rtwo", b"\n\none\r\r\n", b"one\r\n\rtwo\n\r"])
def test_bare_line_ends_are_signed_as_they_are_delivered(site: PostfixSite, line: bytes) -> None:
    message = site.submit(zone0.mail("<alice@us.test>", body=b"before\r\n" + line + b"\r\nafter\r\n"))
    assert site.verifiers.mailguard(message)[:2] == [("r1", True), ("e1", True)]
    (results,) = fields_named(message, "Authentication-Results")
    assert results.count(b"dkim=pass") == 2


# --- Keys that fail at run time --------------------------------------------------------------------------------


@pytest.mark.attack("D49", "V10")
def test_a_key_that_fails_stops_the_mail_of_its_domain_alone(site: PostfixSite) -> None:
    def sent(domain: str) -> int:
        with site.connect(client=None) as client:
            client.command(b"XCLIENT ADDR=%b LOGIN=alice" % STRANGER.encode())
            client.ehlo()
            return client.transmit(zone0.mail(f"<a@{domain}>"), sender=ALICE, recipient=site.recipient()).code

    whole = zone0.pem(PATTERN_KEY)
    unreadable = site.daemon.write_key("keys/unreadable.test/p1.pem", whole)
    unreadable.chmod(0)
    site.daemon.write_key("keys/truncated.test/p1.pem", whole[: len(whole) // 2])
    site.daemon.write_key("keys/empty.test/p1.pem", b"")
    site.daemon.write_key("keys/whole.test/p1.pem", whole)
    for _ in range(2):
        for domain in ("unreadable.test", "truncated.test", "empty.test"):
            assert sent(domain) == 451, domain
        for domain in ("whole.test", "us.test", "keyless.test"):
            assert sent(domain) == 250, domain
    # Repaired, it is used without a reload.
    site.daemon.write_key("keys/truncated.test/p1.pem", whole)
    assert sent("truncated.test") == 250
    # Lost, the one in memory is: in the same session, therefore in the same worker.
    with site.connect(client=None) as client:
        client.command(b"XCLIENT ADDR=%b LOGIN=alice" % STRANGER.encode())
        client.ehlo()
        for _ in range(2):
            recipient = site.recipient()
            content = zone0.mail("<a@whole.test>")
            assert client.transmit(content, sender=ALICE, recipient=recipient).code == 250
            assert signed_selectors(site.delivered_to(recipient)) == ["p1"]
            (site.daemon.directory / "keys/whole.test/p1.pem").unlink(missing_ok=True)
