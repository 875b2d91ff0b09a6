"""main.cf and master.cf, changed by Postfix's own postconf in a copy, and compared. Postfix's own are not touched."""

from __future__ import annotations

import difflib
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailguard.audit.gather import run_postconf
from mailguard.audit.postfix import Postfix, parameters, service_overrides
from mailguard.errors import ConfigError
from mailguard.guarded_file import named, read_beginning
from mailguard.setup_host.file_changes import FileChange
from mailguard.setup_host.milter_list import Written
from mailguard.setup_host.milter_plan import Setting, chrooted_services

__all__ = ["Edit", "edit", "read_chroots", "read_written"]

NAMES = ("main.cf", "master.cf")
# Files of this size are read in a moment; a larger one is none of Postfix's.
MAX_FILE_OCTETS = 16 * 1024 * 1024


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

    @property
    def changes(self) -> tuple[FileChange, ...]:
        """master.cf first: it takes effect with the reload alone, main.cf in every process that starts afterwards."""
        return tuple(
            FileChange(os.path.join(self.directory, name), self.before[name], self.after[name])
            for name in reversed(self.changed)
        )


def edit(postfix: Postfix, settings: Sequence[Setting], *, postconf: str) -> Edit:
    """What becomes of the files with these settings. Raises ConfigError."""
    for each in settings:
        if "\ufffd" in each.argument:
            raise ConfigError(f"{each.name} has octets that are not UTF-8, and would be changed: set it by hand")
    before = _both(postfix.directory)
    with tempfile.TemporaryDirectory(prefix="mailguard-postconf-") as scratch:
        for name, octets in before.items():
            with named(os.path.join(scratch, name)):
                Path(scratch, name).write_bytes(octets)
        main = [each.argument for each in settings if each.service is None]
        services = [each.argument for each in settings if each.service is not None]
        for option, arguments in (("-e", main), ("-P", services)):
            if arguments:
                # Postfix waits until a file that has just been written is a second old.
                for name in NAMES:
                    os.utime(os.path.join(scratch, name), (0, 0))
                _postconf(postconf, ["-c", scratch, option, *arguments])
        after = _both(scratch)
    is_default = " -c " not in postfix.postconf
    reload = "postfix reload" if is_default else f"postfix -c {shlex.quote(postfix.directory)} reload"
    return Edit(postfix.directory, before, after, reload)


def read_chroots(postfix: Postfix, *, postconf: str) -> frozenset[str]:
    """The services that run in a chroot. Raises ConfigError."""
    return chrooted_services(_postconf(postconf, ["-c", postfix.directory, "-F", "*/*/chroot"]), postfix)


def read_written(postfix: Postfix, *, postconf: str) -> Written:
    """The parameters as they are written. Raises ConfigError."""
    main, services = (_postconf(postconf, ["-c", postfix.directory, *each]) for each in ((), ("-P",)))
    return Written(parameters(main), service_overrides(services))


def _postconf(postconf: str, arguments: Sequence[str]) -> str:
    done = run_postconf([postconf, *arguments])
    said = [line.partition(": ")[2] or line for line in done.stderr.splitlines()]
    if done.returncode or any("unmatched" in line for line in said):
        raise ConfigError(f"{said[-1]} (says {done.args[0]})" if said else f"{done.args[0]} failed")
    return done.stdout


def _both(directory: str) -> dict[str, bytes]:
    return {name: read_beginning(os.path.join(directory, name), max_octets=MAX_FILE_OCTETS) for name in NAMES}
