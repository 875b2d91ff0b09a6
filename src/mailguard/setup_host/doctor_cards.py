"""What `mailguard doctor` says of what was found out: a card each, with what to do. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailguard.audit.facts import HostFacts
from mailguard.audit.postfix import Postfix, Service
from mailguard.config import Config, Listener
from mailguard.errors import install_command
from mailguard.explain.explanation import Explanation
from mailguard.scorecard.card import Mark, card, finding
from mailguard.setup_host.milter_entry import DEFAULT_ACTION, Entry, entries, looked_for_at
from mailguard.setup_host.milter_plan import (
    DAEMON_NAME,
    MACROS,
    MILTERS,
    OTHER_MILTERS,
    OVERRIDE,
    MilterPlan,
    Setting,
    is_ours,
    macro_settings,
    milter_services,
)

__all__ = [
    "Engine",
    "Probe",
    "clock_card",
    "default_action_card",
    "engine_card",
    "listener_card",
    "macro_card",
    "milters_card",
]

# What mailguard's sessions do to messages: add and change header fields, quarantine; and that it names its macros.
ACTIONS = 0x31
SETSYMLIST = 0x100
# A file may be copied from a host whose clock is a little ahead.
CLOCK_TOLERANCE_S = 300.0
# Since Postfix 3.2.
MILTER_MAPS = "smtpd_milter_maps"


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of connecting to a listener."""

    fault: str = ""
    """Empty if it answered as a milter does."""
    code: str = ""
    """The name of the system's error: `ENOENT`."""
    denied_at: str = ""
    """With `EACCES`: the directory or the socket that was refused."""
    group: str = ""
    """The group that may use it; empty if that would not help."""
    protocol: int = 0
    actions: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """What speaks with Postfix, as it is installed."""

    name: str
    fault: str = ""
    installed: str = ""
    """The version of pymilter or uvloop; empty if it is not there."""
    library: str = ""
    path: str = ""
    build: str = ""
    """What serves its sessions (libmilter_build.py)."""


def listener_card(
    listener: Listener, found: Probe, *, user: str, is_postfix: bool, is_chrooted: bool, named: str, is_open: bool
) -> Explanation:
    """`user` is who connected, Postfix's or another one; `named` is the address as Postfix has it.

    `is_open`: every user of the host can connect to the unix socket.
    """
    whence = f"as {user}, from the chroot" if is_chrooted else f"as {user}"
    facts = [("role", listener.role), ("connected", f"{whence}, to {named}")]
    if found.code == "EACCES" and not is_postfix:
        said = finding(Mark.UNKNOWN, f"{user} may not connect; whether Postfix may is not known", "run it as root")
    elif found.fault:
        said = finding(Mark.PROBLEM, f"cannot be reached: {found.fault}", _remedy(listener, found, user))
    elif found.actions & ACTIONS != ACTIONS:
        said = finding(
            Mark.PROBLEM,
            "another milter answers there: it does not do what mailguard does",
            "find out with ss -lpx or ss -lpt who listens there, and give one of the two another address",
        )
    else:
        facts.append(("negotiated", f"protocol {found.protocol}, actions {found.actions:#x}, steps {found.steps:#x}"))
        said = finding(Mark.OK, "it answers as a milter does")
    more = []
    if is_open:
        detail = "every user of this host can connect, and have mail signed"
        more.append(
            finding(Mark.PROBLEM, detail, f'set mode = "0660", and group; now: chmod o-w {listener.address[5:]}')
        )
    elif listener.socket_address.family != "unix" and listener.role != "verify":
        detail = (
            "every user of this host can connect, and have mail signed; who takes the port while mailguard is down is"
            " given all mail"
        )
        advice = "where Postfix is on this host, choose a unix socket, which lets its group in alone"
        more.append(finding(Mark.NOTE, detail, advice))
    return card(f"listener {listener.address}", [said, *more], facts=facts)


def _remedy(listener: Listener, found: Probe, user: str) -> str:
    if found.code == "EACCES" and found.group:
        return (
            f"{found.denied_at} is for the group {found.group}, in which {user} is not: adduser {user} {found.group},"
            " and postfix reload"
        )
    if found.code == "EACCES":
        where = found.denied_at or listener.address
        return f"{user} may not use {where}: set group and mode of the listener, or let {user} through the directory"
    if found.code == "ENOENT":
        return (
            "there is no such socket: is the daemon running (systemctl status mailguard-milter), and is this the"
            " configuration that it has?"
        )
    if found.code == "ECONNREFUSED":
        return "nobody listens there: systemctl start mailguard-milter, and look at journalctl -u mailguard-milter"
    return "look at journalctl -u mailguard-milter, and restart it"


