"""Keys that take turns: each stage by itself, and a whole life with two name servers and mail all along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from cli_process import Command, Result, mailguard_command
from mailguard.config import load
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.message import Message
from mailguard.pipeline import verify_dkim
from mailguard.rotation.state import Generation, RotatedKey, Rotation, Stage
from mailguard.rotation.step import DAY_S, RotationRules, Seen, step
from milter_peer import ALICE, Peer, delivered, message
from nsd_site import Nsd

__all__ = ["mailguard_command"]

US = Domain.parse("us.test")
NOW = 1_800_000_000.0
RULES = RotationRules(max_age_s=100 * DAY_S, keep_s=8 * DAY_S)
THERE, LACKING, GONE = Seen(), Seen(("ns2 has it missing",)), Seen(("ns1 has it missing",), is_gone=True)


def generation(name: str, stage: Stage, *, days_ago: float = 0) -> Generation:
    return Generation((RotatedKey(name, f"/keys/{name}.pem", "rsa"),), stage, NOW - days_ago * DAY_S)


def rotation(*generations: Generation) -> Rotation:
    return Rotation(US, generations)


def stages(found: Rotation) -> list[tuple[str, str]]:
    return [(each.name, each.stage.value) for each in found.generations]


# id, what there is, what the servers have, what there is then
STEPS: list[tuple[str, list[Generation], list[Seen], list[tuple[str, str]]]] = [
    ("nothing", [], [], []),
    ("not published", [generation("a", Stage.CREATED)], [LACKING], [("a", "created")]),
    ("the first is published", [generation("a", Stage.CREATED)], [THERE], [("a", "signing")]),
    (
        "a server lags",
        [generation("a", Stage.SIGNING), generation("b", Stage.CREATED)],
        [THERE, LACKING],
        [("a", "signing"), ("b", "created")],
    ),
    (
        "the next is published",
        [generation("a", Stage.SIGNING), generation("b", Stage.CREATED)],
        [THERE, THERE],
        [("a", "retired"), ("b", "signing")],
    ),
    (
        "published before, and a server lost it",
        [generation("a", Stage.SIGNING), generation("b", Stage.PUBLISHED)],
        [THERE, LACKING],
        [("a", "signing"), ("b", "created")],
    ),
    (
        "the signing one is lost: it goes on, and it is told",
        [generation("a", Stage.SIGNING)],
        [LACKING],
        [("a", "signing")],
    ),
    ("retired a week ago", [generation("a", Stage.RETIRED, days_ago=7)], [THERE], [("a", "retired")]),
    ("retired long ago", [generation("a", Stage.RETIRED, days_ago=8)], [THERE], [("a", "removable")]),
    ("still there", [generation("a", Stage.REMOVABLE)], [THERE], [("a", "removable")]),
    ("half gone", [generation("a", Stage.REMOVABLE)], [LACKING], [("a", "removable")]),
    ("gone", [generation("a", Stage.REMOVABLE)], [GONE], []),
    ("gone too early", [generation("a", Stage.RETIRED, days_ago=1)], [GONE], [("a", "retired")]),
]


@pytest.mark.parametrize(("before", "seen", "after"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS])
def test_one_step(before: list[Generation], seen: list[Seen], after: list[tuple[str, str]]) -> None:
    assert stages(step(rotation(*before), seen, now=NOW, rules=RULES).rotation) == after


@pytest.mark.parametrize(
    ("generations", "seen", "make_new", "expected"),
    [
        ([], [], False, True),
        ([generation("a", Stage.SIGNING, days_ago=99)], [THERE], False, False),
        ([generation("a", Stage.SIGNING, days_ago=100)], [THERE], False, True),
        ([generation("a", Stage.SIGNING)], [THERE], True, True),
        (
            [generation("a", Stage.SIGNING, days_ago=200), generation("b", Stage.CREATED)],
            [THERE, LACKING],
            True,
            False,
        ),
        ([generation("a", Stage.RETIRED)], [THERE], False, True),
    ],
)
def test_when_new_keys_are_made(
    generations: list[Generation], seen: list[Seen], make_new: bool, expected: bool
) -> None:
    taken = step(rotation(*generations), seen, now=NOW, rules=RULES, make_new=make_new)
    assert taken.makes_keys is expected


def test_they_may_settle_first() -> None:
    rules = RotationRules(max_age_s=100 * DAY_S, keep_s=8 * DAY_S, settle_s=DAY_S)
    fresh = step(rotation(generation("a", Stage.CREATED)), [THERE], now=NOW, rules=rules)
    assert stages(fresh.rotation) == [("a", "published")]
    later = step(fresh.rotation, [THERE], now=NOW + DAY_S, rules=rules)
    assert stages(later.rotation) == [("a", "signing")]
    assert (fresh.switches, later.switches) == (False, True)


def test_what_is_broken_is_told() -> None:
    taken = step(rotation(generation("a", Stage.SIGNING)), [LACKING], now=NOW, rules=RULES)
    assert taken.is_broken
    assert taken.said == ("a signs, and its records are not on every server: ns2 has it missing",)


def test_never_two_sign_and_never_one_that_is_lacking() -> None:
    """Whatever there is and whatever the servers have."""
    kinds = [
        [generation(name, stage, days_ago=days) for stage in Stage for days in (0, 9, 200)] for name in ("a", "b")
    ]
    for first, second in product(*kinds):
        if first.stage is second.stage is Stage.SIGNING:
            continue
        for seen in product((THERE, LACKING, GONE), repeat=2):
            taken = step(rotation(first, second), seen, now=NOW, rules=RULES)
            signing = [each for each in taken.rotation.generations if each.stage is Stage.SIGNING]
            assert len(signing) <= 1
            signed_before = [each.name for each in (first, second) if each.stage is Stage.SIGNING]
            for each in signing:
                assert each.name in signed_before or not seen[0 if each.name == "a" else 1].lacking
            # Who signed has not vanished.
            assert set(signed_before) <= {each.name for each in taken.rotation.generations}


def test_the_file_is_read_back() -> None:
    found = rotation(*(generation(stage.value, stage) for stage in Stage))
    assert Rotation.parse(found.text()) == found
    assert [key.selector for key in found.signing] == ["signing"]


GOOD = json.loads(rotation(generation("a", Stage.SIGNING)).text())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "domain": "a b"}),
        json.dumps({**GOOD, "generations": [{**GOOD["generations"][0], "stage": "other"}]}),
        json.dumps({**GOOD, "generations": [{**GOOD["generations"][0], "keys": []}]}),
        json.dumps({**GOOD, "generations": [{**GOOD["generations"][0], "keys": [{"selector": 1}]}]}),
        json.dumps({**GOOD, "generations": GOOD["generations"] * 2}),
        json.dumps({**GOOD, "generations": GOOD["generations"] * 60}),
    ],
)
def test_what_is_no_such_file(text: str) -> None:
    with pytest.raises(ConfigError):
        Rotation.parse(text)


# A whole life

FIRST, SECOND = "127.0.0.71", "127.0.0.72"
HEAD = f"""\
$TTL 1
@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 1
@ IN NS ns1.us.test.
@ IN NS ns2.us.test.
ns1 IN A {FIRST}
ns2 IN A {SECOND}
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Nsd, Nsd]]:
    with Nsd(FIRST, {"us.test": HEAD}) as first, Nsd(SECOND, {"us.test": HEAD}) as second:
        yield first, second


