"""A configuration that keeps traces, and traces beside it, for the tests of the commands."""

from __future__ import annotations

from pathlib import Path

from judged_messages import judge_message
from mailguard.policy import Policy
from mailguard.rule import Mode
from mailguard.trace_store import Row, TraceStore
from zone0 import NOW, ke, mail, sign_as

__all__ = ["site", "store", "traced"]


def site(tmp_path: Path, *, enabled: bool = True) -> Path:
    """A configuration whose traces are beside it."""
    config = tmp_path / "mg.toml"
    switch = "true" if enabled else "false"
    config.write_text(f'authserv_id = "mx1.us.test"\n[trace]\nenabled = {switch}\npath = "trace.sqlite"\n')
    return config


def store(tmp_path: Path, *rows: Row) -> None:
    made = TraceStore(str(tmp_path / "trace.sqlite"), max_days=366, max_bytes=1 << 26)
    made.add(rows)
    made.close()


def traced(queue_id: str, *, at: float = NOW, author: str = "<x@bank.test>", mode: Mode = Mode.MONITOR) -> Row:
    made = judge_message(sign_as(ke(), mail(author)), now=at, policy=Policy(mode=mode))
    return Row.of(made.trace(queue_id))
