"""KeyTable and SigningTable of OpenDKIM as rules of mailguard. Pure.

mailguard signs by the domain in From, with d= that domain, or the nearest one above it whose rule covers subdomains.
So entries for single users, and signatures of other domains than the author's, have no counterpart and are noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailguard.dkim.signature import parse_selector
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.migration.address_patterns import AddressPatterns, Reach
from mailguard.migration.dataset import DataSet, Entry
from mailguard.migration.note import Note, NoteKind, shown
from mailguard.migration.signing_plan import PatternKey, PlannedKey, SigningPlan, SigningRule, merged

__all__ = ["KEY_TABLE", "SIGNING_TABLE", "plan_tables"]

KEY_TABLE, SIGNING_TABLE = "KeyTable", "SigningTable"
_PERCENT = "%"
_EVERYBODY = ("*", "*@*")


@dataclass(frozen=True, slots=True)
class _KeyRow:
    """A row of the KeyTable. `domain` may be %, and so may a part of `key`."""

    domain: str
    selector: str
    key: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class _Wish:
    """That `domain` signs for subdomains of its own."""

    domain: Domain
    keys: tuple[PlannedKey, ...]
    entry: Entry
    whose: str
    covers: bool


def plan_tables(
    key_tables: Sequence[DataSet], signing_table: DataSet, *, several: bool, directory: str
) -> SigningPlan:
    """What the tables sign; a name may be in more than one of `key_tables`, and then all its keys sign.

    `several`: MultipleSignatures. Relative key files begin at `directory`.
    """
    notes = [note for table in (*key_tables, signing_table) for note in table.notes]
    rows = [_key_rows(table, notes) for table in key_tables]
    return _Planner(rows, AddressPatterns(signing_table, several=several), directory, notes).plan()


def _key_rows(table: DataSet, notes: list[Note]) -> dict[str, _KeyRow]:
    rows: dict[str, _KeyRow] = {}
    for entry in table.entries:
        domain, _, rest = entry.value.partition(":")
        selector, _, key = (part.strip() for part in rest.partition(":"))
        name = entry.key
        if not (domain.strip() and selector and key):
            what = f'"{shown(name)}" is not followed by DOMAIN:SELECTOR:KEY'
            notes.append(Note(NoteKind.BROKEN, what, entry.place, KEY_TABLE))
        elif name in rows:
            what = f'"{shown(name)}" is at {rows[name].entry.place} too; that, the first, counts'
            notes.append(Note(NoteKind.BROKEN, what, entry.place, KEY_TABLE))
        else:
            rows[name] = _KeyRow(domain.strip().lower(), selector, key, entry)
    return rows


class _Planner:
    """One use: `plan`."""

    def __init__(
        self, rows: list[dict[str, _KeyRow]], patterns: AddressPatterns, directory: str, notes: list[Note]
    ) -> None:
        self._rows = rows
        self._patterns = patterns
        self._directory = directory
        self._notes = notes
        self._unknown: set[str] = set()
        self._rules: list[SigningRule] = []
        self._wishes: list[_Wish] = []
        self._found_patterns: dict[PatternKey, None] = {}

    def plan(self) -> SigningPlan:
        named = frozenset(self._named_domains())
        for domain in self._named_domains():
            self._plan_domain(domain)
        for reached in self._patterns.reached:
            self._plan_entry(reached.reach, reached.domain, reached.entry)
        self._grant(self._wishes)
        rules = merged(self._rules, self._notes)
        return SigningPlan(rules, tuple(self._found_patterns), tuple(self._notes), named)

    def _named_domains(self) -> Iterable[Domain]:
        """Each domain that the tables name and could sign for, in their order."""
        domains: dict[Domain, None] = {}
        widest = False
        for reached in self._patterns.reached:
            if reached.reach in (Reach.DOMAIN, Reach.ENDING) and reached.domain is not None:
                domains[reached.domain] = None
            widest = widest or reached.reach in (Reach.BELOW, Reach.ENDING, Reach.EVERYBODY)
        if widest:
            for row in [row for rows in self._rows for row in rows.values()]:
                for text in (row.domain, row.entry.key):
                    domain = _named_domain(text)
                    if domain is not None:
                        domains[domain] = None
        return domains

    def _plan_domain(self, domain: Domain) -> None:
        own: list[PlannedKey] = []
        for entry in self._patterns.for_domain(domain):
            for row in self._rows_of(entry, domain):
                signs = _signing_domain(row, domain)
                if signs == domain:
                    own += self._key(row, domain)
                elif signs is not None and domain.is_equal_or_below(signs):
                    self._wish_below(signs, row, entry, f"mail from {domain}")
                elif entry.key not in _EVERYBODY:  # which is said once
                    self._foreign(entry, row, f"mail from {domain}")
        if own:
            self._rules.append(SigningRule(domain, tuple(own)))

    def _plan_entry(self, reach: Reach, domain: Domain | None, entry: Entry) -> None:
        key = shown(entry.key)
        if reach is Reach.NOBODY:
            what = (
                f'"{key}" never fits an address in a table of this type (patterns need refile:); it is not taken over'
            )
            self._notes.append(Note(NoteKind.BROKEN, what, entry.place, SIGNING_TABLE))
        elif reach is Reach.OTHER:
            what = f'"{key}" has no counterpart: name the domains, each in a [domains] table of its own'
            self._notes.append(Note(NoteKind.DECIDE, what, entry.place, SIGNING_TABLE))
        elif reach is Reach.USER:
            what = f'"{key}" is not taken over: keys are chosen by the domain in From, for all its users alike'
            self._notes.append(Note(NoteKind.DECIDE, what, entry.place, SIGNING_TABLE))
        elif reach is Reach.EVERYBODY:
            self._plan_everybody(entry)
        elif domain is not None and reach in (Reach.BELOW, Reach.ENDING):
            self._plan_subdomains(domain, reach, entry)
        if reach not in (Reach.NOBODY, Reach.OTHER, Reach.USER):
            self._check_signer(entry)

    def _plan_subdomains(self, domain: Domain, reach: Reach, entry: Entry) -> None:
        if entry not in self._patterns.for_subdomains(domain):
            return  # an entry before it is for them
        if reach is Reach.ENDING:
            what = f'"{shown(entry.key)}" fits every domain that ends so, as in not{domain}; only {domain} and its'
            self._notes.append(Note(NoteKind.DIFFERS, f"{what} subdomains are signed", entry.place, SIGNING_TABLE))
        for row in self._rows_of(entry, domain):
            signs = domain if row.domain == _PERCENT else _signing_domain(row, domain)
            if row.domain == _PERCENT:
                self._each_its_own(entry, row, f"subdomains of {domain}", domain, itself=reach is Reach.ENDING)
            elif signs is not None and domain.is_equal_or_below(signs):
                self._wish_below(signs, row, entry, f"mail from subdomains of {domain}", covers=signs == domain)
            else:
                self._foreign(entry, row, f"mail from subdomains of {domain}")

    def _wish_below(self, signs: Domain, row: _KeyRow, entry: Entry, whose: str, *, covers: bool = False) -> None:
        """`signs` signs for its subdomains; `covers`: for all of them, as the entry has it."""
        keys = self._key(row, signs)
        if keys:
            self._wishes.append(_Wish(signs, tuple(keys), entry, whose, covers))

    def _grant(self, wishes: Sequence[_Wish]) -> None:
        own = {rule.domain: rule for rule in self._rules}
        covered = {wish.domain for wish in wishes if wish.covers}
        for wish in wishes:
            signs, rule = wish.domain, own.get(wish.domain)
            keys = wish.keys if rule is None else rule.keys
            self._rules.append(SigningRule(signs, keys, subdomains=True))
            beside = [] if rule is not None else [f"{signs} itself"]
            if not wish.covers and signs not in covered:
                beside.append(f"all subdomains of {signs}")
            before, now = ({key.selector for key in each} for each in (wish.keys, keys))
            what = f"{wish.whose} is signed with d={signs}, by subdomains = true there"
            if before != now:
                what += f"; with s={', '.join(sorted(now))}, and not {', '.join(sorted(before))} as before"
            if beside:
                what += f"; so is mail from {' and '.join(beside)} now"
            if beside or before != now:
                self._notes.append(Note(NoteKind.DECIDE, what, wish.entry.place, SIGNING_TABLE))

    def _plan_everybody(self, entry: Entry) -> None:
        for rows in self._rows:
            name = entry.value.partition(":")[0].strip()
            if name == _PERCENT:
                continue  # the key of the domain's name; these domains are planned each by itself
            row = rows.get(name)
            if row is None:
                self._rows_of(entry, None)
            elif row.domain == _PERCENT:
                self._each_its_own(entry, row, "every domain")
            else:
                self._foreign(entry, row, f"mail from every domain but {shown(row.domain)}")

    def _each_its_own(
        self, entry: Entry, row: _KeyRow, whose: str, within: Domain | None = None, *, itself: bool = False
    ) -> None:
        selector = self._selector(row)
        if selector is None:
            return
        if _PERCENT in row.key and _is_file(row.key):
            file = self._path(row.key)
            self._found_patterns[PatternKey(selector, file, row.entry.place, within, itself)] = None
            return
        what = f"{whose} had one key: name the domains, each in a [domains] table of its own"
        self._notes.append(Note(NoteKind.DECIDE, what, entry.place, SIGNING_TABLE))

    def _foreign(self, entry: Entry, row: _KeyRow, whose: str) -> None:
        what = (
            f"{whose} was signed with d={shown(row.domain)}; mailguard signs with the author's domain or one above it"
        )
        self._notes.append(Note(NoteKind.DECIDE, what, entry.place, SIGNING_TABLE))

    def _check_signer(self, entry: Entry) -> None:
        name, colon, signer = entry.value.partition(":")
        if colon and name and signer:
            what = f'the signer "{shown(signer)}" (i=) is left out: signatures are the domain\'s'
            self._notes.append(Note(NoteKind.DIFFERS, what, entry.place, SIGNING_TABLE))

    def _rows_of(self, entry: Entry, domain: Domain | None) -> list[_KeyRow]:
        name = entry.value.partition(":")[0].strip()
        if name == _PERCENT:
            name = domain or ""
            found = [rows[name] for rows in self._rows if name in rows]
            if found or entry.key in _EVERYBODY:
                return found
        found = [rows[name] for rows in self._rows if name in rows]
        if not found and name not in self._unknown:
            self._unknown.add(name)
            what = f'the key "{shown(name)}" is not in {KEY_TABLE}' if name else "the name of a key is missing"
            self._notes.append(Note(NoteKind.BROKEN, what, entry.place, SIGNING_TABLE))
        return found

    def _key(self, row: _KeyRow, domain: Domain) -> list[PlannedKey]:
        selector = self._selector(row)
        if selector is None:
            return []
        if not _is_file(row.key):
            return [PlannedKey(selector, "", row.entry.place, inline=row.key)]
        return [PlannedKey(selector, self._path(row.key).replace(_PERCENT, domain), row.entry.place)]

    def _selector(self, row: _KeyRow) -> str | None:
        try:
            return parse_selector(row.selector)
        except DomainError as error:
            if row.entry.key not in self._unknown:
                self._unknown.add(row.entry.key)
                what = f'"{shown(row.selector)}" is not a selector: {error}'
                self._notes.append(Note(NoteKind.BROKEN, what, row.entry.place, KEY_TABLE))
            return None

    def _path(self, key: str) -> str:
        return key if key.startswith("/") else f"{self._directory.rstrip('/')}/{key}"


def _is_file(key: str) -> bool:
    return key.startswith(("/", "./", "../"))


def _named_domain(text: str) -> Domain | None:
    """The domain that a word of a KeyTable is, if it is one; a key may have any name, and % is no domain."""
    try:
        return Domain.parse(text) if "." in text else None
    except DomainError:
        return None


def _signing_domain(row: _KeyRow, domain: Domain) -> Domain | None:
    if row.domain == _PERCENT:
        return domain
    try:
        return Domain.parse(row.domain)
    except DomainError:
        return None
