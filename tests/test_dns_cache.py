"""AnswerCache: what is kept, for how long, and in how much space."""

from __future__ import annotations

import gc
import random
import threading
import time
import tracemalloc
from functools import partial

import pytest

from mailguard.dkim.key import KeyRecord
from mailguard.dkim.verify import _records as dkim_records
from mailguard.dmarc.discover import _read as dmarc_records
from mailguard.dmarc.record import DmarcRecord
from mailguard.dns.cache import FAILURE_TTL_S, MAX_NEGATIVE_TTL_S, MAX_TTL_S, AnswerCache
from mailguard.dns.question import MX, Answer, Question, RecordType, Status


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def question(name: str, rdtype: RecordType = RecordType.TXT) -> Question:
    return Question(name, rdtype)


def answer(name: str, status: Status = Status.NOERROR, ttl_s: int = 300, text: bytes = b"x") -> Answer:
    records = (text,) if status is Status.NOERROR else ()
    return Answer(question(name), status, records, ttl_s)


def test_a_hit_is_the_answer_as_it_was_put() -> None:
    cache = AnswerCache(clock=Clock())
    kept = answer("a.test")
    assert cache.get(question("a.test")) is None
    cache.put(kept)
    assert cache.get(question("a.test")) is kept
    assert cache.get(question("a.test")) is kept
    assert cache.get(question("a.test", RecordType.A)) is None
    assert cache.get(question("b.test")) is None
    assert len(cache) == 1


@pytest.mark.attack("N11", "N12")
@pytest.mark.parametrize(
    ("status", "ttl_s", "lifetime_s"),
    [
        (Status.NOERROR, 0, 0),
        (Status.NOERROR, -1, 0),
        (Status.NOERROR, 1, 1),
        (Status.NOERROR, 300, 300),
        (Status.NOERROR, 86_400, 86_400),
        (Status.NOERROR, 86_401, 86_400),
        (Status.NOERROR, 2**31 - 1, 86_400),
        (Status.NXDOMAIN, 0, 0),
        (Status.NXDOMAIN, -5, 0),
        (Status.NXDOMAIN, 60, 60),
        (Status.NXDOMAIN, 2**31 - 1, 900),
        (Status.NODATA, 86_400, 900),
        (Status.TEMPFAIL, 0, 5),
        (Status.TEMPFAIL, 3600, 5),
        (Status.BOGUS, 0, 5),
        (Status.BOGUS, 3600, 5),
    ],
)
@pytest.mark.parametrize("asked_before", [False, True], ids=["on probation", "protected"])
def test_lifetime(status: Status, ttl_s: int, lifetime_s: int, asked_before: bool) -> None:
    assert (MAX_TTL_S, MAX_NEGATIVE_TTL_S, FAILURE_TTL_S) == (86_400, 900, 5)
    clock = Clock()
    cache = AnswerCache(clock=clock)
    cache.put(answer("a.test", status, ttl_s))
    if lifetime_s == 0:
        assert cache.get(question("a.test")) is None
        assert len(cache) == 0
        return
    if asked_before:
        assert cache.get(question("a.test")) is not None
    clock.now += lifetime_s - 0.01
    assert cache.get(question("a.test")) is not None
    clock.now += 0.02
    assert cache.get(question("a.test")) is None
    assert len(cache) == 0


@pytest.mark.attack("N12")
@pytest.mark.parametrize("failure", [Status.TEMPFAIL, Status.BOGUS])
@pytest.mark.parametrize("good", [Status.NOERROR, Status.NXDOMAIN, Status.NODATA])
@pytest.mark.parametrize("asked_before", [False, True], ids=["on probation", "protected"])
def test_a_failure_never_replaces_an_answer_in_its_time(failure: Status, good: Status, asked_before: bool) -> None:
    clock = Clock()
    cache = AnswerCache(clock=clock)
    cache.put(answer("a.test", good, 60))
    if asked_before:
        cache.get(question("a.test"))
    cache.put(answer("a.test", failure))
    kept = cache.get(question("a.test"))
    assert kept is not None
    assert kept.status is good
    clock.now += 61
    cache.put(answer("a.test", failure))
    kept = cache.get(question("a.test"))
    assert kept is not None
    assert kept.status is failure


