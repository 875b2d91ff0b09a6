"""Several files changed together, and put back octet for octet from a directory that keeps what was there.

What is about to be done is written down, with copies, before anything is done: so it can be undone from any point,
and the undoing, too, may be interrupted and done again. What somebody has changed since is never overwritten. Files
that were made anew are moved into that directory by the undoing, private keys among them: nothing is lost. One
process at a time changes or undoes, for one directory of copies: what another one has just made is not taken back.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from typing import Any

from mailguard.errors import ConfigError, MailguardError
from mailguard.guarded_file import opened_directory, read_guarded
from mailguard.setup_host.whole_file import (
    Content,
    make_directory,
    missing_directories,
    put_file,
    read_file,
    remove_directory,
    remove_file,
)

__all__ = ["FileChange", "Journal", "Undone", "undo"]

MANIFEST = "manifest.json"
# Beside the directories of copies.
LOCK_NAME = ".lock"
MAX_MANIFEST_OCTETS = 1024 * 1024
FORMAT = 1
# Where the undoing writes what it sets aside, for a moment.
TEMPORARY = ".made"


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file; `before` is None where there is none."""

    path: str
    before: bytes | None
    after: bytes


@dataclass(frozen=True, slots=True)
class Undone:
    """What was done, a line each, and what is left to do for whoever did it, a command each."""

    lines: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in the manifest."""

    path: str
    copy: str
    """The name of what it was; empty if there was none."""
    after: str
    """The hash of what is written; empty for what others make."""
    temporary: str
    """The name beside it that it has for a moment."""


class Journal:
    """What is changed in one go. For one thread."""

    def __init__(
        self,
        backups: str,
        changes: Sequence[FileChange],
        *,
        directories: Sequence[str] = (),
        made: Sequence[str] = (),
        afterwards: Sequence[str] = (),
    ) -> None:
        """`directories`, the innermost first, will be made, and are removed by the undoing if they are empty; `made`
        are files that others will make; `afterwards` are commands for who has undone it."""
        self.directory = os.path.join(os.path.realpath(backups), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
        self._changes = [FileChange(os.path.realpath(each.path), each.before, each.after) for each in changes]
        self._made, self._directories = tuple(made), tuple(directories)
        self._temporary = f".mailguard-{secrets.token_hex(8)}"
        self._commands = tuple(afterwards)

    def begin(self) -> None:
        """Write down what will be done; `directory` then has a name that nothing had. Raises ConfigError, and nothing
        is changed then."""
        try:
            for each in reversed(missing_directories(self.directory)):
                make_directory(each, 0o755)
            self._make()
            try:
                self._keep()
            except BaseException:
                shutil.rmtree(self.directory, ignore_errors=True)
                raise
        except OSError as error:
            # A name without its directory is that of the directory to be made.
            place = os.path.join(os.path.dirname(self.directory), error.filename or self.directory)
            raise ConfigError(f"{place}: cannot be written: {error.strerror}; nothing was changed") from None
        except ConfigError as error:
            raise ConfigError(f"{error}; nothing was changed") from None

    def _make(self) -> None:
        wanted = self.directory
        for number in count(2):
            with opened_directory(os.path.dirname(wanted)) as outer:
                try:
                    os.mkdir(os.path.basename(self.directory), 0o700, dir_fd=outer)
                except FileExistsError:
                    self.directory = f"{wanted}-{number}"
                else:
                    return

    def _keep(self) -> None:
        entries = [_Entry(os.path.realpath(path), "", "", "") for path in self._made]
        for number, change in enumerate(self._changes):
            name = os.path.basename(change.path)
            copy = "" if change.before is None else f"{number}-{name}"
            if change.before is not None:
                self._put(copy, change.before, _unchanged(change))
            after = sha256(change.after).hexdigest()
            entries.append(_Entry(change.path, copy, after, f".{name}{self._temporary}"))
        manifest = {
            "mailguard": FORMAT,
            "files": list(map(asdict, entries)),
            "directories": [os.path.realpath(each) for each in self._directories],
            "afterwards": self._commands,
        }
        self._put(
            MANIFEST, json.dumps(manifest, indent=2).encode(), Content(b"", 0o600, (os.geteuid(), os.getegid()))
        )

    def _put(self, name: str, octets: bytes, like: Content | None) -> None:
        put_file(octets, os.path.join(self.directory, name), temporary=self._temporary, like=like, is_new=True)

    def carry_out(self, others: Callable[[], None] = lambda: None) -> None:
        """What others make, then each file, whole or not at all. Raises ConfigError; all is as before then, unless
        the text says what is not."""
        with ExitStack() as held:
            try:
                held.enter_context(_alone(self.directory))
                self._check()
            except (ConfigError, OSError) as error:
                # There is nothing to undo: that would take somebody else's files for these.
                shutil.rmtree(self.directory, ignore_errors=True)
                raise ConfigError(f"{_text(error)}; nothing was changed") from None
            try:
                others()
                self._write()
            except BaseException as error:
                text = _text(error)
                try:
                    _undo(self.directory)
                except MailguardError as second:
                    raise ConfigError(f"{text}; and not all of it could be taken back: {second}") from error
                if isinstance(error, MailguardError | OSError):
                    raise ConfigError(f"{text}; all is as it was before") from None
                raise

    def _check(self) -> None:
        """Nobody has changed or made one of the files since they were looked at."""
        for change in self._changes:
            _unchanged(change)
        for path in self._made:
            if os.path.lexists(path):
                raise ConfigError(f"{path} has just been made by somebody else")

    def _write(self) -> None:
        for change in self._changes:
            present = _unchanged(change)
            temporary = f".{os.path.basename(change.path)}{self._temporary}"
            try:
                put_file(change.after, change.path, temporary=temporary, like=present, is_new=present is None)
            except OSError as error:
                raise ConfigError(f"{change.path}: cannot be written: {error.strerror}") from None


def _unchanged(change: FileChange) -> Content | None:
    present = read_file(change.path)
    if (present.octets if present is not None else None) != change.before:
        raise ConfigError(f"{change.path} has just been changed by somebody else")
    return present


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """No other process changes or undoes anything meanwhile that is kept beside `directory`. Raises ConfigError."""
    place = os.path.dirname(directory)
    with ExitStack() as opened:
        try:
            outer = opened.enter_context(opened_directory(place))
            # Who may open it, if only to read, can lock it, and stop every change and every undoing.
            lock = os.open(LOCK_NAME, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=outer)
            opened.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{place}: another command changes files at this moment; run this again") from None
        except OSError as error:
            raise ConfigError(f"{place}: {error.strerror}") from None
        yield


def _text(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
    return str(error) or "interrupted"


# -- undoing -------------------------------------------------------------------------------------------------------


def undo(directory: str) -> Undone:
    """Put back what a Journal kept in `directory`. Raises ConfigError, before anything is done, where a file has been
    changed since, or where others than root could have written the directory."""
    directory = os.path.realpath(directory)
    _manifest(directory)
    with _alone(directory):
        return _undo(directory)


def _undo(directory: str) -> Undone:
    manifest = _manifest(directory)
    # The last first: Postfix does without mailguard before that loses its configuration.
    entries = [_Entry(**each) for each in reversed(manifest["files"])]
    try:
        for each in entries:
            _check(each, directory)
        remove_file(os.path.join(directory, TEMPORARY))
        lines = [line for each in entries for line in _restore(each, directory)]
        for path in manifest["directories"]:
            if os.path.lexists(path):
                why = remove_directory(path)
                lines.append(f"{path}: left as it is: {why}" if why else f"{path}: removed")
    except OSError as error:
        place = error.filename or directory
        raise ConfigError(f"{place}: cannot be put back: {error.strerror}; the copies are in {directory}") from None
    return Undone(tuple(lines), tuple(manifest["afterwards"]))


def _manifest(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, MANIFEST)
    octets = read_guarded(path, max_octets=MAX_MANIFEST_OCTETS)
    if octets is None:
        raise ConfigError(f"{path}: cannot be read: No such file or directory")
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError):
        found = None
    if not _is_manifest(found):
        raise ConfigError(f"{path}: not written by mailguard quickstart")
    return dict(found)


def _is_manifest(found: object) -> bool:
    if not isinstance(found, dict) or found.get("mailguard") != FORMAT:
        return False
    files, names = found.get("files"), {"path", "copy", "after", "temporary"}
    if not isinstance(files, list) or not all(isinstance(each, dict) and each.keys() == names for each in files):
        return False
    lists = (found.get("directories"), found.get("afterwards"), *([*each.values()] for each in files))
    return all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists)


def _original(each: _Entry, directory: str) -> Content | None:
    if not each.copy:
        return None
    path = os.path.join(directory, os.path.basename(each.copy))
    found = read_file(path)
    if found is None:
        raise ConfigError(f"{path} is missing: {each.path} cannot be put back")
    return found


def _octets(content: Content | None) -> bytes | None:
    return content.octets if content is not None else None


def _check(each: _Entry, directory: str) -> None:
    original, present = _original(each, directory), read_file(each.path)
    if present is None or present.octets == _octets(original) or not each.after:
        return
    if sha256(present.octets).hexdigest() != each.after:
        was = "there was none"
        if original is not None:
            was = f"it was {os.path.join(directory, each.copy)}: compare them with diff -u"
        raise ConfigError(
            f"{each.path} has been changed since, by hand or by a later run that must be undone first, and is left"
            f" alone, as all the rest; before, {was}"
        )


def _restore(each: _Entry, directory: str) -> list[str]:
    if each.temporary:
        remove_file(os.path.join(os.path.dirname(each.path), each.temporary))
    original, present = _original(each, directory), read_file(each.path)
    if _octets(present) == _octets(original):
        return []
    if original is not None:
        like = present or original
        put_file(original.octets, each.path, temporary=each.temporary, like=like, is_new=present is None)
        return [f"{each.path}: as before"]
    if present is None:
        return []
    kept = _set_aside(os.path.basename(each.path), present, directory)
    remove_file(each.path)
    return [f"{each.path}: removed, and kept as {kept}"]


def _set_aside(name: str, content: Content, directory: str) -> str:
    """Copied into the directory, under a name that is free or has this content already."""
    for number in count(1):
        path = os.path.join(directory, f"made-{name}" if number == 1 else f"made-{number}-{name}")
        found = read_file(path)
        if found is None:
            put_file(content.octets, path, temporary=TEMPORARY, like=content, is_new=True)
        if found is None or found.octets == content.octets:
            return path
    raise AssertionError("counting never ends")
