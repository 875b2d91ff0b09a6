"""The command line, `mailguard`: one file for each verb. Needs the extra `[cli]`, and says so without it."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from contextlib import suppress

from mailguard.errors import MissingExtraError, install_command
from mailguard.guarded_file import named

__all__ = ["main"]

_PACKAGES_OF_THE_EXTRA = ("click", "pydantic", "pydantic_core", "rich")


class _Stream(io.TextIOWrapper):
    """A standard stream, for text with whatever characters."""

    def __init__(self, stream: io.TextIOWrapper, *, by_lines: bool) -> None:
        """In place of `stream`, which cannot be used any more. `by_lines`: nothing waits behind the end of a line."""
        encoding, at_once = stream.encoding, stream.write_through  # python -u
        super().__init__(
            stream.detach(),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=by_lines,
            write_through=at_once,
        )


class _Notes(_Stream):
    """Standard error. Where it takes nothing, the command does what it would do, and its exit code tells that."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class _Output(_Stream):
    """Standard output: an error in writing to it has its name."""

    def write(self, text: str) -> int:
        with named("standard output"):
            return super().write(text)

    def flush(self) -> None:
        with named("standard output"):
            super().flush()


def main() -> None:
    """Run the command that sys.argv names, and end the process with its exit code (see exit_code.py)."""
    _open_standard_streams()
    if not sys.warnoptions:
        # What a library thinks of a stranger's certificate helps nobody who runs a command; `python -W` shows it.
        warnings.simplefilter("ignore")
    # Whoever started it may ignore it, which is inherited: a program that fails would be taken for one that did not.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output(sys.stdout, by_lines=sys.stdout.line_buffering)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Notes(sys.stderr, by_lines=True)
    try:
        from mailguard.cli.exit_code import ExitCode
        from mailguard.cli.group import run

        code = run(sys.argv[1:])
        if code == ExitCode.INTERRUPTED:
            # Threads may still wait for the network, and sys.exit would wait for them.
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)
    except KeyboardInterrupt:
        # While the command was loaded, or its output written.
        print("mailguard: interrupted", file=sys.stderr)
        os._exit(130)
    except MissingExtraError as error:
        sys.exit(_missing(str(error)))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES_OF_THE_EXTRA:
            raise
        sys.exit(_missing(f"the command needs {package}; install it with: {install_command('cli')}"))


def _open_standard_streams() -> None:
    """Where one was closed (2>&-), a socket would come in its place, and what is written there go to a stranger."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free: this one. Processes of ours find it open, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _missing(text: str) -> int:
    from mailguard.cli.exit_code import ExitCode

    print(f"mailguard: {text}", file=sys.stderr)
    return ExitCode.CONFIGURATION
