"""What the reader of one program hands over. Pure.

`Found` is filled by one reader and then only read. `Remark` and `Treatment` are what a reader's table of options is
made of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.migration.hosts import Network
from mailguard.migration.note import Note, NoteKind, Place, Setting, shown
from mailguard.migration.option_lines import Settings
from mailguard.migration.signing_plan import SigningPlan

__all__ = ["OFF", "ON", "Found", "KeyPath", "Remark", "Spared", "Treatment", "is_authserv_id"]

KeyPath = tuple[str, ...]

OFF, ON = "[fn0].*", "[ty1].*"
HOSTNAME = "HOSTNAME"
HEADER_COUNTS = (
    "mail without a Date, or with To, Cc, Subject or the like twice (RFC 5322 §3.6), was refused at once; now only"
    " mail without one readable From is, with enforce: malformed in [policy]"
)
"""What RequiredHeaders of OpenDKIM and of OpenDMARC did."""
# RFC 2045 §5.1: the octets of a token, which an authserv-id is (RFC 8601 §2.2).
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")


def is_authserv_id(name: str) -> bool:
    """Whether it can be one without quotes."""
    return _TOKEN.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Remark:
    """What is said about an option that is not taken over, unless its value is `harmless` (a whole match)."""

    kind: NoteKind
    text: str
    harmless: str = ""

    def __call__(self, found: Found, setting: Setting) -> None:
        """Say it."""
        if not self.harmless or not re.fullmatch(self.harmless, setting.value, re.IGNORECASE):
            found.note(self.kind, self.text, setting)


Treatment = Callable[["Found", Setting], None]


@dataclass(frozen=True, slots=True)
class Spared:
    """Clients that one program spared, and no other. `how`: of which check, as in "they were not signed"."""

    networks: tuple[Network, ...]
    how: str
    setting: Setting


class Found:
    """The values of one program, in mailguard's words."""

    def __init__(self, program: str, settings: Settings) -> None:
        """`program`: its name for people."""
        self.program = program
        self.settings = settings
        self.file = settings.file
        self.notes: list[Note] = list(settings.notes)
        self.values: dict[KeyPath, tuple[Any, Setting | None]] = {}
        """Single values, by their path in mailguard's configuration, with the option that each is from."""
        self.internal_networks: list[Network] = []
        """Clients whose mail DMARC passed by."""
        self.spared: list[Spared] = []
        self.trusted: dict[str, list[str]] = {}
        """Of [[trusted]], by its key."""
        self.sign_networks: tuple[Network, ...] = ()
        self.peers: tuple[Network, ...] = ()
        """Clients whose mail the program passes by."""
        self.ignored_authors: list[Domain] = []
        """Domains in From for which DMARC does nothing."""
        self.plan = SigningPlan()
        self.is_signer = False
        """Whether signing is what the program is for, and switched on."""
        self.is_verifier = True
        self.user = ""
        self.socket: Setting | None = None

    def note(self, kind: NoteKind, text: str, setting: Setting | None = None) -> None:
        """A note about `setting`, or about the whole file."""
        if setting is None:
            self.notes.append(Note(kind, text, Place(self.file)))
        else:
            self.notes.append(Note(kind, text, setting.place, setting.name))

    def put(self, path: KeyPath, value: Any, setting: Setting | None = None) -> None:
        """A value of the configuration to be."""
        self.values[path] = (value, setting)

    def treat(self, table: Mapping[str, Treatment], prefixes: Iterable[tuple[str, Treatment]] = ()) -> None:
        """Each option by what `table` has for its name in lower case, or by the prefix of its name."""
        for setting in self.settings:
            name = setting.name.casefold()
            treatment = table.get(name) or next((each for prefix, each in prefixes if name.startswith(prefix)), None)
            if treatment is None:
                self.note(NoteKind.BROKEN, f"{self.program} has no such option", setting)
            else:
                treatment(self, setting)

    def trust(self, key: str, names: Iterable[str], setting: Setting) -> None:
        """Names or networks for [[trusted]]; not a top-level domain, which would let in everybody below it."""
        for name in names:
            if key != "networks" and "." not in name:
                self.note(NoteKind.DECIDE, f'"{shown(name)}" has no dot and is not taken over', setting)
            else:
                self.trusted.setdefault(key, []).append(name)

    def domains(self, setting: Setting) -> list[Domain]:
        """The domains of a list with commas; what is none is noted."""
        domains = []
        for part in filter(None, (part.strip() for part in setting.value.split(","))):
            try:
                domains.append(Domain.parse(part))
            except DomainError as error:
                self.note(NoteKind.BROKEN, f'"{shown(part)}" is not a domain: {error}', setting)
        return domains

    def take_authserv_id(self, setting: Setting) -> None:
        """The name in Authentication-Results (RFC 8601 §2.5)."""
        if setting.value == HOSTNAME:
            self.note(
                NoteKind.DIFFERS, "the default of authserv_id is this host's full name, which may be longer", setting
            )
        elif is_authserv_id(setting.value):
            self.put(("authserv_id",), setting.value, setting)
        else:
            self.note(NoteKind.DECIDE, f'"{shown(setting.value)}" cannot be an authserv-id; set authserv_id', setting)

    def take_socket(self, setting: Setting) -> None:
        """Where the milter listens."""
        self.socket = setting

    def take_user(self, setting: Setting) -> None:
        """As whom it runs; the group is that of the socket."""
        self.user = setting.value.partition(":")[0].strip()

    def take_umask(self, setting: Setting) -> None:
        """Who may connect: with mailguard the group, never everybody."""
        if not re.fullmatch("[0-7]{1,4}", setting.value):
            self.note(NoteKind.BROKEN, f'"{shown(setting.value)}" is not a number in octal', setting)
        elif not int(setting.value, 8) & 0o002:
            self.note(
                NoteKind.DIFFERS, "every user could connect; now Postfix must be in the socket's group", setting
            )
