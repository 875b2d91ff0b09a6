"""Authentication-Results (RFC 8601): our own field, from what was found out about a message.

Whatever a stranger may have chosen is made harmless here, and authres writes it. A result in which nothing has to be
made harmless, which is nearly every one, is put together here, in a fraction of the time. What the field says is in
resinfo.py, which fields of others claim to be ours in authserv_id.py. Left out: reading the results of others. Pure;
safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import authres
import authres.core

from mailguard.dmarc.result import DmarcStatus, DmarcVerdict
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.message import HeaderField
from mailguard.resinfo import ResInfo, login_result, results_of

__all__ = ["FIELD_KEY", "build", "build_dmarc", "build_login"]

FIELD_NAME = b"Authentication-Results"
FIELD_KEY = FIELD_NAME.lower()
MAX_LINE_CHARS = 78  # RFC 5322 §2.1.1
# A sentence of ours with two of the longest names, and well below the 998 of RFC 5322 §2.1.1.
MAX_TEXT_CHARS = 600
# The longest i= that is repeated: RFC 5321 §4.5.3.1.1, "@", and RFC 1035 §2.3.4.
MAX_VALUE_CHARS = 64 + 1 + 253
# RFC 8601 §2.2: what may stand without quotes as a value, and an address as a pvalue; its domain has two labels
# (RFC 6376 §3.5), and strict readers drop the whole field for one that has not. So does Mail::AuthenticationResults
# for an address that begins with a slash.
_VALUE = r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++"
_ATOM = r"[A-Za-z0-9!#$%&'*+?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS = rf"(?:{_ATOM}(?:\.{_ATOM})*)?@{_LABEL}(?:\.{_LABEL})+"
_is_token = re.compile(_VALUE).fullmatch
_is_bare = re.compile(rf"(?=.{{1,{MAX_VALUE_CHARS}}}\Z)(?:{_VALUE}|{_ADDRESS})").fullmatch
_UNPRINTABLE = re.compile(r"[^ -~]")
# Filters look for "dmarc=pass" with less than a parser: no text may hold what only a result may say, also after a
# reader has dropped comments or decoded encoded words. Nor is a quoted string to hold what some readers take for its
# end, for the end of a result, or, where a stranger wrote it, for a comment, which hides the results behind it.
_NOT_IN_VALUES = re.compile(r'[="\\;()]')
_NOT_IN_TEXTS = re.compile(r'["\\]')
_NOT_IN_COMMENTS = re.compile(r'[()"\\]')
_CLAIM = re.compile(r"=(?= ?pass|[?(])", re.IGNORECASE)
_UNKNOWN = "unknown"
# Words that may stand as they are in a comment and between quotes: without any of the above, one space between two.
_HARMLESS_WORD = r"[!#-'*-:<>-\[\]-~]+"
_HARMLESS = rf"{_HARMLESS_WORD}(?: {_HARMLESS_WORD})*"
_is_harmless_text = re.compile(rf"(?=.{{1,{MAX_TEXT_CHARS}}}\Z){_HARMLESS}").fullmatch
_is_harmless_value = re.compile(rf"(?=.{{1,{MAX_VALUE_CHARS}}}\Z){_HARMLESS}").fullmatch
# Where there are no quotes: as many words as a line holds, or one that is longer.
_LINE = re.compile(rf"(.{{1,{MAX_LINE_CHARS - 1}}}|[^ ]+)(?: |\Z)")
# What stands on one line: a word with the quoted strings in it.
_UNBROKEN = re.compile(r'[^ "]+(?:"[^"]*"[^ "]*)*')


class _Written(authres.core.QuotableValue):  # type: ignore[misc]  # authres has no types
    """A value that has its quotes already: authres itself leaves every value with an "@" without."""

    def quote_if_needed(self) -> str:
        return str(self)


def build(
    authserv_id: str,
    evidence: Evidence,
    verdict: DmarcVerdict | None,
    *,
    override: str = "",
    shows_login: bool = False,
) -> HeaderField:
    """Our Authentication-Results field (RFC 8601 §2.2), folded, with its leading space; ASCII.

    `verdict` is None for a client of our own. `override` says in our words why DMARC's policy was set aside, such as
    "policy overridden: mailing_list dkim=lists.example.org". `shows_login` adds auth=pass, if the client logged in.
    Raises ValueError if `authserv_id` is not a token (RFC 2045 §5.1).
    """
    return _field(authserv_id, results_of(evidence, verdict, override=override, shows_login=shows_login))


def build_login(authserv_id: str, envelope: Envelope) -> HeaderField:
    """A field that says auth=pass and for which login, and nothing else (RFC 8601 §2.7.4).

    Raises ValueError for a client that did not log in, and as `build` does.
    """
    return _field(authserv_id, [login_result(envelope)])


def build_dmarc(authserv_id: str, *, domain: str, status: DmarcStatus, reason: str) -> HeaderField:
    """A field that says what DMARC found of the domain in From, and no more. Raises ValueError as `build` does."""
    properties = (("header.from", domain),)
    return _field(authserv_id, [ResInfo(method="dmarc", result=status.value, reason=reason, properties=properties)])


def _field(authserv_id: str, results: Sequence[ResInfo]) -> HeaderField:
    if not _is_token(authserv_id):
        raise ValueError(f"{authserv_id!r} is not a token and cannot be an authserv-id")
    clauses = [_usual_clause(one) or str(_clause(one)) for one in results]
    return HeaderField(FIELD_NAME, b" " + _fold([authserv_id, *clauses]).encode("ascii"))


def _usual_clause(one: ResInfo) -> str:
    """A result (RFC 8601 §2.2) in which nothing has to be made harmless, as authres writes it; else empty."""
    method, result, comment, reason, properties = one
    clause = f"{method}={result}"
    if comment:
        if not _is_harmless_text(comment):
            return ""
        clause += f" ({comment})"
    if reason:
        if not _is_harmless_text(reason):
            return ""
        clause += f' reason="{reason}"'
    for name, text in properties:
        if _is_bare(text):
            clause += f" {name}={text}"
        elif name == properties[-1][0] and _is_harmless_value(text):
            clause += f' {name}="{text}"'
        else:
            return ""
    return clause


def _clause(one: ResInfo) -> authres.core.AuthenticationResult:
    clause = authres.core.AuthenticationResult(one.method, result=one.result)
    clause.result_comment = _plain(one.comment, _NOT_IN_COMMENTS, MAX_TEXT_CHARS) or None
    if one.reason:
        clause.reason = _Written(f'"{_plain(one.reason, _NOT_IN_TEXTS, MAX_TEXT_CHARS) or _UNKNOWN}"')
    for number, (name, text) in enumerate(one.properties, start=1):
        value = _plain(text, _NOT_IN_VALUES, MAX_VALUE_CHARS) or _UNKNOWN
        if number < len(one.properties) and not _is_bare(value):
            # Readers built on authres lose a quoted value that another property follows.
            value = _UNKNOWN
        ptype, _, property_name = name.partition(".")
        pair = authres.core.AuthenticationResultProperty(ptype, property_name)
        pair.value = _Written(value if _is_bare(value) else f'"{value}"')
        clause.properties.append(pair)
    return clause


def _plain(text: str, forbidden: re.Pattern[str], at_most: int) -> str:
    """One line of printable ASCII that claims no result: "?" for what it cannot hold, "..." for what is cut off."""
    plain = " ".join(forbidden.sub("?", _UNPRINTABLE.sub("?", text)).replace(";", ",").split())
    if len(plain) > at_most:
        plain = plain[: at_most - 3].rstrip() + "..."
    return _CLAIM.sub(":", plain)


def _fold(clauses: Sequence[str]) -> str:
    """The clauses with semicolons between them; lines end behind each, and before words beyond 78 characters."""
    *others, last = clauses
    lines: list[str] = []
    for clause in others:
        lines += _lines(f"{clause};")
    return "\r\n\t".join(lines + _lines(last))


def _lines(clause: str) -> list[str]:
    if len(clause) < MAX_LINE_CHARS:
        return [clause]
    if '"' not in clause:
        return _LINE.findall(clause)
    line, *words = _UNBROKEN.findall(clause)
    lines: list[str] = []
    for word in words:
        if len(line) + 1 + len(word) >= MAX_LINE_CHARS:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}"
    return [*lines, line]
