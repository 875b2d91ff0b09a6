"""SPF of a domain: its record with all that it includes, the look-ups against their limits, and what is too wide.

RFC 7208 §4.6.4 (limits), RFC 7208 §5 (mechanisms). What macros name hangs on the message and is not followed. Pure:
what it asks comes from `Answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mailguard.dns.answers import Answers
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.scorecard.card import Mark, card, finding
from mailguard.scorecard.spf_width import is_rather_wide, is_too_wide
from mailguard.spf.limits import MAX_HOSTS, MAX_TERMS, MAX_VOIDS
from mailguard.spf.names import target_name
from mailguard.spf.record import Published, Record, Term
from mailguard.spf.result import SpfStatus

__all__ = ["spf_card"]

# Enough to say by how much a record is too long.
MAX_FOLLOWED = 3 * MAX_TERMS

# What a term asks for at its own name: by address family for "a" (RFC 7208 §5.3), and always for A records for
# "exists" (RFC 7208 §5.7).
_ASKED = {
    "include": (RecordType.TXT,),
    "a": (RecordType.A, RecordType.AAAA),
    "mx": (RecordType.MX,),
    "exists": (RecordType.A,),
}
_VOID = frozenset({Status.NXDOMAIN, Status.NODATA})
# What somebody writes who means an SPF record.
_MEANT = b"spf1"
MAX_SHOWN_TEXTS = 4
SYNTAX = (
    "write ip4:ADDRESS or ip6:ADDRESS for an address, a:HOST, mx:DOMAIN or include:DOMAIN for a name, and one space"
    " between two terms"
)


@dataclass(slots=True)
class _Walk:
    """What was found on the way through the records."""

    domain: Domain
    answers: Answers
    found: list[Explanation] = field(default_factory=list)
    looked_up: int = 0
    voids: dict[str, int] = field(default_factory=lambda: {"IPv4": 0, "IPv6": 0})
    """RFC 7208 §4.6.4: terms that look up what does not exist, for clients of each kind."""
    followed: int = 0

    def note(self, mark: Mark, detail: str, advice: str = "") -> None:
        self.found.append(finding(mark, detail, advice))

    def count_voids(self, for_ip4: Answer, for_ip6: Answer) -> bool:
        """Whether both are void: the name leads nowhere for everybody."""
        is_void = [answer.status in _VOID for answer in (for_ip4, for_ip6)]
        for family, each in zip(self.voids, is_void, strict=True):
            self.voids[family] += each
        return all(is_void)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the tree a record stands."""

    above: tuple[str, ...] = ()
    is_own: bool = True
    """The domain's own record, or that of a redirect, whose "all" is the domain's."""
    is_passing: bool = True
    """Whether who passes there passes for the domain: not so below an include with "-", "~" or "?"."""


def spf_card(domain: Domain, answers: Answers) -> Explanation:
    """Raises Unanswered while an answer is missing."""
    walk = _Walk(domain, answers)
    trees = list(_visit(walk, domain, _Place(), answers.get(Question(domain, RecordType.TXT))))
    facts: list[tuple[str, str]] = []
    most = max(walk.voids.values())
    if trees:
        facts = [("look-ups", f"{walk.looked_up} of {MAX_TERMS}"), ("voids", f"{most} of {MAX_VOIDS}")]
    if walk.looked_up > MAX_TERMS:
        advice = "list addresses (ip4, ip6) in place of names, and remove what does not send any more"
        detail = f"it needs {walk.looked_up} look-ups, and {MAX_TERMS} are allowed: receivers answer permerror"
        walk.note(Mark.PROBLEM, detail, advice)
    if most > MAX_VOIDS:
        who = [family for family, count in walk.voids.items() if count > MAX_VOIDS]
        whom = f", for clients with {who[0]}" if len(who) == 1 else ""
        detail = f"{most} of its names do not exist or have no address{whom}; {MAX_VOIDS} may"
        walk.note(Mark.PROBLEM, detail, "remove them, or list addresses (ip4, ip6) in their place")
    return card("SPF", walk.found, facts=facts, others=trees)


