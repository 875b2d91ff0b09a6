"""What is said of a generation: the stage it is in, what it waits for, and when. Pure."""

from __future__ import annotations

from mailguard.rotation.state import Generation, Stage
from mailguard.rotation.step import DAY_S, RotationRules, Seen

__all__ = ["UNASKED", "next_step", "record_note", "said_of"]


# What a server that does not answer stands in the way of, and how it gets out of it.
UNASKED = "each must answer this host, or no longer be a name server of the zone"


def said_of(
    generation: Generation,
    there: Seen,
    *,
    now: float,
    rules: RotationRules,
    is_forgotten: bool,
    is_followed: bool = False,
) -> str:
    """One line. `is_followed`: the next keys are there."""
    said = _said(generation, there, now, rules, is_followed)
    if is_forgotten:
        said = f"its records are {'revoked' if there.is_revoked else 'gone'}, and it is forgotten"
    return f"{generation.name} ({generation.stage.value}): {said}"


def _said(generation: Generation, there: Seen, now: float, rules: RotationRules, is_followed: bool) -> str:
    lacking = "; ".join(there.lacking)
    silent = f"could not be asked: {'; '.join(there.silent)}; {UNASKED}"
    match generation.stage:
        case Stage.CREATED if there.silent and not there.lost:
            return f"it waits for its records to be on every server; {silent}"
        case Stage.CREATED:
            lost = "; ".join(there.lost) or "asked again at the next run"
            also = f"; {silent}" if there.silent else ""
            return f"publish its records, then run this again; not yet there: {lost}{also}"
        case Stage.PUBLISHED if lacking:
            return f"it does not sign yet; {silent}"
        case Stage.PUBLISHED if rules.held:
            return f"every server has its records, but they do not sign yet: {rules.held}"
        case Stage.SWITCHING if lacking:
            return f"the daemon is to sign with it; {silent}"
        case Stage.SIGNING if there.is_revoked:
            return f"it signs, and is revoked: make others with --new: {lacking}"
        case Stage.SIGNING if lacking:
            if not there.lost:
                return f"it signs; {silent}"
            return f"it signs, and its records are not on every server: {lacking}"
        case Stage.RETIRED if there.is_revoked:
            return f"it signs no more; it is forgotten when every server has it revoked: {lacking}"
        case Stage.RETIRED if there.lost:
            return f"{_wait(generation, now)}; its records are needed and lacking: {'; '.join(there.lost)}"
        case Stage.SIGNING if is_followed:
            return f"it signs; {next_step(generation, is_followed=True)}"
    return _wait(generation, now)


def next_step(generation: Generation, *, is_followed: bool = False) -> str:
    """What comes next, without the time, which is `until`; of the one that signs that is none if it `is_followed`."""
    if generation.stage is Stage.SIGNING and is_followed:
        return "the keys that come take its place"
    return {
        Stage.CREATED: "publish its records on every server",
        Stage.PUBLISHED: "it signs",
        Stage.SWITCHING: "it signs when the daemon says that it does",
        Stage.SIGNING: "the next keys are made",
        Stage.RETIRED: "its records can be removed",
        Stage.REMOVABLE: "remove its records on every server",
    }[generation.stage]


def record_note(generation: Generation, until: str) -> str:
    """What who publishes a record should know of the key, or empty; `until` as a date."""
    match generation.stage:
        case Stage.CREATED | Stage.PUBLISHED:
            return "it does not sign yet"
        case Stage.SWITCHING:
            return "it is about to sign"
        case Stage.RETIRED:
            return f"it signs no more; mail on its way needs this record until {until}"
        case Stage.REMOVABLE:
            return "nobody needs this record any more"
    return ""


def _wait(generation: Generation, now: float) -> str:
    left = _time((generation.until or now) - now)
    match generation.stage:
        case Stage.PUBLISHED:
            return f"every server has its records; it can sign in {left}, when this is run again"
        case Stage.SIGNING:
            return f"it signs; the next keys are {'due' if left == _time(0) else f'made in {left}'}"
        case Stage.RETIRED:
            return f"it signs no more; its records stay for {left}"
        case Stage.REMOVABLE:
            return f"{next_step(generation)}, then run this again"
    return next_step(generation)


def _time(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds >= 2 * DAY_S:
        return f"{seconds / DAY_S:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
