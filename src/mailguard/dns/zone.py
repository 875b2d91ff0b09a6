"""ZoneResolver: answers from a zone held in memory or read from a master file (tests, demo, replay).

RFC 1035 §5 (master files), RFC 4592 (wildcards), RFC 1034 §3.6.2 (aliases). Left out: delegation, DNSSEC
itself (its outcome is told with `dnssec`), TTLs, `$INCLUDE`. One difference from a real server: a name without
an entry does not exist even where a name below it does. Immutable, safe to share between threads; asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import dns.exception
import dns.ipv4
import dns.ipv6
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.zonefile

from mailguard.dns.answers import Resolver
from mailguard.dns.names import escaped_name, why_unaskable
from mailguard.dns.query import TYPE_NUMBERS
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.reply import MAX_ALIASES, record_of, weakest
from mailguard.errors import ZoneError

__all__ = ["ZoneResolver"]

# What an answer from a zone says of its age; nothing here grows old.
ZONE_TTL_S = 300

_ANY = "*"
_WILDCARD = "\\042"
_PLAIN_NAME = re.compile(r"[a-z0-9_.-]*")
_NAME_TOKEN = re.compile(rb"\\([0-9]{3})|\\(.)|(.)", re.DOTALL)
_PLAIN_OCTETS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_DIRECTIVES = frozenset({"$ORIGIN", "$TTL", "$GENERATE"})
_TYPES = {rdtype.value: rdtype for rdtype in TYPE_NUMBERS}

Record = bytes | str | MX | TLSA
Entry = Mapping[RecordType, tuple[Record, ...]]
T = TypeVar("T")


class ZoneResolver(Resolver):
    """A Resolver that knows one fixed set of names."""

    def __init__(
        self,
        zone: Mapping[str, Mapping[str, Sequence[object]]],
        *,
        status: Mapping[tuple[str, str], Status] = MappingProxyType({}),
        dnssec: Mapping[tuple[str, str], Dnssec] = MappingProxyType({}),
    ) -> None:
        """`zone[name][type]` is a sequence of records. Names: any case, with or without the trailing dot.

        TXT records are str, bytes, or a tuple of the character-strings of one record; MX are (preference,
        exchange); TLSA are (usage, selector, matching type, bytes or hexadecimal digits); the others are text. A type
        that mailguard does not ask for (NS, SOA) only makes the name exist. `status` and `dnssec` by (name, type or
        "*") replace what would come out for that name, also where it is the end of an alias; a name is INSECURE
        unless `dnssec` says otherwise.
        Raises ZoneError for what is not a zone.
        """
        self._entries: dict[str, Entry] = {}
        for name, records_by_type in _items(zone, "a zone (a master file is read by from_file)"):
            entry = dict(self._entries.get(_key(name), {}))
            for type_name, records in _items(records_by_type, f"{name}: what a name has"):
                rdtype = _rdtype(name, type_name)
                if rdtype is not None:
                    entry[rdtype] = entry.get(rdtype, ()) + _records(name, rdtype, records)
            self._entries[_key(name)] = entry
        self._status = _overrides(status, Status)
        self._dnssec = _overrides(dnssec, Dnssec)
        # RFC 4592 §2.2.2: a name above an existing one exists as far as wildcards are concerned.
        self._encloser_names = frozenset(above for name in self._entries for above in _itself_and_above(name))

    @classmethod
    def from_file(cls, path: str | Path, origin: str = ".") -> Self:
        """Read a master file: `$ORIGIN`, `$TTL` and `$GENERATE` work, several zones may share the file.

        `origin` completes relative names until the first `$ORIGIN`. No SOA is needed, and a record without a
        TTL is taken as it is. Raises ZoneError, naming the file and the line.
        """
        try:
            return cls(_read_master_file(Path(path), origin))
        except OSError as error:
            raise ZoneError(f"{path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ZoneError(f"{path}: not UTF-8 text") from error

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """An answer for every one of `questions`. `deadline` is of no concern: nothing has to be waited for."""
        return {question: self._answer(question) for question in questions}

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """`resolve`, awaited."""
        return self.resolve(questions, deadline=deadline)

    def prefetch(self, questions: Iterable[Question]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to give back."""

    def _answer(self, question: Question) -> Answer:
        refusal = why_unaskable(question.name)
        if refusal:
            return Answer(question, Status.TEMPFAIL, detail=f"not asked: {refusal}")
        name = start = _key(question.name)
        dnssec = Dnssec.SECURE
        for _ in range(MAX_ALIASES + 1):
            dnssec = weakest(dnssec, _said(self._dnssec, name, question.rdtype) or Dnssec.INSECURE)
            status = _said(self._status, name, question.rdtype)
            if dnssec is Dnssec.BOGUS or status is Status.BOGUS:
                return Answer(question, Status.BOGUS, dnssec=Dnssec.BOGUS, detail=f"the zone says bogus for {name}")
            if status is not None and status is not Status.NOERROR:
                detail = f"the zone says {status.value} for {name}"
                return Answer(question, status, ttl_s=ZONE_TTL_S, dnssec=dnssec, detail=detail)
            entry = self._entry(name)
            records = entry.get(question.rdtype, ()) if entry is not None else ()
            aliases = entry.get(RecordType.CNAME, ()) if entry is not None else ()
            if records or not aliases:
                found = Status.NXDOMAIN if entry is None else Status.NOERROR if records else Status.NODATA
                canonical_name = name if name != start else ""
                return Answer(question, found, records, ZONE_TTL_S, dnssec, "from the zone", canonical_name)
            name = str(aliases[0])
        return Answer(question, Status.TEMPFAIL, detail=f"more than {MAX_ALIASES} aliases")

    def _entry(self, name: str) -> Entry | None:
        """The entry of `name`, or the wildcard that stands for it (RFC 4592 §3.3.1)."""
        entry = self._entries.get(name)
        if entry is not None or name in self._encloser_names:
            return entry
        for above in _itself_and_above(name):
            if above in self._encloser_names:
                return self._entries.get(f"{_WILDCARD}.{above}")
        return self._entries.get(_WILDCARD)


