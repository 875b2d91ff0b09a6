"""RotationStore: the state file of one domain, for the one process that changes it; StateLocks: those of many.

Complete or not at all: written beside, flushed and put in its place. Who is killed in between leaves what was there
before. In a directory that only root (or this user) can write to, all the way down (guarded_file.py).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from hashlib import sha256
from types import TracebackType

from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.guarded_file import opened_directory
from mailguard.key_places import read_rotation
from mailguard.rotation.state import Rotation
from mailguard.setup_host.whole_file import flush_directory, write_whole

__all__ = ["Busy", "RotationStore", "StateLocks"]

LOCK_NAME = ".lock"
# The length of a lock in the lock file, and the octets of a digest that say where it is.
LOCK_OCTETS = 1
PLACE_OCTETS = 7


class Busy(ConfigError):
    """Another process is at it."""


class RotationStore:
    """Made by `StateLocks.store`; without it, for those who only read."""

    def __init__(self, path: str, domain: Domain, directory: int = -1) -> None:
        self.path = path
        self._domain = domain
        self._directory = directory

    def read(self) -> Rotation | None:
        """None if there is no file. Raises ConfigError."""
        return read_rotation(self.path, self._domain)

    def write(self, rotation: Rotation) -> None:
        """It has no secret in it, and the daemon's user reads it. Raises ConfigError; then the file is as before."""
        name = os.path.basename(self.path)
        fresh = f".{name}.new"
        octets = rotation.text().encode("ascii")
        try:
            Rotation.parse(octets)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: not written, for it could not be read again: {error}") from None
        try:
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=self._directory)  # of one that was killed
            write_whole(octets, name, temporary=fresh, directory=self._directory, mode=0o644, is_new=False)
            flush_directory(self._directory)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from None


class StateLocks:
    """What this process alone may change, for as long as the context lasts.

    A descriptor or two for a directory and not for a domain, of which there can be more than a process may have
    descriptors. The locks are fcntl(2)'s, which a process has once: one object at a time.
    """

    def __init__(self) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        self._descriptors = ExitStack()

    def __enter__(self) -> StateLocks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._descriptors.close()

    def store(self, path: str, domain: Domain, *, makes_directory: bool) -> RotationStore:
        """The store, alone with it. Can make the last directory of the path. Raises Busy and ConfigError."""
        place = os.path.dirname(path)
        try:
            if place not in self._places:
                if makes_directory:
                    _make(place)
                self._places[place] = self._opened(place)
            directory, lock = self._places[place]
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_OCTETS, _place_of(path))
        except BlockingIOError:
            raise Busy(f"{path}: another mailguard key rotate is at it; run this again later") from None
        except OSError as error:
            raise ConfigError(f"{place}: {error.strerror}") from None
        return RotationStore(path, domain, directory)

    def _opened(self, place: str) -> tuple[int, int]:
        with ExitStack() as opened:
            directory = opened.enter_context(opened_directory(place))
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(LOCK_NAME, flags, 0o600, dir_fd=directory)
            opened.callback(os.close, lock)
            self._descriptors.callback(opened.pop_all().close)
        return directory, lock


def _place_of(path: str) -> int:
    """Where in the lock file the lock of a state is."""
    return int.from_bytes(sha256(os.fsencode(os.path.basename(path))).digest()[:PLACE_OCTETS], "big")


def _make(place: str) -> None:
    above, name = os.path.split(place)
    with ExitStack() as opened:
        try:
            parent = opened.enter_context(opened_directory(above))
        except FileNotFoundError:
            raise ConfigError(
                f"{place}: {above} is not there; make it, or keep the state elsewhere with --state"
            ) from None
        # The daemon's user must pass, from the first moment on: who is killed here leaves it as it is.
        before = os.umask(0o022)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            flush_directory(parent)
        except FileExistsError:
            return
        finally:
            os.umask(before)