def _visit(walk: _Walk, name: str, place: _Place, answer: Answer) -> Iterator[Explanation]:
    """The record at `name` as a node, with those that it includes."""
    if _is_unknown(walk, name, answer):
        return
    published = Published.of(answer)
    if not published.texts:
        for text in [text for text in answer.texts() if _MEANT in text.lower()][:MAX_SHOWN_TEXTS]:
            # RFC 7208 §4.5: "v=spf1" is the very beginning, and a space or nothing follows.
            detail = f"{name} has a text that is no SPF record: {octets_text(text)}"
            walk.note(Mark.PROBLEM, detail, "let it begin with v=spf1 and a space")
        if place.is_own and not place.above:
            walk.note(Mark.PROBLEM, *_missing(walk.domain, walk.answers))
        elif place.is_own:
            detail = f"{name} has no SPF record to redirect to: receivers answer permerror"
            walk.note(Mark.PROBLEM, detail, "remove the redirect, and end the record with ~all or -all")
        else:
            walk.note(Mark.PROBLEM, f"{name}, which is included, has no SPF record", "remove the include")
        return
    if len(published.texts) > 1:
        # RFC 7208 §4.5.
        shown = " and ".join(map(octets_text, published.texts[:MAX_SHOWN_TEXTS]))
        detail = f"{name} has {len(published.texts)} SPF records: receivers answer permerror: {shown}"
        walk.note(Mark.PROBLEM, detail, "leave one, with the terms of all of them")
        return
    record = published.record
    if record is None:
        fault = published.fault or "it is too long"
        detail = f"the record of {name} is not valid: {fault}: {octets_text(published.texts[0])}"
        walk.note(Mark.PROBLEM, detail, SYNTAX if place.is_own else "remove the include, or tell its owner")
        return
    # All at once: each round of look-ups begins the whole card again.
    walk.answers.need(list(dict.fromkeys(_questions(name, record)))[:MAX_FOLLOWED])
    _note_end(walk, name, record, place)
    _note_unreached(walk, name, published.texts[0], record, place)
    inner = _Place((*place.above, name), is_own=False, is_passing=place.is_passing)
    children = [child for term in record.terms for child in _term(walk, name, term, inner)]
    if record.redirect is not None:
        redirected = _Place(inner.above, is_own=place.is_own, is_passing=place.is_passing)
        children += _follow(walk, "redirect", record.redirect.text, redirected)
    yield Explanation(title=name, detail=octets_text(published.texts[0]), children=tuple(children))


def _missing(domain: Domain, answers: Answers) -> tuple[str, str]:
    """A relative name that has the domain twice is where people leave it."""
    place = f"{domain}.{domain}"
    if len(place) <= MAX_DOMAIN_CHARS and Published.of(answers.get(Question(place, RecordType.TXT))).texts:
        return f"the SPF record stands at {place}, and belongs at {domain}", "move it: in most forms its name is @"
    return f"{domain} has no SPF record", "mailguard dns prints one to publish"


def _questions(name: str, record: Record) -> Iterator[Question]:
    for term in record.terms:
        if target := _target(name, term):
            yield from (Question(target, rdtype) for rdtype in _ASKED.get(term.mechanism, ()))


def _target(name: str, term: Term) -> str:
    """Empty for a name that hangs on the message."""
    if term.spec is None:
        return name
    return target_name(term.spec.text) if term.spec.is_literal else ""


def _is_unknown(walk: _Walk, what: str, answer: Answer) -> bool:
    if not answer.has_failed:
        return False
    walk.note(Mark.UNKNOWN, f"{what}: {answer.detail or 'the DNS did not answer'}")
    return True


def _note_end(walk: _Walk, name: str, record: Record, place: _Place) -> None:
    last = record.terms[-1] if record.terms else None
    if last is not None and last.mechanism == "all" and last.status is SpfStatus.PASS:
        # RFC 7208 §5.2: an include matches where the included record passes.
        if place.is_own:
            walk.note(Mark.PROBLEM, f"{last.text}: everybody may send for {name}", "end it with ~all or -all")
        elif place.is_passing:
            detail = f"{name}, which is included, ends with {last.text}: everybody may send for {walk.domain}"
            walk.note(Mark.PROBLEM, detail, "remove the include")
    elif not place.is_own:
        return  # an included record is asked only whether it passes
    elif last is None or last.mechanism != "all":
        if record.redirect is None:
            walk.note(Mark.NOTE, f"the record of {name} says nothing of all other hosts", "end it with ~all or -all")
    elif last.status is SpfStatus.NEUTRAL:
        walk.note(Mark.NOTE, f"{last.text}: nothing is said of all other hosts", "end it with ~all or -all")


