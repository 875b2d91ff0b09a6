"""DANE and MTA-STS from end to end: real Postfix on both sides, unbound, HTTPS, and our server between them.

What is sent to whom, with what TLS, and what stays in the queue and why. The receivers' own logs show that nothing
comes in the clear that was to be protected.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli_process import Command
from dane_site import PolicyServer, Receiver, Receivers, Sender, wait_for
from live_certificates import authority, server, write_chain
from policy_site import Connection, PolicySite, reply
from sandbox import Delivery
from sandbox_place import SYSTEM_PATH, make_public_directory
from starttls_site import loopback
from unbound_site import UNBOUND, Unbound

pytestmark = [
    pytest.mark.postfix,
    pytest.mark.skipif(
        UNBOUND is None or os.geteuid() != 0 or shutil.which("postfix", path=SYSTEM_PATH) is None,
        reason="needs unbound, postfix and root",
    ),
]

NETWORK = 82
# Postfix before 3.10 says of some that they are not trusted.
UNVERIFIED = r"Server certificate not (verified|trusted)"
NO_TLS = r"TLS is required, but was not offered by host"
POLICY = "version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 604800\n"


@dataclass
class Site:
    """All of it, running."""

    receivers: Receivers
    sender: Sender
    server: PolicyServer
    unbound: Unbound
    https: PolicySite
    delivered: dict[str, Delivery]

    def delivery(self, recipient: str) -> Delivery:
        def found() -> bool:
            self.delivered = {each.recipient: each for each in self.receivers.delivered()}
            return recipient in self.delivered

        wait_for(found, lambda: f"{self.sender.log_tail()}\n{self.receivers.log_tail()}")
        return self.delivered[recipient]


# A destination: the host that its MX record names, what must become of the mail, and the words of Postfix.
DELIVERED = (
    ("good.signed.test", "good", "Verified TLS connection"),
    # RFC 7672 §3.1.1: with DANE-EE neither date nor name count.
    ("expired.signed.test", "expired", "Verified TLS connection"),
    ("misnamed.signed.test", "misnamed", "Verified TLS connection"),
    # Both records are there, the old one and that of the new key.
    ("rolledover.signed.test", "rolledover", "Verified TLS connection"),
    ("anchored.signed.test", "anchored", "Verified TLS connection"),
    # The best preference has TLSA records, the other host has none.
    # RFC 7672 §2.2: what nobody can use demands TLS alone.
    ("malformed.signed.test", "malformed", "TLS connection"),
    ("mixed.signed.test", "good", "Verified TLS connection"),
    ("sts.plain.test", "sts", "Verified TLS connection"),
    # Nothing is published, so that nothing is demanded.
    ("nothing.plain.test", "sts", "TLS connection"),
    # Exempt from the override of their parent, which Postfix asks for next.
    ("default.over.plain.test", "sts", "TLS connection"),
    ("discover.over.plain.test", "sts", "TLS connection"),
    ("words.over.plain.test", "sts", "TLS connection"),
)
DEFERRED = (
    # Somebody answers in place of the host, with a certificate of his own.
    ("wrong.signed.test", "wrong", UNVERIFIED),
    # The key has changed and the record has not: `mailguard dane rollover` would have said so.
    ("forgotten.signed.test", "forgotten", UNVERIFIED),
    ("anchoredexpired.signed.test", "anchoredexpired", UNVERIFIED),
    ("anchoredmisnamed.signed.test", "anchoredmisnamed", UNVERIFIED),
    # Somebody in between has taken STARTTLS out.
    ("stripped.signed.test", "stripped", NO_TLS),
    ("strippedsts.plain.test", "stripped", NO_TLS),
    # The MX record is forged; the host has a certificate that is valid, for itself.
    ("forged.plain.test", "evil", UNVERIFIED),
    ("selfsigned.plain.test", "wrong", UNVERIFIED),
    ("secure.over.plain.test", "wrong", UNVERIFIED),
)
OVERRIDES = """
[tlspolicy.overrides]
".over.plain.test" = "secure"
"default.over.plain.test" = "default"
"discover.over.plain.test" = "discover"
"words.over.plain.test" = "encrypt ciphers=HIGH protocols=!SSLv2:>=TLSv1.1:<=0x0304 connection_reuse=No"
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    directory = make_public_directory("mailguard-dane-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        yield _open(directory, stack)


def _open(directory: Path, stack: ExitStack) -> Site:
    root = authority("Root")
    middle = authority("Middle", root)
    leaves = {
        "good": server("mx.good.signed.test"),
        "expired": server("mx.expired.signed.test", days=(-30, -3)),
        "misnamed": server("somebody.else.test"),
        "rolledover": server("mx.rolledover.signed.test"),
        "anchored": server("mx.anchored.signed.test", issuer=middle),
        "malformed": server("mx.malformed.signed.test"),
        "wrong": server("mx.wrong.signed.test"),
        "forgotten": server("mx.forgotten.signed.test"),
        "anchoredexpired": server("mx.anchoredexpired.signed.test", issuer=middle, days=(-30, -3)),
        "anchoredmisnamed": server("mx.somebody.else.test", issuer=middle),
        "sts": server("mx.sts.plain.test", issuer=root),
        "evil": server("mx.evil.plain.test", issuer=root),
    }
    receivers = [
        Receiver(name, loopback(NETWORK, number), write_chain(directory / f"{name}.pem", leaf))
        for number, (name, leaf) in enumerate(leaves.items(), 10)
    ]
    receivers.append(Receiver("stripped", loopback(NETWORK, 9), None))
    old = server("mx.rolledover.signed.test")
    tlsa = {
        "good": [leaves["good"].tlsa()],
        "expired": [leaves["expired"].tlsa()],
        "misnamed": [leaves["misnamed"].tlsa()],
        "rolledover": [old.tlsa(), leaves["rolledover"].tlsa()],
        "anchored": [middle.tlsa(2)],
        "malformed": ["3 1 0 deadbeef", "3 0 0 deadbeef"],
        "wrong": [old.tlsa()],
        "forgotten": [old.tlsa()],
        "anchoredexpired": [middle.tlsa(2)],
        "anchoredmisnamed": [middle.tlsa(2)],
        "stripped": [leaves["good"].tlsa()],
    }
    addresses = {each.name: each.address for each in receivers}
    signed = "".join(
        f"{name} IN MX 10 mx.{name}\nmx.{name} IN A {addresses[name]}\n"
        + "".join(f"_25._tcp.mx.{name} IN TLSA {record}\n" for record in records)
        for name, records in tlsa.items()
    )
    signed += f"mixed IN MX 10 mx.good\nmixed IN MX 20 mx.bare\nmx.bare IN A {addresses['sts']}\n"
    policies = {
        "sts.plain.test": "mx.sts.plain.test",
        "forged.plain.test": "mx.forged.plain.test",
        "strippedsts.plain.test": "mx.strippedsts.plain.test",
        "selfsigned.plain.test": "mx.selfsigned.plain.test",
    }
    https_chain = write_chain(directory / "https.pem", server(*(f"mta-sts.{name}" for name in policies), issuer=root))
    https = stack.enter_context(
        PolicySite(str(https_chain), lambda connection: _serve(connection, policies), address=loopback(NETWORK, 8))
    )
    plain = "".join(f"mta-sts.{name}. IN A {https.address}\n" for name in policies)
    for name, (mx, host) in {
        "sts": ("mx.sts", "sts"),
        "forged": ("mx.evil", "evil"),
        "strippedsts": ("mx.strippedsts", "stripped"),
        "selfsigned": ("mx.selfsigned", "wrong"),
        "nothing": ("mx.nothing", "sts"),
        "default.over": ("mx.default.over", "sts"),
        "discover.over": ("mx.discover.over", "sts"),
        "words.over": ("mx.words.over", "sts"),
        "secure.over": ("mx.secure.over", "wrong"),
    }.items():
        plain += f"{name} IN MX 10 {mx}\n{mx} IN A {addresses[host]}\n"
    nameserver = loopback(NETWORK, 7)
    zones = {"signed.test.": signed, "plain.test.": plain}
    # Zones of their own, so that they can fail alone.
    zones |= {f"_mta-sts.{name}.": '@ IN TXT "v=STSv1; id=1;"\n' for name in policies}
    unbound = stack.enter_context(Unbound(zones, signed={"signed.test."}, options=[f"interface: {nameserver}@53"]))
    (directory / "ca.pem").write_bytes(root.pem)
    settings = f'dnssec_probe = "signed.test"\nca_file = "{directory}/ca.pem"\nhttps_port = {https.port}\n'
    policy_server = stack.enter_context(
        PolicyServer(dns_port=unbound.port, tlspolicy=f'{settings}allowed_networks = ["127.0.0.0/8"]\n{OVERRIDES}')
    )
    taking = stack.enter_context(Receivers(receivers))
    sending = stack.enter_context(
        Sender(nameserver=nameserver, policy_port=policy_server.port, ca_file=directory / "ca.pem")
    )
    made = Site(taking, sending, policy_server, unbound, https, {})
    for domain, _, _ in (*DELIVERED, *DEFERRED):
        sending.send(f"someone@{domain}")
    return made


def _serve(connection: Connection, policies: dict[str, str]) -> None:
    named = re.search(rb"Host: mta-sts\.(\S+?)\r\n", connection.request)
    assert named is not None
    reply(POLICY.format(mx=policies[named[1].decode()]).encode())(connection)


@pytest.mark.parametrize(("domain", "host", "words"), DELIVERED, ids=[row[0] for row in DELIVERED])
def test_mail_is_delivered_with_tls(site: Site, domain: str, host: str, words: str) -> None:
    recipient = f"someone@{domain}"
    outcome = site.sender.outcome(recipient)
    assert "status=sent" in outcome, f"{outcome}\n{site.sender.log_tail()}"
    message = site.delivery(recipient).message
    assert b"(using TLSv1." in message.partition(b"\n\n")[0]
    address = outcome.partition("[")[2].partition("]")[0]
    assert re.search(rf"{words} established to \S+\[{re.escape(address)}\]", site.sender.log())
    # Its line is written when the sender has gone, which is after the mail has come.
    wait_for(
        lambda: any("starttls=1" in commands and "mail=1" in commands for commands in site.receivers.commands(host)),
        lambda: "\n".join(site.receivers.lines(host)),
    )


@pytest.mark.parametrize(("domain", "host", "reason"), DEFERRED, ids=[row[0] for row in DEFERRED])
def test_mail_stays_in_the_queue_and_the_log_says_why(site: Site, domain: str, host: str, reason: str) -> None:
    recipient = f"someone@{domain}"
    outcome = site.sender.outcome(recipient)
    assert "status=deferred" in outcome
    assert re.search(reason, outcome)
    assert "dsn=4.7." in outcome
    # What the receiver saw: a connection, and no word of mail.
    wait_for(lambda: site.receivers.commands(host), lambda: "\n".join(site.receivers.lines(host)))
    assert not any("mail=" in commands for commands in site.receivers.commands(host))


def test_nothing_came_in_the_clear(site: Site) -> None:
    for domain, _, _ in (*DELIVERED, *DEFERRED):
        site.sender.outcome(f"someone@{domain}")
    for domain, _, _ in DELIVERED:
        site.delivery(f"someone@{domain}")
    expected = {f"someone@{domain}" for domain, _, _ in DELIVERED}
    assert set(site.delivered) == expected
    for delivery in site.delivered.values():
        assert b"(using TLSv1." in delivery.message.partition(b"\n\n")[0]
    commands = [
        line.partition("disconnect from ")[2] for line in site.receivers.log().splitlines() if "disconnect" in line
    ]
    assert any("mail=" in line for line in commands)
    assert all("starttls=1" in line for line in commands if "mail=" in line)


@pytest.mark.parametrize(
    ("domain", "code", "reason"),
    [
        ("good.signed.test", 0, "pass (matched)"),
        ("expired.signed.test", 0, "pass (matched)"),
        ("misnamed.signed.test", 0, "pass (matched)"),
        ("rolledover.signed.test", 0, "pass (matched)"),
        ("anchored.signed.test", 0, "pass (matched)"),
        ("malformed.signed.test", 1, "encrypt-unauthenticated (unusable-records)"),
        ("mixed.signed.test", 1, "opportunistic (no-records)"),
        ("wrong.signed.test", 1, "fail (no-match)"),
        ("forgotten.signed.test", 1, "fail (no-match)"),
        ("anchoredexpired.signed.test", 1, "fail (chain)"),
        ("anchoredmisnamed.signed.test", 1, "fail (name)"),
        ("stripped.signed.test", 1, "fail (no-starttls)"),
        ("sts.plain.test", 0, "pass (valid)"),
        ("forged.plain.test", 1, "the policy does not name it"),
        ("strippedsts.plain.test", 1, "fail (no-starttls)"),
        ("selfsigned.plain.test", 1, "fail (authority)"),
    ],
)
def test_the_commands_say_the_same_of_it(
    mailguard_command: Command, site: Site, domain: str, code: int, reason: str
) -> None:
    verb = "dane" if domain.endswith(".signed.test") else "mta-sts"
    done = mailguard_command(verb, "check", domain, "-c", site.server.config)
    assert done.code == code, done.out + done.err
    assert reason in done.out


def test_without_the_policy_server_mail_waits(site: Site) -> None:
    recipients = ["later@good.signed.test", "later@sts.plain.test"]
    site.server.stop()
    try:
        for recipient in recipients:
            site.sender.send(recipient)
            outcome = site.sender.outcome(recipient)
            assert "status=deferred" in outcome
            assert "dsn=4.7." in outcome
    finally:
        site.server.start()
    site.sender.flush()
    for recipient in recipients:
        assert b"(using TLSv1." in site.delivery(recipient).message.partition(b"\n\n")[0]
