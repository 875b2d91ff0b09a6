"""Each option of OpenDKIM, OpenDMARC, policyd-spf and dkimpy-milter: what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from mailguard.migration.note import NoteKind
from migration_site import ED25519_KEY, Site, at, migration_site, said

__all__ = ["migration_site"]

SIGNING = "Domain one.test\nSelector s\nKeyFile @/a.private\nInternalHosts 192.0.2.1\n"
PEERS = {"type": "local_policy", "networks": ["192.0.2.0/24"], "ptr": ["peer.test"]}
PTR = [{"type": "local_policy", "ptr": ["relay.test"]}]
PTR_A = [{"type": "local_policy", "ptr": ["a.test"]}]
OURS = ["127.0.0.0/8", "::1/128"]
LOOSE = [OURS[0], "192.0.2.7/32", "203.0.113.0/24", OURS[1]]

# Program, its lines, a path in our configuration (empty: nothing), its value, kind of a note (None: none), its words.
TAKEN: list[tuple[str, str, str, Any, NoteKind | None, str]] = [
    ("opendkim", "AuthservID mx.one.test", "authserv_id", "mx.one.test", None, ""),
    ("opendkim", "AuthservID HOSTNAME", "authserv_id", None, NoteKind.DIFFERS, "full name"),
    ("opendkim", "AuthservID a b", "authserv_id", None, NoteKind.DECIDE, "cannot be an authserv-id"),
    ("opendkim", "# nothing", "sign.canonicalization", "simple/simple", None, ""),
    ("opendkim", "Canonicalization relaxed", "sign.canonicalization", "relaxed/simple", None, ""),
    ("opendkim", "canonicalization RELAXED/Relaxed", "sign.canonicalization", "relaxed/relaxed", None, ""),
    ("opendkim", "Canonicalization loose", "sign.canonicalization", None, NoteKind.BROKEN, '"loose"'),
    ("opendkim", "SignatureTTL 604800", "sign.lifetime_days", 7, None, ""),
    ("opendkim", "SignatureTTL 604801", "sign.lifetime_days", 8, NoteKind.DIFFERS, "whole days"),
    ("opendkim", "SignatureTTL 1", "sign.lifetime_days", 1, NoteKind.DIFFERS, "whole days"),
    ("opendkim", "SignatureTTL 999999999999", "sign.lifetime_days", 365, NoteKind.DIFFERS, "whole days"),
    ("opendkim", "SignatureTTL 0", "sign.lifetime_days", None, NoteKind.DIFFERS, "signatures had no end"),
    ("opendkim", "SignatureTTL week", "sign.lifetime_days", None, NoteKind.BROKEN, "number of seconds"),
    ("opendkim", "# nothing", "sign.lifetime_days", None, NoteKind.DIFFERS, "signatures had no end"),
    ("opendkim", "MaximumSignaturesToVerify 5", "verify.max_signatures", 5, None, ""),
    ("opendkim", "MaximumSignaturesToVerify 0", "verify.max_signatures", None, NoteKind.DECIDE, "1 to 50"),
    (
        "opendkim",
        "Nameservers 192.0.2.53, [2001:db8::53]",
        "dns.nameservers",
        ["192.0.2.53", "2001:db8::53"],
        None,
        "",
    ),
    ("opendkim", "Nameservers ns1", "dns.nameservers", None, NoteKind.BROKEN, "not an address"),
    ("opendkim", "MTA ORIGINATING,SUBMIT", "sign.daemon_names", ["ORIGINATING", "SUBMIT"], None, ""),
    (
        "opendkim",
        "MacroList daemon_name|SUBMIT",
        "sign.daemon_names",
        None,
        NoteKind.BROKEN,
        "no macro has such a name",
    ),
    ("dkimpy-milter", "MacroList daemon_name|SUBMIT|SMTPS", "sign.daemon_names", ["SUBMIT", "SMTPS"], None, ""),
    ("dkimpy-milter", "MacroList daemon_name=SUBMIT", "sign.daemon_names", None, NoteKind.BROKEN, "no macro has"),
    ("opendkim", "MacroList {daemon_name}=SUBMIT", "sign.daemon_names", None, NoteKind.BROKEN, "no macro has"),
    ("opendkim", "MacroList daemon_name=A | B", "sign.daemon_names", ["A", "B"], None, ""),
    ("opendkim", "MTA A\nMacroList daemon_name=B", "sign.daemon_names", ["B"], NoteKind.BROKEN, "that alone"),
    ("opendkim", "MacroList daemon_name=B\nMTA A", "sign.daemon_names", ["B"], NoteKind.BROKEN, "that alone"),
    ("opendkim", "MTA B\nMacroList daemon_name=B|A", "sign.daemon_names", ["B", "A"], None, ""),
    ("opendkim", "", "sign.daemon_names", None, NoteKind.DIFFERS, "Postfix calls ORIGINATING"),
    ("opendkim", "MacroList auth_type", "sign.daemon_names", None, None, ""),
    ("opendkim", "MacroList colour=red", "sign.daemon_names", None, NoteKind.DECIDE, "by login"),
    ("opendkim", "Mode v", "domains", None, None, ""),
    (
        "opendkim",
        "Mode s",
        "listeners",
        [{"address": "unix:/run/mailguard/mailguard.sock", "role": "sign"}],
        None,
        "",
    ),
    ("opendkim", "Mode v", "policy.internal_networks", [OURS[0], "192.0.2.1/32", OURS[1]], None, ""),
    ("opendkim", "Mode v", "sign.networks", None, None, ""),
    ("opendkim", "Mode x", "domains", None, NoteKind.BROKEN, "not s, v or sv"),
    ("opendkim", "Mode sv", "listeners", None, None, ""),
    ("opendkim", "SubDomains yes", 'domains."one.test".subdomains', True, NoteKind.DECIDE, "others below one.test"),
    ("opendkim", "SubDomains no", 'domains."one.test".subdomains', None, None, ""),
    ("opendkim", "Socket local:/run/opendkim/s", "listeners", None, NoteKind.DIFFERS, "unix:/run/mailguard/mailgu"),
    ("opendkim", "Socket inet:8891@localhost", "listeners", [{"address": "inet:127.0.0.1:9891"}], None, ""),
    ("opendkim", "Socket inet:8891@[127.0.0.1]", "listeners", [{"address": "inet:127.0.0.1:9891"}], None, ""),
    (
        "opendkim",
        "Socket inet:8891",
        "listeners",
        [{"address": "inet:127.0.0.1:9891"}],
        NoteKind.DECIDE,
        "other hosts",
    ),
    (
        "opendkim",
        "Socket local:/var/spool/postfix/opendkim/s",
        "listeners",
        [{"address": "unix:/var/spool/postfix/mailguard/mailguard.sock"}],
        NoteKind.DECIDE,
        "make the directory first",
    ),
    (
        "opendkim",
        "Socket local:/var/spool/postfix/opendkim/s",
        "",
        None,
        NoteKind.DIFFERS,
        "at unix:mailguard/mailguard.sock, by smtpd_milters",
    ),
    ("opendkim", "UMask 007", "", None, None, ""),
    ("opendkim", "UMask 000", "", None, NoteKind.DIFFERS, "every user could connect"),
    ("opendkim", "UMask 9", "", None, NoteKind.BROKEN, "octal"),
    ("opendkim", "OversignHeaders From,To", "", None, None, ""),
    ("opendkim", "OversignHeaders From,X-Mine", "", None, NoteKind.DIFFERS, "X-Mine: not oversigned"),
    ("opendkim", "SignatureAlgorithm rsa-sha256", "", None, None, ""),
    ("opendkim", "SignatureAlgorithm rsa-sha1", "", None, NoteKind.DECIDE, "rsa-sha1"),
    ("opendkim", "PeerList 192.0.2.0/24,.peer.test", "trusted", [PEERS], NoteKind.DECIDE, "sets SPF and DMARC aside"),
    ("opendkim", "ExternalIgnoreList refile:@/nothing", "", None, NoteKind.LEFT_OUT, "nothing is logged"),
    ("opendkim", "On-BadSignature accept", "", None, None, ""),
    ("opendkim", "On-BadSignature reject", "", None, NoteKind.DECIDE, "no_pass"),
    ("opendkim", "LDAPTimeout 5", "", None, NoteKind.LEFT_OUT, "LDAP"),
    ("opendkim", "Colour red", "", None, NoteKind.BROKEN, "OpenDKIM has no such option"),
    ("opendkim", "KeyTable dsn:mysql://u:secret@h/d", "", None, NoteKind.DECIDE, "there is no SigningTable"),
    ("opendkim", "Selector a..b", "domains", None, NoteKind.BROKEN, "not a selector"),
    ("opendkim", "Domain two.test, no domain, three.test", 'domains."three.test"', ..., NoteKind.BROKEN, "one word"),
    (
        "opendkim",
        "InternalHosts 192.0.2.0/24,!192.0.2.128/25",
        "policy.internal_networks",
        [OURS[0], "192.0.2.0/25", OURS[1]],
        None,
        "",
    ),
    ("opendkim", "InternalHosts 192.0.2.0/24,!192.0.2.0/24", "sign.networks", None, None, ""),
    ("opendkim", "InternalHosts !192.0.2.1,192.0.2.1/32", "sign.networks", None, None, ""),
    ("opendkim", "InternalHosts 192.0.2.5/24", "sign.networks", None, NoteKind.BROKEN, "knows it as 192.0.2.0/24"),
    ("opendkim", "InternalHosts 192.0.2.0/255.255.255.0", "sign.networks", None, NoteKind.BROKEN, "no address in it"),
    ("opendkim", "InternalHosts [192.0.2.0/24]", "sign.networks", None, NoteKind.BROKEN, "no address in it"),
    ("opendkim", "InternalHosts [192.0.2.0]/24", "sign.networks", ..., None, ""),
    ("opendkim", "InternalHosts csl:2001:DB8:0::/48", "sign.networks", None, NoteKind.BROKEN, "no address in it"),
    (
        "opendkim",
        "InternalHosts CSL:192.0.2.9",
        "policy.internal_networks",
        [OURS[0], "192.0.2.9/32", OURS[1]],
        None,
        "",
    ),
    (
        "opendkim",
        "InternalHosts File:@/hosts",
        "policy.internal_networks",
        [OURS[0], "192.0.2.7/32", OURS[1]],
        NoteKind.DECIDE,
        "not known by name",
    ),
    ("opendkim", "InternalHosts LDAP://host/base", "", None, NoteKind.DECIDE, "LDAP tables are not read"),
    ("opendkim", "InternalHosts refile:@/patterns", "sign.networks", None, NoteKind.DECIDE, "is a pattern"),
    (
        "opendkim",
        "InternalHosts 192.0.2.0/30\nPeerList 192.0.2.0/31",
        "sign.networks",
        [{"networks": ["192.0.2.2/31"], "domains": ["one.test"]}],
        NoteKind.DIFFERS,
        "PeerList",
    ),
    ("opendkim", "Domain *.two.test", 'domains."two.test"', None, NoteKind.BROKEN, "not a domain"),
    ("opendkim", "Domain *", "domains", None, NoteKind.DECIDE, "d= its own name"),
    ("opendkim", "Domain refile:@/below", 'domains."two.test"', None, NoteKind.DECIDE, "d= its own name"),
    ("dkimpy-milter", "InternalHosts 192.0.2.5/24", "policy.internal_networks", ..., None, ""),
    ("opendmarc", "IgnoreHosts @/loose", "policy.internal_networks", LOOSE, NoteKind.BROKEN, "to OpenDMARC"),
    ("opendkim", "InternalHosts 0.0.0.0/0", "sign.networks", None, NoteKind.DECIDE, "every address"),
    ("opendkim", "InternalHosts .lan.test,localhost", "sign.networks", ..., NoteKind.DECIDE, "not known by name"),
    ("opendkim", "PeerList 192.0.2.7", "trusted", ..., NoteKind.DECIDE, "of a login or of daemon_names is signed"),
    ("opendkim", "PeerList *.lan.test", "trusted", None, NoteKind.BROKEN, "fits no host to OpenDKIM"),
    ("opendkim", "PeerList 192.0.2", "trusted", None, NoteKind.BROKEN, "neither a network nor a host"),
    ("opendmarc", "IgnoreHosts @/wild", "trusted", None, NoteKind.BROKEN, '".lan.test" would'),
    (
        "opendmarc",
        "IgnoreHosts @/indented",
        "policy.internal_networks",
        None,
        NoteKind.BROKEN,
        "white space is before",
    ),
    (
        "opendkim",
        "InternalHosts csl:[2001:db8::1],::ffff:192.0.2.1",
        "sign.networks",
        [{"networks": ["2001:db8::1/128"], "domains": ["one.test"]}],
        NoteKind.BROKEN,
        "knows it as 192.0.2.1/32",
    ),
    ("opendkim", "InternalHosts 10.0.0.0/33", "sign.networks", None, NoteKind.BROKEN, "neither a network nor a host"),
    ("opendmarc", "AuthservID mx.one.test", "authserv_id", "mx.one.test", None, ""),
    ("opendmarc", "# nothing", "policy.dmarc.quarantine", "accept", NoteKind.DIFFERS, "was delivered"),
    ("opendmarc", "HoldQuarantinedMessages true", "policy.dmarc.quarantine", "quarantine", None, ""),
    ("opendmarc", "HoldQuarantinedMessages true", "", None, NoteKind.DIFFERS, "OpenDMARC held nothing"),
    ("opendmarc", "HoldQuarantinedMessages false", "policy.dmarc.quarantine", "accept", None, ""),
    ("opendmarc", "RejectFailures true", "mode", "monitor", NoteKind.DECIDE, "mode stays monitor"),
    ("opendmarc", "RejectFailures false", "mode", "monitor", NoteKind.DIFFERS, "refused nothing"),
    ("opendmarc", "IgnoreAuthenticatedClients true", "", None, None, ""),
    ("opendmarc", "IgnoreAuthenticatedClients no", "", None, NoteKind.DIFFERS, "not judged"),
    (
        "opendmarc",
        "IgnoreHosts @/hosts",
        "policy.internal_networks",
        [OURS[0], "192.0.2.7/32", OURS[1]],
        NoteKind.DIFFERS,
        "what comes from this host was judged",
    ),
    ("opendmarc", "BaseDirectory @/\nIgnoreHosts hosts", "trusted", PTR, NoteKind.DECIDE, "and all below it"),
    ("opendmarc", "IgnoreHosts @/nothing", "policy.internal_networks", None, NoteKind.DECIDE, "cannot be read"),
    (
        "opendmarc",
        "IgnoreMailFrom a.test,B.test",
        'policy.domains."b.test".dmarc',
        {"reject": "accept", "quarantine": "accept"},
        None,
        "",
    ),
    ("opendmarc", "IgnoreMailFrom a_.test", "policy.domains", None, NoteKind.BROKEN, "not a domain"),
    ("opendmarc", "TrustedAuthservIDs HOSTNAME", "", None, None, ""),
    ("opendmarc", "AuthservID a\nTrustedAuthservIDs A,hostname", "", None, None, ""),
    ("opendmarc", "TrustedAuthservIDs relay.test", "", None, NoteKind.DECIDE, "relay.test: results of others"),
    ("opendmarc", "SPFSelfValidate true", "", None, None, ""),
    ("opendmarc", "SPFIgnoreResults true", "", None, NoteKind.DIFFERS, "SPF did not count"),
    ("opendmarc", "SPFSelfValidate false", "", None, NoteKind.DIFFERS, "always checked"),
    ("opendkim", "RequiredHeaders yes", "", None, NoteKind.DECIDE, "without a Date"),
    ("opendmarc", "RequiredHeaders true", "", None, NoteKind.DECIDE, "without a Date"),
    ("opendmarc", "RequiredHeaders false", "", None, NoteKind.DIFFERS, "passed by what has no one readable From"),
    ("opendmarc", "RejectMultiValueFrom true", "", None, NoteKind.DECIDE, "several domains was refused"),
    ("opendmarc", "", "", None, NoteKind.DIFFERS, "without a PublicSuffixList"),
    ("opendmarc", "PublicSuffixList /usr/share/list", "dmarc", None, NoteKind.DIFFERS, "come from the DNS"),
    ("opendmarc", "PublicSuffixList @/nothing", "", None, NoteKind.DIFFERS, "knew no Organizational Domain"),
    ("opendmarc", "IgnoreHosts csl:192.0.2.0/24", "policy", ..., NoteKind.DECIDE, "csl:192.0.2.0/24 cannot be read"),
    ("opendmarc", "IgnoreHosts file:@/hosts", "policy.internal_networks", None, NoteKind.DECIDE, "cannot be read"),
    ("opendmarc", "IgnoreHosts @/sixth", "", None, NoteKind.DIFFERS, "what comes from this host was judged"),
    ("opendmarc", "IgnoreHosts @/empty", "", None, NoteKind.DIFFERS, "what comes from this host was judged"),
    ("opendmarc", "FailureReports true", "", None, NoteKind.DECIDE, "no failure reports"),
    ("opendmarc", "FailureReports false", "", None, None, ""),
    ("opendmarc", "HistoryFile /x", "", None, NoteKind.DECIDE, "no history"),
    ("opendmarc", "DomainWhitelist a.test", "", None, NoteKind.DECIDE, "ARC"),
    ("opendmarc", "UserID opendmarc:mail", "user", None, None, ""),
    ("opendmarc", "Canonicalization simple", "", None, NoteKind.BROKEN, "OpenDMARC has no such option"),
    ("policyd-spf", "# nothing", "policy.spf", {"fail": "reject", "temperror": "accept"}, NoteKind.DECIDE, "monitor"),
    (
        "policyd-spf",
        "# nothing",
        "policy.helo",
        {"fail": "reject", "temperror": "accept"},
        NoteKind.DIFFERS,
        "RCPT TO",
    ),
    ("policyd-spf", "# nothing", "results.received_spf", True, None, ""),
    ("policyd-spf", "TestOnly = 0", "mode", "monitor", NoteKind.DECIDE, "enforce refuses by SPF alone"),
    ("policyd-spf", "TestOnly = 1", "mode", "monitor", NoteKind.DECIDE, "refused mail"),
    ("policyd-spf", "defaultSeedOnly = 0", "mode", "monitor", NoteKind.DECIDE, "policyd-spf refused mail"),
    ("policyd-spf", "defaultSeedOnly = 0", "", None, NoteKind.BROKEN, "but TestOnly alone"),
    ("policyd-spf", "Mail_From_reject = Softfail", "policy.spf.softfail", "reject", None, ""),
    (
        "policyd-spf",
        "HELO_reject = SPF_Not_Pass",
        "policy.helo",
        {"fail": "reject", "softfail": "reject", "neutral": "reject", "temperror": "accept"},
        None,
        "",
    ),
    ("policyd-spf", "Mail_From_reject = fail", "policy.spf.fail", None, NoteKind.BROKEN, "whose words have case"),
    ("policyd-spf", "Mail_From_reject = SPF_Not_Pass", "policy.spf.permerror", None, None, ""),
    ("policyd-spf", "PermError_reject = true", "policy.spf.permerror", None, None, ""),
    ("policyd-spf", "No_Mail = yes", "policy.spf.fail", "reject", None, ""),
    ("policyd-spf", "HELO_reject = False", "policy.helo", None, None, ""),
    ("policyd-spf", "HELO_reject = Null", "policy.helo", None, NoteKind.DECIDE, "null senders"),
    ("policyd-spf", "HELO_reject = No_Check", "spf.check_helo", False, None, ""),
    ("policyd-spf", "HELO_reject = Perhaps", "policy.helo.fail", None, NoteKind.BROKEN, "no policy of policyd-spf"),
    ("policyd-spf", "Mail_From_reject = No_Check", "policy.spf", None, NoteKind.DIFFERS, "always checked"),
    (
        "policyd-spf",
        "Mail_From_reject = Null\nTempError_Defer = True",
        "policy.spf",
        {"temperror": "tempfail"},
        NoteKind.BROKEN,
        "no policy of policyd-spf",
    ),
    ("policyd-spf", "HELO_reject = False", "policy.spf.fail", "reject", NoteKind.DIFFERS, "of the null sender"),
    ("policyd-spf", "Mock = False", "policy.spf.fail", "reject", NoteKind.DECIDE, "checked nothing at all"),
    ("policyd-spf", "Mock = False", "mode", "monitor", NoteKind.DECIDE, "policyd-spf refused nothing"),
    ("policyd-spf", "Socket = inet:8893@localhost", "", None, NoteKind.DIFFERS, "now the one in HELO is checked"),
    ("policyd-spf", "Socket = inet:8893@localhost", "results", None, None, ""),
    ("policyd-spf", "Socket = inet:8893@localhost\nHeader_Type = SPF", "results", None, None, ""),
    (
        "policyd-spf",
        "InternalHosts = 127.0.0.1,10.0.0.5/8,192.0.2.0/24",
        "policy.internal_networks",
        [OURS[0], "192.0.2.0/24", OURS[1]],
        NoteKind.BROKEN,
        'as "10.0.0.0/8" would',
    ),
    ("policyd-spf", "PermError_reject = True", "policy.spf.permerror", "reject", None, ""),
    ("policyd-spf", "TempError_Defer = True", "policy.helo.temperror", "tempfail", None, ""),
    ("policyd-spf", "No_Mail = True", "policy.spf", {"temperror": "accept"}, NoteKind.DECIDE, "tell them apart"),
    ("policyd-spf", "Header_Type = AR", "results", None, None, ""),
    ("policyd-spf", "Header_Type = None", "results", None, NoteKind.DIFFERS, "always written"),
    ("policyd-spf", "Header_Type = Both", "results", None, NoteKind.BROKEN, "is not SPF, AR or None"),
    ("policyd-spf", "Authserv_Id = mx.one.test", "authserv_id", "mx.one.test", None, ""),
    (
        "policyd-spf",
        "skip_addresses = 127.0.0.0/8,::ffff:127.0.0.0/104,::1",
        "policy.internal_networks",
        None,
        None,
        "",
    ),
    ("policyd-spf", "skip_addresses = 10.0.0.0/8", "policy.internal_networks", ["10.0.0.0/8", *OURS], None, ""),
    (
        "policyd-spf",
        "Whitelist = 192.0.2.1,relay.test",
        "trusted",
        [{"type": "local_policy", "networks": ["192.0.2.1/32"]}],
        NoteKind.BROKEN,
        "is no network",
    ),
    (
        "policyd-spf",
        "Domain_Whitelist = relay.test",
        "trusted",
        [{"type": "local_policy", "spf": ["relay.test"]}],
        NoteKind.DECIDE,
        "name the networks",
    ),
    ("policyd-spf", "Domain_Whitelist_PTR = relay.test", "trusted", PTR, None, ""),
    ("policyd-spf", "Domain_Whitelist_PTR = .relay.test", "trusted", PTR, NoteKind.DECIDE, "sets DMARC aside too"),
    ("policyd-spf", "Domain_Whitelist_PTR = test", "trusted", None, NoteKind.DECIDE, "has no dot"),
    ("policyd-spf", "HELO_Whitelist = relay.test", "trusted", PTR, NoteKind.DECIDE, "ptr"),
    ("policyd-spf", "Reject_Not_Pass_Domains = aol.test", "policy.domains", None, NoteKind.DECIDE, "reverse path"),
    ("policyd-spf", "Per_User = text,/x", "", None, NoteKind.DECIDE, "one policy"),
    ("policyd-spf", "Void_Limit = 5", "", None, NoteKind.DIFFERS, "two void"),
    ("policyd-spf", "HELO_reject Fail", "", None, NoteKind.BROKEN, "not a name, = and a value"),
    ("policyd-spf", "a = b = c", "", None, NoteKind.BROKEN, "not a name, = and a value"),
    ("policyd-spf", "Helo_Reject = False", "policy.helo.fail", "reject", NoteKind.BROKEN, "and HELO_reject is"),
    (
        "policyd-spf",
        "skip_addresses = 10.0.0.0/8, 192.0.2.0/24,192.0.2.0/24",
        "policy.internal_networks",
        ["10.0.0.0/8", *OURS],
        NoteKind.BROKEN,
        '" 192.0.2.0/24" is no network',
    ),
    ("policyd-spf", "skip_addresses = 10.0.0.5/8", "policy.internal_networks", None, NoteKind.BROKEN, "no network"),
    ("policyd-spf", "skip_addresses = ::ffff:10.0.0.0/104", "policy.internal_networks", None, None, ""),
    ("policyd-spf", "Whitelist = a.test,192.0.2.1", "trusted", None, NoteKind.BROKEN, "reads no further"),
    (
        "policyd-spf",
        "Domain_Whitelist_PTR = a.test, b.test",
        "trusted",
        PTR_A,
        NoteKind.BROKEN,
        '" b.test" fits nobody',
    ),
    ("policyd-spf", "InternalHosts = @/hosts", "policy.internal_networks", ..., NoteKind.BROKEN, "not a network"),
    ("policyd-spf", "MacroList = daemon_name|VERIFY", "", None, NoteKind.DECIDE, "does not depend on macros"),
    ("policyd-spf", "Colour = red", "", None, NoteKind.BROKEN, "policyd-spf has no such option"),
    ("dkimpy-milter", "# nothing", "sign.canonicalization", "relaxed/simple", None, ""),
    ("dkimpy-milter", "Canonicalization relaxed", "sign.canonicalization", "relaxed/relaxed", None, ""),
    ("dkimpy-milter", "Canonicalization simple/relaxed", "sign.canonicalization", "simple/relaxed", None, ""),
    (
        "dkimpy-milter",
        "InternalHosts 192.0.2.1",
        "sign.networks",
        ...,
        NoteKind.DECIDE,
        "mail of any client was signed",
    ),
    ("dkimpy-milter", "PeerList 192.0.2.7", "trusted", None, NoteKind.BROKEN, "does nothing by it"),
    ("dkimpy-milter", "mode v", "domains", ..., NoteKind.BROKEN, "and Mode is: they have case"),
    ("dkimpy-milter", "Mode v", "sign.networks", None, None, ""),
    ("dkimpy-milter", "Canonicalization simple", "sign.canonicalization", "simple/simple", None, ""),
    ("dkimpy-milter", "MacroListVerify daemon_name|VERIFYING", "", None, NoteKind.DECIDE, 'role = "verify"'),
    ("dkimpy-milter", "debugLevel 3", "", None, NoteKind.LEFT_OUT, "one line in the log"),
    ("dkimpy-milter", "SignatureTTL 100", "sign.lifetime_days", None, NoteKind.BROKEN, "dkimpy-milter has no such"),
]


@pytest.mark.parametrize(
    ("program", "lines", "path", "value", "kind", "words"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]}"[:70]) for row in TAKEN],
)
def test_an_option(
    migration_site: Site, program: str, lines: str, path: str, value: Any, kind: NoteKind | None, words: str
) -> None:
    migration_site.key("a.private")
    migration_site.write("hosts", "# ours\n192.0.2.7\nrelay.test # a name\n")
    migration_site.write("loose", "192.0.2.7\n198.51.100.9/24\n203.0.113.0/255.255.255.0\n")
    migration_site.write("wild", "*.lan.test\n")
    migration_site.write("sixth", "::1\n")
    migration_site.write("empty", "# nobody\n")
    migration_site.write("indented", " 192.0.2.7\n")
    migration_site.write("patterns", "192.0.2.*\n")
    migration_site.write("below", "*.two.test\n")
    before = SIGNING if program in ("opendkim", "dkimpy-milter") else ""
    plain = migration_site.imported(**{program: before})
    imported = migration_site.imported(**{program: f"{before}{lines}\n"})
    if path:
        found = at(imported, path)
        assert found is not None if value is ... else found == value
    notes = {each: said(imported, each) for each in NoteKind}
    if kind is not None:
        assert any(words in text for text in notes[kind]), notes
    elif program != "policyd-spf":
        # Nothing that was not to be said before: what is taken over is not spoken of.
        known = {str(note).partition(": ")[2] for note in plain.notes}
        fresh = {str(note).partition(": ")[2] for note in imported.notes if note.kind.needs_decision}
        assert not fresh - known


NOT_REFUSED = "HELO_reject = False\nMail_From_reject = False\n"


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ("", True),
        ("TestOnly = 1\n", True),
        ("TestOnly = 0\n", False),
        ("HELO_reject = False\nTestOnly = 1\n", True),
        (f"{NOT_REFUSED}TestOnly = 1\nPermError_reject = True\nTempError_Defer = True\n", False),
        ("HELO_reject = No_Check\nMail_From_reject = No_Check\n", False),
        ("HELO_reject = Perhaps\nMail_From_reject = False\n", False),
        ("HELO_reject = False\nMail_From_reject = Softfail\n", True),
    ],
)
def test_that_policyd_spf_refused_mail(migration_site: Site, lines: str, refused: bool) -> None:
    """Where OpenDMARC decides, policyd-spf is told to write its header alone, and that is no refusal."""
    told = said(migration_site.imported(policyd_spf=lines), NoteKind.DECIDE)
    assert any("policyd-spf refused mail" in text for text in told) == refused


@pytest.mark.parametrize(
    ("lines", "is_told"),
    [
        ("", True),
        ("TestOnly = 0\n", True),
        (NOT_REFUSED, False),
        # pyspf-milter sees the mail of all clients.
        ("Socket = local:/run/pyspf-milter.sock\n", False),
    ],
)
def test_that_postfix_did_not_ask_policyd_spf_about_everybody(
    migration_site: Site, lines: str, is_told: bool
) -> None:
    """A policy service stands behind permit_mynetworks, and a milter does not."""
    told = said(migration_site.imported(policyd_spf=lines), NoteKind.DECIDE)
    assert any("permit_mynetworks" in text for text in told) == is_told


@pytest.mark.parametrize(
    ("peers", "networks", "words"),
    [
        ("", ["127.0.0.1/32", "::1/128"], "from 127.0.0.1 and ::1, and"),
        ("PeerList 127.0.0.1", ["::1/128"], "from ::1, and"),
        ("PeerList localhost", None, ""),
        ("PeerList 127.0.0.0/8,::/64", None, ""),
    ],
)
def test_this_host_where_no_internal_hosts_are_listed(
    migration_site: Site, peers: str, networks: list[str] | None, words: str
) -> None:
    migration_site.key("a.private")
    alone = SIGNING.replace("InternalHosts 192.0.2.1\n", "")
    imported = migration_site.imported(opendkim=f"{alone}{peers}\n")
    rules = [{"networks": networks, "domains": ["one.test"]}]
    assert at(imported, "sign.networks") == (rules if networks else None)
    told = [text for text in said(imported, NoteKind.DECIDE) if "without InternalHosts" in text]
    assert words in "".join(told) if words else not told


def test_the_ed25519_key_of_dkimpy_milter(migration_site: Site) -> None:
    migration_site.key("a.private")
    migration_site.key("e.private", ED25519_KEY)
    text = f"{SIGNING}KeyFileEd25519 @/e.private\nSelectorEd25519 e\n"
    imported = migration_site.imported(dkimpy_milter=text)
    assert [each["name"] for each in at(imported, 'domains."one.test".selectors')] == ["s", "e"]
    migration_site.write("keys", "one one.test:s:@/a.private\n")
    migration_site.write("ekeys", "one one.test:e:@/e.private\n")
    migration_site.write("signing", "*@one.test one\n")
    tables = "KeyTable @/keys\nKeyTableEd25519 @/ekeys\nSigningTable @/signing\nInternalHosts 192.0.2.1\n"
    imported = migration_site.imported(dkimpy_milter=tables)
    assert [each["name"] for each in at(imported, 'domains."one.test".selectors')] == ["s", "e"]


def test_the_clients_of_dkimpy_milter(migration_site: Site) -> None:
    """It signs whatever has one of the domains in From."""
    migration_site.key("a.private")
    alone = SIGNING.replace("InternalHosts 192.0.2.1\n", "")
    imported = migration_site.imported(dkimpy_milter=alone)
    assert at(imported, "sign.networks") == [{"networks": ["127.0.0.1/32", "::1/128"], "domains": ["one.test"]}]
    told = "\n".join(said(imported, NoteKind.DECIDE))
    assert "mail of any client was signed" in told
    assert "without InternalHosts" not in told
    assert not [
        text
        for text in said(migration_site.imported(dkimpy_milter="Mode v\n"), NoteKind.DECIDE)
        if "any client" in text
    ]
