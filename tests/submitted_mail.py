"""Mail of our own users for tests of submission.py: who may use what, and a message that somebody sends."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from mailguard_milter.actions import InsertHeader
from mailguard_milter.conclusion import Conclusion
from mailguard_milter.session import Macros
from milter_peer import STRANGER, Field, Peer, configuration, make_keys

__all__ = ["ALICE", "IN_NETWORK", "LOGINS", "LOOPBACK", "is_signed", "keys", "login", "peer", "submitted"]

LOGINS = {
    "alice@us.test": ["sales@us.test", "@shop.us.test"],
    "bob@us.test": [],
    "u\u00fc@us.test": ["\u00fc@us.test"],
}
NETWORKS = [
    {"networks": ["192.0.2.0/28", "127.0.0.0/8"], "domains": ["us.test"]},
    {"networks": ["192.0.2.9/32"], "domains": ["us.test", "other.test"]},
]
ALICE = b"alice@us.test"
IN_NETWORK = ip_address("192.0.2.9")
LOOPBACK = ip_address("127.0.0.1")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


def login(name: bytes | None, kind: bytes = b"PLAIN") -> Macros:
    return {"{auth_type}": kind, "{auth_authen}": name, "{mail_addr}": b"-"}


def peer(keys: Path, *, mode: str = "enforce", senders: dict[str, Any] | None = None, **more: Any) -> Peer:
    section = {
        "sources": ["inline"],
        "recipient_delimiter": "+",
        "inline": {"logins": LOGINS},
        **(senders or {}),
    }
    return Peer(configuration(keys, mode=mode, senders=section, sign={"networks": NETWORKS}, **more))


def submitted(
    found: Peer,
    *,
    envelope: bytes = ALICE,
    sender: bytes = ALICE,
    more: Sequence[Field] = (),
    who: bytes | None = ALICE,
    client: IPv4Address | IPv6Address = STRANGER,
) -> Conclusion:
    """A message that somebody with a login sends; `who` None: without one."""
    macros: Macros = {"{mail_addr}": envelope} if who is None else {**login(who), "{mail_addr}": envelope}
    fields = [(b"From", b" " + sender), (b"To", b" <bob@us.test>"), *more]
    return found.connect(client).send(fields, macros=macros, mail_from=b"<" + envelope + b">")


def is_signed(conclusion: Conclusion) -> bool:
    return any(isinstance(each, InsertHeader) and each.name == b"DKIM-Signature" for each in conclusion.actions)
