"""Whom DMARC judges after an import and did not before, or the other way round: it is said."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mailguard.config_inbound import PolicyConfig
from mailguard.migration.note import NoteKind
from migration_site import Site, at, migration_site, said

__all__ = ["migration_site"]

# Programs and their lines, the option that a note is about, [[trusted]] or internal networks, and its words.
LISTED = ["127.0.0.0/8", "192.0.2.0/24", "::1/128"]
IN_ALL = "SPF and DMARC refuse nothing from them either"
LEFT_OUT = "those that OpenDMARC judged are not in policy.internal_networks"
TRUSTED = "[[trusted]] sets DMARC aside too"
SPARED: list[tuple[dict[str, str], str, str, Any, str]] = [
    ({"opendkim": "InternalHosts 192.0.2.0/24"}, "InternalHosts", "policy.internal_networks", LISTED, IN_ALL),
    ({"dkimpy_milter": "InternalHosts 192.0.2.0/24"}, "InternalHosts", "policy.internal_networks", LISTED, IN_ALL),
    ({"policyd_spf": "skip_addresses = 192.0.2.0/24"}, "skip_addresses", "policy.internal_networks", LISTED, IN_ALL),
    ({"policyd_spf": "InternalHosts = 192.0.2.0/24"}, "InternalHosts", "policy.internal_networks", LISTED, IN_ALL),
    (
        {"policyd_spf": "skip_addresses = 127.0.0.0/8,::ffff:127.0.0.0/104,::1"},
        "skip_addresses",
        "policy.internal_networks",
        None,
        "",
    ),
    ({"opendkim": "Mode s\nInternalHosts 192.0.2.0/24"}, "InternalHosts", "policy.internal_networks", LISTED, ""),
    (
        {"opendmarc": "", "opendkim": "InternalHosts 192.0.2.0/24"},
        "InternalHosts",
        "policy.internal_networks",
        None,
        LEFT_OUT,
    ),
    (
        {"opendmarc": "IgnoreHosts @/listed", "opendkim": "InternalHosts 192.0.2.0/25,192.0.2.128/25"},
        "InternalHosts",
        "policy.internal_networks",
        LISTED,
        "",
    ),
    (
        {"opendmarc": "IgnoreHosts @/listed", "policyd_spf": "skip_addresses = 192.0.2.0/25,198.51.100.7"},
        "skip_addresses",
        "policy.internal_networks",
        LISTED,
        LEFT_OUT,
    ),
    ({"policyd_spf": "Whitelist = 192.0.2.0/24"}, "Whitelist", "trusted", ..., TRUSTED),
    ({"policyd_spf": "HELO_Whitelist = relay.test"}, "HELO_Whitelist", "trusted", ..., TRUSTED),
    ({"policyd_spf": "Domain_Whitelist = relay.test"}, "Domain_Whitelist", "trusted", ..., TRUSTED),
    ({"policyd_spf": "Domain_Whitelist_PTR = relay.test"}, "Domain_Whitelist_PTR", "trusted", ..., TRUSTED),
    ({"policyd_spf": "Whitelist = relay.test"}, "Whitelist", "trusted", None, ""),
]


@pytest.mark.parametrize(("texts", "option", "path", "value", "words"), SPARED)
def test_whom_one_program_alone_spared(
    migration_site: Site, texts: dict[str, str], option: str, path: str, value: Any, words: str
) -> None:
    """Who was not judged by one of them is not let in by all, or the administrator is told."""
    migration_site.write("listed", "192.0.2.0/24\n")
    imported = migration_site.imported(**texts)
    found = at(imported, path)
    assert found is not None if value is ... else found == value
    told = [text for text in said(imported, NoteKind.DECIDE) if f": {option}: " in text]
    if words:
        assert any(words in text for text in told)
    else:
        assert not told


@pytest.mark.parametrize(
    ("texts", "is_new"),
    [
        ({"opendkim": "# nothing"}, True),
        ({"opendkim": "Mode v"}, True),
        ({"opendkim": "Mode s"}, False),
        ({"dkimpy_milter": "Mode s"}, False),
        ({"policyd_spf": "TestOnly = 1"}, True),
        ({"opendkim": "Mode s", "policyd_spf": "TestOnly = 1"}, True),
        ({"opendmarc": "RejectFailures true"}, False),
        ({"opendmarc": "", "opendkim": "", "policyd_spf": ""}, False),
    ],
)
def test_that_dmarc_is_new_is_said(migration_site: Site, texts: dict[str, str], is_new: bool) -> None:
    migration_site.key("a.private")
    imported = migration_site.imported(**texts)
    told = [text for text in said(imported, NoteKind.DECIDE) if "nothing was refused by DMARC" in text]
    assert len(told) == is_new
    # What the note advises is a configuration.
    advised = dict(re.findall(r'(\w+) = "(\w+)"', "".join(told)))
    if told:
        malformed = advised.pop("malformed")
        assert PolicyConfig.model_validate({"dmarc": advised, "malformed": malformed})
