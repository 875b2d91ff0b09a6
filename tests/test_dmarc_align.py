"""Which identifiers belong to the author domain, and how many are looked at (RFC 9989 §4.4, RFC 9989 §4.10.2)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dmarc_asking import asked_and_judged, bank, dkim, judged, outcome, records, resolver_of, spf
from mailguard.dmarc.align import MAX_IDENTIFIER_WALKS
from mailguard.dmarc.record import AlignmentMode
from mailguard.dmarc.result import Aligned, DmarcReason, DmarcStatus
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.spf.result import SpfIdentity
from zone0 import zone as zone0

REJECT = "v=DMARC1; p=reject"
BANK = ZoneResolver(zone0())
PASS, FAIL, NONE, TEMPERROR = DmarcStatus.PASS, DmarcStatus.FAIL, DmarcStatus.NONE, DmarcStatus.TEMPERROR


@pytest.mark.attack("M08")
@pytest.mark.parametrize(
    ("author", "identifier", "relaxed", "strict"),
    [
        ("bank.test", "bank.test", True, True),
        ("bank.test", "BANK.Test", True, True),
        ("Bank.TEST", "bank.test", True, True),
        ("bank.test", "mail.bank.test", True, False),
        ("bank.test", "a.b.c.bank.test", True, False),
        ("mail.bank.test", "bank.test", True, False),
        ("a.bank.test", "b.bank.test", True, False),
        ("bank.test", "evil.test", False, False),
        ("bank.test", "test", False, False),
        ("bank.test", "notbank.test", False, False),
        ("bank.test", "bank.test.evil.test", False, False),
        ("bank.test", "ank.test", False, False),
    ],
)
@pytest.mark.parametrize("method", ["spf", "dkim"])
def test_relaxed_and_strict(author: str, identifier: str, relaxed: bool, strict: bool, method: str) -> None:
    for tags, expected in (
        ("", relaxed),
        ("; aspf=s", strict),
        ("; adkim=s", strict),
        ("; aspf=r; adkim=r", relaxed),
    ):
        is_other_tag = ("aspf=s" in tags and method == "dkim") or ("adkim=s" in tags and method == "spf")
        verdict = judged(
            author,
            resolver_of(records({"_dmarc.bank.test": REJECT + tags})),
            spf=spf(identifier) if method == "spf" else None,
            dkim=[dkim(identifier)] if method == "dkim" else [],
        )
        (alignment,) = verdict.alignments
        is_aligned = relaxed if is_other_tag else expected
        assert alignment.aligned is (Aligned.YES if is_aligned else Aligned.NO)
        assert alignment.mode is (
            AlignmentMode.STRICT if "=s" in tags and not is_other_tag else AlignmentMode.RELAXED
        )
        assert outcome(verdict) == ((PASS, DmarcReason.ALIGNED) if is_aligned else (FAIL, DmarcReason.NOT_ALIGNED))


@pytest.mark.attack("M08", "E10", "F33")
def test_names_are_compared_as_a_labels() -> None:
    resolver = resolver_of(records({"_dmarc.xn--bcher-kva.test": REJECT}))
    with pytest.raises(DomainError):
        Domain.parse("bank.test.")
    for written in ("bücher.test", "BÜCHER.test", "bu\u0308cher.test", "xn--bcher-kva.test"):
        assert judged(written, resolver, spf=spf("bücher.test")).status is PASS
        assert judged("xn--bcher-kva.test", resolver, dkim=[dkim(written)]).status is PASS
    lookalike = judged("b\u0430nk.test", BANK, dkim=[dkim("bank.test")])
    assert (lookalike.author_domain, outcome(lookalike)) == ("xn--bnk-6cd.test", (NONE, DmarcReason.NO_RECORD))


@pytest.mark.parametrize(
    ("more", "identifier", "aligned"),
    [
        # Only the name below publishes: its Organizational Domain is itself, that of the name above is above.
        pytest.param({"D__mail__shop__test": REJECT}, "shop.test", Aligned.NO, id="the name above has no record"),
        pytest.param({"D__mail__shop__test": REJECT}, "a.mail.shop.test", Aligned.YES, id="below the only record"),
        pytest.param(
            {"D__mail__shop__test": REJECT, "D__x__mail__shop__test": "v=DMARC1; p=none; psd=n"},
            "x.mail.shop.test",
            Aligned.NO,
            id="psd=n below keeps to itself",
        ),
        pytest.param(
            {"D__mail__shop__test": REJECT, "D__x__mail__shop__test": "v=DMARC1; p=none; psd=y"},
            "y.x.mail.shop.test",
            Aligned.NO,
            id="psd=y below has tenants",
        ),
        pytest.param(
            {"D__mail__shop__test": REJECT, "D__shop__test": "v=DMARC1; p=none; psd=y"},
            "mail.shop.test",
            Aligned.YES,
            id="a tenant, itself",
        ),
        pytest.param(
            {"D__mail__shop__test": REJECT, "D__shop__test": "v=DMARC1; p=none; psd=y"},
            "other.shop.test",
            Aligned.NO,
            id="another tenant",
        ),
        pytest.param(
            {"D__mail__shop__test": REJECT, "D__shop__test": "v=DMARC1; p=none"},
            "other.shop.test",
            Aligned.YES,
            id="siblings",
        ),
        pytest.param(
            {"D__mail__shop__test": REJECT, "D__test": "v=DMARC1; p=none"},
            "evil.test",
            Aligned.YES,
            id="a top-level domain that does not say psd=y",
        ),
    ],
)
def test_each_identifier_has_a_walk_of_its_own(more: Mapping[str, object], identifier: str, aligned: Aligned) -> None:
    verdict = judged("mail.shop.test", bank(**more), dkim=[dkim(identifier)])
    assert verdict.alignments[0].aligned is aligned


@pytest.mark.attack("D19")
def test_a_public_suffix_that_signs_vouches_for_nobody_below_it() -> None:
    suffix = "v=DMARC1; p=none; psd=y"
    for more in ({}, {"D__test": suffix}):
        verdict = judged("bank.test", bank(**more), dkim=[dkim("test")], spf=spf("test"))
        assert outcome(verdict) == (FAIL, DmarcReason.NOT_ALIGNED)
    own = judged("test", bank(D__test="v=DMARC1; p=reject; psd=y"), dkim=[dkim("test")])
    assert own.status is PASS
    below = judged("test", bank(D__test="v=DMARC1; p=reject; psd=y"), dkim=[dkim("bank.test")])
    assert below.status is FAIL


def test_who_cannot_be_aligned_is_not_walked() -> None:
    def asked(author: str, record: str, **results: object) -> tuple[str, ...]:
        resolver = resolver_of(records({"_dmarc.bank.test": record}))
        return asked_and_judged(author, resolver, **results)[1]  # type: ignore[arg-type]  # spf and dkim, by name

    own = ("_dmarc.bank.test TXT", "_dmarc.test TXT")
    assert asked("bank.test", REJECT, spf=spf("bank.test"), dkim=[dkim("bank.test")]) == own
    assert asked("bank.test", REJECT, spf=spf("x.evil.test"), dkim=[dkim("evil.org")]) == own
    assert asked("bank.test", REJECT + "; adkim=s", dkim=[dkim("x.bank.test")]) == own
    assert asked("bank.test", REJECT, spf=spf("x.bank.test", identity=SpfIdentity.HELO)) == own
    assert asked("bank.test", REJECT, dkim=[dkim("x.bank.test")]) == (*own, "_dmarc.x.bank.test TXT")
    # Without a record nothing is compared at all.
    assert asked("shop.test", REJECT, dkim=[dkim("x.shop.test")]) == ("_dmarc.shop.test TXT", "_dmarc.test TXT")


# -- missing answers, and the bound --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("author", "identifier", "failing", "aligned", "status"),
    [
        # The Organizational Domain of the identifier hangs on the name that fails: psd=n there would part the two.
        ("bank.test", "mail.bank.test", ["_dmarc.mail.bank.test"], Aligned.UNKNOWN, TEMPERROR),
        # Whatever stands at the top-level domain, it is the same for both.
        ("bank.test", "mail.bank.test", ["_dmarc.test"], Aligned.YES, PASS),
        # If it has a record, without psd, then both have it for Organizational Domain (RFC 9989 §11.8).
        ("bank.test", "evil.test", ["_dmarc.test"], Aligned.UNKNOWN, TEMPERROR),
        ("bank.test", "evil.org", ["_dmarc.test"], Aligned.NO, FAIL),
        # psd=n where only the author's walk goes would part the two as well.
        ("y.b.bank.test", "x.bank.test", ["_dmarc.b.bank.test"], Aligned.UNKNOWN, TEMPERROR),
        ("bank.test", "a.b.bank.test", ["_dmarc.test", "_dmarc.b.bank.test"], Aligned.UNKNOWN, TEMPERROR),
        # What two missing answers may have been is tried out, what three may have been is not.
        ("a.b.c.test", "x.a.b.c.test", ["_dmarc.test", "_dmarc.c.test"], Aligned.YES, PASS),
        (
            "a.b.c.test",
            "x.a.b.c.test",
            ["_dmarc.test", "_dmarc.c.test", "_dmarc.b.c.test"],
            Aligned.UNKNOWN,
            TEMPERROR,
        ),
        ("bank.test", "bank.test", ["_dmarc.test"], Aligned.YES, PASS),
    ],
)
def test_alignment_is_not_known(
    author: str, identifier: str, failing: list[str], aligned: Aligned, status: DmarcStatus
) -> None:
    published = ("bank.test", "y.b.bank.test", "a.b.c.test")
    resolver = resolver_of(records({f"_dmarc.{name}": REJECT for name in published}), failing)
    verdict = judged(author, resolver, dkim=[dkim(identifier)])
    assert verdict.alignments[0].aligned is aligned
    assert verdict.status is status
    assert judged(author, resolver, dkim=[dkim(identifier, "fail")]).status is FAIL, "it did not pass anyhow"


def test_only_so_many_identifiers_are_walked() -> None:
    """What is beyond the bound is not aligned: that will not change, and nothing else makes up for a walk."""
    many = [dkim(f"x{number}.evil.bank.test", "fail") for number in range(40)]
    passing = [dkim("good.bank.test")]
    verdict, asked = asked_and_judged("bank.test", bank(), dkim=[*many, *passing])
    assert verdict.status is PASS, "what fails cannot crowd it out"
    assert len({name for name in asked if name.startswith(("_dmarc.x", "_dmarc.good"))}) == MAX_IDENTIFIER_WALKS
    others = bank(D__evil__bank__test="v=DMARC1; p=none; psd=n")
    crowd = [dkim(f"x{number}.evil.bank.test") for number in range(MAX_IDENTIFIER_WALKS)]
    verdict, asked = asked_and_judged("bank.test", others, dkim=[*crowd, *passing])
    assert outcome(verdict) == (FAIL, DmarcReason.NOT_ALIGNED)
    assert "_dmarc.good.bank.test TXT" not in asked
    # The same name many times is one walk, and the author domain itself needs none.
    assert judged("bank.test", others, dkim=[*crowd, dkim("bank.test")]).status is PASS
    assert judged("bank.test", others, dkim=[*crowd[:-1], *crowd, *passing][1:]).status is FAIL
    assert judged("bank.test", others, dkim=[*crowd[:-1], *crowd[:-1], *passing]).status is PASS
    # What has no answer and is beyond the bound may have passed.
    waiting = [dkim("good.bank.test", "temperror")]
    assert judged("bank.test", others, dkim=[*crowd, *waiting]).status is TEMPERROR
