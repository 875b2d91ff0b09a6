"""Messages of 25 and 50 MB through the real Postfix: signed, relayed, verified, in a worker that does not grow.

Each passes the only worker twice, first to be signed and then to be verified. Its memory is looked at where it was
largest in between, not only afterwards. Linux: /proc/PID/status, /proc/PID/clear_refs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine_process import only
from postfix_site import ALICE, PostfixSite, fields_named, open_site

pytestmark = pytest.mark.postfix

MB = 1_000_000
LIMIT = 60 * MB
MAX_RISE_KB = 5_000
WARM_UP = (100, 10_000, 200_000, 2 * MB)
HEADER = b"From: <alice@us.test>\r\nTo: <bob@us.test>\r\nSubject: large\r\n\r\n"
TEXT_LINE = b"The quick brown fox  jumps\tover the lazy dog, and back again. \r\n"

BODIES = {
    "text, 25 MB": (TEXT_LINE, 25 * MB),
    "text, 50 MB": (TEXT_LINE, 50 * MB),
    "one line, 25 MB": (b"x", 25 * MB),
    "all NUL, 25 MB": (b"\0", 25 * MB),
    "all 0xFF, 50 MB": (b"\xff", 50 * MB),
    "blank lines, 25 MB": (b"\r\n", 25 * MB),
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process, in kB: what is resident, and the most that ever was since it was last reset."""

    resident: int
    peak: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        status = Path(f"/proc/{pid}/status").read_text()
        resident, peak = (re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE) for name in ("VmRSS", "VmHWM"))
        assert resident is not None
        assert peak is not None
        return cls(int(resident[1]), int(peak[1]))

    @classmethod
    def reset_peak(cls, pid: int) -> Memory:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return cls.of(pid)


@pytest.fixture(scope="module")
def site(engine: str) -> Iterator[PostfixSite]:
    # smtp(8) would fold long lines, and so change what was signed.
    main = {"message_size_limit": str(LIMIT), "smtp_line_length_limit": "0"}
    with open_site(workers=1, main=main, engine=engine) as made:
        for size in WARM_UP:
            through(made, body_of(TEXT_LINE, size))
        yield made


def body_of(unit: bytes, size: int) -> bytes:
    body = unit * (size // len(unit))
    return body if body.endswith(b"\r\n") else body + b"\r\n"


def through(site: PostfixSite, body: bytes) -> bytes:
    """From alice through both services; the delivered message, whose file is removed."""
    with site.connect("submission", client=None, login=True) as client:
        answer = client.transmit(HEADER + body, sender=ALICE, recipient="large@us.test")
    assert answer.code == 250, answer
    (delivery,) = site.postfix.wait_delivered(1, timeout_s=120)
    for path in (site.postfix.directory / "mail").glob("**/new/*"):
        path.unlink()
    return delivery.message.replace(b"\n", b"\r\n")


@only("libmilter")
@pytest.mark.attack("X04")
@pytest.mark.parametrize("name", list(BODIES))
def test_a_large_message_passes_and_leaves_no_memory_behind(site: PostfixSite, name: str) -> None:
    passes_and_leaves_nothing(site, name)


@only("native")
@pytest.mark.attack("X04")
@pytest.mark.parametrize("name", ["text, 50 MB", "one line, 25 MB"])
def test_the_same_with_the_native_engine(site: PostfixSite, name: str) -> None:
    passes_and_leaves_nothing(site, name)


def passes_and_leaves_nothing(site: PostfixSite, name: str) -> None:
    body = body_of(*BODIES[name])
    (worker,) = site.daemon.workers()
    before = Memory.reset_peak(worker)
    message = through(site, body)
    after = Memory.of(worker)
    assert site.daemon.workers() == [worker]
    assert message.partition(b"\r\n\r\n")[2] == body
    (results,) = fields_named(message, "Authentication-Results")
    assert results.count(b"dkim=pass") == 2
    assert dict(site.verifiers.mailguard(message)) == {"r1": True, "e1": True}
    assert after.peak - before.resident <= MAX_RISE_KB, (before, after)
    assert after.resident - before.resident <= MAX_RISE_KB, (before, after)
