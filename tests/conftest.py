"""Fixtures that several files share."""

from cli_process import keys, mailguard_command, prepared
from daemon_process import daemon
from engine_process import directory, host, own_directory

__all__ = ["daemon", "directory", "host", "keys", "mailguard_command", "own_directory", "prepared"]
