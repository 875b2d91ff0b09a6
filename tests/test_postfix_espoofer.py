"""The 19 attacks on servers of espoofer, through the real Postfix: none gets a pass for the domain that it imitates.

The vectors and what passing means are in the folder espoofer (SOURCE.txt): an attacker with a domain, attack.com,
whose wildcard answers every name with an SPF record that passes and a DKIM key, imitates legitimate.com. Sections D,
E and F of the attack table. RFC 8601 §2.2 (what Authentication-Results may hold), RFC 7208, RFC 6376, RFC 9989.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import authres
import pytest

import zone0
from judging_site import Fate, JudgingSite, Sending, open_judging_site
from judging_zones import domain_zone, key
from postfix_site import STRANGER, fields_named, header_fields
from unbound_site import UNBOUND
from vectors import require

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")]

VICTIM_OF_IMITATION = "legitimate.com"
ATTACKER_KEY = zone0.ed25519_key(30)
PASSES = f'"v=spf1 ip4:{STRANGER} -all"'
ZONES: Mapping[str, str] = {
    "legitimate.com.": domain_zone(
        spf_record='"v=spf1 ip4:192.0.2.10 -all"', dmarc="v=DMARC1; p=reject", private=zone0.ed25519_key(31)
    ),
    "attack.com.": f"@ IN TXT {PASSES}\n* IN TXT {PASSES}\n* IN TXT {key(ATTACKER_KEY)}\n"
    f"selector._domainkey IN TXT {key(ATTACKER_KEY)}\n",
    "victim.com.": domain_zone(spf_record='"v=spf1 -all"'),
}

# id: (the row of the attack table, the rule that refuses it)
CASES = {
    "server_a1": ("E01", "dmarc-reject"),
    "server_a2": ("E02", "dmarc-reject"),
    "server_a3": ("D02", "dmarc-reject"),
    "server_a4": ("D03", "dmarc-reject"),
    "server_a5": ("E03", "dmarc-reject"),
    "server_a6": ("E04", "dmarc-reject"),
    "server_a7": ("E05", "dmarc-reject"),
    "server_a8": ("F01", "malformed"),
    "server_a9": ("F04", "malformed"),
    "server_a10": ("F06", "malformed"),
    "server_a11": ("F07", "malformed"),
    "server_a12": ("F14", "malformed"),
    "server_a13": ("F15", "malformed"),
    # Two domains that can be judged: the stricter one stands (RFC 9989 §4.2 leaves it to the receiver).
    "server_a14": ("F16", "dmarc-reject"),
    "server_a15": ("F19", "malformed"),
    "server_a16": ("F20", "malformed"),
    "server_a17": ("F21", "malformed"),
    "server_a18": ("F22", "dmarc-reject"),
    "server_a19": ("F23", "malformed"),
}
ROWS = [
    pytest.param(name, rule, id=f"{row} {name}", marks=pytest.mark.attack(row)) for name, (row, rule) in CASES.items()
]
_HOSTNAME = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture(scope="module")
def attacks() -> Mapping[str, Sending]:
    folder = require("espoofer")
    cases = json.loads((folder / "cases.json").read_text(encoding="ascii"))
    return {
        case["id"]: _sending(case, (folder / case["file"]).read_bytes())
        for case in cases
        if case["id"].startswith("server_")
    }


def _sending(case: Mapping[str, Any], content: bytes) -> Sending:
    if signing := case["dkim_sign"]:
        content = zone0.sign_as(ATTACKER_KEY, content, d=signing["d"], s=signing["s"], h="from")
    sender = case["mail_from"].removeprefix("<").removesuffix(">")
    return Sending(content, sender, STRANGER, case["helo"])


@pytest.fixture(scope="module")
def enforcing() -> Iterator[JudgingSite]:
    with open_judging_site(zones=ZONES, signed=(), bogus=(), failing=()) as made:
        yield made


@pytest.fixture(scope="module")
def monitoring() -> Iterator[JudgingSite]:
    with open_judging_site(mode="monitor", zones=ZONES, signed=(), bogus=(), failing=()) as made:
        yield made


def test_every_attack_is_here(attacks: Mapping[str, Sending]) -> None:
    assert sorted(attacks) == sorted(CASES)


def test_the_attacker_s_own_mail_passes(monitoring: JudgingSite) -> None:
    """The attacks show something only if SPF and DKIM pass for the attacker's domain."""
    content = zone0.sign_as(ATTACKER_KEY, zone0.mail("<any@attack.com>"), d="attack.com", s="selector", h="from")
    fate = monitoring.fate(Sending(content, "any@any.attack.com"))
    assert fate.clause("spf").startswith("spf=pass"), fate
    assert fate.clause("dkim").startswith("dkim=pass"), fate
    assert fate.clause("dmarc").startswith("dmarc=none"), fate


@pytest.mark.parametrize(("name", "rule"), ROWS)
def test_enforce_refuses_it(enforcing: JudgingSite, attacks: Mapping[str, Sending], name: str, rule: str) -> None:
    fate = enforcing.fate(attacks[name])
    assert (fate.place, fate.answer.code, fate.record["rule"]) == ("refused", 550, rule), fate
    # One line of printable ASCII, without what SMTP or a reader would take for something else.
    assert re.fullmatch(rb"5\.\d+\.\d+ mailguard: [ -~]+", fate.answer.text), fate
    assert_only_hostnames_were_asked_for(enforcing)


@pytest.mark.parametrize(("name", "rule"), ROWS)
def test_monitor_reports_no_pass(
    monitoring: JudgingSite, attacks: Mapping[str, Sending], name: str, rule: str
) -> None:
    fate = monitoring.fate(attacks[name])
    assert fate.place == "delivered", fate
    assert (fate.record["would"], fate.record["rule"]) == ("reject", rule), fate
    assert_no_pass(fate)
    assert_only_hostnames_were_asked_for(monitoring)


def assert_no_pass(fate: Fate) -> None:
    """Neither a strict nor a careless reader of the header finds a pass for the domain that is imitated."""
    assert header_fields(fate.message)[0].startswith(b"Authentication-Results: mx.us.test;"), fate
    (ours,) = [value for value in fields_named(fate.message, "Authentication-Results") if b"mx.us.test" in value]
    assert re.fullmatch(rb"( [!-~]|\r\n\t[!-~])[ -~]*(\r\n\t[!-~][ -~]*)*", ours), fate
    parsed = authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {fate.results}")
    assert parsed.authserv_id == "mx.us.test"
    for result in parsed.results:
        for each in result.properties:
            domain = each.value.rpartition("@")[2].lower()
            imitates = domain == VICTIM_OF_IMITATION or domain.endswith(f".{VICTIM_OF_IMITATION}")
            assert not (result.result == "pass" and imitates), fate
    # Attack.com has no policy, so nothing here is a pass.
    assert [each.result for each in parsed.results if each.method == "dmarc"] in (["fail"], ["permerror"]), fate
    for name in ("Authentication-Results", "Received-SPF", "ARC-Authentication-Results"):
        for value in fields_named(fate.message, name):
            assert not re.search(rb"dmarc\s*=\s*pass", value, re.IGNORECASE), fate
            for clause in re.split(rb"[;()'\"]", value):
                assert not re.search(rb"=\s*pass.*legitimate\.com", clause, re.IGNORECASE | re.DOTALL), fate


def assert_only_hostnames_were_asked_for(site: JudgingSite) -> None:
    """Nothing of an attacker's that is no name reaches the DNS."""
    assert [name for name, _ in site.unbound.asked() if not _HOSTNAME.fullmatch(name)] == []
