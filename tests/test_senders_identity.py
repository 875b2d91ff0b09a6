"""How logins and addresses are compared: one documented way, and no two accounts are ever one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.domain import Domain
from mailguard.senders.accounts import Accounts
from mailguard.senders.identity import (
    MAX_NAME_BYTES,
    Address,
    Login,
    LoginCase,
    LoginRules,
    Unusable,
    UnusableReason,
    folded_text,
    parse_address,
    without_tag,
)
from sender_asking import address_of, login_of

RULES = LoginRules()
US = Domain.parse("us.test")


# What is one name, and what is not.

SAME = [
    ("case", "Alice", "alice"),
    ("case-of-domain", "alice@US.TEST", "alice@us.test"),
    ("nfc-nfd", "müller", "mu\u0308ller"),
    ("nfd-upper-case", "MU\u0308LLER", "müller"),
    ("a-label", "alice@bücher.test", "alice@xn--bcher-kva.test"),
    ("joiner-in-a-u-label", "alice@نامه\u200cای.test", "alice@xn--mgba3gch31f060k.test"),
    ("full-width-domain", "alice@\uff55s.test", "alice@us.test"),
    ("ideographic-full-stop", "alice@us\u3002test", "alice@us.test"),
    ("kelvin-sign", "\u212aarl", "karl"),
    ("angstrom-sign", "\u212bsa", "åsa"),
]
OTHERS = [
    ("tag", "alice+tag", "alice"),
    ("tag-with-domain", "alice+tag@us.test", "alice@us.test"),
    ("full-width", "\uff41lice", "alice"),
    ("ligature", "\ufb01sh", "fish"),
    ("sharp-s", "straße", "strasse"),
    ("capital-sharp-s", "STRA\u1e9eE", "strasse"),
    ("long-s", "\u017fam", "sam"),
    ("turkish-dotted-capital", "\u0130smail", "ismail"),
    ("turkish-dotless", "\u0131smail", "ismail"),
    ("turkish-upper", "ISMAIL", "\u0131smail"),
    ("cyrillic", "\u0430lice", "alice"),
    ("accent", "áliçe", "alice"),
    ("greek-sigmas", "ας", "ασ"),
    ("superscript", "a\u00b2", "a2"),
    ("inner-space", "al ice", "alice"),
    ("trailing-space", "alice ", "alice"),
    ("domain", "alice@us.test", "alice@other.test"),
    ("subdomain", "alice@mail.us.test", "alice@us.test"),
    ("no-domain", "alice", "alice@us.test"),
    ("two-ats", "alice@other.test@us.test", "alice@us.test"),
    ("quotes", '"alice"@us.test', "alice@us.test"),
    ("percent", "alice%us.test", "alice@us.test"),
    ("backslash", "US\\alice", "alice"),
]


@pytest.mark.attack("L07")
@pytest.mark.parametrize(("one", "other"), [each[1:] for each in SAME], ids=[each[0] for each in SAME])
def test_one_login(one: str, other: str) -> None:
    assert login_of(one).folded == login_of(other).folded
    assert Accounts([login_of(other)]).find(login_of(one)) == login_of(other).exact
    assert Accounts(()).are_one(login_of(one), login_of(other))


@pytest.mark.attack("L07")
@pytest.mark.parametrize(("one", "other"), [each[1:] for each in OTHERS], ids=[each[0] for each in OTHERS])
def test_two_logins(one: str, other: str) -> None:
    assert login_of(one).folded != login_of(other).folded
    assert Accounts([login_of(other)]).find(login_of(one)) is None
    assert not Accounts(()).are_one(login_of(one), login_of(other))


@pytest.mark.attack("L07")
def test_an_exact_name_wins_over_the_folded_one() -> None:
    both = Accounts([login_of("Alice"), login_of("alice"), login_of("bob")])
    assert both.find(login_of("Alice")) == "Alice"
    assert both.find(login_of("alice")) == "alice"
    assert both.find(login_of("ALICE")) is None
    assert both.find(login_of("BOB")) == "bob"
    assert not both.are_one(login_of("Alice"), login_of("alice"))
    assert not both.are_one(login_of("ALICE"), login_of("alice"))
    assert both.are_one(login_of("BOB"), login_of("bob"))
    # A name that is there twice is one account.
    assert Accounts([login_of("bob"), login_of("bob")]).find(login_of("Bob")) == "bob"


@pytest.mark.attack("L07")
def test_case_can_matter() -> None:
    rules = LoginRules(case=LoginCase.SIGNIFICANT)
    one = Accounts([login_of("alice@us.test", rules)])
    assert one.find(login_of("Alice@us.test", rules)) is None
    assert one.find(login_of("alice@US.TEST", rules)) == "alice@us.test"
    assert not one.are_one(login_of("alice@us.test", rules), rules.login_of(address_of("Alice@us.test")))


def test_a_login_without_domain_gets_the_default_one() -> None:
    rules = LoginRules(default_domain=US)
    assert login_of("alice", rules) == login_of("alice@us.test", rules)
    assert login_of("alice@other.test", rules).exact == "alice@other.test"
    assert login_of("alice", rules).domain == "us.test"
    assert login_of("alice").domain is None
    assert str(login_of("Alice@US.test")) == "Alice@us.test"


names = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"]), min_size=1, max_size=8
)


@pytest.mark.attack("L07")
@given(st.lists(names, min_size=1, max_size=6))
def test_each_account_finds_itself_and_no_other(texts: list[str]) -> None:
    logins = [found for found in map(RULES.login, texts) if isinstance(found, Login)]
    accounts = Accounts(logins)
    for each in logins:
        assert accounts.find(each) == each.exact
        for other in logins:
            assert accounts.are_one(each, other) == (each.exact == other.exact)


@pytest.mark.attack("L07")
@given(names)
def test_folding_is_stable_and_keeps_lower_case_apart(text: str) -> None:
    normal = unicodedata.normalize("NFC", text)
    folded = folded_text(normal)
    assert folded_text(folded) == folded
    if normal == normal.lower():
        assert folded == normal


# What stands for nobody.

UNUSABLE = [
    ("L08-not-utf-8", b"u\xff\xfe", UnusableReason.NOT_UTF8),
    ("L08-surrogate", b"\xed\xa0\x80", UnusableReason.NOT_UTF8),
    ("L08-overlong", b"\xc0\x80", UnusableReason.NOT_UTF8),
    ("L08-cr-lf", b"alice\r\nX: y", UnusableReason.CHARACTER),
    ("L08-nul", b"alice\0bob", UnusableReason.CHARACTER),
    ("L08-ansi-escape", b"\x1b[31malice", UnusableReason.CHARACTER),
    ("L08-del", b"alice\x7f", UnusableReason.CHARACTER),
    ("L08-c1", "alice\x9b".encode(), UnusableReason.CHARACTER),
    ("L08-paragraph-separator", "alice\u2029".encode(), UnusableReason.CHARACTER),
    ("L08-line-separator", "alice\u2028".encode(), UnusableReason.CHARACTER),
    ("L08-8-kb", b"a" * 8192, UnusableReason.TOO_LONG),
    ("L08-8-kb-not-utf-8", b"\xff" * 8192, UnusableReason.TOO_LONG),
    ("L08-empty", b"", UnusableReason.EMPTY),
    ("L07-zero-width", "al\u200bice".encode(), UnusableReason.CHARACTER),
    ("L07-joiner", "al\u200cice@نامه\u200cای.test".encode(), UnusableReason.CHARACTER),
    ("L07-joiner-of-nothing", "alice@us\u200d.test".encode(), UnusableReason.CHARACTER),
    ("L07-soft-hyphen", "al\u00adice".encode(), UnusableReason.CHARACTER),
    ("L07-right-to-left", "\u202ealice".encode(), UnusableReason.CHARACTER),
    ("L07-no-break-space", "al\u00a0ice".encode(), UnusableReason.CHARACTER),
    ("L07-private-use", "al\ue000ice".encode(), UnusableReason.CHARACTER),
    ("L07-unassigned", "al\U000e0fffice".encode(), UnusableReason.CHARACTER),
    ("only-domain", b"@us.test", UnusableReason.SYNTAX),
]


@pytest.mark.attack("L07", "L08")
@pytest.mark.parametrize(("octets", "reason"), [each[1:] for each in UNUSABLE], ids=[each[0] for each in UNUSABLE])
def test_unusable_logins(octets: bytes, reason: UnusableReason) -> None:
    found = RULES.login(octets)
    assert isinstance(found, Unusable)
    assert found.reason is reason
    assert found.detail
    assert found.shown.isascii()
    assert found.shown.isprintable() or not found.shown
    assert len(found.shown) < 100


@pytest.mark.attack("L08", "L09")
@pytest.mark.parametrize(
    "text", ["%s", "../../etc/passwd", "a|b", "a'b", "*", "a\\b", "a b", "${x}", "x" * MAX_NAME_BYTES]
)
def test_odd_logins_are_names_like_others(text: str) -> None:
    assert login_of(text).exact == text
    assert login_of(text.encode()).exact == text


# Addresses.

ADDRESSES = [
    ("plain", "alice@us.test", "alice@us.test"),
    ("case-kept", "Alice@US.test", "Alice@us.test"),
    ("quoted", '"alice"@us.test', "alice@us.test"),
    ("quoted-pair", '"al\\ice"@us.test', "alice@us.test"),
    ("quoted-space", '"al ice"@us.test', "al ice@us.test"),
    ("quoted-at", '"alice@other.test"@us.test', "alice@other.test@us.test"),
    ("quoted-quote", '"a\\"b"@us.test', 'a"b@us.test'),
    ("dots", "a..b.@us.test", "a..b.@us.test"),
    ("utf-8", "mu\u0308ller@us.test", "müller@us.test"),
    ("u-label", "alice@bücher.test", "alice@xn--bcher-kva.test"),
    ("percent", "alice%other.test@us.test", "alice%other.test@us.test"),
]
NO_ADDRESSES = [
    ("none", ""),
    ("no-at", "alice"),
    ("no-local-part", "@us.test"),
    ("empty-quotes", '""@us.test'),
    ("no-domain", "alice@"),
    ("literal", "alice@[192.0.2.1]"),
    ("comment", "(x)alice@us.test"),
    ("route", "@other.test:alice@us.test"),
    ("two-ats", "alice@other.test@us.test"),
    ("space", "al ice@us.test"),
    ("open-quote", '"alice@us.test'),
    ("quote-inside", '"al"ice"@us.test'),
    ("backslash-at-end", '"alice\\"@us.test'),
    ("angle-brackets", "<alice@us.test>"),
    ("zero-width", "al\u200bice@us.test"),
    ("nul", "alice\0@us.test"),
    ("underscore-domain", "alice@us_er.test"),
    ("too-long", "a" * 600 + "@us.test"),
]


@pytest.mark.parametrize(("text", "exact"), [each[1:] for each in ADDRESSES], ids=[each[0] for each in ADDRESSES])
def test_addresses(text: str, exact: str) -> None:
    assert address_of(text).exact == exact
    assert address_of(text.encode()).folded == folded_text(exact)


@pytest.mark.parametrize("text", [each[1] for each in NO_ADDRESSES], ids=[each[0] for each in NO_ADDRESSES])
def test_no_addresses(text: str) -> None:
    assert isinstance(parse_address(text), Unusable)


def test_octets_that_are_no_address() -> None:
    assert isinstance(parse_address(b"\xff@us.test"), Unusable)
    assert isinstance(parse_address("\udcff@us.test"), Unusable)


TAGS = [
    ("tag", "alice+shop", "+", "alice"),
    ("first-delimiter", "alice+a+b", "+", "alice"),
    ("set", "alice-shop", "+-", "alice"),
    ("none", "alice", "+", None),
    ("off", "alice+shop", "", None),
    ("nothing-before", "+shop", "+", None),
    ("nothing-behind", "alice+", "+", "alice"),
    ("postmaster", "Postmaster", "m", None),
    ("mailer-daemon", "MAILER-DAEMON", "-", None),
    ("owner", "owner-list", "-", None),
    ("request", "list-request", "-", None),
    ("owner-other-delimiter", "owner-list+x", "+", "owner-list"),
]


@pytest.mark.parametrize(("local", "delimiters", "bare"), [each[1:] for each in TAGS], ids=[each[0] for each in TAGS])
def test_tags(local: str, delimiters: str, bare: str | None) -> None:
    found = without_tag(Address(local, US), delimiters)
    assert (found.local_part if found else None) == bare


def test_the_ways_in_which_a_name_is_looked_up() -> None:
    assert login_of("Alice@bücher.test").texts() == (
        "Alice@xn--bcher-kva.test",
        "alice@xn--bcher-kva.test",
        "Alice@bücher.test",
        "alice@bücher.test",
    )
    assert address_of("alice@us.test").texts() == ("alice@us.test",)
    assert login_of("alice").texts() == ("alice",)
