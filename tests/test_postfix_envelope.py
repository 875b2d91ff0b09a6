"""Identities of the SMTP session as the real Postfix hands them over: which domain SPF checks, and what is said.

Section E of the attack table. RFC 5321 §4.1.2 (paths), RFC 7208 §2.3 and RFC 7208 §2.4 (HELO and MAIL FROM),
RFC 8601 §2.2. Messages from a stranger imitate bank.test, whose policy is p=reject; the daemon monitors, so that the
header shows what was found. Mail of this host itself, which nobody judges, is here too.
"""

from __future__ import annotations

import datetime
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import authres
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import zone0
from judging_site import Fate, JudgingSite, Sending, open_judging_site, unfolded
from judging_zones import CLIENTS
from postfix_site import STRANGER, Client, fields_named
from unbound_site import UNBOUND

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")]

IMITATION = zone0.mail("<ceo@bank.test>")


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[JudgingSite]:
    certificate = _certificate(tmp_path_factory.mktemp("tls"))
    options = {
        "non_smtpd_milters": "$smtpd_milters",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": str(certificate),
    }
    with open_judging_site(mode="monitor", main=options, engine=engine) as made:
        yield made


def _certificate(directory: Path) -> Path:
    """A certificate of mx.us.test by itself, with its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.us.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(private, SHA256())
    )
    path = directory / "chain.pem"
    path.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    return path


def spf_results(fate: Fate) -> list[tuple[str, str, str]]:
    """Result, property and value of each spf clause, as an independent parser reads them."""
    parsed = authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {fate.results}")
    return [
        (result.result, f"{each.type}.{each.name}", each.value)
        for result in parsed.results
        if result.method == "spf"
        for each in result.properties
    ]


# --- MAIL FROM -------------------------------------------------------------------------------------------------

ATTACKER = ("pass", "smtp.mailfrom", "evil.test")
PATHS = [
    # The attacker's reverse path, the HELO name, and the result of SPF for the sender.
    pytest.param(b"(any@bank.test", "evil.test", ("pass", "smtp.helo", "evil.test"), id="E02 read as null"),
    pytest.param(
        b"any@bank.test(a.evil.test",
        "evil.test",
        ("permerror", "smtp.mailfrom", "bank.test?a.evil.test"),
        id="E03 read without the comment",
    ),
    pytest.param(
        b"any@bank.test'@any.evil.test",
        "evil.test",
        ("pass", "smtp.mailfrom", "any.evil.test"),
        id="E04 an apostrophe",
    ),
    pytest.param(b"@bank.test,@any.test:'any@evil.test", "evil.test", ATTACKER, id="E05 a route"),
    pytest.param(b'"x@bank.test"@evil.test', "evil.test", ATTACKER, id="E06 a quoted local part"),
    pytest.param(b"a%bank.test@evil.test", "evil.test", ATTACKER, id="E07 percent"),
    pytest.param(b"bank.test!a@evil.test", "evil.test", ATTACKER, id="E07 bang"),
    pytest.param("ö@evil.test".encode(), "evil.test", ATTACKER, id="E08 8 bits"),
    pytest.param(b"", "evil.test", ("pass", "smtp.helo", "evil.test"), id="E11 null"),
    pytest.param(b"", "bank.test", ("fail", "smtp.helo", "bank.test"), id="E11 null, HELO bank.test"),
]


@pytest.mark.attack("E")
@pytest.mark.parametrize(("path", "helo", "spf"), PATHS)
def test_a_strange_reverse_path_is_no_pass_for_the_bank(
    monitoring: JudgingSite, path: bytes, helo: str, spf: tuple[str, str, str]
) -> None:
    fate = monitoring.fate(Sending(IMITATION, path, STRANGER, helo))
    # The HELO name has a clause of its own, where it is not what SPF checked for the sender.
    of_helo = [("pass", "smtp.helo", helo)] if spf[1] == "smtp.mailfrom" else []
    assert spf_results(fate) == [spf, *of_helo], fate
    # RFC 8601 §2.2: outside quotes, an address is neither a comment nor the end of a clause.
    assert re.search(r"smtp\.mailfrom=[^\";]*[(]", fate.results) is None, fate
    assert (fate.record["dmarc"], fate.record["would"]) == ("fail", "reject"), fate


@pytest.mark.attack("E15")
def test_a_parameter_of_mail_lends_nothing(monitoring: JudgingSite) -> None:
    recipient = monitoring.mail.recipient()
    with monitoring.mail.connect() as client:
        parameters = b"SIZE=1000 BODY=8BITMIME AUTH=<ceo@bank.test>"
        assert client.command(b"MAIL FROM:<a@evil.test> " + parameters).code == 250
        assert client.command(b"RCPT TO:<%b>" % recipient.encode()).code == 250
        assert client.command(b"DATA").code == 354
        client.send(IMITATION + b".\r\n")
        record = monitoring.mail.record(client.answer().queue_id)
        assert client.command(b"MAIL FROM:<a@evil.test> X=Y=Z").code == 555
    assert (record["mail_from"], record.get("login"), record["role"]) == ("a@evil.test", None, "verify")
    assert (record["dmarc"], record["would"]) == ("fail", "reject")


# --- Sessions --------------------------------------------------------------------------------------------------

# The bank's own host: what the bank sends from there passes.
BANK_HOST = CLIENTS["bank.test"]


def reset(client: Client) -> None:
    assert client.command(b"RSET").code == 250


def nested_mail(client: Client) -> None:
    assert client.command(b"MAIL FROM:<x@bank.test>").code == 503
    reset(client)


def another_helo(client: Client) -> None:
    assert client.command(b"EHLO other.test").code == 250


@pytest.mark.attack("E18")
@pytest.mark.parametrize(
    ("between", "helo"), [(reset, "bank.test"), (nested_mail, "bank.test"), (another_helo, "other.test")]
)
def test_no_identity_carries_over(monitoring: JudgingSite, between: object, helo: str) -> None:
    """A transaction of the bank's that was dropped says nothing about the next one, which is of another domain."""
    assert callable(between)
    recipient = monitoring.mail.recipient()
    with monitoring.mail.connect(client=BANK_HOST, helo="bank.test") as client:
        assert client.command(b"MAIL FROM:<n@bank.test>").code == 250
        assert client.command(b"RCPT TO:<%b>" % recipient.encode()).code == 250
        between(client)
        answer = client.transmit(IMITATION, sender="x@other.test", recipient=recipient)
        record = monitoring.mail.record(answer.queue_id)
        assert (record["helo"], record["mail_from"]) == (helo, "x@other.test")
        assert str(record["spf"]).startswith("fail d=other.test"), record
        assert (record["dmarc"], record["would"]) == ("fail", "reject"), record
        # And the refusal says nothing about the one after it.
        answer = client.transmit(IMITATION, sender="n@bank.test", recipient=recipient)
        record = monitoring.mail.record(answer.queue_id)
        assert str(record["spf"]).startswith("pass d=bank.test"), record
        assert (record["dmarc"], record.get("would")) == ("pass", None), record


