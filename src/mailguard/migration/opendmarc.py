"""opendmarc.conf: what became of mail that fails DMARC (opendmarc.conf(5), OpenDMARC 1.4). Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from mailguard.migration.dataset import Entry, read_dataset
from mailguard.migration.found import HEADER_COUNTS, HOSTNAME, OFF, ON, Found, Remark, Treatment
from mailguard.migration.hosts import LOCALHOST, parse_hosts, without
from mailguard.migration.note import NoteKind, Setting, shown
from mailguard.migration.option_lines import ReadText, blank_settings

__all__ = ["read_opendmarc"]

_DECIDE, _DIFFERS, _LEFT = NoteKind.DECIDE, NoteKind.DIFFERS, NoteKind.LEFT_OUT

_PROCESS = Remark(_LEFT, "the supervisor starts a worker again when it dies; systemd starts the daemon")
_REPORTS = Remark(_DECIDE, "mailguard sends no failure reports", OFF)
_REPORT_DETAIL = Remark(_LEFT, "mailguard sends no failure reports")
_HISTORY = Remark(_DECIDE, "mailguard writes no history: keep what makes aggregate reports, or go without them")
_HISTORY_DETAIL = Remark(_LEFT, "mailguard writes no history")
_ARC = Remark(_DECIDE, "ARC is not read: name forwarders in [[trusted]], by signature, reverse path, name or network")
_HEADER_COUNTS = Remark(_DECIDE, HEADER_COUNTS, OFF)

_REMARKS: Mapping[str, Remark] = {
    "authservidwithjobid": Remark(_LEFT, "the queue ID is in the log, not in the header", OFF),
    "autorestart": _PROCESS,
    "autorestartcount": _PROCESS,
    "autorestartrate": _PROCESS,
    "background": _PROCESS,
    "changerootdirectory": Remark(
        _DECIDE, "files are named as seen from there: put this directory before their paths"
    ),
    "copyfailuresto": Remark(_DECIDE, "recipients are never added; the log and [trace] show what failed"),
    "dnstimeout": Remark(_DIFFERS, "deadline_s in [dns] is for all look-ups of a message together"),
    "domainwhitelist": _ARC,
    "domainwhitelistfile": _ARC,
    "domainwhitelistsize": Remark(_LEFT, "ARC is not read"),
    "enablecoredumps": Remark(_LEFT, "core files would hold mail", OFF),
    "failurereports": _REPORTS,
    "failurereportsbcc": _REPORT_DETAIL,
    "failurereportsonnone": _REPORT_DETAIL,
    "failurereportssentby": _REPORT_DETAIL,
    "historyfile": _HISTORY,
    "ignoremailto": _HISTORY_DETAIL,
    "milterdebug": Remark(_LEFT, "there is nothing like it", "0"),
    "pidfile": _PROCESS,
    "publicsuffixlist": Remark(
        _DIFFERS,
        'Organizational Domains come from the DNS (RFC 9989); organizational_domain = "psl" and suffix_list in'
        " [dmarc] bring the list back",
    ),
    "recordallmessages": _HISTORY_DETAIL,
    "rejectmultivaluefrom": Remark(
        _DECIDE,
        "From with several domains was refused; now it is judged, and the strictest of their policies counts",
        OFF,
    ),
    "rejectstring": Remark(_LEFT, "replies name the domain and the reason; their text is fixed"),
    "reportcommand": _REPORT_DETAIL,
    "requiredheaders": _HEADER_COUNTS,
    "softwareheader": Remark(_LEFT, "no such field is written", OFF),
    "spfignoreresults": Remark(_DIFFERS, "SPF is always checked here, and results in the header are not read", ON),
    "spfselfvalidate": Remark(_DIFFERS, "SPF is always checked here, and results in the header are not read", ON),
    "syslog": Remark(_DIFFERS, "mailguard always writes its log; destination in [log] says where", ON),
    "syslogfacility": Remark(_DIFFERS, "the facility is mail", "mail"),
}


def read_opendmarc(file: str, read: ReadText) -> Found:
    """What the configuration in `file` comes to. Raises ConfigError if it cannot be read."""
    found = Found("OpenDMARC", blank_settings(file, read))

    def take_ignored_hosts(found: Found, setting: Setting) -> None:
        # Always a path: OpenDMARC has no data sets, and does not start where there is no file of this name.
        table = read_dataset(
            Setting(setting.name, f"file:{setting.value}", setting.place),
            read,
            directory=_base_directory(found),
            drops_indented=("file",),
        )
        found.notes += table.notes
        hosts = parse_hosts(table.entries, setting.name, compared_by=found.program)
        found.notes += hosts.notes
        found.internal_networks += hosts.networks
        found.trust("ptr", (name for name, _ in hosts.names), setting)
        if hosts.names:
            what = "names are taken over as ptr in [[trusted]]: now they must lead back to the client's address, and"
            found.note(_DECIDE, f"{what} a name and all below it count, where one of the two did", setting)
        if (table.entries or not table.notes) and LOCALHOST[0] in without(LOCALHOST, hosts.networks):
            what = "what comes from this host was judged too; now it is in policy.internal_networks, and nothing from"
            found.note(_DIFFERS, f"{what} there is refused", setting)

    treatments: dict[str, Treatment] = {
        **_REMARKS,
        "authservid": Found.take_authserv_id,
        "basedirectory": _used_elsewhere,
        "holdquarantinedmessages": _take_hold,
        "ignoreauthenticatedclients": _take_ignore_authenticated,
        "ignorehosts": take_ignored_hosts,
        "ignoremailfrom": _take_ignored_authors,
        "rejectfailures": _take_reject_failures,
        "socket": Found.take_socket,
        "trustedauthservids": _take_trusted_ids,
        "umask": Found.take_umask,
        "userid": _used_elsewhere,
    }
    found.treat(treatments)
    hold = found.settings.get("HoldQuarantinedMessages")
    if hold is not None and hold.is_on and not _is_on(found, "RejectFailures"):
        found.note(_DIFFERS, "without RejectFailures, OpenDMARC held nothing; enforce holds p=quarantine", hold)
    if hold is None:
        found.put(("policy", "dmarc", "quarantine"), "accept")
        what = (
            'mail that fails with p=quarantine was delivered: quarantine = "accept"; "quarantine" holds it in Postfix'
        )
        found.note(_DIFFERS, what)
    if found.settings.get("RejectFailures") is None:
        found.note(_DIFFERS, "OpenDMARC refused nothing, as mailguard with mode = monitor; enforce refuses p=reject")
    if found.settings.get("IgnoreAuthenticatedClients") is None:
        found.note(_DIFFERS, "mail of authenticated clients is not judged: it is signed")
    if not _is_on(found, "RequiredHeaders") or not _is_on(found, "RejectMultiValueFrom"):
        what = "OpenDMARC passed by what has no one readable From, or several domains there; now the one follows"
        found.note(_DIFFERS, f"{what} malformed in [policy], and the other the strictest of their policies")
    ignored = found.settings.get("SPFIgnoreResults")
    if ignored is not None and ignored.is_on and not _is_on(found, "SPFSelfValidate"):
        what = "without SPFSelfValidate, SPF did not count, and a signature had to pass; now SPF's pass is enough"
        found.note(_DIFFERS, what, ignored)
    suffixes = found.settings.get("PublicSuffixList")
    if suffixes is None or read(posixpath.join(_base_directory(found), suffixes.value)).problem:
        what = "without a PublicSuffixList that can be read, OpenDMARC knew no Organizational Domain: now subdomains"
        what += " that have no policy of their own follow that of the domain above, and are aligned with it"
        found.note(_DIFFERS, what, suffixes)
    return found


def _base_directory(found: Found) -> str:
    setting = found.settings.get("BaseDirectory")
    return setting.value if setting is not None else ""


def _is_on(found: Found, option: str) -> bool:
    setting = found.settings.get(option)
    return setting is not None and setting.is_on


def _used_elsewhere(found: Found, setting: Setting) -> None:
    """Where the files are; and a user who owns no keys."""


def _take_reject_failures(found: Found, setting: Setting) -> None:
    if setting.is_on:
        what = "mode stays monitor, so that nothing is refused until it is enforce; the log has what would have been"
        found.note(_DECIDE, what, setting)
    else:
        what = "OpenDMARC refused nothing, as mailguard with mode = monitor; enforce refuses p=reject"
        found.note(_DIFFERS, what, setting)


def _take_hold(found: Found, setting: Setting) -> None:
    found.put(("policy", "dmarc", "quarantine"), "quarantine" if setting.is_on else "accept", setting)


def _take_ignore_authenticated(found: Found, setting: Setting) -> None:
    if not setting.is_on:
        found.note(_DIFFERS, "mail of authenticated clients is not judged: it is signed", setting)


def _take_ignored_authors(found: Found, setting: Setting) -> None:
    found.ignored_authors += found.domains(setting)


def _take_trusted_ids(found: Found, setting: Setting) -> None:
    own = found.settings.get("AuthservID")
    ours = {HOSTNAME.lower(), own.value.lower() if own else ""}
    entries = [Entry(part.strip(), "", setting.place) for part in setting.value.split(",")]
    others = [shown(entry.key) for entry in entries if entry.key and entry.key.lower() not in ours]
    if others:
        what = (
            f"{', '.join(others[:10])}: results of others are not read, SPF and DKIM are checked here; mail that a"
            " relay of yours hands on is judged by that relay's address, unless [[trusted]] or internal_networks"
            " name it"
        )
        found.note(_DECIDE, what, setting)
