"""The DKIM keys of a domain: whether each can be used, how strong it is, in testing or revoked (RFC 6376 §3.6.1).

The DNS cannot be asked which selectors there are: they are given, or found in the configuration. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailguard.dkim.key import KeyRecord, KeyRecordError
from mailguard.dkim.result import DkimReason
from mailguard.dkim.signature import key_name
from mailguard.dns.answers import Answers
from mailguard.dns.question import Answer, Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import TagListError
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.scorecard.card import Mark, card, finding
from mailguard.taglist import TagList

__all__ = ["ONE_RECORD", "dkim_card", "is_in_pieces", "misplaced_at", "wrong_places"]

# RFC 8301 §3.2: signers use at least 2048 bits.
STRONG_RSA_BITS = 2048
_KEY = b"p="
# How a record begins as every program prints it.
_MEANT = b"v=DKIM1"
# RFC 6376 §3.6.2.2: the strings of one record are put together, records are not.
ONE_RECORD = "a long key is one record of several strings"
MAX_SHOWN_TEXTS = 4


def is_in_pieces(texts: Sequence[bytes]) -> bool:
    """Whether what should be one key record stands in several TXT records, as far as these show."""
    return len(texts) > 1 and any(_KEY not in text for text in texts)


def wrong_places(selector: str, domain: Domain) -> list[Question]:
    """Where people leave a key record: a relative name that has the domain twice, and one without "_domainkey"."""
    places = (f"{key_name(selector, domain)}.{domain}", f"{selector}.{domain}")
    return [Question(name, RecordType.TXT) for name in places if len(name) <= MAX_DOMAIN_CHARS]


def misplaced_at(elsewhere: Iterable[Answer]) -> str:
    """The first of these places at which a key record stands; empty if there is none."""
    names = (str(each.question.name) for each in elsewhere if any(_MEANT in text for text in each.texts()))
    return next(names, "")


def dkim_card(domain: Domain, selectors: Sequence[str], answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    if not selectors:
        found = [finding(Mark.NOTE, "no selector is known", "name those that you sign with: --selector NAME")]
        return card("DKIM", found)
    questions = {selector: Question(key_name(selector, domain), RecordType.TXT) for selector in selectors}
    answers.need(questions.values())
    found = [_key(domain, selector, question, answers) for selector, question in questions.items()]
    shown = [
        node
        for each, question in zip(found, questions.values(), strict=True)
        for node in _texts(each, question, answers)
    ]
    return card("DKIM", found, others=shown)


def _texts(found: Explanation, question: Question, answers: Answers) -> list[Explanation]:
    """What stands there, for who has to repair it."""
    if found.title != Mark.PROBLEM.value:
        return []
    texts = answers.get(question).texts()[:MAX_SHOWN_TEXTS]
    return [Explanation(title=question.name, detail=octets_text(text)) for text in texts]


def _key(domain: Domain, selector: str, question: Question, answers: Answers) -> Explanation:
    answer = answers.get(question)
    if answer.has_failed:
        return finding(Mark.UNKNOWN, f"{selector}: {answer.detail or 'the DNS did not answer'}")
    texts = answer.texts()
    if not texts:
        return _missing(domain, selector, question, answers)
    if is_in_pieces(texts):
        detail = f"{selector}: {len(texts)} records, and not all have a p=: {ONE_RECORD}"
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


def _missing(domain: Domain, selector: str, question: Question, answers: Answers) -> Explanation:
    places = wrong_places(selector, domain)
    answers.need(places)
    if name := misplaced_at(map(answers.get, places)):
        detail = f"{selector}: the record stands at {name}, and belongs at {question.name}"
        return finding(Mark.PROBLEM, detail, "move it; many forms add the domain to the name by themselves")
    advice = "publish it (mailguard dns prints it), or do not sign with it"
    return finding(Mark.PROBLEM, f"{selector}: {question.name} has no record", advice)


def _key_type(record: bytes) -> str:
    """The type of key that a signature must want for this record; one that none wants is refused as rsa."""
    try:
        return "ed25519" if TagList.parse(record).get("k", b"rsa").lower() == b"ed25519" else "rsa"
    except TagListError:
        return "rsa"
