"""PostfixSandbox: a private Postfix on loopback, for the demo and the tests.

One instance with two SMTP services, everything in one directory of its own: configuration, queue, log, mailboxes.
`submission` wants a login (Cyrus SASL, or XCLIENT from a test) and hands what it accepts to `inbound` by SMTP;
`inbound` delivers into one Maildir, whoever the recipient is. So no mail leaves the machine, no
name is looked up, and each message passes both services. /etc/postfix is not read and syslog is not needed.

Needs root: Postfix's daemons change their user. Left out: TLS, chroot, local aliases. Several sandboxes can run
side by side; one object is for one thread, except that `session` and `submit` may be called from several.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import smtplib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sandbox_place import (
    HOST,
    POLL_S,
    SYSTEM_PATH,
    SandboxError,
    clean_environment,
    end_processes_in,
    make_directory,
    make_public_directory,
    port_of,
    reserve_port,
    write_file,
)
from sandbox_smtp import login_with_xclient, transmit

__all__ = ["Delivery", "PostfixSandbox", "SandboxError", "Service"]

Service = Literal["inbound", "submission"]

START_TIMEOUT_S = 60.0
DELIVERY_TIMEOUT_S = 120.0
CLIENT_NAME = "client.sandbox.test"
SESSION_TIMEOUT_S = 60.0
LOG_TAIL_CHARACTERS = 6_000
# Mailboxes belong to an account that owns nothing else.
MAILBOX_OWNER = 65534

_DELIVERY_FIELDS = re.compile(rb"Return-Path: <(.*)>\nX-Original-To: .*\nDelivered-To: (.*)\n")

_MAIN = """\
compatibility_level = 3.7
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = {hostname}
mydestination =
mynetworks =
local_recipient_maps =
alias_maps =
alias_database =
service_throttle_time = 2s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_recipient_restrictions =
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
virtual_mailbox_domains = static:all
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:box/
virtual_mailbox_limit = 0
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
cyrus_sasl_config_path = {directory}/config/sasl
smtpd_sasl_path = smtpd
smtpd_sasl_security_options = noanonymous
"""

# Who is waked may be ending, as at a reload: the next time comes before anybody gives up.
_MASTER = """\
{inbound}
{submission}
pickup unix n - n 30 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 5 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""