def _said(overrides: Mapping[tuple[str, str], T], name: str, rdtype: RecordType) -> T | None:
    return overrides.get((name, rdtype.value), overrides.get((name, _ANY)))


def _itself_and_above(name: str) -> Iterable[str]:
    """`name` and each name above it, without the root."""
    while name:
        yield name
        name = name.partition(".")[2]


def _key(text: str) -> str:
    """The name in the one form that answers use: lower case, escaped, no trailing dot."""
    if not isinstance(text, str):
        raise ZoneError(f"{text!r} is not a name")
    lower = text.lower()
    if not _PLAIN_NAME.fullmatch(lower):
        lower = "".join(map(_escaped, _NAME_TOKEN.finditer(lower.encode("utf-8", "surrogateescape"))))
    name = lower.removesuffix(".")
    if name and not all(name.split(".")):
        raise ZoneError(f"{text!r} has an empty label")
    return name


def _escaped(token: re.Match[bytes]) -> str:
    decimal, quoted, octet = token.groups()
    if octet == b".":
        return "."
    value = int(decimal) if decimal else (quoted or octet)[0]
    if value > 255:
        raise ZoneError(f"\\{value} is not an octet")
    return chr(value) if value in _PLAIN_OCTETS else f"\\{value:03d}"


def _items(mapping: object, what: str) -> Iterable[tuple[Any, Any]]:
    if not isinstance(mapping, Mapping):
        raise ZoneError(f"{what} is a mapping, not {mapping!r:.60}")
    return mapping.items()


def _rdtype(name: str, type_name: str) -> RecordType | None:
    """The type of that name; None for a type that exists in the DNS but is never asked for."""
    if type_name in _TYPES:
        return _TYPES[type_name]
    try:
        dns.rdatatype.from_text(type_name)
    except (dns.exception.DNSException, ValueError, AttributeError):
        raise ZoneError(f"{name}: {type_name!r} is not a record type") from None
    return _TYPES.get(type_name.upper())


def _overrides(given: Mapping[tuple[str, str], T], kind: type[T]) -> dict[tuple[str, str], T]:
    """What is said instead of what would come out, by name and type."""
    overrides = {}
    for where, said in given.items():
        if not (isinstance(where, tuple) and len(where) == 2):
            raise ZoneError(f"{where!r} is not a pair of a name and a type")
        name, type_name = where
        if not isinstance(said, kind):
            raise ZoneError(f"{name}: {said!r} is not a {kind.__name__}")
        overrides[_key(name), _override_type(name, type_name)] = said
    return overrides


