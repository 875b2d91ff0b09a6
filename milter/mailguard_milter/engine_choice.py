"""Which engine a configuration names. Only that one is imported, so that the other's dependencies may be absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mailguard.errors import MissingExtraError, install_command
from mailguard_milter.engine import Engine, Surroundings

if TYPE_CHECKING:
    from mailguard.config import Config

__all__ = ["engine_class", "load"]


def engine_class(config: Config) -> Callable[[Surroundings], Engine]:
    """What makes the engine. Raises MissingExtraError."""
    if config.engine == "native":
        from mailguard_milter import engine_native

        return engine_native.Engine
    from mailguard_milter import engine_libmilter

    return engine_libmilter.Engine


def load(path: str) -> Config:
    """The configuration in `path`, whose engine can be had. Raises ConfigError or MissingExtraError."""
    try:
        from mailguard import config as configuration
    except MissingExtraError:
        raise MissingExtraError(
            f"the milter daemon needs one of two extras: {install_command('native')}, with engine ="
            f' "native" in the configuration; or {install_command("milter")}, after libmilter-dev gcc'
            " python3-dev (Debian, Ubuntu) or sendmail-milter-devel gcc python3-devel (Fedora)"
        ) from None
    config = configuration.load(path)
    engine_class(config)
    return config
