"""A milter on pymilter's C module that does nothing but insert one header field; negotiates as mailguard does.

    noop_pymilter.py SOCKET

One process and no fork: what the interpreter and the binding cost for each message.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import milter as _milter

# A C module without types.
milter: Any = _milter

ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.QUARANTINE
STEPS = (
    milter.P_NR_CONN
    | milter.P_NR_HELO
    | milter.P_NR_MAIL
    | milter.P_NR_RCPT
    | milter.P_NR_HDR
    | milter.P_NR_EOH
    | milter.P_NR_BODY
    | milter.P_NODATA
    | milter.P_NOUNKNOWN
    | milter.P_HDR_LEADSPC
)


def negotiate(context: Any, options: list[int]) -> int:
    options[:] = [ACTIONS, STEPS, 0, 0]
    return int(milter.CONTINUE)


def say_nothing(context: Any, *arguments: Any) -> int:
    return int(milter.NOREPLY)


def end_of_message(context: Any) -> int:
    context.addheader("X-Noop", " yes", 0)
    return int(milter.CONTINUE)


def main(path: str) -> None:
    milter.set_flags(ACTIONS)
    for register, callback in (
        (milter.set_connect_callback, say_nothing),
        (milter.set_helo_callback, say_nothing),
        (milter.set_envfrom_callback, say_nothing),
        (milter.set_envrcpt_callback, say_nothing),
        (milter.set_header_callback, say_nothing),
        (milter.set_eoh_callback, say_nothing),
        (milter.set_body_callback, say_nothing),
        (milter.set_eom_callback, end_of_message),
    ):
        register(callback)
    milter.register("noop", unknown=None, data=None, negotiate=negotiate)
    milter.setconn(f"local:{path}")
    # libmilter's thread for signals ends main() when SIGTERM comes.
    serving = threading.Thread(target=milter.main)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serving.start()
    serving.join()


if __name__ == "__main__":
    main(sys.argv[1])
