"""Which policy counts, and what is looked up and fetched when (RFC 8461 §3.3, RFC 8461 §5.1, RFC 8461 §10.2).

ATTACKS.md rows: T06, T07, T13, T16, T17.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path

import pytest

from mailguard.domain import Domain
from mailguard.mtasts.cache import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    LOOKED_UP_AT_LEAST_S,
    LOOKED_UP_AT_MOST_S,
    REFRESH_FROM,
    REFRESH_UNTIL,
    REFRESHED_WHILE_ASKED_S,
    CacheLimits,
)
from mailguard.mtasts.cache_entry import SHORTEST_PAUSE_S, SHORTEST_STAY_S, Fetch
from mailguard.mtasts.policy import StsMode
from mailguard.mtasts.record import Discovery, DiscoveryStatus
from mailguard.mtasts.result import FetchReason
from mtasts_asking import DAY_S, DOMAIN, NOW, WEEK_S, Asking, failure, found, nothing, policy, success
from policy_site import Authority, Behaviour, Connection, PolicySite, reply

UNUSABLE = [
    pytest.param(nothing(DiscoveryStatus.ABSENT), id="gone"),
    pytest.param(nothing(DiscoveryStatus.UNAVAILABLE), id="servfail"),
    pytest.param(nothing(DiscoveryStatus.SEVERAL), id="two"),
    pytest.param(nothing(DiscoveryStatus.MALFORMED), id="malformed"),
]


# -- the first time -----------------------------------------------------------------------------------------------


def test_a_domain_is_looked_up_and_its_policy_fetched() -> None:
    asking = Asking()
    standing = asking.cache.policy_for(DOMAIN, now=NOW)
    assert (standing.held, standing.is_to_be_looked_up, standing.fetch) == (None, True, None)
    fetch = asking.noticed(found())
    assert fetch == Fetch(DOMAIN, "one", is_refresh=False)
    # While it goes on, another one is not begun.
    assert asking.cache.policy_for(DOMAIN, now=NOW).fetch is fetch
    assert asking.noticed(found()) is None
    assert asking.noticed(found("two")) is None
    asking.fetched(fetch, success())
    standing = asking.cache.policy_for(DOMAIN, now=NOW)
    assert standing.held is not None
    assert (standing.held.policy, standing.held.record_id, standing.fetch) == (policy(), "one", None)
    assert not standing.is_to_be_looked_up


@pytest.mark.parametrize("discovery", UNUSABLE)
def test_without_a_usable_record_there_is_no_new_policy(discovery: Discovery) -> None:
    asking = Asking()
    assert asking.noticed(discovery) is None
    assert asking.held() is None
    # What the DNS did not have is believed for a short time.
    standing = asking.cache.policy_for(DOMAIN, now=NOW + LOOKED_UP_AT_LEAST_S - 1)
    assert not standing.is_to_be_looked_up
    assert asking.cache.policy_for(DOMAIN, now=NOW + LOOKED_UP_AT_MOST_S).is_to_be_looked_up
    assert asking.noticed(found()) is not None


def test_a_policy_is_of_exactly_one_domain() -> None:
    asking = Asking()
    asking.learn()
    assert asking.held(Domain.parse("mail.good.test")) is None


@pytest.mark.parametrize(("ttl_s", "lasts_s"), [(0, 10), (60, 60), (86_400, 300)])
def test_the_dns_is_asked_again_when_its_answer_is_old(ttl_s: int, lasts_s: int) -> None:
    asking = Asking()
    asking.noticed(found(ttl_s=ttl_s))
    assert not asking.cache.policy_for(DOMAIN, now=NOW + lasts_s - 1).is_to_be_looked_up
    assert asking.cache.policy_for(DOMAIN, now=NOW + lasts_s).is_to_be_looked_up


# -- what is held stays -------------------------------------------------------------------------------------------


@pytest.mark.attack("T06")
@pytest.mark.parametrize("discovery", UNUSABLE)
def test_a_policy_outlives_its_record(discovery: Discovery) -> None:
    asking = Asking()
    held = asking.learn()
    for asking.now in (NOW + 60, NOW + DAY_S, NOW + REFRESH_FROM * WEEK_S - 1):
        assert asking.noticed(discovery) is None
        assert asking.held() == held
    # RFC 8461 §10.2: it is fetched ahead of its end, whatever the DNS says of the record.
    asking.now = NOW + REFRESH_UNTIL * WEEK_S
    fetch = asking.noticed(discovery)
    assert fetch == Fetch(DOMAIN, "one", is_refresh=True)
    asking.fetched(fetch, failure())
    asking.now = NOW + WEEK_S
    assert asking.held() == held
    asking.now = NOW + WEEK_S + 1
    assert asking.held() is None
    assert asking.noticed(discovery) is None


@pytest.mark.attack("T07")
@pytest.mark.parametrize("reason", [reason for reason in FetchReason if reason is not FetchReason.FETCHED])
def test_a_policy_outlives_failures_to_fetch_it_anew(reason: FetchReason, caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking()
    held = asking.learn()
    attempts = 0
    with caplog.at_level(logging.WARNING, logger="mailguard"):
        while asking.now < NOW + WEEK_S:
            asking.now += 600
            for fetch in asking.cache.due(now=asking.now):
                attempts += 1
                assert fetch.record_id == "one"
                asking.fetched(fetch, failure(reason))
            assert asking.held() == held
    # It was tried again and again: from 5/8 of its time on, and at least every hour and a half.
    assert attempts >= (1 - (REFRESH_FROM + REFRESH_UNTIL) / 2) * WEEK_S / (1.5 * LONGEST_PAUSE_S)
    if reason is FetchReason.FAULT:
        # Who had it has told of it; at the end of a process each fetch ends so.
        assert not caplog.records
    else:
        assert len(caplog.records) == attempts
        assert f"of good.test cannot be fetched anew ({reason.value}, 1 in a row)" in caplog.text
    asking.now += 1
    assert asking.held() is None


@pytest.mark.attack("T07", "T12")
def test_no_fault_of_a_real_host_costs_the_policy(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    asking = Asking()
    host = f"mta-sts.{DOMAIN}"
    good, expired = authority.issue(host), authority.issue(host, days=(-5, -1))
    with PolicySite(good, reply()) as site:
        asking.fetched(asking.noticed(found()), site.fetcher(ca_file=authority.ca_file).fetch(DOMAIN))
    held = asking.held()
    assert held is not None

    def cut_off(connection: Connection) -> None:
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nversion: STSv1\r\nmode: none\r\nmax_age: 9"
        )

    faults: list[tuple[str, Behaviour]] = [
        (expired, reply(b"version: STSv1\r\nmode: none\r\nmax_age: 9\r\n")),
        (good, reply(status="404 Not Found")),
        (good, reply(status="500 Oops")),
        (good, cut_off),
    ]
    for number, (certificate, behaviour) in enumerate(faults):
        asking.now += DAY_S
        with PolicySite(certificate, behaviour) as site:
            fetch = asking.noticed(found(f"other{number}"))
            asking.fetched(fetch, site.fetcher(ca_file=authority.ca_file).fetch(DOMAIN))
        assert asking.held() == held


def test_it_is_silent_about_a_policy_of_mode_none(caplog: pytest.LogCaptureFixture) -> None:
    """RFC 8461 §3.3: so that a domain can leave in peace."""
    asking = Asking()
    asking.learn(policy(mode="none"))
    asking.now = NOW + REFRESH_UNTIL * WEEK_S
    (fetch,) = asking.cache.due(now=asking.now)
    asking.fetched(fetch, failure())
    assert not caplog.records


# -- another policy -----------------------------------------------------------------------------------------------


def test_another_id_leads_to_another_policy() -> None:
    asking = Asking()
    asking.learn()
    asking.now = NOW + DAY_S
    fetch = asking.noticed(found("two"))
    assert fetch == Fetch(DOMAIN, "two", is_refresh=True)
    held = asking.held()
    assert held is not None, "the old one counts meanwhile"
    assert held.record_id == "one"
    asking.fetched(fetch, success(policy(mx="new.good.test")))
    held = asking.held()
    assert held is not None
    assert (held.record_id, held.policy.mx, held.fetched_at) == ("two", ("new.good.test",), NOW + DAY_S)


@pytest.mark.attack("T13")
@pytest.mark.parametrize("reason", [FetchReason.CERTIFICATE, FetchReason.STATUS, FetchReason.TIMED_OUT])
def test_mode_none_counts_after_a_valid_fetch_alone(reason: FetchReason) -> None:
    asking = Asking()
    asking.learn()
    asking.now = NOW + DAY_S
    asking.fetched(asking.noticed(found("two")), failure(reason))
    held = asking.held()
    assert held is not None
    assert held.policy.mode is StsMode.ENFORCE
    # RFC 8461 §3.3: five minutes or longer for this id.
    asking.now += FIRST_PAUSE_S - 1
    assert asking.noticed(found("two")) is None
    asking.now += FIRST_PAUSE_S
    asking.fetched(asking.noticed(found("two")), success(policy(mode="none")))
    held = asking.held()
    assert held is not None
    assert held.policy.mode is StsMode.NONE


@pytest.mark.attack("T17")
def test_a_text_that_changes_without_its_id_is_seen_at_the_refresh() -> None:
    asking = Asking()
    held = asking.learn()
    for hour in range(1, int(REFRESH_FROM * WEEK_S / 3600)):
        asking.now = NOW + hour * 3600
        assert asking.noticed(found()) is None
        assert asking.cache.due(now=asking.now) == ()
        assert asking.held() == held
    asking.now = NOW + REFRESH_UNTIL * WEEK_S
    (fetch,) = asking.cache.due(now=asking.now)
    asking.fetched(fetch, success(policy(mx="new.good.test")))
    new = asking.held()
    assert new is not None
    assert (new.policy.mx, new.record_id) == (("new.good.test",), "one")
    assert new.expires_at == asking.now + WEEK_S


@pytest.mark.parametrize("max_age_s", [0, 30, 60, 100, 299, 300, 400])
def test_a_policy_of_a_short_time_leaves_no_gap(max_age_s: int) -> None:
    """While its host answers, the domain has a policy at each moment, and the host is not asked at every message."""
    asking = Asking(draw=lambda: 1.0)
    fetches = 0
    while asking.now < NOW + 3600:
        for fetch in asking.cache.due(now=asking.now):
            asking.fetched(fetch, success(policy(max_age_s=max_age_s)))
            fetches += 1
        if asking.cache.policy_for(DOMAIN, now=asking.now).is_to_be_looked_up:
            wanted = asking.noticed(found(ttl_s=300))
            if wanted is not None:
                asking.fetched(wanted, success(policy(max_age_s=max_age_s)))
                fetches += 1
        assert asking.held() is not None
        asking.now += 1
    assert fetches <= 3600 / SHORTEST_PAUSE_S / 2


def test_a_policy_of_no_time_ends_soon() -> None:
    asking = Asking()
    asking.fetched(asking.noticed(found(ttl_s=300)), success(policy(max_age_s=0)))
    asking.now += SHORTEST_STAY_S
    standing = asking.cache.policy_for(DOMAIN, now=asking.now)
    assert standing.held is not None
    assert standing.is_to_be_looked_up, "its time is over before the DNS has to be asked again"
    asking.now += 1
    assert asking.held() is None


def test_the_dns_is_asked_again_when_a_policy_ends() -> None:
    asking = Asking()
    asking.learn()
    asking.now = NOW + WEEK_S - 100
    fetch = asking.noticed(found(ttl_s=300))
    assert fetch is not None
    asking.fetched(fetch, failure())
    asking.now = NOW + WEEK_S - 1
    assert not asking.cache.policy_for(DOMAIN, now=asking.now).is_to_be_looked_up
    asking.now = NOW + WEEK_S
    assert asking.cache.policy_for(DOMAIN, now=asking.now).is_to_be_looked_up


# -- how often ----------------------------------------------------------------------------------------------------


def test_the_pauses_after_failures_grow() -> None:
    asking = Asking()
    fetch = asking.noticed(found())
    pauses = []
    for _ in range(8):
        asking.fetched(fetch, failure())
        begun = asking.now
        while (fetch := asking.noticed(found())) is None:
            asking.now += 10
        pauses.append(asking.now - begun)
    assert pauses[0] >= FIRST_PAUSE_S
    assert pauses[2] > 2 * FIRST_PAUSE_S
    assert pauses == sorted(pauses)
    assert LONGEST_PAUSE_S <= pauses[-1] <= 1.5 * LONGEST_PAUSE_S
    # A success begins anew.
    asking.fetched(fetch, success(policy(max_age_s=0)))
    asking.now += SHORTEST_STAY_S + 1
    asking.fetched(asking.noticed(found()), failure())
    asking.now += 1.5 * FIRST_PAUSE_S
    assert asking.noticed(found()) is not None


def test_the_failures_of_one_id_are_not_those_of_another() -> None:
    asking = Asking()
    for _ in range(8):
        asking.fetched(asking.noticed(found("one")), failure())
        asking.now += 1.5 * LONGEST_PAUSE_S
    for _ in range(2):
        asking.fetched(asking.noticed(found("two")), failure())
        asking.now += 3 * FIRST_PAUSE_S
    assert asking.noticed(found("two")) is not None


def test_another_id_may_be_tried_sooner_but_not_at_once() -> None:
    asking = Asking()
    asking.fetched(asking.noticed(found("one")), failure())
    for number in range(50):
        asking.now = NOW + number
        assert asking.noticed(found(f"id{number}")) is None
    asking.now = NOW + SHORTEST_PAUSE_S
    assert asking.noticed(found("one")) is None
    assert asking.noticed(found("two")) is not None


@pytest.mark.attack("T16")
def test_ten_thousand_that_came_together_do_not_go_together() -> None:
    number, at_once = 10_000, 8
    domains = [Domain.parse(f"d{index}.test") for index in range(number)]
    # Reproducible.
    asking = Asking(limits=CacheLimits(refreshes=at_once, fetches=number), draw=random.Random(1).random)
    for fetch in [asking.noticed(found(), domain) for domain in domains]:
        asking.fetched(fetch, success())
    begun: Counter[int] = Counter()
    going_on: list[tuple[float, Fetch]] = []
    done = set()
    # Each takes half a minute, which 8 at once do in time: 960 an hour.
    while asking.now < NOW + WEEK_S:
        asking.now += 10
        for fetch in [fetch for ends_at, fetch in going_on if ends_at <= asking.now]:
            asking.fetched(fetch, success())
            done.add(fetch.domain)
        going_on = [one for one in going_on if one[0] > asking.now]
        for fetch in asking.cache.due(now=asking.now):
            begun[int((asking.now - NOW) // 3600)] += 1
            going_on.append((asking.now + 30, fetch))
        assert len(going_on) <= at_once
        # Nothing is asked for, which 30 days would allow.
        if len(done) == number:
            break
    assert len(done) == number
    hours = (REFRESH_UNTIL - REFRESH_FROM) * WEEK_S / 3600
    assert max(begun.values()) < 2 * number / hours
    assert all(asking.cache.policy_for(domain, now=NOW + WEEK_S + 1).held is not None for domain in domains)


@pytest.mark.attack("T16")
def test_those_that_are_overdue_wait_for_their_turn() -> None:
    domains = [Domain.parse(f"d{index}.test") for index in range(100)]
    asking = Asking(limits=CacheLimits(refreshes=3))
    for domain in domains:
        asking.learn(domain=domain)
    asking.now = NOW + WEEK_S - 1
    first = asking.cache.due(now=asking.now)
    assert len(first) == 3
    assert asking.cache.due(now=asking.now) == ()
    assert asking.cache.next_due_at() is None
    # Nor are they begun because the DNS was asked.
    assert asking.noticed(found(), domains[50]) is None
    asking.fetched(first[0], failure())
    assert len(asking.cache.due(now=asking.now)) == 1
    # A domain without a policy does not wait for refreshes.
    assert asking.noticed(found(), DOMAIN) is not None


def test_fetches_are_bounded() -> None:
    asking = Asking(limits=CacheLimits(fetches=5))
    domains = [Domain.parse(f"d{index}.test") for index in range(9)]
    fetches = [asking.noticed(found(), domain) for domain in domains]
    assert [fetch is not None for fetch in fetches] == [True] * 5 + [False] * 4
    asking.fetched(fetches[0], success())
    # It is looked up again before long.
    assert asking.cache.policy_for(domains[8], now=NOW + LOOKED_UP_AT_LEAST_S).is_to_be_looked_up
    assert asking.noticed(found(), domains[8]) is not None


def test_what_nobody_asks_for_is_left_to_expire() -> None:
    asking = Asking()
    year_s = 31_557_600
    asking.learn(policy(max_age_s=year_s))
    asking.now = NOW + REFRESH_UNTIL * year_s
    assert asking.now - NOW > REFRESHED_WHILE_ASKED_S
    assert asking.cache.due(now=asking.now) == ()
    # Somebody asks, and it is refreshed all the same.
    assert asking.held() is not None
    assert asking.noticed(found()) == Fetch(DOMAIN, "one", is_refresh=True)


def test_refreshing_is_not_asking() -> None:
    """A policy that is fetched anew each week ends all the same when nobody asks for it."""
    asking = Asking()
    asking.learn()
    last = NOW
    while asking.now < NOW + REFRESHED_WHILE_ASKED_S + 2 * WEEK_S:
        asking.now += 3600
        for fetch in asking.cache.due(now=asking.now):
            asking.fetched(fetch, success())
            last = asking.now
    assert NOW + REFRESHED_WHILE_ASKED_S - WEEK_S < last <= NOW + REFRESHED_WHILE_ASKED_S
    assert asking.held() is None


def test_a_policy_that_was_replaced_is_due_no_more() -> None:
    asking = Asking()
    asking.learn()
    due_at = asking.cache.next_due_at()
    assert due_at is not None
    asking.now = due_at - 1
    asking.learn(record_id="two")
    asking.now += DAY_S
    assert asking.cache.due(now=asking.now) == ()
    assert len(asking.cache.due(now=asking.now + REFRESH_UNTIL * WEEK_S)) == 1


def test_when_something_is_due() -> None:
    asking = Asking()
    assert asking.cache.next_due_at() is None
    asking.learn()
    due_at = asking.cache.next_due_at()
    assert due_at is not None
    assert REFRESH_FROM * WEEK_S <= due_at - NOW <= REFRESH_UNTIL * WEEK_S
    assert asking.cache.due(now=due_at - 1) == ()
    assert len(asking.cache.due(now=due_at)) == 1


def test_a_fetch_is_brought_back_once() -> None:
    asking = Asking()
    fetch = asking.noticed(found())
    asking.fetched(fetch, failure())
    with pytest.raises(ValueError, match="does not go on"):
        asking.fetched(fetch, success())


# -- bounds, and the clock ----------------------------------------------------------------------------------------


def test_domains_without_a_policy_never_displace_one() -> None:
    asking = Asking(limits=CacheLimits(entries=10))
    asking.learn()
    for index in range(1000):
        asking.noticed(nothing(), Domain.parse(f"d{index}.test"))
    assert asking.held() is not None


def test_the_least_asked_for_policy_goes_first() -> None:
    asking = Asking(limits=CacheLimits(entries=10))
    domains = [Domain.parse(f"d{index}.test") for index in range(11)]
    for domain in domains[:10]:
        asking.learn(domain=domain)
    assert asking.held(domains[0]) is not None
    asking.learn(domain=domains[10])
    assert [asking.held(domain) is not None for domain in domains] == [True, False, *[True] * 9]


def test_memory_is_bounded_too() -> None:
    asking = Asking(limits=CacheLimits(bytes=100_000))
    large = policy(mx="\nmx: ".join(f"m{index}.good.test" for index in range(200)))
    domains = [Domain.parse(f"d{index}.test") for index in range(50)]
    for domain in domains:
        asking.learn(large, domain=domain)
    kept = [domain for domain in domains if asking.held(domain) is not None]
    assert kept == domains[-len(kept) :]
    assert 3 < len(kept) < 10


def test_what_demands_nothing_goes_before_what_protects() -> None:
    """However many policies of mode none or testing a stranger has, and however large they are."""
    limits = CacheLimits(bytes=200_000)
    asking = Asking(limits=limits)
    protected = [Domain.parse(f"d{index}.test") for index in range(50)]
    for domain in protected:
        asking.learn(domain=domain)
    names = "\nmx: ".join(f"{'x' * 60}.{'y' * 60}.m{index}.test" for index in range(250))
    for index in range(300):
        stranger = Domain.parse(f"s{index}.evil.test")
        asking.now += 1
        asking.fetched(
            asking.noticed(found(), stranger), success(policy(mode=("none", "testing")[index % 2], mx=names))
        )
        asking.held(stranger)
    assert all(asking.held(domain) is not None for domain in protected)
    assert asking.cache._bytes <= limits.bytes
    # A policy that changes to such a mode loses its place, and one that changes back has it again.
    asking.now += WEEK_S * REFRESH_UNTIL
    for domain, mode in [(protected[0], "none"), (protected[1], "none"), (protected[1], "enforce")]:
        asking.now += SHORTEST_PAUSE_S
        asking.fetched(asking.noticed(found(f"id{asking.now:.0f}"), domain), success(policy(mode=mode)))
    assert [domain in asking.cache._lenient for domain in protected[:2]] == [True, False]


def test_what_was_pushed_out_is_not_fetched_at_every_message() -> None:
    asking = Asking(limits=CacheLimits(entries=1))
    asking.learn()
    asking.learn(domain=Domain.parse("other.test"))
    standing = asking.cache.policy_for(DOMAIN, now=asking.now)
    assert (standing.held, standing.is_to_be_looked_up, standing.is_to_be_recalled) == (None, True, False)
    assert asking.noticed(found()) is None
    asking.now += SHORTEST_PAUSE_S
    assert asking.noticed(found()) is not None


def test_the_queue_does_not_grow_with_what_is_fetched_again() -> None:
    asking = Asking()
    for number in range(1000):
        asking.learn(record_id=f"id{number}")
        asking.now += SHORTEST_PAUSE_S
    assert len(asking.cache._queue) <= 5


def test_a_clock_that_was_set_back_costs_nothing_and_keeps_nothing_for_ever() -> None:
    ahead_s = 10 * 365 * DAY_S
    asking = Asking(now=NOW + ahead_s)
    held = asking.learn()
    asking.now = NOW
    standing = asking.cache.policy_for(DOMAIN, now=NOW)
    assert standing.held == held
    assert standing.is_to_be_looked_up
    fetch = asking.noticed(found())
    assert fetch is not None, "when it was fetched is not known"
    asking.fetched(fetch, success())
    asking.now = NOW + WEEK_S + 1
    assert asking.held() is None


def test_a_standing_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError):
        bool(Asking().cache.policy_for(DOMAIN, now=NOW))
