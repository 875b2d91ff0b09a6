"""A host on which docs/enforcing-senders.md is followed: databases, the daemon, Postfix, and what is not itself here.

What a test must not touch is put in the place of the page's words by a table (`Walk.places`): root's directories, the
daemon's user, sockets, ports. `STANDING_IN` are programs that are not themselves here, such as sudo and docker, and
pass on what they are given; `DONE_OTHERWISE` are the commands that need a host with systemd or docker, each with what
is done in its place. No other command is left out. Needs root. One object is for one thread.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

import zone0
from database_site import DatabaseServer, MariaDb, Postgres
from enforcing_page import commands_for_docker, steps
from mailguard.senders.dialect import Dialect
from postfix_site import master_file
from postfixadmin_site import alias_row, insert, mailbox, schema
from sandbox import PostfixSandbox
from sandbox_daemon import Daemon
from sandbox_place import HOST, free_port, make_public_directory, write_file
from source_tree import ROOT

__all__ = [
    "ALICE",
    "BLOCKS",
    "BOB",
    "DATABASES",
    "DONE_OTHERWISE",
    "NO_LOGIN",
    "PATIENT",
    "REFUSED",
    "SALES",
    "SETUPS",
    "Walk",
    "fill_mail_in_a_box",
    "open_walk",
]

ALICE, BOB, SALES, TENANT = "alice@example.com", "bob@example.com", "sales@example.com", "info@example.net"
LOGIN_PASSWORD = "correct horse"
# What the page's SQL has.
DATABASE_PASSWORD = "a long password"
PATIENCE_S = 60.0
PATIENT = "deadline_s = 9.0"
# swaks' exit codes for a refusal after the content, and for one of the login.
REFUSED, NO_LOGIN = 26, 28
DATABASES = ("PostfixAdmin on MariaDB", "PostfixAdmin on PostgreSQL")
MAIL_IN_A_BOX, DOCKER = "Mail-in-a-Box", "docker-mailserver"
SETUPS = (*DATABASES, MAIL_IN_A_BOX, DOCKER)


# {log} is the daemon's log, {nobody} becomes the daemon's user. Each gets the arguments of the program it stands for.
STANDING_IN: Mapping[str, str] = {
    # Root's commands are root's; the daemon's user is nobody here.
    "sudo": 'test "$1" = -u || exit 97; user=$2; shift 2; [ "$user" = mailguard ] && exec {nobody} "$@"; exec "$@"',
    # They know where the configuration is; here it is elsewhere.
    "mailguard": 'exec {python} -m mailguard "$@" -c {config}',
    "mailguard-milter": 'exec {python} -m mailguard_milter -c {config} "$@"',
    # Of this tree, as far as it goes without a package index.
    "pip": f'cd {ROOT} && exec {sys.executable} -m pip "$@" --dry-run --no-index --no-build-isolation',
    "postconf": 'exec /usr/sbin/postconf -c {postfix} "$@"',
    "postfix": 'exec /usr/sbin/postfix -c {postfix} "$@"',
    "mariadb": "exec /usr/bin/mariadb --no-defaults --socket={server}/socket --user=root",
    "psql": 'exec /usr/bin/psql --host={server} --port={port} --username=postgres --set=ON_ERROR_STOP=1 "$@"',
    # Whoever edits a file writes what the page says: the password, or the block that follows.
    "editor": f'case "$1" in *.password) echo "{DATABASE_PASSWORD}" > "$1";; *) touch "$1";; esac',
    "swaks": f'exec /usr/bin/swaks --auth-password "{LOGIN_PASSWORD}" --h-X-Walk yes "$@"',
    "journalctl": "exec cat {log}",
    "docker": """
case "$*" in
  "compose exec -T mailguard "*) shift 4; exec {nobody} "$@";;
  "compose exec -T mailserver "*) shift 4; exec "$@";;
  "compose logs --no-log-prefix mailguard") exec cat {log};;
