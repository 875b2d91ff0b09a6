"""Signing and verifying against dkimpy and Debian's OpenDKIM, both ways, over generated messages.

RFC 6376 §3.4 to §3.7, RFC 8463. Every class of message with every canonicalization and algorithm is compared
equally often, and the comparisons are counted. Where a peer errs, KNOWN_PEER_FAULTS says why and how often: a
new disagreement fails the test, and so does a fault that is no longer there. OpenDKIM is its library,
libopendkim, which does everything between the octets of a message and the verdict; keys come from memory.
Left out: what peers do with keys, tags and time; hostile input.
"""

from __future__ import annotations

import base64
import ctypes
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from generated_messages import AUTHOR_DOMAIN, MessageClass, generate
from mailguard.dkim.canonical import Canonicalization
from mailguard.dkim.result import DkimStatus
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import SigningKey
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import sign_dkim, verify_dkim
from test_dkim_rfc_examples import ED25519_KEY, RSA_KEY

# The peers read the clock themselves: t= is in the past and x= in 2055 for all of them.
SIGNED_AT = 1_700_000_000
LIFETIME_S = 1_100_000_000
NOW = 2_000_000_000

RSA, ED25519 = "rsa-sha256", "ed25519-sha256"
ALGORITHMS = (RSA, ED25519)
MESSAGES_A_CELL = 4
FORMS = tuple(itertools.product(Canonicalization, Canonicalization))
CELLS = len(MessageClass) * len(FORMS) * len(ALGORITHMS)
RELAXED = Canonicalization.RELAXED

KEYS = {
    RSA: SigningKey.from_bytes(RSA_KEY, domain=AUTHOR_DOMAIN, selector="rsa"),
    ED25519: SigningKey.from_bytes(ED25519_KEY, domain=AUTHOR_DOMAIN, selector="ed25519"),
}
RECORDS = {key.public_name.encode("ascii"): key.record() for key in KEYS.values()}
ZONE = ZoneResolver({name.decode("ascii"): {"TXT": [record]} for name, record in RECORDS.items()})


class Cell(NamedTuple):
    """What is compared equally often."""

    kind: MessageClass
    header: Canonicalization
    body: Canonicalization
    algorithm: str


class Case(NamedTuple):
    cell: Cell
    raw: bytes


def cases(*, a_cell: int) -> Iterator[Case]:
    for kind in MessageClass:
        numbers = itertools.count()
        for (header, body), algorithm in itertools.product(FORMS, ALGORITHMS):
            for _ in range(a_cell):
                yield Case(Cell(kind, header, body, algorithm), generate(kind, next(numbers)))


# --- Three implementations: each signs a message to a longer one, and says of a signed one whether it passes ------


class Mailguard:
    def sign(self, case: Case) -> bytes:
        _, header, body, algorithm = case.cell
        rules = SigningRules(header_canonicalization=header, body_canonicalization=body, lifetime_s=LIFETIME_S)
        message = Message.parse(case.raw)
        (field,) = sign_dkim(message, keys=[KEYS[algorithm]], now=SIGNED_AT, rules=rules)
        return field.raw + b"\r\n" + case.raw

    def passes(self, raw: bytes) -> bool:
        results = verify_dkim(Message.parse(raw), resolver=ZONE, now=NOW)
        return [result.status for result in results] == [DkimStatus.PASS]


PRIVATE_FOR_DKIMPY = {RSA: RSA_KEY, ED25519: ED25519_KEY}


class Dkimpy:
    def sign(self, case: Case) -> bytes | None:
        _, header, body, algorithm = case.cell
        try:
            field = dkim.sign(
                case.raw,
                KEYS[algorithm].selector.encode("ascii"),
                AUTHOR_DOMAIN.encode("ascii"),
                PRIVATE_FOR_DKIMPY[algorithm],
                canonicalize=(header.value.encode("ascii"), body.value.encode("ascii")),
                signature_algorithm=algorithm.encode("ascii"),
            )
        except dkim.DKIMException:
            return None
        return bytes(field) + case.raw

    def passes(self, raw: bytes) -> bool:
        def text_record(name: bytes, timeout: float = 0) -> bytes | None:
            return RECORDS.get(name.removesuffix(b"."))

        try:
            return bool(dkim.DKIM(raw).verify(dnsfunc=text_record))
        except dkim.DKIMException:
            return False


