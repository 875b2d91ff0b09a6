"""Where the third-party test vectors are: read in place, never copied into the repository.

`$MAILGUARD_VECTORS` names their folder; by default it is `../shared/vectors` beside the checkout. Each suite has
a SOURCE.txt that says where it comes from and what passing means. Left out: knowledge of any suite's format.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["require"]

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def require(suite: str) -> Path:
    """The folder of `suite`. Skips the calling test, with a reason that pytest shows, where it is absent."""
    vectors = Path(os.environ.get("MAILGUARD_VECTORS") or _BESIDE_THE_CHECKOUT)
    folder = vectors / suite
    if not folder.is_dir():
        pytest.skip(f"the vectors {suite} are not in {vectors} (set MAILGUARD_VECTORS)")
    return folder
