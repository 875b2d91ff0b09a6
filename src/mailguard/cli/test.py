"""`mailguard test --send ADDRESS`: one message sent through this host's Postfix, and what became of it.

It watches the logs of Postfix and of the daemon until the message has left, and says what to mend where mailguard did
nothing. It changes nothing.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from mailguard.audit.facts import HostFacts
from mailguard.audit.gather import Places as HostPlaces
from mailguard.audit.gather import gather
from mailguard.cli.delivered_copy import find_copy
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import host_options
from mailguard.cli.mail_log import MailLog, Places, default_places, distinct
from mailguard.cli.mail_trail import Trail
from mailguard.cli.parameters import FILE, read_as
from mailguard.cli.trail_cards import Trial, cards, copy_card, exit_code_of
from mailguard.cli.tree_report import show
from mailguard.cli.trial_message import Handed, MailAddress, SmtpPlace, TrialMessage, by_sendmail, by_smtp
from mailguard.cli.waiting import waiting
from mailguard.config import Config, load
from mailguard.configured_dns import resolver_config
from mailguard.dkim.result import DkimResult
from mailguard.dns.live import open_resolver
from mailguard.errors import ConfigError
from mailguard.key_places import keys_of
from mailguard.message import Message
from mailguard.pipeline import verify_dkim
from mailguard.scorecard.card import scorecard
from mailguard.setup_host.milter_plan import MilterPlan, milter_plan
from mailguard.setup_host.postfix_files import read_chroots

__all__ = ["local_mailbox", "test"]

DEFAULT_WAIT_S = 60
LOOK_EVERY_S = 0.1
# The daemon writes its lines a tenth of a second late, and syslog may take its time.
LINGER_S = 2.0
# pickup(8) looks at once, or a minute later if it was about to end, as after a reload.
WAKE_AFTER_S = 2.0
COMMAND_TIMEOUT_S = 20.0
MAX_PASSWORD_BYTES = 1_024


@click.command()
@click.option(
    "--send", "recipient", metavar="ADDRESS", required=True, callback=read_as(MailAddress.parse), help="To whom."
)
@click.option(
    "--from",
    "sender",
    metavar="ADDRESS",
    callback=read_as(MailAddress.parse),
    help="From whom. [default: postmaster of the first domain that there is a key for]",
)
@click.option(
    "--smtp",
    "place",
    metavar="HOST[:PORT]",
    callback=read_as(SmtpPlace.parse),
    help="Submit it there, as a user's program does (port 587), in place of sendmail(1).",
)
@click.option("--login", metavar="USER", help="With --smtp: log in; the password is asked for.")
@click.option("--password-file", type=FILE, metavar="FILE", help="With --login: its first line is the password.")
@click.option(
    "--log",
    "logs",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="Watch this log; may be repeated. [default: Postfix's own, syslog's, or journald]",
)
@click.option(
    "--mailbox",
    type=FILE,
    metavar="PATH",
    help="A file of mailboxes or a Maildir, where it will be: verify its signature. [default: if it is delivered by"
    " local(8), the user's]",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1, 3600),
    default=DEFAULT_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to watch.",
)
@host_options
def test(
    recipient: MailAddress,
    sender: MailAddress | None,
    place: SmtpPlace | None,
    login: str | None,
    password_file: str | None,
    logs: Sequence[str],
    mailbox: str | None,
    wait_s: int,
    config_file: str,
    config_directory: str | None,
    postconf: str,
    as_json: bool,
) -> ExitCode:
    """Send one message through this host, watch the log, and explain what became of it.

    Ends with 0 if it was delivered with a signature, 2 if without one, 1 if it was refused or bounced, or is in
    quarantine, 75 if it waits or nothing is known yet.
    """
    if (login is not None and place is None) or (password_file is not None and login is None):
        raise click.UsageError("--password-file goes with --login, and --login with --smtp")
    config = load(config_file)
    facts = gather(HostPlaces(Path("/"), config_directory, postconf, Path(config_file)), now=time.time())
    keys = [domain for domain, _, _ in keys_of(config)]
    if sender is None:
        sender = MailAddress.parse(f"postmaster@{keys[0] if keys else facts.postfix.value('myhostname')}")
    places = Places(distinct(logs)) if logs else _default_places(config, facts)
    is_copy_wanted = mailbox is not None
    if mailbox is not None:
        find_copy(mailbox, "<>")  # what cannot be read is told before anything is sent
    if place is not None and login is not None:
        place = SmtpPlace(place.host, place.port, login, _password(password_file, login))
    message = TrialMessage.compose(
        sender, recipient, host=facts.postfix.value("myhostname"), now=time.time(), unique=secrets.token_hex(16)
    )
    plan = _plan(facts, config, postconf)
    running = _is_running(facts) if place is None else True
    started = time.monotonic()
    with MailLog(places) as log, waiting(f"{message.message_id} is on its way to {recipient}"):
        handed = (
            _hand_over(message, place, facts, config_directory) if running else Handed(fault="Postfix is not running")
        )
        trail = Trail(message.message_id, sender=str(sender), uid=os.getuid(), queue_id=handed.queue_id)
        asleep = facts if place is None and os.geteuid() == 0 else None
        until = time.monotonic() + LINGER_S if handed.code else started + wait_s
        _watch(log, trail, handed, asleep, until=until)
        mailbox = mailbox or local_mailbox(facts, trail)
        copy = _copy(mailbox, message, handed, until=started + wait_s)
    waited_s = time.monotonic() - started
    trial = Trial(message, handed, place, facts, config, config_file, plan, frozenset(keys), places.shown, waited_s)
    results = None if copy is None else _verified(copy, config)
    shown = list(cards(trial, trail))
    if mailbox is not None and not (handed.fault or handed.code):
        shown.append(copy_card(trial, mailbox, results))
    show(scorecard(f"test message to {recipient}", shown), as_json=as_json)
    return exit_code_of(trial, trail, results, is_copy_wanted=is_copy_wanted)


def _default_places(config: Config, facts: HostFacts) -> Places:
    return default_places(
        postfix_file=facts.postfix.value("maillog_file"), daemon_logs_to_stderr=config.log.destination == "stderr"
    )


def _plan(facts: HostFacts, config: Config, postconf: str) -> MilterPlan | None:
    try:
        return milter_plan(facts, config, chrooted=read_chroots(facts.postfix, postconf=postconf))
    except ConfigError:
        # What is wrong with the socket is what mailguard doctor and mailguard postconf say.
        return None


def _password(file: str | None, login: str) -> str:
    if file is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask for the password: name it with --password-file")
        return getpass.getpass(f"password of {login}: ")
    try:
        with open(file, "rb") as opened:
            first = opened.read(MAX_PASSWORD_BYTES).partition(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    return first.decode("utf-8", "surrogateescape")


def _is_running(facts: HostFacts) -> bool:
    """Without root nobody but Postfix itself can tell."""
    if os.geteuid() != 0:
        return True
    code = _command(facts, "postfix", "status")
    return code is None or code == 0


def _command(facts: HostFacts, name: str, *arguments: str) -> int | None:
    """How one of Postfix's own commands ends; None if it does not."""
    program = os.path.join(facts.postfix.value("command_directory"), name)
    try:
        done = subprocess.run(
            [program, "-c", facts.postfix.directory, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode


def _hand_over(message: TrialMessage, place: SmtpPlace | None, facts: HostFacts, directory: str | None) -> Handed:
    if place is not None:
        return by_smtp(message, place, helo=facts.postfix.value("myhostname"))
    return by_sendmail(message, facts.postfix.value("sendmail_path"), config_directory=directory)


def _watch(log: MailLog, trail: Trail, handed: Handed, asleep: HostFacts | None, *, until: float) -> None:
    """Until the message has left, and the daemon has said what it has to say; or until that time (monotonic).

    `asleep`: the host whose pickup(8) may be woken.
    """
    over_since: float | None = None
    wake_at = time.monotonic() + WAKE_AFTER_S
    while not handed.fault:
        now = time.monotonic()
        for line in log.lines():
            trail.feed(line)
        if now >= until:
            return
        if trail.is_over:
            over_since = over_since or now
            if all(trail.record(hop) is not None for hop in trail.hops) or now - over_since > LINGER_S:
                return
        else:
            over_since = None
        if asleep is not None and not trail.hops and now > wake_at:
            _command(asleep, "postkick", "public", "pickup", "W")
            wake_at = now + WAKE_AFTER_S  # one that comes while Postfix is reloaded is lost
        time.sleep(LOOK_EVERY_S)


def local_mailbox(facts: HostFacts, trail: Trail) -> str | None:
    """Where local(8) has put it, if that can be told and read."""
    for each in (delivery for hop in trail.hops for delivery in hop.deliveries):
        if each.program != "local" or each.reply not in ("delivered to mailbox", "delivered to maildir"):
            continue
        try:
            user = pwd.getpwnam(each.recipient.partition("@")[0].lower())
        except (KeyError, ValueError):
            continue
        below_home = facts.postfix.value("home_mailbox")
        spool = os.path.join(facts.postfix.value("mail_spool_directory"), user.pw_name)
        path = os.path.join(user.pw_dir, below_home) if below_home else spool
        if os.access(path, os.R_OK):
            return path
    return None


def _copy(mailbox: str | None, message: TrialMessage, handed: Handed, *, until: float) -> bytes | None:
    if mailbox is None or handed.fault or handed.code:
        return None
    while True:
        now, found = time.monotonic(), None
        # Whose mailbox it is may have put something else there meanwhile: then there is no copy.
        with contextlib.suppress(ConfigError):
            found = find_copy(mailbox, message.message_id)
        if found is not None or now >= until:
            return found
        # A large mailbox takes its time, and is not to take all of it.
        time.sleep(min(max(LOOK_EVERY_S, 2 * (time.monotonic() - now)), max(0.0, until - time.monotonic())))


def _verified(copy: bytes, config: Config) -> tuple[DkimResult, ...]:
    with open_resolver(resolver_config(config.dns)) as resolver:
        return verify_dkim(Message.parse(copy), resolver=resolver, now=time.time())
