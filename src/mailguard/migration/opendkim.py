"""opendkim.conf: whose mail is signed, with which keys, and how (opendkim.conf(5), OpenDKIM 2.11). Pure.

dkimpy-milter has the same kind of file and most of the options; what it adds is in dkimpy_milter.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address

from mailguard.config import SignConfig
from mailguard.dkim.sign import OVERSIGNED
from mailguard.dkim.signature import parse_selector
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.migration.dataset import DataSet, Entry, read_dataset
from mailguard.migration.found import Found, Spared, Treatment
from mailguard.migration.hosts import LOCALHOST, MAX_EXCEPTIONS, Hosts, parse_hosts, without
from mailguard.migration.note import Note, NoteKind, Place, Setting, shown
from mailguard.migration.opendkim_options import PREFIXES, REMARKS
from mailguard.migration.option_lines import ReadText, blank_settings
from mailguard.migration.signing_plan import PlannedKey, SigningPlan, SigningRule, merged
from mailguard.migration.signing_table import KEY_TABLE, SIGNING_TABLE, plan_tables

__all__ = ["KeyOptions", "option_handlers", "plan_signing", "read_opendkim", "take_internal_hosts"]

DAY_S = 86_400
MAX_LIFETIME_DAYS = 365
MAX_SIGNATURES = 50
_CANONICALIZATION = re.compile("(?:simple|relaxed)(?:/(?:simple|relaxed))?")
# Without braces: OpenDKIM and dkimpy-milter put them around it.
_MACRO = re.compile(r"[A-Za-z0-9_]+")
_DAEMON_NAMES = ("sign", "daemon_names")

KeyOptions = Sequence[tuple[str, str, str]]
"""Names of the options for key table, key file and selector, for each kind of key."""
_KEY_OPTIONS: KeyOptions = ((KEY_TABLE, "KeyFile", "Selector"),)


def read_opendkim(file: str, read: ReadText) -> Found:
    """What the configuration in `file` comes to. Raises ConfigError if it cannot be read."""
    found = Found("OpenDKIM", blank_settings(file, read, includes=True))
    reading = option_handlers(read)
    found.treat({**REMARKS, **reading}, PREFIXES)
    if found.settings.get("Canonicalization") is None:
        found.put(("sign", "canonicalization"), "simple/simple")
    if found.settings.get("SignatureTTL") is None:
        _note_lifetime(found)
    if found.settings.get("Mode") is None:
        found.is_signer = True
    if found.is_signer:
        plan_signing(found, _KEY_OPTIONS, read)
    take_internal_hosts(found, read)
    if found.is_signer:
        signed = f"signed are {', '.join(name.decode() for name in OVERSIGNED)}, so that none can be added"
        found.note(NoteKind.DIFFERS, f"{signed}, and List-* and Sender where present")
    if (found.plan.rules or found.plan.patterns) and _DAEMON_NAMES not in found.values:
        names = ", ".join(SignConfig().daemon_names)
        what = f"a service that Postfix calls {names} ({{daemon_name}}) is our users' now; to OpenDKIM it was not"
        found.note(NoteKind.DIFFERS, f"{what}: daemon_names = [] in [sign] says that none is")
    return found


def option_handlers(read: ReadText) -> dict[str, Treatment]:
    """How the options that OpenDKIM and dkimpy-milter share are taken over, by their names in lower case."""

    def of_entries(take: Callable[[Found, Setting, DataSet], None]) -> Treatment:
        def treat(found: Found, setting: Setting) -> None:
            table = _data_set(found, setting, read)
            found.notes += table.notes
            take(found, setting, table)

        return treat

    used_later = ("basedirectory", "domain", "internalhosts", "keyfile", "keytable", "multiplesignatures")
    return {
        **dict.fromkeys((*used_later, "selector", "signingtable", "subdomains"), _used_later),
        "authservid": Found.take_authserv_id,
        "canonicalization": _take_canonicalization,
        "macrolist": of_entries(_take_macros),
        "maximumsignaturestoverify": _take_max_signatures,
        "mode": _take_mode,
        "mta": of_entries(_take_daemon_names),
        "nameservers": _take_nameservers,
        "oversignheaders": of_entries(_take_oversigned),
        "peerlist": of_entries(_take_peers),
        "signaturealgorithm": _take_algorithm,
        "signaturettl": _take_lifetime,
        "socket": Found.take_socket,
        "umask": Found.take_umask,
        "userid": Found.take_user,
    }


def _used_later(found: Found, setting: Setting) -> None:
    """Several options make one value; they are taken together."""


def _base_directory(found: Found) -> str:
    setting = found.settings.get("BaseDirectory")
    return setting.value if setting is not None else ""


def _is_opendkim(found: Found) -> bool:
    return found.program == "OpenDKIM"


def _data_set(found: Found, setting: Setting, read: ReadText) -> DataSet:
    dropped = ("refile",) if _is_opendkim(found) else ()
    return read_dataset(setting, read, directory=_base_directory(found), drops_indented=dropped)


def _take_mode(found: Found, setting: Setting) -> None:
    found.is_signer, found.is_verifier = "s" in setting.value, "v" in setting.value
    if not set(setting.value) <= set("sv"):
        found.note(NoteKind.BROKEN, f'"{shown(setting.value)}" is not s, v or sv', setting)
    elif not found.is_signer and found.settings.get(SIGNING_TABLE) is not None:
        found.note(NoteKind.DIFFERS, "nothing was signed, so the keys are not taken over", setting)


def _take_canonicalization(found: Found, setting: Setting) -> None:
    forms = setting.value.lower()
    if not _CANONICALIZATION.fullmatch(forms):
        found.note(NoteKind.BROKEN, f'"{shown(setting.value)}" is not simple or relaxed', setting)
        return
    body = "simple" if _is_opendkim(found) else forms
    found.put(("sign", "canonicalization"), forms if "/" in forms else f"{forms}/{body}", setting)


def _take_lifetime(found: Found, setting: Setting) -> None:
    if not re.fullmatch("[0-9]{1,12}", setting.value):
        found.note(NoteKind.BROKEN, f'"{shown(setting.value)}" is not a number of seconds', setting)
        return
    seconds = int(setting.value)
    if not seconds:
        _note_lifetime(found)
        return
    days = min(max(-(-seconds // DAY_S), 1), MAX_LIFETIME_DAYS)
    found.put(("sign", "lifetime_days"), days, setting)
    if days * DAY_S != seconds:
        found.note(NoteKind.DIFFERS, f"lifetimes are whole days, {MAX_LIFETIME_DAYS} at most: {days}", setting)


def _note_lifetime(found: Found) -> None:
    found.note(NoteKind.DIFFERS, "signatures had no end; with lifetime_days in [sign] they have one (x=)")


def _take_max_signatures(found: Found, setting: Setting) -> None:
    if re.fullmatch("[0-9]{1,6}", setting.value) and 1 <= int(setting.value) <= MAX_SIGNATURES:
        found.put(("verify", "max_signatures"), int(setting.value), setting)
    else:
        what = f"{shown(setting.value)} signatures are not verified: 1 to {MAX_SIGNATURES}"
        found.note(NoteKind.DECIDE, what, setting)


def _take_nameservers(found: Found, setting: Setting) -> None:
    addresses = []
    for part in filter(None, (part.strip() for part in setting.value.split(","))):
        try:
            addresses.append(str(ip_address(part.strip("[]"))))
        except ValueError:
            found.note(NoteKind.BROKEN, f'"{shown(part)}" is not an address', setting)
    if addresses:
        found.put(("dns", "nameservers"), addresses, setting)


def _take_algorithm(found: Found, setting: Setting) -> None:
    if setting.value.lower() not in ("rsa-sha256", "ed25519-sha256"):
        found.note(NoteKind.DECIDE, f"signatures with {shown(setting.value)} are not made: SHA-256 always", setting)


def _take_oversigned(found: Found, setting: Setting, table: DataSet) -> None:
    ours = {name.decode().lower() for name in OVERSIGNED}
    others = [shown(entry.key) for entry in table.entries if entry.key.lower() not in ours]
    if others:
        found.note(NoteKind.DIFFERS, f"{', '.join(others[:10])}: not oversigned; which fields are is fixed", setting)


def _take_daemon_names(found: Found, setting: Setting, table: DataSet) -> None:
    _put_daemon_names(found, [entry.key for entry in table.entries], setting)


def _put_daemon_names(found: Found, names: Sequence[str], setting: Setting) -> None:
    """Of MTA or of MacroList. Where that has daemon_name too, OpenDKIM goes by it alone."""
    before, other = found.values.get(_DAEMON_NAMES, ([], None))
    given = {setting.name.casefold(): (names, setting)} if names else {}
    if other is not None:
        given[other.name.casefold()] = (before, other)
    if not given:
        return
    counting, its_setting = given.get("macrolist") or given["mta"]
    found.put(_DAEMON_NAMES, list(dict.fromkeys(counting)), its_setting)
    by_mta, mta = given.get("mta", ([], setting))
    if not set(by_mta) <= set(counting):
        what = "MacroList has daemon_name too, and OpenDKIM goes by that alone: these names are not taken over"
        found.note(NoteKind.BROKEN, what, mta)


def _take_macros(found: Found, setting: Setting, table: DataSet) -> None:
    names: list[str] = []
    for entry in table.entries:
        text = f"{entry.key}={entry.value}" if entry.value else entry.key
        # dkimpy-milter(8) writes NAME|VALUE|VALUE; to OpenDKIM that is the name of one macro, which no MTA has.
        macro, _, rest = (entry.key, "", entry.value) if _is_opendkim(found) else text.partition("|")
        values = [value.strip() for value in rest.split("|") if value.strip()]
        if not _MACRO.fullmatch(macro):
            what = f'"{shown(text)}": no macro has such a name, and so {found.program} signed nothing by it'
            found.note(NoteKind.BROKEN, what, setting)
        elif macro == "daemon_name" and values:
            names += values
        elif not (macro in ("auth_type", "auth_authen") and not values):  # a login is always one of our users
            what = f'"{shown(entry.key)}": our users are known by login, {{daemon_name}} and network'
            found.note(NoteKind.DECIDE, what, setting)
    _put_daemon_names(found, names, setting)


def _take_peers(found: Found, setting: Setting, table: DataSet) -> None:
    hosts = _hosts(found, setting, table)
    found.trust("networks", map(str, hosts.networks), setting)
    found.trust("ptr", (name for name, _ in hosts.names), setting)
    found.peers = hosts.networks
    if hosts.networks or hosts.names:
        what = (
            "before, DKIM alone passed their mail by; [[trusted]] sets SPF and DMARC aside too: it is never refused"
        )
        found.note(
            NoteKind.DECIDE, f"{what}, but it is judged; that of a login or of daemon_names is signed", setting
        )


def _hosts(found: Found, setting: Setting, table: DataSet) -> Hosts:
    program = found.program if _is_opendkim(found) else ""
    hosts = parse_hosts(table.entries, setting.name, compared_by=program, patterns=table.is_pattern_file)
    found.notes += hosts.notes
    return hosts


def take_internal_hosts(found: Found, read: ReadText) -> None:
    """InternalHosts: clients to be signed without a login. DKIM does not judge them; others may have."""
    setting = found.settings.get("InternalHosts")
    if setting is None and (found.plan.rules or found.plan.patterns):
        found.sign_networks = without(LOCALHOST, found.peers)
        if found.sign_networks and _is_opendkim(found):
            ours = " and ".join(str(network.network_address) for network in found.sign_networks)
            what = f"without InternalHosts, {found.program} signs what comes from {ours}, and [[sign.networks]] does:"
            found.note(NoteKind.DECIDE, f"{what} remove it if a content filter returns mail from there")
    if setting is None:
        return
    table = _data_set(found, setting, read)
    found.notes += table.notes
    hosts = _hosts(found, setting, table)
    found.spared.append(Spared(hosts.networks, "not verified by DKIM", setting))
    if not found.is_signer:
        return
    found.sign_networks = hosts.networks
    if len(found.peers) > MAX_EXCEPTIONS:
        found.note(NoteKind.DECIDE, "those of them that PeerList has too were passed by, and are signed now", setting)
    else:
        found.sign_networks = without(hosts.networks, found.peers)
    if found.sign_networks != hosts.networks:
        found.note(NoteKind.DIFFERS, "those of PeerList, whose mail was passed by, are not signed", setting)
    for name, place in hosts.names:
        what = f"hosts are not known by name: if {name} sends without login, give its addresses in [[sign.networks]]"
        found.note(NoteKind.DECIDE, what, Setting(setting.name, "", place))
    if any(network.is_loopback for network in hosts.networks):
        what = "what comes from this host is signed: do not list it if a content filter returns mail from there"
        found.note(NoteKind.DIFFERS, what, setting)


def plan_signing(found: Found, options: KeyOptions, read: ReadText) -> None:
    """The keys: KeyTable and SigningTable, or else Domain, Selector and KeyFile."""
    directory = _base_directory(found)
    tables = [setting for names in options if (setting := found.settings.get(names[0])) is not None]
    signing_table = found.settings.get(SIGNING_TABLE)
    if signing_table is not None and tables:
        several = found.settings.get("MultipleSignatures")
        signing = _data_set(found, signing_table, read)
        key_tables = [_data_set(found, setting, read) for setting in tables]
        if not _is_opendkim(found):  # dkimpy-milter looks for * in a table of any type
            signing = replace(_last_of_equals(signing, SIGNING_TABLE), is_pattern_file=True)
            key_tables = [_last_of_equals(table, KEY_TABLE) for table in key_tables]
        found.plan = plan_tables(
            key_tables,
            signing,
            several=several is not None and several.is_on,
            directory=directory,
        )
    elif signing_table is not None or tables:
        missing = SIGNING_TABLE if tables else KEY_TABLE
        found.note(NoteKind.DECIDE, f"there is no {missing} beside it: nothing is signed", signing_table or tables[0])
    else:
        rules: list[SigningRule] = []
        for _, key_file, selector in options:
            rules += _same_key(found, key_file, selector, read, directory)
        found.plan = SigningPlan(merged(rules, found.notes))
    found.notes += found.plan.notes
    if not found.plan.rules and not found.plan.patterns:
        named = any(found.settings.get(name) is not None for names in options for name in names)
        kind = NoteKind.DECIDE if named else NoteKind.DIFFERS
        found.note(kind, "there is no key that could be taken over, and so nothing is signed")


def _last_of_equals(table: DataSet, option: str) -> DataSet:
    """Of entries with one key, dkimpy-milter knows the last, in the place of the first."""
    entries: dict[str, Entry] = {}
    notes = list(table.notes)
    for entry in table.entries:
        earlier = entries.get(entry.key, entry)
        if earlier.value != entry.value:
            what = f'"{shown(entry.key)}" is at {earlier.place} too; this, the last, counts'
            notes.append(Note(NoteKind.BROKEN, what, entry.place, option))
        entries[entry.key] = entry
    return replace(table, entries=tuple(entries.values()), notes=tuple(notes))


def _same_key(found: Found, key_file: str, selector: str, read: ReadText, directory: str) -> Sequence[SigningRule]:
    """One key for all of Domain."""
    domain, file, name = (found.settings.get(each) for each in ("Domain", key_file, selector))
    given = [setting for setting in (file, name) if setting is not None]
    if domain is None or file is None or name is None:
        if given:
            found.note(NoteKind.DECIDE, f"Domain, {key_file} and {selector} go together: nothing is signed", given[0])
        return []
    try:
        wanted = parse_selector(name.value)
    except DomainError as error:
        found.note(NoteKind.BROKEN, f'"{shown(name.value)}" is not a selector: {error}', name)
        return []
    table = _data_set(found, domain, read)
    found.notes += table.notes
    path = file.value if file.value.startswith("/") else f"{directory.rstrip('/')}/{file.value}"
    subdomains = found.settings.get("SubDomains")
    rules = []
    covers = subdomains is not None and subdomains.is_on
    for entry in table.entries:
        if entry.key == "*" or (table.is_pattern_file and "*" in entry.key):
            what = f'each domain that "{shown(entry.key)}" fits signed with d= its own name: name them in [domains]'
            found.note(NoteKind.DECIDE, what, _at(domain, entry.place))
            continue
        try:
            signing = Domain.parse(entry.key)
        except DomainError as error:
            found.note(NoteKind.BROKEN, f'"{shown(entry.key)}" is not a domain: {error}', _at(domain, entry.place))
            continue
        rules.append(SigningRule(signing, (PlannedKey(wanted, path, file.place),), subdomains=covers))
    return rules if _is_opendkim(found) or not covers else _without_covered(found, rules, domain)


def _without_covered(found: Found, rules: Sequence[SigningRule], setting: Setting) -> Sequence[SigningRule]:
    """With SubDomains, dkimpy-milter signs for a domain as for any other below one that Domain has too."""
    named = {rule.domain for rule in rules}
    kept: list[SigningRule] = []
    left: list[SigningRule] = []
    for rule in rules:
        _, _, above = rule.domain.partition(".")
        while above and above not in named:
            _, _, above = above.partition(".")
        (left if above else kept).append(rule)
    if left:
        names = shown(", ".join(rule.domain for rule in left))
        what = f"{names}: with SubDomains, dkimpy-milter signs for it with d= the domain above it"
        found.note(NoteKind.DIFFERS, f"{what}, and so does mailguard", setting)
    return kept


def _at(setting: Setting, place: Place) -> Setting:
    return Setting(setting.name, setting.value, place)