_POINTER, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_KEY_LOOKUP = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _SIZE)


# libopendkim 2.11: the numbers and the types are those of its dkim.h.
OK, SET, FIXED_TIME, FOUND, NOT_FOUND, WHOLE_BODY = 0, 1, 8, 0, 3, -1
ALGORITHM_NUMBERS = {RSA: 1, ED25519: 2}
FORM_NUMBERS = {Canonicalization.SIMPLE: 0, Canonicalization.RELAXED: 1}
FIELD_NAME = b"DKIM-Signature: "
_SIGN_TYPES = [_POINTER, _TEXT, _POINTER, _TEXT, _TEXT, _TEXT, _INT, _INT, _INT, ctypes.c_ssize_t, _POINTER]
_FUNCTION_TYPES = {
    "dkim_init": (_POINTER, [_POINTER, _POINTER]),
    "dkim_options": (_INT, [_POINTER, _INT, _INT, _POINTER, _SIZE]),
    "dkim_set_key_lookup": (_INT, [_POINTER, _KEY_LOOKUP]),
    "dkim_sign": (_POINTER, _SIGN_TYPES),
    "dkim_verify": (_POINTER, [_POINTER, _TEXT, _POINTER, _POINTER]),
    "dkim_chunk": (_INT, [_POINTER, _TEXT, _SIZE]),
    "dkim_eom": (_INT, [_POINTER, _POINTER]),
    "dkim_getsighdr_d": (_INT, [_POINTER, _SIZE, _POINTER, _POINTER]),
    "dkim_sig_getselector": (_TEXT, [_POINTER]),
    "dkim_sig_getdomain": (_TEXT, [_POINTER]),
    "dkim_free": (_INT, [_POINTER]),
}


class OpenDkim:
    def __init__(self) -> None:
        try:
            self._c = ctypes.CDLL("libopendkim.so.11")
        except OSError as error:
            pytest.skip(f"libopendkim is not installed (apt-get install libopendkim11): {error}")
        for name, (result, arguments) in _FUNCTION_TYPES.items():
            function = getattr(self._c, name)
            function.restype, function.argtypes = result, arguments
        self._library = self._c.dkim_init(None, None)
        time = ctypes.c_uint64(SIGNED_AT)
        assert self._c.dkim_options(self._library, SET, FIXED_TIME, ctypes.byref(time), 8) == OK
        self._lookup = _KEY_LOOKUP(self._look_up)  # kept: the library calls it
        assert self._c.dkim_set_key_lookup(self._library, self._lookup) == OK
        seed = Ed25519PrivateKey.from_private_bytes(base64.b64decode(ED25519_KEY))
        self._private = {
            RSA: RSA_KEY,
            ED25519: seed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        }

    def _look_up(self, _message: int, signature: int, buffer: int, size: int) -> int:
        name = self._c.dkim_sig_getselector(signature) + b"._domainkey." + self._c.dkim_sig_getdomain(signature)
        record = RECORDS.get(name)
        if record is None or len(record) >= size:
            return NOT_FOUND
        ctypes.memmove(buffer, record + b"\0", len(record) + 1)
        return FOUND

    def _feed(self, handle: int, raw: bytes) -> bool:
        steps = [self._c.dkim_chunk(handle, raw, len(raw)), self._c.dkim_chunk(handle, None, 0)]
        return [*steps, self._c.dkim_eom(handle, None)] == [OK] * 3

    def sign(self, case: Case) -> bytes | None:
        _, header, body, algorithm = case.cell
        status, field, length = _INT(), _POINTER(), _SIZE()
        handle = self._c.dkim_sign(
            self._library,
            b"test",
            None,
            self._private[algorithm],
            KEYS[algorithm].selector.encode("ascii"),
            AUTHOR_DOMAIN.encode("ascii"),
            FORM_NUMBERS[header],
            FORM_NUMBERS[body],
            ALGORITHM_NUMBERS[algorithm],
            WHOLE_BODY,
            ctypes.byref(status),
        )
        assert handle, status
        try:
            if not self._feed(handle, case.raw):
                return None
            found = self._c.dkim_getsighdr_d(handle, len(FIELD_NAME), ctypes.byref(field), ctypes.byref(length))
            assert found == OK
            return FIELD_NAME + ctypes.string_at(field, length.value) + b"\r\n" + case.raw
        finally:
            self._c.dkim_free(handle)

    def passes(self, raw: bytes) -> bool:
        status = _INT()
        handle = self._c.dkim_verify(self._library, b"test", None, ctypes.byref(status))
        assert handle, status
        try:
            return self._feed(handle, raw)
        finally:
            self._c.dkim_free(handle)