def engine_card(engine: Engine) -> Explanation:
    """libmilter, or what may be there for the native engine."""
    if engine.name != "libmilter":
        said = finding(Mark.OK, f"uvloop {engine.installed}")
        if not engine.installed:
            said = finding(Mark.NOTE, "uvloop is not there: it works, and is slower", install_command("native"))
        return card(f"engine {engine.name}", [said], facts=[("libmilter", "is not used")])
    if engine.fault:
        advice = f'apt install libmilter-dev gcc python3-dev; {install_command("milter")}; or set engine = "native"'
        return card(f"engine {engine.name}", [finding(Mark.PROBLEM, f"cannot be loaded: {engine.fault}", advice)])
    facts = [("pymilter", engine.installed), ("libmilter", f"{engine.library} {engine.path}")]
    facts.append(("built with", engine.build))
    return card(f"engine {engine.name}", [finding(Mark.OK, "it can be loaded")], facts=facts)


def clock_card(now: float, newest: tuple[str, float], *, synchronised: bool | None) -> Explanation:
    """Signatures have a time, and expire: a host with a wrong clock signs for nothing."""
    found = []
    path, changed = newest
    if changed > now + CLOCK_TOLERANCE_S:
        found.append(
            finding(
                Mark.PROBLEM,
                f"the clock is slow, or was: {path} was changed {changed - now:.0f} s from now",
                "set the clock (timedatectl), and keep it right with systemd-timesyncd or chrony",
            )
        )
    if synchronised is False:
        found.append(
            finding(
                Mark.NOTE,
                "the kernel says that nobody keeps the clock right",
                "apt install systemd-timesyncd or chrony; in a container or a virtual machine, that is for its host",
            )
        )
    return card("clock", found or [finding(Mark.OK, "it is as it should be, as far as can be told")])


# -- Postfix -------------------------------------------------------------------------------------------------------


def milters_card(facts: HostFacts, config: Config, plan: MilterPlan, *, chrooted: frozenset[str]) -> Explanation:
    """Where mailguard stands among the milters, and what else `mailguard postconf` would change.

    `chrooted` are the places of the services in a chroot.
    """
    postfix = facts.postfix
    found = [*_of_plan(facts, config, plan), *_not_found(postfix, config, chrooted), *_passed_by(facts)]
    found += _of_single_clients(postfix)
    found += [
        finding(Mark.PROBLEM if note.is_problem else Mark.NOTE, note.text)
        for note in plan.notes
        if not note.text.startswith("internal_mail_filter_classes")
    ]
    found += [each for place, value in _lists(postfix) for each in _after_ours(place, value, config, postfix)]
    shown = [(place, _order(value, config, postfix)) for place, value in _lists(postfix)]
    return card("milters of Postfix", found or [finding(Mark.OK, "as mailguard postconf sets them")], facts=shown)


def _not_found(postfix: Postfix, config: Config, chrooted: frozenset[str]) -> Iterator[Explanation]:
    """Addresses under which a service does not find the socket that they mean: with all its mail, it has to wait."""
    queue = postfix.value("queue_directory")
    sockets = {posixpath.normpath(each.socket_address.path) for each in config.listeners}
    places = [(service, MILTERS) for service in milter_services(postfix)]
    places += [(service, OTHER_MILTERS) for service in postfix.running("cleanup")]
    for service, name in places:
        is_chrooted = service.place in chrooted
        for entry in entries(postfix.value(name, service)):
            path = looked_for_at(entry, queue_directory=queue, is_chrooted=is_chrooted)
            if path and path not in sockets and is_ours(entry, config, postfix):
                where = "in a chroot" if is_chrooted else "in no chroot"
                detail = (
                    f"{service.place} runs {where}: by {entry.address} in {name} it looks for {path}, which is none"
                    " of the [[listeners]]"
                )
                yield finding(Mark.PROBLEM, detail, "mailguard postconf --apply names the socket as it is found")


def _passed_by(facts: HostFacts) -> Iterator[Explanation]:
    """Services that others can reach and whose mail passes no milter: it may pass one behind a content filter."""
    postfix = facts.postfix
    every, with_lists = postfix.running("smtpd"), milter_services(postfix)
    # What main.cf lacks is said with the settings.
    without = [
        each for each in every if not facts.milters(each) and (each not in with_lists or MILTERS in each.overrides)
    ]
    mark = Mark.NOTE if len(without) < len(every) else Mark.PROBLEM
    for service in (each for each in without if each in postfix.public_services):
        is_emptied = service in with_lists
        name = MILTERS if is_emptied else OVERRIDE
        detail = f"{service.place}: mail does not pass mailguard: {postfix.shown(name, service)}"
        advice = "unless a content filter has it pass mailguard later: take "
        advice += f"{'that' if is_emptied else 'no_milters'} out of {postfix.place(name, service)}"
        yield finding(mark, detail, advice)


def _of_single_clients(postfix: Postfix) -> Iterator[Explanation]:
    """A table of lists by the client's address, whose entries postconf does not show."""
    tables = {}
    for service in milter_services(postfix):
        if value := postfix.value(MILTER_MAPS, service):
            tables[postfix.place(MILTER_MAPS, service)] = value
    for place, value in tables.items():
        detail = (
            f"{place}: {MILTER_MAPS} = {value}: what it says of a client takes the place of {MILTERS}, and is not"
            " looked at here"
        )
        yield finding(
            Mark.NOTE, detail, "see that it names mailguard, too, and has DISABLE only for your own clients"
        )


