"""What each result of SPF, DKIM, DMARC, iprev and the reading of From means, and what to do about it.

`mailguard explain`, `mailguard verify` and docs/reasons.md are made from these tables. Each entry says who has to
act: the sending side, the receiving side, both, or nobody. Left out: the rules of local policy (rule_advice.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mailguard.address import AddressFlag
from mailguard.dkim.result import DkimReason
from mailguard.dmarc.record import AlignmentMode
from mailguard.dmarc.result import DmarcReason
from mailguard.explain.advice import TRY_AGAIN, Advice
from mailguard.iprev import IprevStatus
from mailguard.message import MalformedReason
from mailguard.spf.result import SpfReason

__all__ = ["ALIGNMENT", "DKIM", "DKIM_UNSIGNED", "DMARC", "FLAGS", "IPREV", "MALFORMED", "SPF", "SPF_PERMISSIVE"]

_TRUST = "if a mailing list or a forwarder that you know brought it, list that under [[trusted]]"

DKIM: Mapping[DkimReason, Advice] = MappingProxyType(
    {
        DkimReason.VERIFIED: Advice("The signature verifies."),
        DkimReason.BODY_HASH: Advice(
            "The body was changed after it was signed.",
            "find who changed the body on the way: a footer, a virus scanner, a gateway that recodes; sign after the"
            " last of your own",
            _TRUST,
        ),
        DkimReason.SIGNATURE: Advice(
            "A signed header field was changed after it was signed, or another key made the signature.",
            "see whether the published key is that of the signer: mailguard key test {domain} {selector} KEY-FILE;"
            " if it is, find who changed a signed header field on the way, such as Subject or To",
            _TRUST,
        ),
        DkimReason.EXPIRED: Advice(
            "The message came later than the signature says that it is valid (x=).",
            "let signatures live longer than mail may wait in a queue, a week say",
            "look at the date at which it came: an old message is no longer covered by its signature",
        ),
        DkimReason.SYNTAX: Advice(
            "The DKIM-Signature field cannot be read.", "repair the DKIM-Signature field that the signer writes"
        ),
        DkimReason.VERSION: Advice("The signature has another version than 1.", "write v=1"),
        DkimReason.ALGORITHM: Advice(
            "The algorithm is obsolete (rsa-sha1) or unknown.", "sign with rsa-sha256 or ed25519-sha256"
        ),
        DkimReason.FROM_UNSIGNED: Advice("The signature does not cover From.", "list From in h="),
        DkimReason.IDENTITY: Advice(
            "i= is of another domain than d=.", "name in i= the domain of d= or one below it, or leave i= out"
        ),
        DkimReason.QUERY_METHOD: Advice(
            "The signature wants its key looked up in an unknown way.", "write q=dns/txt or leave q= out"
        ),
        DkimReason.FUTURE: Advice(
            "The signature says that it was made in the future (t=).",
            "set the clock of the signing host",
            "compare the clock of this host with another",
        ),
        DkimReason.BODY_LENGTH: Advice(
            "The signature verifies but covers only a part of the body (l=): anyone may have appended the rest.",
            "sign without l=",
        ),
        DkimReason.BODY_TOO_SHORT: Advice(
            "The body is shorter than the signature says (l=).", "find who cut text from the body on the way"
        ),
        DkimReason.KEY_UNAVAILABLE: Advice(
            "The DNS did not answer for the key.", "if it stays, look at the name servers of {domain}", TRY_AGAIN
        ),
        DkimReason.KEY_MISSING: Advice(
            "There is no key where the signature says.",
            "publish the key as a TXT record at {selector}._domainkey.{domain}, and keep an old one as long as mail"
            " that it signed may travel",
        ),
        DkimReason.KEY_SYNTAX: Advice(
            "What is published is not a key.",
            "publish the key anew at {selector}._domainkey.{domain}, as one TXT record without quotes and backslashes"
            " of its own; mailguard check {domain} --selector {selector} shows what is there",
        ),
        DkimReason.KEY_REVOKED: Advice(
            "The domain has withdrawn the key (empty p=).",
            "sign with a key that is published; mailguard key new makes one",
        ),
        DkimReason.KEY_TYPE: Advice(
            "The key is of another type than the signature's algorithm.",
            "publish at {selector}._domainkey.{domain} the key that signs, with the k= that its algorithm (a=) needs",
        ),
        DkimReason.KEY_SIZE: Advice(
            "The key is too small to be trusted or too large to be checked.",
            "sign with an RSA key of 2048 bits or an Ed25519 key; mailguard key new makes both",
        ),
        DkimReason.KEY_HASH: Advice(
            "The key does not allow SHA-256.",
            "take h= from the TXT record at {selector}._domainkey.{domain}, or let it have sha256",
        ),
        DkimReason.KEY_SERVICE: Advice(
            "The key is not for mail.",
            "take s= from the TXT record at {selector}._domainkey.{domain}, or let it have email",
        ),
        DkimReason.KEY_STRICT: Advice(
            "The key does not allow a subdomain in i= (t=s).",
            "write i= with the very domain of d=, or take t=s from the TXT record at {selector}._domainkey.{domain}",
        ),
        DkimReason.TESTING: Advice(
            "The signature does not verify, and the key says that the domain is only testing (t=y).",
            "find the fault, then take t=y from the TXT record at {selector}._domainkey.{domain}",
        ),
    }
)
"""For each signature."""

DKIM_UNSIGNED = Advice(
    "The message has no DKIM signature.", "sign mail of {author} with d={author}; mailguard key new makes the keys"
)

SPF: Mapping[SpfReason, Advice] = MappingProxyType(
    {
        SpfReason.MATCH: Advice(
            "A term of the record matched the client; its sign is the result: + or none pass, - fail, ~ softfail,"
            " ? neutral.",
            "if {client} may send for {domain}, write {term} into the TXT record of {domain}, right after v=spf1; if"
            " not, somebody else used the name",
            "if {client} forwards mail to your users, list it under [[trusted]]",
        ),
        SpfReason.NO_MATCH: Advice(
            "No term of the record matched, and it has neither all nor a redirect: neutral.",
            "if {client} may send for {domain}, write {term} into the TXT record of {domain}, right after v=spf1; end"
            " the record with -all or ~all",
        ),
        SpfReason.NO_RECORD: Advice(
            "The domain has no SPF record.",
            "publish a TXT record at {domain} that names your servers, such as: v=spf1 {term} -all",
        ),
        SpfReason.NO_DOMAIN: Advice(
            "There is no domain that could be checked: no HELO, an address literal, a name of one label.",
            "give the full name of the host with HELO, and a reverse path in a domain of yours",
        ),
        SpfReason.NO_ADDRESS: Advice(
            "The client has no address that could be checked: a UNIX socket, or one that means something on its link"
            " only.",
            "",
            "nothing, if the mail is your own; else let it come in from an address that others can reach",
        ),
        SpfReason.SENDER_SYNTAX: Advice(
            "The reverse path is not an address, or has octets that no address has.",
            "send with a reverse path that is an address",
        ),
        SpfReason.SENDER_DISPUTED: Advice(
            "The mail server reads another reverse path than the client showed.",
            "send with a plain reverse path, as in local-part@{domain}, without quotes, routes and comments",
        ),
        SpfReason.SEVERAL_RECORDS: Advice(
            "The domain has several SPF records.",
            "leave one TXT record at {domain} that begins with v=spf1, with the terms of all of them",
        ),
        SpfReason.RECORD_SYNTAX: Advice(
            "The record, or one that it includes, has a syntax error.",
            "repair the TXT record of {domain}: ip4:ADDRESS or ip6:ADDRESS, a:HOST, mx or include:DOMAIN, with one"
            " space between two; mailguard check {domain} shows which term is wrong",
        ),
        SpfReason.RECORD_SIZE: Advice(
            "The record is too long to be evaluated.",
            "shorten the TXT record of {domain}, by larger networks or an include",
        ),
        SpfReason.TOO_MANY_LOOKUPS: Advice(
            "More terms of the record look something up than the 10 that RFC 7208 allows; or they come to more than"
            " 30 queries, where mailguard stops; or the record includes itself.",
            "write ip4 and ip6 into the record of {domain} in place of some of its include, a, mx, ptr, exists and"
            " redirect; those of included records count too, and as queries also the addresses of each mail server of"
            " an mx",
        ),
        SpfReason.TOO_MANY_VOIDS: Advice(
            "More than two names in the record do not exist or have no address.",
            "take the names that do not exist from the record of {domain}",
        ),
        SpfReason.NO_INCLUDED_RECORD: Advice(
            "A domain that the record includes or redirects to has no SPF record.",
            "take that include or redirect from the record of {domain}, or publish the record that it names",
        ),
        SpfReason.DNS: Advice(
            "The DNS did not answer.",
            "if it stays, look at the name servers of {domain} and of what its record names",
            TRY_AGAIN,
        ),
    }
)
"""For the reverse path and for the HELO name; a pass needs nothing, whatever the term."""

SPF_PERMISSIVE = Advice(
    "SPF passes by a term that covers half of all addresses or more, such as +all: it proves nothing.",
    "end the record of {domain} with -all or ~all, and name your servers in it",
)

IPREV: Mapping[IprevStatus, Advice] = MappingProxyType(
    {
        IprevStatus.PASS: Advice("The client's address has a name, and that name has the address."),
        IprevStatus.FAIL: Advice(
            "The client's address has names, but none of them has that address.",
            "give the name in the PTR record of {client} an A or AAAA record with that address",
        ),
        IprevStatus.TEMPERROR: Advice("The DNS did not answer for the client's name.", "", TRY_AGAIN),
        IprevStatus.PERMERROR: Advice(
            "The client's address has no name.", "have a PTR record published for {client}, with the host's name"
        ),
    }
)
"""For the client's name (RFC 8601 §3)."""

