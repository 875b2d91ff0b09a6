"""The messages of a run and the DNS records that they need, made from fixed numbers: every daemon gets the same.

A message has the size that is asked for, its header included. Up to `TEXT_OCTETS` its body is plain text, in lines
as people write them; what is larger is 8 KB of text and an attachment in base64. Domains are d0000.example and so on;
each publishes SPF, both DKIM keys and a DMARC policy of reject, and every message passes all three.

What is signed beforehand is signed by mailguard; that the signatures are right is shown by all the compared daemons,
which have to find them good. Values are frozen; safe to share between threads.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench_keys import BenchKeys, txt
from mailguard import Message, sign_dkim

__all__ = [
    "AUTHSERV_ID",
    "CLIENT",
    "ORIGINATING",
    "OUR_DOMAIN",
    "Sample",
    "domain_name",
    "incoming",
    "outgoing",
    "records_of",
    "zone_text",
]

AUTHSERV_ID = "mx.us.example"
OUR_DOMAIN = "us.example"
"""Whose mail is signed."""
ORIGINATING = "ORIGINATING"
"""The {daemon_name} of the service for our own users."""
CLIENT = "192.0.2.10"
"""Where all mail comes from; RFC 5737 keeps it for documentation."""
TEXT_OCTETS = 16_384
SMALL_TEXT_OCTETS = 8_192
LINE_CHARS = 72
BASE64_LINE_OCTETS = 57
TTL_S = 86_400
_WORDS = (
    *("the", "of", "and", "to", "in", "a", "is", "that", "it", "was", "for", "on", "are", "as", "with"),
    *("his", "they", "at", "be", "this", "from", "have", "or", "by", "one", "had", "not", "but", "what"),
    *("all", "were", "when", "we", "there", "can", "an", "your", "which", "their", "said", "if", "do"),
    *("will", "each", "about", "how", "up", "out"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A message with its envelope, and what has to come out."""

    fields: tuple[tuple[bytes, bytes], ...]
    """Names, and values as a milter sees them: with the leading blank, folds as LF."""
    body: bytes
    """CRLF line ends."""
    domain: str
    """In From; the domain that signs or has signed."""
    algorithms: tuple[str, ...]
    """Of the signatures that it has or must get: "rsa", "ed25519"."""
    mail_from: bytes
    rcpt_to: bytes
    helo: bytes
    queue_id: bytes
    login: bytes = b""
    client_name: bytes = b"mail.d0000.example"
    client_address: bytes = CLIENT.encode()
    receiver: bytes = AUTHSERV_ID.encode()
    daemon_name: bytes = AUTHSERV_ID.encode()

    @property
    def raw(self) -> bytes:
        """The message with CRLF line ends."""
        return b"".join(_line(name, value) for name, value in self.fields) + b"\r\n" + self.body


def _line(name: bytes, value: bytes) -> bytes:
    return b"%b:%b\r\n" % (name, value.replace(b"\n", b"\r\n"))


def domain_name(number: int, parent: str = "example") -> str:
    """The name of a sender domain."""
    return f"d{number:04}.{parent}"


def outgoing(size: int, count: int, *, algorithms: tuple[str, ...]) -> list[Sample]:
    """`count` messages of our users, of `size` octets each, to be signed with these algorithms."""
    return [_sample(number, size, OUR_DOMAIN, algorithms, login=b"alice@us.example") for number in range(count)]


def incoming(
    size: int,
    count: int,
    *,
    domains: Sequence[int],
    keys: BenchKeys,
    algorithms: tuple[str, ...],
    parent: str = "example",
) -> list[Sample]:
    """`count` messages from these domains in turn, of `size` octets each without their signatures."""
    now = time.time()
    found = []
    for number in range(count):
        domain = domain_name(domains[number % len(domains)], parent)
        sample = _sample(number, size, domain, algorithms, login=b"")
        message = Message.parse(sample.raw)
        made = sign_dkim(message, keys=keys.signing_keys(domain, algorithms=algorithms), now=now)
        signatures = tuple((field.name, field.value.replace(b"\r\n", b"\n")) for field in made)
        received = sample.fields[:2]
        found.append(replace(sample, fields=(*received, *signatures, *sample.fields[2:])))
    return found


def zone_text(domains: Sequence[int], keys: BenchKeys) -> str:
    """The records of these domains and of our own, as a master file has them, below the root."""
    return records_of([OUR_DOMAIN, *map(domain_name, domains)], keys)