@pytest.mark.attack("N12")
def test_an_answer_replaces_a_failure_at_once() -> None:
    cache = AnswerCache(clock=Clock())
    for before in (Status.TEMPFAIL, Status.BOGUS):
        cache.put(answer("a.test", before))
        cache.put(answer("a.test", Status.NXDOMAIN))
        kept = cache.get(question("a.test"))
        assert kept is not None
        assert kept.status is Status.NXDOMAIN


def test_a_newer_answer_replaces_an_older_one() -> None:
    cache = AnswerCache(clock=Clock())
    cache.put(answer("a.test", text=b"old"))
    cache.get(question("a.test"))
    cache.put(answer("a.test", text=b"new"))
    kept = cache.get(question("a.test"))
    assert kept is not None
    assert kept.records == (b"new",)
    assert len(cache) == 1


@pytest.mark.attack("N10", "S07")
def test_one_off_names_neither_grow_the_cache_nor_push_out_the_hot_ones() -> None:
    """100,000 names asked for once through a cache of 1,000: as hard on it as 1 million on the default."""
    limit_bytes = 2_000_000
    cache = AnswerCache(clock=Clock(), max_entries=1000, max_bytes=limit_bytes)
    hot = [f"{number}.hot.test" for number in range(400)]
    for name in hot:
        cache.put(answer(name))
        assert cache.get(question(name)) is not None
    for number in range(100_000):
        cache.put(answer(f"{number}.once.test"))
        if number % 5000 == 0:
            assert len(cache) <= 1000
            assert cache.estimated_bytes <= limit_bytes
    assert [name for name in hot if cache.get(question(name)) is None] == []
    assert len(cache) == 1000, "the room is used"


@pytest.mark.parametrize("hot", [0, 500])
def test_names_that_come_again_late_are_kept_while_there_is_room(hot: int) -> None:
    """In turn, so that each is the one that was not asked for the longest: more of them than a fifth of the room."""
    cache = AnswerCache(clock=Clock(), max_entries=1000, max_bytes=2_000_000)
    for number in range(hot):
        cache.put(answer(f"{number}.hot.test"))
        assert cache.get(question(f"{number}.hot.test")) is not None
    names = [f"{number}.test" for number in range(1000 - hot)]
    for name in names:
        cache.put(answer(name))
    assert [name for name in names if cache.get(question(name)) is None] == []


@pytest.mark.attack("N10")
def test_names_asked_for_twice_do_not_grow_it_either() -> None:
    cache = AnswerCache(clock=Clock(), max_entries=1000, max_bytes=2_000_000)
    for number in range(20_000):
        cache.put(answer(f"{number}.test"))
        cache.get(question(f"{number}.test"))
    assert 900 < len(cache) <= 1000
    assert cache.estimated_bytes <= 2_000_000
    assert cache.get(question("19999.test")) is not None
    assert cache.get(question("0.test")) is None


@pytest.mark.attack("N10")
def test_what_is_asked_for_all_the_time_stays_whatever_else_is_asked_for() -> None:
    """Its place is not renewed at each reading; 20 other names a second, each asked for twice, fill the cache."""
    clock = Clock()
    cache = AnswerCache(clock=clock, max_entries=1000, max_bytes=2_000_000)
    cache.put(answer("hot.test", ttl_s=3600))
    for second in range(600):
        clock.now += 1
        for number in range(20):
            name = f"{number}.{second}.test"
            cache.put(answer(name, ttl_s=3600))
            cache.get(question(name))
        assert cache.get(question("hot.test")) is not None, second
    assert cache.get(question("0.0.test")) is None


@pytest.mark.parametrize("times", [0, 1, 2], ids=["new", "protected", "read before"])
def test_a_reader_reads_what_get_reads(times: int) -> None:
    clock = Clock()
    cache = AnswerCache(clock=clock)
    kept = answer("a.test", ttl_s=60)
    cache.put(kept)
    for _ in range(times):
        cache.get(question("a.test"))
    read = cache.reader()
    assert [read(question("a.test")), read(question("a.test")), read(question("b.test"))] == [kept, kept, None]
    cache.put(answer("a.test", text=b"new"))
    found = read(question("a.test"))
    assert found is not None
    assert found.records == (b"new",)
    clock.now += 301
    assert cache.reader()(question("a.test")) is None
    assert len(cache) == 0


