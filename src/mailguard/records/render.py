"""Records in the forms that people and programs take: zone file, web form, JSON, nsupdate, octoDNS.

RFC 1035 §5.1 (zone files), RFC 2136 (what nsupdate sends). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailguard.domain import Domain, is_equal_or_below
from mailguard.records.record import Record

__all__ = ["FORMATS", "Publication"]


@dataclass(frozen=True, slots=True)
class Publication:
    """All that is to be published for a domain."""

    domain: Domain
    records: Sequence[Record]
    policy_file: str
    policy_address: str
    zone: str = ""
    """The zone that the domain is in; empty: the domain is one."""

    def zone_of(self, record: Record) -> str:
        """The zone that `record` belongs in."""
        return record.zone or self.zone or self.domain


def _zone(publication: Publication) -> str:
    lines: list[str] = []
    for record in publication.records:
        lines += ["", f"; {record.why}"]
        if record.held_back:
            lines.append(f"; not yet: {record.held_back}")
        line = f"{record.name}. {record.ttl_s} IN {record.rdtype} {record.rdata}"
        # What belongs in another zone would be refused by the server of this one.
        if record.zone:
            lines.append(f"; in the zone {record.zone}:")
        lines.append(f"; {line}" if record.held_back or record.zone else line)
    return "\n".join([*lines[1:], *_policy_lines(publication, "; "), ""])


def _policy_lines(publication: Publication, mark: str) -> list[str]:
    if not publication.policy_file:
        return []
    return [
        "",
        f"{mark}The policy file of MTA-STS, to be served at {publication.policy_address}:",
        *[f"{mark}  {line}" for line in publication.policy_file.splitlines()],
    ]


def _web(publication: Publication) -> str:
    """For the forms of hosters: the name below the domain, and the value in one line without quotes."""
    lines: list[str] = []
    for record in publication.records:
        zone = publication.zone_of(record)
        name = _relative(record.name, zone) or "@"
        lines += [f"{record.why}"]
        if record.held_back:
            lines.append(f"  NOT YET: {record.held_back}")
        lines += [f"  zone:  {zone}", f"  name:  {name}", f"  type:  {record.rdtype}"]
        lines += [f"  value: {record.value}", ""]
    return "\n".join([*lines, *_policy_lines(publication, "")[1:], ""])


def _json(publication: Publication) -> str:
    found: dict[str, Any] = {
        "domain": publication.domain,
        "records": [
            {
                "name": record.name,
                "type": record.rdtype,
                "ttl": record.ttl_s,
                "value": record.value,
                "rdata": record.rdata,
                "zone": publication.zone_of(record),
                "why": record.why,
                "held_back": record.held_back or None,
            }
            for record in publication.records
        ],
        "mta_sts_policy": {"address": publication.policy_address, "text": publication.policy_file}
        if publication.policy_file
        else None,
    }
    return json.dumps(found, indent=2) + "\n"


def _nsupdate(publication: Publication) -> str:
    """Input of nsupdate(1), for one zone.

    What is at a name of its own is replaced; texts at the domain itself and TLSA are added to.
    """
    lines = ["; for nsupdate -k KEYFILE; begin with a line: server ADDRESS, unless the SOA of the zone names it"]
    cleared: set[tuple[str, str]] = set()
    for record in publication.records:
        lines.append(f"; {record.why}")
        if left_out := _left_out(record):
            lines.append(f"; {left_out}")
            continue
        if record.replaces and (record.name, record.rdtype) not in cleared:
            cleared.add((record.name, record.rdtype))
            lines.append(f"update delete {record.name}. {record.rdtype}")
        lines.append(f"update add {record.name}. {record.ttl_s} {record.rdtype} {record.rdata}")
    return "\n".join([*lines, "send", ""])


def _octodns(publication: Publication) -> str:
    """A zone of octoDNS' YAML provider: names below the domain; semicolons in texts escaped, long texts whole.

    Its strings are those of JSON, which YAML 1.2 reads. Names are in octoDNS' order, which its provider insists on.
    """
    by_name: dict[str, dict[str, list[Record]]] = {}
    zone = publication.zone or publication.domain
    lines = ["---", f"# {zone}.yaml, for octoDNS' YamlProvider with escaped_semicolons: true"]
    for record in publication.records:
        if left_out := _left_out(record):
            lines.append(f"# {left_out}")
        else:
            types = by_name.setdefault(_relative(record.name, zone), {})
            types.setdefault(record.rdtype, []).append(record)
    for name in sorted(by_name, key=_natural):
        lines.append(f"{json.dumps(name)}:")
        for rdtype, found in sorted(by_name[name].items()):
            values = [_OCTODNS_VALUES.get(rdtype, _plain)(record) for record in found]
            lines += [f"- ttl: {found[0].ttl_s}", f"  type: {rdtype}", f"  values: {json.dumps(values)}"]
    return "\n".join([*lines, ""])


def _natural(name: str) -> list[str | int]:
    """The key of natsort's order, in which mx2 is before mx10: texts and numbers by turns."""
    pieces = re.split("([0-9]+)", name)
    if not pieces[-1]:
        pieces.pop()
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]


def _plain(record: Record) -> Any:
    return record.value.replace(";", "\\;")


def _octodns_mx(record: Record) -> Any:
    preference, exchange = record.value.split()
    return {"exchange": exchange, "preference": int(preference)}


def _octodns_tlsa(record: Record) -> Any:
    usage, selector, matching, data = record.value.split()
    return {
        "certificate_association_data": data,
        "certificate_usage": int(usage),
        "matching_type": int(matching),
        "selector": int(selector),
    }


def _octodns_sshfp(record: Record) -> Any:
    algorithm, kind, fingerprint = record.value.split()
    return {"algorithm": int(algorithm), "fingerprint": fingerprint, "fingerprint_type": int(kind)}


_OCTODNS_VALUES: Mapping[str, Callable[[Record], Any]] = {
    "MX": _octodns_mx,
    "TLSA": _octodns_tlsa,
    "SSHFP": _octodns_sshfp,
}


def _left_out(record: Record) -> str:
    """Why a form for programs does not have it; empty for what it has."""
    if record.held_back:
        return f"left out: {record.name} {record.rdtype}: not yet: {record.held_back}"
    return f"left out: {record.name} {record.rdtype}, which belongs in the zone {record.zone}" if record.zone else ""


def _relative(name: str, domain: str) -> str:
    """The name below the domain; empty for the domain itself, whole where it is elsewhere."""
    if name == domain:
        return ""
    return name.removesuffix(f".{domain}") if is_equal_or_below(name, domain) else f"{name}."


FORMATS: Mapping[str, Callable[[Publication], str]] = {
    "zone": _zone,
    "web": _web,
    "json": _json,
    "nsupdate": _nsupdate,
    "octodns": _octodns,
}
"""By the word that the command takes."""
