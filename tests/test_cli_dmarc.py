"""`mailguard dmarc check` as users call it: what it finds, what it says of it, and its exit codes (RFC 9989)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mailguard.cli.dmarc
from cli_process import Command, is_told_in_one_line
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.explain.dmarc_problem import DmarcProblem

SUFFIXES = """\
// ===BEGIN ICANN DOMAINS===
test
co.test
// ===END ICANN DOMAINS===
// ===BEGIN PRIVATE DOMAINS===
hosted.test
// ===END PRIVATE DOMAINS===
"""
GOOD = "v=DMARC1; p=reject; rua=mailto:d@bank.test"


def zone_text(*records: str, name: str = "_dmarc.bank.test", more: str = "") -> str:
    lines = [f'{name}. IN TXT "{record}"' for record in records]
    return "\n".join([*lines, more, ""])


@pytest.fixture
def check(mailguard_command: Command, tmp_path: Path) -> Command:
    """Runs `mailguard dmarc check ARGUMENTS` on the zone given as `zone`."""

    def run(*arguments: str | Path, zone: str = "") -> object:
        (tmp_path / "a.zone").write_text(zone)
        return mailguard_command("dmarc", "check", *arguments, "--zone", "a.zone")

    return run  # type: ignore[return-value]  # the one keyword more


# (id, zone, domain, exit code, what stands there, problems and notes)
DOMAINS: list[tuple[str, str, str, int, list[str], list[str]]] = [
    (
        "a good record",
        zone_text(GOOD),
        "bank.test",
        0,
        [
            "DMARC for mail from bank.test: usable (reject)\n",
            "the record at _dmarc.bank.test holds\n",
            "asked: _dmarc.bank.test: record\n",
            "organizational domain: bank.test\n",
            f"record: {GOOD}\n",
            "policy in effect: reject, by p=\n",
            "adkim: relaxed\n",
            "rua: mailto:d@bank.test\n",
        ],
        [],
    ),
    (
        "inherited",
        zone_text(
            "v=DMARC1; p=reject; sp=quarantine; rua=mailto:d@bank.test", more="a.mail.bank.test. IN A 192.0.2.1"
        ),
        "a.mail.bank.test",
        0,
        [
            "DMARC for mail from a.mail.bank.test: usable (quarantine)\n",
            "the record at _dmarc.bank.test holds, which a.mail.bank.test inherits\n",
            "asked: _dmarc.mail.bank.test: no record\n",
            "policy in effect: quarantine, by sp=\n",
        ],
        [],
    ),
    (
        "absent",
        "x.test. IN A 192.0.2.1",
        "bank.test",
        1,
        ["DMARC for mail from bank.test: unusable (no-record)\n"],
        ["no-record"],
    ),
    (
        "twice",
        zone_text(GOOD, "v=DMARC1; p=none"),
        "bank.test",
        1,
        ["_dmarc.bank.test has several DMARC records", "leave one of those at _dmarc.bank.test"],
        ["several-records", "no-record"],
    ),
    (
        "another case",
        zone_text("v=dmarc1; p=reject"),
        "bank.test",
        1,
        ["_dmarc.bank.test has: v=dmarc1; p=reject\n", "begin with: v=DMARC1;"],
        ["not-a-record", "no-record"],
    ),
    (
        "no semicolon",
        zone_text("v=DMARC1 p=reject"),
        "bank.test",
        1,
        ["_dmarc.bank.test has: v=DMARC1 p=reject\n"],
        ["not-a-record", "no-record"],
    ),
    (
        "at the domain itself",
        zone_text(GOOD, name="bank.test"),
        "bank.test",
        1,
        [f"bank.test has: {GOOD}\n", "let the record stand at _dmarc.bank.test"],
        ["not-a-record", "no-record"],
    ),
    (
        "a name that the zone made longer",
        zone_text(GOOD, name="_dmarc.bank.test.bank.test"),
        "bank.test",
        1,
        [f"_dmarc.bank.test.bank.test has: {GOOD}\n"],
        ["not-a-record", "no-record"],
    ),
    (
        "a name without the underscore",
        zone_text(GOOD, name="dmarc.bank.test"),
        "bank.test",
        1,
        [f"dmarc.bank.test has: {GOOD}\n"],
        ["not-a-record", "no-record"],
    ),
    (
        "a name too long to stand twice",
        "x.test. IN A 192.0.2.1",
        ".".join(["a" * 60] * 3 + ["bank.test"]),
        1,
        ["unusable (no-record)\n"],
        ["no-record"],
    ),
    (
        "at the domain itself as well",
        zone_text(GOOD, more=zone_text(GOOD, name="bank.test")),
        "bank.test",
        0,
        ["the record at _dmarc.bank.test holds\n"],
        [],
    ),
    (
        "misspelt policy",
        zone_text("v=DMARC1; p=rejct"),
        "bank.test",
        1,
        ["DMARC for mail from bank.test: unusable (record-unusable)\n", "p= cannot be read"],
        ["no-policy", "no-reports"],
    ),
    (
        "no policy",
        zone_text("v=DMARC1; rua=mailto:d@bank.test"),
        "bank.test",
        1,
        ["problem: no-policy\n", "policy in effect: none, as p= is missing\n"],
        ["no-policy"],
    ),
    (
        "misspelt policy with reports",
        zone_text("v=DMARC1; p=rejct; rua=mailto:d@bank.test"),
        "bank.test",
        1,
        ["DMARC for mail from bank.test: unusable (no-policy)\n", "policy in effect: none, as p= cannot be read"],
        ["no-policy"],
    ),
    (
        "misspelt sp",
        zone_text("v=DMARC1; p=reject; sp=x; rua=mailto:d@bank.test"),
        "bank.test",
        1,
        ["problem: no-policy\n", "policy in effect: none, as sp= cannot be read"],
        ["no-policy"],
    ),
    (
        "other broken tags",
        zone_text("v=DMARC1; p=reject; adkim=x; aspf=r; aspf=s; rua=mailto:d@bank.test"),
        "bank.test",
        0,
        ["aspf=, adkim= cannot be read, or stands there twice"],
        ["invalid-tag"],
    ),
    (
        "obsolete tags",
        zone_text("v=DMARC1; p=reject; pct=50; ri=3600; rua=mailto:d@bank.test"),
        "bank.test",
        0,
        ["pct=, ri= means nothing to RFC 9989", "in place of pct, t=y asks"],
        ["obsolete-tag"],
    ),
    (
        "a semicolon between two addresses",
        zone_text("v=DMARC1; p=reject; rua=mailto:a@bank.test; mailto:b@bank.test; x=y;"),
        "bank.test",
        0,
        ["it has: mailto:b@bank.test\n", "between two addresses in rua= stands a comma"],
        ["stray-text"],
    ),
    ("no reports", zone_text("v=DMARC1; p=reject"), "bank.test", 0, ["add rua="], ["no-reports"]),
    (
        "destinations that are none",
        zone_text("v=DMARC1; p=reject; rua=mailto:d@bank.test,,x@bank.test, http://bank.test/r ;ruf = mailto:"),
        "bank.test",
        0,
        ["rua= has: x@bank.test, http://bank.test/r\n", "ruf= cannot be read", "write it as mailto:ADDRESS"],
        ["invalid-tag", "ignored-destination"],
    ),
    (
        "a destination that is none in a record that is not shown whole",
        zone_text("v=DMARC1; p=reject; x=" + (r"\255" * 200 + '" "') * 6 + "; rua=mailto:d@bank.test,x"),
        "bank.test",
        0,
        ["rua: mailto:d@bank.test\n"],
        [],
    ),
    (
        "reports to strangers",
        zone_text("v=DMARC1; p=reject; rua=mailto:d@bank.test,mailto:x@reports.example"),
        "bank.test",
        0,
        [
            "mailto:x@reports.example: bank.test._report._dmarc.reports.example has no record that wants them\n",
            "publish a TXT record with v=DMARC1; at bank.test._report._dmarc.DESTINATION",
        ],
        ["reports-refused"],
    ),
    (
        "reports to strangers who want them",
        zone_text(
            "v=DMARC1; p=reject; rua=mailto:x@reports.example",
            more='bank.test._report._dmarc.reports.example. IN TXT "v=DMARC1;"',
        ),
        "bank.test",
        0,
        ["rua: mailto:x@reports.example"],
        [],
    ),
    (
        "reports to strangers who want them elsewhere",
        zone_text(
            "v=DMARC1; p=reject; rua=mailto:x@reports.example",
            more='bank.test._report._dmarc.reports.example. IN TXT "v=DMARC1; rua=mailto:x@other.example"',
        ),
        "bank.test",
        0,
        ["bank.test._report._dmarc.reports.example has a record that names yet another host\n"],
        ["reports-refused"],
    ),
    (
        "in testing",
        zone_text("v=DMARC1; p=reject; t=y; rua=mailto:d@bank.test"),
        "bank.test",
        0,
        ["policy in effect: quarantine, by p=", "note: testing\n"],
        ["testing"],
    ),
    (
        "asks for nothing",
        zone_text("v=DMARC1; p=none; rua=mailto:d@bank.test"),
        "bank.test",
        0,
        ["DMARC for mail from bank.test: usable (none)\n", "note: asks-for-nothing\n"],
        ["asks-for-nothing"],
    ),
    (
        "public suffix",
        zone_text("v=DMARC1; p=reject; psd=y; rua=mailto:d@bank.test"),
        "bank.test",
        0,
        ["note: public-suffix\n"],
        ["public-suffix"],
    ),
    (
        "hostile",
        zone_text(r"v=DMARC1; p=reject; x=\027[2J; rua=mailto:d@bank.test"),
        "bank.test",
        0,
        [r"record: v=DMARC1; p=reject; x=\x1b[2J; rua"],
        [],
    ),
    (
        "hostile, and no record",
        zone_text(r"\027[2J v=DMARC1; p=reject"),
        "bank.test",
        1,
        [r"_dmarc.bank.test has: \x1b[2J v=DMARC1; p=reject"],
        ["not-a-record", "no-record"],
    ),
]


@pytest.mark.parametrize(
    ("zone", "domain", "code", "said", "problems"), [pytest.param(*row[1:], id=row[0]) for row in DOMAINS]
)
def test_what_a_domain_publishes(
    check: Command, zone: str, domain: str, code: int, said: list[str], problems: list[str]
) -> None:
    done = check(domain, zone=zone)
    assert (done.code, done.err) == (code, "")
    for each in said:
        assert each in done.out, done.out
    report = json.loads(check(domain, "--json", zone=zone).out)
    assert [each["status"] for each in report["children"]] == problems
    assert all(each["what_to_do"] for each in report["children"])
    assert all(" " <= character <= "~" or character == "\n" for character in done.out)


def test_every_problem_is_shown() -> None:
    assert {problem for *_, problems in DOMAINS for problem in problems} == {
        problem.value for problem in DmarcProblem if problem is not DmarcProblem.NO_ANSWER
    }


@pytest.mark.parametrize(
    ("failing", "code", "said"),
    [
        pytest.param(
            "_dmarc.bank.test",
            75,
            "DMARC for mail from bank.test: unknown (policy-unavailable)\n",
            id="at the domain",
        ),
        pytest.param("_dmarc.test", 0, "organizational domain: unknown", id="above it"),
    ],
)
def test_servfail(
    mailguard_command: Command, monkeypatch: pytest.MonkeyPatch, failing: str, code: int, said: str
) -> None:
    zone = {"_dmarc.bank.test": {"TXT": [GOOD]}}
    resolver = ZoneResolver(zone, status={(failing, "TXT"): Status.TEMPFAIL})
    monkeypatch.setattr(mailguard.cli.dmarc, "open_resolver", lambda config: resolver)
    done = mailguard_command("dmarc", "check", "bank.test")
    assert done.code == code, done.out
    assert said in done.out
    assert f"problem: no-answer\n    the DNS did not answer for {failing}\n" in done.out


# Compared with RFC 7489


def test_the_two_ways_to_find_a_record(check: Command, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(SUFFIXES)
    zone = zone_text(GOOD, name="_dmarc.hosted.test")
    done = check("a.hosted.test", "--compare-7489", "--suffix-list", "list", zone=zone)
    assert done.code == 0, done.err
    assert "RFC 9989 beside RFC 7489: different\n" in done.out
    assert "The Organizational Domain is hosted.test by tree walk (RFC 9989) and a.hosted.test" in done.out
    assert "RFC 9989\n      organizational domain: hosted.test\n      record: _dmarc.hosted.test\n" in done.out
    assert "RFC 7489\n      organizational domain: a.hosted.test\n      record: none\n" in done.out


def test_what_a_record_without_p_comes_to_either_way(check: Command, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(SUFFIXES)
    zone = zone_text("v=DMARC1; rua=mailto:d@hosted.test", name="_dmarc.hosted.test")
    done = check("a.hosted.test", "--compare-7489", "--suffix-list", "list", zone=zone)
    assert "The policy is none (p= is missing) by RFC 9989 and not applied by RFC 7489.\n" in done.out
    assert "record: _dmarc.hosted.test\n      policy: none, as p= is missing\n" in done.out


def test_the_same_either_way(check: Command, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(SUFFIXES)
    done = check("bank.test", "--compare-7489", "--suffix-list", "list", zone=zone_text(GOOD))
    assert done.code == 0
    assert "RFC 9989 beside RFC 7489: the same\n" in done.out
    assert "difference: " not in done.out


def test_the_list_of_the_package(check: Command) -> None:
    done = check("bank.test", "--compare-7489", zone=zone_text(GOOD))
    assert done.code == 0
    assert "public_suffix_list.dat\n" in done.out


# What a user may do wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["dmarc"], 64, "Missing command"),
        (["dmarc", "check"], 64, "DOMAIN"),
        (["dmarc", "check", "no domain"], 64, "'no domain' is not a domain name"),
        (["dmarc", "check", "a.test", "--suffix-list", "x"], 64, "--suffix-list needs --compare-7489"),
        (["dmarc", "check", "a.test", "--compare-7489", "--suffix-list", "x"], 78, "x: the list of public suffixes"),
        (["dmarc", "check", "a.test", "--zone", "missing"], 78, "missing"),
    ],
)
def test_a_mistake_is_one_plain_line(mailguard_command: Command, arguments: list[str], code: int, said: str) -> None:
    done = mailguard_command(*arguments)
    is_told_in_one_line(done, code, said)


def test_help_tells_the_exit_codes(mailguard_command: Command) -> None:
    done = mailguard_command("dmarc", "check", "--help")
    assert done.code == 0
    assert "75 if the DNS does not answer" in " ".join(done.out.split())
