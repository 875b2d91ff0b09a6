"""`python -m mailguard_milter.check_config CONFIG`: load all that a generation loads, with every check of the keys.

As root it becomes the daemon's user first, so that it may not read what the daemon may not.
Prints "ok" and a summary, or what is wrong. Exit codes: 0, 64 usage, 78 configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from mailguard.errors import MailguardError
from mailguard_milter.refusal import EX_CONFIG, EX_USAGE, Refusal

__all__ = ["main"]


def _summary(path: str) -> Iterator[str]:
    # Imported here so that a missing extra is a line and not a traceback.
    from mailguard import config as configuration
    from mailguard.dkim.signing_key import KeyCheck
    from mailguard_milter import generation
    from mailguard_milter.identity import Identity
    from mailguard_milter.service import Service

    # As the daemon does: what its user cannot read, or owns, is judged as that user.
    Identity.to_become(configuration.load(path).user).become()
    application = generation.load(path)
    config = application.config
    service = Service.open(configuration.load(path), check=KeyCheck.FULL)
    yield f"ok: {path}"
    yield f"mode {config.mode.value}, authserv-id {config.authserv_id}, user {config.user}"
    for listener in config.listeners:
        yield f"listener {listener.address}, role {listener.role}"
    for domain in service.key_ring.domains():
        for key in service.key_ring.keys_for(domain):
            yield f"signs {domain} with selector {key.selector}, {key.algorithm}"
    if config.sign.key_selectors:
        yield f"signs other domains with {config.sign.key_pattern}, selectors {', '.join(config.sign.key_selectors)}"


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
