"""The configuration that a host begins with, and one more domain in a configuration that is there. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from mailguard.audit.facts import HostFacts
from mailguard.config import DEFAULT_USER
from mailguard.toml_text import toml_value

__all__ = ["first_address", "first_configuration", "with_domain"]

DEFAULT_ADDRESS = "unix:/run/mailguard/mailguard.sock"
DEFAULT_ENGINE = "libmilter"


def first_address(facts: HostFacts, *, is_chrooted: bool) -> str:
    """Where Postfix reaches the milter: below its queue directory if it runs in a chroot."""
    if not is_chrooted:
        return DEFAULT_ADDRESS
    return f"unix:{posixpath.join(facts.postfix.value('queue_directory'), 'mailguard', 'mailguard.sock')}"


def first_configuration(facts: HostFacts, *, address: str, user: str, engine: str) -> str:
    """For one listener and no domain yet. It refuses nothing."""
    lines = [
        "# Every key is explained in docs/configuration.md. Check it with: mailguard-milter --check-config",
        "",
        "# It signs and annotates and refuses nothing. What enforcing would refuse: mailguard enforce --dry-run",
        'mode = "monitor"',
        f"authserv_id = {toml_value(facts.postfix.value('myhostname'))}",
    ]
    if engine != DEFAULT_ENGINE:
        lines.append(f"engine = {toml_value(engine)}")
    if user != DEFAULT_USER:
        lines.append(f"user = {toml_value(user)}")
    return "\n".join([*lines, "", "[[listeners]]", f"address = {toml_value(address)}", ""])


def with_domain(text: str, domain: str, keys: Sequence[tuple[str, str]]) -> str:
    """With a table for the domain at the end; `keys` are selectors and files."""
    named = [f"  {toml_value({'name': name, 'key_file': file})}," for name, file in keys]
    table = [f'[domains."{domain}"]', "selectors = [", *named, "]"]
    before = text if text.endswith("\n") or not text else f"{text}\n"
    return before + "\n".join(["", *table, ""])
