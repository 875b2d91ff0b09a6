"""`python -m mailguard_milter.plan CONFIG`: what the supervisor needs to know of a configuration, as JSON.

The supervisor imports neither pydantic nor mailguard, and outlives many configurations: it asks this short-lived
process instead. Exit codes (sysexits.h): 0, 64 usage, 78 configuration, with the reason on stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailguard.errors import MailguardError
from mailguard_milter import engine_choice
from mailguard_milter.refusal import EX_CONFIG, EX_USAGE

if TYPE_CHECKING:
    from mailguard.config import Config

__all__ = ["main", "plan"]


def plan(config: Config) -> dict[str, object]:
    """The plan, of JSON types only."""
    # Imported here so that a missing extra is a line and not a traceback.
    from mailguard.configured_dns import servers_of
    from mailguard.dns.servers import trust_word

    listeners = []
    for listener in config.listeners:
        address = listener.socket_address
        listeners.append(
            {
                "address": listener.address,
                "family": address.family,
                "path": address.path,
                "ip": str(address.ip or ""),
                "port": address.port,
                "mode": listener.mode_bits,
                "group": listener.group,
                "allow_remote": listener.allow_remote,
            }
        )
    trace, servers = config.trace, servers_of(config.dns)
    return {
        "user": config.user,
        "runtime_directory": config.runtime_directory,
        "listeners": listeners,
        "trace": trace.model_dump(exclude={"enabled"}) if trace.enabled else None,
        "dnssec": trust_word(servers),
        "resolvers": [server.address for server in servers],
    }


def main(arguments: Sequence[str]) -> int:
    """Print the plan; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m mailguard_milter.plan CONFIG", file=sys.stderr)
        return EX_USAGE
    try:
        print(json.dumps(plan(engine_choice.load(arguments[0]))))
    except MailguardError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
