"""The name by which a host greets others: its addresses, whether they lead back, and its SPF record.

RFC 5321 §4.1.4 (a full name), RFC 8601 §3 (the name of an address), RFC 7208 §2.3 (SPF for the name, by which bounces
are judged). Left out: from which address mail really leaves, which only others see. Pure: what it asks comes from
`Answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.explain.explanation import Explanation
from mailguard.iprev import IprevStatus, check_iprev
from mailguard.scorecard.card import Mark, card, finding
from mailguard.spf.record import Published

__all__ = ["TITLE", "host_name_card"]

TITLE = "name of this host"
MAX_ADDRESSES = 4


def host_name_card(helo: str, answers: Answers) -> Explanation:
    """`helo` is what the host says with EHLO. Raises Unanswered while an answer is missing."""
    facts = [("EHLO", helo)]
    try:
        name = Domain.parse(helo)
    except DomainError:
        name = None
    if name is None or "." not in name:
        detail = f"{helo} is no full name: many servers refuse mail from a host that greets with it"
        return card(TITLE, [finding(Mark.NOTE, detail, "set myhostname in main.cf to the full name")], facts=facts)
    questions = [Question(name, rdtype) for rdtype in (RecordType.A, RecordType.AAAA, RecordType.TXT)]
    answers.need(questions)
    failed = [answers.get(question) for question in questions if answers.get(question).has_failed]
    if failed:
        return card(TITLE, [finding(Mark.UNKNOWN, failed[0].detail or "the DNS did not answer")], facts=facts)
    addresses = [text for question in questions[:2] for text in answers.get(question).names()][:MAX_ADDRESSES]
    facts += [("address", text) for text in addresses]
    found = list(_of_addresses(name, addresses, answers))
    if not Published.of(answers.get(questions[2])).texts:
        detail = f"{name} has no SPF record: bounces, which have no other name, pass no SPF"
        found.append(finding(Mark.NOTE, detail, f"publish a TXT record at {name}: v=spf1 a -all"))
    return card(TITLE, found or [finding(Mark.OK, "its addresses lead back to a name, and it has SPF")], facts=facts)


def _of_addresses(name: Domain, addresses: list[str], answers: Answers) -> Iterator[Explanation]:
    if not addresses:
        yield finding(
            Mark.NOTE, f"{name} has no address", "give it an A or AAAA record, or set myhostname in main.cf"
        )
    advice = "have the provider of the address set its name (PTR) to {}: Gmail refuses mail from one without"
    for text in addresses:
        result = check_iprev(ip_address(text), answers)
        if result is None or result.status is IprevStatus.PASS:
            continue
        mark = Mark.UNKNOWN if result.status is IprevStatus.TEMPERROR else Mark.NOTE
        yield finding(mark, f"{text}: {result.detail}", advice.format(name) if mark is Mark.NOTE else "")
