"""docs/enforcing-senders.md, walked for each set-up: every command and every configuration of the page, in its order.

With a real MariaDB and PostgreSQL, Mail-in-a-Box's users.sqlite, docker-mailserver's files, the real daemon and the
real Postfix, which must refuse where the page says so. walk_host.py tells what is put in the place of what.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import ExitStack

import pytest

import zone0
from database_site import MariaDb, Postgres
from enforcing_page import PAGE, SENDERS, commands_for_docker, sections, steps
from walk_host import ALICE, BLOCKS, BOB, DATABASES, DONE_OTHERWISE, NO_LOGIN, REFUSED, SALES, SETUPS, Walk, open_walk

STRANGER = "198.51.100.66"
ONWARDS = tuple(f"Step {number}" for number in (3, 4, 5, 6))
BACK = "Back"

needs_postfix = pytest.mark.skipif(
    shutil.which("postfix", path="/usr/sbin") is None or shutil.which("swaks") is None or os.geteuid() != 0,
    reason="needs root, postfix and swaks",
)


@pytest.mark.postfix
@needs_postfix
@pytest.mark.parametrize("setup", SETUPS)
def test_the_page_leads_to_what_it_says(setup: str) -> None:
    if ("MariaDB" in setup and not MariaDb.is_installed()) or ("PostgreSQL" in setup and not Postgres.is_installed()):
        pytest.skip("the database is not installed")
    with ExitStack() as stack:
        walk = open_walk(stack, setup)
        walk.follow(setup)
        for name in ONWARDS:
            walk.follow(name)
            check_after(name, walk)
        walk.follow(BACK)
        walk.run(forged(), code=0)
        if setup not in DATABASES:
            # Their own settings say so already.
            daemon_is_away(walk)
        walk.follow("Postfix's own settings")
        walk.run("postfix reload")
        daemon_is_away(walk)


def forged() -> str:
    """The page's try."""
    (command,) = {step.text for step in steps("Step 4") if step.text.startswith("swaks")}
    return command


def check_after(name: str, walk: Walk) -> None:
    """What the page says in words."""
    walk.await_log()
    log = walk.daemon.log()
    if name == "Step 4":
        walk.postfix.wait_delivered(1)
        assert " would=reject rule=sender-from " in log
        assert "sender-unavailable" not in log
    if name == "Step 5":
        delivered = walk.postfix.delivered_count()
        assert " action=reject " in log
        for own in (ALICE, SALES, "alice+tag@example.com"):
            walk.run(forged().replace(f"From: {BOB}", f"From: {own}"), code=0)
        found = walk.postfix.wait_delivered(delivered + 3)
        assert all(b"From: bob" not in each.message for each in found[delivered:])
        walk.postfix.wait_empty()
        if walk.setup in DATABASES:
            (shown,) = re.findall(r"^role=sign (.*) reason=(.*)$", SENDERS.read_text("utf-8"), re.MULTILINE)
            (line,) = [line for line in log.splitlines() if " action=reject " in line]
            assert all(words in line for words in (*shown[0].split(), f"reason={shown[1]}")), line
            assert b"\nDKIM-Signature:" in found[-1].message
            mail_from_outside_is_left_as_it_is(walk)
        walk.run(f"{forged()} --add-header 'From: {ALICE}'", code=REFUSED)
    if name == "Step 6":
        wrote = [line for line in walk.output.splitlines() if " role=" in line]
        assert [" rule=malformed " in line for line in wrote if " action=reject " in line] == [False, True], wrote
        assert not any(" role=verify " in line for line in wrote)


def mail_from_outside_is_left_as_it_is(walk: Walk) -> None:
    """Of a domain that asks for reject."""
    for author in (b"<x@bank.test>", b"nobody"):
        with walk.postfix.session("inbound") as client:
            assert client.docmd("XCLIENT", f"NAME=client.test ADDR={STRANGER}")[0] == 220
            client.ehlo()
            assert client.sendmail("x@evil.test", [ALICE], zone0.mail(author)) == {}
    walk.await_log(f" client={STRANGER} ", 2)
    found = [line for line in walk.daemon.log().splitlines() if f" client={STRANGER} " in line]
    # Two workers write two lines, in any order.
    assert sorted("dmarc=fail" in line for line in found) == [False, True], found
    assert all(" action=accept " in line for line in found), found


def daemon_is_away(walk: Walk) -> None:
    """Nothing passes."""
    walk.daemon.stop()
    delivered = walk.postfix.delivered_count()
    assert " 454 4.3.0 " in walk.run(forged(), code=NO_LOGIN)
    assert (walk.postfix.delivered_count(), walk.postfix.queue()) == (delivered, [])


def test_every_command_of_the_page_is_in_a_section_that_is_walked() -> None:
    walked = (*SETUPS, *ONWARDS, BACK, "Postfix's own settings")
    for heading, found in sections().items():
        assert any(heading.startswith(name) for name in walked), (heading, found)
    assert {step.kind for found in sections().values() for step in found} <= {"run", *BLOCKS}


def test_only_what_needs_systemd_or_docker_is_done_otherwise() -> None:
    """None is added here without a word about it: these begin or signal a service of the host."""
    assert set(DONE_OTHERWISE) == {
        "systemctl daemon-reload",
        "systemctl restart mailguard-milter",
        "systemctl reload mailguard-milter",
        "docker compose up -d --build mailguard",
        "docker compose up -d --force-recreate mailserver",
        "docker compose kill -s HUP mailguard",
    }
    written = {step.text for found in sections().values() for step in found if step.kind == "run"}
    written |= {new for _, new in commands_for_docker()}
    assert set(DONE_OTHERWISE) <= written
    assert {line for line in written if line.startswith("systemctl")} <= set(DONE_OTHERWISE)


def test_the_links_of_the_page_lead_somewhere() -> None:
    for document in (PAGE, SENDERS):
        for link in re.findall(r"\]\(([^)]+)\)", document.read_text("utf-8")):
            name, _, anchor = link.partition("#")
            target = document.parent / name if name else document
            assert target.exists(), link
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}
            assert not anchor or anchor in anchors, link
