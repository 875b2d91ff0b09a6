"""What a server's refusal means, by its enhanced status code, and what to do (RFC 3463 §3, RFC 7372 §3). Pure.

Gmail and Yahoo have meanings of their own for some codes, and their replies show to be theirs. Left out: the texts
of other providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["meaning_of"]

_RECORDS = "look at your records: mailguard check DOMAIN"

# Subject and detail; the class (4 or 5) says whether it is for good.
_MEANINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "1.1": ("the server knows no such mailbox", "is the address right?"),
        "1.2": ("there is no such domain, or it takes no mail", "is the address right?"),
        "1.8": (
            "the server does not accept the domain of the sender",
            "give a sender whose domain has an MX: --from",
        ),
        "1.10": ("the domain says that it takes no mail (null MX)", "is the address right?"),
        "2.1": ("the mailbox is disabled", "try another address"),
        "2.2": ("the mailbox is full", "try another address"),
        "3.4": ("the message is too large for it", "look at the limits of the server"),
        "4.1": (
            "the server does not answer",
            "does this host reach port 25 of others? Many providers close it. Try: nc -vz HOST 25",
        ),
        "4.2": ("the connection was lost", "try again; if it stays, look at firewalls and at the server's log"),
        "4.3": ("a name could not be looked up", "look at the resolver of this host: mailguard doctor"),
        "4.4": ("no server is found for the domain", "is the address right? Look at its MX: dig MX DOMAIN"),
        "4.6": (
            "the mail goes round in a circle",
            "does the MX of the domain lead to this host, which does not know it?",
        ),
        "5.1": ("the server does not understand the command", "look at the log of Postfix"),
        "7.0": ("the server refuses for a reason of its own, such as greylisting", "see what it says"),
        "7.1": (
            "its policy refuses the message, or relaying",
            "see what it says; is this host's address on a blocklist?",
        ),
        "7.4": (
            "the security that it or Postfix demands is not to be had",
            "mailguard dane and mailguard mta-sts say more",
        ),
        "7.5": ("TLS as Postfix demands it does not come about", "mailguard dane and mailguard mta-sts say more"),
        "7.7": ("its certificate or its key is not as demanded", "mailguard dane and mailguard mta-sts say more"),
        "7.8": ("the login is not accepted", "are login and password right?"),
        "7.9": ("the way to log in is too weak for it", "use TLS, or another mechanism"),
        "7.20": ("it finds no DKIM signature that passes", _RECORDS),
        "7.21": ("it does not accept the DKIM signature", _RECORDS),
        "7.22": ("no DKIM signature of the author's domain passes", _RECORDS),
        "7.23": ("SPF fails: this host may not send for the domain", _RECORDS),
        "7.24": ("the SPF record cannot be used", _RECORDS),
        "7.25": (
            "the address of this host has no name, or one that does not lead back to it",
            "have the provider of the address set its name (PTR)",
        ),
        "7.26": ("neither SPF nor DKIM authenticates the message", _RECORDS),
        "7.27": ("the sender's domain says that it sends no mail (null MX)", "give another sender: --from"),
        # Numbers of Microsoft's.
        "7.509": ("the message fails DMARC, and the author's domain asks for reject", _RECORDS),
        "7.515": ("SPF, DKIM or DMARC does not pass, and Outlook wants all of them", _RECORDS),
    }
)
# Gmail ends each of its replies with this word, and what it refuses mail for has these numbers: 7.23 and 7.27 are
# another matter in RFC 7372 §3.2 and RFC 7505 §4.2, and most others mean nothing elsewhere.
_GMAIL = "gsmtp"
# Elsewhere 7.9 is about logging in (RFC 4954 §6).
_YAHOO = "yahooinc.com"
_GMAIL_MEANINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "7.23": _MEANINGS["7.25"],
        "7.27": ("SPF does not pass", _RECORDS),
        "7.29": ("it came without TLS", "smtp_tls_security_level = may, or dane, in main.cf"),
        "7.30": ("no DKIM signature passes", _RECORDS),
        "7.31": ("the author's domain has no DMARC record with a policy", _RECORDS),
        "7.32": (
            "what SPF and DKIM passed for is not the author's domain",
            "sign with d= the domain in From, or send with a reverse path in it",
        ),
        "7.40": ("the author's domain has no DMARC record with a policy", _RECORDS),
    }
)
# Where there is nothing about the detail.
_SUBJECTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "1": ("something is wrong with the address", "is it right?"),
        "2": ("something is wrong with the mailbox", "try another address"),
        "3": ("the mail system there has a fault", "try again later"),
        "4": (
            "the server cannot be reached, or the way to it is wrong",
            "try again; mailguard doctor looks at names",
        ),
        "5": ("the two servers do not understand each other", "look at the log of Postfix"),
        "6": ("it does not accept the content", "see what it says"),
        "7": ("its policy or its security refuses it", "see what it says"),
    }
)
_NOTHING = ("it does not say why in a code", "see what it says")


def meaning_of(dsn: str, reply: str) -> tuple[str, str]:
    """What an enhanced status code such as `5.1.1` means in a reply, and what to do."""
    _, _, rest = dsn.partition(".")
    if _GMAIL in reply and rest in _GMAIL_MEANINGS:
        return _GMAIL_MEANINGS[rest]
    if _YAHOO in reply and rest == "7.9":
        return _MEANINGS["7.26"]
    return _MEANINGS.get(rest) or _SUBJECTS.get(rest.partition(".")[0], _NOTHING)
