"""How many questions a second `mailguard tlspolicy serve` answers on one core, and what memory it takes.

    .venv/bin/python benchmarks/tlspolicy.py

10,000 destinations, of which a third has DANE, a third MTA-STS in enforce and a third neither. The server is the real
one, in a process of its own that is kept to the first core, with its resolver and its database; a small name server,
which says of everything that it is validated, and the clients share the others. Clients ask as Postfix does, one
question at a time each, over twenty connections, and every reply is compared with what it has to be. Policies are in
the database beforehand: nothing is fetched. Left out: what Postfix does with the reply.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from machine import busy_with, describe
from mailguard.mtasts.store import PolicyRow, PolicyStore
from mailguard.tlspolicy.socketmap import Reply, ReplyStatus, encode_request

GOAL_PER_S = 3_000
CONNECTIONS = 20
TTL_S = 3_600
START_S = 30.0
# Room for all destinations, and little more, so that the others soon show whether the memory is bounded.
DNS_ENTRIES = 60_000
REPLY_ENTRIES = 12_000
STEPS = 4
_KINDS = 3
_DIGEST = bytes(range(32))


def name_of(number: int) -> str:
    return f"destination{number}.example"


def expected_reply(number: int) -> bytes:
    name = name_of(number)
    if number % _KINDS == 0:
        return Reply(ReplyStatus.OK, "dane-only").octets()
    if number % _KINDS == 1:
        return Reply(ReplyStatus.OK, f"secure match=mx1.{name}:.mail.{name} servername=hostname").octets()
    return Reply(ReplyStatus.NOT_FOUND).octets()


# -- a name server: everything is there, by the number in its name, and is said to be validated -------------------


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _read_name(query: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += query[at] + 1
    return ".".join(labels), at + 1


def _rdata(name: str, rdtype: int) -> bytes | None:
    first = name.partition(".")[0]
    digits = name.rpartition(".example")[0].rpartition("destination")[2]
    if not digits.isdigit():
        return None
    number = int(digits)
    if rdtype == 15 and first.startswith("destination"):
        return struct.pack(">H", 10) + _labels(f"mx1.{name}")
    if rdtype == 1 and first == "mx1":
        return socket.inet_aton("192.0.2.1")
    if rdtype == 52 and first == "_25" and number % _KINDS == 0:
        return bytes([3, 1, 1]) + _DIGEST
    if rdtype == 16 and first == "_mta-sts" and number % _KINDS == 1:
        text = b"v=STSv1; id=1;"
        return bytes([len(text)]) + text
    return None


def _reply(query: bytes) -> bytes:
    name, end = _read_name(query)
    rdtype, _ = struct.unpack_from(">HH", query, end)
    rdata = _rdata(name, rdtype)
    found = b"" if rdata is None else b"\xc0\x0c" + struct.pack(">HHIH", rdtype, 1, TTL_S, len(rdata)) + rdata
    soa = b"\0\0" + struct.pack(">IIIII", 1, TTL_S, TTL_S, TTL_S, TTL_S)
    denied = b"" if rdata is not None else b"\0" + struct.pack(">HHIH", 6, 1, TTL_S, len(soa)) + soa
    # QR, RD, RA and AD; NOERROR.
    head = query[:2] + struct.pack(">HHHHH", 0x81A0, 1, bool(found), bool(denied), 0)
    return head + query[12 : end + 4] + found + denied


def _serve_names(server: socket.socket) -> None:
    while True:
        query, client = server.recvfrom(1_024)
        server.sendto(_reply(query), client)


@contextmanager
def name_server(cores: set[int]) -> Iterator[int]:
    """Its port on 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        pid = os.fork()
        if not pid:
            try:
                os.sched_setaffinity(0, cores)
                _serve_names(server)
            finally:
                os._exit(1)
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# -- the server ---------------------------------------------------------------------------------------------------


def write_policies(path: Path, count: int) -> None:
    now = time.time()
    rows = []
    for number in range(1, count, _KINDS):
        name = name_of(number)
        text = f"version: STSv1\nmode: enforce\nmx: mx1.{name}\nmx: *.mail.{name}\nmax_age: 604800\n"
        rows.append(PolicyRow(name, "1", text.encode(), now - 60, now + 604_740, now + 400_000, now))
    store = PolicyStore(str(path))
    store.write(rows, now=now)
    store.close()


