"""How each DKIM signature came out, with the key that was asked for (RFC 6376). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from mailguard.dkim.result import DkimResult
from mailguard.dkim.signature import key_name
from mailguard.dns.question import Answer, Question, RecordType
from mailguard.explain.advice import Names
from mailguard.explain.answer_text import answer_text
from mailguard.explain.check_advice import DKIM, DKIM_UNSIGNED
from mailguard.explain.explanation import Explanation, octets_text

__all__ = ["dkim_nodes", "signature_names"]

# Of the key itself the beginning is enough to tell it from another; what stands around it is shown.
MAX_RECORD_CHARS = 300
# At one selector there should be one record (RFC 6376 §3.6.2.2).
MAX_SHOWN_RECORDS = 4

_KEY = re.compile(r"[A-Za-z0-9+/]{40,}=*")
KEY_CHARS = 12

Known = Mapping[Question, Answer]


def dkim_nodes(
    results: Sequence[DkimResult], ignored: int, answers: Known, *, author: str | None
) -> tuple[Explanation, ...]:
    """A node for each signature, or one that says that there is none. `ignored` were not verified."""
    nodes = [_node(number, result, answers) for number, result in enumerate(results, 1)]
    if ignored:
        nodes.append(Explanation(title="DKIM", status="not verified", detail=f"{ignored} further signatures"))
    if not nodes:
        advice = DKIM_UNSIGNED.text(Names(author=author)) if author else ""
        nodes.append(Explanation("DKIM", "none", detail=_sentence(DKIM_UNSIGNED.meaning), advice=advice))
    return tuple(nodes)


def signature_names(result: DkimResult) -> Names:
    """What an advice about the signature can name."""
    known = {"domain": result.domain, "selector": result.selector}
    return Names(**{name: value for name, value in known.items() if value})


def _node(number: int, result: DkimResult, answers: Known) -> Explanation:
    return Explanation(
        title=f"DKIM signature {number}",
        status=result.status.value,
        reason=result.reason.value,
        detail=result.detail,
        advice=DKIM[result.reason].text(signature_names(result)),
        facts=tuple(_facts(result, answers)),
    )


def _facts(result: DkimResult, answers: Known) -> Iterator[tuple[str, str]]:
    tags = (("d", result.domain), ("s", result.selector), ("i", result.identity), ("a", result.algorithm))
    yield from ((name, value) for name, value in tags if value)
    if result.signature_prefix:
        yield "b", f"{result.signature_prefix}..."
    if result.domain is not None and result.selector is not None:
        name = key_name(result.selector, result.domain)
        yield "key asked for at", name
        yield from _key_facts(answers.get(Question(name, RecordType.TXT)))
    if result.key_bits is not None:
        yield "key size", f"{result.key_bits} bits"
    if result.testing:
        # RFC 6376 §3.6.1: no more and no less than if the message were unsigned.
        yield "testing", "the key has t=y, so that a pass does not count"


def _key_facts(answer: Answer | None) -> Iterator[tuple[str, str]]:
    if answer is None:
        return
    for text in answer.texts()[:MAX_SHOWN_RECORDS]:
        shown = _KEY.sub(lambda key: f"{key[0][:KEY_CHARS]}...", octets_text(text))
        yield "key record", shown if len(shown) <= MAX_RECORD_CHARS else f"{shown[:MAX_RECORD_CHARS]}..."
    if len(answer.texts()) != 1:
        yield "there", answer_text(answer)


def _sentence(meaning: str) -> str:
    return meaning[0].lower() + meaning[1:].rstrip(".")