class Site:
    """A domain whose keys are rotated, its name servers, and a daemon that has read the configuration."""

    def __init__(self, command: Command, directory: Path, servers: tuple[Nsd, Nsd]) -> None:
        self._command = command
        self._servers = servers
        self.directory = directory
        self.config = directory / "mailguard.toml"
        self.reloaded = directory / "reloaded"
        self.records: dict[str, str] = {}
        self.mail: list[tuple[float, bytes]] = []
        self.now = NOW
        self.configure("")
        self.publish()

    def configure(self, domain_rule: str) -> None:
        self.config.write_text(
            f'authserv_id = "mx.us.test"\n[dns]\nnameservers = ["{FIRST}"]\n[sign]\nlifetime_days = 7\n{domain_rule}'
        )

    def rotate(self, *arguments: str, days: float = 0) -> Result:
        self.now += days * DAY_S
        keys = str(self.directory / "keys")
        found = self._command(
            "key", "rotate", "us.test", "-c", str(self.config), "--directory", keys, "--now", str(int(self.now)),
            "--reload", f"touch {self.reloaded}", "--json", *arguments,
        )  # fmt: skip
        if found.code in (0, 1, 2) and found.out:
            for each in json.loads(found.out)["publish"]:
                self.records[each["name"]] = each["value"]
        return found

    def publish(self, *, lagging: bool = False) -> None:
        """Put all that is asked for on both servers, or on the first alone."""
        lines = [
            f"{name}. IN TXT " + " ".join(f'"{value[at : at + 250]}"' for at in range(0, len(value), 250))
            for name, value in self.records.items()
        ]
        self._servers[0].serve({"us.test": HEAD + "\n".join(lines) + "\n"})
        if not lagging:
            self._servers[1].serve({"us.test": HEAD + "\n".join(lines) + "\n"})

    def send(self) -> set[str]:
        """A message by what the daemon signs with now; the selectors."""
        peer = Peer(load(self.config), resolver=open_resolver(ResolverConfig(nameservers=(FIRST,)))).connect()
        fields = message()
        conclusion = peer.send(fields, macros=ALICE, now=self.now)
        self.mail.append((self.now, delivered(fields, b"Hello\r\n", conclusion)))
        return set(str(conclusion.record.get("s", "")).split())

    def check_all_mail(self) -> None:
        """Each message that has not expired verifies, whichever server is asked."""
        for address in (FIRST, SECOND):
            with open_resolver(ResolverConfig(nameservers=(address,))) as resolver:
                for sent, raw in self.mail:
                    if self.now - sent < 7 * DAY_S:
                        results = verify_dkim(Message.parse(raw), resolver=resolver, now=self.now)
                        assert [each.status.value for each in results] == ["pass", "pass"], (address, results)

    def stages(self) -> list[str]:
        found = json.loads((self.directory / "keys" / "us.test" / "rotation.json").read_text())
        return [each["stage"] for each in found["generations"]]


