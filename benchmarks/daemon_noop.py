"""Milters that do nothing but insert one field: what libmilter costs, what pymilter adds to it, what mailguard's two
engines cost."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from compared_daemon import ComparedDaemon
from load_generator import HERE, build
from milter_replies import Expected

__all__ = ["NoopC", "NoopLibmilter", "NoopNative", "NoopPymilter"]

CHECKOUT = HERE.parent


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


class NoopLibmilter(NoopC):
    """noop_engine.py: one process too, on the libmilter engine of this checkout."""

    name = "no-op (libmilter engine)"
    package = ""
    engine = "libmilter"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-P", str(HERE / "noop_engine.py"), self.engine, self.path]

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "PYTHONPATH": f"{CHECKOUT / 'src'}{os.pathsep}{CHECKOUT / 'milter'}"}


class NoopNative(NoopLibmilter):
    """noop_engine.py on the native engine."""

    name = "no-op (native engine)"
    engine = "native"
