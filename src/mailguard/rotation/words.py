"""What is said of a generation: the stage it is in, what it waits for, and when. Pure."""

from __future__ import annotations

from mailguard.rotation.state import Generation, Stage
from mailguard.rotation.step import DAY_S, RotationRules, Seen

__all__ = ["next_step", "said_of"]


def said_of(generation: Generation, there: Seen, *, now: float, rules: RotationRules, is_forgotten: bool) -> str:
    """One line."""
    said = _said(generation, there, now, rules)
    if is_forgotten:
        said = "its records are gone, and it is forgotten"
    return f"{generation.name} ({generation.stage.value}): {said}"


def _said(generation: Generation, there: Seen, now: float, rules: RotationRules) -> str:
    lacking = "; ".join(there.lacking)
    match generation.stage:
        case Stage.CREATED:
            return f"publish its records; not yet there: {lacking or 'asked again at the next run'}"
        case Stage.PUBLISHED if rules.held:
            return f"every server has its records, but they do not sign yet: {rules.held}"
        case Stage.SWITCHING if lacking:
            return f"the daemon is to sign with it; servers that could not be asked: {lacking}"
        case Stage.SIGNING if lacking:
            return f"it signs, and its records are not on every server: {lacking}"
        case Stage.RETIRED if there.lost:
            return f"{_wait(generation, now)}; its records are needed and lacking: {'; '.join(there.lost)}"
    return _wait(generation, now)


def next_step(generation: Generation) -> str:
    """What comes next, without the time, which is `until`."""
    return {
        Stage.CREATED: "publish its records on every server",
        Stage.PUBLISHED: "it signs",
        Stage.SWITCHING: "the daemon says that it signs with it",
        Stage.SIGNING: "the next keys are made",
        Stage.RETIRED: "its records can be removed",
        Stage.REMOVABLE: "remove its records on every server",
    }[generation.stage]


def _wait(generation: Generation, now: float) -> str:
    left = _time((generation.until or now) - now)
    match generation.stage:
        case Stage.PUBLISHED:
            return f"every server has its records; it signs in {left}"
        case Stage.SIGNING:
            return f"it signs; the next keys are made in {left}"
        case Stage.RETIRED:
            return f"it signs no more; its records stay for {left}"
    return next_step(generation)


def _time(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds >= 2 * DAY_S:
        return f"{seconds / DAY_S:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