DMARC: Mapping[DmarcReason, Advice] = MappingProxyType(
    {
        DmarcReason.ALIGNED: Advice("SPF or DKIM passes for a name that belongs to the domain in From."),
        DmarcReason.NOT_ALIGNED: Advice(
            "Something passes, but for a name that does not belong to the domain in From.",
            "if the message is yours, sign with d={author}, or send with a reverse path in {author}",
            _TRUST,
        ),
        DmarcReason.NOTHING_PASSED: Advice(
            "Neither SPF nor DKIM passes for any name.",
            "if the message is yours, make SPF pass for a reverse path in {author}, or sign with d={author}; see the"
            " advice for SPF and for each signature",
            _TRUST,
        ),
        DmarcReason.NO_RECORD: Advice(
            "The domain in From has no DMARC record, nor has one above it that would hold for it.",
            "publish a TXT record at _dmarc.{author}, to begin with: v=DMARC1; p=none; rua=mailto:ADDRESS",
        ),
        DmarcReason.RECORD_UNUSABLE: Advice(
            "The DMARC record has no policy that can be read, and no address for reports: it counts for nothing.",
            "write p=none, p=quarantine or p=reject into it right after v=DMARC1, and see that sp= and np= have one"
            " of these words too",
        ),
        DmarcReason.POLICY_UNAVAILABLE: Advice(
            "The DNS did not say which policy holds.",
            "if it stays, look at the name servers of {author} and of the domains above it",
            TRY_AGAIN,
        ),
        DmarcReason.AUTHENTICATION_UNAVAILABLE: Advice(
            "What the DNS did not answer for SPF or DKIM might have made it pass.",
            "if it stays, look at the name servers of the domain whose check has temperror",
            TRY_AGAIN,
        ),
        DmarcReason.SEVERAL_DOMAINS: Advice(
            "From names several domains: never a pass, whatever each of them says.",
            "write addresses of one domain into From",
        ),
        DmarcReason.MALFORMED: Advice(
            "The header names no author that could be judged.", "send with one From field that has one address"
        ),
    }
)

