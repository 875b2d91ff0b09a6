"""Debian's opendkim and mailguard with the imported configuration: the same d=, s= and key, for the same mail.

What opendkim does with a table is asked of itself. Needs root and the packages opendkim and libmilter.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import dkim
import pytest

from daemon_process import Daemon, eventually
from mailguard.config import load
from mailguard.dkim.result import DkimStatus
from mailguard.dkim.signing_key import SigningKey
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.migration.importing import Imported, import_files
from mailguard.pipeline import verify_dkim
from mailguard_milter.keyring import KeyRing
from migration_site import (
    BODY,
    KEY,
    OpenDkim,
    Signature,
    Site,
    message_fields,
    opendkim,
    opendkim_place,
    signatures,
)

__all__ = ["opendkim", "opendkim_place"]

USER = "opendkim"
COMMON = "Canonicalization relaxed/relaxed\nInternalHosts 192.0.2.1\n"
KEY_TABLE = """
one one.test:s1:@/keys/a.private
two two.test:s2:@/keys/a.private
any %:sp:@/keys/a.private
third.test third.test:s3:@/keys/a.private
each %:each:@/keys/%.each.private
"""
REFILE = """
*@one.test one
*@*.one.test  one   # its subdomains
*@four.test any
*@third.test %
*@each.test each
*two.test two
"""
FLAT = "two.test two\n.two.test two\none.test one\nthird.test %\nOne.TEST two\n"
ADDRESSES = [
    "u@one.test",
    "U@ONE.TEST",
    "u@a.one.test",
    "u@a.b.one.test",
    "u@two.test",
    "u@a.two.test",
    "u@third.test",
    "u@a.third.test",
    "u@four.test",
    "u@a.four.test",
    "u@each.test",
    "u@none.test",
]
CONFIGURATIONS = {
    "refile": "KeyTable file:@/KeyTable\nSigningTable refile:@/refile\n",
    "flat": "KeyTable @/KeyTable\nSigningTable @/flat\n",
    "flat, several": "KeyTable @/KeyTable\nSigningTable file:@/flat\nMultipleSignatures yes\n",
    "in a list": "KeyTable csl:k=one.test:s1:@/keys/a.private\nSigningTable csl:one.test=k, .one.test=k\n",
    "types in capitals": "KeyTable File:@/KeyTable\nSigningTable ReFile:@/refile\n",
    "a list in capitals": "KeyTable CSL:k=one.test:s1:@/keys/a.private\nSigningTable Csl:one.test=k\n",
    "indented": "KeyTable @/KeyTable\nSigningTable refile:@/indented\n",
    "indented, flat": "KeyTable @/indented-keys\nSigningTable @/indented-flat\n",
    "indented keys": "KeyTable refile:@/indented-keys\nSigningTable refile:@/refile\n",
    "one key": "Domain one.test,two.test\nSelector sel\nKeyFile @/keys/a.private\n",
    "one key, subdomains": "Domain one.test\nSelector sel\nKeyFile @/keys/a.private\nSubDomains yes\n",
    "twice": "Domain two.test\nDomain one.test\nSelector x\nSelector y\nKeyFile @/keys/a.private\n",
    "base directory": "BaseDirectory @/keys\nDomain one.test\nSelector sel\nKeyFile ./a.private\n",
    "included": "Include @/included.conf\nKeyFile @/keys/a.private\n",
}


@pytest.fixture
def place(opendkim_place: Site) -> Site:
    opendkim_place.write("KeyTable", KEY_TABLE)
    opendkim_place.write("refile", REFILE)
    opendkim_place.write("flat", FLAT)
    opendkim_place.write("indented", f" *@two.test two\n\t*@none.test any\n{REFILE.lstrip()}")
    opendkim_place.write("indented-flat", f" two.test two\n\tthird.test %\n{FLAT}")
    opendkim_place.write("indented-keys", f" one one.test:late:@/keys/a.private\n{KEY_TABLE}")
    opendkim_place.write("macros", "daemon_name=smtpd\n")
    opendkim_place.write("macros with blanks", "daemon_name other|smtpd\n")
    opendkim_place.write("bracketed", "[192.0.2.0]/24\n[::1]\n127.0.0.1\n")
    opendkim_place.write("hosts", " 192.0.2.1\n10.0.0.1\n")
    opendkim_place.write("included.conf", "Domain one.test\nSelector sel\n")
    for name in ("a", "each.test.each"):
        shutil.chown(opendkim_place.key(f"keys/{name}.private"), USER, USER)
    return opendkim_place


def imported_from(site: Site) -> tuple[Imported, Path]:
    found = import_files({"opendkim": str(site.directory / "opendkim.conf")})
    return found, site.write("imported.toml", found.text)


def names(found: Sequence[Signature | SigningKey]) -> list[tuple[str, str]]:
    return [(each.domain, each.selector) for each in found]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_keys_for_each_address(
    place: Site, opendkim: OpenDkim, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opendkim.start(CONFIGURATIONS[name] + COMMON)
    _, path = imported_from(place)
    # As the daemon, which is the owner of the keys.
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam(USER).pw_uid)
    ring = KeyRing(load(path))
    theirs = {address: names(signatures(opendkim.socket, address)) for address in ADDRESSES}
    ours = {address: names(ring.keys_for(address.lower().partition("@")[2])) for address in ADDRESSES}  # type: ignore[arg-type]
    assert ours == theirs
    assert any(theirs.values())


CLIENTS = [
    "InternalHosts 192.0.2.0/24",
    "InternalHosts [192.0.2.0]/24",
    "InternalHosts [192.0.2.0/24]",
    "InternalHosts 192.0.2.5/24",
    "InternalHosts 192.0.2.0/255.255.255.0",
    "InternalHosts 192.0.2.0/24,!192.0.2.0/24",
    "InternalHosts 192.0.2.0/24,!192.0.2.0/25",
    "InternalHosts !192.0.2.0/24,192.0.2.1",
    "InternalHosts 192.0.2.0/24\nPeerList 192.0.2.1",
    "InternalHosts 10.0.0.1\nExternalIgnoreList 192.0.2.1",
    "InternalHosts refile:@/hosts",
    "InternalHosts file:@/hosts",
    "InternalHosts refile:@/bracketed",
    "InternalHosts file:@/bracketed",
    "InternalHosts csl:::ffff:192.0.2.1",
    "InternalHosts csl:!::ffff:192.0.2.1,192.0.2.0/24",
    "# this host alone",
    "PeerList 127.0.0.1",
    "PeerList csl:::1,10.0.0.0/8",
]
ADDRESSES_OF_CLIENTS = ["192.0.2.1", "127.0.0.1", "::1"]


@pytest.mark.parametrize("lines", CLIENTS)
def test_the_same_clients(place: Site, opendkim: OpenDkim, lines: str) -> None:
    """Each is signed, or is not."""
    opendkim.start(f"{CONFIGURATIONS['one key']}{lines}\n")
    imported, _ = imported_from(place)
    rules = imported.to_json()["configuration"]["sign"].get("networks", [])
    networks = [ip_network(each) for rule in rules for each in rule["networks"]]
    for client in ADDRESSES_OF_CLIENTS:
        ours = any(ip_address(client) in network for network in networks)
        assert ours is bool(signatures(opendkim.socket, "u@one.test", client=client)), client


SERVICES = [
    "MTA smtpd",
    "MacroList daemon_name=smtpd",
    "MacroList daemon_name=other|smtpd",
    "MacroList daemon_name=other",
    "MacroList daemon_name|smtpd",
    "MacroList {daemon_name}=smtpd",
    "MacroList daemon_name=other | smtpd",
    "MacroList file:@/macros",
    "MacroList file:@/macros with blanks",
    "MTA smtpd\nMacroList daemon_name=other",
    "MacroList auth_type\nMTA smtpd",
]


@pytest.mark.parametrize("line", SERVICES)
def test_the_same_services(place: Site, opendkim: OpenDkim, line: str) -> None:
    """What comes in as {daemon_name} smtpd, as the client of these tests says, is signed, or is not."""
    opendkim.start(f"{CONFIGURATIONS['one key']}InternalHosts 10.0.0.1\n{line}\n")
    imported, _ = imported_from(place)
    ours = "smtpd" in imported.to_json()["configuration"]["sign"].get("daemon_names", [])
    assert ours is bool(signatures(opendkim.socket, "u@one.test"))


NOT_FOR_ALL = ["Domain *.one.test", "Domain refile:@/below", "Domain refile:@/end"]


@pytest.mark.parametrize("line", NOT_FOR_ALL)
def test_a_pattern_signs_no_stranger(
    place: Site, opendkim: OpenDkim, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """What cannot be had is said, and nobody is signed who was not."""
    place.write("below", "*.one.test\n")
    place.write("end", "*one.test\n")
    opendkim.start(f"{line}\nSelector sel\nKeyFile @/keys/a.private\n{COMMON}")
    imported, path = imported_from(place)
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam(USER).pw_uid)
    ring = KeyRing(load(path))
    for address in ADDRESSES:
        theirs = names(signatures(opendkim.socket, address))
        assert set(names(ring.keys_for(address.lower().partition("@")[2]))) <= set(theirs)  # type: ignore[arg-type]
    assert imported.needs_decision


@pytest.mark.parametrize("copied", [False, True], ids=["in place", "copied"])
def test_the_same_signature(place: Site, opendkim: OpenDkim, daemon: Daemon, copied: bool) -> None:
    opendkim.start(CONFIGURATIONS["refile"] + COMMON)
    output = place.directory / "mailguard.toml"
    command = [sys.executable, "-m", "mailguard", "import", f"opendkim={place.directory}/opendkim.conf"]
    keys = ["--copy-keys", str(daemon.directory / "keys"), "--owner", "nobody"] if copied else []
    place.directory.joinpath("opendkim.conf").chmod(0o644)
    done = subprocess.run([*command, *keys, "--output", str(output)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    user = "nobody" if copied else USER
    checked = subprocess.run(
        [sys.executable, "-m", "mailguard_milter", "--check-config", "-c", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert f"user {user}," in checked.stdout
    assert "signs one.test with selector s1, rsa-sha256" in checked.stdout

    serve(daemon, output.read_text(encoding="utf-8"), user)
    (theirs,) = signatures(opendkim.socket, "u@one.test")
    (ours,) = signatures(str(daemon.socket), "u@one.test")
    assert (ours.domain, ours.selector) == (theirs.domain, theirs.selector) == ("one.test", "s1")
    assert ours.field != theirs.field
    record = SigningKey.from_bytes(KEY, domain="one.test", selector="s1").record()
    for each in (theirs, ours):
        raw = message(each)
        assert dkim.verify(raw, dnsfunc=lambda name, timeout=5: record if name == b"s1._domainkey.one.test." else b"")
        resolver = ZoneResolver({"s1._domainkey.one.test": {"TXT": [record]}})
        results = verify_dkim(Message.parse(raw), resolver=resolver, now=time.time())
        assert [result.status for result in results] == [DkimStatus.PASS]


def message(signature: Signature) -> bytes:
    fields = [name + b":" + value for name, value in message_fields("u@one.test")]
    field = signature.field.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return b"\r\n".join([field, *fields]) + b"\r\n\r\n" + BODY


def serve(daemon: Daemon, text: str, user: str) -> None:
    """The daemon with `text`, but for its places."""
    assert "[[listeners]]" not in text
    shutil.chown(daemon.runtime, user)
    text = text.replace('mode = "monitor"\n', f'mode = "monitor"\nruntime_directory = "{daemon.runtime}"\n', 1)
    daemon.config.write_text(
        f'{text}\n[log]\ndestination = "stderr"\n[dns]\nzone_file = "zone"\n[[listeners]]\n'
        f'address = "unix:{daemon.socket}"\nworkers = 1\n'
    )
    daemon.config.chmod(0o644)
    daemon.started()
    eventually(daemon.socket.exists)
