"""PostfixSite: a private Postfix with a mailguard-milter of its own, and an SMTP client that can break the rules.

Zone Z0 of the attack table with our own keys for us.test: r1 (RSA) and e1 (Ed25519). Mail comes in as from a
stranger (XCLIENT ADDR), or from alice with her password; what is delivered is read from the file. `Client` sends
octets as they are given. One object is for one thread, except that a client each may be used by several.
"""

from __future__ import annotations

import itertools
import json
import re
import smtplib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import zone0
from delivered_signatures import Verifiers
from sandbox import PostfixSandbox, Service
from sandbox_daemon import Daemon

__all__ = [
    "ALICE",
    "ALL_THREE",
    "AUTHSERV_ID",
    "DEFAULT_ENGINE",
    "SIGNED_BY_US",
    "STRANGER",
    "Answer",
    "Client",
    "PostfixSite",
    "configuration",
    "fields_named",
    "header_fields",
    "master_file",
    "open_site",
    "text_record",
]

AUTHSERV_ID = "mx.us.test"
ALICE = "alice@us.test"
ALL_THREE = ["mailguard", "dkimpy", "opendkim"]
SIGNED_BY_US = {"r1": ALL_THREE, "e1": ALL_THREE}
"""The verdicts on a message that the daemon signed: by each selector, who finds it good."""
PASSWORD = "correct horse"
STRANGER = "198.51.100.66"
DEFAULT_ENGINE = "libmilter"
DELIVERY_TIMEOUT_S = 120.0
POLL_S = 0.01

OUR_KEYS: Mapping[str, zone0.PrivateKey] = {"r1": zone0.rsa_key(2048, 2), "e1": zone0.ed25519_key(2)}
OTHER_SELECTOR = "o1"
ZONE_FILE = 'zone_file = "zone"'
_QUEUED_AS = re.compile(rb"queued as ([0-9A-Za-z]+)")

US_KEYS = f"""
[domains."{zone0.US}"]
selectors = [{{ name = "r1", key_file = "keys/r1.pem" }}, {{ name = "e1", key_file = "keys/e1.pem" }}]
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Postfix's answer to the end of a message."""

    code: int
    text: bytes

    @property
    def queue_id(self) -> str:
        """The queue id of an accepted message."""
        queued = _QUEUED_AS.search(self.text)
        assert queued is not None, self
        return queued[1].decode("ascii")