def _override_type(name: str, type_name: str) -> str:
    if type_name == _ANY:
        return _ANY
    rdtype = _rdtype(name, type_name)
    if rdtype is None:
        raise ZoneError(f"{name}: {type_name} is never asked for")
    return rdtype.value


def _records(name: str, rdtype: RecordType, records: Sequence[object]) -> tuple[Record, ...]:
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise ZoneError(f"{name} {rdtype.value}: a sequence of records is needed, not one record")
    return tuple(_record(name, rdtype, record) for record in records)


def _record(name: str, rdtype: RecordType, record: object) -> Record:
    match rdtype, record:
        case RecordType.TXT, str() | bytes():
            return _octets(record)
        case RecordType.TXT, tuple() | list() if all(isinstance(part, str | bytes) for part in record):
            return b"".join(map(_octets, record))
        case RecordType.MX, (int(preference), str(exchange)) if 0 <= preference <= 65535:
            return MX(preference, _key(exchange))
        case RecordType.TLSA, (int(usage), int(selector), int(matching_type), (bytes() | str()) as association):
            return _tlsa(name, (usage, selector, matching_type), association)
        case ((RecordType.CNAME | RecordType.PTR), str()):
            return _key(record)
        case RecordType.A, str():
            return _address(name, record, dns.ipv4.canonicalize)
        case RecordType.AAAA, str():
            return _address(name, record, dns.ipv6.canonicalize)
    raise ZoneError(f"{name}: {record!r} is not a record of the type {rdtype.value}")


def _tlsa(name: str, parameters: tuple[int, int, int], association: bytes | str) -> TLSA:
    try:
        usage, selector, matching_type = bytes(parameters)
        data = association if isinstance(association, bytes) else bytes.fromhex(association)
    except ValueError:
        raise ZoneError(f"{name}: a TLSA record is three numbers up to 255 and hexadecimal digits") from None
    return TLSA(usage, selector, matching_type, data)


def _octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _address(name: str, text: str, canonicalize: Callable[[str], str]) -> str:
    try:
        return canonicalize(text)
    except dns.exception.DNSException:
        raise ZoneError(f"{name}: {text!r} is not an address of the type") from None


class _Tokenizer(dns.tokenizer.Tokenizer):
    """Says where the last word stood; dnspython's own counts the end of the line as the next line."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text, file)
        self._line = 1

    def get(self, want_leading: bool = False, want_comment: bool = False) -> dns.tokenizer.Token:
        token = super().get(want_leading, want_comment)
        if not token.is_eol_or_eof():
            # The line break that ended the word has been counted already when it is put back.
            self._line = self.line_number - (self.ungotten_char == "\n")
        return token

    def where(self) -> tuple[str, int]:
        return super().where()[0], self._line


class _Collector(dns.zonefile.RRsetsReaderTransaction):
    """Keeps every record that the reader finds; dnspython's own takes one SOA and one origin only."""

    def __init__(self, manager: dns.zonefile.RRSetsReaderManager) -> None:
        super().__init__(manager, replacement=True, read_only=False)  # type: ignore[no-untyped-call]  # dnspython has no types there
        self.zone: dict[str, dict[str, list[object]]] = {}

    def add(self, *args: Any) -> None:
        owner, _ttl, rdata = args
        entry = self.zone.setdefault(escaped_name(owner.labels), {})
        records = entry.setdefault(dns.rdatatype.to_text(rdata.rdtype), [])
        record = record_of(rdata)
        if record is not None:
            records.append(record)


def _read_master_file(path: Path, origin: str) -> dict[str, dict[str, list[object]]]:
    tokenizer = _Tokenizer(path.read_text(encoding="utf-8"), str(path))
    collector = _Collector(dns.zonefile.RRSetsReaderManager())
    reader = dns.zonefile.Reader(
        tokenizer, dns.rdataclass.IN, collector, allow_directives=_DIRECTIVES, default_ttl=ZONE_TTL_S
    )
    try:
        reader.current_origin = dns.name.from_text(origin)
        reader.read()
    except dns.exception.SyntaxError as error:
        # The reader has put file and line in front of its own errors.
        raise ZoneError(str(error)) from error
    except (dns.exception.DNSException, ValueError, UnicodeError) as error:
        file, line = tokenizer.where()
        raise ZoneError(f"{file}:{line}: {error}") from error
    return collector.zone