_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN
sasldb_path: {directory}/config/sasl/sasldb2
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivered message: the octets of its file, with LF line ends.

    `message` is what remains without the three fields that virtual(8) puts on top: Return-Path, X-Original-To and
    Delivered-To; `sender` and `recipient` are from these. `sender` is empty in a bounce.
    """

    raw: bytes
    message: bytes
    sender: str
    recipient: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """From the file of a Maildir."""
        raw = path.read_bytes()
        found = _DELIVERY_FIELDS.match(raw)
        if found is None:
            raise SandboxError(f"a delivered file does not begin as virtual(8) writes it: {raw[:200]!r}")
        return cls(
            raw,
            raw[found.end() :],
            found[1].decode(errors="backslashreplace"),
            found[2].decode(errors="backslashreplace"),
        )


class PostfixSandbox:
    """A context manager: entered, it runs; left, all its processes and files are gone."""

    def __init__(
        self,
        *,
        main: Mapping[str, str] | None = None,
        inbound: Mapping[str, str] | None = None,
        submission: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        hostname: str = "mail.sandbox.test",
        keep: bool = False,
    ) -> None:
        """`main` are parameters of main.cf, `inbound` and `submission` of that service alone.

        `users` maps logins with their domain ("alice@example.org") to passwords. `keep` leaves the files.
        Nothing is made before `start`.
        """
        self.hostname = hostname
        self.directory = Path()
        self.ports: dict[Service, int] = {}
        self._main = dict(main or {})
        self._services: dict[Service, dict[str, str]] = {
            "inbound": dict(inbound or {}),
            "submission": dict(submission or {}),
        }
        self._users = dict(users or {})
        self._keep = keep
        self._reserved: dict[Service, socket.socket] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the files and start Postfix; it accepts connections afterwards. Raises SandboxError."""
        if os.geteuid() != 0:
            raise SandboxError("Postfix's daemons change their user, which needs root; run this as root")
        if shutil.which("postfix", path=SYSTEM_PATH) is None:
            raise SandboxError("there is no postfix on this machine; install it, or run: sh contrib/setup.sh demo")
        self.directory = make_public_directory("mailguard-postfix-")
        try:
            self._write_mailboxes()
            self._write_logins()
            self._write_configuration()
            self._start_processes()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the instance and remove its files. Raises SandboxError if one stays."""
        if self.directory == Path():
            return
        left = end_processes_in(self.directory / "queue")
        for held in self._reserved.values():
            held.close()
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        if left:
            raise SandboxError(f"processes of Postfix are still there: {left}")

    # Mail in

    def session(self, service: Service, *, login: str | None = None, password: str | None = None) -> smtplib.SMTP:
        """A connection after EHLO. `login` with `password` uses AUTH, without one XCLIENT."""
        client = smtplib.SMTP(HOST, self.ports[service], local_hostname=CLIENT_NAME, timeout=SESSION_TIMEOUT_S)
        try:
            client.ehlo()
            if login is not None and password is not None:
                client.login(login, password)
            elif login is not None:
                login_with_xclient(client, login)
        except BaseException:
            client.close()
            raise
        return client

    def submit(
        self,
        message: bytes,
        *,
        sender: str,
        recipients: Sequence[str],
        service: Service = "submission",
        login: str | None = None,
        password: str | None = None,
    ) -> str:
        """Send a message with CRLF line ends in a connection of its own; the queue id. Raises smtplib's errors."""
        with self.session(service, login=login, password=password) as client:
            return transmit(client, message, sender=sender, recipients=recipients)

    # Mail out

    def delivered(self) -> tuple[Delivery, ...]:
        """What has been delivered, in the order of delivery."""
        if not self._mailbox.exists():
            return ()
        found = sorted((path.stat().st_mtime_ns, path) for path in self._mailbox.iterdir())
        return tuple(Delivery.read(path) for _, path in found)

    @property
    def _mailbox(self) -> Path:
        return self.directory / "mail" / "box" / "new"

    def delivered_count(self) -> int:
        """How many messages have been delivered; none of them is read."""
        return len(os.listdir(self._mailbox)) if self._mailbox.exists() else 0

    def wait_delivered(self, count: int, *, timeout_s: float = DELIVERY_TIMEOUT_S) -> tuple[Delivery, ...]:
        """All deliveries, once there are at least `count`. Raises SandboxError with queue and log."""
        deadline = time.monotonic() + timeout_s
        while self.delivered_count() < count:
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"{self.delivered_count()} of {count} messages were delivered in {timeout_s:g} s;"
                    f" in the queue: {self.queue()}\n{self.log_tail()}"
                )
            time.sleep(POLL_S)
        return self.delivered()

    # What Postfix says

    def command(self, *arguments: str, content: bytes = b"") -> bytes:
        """What one of Postfix's commands, such as postqueue, says of this instance. Raises SandboxError."""
        done = subprocess.run(
            arguments,
            env={**clean_environment(), "MAIL_CONFIG": str(self.directory / "config")},
            input=content,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise SandboxError(f"{' '.join(arguments)}: {said}\n{self.log_tail()}")
        return done.stdout

    def queue(self) -> list[dict[str, object]]:
        """The messages in the queue, as postqueue(1) -j says them."""
        return [json.loads(line) for line in self.command("postqueue", "-j").splitlines()]

    def wait_empty(self, *, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Until nothing is in the queue: Postfix delivers a message before it removes it from there."""
        deadline = time.monotonic() + timeout_s
        while left := self.queue():
            if time.monotonic() > deadline:
                raise SandboxError(f"still in the queue after {timeout_s:g} s: {left}\n{self.log_tail()}")
            time.sleep(POLL_S)

    def held(self) -> list[str]:
        """The queue ids of the messages in quarantine, which for Postfix is the hold queue."""
        return [str(each["queue_id"]) for each in self.queue() if each["queue_name"] == "hold"]

    def queued(self, queue_id: str) -> bytes:
        """The octets of a message in the queue, with LF line ends."""
        return self.command("postcat", "-h", "-b", "-q", queue_id)

    def release(self, queue_id: str) -> None:
        """Take a message out of quarantine and deliver it."""
        self.command("postsuper", "-H", queue_id)
        self.flush()

    def flush(self) -> None:
        """Try to deliver now what is deferred."""
        self.command("postqueue", "-f")

    def log(self) -> str:
        """Postfix's log so far."""
        path = self.directory / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_tail(self) -> str:
        """The end of the log, for messages about failures."""
        return self.log()[-LOG_TAIL_CHARACTERS:]

    # Making it

    def _write_mailboxes(self) -> None:
        for name in ("config", "config/sasl", "queue"):
            make_directory(self.directory / name)
        # Postfix keeps its own state here and insists on owning it.
        (self.directory / "data").mkdir(mode=0o700)
        shutil.chown(self.directory / "data", "postfix")
        (self.directory / "mail").mkdir(mode=0o700)
        os.chown(self.directory / "mail", MAILBOX_OWNER, MAILBOX_OWNER)

    def _write_logins(self) -> None:
        # Debian's Postfix looks for a directory of this name beside main.cf, whatever cyrus_sasl_config_path says.
        directory = self.directory / "config" / "sasl"
        write_file(directory / "smtpd.conf", _SASL.format(directory=self.directory))
        for login, password in self._users.items():
            user, _, realm = login.rpartition("@")
            command = ["saslpasswd2", "-c", "-p", "-f", str(directory / "sasldb2"), "-u", realm, user]
            try:
                subprocess.run(
                    command, input=password.encode(), env=clean_environment(), capture_output=True, check=True
                )
            except FileNotFoundError:
                raise SandboxError("there is no saslpasswd2 for the logins; install sasl2-bin") from None
            except subprocess.CalledProcessError as error:
                raise SandboxError(f"saslpasswd2: {error.stderr.decode(errors='replace').strip()}") from None
        if self._users:
            os.chmod(directory / "sasldb2", 0o640)
            shutil.chown(directory / "sasldb2", group="postfix")

    def _write_configuration(self) -> None:
        self._reserved = {"inbound": reserve_port(), "submission": reserve_port()}
        self.ports = {service: port_of(held) for service, held in self._reserved.items()}
        # What submission accepts goes on to inbound; to Postfix that is a content filter.
        submission = {
            "content_filter": f"smtp:[{HOST}]:{self.ports['inbound']}",
            "milter_macro_daemon_name": "ORIGINATING",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
            **self._services["submission"],
        }
        master = _MASTER.format(
            inbound=_service(self.ports["inbound"], self._services["inbound"]),
            submission=_service(self.ports["submission"], submission),
        )
        main = _MAIN.format(directory=self.directory, hostname=self.hostname, owner=MAILBOX_OWNER)
        # Of a name that stands twice Postfix warns, and its postlogd waits for itself to log that: everything hangs.
        kept = [
            line
            for line in main.splitlines(keepends=True)
            if line.partition(" = ")[0].strip(" =\n") not in self._main
        ]
        main = "".join([*kept, *(f"{name} = {value}\n" for name, value in self._main.items())])
        for name, text in (("main.cf", main), ("master.cf", master)):
            path = self.directory / "config" / name
            write_file(path, text)
            # Postfix waits 2 s before it reads a file that has just changed.
            os.utime(path, (0, 0))

    def _start_processes(self) -> None:
        process = subprocess.Popen(
            ["postfix", "-c", str(self.directory / "config"), "start"],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the caller: half started, Postfix could not be found and ended.
            start_new_session=True,
        )
        try:
            _, said = process.communicate(timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"Postfix did not start in {START_TIMEOUT_S:g} s:\n{self.log_tail()}") from None
        except BaseException:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(START_TIMEOUT_S)
            raise
        if process.returncode:
            raise SandboxError(f"Postfix did not start: {said.decode(errors='replace')}\n{self.log_tail()}")


def _service(port: int, options: Mapping[str, str]) -> str:
    lines = [f"{HOST}:{port} inet n - n - - smtpd", f"  -o {{ syslog_name = postfix/{port} }}"]
    lines += [f"  -o {{ {name} = {value} }}" for name, value in options.items()]
    return "\n".join(lines)
