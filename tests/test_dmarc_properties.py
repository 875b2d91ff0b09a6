"""What holds for DMARC whatever stands in the DNS and whatever SPF and DKIM came to (RFC 9989 §5.3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_asking import asked_and_judged, judged, records, resolver_of
from dmarc_worlds import AT, NAMES, RECORDS, names, senders, signatures
from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.dmarc.align import MAX_IDENTIFIER_WALKS
from mailguard.dmarc.discover import MAX_WALK_QUERIES
from mailguard.dmarc.result import Aligned, DmarcStatus, DmarcVerdict
from mailguard.dns.question import Status
from mailguard.spf.result import SpfResult, SpfStatus

zones = st.dictionaries(
    st.sampled_from(AT) | names, st.lists(st.sampled_from(RECORDS), min_size=1, max_size=2), max_size=5
)
failures = st.lists(st.sampled_from((*AT, *NAMES)), max_size=3, unique=True)
broken = st.sampled_from([Status.TEMPFAIL, Status.BOGUS])

Zone = Mapping[str, object]


@given(names, zones, senders, signatures, failures, broken)
@settings(max_examples=300)
def test_a_verdict_comes_out_and_is_consistent(
    author: str, zone: Zone, sender: SpfResult | None, signed: list[DkimResult], failing: list[str], status: Status
) -> None:
    resolver = resolver_of(records(zone), failing, status)
    verdict, asked = asked_and_judged(author, resolver, spf=sender, dkim=signed)
    assert len(asked) <= MAX_WALK_QUERIES * (1 + MAX_IDENTIFIER_WALKS) + 1
    assert len(verdict.walk) <= MAX_WALK_QUERIES
    assert verdict.detail.isascii()
    assert verdict.detail.isprintable()
    if verdict.status is DmarcStatus.PASS:
        assert verdict.has_aligned_pass
        assert verdict.record is not None
    if verdict.status is DmarcStatus.FAIL:
        assert not verdict.has_aligned_pass
        assert verdict.policy is not None
    if verdict.status is DmarcStatus.NONE:
        assert verdict.policy is None
    for one in verdict.alignments:
        if one.domain == author:
            assert one.aligned is Aligned.YES
        if one.counts:
            assert one.result == "pass"


def with_failure(
    sender: SpfResult | None, signed: list[DkimResult], chosen: set[int]
) -> tuple[SpfResult | None, list[DkimResult]]:
    """Number 0 is SPF, the others are signatures: the chosen ones have no answer."""
    if sender is not None and 0 in chosen:
        sender = replace(sender, status=SpfStatus.TEMPERROR)
    results = [
        replace(result, status=DkimStatus.TEMPERROR, testing=False) if number in chosen else result
        for number, result in enumerate(signed, start=1)
    ]
    return sender, results


@given(names, zones, senders, signatures, failures, broken, st.sets(st.integers(0, 4), max_size=2))
@settings(max_examples=500)
def test_a_missing_answer_changes_a_verdict_to_temperror_or_not_at_all(
    author: str,
    zone: Zone,
    sender: SpfResult | None,
    signed: list[DkimResult],
    failing: list[str],
    status: Status,
    chosen: set[int],
) -> None:
    """So it never makes a fail, a pass, or no policy."""
    whole = judged(author, resolver_of(records(zone)), spf=sender, dkim=signed)
    weakened, results = with_failure(sender, signed, chosen)
    partial = judged(author, resolver_of(records(zone), failing, status), spf=weakened, dkim=results)
    assert partial.status in (whole.status, DmarcStatus.TEMPERROR)
    assert partial.policy in (whole.policy, None)
    if partial.has_aligned_pass and whole.status is not DmarcStatus.NONE:
        assert whole.has_aligned_pass


@given(zones, signatures, failures)
def test_the_order_of_the_signatures_does_not_matter(
    zone: Zone, signed: list[DkimResult], failing: list[str]
) -> None:
    def told(results: list[DkimResult]) -> DmarcVerdict:
        return judged("a.b.test", resolver_of(records(zone), failing), dkim=results)

    forwards, backwards = told(signed), told(signed[::-1])
    assert forwards.status is backwards.status
    assert forwards.alignments == backwards.alignments[::-1]
