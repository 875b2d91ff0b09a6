"""Mail that does not pass mailguard though Postfix seems to name it: what `mailguard doctor` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from audit_site import POSTCONF
from mailguard.audit.gather import Places, gather
from mailguard.config import load
from mailguard.explain.explanation import Explanation
from mailguard.setup_host.doctor_cards import milters_card
from mailguard.setup_host.milter_plan import milter_plan
from mailguard.setup_host.postfix_files import read_chroots
from setup_site import SUBMISSION, ConfigDirectory

pytestmark = pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed")

Services = Mapping[str, Mapping[str, str]]


def card(
    site: ConfigDirectory, main: Mapping[str, str], services: Services | None = None, *, chroot: str = "n"
) -> Explanation:
    site.write({"non_smtpd_milters": "$smtpd_milters", **main}, services, chroot=chroot)
    facts = gather(Places(Path("/"), str(site.path)), now=0.0)
    config = load(site.config_file)
    chrooted = read_chroots(facts.postfix, postconf="postconf")
    plan = milter_plan(facts, config, chrooted=chrooted)
    return milters_card(facts, config, plan, chrooted=chrooted)


def said(found: Explanation, mark: str) -> Sequence[str]:
    return [each.detail for each in found.children if each.title == mark]


# -- a socket that is not where Postfix looks for it ---------------------------------------------------------------

BELOW, AS_IN_A_CHROOT, RELATIVE = "unix:{queue}/mailguard/m.sock", "unix:/mailguard/m.sock", "unix:mailguard/m.sock"
ADDRESSES: list[tuple[str, str, str, str]] = [
    # id, whether the services run in a chroot, what main.cf has, where the socket is looked for; empty if it is there
    ("relative", "y", RELATIVE, ""),
    ("from-the-root-of-the-chroot", "y", AS_IN_A_CHROOT, ""),
    ("the-whole-path-in-a-chroot", "y", BELOW, "{queue}{queue}/mailguard/m.sock"),
    ("relative-and-no-chroot", "n", RELATIVE, ""),
    ("the-whole-path", "n", BELOW, ""),
    ("as-in-a-chroot-without-one", "n", AS_IN_A_CHROOT, "/mailguard/m.sock"),
]


@pytest.mark.parametrize(
    ("chroot", "address", "place"), [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES]
)
def test_a_socket_that_a_service_does_not_find(tmp_path: Path, chroot: str, address: str, place: str) -> None:
    site = ConfigDirectory(tmp_path)
    site.configure((BELOW.format(queue=site.queue), "auto"))
    found = card(site, {"smtpd_milters": address.format(queue=site.queue)}, chroot=chroot)
    problems = said(found, "problem")
    assert [each.partition(" ")[0] for each in problems] == (
        ["smtp/inet", "submission/inet", "cleanup/unix"] if place else []
    )
    assert all(f"it looks for {place.format(queue=site.queue)}, " in each for each in problems)


def test_one_service_in_a_chroot_does_not_find_what_others_do(tmp_path: Path) -> None:
    site = ConfigDirectory(tmp_path)
    whole = BELOW.format(queue=site.queue)
    site.configure((whole, "auto"))
    services = {"submission": {**SUBMISSION, "smtpd_milters": whole}}
    found = card(site, {"smtpd_milters": RELATIVE}, services, chroot="y")
    assert [each.partition(" ")[0] for each in said(found, "problem")] == ["submission/inet"]


# -- services without milters --------------------------------------------------------------------------------------

SOCKET = "unix:/run/mailguard/mailguard.sock"
NO_MILTERS = {"receive_override_options": "no_address_mappings,no_milters"}
EMPTIED = {"smtpd_milters": ""}
PASSED_BY: list[tuple[str, Mapping[str, str], Services, str, list[str]]] = [
    # id, main.cf, services, the mark, the services that are named
    ("none", {}, {}, "", []),
    ("port-25", {}, {"smtp": NO_MILTERS}, "note", ["smtp/inet"]),
    ("submission", {}, {"submission": {**SUBMISSION, **NO_MILTERS}}, "note", ["submission/inet"]),
    ("all", NO_MILTERS, {}, "problem", ["smtp/inet", "submission/inet"]),
    (
        "all-but-what-comes-from-a-filter",
        NO_MILTERS,
        {"127.0.0.1:10026": {"receive_override_options": "no_address_mappings"}},
        "note",
        ["smtp/inet", "submission/inet"],
    ),
    ("port-25-is-emptied", {}, {"smtp": EMPTIED}, "note", ["smtp/inet"]),
    ("from-a-filter-on-this-host", {}, {"127.0.0.1:10026": NO_MILTERS}, "", []),
]


@pytest.mark.parametrize(
    ("main", "services", "mark", "places"), [row[1:] for row in PASSED_BY], ids=[row[0] for row in PASSED_BY]
)
def test_services_whose_mail_passes_no_milter(
    tmp_path: Path, main: Mapping[str, str], services: Services, mark: str, places: list[str]
) -> None:
    found = card(ConfigDirectory(tmp_path), {"smtpd_milters": SOCKET, **main}, services)
    named = [(each.title, each.detail) for each in found.children if "mail does not pass" in each.detail]
    assert [(title, detail.partition(": ")[0]) for title, detail in named] == [(mark, place) for place in places]
    assert all("no_milters" in detail or "smtpd_milters is empty" in detail for _, detail in named)


@pytest.mark.parametrize(("service", "mark"), [("smtp", "problem"), ("127.0.0.1:10026", "note")])
def test_mail_behind_a_proxy(tmp_path: Path, service: str, mark: str) -> None:
    """Postfix then asks milters about the commands alone."""
    services = {service: {"smtpd_proxy_filter": "127.0.0.1:10024"}}
    found = card(ConfigDirectory(tmp_path), {"smtpd_milters": SOCKET}, services)
    (shown,) = (each for each in found.children if "hands mail to a proxy" in each.detail)
    assert shown.title == mark
    assert shown.detail.startswith(f"{service}/inet hands mail to a proxy (smtpd_proxy_filter = 127.0.0.1:10024)")


# -- lists for single clients --------------------------------------------------------------------------------------

MAPS = {"smtpd_milter_maps": "cidr:/etc/postfix/milters"}


@pytest.mark.parametrize(
    ("main", "services", "places"),
    [
        pytest.param({}, {}, [], id="none"),
        pytest.param(MAPS, {}, ["main.cf"], id="for-all"),
        pytest.param({}, {"submission": {**SUBMISSION, **MAPS}}, ["submission/inet"], id="for-one"),
        pytest.param({}, {"smtp": {**NO_MILTERS, **MAPS}}, [], id="where-there-are-no-milters"),
    ],
)
def test_a_table_of_milters_by_client(
    tmp_path: Path, main: Mapping[str, str], services: Services, places: list[str]
) -> None:
    found = card(ConfigDirectory(tmp_path), {"smtpd_milters": SOCKET, **main}, services)
    notes = [each for each in said(found, "note") if "smtpd_milter_maps" in each]
    assert [each.partition(": ")[0] for each in notes] == places
    assert all("smtpd_milter_maps = cidr:/etc/postfix/milters: " in each for each in notes)


# -- sockets that listeners have left ------------------------------------------------------------------------------

VERIFIER, SIGNER = "unix:/run/mailguard/verify.sock", "unix:/run/mailguard/sign.sock"
PAIR = {"smtpd_milters": VERIFIER, "non_smtpd_milters": SIGNER}


@pytest.mark.parametrize(
    ("main", "services", "left"),
    [
        pytest.param(PAIR, {}, [], id="none"),
        pytest.param({**PAIR, "smtpd_milters": f"{VERIFIER}, {SOCKET}"}, {}, [SOCKET], id="for-all"),
        pytest.param(
            {"smtpd_milters": f"{VERIFIER}, {{ {SOCKET}, default_action=tempfail }}"}, {}, [SOCKET], id="in-braces"
        ),
        pytest.param({**PAIR, "non_smtpd_milters": f"{SOCKET}, {SIGNER}"}, {}, [SOCKET], id="for-sendmail"),
        pytest.param(
            PAIR, {"submission": {**SUBMISSION, "smtpd_milters": f"{SOCKET},{SIGNER}"}}, [SOCKET], id="for-one"
        ),
        pytest.param(
            {**PAIR, "smtpd_milters": f"{VERIFIER}, unix:mailguard/m.sock"},
            {},
            ["unix:mailguard/m.sock"],
            id="relative",
        ),
        pytest.param({**PAIR, "smtpd_milters": f"{VERIFIER}, unix:/run/opendkim/opendkim.sock"}, {}, [], id="others"),
    ],
)
def test_a_socket_that_a_listener_has_left(
    tmp_path: Path, main: Mapping[str, str], services: Services, left: list[str]
) -> None:
    """One listener became two, as docs/postfix.md has it: mail waits while Postfix asks where nobody is any more."""
    site = ConfigDirectory(tmp_path)
    site.configure((VERIFIER, "verify"), (SIGNER, "sign"))
    problems = [each for each in said(card(site, main, services), "problem") if "no listener of the conf" in each]
    assert [each.split()[2].rstrip(",") for each in problems] == left