def test_a_whole_life_with_mail_flowing(mailguard_command: Command, tmp_path: Path, servers: tuple[Nsd, Nsd]) -> None:
    site = Site(mailguard_command, tmp_path, servers)
    first = site.rotate()
    assert (first.code, site.stages()) == (2, ["created"])
    path = tmp_path / "keys" / "us.test" / "rotation.json"
    assert f'rotation = "{path}"' in json.loads(first.out)["said"]
    site.configure(f'[domains."us.test"]\nrotation = "{path}"\n')
    assert site.send() == set()  # nothing signs that nobody can see
    site.mail.clear()

    site.publish(lagging=True)
    lagging = site.rotate()
    assert (lagging.code, site.stages()) == (2, ["created"])
    assert f"ns2.us.test ({SECOND}) has" in lagging.out
    assert not site.reloaded.exists()

    site.publish()
    assert (site.rotate().code, site.stages()) == (0, ["signing"])
    assert site.reloaded.exists()
    old = site.send()
    assert len(old) == 2
    site.check_all_mail()

    # Half a year later the next one is made, and nothing changes until everybody has it.
    made = site.rotate(days=181)
    assert (made.code, site.stages()) == (2, ["signing", "created"])
    assert site.send() == old
    site.publish(lagging=True)
    assert site.rotate().code == 2
    assert site.send() == old
    site.check_all_mail()

    site.publish()
    assert (site.rotate().code, site.stages()) == (0, ["retired", "signing"])
    new = site.send()
    assert len(new) == 2
    assert not new & old
    site.check_all_mail()

    # The old records stay for as long as a signature lives.
    assert site.rotate(days=7).code == 0
    assert site.stages() == ["retired", "signing"]
    site.check_all_mail()
    removable = site.rotate(days=1)
    assert (removable.code, site.stages()) == (2, ["removable", "signing"])
    for name in [name for name in site.records if name.partition(".")[0] in old]:
        del site.records[name]
    files = {key["file"] for key in json.loads(removable.out)["generations"][0]["keys"]}
    site.publish(lagging=True)
    assert (site.rotate().code, site.stages()) == (2, ["removable", "signing"])
    site.publish()
    assert (site.rotate().code, site.stages()) == (0, ["signing"])
    assert not any(Path(file).exists() for file in files)
    site.send()
    site.check_all_mail()


