"""Nothing on the way of mail can wait for a web server or another mail server: the daemon has no client for either.

Reports are not sent at all. The one client of HTTP, which fetches MTA-STS policies, is that of another process.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from daemon_process import IS_ROOT, USER, Daemon, eventually, kill
from engine_process import per_engine
from mailguard.dkim.signing_key import generate_ed25519
from source_tree import is_ours, modules

CLIENTS = frozenset({"urllib3", "http", "smtplib", "ftplib", "imaplib", "poplib", "xmlrpc", "requests", "httpx"})
CLIENTS_INSIDE = frozenset({"urllib.request", "socketserver"})
FETCH = "mailguard.mtasts.fetch"
# Who may come to have it: the server of TLS policies, and the commands.
FETCHERS = ("mailguard.tlspolicy.", "mailguard.cli.", "mailguard.__main__", FETCH)


def is_client(name: str) -> bool:
    return name.partition(".")[0] in CLIENTS or name in CLIENTS_INSIDE


# -- running -------------------------------------------------------------------------------------------------------

# In every process of the daemon: at the signal, the names of its modules go to a file.
TELL = """\
import os, signal, sys

def tell(number, frame):
    place = os.path.join(os.environ["MODULES_TO"], str(os.getpid()))
    with open(place + ".new", "w") as file:
        file.write("\\n".join(sys.modules))
    os.rename(place + ".new", place)

if os.environ.get("MODULES_TO"):
    signal.signal(signal.SIGUSR2, tell)
"""


def everything(daemon: Daemon) -> None:
    """Configure all that the daemon can do."""
    directory = daemon.directory
    key = directory / "key.pem"
    key.write_bytes(generate_ed25519())
    key.chmod(0o600)
    if IS_ROOT:
        shutil.chown(key, USER)
    (directory / "zone").write_text(
        '$TTL 60\nbank.test. IN TXT "v=spf1 mx exists:%{i}.bank.test -all"\n'
        '_dmarc.bank.test. IN TXT "v=DMARC1; p=reject; rua=mailto:r@bank.test; ruf=mailto:r@bank.test"\n'
    )
    (directory / "owners.cf").write_text(f"dbpath = {directory}/owners.sqlite\nquery = SELECT '%u'\n")
    (directory / "owners.cf").chmod(0o644)
    sqlite3.connect(directory / "owners.sqlite").close()
    daemon.configure(
        extra=f"""\
[results]
iprev = true
[dmarc]
organizational_domain = "psl"
[trace]
enabled = true
path = "{daemon.runtime}/trace.sqlite"
[senders]
sources = ["inline", "postfix", "mailinabox"]
[senders.postfix]
maps = "sqlite:{directory}/owners.cf"
[senders.mailinabox]
path = "{directory}/users.sqlite"
[domains."us.test"]
selectors = [{{ name = "s1", key_file = "{key}" }}]
"""
    )


def judge(daemon: Daemon) -> None:
    """A message from outside and one of our own, so that what is imported late is there."""
    signature = b" v=1; a=rsa-sha256; d=bank.test; s=s1; h=from; bh=YWJj; b=YWJj"
    for login in (None, b"alice@us.test"):
        with daemon.client() as client:
            client.open()
            macros = {b"i": b"4Q", b"{mail_addr}": b"ceo@bank.test"}
            if login is not None:
                macros = {b"{auth_authen}": login, b"{auth_type}": b"PLAIN", b"{mail_addr}": login}
            client.mail(b"<%s>" % macros[b"{mail_addr}"], macros)
            client.rcpt()
            client.header(b"DKIM-Signature", signature)
            client.header(b"From", b" <%s>" % macros[b"{mail_addr}"])
            client.end_of_header()
            client.body(b"hello\r\n")
            assert client.end_of_message()


@pytest.mark.attack("T18")
@per_engine
def test_no_process_of_the_daemon_has_a_client(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    told = daemon.directory / "told"
    told.mkdir()
    told.chmod(0o777)
    (daemon.directory / "sitecustomize.py").write_text(TELL)
    monkeypatch.setenv("MODULES_TO", str(told))
    monkeypatch.setenv("PYTHONPATH", f"{daemon.directory}:{os.environ.get('PYTHONPATH', '')}")
    everything(daemon)
    daemon.started()
    judge(daemon)
    (worker, *_) = daemon.workers()
    processes = {*daemon.family(), *eventually(daemon.writers)}
    # One that has only just begun would die of it.
    eventually(lambda: all(map(_hears, processes)))
    for pid in processes:
        kill(pid, signal.SIGUSR2)
    eventually(lambda: all((told / str(pid)).exists() for pid in processes))
    has = {pid: set((told / str(pid)).read_text().splitlines()) for pid in processes}
    # What makes this a test: the features are on, each in its process.
    wanted = {"mailguard.dmarc.suffixes", "publicsuffixlist", "sqlalchemy", "mailguard.senders.mailinabox", "spf"}
    assert wanted <= has[worker]
    assert any("mailguard_milter.trace_writer" in names or "sqlite3" in names for names in has.values())
    assert len(processes) >= 5, "a supervisor, a generation, two workers, a writer"
    assert not {pid: names for pid in processes if (names := sorted(filter(is_client, has[pid])))}
    eventually(lambda: all(word in daemon.log() for word in ("dmarc=", "alice@us.test")))


def _hears(pid: int) -> bool:
    """proc(5): the signals that are caught, as bits."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGUSR2 - 1) & 1)


# -- imports -------------------------------------------------------------------------------------------------------


def reached(start: str) -> set[str]:
    """All modules, ours and others', that it can come to import, with the packages that they are in."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in modules():
            waiting += modules()[name].imports
        if is_ours(name) and "." in name:
            waiting.append(name.rpartition(".")[0])
    return found


@pytest.mark.attack("T18")
def test_no_module_of_the_daemon_could_import_one() -> None:
    starts = [name for name in modules() if name.partition(".")[0] == "mailguard_milter"]
    assert "mailguard_milter.worker" in starts
    for start in starts:
        names = reached(start)
        assert not [name for name in names if is_client(name)], start
        assert FETCH not in names, start


@pytest.mark.attack("T18")
def test_the_one_client_of_http_is_out_of_the_way() -> None:
    direct = {name for name, module in modules().items() if any(map(is_client_of_http, module.imports))}
    assert direct == {FETCH}
    reaching = {name for name in modules() if FETCH in reached(name)}
    assert {"mailguard.tlspolicy.service", "mailguard.cli.tlspolicy"} <= reaching, "the test can fail"
    assert not [name for name in reaching if not name.startswith(FETCHERS)]


def is_client_of_http(name: str) -> bool:
    return is_client(name) and name.partition(".")[0] in {"urllib3", "http", "urllib", "requests", "httpx"}
