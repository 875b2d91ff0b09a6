"""Unbound: a private validating resolver that serves local zones, signed and unsigned, and can be made to fail.

It is the real unbound on a port of 127.0.0.1 with a configuration of its own. Each zone is an authority zone of
unbound's, and a trust anchor of its own where it is signed; a root zone that delegates to them answers NXDOMAIN for
every other name. So no query leaves the machine, and every answer goes through the iterator and the validator.

What it can be made to do: validate or find bogus (expired signatures), answer SERVFAIL for a zone, ask another server
for a zone, be gone, be silent, come back. One object is for one thread.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.dnssec
import dns.dnssectypes
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ed25519

from sandbox_place import HOST, SYSTEM_PATH, port_of, reserve_port

__all__ = ["UNBOUND", "Unbound"]

UNBOUND = shutil.which("unbound", path=SYSTEM_PATH)

PATIENCE_S = 30.0
POLL_S = 0.01
TTL_S = 300
NEGATIVE_TTL_S = 60
_SERVES = "start of service"
_QUERY = re.compile(rb"info: 127\.0\.0\.1 (\S+) (\S+) IN$", re.MULTILINE)

_SERVER = f"""\
server:
    interface: {HOST}
    port: {{port}}
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "{{directory}}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-not-query-localhost: no
    log-queries: yes
    root-hints: ""
    module-config: "validator iterator"
    ede: yes
    local-zone: "test." nodefault
"""
# unbound has zones of its own for the networks that are for documentation (RFC 5737).
_REVERSE = ("2.0.192.in-addr.arpa.", "100.51.198.in-addr.arpa.", "113.0.203.in-addr.arpa.")
_CONTROL = """\
remote-control:
    control-enable: no
"""
_AUTHORITY = """\
auth-zone:
    name: "{origin}"
    zonefile: "{file}"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
"""
# Without an address there is nobody to ask: SERVFAIL at once.
_NOBODY = """\
stub-zone:
    name: "{origin}"