def test_keys_that_sign_already_can_be_adopted(
    mailguard_command: Command, tmp_path: Path, servers: tuple[Nsd, Nsd]
) -> None:
    site = Site(mailguard_command, tmp_path, servers)
    made = json.loads(mailguard_command("key", "new", "us.test", "--directory", tmp_path / "keys", "--json").out)
    named = ", ".join(f'{{ name = "{each["selector"]}", key_file = "{each["file"]}" }}' for each in made["keys"])
    site.configure(f'[domains."us.test"]\nselectors = [{named}]\n')
    refused = site.rotate()
    assert (refused.code, "run this with --adopt" in refused.err) == (64, True)
    site.records = {each["name"]: each["record"] for each in made["keys"]}
    site.publish()
    adopted = site.rotate("--adopt")
    assert (adopted.code, site.stages()) == (0, ["signing"])
    assert not site.reloaded.exists()
    site.configure(f'[domains."us.test"]\nrotation = "{tmp_path}/keys/us.test/rotation.json"\n')
    assert site.send() == {each["selector"] for each in made["keys"]}
    assert "--adopt" in site.rotate("--adopt").err
    # New ones never take a name that is there.
    assert site.rotate("--new").code == 2
    found = json.loads(mailguard_command("key", "list", "-c", site.config, "--json").out)
    assert [each["stage"] for each in found] == ["signing", "signing", "created", "created"]
    assert len({each["selector"] for each in found}) == 4


def test_a_reload_that_fails_changes_nothing(
    mailguard_command: Command, tmp_path: Path, servers: tuple[Nsd, Nsd]
) -> None:
    site = Site(mailguard_command, tmp_path, servers)
    site.rotate()
    site.publish()
    failed = site.rotate("--reload", "false")
    assert (failed.code, site.stages()) == (1, ["created"])
    assert "nothing has changed, because the reload ended with 1" in failed.out
    missing = site.rotate("--reload", "/no/such/program")
    assert (missing.code, site.stages()) == (1, ["created"])
    assert site.rotate("--reload", "").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not there yet; make it with: mailguard key rotate us.test"),
        ("{", "it is not a file of mailguard key rotate"),
        (Rotation(Domain.parse("other.test")).text(), "it is of other.test, not of us.test"),
    ],
)
def test_what_the_daemon_says_of_a_file_that_it_cannot_use(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "rotation.json"
    if text is not None:
        file.write_text(text)
    path = tmp_path / "mailguard.toml"
    path.write_text(f'[domains."us.test"]\nrotation = "{file}"\n')
    with pytest.raises(ConfigError, match=said):
        Peer(load(path))


def test_a_file_that_everybody_can_write_to_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rotation.json"
    file.write_text(rotation().text())
    file.chmod(0o666)
    path = tmp_path / "mailguard.toml"
    path.write_text(f'[domains."us.test"]\nrotation = "{file}"\n')
    with pytest.raises(ConfigError, match="everybody can write to it"):
        Peer(load(path))
