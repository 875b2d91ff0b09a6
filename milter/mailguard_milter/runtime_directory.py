"""RuntimeDirectory: the lock, what the daemon signs with, and where workers make their private sockets.

One daemon at a time.

The lock is flock(2) on a file for the daemon's user alone, which holds the process id for people; it goes with the
process, so it is never stale.
For the supervisor: no import of mailguard.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from mailguard_milter.identity import Identity
from mailguard_milter.listening import check_directory, is_at
from mailguard_milter.refusal import EX_TEMPFAIL, Refusal, refused_file

__all__ = ["RuntimeDirectory"]

LOCK_NAME = "lock"
WORKER_PREFIX = "worker-"
KEYS_NAME = "keys.json"
KEYS_PREFIX = "keys-"


@dataclass(frozen=True, slots=True)
class RuntimeDirectory:
    """The directory that the configuration names."""

    path: str
    lock: tuple[int, int] = (0, 0)
    """The device and the inode of the file that is locked."""

    @classmethod
    @contextmanager
    def claim(cls, path: str, identity: Identity) -> Iterator[Self]:
        """Hold the lock while in the context; make the directory if it is missing. Raises Refusal."""
        _make(path, identity)
        check_directory(path, identity)
        descriptor = _lock(os.path.join(path, LOCK_NAME), identity)
        try:
            _remove_leftovers(path)
            status = os.fstat(descriptor)
            yield cls(path, (status.st_dev, status.st_ino))
        finally:
            _remove_keys(path)
            os.close(descriptor)

    def is_lost(self) -> bool:
        """Whether it was deleted, or emptied: another daemon could begin here, and no worker of libmilter's."""
        return not is_at(os.path.join(self.path, LOCK_NAME), self.lock)

    def keys_of(self, generation: int) -> str:
        """Where a generation writes what it signs with (mailguard.rotation.loaded)."""
        return os.path.join(self.path, f"{KEYS_PREFIX}{generation}")

    def announce_keys(self, generation: int) -> None:
        """This generation serves all new sessions: what it wrote is what holds."""
        known = os.path.join(self.path, KEYS_NAME)
        try:
            os.replace(self.keys_of(generation), known)
        except OSError:
            # It could not be written, which the generation told: rather nothing than what was before.
            _unlink(known)

    def forget_keys(self, generation: int) -> None:
        """What a generation wrote that did not come to serve."""
        _unlink(self.keys_of(generation))


def _make(path: str, identity: Identity) -> None:
    try:
        os.mkdir(path)
        # The directory above may be the daemon's user's, who must not have root change something else in its place.
        with _opened(path) as made:
            # Postfix must be able to pass: its socket is in here by default, with a mode of its own.
            os.fchmod(made, 0o755)  # nothing in it is readable by others
            if os.geteuid() == 0:
                os.fchown(made, identity.uid, identity.gid)
    except FileExistsError:
        pass
    except OSError as error:
        remedy = f"run as root: install -d -o {identity.name} {path} (under systemd: RuntimeDirectory=)"
        raise refused_file(f"{path} cannot be made", error, remedy) from None
    try:
        owner = os.stat(path).st_uid
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}") from None
    if owner != identity.uid:
        raise Refusal(f"{path} does not belong to the user {identity.name}; run: chown {identity.name} {path}")


def _lock(path: str, identity: Identity) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refused_file(f"{path} cannot be opened", error, "remove it, or correct its owner") from None
    try:
        status = os.fstat(descriptor)
        # What the daemon's user linked here from elsewhere would be written to, and given to that user.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise Refusal(f"{path} is not a regular file, or has another name; remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).strip().decode("ascii", "replace")
            raise Refusal(
                f"another mailguard-milter runs with this configuration (process {holder or 'unknown'}, {path});"
                " stop it first, or give this one a runtime_directory of its own",
                EX_TEMPFAIL,
            ) from None
        # Who may open it, if only to read, can lock it, and keep the daemon from ever starting again.
        os.fchmod(descriptor, 0o600)
        if os.geteuid() == 0:
            os.fchown(descriptor, identity.uid, identity.gid)
        with suppress(OSError):  # a disk that is full: the lock is held without it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        os.close(descriptor)
        raise refused_file(f"{path} cannot be locked", error, "choose a runtime_directory below /run") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _opened(name: str, within: int | None = None, *, follow: bool = False) -> Iterator[int]:
    """A directory, to do things in it whatever is put in its place meanwhile. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(name, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_keys(path: str) -> None:
    try:
        with _opened(path, follow=True) as directory:
            for name in os.listdir(directory):
                if name == KEYS_NAME or name.startswith(KEYS_PREFIX):
                    _unlink(name, directory)
    except OSError:
        return  # who removed it has removed these, too


def _unlink(path: str, within: int | None = None) -> None:
    try:
        os.unlink(path, dir_fd=within)
    except OSError:
        return


def _remove_leftovers(path: str) -> None:
    """Private directories of workers that were killed before they could remove them.

    As root, in what belongs to the daemon's user: nothing that was put there is followed elsewhere.
    """
    _remove_keys(path)
    with _opened(path, follow=True) as directory:
        for name in os.listdir(directory):
            if not name.startswith(WORKER_PREFIX):
                continue
            try:
                with _opened(name, directory) as worker:
                    for inner in os.listdir(worker):
                        os.unlink(inner, dir_fd=worker)
                os.rmdir(name, dir_fd=directory)
            except OSError:
                continue