@contextmanager
def serving(directory: Path, name_server_port: int, cores: set[int]) -> Iterator[int]:
    """The server's process."""
    (directory / "mailguard.toml").write_text(
        f"""
authserv_id = "mx.us.test"
[dns]
nameservers = ["127.0.0.1"]
port = {name_server_port}
cache_entries = {DNS_ENTRIES}
[tlspolicy]
cache_entries = {REPLY_ENTRIES}
listen = ["unix:{directory}/s"]
cache_file = "{directory}/sts.sqlite"
dnssec_probe = "mx1.destination0.example"
"""
    )
    command = [sys.executable, "-m", "mailguard", "tlspolicy", "serve", "-c", str(directory / "mailguard.toml")]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        os.sched_setaffinity(process.pid, cores)
        give_up_at = time.monotonic() + START_S
        while b"event=started" not in (directory / "log").read_bytes():
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(START_S)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# -- the clients --------------------------------------------------------------------------------------------------


def ask(path: str, questions: Sequence[tuple[bytes, bytes | None]], connections: int) -> float:
    """Ask all of them, and compare each reply with what it has to be, if that is given. The seconds it took."""
    left = iter(questions)
    selector = selectors.DefaultSelector()
    open_count = 0
    began = time.perf_counter()
    for _ in range(connections):
        question = next(left, None)
        if question is None:
            break
        fresh = socket.socket(socket.AF_UNIX)
        fresh.connect(path)
        fresh.send(question[0])
        selector.register(fresh, selectors.EVENT_READ, [question[1], b""])
        open_count += 1
    while open_count:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            client, state = key.fileobj, key.data
            state[1] += client.recv(65_536)
            octets: bytes = state[1]
            assert octets, "the server has closed"
            digits, _, rest = octets.partition(b":")
            if not rest or len(rest) <= int(digits):
                continue
            assert state[0] is None or octets == state[0], (octets, state[0])
            question = next(left, None)
            if question is None:
                selector.unregister(client)
                client.close()
                open_count -= 1
            else:
                state[0], state[1] = question[1], b""
                client.send(question[0])
    return time.perf_counter() - began


def main() -> int:
    """Measure, and say so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--destinations", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=50_000, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--others", type=int, default=40_000, help="destinations without anything, for the memory")
    options = parser.parse_args()
    every = sorted(os.sched_getaffinity(0))
    own, server_cores = set(every[1:]) or set(every), {every[0]}
    os.sched_setaffinity(0, own)
    directory = Path(tempfile.mkdtemp(prefix="mailguard-tlspolicy-"))
    draw = random.Random(8461)
    asked = [
        (encode_request(b"QUERY", name_of(number).encode()), expected_reply(number))
        for number in range(options.destinations)
    ]
    machine = describe(())
    print(f"{machine['processor']}, {machine['cores']} cores, Linux {platform.release()}, Python {machine['Python']}")
    if busy_with():
        print(busy_with())
    try:
        write_policies(directory / "sts.sqlite", options.destinations)
        path = f"{directory}/s"
        with name_server(own) as port, serving(directory, port, server_cores) as pid:
            print(f"memory at the start: {resident_mb(pid):.0f} MB")
            before, took = cpu_s(pid), ask(path, asked, CONNECTIONS)
            print(
                f"cold: {len(asked)} destinations in {took:.1f} s, {len(asked) / took:.0f} a second,"
                f" {1e6 * (cpu_s(pid) - before) / len(asked):.0f} us of CPU each; memory {resident_mb(pid):.0f} MB"
            )
            rates, costs = [], []
            for _ in range(options.rounds):
                questions = [draw.choice(asked) for _ in range(options.questions)]
                before, took = cpu_s(pid), ask(path, questions, CONNECTIONS)
                rates.append(len(questions) / took)
                costs.append(1e6 * (cpu_s(pid) - before) / len(questions))
            print(
                f"warm: {median(rates):.0f} questions a second (rounds {min(rates):.0f} to {max(rates):.0f}),"
                f" {median(costs):.0f} us of CPU each; memory {resident_mb(pid):.0f} MB"
            )
            for step in range(STEPS):
                others = [
                    (encode_request(b"QUERY", b"other%d-%d.example" % (step, number)), None)
                    for number in range(options.others // STEPS)
                ]
                ask(path, others, CONNECTIONS)
                print(f"after {len(others) * (step + 1)} others: memory {resident_mb(pid):.0f} MB")
        print(f"goal: {GOAL_PER_S} questions a second, warm: {'met' if median(rates) >= GOAL_PER_S else 'missed'}")
        return 0 if median(rates) >= GOAL_PER_S else 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
