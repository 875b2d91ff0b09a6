"""A mail server on loopback that does STARTTLS with the certificate of a test, or something worse.

It is a script: what it says, in order, with TLS where STARTTLS is answered with 220. One thread a connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["GREETING", "OFFER", "READY", "StartTlsSite", "loopback"]

PATIENCE_S = 30.0
GREETING = b"220 mx ESMTP\r\n"
OFFER = b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
READY = b"220 go ahead\r\n"


def loopback(network: int, number: int) -> str:
    """An address of 127/8 that no other run of the tests on this machine uses, as a rule."""
    return f"127.{network}.{os.getpid() % 251}.{number}"


class StartTlsSite:
    """Listens while it is entered."""

    def __init__(
        self,
        address: str,
        port: int,
        chain: Path | None,
        *,
        greeting: bytes = GREETING,
        offer: bytes = OFFER,
        ready: bytes = READY,
        rubbish: bytes = b"",
        hangs_up_at: bytes | None = None,
        resets: bool = False,
        pause_s: float = 0.0,
    ) -> None:
        """`chain`: key and certificates. Without, it says `rubbish` when TLS begins, and then nothing.

        `hangs_up_at`: what it hangs up on, in place of an answer: `EHLO `, `STARTTLS`, or 22 where TLS begins;
        `resets`: with a reset, as a firewall does.
        `pause_s`: before each octet that it says in the clear.
        """
        self.address, self.port = address, port
        self.server_names: list[str | None] = []
        """The SNI of each handshake."""
        self.heard: list[bytes] = []
        """What was said in the clear."""
        self.heard_in_tls: list[bytes] = []
        self._script: tuple[tuple[bytes, bytes], ...] = ((b"", greeting), (b"EHLO ", offer), (b"STARTTLS", ready))
        if rubbish or hangs_up_at == b"\x16":
            self._script += ((b"\x16", rubbish),)
        self._hangs_up_at, self._resets, self._pause_s = hangs_up_at, resets, pause_s
        self._context: ssl.SSLContext | None = None
        if chain is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Keys of any size, and signatures by any digest.
            self._context.set_ciphers("DEFAULT:@SECLEVEL=0")
            self._context.load_cert_chain(chain)
            self._context.sni_callback = lambda tls, name, context: self.server_names.append(name)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._listener = socket.create_server((self.address, self.port), family=family)
        self._listener.settimeout(0.05)
        self._begin(threading.Thread(target=self._accept, daemon=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def _begin(self, thread: threading.Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._begin(threading.Thread(target=self._serve, args=(client,), daemon=True))

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(PATIENCE_S)
        if self._resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with client, contextlib.suppress(OSError):
            for awaited, text in self._script:
                if awaited:
                    said = client.recv(4096)
                    self.heard.append(said)
                    if not said.startswith(awaited) or awaited == self._hangs_up_at:
                        return
                self._say(client, text)
            if self._context is None:
                self._over.wait(PATIENCE_S)
                return
            with self._context.wrap_socket(client, server_side=True) as tls:
                self.heard_in_tls.append(tls.recv(4096))

    def _say(self, client: socket.socket, text: bytes) -> None:
        if not self._pause_s:
            client.sendall(text)
            return
        for octet in text:
            if self._over.wait(self._pause_s):
                return
            client.sendall(bytes([octet]))