def _lists(postfix: Postfix) -> Iterator[tuple[str, str]]:
    for service in milter_services(postfix):
        yield service.place, postfix.value(MILTERS, service)
    yield OTHER_MILTERS, postfix.value(OTHER_MILTERS)


def _order(value: str, config: Config, postfix: Postfix) -> str:
    found = entries(value)
    names = [f"mailguard ({each.address})" if is_ours(each, config, postfix) else each.address for each in found]
    return ", then ".join(names) or "none"


def _after_ours(place: str, value: str, config: Config, postfix: Postfix) -> Iterator[Explanation]:
    """RFC 8601 §5 is for what comes from outside: results that a later milter adds in our name stay."""
    found = entries(value)
    ours = [number for number, each in enumerate(found) if is_ours(each, config, postfix)]
    if ours and found[ours[-1] + 1 :]:
        others = ", ".join(each.address for each in found[ours[-1] + 1 :])
        detail = (
            f"{place}: {others} comes after mailguard: nobody can tell results that it adds in our name from ours"
        )
        yield finding(Mark.NOTE, detail, f"its authserv-id must not be {config.authserv_id}")


def _of_plan(facts: HostFacts, config: Config, plan: MilterPlan) -> Iterator[Explanation]:
    macros = {name for name, _ in MACROS}
    for setting in plan.settings:
        if setting.name in macros:
            continue
        advice = f"mailguard postconf --apply, or {setting.command(facts.postfix)}"
        where = setting.service.place if setting.service is not None else "main.cf"
        wanted = any(is_ours(each, config, facts.postfix) for each in entries(setting.value))
        present = any(is_ours(each, config, facts.postfix) for each in _present(setting, facts.postfix))
        if setting.name == MILTERS and wanted and not present:
            yield finding(Mark.PROBLEM, f"{where}: mail does not pass mailguard: {MILTERS} does not name it", advice)
        elif setting.name == DAEMON_NAME:
            detail = (
                f"{where}: {DAEMON_NAME} is not one of sign.daemon_names, so that only mail with a login is signed"
            )
            yield finding(Mark.NOTE, detail, advice)
        else:
            yield finding(Mark.NOTE, f"{where}: {setting.name} is not as mailguard postconf sets it", advice)


def _present(setting: Setting, postfix: Postfix) -> tuple[Entry, ...]:
    return entries(postfix.value(setting.name, setting.service))


def default_action_card(facts: HostFacts, config: Config) -> Explanation:
    """What Postfix does with mail while mailguard cannot be reached, wherever it is asked."""
    postfix = facts.postfix
    places: list[tuple[Service | None, str]] = [(service, MILTERS) for service in milter_services(postfix)]
    places.append((None, OTHER_MILTERS))
    found, shown = [], []
    for service, name in places:
        where = service.place if service is not None else name
        for entry in entries(postfix.value(name, service)):
            if not is_ours(entry, config, postfix):
                continue
            action = entry.option(DEFAULT_ACTION) or postfix.value("milter_default_action", service)
            shown.append((where, action))
            if action == "accept":
                detail = (
                    f"{where}: default_action is accept: mail passes unsigned and unverified while mailguard is down"
                )
                found.append(
                    finding(Mark.PROBLEM, detail, f"mailguard postconf --apply sets {DEFAULT_ACTION}=tempfail")
                )
            elif action in ("reject", "quarantine"):
                detail = f"{where}: default_action is {action}: mail is lost or held while mailguard is down"
                found.append(finding(Mark.NOTE, detail, f"{DEFAULT_ACTION}=tempfail has the sender try again"))
    fine = "mail waits" if shown else "no list of Postfix names mailguard"
    return card("while mailguard is down", found or [finding(Mark.OK, fine)], facts=shown)


def macro_card(facts: HostFacts, probes: Sequence[Probe]) -> Explanation:
    """Whether Postfix is configured to send the macros that are read."""
    asks = bool(probes) and all(each.actions & SETSYMLIST for each in probes)
    found = []
    for setting in macro_settings(facts.postfix):
        where = setting.service.place if setting.service is not None else "main.cf"
        detail = f"{where}: {setting.name}: {setting.why}"
        advice = f"mailguard postconf --apply, or {setting.command(facts.postfix)}"
        if asks:
            found.append(finding(Mark.NOTE, f"{detail}; the daemon asks Postfix for it itself", advice))
        else:
            found.append(finding(Mark.PROBLEM, f"{detail}: logins are not seen", advice))
    shown = [(name, facts.postfix.value(name)) for name, _ in MACROS]
    return card("macros of Postfix", found or [finding(Mark.OK, "what is read is sent")], facts=shown)
