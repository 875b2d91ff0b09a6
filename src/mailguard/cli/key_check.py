"""Whether a private key is sound and the DNS publishes its public half, for `mailguard key test`.

RFC 6376 §3.6.2 (where the record is), RFC 6376 §6.1.2 (how a verifier takes it).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.printable import cell
from mailguard.dkim.key import KeyRecord, KeyRecordError
from mailguard.dkim.signature import ALGORITHMS, key_name
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
from mailguard.dns.answers import Resolver
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.errors import KeyFileError
from mailguard.explain.explanation import MAX_TEXT_CHARS
from mailguard.key_places import WantedKey
from mailguard.records.record import zone_line
from mailguard.scorecard.dkim_card import MAX_SHOWN_TEXTS, ONE_RECORD, is_in_pieces, misplaced_at, wrong_places

__all__ = ["CheckedKey", "KeyOutcome", "check_keys"]

# Asked for together, and given the time of one message: a resolver refuses thousands at a time (dns/lookups.py).
BATCH_KEYS = 200

_MISSING = frozenset({Status.NXDOMAIN, Status.NODATA})


class KeyOutcome(Enum):
    """What the check of one key found."""

    PUBLISHED = "pass"
    TESTING = "testing"
    """It is published, and verifiers are asked to take its signatures for none (t=y)."""
    WRONG = "fail"
    """No record, one with which this key's signatures do not verify, or others beside it."""
    UNKNOWN = "temperror"
    """The DNS did not answer."""
    UNUSABLE = "unusable"
    """The file cannot be used."""

    @property
    def exit_code(self) -> ExitCode:
        return {
            KeyOutcome.PUBLISHED: ExitCode.PASS,
            KeyOutcome.TESTING: ExitCode.PASS,
            KeyOutcome.WRONG: ExitCode.FAIL,
            KeyOutcome.UNKNOWN: ExitCode.TEMPORARY,
            KeyOutcome.UNUSABLE: ExitCode.CONFIGURATION,
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedKey:
    """One key, and what the check found."""

    domain: Domain
    selector: str
    file: str
    outcome: KeyOutcome
    detail: str
    record: str = ""
    """What is to be published; empty for a file that cannot be used."""
    published: tuple[str, ...] = ()
    """What stands there instead, printable; empty where that fits."""

    @property
    def name(self) -> str:
        """Where the record belongs."""
        return key_name(self.selector, self.domain)

    @property
    def zone_line(self) -> str:
        """`record` for a zone file."""
        return zone_line(self.name, self.record.encode("ascii"))

    @property
    def is_to_be_published(self) -> bool:
        """Whether publishing `record` is the remedy."""
        return self.outcome is KeyOutcome.WRONG and bool(self.record)


def check_keys(
    wanted: Sequence[WantedKey], resolver: Resolver, *, permissions: KeyPermissions, time_s: float
) -> Iterator[CheckedKey]:
    """Check each key. BATCH_KEYS are looked up together, within `time_s`; if none of them is answered, no others."""
    is_down = False
    for start in range(0, len(wanted), BATCH_KEYS):
        batch = wanted[start : start + BATCH_KEYS]
        questions = {_question(domain, selector) for domain, selector, _ in batch}
        deadline = time.monotonic() + time_s
        answers = _unasked(questions) if is_down else dict(resolver.resolve(questions, deadline=deadline))
        is_down |= len(batch) == BATCH_KEYS and all(each.has_failed for each in answers.values())
        yield from _check_batch(batch, answers, resolver, permissions, deadline=deadline)


def _unasked(questions: Iterable[Question]) -> dict[Question, Answer]:
    why = f"not asked: of {BATCH_KEYS} keys before, none could be looked up"
    return {each: Answer(each, Status.TEMPFAIL, detail=why) for each in questions}


def _check_batch(
    wanted: Sequence[WantedKey],
    answers: dict[Question, Answer],
    resolver: Resolver,
    permissions: KeyPermissions,
    *,
    deadline: float,
) -> list[CheckedKey]:
    questions = {(domain, selector): _question(domain, selector) for domain, selector, _ in wanted}
    missing = [key for key, question in questions.items() if answers[question].status in _MISSING]
    places = {(domain, selector): wrong_places(selector, domain) for domain, selector in missing}
    answers |= resolver.resolve({place for each in places.values() for place in each}, deadline=deadline)
    return [
        _check(
            domain,
            selector,
            file,
            answers[questions[domain, selector]],
            permissions,
            [answers[place] for place in places.get((domain, selector), ())],
        )
        for domain, selector, file in wanted
    ]


def _question(domain: Domain, selector: str) -> Question:
    return Question(key_name(selector, domain), RecordType.TXT)


def _check(
    domain: Domain,
    selector: str,
    file: str,
    answer: Answer,
    permissions: KeyPermissions,
    elsewhere: Sequence[Answer],
) -> CheckedKey:
    """`elsewhere` are the answers for the places where people leave the record."""
    try:
        key = SigningKey.load(
            os.path.abspath(file),
            domain=domain,
            selector=selector,
            permissions=permissions,
            check=KeyCheck.FULL,
            owner=_owner(file),
        )
    except KeyFileError as error:
        return CheckedKey(
            domain=domain, selector=selector, file=file, outcome=KeyOutcome.UNUSABLE, detail=_one_line(str(error))
        )
    outcome, detail = _compare(key, answer)
    if name := misplaced_at(elsewhere):
        detail += f"; there is one at {name}, where nobody looks for it"
    return CheckedKey(
        domain=domain,
        selector=selector,
        file=file,
        outcome=outcome,
        detail=detail,
        record=key.record().decode("ascii"),
        published=tuple(map(_shown, answer.texts()[:MAX_SHOWN_TEXTS])) if outcome is KeyOutcome.WRONG else (),
    )


def _shown(text: bytes) -> str:
    return cell(text.decode("utf-8", "backslashreplace"), max_chars=MAX_TEXT_CHARS)


def _owner(file: str) -> int | None:
    """Root may test the keys of the daemon's user: whoever owns the file is asked after, and nothing is signed."""
    try:
        return os.stat(file).st_uid if os.geteuid() == 0 else None
    except OSError:
        return None  # said when the file is opened


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _compare(key: SigningKey, answer: Answer) -> tuple[KeyOutcome, str]:
    if answer.has_failed:
        return KeyOutcome.UNKNOWN, f"the key is sound, but the record could not be looked up: {answer.detail}"
    texts = answer.texts()
    if not texts:
        return KeyOutcome.WRONG, "the key is sound, but no record is published"
    key_type = ALGORITHMS[key.algorithm]
    own = KeyRecord.parse(key.record(), key_type=key_type)
    faults = []
    for text in texts:
        try:
            published = KeyRecord.parse(text, key_type=key_type)
        except KeyRecordError as error:
            faults.append(str(error))
            continue
        if published.key == own.key:
            detail = f"the published record fits ({key.algorithm}, {key.bits} bits)"
            if len(texts) > 1:
                # RFC 6376 §3.6.2.2: undefined. Some verifiers take the first, others fail.
                detail += f"; {len(texts)} TXT records are there, and which counts is undefined: leave only this one"
                return KeyOutcome.WRONG, detail
            if published.testing:
                detail += "; t=y is set: verifiers treat the signature as if there were none"
                return KeyOutcome.TESTING, detail
            return KeyOutcome.PUBLISHED, detail
        faults.append(
            "the record holds another key: if another host signs with that one, leave it there, and make keys with"
            " selectors of their own here (mailguard key new --selector)"
        )
    if is_in_pieces(texts):
        faults.append(f"{len(texts)} TXT records are there: {ONE_RECORD}")
    found = "; ".join(dict.fromkeys(faults))
    return KeyOutcome.WRONG, f"the key is sound, but what is published does not fit: {found}"
