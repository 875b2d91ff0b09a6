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
# What it shares with OpenDKIM; it has no others of OpenDKIM's options.
_SHARED = (
    "authservid",
    "canonicalization",
    "diagnosticdirectory",
    "dnstimeout",
    "domain",
    "internalhosts",
    "keyfile",
    "keytable",
    "macrolist",
    "minimumkeybits",
    "mode",
    "omitheaders",
    "peerlist",
    "pidfile",
    "selector",
    "signheaders",
    "signingtable",
    "socket",
    "subdomains",
    "syslog",
    "syslogfacility",
    "syslogsuccess",
    "umask",
    "userid",
)
_NO_NOTE = Remark(NoteKind.LEFT_OUT, "", ".*")
_OWN: Mapping[str, Remark] = {
    "keyfileed25519": _NO_NOTE,
    "keytableed25519": _NO_NOTE,
    "selectored25519": _NO_NOTE,
    "debuglevel": Remark(NoteKind.LEFT_OUT, "each message has one line in the log, which says why"),
    "dnsoverride": Remark(NoteKind.DECIDE, "keys come from the DNS; for tests there is zone_file in [dns]"),
    "inthosts": Remark(NoteKind.LEFT_OUT, "InternalHosts says it"),
    "macrolistverify": Remark(
        NoteKind.DECIDE, 'what comes in on such a service is never signed: give it a listener with role = "verify"'
    ),
}


def read_dkimpy_milter(file: str, read: ReadText) -> Found:
    """What the configuration in `file` comes to. Raises ConfigError if it cannot be read."""
    found = Found("dkimpy-milter", blank_settings(file, read))
    known: dict[str, Treatment] = {**REMARKS, **option_handlers(read)}
    found.treat({name: known[name] for name in _SHARED} | dict(_OWN))
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