@pytest.mark.attack("E18")
def test_pipelined_transactions_are_judged_each_for_itself(monitoring: JudgingSite) -> None:
    senders = ["n@bank.test", "x@other.test", "", "n2@bank.test"]
    recipients = [monitoring.mail.recipient() for _ in senders]
    begins = [
        f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
        for sender, recipient in zip(senders, recipients, strict=True)
    ]
    answers = []
    with monitoring.mail.connect(client=BANK_HOST, helo="other.test") as client:
        client.send(begins[0])
        for following in [*begins[1:], b""]:
            assert [client.answer().code for _ in range(3)] == [250, 250, 354]
            # RFC 2920 §3.1: what follows the message may be sent with it.
            client.send(IMITATION + b".\r\nRSET\r\n" + following)
            answers.append(client.answer())
            assert client.answer().code == 250
    records = [monitoring.mail.record(answer.queue_id) for answer in answers]
    assert [str(record["spf"]).partition(" (")[0] for record in records] == [
        "pass d=bank.test",
        "fail d=other.test",
        "fail d=other.test",
        "pass d=bank.test",
    ]
    assert [record["dmarc"] for record in records] == ["pass", "fail", "fail", "pass"]


@pytest.mark.attack("E19")
def test_what_was_said_before_starttls_is_forgotten(monitoring: JudgingSite) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with monitoring.mail.connect(client=BANK_HOST, helo="bank.test") as client:
        assert client.starttls(context=context)[0] == 220
        # RFC 3207 §4.2: the client says EHLO anew, and here another name.
        assert client.command(b"MAIL FROM:<n@bank.test>").code in (250, 503)
        assert client.command(b"EHLO other.test").code == 250
        answer = client.transmit(IMITATION, sender="", recipient=monitoring.mail.recipient())
        record = monitoring.mail.record(answer.queue_id)
    assert (record["helo"], record["mail_from"]) == ("other.test", "")
    assert str(record["spf"]).startswith("fail d=other.test"), record
    assert record["dmarc"] == "fail"


@pytest.mark.parametrize(("again", "helo"), [(b"", ""), (b"EHLO bank.test", "bank.test")])
def test_a_helo_name_from_xclient_is_not_told(monitoring: JudgingSite, again: bytes, helo: str) -> None:
    """What docs/postfix.md says of proxies."""
    with monitoring.mail.connect(client=None, helo="proxy.test") as client:
        assert client.command(b"XCLIENT ADDR=%b HELO=bank.test" % BANK_HOST.encode()).code == 220
        if again:
            assert client.command(again).code == 250
        answer = client.transmit(IMITATION, sender="", recipient=monitoring.mail.recipient())
        record = monitoring.mail.record(answer.queue_id)
    assert (record["client"], record["helo"], record["dmarc"]) == (BANK_HOST, helo, "pass" if helo else "fail")


