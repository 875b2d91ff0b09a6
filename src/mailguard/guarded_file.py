"""Small files that only root, or this process's user, can have written: also no directory above may be others'.

Each directory of the path is opened in the one before and never through a symbolic link, so that nothing can be put
in its place between a check and what follows. Who is trusted: root, and where this process is not root, its own user.
`read_beginning` and `named` are for any file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from mailguard.errors import ConfigError

__all__ = ["named", "opened_directory", "read_beginning", "read_guarded", "read_regular"]

_CHOOSE = "choose a directory that is root's all the way down"
_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _open_directory(path: str, *, is_guarded: bool) -> int:
    descriptor = os.open("/", _PASS)
    try:
        parts = [part for part in os.path.abspath(path).split("/") if part]
        for depth in range(len(parts) + 1):
            shown = "/" + "/".join(parts[:depth])
            if is_guarded:
                _check_directory(os.fstat(descriptor), shown, is_last=depth == len(parts))
            if depth < len(parts):
                try:
                    inner = os.open(parts[depth], _PASS, dir_fd=descriptor)
                except NotADirectoryError:
                    place = "/" + "/".join(parts[: depth + 1])
                    raise ConfigError(
                        f"{place} is a symbolic link or no directory; name the directory itself"
                    ) from None
                os.close(descriptor)
                descriptor = inner
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def opened_directory(path: str, *, is_guarded: bool = True) -> Iterator[int]:
    """A descriptor of the directory, for `dir_fd`. Raises ConfigError where others could have put it there.

    `is_guarded` False: whoever may write there, but no symbolic link is followed. Raises OSError.
    """
    descriptor = _open_directory(path, is_guarded=is_guarded)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_guarded(path: str, *, max_octets: int) -> bytes | None:
    """The content of the file; None if there is none. Raises ConfigError."""
    try:
        with opened_directory(os.path.dirname(os.path.abspath(path))) as directory:
            status, octets = read_regular(os.path.basename(path), directory=directory, max_octets=max_octets)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if status.st_uid not in _trusted():
        raise ConfigError(f"{path} belongs to another user (uid {status.st_uid}); run: chown {os.geteuid()} {path}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path}: others can write to it; run: chmod go-w {path}")
    return octets


def read_regular(name: str, *, directory: int, max_octets: int) -> tuple[os.stat_result, bytes]:
    """A regular file in a directory, and no link to one. Raises ConfigError for something else, and OSError."""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_octets:
            raise ConfigError(f"{name}: not a regular file of at most {max_octets} octets")
        octets = b""
        # Not after one who goes on writing, octet by octet.
        while chunk := os.read(descriptor, status.st_size + 1 - len(octets)):
            octets += chunk
    finally:
        os.close(descriptor)
    if len(octets) > status.st_size:
        raise ConfigError(f"{name}: it grows while it is read")
    return status, octets


def read_beginning(path: str, *, max_octets: int) -> bytes:
    """So much of a file, whoever's it is. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            return file.read(max_octets)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _trusted() -> frozenset[int]:
    return frozenset({0, os.geteuid()})


def _check_directory(status: os.stat_result, path: str, *, is_last: bool) -> None:
    if status.st_uid not in _trusted():
        raise ConfigError(
            f"{path} belongs to another user (uid {status.st_uid}), who could replace what is below it; {_CHOOSE}"
        )
    is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a sticky directory an entry can be replaced by its owner alone, and the one below has just the owners above.
    if is_shared and (is_last or not status.st_mode & stat.S_ISVTX):
        # /tmp is for everybody: programs of the host fail when it is not.
        advice = _CHOOSE if status.st_mode & stat.S_ISVTX else f"run: chmod go-w {path}"
        raise ConfigError(f"{path}: others can write to it, and replace what is below it; {advice}")


@contextmanager
def named(path: str) -> Iterator[None]:
    """Has an error of writing or reading name the file, which one of opening does by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or path) from None
