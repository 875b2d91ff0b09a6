"""A mail server elsewhere, which says yes or no as the recipient asks for it, in words that do harm."""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
from collections.abc import Iterator

__all__ = ["HOSTILE", "Receiver", "receiving"]

HOSTILE = b"\x1b[2J\x07<b>[red]" + "\u202e".encode()


class Receiver(socketserver.StreamRequestHandler):
    """A mail server elsewhere: the recipient's local part is what it answers to RCPT."""

    def handle(self) -> None:
        # Who has what he came for closes the connection.
        with contextlib.suppress(OSError):
            self._talk()

    def _talk(self) -> None:
        self.wfile.write(b"220 mx.far.test ESMTP\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"RCPT":
                (code,) = re.findall(rb"<(\d+)", line) or [b"250"]
                dsn = {b"451": b"4.7.1", b"550": b"5.1.1", b"552": b"5.1.1"}.get(code, b"2.1.5")
                if code == b"552":
                    # So much that the line in the log is long.
                    self.wfile.write(b"552-5.1.1 %b\r\n" % (b"for you " * 200) * 4)
                self.wfile.write(b"%b %b for you%b\r\n" % (code, dsn, HOSTILE))
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while self.rfile.readline().rstrip() not in (b".", b""):
                    continue
                self.wfile.write(b"250 2.0.0 queued as FAR1\r\n")
            else:
                self.wfile.write(b"250 ok\r\n")
            if verb == b"QUIT":
                return


@contextlib.contextmanager
def receiving(how: type[Receiver] = Receiver) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), how) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