"""
_HEAD = f"@ {TTL_S} IN SOA ns h 1 2 3 4 {NEGATIVE_TTL_S}\n@ {TTL_S} IN NS ns\n"


class Unbound:
    """A context manager: entered, it answers; left, its process and its files are gone."""

    def __init__(
        self,
        zones: Mapping[str, str],
        *,
        signed: Collection[str] = (),
        bogus: Collection[str] = (),
        failing: Collection[str] = (),
        elsewhere: Mapping[str, int] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """`zones` maps origins with a final dot to records as in a master file, without $ORIGIN, SOA and NS.

        Of these, `signed` have signatures and a trust anchor, and so have `bogus`, but theirs have expired. `failing`
        are answered SERVFAIL from the start, and need not be in `zones`. `elsewhere` maps origins to the port on
        127.0.0.1 of the server that is asked for them. `options` are lines of the `server` clause.
        """
        self._zones = dict(zones)
        self._signed = frozenset(signed)
        self._bogus = frozenset(bogus)
        self._failing = set(failing)
        self._elsewhere = dict(elsewhere or {})
        self._options = tuple(options)
        self._anchors: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()
        self.port = 0

    def __enter__(self) -> Self:
        assert UNBOUND is not None, "unbound is not installed"
        # It stays bound but never listens: nobody else takes the port while unbound is gone.
        self._held = reserve_port()
        self.port = port_of(self._held)
        self.directory = Path(tempfile.mkdtemp(prefix="mailguard-unbound-"))
        try:
            self._write_zones()
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    # Its process

    def start(self) -> None:
        """Run it on the same port as before; it answers afterwards."""
        self._configure()
        seen = self._log().count(_SERVES)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(UNBOUND), "-d", "-c", str(self.directory / "unbound.conf")],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        self._await_service(seen)

    def kill(self) -> None:
        """At once, whatever it is doing: from then on the port is closed, and who asks is told so."""
        process, self._process = self._process, None
        assert process is not None, "it does not run"
        process.kill()
        process.wait(PATIENCE_S)

    def pause(self) -> None:
        """It receives queries and says nothing, until `resume`."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGCONT)

    # Its faults

    def fail(self, *origins: str) -> None:
        """Answer SERVFAIL for these zones and what is below them. unbound forgets all that it has cached."""
        self._failing |= set(origins)
        self._reload()

    def heal(self, *origins: str) -> None:
        """Answer for these zones again."""
        self._failing -= set(origins)
        self._reload()

    # What it was asked

    def asked(self) -> list[tuple[str, str]]:
        """The queries so far, in order: the name as unbound writes it, without the final dot, and the type."""
        found = _QUERY.findall(self._log_file.read_bytes())
        return [(name.decode("latin-1").removesuffix("."), rdtype.decode("ascii")) for name, rdtype in found]

    # Making it

    @property
    def _log_file(self) -> Path:
        return self.directory / "log"

    def _log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def _write_zones(self) -> None:
        now = datetime.now(UTC)
        # Every zone that is answered for has a delegation; so what is between it and the root exists.
        origins = {origin for origin in (*self._zones, *self._failing, *self._elsewhere) if origin != "."}
        root = _HEAD + "".join(f"{origin} {TTL_S} IN NS ns.\n" for origin in sorted(origins))
        for origin, records in {".": root, **self._zones}.items():
            text = records if origin == "." else _HEAD + records
            if origin in self._signed | self._bogus:
                signed_at = now - timedelta(days=30) if origin in self._bogus else now
                text, self._anchors[origin] = _signed(origin, text, signed_at=signed_at)
            (self.directory / _file(origin)).write_text(f"$ORIGIN {origin}\n$TTL {TTL_S}\n{text}", encoding="ascii")

    def _configure(self) -> None:
        text = _SERVER.format(port=self.port, directory=self.directory)
        text += "".join(f'    local-zone: "{origin}" nodefault\n' for origin in _REVERSE)
        text += "".join(f'    trust-anchor: "{anchor}"\n' for anchor in self._anchors.values())
        text += "".join(f"    {option}\n" for option in self._options)
        text += _CONTROL
        for origin in (".", *self._zones):
            if origin not in self._failing:
                text += _AUTHORITY.format(origin=origin, file=_file(origin))
        text += "".join(_NOBODY.format(origin=origin) for origin in sorted(self._failing))
        for origin, port in self._elsewhere.items():
            text += _NOBODY.format(origin=origin) + f"    stub-addr: {HOST}@{port}\n"
        (self.directory / "unbound.conf").write_text(text, encoding="ascii")

    def _reload(self) -> None:
        assert self._process is not None, "it does not run"
        self._configure()
        seen = self._log().count(_SERVES)
        self._process.send_signal(signal.SIGHUP)
        self._await_service(seen)

    def _await_service(self, seen: int) -> None:
        """Until it has once more said that it serves, and listens."""
        end = time.monotonic() + PATIENCE_S
        while self._log().count(_SERVES) == seen or not self._listens():
            assert self._process is not None
            assert self._process.poll() is None, self._log()
            assert time.monotonic() < end, self._log()
            time.sleep(POLL_S)

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0

    def _leave(self) -> None:
        if self._process is not None:
            self.kill()
        self._held.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _file(origin: str) -> str:
    return f"{origin}zone" if origin != "." else "root.zone"


def _signed(origin: str, text: str, *, signed_at: datetime) -> tuple[str, str]:
    """The zone signed for a week from `signed_at`, as a master file, and the trust anchor for it."""
    private_key = ed25519.Ed25519PrivateKey.generate()
    dnskey = dns.dnssec.make_dnskey(private_key.public_key(), dns.dnssectypes.Algorithm.ED25519, flags=257)
    zone = dns.zone.from_text(text, origin, relativize=False)
    dns.dnssec.sign_zone(
        zone,
        keys=[(private_key, dnskey)],
        dnskey_ttl=TTL_S,
        inception=signed_at - timedelta(days=1),
        expiration=signed_at + timedelta(days=7),
    )
    anchor = dns.dnssec.make_ds(origin, dnskey, dns.dnssectypes.DSDigest.SHA256)
    return zone.to_text(), f"{origin} IN DS {anchor.to_text()}"
