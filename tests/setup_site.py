"""A Postfix configuration for postconf(1), and a private Postfix and a daemon that know nothing of each other.

`open_host` is what an administrator has before the first step: Postfix without milters, and a daemon that runs.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import zone0
from postfix_site import ALICE, AUTHSERV_ID, OUR_KEYS, PASSWORD, Answer, Client, text_record
from sandbox import PostfixSandbox
from sandbox_daemon import Daemon
from sandbox_place import processes_in

__all__ = ["SUBMISSION", "ConfigDirectory", "Host", "open_host"]

# An hour ago: Postfix waits until a file that has just been written is a second old.
AGE_S = 3_600.0
SUBMISSION: Mapping[str, str] = {
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_relay_restrictions": "permit_sasl_authenticated,reject",
}
DELIVERY_TIMEOUT_S = 30.0
RELOAD_TIMEOUT_S = 30.0


class ConfigDirectory:
    """main.cf and master.cf, and a configuration of mailguard's beside them."""

    def __init__(self, root: Path) -> None:
        self.path = root / "postfix"
        self.queue = root / "queue"
        self.path.mkdir()
        self.queue.mkdir()
        self.config_file = root / "mailguard.toml"
        self.write()
        self.configure()

    def write(
        self,
        main: Mapping[str, str] | None = None,
        services: Mapping[str, Mapping[str, str]] | None = None,
        *,
        chroot: str = "n",
    ) -> None:
        """By default smtp and submission, and no milter."""
        wanted = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "myhostname": "mx.us.test",
            "mydestination": "$myhostname",
            "alias_maps": "",
            # The defaults from 3.9 on.
            "smtpd_forbid_bare_newline": "normalize",
            "smtpd_forbid_unauth_pipelining": "yes",
            **(main or {}),
        }
        lines = ["# kept as it is", *(f"{name} = {value}" for name, value in wanted.items())]
        self._put("main.cf", "\n".join(lines) + "\n")
        text = f"# kept as it is\ncleanup unix n - {chroot} - 0 cleanup\n"
        for name, overrides in {"smtp": {}, "submission": SUBMISSION, **(services or {})}.items():
            text += f"{name} inet n - {chroot} - - smtpd\n"
            text += "".join(f"  -o {each}={value}\n" for each, value in overrides.items())
        self._put("master.cf", text)

    def _put(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        self.grow_old()

    def grow_old(self) -> None:
        then = time.time() - AGE_S
        for each in self.path.glob("*.cf"):
            os.utime(each, (then, then))

    def configure(self, *listeners: tuple[str, str], more: str = "") -> None:
        """The addresses and roles of the listeners."""
        text = f'authserv_id = "{AUTHSERV_ID}"\n{more}\n'
        for address, role in listeners or [("unix:/run/mailguard/mailguard.sock", "auto")]:
            text += f'[[listeners]]\naddress = "{address}"\nrole = "{role}"\n'
        self.config_file.write_text(text)

    @property
    def options(self) -> list[str]:
        return ["-c", str(self.config_file), "--config-directory", str(self.path)]

    def files(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in sorted(self.path.iterdir())}

    def value(self, name: str) -> str:
        """What postconf says of main.cf."""
        return self._said("-h", name)

    def service_value(self, service: str, name: str) -> str:
        """What stands in master.cf for a service, empty for nothing."""
        return self._said("-Ph", f"{service}/inet/{name}")

    def _said(self, option: str, name: str) -> str:
        self.grow_old()
        command = ["postconf", "-c", str(self.path), option, name]
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/bin"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@dataclass
class Host:
    """Both, running."""

    postfix: PostfixSandbox
    daemon: Daemon

    @property
    def options(self) -> list[str]:
        return ["-c", str(self.daemon.config_file), "--config-directory", str(self.postfix.directory / "config")]

    def config_files(self) -> dict[str, bytes]:
        directory = self.postfix.directory / "config"
        return {name: (directory / name).read_bytes() for name in ("main.cf", "master.cf")}

    def run(self, command: str) -> None:
        """A line for the administrator's shell. After a reload of Postfix, none of its processes is an old one.

        An smtpd that waits for a client might take one more before it hears that its configuration is old.
        """
        old = self._smtpds() if command.endswith(" reload") else frozenset()
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/bin"}
        done = subprocess.run(
            ["/bin/sh", "-ec", command], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + RELOAD_TIMEOUT_S
        while old & self._smtpds():
            assert time.monotonic() < deadline, self.postfix.log_tail()
            time.sleep(0.02)

    def _smtpds(self) -> frozenset[int]:
        """Their process ids."""
        found = set()
        for process in processes_in(self.postfix.directory / "queue"):
            with suppress(OSError):
                if Path(f"/proc/{process}/comm").read_text().strip() == "smtpd":
                    found.add(process)
        return frozenset(found)

    def submit(self, content: bytes, recipient: str) -> bytes:
        """From alice, with her password; the delivered message."""
        with Client(
            "127.0.0.1", self.postfix.ports["submission"], local_hostname="client.test", timeout=60
        ) as client:
            client.ehlo()
            client.login(ALICE, PASSWORD)
            answer: Answer = client.transmit(content, sender=ALICE, recipient=recipient)
        assert answer.code == 250, answer
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while time.monotonic() < deadline:
            for each in self.postfix.delivered():
                if each.recipient == recipient:
                    return each.message
            time.sleep(0.05)
        raise AssertionError(self.postfix.log_tail())


def zone_file(selectors: Sequence[str] = tuple(OUR_KEYS)) -> str:
    """The records of our keys."""
    lines = ["$TTL 60"]
    for name in selectors:
        record = text_record(zone0.key_record(OUR_KEYS[name]))
        lines.append(f"{name}._domainkey.{zone0.US}. IN TXT {record}")
    return "\n".join(lines) + "\n"


@contextmanager
def open_host(*, more: str = "", rule: str = "") -> Iterator[Host]:
    """`more` are tables of the daemon's configuration, `rule` are lines of that for our domain."""
    with Daemon() as daemon:
        for selector, private in OUR_KEYS.items():
            daemon.write_key(f"keys/{selector}.pem", zone0.pem(private))
        (daemon.directory / "zone").write_text(zone_file(), encoding="ascii")
        (daemon.directory / "zone").chmod(0o644)
        keys = ", ".join(f'{{ name = "{each}", key_file = "keys/{each}.pem" }}' for each in OUR_KEYS)
        daemon.start(
            f'mode = "enforce"\nauthserv_id = "{AUTHSERV_ID}"\n[dns]\nzone_file = "zone"\n'
            f'[domains."{zone0.US}"]\n{rule}selectors = [{keys}]\n{more}'
        )
        with PostfixSandbox(
            main={"enable_long_queue_ids": "yes"},
            submission={"milter_macro_daemon_name": "submission"},
            users={ALICE: PASSWORD},
        ) as postfix:
            yield Host(postfix, daemon)
