"""`mailguard doctor`: is everything in place on this host, from Postfix's socket to the records in the DNS?

It changes nothing, and sends no mail. As root it looks through the eyes of Postfix's user and of the daemon's.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mailguard.audit.facts import HostFacts
from mailguard.audit.gather import Places, gather
from mailguard.cli.doctor_child import Person
from mailguard.cli.doctor_probe import (
    ask_senders,
    closed_directories,
    engine_found,
    group_name,
    is_of_this_host,
    is_open_to_all,
    is_readable_by_all,
    is_synchronised,
    load_keys,
    newest_file,
    owner_name,
    probe,
    readable_by,
)
from mailguard.cli.doctor_resolver import resolver_program_cards
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import host_options
from mailguard.cli.key_check import CheckedKey, KeyOutcome, check_keys
from mailguard.cli.rotation_daemon import SigningDaemon
from mailguard.cli.tree_report import show_scorecard
from mailguard.cli.waiting import counted, counted_without_thread, waiting
from mailguard.config import Config, Listener, load
from mailguard.configured_dns import resolver_config
from mailguard.dkim.signing_key import KeyPermissions
from mailguard.dns.answers import evaluate
from mailguard.dns.live import LiveResolver, ResolverConfig, open_resolver
from mailguard.dns.servers import trust_word
from mailguard.dns.validation import PROBE, ValidationStatus, check_validation
from mailguard.errors import ConfigError
from mailguard.explain import Explanation
from mailguard.key_places import WantedKey, keys_of
from mailguard.pipeline import LOOKUP_TIME_S
from mailguard.scorecard.card import MAX_SHOWN, Mark, card, finding, in_few, scorecard
from mailguard.scorecard.host_name_card import TITLE, host_name_card
from mailguard.setup_host.doctor_cards import (
    Probe,
    clock_card,
    default_action_card,
    engine_card,
    listener_card,
    macro_card,
    milters_card,
)
from mailguard.setup_host.milter_entry import postfix_address
from mailguard.setup_host.milter_plan import milter_places_in_chroots, milter_plan
from mailguard.setup_host.postfix_files import read_chroots
from mailguard.setup_host.trust_cards import own_clients_card, proxy_card, smuggling_card

__all__ = ["diagnosis", "doctor"]

_INSTALL_RESOLVER = 'apt install unbound, and set nameservers = ["127.0.0.1"] in [dns]; mailguard tlspolicy says more'


@click.command()
@host_options
def doctor(config_file: str, config_directory: str | None, postconf: str, as_json: bool) -> ExitCode:
    """Look whether everything is in place: sockets, keys, resolver, clock, engine, Postfix's settings, DNS records.

    Run it as root: it then connects as Postfix's user, and reads keys as the daemon's. Each part is ok, a note
    (something could be better), a problem, or unknown. Ends with 0 if there is no problem, 1 if there is one, 75 if
    something could not be told and nothing else is wrong.
    """
    return show_scorecard(diagnosis(config_file, config_directory, postconf), as_json=as_json)


def diagnosis(config_file: str, config_directory: str | None, postconf: str) -> Explanation:
    """All of it. Raises ConfigError if the configuration cannot be used at all."""
    config = load(config_file)
    wanted = keys_of(config)
    facts, fault = _postfix_facts(config_file, config_directory, postconf)
    # Children are made while there is one thread: names are looked up last.
    eyes = _Eyes(config, facts)
    cards = [_configuration_card(config_file, config, eyes)]
    probes: list[Probe] = []
    if facts is None:
        cards.append(card("Postfix", [finding(Mark.PROBLEM, fault, "name its directory with --config-directory")]))
        cards += [_listener(each, eyes, None, frozenset(), probes) for each in config.listeners]
    else:
        chroots = read_chroots(facts.postfix, postconf=postconf)
        cards += [_listener(each, eyes, facts, chroots, probes) for each in config.listeners]
        cards += _postfix_cards(facts, config, chroots, probes)
    cards.append(engine_card(engine_found(config.engine)))
    if wanted:
        cards.append(_keys_card(wanted, config, eyes))
    cards.append(_senders_card(config, eyes))
    postfix_files = [f"{facts.postfix.directory}/{name}" for name in ("main.cf", "master.cf")] if facts else []
    files = [config_file, *(file for _, _, file in wanted), *postfix_files]
    cards.append(clock_card(time.time(), newest_file(files), synchronised=is_synchronised()))
    asked = resolver_config(config.dns)
    with waiting("asking the DNS"):
        cards.append(_resolver_card(asked))
        cards += resolver_program_cards(asked)
    cards.append(_records_card(wanted, config, asked))
    if facts is not None:
        with waiting("asking the DNS"):
            cards.append(_host_name_card(facts, asked))
    return scorecard("mailguard on this host", cards)


class _Eyes:
    """Through whose eyes the host is looked at: without root, only through our own."""

    def __init__(self, config: Config, facts: HostFacts | None) -> None:
        self.is_root = os.geteuid() == 0
        owner = facts.postfix.value("mail_owner") if facts is not None else "postfix"
        self.postfix = Person.named(owner) if self.is_root else None
        self.daemon = Person.named(config.user) if self.is_root else None
        self.lacks_daemon = self.is_root and self.daemon is None


def _postfix_facts(config_file: str, directory: str | None, postconf: str) -> tuple[HostFacts | None, str]:
    try:
        return gather(Places(Path("/"), directory, postconf, Path(config_file)), now=time.time()), ""
    except ConfigError as error:
        return None, str(error)


def _configuration_card(path: str, config: Config, eyes: _Eyes) -> Explanation:
    found = []
    status = os.stat(path)
    if eyes.lacks_daemon:
        found.append(
            finding(
                Mark.PROBLEM,
                f'there is no user "{config.user}", as whom the daemon runs',
                f"adduser --system --group --no-create-home {config.user}",
            )
        )
    elif eyes.daemon is not None and (fault := readable_by(eyes.daemon, os.path.abspath(path))):
        # Not for everybody: there may be a password in it.
        advice = f"{_way_to(path, eyes.daemon)}{_for_group(path, eyes.daemon)}"
        found.append(finding(Mark.PROBLEM, f"{config.user} cannot read it: {fault}", advice))
    if config.senders.postfixadmin.password is not None and is_readable_by_all(path):
        advice = f"put it into a password_file (docs/senders.md), or: {_for_group(path, eyes.daemon)}"
        found.append(finding(Mark.PROBLEM, "every user of this host can read the password in it", advice))
    if not eyes.is_root:
        found.append(finding(Mark.NOTE, "without root, all is looked at as this user alone", "run it as root"))
    if "." not in config.authserv_id:
        detail = f'results are written as "{config.authserv_id}", which is no name of this host alone'
        found.append(finding(Mark.NOTE, detail, "set authserv_id to its full name, such as Postfix's myhostname"))
    facts = [
        ("mode", config.mode.value),
        ("authserv-id", config.authserv_id),
        ("user", config.user),
        ("permissions", f"{stat.S_IMODE(status.st_mode):04o}, owner {owner_name(path)}"),
    ]
    return card(f"configuration {path}", found or [finding(Mark.OK, "it can be used")], facts=facts)


def _for_group(path: str, daemon: Person | None) -> str:
    """The commands that let nobody else read the file."""
    return f"chgrp {group_name(daemon.gid) if daemon is not None else 'GROUP'} {path}; chmod 640 {path}"


def _listener(
    listener: Listener, eyes: _Eyes, facts: HostFacts | None, chroots: frozenset[str], probes: list[Probe]
) -> Explanation:
    queue, chrooted = "/", ()  # type: tuple[str, tuple[str, ...]]
    if facts is not None:
        queue = facts.postfix.value("queue_directory")
        chrooted = milter_places_in_chroots(facts.postfix, chroots)
    try:
        named = postfix_address(listener, queue_directory=queue, chrooted=chrooted)
    except ConfigError:
        # Said with the settings of Postfix.
        named, chrooted = listener.address, ()
    in_chroot = bool(chrooted) and eyes.postfix is not None
    address = listener.socket_address
    kind, _, rest = named.partition(":")
    place: str | tuple[str, int] = rest
    if address.family != "unix":
        host, _, port = rest.rpartition(":")
        place = (host.strip("[]"), int(port))
    found = probe(
        address.family, place, person=eyes.postfix, queue_directory=queue, chroot=in_chroot and kind == "unix"
    )
    probes.append(found)
    return listener_card(
        listener,
        found,
        user=eyes.postfix.name if eyes.postfix is not None else "this user",
        is_postfix=eyes.postfix is not None,
        is_chrooted=in_chroot and kind == "unix",
        named=named,
        is_open=is_open_to_all(address.path),
    )


def _postfix_cards(
    facts: HostFacts, config: Config, chroots: frozenset[str], probes: Sequence[Probe]
) -> Iterator[Explanation]:
    try:
        plan = milter_plan(facts, config, chrooted=chroots)
    except ConfigError as error:
        yield card("milters of Postfix", [finding(Mark.PROBLEM, str(error))])
    else:
        yield milters_card(facts, config, plan, chrooted=chroots)
    yield default_action_card(facts, config)
    yield macro_card(facts, probes)
    yield smuggling_card(facts)
    yield proxy_card(facts)
    yield own_clients_card(facts, config, is_of_this_host=is_of_this_host)


def _keys_card(wanted: Sequence[WantedKey], config: Config, eyes: _Eyes) -> Explanation:
    found = []
    permissions = KeyPermissions(config.sign.key_permissions)
    faults: list[str] = []
    if not eyes.lacks_daemon:
        found_faults = load_keys(eyes.daemon, wanted, permissions)
        faults = [*counted_without_thread("reading the keys", found_faults, len(wanted))]
    for each, fault in zip(wanted, faults, strict=False):
        if fault and not eyes.is_root:
            found.append(finding(Mark.UNKNOWN, fault, "run it as root"))
        elif fault:
            advice = f"{_way_to(each[2], eyes.daemon)}chown {config.user} {each[2]}; chmod 600 {each[2]}"
            advice += "; mailguard key test says more"
            found.append(finding(Mark.PROBLEM, f"{config.user} cannot sign with it: {fault}", advice))
    if eyes.lacks_daemon:
        found = [finding(Mark.UNKNOWN, f'there is no user "{config.user}" to read them')]
    found = in_few(found, "keys", "mailguard key test shows all")
    if eyes.postfix is not None:
        found += in_few(list(_within_reach(wanted, config, eyes.postfix)), "keys", "do the same for the others")
    found += in_few(list(_not_loaded(wanted, config)), "domains", "one reload is for all")
    shown = [(f"{selector}._domainkey.{domain}", file) for domain, selector, file in wanted[:MAX_SHOWN]]
    if more := len(wanted) - len(shown):
        shown.append((f"{more} more", "mailguard key list"))
    return card("keys", found or [finding(Mark.OK, f"{config.user} can sign with each")], facts=shown)


def _within_reach(wanted: Sequence[WantedKey], config: Config, postfix: Person) -> Iterator[Explanation]:
    """Keys of a group in which Postfix's user is, as a rule for the socket."""
    for _, _, file in wanted:
        try:
            status = os.stat(file)
        except OSError:
            continue  # told of the daemon's user, who needs it
        is_theirs = status.st_mode & stat.S_IRGRP and status.st_gid in postfix.groups
        if is_theirs and not closed_directories(file, postfix):
            detail = f"{postfix.name} can read {file}: who breaks into Postfix has the key"
            yield finding(Mark.PROBLEM, detail, f"chown {config.user} {file}; chmod 600 {file}")


