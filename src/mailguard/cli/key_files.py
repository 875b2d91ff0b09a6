"""Storing a new private key: complete or not at all, never over another file, readable by its owner alone.

The key is written to a file without a predictable name in the directory where it will stay, flushed to disk and
linked to its name, which fails if the name is taken. Directories are opened once and never through a symbolic
link, so that nobody else's directory can be slipped in between two steps.
"""

from __future__ import annotations

import os
import pwd
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from mailguard.errors import KeyFileError
from mailguard.setup_host.whole_file import write_whole

__all__ = ["Owner", "find_owner", "store_keys"]

Owner = tuple[int, int]
"""User and group id."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def find_owner(name: str) -> Owner:
    """The ids of the user `name`. Raises KeyFileError."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise KeyFileError(f"there is no user {name} on this host") from None
    return entry.pw_uid, entry.pw_gid


def store_keys(directory: str, domain: str, keys: Sequence[tuple[str, bytes]], *, owner: Owner | None) -> list[str]:
    """Store each (selector, PEM) as `directory`/`domain`/selector.pem, mode 0600; the paths.

    If missing, `directory` is made with mode 0750, that of the domain with 0700, and what is above with 0755,
    whatever the umask is. The first two, where made, and the files are given to `owner`, or stay with the user who
    runs this. Raises KeyFileError, before any key is written if one of the names is taken; none of them stays then.
    """
    paths = [os.path.join(directory, domain, f"{selector}.pem") for selector, _ in keys]
    try:
        with _opened_directory(directory, domain, owner) as handle:
            present = set(os.listdir(handle))
            for path in paths:
                if os.path.basename(path) in present:
                    raise KeyFileError(_taken(path))
            _store_all(handle, [(path, pem) for path, (_, pem) in zip(paths, keys, strict=True)], owner)
    except OSError as error:
        raise KeyFileError(f"{os.path.join(directory, domain)}: cannot store a key: {error.strerror}") from None
    return paths


def _taken(path: str) -> str:
    return f"{path} is there already and is never overwritten; choose another name with --selector"


@contextmanager
def _opened_directory(directory: str, domain: str, owner: Owner | None) -> Iterator[int]:
    made = not os.path.lexists(directory)
    if made:
        # Others have to pass, the daemon's user among them, from the first moment on.
        before = os.umask(0o022)
        try:
            os.makedirs(os.path.dirname(os.path.abspath(directory)), 0o755, exist_ok=True)
            os.mkdir(directory, 0o750)
        finally:
            os.umask(before)
    outer = os.open(directory, _OPEN_DIRECTORY if made else _OPEN_DIRECTORY & ~os.O_NOFOLLOW)
    try:
        if made and owner:
            os.chown(outer, *owner)
        try:
            os.mkdir(domain, 0o700, dir_fd=outer)
        except FileExistsError:
            domain_made = False
        else:
            domain_made = True
        inner = os.open(domain, _OPEN_DIRECTORY, dir_fd=outer)
        try:
            if domain_made and owner:
                os.chown(inner, *owner)
            _refuse_writable_by_all(outer, directory)
            _refuse_writable_by_all(inner, os.path.join(directory, domain))
            # Before there is a key: who is told that none could be stored finds none.
            os.fsync(outer)
            yield inner
        finally:
            os.close(inner)
    finally:
        os.close(outer)


def _refuse_writable_by_all(directory: int, path: str) -> None:
    mode = os.fstat(directory).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise KeyFileError(f"{path} is writable by everybody: chmod o-w it")


def _store_all(directory: int, pems: Sequence[tuple[str, bytes]], owner: Owner | None) -> None:
    stored: list[str] = []
    try:
        for path, pem in pems:
            _store(directory, path, pem, owner)
            stored.append(os.path.basename(path))
        os.fsync(directory)
    except BaseException:
        # Of a pair, on a disk that is full: one would be in the way of the next attempt, and nobody has its record.
        for name in stored:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
        raise


def _store(directory: int, path: str, pem: bytes, owner: Owner | None) -> None:
    name, temporary = os.path.basename(path), f".{secrets.token_hex(16)}.new"
    try:
        write_whole(pem, name, temporary=temporary, directory=directory, mode=0o600, owner=owner, is_new=True)
    except FileExistsError:
        raise KeyFileError(_taken(path)) from None
