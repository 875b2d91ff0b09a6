"""Starts a program with sockets as systemd does (sd_listen_fds(3)).

    python tests/systemd_starter.py '{"descriptors": [FD, ...], "names": "a:b" or null, "variables": {}}' COMMAND...

The descriptors become 3, 4 and so on; LISTEN_PID is this process, which becomes the program. `variables` replace what
would be set; null leaves one out.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NoReturn

FIRST = 3


def main(arguments: list[str]) -> NoReturn:
    orders = json.loads(arguments[0])
    # Out of the way of each other first.
    apart = [os.dup(each) for each in orders["descriptors"]]
    above = [os.dup2(each, max(apart, default=0) + FIRST + len(apart) + at) for at, each in enumerate(apart)]
    for at, descriptor in enumerate(above):
        os.dup2(descriptor, FIRST + at, inheritable=True)
    os.closerange(FIRST + len(above), max(above, default=FIRST) + 1)
    variables = {"PID": str(os.getpid()), "FDS": str(len(above)), "FDNAMES": orders["names"], **orders["variables"]}
    told = {f"LISTEN_{name}": value for name, value in variables.items() if value is not None}
    os.execve(arguments[1], arguments[1:], {**os.environ, **told})  # noqa: S606 - as systemd does


if __name__ == "__main__":
    main(sys.argv[1:])