def _not_loaded(wanted: Sequence[WantedKey], config: Config) -> Iterator[Explanation]:
    """Domains for which the daemon that runs signs with other keys than the configuration names by now."""
    try:
        loaded = SigningDaemon(config).loaded()
    except ConfigError as error:
        yield finding(Mark.UNKNOWN, f"what the daemon signs with is not known: {error}", "run it as root")
        return
    if loaded is None:
        return  # that it does not run is told of the listener
    named: dict[str, set[str]] = {}
    for owner, selector, _ in wanted:
        # What a pattern finds is read when it is needed; a rotation without keys that sign yet asks for no reload.
        if owner in config.domains:
            named.setdefault(owner, set()).add(selector)
    for domain, selectors in named.items():
        signs = set(loaded.domains[domain].keys) if domain in loaded.domains else set()
        if signs != selectors:
            detail = (
                f"{domain}: the daemon that runs signs with {', '.join(sorted(signs)) or 'no key'}, and the"
                f" configuration names {', '.join(sorted(selectors))}"
            )
            advice = "systemctl reload mailguard-milter; journalctl -u mailguard-milter says where that fails"
            yield finding(Mark.PROBLEM, detail, advice)


def _way_to(path: str, person: Person | None) -> str:
    """The commands that let the person pass the directories above; none where it can."""
    closed = " ".join(closed_directories(path, person)) if person is not None else ""
    if person is None or not closed:
        return ""
    return f"chgrp {group_name(person.gid)} {closed}; chmod ug+x {closed}; "


