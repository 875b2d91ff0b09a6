"""Rotations for tests, with keys that exist in name alone."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

from mailguard.domain import Domain
from mailguard.rotation.state import Generation, RotatedKey, Rotation, Stage

__all__ = ["NOW", "US", "generation", "key", "rotation"]

US = Domain.parse("us.test")
NOW = 1_800_000_000.0


def key(name: str, *, is_made: bool = True) -> RotatedKey:
    public = sha256(name.encode()).digest()
    return RotatedKey(
        selector=name,
        algorithm="ed25519",
        bits=256,
        file=f"/keys/us.test/{name}.pem",
        record=f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode()}",
        fingerprint=sha256(public).hexdigest(),
        is_made=is_made,
    )


def generation(name: str, stage: Stage, *, ago: float = 0, **more: Any) -> Generation:
    has_signed = stage not in (Stage.CREATED, Stage.PUBLISHED)
    return Generation(keys=(key(name),), stage=stage, since=NOW - ago, has_signed=has_signed, **more)


def rotation(*generations: Generation) -> Rotation:
    return Rotation(domain=US, generations=generations, used=tuple(each.name for each in generations))
