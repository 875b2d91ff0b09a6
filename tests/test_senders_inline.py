"""The lists of the configuration, several sources as one, and the answers that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.senders.cache import PermissionCache
from mailguard.senders.combine import Senders
from mailguard.senders.identity import Address, Login, LoginCase, LoginRules
from mailguard.senders.inline import InlineSource
from mailguard.senders.listing import Listing, ListingStatus
from mailguard.senders.permission import Asked, Permission, PermissionStatus
from mailguard.senders.source import Source
from sender_asking import address_of, login_of

GRANTED, DENIED = PermissionStatus.GRANTED, PermissionStatus.DENIED
UNKNOWN, UNAVAILABLE = PermissionStatus.UNKNOWN, PermissionStatus.UNAVAILABLE
RULES = LoginRules()


LOGINS = {
    "alice@us.test": ["Sales@us.test", "@shop.test", "*@bücher.test", "spring+sales@us.test"],
    "bob@us.test": ["carol+news@us.test", "ceo@us.test"],
    "carol@us.test": [],
    "list": ["list@us.test"],
}

CASES = [
    ("own", "alice@us.test", "alice@us.test", GRANTED, "own address"),
    ("own-not-listed", "dave@us.test", "dave@us.test", GRANTED, "own address"),
    ("own-case", "ALICE@us.test", "Alice@US.test", GRANTED, "own address"),
    ("own-tag", "alice@us.test", "alice+x@us.test", GRANTED, "own address"),
    ("own-tag-listed-for-others", "carol@us.test", "carol+news@us.test", UNKNOWN, ""),
    ("own-tag-of-others", "bob@us.test", "carol+news@us.test", GRANTED, '"bob@us.test" has "carol+news@us.test"'),
    ("listed", "alice@us.test", "sales@us.test", GRANTED, '"alice@us.test" has "Sales@us.test"'),
    ("listed-tag", "alice@us.test", "sales+x@us.test", GRANTED, '"alice@us.test" has "Sales@us.test"'),
    (
        "listed-with-tag",
        "alice@us.test",
        "spring+sales@us.test",
        GRANTED,
        '"alice@us.test" has "spring+sales@us.test"',
    ),
    ("not-listed", "alice@us.test", "bob@us.test", UNKNOWN, ""),
    ("listed-for-others", "alice@us.test", "ceo@us.test", UNKNOWN, ""),
    ("whole-domain", "alice@us.test", "anything@shop.test", GRANTED, '"alice@us.test" has "@shop.test"'),
    ("whole-domain-star", "alice@us.test", "x@xn--bcher-kva.test", GRANTED, '"alice@us.test" has "*@bücher.test"'),
    ("whole-domain-not-below", "alice@us.test", "x@mail.shop.test", UNKNOWN, ""),
    ("whole-domain-of-others", "bob@us.test", "x@shop.test", UNKNOWN, ""),
    ("login-without-domain", "list", "list@us.test", GRANTED, '"list" has "list@us.test"'),
    ("login-without-domain-own", "carol", "carol@us.test", UNKNOWN, ""),
    ("login-is-a-tag", "alice+x@us.test", "alice@us.test", UNKNOWN, ""),
]


@pytest.mark.attack("L01", "L02", "L07", "L11")
@pytest.mark.parametrize(
    ("who", "what", "status", "rule"), [each[1:] for each in CASES], ids=[each[0] for each in CASES]
)
def test_inline(who: str, what: str, status: PermissionStatus, rule: str) -> None:
    source = InlineSource(LOGINS, rules=RULES, delimiters="+")
    said = source.may_use(login_of(who), address_of(what))
    assert (said.status, said.rule, said.source) == (status, rule, "inline"), said
    assert bool(said.reason) == (status is UNKNOWN)


@pytest.mark.attack("L07")
def test_a_tag_does_not_make_another_account_ones_own() -> None:
    source = InlineSource({"alice@us.test": [], "alice+two@us.test": []}, rules=RULES, delimiters="+")
    assert source.may_use(login_of("alice@us.test"), address_of("alice+one@us.test")).is_granted
    assert not source.may_use(login_of("alice@us.test"), address_of("alice+two@us.test")).is_granted
    assert source.may_use(login_of("alice+two@us.test"), address_of("alice+two@us.test")).is_granted


@pytest.mark.attack("L07")
def test_accounts_that_differ_in_case() -> None:
    source = InlineSource({"Alice@us.test": ["a@us.test"], "alice@us.test": ["b@us.test"]}, rules=RULES)
    for who, own, others in (
        ("Alice@us.test", "a@us.test", "b@us.test"),
        ("alice@us.test", "b@us.test", "a@us.test"),
    ):
        assert source.may_use(login_of(who), address_of(own)).is_granted
        assert not source.may_use(login_of(who), address_of(others)).is_granted
        assert source.may_use(login_of(who), address_of(who)).is_granted
        assert not source.may_use(login_of(who), address_of(who.swapcase().replace("US.TEST", "us.test"))).is_granted
    # Whose entry is Alice's address has not alice's.
    source = InlineSource({"Alice@us.test": [], "alice@us.test": [], "bob@us.test": ["Alice@us.test"]}, rules=RULES)
    assert source.may_use(login_of("bob@us.test"), address_of("Alice@us.test")).is_granted
    assert not source.may_use(login_of("bob@us.test"), address_of("alice@us.test")).is_granted


def test_case_can_matter() -> None:
    rules = LoginRules(case=LoginCase.SIGNIFICANT)
    source = InlineSource({"alice@us.test": ["Sales@us.test"]}, rules=rules)
    assert source.may_use(login_of("alice@us.test", rules), address_of("Sales@us.test")).is_granted
    for who, what in (("Alice@us.test", "Sales@us.test"), ("alice@us.test", "Alice@us.test")):
        assert not source.may_use(login_of(who, rules), address_of(what)).is_granted


def test_options() -> None:
    source = InlineSource(LOGINS, rules=RULES, own_address=False)
    assert not source.may_use(login_of("alice@us.test"), address_of("alice@us.test")).is_granted
    assert not source.may_use(login_of("alice@us.test"), address_of("sales+x@us.test")).is_granted
    rules = LoginRules(default_domain=Domain.parse("us.test"))
    source = InlineSource({"alice": ["x@us.test"]}, rules=rules)
    assert source.may_use(login_of("alice@us.test", rules), address_of("x@us.test")).is_granted
    assert source.may_use(login_of("alice", rules), address_of("alice@us.test")).is_granted


@pytest.mark.parametrize(
    ("logins", "said"),
    [
        ({"": []}, "is not a login"),
        ({"a\nb": []}, '"a\\\\nb" is not a login'),
        ({"alice@us.test": ["x"]}, '"x" is neither an address'),
        ({"alice@us.test": ["@"]}, "is not a whole domain"),
        ({"alice@us.test": ["@us test"]}, "is not a whole domain"),
        ({"alice@us.test": ["*"]}, '"\\*" is neither an address'),
        ({"alice@us.test": ["<x@us.test>"]}, "is neither an address"),
        ({"alice@us.test": [], "alice@US.TEST": []}, '"alice@US.TEST" is given twice'),
        ({"müller@us.test": [], "mu\u0308ller@us.test": []}, "is given twice"),
    ],
)
def test_what_cannot_be_read(logins: Mapping[str, Sequence[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        InlineSource(logins, rules=RULES)


def test_inline_lists() -> None:
    source = InlineSource(LOGINS, rules=RULES, delimiters="+")
    everyone = source.everyone()
    assert everyone.status is ListingStatus.LISTED
    assert [grant.what for grant in everyone.accounts["alice@us.test"]] == [
        "alice@us.test",
        "Sales@us.test",
        "@shop.test",
        "@xn--bcher-kva.test",
        "spring+sales@us.test",
    ]
    assert [grant.what for grant in everyone.accounts["list"]] == ["list@us.test"]
    assert "own address" in everyone.reason
    own = source.addresses(login_of("Dave@us.test"))
    assert [grant.what for grant in own.accounts["Dave@us.test"]] == ["Dave@us.test"]
    assert len(source.addresses(login_of("ALICE@us.test")).accounts["ALICE@us.test"]) == 5


# Several sources


class Said(Source):
    """Always says the same, and counts."""

    def __init__(self, name: str, status: PermissionStatus) -> None:
        super().__init__(name, RULES)
        self.status = status
        self.asked = 0
        self.is_closed = False

    def may_use(self, login: Login, address: Address) -> Permission:
        self.asked += 1
        asked = (Asked(self.name, ("x",)),)
        return Permission(self.status, login.exact, address.exact, self.name, "", f"{self.name} says so", asked)

    def everyone(self) -> Listing:
        return Listing(self.name, ListingStatus.UNLISTABLE, reason="a fake")

    def close(self) -> None:
        self.is_closed = True


COMBINED = [
    # what the sources say, what comes of it, and which of them decides
    ("none", [], UNKNOWN, ""),
    ("one-granted", [GRANTED], GRANTED, "0"),
    ("one-denied", [DENIED], DENIED, "0"),
    ("one-unknown", [UNKNOWN], UNKNOWN, ""),
    ("one-unavailable", [UNAVAILABLE], UNAVAILABLE, "0"),
    ("first-granted", [GRANTED, DENIED], GRANTED, "0"),
    ("first-denied", [DENIED, GRANTED], DENIED, "0"),
    ("second-granted", [UNKNOWN, GRANTED], GRANTED, "1"),
    ("second-denied", [UNKNOWN, DENIED], DENIED, "1"),
    ("nobody-knows", [UNKNOWN, UNKNOWN], UNKNOWN, ""),
    ("unavailable-after-grant", [GRANTED, UNAVAILABLE], GRANTED, "0"),
    ("unavailable-after-denial", [DENIED, UNAVAILABLE], DENIED, "0"),
    ("unavailable-before-grant", [UNAVAILABLE, GRANTED], UNAVAILABLE, "0"),
    ("unavailable-before-denial", [UNAVAILABLE, DENIED], UNAVAILABLE, "0"),
    ("unavailable-at-the-end", [UNKNOWN, UNAVAILABLE], UNAVAILABLE, "1"),
]


@pytest.mark.attack("L10")
@pytest.mark.parametrize(
    ("statuses", "status", "by"), [each[1:] for each in COMBINED], ids=[each[0] for each in COMBINED]
)
def test_combined(statuses: list[PermissionStatus], status: PermissionStatus, by: str) -> None:
    sources = [Said(str(number), each) for number, each in enumerate(statuses)]
    senders = Senders(sources, rules=RULES)
    said = senders.may_use(login_of("alice@us.test"), address_of("bob@us.test"))
    assert (said.status, said.source) == (status, by)
    decided = int(by) if by else len(sources)
    assert [source.asked for source in sources] == [int(number <= decided) for number in range(len(sources))]
    assert [each.statement for each in said.asked] == [
        str(number) for number in range(min(decided + 1, len(sources)))
    ]
    if status is UNKNOWN:
        assert all(f"{number}: {number} says so" in said.reason for number in range(len(sources)))
    assert [each.status for each in senders.everyone()] == [ListingStatus.UNLISTABLE] * len(sources)
    assert len(senders.listings(login_of("alice@us.test"))) == len(sources)
    senders.close()
    assert all(source.is_closed for source in sources)


def test_a_permission_is_no_truth_value() -> None:
    permission = Permission(GRANTED, "a", "b")
    with pytest.raises(TypeError, match="status"):
        bool(permission)
    with pytest.raises(TypeError, match="status"):
        bool(Listing("x", ListingStatus.LISTED))
    assert permission.to_json()["status"] == "granted"


@pytest.mark.attack("L08")
def test_octets_that_stand_for_nobody_are_denied_without_asking() -> None:
    source = Said("one", GRANTED)
    senders = Senders([source], rules=RULES)
    for who, what, rule in (
        (b"u\xff\xfe", b"alice@us.test", "unusable login"),
        (b"alice\r\n", b"alice@us.test", "unusable login"),
        (b"a" * 8192, b"alice@us.test", "unusable login"),
        (b"", b"alice@us.test", "unusable login"),
        (b"alice@us.test", b"\xff@us.test", "unusable address"),
        (b"alice@us.test", b"@us.test", "unusable address"),
        (b"alice@us.test", b"", "unusable address"),
    ):
        said = senders.ask(who, what)
        assert (said.status, said.rule) == (DENIED, rule)
        assert (said.login + said.address).isprintable()
        assert len(said.login) < 3000
    assert source.asked == 0
    assert senders.ask(b"alice@us.test", b"alice@us.test").is_granted


# What is kept


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("status", "kept_s"), [(GRANTED, 60.0), (DENIED, 5.0), (UNKNOWN, 5.0), (UNAVAILABLE, 0.0)])
@pytest.mark.attack("L10")
def test_how_long_an_answer_is_kept(status: PermissionStatus, kept_s: float) -> None:
    clock = Clock()
    source = Said("one", status)
    senders = Senders([source], rules=RULES, cache=PermissionCache(clock=clock))
    who, what = login_of("alice@us.test"), address_of("bob@us.test")
    assert senders.known(who, what) is None
    first = senders.may_use(who, what)
    clock.now += max(kept_s - 0.1, 0.0)
    assert senders.may_use(who, what) == first
    assert source.asked == (1 if kept_s else 2)
    assert senders.known(who, what) == (first if kept_s else None)
    clock.now += 0.2
    assert senders.known(who, what) is None
    senders.may_use(who, what)
    assert source.asked == (2 if kept_s else 3)


def test_answers_are_of_one_login_and_one_address() -> None:
    senders = Senders(
        [InlineSource({"alice@us.test": ["x@us.test"]}, rules=RULES)],
        rules=RULES,
        cache=PermissionCache(clock=Clock()),
    )
    assert senders.may_use(login_of("alice@us.test"), address_of("x@us.test")).is_granted
    assert not senders.may_use(login_of("bob@us.test"), address_of("x@us.test")).is_granted
    assert not senders.may_use(login_of("alice@us.test"), address_of("y@us.test")).is_granted
    assert senders.may_use(login_of("alice@us.test"), address_of("x@us.test")).is_granted


def test_the_cache_has_a_bound() -> None:
    cache = PermissionCache(clock=Clock(), max_entries=10)
    for number in range(100):
        cache.put(login_of("alice"), address_of(f"x{number}@us.test"), Permission(GRANTED, "", ""))
    kept = [
        number for number in range(100) if cache.get(login_of("alice"), address_of(f"x{number}@us.test")) is not None
    ]
    assert kept == list(range(90, 100))


def test_a_short_lifetime_is_for_refusals_too() -> None:
    clock = Clock()
    cache = PermissionCache(clock=clock, lifetime_s=1.0)
    cache.put(login_of("alice"), address_of("x@us.test"), Permission(DENIED, "", ""))
    clock.now += 1.1
    assert cache.get(login_of("alice"), address_of("x@us.test")) is None