def _senders_card(config: Config, eyes: _Eyes) -> Explanation:
    if not config.senders.sources:
        return card("senders", [finding(Mark.OK, "no source is named: nobody is held to an address")])
    fault = ask_senders(eyes.daemon, config)
    shown = [("sources", ", ".join(config.senders.sources))]
    if not fault:
        return card("senders", [finding(Mark.OK, "the sources answer")], facts=shown)
    advice = (
        "mailguard senders test LOGIN ADDRESS, as the daemon's user; mail of your users waits (451) until they do"
    )
    return card("senders", [finding(Mark.UNKNOWN, f"a source cannot be asked: {fault}", advice)], facts=shown)


def _resolver_card(config: ResolverConfig) -> Explanation:
    if config.zone_file is not None:
        detail = f"answers come from {config.zone_file} alone, and no server is asked"
        return card("resolver", [finding(Mark.NOTE, detail, "for tests alone: take zone_file out of [dns]")])
    with LiveResolver(config) as resolver:
        answer = resolver.resolve([PROBE], deadline=time.monotonic() + LOOKUP_TIME_S)[PROBE]
        servers = resolver.servers
    shown = [("asked", ", ".join(each.address for each in servers)), ("dnssec", trust_word(servers))]
    if answer.has_failed:
        advice = "is it running, and is it the one in [dns] nameservers or /etc/resolv.conf? Try: delv in-addr.arpa"
        return card("resolver", [finding(Mark.PROBLEM, f"it does not answer: {answer.detail}", advice)], facts=shown)
    validation = check_validation(config, deadline=time.monotonic() + LOOKUP_TIME_S)
    detail = validation.message.partition("\n")[0]
    if validation.status is ValidationStatus.VALIDATES:
        return card("resolver", [finding(Mark.OK, detail)], facts=shown)
    mark = Mark.PROBLEM if validation.status is ValidationStatus.NO_ANSWER else Mark.NOTE
    return card("resolver", [finding(mark, detail, _INSTALL_RESOLVER)], facts=shown)


