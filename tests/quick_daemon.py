"""The daemon with a short patience for workers that hang or stall, and with workers that a test can break.

    python tests/quick_daemon.py CONFIG

A worker dies at its start if the file `break-workers` is beside the configuration; if "all but one" is in it, one
starts, and those that die take a second over it.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from mailguard.dns.answers import Resolver
from mailguard_milter import engine_libmilter, generation, worker
from mailguard_milter.generation import Patience
from mailguard_milter.supervisor import Supervisor
from mailguard_milter.worker import Application

# Longer than a machine under load stops a process.
PATIENCE = Patience(ask_every_s=0.2, answer_s=6.0, start_s=60.0)


def is_broken(how: str) -> bool:
    try:
        # Its lock is held by who starts, to the end.
        descriptor = os.open(how, os.O_RDONLY)
    except FileNotFoundError:
        return False
    if not os.read(descriptor, 1):
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(1.0)
        return True
    return False


def load(path: str) -> Application:
    application = generation.load(path)

    def open_resolver() -> Resolver:
        if is_broken(os.path.join(os.path.dirname(path), "break-workers")):
            os._exit(9)
        return application.open_resolver()

    return replace(application, open_resolver=open_resolver)


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "generation":
        engine_libmilter.STALLED_AFTER_S = 4.0
        worker.STARVED_AFTER_S = 2.0
        generation.RESOLVERS_EVERY_S = 0.5
        return generation.main(arguments[1:], load=load, patience=PATIENCE)
    return Supervisor(arguments[0], generation_command=(sys.executable, __file__, "generation")).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
