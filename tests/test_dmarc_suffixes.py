"""Organizational Domains by a list of public suffixes, as in RFC 7489 §3.2, and what differs from RFC 9989."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import publicsuffixlist
import pytest

from dmarc_asking import asked_and_judged, dkim, judged, records, resolver_of, spf, zone_of
from mailguard.dmarc.compare import Comparison, compare_7489
from mailguard.dmarc.discover import discover
from mailguard.dmarc.record import DmarcPolicy
from mailguard.dmarc.result import Aligned, DiscoveryMethod, DmarcReason, DmarcStatus
from mailguard.dmarc.suffixes import MAX_LIST_BYTES, PublicSuffixes
from mailguard.dns.answers import Answers, Unanswered, evaluate
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import ConfigError, MissingExtraError, install_command

REJECT = "v=DMARC1; p=reject"
BEGIN, END = "// ===BEGIN ICANN DOMAINS===", "// ===END ICANN DOMAINS==="
PRIVATE, END_PRIVATE = "// ===BEGIN PRIVATE DOMAINS===", "// ===END PRIVATE DOMAINS==="
LIST = f"""// a list
{BEGIN}
test
co.test
*.wild.test
!city.wild.test
bücher.test
{END}
{PRIVATE}
github.test
{END_PRIVATE}
"""


@pytest.fixture(scope="module")
def suffixes(tmp_path_factory: pytest.TempPathFactory) -> PublicSuffixes:
    path = tmp_path_factory.mktemp("psl") / "list.dat"
    path.write_text(LIST, encoding="utf-8")
    return PublicSuffixes.load(str(path))


@pytest.mark.attack("M06")
@pytest.mark.parametrize(
    ("domain", "organizational_domain", "is_suffix"),
    [
        ("a.test", "a.test", False),
        ("b.a.test", "a.test", False),
        ("test", "test", True),
        ("co.test", "co.test", True),
        ("a.co.test", "a.co.test", False),
        ("c.b.a.co.test", "a.co.test", False),
        ("x.wild.test", "x.wild.test", True),
        ("a.x.wild.test", "a.x.wild.test", False),
        ("city.wild.test", "city.wild.test", False),
        ("a.city.wild.test", "city.wild.test", False),
        ("github.test", "github.test", True),
        ("x.github.test", "x.github.test", False),
        ("BÜCHER.test", "xn--bcher-kva.test", True),
        ("a.b.bücher.test", "b.xn--bcher-kva.test", False),
        ("unlisted", "unlisted", True),
        ("a.b.unlisted", "b.unlisted", False),
    ],
)
def test_organizational_domains(
    suffixes: PublicSuffixes, domain: str, organizational_domain: str, is_suffix: bool
) -> None:
    found = suffixes.organizational_domain(Domain.parse(domain))
    assert found == organizational_domain
    assert isinstance(found, Domain)


def test_the_list_of_the_package_passes_its_own_test() -> None:
    """checkPublicSuffix(name, registrable domain), from the makers of the list."""
    suffixes = PublicSuffixes.load()
    assert suffixes.source == publicsuffixlist.PSLFILE
    text = Path(publicsuffixlist.PSLFILE).with_name("test_psl.txt").read_text("utf-8")
    rows = re.findall(r"^checkPublicSuffix\('([^'.][^']*)', (?:'(.*)'|null)\);", text, re.MULTILINE)
    assert len(rows) > 70
    for name, expected in rows:
        domain = Domain.parse(name)
        found = suffixes.organizational_domain(domain)
        assert found == (Domain.parse(expected) if expected else domain), name


# -- loading ------------------------------------------------------------------------------------------------------


Writer = Callable[[Path], object]


@pytest.mark.attack("M07")
@pytest.mark.parametrize(
    ("write", "said"),
    [
        pytest.param(lambda path: None, "cannot be read: No such file", id="missing"),
        pytest.param(lambda path: path.mkdir(), "cannot be read: Is a directory", id="a directory"),
        pytest.param(lambda path: path.write_bytes(b""), "BEGIN ICANN", id="empty"),
        pytest.param(lambda path: path.write_text(LIST[: LIST.index(END)]), "END ICANN", id="truncated"),
        pytest.param(lambda path: path.write_text(LIST[: LIST.index("github")]), "END PRIVATE", id="truncated later"),
        pytest.param(
            lambda path: path.write_text(LIST[: LIST.index(END_PRIVATE) + 20]), "END PRIVATE", id="last line"
        ),
        pytest.param(lambda path: path.write_text("test\nco.test\n"), "BEGIN ICANN", id="without marks"),
        pytest.param(lambda path: path.write_text("<html>Not found</html>"), "BEGIN ICANN", id="a web page"),
        pytest.param(
            lambda path: path.write_text("\n".join((END, BEGIN, PRIVATE, "a.test", END_PRIVATE))),
            "not in its",
            id="order",
        ),
        pytest.param(
            lambda path: path.write_text("\n".join((BEGIN, END, PRIVATE, "", END_PRIVATE))), "no rules", id="no rules"
        ),
        pytest.param(lambda path: path.write_bytes(LIST.encode("latin-1")), "not UTF-8", id="not UTF-8"),
        pytest.param(
            lambda path: path.write_text(LIST.replace("co.test", "x" * 70 + "ü.test")),
            "not a domain name",
            id="a rule",
        ),
        pytest.param(lambda path: path.write_bytes(b"\n" * (MAX_LIST_BYTES + 1)), "octets", id="too long"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, write: Writer, said: str) -> None:
    path = tmp_path / "list.dat"
    write(path)
    with pytest.raises(ConfigError, match=said) as caught:
        PublicSuffixes.load(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.attack("M07", "V21")
def test_a_loaded_list_does_not_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "list.dat"
    path.write_text(LIST, encoding="utf-8-sig")
    suffixes = PublicSuffixes.load(str(path))
    for spoil in (
        lambda: path.write_text(LIST.replace("co.test", "zz.test")),
        lambda: path.write_text(""),
        path.unlink,
    ):
        spoil()
        assert suffixes.organizational_domain(Domain("b.a.co.test")) == "a.co.test"
        with pytest.raises(AttributeError):
            suffixes.source = "x"  # type: ignore[misc]  # that it cannot be set is the point


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_is_optional() -> None:
    imported = "import sys, mailguard, mailguard.dmarc.suffixes\nprint('publicsuffixlist' in sys.modules)"
    assert python(imported) == "False"
    absent = (
        "import sys\nsys.modules['publicsuffixlist'] = None\n"
        "from mailguard.dmarc.suffixes import PublicSuffixes\n"
        "try:\n    PublicSuffixes.load()\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    assert python(absent) == (
        f"{MissingExtraError.__name__} public suffixes need publicsuffixlist; "
        f"install it with: {install_command('psl')}"
    )


# -- discovery and alignment as in RFC 7489 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("author", "resolver", "walk", "expected"),
    [
        pytest.param(
            "b.a.test",
            zone_of(D__a__test=REJECT, D__test="v=DMARC1; p=none"),
            ("_dmarc.b.a.test: no record", "_dmarc.a.test: record"),
            (DmarcStatus.FAIL, "a.test"),
            id="the Organizational Domain's",
        ),
        pytest.param(
            "c.b.a.test",
            zone_of(D__b__a__test=REJECT),
            ("_dmarc.c.b.a.test: no record", "_dmarc.a.test: no record"),
            (DmarcStatus.NONE, None),
            id="names in between are not asked",
        ),
        pytest.param(
            "b.a.test",
            zone_of(D__b__a__test=REJECT),
            ("_dmarc.b.a.test: record",),
            (DmarcStatus.FAIL, "b.a.test"),
            id="own",
        ),
        pytest.param(
            "b.a.test",
            zone_of(D__b__a__test=[REJECT, REJECT], D__a__test=REJECT),
            ("_dmarc.b.a.test: two records",),
            (DmarcStatus.NONE, None),
            id="several end it",
        ),
        pytest.param("a.test", zone_of(), ("_dmarc.a.test: no record",), (DmarcStatus.NONE, None), id="none"),
        pytest.param(
            "a.test",
            zone_of(D__a__test="v=DMARC1; p=reject; pct=0"),
            ("_dmarc.a.test: record",),
            (DmarcStatus.FAIL, "a.test"),
            id="pct is ignored",
        ),
    ],
)
def test_discovery(
    suffixes: PublicSuffixes,
    author: str,
    resolver: ZoneResolver,
    walk: tuple[str, ...],
    expected: tuple[DmarcStatus, str | None],
) -> None:
    verdict, asked = asked_and_judged(author, resolver, suffixes=suffixes)
    assert verdict.walk == walk
    assert asked == tuple(f"{entry.partition(':')[0]} TXT" for entry in walk)
    assert (verdict.status, verdict.record_domain) == expected
    assert verdict.method is DiscoveryMethod.PUBLIC_SUFFIX_LIST
    if verdict.status is DmarcStatus.FAIL:
        assert verdict.policy is DmarcPolicy.REJECT


def test_a_name_that_would_be_too_long_does_not_hide_the_policy_above_it(suffixes: PublicSuffixes) -> None:
    label = "x" * 60
    author = f"{label}.{label}.{label}.{'y' * 54}.bank.test"
    assert len("_dmarc." + author) > MAX_DOMAIN_CHARS
    verdict, asked = asked_and_judged(author, zone_of(D__bank__test=REJECT), suffixes=suffixes)
    assert (verdict.status, verdict.record_domain) == (DmarcStatus.FAIL, "bank.test")
    assert asked == ("_dmarc.bank.test TXT",)


@pytest.mark.attack("M06", "D19")
@pytest.mark.parametrize(
    ("author", "identifier", "tags", "aligned"),
    [
        ("a.test", "b.a.test", "", Aligned.YES),
        ("a.test", "b.a.test", "; adkim=s", Aligned.NO),
        ("a.test", "a.test", "; adkim=s", Aligned.YES),
        ("a.test", "b.test", "", Aligned.NO),
        ("a.test", "test", "", Aligned.NO),
        ("a.co.test", "co.test", "", Aligned.NO),
        ("co.test", "a.co.test", "", Aligned.NO),
        ("a.co.test", "b.co.test", "", Aligned.NO),
        ("x.github.test", "y.github.test", "", Aligned.NO),
        ("github.test", "x.github.test", "", Aligned.NO),
        ("x.github.test", "github.test", "", Aligned.NO),
        ("x.wild.test", "y.wild.test", "", Aligned.NO),
        ("a.city.wild.test", "city.wild.test", "", Aligned.YES),
    ],
)
def test_alignment(suffixes: PublicSuffixes, author: str, identifier: str, tags: str, aligned: Aligned) -> None:
    resolver = resolver_of(records({f"_dmarc.{author}": REJECT + tags}))
    verdict, asked = asked_and_judged(author, resolver, dkim=[dkim(identifier)], suffixes=suffixes)
    assert verdict.alignments[0].aligned is aligned
    assert len(asked) == 1, "no walks"
    assert (verdict.status is DmarcStatus.PASS) is (aligned is Aligned.YES)


def test_both_names_are_asked_for_at_once(suffixes: PublicSuffixes) -> None:
    answers = Answers()
    with pytest.raises(Unanswered):
        discover(Domain("c.b.a.test"), answers, suffixes)
    assert [question.name for question in answers.missing] == ["_dmarc.c.b.a.test", "_dmarc.a.test"]


@pytest.mark.attack("M03", "M04")
@pytest.mark.parametrize("failure", [Status.TEMPFAIL, Status.BOGUS], ids=lambda status: status.value)
def test_no_answer(suffixes: PublicSuffixes, failure: Status) -> None:
    resolver = resolver_of(records({"_dmarc.a.test": REJECT}), ["_dmarc.b.a.test"], failure)
    for sender, has_aligned_pass in ((None, False), (spf("b.a.test"), True), (spf("a.test"), False)):
        verdict = judged("b.a.test", resolver, spf=sender, suffixes=suffixes)
        assert (verdict.status, verdict.reason) == (DmarcStatus.TEMPERROR, DmarcReason.POLICY_UNAVAILABLE)
        assert verdict.has_aligned_pass is has_aligned_pass
    for identifier, aligned in (("a.test", Aligned.UNKNOWN), ("evil.test", Aligned.NO)):
        verdict = judged("b.a.test", resolver, dkim=[dkim(identifier)], suffixes=suffixes)
        assert verdict.alignments[0].aligned is aligned


# -- side by side -------------------------------------------------------------------------------------------------


def compared(domain: str, resolver: ZoneResolver, suffixes: PublicSuffixes) -> Comparison:
    return evaluate(
        lambda answers: compare_7489(Domain.parse(domain), answers, suffixes),
        resolver,
        deadline=time.monotonic() + 60,
    )


@pytest.mark.parametrize(
    ("domain", "zone", "differences"),
    [
        ("a.test", {}, []),
        ("a.test", {"_dmarc.a.test": REJECT}, []),
        (
            "b.a.test",
            {"_dmarc.b.a.test": "v=DMARC1; p=none"},
            [
                "The Organizational Domain is b.a.test by tree walk (RFC 9989) and "
                "a.test by the list of public suffixes (RFC 7489)."
            ],
        ),
        (
            "a.test",
            {"_dmarc.test": "v=DMARC1; p=none; sp=reject; psd=y"},
            [
                "RFC 9989 finds the record at test, RFC 7489 finds no record.",
                "The policy is reject (sp=) by RFC 9989 and not applied by RFC 7489.",
            ],
        ),
        (
            "b.a.test",
            {"_dmarc.b.a.test": [REJECT, REJECT], "_dmarc.a.test": "v=DMARC1; p=reject"},
            [
                "RFC 9989 finds the record at a.test, RFC 7489 finds no record.",
                "The policy is reject (p=) by RFC 9989 and not applied by RFC 7489.",
            ],
        ),
        (
            "a.test",
            {"_dmarc.a.test": "v=DMARC1; p=reject; t=y; np=reject; pct=10"},
            [
                "RFC 9989 takes the policy one step weaker for t=y; RFC 7489 does not know t.",
                "RFC 9989 has np= for domains that do not exist; RFC 7489 takes sp= or p= for these too.",
                "RFC 7489 applies the policy to the part of the mail that pct= says; RFC 9989 ignores pct.",
            ],
        ),
    ],
    ids=["no record", "the same", "org", "psd", "two records", "tags"],
)
def test_comparison(
    suffixes: PublicSuffixes, domain: str, zone: Mapping[str, object], differences: list[str]
) -> None:
    comparison = compared(domain, resolver_of(records(zone)), suffixes)
    assert list(comparison.differences) == differences
    assert comparison.public_suffixes.organizational_domain == "a.test"


@pytest.mark.parametrize("failing", ["_dmarc.b.a.test", "_dmarc.a.test", "_dmarc.test"])
def test_comparison_without_an_answer(suffixes: PublicSuffixes, failing: str) -> None:
    resolver = resolver_of(records({"_dmarc.a.test": REJECT}), [failing])
    comparison = compared("b.a.test", resolver, suffixes)
    assert comparison.differences == ("The DNS did not answer everything, so that there may be more differences.",)
    assert comparison.tree_walk.is_known is False
    assert comparison.public_suffixes.is_known is (failing == "_dmarc.test")


def test_comparison_where_only_one_has_no_answer(suffixes: PublicSuffixes) -> None:
    zone = {"_dmarc.b.a.test": "v=DMARC1; p=reject; psd=n"}
    comparison = compared("c.b.a.test", resolver_of(records(zone), ["_dmarc.a.test"]), suffixes)
    assert (comparison.tree_walk.is_known, comparison.public_suffixes.is_known) == (True, False)
    assert comparison.differences == (
        "The DNS did not answer everything, so that there may be more differences.",
        "The Organizational Domain is b.a.test by tree walk (RFC 9989) and "
        "a.test by the list of public suffixes (RFC 7489).",
    )
    zone = {"_dmarc.a.test": "v=DMARC1; p=reject; np=none"}
    comparison = compared("b.a.test", resolver_of(records(zone), ["b.a.test"]), suffixes)
    assert comparison.tree_walk.organizational_domain == "a.test"
    assert comparison.differences[0].startswith("The DNS did not answer everything")
    zone = {"_dmarc.b.a.test": "v=DMARC1; p=reject; np=none; psd=n", "_dmarc.a.test": REJECT}
    comparison = compared("c.b.a.test", resolver_of(records(zone), ["c.b.a.test"]), suffixes)
    assert (comparison.tree_walk.is_known, comparison.public_suffixes.is_known) == (False, True)
    assert comparison.differences[0].startswith("The DNS did not answer everything")
