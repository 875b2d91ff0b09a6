"""A message that the daemon has judged before, found by its queue id in the database of traces and judged again.

For `mailguard explain QUEUE-ID`. Judged with the configuration of today, and the header, the digests and the DNS
answers of then. Left out: printing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from mailguard.config import load
from mailguard.errors import ConfigError
from mailguard.judging import inbound_rules, policy_of
from mailguard.outcome import Outcome
from mailguard.trace import differences, replay
from mailguard.trace_reader import TraceReader
from mailguard.trace_store import plain

__all__ = ["Recorded", "judge_recorded", "looks_like_queue_id"]

# Postfix: hexadecimal, or with enable_long_queue_ids letters and digits without vowels; 6 to 20 of them. Never a dot
# or a slash, which most names of files have.
_QUEUE_ID = re.compile(r"[0-9A-Za-z]{6,32}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """The message, judged again."""

    outcome: Outcome
    notes: tuple[str, ...]
    """What is to be said beside it, a sentence each; printable ASCII. The first says when it was judged."""


def looks_like_queue_id(text: str) -> bool:
    """Whether `text` can be a queue id of Postfix. A file of that name is possible too."""
    return _QUEUE_ID.fullmatch(text) is not None


def judge_recorded(queue_id: str, config_file: str) -> Recorded:
    """Find the newest message with this queue id and judge it again.

    `config_file` says where the database is, and what the policy of today is. Raises ConfigError, TraceError for a
    trace that cannot be used, and click.ClickException where there is none.
    """
    try:
        config = load(config_file)
        opened = TraceReader(config.trace.path)
    except ConfigError as error:
        raise ConfigError(f"{_no_file(queue_id)}; {error}") from None
    with opened as reader:
        found = reader.find(queue_id)
        if found is None:
            raise click.ClickException(_not_found(queue_id, config_file, reader, enabled=config.trace.enabled))
    outcome = replay(found.trace, rules=inbound_rules(config), policy=policy_of(config))
    notes = [f"recorded {_date(found.trace.now)} by mailguard {plain(found.trace.version)}, judged again now"]
    if found.others:
        notes.append(
            f"{found.others} older {'message has' if found.others == 1 else 'messages have'} the same queue id:"
            " Postfix uses short ones again; see enable_long_queue_ids in postconf(5)"
        )
    return Recorded(outcome, (*notes, *differences(found.trace, outcome)))


def _not_found(queue_id: str, config_file: str, reader: TraceReader, *, enabled: bool) -> str:
    period = reader.period()
    kept = f"traces go from {_date(period[0])} to {_date(period[1])}" if period else "there are none yet"
    text = f"{_no_file(queue_id)}; {reader.path} has no trace of it: {kept}, and mail that is signed is not recorded"
    return text if enabled else f"{text}; [trace] is not enabled in {config_file}"


def _no_file(queue_id: str) -> str:
    return f"there is no file {plain(queue_id)}, so it is taken for a queue id"


def _date(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"at {time:.0f} s"
