"""Memory that holds private keys: no core dump gets it, and only root's processes can read it (prctl(2)).

For this process and those that it forks; a program that is executed begins anew. Left out: memory that is swapped
out, which is the service manager's (MemorySwapMax= in contrib/mailguard-milter.service).
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_private"]

# From linux/prctl.h.
_PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Before any key is loaded. A kernel that does not know it leaves all as it was."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
