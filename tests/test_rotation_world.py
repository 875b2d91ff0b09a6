"""Keys that take turns in a world that goes its own ways: whatever is signed verifies for as long as it is valid.

Servers get the records late, one by one and wrong at first; caches keep the worst for as long as they may; the daemon
reloads when it likes, or goes back to keys that it had; signatures live longer or shorter from one day to the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from mailguard.rotation.state import COMING, Generation, Rotation, Stage
from mailguard.rotation.step import DAY_S, RotationRules, Seen, confirmed, step, with_loaded
from rotation_made import NOW, key, rotation

HOUR_S = 3_600
DRAIN_S = 600
SERVERS = (0, 1)
RUNS = 400


@dataclass
class World:
    """`check` fails where a message could not be verified."""

    chance: random.Random
    state: Rotation = field(default_factory=rotation)
    now: float = NOW
    negative_ttl_s: float = HOUR_S
    ttl_s: float = HOUR_S
    """Of every record; one that is wrong may have another."""
    lifetime_s: float = 7 * DAY_S
    right: set[tuple[int, str]] = field(default_factory=set)
    """Server and generation."""
    wrong: dict[tuple[int, str], float] = field(default_factory=dict)
    """The same, and how long that may be kept."""
    noticed: set[tuple[int, str]] = field(default_factory=set)
    """What is wrong, and has been seen."""
    doubtful_until: dict[str, float] = field(default_factory=dict)
    """Until then a cache may have something else than the key."""
    valid_until: dict[str, float] = field(default_factory=dict)
    """Until then something signed is valid."""
    loaded: tuple[str, ...] = ()
    loaded_lifetime_s: float = 7 * DAY_S
    made: int = 0
    switches: int = 0

    def put(self, server: int, name: str, what: str) -> None:
        """Nobody knows of a wrong record with a life of its own that is corrected before anybody looked."""
        at = (server, name)
        if at not in self.right:
            kept_s = self.wrong.get(at, self.negative_ttl_s)
            if kept_s > min(self.ttl_s, DAY_S) and at in self.wrong and at not in self.noticed:
                return
            self.doubtful_until[name] = max(self.doubtful_until.get(name, 0), self.now + kept_s)
        self.right.discard(at)
        self.noticed.discard(at)
        self.wrong.pop(at, None)
        if what == "right":
            self.right.add(at)
        elif what == "wrong":
            self.wrong[at] = self.chance.choice([60, self.ttl_s, DAY_S, 7 * DAY_S])

    def sign(self, late_s: float = 0) -> None:
        """A message, by all keys that are loaded."""
        for name in self.loaded:
            assert all((server, name) in self.right for server in SERVERS), f"{name} is not there"
            assert self.now >= self.doubtful_until[name], f"{name} is not known everywhere"
            until = self.now + late_s + self.loaded_lifetime_s
            self.valid_until[name] = max(self.valid_until.get(name, 0), until)

    def remove(self, name: str) -> None:
        assert self.now >= self.valid_until.get(name, 0), f"{name} is needed still"
        for server in SERVERS:
            self.put(server, name, "nothing")

    def seen(self, each: Generation) -> Seen:
        asked = [(server, each.name) for server in SERVERS if self.chance.random() > 0.03]
        self.noticed |= set(asked) & set(self.wrong)
        return Seen(
            lost=tuple("something else" for at in asked if at not in self.right),
            silent=("no answer",) if len(asked) < len(SERVERS) else (),
            is_gone=len(asked) == len(SERVERS) and not set(asked) & self.right,
            ttl_s=self.ttl_s if asked else 0,
            other_ttl_s=max([self.negative_ttl_s, *(self.wrong.get(at, 0) for at in asked)]),
        )

    def reload(self) -> None:
        self.sign(DRAIN_S)
        self.loaded = tuple(each.selector for each in self.state.signing)
        self.loaded_lifetime_s = self.lifetime_s

    def run(self, *, make_new: bool, discard: bool) -> list[Seen]:
        """What the command does."""
        seen = [self.seen(each) for each in self.state.generations]
        rules = RotationRules(
            max_age_s=60 * DAY_S,
            lifetime_s=max(self.lifetime_s, self.loaded_lifetime_s),
            settle_s=max(HOUR_S, self.negative_ttl_s),
        )
        told = [key(name).fingerprint for name in self.loaded]
        before = with_loaded(self.state, told, now=self.now, lifetime_s=rules.lifetime_s)
        taken = step(before, seen, now=self.now, rules=rules, make_new=make_new, discard=discard)
        self.state = replace(
            taken.rotation,
            generations=tuple(each for each in taken.rotation.generations if each not in taken.forgotten),
        )
        if taken.makes_keys:
            self.made += 1
            keys = (key(f"s{self.made}"),)
            made = Generation(keys=keys, stage=Stage.CREATED, since=self.now, other_ttl_s=self.negative_ttl_s)
            used = (*self.state.used, made.name)
            self.state = replace(self.state, generations=(*self.state.generations, made), used=used)
        wanted = tuple(each.selector for each in self.state.signing)
        if self.loaded != wanted and self.chance.random() < 0.6:
            self.reload()
        if self.loaded == wanted:
            after = confirmed(self.state, now=self.now, rules=rules)
            self.switches += after != self.state
            self.state = after
        assert Rotation.parse(self.state.text().encode()) == self.state
        return seen

    def administer(self) -> None:
        """Publish and remove what was asked for; of keys that do not sign also what was not."""
        for each in self.state.generations:
            for server in SERVERS:
                if each.stage is Stage.CREATED and not each.has_signed and self.chance.random() < 0.6:
                    self.put(server, each.name, self.chance.choice(["right", "right", "right", "wrong", "nothing"]))
                elif each.stage is Stage.PUBLISHED and not each.has_signed and self.chance.random() < 0.1:
                    self.put(server, each.name, "nothing")
                elif each.stage is Stage.CREATED and each.has_signed:
                    self.put(server, each.name, "right")
            if each.stage is Stage.REMOVABLE and each.name not in self.loaded and self.chance.random() < 0.5:
                self.remove(each.name)

    def drift(self, going: Sequence[Generation]) -> None:
        """What happens by itself."""
        if self.chance.random() < 0.1:
            self.reload()
        elif going and self.chance.random() < 0.05:
            self.sign(DRAIN_S)
            self.loaded, self.loaded_lifetime_s = (self.chance.choice(going).name,), self.lifetime_s
        if self.chance.random() < 0.1:
            self.lifetime_s = self.chance.choice([DAY_S, 7 * DAY_S, 30 * DAY_S])
        if self.chance.random() < 0.1:
            self.negative_ttl_s = self.chance.choice([60, HOUR_S, DAY_S])


@pytest.mark.attack("V09")
@pytest.mark.parametrize("seed", range(16))
def test_what_is_signed_verifies_for_as_long_as_it_is_valid(seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance, ttl_s=chance.choice([60, HOUR_S, DAY_S, 7 * DAY_S]))
    for _ in range(RUNS):
        world.now += chance.choice([HOUR_S / 2, 2 * HOUR_S, DAY_S])
        world.sign()
        world.run(make_new=chance.random() < 0.1, discard=chance.random() < 0.03)
        world.sign()
        world.administer()
        world.sign()
        world.now += chance.choice([60, HOUR_S])
        world.drift(world.state.at(Stage.RETIRED))
        world.sign()
        assert len(world.state.at(*COMING)) <= 1
    assert world.switches, "keys do change"
