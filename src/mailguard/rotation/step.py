"""One step of a rotation: what has become of each generation, and what is to be done now. Pure.

It never signs with a key that a server of the zone does not publish, and keeps the records of one that signs no more
until the last of its signatures has expired (x=, RFC 6376 §3.5) and been forgotten by the caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mailguard.rotation.state import Generation, Rotation, Stage

__all__ = ["RotationRules", "Seen", "Step", "step"]

DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationRules:
    """When a generation moves on."""

    max_age_s: float
    """After so long a new generation is made."""
    keep_s: float
    """For so long the records of retired keys stay: the life of a signature and of a cached record."""
    settle_s: float = 0.0
    """So long all servers must have had the records before the keys sign."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the authoritative servers have of a generation."""

    lacking: tuple[str, ...] = ()
    """Servers that do not have exactly its records, or did not answer, and why."""
    is_gone: bool = False
    """All servers answered, and none has any of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows."""

    rotation: Rotation
    """To be kept before anything else is done."""
    makes_keys: bool = False
    """A new generation is due: its keys are to be made."""
    switches: bool = False
    """Other keys sign now: the daemon has to read the file again."""
    forgotten: tuple[Generation, ...] = ()
    """Their records are gone: the key files can go too."""
    said: tuple[str, ...] = ()
    is_waiting: bool = False
    """Somebody has to publish, or to remove."""
    is_broken: bool = False
    """Keys sign that not every server publishes."""


def step(
    rotation: Rotation,
    seen: Sequence[Seen],
    *,
    now: float,
    rules: RotationRules,
    make_new: bool = False,
) -> Step:
    """Move each generation on as far as it can go; `seen` is of each, in their order.

    `make_new`: begin a new one whatever the age of the old.
    """
    said: list[str] = []
    kept: list[Generation] = []
    forgotten: list[Generation] = []
    is_broken = False
    for generation, there in zip(rotation.generations, seen, strict=True):
        each = _moved(generation, there, now, rules)
        is_broken |= each.stage is Stage.SIGNING and bool(there.lacking)
        if each.stage is Stage.REMOVABLE and there.is_gone:
            forgotten.append(each)
        else:
            kept.append(each)
        said.append(_said(each, there, now, rules, is_forgotten=each in forgotten))
    ready = [each for each in kept if each.stage is Stage.PUBLISHED and now - each.since >= rules.settle_s]
    if ready:
        kept = [_after_switch(each, ready[-1], now) for each in kept]
        said.append(f"{ready[-1].name}: signs from now on")
    return Step(
        rotation=replace(rotation, generations=tuple(kept)),
        makes_keys=_is_due(kept, now, rules, make_new=make_new),
        switches=bool(ready),
        forgotten=tuple(forgotten),
        said=tuple(filter(None, said)),
        is_waiting=any(each.stage in (Stage.CREATED, Stage.REMOVABLE) for each in kept),
        is_broken=is_broken,
    )


def _moved(generation: Generation, there: Seen, now: float, rules: RotationRules) -> Generation:
    match generation.stage:
        case Stage.CREATED if not there.lacking:
            return replace(generation, stage=Stage.PUBLISHED, since=now)
        case Stage.PUBLISHED if there.lacking:
            # A server was set back, or a new one has come: begin again.
            return replace(generation, stage=Stage.CREATED, since=now)
        case Stage.RETIRED if now - generation.since >= rules.keep_s:
            return replace(generation, stage=Stage.REMOVABLE, since=now)
    return generation


def _after_switch(generation: Generation, newest: Generation, now: float) -> Generation:
    if generation is newest:
        return replace(generation, stage=Stage.SIGNING, since=now)
    if generation.stage in (Stage.SIGNING, Stage.PUBLISHED):
        return replace(generation, stage=Stage.RETIRED, since=now)
    return generation


def _is_due(generations: Sequence[Generation], now: float, rules: RotationRules, *, make_new: bool) -> bool:
    if any(each.stage in (Stage.CREATED, Stage.PUBLISHED) for each in generations):
        return False  # one is on its way
    signing = [each for each in generations if each.stage is Stage.SIGNING]
    return make_new or not signing or now - signing[-1].since >= rules.max_age_s


def _said(generation: Generation, there: Seen, now: float, rules: RotationRules, *, is_forgotten: bool) -> str:
    name, lacking = generation.name, "; ".join(there.lacking)
    left_s = generation.since - now
    match generation.stage:
        case Stage.CREATED:
            return f"{name}: publish its records; not yet there: {lacking}"
        case Stage.PUBLISHED if rules.settle_s > -left_s:
            return f"{name}: every server has its records; it signs in {_time(left_s + rules.settle_s)}"
        case Stage.SIGNING if lacking:
            return f"{name} signs, and its records are not on every server: {lacking}"
        case Stage.SIGNING:
            return f"{name}: signs; the next generation is due in {_time(left_s + rules.max_age_s)}"
        case Stage.RETIRED:
            return f"{name}: signs no more; keep its records for {_time(left_s + rules.keep_s)}"
        case Stage.REMOVABLE:
            return f"{name}: its records are gone" if is_forgotten else f"{name}: remove its records from the DNS"
    return ""


def _time(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds / DAY_S:.0f} days" if seconds >= 2 * DAY_S else f"{seconds / 3600:.0f} hours"
