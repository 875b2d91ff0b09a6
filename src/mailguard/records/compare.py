"""What is to be published against what each authoritative server publishes. Pure.

Texts of the form tag=value; ... are compared by what they mean: white space between tags, their order and values that
are the default do not matter (RFC 6376 §3.2, RFC 6376 §3.6.1, RFC 9989 §4.8).
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
    """It has one more than is to be published, and that is one too many."""
    BESIDE = "beside"
    """It has one more, which does no harm."""
    BROKEN = "broken"
    """It gave no usable answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of a name and type: the values as a Record has them, or why there is no answer."""

    values: tuple[str, ...] = ()
    fault: str = ""
    ttl_s: int = 0
    zone: str = ""
    """That of an alias' target, where there is one."""


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


# Kinds of text of which a receiver reads its own alone: RFC 7208 §4.5, RFC 9989 §4.7, RFC 8460 §3, RFC 8461 §3.1.
_APART = frozenset({"v=spf1", "v=dmarc1", "v=tlsrptv1", "v=stsv1"})
# RFC 6376 §3.6.1: what holds where the tag is absent.
_DKIM_DEFAULTS = {"v": "DKIM1", "k": "rsa", "h": "", "s": "*", "t": "", "n": ""}
# RFC 9989 §4.8: words, which RFC 5234 §2.3 makes the same in both cases.
_DMARC_WORDS = frozenset({"p", "sp", "np", "psd", "t", "adkim", "aspf", "fo"})
# RFC 7671 §5.1: a further one is the key of the next certificate, or of another server of that name.
_DANE_EE = "3 1 1 "


def _at_server(
    wanted: Sequence[Record], server: str, there: Found, normal: Callable[[str, str], str]
) -> Iterator[Comparison]:
    name, rdtype = wanted[0].name, wanted[0].rdtype
    if there.fault:
        for record in wanted:
            yield Comparison(State.BROKEN, name, rdtype, server, record.value, detail=there.fault)
        return

    def form(value: str) -> str:
        return _meaning(value, kind) if rdtype == "TXT" else normal(rdtype, value)

    kind = _kind(wanted[0].value)
    is_apart = rdtype == "TXT" and kind in _APART
    mine = [value for value in there.values if not is_apart or _kind(value) == kind]
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
    if wanted[0].replaces and is_apart:
        for value in there.values:
            if _kind(value) != kind:
                detail = "it means nothing there, and is passed over"
                yield Comparison(State.BESIDE, name, rdtype, server, found=(value,), detail=detail)
    if not absent:
        for form_of, value in left.items():
            if rdtype == "TLSA" and form_of.startswith(_DANE_EE):
                detail = "another key: of the next certificate, or remove it when no server has it any more"
                yield Comparison(State.BESIDE, name, rdtype, server, found=(value,), detail=detail)
            else:
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
    """The version, which stands before the first space or semicolon: v=spf1, say."""
    name, equals, version = value.partition(";")[0].partition("=")
    return "".join(f"{name}{equals}{version.strip().partition(' ')[0]}".split()).lower()


def _meaning(value: str, kind: str) -> str:
    """One text for all that mean the same to who reads this kind."""
    if kind == "v=spf1" or (";" not in value and "=" not in value):
        return " ".join(value.split())
    tags: dict[str, str] = {}
    for specification in value.split(";"):
        tag, equals, content = specification.partition("=")
        if not equals and not tag.strip():
            continue
        tag = tag.strip()
        if not equals or tag in tags:
            return value  # malformed, and equal to nothing but itself
        tags[tag] = content.strip()
    if kind == "v=dkim1":
        if "v" in tags and next(iter(tags)) != "v":
            return value  # RFC 6376 §3.6.1: v= comes first
        # RFC 6376 §2.10: base64 may have white space in it, and need have no "=" at its end.
        tags = {tag: "".join(content.split()).rstrip("=") if tag == "p" else content for tag, content in tags.items()}
        tags = {tag: content for tag, content in tags.items() if _DKIM_DEFAULTS.get(tag) != content}
    if kind == "v=dmarc1":
        tags = {tag: content.lower() if tag in _DMARC_WORDS else content for tag, content in tags.items()}
    first = tags.pop("v", "")
    return ";".join([f"v={first}", *(f"{tag}={content}" for tag, content in sorted(tags.items()))])
