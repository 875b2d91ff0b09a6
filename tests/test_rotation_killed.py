"""A run of `mailguard key rotate` that ends at any moment: the next one goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mailguard.cli import rotation_keys
from mailguard.cli.rotation_store import RotationStore
from mailguard.config import load
from mailguard.key_places import keys_of
from rotation_site import DAY_S, HOUR_S, RotationSite, rotation_site, servers

__all__ = ["rotation_site", "servers"]

NOBODY = 65_534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: port 53")


class Killed(BaseException):
    """As SIGKILL would: nothing of ours catches it."""


STEPS_WITH_EFFECTS = ((RotationStore, "write"), (rotation_keys, "store_keys"), (rotation_keys, "delete"))


class _Fuse:
    """Ends the run before or after the effect with this number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self.left = at
        for owner, name in STEPS_WITH_EFFECTS:
            monkeypatch.setattr(owner, name, self._fused(getattr(owner, name), after=after))

    def _fused(self, effect: Callable[..., object], *, after: bool) -> Callable[..., object]:
        def fused(*arguments: object, **more: object) -> object:
            self.left -= 1
            if self.left == 0 and not after:
                raise Killed
            outcome = effect(*arguments, **more)
            if self.left == 0:
                raise Killed
            return outcome

        return fused


class _Snapshot:
    """What a run can change, to be put back."""

    def __init__(self, site: RotationSite) -> None:
        self._site = site
        self._files = {path: path.read_bytes() for path in self._changeable()}

    def _changeable(self) -> list[Path]:
        return [self._site.state, *self._site.keys.iterdir(), self._site.runtime / "keys.json"]

    def put_back(self) -> None:
        for path in set(self._changeable()) - self._files.keys():
            path.unlink()
        for path, octets in self._files.items():
            if not path.exists() or path.read_bytes() != octets:
                path.write_bytes(octets)
                path.chmod(0o644 if path.suffix == ".json" else 0o600)
                os.chown(path, *((0, 0) if path == self._site.state else (NOBODY, NOBODY)))


@pytest.mark.attack("V09")
@pytest.mark.parametrize("after", [False, True])
def test_the_next_run_goes_on_wherever_one_was_killed(
    rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Before or after each effect of each run of a life."""
    site = rotation_site
    site.started()
    old = site.selectors(0)

    def run(*arguments: str, seconds: float = 0, effects: int, then: list[str]) -> None:
        site.now += seconds
        snapshot = _Snapshot(site)
        for number in range(1, effects + 2):
            snapshot.put_back()
            with monkeypatch.context() as patch:
                fuse = _Fuse(patch, number, after=after)
                try:
                    site.rotate(*arguments)
                except Killed:
                    # No key is there whose name could be used again, and a daemon could start.
                    assert {each.stem for each in site.keys.iterdir()} <= set(site.kept()["used"])
                    assert len(keys_of(load(site.config))) == 2
                else:
                    assert number == effects + 1, f"{number - fuse.left} effects"
            site.rotate(*(arguments if len(site.stages()) < len(then) else ()))
            assert site.stages() == then, (number, arguments)

    run("--new", effects=4, then=["signing", "created"])
    site.publish()
    run(effects=1, then=["signing", "published"])
    run(seconds=HOUR_S, effects=2, then=["retired", "signing"])
    run(seconds=9 * DAY_S, effects=1, then=["removable", "signing"])
    site.forget(old)
    site.publish()
    run(effects=3, then=["signing"])
    assert not [each for each in site.keys.iterdir() if each.stem in old]
