"""The options of OpenDKIM 2.11 that are not taken over, and what is said of each (opendkim.conf(5)). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mailguard.migration.found import HEADER_COUNTS, OFF, ON, Remark
from mailguard.migration.note import NoteKind

__all__ = ["PREFIXES", "REMARKS"]

_DECIDE, _DIFFERS, _LEFT = NoteKind.DECIDE, NoteKind.DIFFERS, NoteKind.LEFT_OUT

_ACCEPT = "a|accept"
_SCRIPT = Remark(_DECIDE, "scripts are not run: what this one decides has to be said in [policy] or in Postfix")
_ACTION = Remark(
    _DECIDE,
    "no_pass in [policy.dkim] is one action for missing and bad signatures alike; DMARC's are in [policy.dmarc]",
    _ACCEPT,
)
_WHOLE_BODY = Remark(_DIFFERS, "signatures always cover the whole body: there is no l=")
_LOG = Remark(_LEFT, "each message has one line in the log, which says why")
_PROCESS = Remark(_LEFT, "the supervisor starts a worker again when it dies; systemd starts the daemon")
_REPORT = Remark(_DECIDE, "mailguard sends no reports about failed signatures", OFF)
_REPORT_DETAIL = Remark(_LEFT, "mailguard sends no reports about failed signatures")
_EXPERIMENT = Remark(_LEFT, "an experiment of OpenDKIM without counterpart")
_REWRITE = Remark(_DECIDE, "mailguard signs what it sees: rewrite addresses before it, in Postfix")
_TEST_DATA = Remark(_DECIDE, "keys and records come from the DNS; for tests there is zone_file in [dns]")

REMARKS: Mapping[str, Remark] = {
    "addallsignatureresults": Remark(_DIFFERS, "each signature that is verified has a result", ON),
    "allowsha1only": Remark(_LEFT, "signatures with SHA-1 never pass (RFC 8301)", OFF),
    "alwaysaddarheader": Remark(_DIFFERS, "every message that is judged gets the results", ON),
    "authservidwithjobid": Remark(_LEFT, "the queue ID is in the log, not in the header", OFF),
    "autorestart": _PROCESS,
    "autorestartcount": _PROCESS,
    "autorestartrate": _PROCESS,
    "background": _PROCESS,
    "bodylengthdb": _WHOLE_BODY,
    "boguskey": Remark(_LEFT, "the resolver sees to DNSSEC: a bogus answer counts as a temporary error"),
    "captureunknownerrors": Remark(_LEFT, "what goes wrong inside is answered 451", OFF),
    "changerootdirectory": Remark(
        _DECIDE, "files are named as seen from there: put this directory before their paths"
    ),
    "clockdrift": Remark(_DIFFERS, "the tolerance for clocks is 300 seconds", "300"),
    "diagnostics": Remark(_LEFT, "there is no z=", OFF),
    "diagnosticdirectory": Remark(_LEFT, "enabled = true in [trace] keeps how each message was judged"),
    "disablecryptoinit": _EXPERIMENT,
    "dnsconnect": Remark(_LEFT, "TCP follows where an answer does not fit"),
    "dnstimeout": Remark(_DIFFERS, "deadline_s in [dns] is for all look-ups of a message together"),
    "domainkeyscompat": Remark(_LEFT, "keys of DomainKeys (RFC 4870) are not keys of DKIM", OFF),
    "dontsignmailto": Remark(_DECIDE, "whether mail is signed does not depend on its recipients"),
    "enablecoredumps": Remark(_LEFT, "core files would hold keys and mail", OFF),
    "exemptdomains": Remark(_DECIDE, "no domain in From is passed by; its mail is signed or judged like others"),
    "externalignorelist": Remark(_LEFT, "nothing is logged about such hosts in the first place"),
    "finalpolicyscript": _SCRIPT,
    "fixcrlf": Remark(_LEFT, "the body is hashed as Postfix hands it over", OFF),
    "identityheader": _EXPERIMENT,
    "identityheaderremove": _EXPERIMENT,
    "ignoremalformedmail": Remark(_DIFFERS, "malformed in [policy] says what becomes of such mail", OFF),
    "keepauthresults": Remark(_DIFFERS, "results in the name of this host are always removed from mail", OFF),
    "keeptemporaryfiles": Remark(_LEFT, "nothing is written to disk but traces, where they are wanted", OFF),
    "logresults": _LOG,
    "logwhy": _LOG,
    "maximumheaders": Remark(_LEFT, "Postfix bounds the header: header_size_limit"),
    "maximumsignedbytes": _WHOLE_BODY,
    "milterdebug": Remark(_LEFT, "there is nothing like it", "0"),
    "minimum": Remark(_LEFT, "a signature with l= that leaves something uncovered never passes"),
    "minimumkeybits": Remark(_DIFFERS, "signatures with keys of less than 1024 bits never pass; others do", "1024"),
    "mtacommand": _REPORT_DETAIL,
    "mustbesigned": Remark(_DECIDE, "From must be signed (RFC 6376), no other field"),
    "noheaderb": Remark(_LEFT, "header.b is always written", OFF),
    "omitheaders": Remark(_DIFFERS, "which fields are signed is fixed"),
    "on-badsignature": _ACTION,
    "on-default": _ACTION,
    "on-dnserror": Remark(_DIFFERS, "temperror in [policy.dkim] and [policy.dmarc] says what follows", "t|tempfail"),
    "on-internalerror": Remark(_DIFFERS, "what goes wrong inside is answered 451", "t|tempfail"),
    "on-keynotfound": _ACTION,
    "on-nosignature": _ACTION,
    "on-policyerror": Remark(_LEFT, "ADSP (RFC 5617) is historic; DMARC is in its place"),
    "on-security": Remark(
        _DIFFERS, "malformed in [policy] says what becomes of mail that cannot be judged", "t|tempfail"
    ),
    "on-signatureerror": Remark(
        _DIFFERS, "a message that cannot be signed gets 451 where a key is at fault, else 550, in mode enforce"
    ),
    "pidfile": _PROCESS,
    "popdbfile": Remark(_DECIDE, "clients are known by their login: let them use SMTP AUTH"),
    "quarantine": Remark(_DECIDE, 'no_pass = "quarantine" in [policy.dkim] does the same', OFF),
    "querycache": Remark(_LEFT, "answers of the DNS are always kept for their time"),
    "redirectfailuresto": Remark(_DECIDE, "recipients are never changed; the hold queue keeps mail back"),
    "removearall": Remark(_LEFT, "fields in the name of this host are removed whatever results they have"),
    "removearfrom": Remark(_DECIDE, "only fields in the name of this host (authserv_id) are removed"),
    "removeoldsignatures": Remark(_DIFFERS, "signatures of others are never removed", OFF),
    "replaceheaders": _REWRITE,
    "replacerules": _REWRITE,
    "reportaddress": _REPORT_DETAIL,
    "reportbccaddress": _REPORT_DETAIL,
    "requestreports": Remark(_LEFT, "signatures ask for no reports (r=y)", OFF),
    "requiredheaders": Remark(_DECIDE, HEADER_COUNTS, OFF),
    "requiresafekeys": Remark(_DIFFERS, "a key that others can read or replace is never used", ON),
    "resignall": Remark(_DECIDE, "mail is signed once, for its author's domain"),
    "resignmailto": Remark(_DECIDE, "mail is signed once, for its author's domain"),
    "resolverconfiguration": Remark(_LEFT, "the resolvers of /etc/resolv.conf are asked, or nameservers in [dns]"),
    "resolvertracing": Remark(_LEFT, "enabled = true in [trace] keeps what the DNS answered"),
    "screenpolicyscript": _SCRIPT,
    "selectcanonicalizationheader": Remark(_LEFT, "no header field changes how mail is signed"),
    "senderheaders": Remark(_DECIDE, "the domain in From alone chooses the key", "from"),
    "sendermacro": Remark(_DECIDE, "the domain in From alone chooses the key"),
    "sendreports": _REPORT,
    "setuppolicyscript": _SCRIPT,
    "signheaders": Remark(_DIFFERS, "which fields are signed is fixed"),
    "singleauthresult": Remark(_DIFFERS, "all results of a message stand in one field", ON),
    "smtpuri": _REPORT_DETAIL,
    "softstart": Remark(_LEFT, "databases are not asked for keys"),
    "softwareheader": Remark(_LEFT, "no such field is written", OFF),
    "statisticspolicyscript": _SCRIPT,
    "strictheaders": Remark(_DIFFERS, "malformed in [policy] says what becomes of mail without one From", OFF),
    "stricttestmode": Remark(_LEFT, "there is no such mode"),
    "syslog": Remark(_DIFFERS, "mailguard always writes its log; destination in [log] says where", ON),
    "syslogfacility": Remark(_DIFFERS, "the facility is mail", "mail"),
    "syslogname": Remark(_LEFT, "the name in the log is mailguard"),
    "syslogsuccess": _LOG,
    "temporarydirectory": Remark(_LEFT, "there are no temporary files"),
    "testdnsdata": _TEST_DATA,
    "testpublickeys": _TEST_DATA,
    "trustanchorfile": Remark(_LEFT, "the resolver validates DNSSEC; trust_ad in [dns] says which one is believed"),
    "trustsignaturesfrom": Remark(_LEFT, "a signature of another domain than the author's never counts for DMARC"),
    "unboundconfigfile": Remark(_LEFT, "the resolvers of /etc/resolv.conf are asked, or nameservers in [dns]"),
    "unprotectedkey": Remark(_LEFT, "DKIM does not ask for DNSSEC (RFC 6376)", "none"),
    "weaksyntaxchecks": Remark(_LEFT, "there is no such choice", OFF),
}

PREFIXES: tuple[tuple[str, Remark], ...] = (
    ("ldap", Remark(_LEFT, "LDAP is not asked")),
    ("vbr-", _EXPERIMENT),
    ("atps", _EXPERIMENT),
    ("statistics", Remark(_LEFT, "the log has what there is to count")),
    ("adsp", Remark(_LEFT, "ADSP (RFC 5617) is historic; DMARC is in its place")),
)
