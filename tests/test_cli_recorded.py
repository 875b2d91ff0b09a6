"""A message that the daemon has judged, found by its queue id: `mailguard explain QUEUE-ID`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_process import Command
from log_samples import stamp
from mailguard.cli.recorded import judge_recorded, looks_like_queue_id
from mailguard.errors import ConfigError
from mailguard.rule import Mode
from mailguard.spf.result import SpfStatus
from trace_site import site, store, traced
from zone0 import NOW


def test_a_recorded_message_is_judged_again_by_its_queue_id(tmp_path: Path) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z", at=NOW - 60), traced("4bZk1x2Qp3z"))
    found = judge_recorded("4bZk1x2Qp3z", str(site(tmp_path)))
    assert found.outcome.now == NOW
    assert found.outcome.spf is not None
    assert found.outcome.spf.status is SpfStatus.PASS
    assert found.outcome.decision.rule.value == "dmarc-reject"
    when, reused, *more = found.notes
    assert (
        when == f"recorded {stamp(NOW).replace('T', ' ').removesuffix('Z')} UTC by mailguard 0.1.0, judged again now"
    )
    assert reused.startswith("1 older message has the same queue id")
    assert more == []


def test_what_has_changed_since_is_noted(tmp_path: Path) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z", mode=Mode.ENFORCE))
    (_, changed) = judge_recorded("4bZk1x2Qp3z", str(site(tmp_path))).notes
    assert changed.startswith("then it was reject (dmarc-reject)")


@pytest.mark.parametrize("queue_id", ["4BZK1X2QP3Z", "' OR 1=1 --", "\udcff\x1b[31m"], ids=["case", "sql", "octets"])
def test_an_unknown_queue_id_is_one_line(tmp_path: Path, queue_id: str) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z"))
    with pytest.raises(Exception, match="has no trace of it") as raised:
        judge_recorded(queue_id, str(site(tmp_path)))
    text = raised.value.format_message()  # type: ignore[attr-defined]  # a ClickException
    assert "traces go from 2025-06-15" in text
    assert text.isprintable()
    store(tmp_path)
    with pytest.raises(Exception, match="is not enabled in"):
        judge_recorded("4bZk1x2Qp3y", str(site(tmp_path, enabled=False)))


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="enabled and path"):
        judge_recorded("4bZk1x2Qp3z", str(site(tmp_path)))


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_explain_shows_a_recorded_message(mailguard_command: Command, tmp_path: Path, as_json: bool) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z"))
    options = ("--config", site(tmp_path), *(["--json"] if as_json else []))
    done = mailguard_command("explain", "4bZk1x2Qp3z", *options)
    assert done.code == 1, done.err
    if as_json:
        assert json.loads(done.out)["reason"] == "dmarc-reject"
        assert done.err.startswith("note: recorded 2025-06-15")
    else:
        assert done.out.startswith("note: recorded 2025-06-15")
        # In monitor mode it was accepted; what is explained is what enforcing does.
        assert "message: reject (dmarc-reject)" in done.out


def test_explain_takes_no_client_for_a_recorded_message(mailguard_command: Command, tmp_path: Path) -> None:
    done = mailguard_command("explain", "4bZk1x2Qp3z", "--config", site(tmp_path), "--ip", "192.0.2.1")
    assert done.code == 64
    assert "there is no file 4bZk1x2Qp3z" in done.err


def test_explain_prefers_a_file_of_that_name(mailguard_command: Command, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"From: <x@bank.test>\n\nHi\n")
    (tmp_path / "zone").write_text("bank.test. IN TXT x\n")
    done = mailguard_command("explain", "message", "--zone", "zone")
    assert done.code == 0, done.err


def test_explain_of_what_is_neither_says_what_it_was_taken_for(mailguard_command: Command, tmp_path: Path) -> None:
    done = mailguard_command("explain", "mesage", "--config", tmp_path / "none.toml")
    assert done.code == 78
    assert "there is no file mesage, so it is taken for a queue id" in done.err
    assert "none.toml" in done.err


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("4bZk1x2Qp3z", True),
        ("3F2A1B", True),
        ("9C3B61A2F7", True),
        ("message.eml", False),
        ("./4bZk1x2Qp3z", False),
        ("-", False),
        ("", False),
        ("12345", False),
        ("4bZk1x2Qp3z\n", False),
    ],
)
def test_what_looks_like_a_queue_id(text: str, is_one: bool) -> None:
    assert looks_like_queue_id(text) is is_one