def records_of(domains: Iterable[str], keys: BenchKeys) -> str:
    """The records of domains by their names, as a master file has them, below the root."""
    lines: list[str] = []
    for domain in domains:
        names = {
            f"{domain}.": f"v=spf1 ip4:{CLIENT}/32 -all",
            f"_dmarc.{domain}.": "v=DMARC1; p=reject",
            **{f"{selector}._domainkey.{domain}.": record for selector, record in keys.records().items()},
        }
        lines += [f"{name} {TTL_S} IN TXT {txt(record)}" for name, record in names.items()]
        lines.append(f"mail.{domain}. {TTL_S} IN A {CLIENT}")
    return "\n".join(lines) + "\n"


def _sample(number: int, size: int, domain: str, algorithms: tuple[str, ...], *, login: bytes) -> Sample:
    chance = random.Random(number * 1_000_003 + size)
    local = b"alice" if login else b"news"
    helo = b"client.us.example" if login else b"mail." + domain.encode()
    fields = tuple(_fields(number, domain.encode(), local, chance, plain=size <= TEXT_OCTETS, submitted=bool(login)))
    header = sum(len(_line(name, value)) for name, value in fields) + 2
    return Sample(
        fields=fields,
        body=_body(max(size - header, 64), chance),
        domain=domain,
        algorithms=algorithms,
        mail_from=b"%b@%b" % (local if login else b"bounce-%d" % number, domain.encode()),
        rcpt_to=b"bob@other.example" if login else b"bob@us.example",
        helo=helo,
        queue_id=b"4F%08XzQ1b" % number,
        login=login,
        client_name=helo,
        daemon_name=(ORIGINATING if login else AUTHSERV_ID).encode(),
    )


def _fields(
    number: int, domain: bytes, local: bytes, chance: random.Random, *, plain: bool, submitted: bool
) -> Iterator[tuple[bytes, bytes]]:
    date = b" Sat, 21 Nov 2026 %02d:%02d:%02d +0000" % (number // 3600 % 24, number // 60 % 60, number % 60)
    identity = b"%032x" % chance.getrandbits(128)
    if not submitted:
        for hop in (b"out1", b"app7"):
            yield (
                b"Received",
                b" from %b.internal.%b (%b.internal.%b [10.0.0.7])\n\tby mail.%b (Postfix) with ESMTPS id %b\n"
                b"\tfor <bob@us.example>;%b" % (hop, domain, hop, domain, domain, identity[:12], date),
            )
    yield b"Date", date
    yield b"From", b' "The people of %b" <%b@%b>' % (domain, local, domain)
    yield b"To", b" Bob Example <%b>" % (b"bob@other.example" if submitted else b"bob@us.example")
    yield b"Subject", b" %b" % " ".join(chance.choices(_WORDS, k=7)).encode()
    yield b"Message-ID", b" <%b@%b>" % (identity, domain)
    yield b"MIME-Version", b" 1.0"
    if plain:
        yield b"Content-Type", b" text/plain; charset=us-ascii"
        yield b"Content-Transfer-Encoding", b" 7bit"
    else:
        yield b"Content-Type", b' multipart/mixed; boundary="a boundary"'
    yield b"User-Agent", b" Example Mail 1.0"
    if not submitted:
        yield b"List-Unsubscribe", b" <https://news.%b/unsubscribe?id=%b>" % (domain, identity)
        yield b"List-Id", b" <news.%b>" % domain


def _body(octets: int, chance: random.Random) -> bytes:
    if octets <= TEXT_OCTETS:
        return _text(octets, chance)
    start = b"--a boundary\r\nContent-Type: text/plain\r\n\r\n" + _text(SMALL_TEXT_OCTETS, chance)
    start += (
        b"\r\n--a boundary\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Disposition: attachment; filename=attachment.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    end = b"--a boundary--\r\n"
    count = max((octets - len(start) - len(end)) // 78, 1)
    content = chance.randbytes(count * BASE64_LINE_OCTETS)
    lines = (
        base64.b64encode(content[at : at + BASE64_LINE_OCTETS]) for at in range(0, len(content), BASE64_LINE_OCTETS)
    )
    return start + b"\r\n".join(lines) + b"\r\n" + end


def _text(octets: int, chance: random.Random) -> bytes:
    lines: list[bytes] = []
    left = octets
    while left > LINE_CHARS:
        words = " ".join(chance.choices(_WORDS, k=12)).encode()[:LINE_CHARS]
        lines.append(words if chance.random() > 0.1 else b"")
        left -= len(lines[-1]) + 2
    lines.append(b"x" * max(left - 2, 0))
    return b"\r\n".join(lines) + b"\r\n"
