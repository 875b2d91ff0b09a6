"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

__all__ = ["busy_with", "describe"]

PYTHON_PACKAGES = (
    *("mailguard-milter", "cryptography", "pymilter", "uvloop"),
    *("dnspython", "pyspf", "dkimpy", "authres"),
)
DEBIAN_PACKAGES = ("postfix", "unbound", "libmilter1.0.1", "libssl3")
CHECKOUT = Path(__file__).resolve().parent.parent
# One core's worth of other work spoils a comparison on a small machine.
BUSY_LOAD = 0.5
# What run.sh found before it installed anything: the load of the set-up is not that of the machine.
LOAD_BEFORE = "MAILGUARD_BENCHMARK_LOAD"


def describe(packages: Iterable[str]) -> dict[str, str]:
    """What a reader has to know; `packages` are Debian's names of what is compared."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{_os_name()}, Linux {platform.release()}",
        "load before": f"{_load_before():.2f}",
        "Python": platform.python_version(),
        "OpenSSL of cryptography": backend.openssl_version_text(),
    }
    if commit := _commit():
        found["commit"] = commit
    for name in PYTHON_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    for name in dict.fromkeys((*packages, *DEBIAN_PACKAGES)):
        found[f"{name} (Debian)"] = _debian_version(name)
    return found


def busy_with() -> str:
    """A warning if the machine has other work; otherwise empty."""
    load = _load_before()
    if load <= BUSY_LOAD:
        return ""
    return f"the machine is busy (load {load:.2f}): the figures are not to be relied on"


def _load_before() -> float:
    found = os.environ.get(LOAD_BEFORE)
    return float(found) if found else os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _os_name() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _debian_version(package: str) -> str:
    # From Debian 13 on, the names of many libraries end in t64: libssl3t64.
    for name in (package, f"{package}t64"):
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True, check=False
        )
        if version := done.stdout.strip():
            return version
    return "not installed"