ALIGNMENT: Mapping[tuple[str, AlignmentMode], Advice] = MappingProxyType(
    {
        ("dkim", AlignmentMode.RELAXED): Advice(
            "A signature passes for another Organizational Domain.",
            "sign with d={author}, or with another name of the same Organizational Domain",
        ),
        ("dkim", AlignmentMode.STRICT): Advice(
            "A signature passes for another name, and adkim=s asks for this one.", "sign with d={author}, exactly"
        ),
        ("spf", AlignmentMode.RELAXED): Advice(
            "SPF passes for another Organizational Domain.",
            "send with a reverse path at {author}, or at another name of the same Organizational Domain",
        ),
        ("spf", AlignmentMode.STRICT): Advice(
            "SPF passes for another name, and aspf=s asks for this one.",
            "send with a reverse path at {author}, exactly",
        ),
    }
)
"""For an identifier that passed and does not belong to the author domain, by method and mode (RFC 9989 §4.4)."""

MALFORMED: Mapping[MalformedReason, Advice] = MappingProxyType(
    {
        MalformedReason.NO_FROM: Advice("There is no From field.", "write a From field"),
        MalformedReason.SEVERAL_FROM: Advice("There are several From fields.", "write one From field"),
        MalformedReason.FROM_SYNTAX: Advice(
            "From has no one reading: programs would read different addresses in it.",
            "write From as an address, or as a display name and an address in angle brackets; put quotes around a"
            " display name that has any of ( ) < > @ , ; : [ ] in it",
        ),
        MalformedReason.SEVERAL_DOMAINS: Advice(
            "From has addresses of several domains.", "write addresses of one domain into From"
        ),
        MalformedReason.HEADER_SYNTAX: Advice(
            "The header has a line that is not a field, or a NUL.",
            "repair the program that makes the message: each line of the header is a field or begins with a blank",
        ),
        MalformedReason.HEADER_SIZE: Advice(
            "The header has more fields or octets than are read.", "send fewer or shorter header fields"
        ),
    }
)
"""Why no author can be judged. Nothing that passes counts for such a message."""

FLAGS: Mapping[AddressFlag, Advice] = MappingProxyType(
    {
        AddressFlag.DISPLAY_NAME_ADDRESS: Advice("A display name in From looks like an address."),
        AddressFlag.DECEPTIVE_CHARACTERS: Advice("From has characters that hide or reorder what is displayed."),
    }
)
"""What a well-formed From does that a reader may want to know."""
