"""The key files of a rotation: made, looked at as the daemon will, and deleted.

The directory of the keys may belong to the daemon's user, which root does not trust: nothing in it is followed, and
nothing is deleted but the very key that was made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mailguard.cli.doctor_child import Person, fault_as
from mailguard.cli.key_files import Owner, store_keys
from mailguard.cli.new_keys import GENERATORS
from mailguard.config import Config
from mailguard.dkim.signature import ALGORITHMS
from mailguard.dkim.signing_key import MAX_KEY_FILE_BYTES, KeyCheck, KeyPermissions, SigningKey
from mailguard.domain import Domain
from mailguard.errors import ConfigError, KeyFileError
from mailguard.guarded_file import opened_directory, read_regular
from mailguard.key_places import WantedKey
from mailguard.rotation.state import RotatedKey
from mailguard.rotation.strict_json import is_path

__all__ = ["adopted", "delete", "make", "unusable"]

LOOK_TIMEOUT_S = 20.0


def make(domain: Domain, directory: str, names: Mapping[str, str], owner: Owner | None) -> tuple[RotatedKey, ...]:
    """A key of each algorithm under its name, in files. Raises KeyFileError, and then leaves none."""
    # Where the keys are is root's to say; what is deleted later is found without following a link.
    place = os.path.realpath(directory)
    if not is_path(place):
        raise KeyFileError(f"{place!a}: give a directory whose name is text without control characters")
    pems = {selector: GENERATORS[algorithm]() for algorithm, selector in names.items()}
    keys = tuple(
        _rotated(
            SigningKey.from_bytes(pem, domain=domain, selector=selector),
            os.path.join(place, domain, f"{selector}.pem"),
            is_made=True,
        )
        for selector, pem in pems.items()
    )
    try:
        store_keys(place, domain, list(pems.items()), owner=owner)
    except KeyFileError:
        for key in keys:
            delete(domain, key)
        raise
    return keys


def adopted(config: Config, wanted: WantedKey, *, check: KeyCheck = KeyCheck.FULL) -> RotatedKey:
    """A key that the configuration names already. Raises KeyFileError."""
    domain, selector, file = wanted
    owner = os.stat(file).st_uid if os.geteuid() == 0 and os.path.exists(file) else None
    key = SigningKey.load(
        file,
        domain=domain,
        selector=selector,
        permissions=KeyPermissions(config.sign.key_permissions),
        check=check,
        owner=owner,
    )
    return _rotated(key, os.path.abspath(file), is_made=False)


def unusable(config: Config, domain: Domain, keys: Sequence[RotatedKey], *, check: KeyCheck) -> str:
    """Why the daemon's user cannot sign with them; empty if that user can. While there is one thread."""

    def look() -> str:
        faults = ((key.selector, _fault(config, domain, key, check)) for key in keys)
        return "; ".join(f"{selector}: {fault}" for selector, fault in faults if fault)

    if not keys:
        return ""
    daemon = Person.named(config.user) if os.geteuid() == 0 else None
    if os.geteuid() == 0 and daemon is None:
        return f'there is no user "{config.user}" to read {keys[0].file}'
    # One process for all: a host may have many domains.
    fault = fault_as(daemon, look, timeout_s=LOOK_TIMEOUT_S)
    return f"{config.user if daemon else 'this user'} cannot sign with {fault}" if fault else ""


def _fault(config: Config, domain: Domain, key: RotatedKey, check: KeyCheck) -> str:
    permissions = KeyPermissions(config.sign.key_permissions)
    try:
        loaded = SigningKey.load(key.file, domain=domain, selector=key.selector, permissions=permissions, check=check)
    except KeyFileError as error:
        return " ".join(str(error).split())
    return "" if loaded.fingerprint == key.fingerprint else f"{key.file}: it holds another key"


def delete(domain: Domain, key: RotatedKey) -> str:
    """Delete the file of a key that rotation made; why it was not, or empty. One that is gone is deleted."""
    if not key.is_made:
        return f"{key.file}: mailguard did not make it; delete it when nothing else needs it"
    place, name = os.path.split(key.file)
    try:
        with opened_directory(place, is_guarded=False) as directory:
            _, octets = read_regular(name, directory=directory, max_octets=MAX_KEY_FILE_BYTES)
            if SigningKey.from_bytes(octets, domain=domain, selector=key.selector).fingerprint != key.fingerprint:
                return f"{key.file}: another key is in it; it stays"
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return ""
    except (OSError, ConfigError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return f"{key.file}: it is not the key that was made, or cannot be deleted: {why}; it stays"
    return ""


def _rotated(key: SigningKey, file: str, *, is_made: bool) -> RotatedKey:
    return RotatedKey(
        selector=key.selector,
        algorithm=ALGORITHMS[key.algorithm],
        bits=key.bits,
        file=file,
        record=key.record().decode("ascii"),
        fingerprint=key.fingerprint,
        is_made=is_made,
    )
