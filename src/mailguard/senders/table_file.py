"""Tables in files: `texthash:` is read here, `hash:`, `btree:`, `lmdb:`, `dbm:` and `sdbm:` by Postfix's own postmap.

Read when first asked and again when the file has changed, which is looked for every two seconds: what `postmap` has
written just now holds a few seconds later, as it does for Postfix. A file that cannot be read makes the table
unavailable until it can. The text format is postmap(1)'s: a key, white space, a value; lines that begin with white
space continue the one before; white space in double quotes belongs to the key, and so do the quotes; of equal keys
the first holds. Lines that Postfix ignores (without value, with an open quote, not UTF-8) are ignored. A key that
postmap has folded beyond lower case (U+00DF to "ss") is found by each spelling that it would have folded so.
Thread-safe.
"""

from __future__ import annotations

import math
import os
import re
import stat
import subprocess
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock

from mailguard.senders.identity import folded_text
from mailguard.senders.permission import Asked
from mailguard.senders.table import Found, Table, TableDown, key_of, owners_of

__all__ = ["FILE_KINDS", "FileTable", "read_text", "text_lines"]

# A million entries have 60 MB as text, and take four times as much memory.
MAX_FILE_BYTES = 64 * 1024 * 1024
# Half of what Postfix makes of them is room for more: 160 MB for a million entries of hash:.
MAX_DATABASE_BYTES = 256 * 1024 * 1024
MAX_ENTRIES = 1_000_000
ASK_A_DATABASE = "put them into a database, which is asked for one at a time: sqlite:, mysql: or pgsql:"
LOOK_EVERY_S = 2.0
# As Postfix: what was written a moment ago may be half of it. Until then, what was read before holds.
SETTLED_AFTER_S = 2.0
# postmap -s lists 100,000 entries in a tenth of a second.
POSTMAP_TIMEOUT_S = 20.0

# What the file is that has the entries, by kind.
_SUFFIXES = {"texthash": "", "hash": ".db", "btree": ".db", "lmdb": ".lmdb", "dbm": ".pag", "sdbm": ".pag"}
FILE_KINDS = frozenset(_SUFFIXES)
# C's white space, which is Postfix's: str.strip and str.split know more.
_SPACES = " \t\n\v\f\r"
# Up to the first white space that is not in double quotes; the quotes belong to the key, and so do backslashes.
_KEY = re.compile(r'(?:[^" \t\n\v\f\r\\]|\\.|\\$|"(?:[^"\\]|\\.)*")+', re.DOTALL)

_Signature = tuple[int, int, int]