class Client(smtplib.SMTP):
    """An SMTP client whose messages are octets: no line end, dot or length is corrected."""

    def command(self, line: bytes) -> Answer:
        """One command, which may have any octets."""
        self.send(line + b"\r\n")
        return self.answer()

    def answer(self) -> Answer:
        return Answer(*self.getreply())

    def begin(self, *, sender: str | bytes, recipient: str) -> Answer:
        """MAIL, RCPT and DATA; the answer of the first that is refused, or of DATA."""
        path = sender if isinstance(sender, bytes) else sender.encode()
        answer = Answer(250, b"")
        for line in (b"MAIL FROM:<%b>" % path, b"RCPT TO:<%b>" % recipient.encode(), b"DATA"):
            answer = self.command(line)
            if answer.code not in (250, 354):
                break
        return answer

    def transmit(self, content: bytes, *, sender: str | bytes, recipient: str) -> Answer:
        """One transaction. A dot at the start of a line that CRLF begins is doubled (RFC 5321 §4.5.2)."""
        answer = self.begin(sender=sender, recipient=recipient)
        if answer.code != 354:
            return answer
        stuffed = re.sub(rb"(\A|\r\n)\.", rb"\1..", content)
        self.send(stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n")
        return self.answer()


@dataclass
class PostfixSite:
    """Both, running. Recipients are new for each message, so that a delivered file is found again."""

    postfix: PostfixSandbox
    daemon: Daemon
    verifiers: Verifiers
    milter: str
    """The listener's address, as smtpd_milters has it."""
    engine: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _seen: int = 0
    _by_recipient: dict[str, bytes] = field(default_factory=dict)

    def recipient(self) -> str:
        """A mailbox that nothing was delivered to yet."""
        return f"case{next(self._numbers)}@us.test"

    def connect(
        self,
        service: Service = "inbound",
        *,
        client: str | None = STRANGER,
        helo: str = "client.test",
        login: bool = False,
    ) -> Client:
        """A connection after EHLO. `client` is whom Postfix takes it for; None: 127.0.0.1, as it is."""
        made = Client("127.0.0.1", self.postfix.ports[service], local_hostname=helo, timeout=120)
        made.ehlo()
        if client is not None:
            assert made.command(b"XCLIENT NAME=client.test ADDR=%b" % client.encode()).code == 220
            made.ehlo()
        if login:
            made.login(ALICE, PASSWORD)
        return made

    def send(
        self,
        content: bytes,
        *,
        sender: str | bytes = "x@evil.test",
        recipient: str | None = None,
        client: str | None = STRANGER,
    ) -> Answer:
        """From a stranger, to the service for mail from outside."""
        with self.connect(client=client) as connection:
            return connection.transmit(content, sender=sender, recipient=recipient or self.recipient())

    def receive(self, content: bytes, *, sender: str | bytes = "x@evil.test", client: str | None = STRANGER) -> bytes:
        """`send`, which must be accepted; the delivered message."""
        recipient = self.recipient()
        answer = self.send(content, sender=sender, recipient=recipient, client=client)
        assert answer.code == 250, answer
        return self.delivered_to(recipient)

    def submit(self, content: bytes, *, sender: str = ALICE) -> bytes:
        """From alice, with her password, to the service for our own users; the delivered message."""
        recipient = self.recipient()
        with self.connect("submission", client=None, login=True) as connection:
            answer = connection.transmit(content, sender=sender, recipient=recipient)
        assert answer.code == 250, answer
        return self.delivered_to(recipient)

    def delivered_to(self, recipient: str) -> bytes:
        """The message in this mailbox, CRLF line ends, without what the delivery itself adds."""
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while recipient not in self._by_recipient:
            assert time.monotonic() < deadline, f"not delivered: {self.postfix.queue()}\n{self.postfix.log_tail()}"
            if self.postfix.delivered_count() != self._seen:
                found = self.postfix.delivered()
                self._seen = len(found)
                self._by_recipient = {each.recipient: each.message for each in found}
            else:
                time.sleep(POLL_S)
        return self._by_recipient[recipient].replace(b"\n", b"\r\n")

    def is_empty(self, recipient: str) -> bool:
        """Whether nothing has been delivered there so far."""
        return all(each.recipient != recipient for each in self.postfix.delivered())

    def records(self) -> list[dict[str, object]]:
        """What the daemon has logged of messages."""
        written = self.daemon.log().splitlines(keepends=True)
        lines = [json.loads(line) for line in written if line.startswith("{") and line.endswith("\n")]
        return [line for line in lines if "action" in line]

    def record(self, queue_id: str) -> dict[str, object]:
        """What the daemon has logged of one message. It is written after the answer."""
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while time.monotonic() < deadline:
            for record in self.records():
                if record.get("queue_id") == queue_id:
                    return record
            time.sleep(POLL_S)
        raise AssertionError(f"no line about {queue_id}:\n{self.daemon.log_tail()}")


@contextmanager
def open_site(
    *,
    mode: str = "enforce",
    sign: str = "",
    domains: str = US_KEYS,
    address: str = "",
    workers: int = 2,
    selectors: Mapping[str, zone0.PrivateKey] = OUR_KEYS,
    others: Mapping[str, zone0.PrivateKey] | None = None,
    main: Mapping[str, str] | None = None,
    inbound: Mapping[str, str] | None = None,
    submission: Mapping[str, str] | None = None,
    dns: str = ZONE_FILE,
    more: str = "",
    engine: str = DEFAULT_ENGINE,
    role: str = "",
) -> Iterator[PostfixSite]:
    """Start both. `sign` is the configuration's table of that name; `selectors` are the keys of us.test.
    `others` are further domains of ours, each with its key, whose selector is o1.

    `address` is the listener's; without one, it is a unix socket; so is `role`, by default that which each message
    has. `dns` is the table of that name, by default a file
    with the keys of zone Z0; `more` are further tables.
    """
    with Daemon() as daemon:
        milter = address or daemon.milter
        records = dict(_key_records(selectors))
        for domain, private in (others or {}).items():
            records[f"{OTHER_SELECTOR}._domainkey.{domain}"] = zone0.key_record(private)
            daemon.write_key(f"keys/{domain}.pem", zone0.pem(private))
            domains += _domain_table(domain)
        (daemon.directory / "zone").write_text(master_file(records), encoding="ascii")
        (daemon.directory / "zone").chmod(0o644)
        for selector, private in selectors.items():
            daemon.write_key(f"keys/{selector}.pem", zone0.pem(private))
        daemon.start(
            configuration(
                milter,
                mode=mode,
                sign=sign,
                domains=domains,
                workers=workers,
                dns=dns,
                more=more,
                engine=engine,
                role=role,
            )
        )
        with PostfixSandbox(
            main={
                "smtpd_milters": milter,
                "milter_default_action": "tempfail",
                # A short queue id is used again after some ten thousand messages.
                "enable_long_queue_ids": "yes",
                **(main or {}),
            },
            # To Postfix, XCLIENT leaves a client local, for whom it adds the fields that are missing.
            inbound={"local_header_rewrite_clients": "", **(inbound or {})},
            # Only the login tells that these are our own users.
            submission={"milter_macro_daemon_name": "submission", **(submission or {})},
            users={ALICE: PASSWORD},
        ) as postfix:
            yield PostfixSite(postfix, daemon, Verifiers(records), milter, engine)


def configuration(
    address: str,
    *,
    mode: str = "enforce",
    sign: str = "",
    domains: str = US_KEYS,
    workers: int = 2,
    dns: str = ZONE_FILE,
    more: str = "",
    engine: str = DEFAULT_ENGINE,
    role: str = "",
) -> str:
    """The daemon's configuration."""
    group = 'group = "postfix"\n' if address.startswith("unix:") else ""
    fixed = f'role = "{role}"\n' if role else ""
    return (
        f'engine = "{engine}"\nmode = "{mode}"\nauthserv_id = "{AUTHSERV_ID}"\n'
        '[log]\ndestination = "stderr"\nformat = "json"\n'
        f"[dns]\n{dns}\n[sign]\n{sign}\n{domains}\n{more}\n"
        f'[[listeners]]\naddress = "{address}"\n{group}{fixed}workers = {workers}\n'
    )


def _domain_table(domain: str) -> str:
    key = f'{{ name = "{OTHER_SELECTOR}", key_file = "keys/{domain}.pem" }}'
    return f'[domains."{domain}"]\nselectors = [{key}]\n'


def _key_records(selectors: Mapping[str, zone0.PrivateKey]) -> Iterator[tuple[str, bytes]]:
    for name, records in zone0.zone().items():
        for record in records.get("TXT", ()):
            if "._domainkey." in name and isinstance(record, bytes):
                yield name, record
    for selector, private in selectors.items():
        yield f"{selector}._domainkey.{zone0.US}", zone0.key_record(private)


def master_file(records: Mapping[str, bytes]) -> str:
    """TXT records as a master file (RFC 1035 §5)."""
    lines = ["$TTL 60"]
    lines += [f"{name}. IN TXT {text_record(record)}" for name, record in records.items()]
    return "\n".join(lines) + "\n"


def text_record(record: bytes) -> str:
    """The data of a TXT record as in a master file, in strings that are short enough (RFC 1035 §3.3)."""
    text = record.decode("ascii")
    return " ".join(f'"{text[at : at + 250]}"' for at in range(0, len(text), 250))


def header_fields(message: bytes) -> list[bytes]:
    """The raw fields, in order, without their final CRLF."""
    return zone0.split_fields(message.partition(b"\r\n\r\n")[0])


def fields_named(message: bytes, name: str) -> list[bytes]:
    """The raw values of the fields of a message with this name, in order."""
    parts = (each.partition(b":") for each in header_fields(message))
    return [value for found, _, value in parts if found.lower() == name.lower().encode()]
