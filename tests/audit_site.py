"""The hardened host of audit_host.py as files below a directory, for the real postconf(1) to read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from audit_host import CERTIFICATE, HARDENED_MAIN, KEY, NOW, SERVICES, TABLE

__all__ = ["POSTCONF", "Site"]

POSTCONF = shutil.which("postconf", path="/usr/sbin:/usr/bin:/sbin")
MAIN = {
    "compatibility_level": "3.6",
    "myhostname": "mx.example.com",
    "mydestination": "$myhostname, localhost",
    "alias_maps": "",
    # This way it is expanded, as on many hosts.
    "smtpd_banner": "$myhostname ESMTP",
}


class Site:
    """A root directory with Postfix's configuration and what stands around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_directory = root / "etc/postfix"
        self.write_postfix({})
        self.write(TABLE, "user = postfix\npassword = x\nhosts = 127.0.0.1\nquery = SELECT 1\n", 0o640)
        self.write("/etc/resolv.conf", "# ours\nnameserver 127.0.0.1\noptions edns0 trust-ad\n")
        self.write("/etc/unbound/unbound.conf", 'include-toplevel: "/etc/unbound/unbound.conf.d/*.conf"\n')
        self.write("/etc/unbound/unbound.conf.d/a.conf", 'server:\n    auto-trust-anchor-file: "/var/x.key"\n')
        self.write("/etc/fail2ban/jail.conf", "[DEFAULT]\nenabled = false\n[postfix-sasl]\nport = smtp\n")
        self.write("/etc/fail2ban/jail.d/postfix.local", "[postfix-sasl]\nenabled = true\n")
        self.write("/usr/bin/fail2ban-client", "#!/bin/sh\n", 0o755)
        self.write("/etc/mailguard/mailguard.toml", 'mode = "enforce"\n')
        self.write_certificate("mx.example.com", days=70)

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """A file of the host."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)
        # Postfix waits until a main.cf that has just been written is a second old.
        os.utime(file, (NOW - 1e8, NOW - 1e8))
        return file

    def write_postfix(
        self, changes: Mapping[str, str], services: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """main.cf with these changes; master.cf with further overrides for a service. "-" takes one away."""
        wanted = {**HARDENED_MAIN, **MAIN, **changes}
        lines = [f"{name} = {value}" for name, value in wanted.items() if value != "-"]
        self.write("/etc/postfix/main.cf", "\n".join(lines) + "\n")
        text = ""
        for service in SERVICES:
            overrides = {**service.overrides, **(services or {}).get(service.place, {})}
            text += f"{service.name} {service.kind} n - y - - {service.command}\n"
            text += "".join(f"  -o {name}={value}\n" for name, value in overrides.items() if value != "-")
        self.write("/etc/postfix/master.cf", text)

    def write_certificate(self, name: str, *, days: int) -> None:
        """Of that name, ending so many days after NOW, with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ends = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(ends - timedelta(days=90))
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        private = key.private_bytes(encoding, kind, serialization.NoEncryption())
        self.write(KEY, private.decode("ascii"), 0o600)
        self.write(CERTIFICATE, certificate.public_bytes(encoding).decode("ascii"))
