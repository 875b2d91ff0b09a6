"""main.cf and master.cf: changed by Postfix's own postconf in a copy, compared, and put in place with a backup.

Nothing of Postfix's is touched before `apply`. Each file is replaced in one go, with its owner and mode; where one
cannot be, the other is put back.
"""

from __future__ import annotations

import difflib
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mailguard.audit.gather import SYSTEM_PATH
from mailguard.audit.postfix import Postfix
from mailguard.errors import ConfigError
from mailguard.setup_host.milter_plan import Setting, chrooted_services

__all__ = ["NAMES", "Backup", "Edit", "copy_file", "edit", "read_chroots", "replace_file", "stamp"]

NAMES = ("main.cf", "master.cf")
POSTCONF_TIMEOUT_S = 60.0
# Files of this size are read in a moment; a larger one is none of Postfix's.
MAX_FILE_OCTETS = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Backup:
    """What was there before."""

    files: tuple[tuple[str, str], ...]
    """Each file and its copy."""
    undo: str
    """The command that puts the copies back."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The files as they are and as they will be."""

    directory: str
    before: Mapping[str, bytes]
    after: Mapping[str, bytes]
    reload: str
    """The command with which Postfix takes notice."""

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the files that change."""
        return tuple(name for name in NAMES if self.before[name] != self.after[name])

    def diff(self) -> str:
        """Both files, as diff -u shows them."""
        return "".join(line for name in self.changed for line in self._diff(name))

    def _diff(self, name: str) -> Iterator[str]:
        old, new = (
            each[name].decode("utf-8", "replace").splitlines(keepends=True) for each in (self.before, self.after)
        )
        path = f"{self.directory}/{name}"
        for line in difflib.unified_diff(old, new, path, f"{path} (new)"):
            yield line if line.endswith("\n") else f"{line}\n"

    def apply(self, time: str) -> Backup:
        """Put the new files in place; `time` is in the names of the backups. Raises ConfigError."""
        paths = {name: os.path.realpath(os.path.join(self.directory, name)) for name in NAMES}
        copies = {name: f"{os.path.join(self.directory, name)}.mailguard-{time}" for name in NAMES}
        made: list[str] = []
        done: list[str] = []
        try:
            for name in NAMES:
                if Path(paths[name]).read_bytes() != self.before[name]:
                    raise ConfigError(f"{paths[name]} has just been changed by somebody else; nothing was done")
                copy_file(self.before[name], paths[name], copies[name])
                made.append(copies[name])
            for name in self.changed:
                replace_file(self.after[name], paths[name])
                done.append(name)
        except OSError as error:
            for name in done:
                replace_file(self.before[name], paths[name])
            for each in made:
                os.unlink(each)
            place = error.filename2 or error.filename or self.directory
            raise ConfigError(f"{place}: cannot be written: {error.strerror}; nothing was changed") from None
        files = tuple((os.path.join(self.directory, name), copies[name]) for name in NAMES)
        steps = [f"cp -p {shlex.quote(copy)} {shlex.quote(path)}" for path, copy in files]
        return Backup(files, " && ".join([*steps, self.reload]))


def stamp() -> str:
    """Now, for the names of backups."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def edit(postfix: Postfix, settings: Sequence[Setting], *, postconf: str = "postconf") -> Edit:
    """What becomes of the files with these settings. Raises ConfigError."""
    before = {name: _read(os.path.join(postfix.directory, name)) for name in NAMES}
    with tempfile.TemporaryDirectory(prefix="mailguard-postconf-") as scratch:
        for name, octets in before.items():
            Path(scratch, name).write_bytes(octets)
        main = [each.argument for each in settings if each.service is None]
        services = [each.argument for each in settings if each.service is not None]
        for option, arguments in (("-e", main), ("-P", services)):
            if arguments:
                # Postfix waits until a file that has just been written is a second old.
                for name in NAMES:
                    os.utime(os.path.join(scratch, name), (0, 0))
                _postconf(postconf, ["-c", scratch, option, *arguments])
        after = {name: _read(os.path.join(scratch, name)) for name in NAMES}
    is_default = " -c " not in postfix.postconf
    reload = "postfix reload" if is_default else f"postfix -c {shlex.quote(postfix.directory)} reload"
    return Edit(postfix.directory, before, after, reload)


def read_chroots(postfix: Postfix, *, postconf: str = "postconf") -> frozenset[str]:
    """The services that run in a chroot. Raises ConfigError."""
    return chrooted_services(_postconf(postconf, ["-c", postfix.directory, "-F", "*/*/chroot"]), postfix)


def _postconf(postconf: str, arguments: Sequence[str]) -> str:
    program = shutil.which(postconf) or shutil.which(postconf, path=SYSTEM_PATH) or postconf
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=POSTCONF_TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"no end within {POSTCONF_TIMEOUT_S:g} s"
        raise ConfigError(f"{program} cannot be run: {why}") from None
    said = [line.partition(": ")[2] or line for line in done.stderr.splitlines()]
    if done.returncode or any("unmatched" in line for line in said):
        raise ConfigError(f"{said[-1]} (says {program})" if said else f"{program} failed")
    return done.stdout


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_OCTETS)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def copy_file(octets: bytes, original: str, path: str) -> None:
    """A new file with the owner, mode and times of the original. Raises OSError."""
    found = os.stat(original)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, found.st_uid, found.st_gid)
            os.fchmod(descriptor, found.st_mode & 0o7777)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    except BaseException:
        os.unlink(path)
        raise


def replace_file(octets: bytes, path: str) -> None:
    """In one go, with the owner and mode that the file has. Raises OSError."""
    temporary = f"{path}.{secrets.token_hex(8)}.new"
    try:
        copy_file(octets, path, temporary)
        # Postfix goes by the time of the change.
        os.utime(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
