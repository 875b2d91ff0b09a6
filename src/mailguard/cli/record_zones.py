"""Which zone each record of `mailguard dns` belongs in, as the DNS says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailguard.cli.at_once import at_once
from mailguard.dns.authoritative import AuthoritativeDns, Unreachable
from mailguard.domain import is_equal_or_below
from mailguard.records.choices import Choices

__all__ = ["RecordZones", "zones_of"]

PARALLEL = 16


@dataclass(frozen=True, slots=True)
class RecordZones:
    """The zone of the domain, those of other names, and what is to be said of them."""

    zone: str
    zones: Mapping[str, str]
    notes: tuple[str, ...] = ()


def zones_of(choices: Choices, authoritative: AuthoritativeDns) -> RecordZones:
    """Asks for the domain, unless its zone is given, and for the hosts and names that get records of their own."""
    names: dict[str, None] = {} if choices.zone else {choices.domain: None}
    names.update((host.name, None) for host in choices.hosts if host.key_digests)
    names.update((name, None) for name, _ in choices.host_keys)
    reports = choices.report_address.rpartition("@")[2]
    if reports and not is_equal_or_below(reports, choices.domain):
        names[reports] = None
    names.update((name, None) for name in choices.delegable)
    with at_once(PARALLEL) as threads:
        zones = dict(zip(names, threads.map(lambda name: _zone(authoritative, name), names), strict=True))
    # Where nothing is delegated, they are in the domain's zone, which may have been given.
    zones = {
        name: zone
        for name, zone in zones.items()
        if name not in choices.delegable or zone == name or isinstance(zone, Unreachable)
    }
    known = {name: zone for name, zone in zones.items() if not isinstance(zone, Unreachable) and "." in zone}
    zone = choices.zone or known.get(choices.domain, choices.domain)
    notes: list[str] = []
    if zone != choices.domain and not choices.zone:
        notes.append(f"{choices.domain} is in the zone {zone}; name another with --zone")
    unknown = [name for name in zones if name not in known and "." in name]
    if choices.domain in unknown:
        # What is below it goes without saying.
        unknown = [name for name in unknown if name not in choices.delegable]
    if unknown:
        fault = next((f": {zones[name]}" for name in unknown if isinstance(zones[name], Unreachable)), "")
        notes.append(f"the zone of {', '.join(unknown)} is not known{fault}")
    return RecordZones(zone, known, tuple(notes))


def _zone(authoritative: AuthoritativeDns, name: str) -> str | Unreachable:
    try:
        return authoritative.zone_of(name)
    except Unreachable as error:
        return error
