"""Fixtures that several files share."""

from daemon_process import daemon
from engine_process import directory, host, own_directory

__all__ = ["daemon", "directory", "host", "own_directory"]
