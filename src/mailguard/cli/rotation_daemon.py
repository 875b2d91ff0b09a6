"""SigningDaemon: made to sign with other keys, and asked with which it does.

The daemon tells it in keys.json of its runtime directory, which its user can write to. Nothing is believed of that
but which keys sign: who lies there has the records of his own keys removed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from mailguard.cli.waiting import waiting
from mailguard.config import Config
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.guarded_file import read_regular
from mailguard.rotation.loaded import KEYS_NAME, MAX_LOADED_OCTETS, LoadedDomain, LoadedKeys

__all__ = ["SigningDaemon"]

RELOAD_TIMEOUT_S = 120.0
POLL_S = 0.2
# The command failed: a moment for a daemon that reloaded all the same.
AFTER_FAILURE_S = 3.0

_FileId = tuple[int, int, int, int]


class SigningDaemon:
    """The daemon of one configuration."""

    def __init__(self, config: Config) -> None:
        self._directory = config.runtime_directory
        # Of many domains each asks several times: what is there is read again only when it has changed.
        self._read: tuple[_FileId, LoadedKeys] | None = None

    def loaded(self) -> LoadedKeys | None:
        """What it says; None where it says nothing: it does not run. Raises ConfigError for what is no such file."""
        path = os.path.join(self._directory, KEYS_NAME)
        try:
            directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = _id_of(os.stat(KEYS_NAME, dir_fd=directory, follow_symlinks=False))
                if self._read is None or self._read[0] != found:
                    status, octets = read_regular(KEYS_NAME, directory=directory, max_octets=MAX_LOADED_OCTETS)
                    self._read = _id_of(status), LoadedKeys.parse(octets)
            finally:
                os.close(directory)
            return self._read[1]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: it is not what the daemon writes: {error}") from None

    def signs_with(self, domain: Domain, rotation: str, wanted: Mapping[str, str]) -> bool | None:
        """Whether it signs for the domain with just these keys of this rotation; None if it does not run."""
        loaded = self.loaded()
        return None if loaded is None else loaded.domains.get(domain) == LoadedDomain(dict(wanted), rotation)

    def reload(self, command: str, is_done: Callable[[], bool], *, wait_s: float) -> str:
        """Run the command and wait until `is_done`; what went wrong with the command, or empty."""
        fault = ""
        with waiting("waiting for the daemon to sign with the new keys"):
            try:
                done = subprocess.run(
                    shlex.split(command),
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),  # what we print may be read by a program
                    check=False,
                    timeout=RELOAD_TIMEOUT_S,
                )
                if done.returncode:
                    fault = f"the reload ended with {done.returncode}: {command}"
            except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
                fault = f"the reload failed: {command}: {error}"
            deadline = time.monotonic() + (min(wait_s, AFTER_FAILURE_S) if fault else wait_s)
            while not is_done() and time.monotonic() < deadline:
                time.sleep(POLL_S)
        return fault


def _id_of(status: os.stat_result) -> _FileId:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
