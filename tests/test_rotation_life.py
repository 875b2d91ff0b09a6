"""The whole life of keys with the real daemon: mail flows all along, and every message verifies at every moment."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from daemon_process import Daemon, eventually
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.message import Message
from mailguard.pipeline import verify_dkim
from milter_client import MilterClient
from rotation_site import DAY_S, FIRST, HOUR_S, SECOND, RotationSite, rotation_site, servers

__all__ = ["rotation_site", "servers"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: port 53")

ALICE = {b"{auth_type}": b"PLAIN", b"{auth_authen}": b"alice", b"{mail_addr}": b"alice@us.test"}
FIELDS = ((b"From", b" <alice@us.test>"), (b"Subject", b" hello"))
BODY = b"hello\r\n"
PAUSE_S = 0.02


def sent(client: MilterClient) -> bytes:
    """A message of Alice's, as Postfix delivers it."""
    client.mail(b"<alice@us.test>", ALICE)
    client.rcpt(b"<bob@b.test>")
    for field in FIELDS:
        client.header(*field)
    client.end_of_header()
    client.body(BODY)
    *changes, end = client.end_of_message()
    assert end == (b"c", b""), end
    header = b"".join(name + b":" + value + b"\n" for name, value in FIELDS)
    for code, content in changes:
        assert code == b"i", code
        name, value, _ = content[4:].split(b"\0")
        header = name + b":" + value + b"\n" + header
    return header.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n" + BODY


def selectors(raw: bytes) -> set[str]:
    """Of its signatures."""
    values = [field.value for field in Message.parse(raw).named(b"dkim-signature")]
    return {found.decode() for value in values for found in re.findall(rb"\bs=([^;]+);", value)}


def verdicts(raw: bytes, now: float) -> list[tuple[str, list[str]]]:
    """What each server's records make of it."""
    found = []
    for address in (FIRST, SECOND):
        with open_resolver(ResolverConfig(nameservers=(address,))) as resolver:
            results = verify_dkim(Message.parse(raw), resolver=resolver, now=now)
            found.append((address, [f"{each.selector} {each.status.value}" for each in results]))
    return found


