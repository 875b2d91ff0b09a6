"""The list of public suffixes of a running daemon: one that cannot be used ends no daemon, and starts none."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon_process import PATIENCE_S, Daemon, eventually
from mailguard.dmarc.suffixes import PublicSuffixes


def use(daemon: Daemon, octets: bytes | None, *, authserv_id: str = "mx1.us.test") -> None:
    """Configure the list with this content; None: the file is missing."""
    place = daemon.directory / "suffixes.dat"
    place.unlink(missing_ok=True)
    if octets is not None:
        place.write_bytes(octets)
        place.chmod(0o644)
    dmarc = '[dmarc]\norganizational_domain = "psl"\nsuffix_list = "suffixes.dat"\n'
    daemon.configure(authserv_id=authserv_id, extra=dmarc)


def whole_list() -> bytes:
    return Path(PublicSuffixes.load(None).source).read_bytes()


BROKEN = {"missing": None, "empty": b"", "truncated": whole_list()[:5_000], "not UTF-8": b"\xff" * 100}


@pytest.mark.attack("M07", "V21")
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_daemon_without_a_usable_list_does_not_start(daemon: Daemon, content: bytes | None) -> None:
    use(daemon, content)
    assert daemon.start().wait(PATIENCE_S) == 78
    assert "suffixes.dat" in daemon.log()


@pytest.mark.attack("M07", "V21")
def test_a_list_that_breaks_while_the_daemon_runs_leaves_it_with_the_last_good_one(daemon: Daemon) -> None:
    use(daemon, whole_list())
    daemon.started()
    for number, content in enumerate(BROKEN.values(), 1):
        use(daemon, content, authserv_id="mx2.us.test")
        daemon.signal(1)
        eventually(lambda: daemon.log().count("reload failed") == number)  # noqa: B023 - called before the next
        assert daemon.verdict() == "mx1.us.test"
    use(daemon, whole_list(), authserv_id="mx3.us.test")
    daemon.signal(1)
    eventually(lambda: daemon.verdict() == "mx3.us.test")
