"""policyd-spf.conf: which results of SPF were refused (policyd-spf.conf(5), spf-engine 3.0). Pure.

Also for pyspf-milter, which reads the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from mailguard.domain import Domain
from mailguard.migration.dataset import Entry, read_dataset
from mailguard.migration.found import ON, Found, Remark, Spared, Treatment
from mailguard.migration.hosts import MAPPED, Hosts, Network, parse_hosts
from mailguard.migration.note import NoteKind, Setting, shown
from mailguard.migration.option_lines import ReadText, equals_settings

__all__ = ["read_policyd_spf"]

_DECIDE, _DIFFERS, _LEFT = NoteKind.DECIDE, NoteKind.DIFFERS, NoteKind.LEFT_OUT

# As policyd-spf spells them: it knows no other spelling.
_NAMES = (
    "debugLevel",
    "HELO_reject",
    "Mail_From_reject",
    "PermError_reject",
    "TempError_Defer",
    "Mail_From_pass_restriction",
    "HELO_pass_restriction",
    "Prospective",
    "Whitelist",
    "skip_addresses",
    "HELO_Whitelist",
    "Domain_Whitelist",
    "Domain_Whitelist_PTR",
    "No_Mail",
    "Reject_Not_Pass_Domains",
    "Per_User",
    "TestOnly",
    "defaultSeedOnly",
    "SPF_Enhanced_Status_Codes",
    "Header_Type",
    "Hide_Receiver",
    "Authserv_Id",
    "Lookup_Time",
    "Whitelist_Lookup_Time",
    "Void_Limit",
    "Reason_Message",
    "Mock",
    "QueueID",
    "Socket",
    "PidFile",
    "UserID",
    "UMask",
    "InternalHosts",
    "IntHosts",
    "MacroList",
)
HELO, MAIL_FROM = "HELO_reject", "Mail_From_reject"
_TABLES = {HELO: "helo", MAIL_FROM: "spf"}
# The results that each word refuses. The words have case; permerror follows PermError_reject alone.
_REFUSED: Mapping[str, tuple[str, ...]] = {
    "Fail": ("fail",),
    "Softfail": ("fail", "softfail"),
    "SPF_Not_Pass": ("fail", "softfail", "neutral"),
    "False": (),
    "Null": (),
    "No_Check": (),
}
_UNCHECKED = {HELO: ("False", "No_Check", "Null"), MAIL_FROM: ("False", "No_Check")}
_YES = "True"
_LOG = Remark(_LEFT, "each message has one line in the log, which says why")
_RESTRICTION = Remark(
    _DECIDE, "no restriction of Postfix follows from a pass: say it in smtpd_recipient_restrictions"
)
_MILTER = Remark(_LEFT, "an option of pyspf-milter that is no matter of mail")

_REMARKS: Mapping[str, Remark] = {
    "debuglevel": _LOG,
    "defaultseedonly": Remark(NoteKind.BROKEN, "policyd-spf does not heed it, but TestOnly alone", "[1-9].*"),
    "helo_pass_restriction": _RESTRICTION,
    "hide_receiver": Remark(_LEFT, "recipients are never written into the header"),
    "inthosts": _MILTER,
    "lookup_time": Remark(_DIFFERS, "deadline_s in [dns] is for all look-ups of a message together"),
    "macrolist": Remark(
        _DECIDE,
        "who is checked does not depend on macros: mail of a login is never judged, and that of others is",
    ),
    "mail_from_pass_restriction": _RESTRICTION,
    "per_user": Remark(_DECIDE, "there is one policy for all recipients"),
    "pidfile": _MILTER,
    "prospective": Remark(_DECIDE, "outgoing mail is not checked: ask by hand with mailguard spf check"),
    "queueid": _LOG,
    "reason_message": Remark(_LEFT, "replies name the reason; their text is fixed"),
    "spf_enhanced_status_codes": Remark(_DIFFERS, "replies have the codes of RFC 7372", ON),
    "void_limit": Remark(_DIFFERS, "two void look-ups are the limit (RFC 7208)", "2"),
    "whitelist_lookup_time": Remark(_DIFFERS, "deadline_s in [dns] is for all look-ups of a message together"),
}


def read_policyd_spf(file: str, read: ReadText) -> Found:
    """What the configuration in `file` comes to. Raises ConfigError if it cannot be read."""
    found = Found("policyd-spf", equals_settings(file, read, names=_NAMES))

    def take_internal_hosts(found: Found, setting: Setting) -> None:
        table = read_dataset(setting, read)
        found.notes += table.notes
        entries = [entry for entry in table.entries if _is_strict(found, entry, setting)]
        _spare(found, _taken(found, parse_hosts(entries, setting.name), setting), setting)

    treatments: dict[str, Treatment] = {
        **_REMARKS,
        **dict.fromkeys(("helo_reject", "mail_from_reject", "permerror_reject", "temperror_defer"), _used_later),
        "authserv_id": Found.take_authserv_id,
        "domain_whitelist": _take_domains,
        "domain_whitelist_ptr": _take_ptr,
        "header_type": _take_header_type,
        "helo_whitelist": _take_helo_names,
        "internalhosts": take_internal_hosts,
        "mock": _take_mock,
        "no_mail": _take_no_mail,
        "reject_not_pass_domains": _take_not_pass_domains,
        "skip_addresses": _take_skipped,
        "socket": Found.take_socket,
        "testonly": _used_later,
        "umask": Found.take_umask,
        "userid": _used_later,
        "whitelist": _take_whitelist,
    }
    found.treat(treatments)
    _take_refusals(found)
    if found.settings.get("Header_Type") is None and not _is_milter(found):
        found.put(("results", "received_spf"), True)
    tested = found.settings.get("TestOnly")
    if _keeps_back(found) and (tested is None or tested.value != "0") and not _is_mock(found):
        what = "policyd-spf refused mail; mode stays monitor, so that nothing is refused until it is enforce"
        found.note(_DECIDE, f"{what}; the log has what would have been", tested)
    elif _keeps_back(found):
        what = "policyd-spf refused nothing, as mailguard with mode = monitor; enforce refuses by SPF alone, too"
        found.note(_DECIDE, f"{what}: take [policy.spf] and [policy.helo] out to go on without that", tested)
    if _keeps_back(found) and not _is_milter(found):
        what = (
            "whom smtpd_recipient_restrictions permits before policyd-spf, as by permit_mynetworks, it did not check;"
            " now all are judged but those in policy.internal_networks and those who log in"
        )
        found.note(_DECIDE, what)
    _note_names_in_helo(found)
    found.note(_DIFFERS, "SPF is answered at the end of a message, not at RCPT TO")
    return found


def _is_milter(found: Found) -> bool:
    """Whether it is pyspf-milter, which writes Authentication-Results unless Header_Type is None."""
    return found.settings.get("Socket") is not None


def _used_later(found: Found, setting: Setting) -> None:
    """Several options make one value; they are taken together."""


def _take_refusals(found: Found) -> None:
    no_mail = found.settings.get("No_Mail")
    only_no_mail = no_mail is not None and no_mail.value == _YES
    permanent, temporary = found.settings.get("PermError_reject"), found.settings.get("TempError_Defer")
    for option, table in _TABLES.items():
        setting = found.settings.get(option)
        word = "Fail" if setting is None else setting.value
        if word not in _REFUSED or (word == "Null" and option == MAIL_FROM):
            what = f'"{shown(word)}" is no policy of policyd-spf, whose words have case: it refused nothing'
            found.note(NoteKind.BROKEN, what, setting)
        elif word == "Null":
            what = "the HELO name of null senders alone cannot be refused; their SPF result goes by it anyway"
            found.note(_DECIDE, f"{what}: [policy.spf]", setting)
        elif word == "No_Check" and option == HELO:
            found.put(("spf", "check_helo"), False, setting)
        elif word == "No_Check":
            found.note(_DIFFERS, "the reverse path is always checked, for DMARC; nothing is refused by it", setting)
        for result in () if only_no_mail else _REFUSED.get(word, ()):
            found.put(("policy", table, result), "reject", setting)
        if word in _UNCHECKED[option]:
            continue
        if permanent is not None and permanent.value == _YES:
            found.put(("policy", table, "permerror"), "reject", permanent)
        defers = temporary is not None and temporary.value == _YES
        found.put(("policy", table, "temperror"), "tempfail" if defers else "accept", temporary)


def _keeps_back(found: Found, *tables: str) -> bool:
    """Whether one of `tables` refuses anything; without them, whether any does."""
    return any(
        value in ("reject", "tempfail")
        for path, (value, _) in found.values.items()
        if path[0] == "policy" and (not tables or path[1] in tables)
    )


def _note_names_in_helo(found: Found) -> None:
    """Whose HELO name is checked now and was not, or counts now and did not."""
    setting = found.settings.get(HELO)
    refused = {
        table: {
            path[2]
            for path, (value, _) in found.values.items()
            if path[:2] == ("policy", table) and value == "reject"
        }
        for table in _TABLES.values()
    }
    if refused["spf"] - refused["helo"] and (setting is None or setting.value != "Null"):
        what = (
            "of the null sender, SPF's result is that of the HELO name (RFC 7208 §2.4): [policy.spf] refuses by it,"
        )
        found.note(_DIFFERS, f"{what} which {HELO} did not", setting)
    if _is_milter(found) and _keeps_back(found, "helo"):
        what = "pyspf-milter checked the name that Postfix found for the client; now the one in HELO is checked"
        found.note(_DIFFERS, what, setting)


def _is_mock(found: Found) -> bool:
    """Whether nothing was checked at all. pyspf-milter has the option too, and does not heed it."""
    return found.settings.get("Mock") is not None and not _is_milter(found)


def _take_mock(found: Found, setting: Setting) -> None:
    if not _is_milter(found):
        found.note(_DECIDE, "with this option, whatever its value, policyd-spf checked nothing at all", setting)


def _is_strict(found: Found, entry: Entry, setting: Setting) -> bool:
    """Whether an entry of InternalHosts is to pyspf-milter what it is to others."""
    text = entry.key.lstrip("[").rstrip("]").removeprefix("!")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return True
    try:
        ip_network(text)
    except ValueError:
        what = (
            f'"{shown(entry.key)}" has no address in it to pyspf-milter, as "{network}" would; it is not taken over'
        )
        found.note(NoteKind.BROKEN, what, setting)
        return False
    return True


def _take_no_mail(found: Found, setting: Setting) -> None:
    if setting.value == _YES:
        what = 'only records "v=spf1 -all" led to a refusal; mailguard does not tell them apart, so that none does'
        found.note(_DECIDE, what, setting)


def _take_header_type(found: Found, setting: Setting) -> None:
    kind = setting.value.upper()
    if kind == "SPF" and not _is_milter(found):
        found.put(("results", "received_spf"), True, setting)
        found.note(_DIFFERS, "Authentication-Results is written too", setting)
    elif kind == "NONE":
        found.note(_DIFFERS, "Authentication-Results is always written", setting)
    elif kind != "AR" and not _is_milter(found):
        found.note(NoteKind.BROKEN, f'"{shown(setting.value)}" is not SPF, AR or None', setting)


def _networks(found: Found, setting: Setting) -> tuple[Network, ...]:
    """policyd-spf divides at commas alone, and at the first word that is no network to it gives up."""
    entries = []
    for part in setting.value.split(","):
        try:
            network = ip_network(part, strict=True)
        except ValueError:
            what = f'"{shown(part)}" is no network to policyd-spf, which reads no further: it and what follows are'
            found.note(NoteKind.BROKEN, f"{what} not taken over", setting)
            break
        if network.version == 4 or not network.subnet_of(MAPPED):  # in which no client has its address
            entries.append(Entry(part, "", setting.place))
    return _taken(found, parse_hosts(entries, setting.name), setting)


def _taken(found: Found, hosts: Hosts, setting: Setting) -> tuple[Network, ...]:
    found.notes += hosts.notes
    for name, _ in hosts.names:
        found.note(NoteKind.BROKEN, f"{name} is not a network", setting)
    return hosts.networks


def _domains(found: Found, setting: Setting) -> list[Domain]:
    """Of a list that is divided at commas alone: a blank is part of a name, and such a name there is none."""
    parts = setting.value.split(",")
    for part in parts:
        if part != part.strip():
            found.note(NoteKind.BROKEN, f'"{shown(part)}" fits nobody, because of the blank in it', setting)
    whole = ",".join(part for part in parts if part == part.strip())
    return found.domains(Setting(setting.name, whole, setting.place))


def _take_skipped(found: Found, setting: Setting) -> None:
    _spare(found, _networks(found, setting), setting)


def _spare(found: Found, networks: tuple[Network, ...], setting: Setting) -> None:
    found.spared.append(Spared(networks, "not checked by SPF", setting))


def _trust(found: Found, key: str, names: Iterable[str], setting: Setting) -> None:
    names = list(names)
    found.trust(key, names, setting)
    if names:
        what = "before, SPF alone did not refuse their mail; [[trusted]] sets DMARC aside too, so that nothing does"
        found.note(_DECIDE, what, setting)


def _take_whitelist(found: Found, setting: Setting) -> None:
    _trust(found, "networks", map(str, _networks(found, setting)), setting)


def _take_ptr(found: Found, setting: Setting) -> None:
    """Ends of names: with a dot before it, one stands for all below a domain."""
    ends = ",".join(part.removeprefix(".") for part in setting.value.split(","))
    _trust(found, "ptr", _domains(found, Setting(setting.name, ends, setting.place)), setting)


def _take_helo_names(found: Found, setting: Setting) -> None:
    _trust(found, "ptr", _domains(found, setting), setting)
    what = "now the name that the client's address leads to and that leads back counts, and names below it too"
    found.note(_DECIDE, f"taken over as ptr in [[trusted]]: {what}", setting)


def _take_domains(found: Found, setting: Setting) -> None:
    _trust(found, "spf", _domains(found, setting), setting)
    what = (
        "now a reverse path of these domains that passes SPF counts; of a forwarder that keeps the sender's, name the"
    )
    found.note(_DECIDE, f"taken over as spf in [[trusted]]: {what} networks", setting)


def _take_not_pass_domains(found: Found, setting: Setting) -> None:
    what = (
        'not taken over: [policy.domains."DOMAIN".spf] goes by the domain in From, and this went by the reverse path'
    )
    found.note(_DECIDE, what, setting)
