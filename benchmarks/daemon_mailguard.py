"""mailguard from this checkout, as it is installed by default: monitor mode, one log line a mail.

Its configuration leaves everything at its default but the name of the host, the resolver, the keys and the socket,
and in one of two variants the engine. The default engine is libmilter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench_keys import ED25519_SELECTOR, RSA_SELECTOR, BenchKeys
from compared_daemon import ComparedDaemon, Task
from sample_mail import AUTHSERV_ID, OUR_DOMAIN
from sandbox_daemon import Daemon

__all__ = ["Mailguard", "MailguardNative", "MailguardNativeWithOneWorker", "MailguardWithOneWorker"]


class Mailguard(ComparedDaemon):
    """All checks on."""

    name = "mailguard"
    first_line: ClassVar[str] = ""
    """Of the configuration."""

    def __init__(self, task: Task, keys: BenchKeys, *, workers: int | None = None) -> None:
        """`workers`: as many as the configuration leaves it at, unless given."""
        super().__init__(task, keys)
        self._workers = workers
        self._daemon = Daemon()

    def files(self) -> Mapping[str, str]:
        text = f'{self.first_line}authserv_id = "{AUTHSERV_ID}"\n\n[dns]\nnameservers = ["127.0.0.1"]\n'
        if self.task is not Task.JUDGE:
            keys = {"rsa": (RSA_SELECTOR, "rsa.pem"), "ed25519": (ED25519_SELECTOR, "ed25519.pem")}
            selectors = "".join(
                f'  {{ name = "{selector}", key_file = "keys/{file}" }},\n'
                for selector, file in (keys[name] for name in self.task.algorithms)
            )
            text += f'\n[domains."{OUR_DOMAIN}"]\nselectors = [\n{selectors}]\n'
        text += f'\n[[listeners]]\naddress = "unix:{self.path}"\ngroup = "postfix"\n'
        if self._workers is not None:
            text += f"workers = {self._workers}\n"
        return {"mailguard.toml": text}

    @property
    def path(self) -> str:
        return f"{self.directory}/run/milter.sock"

    @property
    def root_process(self) -> int:
        return self._daemon.pid

    def start(self) -> None:
        self._daemon.__enter__()
        self.directory.rmdir()
        self.directory = self._daemon.directory
        for path in self._keys.write(self.directory / "keys").iterdir():
            self._give(path)
        self._daemon.start(self.files()["mailguard.toml"])

    def stop(self) -> None:
        self._daemon.__exit__(None, None, None)

    def log_tail(self) -> str:
        return self._daemon.log_tail()

    def workers(self) -> list[int]:
        """The process ids of those that serve."""
        return self._daemon.workers()


class MailguardNative(Mailguard):
    """The same on the engine without libmilter."""

    name = "mailguard, native engine"
    first_line = 'engine = "native"\n'


class MailguardWithOneWorker(Mailguard):
    """Each worker has a cache of its own; with one of them, what comes again is always known."""

    name = "mailguard, 1 worker"

    def __init__(self, task: Task, keys: BenchKeys) -> None:
        super().__init__(task, keys, workers=1)


class MailguardNativeWithOneWorker(MailguardNative):
    """As MailguardWithOneWorker."""

    name = "mailguard, native engine, 1 worker"

    def __init__(self, task: Task, keys: BenchKeys) -> None:
        super().__init__(task, keys, workers=1)
