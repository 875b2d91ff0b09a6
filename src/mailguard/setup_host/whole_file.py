"""Files that are written whole or not at all, and directories, where somebody else may own a directory above.

Nothing is reached through a symbolic link, and nothing but a regular file is opened: whoever owns the directory
cannot lead root elsewhere, or have it wait. Paths are absolute and without symbolic links (os.path.realpath).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mailguard.errors import ConfigError
from mailguard.guarded_file import opened_directory, read_regular

__all__ = [
    "Content",
    "flush_directory",
    "make_directory",
    "missing_directories",
    "put_file",
    "read_file",
    "remove_directory",
    "remove_file",
    "write_whole",
]

# Configurations and keys are far smaller.
MAX_FILE_OCTETS = 16 * 1024 * 1024
NEW_FILE_MODE = 0o644
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it is."""

    octets: bytes
    mode: int
    owner: tuple[int, int]
    """User and group id."""
    attributes: tuple[tuple[str, bytes], ...] = ()
    """Extended ones, lists of access rights among them."""


@contextmanager
def _opened(path: str, *, is_guarded: bool = False) -> Iterator[tuple[int, str]]:
    """The directory of a path, and the name in it."""
    with opened_directory(os.path.dirname(path), is_guarded=is_guarded) as directory:
        yield directory, os.path.basename(path)


def read_file(path: str) -> Content | None:
    """None if there is none. Raises ConfigError for what is no regular file, and OSError."""
    try:
        with _opened(path) as (directory, name):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path} is not a regular file, and left alone")
            status, octets = read_regular(name, directory=directory, max_octets=MAX_FILE_OCTETS)
            attributes = tuple(_attributes(f"/proc/self/fd/{directory}/{name}"))
    except FileNotFoundError:
        return None
    return Content(octets, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), attributes)


def _attributes(path: str) -> Iterator[tuple[str, bytes]]:
    # Not every file system has them.
    with suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            yield name, os.getxattr(path, name, follow_symlinks=False)


def put_file(octets: bytes, path: str, *, temporary: str, like: Content | None = None, is_new: bool = False) -> None:
    """Replace the file, or make it if `is_new`; `temporary` is a name beside it for the time of the writing.

    It gets the owner, mode and attributes of `like`; without that it is ours, for everybody to read. Raises OSError.
    """
    mode = NEW_FILE_MODE if like is None else like.mode
    owner = like.owner if like is not None and os.geteuid() == 0 else None
    attributes = like.attributes if like is not None else ()
    with _opened(path) as (directory, name):
        try:
            write_whole(
                octets,
                name,
                temporary=temporary,
                directory=directory,
                mode=mode,
                owner=owner,
                attributes=attributes,
                is_new=is_new,
            )
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        flush_directory(directory)


def write_whole(
    octets: bytes,
    name: str,
    *,
    temporary: str,
    directory: int | None = None,
    mode: int,
    owner: tuple[int, int] | None = None,
    attributes: Iterable[tuple[str, bytes]] = (),
    is_new: bool,
) -> None:
    """Replace the file `name` of the directory, or make it if `is_new`: with all of `octets`, or not at all.

    `temporary` is a name beside it for the time of the writing, and nobody else's: what is there is an error. The
    directory is not flushed: `flush_directory`. Raises OSError, of `is_new` FileExistsError where the name is taken.
    """
    descriptor = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:
            # Before the mode: a change of the owner takes bits of it away.
            if owner is not None:
                os.fchown(descriptor, *owner)
            # Whatever the umask is.
            os.fchmod(descriptor, mode)
            for each, value in attributes:
                with suppress(OSError):
                    os.setxattr(descriptor, each, value)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        if is_new:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        else:
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def flush_directory(directory: int) -> None:
    """What happened to the names in it is on the disk. The descriptor may be one that is only passed through."""
    descriptor = os.open(".", _DIRECTORY, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: str) -> None:
    """One that is gone is removed. Raises OSError."""
    try:
        with _opened(path) as (directory, name):
            # Where nothing can be written, unlink(2) does not say that there is none.
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            os.unlink(name, dir_fd=directory)
            flush_directory(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def make_directory(path: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Raises ConfigError, also where somebody else could put another directory into its place."""
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        if not os.path.isdir(os.path.dirname(path)):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with _opened(path, is_guarded=True) as (directory, name):
            os.mkdir(name, 0o700, dir_fd=directory)
            made = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                if owner is not None:
                    os.fchown(made, *owner)
                os.fchmod(made, mode)
            finally:
                os.close(made)
            flush_directory(directory)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from None


def missing_directories(path: str) -> tuple[str, ...]:
    """What has to be made for a file to be there, the innermost first."""
    found = []
    directory = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(directory):
        found.append(directory)
        directory = os.path.dirname(directory)
    return tuple(found)


def remove_directory(path: str) -> str:
    """Why it is left where it is; empty if it is gone."""
    try:
        with _opened(path) as (directory, name):
            os.rmdir(name, dir_fd=directory)
            flush_directory(directory)
    except FileNotFoundError:
        return ""
    except (OSError, ConfigError) as error:
        return (error.strerror if isinstance(error, OSError) else "") or str(error)
    return ""
