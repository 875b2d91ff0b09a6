"""What this host found about a message when it came in from outside, where it comes back to be signed.

Sieve's redirect, procmail and a mailing list hand mail of others to Postfix as this host's own, and
`[[sign.networks]]` knows it by its client alone. Our Authentication-Results field (RFC 8601) says by then whether it
is of the domain in its From. Nobody has vouched for that field on its way, so that it can keep a signature back, and
do nothing else. Left out: what was never judged here, such as mail that fetchmail brings. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailguard.authresults import FIELD_KEY
from mailguard.authserv_id import OwnIds
from mailguard.dmarc.result import DmarcStatus
from mailguard.message import Message

__all__ = ["Arrival", "failed_on_arrival"]

# What is not a result: the reason, which is quoted, and comments. Ours have none in another. One without an end goes
# to the end of the field: looked for again from each quote in it, it would take quadratic time.
_ASIDE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|\((?:[^()\\]++|\\.)*+\)?', re.DOTALL)
_DMARC = re.compile(rb";\s*dmarc\s*=\s*([a-z]++)([^;]*+)", re.IGNORECASE)
_HEADER_FROM = re.compile(rb"\bheader\.from\s*=\s*([^\s;]++)", re.IGNORECASE)
_NOT_PASSED = {each.value.encode("ascii"): each for each in DmarcStatus if each is not DmarcStatus.PASS}


class Arrival(NamedTuple):
    """DMARC's result for the domain that From still names."""

    domain: str
    status: DmarcStatus


def failed_on_arrival(message: Message, own_ids: OwnIds) -> Arrival | None:
    """Of the fields in our name, the first that says of an author domain of the message that DMARC did not pass."""
    domains = {domain.encode("ascii") for domain in message.author.domains}
    for field in message.named(FIELD_KEY):
        if own_ids.claimed_by(field.value):
            for dmarc in _DMARC.finditer(_ASIDE.sub(b"", field.value)):
                named = _HEADER_FROM.search(dmarc[2])
                domain = named[1].lower() if named is not None else b""
                status = _NOT_PASSED.get(dmarc[1].lower())
                if domain in domains and status is not None:
                    return Arrival(domain.decode("ascii"), status)
    return None