# --- The faults of the peers ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PeerFault:
    peer: type
    cause: str
    applies: Callable[[Case], bool]
    signing: int = 0
    """How many of its signatures are missing or do not verify for us."""
    verifying: int = 0
    """How many of our signatures it does not pass."""


def body_of(case: Case) -> bytes:
    return case.raw.partition(b"\r\n\r\n")[2]


KNOWN_PEER_FAULTS = [
    PeerFault(
        peer=Dkimpy,
        cause="refuses white space before the colon of a field (RFC 5322 §4.5.3; RFC 6376 §3.4.5 has an example)",
        applies=lambda case: case.cell.kind is MessageClass.GAP,
        signing=32,
        verifying=32,
    ),
    PeerFault(
        peer=Dkimpy,
        cause="relaxed body: keeps a blank at the end of a last line without CRLF (RFC 6376 §3.4.4 a)",
        applies=lambda case: case.cell.body is RELAXED and body_of(case).endswith((b" ", b"\t")),
        signing=8,
        verifying=8,
    ),
    PeerFault(
        peer=Dkimpy,
        cause="relaxed header: deletes VT and FF at the end of a value, as if they were WSP (RFC 6376 §2.8, §3.4.2)",
        applies=lambda case: case.cell.header is RELAXED and case.cell.kind is MessageClass.HEADER_CONTROLS,
        signing=11,
        verifying=11,
    ),
    PeerFault(
        peer=OpenDkim,
        cause="relaxed header: takes VT and FF anywhere in a value for WSP (RFC 6376 §2.8, §3.4.2)",
        applies=lambda case: case.cell.header is RELAXED and case.cell.kind is MessageClass.HEADER_CONTROLS,
        signing=16,
        verifying=16,
    ),
    PeerFault(
        peer=OpenDkim,
        cause="refuses a tab before the colon of a field, though not a space (RFC 5322 §4.5.3)",
        applies=lambda case: re.search(rb"(?m)^Subject *\t", case.raw) is not None,
        signing=23,
        verifying=23,
    ),
    PeerFault(
        peer=OpenDkim,
        cause="relaxed body: refuses a last line without CRLF, where one is to be added (RFC 6376 §3.4.4 b)",
        applies=lambda case: case.cell.body is RELAXED and (body_of(case) or b"\n")[-1:] not in b" \t\n",
        signing=24,
        verifying=24,
    ),
    PeerFault(
        peer=OpenDkim,
        cause="relaxed body: drops a bare CR (RFC 6376 §3.4.4 changes nothing but WSP and empty lines)",
        applies=lambda case: case.cell.body is RELAXED and case.cell.kind is MessageClass.BARE_CR,
        signing=16,
        verifying=16,
    ),
    PeerFault(
        peer=OpenDkim,
        cause="simple header with Ed25519: signs '; b=' and writes ';', a fold and 'b=' (RFC 6376 §3.4.1, §3.7); "
        "it does not verify that itself",
        applies=lambda case: (case.cell.header, case.cell.algorithm) == (Canonicalization.SIMPLE, ED25519),
        signing=129,
    ),
]