# --- Mail of this host itself ----------------------------------------------------------------------------------


def assert_not_judged(record: Mapping[str, object]) -> None:
    assert (record["action"], record["rule"], record.get("would")) == ("accept", "internal-client", None), record
    assert (record.get("spf"), record.get("dmarc")) == (None, None), record


@pytest.mark.attack("E20")
def test_a_client_on_this_host_is_not_judged(monitoring: JudgingSite) -> None:
    fate = monitoring.fate(Sending(IMITATION, "ceo@bank.test", client=None))
    assert_not_judged(fate.record)
    assert (fate.clause("spf"), fate.clause("dmarc")) == ("", ""), fate


@pytest.mark.attack("E20")
def test_mail_that_was_not_sent_by_smtp_is_not_judged(monitoring: JudgingSite) -> None:
    recipient = monitoring.mail.recipient()
    known = len(monitoring.mail.records())
    content = IMITATION.replace(b"\r\n", b"\n")
    monitoring.mail.postfix.command("sendmail", "-f", "ceo@bank.test", recipient, content=content)
    message = monitoring.mail.delivered_to(recipient)
    (record,) = monitoring.records_after(known, 1)
    assert_not_judged(record)
    assert "dmarc" not in unfolded(fields_named(message, "Authentication-Results")[0])


@pytest.fixture(scope="module")
def enforcing(engine: str) -> Iterator[JudgingSite]:
    options = {
        "non_smtpd_milters": "$smtpd_milters",
        "internal_mail_filter_classes": "bounce",
        "transport_maps": "inline:{ {nobody@us.test = error:5.1.1 nobody has this address} }",
        "smtpd_reject_unlisted_recipient": "no",
    }
    with open_judging_site(main=options, engine=engine) as made:
        yield made


@pytest.mark.attack("E20")
def test_malformed_mail_of_this_host_is_accepted(enforcing: JudgingSite) -> None:
    """Nobody could be told: it would be lost."""
    fate = enforcing.fate(Sending(b"From: <x@evil.test>\r\n" + IMITATION, "ceo@bank.test", client=None))
    assert_not_judged(fate.record)


@pytest.mark.attack("E20")
def test_mail_that_a_program_gives_back_loses_its_results(enforcing: JudgingSite) -> None:
    """What docs/postfix.md says of content filters: sendmail(1) tells nobody where the message came from."""
    fate = enforcing.fate(Sending(zone0.mail("<x@evil.test>"), "x@evil.test"))
    assert fate.clause("spf") == "spf=pass smtp.mailfrom=evil.test", fate
    known, recipient = len(enforcing.mail.records()), enforcing.mail.recipient()
    content = fate.message.replace(b"\r\n", b"\n")
    enforcing.mail.postfix.command("sendmail", "-G", "-i", "-f", "x@evil.test", recipient, content=content)
    message = enforcing.mail.delivered_to(recipient)
    (record,) = enforcing.records_after(known, 1)
    assert record["forged_results_removed"] == 1
    results = [unfolded(each) for each in fields_named(message, "Authentication-Results")]
    assert results == ["mx.us.test; dkim=none"]


@pytest.mark.attack("L17")
def test_a_bounce_is_not_judged(enforcing: JudgingSite) -> None:
    known, count = len(enforcing.mail.records()), enforcing.mail.postfix.delivered_count()
    answer = enforcing.mail.send(zone0.mail("<n@evil.test>"), sender="n@evil.test", recipient="nobody@us.test")
    assert answer.code == 250
    bounce = enforcing.mail.postfix.wait_delivered(count + 1)[-1]
    assert (bounce.sender, bounce.recipient) == ("", "n@evil.test")
    # Two workers may write them, in either order.
    (internal,) = (record for record in enforcing.records_after(known, 2) if record["queue_id"] != answer.queue_id)
    assert_not_judged(internal)


@pytest.mark.attack("E20")
def test_mail_that_is_queued_again_is_not_judged_again(enforcing: JudgingSite) -> None:
    """postsuper -r, also for what is in quarantine: Postfix asks no milter, and our results stay."""
    fate = enforcing.fate(Sending(zone0.mail("<ceo@quarantine.test>")))
    assert fate.place == "held", fate
    known, count = len(enforcing.mail.records()), enforcing.mail.postfix.delivered_count()
    enforcing.mail.postfix.command("postsuper", "-r", fate.answer.queue_id)
    enforcing.mail.postfix.flush()
    delivered = enforcing.mail.postfix.wait_delivered(count + 1)[-1]
    message = delivered.message.replace(b"\n", b"\r\n")
    results = [unfolded(each) for each in fields_named(message, "Authentication-Results")]
    assert results == [fate.results]
    assert len(enforcing.mail.records()) == known
