"""What the files of a rotation say: the state that rotate keeps, and what the daemon tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mailguard.errors import ConfigError
from mailguard.rotation.loaded import LoadedDomain, LoadedKeys
from mailguard.rotation.state import Rotation, Stage
from rotation_made import generation, key, rotation

C, P, W, S, R, X = Stage


def test_the_file_is_read_back() -> None:
    found = rotation(*(generation(stage.value, stage) for stage in (X, R, S, W)))
    assert Rotation.parse(found.text().encode()) == found


def test_a_key_that_the_configuration_named_before_is_anywhere() -> None:
    named = replace(key("a", is_made=False), file="/etc/mailguard/mail.key", algorithm="rsa", bits=2048)
    found = rotation(replace(generation("a", S), keys=(named,)))
    assert Rotation.parse(found.text().encode()) == found


Change = Callable[[dict[str, Any]], object]
FAULTS: list[tuple[str, Change]] = [
    ("version", lambda state: state.update(version=2)),
    ("more", lambda state: state.update(more=1)),
    ("less", lambda state: state.pop("used")),
    ("domain", lambda state: state.update(domain="a b")),
    ("stage", lambda state: state["generations"][0].update(stage="other")),
    ("no keys", lambda state: state["generations"][0].update(keys=[])),
    ("too many", lambda state: state.update(generations=state["generations"] * 60)),
    ("two sign", lambda state: state["generations"].append(generation_json("b", S))),
    ("two come", lambda state: state["generations"].extend([generation_json("b", C), generation_json("c", P)])),
    ("twice", lambda state: state["generations"].append(generation_json("a", R))),
    ("never used", lambda state: state.update(used=[])),
    ("infinite", lambda state: state["generations"][0].update(since=float("inf"))),
    ("nan", lambda state: state["generations"][0].update(until=float("nan"))),
    ("long ago", lambda state: state["generations"][0].update(since=-1e15)),
    ("far away", lambda state: state["generations"][0].update(since=1e300)),
    ("huge", lambda state: state["generations"][0].update(since=10**400)),
    ("a flag", lambda state: state["generations"][0].update(since=True)),
    ("no flag", lambda state: state["generations"][0].update(has_signed=0)),
    ("no list", lambda state: state.update(used={"a": 1})),
    ("too many names", lambda state: state.update(used=[*state["used"], *(f"s{number}" for number in range(1_000))])),
    ("selector not as it is compared", lambda state: state.update(used=["a", "B"])),
    ("selector that is no text", lambda state: state.update(used=["a", 1])),
    ("selector", lambda state: key_of(state).update(selector="../x")),
    ("control", lambda state: key_of(state).update(selector="\x1b[31m")),
    ("file of another", lambda state: key_of(state).update(file="/etc/shadow")),
    ("relative", lambda state: key_of(state).update(file="keys/us.test/a.pem")),
    ("dots", lambda state: key_of(state).update(file="/keys/../x/us.test/a.pem")),
    ("nul", lambda state: key_of(state).update(file="/keys\0/us.test/a.pem")),
    ("surrogate", lambda state: key_of(state).update(file="/\ud800/us.test/a.pem")),
    ("fingerprint", lambda state: key_of(state).update(fingerprint="0" * 64)),
    ("record", lambda state: key_of(state).update(record="v=DKIM1; p=!")),
    ("algorithm", lambda state: key_of(state).update(algorithm="dsa")),
]


def generation_json(name: str, stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = rotation(generation(name, stage)).to_json()["generations"][0]
    return found


def key_of(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["generations"][0]["keys"][0]
    return found


@pytest.mark.parametrize("change", [row[1] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_what_the_file_cannot_say(change: Change) -> None:
    state = json.loads(rotation(generation("a", S)).text())
    state["used"] = ["a", "b", "c"]
    assert Rotation.parse(json.dumps(state).encode())
    change(state)
    with pytest.raises(ConfigError):
        Rotation.parse(json.dumps(state).encode())


def test_a_name_that_is_there_twice() -> None:
    text = rotation(generation("a", S)).text()
    with pytest.raises(ConfigError, match="twice"):
        Rotation.parse(text.replace('"stage":', '"stage": "retired", "stage":').encode())


@pytest.mark.parametrize(
    "octets", [b"", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"version": 1, "version": 1}', b"1" * 10_000]
)
def test_what_is_no_such_file(octets: bytes) -> None:
    for parse in (Rotation.parse, LoadedKeys.parse):
        with pytest.raises(ConfigError):
            parse(octets)


def test_what_the_daemon_says_is_read_back() -> None:
    found = LoadedKeys({"us.test": LoadedDomain({"a": "0" * 64}, "/r.json"), "b.test": LoadedDomain({})}, 604_800)
    assert LoadedKeys.parse(found.text().encode()) == found


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "lifetime_s": 1, "domains": []}',
        '{"version": 1, "lifetime_s": -1, "domains": {}}',
        '{"version": 2, "lifetime_s": 1, "domains": {}}',
        '{"version": 1, "lifetime_s": 1, "domains": {"a": {"rotation": 1, "keys": {}}}}',
        '{"version": 1, "lifetime_s": 1, "domains": {"a": {"rotation": null, "keys": {"s": 1}}}}',
        '{"version": 1, "lifetime_s": 1, "domains": {"a": {"rotation": "\\u001b", "keys": {}}}}',
    ],
)
def test_what_the_daemon_cannot_say(text: str) -> None:
    with pytest.raises(ConfigError):
        LoadedKeys.parse(text.encode())
