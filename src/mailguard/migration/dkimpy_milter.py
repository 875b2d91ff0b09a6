"""dkimpy-milter.conf: OpenDKIM's kind of file, with a key of Ed25519 beside that of RSA (dkimpy-milter 1.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mailguard.migration.found import Found, Remark, Treatment
from mailguard.migration.note import NoteKind
from mailguard.migration.opendkim import KeyOptions, option_handlers, plan_signing, take_internal_hosts
from mailguard.migration.opendkim_options import REMARKS
from mailguard.migration.option_lines import ReadText, blank_settings
from mailguard.migration.signing_table import KEY_TABLE

__all__ = ["read_dkimpy_milter"]

_KEY_OPTIONS: KeyOptions = (
    (KEY_TABLE, "KeyFile", "Selector"),
    ("KeyTableEd25519", "KeyFileEd25519", "SelectorEd25519"),
)
# What it shares with OpenDKIM, spelled so and not otherwise; it has no others of OpenDKIM's options.
_SHARED = (
    "AuthservID",
    "Canonicalization",
    "DiagnosticDirectory",
    "DNSTimeout",
    "Domain",
    "InternalHosts",
    "KeyFile",
    "KeyTable",
    "MacroList",
    "MinimumKeyBits",
    "Mode",
    "OmitHeaders",
    "PidFile",
    "Selector",
    "SignHeaders",
    "SigningTable",
    "Socket",
    "SubDomains",
    "Syslog",
    "SyslogFacility",
    "SyslogSuccess",
    "UMask",
    "UserID",
)
_NO_NOTE = Remark(NoteKind.LEFT_OUT, "", ".*")
_OWN: Mapping[str, Remark] = {
    "KeyFileEd25519": _NO_NOTE,
    "KeyTableEd25519": _NO_NOTE,
    "SelectorEd25519": _NO_NOTE,
    "debugLevel": Remark(NoteKind.LEFT_OUT, "each message has one line in the log, which says why"),
    "DNSOverride": Remark(NoteKind.DECIDE, "keys come from the DNS; for tests there is zone_file in [dns]"),
    "IntHosts": Remark(NoteKind.LEFT_OUT, "InternalHosts says it"),
    "MacroListVerify": Remark(
        NoteKind.DECIDE, 'what comes in on such a service is never signed: give it a listener with role = "verify"'
    ),
    "PeerList": Remark(
        NoteKind.BROKEN,
        "dkimpy-milter does nothing by it, as its manual says: their mail was like any other",
    ),
}


def read_dkimpy_milter(file: str, read: ReadText) -> Found:
    """What the configuration in `file` comes to. Raises ConfigError if it cannot be read."""
    found = Found("dkimpy-milter", blank_settings(file, read, names=(*_SHARED, *_OWN)))
    known: dict[str, Treatment] = {**REMARKS, **option_handlers(read)}
    shared = {name.casefold(): known[name.casefold()] for name in _SHARED}
    found.treat(shared | {name.casefold(): remark for name, remark in _OWN.items()})
    if found.settings.get("Canonicalization") is None:
        found.put(("sign", "canonicalization"), "relaxed/simple")
    if found.settings.get("Mode") is None:
        found.is_signer = True
    if found.is_signer:
        plan_signing(found, _KEY_OPTIONS, read)
        found.note(NoteKind.DIFFERS, "signatures had no end; with lifetime_days in [sign] they have one (x=)")
    take_internal_hosts(found, read)
    if found.plan.rules or found.plan.patterns:
        what = (
            "mail of any client was signed, if the domain in From was one of these; now only of a login, or of a"
            " client in [[sign.networks]]: name yours there, and none that returns mail from outside"
        )
        found.note(NoteKind.DECIDE, what, found.settings.get("InternalHosts"))
    return found
