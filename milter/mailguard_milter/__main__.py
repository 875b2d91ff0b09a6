"""`mailguard-milter [-c FILE] [--check-config | --version]`: the daemon, always in the foreground.

Exit codes (sysexits.h): 0, 64 usage, 70 internal, 75 try again (another one runs, an address is in use),
78 configuration.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from mailguard_milter.log import Severity, tell
from mailguard_milter.refusal import EX_TEMPFAIL, EX_USAGE, Refusal, why_not_started
from mailguard_milter.supervisor import Supervisor

__all__ = ["command_line", "main"]

# Not imported from mailguard.config: the supervisor stays small. A test compares the two.
DEFAULT_CONFIG = "/etc/mailguard/mailguard.toml"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def command_line() -> argparse.ArgumentParser:
    """What reads the arguments."""
    parser = _Parser(
        prog="mailguard-milter",
        description="Signs and verifies mail for Postfix. Runs in the foreground; SIGHUP reloads, SIGTERM ends.",
    )
    parser.add_argument("-c", "--config", metavar="FILE", default=DEFAULT_CONFIG, help="default: %(default)s")
    parser.add_argument(
        "--check-config", action="store_true", help="load the configuration and all keys, say what they are, and end"
    )
    parser.add_argument("--version", action="store_true", help="say which version this is, and end")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    _open_standard_streams()
    # Whoever started it may ignore it, which is inherited: how a process of ours ended would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    options = command_line().parse_args(arguments)
    if options.version:
        # Not imported above: the supervisor stays small.
        from importlib.metadata import version

        print(f"mailguard-milter, version {version('mailguard-milter')}")
        return 0
    path = os.path.abspath(options.config)
    if options.check_config:
        check = [sys.executable, "-P", "-m", "mailguard_milter.check_config", path]
        return subprocess.run(check, check=False).returncode
    try:
        return Supervisor(path).run()
    except Refusal as refusal:
        for line in str(refusal).splitlines():
            tell("not started", Severity.ERROR, why=line)
        return refusal.code
    except (OSError, MemoryError) as error:
        # What the kernel refuses this process may be there again when it is started again.
        why = why_not_started(error) or type(error).__name__
        tell("ended", Severity.ERROR, why=why, path=error.filename if isinstance(error, OSError) else None)
        return EX_TEMPFAIL


def _open_standard_streams() -> None:
    """Where one was closed (2>&-), a socket would come in its place, and what is written there go to a stranger."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free: this one. Processes of ours find it open, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


if __name__ == "__main__":
    sys.exit(main())
