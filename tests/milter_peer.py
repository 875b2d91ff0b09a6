"""Postfix' side of a milter connection, for tests of the session without sockets.

`Peer` sends the events of a message; `delivered` does to the message what Postfix does with the actions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from mailguard.config import Config, Listener
from mailguard.dkim.signing_key import generate_ed25519, generate_rsa
from mailguard.dns.answers import Resolver, evaluate
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.message import Message
from mailguard.sender_sources import open_senders
from mailguard_milter.actions import Accept, DeleteHeader, InsertHeader, Reply
from mailguard_milter.conclusion import Conclusion
from mailguard_milter.keyring import KeyRing
from mailguard_milter.sender_lookups import SenderLookups
from mailguard_milter.service import Service
from mailguard_milter.session import Macros, Session

US = "mx.us.test"
NOW = 1_760_000_000.0
STRANGER = ip_address("198.51.100.66")
Field = tuple[bytes, bytes]
Address = IPv4Address | IPv6Address

ALICE: Macros = {"{auth_type}": b"PLAIN", "{auth_authen}": b"alice", "{mail_addr}": b"alice@us.test"}
NOBODY: Macros = {"{mail_addr}": b"x@evil.test"}


def make_keys(directory: Path) -> Path:
    """Put the key files of us.test (RSA and Ed25519) and of other.test into `directory`."""
    directory.chmod(0o700)
    for name, pem in (("rsa", generate_rsa()), ("ed", generate_ed25519()), ("other", generate_ed25519())):
        write_key(directory / f"{name}.pem", pem)
    return directory


def write_key(path: Path, octets: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(octets)
    path.chmod(0o600)


def configuration(keys: Path, **more: Any) -> Config:
    """us.test with two keys and other.test with one; `more` is merged at the top."""
    domains = {
        "us.test": {
            "selectors": [
                {"name": "r1", "key_file": str(keys / "rsa.pem")},
                {"name": "e1", "key_file": str(keys / "ed.pem")},
            ],
            "subdomains": True,
        },
        "other.test": {"selectors": [{"name": "o1", "key_file": str(keys / "other.pem")}]},
    }
    return Config.model_validate({"authserv_id": US, "domains": domains, **more})


def zone_of(ring: KeyRing, domains: Iterable[str] = ("us.test", "other.test")) -> ZoneResolver:
    found = [key for name in domains for key in ring.keys_for(Domain.parse(name))]
    return ZoneResolver({key.public_name: {"TXT": [key.record()]} for key in found})


class Peer:
    """Postfix' side of one connection."""

    def __init__(self, config: Config, *, role: str = "auto", resolver: Resolver | None = None) -> None:
        self.service = Service.open(config)
        self.session = Session(self.service, Listener.model_validate({"role": role}))
        self.resolver: Resolver = resolver or zone_of(self.service.key_ring)
        if resolver is None and (senders := open_senders(config.senders)) is not None:
            self.resolver = SenderLookups(self.resolver, senders)

    def connect(
        self,
        client: Address | None = STRANGER,
        macros: Macros = {},  # noqa: B006 - not changed
        *,
        helo: bytes = b"client.test",
    ) -> Peer:
        self.session.connect(client, macros)
        self.session.helo(helo)
        return self

    def header(self, fields: Sequence[Field]) -> None:
        self.session.headers(fields)

    def send(
        self,
        fields: Sequence[Field],
        body: bytes = b"Hello\r\n",
        *,
        macros: Macros = NOBODY,
        mail_from: bytes = b"<x@evil.test>",
        chunks: int = 65_535,
        now: float = NOW,
    ) -> Conclusion:
        """One message from MAIL to the end."""
        self.session.mail(mail_from, macros)
        asked = [*self.session.rcpt()]
        self.header(fields)
        asked += self.session.end_of_header()
        for at in range(0, len(body), chunks):
            self.session.body(body[at : at + chunks])
        self.resolver.prefetch(asked)
        deadline = time.monotonic() + 5
        return evaluate(
            lambda answers: self.session.end_of_message(answers, now=now), self.resolver, deadline=deadline
        )


def delivered(fields: Sequence[Field], body: bytes, conclusion: Conclusion) -> bytes:
    """The message as Postfix delivers it after the actions, which end with Accept."""
    header = [(name.rstrip(b" \t"), value) for name, value in fields]  # Postfix does so before a milter sees them
    *changes, end = conclusion.actions
    assert end == Accept()
    for action in changes:
        if isinstance(action, DeleteHeader):
            places = [at for at, field in enumerate(header) if field[0].lower() == action.name.lower()]
            del header[places[action.index - 1]]
        else:
            assert isinstance(action, InsertHeader)
            header.insert(0, (action.name, action.value))
    text = b"".join(name + b":" + value + b"\n" for name, value in header)
    return text.replace(b"\n", b"\r\n") + b"\r\n" + body


def field_values(raw: bytes, name: bytes) -> list[bytes]:
    return [field.value for field in Message.parse(raw).named(name.lower())]


def reply(conclusion: Conclusion) -> Reply:
    (only,) = conclusion.actions
    assert isinstance(only, Reply)
    return only


def message(sender: bytes = b"alice@us.test") -> list[Field]:
    return [(b"From", b" <" + sender + b">"), (b"To", b" <bob@us.test>"), (b"Subject", b" Hello")]


def signed_by_us(
    keys: Path, sender: bytes = b"alice@us.test", body: bytes = b"Hello\r\n"
) -> tuple[list[Field], bytes]:
    """A message that carries our two signatures, as another host would receive it."""
    fields = message(sender)
    conclusion = Peer(configuration(keys)).connect().send(fields, body, macros=ALICE)
    raw = delivered(fields, body, conclusion)
    parsed = Message.parse(raw)
    return [(field.name, field.value.replace(b"\r\n", b"\n")) for field in parsed.fields], body