def fault_of(peer: type, case: Case) -> str:
    """The known fault that explains a disagreement, or the case for the report."""
    for fault in KNOWN_PEER_FAULTS:
        if fault.peer is peer and fault.applies(case):
            return fault.cause
    return f"unexplained: {case.cell} {case.raw[:2000]!r}"


@pytest.mark.parametrize("peer_class", [Dkimpy, OpenDkim])
def test_the_peer_verifies_what_we_sign(peer_class: type[Dkimpy | OpenDkim]) -> None:
    ours, peer = Mailguard(), peer_class()
    compared: Counter[Cell] = Counter()
    faults: Counter[str] = Counter()
    for case in cases(a_cell=MESSAGES_A_CELL):
        compared[case.cell] += 1
        signed = ours.sign(case)
        assert ours.passes(signed), case
        if not peer.passes(signed):
            faults[fault_of(peer_class, case)] += 1
    assert faults == {f.cause: f.verifying for f in KNOWN_PEER_FAULTS if f.peer is peer_class and f.verifying}
    assert (len(compared), set(compared.values())) == (CELLS, {MESSAGES_A_CELL})


@pytest.mark.parametrize("peer_class", [Dkimpy, OpenDkim])
def test_we_verify_what_the_peer_signs(peer_class: type[Dkimpy | OpenDkim]) -> None:
    ours, peer = Mailguard(), peer_class()
    compared: Counter[Cell] = Counter()
    faults: Counter[str] = Counter()
    for case in cases(a_cell=MESSAGES_A_CELL):
        compared[case.cell] += 1
        signed = peer.sign(case)
        if signed is None or not ours.passes(signed):
            faults[fault_of(peer_class, case)] += 1
    assert faults == {f.cause: f.signing for f in KNOWN_PEER_FAULTS if f.peer is peer_class and f.signing}
    assert (len(compared), set(compared.values())) == (CELLS, {MESSAGES_A_CELL})


def test_a_signature_may_cover_others_and_never_itself() -> None:
    """RFC 6376 §3.5 (h=), §5.4: a name without a field left signs the absence of further ones, its own aside."""
    raw = generate(MessageClass.PAGE, 0)
    for names in ([b"from"], [b"from", b"dkim-signature"], [b"from", *[b"dkim-signature"] * 3]):
        signer = dkim.DKIM(raw)
        signer.should_not_sign = set()
        selector, domain = KEYS[RSA].selector.encode("ascii"), AUTHOR_DOMAIN.encode("ascii")
        raw = bytes(signer.sign(selector, domain, RSA_KEY, include_headers=names)) + raw
    top, middle, lowest = (match.start() for match in re.finditer(rb"\bh=", raw))
    for place, expected in (
        (None, ["verified", "verified", "verified"]),
        (top, ["signature", "verified", "verified"]),
        (middle, ["signature", "signature", "verified"]),
        (lowest, ["signature", "signature", "signature"]),
    ):
        changed = raw if place is None else raw[:place] + b"z=a; " + raw[place:]
        results = verify_dkim(Message.parse(changed), resolver=ZONE, now=NOW)
        assert [result.reason.value for result in results] == expected


# --- Changes ---------------------------------------------------------------------------------------------------

REGIONS = ("signature", "header", "body")
SIGNED_FIELDS = (b"from", b"to", b"subject", b"date", b"message-id")
WHITE_SPACE = b" \t\r\n"
VISIBLE = bytes(range(256)).translate(None, WHITE_SPACE)


