"""The daemon with a short patience for workers that hang or stall, and with workers that a test can break.

    python tests/quick_daemon.py CONFIG

A worker hangs or dies at its start if the file `break-workers` is beside the configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from mailguard.dns.answers import Resolver
from mailguard_milter import engine_libmilter, generation, worker
from mailguard_milter.generation import Patience
from mailguard_milter.supervisor import Supervisor
from mailguard_milter.worker import Application

# Longer than a machine under load stops a process.
PATIENCE = Patience(ask_every_s=0.2, answer_s=6.0, start_s=60.0)


def load(path: str) -> Application:
    application = generation.load(path)

    def open_resolver() -> Resolver:
        if os.path.exists(os.path.join(os.path.dirname(path), "break-workers")):
            os._exit(9)
        return application.open_resolver()

    return replace(application, open_resolver=open_resolver)


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "generation":
        engine_libmilter.STALLED_AFTER_S = 4.0
        worker.STARVED_AFTER_S = 2.0
        return generation.main(arguments[1:], load=load, patience=PATIENCE)
    return Supervisor(arguments[0], generation_command=(sys.executable, __file__, "generation")).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
