"""What the readers found, put together as one configuration of mailguard. Pure.

Its mode is always monitor: nothing is refused until the administrator says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Any

from mailguard.config import DEFAULT_USER
from mailguard.domain import Domain
from mailguard.inbound import DEFAULT_INTERNAL_NETWORKS
from mailguard.migration.found import Found, KeyPath, is_authserv_id
from mailguard.migration.hosts import Network
from mailguard.migration.note import Note, NoteKind, Place, Setting, shown

__all__ = ["KeysInUse", "compose", "limited"]

CHROOT = "/var/spool/postfix"
CHROOT_DIRECTORY = f"{CHROOT}/mailguard"
DEFAULT_SOCKET = "unix:/run/mailguard/mailguard.sock"
# Not one that OpenDKIM, OpenDMARC or dkimpy-milter is usually given, so that they can run beside it.
INET_SOCKET = "inet:127.0.0.1:9891"
# Of one kind about one file. Nobody reads more, and the rest is much the same.
MAX_NOTES = 100

# Of the tables, as docs/configuration.md has them.
_ORDER = (
    "mode",
    "authserv_id",
    "user",
    "dns",
    "listeners",
    "sign",
    "domains",
    "verify",
    "spf",
    "results",
    "policy",
    "trusted",
)

_INET = re.compile(r"inet6?:[0-9]+(?:@(?P<host>.+))?", re.IGNORECASE)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "ip6-localhost")


@dataclass(frozen=True, slots=True)
class KeysInUse:
    """[domains] and what follows from where the keys are."""

    domains: dict[Domain, dict[str, Any]]
    user: str
    """Who owns the keys; empty if that is not known."""
    group_readable: bool = False
    pattern: str = ""
    pattern_selector: str = ""
    pattern_domains: tuple[Domain, ...] = ()


def compose(
    founds: Sequence[Found], keys: KeysInUse, notes: list[Note], *, host: str, myhostname: Callable[[], str]
) -> dict[str, Any]:
    """The configuration. Of values that differ, that of the first in `founds` counts; `notes` gets what is to say.

    `host`: the full name of this host; `myhostname` asks for Postfix's name for it, empty if that is not known.
    """
    configuration: dict[str, Any] = {"mode": "monitor"}
    for path, value in _chosen(founds, notes).items():
        _put(configuration, path, value)
    unnamed = [found for found in founds if _goes_by_postfix(found)]
    by_postfix = myhostname() if unnamed else ""
    if not is_authserv_id(by_postfix):
        by_postfix = ""
    if unnamed and "authserv_id" not in configuration:
        if not by_postfix:
            _note_default_name(unnamed[0], host, notes)
        elif by_postfix.lower() != host.lower():
            configuration["authserv_id"] = by_postfix
    _note_given_up_names(founds, configuration.get("authserv_id", host), host, by_postfix or host, notes)
    if keys.user and keys.user != DEFAULT_USER:
        configuration["user"] = keys.user
    if _role(founds) != "sign" and not _has_dmarc(founds):
        what = (
            "nothing was refused by DMARC; with enforce, mail that fails it is refused (p=reject) or held"
            " (p=quarantine), and mail without one readable From is refused:"
            ' reject = "accept" and quarantine = "accept" in [policy.dmarc], and malformed = "accept" in [policy],'
            " keep it as it was"
        )
        notes.append(Note(NoteKind.DECIDE, what, Place(founds[0].file)))
    listener = _listener(founds, notes)
    if listener:
        configuration["listeners"] = [listener]
    _put_keys(configuration, founds, keys, notes)
    internal = _internal_networks(founds, notes)
    if set(internal) != set(DEFAULT_INTERNAL_NETWORKS):
        _put(configuration, ("policy", "internal_networks"), [str(network) for network in internal])
    for domain in (domain for found in founds for domain in found.ignored_authors):
        _put(configuration, ("policy", "domains", domain), {"dmarc": {"reject": "accept", "quarantine": "accept"}})
    trusted: dict[str, list[str]] = {}
    for found in founds:
        for key, names in found.trusted.items():
            trusted[key] = list(dict.fromkeys([*trusted.get(key, []), *names]))
    if trusted:
        configuration["trusted"] = [{"type": "local_policy", **trusted}]
    return {name: configuration[name] for name in sorted(configuration, key=_ORDER.index)}


def limited(notes: Iterable[Note]) -> list[Note]:
    """Each note once, the weightiest kind first, and of one kind about one file not too many."""
    counts: dict[tuple[NoteKind, str], int] = {}
    kept = []
    for note in dict.fromkeys(notes):
        key = (note.kind, note.place.file)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= MAX_NOTES:
            kept.append(note)
    for (kind, file), count in counts.items():
        if count > MAX_NOTES:
            kept.append(Note(kind, f"{count - MAX_NOTES} more such remarks", Place(file)))
    order = list(NoteKind)
    return sorted(kept, key=lambda note: order.index(note.kind))


def _chosen(founds: Sequence[Found], notes: list[Note]) -> dict[KeyPath, Any]:
    chosen: dict[KeyPath, tuple[Any, Found]] = {}
    for found in founds:
        for path, (value, setting) in found.values.items():
            other, first = chosen.setdefault(path, (value, found))
            if other != value:
                what = (
                    f"{found.program} has {shown(str(value))} here, {first.program} {shown(str(other))}; that is used"
                )
                place = setting.place if setting is not None else Place(found.file)
                notes.append(Note(NoteKind.DECIDE, what, place, ".".join(path)))
    return {path: value for path, (value, _) in chosen.items()}


def _goes_by_postfix(found: Found) -> bool:
    """Whether its results are in the name that is {j} to a milter, which Postfix makes of myhostname."""
    is_theirs = found.program in ("OpenDKIM", "OpenDMARC")
    return is_theirs and found.is_verifier and found.settings.get("AuthservID") is None


def _note_default_name(found: Found, host: str, notes: list[Note]) -> None:
    what = (
        "without AuthservID, results were written in the name of myhostname in main.cf, and now in that of this"
        f' host, "{shown(host)}": if postconf -h myhostname says another, set authserv_id to that'
    )
    notes.append(Note(NoteKind.DECIDE, what, Place(found.file), "AuthservID"))


def _note_given_up_names(founds: Sequence[Found], name: str, host: str, myhostname: str, notes: list[Note]) -> None:
    """Whose fields were removed from mail from outside (RFC 8601 §5), and are not with `name` as authserv-id.

    OpenDMARC and policyd-spf remove none.
    """
    for found in founds:
        kept = found.settings.get("KeepAuthResults")
        if not _is_dkim(found) or not found.is_verifier or (kept is not None and kept.is_on):
            continue
        default = myhostname if _goes_by_postfix(found) else host
        before, setting = found.values.get(("authserv_id",), (default, None))
        if before.lower() == name.lower():
            continue
        by_default = "this host (myhostname)" if _goes_by_postfix(found) else "this host"
        whose = f'"{shown(before)}"' if setting is not None else by_default
        what = (
            f"{found.program} removed results in the name of {whose} from mail from outside; with authserv_id ="
            f' "{shown(name)}" they stay, whoever forged them: set it to the name that filters and users believe'
        )
        place = setting.place if setting is not None else Place(found.file)
        notes.append(Note(NoteKind.DECIDE, what, place, "AuthservID"))


def _put(configuration: dict[str, Any], path: Sequence[str], value: Any) -> None:
    table = configuration
    for part in path[:-1]:
        table = table.setdefault(part, {})
    table[path[-1]] = value


def _put_keys(configuration: dict[str, Any], founds: Sequence[Found], keys: KeysInUse, notes: list[Note]) -> None:
    if keys.group_readable:
        _put(configuration, ("sign", "key_permissions"), "group")
    if keys.pattern:
        _put(configuration, ("sign", "key_pattern"), keys.pattern)
        _put(configuration, ("sign", "key_selectors"), [keys.pattern_selector])
    domains = [*keys.domains, *(domain for domain in keys.pattern_domains if domain not in keys.domains)]
    networks = _collapsed(network for found in founds for network in found.sign_networks)
    if networks and domains:
        rule = {"networks": [str(network) for network in networks], "domains": list(map(str, domains))}
        _put(configuration, ("sign", "networks"), [rule])
        covering = [domain for domain, table in keys.domains.items() if table.get("subdomains")]
        file = next(found.file for found in founds if found.sign_networks)
        if covering:
            what = "clients of [[sign.networks]] are signed for the domains that it lists, and not for others below"
            notes.append(Note(NoteKind.DECIDE, f"{what} {shown(', '.join(covering))}", Place(file)))
    if keys.domains:
        configuration["domains"] = {str(domain): table for domain, table in keys.domains.items()}


def _internal_networks(founds: Sequence[Found], notes: list[Note]) -> list[Network]:
    """Clients that neither SPF nor DMARC judge: whom OpenDMARC judged is none of them, whoever else spared him."""
    listed = _collapsed([*DEFAULT_INTERNAL_NETWORKS, *(each for found in founds for each in found.internal_networks)])
    internal = listed
    is_judged = _has_dmarc(founds)
    is_told = _role(founds) != "sign"  # by which nobody is judged at all
    for spared in (each for found in founds for each in found.spared):
        if _collapsed([*listed, *spared.networks]) == listed:
            continue
        what = f"before, these clients were only {spared.how}; "
        if is_judged:
            what += "those that OpenDMARC judged are not in policy.internal_networks: SPF and DMARC judge them now"
        else:
            what += "now they are in policy.internal_networks, and SPF and DMARC refuse nothing from them either"
            internal = _collapsed([*internal, *spared.networks])
        if is_told:
            notes.append(Note(NoteKind.DECIDE, what, spared.setting.place, spared.setting.name))
    return internal


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    given = list(networks)
    fourth = collapse_addresses(each for each in given if isinstance(each, IPv4Network))
    sixth = collapse_addresses(each for each in given if isinstance(each, IPv6Network))
    return [*fourth, *sixth]


def _listener(founds: Sequence[Found], notes: list[Note]) -> dict[str, str]:
    """Never the address of one of the others, so that both can run; of its kind, so that Postfix can reach it."""
    sockets = [found.socket for found in founds if found.socket is not None]
    address = DEFAULT_SOCKET
    if any(f"{CHROOT}/" in socket.value for socket in sockets):
        address = f"unix:{CHROOT_DIRECTORY}/mailguard.sock"
        what = f"make the directory first: install -d -o mailguard -g mailguard -m 0750 {CHROOT_DIRECTORY}"
        notes.append(Note(NoteKind.DECIDE, what, sockets[0].place, sockets[0].name))
    elif any(_INET.fullmatch(socket.value) for socket in sockets):
        address = INET_SOCKET
    for socket in sockets:
        _note_socket(socket, address, notes)
    listener = {} if address == DEFAULT_SOCKET else {"address": address}
    role = _role(founds)
    return listener if role == "auto" else {"address": address, "role": role}


def _note_socket(socket: Setting, address: str, notes: list[Note]) -> None:
    inet = _INET.fullmatch(socket.value)
    if inet and (inet["host"] or "").strip("[]").lower() not in _LOCAL_HOSTS:
        what = f"other hosts could reach it; {address} is for this host: docs/postfix.md says how to open it"
        notes.append(Note(NoteKind.DECIDE, what, socket.place, socket.name))
    else:
        # A relative path is found in a chroot and without one; an absolute one is not found in it.
        seen = address.replace(f"unix:{CHROOT}/", "unix:")
        what = f"Postfix reaches mailguard at {seen}, by smtpd_milters in main.cf, beside this one or in its place"
        notes.append(Note(NoteKind.DIFFERS, what, socket.place, socket.name))


def _has_dmarc(founds: Sequence[Found]) -> bool:
    return any(found.program == "OpenDMARC" for found in founds)


def _is_dkim(found: Found) -> bool:
    return found.program in ("OpenDKIM", "dkimpy-milter")


def _role(founds: Sequence[Found]) -> str:
    if not all(map(_is_dkim, founds)):
        return "auto"
    signs, verifies = any(found.is_signer for found in founds), any(found.is_verifier for found in founds)
    return "auto" if signs == verifies else "sign" if signs else "verify"
