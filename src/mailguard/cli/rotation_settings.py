"""Settings: what `mailguard key rotate` was told, for all domains of one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mailguard.cli.key_files import Owner
from mailguard.cli.key_use import KeyUse
from mailguard.config import Config

__all__ = ["Settings", "date_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command was told."""

    config: Config
    key_use: KeyUse
    config_file: str
    key_directory: str
    owner: Owner | None
    max_age_s: float
    settle_s: float
    now: float
    """When the command began, POSIX seconds."""
    clock: Callable[[], float]
    """The same as it is now."""
    reload_command: str
    make_new: bool = False
    adopt: bool = False
    begin: bool = False
    discard: bool = False
    clock_is_right: bool = False
    is_dry: bool = False
    is_one_of_many: bool = False
    """With --all."""
    silences: dict[str, int] = field(default_factory=dict)
    """Which servers were silent, and for how many domains one after the other."""


def date_of(at: float) -> str:
    """A time of a state, as it is shown."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")
