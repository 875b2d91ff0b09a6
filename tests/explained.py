"""Messages judged under zone Z0, and their explanation as text."""

from __future__ import annotations

from collections.abc import Mapping

from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.explain import Explanation, explain
from mailguard.inbound import InboundRules
from mailguard.outcome import Outcome
from mailguard.pipeline import authenticate
from mailguard.policy import Policy
from zone0 import NOW, Records, zone

__all__ = ["EVIL_CLIENT", "block", "judged", "tree_of"]

EVIL_CLIENT = "198.51.100.66"


def judged(
    raw: bytes,
    *,
    ip: str | None = EVIL_CLIENT,
    helo: str = "evil.test",
    mail_from: str = "x@evil.test",
    more: Records | None = None,
    failing: Mapping[tuple[str, str], Status] | None = None,
    policy: Policy | None = None,
    rules: InboundRules | None = None,
) -> Outcome:
    """The message under Z0 with `more` names, as it came from the attacker; `failing` names do not answer."""
    resolver = ZoneResolver(zone(more), status=failing or {})
    return authenticate(
        raw, ip=ip, helo=helo, mail_from=mail_from, resolver=resolver, now=NOW, policy=policy, rules=rules
    )


def tree_of(outcome: Outcome) -> Explanation:
    """Why, with the records that were used."""
    return explain(outcome.message, outcome.judged, outcome.decision, answers=outcome.answers)


def block(text: str, heading: str) -> str:
    """The lines of the node with this heading, and of those below it."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == heading)
    depth = len(lines[start]) - len(lines[start].lstrip())
    end = start + 1
    while end < len(lines) and len(lines[end]) - len(lines[end].lstrip()) > depth:
        end += 1
    return "\n".join(lines[start:end])
