"""What the supervisor tells systemd: one datagram a message (sd_notify(3)). Without systemd, nothing happens."""

from __future__ import annotations

import os
import socket
import time

__all__ = ["Notifier"]


class Notifier:
    """The service manager's socket."""

    def __init__(self) -> None:
        """Reads NOTIFY_SOCKET and takes it out of the environment: it is not for the children."""
        path = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        watchdog_us = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        self.watchdog_s = int(watchdog_us) / 1e6 if watchdog_us.isdigit() and pid == str(os.getpid()) else None

    def ready(self, status: str) -> None:
        """All workers accept."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload began; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self) -> None:
        """The end began."""
        self._send("STOPPING=1\nSTATUS=finishing the messages that are under way")

    def alive(self) -> None:
        """For WatchdogSec."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._address)
        except OSError:
            return  # a service manager that does not listen must not stop the mail
