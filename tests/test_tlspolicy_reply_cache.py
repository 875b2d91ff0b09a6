"""Replies that are ready: how long, when they are looked up anew, and what they take. ATTACKS.md rows: T16."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from mailguard.tlspolicy.reply_cache import (
    ENTRY_BYTES,
    LIFETIME_AT_LEAST_S,
    LIFETIME_AT_MOST_S,
    REFRESH_FROM,
    REFRESH_INTERVAL_S,
    REFRESH_UNTIL,
    CacheBounds,
    ReplyCache,
)


def put(cache: ReplyCache, key: bytes, now: float = 0.0, *, ttl_s: float = 300.0, is_asked: bool = True) -> None:
    cache.put(key, b"plain", b"plain", summary="dane", ttl_s=ttl_s, now=now, is_asked=is_asked)


@pytest.mark.parametrize(
    ("ttl_s", "lifetime_s"),
    [(0, LIFETIME_AT_LEAST_S), (5, 5), (60, 60), (300, LIFETIME_AT_MOST_S), (10**9, LIFETIME_AT_MOST_S)],
)
def test_a_reply_counts_for_a_while(ttl_s: float, lifetime_s: float) -> None:
    cache = ReplyCache(CacheBounds(), draw=lambda: 0.5)
    assert cache.get(b"a", 0) is None
    put(cache, b"a", ttl_s=ttl_s)
    assert cache.get(b"a", lifetime_s - 0.1) is not None
    assert cache.get(b"a", lifetime_s) is None
    assert cache.summary(b"a") == "dane", "what was said last is still known"


def test_the_least_asked_for_goes_first() -> None:
    cache = ReplyCache(CacheBounds(entries=3), draw=lambda: 0.5)
    for key in (b"a", b"b", b"c"):
        put(cache, key)
    assert cache.get(b"a", 1) is not None
    put(cache, b"d", 1)
    assert [cache.get(key, 1) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


@pytest.mark.attack("T16")
def test_what_came_together_is_looked_up_apart() -> None:
    cache = ReplyCache(CacheBounds(), draw=random.Random(7).random)
    for number in range(1_000):
        put(cache, b"d%d" % number)
    assert not cache.due(REFRESH_FROM * LIFETIME_AT_MOST_S - 0.1, 10_000)
    told = []
    for second in range(int(REFRESH_FROM * LIFETIME_AT_MOST_S), int(REFRESH_UNTIL * LIFETIME_AT_MOST_S) + 2):
        found = cache.due(second, 10_000)
        assert len(found) < 100, "of 1,000 in 36 seconds"
        told += found
    assert sorted(told) == sorted(b"d%d" % number for number in range(1_000)), "each, and once"


@pytest.mark.attack("T16")
def test_no_more_are_told_than_asked_for() -> None:
    cache = ReplyCache(CacheBounds(), draw=lambda: 0.5)
    for number in range(100):
        put(cache, b"d%d" % number)
    assert [len(cache.due(200, limit)) for limit in (0, 3, 200, 200)] == [0, 3, 97, 0]


def test_what_nobody_asks_for_is_left_alone() -> None:
    cache = ReplyCache(CacheBounds(refreshed_while_asked_s=500), draw=lambda: 0.5)
    put(cache, b"asked")
    put(cache, b"left")
    now = 0.0
    for _ in range(6):
        now += 100
        for key in cache.due(now, 10):
            put(cache, key, now, is_asked=False)
        assert cache.get(b"asked", now) is not None
    assert [cache.get(key, now + 50) is not None for key in (b"asked", b"left")] == [True, False]
    none = ReplyCache(CacheBounds(refreshed_while_asked_s=0), draw=lambda: 0.5)
    put(none, b"a")
    assert not none.due(1_000, 10)


def test_a_short_ttl_does_not_make_us_ask_all_the_time() -> None:
    cache = ReplyCache(CacheBounds(), draw=lambda: 0.0)
    put(cache, b"a", ttl_s=0)
    assert not cache.due(REFRESH_INTERVAL_S - 0.1, 10)
    assert cache.due(REFRESH_INTERVAL_S, 10) == [b"a"]


def test_a_reply_that_was_replaced_is_not_looked_up_when_it_was_due() -> None:
    cache = ReplyCache(CacheBounds(), draw=lambda: 0.5)
    for now in (0.0, 10.0):
        put(cache, b"a", now, ttl_s=0)
    assert cache.due(REFRESH_INTERVAL_S + 9.9, 10) == []
    assert cache.due(REFRESH_INTERVAL_S + 10, 10) == [b"a"]


def test_the_queue_does_not_grow_with_what_is_replaced() -> None:
    cache = ReplyCache(CacheBounds(), draw=lambda: 0.5)
    for number in range(10_000):
        put(cache, b"d%d" % (number % 10), float(number) / 1_000)
    assert len(cache._queue) <= 30


def test_the_estimate_of_memory_is_no_less_than_what_is_taken() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = ReplyCache(CacheBounds(bytes=10**9), draw=random.random)
        for number in range(20_000):
            plain, reporting = b"x" * (number % 200), b"y" * (number % 300)
            cache.put(
                b"destination%d.example" % number,
                plain,
                reporting,
                summary="secure match=" + "m" * (number % 200),
                ttl_s=60.0,
                now=number / 7,
                is_asked=True,
            )
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ENTRY_BYTES * 20_000 / 3 < taken - before <= cache.estimated_bytes
