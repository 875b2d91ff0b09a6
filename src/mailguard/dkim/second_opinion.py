"""What dkimpy, an independent implementation, says of a message's DKIM signatures (RFC 6376 §6).

For people who doubt a verdict, and for tests that compare. Not for the mail path: dkimpy is slow on hostile
input, so that it is asked only about messages within the bounds below. Its known faults:

- It reads the clock itself: x= and t= are judged by now, with 10 hours of leeway, whatever `now` we use.
- It ignores h= and t= of the key record, and where v= stands in it (RFC 6376 §3.6.1).
- Where the DNS gives no answer it says False, as for a signature that does not verify: it has no temperror.
- Of several key records it is given the first. It accepts rsa-sha1 and any l= (RFC 8301 §3.1, RFC 6376 §8.2).
- It does not ask that From is signed (RFC 6376 §5.4), and does not know U-labels (RFC 8616 §4).
- It takes a=, c=, k= and q= in lower case only, no list in q= and s=, and no white space in i= (RFC 6376 §3.5).
- It refuses a message in whose header white space stands before a colon (RFC 5322 §4.5.3).
- Its Ed25519 needs PyNaCl; without that it is not asked about such signatures.

The only importer of dkimpy. Left out: ARC. Pure: what it asks comes from `Answers`. Values are frozen and safe
to share between threads.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

import dkim

from mailguard.dkim.key import MAX_EXPONENT_BITS, MAX_RSA_BITS
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, MAX_LABEL_CHARS
from mailguard.message import HeaderField, Message

__all__ = ["SecondOpinion", "SecondVerdict", "difference", "second_opinion"]

# dkimpy's work grows with the square of what these bound: 200,000 spaces in a body take it 33 s, 20,000 in b=
# 1.7 s, and it searches all fields again for each name in h=.
MAX_BODY_BYTES = 262_144
MAX_HEADER_BYTES = 65_536
MAX_HEADER_LINES = 1_000
MAX_SIGNATURE_BYTES = 8_192
MAX_BLANK_RUN = 1_000
MAX_SIGNATURES = 10
MAX_RECORD_BYTES = 4_096
MAX_DETAIL_CHARS = 200

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_BODY_RUN = re.compile(rb"[ \t]{%d}" % MAX_BLANK_RUN)
_HEADER_RUN = re.compile(rb"\s{%d}" % MAX_BLANK_RUN)
_LABEL = re.compile(rf"[a-z0-9_-]{{1,{MAX_LABEL_CHARS}}}")


class SecondVerdict(Enum):
    """What dkimpy says of one signature."""

    PASS = "pass"
    FAIL = "fail"
    """It says False, or that the message, the signature or the key is not valid."""
    ERROR = "error"
    """It stopped with an error of its own, or asked for something that must not be asked."""
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinion:
    """dkimpy's verdict on one signature."""

    verdict: SecondVerdict
    detail: str
    """For people: one line of printable ASCII. What dkimpy says may quote the message."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a SecondOpinion is not true or false: compare its verdict")


class _UnaskableName(Exception):
    """dkimpy wants a name looked up that is not a host name, such as one with a NUL."""


def second_opinion(raw: bytes, answers: Answers) -> tuple[SecondOpinion, ...]:
    """dkimpy's verdict on each DKIM-Signature field of `raw`, from the top; none for an unsigned message.

    `raw` is a whole message with CRLF or LF line ends. Raises Unanswered while a key is unknown; all that are
    missing are noted at once. Nothing else is raised, whatever the message holds.
    """
    fields = Message.parse(raw).named(b"dkim-signature")
    count = len(fields)
    refusal = _why_not_asked(raw, fields)
    if refusal:
        return (_opinion(SecondVerdict.NOT_ASKED, refusal),) * count
    opinions: list[SecondOpinion] = []
    waiting: Unanswered | None = None
    for index in range(count):
        if index >= MAX_SIGNATURES:
            opinions.append(_opinion(SecondVerdict.NOT_ASKED, f"it is asked about {MAX_SIGNATURES} signatures"))
            continue
        try:
            opinions.append(_ask(raw, index, answers))
        except Unanswered as missing:
            waiting = missing
    if waiting is not None:
        raise waiting
    return tuple(opinions)


def _why_not_asked(raw: bytes, signatures: Sequence[HeaderField]) -> str:
    end = _HEADER_END.search(raw)
    header, body = (raw[: end.start()], raw[end.end() :]) if end else (raw, b"")
    if len(body) > MAX_BODY_BYTES:
        return f"the body has more than {MAX_BODY_BYTES} octets"
    if len(header) > MAX_HEADER_BYTES or header.count(b"\n") > MAX_HEADER_LINES:
        return f"the header has more than {MAX_HEADER_BYTES} octets or {MAX_HEADER_LINES} lines"
    if any(len(field.value) > MAX_SIGNATURE_BYTES for field in signatures):
        return f"a signature has more than {MAX_SIGNATURE_BYTES} octets"
    if _BODY_RUN.search(body) or _HEADER_RUN.search(header):
        return f"there are {MAX_BLANK_RUN} blanks in a row, with which it takes very long"
    return ""


def _ask(raw: bytes, index: int, answers: Answers) -> SecondOpinion:
    log = _Log()
    several = ""

    def text_record(name: bytes | str, timeout: float = 0) -> bytes | None:
        nonlocal several
        answer = answers.get(_question(name))
        if answer.has_failed:
            raise dkim.DnsTimeoutError("the DNS did not answer")
        records = answer.texts()
        several = f"{_THE_FIRST_OF}{len(records)} TXT records: " if len(records) > 1 else ""
        if not records:
            return None
        if len(records[0]) > MAX_RECORD_BYTES:
            raise dkim.KeyFormatError(f"the key record has more than {MAX_RECORD_BYTES} octets")
        _refuse_costly_key(name, records[0])
        return records[0]

    try:
        verifier = dkim.DKIM(raw, logger=log.logger)
        if verifier.verify(idx=index, dnsfunc=text_record):
            return _opinion(SecondVerdict.PASS, "it verifies the signature")
        return _opinion(SecondVerdict.FAIL, several + (log.text or "it says False and gives no reason"))
    except Unanswered:
        raise
    except dkim.NaClNotFoundError:
        return _opinion(SecondVerdict.NOT_ASKED, "it needs PyNaCl for Ed25519, which is not installed")
    except _UnaskableName as error:
        return _opinion(SecondVerdict.ERROR, str(error))
    except dkim.DKIMException as error:
        return _opinion(SecondVerdict.FAIL, several + (str(error) or type(error).__name__))
    except Exception as error:  # noqa: BLE001 - hostile input makes dkimpy raise anything, such as AssertionError
        return _opinion(SecondVerdict.ERROR, f"{type(error).__name__}: {error}")


def _refuse_costly_key(name: bytes | str, record: bytes) -> None:
    """Raises dkim.KeyFormatError for an RSA key with which dkimpy computes for long: its RSA is in Python.

    The numbers are those that dkimpy reads: it takes them from records that ours refuses before it comes to them.
    """
    key, *_ = dkim.evaluate_pk(name, record)
    if isinstance(key, dict):
        for part, most in (("modulus", MAX_RSA_BITS), ("publicExponent", MAX_EXPONENT_BITS)):
            if key[part].bit_length() > most:
                raise dkim.KeyFormatError(f"the key's {part} has more than {most} bits: it takes very long")


def _question(name: bytes | str) -> Question:
    """The question for the name that dkimpy makes of s= and d= as they are, unchecked."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    text = text.removesuffix(".").lower()
    if len(text) > MAX_DOMAIN_CHARS or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise _UnaskableName("it asks for a name that is not a host name")
    return Question(text, RecordType.TXT)


