"""`key test` and `doctor` on a host with hundreds of keys: how much is asked at once, and how much is said."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

import mailguard.cli.key
from cli_process import Command
from mailguard.cli.doctor_probe import CHILD_KEYS, load_keys
from mailguard.cli.key_check import BATCH_KEYS, KeyOutcome, check_keys
from mailguard.dkim.signing_key import KeyPermissions, SigningKey
from mailguard.dns.lookups import MAX_UNDER_WAY
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.scorecard.card import MAX_SHOWN, Mark, finding, in_few
from mailguard.scorecard.dkim_card import wrong_places
from zone0 import ed25519_key, pem

COUNT = 450
RECORD = SigningKey.from_bytes(pem(ed25519_key()), domain="us.test", selector="s").record().decode("ascii")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(ed25519_key()))
    path.chmod(0o600)
    return path


class _Counting(ZoneResolver):
    """Every second domain publishes its key. Notes how much is asked at a time, and until when."""

    def __init__(self) -> None:
        super().__init__({f"s._domainkey.d{number}.test": {"TXT": [RECORD]} for number in range(0, COUNT, 2)})
        self.asked: list[tuple[int, float]] = []

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        asked = list(questions)
        self.asked.append((len(asked), deadline))
        return super().resolve(asked, deadline=deadline)


def test_a_resolver_is_not_asked_for_more_than_it_takes(
    mailguard_command: Command, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = _Counting()
    monkeypatch.setattr(mailguard.cli.key, "open_resolver", lambda config: resolver)
    config = tmp_path / "mailguard.toml"
    config.write_text(
        "\n".join(
            f'[domains."d{number}.test"]\nselectors = [{{ name = "s", key_file = "{key_file}" }}]'
            for number in range(COUNT)
        )
    )
    done = mailguard_command("key", "test", "-c", config)
    assert (done.code, done.out.count("pass: "), done.out.count("fail: ")) == (1, COUNT // 2, COUNT // 2)
    assert f"mailguard: {COUNT} keys: {COUNT // 2} pass, {COUNT // 2} fail\n" in done.err
    # A record that is missing is looked for where people put it.
    most = BATCH_KEYS * max(1, len(wrong_places("s", Domain("d0.test"))))
    assert max(count for count, _ in resolver.asked) <= most < MAX_UNDER_WAY
    # And each batch has its own time.
    deadlines = sorted({deadline for _, deadline in resolver.asked})
    assert len(deadlines) == -(-COUNT // BATCH_KEYS)
    assert all(one < other for one, other in pairwise(deadlines))


def test_a_resolver_that_is_down_is_not_waited_for_again_and_again(key_file: Path) -> None:
    asked: list[int] = []

    class Down(ZoneResolver):
        def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
            found = {each: Answer(each, Status.TEMPFAIL, detail="no answer") for each in questions}
            asked.append(len(found))
            return found

    wanted = [(Domain(f"d{number}.test"), "s", str(key_file)) for number in range(COUNT)]
    checked = list(check_keys(wanted, Down({}), permissions=KeyPermissions.STRICT, time_s=8.0))
    assert [each.outcome for each in checked] == [KeyOutcome.UNKNOWN] * COUNT
    assert sum(asked) == BATCH_KEYS
    assert checked[-1].detail.endswith("not asked: of 200 keys before, none could be looked up")


def test_doctor_reads_many_keys_in_few_processes(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[int] = []
    fork = os.fork

    def counted() -> int:
        forks.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    wanted = [(Domain("us.test"), "s", f"{key_file}{'.gone' * (number == 300)}") for number in range(COUNT)]
    faults = list(load_keys(None, wanted, KeyPermissions.STRICT))
    assert len(forks) == -(-COUNT // CHILD_KEYS)
    assert [number for number, fault in enumerate(faults) if fault] == [300]
    assert "No such file" in faults[300]
    assert len(faults) == COUNT


def test_what_is_wrong_with_thousands_is_said_of_some() -> None:
    marks = [Mark.OK, Mark.PROBLEM, Mark.OK, Mark.UNKNOWN] * 1_000
    shown = in_few([finding(mark, f"{number}", "mend") for number, mark in enumerate(marks)], "keys", "see all")
    assert len(shown) == 2 * (MAX_SHOWN + 1) + 1
    assert [(each.title, each.detail, each.advice) for each in shown if each.detail.endswith("keys")] == [
        ("problem", "980 more keys", "see all"),
        ("unknown", "980 more keys", "see all"),
        ("ok", "2000 of 4000 keys", ""),
    ]
    assert shown[0].detail == "1"


def test_few_are_all_shown() -> None:
    found = [finding(Mark.OK, "a"), finding(Mark.PROBLEM, "b"), *[finding(Mark.NOTE, "c")] * (MAX_SHOWN - 2)]
    assert in_few(found, "keys", "") == found
