"""Senders and receivers of mail for DANE and MTA-STS, all of them real, on loopback addresses and port 25.

Receivers: one Postfix with a service for each address, each with a certificate of its own. The sender: another
Postfix, whose smtp runs in a chroot with an etc/resolv.conf that names our validating unbound, and whose
smtp_tls_policy_maps is `mailguard tlspolicy serve`, a process of its own. Policies come from a real HTTPS server.
One object of each is for one thread.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from postfix_commands import write_main_cf
from sandbox import PostfixSandbox
from sandbox_place import free_port

__all__ = ["PolicyServer", "Receiver", "Receivers", "Sender", "wait_for"]

PATIENCE_S = 30.0
POLL_S = 0.02


def wait_for(condition: Callable[[], object], told: Callable[[], str]) -> None:
    """`told` says what there is, if it does not come about."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Receiver:
    """A server on port 25; without a chain it offers no TLS."""

    name: str
    address: str
    chain: Path | None


class _Changed(PostfixSandbox):
    """With other settings. What stands twice in main.cf is warned of, and postlogd waits for itself to write that."""

    def __init__(self, settings: Mapping[str, str], *, hostname: str) -> None:
        super().__init__(hostname=hostname)
        self._settings = settings

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.directory / "config" / "main.cf"
        kept = [line for line in path.read_text().splitlines() if line.partition(" = ")[0] not in self._settings]
        path.write_text("\n".join([*kept, *(f"{name} = {value}" for name, value in self._settings.items()), ""]))
        os.utime(path, (0, 0))


class Receivers(_Changed):
    """They take mail for every address."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        super().__init__(
            {
                "smtpd_tls_received_header": "yes",
                "smtpd_tls_loglevel": "1",
                "inet_interfaces": "all",
            },
            hostname="receivers.test",
        )
        self._receivers = receivers

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.directory / "config" / "master.cf"
        with path.open("a") as file:
            for each in self._receivers:
                file.write(f"{each.address}:25 inet n - n - - smtpd\n  -o syslog_name=postfix/{each.name}\n")
                if each.chain is not None:
                    file.write(f"  -o smtpd_tls_security_level=may\n  -o smtpd_tls_chain_files={each.chain}\n")
        os.utime(path, (0, 0))

    def lines(self, name: str) -> list[str]:
        """The log of one of them."""
        return [line for line in self.log().splitlines() if f" postfix/{name}/smtpd[" in line]

    def commands(self, name: str) -> list[str]:
        """The SMTP commands of each connection, as Postfix counts them at its end: `ehlo=2 starttls=1 mail=1 ...`."""
        found = (re.search(r"disconnect from \S+ (.*)", line) for line in self.lines(name))
        return [one[1] for one in found if one is not None]


class Sender(_Changed):
    """It relays what it is given, by MX records and with the TLS that the policy server demands."""

    def __init__(self, *, nameserver: str, policy_port: int, ca_file: Path) -> None:
        super().__init__(
            {
                "virtual_mailbox_domains": "",
                "mynetworks": "127.0.0.0/8",
                "smtpd_relay_restrictions": "permit_mynetworks, reject",
                "smtp_host_lookup": "dns",
                "smtp_dns_support_level": "dnssec",
                "smtp_tls_security_level": "dane",
                "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{policy_port}:QUERY",
                "smtp_tls_CAfile": str(ca_file),
                "smtp_tls_loglevel": "1",
                # The services of /etc/services are not there in the chroot.
                "smtp_tcp_port": "25",
                "smtp_connection_cache_on_demand": "no",
                "inet_interfaces": "all",
            },
            hostname="sender.test",
        )
        self._nameserver = nameserver

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.directory / "config" / "master.cf"
        text = path.read_text()
        assert "\nsmtp unix - - n - - smtp\n" in text
        path.write_text(text.replace("\nsmtp unix - - n - - smtp\n", "\nsmtp unix - - y - - smtp\n"))
        os.utime(path, (0, 0))

    def _start_processes(self) -> None:
        super()._start_processes()
        # A chroot has a resolv.conf of its own, which is how this Postfix comes to ask our resolver. On Debian 13,
        # each start puts the machine's there.
        place = self.directory / "queue" / "etc"
        place.mkdir(exist_ok=True)
        (place / "resolv.conf").unlink(missing_ok=True)
        (place / "resolv.conf").write_text(f"nameserver {self._nameserver}\noptions trust-ad\n")

    def send(self, recipient: str) -> None:
        text = f"From: a@sender.test\r\nTo: {recipient}\r\nSubject: x\r\n\r\nsecret of {recipient}\r\n".encode()
        self.submit(text, sender="a@sender.test", recipients=[recipient], service="inbound")

    def outcome(self, recipient: str) -> str:
        """The line of smtp(8) that says what became of it, once there is one; the part behind `relay=`."""
        pattern = re.compile(rf"to=<{re.escape(recipient)}>, (relay=.*)")

        def found() -> list[str]:
            return pattern.findall(self.log())

        wait_for(found, lambda: f"nothing became of mail to {recipient}:\n{self.log_tail()}")
        return found()[-1]


class PolicyServer:
    """`mailguard tlspolicy serve`, a process; started anew it has what its database has."""

    def __init__(self, *, dns_port: int, tlspolicy: str) -> None:
        """`tlspolicy`: further lines of that table."""
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="mailguard-tlspolicy-"))
        write_main_cf(self.directory)
        self.cache_file = self.directory / "mta-sts.sqlite"
        self.config = self.directory / "mailguard.toml"
        self.config.write_text(
            f'authserv_id = "sender.test"\n[dns]\nnameservers = ["127.0.0.1"]\nport = {dns_port}\n'
            f'[tlspolicy]\nlisten = ["inet:127.0.0.1:{self.port}"]\ncache_file = "{self.cache_file}"\n{tlspolicy}\n'
            '[[listeners]]\naddress = "inet:127.0.0.1:1"\n'
        )
        self._log = self.directory / "log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        seen = self.log().count("started")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mailguard", "tlspolicy", "serve", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: self._process.poll() is not None or self.log().count("started") > seen, self.log)
        assert self._process.poll() is None, self.log()

    def stop(self) -> None:
        """As systemd does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def ask(self, destination: str) -> str:
        """What Postfix's own client is told: the policy, `not found`, or `error`."""
        done = subprocess.run(
            ["postmap", "-c", str(self.directory), "-q", destination, f"socketmap:inet:127.0.0.1:{self.port}:QUERY"],
            env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        # postmap(1): 1 both for what is not found and for what failed, which it says.
        return "error" if done.stderr.strip() else "not found"
