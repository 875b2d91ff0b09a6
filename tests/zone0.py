"""Zone Z0 of the attack table: the imitated bank, the attacker, ourselves; and the attacker's pen.

The keys are made once per process. `sign_as` is a second, naive implementation of RFC 6376 §3.4 and §3.7
(regular expressions over the whole message), so that what it signs is independent of the code under test, and
so that an attacker can put anything in any tag.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailguard.authresults import build
from mailguard.dkim.result import DkimResult
from mailguard.dkim.signing_key import SigningKey
from mailguard.dkim.verify import VerifyRules, plan_verification
from mailguard.dns.question import Question
from mailguard.dns.zone import ZoneResolver
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.message import Message
from mailguard.pipeline import verify_dkim

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Records = Mapping[str, Mapping[str, Sequence[object]]]

NOW = 1_750_000_000
DAY_S = 86_400
EVIL = "evil.test"
BANK = "bank.test"
US = "us.test"
BODY = b"Hello,\r\n\r\nworld.\r\n"


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """The RSA key of this size and number."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ed25519_key(number: int = 0) -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key of this number."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"zone0 %d" % number).digest())


def kb() -> rsa.RSAPrivateKey:
    """The bank's key, which the attacker does not hold."""
    return rsa_key(2048, 1)


def ke() -> ed25519.Ed25519PrivateKey:
    """The attacker's key. Ed25519, because much is signed with it."""
    return ed25519_key(1)


def our_key(algorithm: str = "rsa-sha256") -> SigningKey:
    """Our own signing key for us.test: selector r1 (RSA) or e1 (Ed25519)."""
    private, selector = (rsa_key(2048, 2), "r1") if algorithm == "rsa-sha256" else (ed25519_key(2), "e1")
    return SigningKey.from_bytes(pem(private), domain=US, selector=selector)


def pem(private: PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_octets(private: PrivateKey) -> bytes:
    """What p= holds."""
    public = private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_record(private: PrivateKey, tags: str = "") -> bytes:
    """The TXT record of a key; `tags` stand before p=, such as "t=s; "."""
    kind = "rsa" if isinstance(private, rsa.RSAPrivateKey) else "ed25519"
    return f"v=DKIM1; k={kind}; {tags}p=".encode() + base64.b64encode(public_octets(private))


def zone(more: Records | None = None) -> dict[str, Mapping[str, Sequence[object]]]:
    """Z0; `more` adds names or replaces them."""
    evil_spf = {"TXT": ["v=spf1 ip4:198.51.100.66 -all"]}
    return {
        BANK: {"TXT": ["v=spf1 ip4:192.0.2.10 -all"]},
        "_dmarc.bank.test": {"TXT": ["v=DMARC1; p=reject"]},
        "s1._domainkey.bank.test": {"TXT": [key_record(kb())]},
        EVIL: evil_spf,
        "*.evil.test": evil_spf,
        "s1._domainkey.evil.test": {"TXT": [key_record(ke())]},
        US: {"TXT": ["v=spf1 ip4:192.0.2.20 -all"]},
        "r1._domainkey.us.test": {"TXT": [key_record(rsa_key(2048, 2))]},
        "e1._domainkey.us.test": {"TXT": [key_record(ed25519_key(2))]},
        "other.test": {"TXT": ["v=spf1 -all"]},
        **(more or {}),
    }


def evil_key(record: bytes | str | tuple[bytes, ...]) -> ZoneResolver:
    """Z0 with this record in the place of the attacker's key."""
    return ZoneResolver(zone({"s1._domainkey.evil.test": {"TXT": [record]}}))


def results_of(
    raw: bytes, resolver: ZoneResolver | None = None, *, now: float = NOW, rules: VerifyRules | None = None
) -> tuple[DkimResult, ...]:
    """The DKIM results of a whole message under Z0."""
    return verify_dkim(Message.parse(raw), resolver=resolver or ZoneResolver(zone()), now=now, rules=rules)


def result_of(
    raw: bytes, resolver: ZoneResolver | None = None, *, now: float = NOW, rules: VerifyRules | None = None
) -> DkimResult:
    """The result of the only signature."""
    (result,) = results_of(raw, resolver, now=now, rules=rules)
    return result


def written(*results: DkimResult) -> bytes:
    """Our Authentication-Results for a message of which nothing but this is known."""
    envelope = Envelope(client_ip=None, helo=b"", mail_from=b"")
    return build("mx.us.test", Evidence(envelope=envelope, dkim=results), None).value


def questions_of(raw: bytes) -> tuple[Question, ...]:
    """What verifying the message would ask."""
    return plan_verification(Message.parse(raw)).questions


def naive_body(body: bytes, form: str) -> bytes:
    """RFC 6376 §3.4.3 and §3.4.4, word for word, for a body with CRLF line ends."""
    lines = body.split(b"\r\n")
    if form == "relaxed":
        lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if form == "relaxed" else b"\r\n"
    return b"\r\n".join(lines) + b"\r\n"


def naive_field(raw: bytes, form: str) -> bytes:
    """RFC 6376 §3.4.1 and §3.4.2 for one field without its final CRLF."""
    if form == "simple":
        return raw
    name, _, value = raw.partition(b":")
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b""))
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" ")


