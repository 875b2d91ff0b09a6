"""One step of a rotation: what has become of each generation, and what is to be done now. Pure.

It never signs with a key that a server of the zone does not publish, and keeps the records of one that signs no more
until the last of its signatures has expired (x=, RFC 6376 §3.5) and been forgotten by the caches.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mailguard.rotation.state import COMING, MAX_GENERATIONS, MAX_USED, Generation, Rotation, Stage

__all__ = [
    "CLOCK_SLACK_S",
    "DAY_S",
    "MAX_TTL_S",
    "MIN_KEEP_S",
    "OLD_WORKERS_S",
    "RotationRules",
    "Seen",
    "Step",
    "confirmed",
    "is_settled",
    "step",
    "with_loaded",
]

DAY_S = 86_400
# Workers of before a reload serve the sessions that they have for ten minutes at most; then the last message is sent.
OLD_WORKERS_S = 900
# A signature may be checked late: a queue keeps mail for five days. Also where signatures live shorter than that.
MIN_KEEP_S = 7 * DAY_S
# Caches keep nothing longer, whatever a record says.
MAX_TTL_S = 7 * DAY_S
MIN_TTL_S = 3_600
# A clock that was wrong by less than this is nobody's affair.
CLOCK_SLACK_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationRules:
    """When a generation moves on."""

    max_age_s: float
    """After so long a new generation is made."""
    lifetime_s: float
    """So long a signature is valid that is made now."""
    settle_s: float
    """So long all servers must have had the records before the keys sign."""
    held: str = ""
    """Why published keys must not sign yet, whatever the servers have."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the authoritative servers have of a generation."""

    lost: tuple[str, ...] = ()
    """Servers that answered, and not with what a verifier needs; and what they have."""
    silent: tuple[str, ...] = ()
    """Servers that could not be asked, and why."""
    is_gone: bool = False
    """All servers answered, and none has any of its keys."""
    is_revoked: bool = False
    """Where a server lost them, it says that they are revoked (RFC 6376 §3.6.1): somebody wants that."""
    ttl_s: float = 0
    other_ttl_s: float = 0
    """The longest that a cache may keep what a server has instead."""

    @property
    def lacking(self) -> tuple[str, ...]:
        return (*self.lost, *self.silent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows."""

    rotation: Rotation
    """To be kept before anything else is done."""
    makes_keys: bool = False
    """A new generation is due: its keys are to be made."""
    forgotten: tuple[Generation, ...] = ()
    """Of those in `rotation`: nobody has their records, so that the key files can go, and then they themselves."""
    notes: tuple[str, ...] = ()


def step(
    rotation: Rotation,
    seen: Sequence[Seen],
    *,
    now: float,
    rules: RotationRules,
    make_new: bool = False,
    discard: bool = False,
) -> Step:
    """Move each generation on as far as it can go; `seen` is of each, in their order.

    `make_new`: begin a new one whatever the age of the old. `discard`: give up the one that comes.
    """
    notes: list[str] = []
    moved: list[Generation] = []
    forgotten: list[Generation] = []
    for generation, there in zip(rotation.generations, seen, strict=True):
        each = _in_time(generation, now, notes)
        each = replace(
            each,
            ttl_s=max(each.ttl_s, min(there.ttl_s, MAX_TTL_S)),
            other_ttl_s=max(each.other_ttl_s, min(there.other_ttl_s, MAX_TTL_S)),
        )
        if discard and each.stage in COMING:
            each = _given_up(each, now)
        each = _dated(_moved(each, there, now, rules), rules)
        if each.stage is Stage.REMOVABLE and there.is_gone:
            forgotten.append(each)
        moved.append(each)
    result = replace(rotation, generations=tuple(moved))
    return Step(
        rotation=result,
        makes_keys=not discard and _is_due(result, forgotten, now, rules, notes, make_new=make_new),
        forgotten=tuple(forgotten),
        notes=tuple(notes),
    )


def confirmed(rotation: Rotation, *, now: float, rules: RotationRules) -> Rotation:
    """The daemon signs with the keys that it is to sign with: the ones before retire."""
    if not rotation.at(Stage.SWITCHING):
        return rotation
    after = {Stage.SWITCHING: Stage.SIGNING, Stage.SIGNING: Stage.RETIRED}
    moved = (
        replace(each, stage=after[each.stage], since=now) if each.stage in after else each
        for each in rotation.generations
    )
    return replace(rotation, generations=tuple(_dated(each, rules) for each in moved))


def is_settled(generation: Generation, there: Seen, *, now: float, rules: RotationRules) -> bool:
    """Whether its records are there, and that they were not is forgotten."""
    settle_s = max(_settle_s(generation, rules), min(there.ttl_s, DAY_S))
    return generation.stage is Stage.PUBLISHED and not there.lacking and now - generation.since >= settle_s


def with_loaded(rotation: Rotation, fingerprints: Collection[str], *, now: float, lifetime_s: float = 0) -> Rotation:
    """What the daemon signs with has not retired before now, whatever it was told; `lifetime_s` as it signs now."""

    def seen(generation: Generation) -> Generation:
        if not any(key.fingerprint in fingerprints for key in generation.keys):
            return generation
        generation = replace(generation, has_signed=True, lifetime_s=max(generation.lifetime_s, lifetime_s))
        if generation.stage in (Stage.RETIRED, Stage.REMOVABLE):
            return replace(generation, stage=Stage.RETIRED, since=now)
        return generation

    return replace(rotation, generations=tuple(map(seen, rotation.generations)))


def _in_time(generation: Generation, now: float, notes: list[str]) -> Generation:
    """A stage that began in the future began when the clock was wrong; its waiting begins again."""
    if generation.since <= now:
        return generation
    if generation.since > now + CLOCK_SLACK_S:
        notes.append(
            f"{generation.name}: its stage began in the future, by this clock; what it waits for begins again"
        )
    stage = Stage.RETIRED if generation.stage is Stage.REMOVABLE else generation.stage
    return replace(generation, stage=stage, since=now)


def _given_up(generation: Generation, now: float) -> Generation:
    return replace(generation, stage=Stage.RETIRED if generation.has_signed else Stage.REMOVABLE, since=now)


def _moved(generation: Generation, there: Seen, now: float, rules: RotationRules) -> Generation:
    match generation.stage:
        case Stage.CREATED if not there.lacking:
            return replace(generation, stage=Stage.PUBLISHED, since=now)
        case Stage.PUBLISHED if there.lacking:
            # A server was set back, a new one has come, or one is down: what follows waits from anew.
            return replace(generation, stage=Stage.CREATED, since=now)
        case Stage.PUBLISHED if is_settled(generation, there, now=now, rules=rules) and not rules.held:
            lifetime_s = max(generation.lifetime_s, rules.lifetime_s)
            return replace(generation, stage=Stage.SWITCHING, since=now, has_signed=True, lifetime_s=lifetime_s)
        case Stage.SWITCHING if there.lost:
            # The others are published still: back to them, before the world meets these.
            return replace(generation, stage=Stage.CREATED, since=now)
        case Stage.SWITCHING | Stage.SIGNING:
            return replace(generation, lifetime_s=max(generation.lifetime_s, rules.lifetime_s))
        case Stage.RETIRED if now >= _kept_until(generation) or _is_useless(generation, there, now):
            return replace(generation, stage=Stage.REMOVABLE, since=now)
    return generation


def _is_useless(generation: Generation, there: Seen, now: float) -> bool:
    """Revoked everywhere, and not what the daemon signs with at this moment."""
    return there.is_revoked and there.is_gone and generation.since < now


def _dated(generation: Generation, rules: RotationRules) -> Generation:
    match generation.stage:
        case Stage.PUBLISHED:
            until: float | None = generation.since + _settle_s(generation, rules)
        case Stage.SIGNING:
            until = generation.since + rules.max_age_s
        case Stage.RETIRED:
            until = _kept_until(generation)
        case _:
            until = None
    return replace(generation, until=until)


def _settle_s(generation: Generation, rules: RotationRules) -> float:
    # Who corrects a record leaves its time to live as it was; the wrong one may not have been seen here.
    return max(rules.settle_s, generation.other_ttl_s, min(generation.ttl_s, DAY_S))


def _kept_until(generation: Generation) -> float:
    life_s = max(generation.lifetime_s, MIN_KEEP_S) + OLD_WORKERS_S
    return generation.since + life_s + max(generation.ttl_s, MIN_TTL_S)


def _is_due(
    rotation: Rotation,
    forgotten: Sequence[Generation],
    now: float,
    rules: RotationRules,
    notes: list[str],
    *,
    make_new: bool,
) -> bool:
    if rotation.at(*COMING):
        if make_new:
            notes.append("no further keys are made while others are on their way")
        return False
    signing = rotation.at(Stage.SIGNING)
    if not make_new and signing and now - signing[-1].since < rules.max_age_s:
        return False
    if len(rotation.generations) - len(forgotten) >= MAX_GENERATIONS - 1:
        notes.append("no further keys are made: remove records of those that are removable first")
        return False
    # Names are used up in pairs.
    if len(rotation.used) > MAX_USED - 2:
        notes.append(f"no further keys are made: {MAX_USED} selectors have been used")
        return False
    return True
