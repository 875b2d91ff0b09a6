"""`python -m mailguard_milter.check_config CONFIG`: load all that a generation loads, with every check of the keys.

As root it becomes the daemon's user first, so that it may not read what the daemon may not.
Prints "ok" and a summary, or what is wrong. Exit codes: 0, 64 usage, 78 configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mailguard.errors import MailguardError
from mailguard_milter import engine_choice
from mailguard_milter.identity import Identity, group_id
from mailguard_milter.listening import check_directory
from mailguard_milter.refusal import EX_CONFIG, EX_USAGE, Refusal

if TYPE_CHECKING:
    from mailguard.config import Listener

__all__ = ["main"]


def _summary(path: str) -> Iterator[str]:
    # As the daemon does: what its user cannot read, or owns, is judged as that user.
    config = engine_choice.load(path)
    # Imported here so that a missing extra is a line and not a traceback.
    from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
    from mailguard.key_places import keys_of
    from mailguard_milter import generation
    from mailguard_milter.service import Service

    identity = Identity.to_become(config.user)
    for listener in config.listeners:
        _check_place(listener, identity, config.runtime_directory)
    identity.become()
    generation.load(path)
    service = Service.open(engine_choice.load(path), check=KeyCheck.FULL)
    yield f"ok: {path}"
    yield f"mode {config.mode.value}, authserv-id {config.authserv_id}, user {config.user}, engine {config.engine}"
    for listener in config.listeners:
        yield f"listener {listener.address}, role {listener.role}"
    if config.senders.sources:
        yield f"senders are held to their own addresses by: {', '.join(config.senders.sources)}"
    for domain in service.key_ring.domains():
        for key in service.key_ring.keys_for(domain):
            yield f"signs {domain} with selector {key.selector}, {key.algorithm}"
    found = [key for key in keys_of(config) if key[0] not in config.domains]
    for domain, selector, file in found:
        SigningKey.load(
            file,
            domain=domain,
            selector=selector,
            permissions=KeyPermissions(config.sign.key_permissions),
            check=KeyCheck.FULL,
        )
    if config.sign.key_selectors:
        yield f"signs other domains with {config.sign.key_pattern}, where {len(found)} keys are now"


def _check_place(listener: Listener, identity: Identity, runtime_directory: str) -> None:
    """What would refuse the socket when the daemon starts. The runtime directory is made then."""
    directory = os.path.dirname(listener.socket_address.path)
    if directory and directory != os.path.normpath(runtime_directory):
        check_directory(directory, identity)
    if listener.group is not None:
        group_id(listener.group)


def main(arguments: Sequence[str]) -> int:
    """Check; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m mailguard_milter.check_config CONFIG", file=sys.stderr)
        return EX_USAGE
    try:
        for line in _summary(arguments[0]):
            print(line)
    except MailguardError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