def change(signed: bytes, region: str, source: random.Random, *, octets: bytes, to: bytes) -> bytes | None:
    """`signed` with one octet of `octets` that the signature covers replaced by the first of `to` that differs."""
    header, end, body = signed.partition(b"\r\n\r\n")
    parts = [*re.split(rb"\r\n(?![ \t])", header), body]
    covered = [n for n, part in enumerate(parts[:-1]) if part.partition(b":")[0].strip().lower() in SIGNED_FIELDS]
    number = {"signature": 0, "header": source.choice(covered), "body": len(parts) - 1}[region]
    part = parts[number]
    # b=, which signs and is not signed, stands last in its field.
    first, last = (0 if region == "body" else part.index(b":") + 1), len(part)
    if region == "signature":
        last = max(part.find(b" b="), part.find(b"\tb="))
    places = [place for place in range(first, last) if part[place] in octets]
    if not places:
        return None
    place = source.choice(places)
    new = to.replace(part[place : place + 1], b"")[:1]
    parts[number] = part[:place] + new + part[place + 1 :]
    return b"\r\n".join(parts[:-1]) + end + parts[-1]


# How many changes each implementation judged, by region: of the cells whose message it passes unchanged, one each.
# Some bodies have no visible octet, more have no blank.
VISIBLE_CHANGES = {
    Mailguard: {"signature": 144, "header": 144, "body": 134},
    Dkimpy: {"signature": 131, "header": 131, "body": 121},
    OpenDkim: {"signature": 126, "header": 126, "body": 116},
}
BLANK_CHANGES = {
    Mailguard: {"signature": 144, "header": 144, "body": 131},
    Dkimpy: {"signature": 131, "header": 131, "body": 118},
    OpenDkim: {"signature": 126, "header": 126, "body": 114},
}


def judged_changes(
    verifier: Mailguard | Dkimpy | OpenDkim, *, octets: bytes, to: bytes
) -> Iterator[tuple[Case, str, bool]]:
    """For each cell and region: whether `verifier` passes our signature after one change."""
    ours = Mailguard()
    for case in cases(a_cell=1):
        signed = ours.sign(case)
        if not verifier.passes(signed):
            continue  # a known fault of a peer: counted above
        for region in REGIONS:
            changed = change(signed, region, random.Random(f"{case.cell}/{region}"), octets=octets, to=to)
            if changed is not None:
                yield case, region, verifier.passes(changed)


@pytest.mark.attack("D51")
@pytest.mark.parametrize("verifier", [Mailguard, Dkimpy, OpenDkim])
def test_a_changed_visible_octet_is_rejected(verifier: type[Mailguard | Dkimpy | OpenDkim]) -> None:
    judged: Counter[str] = Counter()
    for case, region, passes in judged_changes(verifier(), octets=VISIBLE, to=b"qw"):
        judged[region] += 1
        assert not passes, (region, case)
    assert judged == VISIBLE_CHANGES[verifier]


@pytest.mark.parametrize("verifier", [Mailguard, Dkimpy, OpenDkim])
def test_a_blank_that_becomes_a_tab_is_rejected_by_simple_only(
    verifier: type[Mailguard | Dkimpy | OpenDkim],
) -> None:
    """RFC 6376 §3.4: "simple" tolerates almost no modification, "relaxed" common white space changes."""
    judged: Counter[str] = Counter()
    for case, region, passes in judged_changes(verifier(), octets=b" ", to=b"\t"):
        judged[region] += 1
        form = case.cell.body if region == "body" else case.cell.header
        assert passes is (form is RELAXED), (region, case)
    assert judged == BLANK_CHANGES[verifier]


@pytest.mark.attack("D51")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", [Canonicalization.SIMPLE, RELAXED])
def test_every_octet_of_a_message_is_covered(form: Canonicalization, algorithm: str) -> None:
    """Each octet of a message of signed fields, with its lowest and with its highest bit changed."""
    raw = b"From: a@example.com\r\nTo: b@b.test\r\nSubject: one\r\n\ttwo\r\n\r\nText of  two\r\nlines.\r\n"
    ours = Mailguard()
    signed = ours.sign(Case(Cell(MessageClass.TINY, form, form, algorithm), raw))
    assert ours.passes(signed)
    passing = {
        place
        for place in range(len(signed))
        for bit in (0x01, 0x80)
        if ours.passes(signed[:place] + bytes([signed[place] ^ bit]) + signed[place + 1 :])
    }
    assert passing == set()
