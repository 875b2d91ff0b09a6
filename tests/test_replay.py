"""A recorded message judged again: the same verdict without the DNS, and what is said where that cannot be.

The record goes through the database, as it does in the daemon.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from judged_messages import Case, case, judge_message
from mailguard.dkim.canonical import BodyRequest, Canonicalization
from mailguard.dkim.result import DkimStatus
from mailguard.dkim.verify import VerifyRules
from mailguard.dmarc.result import DmarcStatus
from mailguard.dns.question import Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import TraceError
from mailguard.inbound import InboundRules
from mailguard.outcome import Outcome
from mailguard.policy import Policy
from mailguard.rule import Disposition, Mode
from mailguard.spf.result import SpfStatus
from mailguard.trace import RecordedDigests, Trace, decode, differences, encode, replay, unrecorded
from mailguard.trace_reader import TraceReader
from mailguard.trace_store import Row, TraceStore
from zone0 import BANK, NOW, Records, ke, mail, sign_as, zone

MESSAGES = 1000


def test_a_thousand_messages_are_judged_again_as_they_were(tmp_path: Path) -> None:
    cases = [case(number) for number in range(MESSAGES)]
    path = str(tmp_path / "trace.sqlite")
    store = TraceStore(path, max_days=36_500, max_bytes=1 << 30)
    store.add([Row.of(each.trace(f"{number:06X}")) for number, each in enumerate(cases)])
    store.close()
    with TraceReader(path) as reader:
        for number, each in enumerate(cases):
            found = reader.find(f"{number:06X}")
            assert found is not None
            assert found.trace == each.trace(f"{number:06X}"), number
            again = replay(found.trace, rules=each.rules, policy=each.policy)
            # Evidence, verdict, decision, and the questions that were asked, in their order.
            assert again == each.outcome, number
            assert again.header("mx.us.test") == each.outcome.header("mx.us.test"), number
            assert differences(found.trace, again) == ()
    all_is_there([each.outcome for each in cases])


def all_is_there(outcomes: list[Outcome]) -> None:
    """So that the test is not empty where it matters."""
    for what, words in (
        ({answer.status for outcome in outcomes for answer in outcome.answers}, Status),
        ({result.status for outcome in outcomes for result in outcome.dkim}, DkimStatus),
        ({outcome.spf.status for outcome in outcomes if outcome.spf is not None}, SpfStatus),
        ({outcome.dmarc.status for outcome in outcomes if outcome.dmarc is not None}, DmarcStatus),
        ({outcome.decision.disposition for outcome in outcomes}, Disposition),
    ):
        assert what == set(words)
    assert Counter(outcome.decision.rule for outcome in outcomes).most_common(1)[0][1] < len(outcomes) / 2


# Where the configuration has changed


def forged(*, checks_helo: bool = False, more: Records | None = None) -> Case:
    """A message that the attacker sends for the bank, signed by himself."""
    return judge_message(
        sign_as(ke(), mail(f"<x@{BANK}>")),
        rules=InboundRules(checks_helo=checks_helo),
        resolver=ZoneResolver(zone(more)),
    )


def again(
    recorded: Case, *, rules: InboundRules | None = None, policy: Policy | None = None
) -> tuple[Trace, Outcome]:
    trace = decode(encode(recorded.trace()))
    return trace, replay(trace, rules=rules or recorded.rules, policy=policy or recorded.policy)


def test_what_was_not_asked_is_no_answer_and_said() -> None:
    trace, outcome = again(forged(), rules=InboundRules(checks_helo=True))
    question = Question("mx.evil.test", RecordType.TXT)
    assert unrecorded(trace, outcome) == (question,)
    (answer,) = [each for each in outcome.answers if each.question == question]
    assert (answer.status, answer.detail.partition(":")[0]) == (Status.TEMPFAIL, "not recorded")
    assert outcome.helo_spf is not None
    assert outcome.helo_spf.status is SpfStatus.TEMPERROR
    assert differences(trace, outcome) == ("not recorded, so taken as not answered: mx.evil.test TXT",)


def test_an_answer_that_was_not_read_changes_nothing() -> None:
    recorded = forged(checks_helo=True)
    trace, outcome = again(recorded, rules=InboundRules(checks_helo=False))
    assert outcome.decision == recorded.outcome.decision
    assert outcome.helo_spf is None
    assert differences(trace, outcome) == ()


def test_another_policy_decides_anew_and_the_difference_is_said() -> None:
    recorded = forged()
    trace, outcome = again(recorded, policy=Policy(mode=Mode.MONITOR))
    assert outcome.judged == recorded.outcome.judged
    assert outcome.decision.disposition is Disposition.ACCEPT
    assert differences(trace, outcome) == (
        "then it was reject (dmarc-reject); with the configuration and the version of today it is accept"
        " (dmarc-reject, enforcing: reject)",
    )


def test_only_the_signatures_that_were_verified_are_verified_again() -> None:
    raw = sign_as(ke(), sign_as(ke(), mail(), c="relaxed/simple", tags={"l": "3"}), c="simple/relaxed")
    recorded = judge_message(raw, rules=InboundRules(verifying=VerifyRules(max_signatures=1)))
    trace, outcome = again(recorded, rules=InboundRules(verifying=VerifyRules(max_signatures=10)))
    assert (trace.signatures, len(outcome.dkim)) == (1, 1)
    assert outcome.dkim == recorded.outcome.dkim
    assert outcome.evidence.ignored_signatures == 1


def test_where_no_signature_was_read_none_is() -> None:
    recorded = judge_message(sign_as(ke(), mail()))
    trace = replace(recorded.trace(), signatures=0, digests=(), totals=())
    assert replay(trace, rules=recorded.rules, policy=recorded.policy).dkim == ()


def test_a_hash_that_nobody_has_is_an_error() -> None:
    recorded = judge_message(sign_as(ke(), mail()))
    other = BodyRequest(Canonicalization.SIMPLE, 12)
    trace = replace(recorded.trace(), digests=((other, None),))
    with pytest.raises(TraceError, match="the version of mailguard that recorded it"):
        replay(trace, rules=recorded.rules, policy=recorded.policy)


@pytest.mark.parametrize(
    ("form", "length"), [(Canonicalization.SIMPLE, None), (Canonicalization.RELAXED, 3)], ids=["form", "length"]
)
def test_recorded_digests_know_only_what_was_recorded(form: Canonicalization, length: int | None) -> None:
    whole = BodyRequest(Canonicalization.RELAXED)
    digests = RecordedDigests({whole: b"d" * 32, BodyRequest(Canonicalization.RELAXED, 9): None}, {whole[0]: 7})
    assert digests.digest(whole) == b"d" * 32
    assert digests.digest(BodyRequest(Canonicalization.RELAXED, 9)) is None
    assert digests.total(Canonicalization.RELAXED) == 7
    with pytest.raises(TraceError):
        digests.digest(BodyRequest(form, length))
    with pytest.raises(TraceError):
        digests.total(Canonicalization.SIMPLE)
    with pytest.raises(ValueError, match="the body has ended"):
        digests.update(b"more")


def test_the_time_is_that_of_the_record() -> None:
    """A signature that has expired since verifies as it did."""
    recorded = judge_message(sign_as(ke(), mail(), tags={"t": str(NOW), "x": str(NOW + 60)}), now=NOW + 0.5)
    trace, outcome = again(recorded)
    assert (trace.now, outcome.now) == (NOW + 0.5, NOW + 0.5)
    assert outcome.dkim[0].status is DkimStatus.PASS
