"""Settings with which mail of strangers would be signed: a problem of `mailguard doctor`, said by the plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from audit_site import POSTCONF
from mailguard.audit.gather import Places, gather
from mailguard.config import load
from mailguard.setup_host.doctor_cards import milters_card
from mailguard.setup_host.milter_plan import milter_plan
from setup_site import ConfigDirectory

pytestmark = pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed")

SOCKET = "unix:/run/mailguard/mailguard.sock"
PAIR = (("unix:/run/mailguard/verify.sock", "verify"), ("unix:/run/mailguard/sign.sock", "sign"))
LISTED = '[[sign.networks]]\nnetworks = ["127.0.0.1/32"]\ndomains = ["us.test", "our.test"]\n'
LISTED_6 = LISTED.replace("127.0.0.1/32", "::1/128")
SIGNED = "mail of strangers is signed for us.test, our.test, as [[sign.networks]] lists 127.0.0.1"
FILTER = {"smtpd_milters": SOCKET, "content_filter": "smtp:[127.0.0.1]:10025"}
BESIDE_ANOTHER = {**FILTER, "smtpd_milters": f"{SOCKET}, inet:127.0.0.1:11332"}
BACK = {"content_filter": ""}
NAMED = {"milter_macro_daemon_name": "ORIGINATING"}
PROGRAM = "pickup unix n - n 60 1 pickup\nspamd unix - n n - - pipe\n  user=spamd argv=/bin/spamc\n"

Services = dict[str, Mapping[str, str]]
CASES: list[tuple[str, str, tuple[tuple[str, str], ...], dict[str, str], Services, str, str]] = [
    # id, tables of mailguard's, its listeners, main.cf, services, what is a problem, what is a note
    ("filter", LISTED, (), FILTER, {"127.0.0.1:10025": BACK}, SIGNED, ""),
    ("filter-at-localhost", LISTED, (), FILTER, {"localhost:10025": BACK}, SIGNED, ""),
    ("filter-by-ipv6", LISTED_6, (), FILTER, {"[::1]:10025": BACK}, SIGNED.replace("127.0.0.1", "::1"), ""),
    ("not-listed", "", (), BESIDE_ANOTHER, {"127.0.0.1:10025": BACK}, "", "what the filter sends is judged"),
    (
        "of-the-other-kind",
        LISTED_6,
        (),
        BESIDE_ANOTHER,
        {"127.0.0.1:10025": BACK},
        "",
        "what the filter sends is judged",
    ),
    (
        "judged-by-the-role",
        LISTED,
        PAIR,
        {**FILTER, "smtpd_milters": PAIR[0][0]},
        {"127.0.0.1:10025": BACK},
        "",
        "what the filter sends is judged",
    ),
    ("mended", LISTED, (), FILTER, {"127.0.0.1:10025": {**BACK, "receive_override_options": "no_milters"}}, "", ""),
    (
        "it-is-not-known-where-it-returns",
        LISTED,
        (),
        FILTER,
        {},
        "",
        "mail of strangers that it returns from this host is signed for us.test, our.test otherwise",
    ),
    ("program", LISTED, (), {"content_filter": "spamd:dummy"}, {}, f"is removed, and {SIGNED}", ""),
    ("program-not-listed", "", (), {"content_filter": "spamd:dummy"}, {}, "", "spamd filters mail with a program"),
    ("port-25", "", (), {}, {"smtp": NAMED}, "signed. Take that away: postconf", ""),
    (
        "port-25-without-milters",
        "",
        (),
        {},
        {"smtp": {**NAMED, "smtpd_milters": ""}},
        "",
        "smtp/inet is called ORIGINATING",
    ),
    ("port-25-is-judged-by-the-role", "", PAIR, {}, {"smtp": NAMED}, "", "smtp/inet is called ORIGINATING"),
    (
        "port-25-has-the-signer",
        "",
        PAIR,
        {"smtpd_milters": PAIR[1][0]},
        {"smtp": NAMED},
        "smtp/inet is called ORIGINATING",
        "",
    ),
    (
        "port-25-is-called-as-the-host",
        '[sign]\ndaemon_names = ["mx.us.test"]\n',
        (),
        {"myhostname": "mx.us.test"},
        {"smtp": {}},
        "signed. Take mx.us.test, as Postfix calls each service without a name, out of sign.daemon_names",
        "",
    ),
    ("on-loopback", "", (), {}, {"127.0.0.1:10026": NAMED}, "", "127.0.0.1:10026/inet is called ORIGINATING"),
]


@pytest.mark.parametrize(
    ("tables", "listeners", "main", "services", "problem", "note"),
    [row[1:] for row in CASES],
    ids=[row[0] for row in CASES],
)
def test_what_would_have_mail_of_strangers_signed(
    tmp_path: Path,
    tables: str,
    listeners: tuple[tuple[str, str], ...],
    main: dict[str, str],
    services: Services,
    problem: str,
    note: str,
) -> None:
    site = ConfigDirectory(tmp_path)
    site.configure(*listeners, more=tables)
    site.write(main, services)
    if main.get("content_filter", "").startswith("spamd"):
        master = site.path / "master.cf"
        master.write_text(master.read_text() + PROGRAM)
        site.grow_old()
    facts = gather(Places(Path("/"), str(site.path)), now=0.0)
    config = load(site.config_file)
    plan = milter_plan(facts, config, chrooted=frozenset())
    card = milters_card(facts, config, plan, chrooted=frozenset())
    problems = [
        each.detail for each in card.children if each.title == "problem" and "does not name it" not in each.detail
    ]
    assert [problem in each for each in problems] == ([True] if problem else []), problems
    assert problems == [each.text for each in plan.notes if each.is_problem]
    notes = [each.text for each in plan.notes if not each.is_problem]
    assert any(note in each for each in notes), notes


def test_a_host_with_many_domains(tmp_path: Path) -> None:
    site = ConfigDirectory(tmp_path)
    domains = ", ".join(f'"{number}.test"' for number in range(7))
    site.configure(more=f'[[sign.networks]]\nnetworks = ["127.0.0.0/8"]\ndomains = [{domains}]\n')
    site.write(FILTER, {"127.0.0.1:10025": BACK})
    facts = gather(Places(Path("/"), str(site.path)), now=0.0)
    plan = milter_plan(facts, load(site.config_file), chrooted=frozenset())
    (said,) = [each.text for each in plan.notes if each.is_problem]
    assert "is signed for 0.test, 1.test, 2.test, 3.test, 4.test and 2 more, as" in said


def test_bounces_that_are_to_be_signed(tmp_path: Path) -> None:
    """Whoever is told to list 127.0.0.1 is told when not to."""
    site = ConfigDirectory(tmp_path)
    for classes in ("", "bounce"):
        site.write({"internal_mail_filter_classes": classes})
        facts = gather(Places(Path("/"), str(site.path)), now=0.0)
        plan = milter_plan(facts, load(site.config_file), chrooted=frozenset())
        (said,) = [each.text for each in plan.notes if each.text.startswith("internal_mail_filter_classes")]
        assert "127.0.0.1" in said
        assert "content filter returns mail from there" in said