class _Log:
    """Where dkimpy says why it says False. A logger of its own: nothing of the process's logging is touched."""

    def __init__(self) -> None:
        self.logger = logging.Logger("dkimpy", level=logging.ERROR)
        self._records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self._records.append(record.getMessage())  # type: ignore[method-assign]  # stdlib's own idiom
        self.logger.addHandler(handler)

    @property
    def text(self) -> str:
        return "; ".join(self._records)


def _opinion(verdict: SecondVerdict, detail: str) -> SecondOpinion:
    plain = detail.encode("ascii", "backslashreplace").decode("ascii")
    plain = "".join(character if character.isprintable() else repr(character)[1:-1] for character in plain)
    if len(plain) > MAX_DETAIL_CHARS:
        plain = plain[:MAX_DETAIL_CHARS] + "..."
    return SecondOpinion(verdict=verdict, detail=plain)


# Why dkimpy may pass what we do not, by our reason.
_IT_PASSES_BECAUSE = {
    DkimReason.ALGORITHM: "dkimpy still verifies rsa-sha1",
    DkimReason.BODY_LENGTH: "dkimpy accepts a signature with l=, after which anyone can append",
    DkimReason.EXPIRED: "dkimpy reads the clock itself and allows 10 hours",
    DkimReason.FROM_UNSIGNED: "dkimpy does not ask that From is signed",
    DkimReason.FUTURE: "dkimpy reads the clock itself and allows 10 hours",
    DkimReason.KEY_HASH: "dkimpy ignores h= of the key record",
    DkimReason.KEY_STRICT: "dkimpy ignores t=s of the key record",
    DkimReason.KEY_SYNTAX: "dkimpy accepts malformed key records, such as one in which v= is not the first tag",
    DkimReason.SYNTAX: "dkimpy accepts malformed signatures, such as one whose i= is below no host name",
    DkimReason.TESTING: "dkimpy ignores h= and t= of the key record",
    DkimReason.BODY_TOO_SHORT: "dkimpy accepts an l= that is more than the body has",
}

