"""Several files changed together, and put back octet for octet from a directory that keeps what was there.

What is about to be done is written down, with copies, before anything is done: so it can be undone from any point.
What somebody has changed since is never overwritten. Files that were made anew are moved into that directory by the
undoing, private keys among them: nothing is lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mailguard.errors import ConfigError
from mailguard.setup_host.postfix_files import copy_file, replace_file

__all__ = ["FileChange", "Journal", "missing_directories", "undo"]

MANIFEST = "manifest.json"
MAX_MANIFEST_OCTETS = 1024 * 1024
NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file; `before` is None where there is none."""

    path: str
    before: bytes | None
    after: bytes


class Journal:
    """What is changed in one go. For one thread."""

    def __init__(self, directory: str, changes: Sequence[FileChange], directories: Sequence[str]) -> None:
        """`directories` will be made, and are removed by the undoing if they are empty."""
        self.directory = directory
        self._changes = tuple(changes)
        self._manifest: dict[str, Any] = {"mailguard": 1, "files": [], "directories": list(directories)}

    def begin(self, made: Sequence[str]) -> None:
        """Write down what will be done, `made` being files that others will make. Raises ConfigError."""
        try:
            os.makedirs(os.path.dirname(self.directory) or ".", 0o755, exist_ok=True)
            os.mkdir(self.directory, 0o700)
            for number, change in enumerate(self._changes):
                copy = "" if change.before is None else f"{number}-{os.path.basename(change.path)}"
                if change.before is not None:
                    copy_file(change.before, os.path.realpath(change.path), os.path.join(self.directory, copy))
                self._manifest["files"].append(
                    {"path": change.path, "copy": copy, "after": sha256(change.after).hexdigest()}
                )
            self._manifest["files"] += [{"path": path, "copy": "", "after": ""} for path in made]
            text = json.dumps(self._manifest, indent=2)
            with open(os.path.join(self.directory, MANIFEST), "x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"{error.filename or self.directory}: cannot be written: {error.strerror}; nothing was changed"
            ) from None

    def write(self) -> None:
        """Each file, whole or not at all. Raises ConfigError; what was done so far can be undone."""
        for change in self._changes:
            path = os.path.realpath(change.path)
            try:
                if change.before is None:
                    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, NEW_FILE_MODE)
                    with open(descriptor, "wb") as file:
                        os.fchmod(descriptor, NEW_FILE_MODE)
                        file.write(change.after)
                    continue
                if Path(path).read_bytes() != change.before:
                    raise ConfigError(f"{path} has just been changed by somebody else")
                replace_file(change.after, path)
            except OSError as error:
                raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def missing_directories(path: str) -> tuple[str, ...]:
    """What has to be made for a file to be there, the innermost first."""
    found = []
    directory = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(directory):
        found.append(directory)
        directory = os.path.dirname(directory)
    return tuple(found)


def undo(directory: str) -> tuple[str, ...]:
    """Put back what a Journal kept in `directory`; what was done, a line each. Raises ConfigError, before anything
    is done, where a file has been changed since."""
    manifest = _manifest(directory)
    try:
        for each in manifest["files"]:
            _check(each, directory)
        done = [line for each in manifest["files"] for line in _restore(each, directory)]
        for each in manifest["directories"]:
            if os.path.isdir(each) and not os.listdir(each):
                os.rmdir(each)
                done.append(f"{each}: removed")
    except OSError as error:
        place = error.filename2 or error.filename or directory
        raise ConfigError(f"{place}: cannot be put back: {error.strerror}; the copies are in {directory}") from None
    return tuple(done)


def _manifest(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, MANIFEST)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(MAX_MANIFEST_OCTETS))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("mailguard") != 1:
        raise ConfigError(f"{path}: not written by mailguard quickstart")
    return found


def _original(each: dict[str, str], directory: str) -> bytes | None:
    return Path(directory, each["copy"]).read_bytes() if each["copy"] else None


def _present(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None


def _check(each: dict[str, str], directory: str) -> None:
    present = _present(each["path"])
    if present is None or present == _original(each, directory) or not each["after"]:
        return
    if sha256(present).hexdigest() != each["after"]:
        kept = os.path.join(directory, each["copy"]) if each["copy"] else "no file"
        raise ConfigError(
            f"{each['path']} has been changed since, and is left alone, as all the rest; before, it was: {kept}"
        )


def _restore(each: dict[str, str], directory: str) -> list[str]:
    path, original = each["path"], _original(each, directory)
    present = _present(path)
    if present == original:
        return []
    if original is None:
        kept = os.path.join(directory, f"made-{os.path.basename(path)}")
        copy_file(present or b"", path, kept)
        os.unlink(path)
        return [f"{path}: removed, and kept as {kept}"]
    if present is None:
        copy_file(original, os.path.join(directory, each["copy"]), path)
    else:
        replace_file(original, os.path.realpath(path))
    return [f"{path}: as before"]
