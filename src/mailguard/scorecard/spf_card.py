"""SPF of a domain: its record with all that it includes, the look-ups against their limits, and what is too wide.

RFC 7208 §4.6.4 (limits), RFC 7208 §5 (mechanisms). What macros name hangs on the message and is not followed. Pure:
what it asks comes from `Answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.scorecard.card import Mark, card, finding
from mailguard.spf.limits import MAX_HOSTS, MAX_TERMS, MAX_VOIDS
from mailguard.spf.names import target_name
from mailguard.spf.record import Published, Record, Term
from mailguard.spf.result import SpfStatus

__all__ = ["spf_card"]

# Twice what is allowed is enough to say by how much a record is too long.
MAX_FOLLOWED = 3 * MAX_TERMS
# A network of this size is nobody's own mail servers.
WIDE_IP4_PREFIX = 16
WIDE_IP6_PREFIX = 32


@dataclass(slots=True)
class _Walk:
    """What was found on the way through the records."""

    answers: Answers
    found: list[Explanation] = field(default_factory=list)
    looked_up: int = 0
    voids: int = 0
    followed: int = 0

    def note(self, mark: Mark, detail: str, advice: str = "") -> None:
        self.found.append(finding(mark, detail, advice))


def spf_card(domain: Domain, answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    walk = _Walk(answers)
    trees = list(_visit(walk, domain, (), is_own=True))
    facts: list[tuple[str, str]] = []
    if trees:
        facts = [("look-ups", f"{walk.looked_up} of {MAX_TERMS}"), ("voids", f"{walk.voids} of {MAX_VOIDS}")]
    if walk.looked_up > MAX_TERMS:
        advice = "list addresses (ip4, ip6) in place of names, and remove what does not send any more"
        detail = f"it needs {walk.looked_up} look-ups, and {MAX_TERMS} are allowed: receivers answer permerror"
        walk.note(Mark.PROBLEM, detail, advice)
    if walk.voids > MAX_VOIDS:
        detail = f"{walk.voids} of its names do not exist or have no address; {MAX_VOIDS} may"
        walk.note(Mark.PROBLEM, detail, "remove them")
    return card("SPF", walk.found, facts=facts, others=trees)


def _visit(walk: _Walk, name: str, above: tuple[str, ...], *, is_own: bool) -> Iterator[Explanation]:
    """The record at `name` as a node, with those that it includes."""
    answer = walk.answers.get(Question(name, RecordType.TXT))
    if answer.status in (Status.TEMPFAIL, Status.BOGUS):
        walk.note(Mark.UNKNOWN, f"{name}: {answer.detail or 'the DNS did not answer'}")
        return
    published = Published.of(answer)
    if not published.texts:
        if is_own:
            walk.note(Mark.PROBLEM, f"{name} has no SPF record", "mailguard dns prints one to publish")
        else:
            walk.note(Mark.PROBLEM, f"{name}, which is included, has no SPF record", "remove the include")
        return
    if len(published.texts) > 1:
        walk.note(Mark.PROBLEM, f"{name} has {len(published.texts)} SPF records: they count as none", "leave one")
        return
    record = published.record
    if record is None:
        walk.note(Mark.PROBLEM, f"the record of {name} is not valid: {published.fault or 'it is too long'}")
        return
    targets = [target_name(term.spec.text) for term in record.terms if term.spec is not None and term.spec.is_literal]
    walk.answers.want([Question(target, RecordType.TXT) for target in targets[:MAX_TERMS] if target])
    # Only what the domain itself says of "all" counts; included records are asked only whether they pass.
    if is_own:
        _note_end(walk, name, record)
    children = [child for term in record.terms for child in _term(walk, name, term, (*above, name))]
    if record.redirect is not None:
        children += _follow(walk, "redirect", record.redirect.text, (*above, name), is_own=is_own)
    yield Explanation(title=name, detail=octets_text(published.texts[0]), children=tuple(children))


def _note_end(walk: _Walk, name: str, record: Record) -> None:
    last = record.terms[-1] if record.terms else None
    if last is None or last.mechanism != "all":
        if record.redirect is None:
            walk.note(Mark.NOTE, f"the record of {name} says nothing of all other hosts", "end it with ~all or -all")
    elif last.status is SpfStatus.PASS:
        walk.note(Mark.PROBLEM, f"{last.text}: everybody may send for {name}", "end it with ~all or -all")
    elif last.status is SpfStatus.NEUTRAL:
        walk.note(Mark.NOTE, f"{last.text}: nothing is said of all other hosts", "end it with ~all or -all")


def _term(walk: _Walk, name: str, term: Term, above: tuple[str, ...]) -> Iterator[Explanation]:
    target = name if term.spec is None else target_name(term.spec.text) if term.spec.is_literal else ""
    walk.looked_up += term.looks_up
    match term.mechanism:
        case "include":
            walk.looked_up -= 1  # counted when it is followed
            yield from _follow(walk, "include", term.spec.text if term.spec is not None else "", above, is_own=False)
        case "a" | "mx" if target:
            _note_hosts(walk, term, target)
        case "ptr":
            walk.note(Mark.NOTE, f"{term.text}: ptr is slow and not reliable", "list addresses instead")
        case "ip4" | "ip6" if term.status is SpfStatus.PASS:
            _note_width(walk, term)


def _follow(walk: _Walk, kind: str, text: str, above: tuple[str, ...], *, is_own: bool) -> Iterator[Explanation]:
    walk.looked_up += 1
    walk.followed += 1
    target = target_name(text) if "%" not in text else ""
    if not target:
        yield Explanation(title=f"{kind}: {text}", detail="what it names hangs on the message")
    elif target in above:
        walk.note(Mark.PROBLEM, f"{kind}: {target} leads back to itself", "remove it")
    elif walk.followed <= MAX_FOLLOWED:
        yield from _visit(walk, target, above, is_own=is_own)


def _note_hosts(walk: _Walk, term: Term, target: str) -> None:
    if term.mechanism == "mx":
        answer = walk.answers.get(Question(target, RecordType.MX))
        names = [mx.exchange for mx in answer.exchanges() if mx.exchange]
        if len(names) > MAX_HOSTS:
            walk.note(Mark.PROBLEM, f"{term.text}: {target} has {len(names)} mail hosts; {MAX_HOSTS} are allowed")
        is_void = answer.status in (Status.NXDOMAIN, Status.NODATA)
    else:
        questions = [Question(target, RecordType.A), Question(target, RecordType.AAAA)]
        walk.answers.need(questions)
        statuses = {walk.answers.get(question).status for question in questions}
        is_void = statuses <= {Status.NXDOMAIN, Status.NODATA}
    if is_void:
        walk.voids += 1
        walk.note(Mark.NOTE, f"{term.text}: {target} has no such record", "remove it")


def _note_width(walk: _Walk, term: Term) -> None:
    is_ip4 = term.mechanism == "ip4"
    prefix, wide = (term.prefix4, WIDE_IP4_PREFIX) if is_ip4 else (term.prefix6, WIDE_IP6_PREFIX)
    if prefix < wide:
        mark = Mark.PROBLEM if prefix <= wide // 2 else Mark.NOTE
        walk.note(mark, f"{term.text}: so many addresses are not your own servers", "list those that send")
