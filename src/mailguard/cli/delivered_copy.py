"""A delivered message found again by its Message-ID, in a Maildir or a file of mailboxes.

Only regular files are read, and no links followed: a mailbox belongs to somebody else.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator

from mailguard.errors import ConfigError
from mailguard.message import Message

__all__ = ["find_copy"]

# The message has a thousand octets, and what is put on top of it on its way some thousands more.
MAX_MESSAGE_BYTES = 256 * 1024
# It is among the last.
MAX_MAILBOX_BYTES = 4 * 1024 * 1024
MAX_FILES = 100
MAILDIR_PARTS = ("new", "cur")
SEPARATOR = b"\nFrom "


def find_copy(mailbox: str, message_id: str) -> bytes | None:
    """The octets of the message, or None where it is not there (yet). Raises ConfigError for what cannot be read."""
    wanted = message_id.encode("ascii")
    try:
        found = _of_maildir(mailbox) if os.path.isdir(mailbox) else _of_file(mailbox)
        return next((each for each in found if wanted in each and _is_named(each, wanted)), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{mailbox}: cannot be read: {error.strerror}") from None


def _is_named(octets: bytes, wanted: bytes) -> bool:
    """And not one that answers it."""
    return any(field.value.strip() == wanted for field in Message.parse(octets).named(b"message-id"))


def _of_maildir(maildir: str) -> Iterator[bytes]:
    # There may be a million files, of which these alone are kept in mind.
    for _, path in heapq.nlargest(MAX_FILES, _files(maildir)):
        yield _read(path, MAX_MESSAGE_BYTES)


def _files(maildir: str) -> Iterator[tuple[float, str]]:
    for part in MAILDIR_PARTS:
        with os.scandir(os.path.join(maildir, part)) as found:
            for each in found:
                status = each.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_MESSAGE_BYTES:
                    yield status.st_mtime, each.path


def _of_file(path: str) -> Iterator[bytes]:
    """The newest first; each without the line that begins it and the blank one that ends it."""
    octets = b"\n" + _read(path, MAX_MAILBOX_BYTES).removesuffix(b"\n")
    for each in reversed(octets.split(SEPARATOR)[1:]):
        yield each.partition(b"\n")[2]


def _read(path: str, limit: int) -> bytes:
    """The last `limit` octets of a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        file.seek(max(0, status.st_size - limit))
        return file.read(limit)