class Stream:
    """Messages one after the other, in sessions of their own, each verified at once and again whenever asked."""

    def __init__(self, site: RotationSite, daemon: Daemon) -> None:
        self._site = site
        self._daemon = daemon
        self._quiet = threading.Event()
        self._changing = threading.Lock()
        self._under_way = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self.messages: list[tuple[float, float, bytes]] = []
        """When it was sent by the clock of the site, and by that of the daemon."""
        self.faults: list[object] = []

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.set()
        self._thread.join()

    def publish(self, *, lagging: bool = False) -> None:
        """Give the servers other records; one that begins again answers nobody for a moment."""
        with self._changing:
            self._site.publish(lagging=lagging)

    def flow(self, count: int = 5) -> set[str]:
        """Wait for so many more messages; what signed them."""
        # One that is under way may have been signed before whatever was done last.
        with self._under_way:
            begun = len(self.messages)
        eventually(lambda: self.faults or len(self.messages) >= begun + count)
        assert not self.faults
        return {selector for _, _, raw in self.messages[begun:] for selector in selectors(raw)}

    def check_all(self) -> None:
        """Whatever is on its way verifies still."""
        assert not self.faults
        with self._changing:
            for at, now, raw in self.messages[:: max(1, len(self.messages) // 20)]:
                if self._site.now - at < 7 * DAY_S:
                    self._check(raw, now)
        assert not self.faults

    def add(self, raw: bytes) -> None:
        with self._changing:
            self._check(raw, time.time())
        self.messages.append((self._site.now, time.time(), raw))

    def _run(self) -> None:
        while not self._quiet.wait(PAUSE_S) and not self.faults:
            try:
                with self._under_way:
                    with self._daemon.client() as client:
                        raw = sent(client.open())
                        client.quit()
                    self.add(raw)
            except Exception as error:  # noqa: BLE001 - told where the stream is looked at
                self.faults.append(error)

    def _check(self, raw: bytes, now: float) -> None:
        for address, found in verdicts(raw, now):
            if len(found) != 2 or not all(each.endswith(" pass") for each in found):
                self.faults.append((address, found, self._site.stages()))


@pytest.fixture
def daemon(rotation_site: RotationSite) -> Iterator[Daemon]:
    made = Daemon(rotation_site.directory)
    made.config = rotation_site.config
    yield made
    made.end()


@pytest.mark.attack("V09")
def test_a_whole_life_with_mail_flowing(rotation_site: RotationSite, daemon: Daemon) -> None:
    site = rotation_site
    site.rotate()
    site.configure()
    pid = daemon.started()
    reload = f"kill -HUP {pid}"
    with daemon.client() as client:
        assert selectors(sent(client.open())) == set(), "nothing signs that nobody can see"
    site.publish()
    site.rotate()
    assert (site.rotate(seconds=HOUR_S, reload=reload, wait="30").code, site.stages()) == (0, ["signing"])
    old = site.selectors(0)

    with Stream(site, daemon) as stream:
        assert stream.flow() == old
        # Half a year later the next ones are made; nothing changes until everybody has them, for an hour.
        assert site.rotate(seconds=181 * DAY_S, reload=reload).code == 2
        stream.publish(lagging=True)
        assert (site.rotate(seconds=DAY_S, reload=reload).code, site.stages()) == (2, ["signing", "created"])
        assert stream.flow() == old
        stream.publish()
        assert (site.rotate(reload=reload).code, site.stages()) == (0, ["signing", "published"])
        # A reload by somebody else, meanwhile: the old keys still.
        daemon.reload()
        assert stream.flow() == old
        # A session that is open when the keys change goes on with those that it began with.
        with daemon.client() as long:
            stream.add(sent(long.open()))
            switched = site.rotate(seconds=HOUR_S, reload=reload, wait="30")
            assert (switched.code, site.stages()) == (0, ["retired", "signing"]), switched.err + switched.out
            new = site.selectors(1)
            assert stream.flow() == new
            assert not new & old
            late = sent(long)
            assert selectors(late) == old
            stream.add(late)
        stream.check_all()

        # The old records stay for as long as a signature lives.
        assert site.rotate(seconds=7 * DAY_S - HOUR_S, reload=reload).code == 0
        stream.check_all()
        removable = site.rotate(seconds=DAY_S, reload=reload)
        assert (removable.code, site.stages()) == (2, ["removable", "signing"])
        files = [site.keys / f"{selector}.pem" for selector in old]
        site.forget(old)
        stream.publish(lagging=True)
        assert (site.rotate(reload=reload).code, site.stages()) == (2, ["removable", "signing"])
        stream.publish()
        assert (site.rotate(reload=reload).code, site.stages()) == (0, ["signing"])
        assert not any(file.exists() for file in files)
        assert stream.flow() == new
        stream.check_all()
        eventually(lambda: stream.faults or len(stream.messages) > 40)
        assert not stream.faults
    assert "reload failed" not in daemon.log()


def test_the_daemon_keeps_what_it_has_when_the_state_is_lost(rotation_site: RotationSite, daemon: Daemon) -> None:
    site = rotation_site
    site.started()
    (site.runtime / "keys.json").write_text("of one that was killed")
    daemon.started()
    told = json.loads((site.runtime / "keys.json").read_text())
    assert set(told["domains"]["us.test"]["keys"]) == site.selectors(0)
    assert told["domains"]["us.test"]["rotation"] == str(site.state)
    kept = site.state.read_bytes()
    for broken, words in ((None, "it is not there"), (b"{", "it is not what mailguard key rotate wrote")):
        site.state.unlink() if broken is None else site.state.write_bytes(broken)
        daemon.reload()
        assert "reload failed; the old configuration stays" in daemon.log()
        assert words in daemon.log()
        with daemon.client() as client:
            assert selectors(sent(client.open())) == site_selectors(kept)
    assert json.loads((site.runtime / "keys.json").read_text()) == told, "nothing new was loaded"
    # At a start there is nothing to keep.
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    daemon.process.wait(30)
    assert not list(site.runtime.glob("keys*"))
    assert daemon.start().wait(30) == 78
    assert "it is not what mailguard key rotate wrote" in daemon.log().splitlines()[-1]


def site_selectors(state: bytes) -> set[str]:
    return {key["selector"] for each in json.loads(state)["generations"] for key in each["keys"]}
