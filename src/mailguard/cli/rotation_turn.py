"""Turn: one run of `mailguard key rotate` for one domain.

Everything is kept on disk before the next thing is done, so that a run that ends at any moment is gone on with by the
next: names are noted before keys are made under them, keys before they are published, the switch before the daemon is
told, and that the old ones retire after the daemon has said so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from mailguard.cli import rotation_keys
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.rotation_daemon import SigningDaemon
from mailguard.cli.rotation_dns import RotationDns
from mailguard.cli.rotation_settings import Settings, date_of
from mailguard.cli.rotation_store import RotationStore
from mailguard.dkim.signing_key import KeyCheck
from mailguard.dns.authoritative import Unreachable
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.key_places import keys_of, rotation_of
from mailguard.rotation.state import COMING, Generation, RotatedKey, Rotation, Stage
from mailguard.rotation.step import (
    CLOCK_SLACK_S,
    DAY_S,
    MAX_TTL_S,
    MIN_KEEP_S,
    RotationRules,
    Seen,
    Step,
    confirmed,
    is_settled,
    step,
    with_loaded,
)
from mailguard.rotation.words import UNASKED, said_of
from mailguard.toml_text import toml_value

__all__ = ["WAITING", "Turn"]

WAITING = ExitCode.NO_SIGNATURE
"""Somebody has to publish records, to remove them, or to reload."""
# RFC 2308 §5: that a name is not there should not be kept for longer.
MAX_NEGATIVE_TTL_S = DAY_S
# What a configuration may ask for at most.
MAX_LIFETIME_S = 365 * DAY_S


class Turn:
    """`prepare`, then a reload if `wants_reload`, then `conclude`. These raise ConfigError."""

    def __init__(self, domain: Domain, store: RotationStore, settings: Settings, daemon: SigningDaemon) -> None:
        self.domain = domain
        self.file = store.path
        self.rotation = Rotation(domain=domain)
        self.said: list[str] = []
        self._store = store
        self._settings = settings
        self._daemon = daemon
        rule = settings.config.domains.get(domain)
        self.is_in_use = rule is not None and rule.rotation is not None
        self._rules = RotationRules(max_age_s=settings.max_age_s, lifetime_s=0, settle_s=settings.settle_s)
        self._seen: dict[tuple[RotatedKey, ...], Seen] = {}
        self._forgotten: tuple[Generation, ...] = ()
        self._codes: list[ExitCode] = []

    # Until the daemon is needed

    def prepare(self) -> None:
        """Everything but the switch itself."""
        if self._settings.is_dry:
            self.said.append("dry run: nothing is changed; this is what a run would come to")
        self.rotation = self._begun()
        self._trust_clock()
        usable = self._is_usable()
        try:
            chosen = self._settings
            dns = RotationDns(chosen.config.dns, self.domain, chosen.silences, is_quiet=chosen.is_one_of_many)
            seen = dns.seen(self.rotation)
            negative_ttl_s = 0
            if self.rotation.at(Stage.CREATED, Stage.PUBLISHED):
                negative_ttl_s = min(dns.negative_ttl_s(), MAX_NEGATIVE_TTL_S)
                # The SOA record may say something else when the records are there.
                seen = [replace(each, other_ttl_s=max(each.other_ttl_s, negative_ttl_s)) for each in seen]
            self._rules = self._rules_of(negative_ttl_s, held=usable)
            self._rules = replace(self._rules, held=self._rules.held or self._hidden(dns, seen))
        except Unreachable as error:
            self._note(str(error), ExitCode.TEMPORARY)
            self._seen = {each.keys: Seen(silent=(str(error),)) for each in self.rotation.generations}
            return
        self._seen = {each.keys: there for each, there in zip(self.rotation.generations, seen, strict=True)}
        loaded = self._daemon.loaded()
        told = loaded.domains.get(self.domain) if loaded is not None else None
        taken = step(
            with_loaded(
                self.rotation,
                told.keys.values() if told is not None else (),
                now=chosen.now,
                lifetime_s=self._rules.lifetime_s,
            ),
            seen,
            now=chosen.now,
            rules=self._rules,
            make_new=chosen.make_new,
            discard=chosen.discard,
        )
        self.said += taken.notes
        self._keep(taken.rotation)
        if not chosen.is_dry:
            self._forget(taken)
        self._forgotten = taken.forgotten
        if taken.makes_keys:
            self._make_keys(dns)

    def _begun(self) -> Rotation:
        """The state as it is, or a new one."""
        chosen = self._settings
        rotation = self._store.read()
        if rotation is not None:
            if chosen.adopt or chosen.begin:
                raise ConfigError(
                    f"{self.file}: it is there already, and is gone on with without --adopt and --begin"
                )
            return rotation
        if self.is_in_use and not chosen.begin:
            rotation_of(self.domain, chosen.config.domains[self.domain])  # raises what is to be done
        wanted = [] if self.is_in_use else keys_of(chosen.config, self.domain)
        if wanted and not chosen.adopt:
            raise ConfigError(
                f"{self.domain} has keys in {chosen.config_file}; to rotate them, run this with --adopt"
            )
        if chosen.adopt and not wanted:
            raise ConfigError(f"--adopt: {chosen.config_file} names no keys of {self.domain}")
        if not wanted:
            return Rotation(domain=self.domain)
        keys = tuple(rotation_keys.adopted(chosen.config, each) for each in wanted)
        lifetime_s = chosen.config.sign.lifetime_days * DAY_S
        generation = Generation(
            keys=keys, stage=Stage.SIGNING, since=chosen.now, has_signed=True, lifetime_s=lifetime_s
        )
        return Rotation(domain=self.domain, generations=(generation,), used=tuple(key.selector for key in keys))

    def _trust_clock(self) -> None:
        """A host may start with a clock of long ago; what began by that would seem to be over when it is set."""
        latest = max((each.since for each in self.rotation.generations), default=0)
        if latest > self._settings.now + CLOCK_SLACK_S and not self._settings.clock_is_right:
            raise ConfigError(
                f"by this clock ({date_of(self._settings.now)}) a stage began in the future ({date_of(latest)});"
                " nothing is changed. Set the clock; or, if it is right and was wrong then, run this once with"
                " --clock-is-right"
            )

    def _is_usable(self) -> str:
        """Why the keys that come must not sign: the daemon would not start with them."""
        if lost := self._faults(*self.rotation.at(Stage.SIGNING)):
            remedy = "the daemon would not start again: put the key back, or make others with --new"
            self._note(f"{lost}; {remedy}", ExitCode.FAIL)
        if held := self._faults(*self.rotation.at(*COMING)):
            self._note(f"{held}; correct that, or give the keys up with --discard", ExitCode.FAIL)
        return held

    def _faults(self, *generations: Generation) -> str:
        keys = [key for each in generations for key in each.keys]
        # Keys that sign were examined when they came; then the daemon has only to be able to load them.
        is_new = any(each.stage in COMING for each in generations)
        check = KeyCheck.FULL if is_new else KeyCheck.QUICK
        return rotation_keys.unusable(self._settings.config, self.domain, keys, check=check)

    def _rules_of(self, negative_ttl_s: float, *, held: str) -> RotationRules:
        config = self._settings.config
        settle_s = max(self._settings.settle_s, negative_ttl_s)
        loaded = self._daemon.loaded()
        # The daemon may not have read yet that signatures live shorter from now on.
        told_s = min(loaded.lifetime_s, MAX_LIFETIME_S) if loaded is not None else 0
        lifetime_s = max(config.sign.lifetime_days * DAY_S, told_s)
        if not self.is_in_use:
            held = held or f"{self._settings.config_file} does not name {self.file}"
        return replace(self._rules, lifetime_s=lifetime_s, settle_s=settle_s, held=held)

    def _hidden(self, dns: RotationDns, seen: Sequence[Seen]) -> str:
        """Why verifiers do not find keys that would sign now. Nobody is asked for them before."""
        for each, there in zip(self.rotation.generations, seen, strict=True):
            if is_settled(each, there, now=self._settings.now, rules=self._rules):
                if fault := dns.fault_for_verifiers(each.keys):
                    self._codes.append(ExitCode.TEMPORARY)
                return fault
        return ""

    def _make_keys(self, dns: RotationDns) -> None:
        chosen = self._settings
        configured = [] if self.is_in_use else [selector for _, selector, _ in keys_of(chosen.config, self.domain)]
        taken = frozenset({*self.rotation.used, *configured, *self._files()})
        try:
            names = dns.free_names(chosen.now, taken)
            other_ttl_s = max(dns.any_ttl_s, min(dns.negative_ttl_s(), MAX_NEGATIVE_TTL_S))
        except Unreachable as error:
            self._note(
                f"no keys are made: every server must say that their names are free: {error}; {UNASKED}",
                ExitCode.TEMPORARY,
            )
            return
        if chosen.is_dry:
            self._note(f"{', '.join(names.values())}: keys of these names would be made", WAITING)
            return
        # Whatever becomes of this run, nothing else is ever called so.
        before = self.rotation
        self._keep(replace(before, used=(*before.used, *names.values())))
        keys: tuple[RotatedKey, ...] = ()
        try:
            keys = rotation_keys.make(self.domain, chosen.key_directory, names, chosen.owner)
            made = Generation(
                keys=keys, stage=Stage.CREATED, since=chosen.now, other_ttl_s=min(other_ttl_s, MAX_TTL_S)
            )
            self._keep(replace(self.rotation, generations=(*self.rotation.generations, made)))
        except ConfigError:
            # A disk that stays full must not use up all names, nor fill up with keys.
            if not list(filter(None, (rotation_keys.delete(self.domain, key) for key in keys))):
                with suppress(ConfigError):  # which the next run has the same trouble with
                    self._keep(before)
            raise
        self._seen[keys] = Seen(lost=("they have just been made",))
        if fault := self._faults(made):
            self._note(fault, ExitCode.FAIL)

    def _files(self) -> list[str]:
        try:
            names = os.listdir(os.path.join(self._settings.key_directory, self.domain))
        except OSError:
            return []  # said when keys are stored there
        return [name.removesuffix(".pem") for name in names]

    def _forget(self, taken: Step) -> None:
        """The key files first: who is stopped in between finds them gone."""
        for generation in taken.forgotten:
            for key in generation.keys:
                if used := self._settings.key_use.elsewhere(self.domain, key.file):
                    self.said.append(f"{key.file}: it stays: {used}")
                elif left := rotation_keys.delete(self.domain, key):
                    self.said.append(left)
        self._keep(
            replace(
                self.rotation,
                generations=tuple(each for each in self.rotation.generations if each not in taken.forgotten),
            )
        )

    def _keep(self, rotation: Rotation) -> None:
        if not self._settings.is_dry and rotation != self._store.read():
            self._store.write(rotation)
        self.rotation = rotation

    # The daemon

    @property
    def is_in_step(self) -> bool:
        """Whether the daemon signs as it is to; also where it does not run and has nothing to be told.

        Until the first keys of a state have come so far, it keeps what it has from before.
        """
        if not any(each.has_signed for each in self.rotation.generations):
            return True
        wanted = {key.selector: key.fingerprint for key in self.rotation.signing}
        signs = self._daemon.signs_with(self.domain, self.file, wanted)
        return signs is True or (signs is None and not self.rotation.at(Stage.SWITCHING))

    @property
    def wants_reload(self) -> bool:
        """Not with keys that a server does not publish, or may not."""
        return self.is_in_use and not self._settings.is_dry and not self._unseen and not self.is_in_step

    @property
    def _unseen(self) -> Sequence[str]:
        """Why the daemon must not be made to sign with the keys that it is to sign with."""
        if coming := self.rotation.at(Stage.SWITCHING):
            return self._of(coming[0]).lacking
        # A state of before, put back from a backup, may name keys whose records are gone.
        return [lost for each in self.rotation.at(Stage.SIGNING) for lost in self._of(each).lost]

    def conclude(self) -> None:
        """The old keys retire if the daemon signs with the new ones; then say what there is."""
        if self.is_in_use and not self._settings.is_dry:
            self._hear_the_daemon()
        self._tell_generations()
        self._tell_unknown()
        if not self.is_in_use and self._store.read() is not None:
            self._tell_how_to_use_it()

    def _hear_the_daemon(self) -> None:
        if not self.is_in_step and self._unseen:
            names = ", ".join(key.selector for key in self.rotation.signing)
            self._note(
                f"the daemon has not said that it signs with {names}, and is not reloaded while a server may lack"
                " their records",
                ExitCode.TEMPORARY,
            )
        elif not self.is_in_step:
            self._note(self._out_of_step(), ExitCode.FAIL if self._settings.reload_command else WAITING)
        elif self.rotation.at(Stage.SWITCHING):
            # What the daemon signed with before counts from when it was seen to have changed.
            self._keep(confirmed(self.rotation, now=self._settings.clock(), rules=self._rules))

    def _tell_generations(self) -> None:
        is_followed = bool(self.rotation.at(*COMING))
        for each in (*self.rotation.generations, *(self._forgotten if not self._settings.is_dry else ())):
            there, is_forgotten = self._of(each), each in self._forgotten
            said = said_of(
                each,
                there,
                now=self._settings.now,
                rules=self._rules,
                is_forgotten=is_forgotten,
                is_followed=is_followed,
            )
            self.said.append(said)
            if not is_forgotten:
                self._codes.append(_code(each, there))

    def _tell_how_to_use_it(self) -> None:
        """Of a state that the configuration does not name."""
        chosen = self._settings
        here = {key.selector for each in self.rotation.generations for key in each.keys}
        others = [selector for _, selector, _ in keys_of(chosen.config, self.domain) if selector not in here]
        if others:
            self._note(
                f"{chosen.config_file} names {', '.join(others)}, of which {self.file} has nothing: remove that file,"
                " and begin again with --adopt",
                WAITING,
            )
        else:
            self._note(
                f'put this into {chosen.config_file} under [domains."{self.domain}"], in place of selectors, and'
                f" reload the daemon: rotation = {toml_value(self.file)}",
                WAITING,
            )

    def _tell_unknown(self) -> None:
        """Of keys that sign and that the state has nothing of, nobody else says when their records can go."""
        loaded = self._daemon.loaded() if self.is_in_use else None
        told = loaded.domains.get(self.domain) if loaded is not None else None
        if told is None or loaded is None:
            return
        known = {key.fingerprint for each in self.rotation.generations for key in each.keys}
        known |= {key.fingerprint for each in self._forgotten for key in each.keys}
        unknown = [selector for selector, fingerprint in told.keys.items() if fingerprint not in known]
        if unknown:
            life_s = max(self._rules.lifetime_s, min(loaded.lifetime_s, MAX_LIFETIME_S), MIN_KEEP_S)
            self.said.append(
                f"the daemon signs with {', '.join(unknown)}, of which {self.file} has nothing: leave the records"
                f" there for {life_s / DAY_S:.0f} days after it has stopped"
            )

    def _out_of_step(self) -> str:
        names = ", ".join(key.selector for key in self.rotation.signing) or "no key"
        if self._daemon.loaded() is None:
            return f"the daemon does not run, or is older than this command; start it: it is to sign with {names}"
        return (
            f"the daemon has not said yet that it signs with {names}: see its log (reload failed), reload it, and run"
            " this again; until then nothing retires, and all records are needed"
        )

    # What there is to say

    def code(self) -> ExitCode:
        """The gravest of all."""
        order = (ExitCode.FAIL, ExitCode.TEMPORARY, WAITING)
        return next((each for each in order if each in self._codes), ExitCode.PASS)

    def to_publish(self) -> Sequence[tuple[str, str]]:
        """Names and records that a server lacks."""
        return [
            (key.name(self.domain), key.record)
            for each in self.rotation.generations
            if each.stage is Stage.CREATED or (self._of(each).lost and not self._is_left(each))
            for key in each.keys
        ]

    def _is_left(self, generation: Generation) -> bool:
        """Nobody wants its records back."""
        return generation.stage is Stage.REMOVABLE or self._of(generation).is_revoked

    def to_remove(self) -> Sequence[str]:
        """Names of records that nobody needs."""
        removable = [each for each in self.rotation.at(Stage.REMOVABLE) if each not in self._forgotten]
        return [key.name(self.domain) for each in removable for key in each.keys]

    def _of(self, generation: Generation) -> Seen:
        return self._seen.get(generation.keys, Seen())

    def _note(self, text: str, code: ExitCode) -> None:
        self.said.append(text)
        self._codes.append(code)


def _code(generation: Generation, there: Seen) -> ExitCode:
    match generation.stage:
        case Stage.CREATED:
            return WAITING if there.lost else ExitCode.TEMPORARY if there.silent else ExitCode.PASS
        case Stage.REMOVABLE:
            return WAITING
        case Stage.RETIRED if there.is_revoked:
            return ExitCode.TEMPORARY if there.silent else ExitCode.PASS
    return ExitCode.FAIL if there.lost else ExitCode.TEMPORARY if there.silent else ExitCode.PASS