_THE_FIRST_OF = "it is given the first of "
# How it begins to say that it knows no other form of a tag; of a list in s= it says "None".
_ONE_FORM_ONLY = (
    "unknown signature algorithm",
    "invalid c= value",
    "q= value is not",
    "i= domain is not",
    "unknown algorithm in k=",
    "None",
)
_UNEXPLAINED = "no fault that is known of it explains that: compare the two and report what you find"


def difference(ours: DkimResult, theirs: SecondOpinion) -> str:
    """In what the two differ and why, in one sentence for people; empty where they agree or nothing was asked.

    That dkimpy fails a signature for which we report another failure is agreement; a temporary error is not a
    failure, so there the sentence says that dkimpy cannot tell them apart.
    """
    if theirs.verdict is SecondVerdict.NOT_ASKED:
        return ""
    it_passes = theirs.verdict is SecondVerdict.PASS
    if ours.status is DkimStatus.TEMPERROR and not it_passes:
        return "dkimpy says False where the DNS gives no answer, as for a bad signature: it has no temporary error"
    if it_passes and ours.status is not DkimStatus.PASS:
        return _IT_PASSES_BECAUSE.get(ours.reason, f"dkimpy passes it, and {_UNEXPLAINED}")
    if ours.status is DkimStatus.PASS and not it_passes:
        its_reason = theirs.detail if theirs.verdict is SecondVerdict.FAIL else ""
        if its_reason.startswith(("x= value is past", "t= value is in")):
            return "dkimpy reads the clock itself, and by that the signature is not valid now"
        if its_reason.startswith(_THE_FIRST_OF):
            return "dkimpy is given the first of several TXT records only"
        if its_reason.startswith(_ONE_FORM_ONLY):
            return "dkimpy knows no upper case in a=, c=, k= and q=, no list in q= and s=, and no white space in i="
        if its_reason.startswith("Unexpected characters in RFC822 header"):
            return "dkimpy refuses a header in which white space stands before a colon, or a line is no field"
        if theirs.verdict is SecondVerdict.ERROR:
            return "dkimpy stopped with an error of its own and has no verdict"
        return f"dkimpy does not pass it, and {_UNEXPLAINED}"
    return ""