def _records_card(wanted: Sequence[WantedKey], config: Config, resolver_config: ResolverConfig) -> Explanation:
    if not wanted:
        is_rotated = any(rule.rotation for rule in config.domains.values())
        detail, advice = "the configuration names no key: nothing is signed", "mailguard key new DOMAIN"
        if is_rotated:
            detail, advice = "no key signs yet: nothing is signed", "mailguard key rotate --all"
        said = finding(Mark.NOTE, detail, advice)
        return card("records of the keys", [said])
    with open_resolver(resolver_config) as resolver:
        permissions = KeyPermissions(config.sign.key_permissions)
        each_checked = check_keys(wanted, resolver, permissions=permissions, time_s=LOOKUP_TIME_S)
        checked = counted("asking the DNS for the records of the keys", each_checked, len(wanted))
    found = in_few([_record(each) for each in checked], "keys", "mailguard key test shows all")
    return card("records of the keys", found)


def _host_name_card(facts: HostFacts, resolver_config: ResolverConfig) -> Explanation:
    relay = facts.postfix.value("relayhost")
    if relay:
        # It greets others, by its own name and address.
        return card(TITLE, [finding(Mark.OK, "all mail leaves by the relay host")], facts=[("relayhost", relay)])
    name = facts.postfix.value("smtp_helo_name") or facts.postfix.value("myhostname")
    with open_resolver(resolver_config) as resolver:
        deadline = time.monotonic() + LOOKUP_TIME_S
        return evaluate(lambda answers: host_name_card(name, answers), resolver, deadline=deadline)


def _record(checked: CheckedKey) -> Explanation:
    detail = f"{checked.name}: {checked.detail}"
    if checked.is_to_be_published:
        return finding(Mark.PROBLEM, detail, f"publish: {checked.zone_line}")
    marks = {
        KeyOutcome.PUBLISHED: Mark.OK,
        KeyOutcome.TESTING: Mark.NOTE,
        KeyOutcome.WRONG: Mark.PROBLEM,
        KeyOutcome.UNKNOWN: Mark.UNKNOWN,
        KeyOutcome.UNUSABLE: Mark.UNKNOWN,
    }
    advice = {KeyOutcome.PUBLISHED: "", KeyOutcome.TESTING: "take t=y out of the record"}
    return finding(marks[checked.outcome], detail, advice.get(checked.outcome, "mailguard key test"))
