"""Without a resolver, through the real Postfix: exactly the messages whose refusal hangs on the DNS wait.

RFC 9989 §5.3.6 (a temporary error is no reason to fail), RFC 7208 §2.6.6, RFC 6376 §6.1.2. The resolver is gone, or
it is silent. Before the outage some domains are made known to the daemon, wholly or in part: what it has cached it
still knows. One worker, because each has a cache of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import pytest

import zone0
from daemon_process import eventually
from judging_site import JudgingSite, Sending, open_mail
from judging_zones import domain_zone, key
from unbound_site import UNBOUND, Unbound

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")]

T = TypeVar("T")
KEY = zone0.ed25519_key(40)
OTHER_HOST = '"v=spf1 ip4:192.0.2.99 -all"'
EVIL_SPF = '"v=spf1 ip4:198.51.100.66 -all"'
REJECT, NONE = "v=DMARC1; p=reject", "v=DMARC1; p=none"
# A resolver that comes back is believed at the latest after this time: so long are failures cached (N12, N16).
RECOVERY_S = 5.0
SHORT_TTL_S = 1
# Longer than the shortest TTL, at which the records of brief.test run out.
UNTIL_BRIEF_IS_OVER_S = 1.5
# Times in seconds for the daemon, so that silence is short here; a resolver that is there may be held up for as long.
IMPATIENT = "deadline_s = 9.0\nquery_timeout_s = 4.0"
MAX_FURTHER_FILES = 4
PATIENCE_S = 60.0
POLL_S = 0.02


def zone(dmarc: str) -> str:
    return domain_zone(spf_record=OTHER_HOST, dmarc=dmarc, private=KEY)


ZONES: Mapping[str, str] = {
    "evil.test.": f"@ IN TXT {EVIL_SPF}\n* IN TXT {EVIL_SPF}\n",
    "known-reject.test.": zone(REJECT),
    "known-none.test.": zone(NONE),
    "keyless-reject.test.": zone(REJECT),
    "keyless-none.test.": zone(NONE),
    "brief.test.": domain_zone(spf_record=OTHER_HOST, private=KEY) + f'_dmarc {SHORT_TTL_S} IN TXT "{REJECT}"\n',
    "cold-reject.test.": zone(REJECT),
    "cold-none.test.": zone(NONE),
    "cold-sender.test.": domain_zone(spf_record=OTHER_HOST),
    "back.test.": domain_zone(dmarc=REJECT) + f"s1._domainkey IN TXT {key(KEY)}\n",
}


def unsigned(domain: str, *, sender: str = "evil.test") -> Sending:
    """From that domain in From; `sender` is the domain of the reverse path."""
    return Sending(zone0.mail(f"<a@{domain}>"), f"x@{sender}")


def signed(domain: str, *, sender: str = "evil.test") -> Sending:
    return Sending(zone0.sign_as(KEY, zone0.mail(f"<a@{domain}>"), d=domain), f"x@{sender}")


# What the daemon gets to know before the outage: of the keyless ones all but the key, of the cold ones nothing.
KNOWN = [
    signed("known-reject.test"),
    signed("known-none.test"),
    unsigned("keyless-reject.test"),
    unsigned("keyless-none.test"),
    unsigned("evil.test"),
    signed("brief.test"),
]

TRAFFIC = {
    # id: (message, the answer of an enforcing daemon while the DNS is there, the answer without, dmarc= without)
    "known, passes": (signed("known-reject.test"), 250, 250, "pass"),
    "known, fails": (unsigned("known-reject.test"), 550, 550, "fail"),
    "known p=none, passes": (signed("known-none.test"), 250, 250, "pass"),
    "known p=none, fails": (unsigned("known-none.test"), 250, 250, "fail"),
    "known to have no policy": (unsigned("evil.test"), 250, 250, "none"),
    "malformed": (
        Sending(b"From: <a@cold-none.test>\r\n" + zone0.mail("<a@cold-reject.test>"), "x@evil.test"),
        550,
        550,
        "permerror",
    ),
    "known, the sender is not, and cannot be aligned": (
        unsigned("known-reject.test", sender="cold-sender.test"),
        550,
        550,
        "fail",
    ),
    "known, the sender is not, and could be aligned": (
        unsigned("known-reject.test", sender="cold.known-reject.test"),
        550,
        451,
        "temperror",
    ),
    "known p=none, the sender is not": (
        unsigned("known-none.test", sender="cold.known-none.test"),
        250,
        250,
        "temperror",
    ),
    "the key is not known": (signed("keyless-reject.test"), 250, 451, "temperror"),
    "the key is not known, p=none": (signed("keyless-none.test"), 250, 250, "temperror"),
    "the policy is not known any more, passes": (signed("brief.test"), 250, 250, "temperror"),
    "the policy is not known any more": (unsigned("brief.test"), 550, 451, "temperror"),
    "nothing is known, signed": (signed("cold-reject.test"), 250, 451, "temperror"),
    "nothing is known": (unsigned("cold-reject.test"), 550, 451, "temperror"),
    # That its policy is p=none nobody knows.
    "nothing is known, p=none, signed": (signed("cold-none.test"), 250, 451, "temperror"),
    "nothing is known, p=none": (unsigned("cold-none.test"), 250, 451, "temperror"),
}
ACTIONS = {250: "accept", 451: "tempfail", 550: "reject"}


@dataclass(frozen=True, slots=True)
class Sites:
    """Two daemons, which ask one resolver."""

    unbound: Unbound
    enforcing: JudgingSite
    monitoring: JudgingSite

    def at_both(self, what: Callable[[JudgingSite], T]) -> dict[str, T]:
        """At the same time: what a daemon knows lasts a minute, and silence is long."""
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(("enforce", "monitor"), pool.map(what, (self.enforcing, self.monitoring)), strict=True))


@pytest.fixture(scope="module")
def sites(engine: str) -> Iterator[Sites]:
    with (
        Unbound(ZONES) as unbound,
        open_mail(unbound, mode="enforce", dns=IMPATIENT, workers=1, engine=engine) as enforcing,
        open_mail(unbound, mode="monitor", dns=IMPATIENT, workers=1, engine=engine) as monitoring,
    ):
        yield Sites(unbound, enforcing, monitoring)


def numbered(sendings: list[Sending]) -> list[Sending]:
    """With a reverse path of its own for each, by which its line in the log is known."""
    return [replace(each, sender=f"n{number}{each.sender!s}") for number, each in enumerate(sendings)]


def answers_at_once(site: JudgingSite) -> tuple[dict[str, int], dict[str, object], dict[str, object]]:
    """All of the traffic, each message twice at the same moment: answers, what enforcing does, and dmarc=, by id."""
    names = [*TRAFFIC, *TRAFFIC]
    fates = site.fates(numbered([TRAFFIC[name][0] for name in names]))
    found = list(zip(names, fates, strict=True))
    codes = {name: fate.answer.code for name, fate in found}
    would = {name: fate.record.get("would") or fate.record["action"] for name, fate in found}
    dmarc = {name: fate.record["dmarc"] for name, fate in found}
    for name, fate in found:
        assert (fate.answer.code, fate.record["dmarc"]) == (codes[name], dmarc[name]), (name, fate)
        if fate.place == "delivered":
            assert fate.clause("dmarc").split()[0] == f"dmarc={dmarc[name]}", fate
    return codes, would, dmarc


def open_files(site: JudgingSite) -> int:
    (worker,) = site.mail.daemon.workers()
    return len(os.listdir(f"/proc/{worker}/fd"))


def gone(unbound: Unbound) -> Callable[[], None]:
    unbound.kill()
    return unbound.start


def silent(unbound: Unbound) -> Callable[[], None]:
    unbound.pause()
    return unbound.resume


@pytest.mark.attack("D36", "M03", "M04", "N12", "N16", "V11")
@pytest.mark.parametrize("outage", [gone, silent])
def test_only_what_hangs_on_the_dns_waits(sites: Sites, outage: Callable[[Unbound], Callable[[], None]]) -> None:
    files = sites.at_both(learn)
    time.sleep(UNTIL_BRIEF_IS_OVER_S)
    end_outage = outage(sites.unbound)
    try:
        during = sites.at_both(answers_at_once)
    finally:
        end_outage()
    came_back = time.monotonic()
    for mode, (codes, would, dmarc) in during.items():
        # Accepted by an enforcing daemon is what it would accept in any case, and by a monitoring one everything.
        assert codes == {name: 250 if mode == "monitor" else code for name, (_, _, code, _) in TRAFFIC.items()}
        assert would == {name: ACTIONS[code] for name, (_, _, code, _) in TRAFFIC.items()}
        assert dmarc == {name: word for name, (_, _, _, word) in TRAFFIC.items()}
    # Then all is as it ever was, at the first attempt.
    time.sleep(max(0.0, came_back + RECOVERY_S - time.monotonic()))
    for mode, (codes, would, _) in sites.at_both(answers_at_once).items():
        assert codes == {name: 250 if mode == "monitor" else code for name, (_, code, _, _) in TRAFFIC.items()}
        assert would == {name: ACTIONS[code] for name, (_, code, _, _) in TRAFFIC.items()}
    for mode, most in files.items():
        site = sites.enforcing if mode == "enforce" else sites.monitoring
        # Postfix closes a connection some time after the client has its answer.
        eventually(partial(has_closed_files, site, most))


def has_closed_files(site: JudgingSite, most: int) -> bool:
    return open_files(site) <= most + MAX_FURTHER_FILES


def learn(site: JudgingSite) -> int:
    """Make a daemon that knows nothing know what KNOWN tells; the files that it then has open."""
    forget(site)
    for fate in site.fates(numbered(KNOWN)):
        assert fate.answer.code in (250, 550), fate
    return open_files(site)


def forget(site: JudgingSite) -> None:
    """A new generation, whose cache is empty."""
    site.mail.daemon.reload()
    deadline = time.monotonic() + PATIENCE_S
    while len(site.mail.daemon.workers()) > 1:
        assert time.monotonic() < deadline, site.mail.daemon.log_tail()
        time.sleep(POLL_S)


@pytest.mark.attack("N15")
def test_a_daemon_that_starts_without_dns_serves_and_recovers(sites: Sites) -> None:
    site = sites.enforcing
    sites.unbound.kill()
    try:
        site.mail.daemon.stop()
        site.mail.daemon.start()
        fate = site.fate(signed("back.test"))
    finally:
        sites.unbound.start()
    assert (fate.answer.code, fate.record["dmarc"]) == (451, "temperror"), fate
    time.sleep(RECOVERY_S)
    fate = site.fate(signed("back.test"))
    assert (fate.answer.code, fate.record["dmarc"]) == (250, "pass"), fate
