"""The private keys that a plan names: can they be used where they are, whose are they, what is to be copied.

Reads key files and the directories of key patterns, and writes nothing. A key that is left where it is must be one
that SigningKey would load.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mailguard.dkim.signing_key import MAX_KEY_FILE_BYTES, KeyPermissions, SigningKey
from mailguard.domain import Domain
from mailguard.errors import DomainError, KeyFileError
from mailguard.migration.note import Note, NoteKind, shown
from mailguard.migration.signing_plan import PatternKey, PlannedKey, SigningRule

__all__ = ["KeyCopy", "Prepared", "found_by_pattern", "prepare_keys"]

MAX_PATTERN_KEYS = 20_000
_PEM_BEGIN = "-----BEGIN "
# What base64 of a key may be: PKCS#8, or RSA as PKCS#1.
_PEM_LABELS = ("PRIVATE KEY", "RSA PRIVATE KEY")


@dataclass(frozen=True, slots=True)
class KeyCopy:
    """A key that is to be stored."""

    domain: Domain
    selector: str
    octets: bytes = field(repr=False)
    source: str


@dataclass(slots=True)
class Prepared:
    """The [domains] of the configuration, and what goes with them."""

    domains: dict[Domain, dict[str, Any]] = field(default_factory=dict)
    copies: list[KeyCopy] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)
    """Names of the users who own the keys that stay where they are."""
    group_readable: bool = False
    """Whether the group can read one of those."""


@dataclass(frozen=True, slots=True)
class _Examined:
    """A key file. `fault`: why it cannot be taken over; `doubt`: what has to be done first."""

    path: str
    octets: bytes | None = field(default=None, repr=False)
    """None where this user cannot read it."""
    fault: str = ""
    doubt: str = ""
    owner: str = ""
    group_readable: bool = False


def found_by_pattern(pattern: PatternKey) -> Iterator[SigningRule]:
    """A rule for each domain that has a file now."""
    pieces = pattern.file.split("%")
    if len(pieces) == 1:
        return
    shape = re.compile("(?P<domain>[^/]+)".join([re.escape(pieces[0]), re.escape(pieces[1])]))
    for number, file in enumerate(sorted(glob.glob("*".join(map(glob.escape, pieces))))):
        match = shape.match(file)
        if number >= MAX_PATTERN_KEYS or match is None:
            continue
        try:
            domain = Domain.parse(match["domain"])
        except DomainError:
            continue
        if pattern.is_for(domain) and file == pattern.file.replace("%", match["domain"]):
            yield SigningRule(domain, (PlannedKey(pattern.selector, file, pattern.place),))


def prepare_keys(rules: Iterable[SigningRule], *, copy_to: str | None) -> Prepared:
    """Look at each key. With `copy_to`, keys are to be copied to DIRECTORY/DOMAIN/SELECTOR.pem; else they stay."""
    prepared = Prepared()
    seen: dict[str, _Examined] = {}
    for rule in rules:
        selectors = []
        for key in rule.keys:
            path = _prepare(prepared, rule.domain, key, seen, copy_to)
            if path:
                selectors.append({"name": key.selector, "key_file": path})
        if selectors:
            prepared.domains[rule.domain] = {
                "selectors": selectors,
                **({"subdomains": True} if rule.subdomains else {}),
            }
    return prepared


def _prepare(
    prepared: Prepared, domain: Domain, key: PlannedKey, seen: dict[str, _Examined], copy_to: str | None
) -> str:
    """The path for the configuration; empty if the key is left out."""

    def note(text: str) -> None:
        prepared.notes.append(Note(NoteKind.DECIDE, text, key.place))

    name = f"{key.selector}._domainkey.{domain}"
    if key.file and key.file not in seen:
        seen[key.file] = _examine(key.file)
    found = seen[key.file] if key.file else _inline(key.inline)
    if not found.fault and found.octets is not None:
        try:
            SigningKey.from_bytes(found.octets, domain=domain, selector=key.selector)
        except KeyFileError as error:
            found = _Examined(found.path, fault=str(error))
    if found.fault:
        note(f"the key of {name} is left out: {found.path and shown(found.path) + ': '}{found.fault}")
        return ""
    if copy_to is not None:
        if found.octets is None:
            note(f"the key of {name} is left out: {found.doubt}")
            return ""
        prepared.copies.append(KeyCopy(domain, key.selector, found.octets, found.path or str(key.place)))
        return os.path.join(copy_to, domain, f"{key.selector}.pem")
    if not found.path:
        note(f"the key of {name} stands in the table itself and is left out: --copy-keys stores it in a file")
        return ""
    if found.doubt:
        note(f"the key of {name}: {found.doubt}")
    prepared.owners |= {found.owner} - {""}
    prepared.group_readable |= found.group_readable
    return found.path


def _examine(file: str) -> _Examined:
    if not file.isprintable() or not _is_utf8(file):
        return _Examined(file, fault="the name of the file has characters that a configuration cannot have")
    try:
        path = os.path.realpath(file, strict=True)
        status = os.stat(path)
    except PermissionError:
        return _Examined(file, doubt=f"{shown(file)} cannot be looked at by this user: do this as root")
    except OSError as error:
        return _Examined(file, fault=error.strerror or str(error))
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_KEY_FILE_BYTES:
        return _Examined(file, fault="it is not a file with a key")
    owner = _user(status.st_uid)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as opened:
            octets = opened.read(MAX_KEY_FILE_BYTES + 1)
    except PermissionError:
        return _Examined(path, doubt=f"{shown(path)} cannot be read by this user: do this as root", owner=owner)
    except OSError as error:
        return _Examined(path, fault=error.strerror or str(error))
    group_readable = bool(status.st_mode & stat.S_IRGRP)
    permissions = KeyPermissions.GROUP if group_readable else KeyPermissions.STRICT
    doubt = ""
    try:
        # Any domain and selector: only the file is looked at.
        SigningKey.load(path, domain="example.com", selector="s", permissions=permissions, owner=status.st_uid)
    except KeyFileError as error:
        doubt = f"{error}; or --copy-keys"
    return _Examined(path, octets, doubt=doubt, owner=owner, group_readable=group_readable)


def _inline(text: str) -> _Examined:
    """A key in the table: PEM on one line is not known to be written, base64 is."""
    if _PEM_BEGIN in text:
        return _Examined("", text.encode("utf-8", "replace"))
    body = "".join(text.split())
    for label in _PEM_LABELS:
        octets = f"{_PEM_BEGIN}{label}-----\n{body}\n-----END {label}-----\n".encode("utf-8", "replace")
        try:
            SigningKey.from_bytes(octets, domain="example.com", selector="s")
        except KeyFileError:
            continue
        return _Examined("", octets)
    return _Examined("", fault="what stands in the table is neither a file nor a key")


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _user(number: int) -> str:
    """Empty if nobody has the number."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""
