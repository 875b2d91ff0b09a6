"""RotationStore: the state file of one domain, for the one process that changes it.

Complete or not at all: written beside, flushed and put in its place. Who is killed in between leaves what was there
before. In a directory that only root (or this user) can write to, all the way down (guarded_file.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.guarded_file import open_directory
from mailguard.key_places import read_rotation
from mailguard.rotation.state import Rotation

__all__ = ["Busy", "RotationStore"]


class Busy(ConfigError):
    """Another process is at it."""


class RotationStore:
    """Made by `locked`; without it, for those who only read."""

    def __init__(self, path: str, domain: Domain, directory: int = -1) -> None:
        self.path = path
        self._domain = domain
        self._directory = directory

    @classmethod
    @contextmanager
    def locked(cls, path: str, domain: Domain, *, makes_directory: bool) -> Iterator[RotationStore]:
        """The store, alone with it. Can make the last directory of the path. Raises Busy and ConfigError."""
        place = os.path.dirname(path)
        held: list[int] = []
        try:
            try:
                if makes_directory:
                    _make(place)
                held.append(open_directory(place, is_guarded=True))
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                held.append(os.open(f".{os.path.basename(path)}.lock", flags, 0o600, dir_fd=held[0]))
                fcntl.flock(held[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{path}: another mailguard key rotate is at it; run this again later") from None
            except OSError as error:
                raise ConfigError(f"{place}: {error.strerror}") from None
            yield cls(path, domain, held[0])
        finally:
            for descriptor in held:
                os.close(descriptor)

    def read(self) -> Rotation | None:
        """None if there is no file. Raises ConfigError."""
        return read_rotation(self.path, self._domain)

    def write(self, rotation: Rotation) -> None:
        """It has no secret in it, and the daemon's user reads it. Raises ConfigError; then the file is as before."""
        name = os.path.basename(self.path)
        fresh = f".{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._unlink(fresh)  # of one that was killed
            try:
                with open(os.open(fresh, flags, 0o644, dir_fd=self._directory), "w", encoding="ascii") as file:
                    os.fchmod(file.fileno(), 0o644)
                    file.write(rotation.text())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(fresh, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except OSError:
                self._unlink(fresh)
                raise
            _flush(self._directory)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._directory)
        except FileNotFoundError:
            return


def _make(place: str) -> None:
    above, name = os.path.split(place)
    try:
        parent = open_directory(above, is_guarded=True)
    except FileNotFoundError:
        raise ConfigError(
            f"{place}: {above} is not there; make it, or keep the state elsewhere with --state"
        ) from None
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
        # Whatever the umask: the daemon's user passes. Nobody else can have put something else there.
        os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - nothing in it is secret
        _flush(parent)
    except FileExistsError:
        return
    finally:
        os.close(parent)


def _flush(directory: int) -> None:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
