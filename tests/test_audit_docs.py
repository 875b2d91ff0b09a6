"""docs/audit.md has every check, and what it says of the command is so."""

from __future__ import annotations

import re

from audit_document import audit
from mailguard.audit.checks import CHECKS
from mailguard.cli.audit import audit as command


def test_every_check_is_in_the_document() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \| (.+) \|$", audit(), re.MULTILINE)
    assert rows == [(each.id, each.severity.word, each.rule, each.why) for each in CHECKS]
    assert f"{len(CHECKS)} checks" in audit()


def test_every_option_that_it_names_exists() -> None:
    known = {option for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", audit()))
    assert len(named) >= 6
    assert named <= known