@pytest.mark.attack("N10")
def test_bytes_are_bounded_whatever_the_size_of_the_answers() -> None:
    cache = AnswerCache(clock=Clock(), max_entries=1_000_000, max_bytes=1_000_000)
    for number in range(2000):
        cache.put(answer(f"{number}.test", text=bytes(random.Random(number).randrange(60_000))))
        cache.get(question(f"{number}.test"))
    assert cache.estimated_bytes <= 1_000_000
    assert len(cache) > 5


@pytest.mark.attack("N10")
@pytest.mark.parametrize("promoted", [False, True], ids=["on probation", "protected"])
def test_the_estimate_is_not_below_what_python_takes(promoted: bool) -> None:
    tracemalloc.start()
    try:
        cache = AnswerCache(clock=Clock(), max_bytes=2**40, max_entries=10**9)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            name = f"{number}.example.test"
            asked = question(name, RecordType.MX if number % 2 else RecordType.TXT)
            records: tuple[bytes | MX, ...] = (bytes(number % 500),)
            if asked.rdtype is RecordType.MX:
                records = tuple(MX(1000 + number + i, f"mx{i}.{name}") for i in range(3))
            cache.put(Answer(asked, Status.NOERROR, records, 300 + number, detail=f"127.0.0.1: {number}"))
            if promoted:
                cache.get(question(name, asked.rdtype))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == 5000
    assert taken <= cache.estimated_bytes <= 3 * taken


@pytest.mark.parametrize("size", [1, 1000, 3000])
def test_a_cache_too_small_for_an_answer_does_without(size: int) -> None:
    cache = AnswerCache(clock=Clock(), max_entries=1, max_bytes=size)
    cache.put(answer("a.test", text=bytes(5000)))
    cache.get(question("a.test"))
    assert len(cache) == 0
    cache.put(answer("b.test"))
    assert cache.get(question("b.test")) is cache.get(question("b.test"))
    assert cache.estimated_bytes <= size


def test_an_answer_that_grew_beyond_the_room_is_dropped() -> None:
    cache = AnswerCache(clock=Clock(), max_entries=10, max_bytes=100_000)
    cache.put(answer("a.test"))
    cache.get(question("a.test"))
    cache.put(answer("a.test", text=bytes(50_000)))
    assert cache.get(question("a.test")) is None
    assert cache.estimated_bytes == 0


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (-1, 1)])
def test_no_room_at_all_is_misuse(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="room"):
        AnswerCache(clock=Clock(), max_entries=sizes[0], max_bytes=sizes[1])


def test_threads_share_it() -> None:
    cache = AnswerCache(clock=time.monotonic, max_entries=100, max_bytes=200_000)
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(4000):
                name = f"{chance.randrange(300)}.test"
                cache.put(answer(name, text=name.encode()))
                kept = cache.get(question(f"{chance.randrange(300)}.test"))
                if kept is not None and kept.records != (kept.question.name.encode(),):
                    wrong.append(kept)
        except Exception as error:  # noqa: BLE001  # a thread's exception would be lost otherwise
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < len(cache) <= 100
    assert cache.estimated_bytes <= 200_000


@pytest.mark.attack("N10")
@pytest.mark.parametrize(
    "records",
    [
        tuple(b"x%d" % number for number in range(100)),
        (b"v=DKIM1;p=!;" + b";".join(b"a%d=%d" % (number, number) for number in range(126)),),
        tuple(b"p=;n=%d" % number for number in range(100)),
        (b"v=DMARC1;rua=" + b",".join(b"mailto:a%d@b.test" % number for number in range(200)),),
    ],
    ids=["no keys", "a broken key", "revoked keys", "many addresses for reports"],
)
def test_what_was_read_from_an_answer_is_within_its_estimate(records: tuple[bytes, ...]) -> None:
    """Keys and policies live as long as the answer; so does what was wrong with them."""

    def read(number: int) -> Answer:
        own = tuple(record + b";q=%d" % number for record in records)
        answer = Answer(question(f"{number}.example.test"), Status.NOERROR, own, 300)
        for algorithm in ("rsa", "ed25519"):
            answer.read((KeyRecord, algorithm), partial(dkim_records, key_type=algorithm))
        answer.read(DmarcRecord, dmarc_records)
        return answer

    cache = AnswerCache(clock=Clock(), max_bytes=2**40, max_entries=10**9)
    read(0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            cache.put(read(number))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= 1.5 * cache.estimated_bytes
