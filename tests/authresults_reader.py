"""A reader of our own for Authentication-Results, as strict as the grammar of RFC 8601 §2.2, for the fields we write.

Left out: comments in places where we write none. Small, so that it can be believed; authres is the other reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Clause", "read_strictly"]


@dataclass
class Clause:
    method: str
    result: str
    comment: str = ""
    reason: str | None = None
    properties: list[tuple[str, str]] = field(default_factory=list)


_TOKEN = r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_DOT_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*"
_NAME = r"[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+"
_PVALUE = rf"(?:{_QUOTED}|(?:{_DOT_ATOM})?@{_NAME}|{_TOKEN})(?=[ \t;]|$)"
_ID = re.compile(rf"[ \t]*({_TOKEN})[ \t]*")
_METHOD = re.compile(r"[ \t]*;[ \t]*([a-z][a-z0-9\-]*)=([a-z]+)(?=[ \t;]|$)")
_COMMENT = re.compile(r"[ \t]+\(([\t !-'*-\[\]-~]*)\)")
_REASON = re.compile(rf"[ \t]+reason=({_QUOTED}|{_TOKEN})(?=[ \t;]|$)")
_PROPERTY = re.compile(rf"[ \t]+(smtp|header|body|policy)\.([a-z]+)=({_PVALUE})")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def read_strictly(value: bytes) -> tuple[str, list[Clause]]:
    """The authserv-id and the clauses of a field's value; raises AssertionError where it does not fit the grammar."""
    text = value.decode("ascii").replace("\r\n\t", " ")
    assert not re.search(r"[^\t -~]", text), "a control character or a line end that is no fold"
    match = _ID.match(text)
    assert match, text
    authserv_id, at, clauses = match[1], match.end(), []
    while at < len(text):
        match = _METHOD.match(text, at)
        assert match, text[at:]
        clause = Clause(match[1], match[2])
        at = match.end()
        if match := _COMMENT.match(text, at):
            clause.comment, at = match[1], match.end()
        if match := _REASON.match(text, at):
            clause.reason, at = _unquoted(match[1]), match.end()
        while match := _PROPERTY.match(text, at):
            clause.properties.append((f"{match[1]}.{match[2]}", _unquoted(match[3])))
            at = match.end()
        clauses.append(clause)
    return authserv_id, clauses