def split_fields(header: bytes) -> list[bytes]:
    """The raw fields of a header with CRLF line ends."""
    return re.split(rb"\r\n(?![ \t])", header.removesuffix(b"\r\n")) if header else []


def sign_as(
    private: PrivateKey,
    raw: bytes,
    *,
    d: str = EVIL,
    s: str = "s1",
    h: str | bytes = "from:to:subject:date",
    c: str = "relaxed/relaxed",
    tags: Mapping[str, str | bytes | None] | None = None,
    template: bytes = b"",
) -> bytes:
    """`raw` (CRLF) with a DKIM-Signature on top that is right apart from what `tags` changes.

    A tag of None is left out; a new one is put before b=. The signature covers the field as it then stands.
    `template` is the whole field instead, with @BH@ and @B@ where those values belong; h= and c= must agree.
    """
    header, _, body = raw.partition(b"\r\n\r\n")
    header_form, _, body_form = c.partition("/")
    canonical = naive_body(body, body_form or "simple")
    changes = dict(tags or {})
    length = changes.get("l")
    if isinstance(length, str) and length.isdigit() and len(length) < 20:
        canonical = canonical[: int(length)]
    body_hash = base64.b64encode(hashlib.sha256(canonical).digest())
    if not template:
        algorithm = "rsa-sha256" if isinstance(private, rsa.RSAPrivateKey) else "ed25519-sha256"
        values: dict[str, str | bytes | None] = {"v": "1", "a": algorithm, "c": c, "d": d, "s": s, "h": h}
        values.update({"bh": "@BH@", **changes, "b": changes.get("b", "@B@")})
        template = b"DKIM-Signature: " + b"; ".join(
            f"{tag}=".encode() + _octets(value) for tag, value in values.items() if value is not None
        )
    field = template.replace(b"@BH@", body_hash)
    octets = b"\r\n".join(
        [
            *signed_fields(header, _octets(changes.get("h") or h), header_form),
            naive_field(_without_b(field), header_form),
        ]
    )
    return field.replace(b"@B@", base64.b64encode(signature_over(private, octets))) + b"\r\n" + raw


def _without_b(field: bytes) -> bytes:
    return re.sub(rb"[ \t\r\n]*@B@[ \t\r\n]*", b"", field)


def signed_fields(header: bytes, h: bytes, form: str) -> list[bytes]:
    """The canonical fields that h= chooses, from the bottom up (RFC 6376 §5.4.2)."""
    left = [(naive_field(field, "relaxed").partition(b":")[0], field) for field in split_fields(header)]
    signed = []
    for name in h.lower().split(b":"):
        for at in reversed(range(len(left))):
            if left[at][0] == name.strip():
                signed.append(naive_field(left.pop(at)[1], form))
                break
    return signed


def signature_over(private: PrivateKey, octets: bytes) -> bytes:
    """RFC 6376 §3.3.2, RFC 8463 §3."""
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(octets, PKCS1v15(), SHA256())
    return private.sign(hashlib.sha256(octets).digest())


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def mail(author: str | bytes = "<x@evil.test>", body: bytes = BODY, more: bytes = b"") -> bytes:
    """A small message; `more` is header fields with their CRLF."""
    return (
        b"From: " + _octets(author) + b"\r\nTo: <alice@us.test>\r\nSubject: An offer\r\n"
        b"Date: Sun, 15 Jun 2025 15:06:40 +0000\r\n" + more + b"\r\n" + body
    )
