"""Milters that do nothing but insert one field: what libmilter costs, and what pymilter adds to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from compared_daemon import ComparedDaemon
from load_generator import HERE, build
from milter_replies import Expected

__all__ = ["NoopC", "NoopPymilter"]


class NoopC(ComparedDaemon):
    """noop.c."""

    name = "no-op (C)"
    package = "libmilter1.0.1"

    @property
    def expected(self) -> Expected:
        return Expected.ACCEPTED

    def command(self) -> Sequence[str]:
        program: Path = build("noop.c", self.directory, "-lmilter")
        return [str(program), f"local:{self.path}"]


class NoopPymilter(NoopC):
    """noop_pymilter.py: one process, as pymilter has it."""

    name = "no-op (pymilter)"
    package = ""

    def command(self) -> Sequence[str]:
        return [sys.executable, "-P", str(HERE / "noop_pymilter.py"), self.path]
