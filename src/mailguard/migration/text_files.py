"""The files that are imported, read with care: regular, of bounded size, text whatever their octets are.

The only place where configuration of others is opened. Left out: private keys (private_keys.py).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

__all__ = ["BYTE_ORDER_MARK", "MAX_FILE_BYTES", "FileText", "read_text"]

# None of the programs takes it for anything but a part of the first word.
BYTE_ORDER_MARK = "\ufeff"

# A signing table of 50 000 domains has 3 MB.
MAX_FILE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileText:
    """The lines of a file without line ends, or why there are none."""

    lines: tuple[str, ...] = ()
    problem: str = ""


def read_text(path: str) -> FileText:
    """The text of `path`: UTF-8, other octets as U+FFFD; any kind of line end. A byte order mark stays (U+FEFF).

    What cannot be read, is no regular file or too large has a `problem` and no lines. Raises nothing.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return FileText(problem="it is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                octets = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        return FileText(problem=error.strerror or str(error))
    except ValueError:
        return FileText(problem="that is not the name of a file")
    if len(octets) > MAX_FILE_BYTES:
        return FileText(problem=f"it has more than {MAX_FILE_BYTES // 1024 // 1024} MB")
    text = octets.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return FileText(tuple(text.split("\n")))