def _note_unreached(walk: _Walk, name: str, text: bytes, record: Record, place: _Place) -> None:
    """RFC 7208 §5.1: "all" always matches. Whoever is listed behind it is not listed."""
    last = record.terms[-1] if record.terms else None
    if last is None or last.mechanism != "all":
        return
    words = text.decode("ascii").split()
    behind = words[words.index(last.text) + 1 :]
    ignored = [word for word in behind if "=" not in word or word.lower().startswith("redirect=")]
    if ignored:
        mark = Mark.PROBLEM if place.is_own else Mark.NOTE
        detail = f"{ignored[0]}: it stands behind {last.text} in the record of {name}, and is never looked at"
        walk.note(mark, detail, f"put what is behind {last.text} in front of it, or remove it")


def _term(walk: _Walk, name: str, term: Term, place: _Place) -> Iterator[Explanation]:
    """`place` is that of a record which `term` would include."""
    if term.mechanism == "include":
        passing = place.is_passing and term.status is SpfStatus.PASS
        text = term.spec.text if term.spec is not None else ""
        yield from _follow(walk, "include", text, _Place(place.above, is_own=False, is_passing=passing))
        return
    walk.looked_up += term.looks_up
    if walk.looked_up > MAX_FOLLOWED:
        return
    has_hosts = True
    match term.mechanism:
        case "a" | "mx" | "exists" if target := _target(name, term):
            has_hosts = _has_records(walk, term, target, place)
        case "ptr":
            walk.note(Mark.NOTE, f"{term.text}: ptr is slow and not reliable", "list addresses instead")
    if has_hosts and place.is_passing and is_rather_wide(term):
        mark = Mark.PROBLEM if is_too_wide(term) else Mark.NOTE
        walk.note(mark, f"{term.text}: so many addresses are not your own servers", "list those that send")


def _follow(walk: _Walk, kind: str, text: str, place: _Place) -> Iterator[Explanation]:
    walk.looked_up += 1
    walk.followed += 1
    target = target_name(text) if "%" not in text else ""
    if not target:
        yield Explanation(title=f"{kind}: {text}", detail="what it names hangs on the message")
    elif target in place.above:
        walk.note(Mark.PROBLEM, f"{kind}: {target} leads back to itself", "remove it")
    elif walk.followed <= MAX_FOLLOWED:
        answer = walk.answers.get(Question(target, RecordType.TXT))
        walk.count_voids(answer, answer)
        yield from _visit(walk, target, place, answer)


def _has_records(walk: _Walk, term: Term, target: str, place: _Place) -> bool:
    """Whether there is something at the name that can match."""
    answers = [walk.answers.get(Question(target, rdtype)) for rdtype in _ASKED[term.mechanism]]
    if any(_is_unknown(walk, f"{term.text}: {answer.question}", answer) for answer in answers):
        return False
    if walk.count_voids(answers[0], answers[-1]):
        walk.note(Mark.NOTE, f"{term.text}: {target} has no such record", "remove it")
        return False
    if term.mechanism == "mx":
        names = [mx.exchange for mx in answers[0].exchanges() if mx.exchange]
        if len(names) > MAX_HOSTS:
            walk.note(Mark.PROBLEM, f"{term.text}: {target} has {len(names)} mail hosts; {MAX_HOSTS} are allowed")
        return bool(names)
    if term.mechanism == "exists" and term.status is SpfStatus.PASS and place.is_passing:
        # RFC 7208 §5.7: it matches whoever sends, as long as the name has an address.
        detail = f"{term.text}: {target} has an address: everybody may send for {walk.domain}"
        walk.note(Mark.PROBLEM, detail, "remove it, or name what hangs on the message (%{i})")
    return True
