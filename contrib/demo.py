"""The demo: a message is signed when a user submits it, verified when it arrives, and shown as it was delivered.

Run by contrib/demo.sh as root, in the virtual environment. A private Postfix (sandbox.py) has two services: one for
users, one for other servers, to which it relays. One mailguard-milter serves both, and takes its DNS answers from a
zone file. Everything is in directories of its own, on loopback, and is removed at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import secrets
import smtplib
import subprocess
import sys
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from sandbox import Delivery, PostfixSandbox
from sandbox_daemon import Daemon
from sandbox_interrupt import ignore_signals, interrupt_on_signals
from sandbox_place import SandboxError, write_file

SENDER = "alice@example.org"
SENDER_DOMAIN = "example.org"
RECIPIENT = "bob@example.net"
AUTHSERV_ID = "mx.example.net"
STEPS = 6
LOG_PATIENCE_S = 60.0

MESSAGE = """\
From: Alice <{sender}>
To: Bob <{recipient}>
Subject: Signed on the way out, verified on the way in
Date: {date}
Message-ID: <demo-{token}@{domain}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Hello Bob,

whoever changes this text on its way breaks the signature.

Alice
"""

CONFIGURATION = """\
authserv_id = "{authserv_id}"

[log]
destination = "stderr"
format = "json"

[dns]
zone_file = "demo.zone"

[domains."{domain}"]
selectors = [
{selectors}
]
"""


class DemoError(Exception):
    """A step did not do what it should; the text says which one and why."""


class Progress:
    """Numbered lines."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, text: str) -> None:
        self._number += 1
        print(f"[{self._number}/{STEPS}] {text}", flush=True)


@dataclass(frozen=True, slots=True)
class Key:
    """What `mailguard key new --json` says of one key."""

    selector: str
    file: str
    zone_line: str