class FileTable(Table):
    """`kind:path`."""

    def __init__(self, kind: str, path: str, *, postmap: str, clock: Callable[[], float]) -> None:
        """`clock` gives seconds and never goes back."""
        super().__init__(f"{kind}:{path}")
        self._kind = kind
        self._file = path + _SUFFIXES[kind]
        self._postmap = postmap
        self._clock = clock
        self._lock = Lock()
        self._entries: Mapping[str, tuple[str, ...]] = {}
        self._read: _Signature | None = None
        self._looked_at = float("-inf")
        self._trouble = ""

    def find(self, key: str, *, deadline: float = math.inf) -> Found:
        """Reads the file if it has changed."""
        entries = self.entries()
        if not key.isascii() and self._kind != "texthash" and key not in entries:
            key = _as_postmap_folds(key)
        return Found(entries.get(key), Asked(self.name, (key,)))

    def entries(self) -> Mapping[str, tuple[str, ...]]:
        """All of them."""
        with self._lock:
            now = self._clock()
            if now >= self._looked_at + LOOK_EVERY_S:
                self._looked_at = now
                self._look()
            if self._trouble:
                raise TableDown(self._trouble)
            return self._entries

    def _look(self) -> None:
        try:
            signature = self._signature()
            if signature != self._read and (self._read is None or not _is_being_written(signature)):
                self._entries = self._load()
                self._read = signature
            self._trouble = ""
        except OSError as error:
            self._fail(f"{self._file} cannot be read: {error.strerror or error}")
        except TableDown as error:
            self._fail(f"{self._file}: {error}")

    def _fail(self, trouble: str) -> None:
        self._trouble = trouble
        self._read = None

    def _signature(self) -> _Signature:
        status = os.stat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise TableDown("it is not a regular file")
        most = MAX_FILE_BYTES if self._kind == "texthash" else MAX_DATABASE_BYTES
        if status.st_size > most:
            raise TableDown(f"it has more than {most} octets; {ASK_A_DATABASE}")
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _load(self) -> Mapping[str, tuple[str, ...]]:
        if self._kind != "texthash":
            return _collected(self._dumped())
        with open(self._file, "rb") as file:
            return read_text(file.read(MAX_FILE_BYTES + 1))

    def _dumped(self) -> Iterator[tuple[str, str]]:
        """What `postmap -s` writes: a line for each entry, key and value parted by a tab."""
        try:
            done = subprocess.run(
                [self._postmap, "-s", self.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=POSTMAP_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TableDown(f"postmap did not end within {POSTMAP_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise TableDown(f"{self._postmap} cannot be run: {error.strerror}") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise TableDown(f"postmap: {said[-1].removeprefix('postmap: ') if said else 'it failed'}"[:200])
        for line in done.stdout.decode("utf-8", "surrogateescape").split("\n"):
            key, tab, value = line.partition("\t")
            if tab:
                yield key, value


def _as_postmap_folds(key: str) -> str:
    """A key as it is after Unicode's case folding: U+00DF is "ss" and a final sigma any sigma. The domain stays: what
    is folded of a U-label may be another domain.
    """
    local, at, domain = key.rpartition("@")
    return f"{folded_text(local.casefold())}{at}{domain}" if at else folded_text(key.casefold())


def _is_being_written(signature: _Signature) -> bool:
    """Whether the file is so new that its writer may not be done. A time in the future says nothing."""
    return 0 <= time.time() - signature[0] / 1e9 < SETTLED_AFTER_S


def read_text(octets: bytes) -> Mapping[str, tuple[str, ...]]:
    """The entries of a text in postmap(1)'s format. Raises TableDown."""
    return _collected(_split(line) for line in text_lines(octets.decode("utf-8", "surrogateescape")))


def text_lines(text: str) -> Iterator[str]:
    """The logical lines of a file in the format of main.cf and of tables: without comments, continuations joined."""
    parts: list[str] = []
    for physical in text.split("\n"):
        bare = physical.strip(_SPACES)
        if not bare or bare.startswith("#"):
            continue
        if physical[0] in _SPACES:
            # Without a line before, Postfix ignores it.
            parts += [physical] if parts else []
            continue
        if parts:
            yield "".join(parts)
        parts = [physical]
    if parts:
        yield "".join(parts)


def _split(line: str) -> tuple[str, str]:
    key = _KEY.match(line.lstrip(_SPACES))
    if key is None or not _is_utf8(line):
        return "", ""
    value = line.lstrip(_SPACES)[key.end() :]
    # What follows a key without white space begins with a quote that is not closed.
    return (key[0], value.strip(_SPACES)) if value[:1] in _SPACES else ("", "")


def _is_utf8(line: str) -> bool:
    return line.isascii() or not any("\udc80" <= character <= "\udcff" for character in line)


def _collected(entries: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
    collected: dict[str, tuple[str, ...]] = {}
    for key, value in entries:
        if not value:
            continue  # postmap(1) ignores a line without value
        if len(collected) >= MAX_ENTRIES:
            raise TableDown(f"it has more than {MAX_ENTRIES} entries; {ASK_A_DATABASE}")
        collected.setdefault(key_of(unicodedata.normalize("NFC", key)), owners_of(value))
    return collected
