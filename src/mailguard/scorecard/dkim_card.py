"""The DKIM keys of a domain: whether each can be used, how strong it is, in testing or revoked (RFC 6376 §3.6.1).

The DNS cannot be asked which selectors there are: they are given, or found in the configuration. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailguard.dkim.key import KeyRecord, KeyRecordError
from mailguard.dkim.result import DkimReason
from mailguard.dkim.signature import key_name
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType
from mailguard.domain import Domain
from mailguard.errors import TagListError
from mailguard.explain.explanation import Explanation
from mailguard.scorecard.card import Mark, card, finding
from mailguard.taglist import TagList

__all__ = ["dkim_card"]

# RFC 8301 §3.2: signers use at least 2048 bits.
STRONG_RSA_BITS = 2048
_KEY = b"p="


def dkim_card(domain: Domain, selectors: Sequence[str], answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    if not selectors:
        found = [finding(Mark.NOTE, "no selector is known", "name those that you sign with: --selector NAME")]
        return card("DKIM", found)
    questions = {selector: Question(key_name(selector, domain), RecordType.TXT) for selector in selectors}
    answers.need(questions.values())
    return card("DKIM", [_key(selector, question, answers) for selector, question in questions.items()])


def _key(selector: str, question: Question, answers: Answers) -> Explanation:
    answer = answers.get(question)
    if answer.has_failed:
        return finding(Mark.UNKNOWN, f"{selector}: {answer.detail or 'the DNS did not answer'}")
    texts = answer.texts()
    if not texts:
        advice = "publish it (mailguard dns prints it), or do not sign with it"
        return finding(Mark.PROBLEM, f"{selector}: {question.name} has no record", advice)
    if len(texts) > 1 and any(_KEY not in text for text in texts):
        # RFC 6376 §3.6.2.2: the strings of one record are put together, records are not.
        detail = (
            f"{selector}: {len(texts)} records, and not all have a p=: a long key is one record of several strings"
        )
        return finding(Mark.PROBLEM, detail, "publish one record, as mailguard dns prints it")
    if len(texts) > 1:
        return finding(Mark.PROBLEM, f"{selector}: {len(texts)} records; which counts is undefined", "leave one")
    key_type = _key_type(texts[0])
    try:
        key = KeyRecord.parse(texts[0], key_type=key_type)
    except KeyRecordError as error:
        if error.reason is DkimReason.KEY_REVOKED:
            return finding(Mark.NOTE, f"{selector}: revoked (p= is empty): nothing signed with it passes")
        return finding(Mark.PROBLEM, f"{selector}: {error}", "publish the record anew: mailguard key test shows it")
    text = f"{selector}: {key_type}, {key.bits} bits"
    if key.testing:
        return finding(Mark.NOTE, f"{text}, in testing (t=y): receivers treat the mail as unsigned", "remove t=y")
    if key_type == "rsa" and key.bits < STRONG_RSA_BITS:
        return finding(Mark.NOTE, f"{text}: too short", "make a key of 2048 bits: mailguard key new")
    return finding(Mark.OK, text)


def _key_type(record: bytes) -> str:
    """The type of key that a signature must want for this record; one that none wants is refused as rsa."""
    try:
        return "ed25519" if TagList.parse(record).get("k", b"rsa").lower() == b"ed25519" else "rsa"
    except TagListError:
        return "rsa"