def make_keys(daemon: Daemon) -> list[Key]:
    """An RSA and an Ed25519 key, owned by the daemon's user."""
    command = [sys.executable, "-m", "mailguard", "key", "new", SENDER_DOMAIN, "--json", "--owner", daemon.user]
    done = subprocess.run(
        [*command, "--directory", str(daemon.directory / "keys")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DemoError(f"mailguard key new: {done.stderr.strip()}")
    return [Key(each["selector"], each["file"], each["zone_line"]) for each in json.loads(done.stdout)["keys"]]


def start_daemon(daemon: Daemon, keys: list[Key]) -> None:
    """With the keys to sign with, and a zone that publishes their other half."""
    zone = f"$ORIGIN {SENDER_DOMAIN}.\n$TTL 3600\n@ IN SOA ns root 1 7200 900 1209600 300\n"
    zone += "".join(f"{key.zone_line}\n" for key in keys)
    write_file(daemon.directory / "demo.zone", zone)
    selectors = "\n".join(
        f"  {{ name = {json.dumps(key.selector)}, key_file = {json.dumps(key.file)} }}," for key in keys
    )
    daemon.start(CONFIGURATION.format(authserv_id=AUTHSERV_ID, domain=SENDER_DOMAIN, selectors=selectors))


def submit(postfix: PostfixSandbox, password: str) -> str:
    """The queue id at the submission service."""
    text = MESSAGE.format(
        sender=SENDER, recipient=RECIPIENT, date=formatdate(), token=secrets.token_hex(4), domain=SENDER_DOMAIN
    )
    try:
        return postfix.submit(
            text.replace("\n", "\r\n").encode(),
            sender=SENDER,
            recipients=[RECIPIENT],
            login=SENDER,
            password=password,
        )
    except smtplib.SMTPException as error:
        raise DemoError(f"Postfix did not take the message: {error}\n{postfix.log_tail()}") from None


def await_log(daemon: Daemon, queue_ids: list[str]) -> dict[str, dict[str, Any]]:
    """The daemon's log line for each message."""
    deadline = time.monotonic() + LOG_PATIENCE_S
    while True:
        # The last line may be half written.
        written = daemon.log().splitlines(keepends=True)
        lines = [json.loads(line) for line in written if line.startswith("{") and line.endswith("\n")]
        found = {line["queue_id"]: line for line in lines if line.get("queue_id") in queue_ids}
        if len(found) == len(queue_ids):
            return found
        if time.monotonic() > deadline:
            raise DemoError(f"mailguard's log does not have the messages {queue_ids}:\n{daemon.log_tail()}")
        time.sleep(0.05)


def verify(daemon: Daemon, raw: bytes) -> dict[str, Any]:
    """What `mailguard verify --json` says of a message."""
    command = [sys.executable, "-m", "mailguard", "verify", "--json", "--zone", str(daemon.directory / "demo.zone")]
    done = subprocess.run(command, input=raw, capture_output=True, check=False)
    try:
        verdict = json.loads(done.stdout)
    except ValueError:
        raise DemoError(f"mailguard verify: {done.stderr.decode(errors='replace').strip()}") from None
    assert isinstance(verdict, dict)  # noqa: S101 - it is always an object
    return verdict


def check(delivery: Delivery, keys: list[Key]) -> None:
    """The delivered header has a signature by each key, and our result for each of them on top."""
    header = delivery.message.partition(b"\n\n")[0]
    fields = [re.sub(r"\n[ \t]+", " ", field) for field in re.split(r"\n(?![ \t])", header.decode())]
    if not fields[0].startswith(f"Authentication-Results: {AUTHSERV_ID};"):
        raise DemoError(f"the delivered header does not begin with our Authentication-Results:\n{header.decode()}")
    for key in keys:
        if not any(field.startswith("DKIM-Signature:") and f"s={key.selector};" in field for field in fields):
            raise DemoError(f"the delivered message has no signature by {key.selector}:\n{header.decode()}")
        if not re.search(rf"dkim=pass [^;]*header\.s={re.escape(key.selector)}\b", fields[0]):
            raise DemoError(f"the signature by {key.selector} did not pass:\n{fields[0]}")


def show_reasons(lines: dict[str, dict[str, Any]], outgoing: str, incoming: str, verdict: dict[str, Any]) -> None:
    """Why it was signed and why it passed, as a tree."""
    sign, verified = lines[outgoing], lines[incoming]
    print(f"{RECIPIENT} got the message from {SENDER}")
    print(f"+- on the way out, {outgoing}: {sign['action']}, {sign['reason']}")
    print(f"|  +- role {sign['role']}: the client had logged in as {sign['login']}")
    print(f"|  +- From is in {sign['d']}, which has the keys {sign['s']}")
    print(f"+- on the way in, {incoming}: {verified['action']}, {verified['reason']}")
    print(f"   +- role {verified['role']}: the client {verified['client']} had not logged in")
    for signature in verdict["signatures"]:
        print(f"   +- {signature['status']}: {signature['detail']}")
        print(f"      d={signature['domain']} s={signature['selector']} a={signature['algorithm']}")


def run(*, keep: bool) -> None:
    """All steps. Raises DemoError or SandboxError."""
    step = Progress()
    with Daemon(keep=keep) as daemon:
        step(f"making keys for {SENDER_DOMAIN} (mailguard key new)")
        keys = make_keys(daemon)
        step("starting mailguard-milter; a zone file is its DNS")
        start_daemon(daemon, keys)
        step("starting a private Postfix on loopback, with mailguard as its milter")
        password = secrets.token_urlsafe(12)
        main = {"smtpd_milters": daemon.milter, "milter_default_action": "tempfail"}
        with PostfixSandbox(main=main, users={SENDER: password}, keep=keep) as postfix:
            step(f"submitting a message from {SENDER} to {RECIPIENT}, logged in as {SENDER}")
            outgoing = submit(postfix, password)
            step("waiting: Postfix relays it to its second service, which verifies and delivers it")
            (delivery,) = postfix.wait_delivered(1)
            check(delivery, keys)
            arrived = re.search(rb"with ESMTP id ([0-9A-Za-z]+)", delivery.message)
            if arrived is None:
                raise DemoError(f"the delivered message was not relayed:\n{delivery.message.decode()}")
            incoming = arrived[1].decode()
            print("\n" + delivery.message.partition(b"\n\n")[0].decode() + "\n")
            show_reasons(await_log(daemon, [outgoing, incoming]), outgoing, incoming, verify(daemon, delivery.raw))
            print()
            step("verifying the same message with one word changed (mailguard verify)")
            changed = verify(daemon, delivery.raw.replace(b"Hello", b"Hallo"))
            for signature in changed["signatures"]:
                print(f"      {signature['status']}: {signature['detail']}, a={signature['algorithm']}")
            if changed["result"] != "fail":
                raise DemoError("the changed message was not found out")
            if keep:
                print(f"\nKept: {postfix.directory} and {daemon.directory}")
            ignore_signals()
    print("\nAll as it should be; everything was stopped.")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="demo.sh", description="Shows mailguard at work behind a private Postfix.")
    parser.add_argument("--keep", action="store_true", help="leave the directories with configuration, mail and logs")
    options = parser.parse_args()
    # What is printed stays in order with the messages on stderr.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    interrupt_on_signals()
    try:
        run(keep=options.keep)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything was stopped", file=sys.stderr)
        return 130
    except (DemoError, SandboxError) as error:
        print(f"\ndemo: failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