esac
exit 97""",
}


@dataclass
class Walk:
    """A host on which the page is followed."""

    setup: str
    directory: Path
    daemon: Daemon
    postfix: PostfixSandbox
    server: DatabaseServer | None
    milter_port: int
    other_port: int
    """Of the second service where users log in."""
    runs: bool = False
    """The daemon."""
    output: str = ""
    """Of the last commands, up to a block."""
    judged: int = 0
    """Messages that the daemon has seen."""

    @property
    def places(self) -> list[tuple[str, str]]:
        """What is put in the place of the page's words, in this order."""
        port = self.postfix.ports["submission"]
        found = [
            ("mailguard/etc/mailguard.toml", str(self.daemon.config_file)),
            ("/etc/mailguard", str(self.daemon.directory)),
            ("/etc/systemd/system", str(self.directory / "systemd")),
            ("/home/user-data/mail", str(self.directory / "mail")),
            ("/dms/", f"{self.directory}/dms/"),
            ("/var/log/mail.log", str(self.daemon.directory / "log")),
            ("/opt/mailguard/bin/pip", "pip"),
            ("-o mailguard -g mailguard", "-o nobody -g nogroup"),
            ("chgrp mailguard", "chgrp nogroup"),
            # Of what swaks needs for it is nothing here; test_postfix_senders.py has logins after STARTTLS.
            (" --tls ", " "),
            ("mail.example.com:587", f"{HOST}:{port}"),
            ("submission/inet/", f"{HOST}:{port}/inet/"),
            ("submissions/inet/", f"{HOST}:{self.other_port}/inet/"),
            ("smtps/inet/", f"{HOST}:{self.other_port}/inet/"),
            # OpenDKIM is not there.
            (",inet:127.0.0.1:8891", ""),
            *((f"inet:{each}", f"inet:{HOST}:{self.milter_port}") for each in ("127.0.0.1:8894", "0.0.0.0:8891")),
            ("inet:mailguard:8891", f"inet:{HOST}:{self.milter_port}"),
        ]
        # A machine that runs tests may be slow, and an answer that is late is none.
        found.append(('recipient_delimiter = "+"', f'recipient_delimiter = "+"\n{PATIENT}'))
        if self.server is not None:
            word = f'database = "{self.server.dialect.value}"'
            found.append((word, f'{word}\nsocket = "{self.server.socket}"'))
        return found

    def placed(self, text: str) -> str:
        """The page's text for this host."""
        if self.setup == DOCKER:
            for old, new in commands_for_docker():
                text = text.replace(old, new)
        for old, new in self.places:
            text = text.replace(old, new)
        return text

    def follow(self, name: str) -> None:
        """Do what a section says."""
        text_before = True
        for step in steps(name):
            if step.kind == "run":
                self.output = "" if text_before else self.output
                self.run(step.text)
            else:
                BLOCKS[step.kind](self, step.text)
            text_before = step.kind != "run"

    def run(self, command: str, *, code: int | None = None) -> str:
        """A command of the page, which must end as it should; what it wrote."""
        here = self.placed(command)
        if here in DONE_OTHERWISE:
            DONE_OTHERWISE[here](self)
            return ""
        if "swaks" not in command:
            self.await_log()
        path = f"{self.directory}/bin:{os.environ['PATH']}:/usr/sbin"
        ended = subprocess.run(
            ["/bin/sh", "-c", here],
            cwd=self.directory,
            env={"PATH": path, "LC_ALL": "C.UTF-8", "HOME": str(self.directory)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        wrote = ended.stdout + ended.stderr
        expected = self.expected(command) if code is None else code
        assert ended.returncode == expected, f"{here}\n{wrote}\n{self.daemon.log_tail()}"
        self.output += wrote
        self.judged += command.startswith("swaks") and expected in (0, REFUSED)
        return wrote

    def expected(self, command: str) -> int:
        """The exit code that a command must have here."""
        if command.startswith("swaks") and 'mode = "enforce"' in self.daemon.config_file.read_text():
            return REFUSED
        if command.endswith(f"senders test {ALICE} {BOB}"):
            return 1
        return 0

    def await_log(self, words: str = " role=sign ", count: int | None = None) -> None:
        """Until the daemon has written what it says of the messages so far: after its answer to Postfix."""
        if count is None:
            count = self.judged
        end = time.monotonic() + PATIENCE_S
        while self.daemon.log().count(words) < count:
            assert time.monotonic() < end, self.daemon.log_tail()
            time.sleep(0.02)

    # What a block stands for

    def configure(self, text: str) -> None:
        """A part of mailguard.toml. With listeners it is where the file begins."""
        text = self.placed(text)
        if "[[listeners]]" not in text:
            if not self.runs and self.setup in DATABASES:
                self.begin("")
            with self.daemon.config_file.open("a") as file:
                file.write(f"\n{text}")
        else:
            self.begin(text)

    def begin(self, text: str) -> None:
        """The configuration that README.md leads to."""
        head = "" if "mode = " in text else 'mode = "monitor"\nauthserv_id = "mail.example.com"\n'
        key = '{ name = "o1", key_file = "keys/o1.pem" }'
        domain = f'[domains."example.com"]\nselectors = [{key}]\n' if self.setup in DATABASES else ""
        self.daemon.configure(f'{head}{text}\n[dns]\nzone_file = "zone"\n{domain}')
        if self.setup in DATABASES:
            self.daemon.start()
            self.runs = True

    def in_database(self, text: str) -> None:
        """Statements for the client of the database, as its administrator."""
        client = {Dialect.MYSQL: "mariadb", Dialect.POSTGRESQL: "psql postfix"}
        assert self.server is not None
        statements_file = self.directory / "statements.sql"
        statements_file.write_text(text)
        self.run(f"{client[self.server.dialect]} < {shlex.quote(str(statements_file))}")

    def let_in(self, text: str) -> None:
        """A line above those for all."""
        assert self.server is not None
        file = self.server.directory / "data" / "pg_hba.conf"
        file.write_text(text + file.read_text())

    def drop_in(self, text: str) -> None:
        """Read by systemd with the unit that it is for."""
        directory = self.directory / "systemd"
        name = "mailguard-milter.service"
        written = directory / f"{name}.d" / "mailinabox.conf"
        assert written.exists(), "the page has said nothing of it"
        written.write_text(text)
        shutil.copy(ROOT / "contrib" / name, directory)
        if shutil.which("systemd-analyze") is None:
            return
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(directory / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert written.name not in verified.stderr, verified.stderr

    def of_postfix_master(self, text: str) -> None:
        """docker-mailserver does this with each line when it starts."""
        for line in text.splitlines():
            self.run(f"postconf -P '{line}'")

    def shown(self, text: str) -> None:
        """Each line must be in what the commands before it wrote, whatever is between words and after them."""
        if self.setup == DOCKER and "accounts" in text:
            return  # the accounts are not in a file of Postfix
        wrote = [" ".join(line.split()) for line in self.output.splitlines()]
        for line in text.splitlines():
            words = " ".join(line.split())
            assert any(words in each for each in wrote), f"{words!r} is not in\n{self.output}"

    # What stands for a host with systemd or docker

    def start(self) -> None:
        if self.runs:
            self.daemon.stop()
        self.daemon.start()
        self.runs = True

    def reload(self) -> None:
        self.daemon.reload()

    def reload_postfix(self) -> None:
        self.run("postfix reload")

    def nothing(self) -> None:
        """There is no systemd here that would have read units."""


DONE_OTHERWISE: Mapping[str, Callable[[Walk], None]] = {
    "systemctl daemon-reload": Walk.nothing,
    "systemctl restart mailguard-milter": Walk.start,
    "systemctl reload mailguard-milter": Walk.reload,
    "docker compose up -d --build mailguard": Walk.start,
    "docker compose up -d --force-recreate mailserver": Walk.reload_postfix,
    "docker compose kill -s HUP mailguard": Walk.reload,
}


def _is_a_service(walk: Walk, text: str) -> None:
    (service,) = yaml.safe_load(text)["services"].values()
    assert {volume.split(":")[1] for volume in service["volumes"]} == {"/etc/mailguard", "/dms"}


def _is_an_image(walk: Walk, text: str) -> None:
    """Not built. The extras that it names are there, and the command is the daemon's."""
    (wanted,) = re.findall(r"pip install --no-cache-dir (\S+)$", text, re.MULTILINE)
    walk.run(f"pip install {wanted.replace('/src', '.')}")
    assert 'CMD ["mailguard-milter", "-c", "/etc/mailguard/mailguard.toml"]' in text


def _is_a_setting(walk: Walk, text: str) -> None:
    name, _, value = text.strip().partition(" = ")
    walk.run(f"postconf -e '{name}={value}'")


BLOCKS: Mapping[str, Callable[[Walk, str], None]] = {
    "toml": Walk.configure,
    "sql": Walk.in_database,
    "pg_hba.conf": Walk.let_in,
    "ini": Walk.drop_in,
    "postfix-master.cf": Walk.of_postfix_master,
    "text": Walk.shown,
    "yaml": _is_a_service,
    "dockerfile": _is_an_image,
    "main.cf": _is_a_setting,
}


# --- Set-ups -----------------------------------------------------------------------------------------------------


def tenants(dialect: Dialect) -> list[str]:
    """PostfixAdmin's tables with the page's examples."""
    made = list(schema(dialect))
    made += [insert(dialect, "domain", domain, "", True) for domain in ("example.com", "example.net")]
    for name in (ALICE, BOB):
        made += [mailbox(dialect, name), alias_row(dialect, name, name)]
    return [*made, alias_row(dialect, SALES, ALICE), alias_row(dialect, TENANT, ALICE)]


def fill_mail_in_a_box(directory: Path) -> None:
    """users.sqlite, as its set-up makes the tables."""
    path = directory / "users.sqlite"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL UNIQUE,"
            " password TEXT NOT NULL, extra, privileges TEXT NOT NULL DEFAULT '')"
        )
        database.execute(
            "CREATE TABLE aliases (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL UNIQUE,"
            " destination TEXT NOT NULL, permitted_senders TEXT)"
        )
        database.executemany("INSERT INTO users (email, password) VALUES (?, 'x')", [(ALICE,), (BOB,)])
        database.executemany(
            "INSERT INTO aliases (source, destination) VALUES (?, ?)", [(SALES, ALICE), (TENANT, ALICE)]
        )
    database.close()
    path.chmod(0o640)


def open_walk(stack: ExitStack, setup: str) -> Walk:
    """The host before the first step."""
    directory = make_public_directory("mailguard-walk-")
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    for name in ("bin", "systemd", "mail", "dms"):
        (directory / name).mkdir(mode=0o755)
    server: DatabaseServer | None = None
    if setup in DATABASES:
        server = stack.enter_context(MariaDb() if "MariaDB" in setup else Postgres())
        server.execute("", ["CREATE DATABASE postfix"])
        server.execute("postfix", tenants(server.dialect))
    fill_mail_in_a_box(directory / "mail")
    write_file(directory / "dms" / "postfix-virtual.cf", f"{SALES} {ALICE}\n{TENANT} {ALICE}\n{BOB} bob@away.test\n")
    daemon = stack.enter_context(Daemon())
    private = zone0.rsa_key(2048, 2)
    daemon.write_key("keys/o1.pem", zone0.pem(private))
    records = {"o1._domainkey.example.com": zone0.key_record(private), "_dmarc.bank.test": b"v=DMARC1; p=reject"}
    write_file(daemon.directory / "zone", master_file(records))
    main = {"smtpd_milters": daemon.milter} if setup in DATABASES else {}
    submission: dict[str, str] = {}
    if setup in DATABASES:
        # "do no harm"
        main["smtpd_sender_login_maps"] = f"inline:{{{ALICE}={ALICE}}}"
        submission["smtpd_sender_restrictions"] = "reject_sender_login_mismatch"
    else:
        main |= {"dkim_milter": "", "milter_mail_macros": "{mail_host}"}
    postfix = stack.enter_context(
        PostfixSandbox(
            # As Mail-in-a-Box and docker-mailserver have it.
            main={"milter_default_action": "accept", **main},
            inbound={"local_header_rewrite_clients": ""},
            submission=submission,
            users={ALICE: LOGIN_PASSWORD},
        )
    )
    walk = Walk(setup, directory, daemon, postfix, server, free_port(), free_port())
    if setup not in DATABASES:
        with (postfix.directory / "config" / "master.cf").open("a") as file:
            file.write(f"{HOST}:{walk.other_port} inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n")
    write_programs(walk)
    return walk


def write_programs(walk: Walk) -> None:
    """What stands for programs that are others on a host of its own."""
    code = walk.daemon.directory / "code"
    # Where the daemon's user cannot read this checkout, the daemon has brought a copy.
    copied = f"env PYTHONPATH={code} {os.path.realpath(sys.executable)}"
    python = f"$(test -d {code} && echo {copied} || echo {sys.executable}) -P"
    words = {
        "nobody": "setpriv --reuid=nobody --regid=nogroup --clear-groups --",
        "python": python,
        "postfix": str(walk.postfix.directory / "config"),
        "server": str(walk.server.directory) if walk.server is not None else "",
        "port": str(walk.server.port) if walk.server is not None else "",
        "config": str(walk.daemon.config_file),
        "log": str(walk.daemon.directory / "log"),
    }
    for name, text in STANDING_IN.items():
        for word, value in words.items():
            text = text.replace(f"{{{word}}}", value)
        path = walk.directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
