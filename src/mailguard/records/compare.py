"""What is to be published against what each authoritative server publishes. Pure.

Texts of the form tag=value; ... are compared by their tags, so that white space and a last semicolon do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mailguard.records.record import Record

__all__ = ["Comparison", "Found", "State", "compare"]


class State(Enum):
    """What a server has of a record."""

    PRESENT = "present"
    MISSING = "missing"
    DIFFERENT = "different"
    EXTRA = "extra"
    """It has one more than is to be published."""
    BROKEN = "broken"
    """It gave no usable answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of a name and type: the values as a Record has them, or why there is no answer."""

    values: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One record at one server."""

    state: State
    name: str
    rdtype: str
    server: str
    wanted: str = ""
    found: tuple[str, ...] = ()
    detail: str = ""


Key = tuple[str, str]


def compare(
    records: Sequence[Record], found: Mapping[Key, Mapping[str, Found]], *, normal: Callable[[str, str], str]
) -> list[Comparison]:
    """`found` has for each name and type, by server, what is there; `normal` writes record data in one way.

    What is held back is left out.
    """
    groups: dict[Key, list[Record]] = {}
    for record in records:
        if not record.held_back:
            groups.setdefault((record.name, record.rdtype), []).append(record)
    return [
        comparison
        for key, wanted in groups.items()
        for server, there in found.get(key, {}).items()
        for comparison in _at_server(wanted, server, there, normal)
    ]


def _at_server(
    wanted: Sequence[Record], server: str, there: Found, normal: Callable[[str, str], str]
) -> Iterator[Comparison]:
    name, rdtype = wanted[0].name, wanted[0].rdtype
    if there.fault:
        for record in wanted:
            yield Comparison(State.BROKEN, name, rdtype, server, record.value, detail=there.fault)
        return

    def form(value: str) -> str:
        return _tags(value) if rdtype == "TXT" else normal(rdtype, value)

    # Among the texts of a domain itself only those of the same kind count: others belong to somebody else.
    kinds = {_kind(record.value) for record in wanted if not record.replaces}
    mine = [value for value in there.values if not kinds or _kind(value) in kinds]
    left = {form(value): value for value in mine}
    absent = [record for record in wanted if left.pop(form(record.value), None) is None]
    twice = len(mine) - len({form(value) for value in mine})
    for record in wanted:
        if record not in absent:
            yield Comparison(State.PRESENT, name, rdtype, server, record.value)
        elif left:
            yield Comparison(State.DIFFERENT, name, rdtype, server, record.value, tuple(left.values()))
        else:
            yield Comparison(State.MISSING, name, rdtype, server, record.value)
    if not absent:
        for value in left.values():
            yield Comparison(State.EXTRA, name, rdtype, server, found=(value,), detail="remove it, or list it")
        if twice:
            yield Comparison(
                State.EXTRA,
                name,
                rdtype,
                server,
                detail=f"{twice} of them {'are' if twice > 1 else 'is'} there twice",
            )


def _kind(value: str) -> str:
    """What stands before the first space or semicolon: v=spf1, say."""
    return value.partition(";")[0].partition(" ")[0].lower()


def _tags(value: str) -> str:
    """RFC 6376 §3.2: white space around tags, and a semicolon at the end, mean nothing. Not so in SPF."""
    if ";" not in value:
        return " ".join(value.split())
    tags = ("=".join(part.strip() for part in tag.split("=", 1)) for tag in value.split(";"))
    return ";".join(tag for tag in tags if tag)
