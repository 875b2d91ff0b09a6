"""opendkim as Debian ships it: signing, or verifying DKIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench_keys import ED25519_SELECTOR, RSA_SELECTOR
from compared_daemon import ComparedDaemon, Task
from milter_replies import Expected
from sample_mail import AUTHSERV_ID, CLIENT, OUR_DOMAIN

__all__ = ["OpenDkim"]


class OpenDkim(ComparedDaemon):
    """Without a validating resolver of its own: the zones of the run are not signed."""

    name = "opendkim"
    package = "opendkim"
    # SignatureAlgorithm is one for all keys.
    tasks = frozenset(Task) - {Task.SIGN_BOTH}
    judges = Expected.DKIM

    def command(self) -> Sequence[str]:
        return ["opendkim", "-f", "-x", str(self.directory / "opendkim.conf")]

    def files(self) -> Mapping[str, str]:
        common = (
            f"Socket local:{self.path}\n"
            "UMask 000\n"
            "Syslog no\n"
            f"PidFile {self.directory}/run/opendkim.pid\n"
            "Nameservers 127.0.0.1\n"
        )
        if self.task is Task.JUDGE:
            return {"opendkim.conf": f"Mode v\nAuthservID {AUTHSERV_ID}\n{common}"}
        signing = (
            f"Mode s\nCanonicalization relaxed/relaxed\nOversignHeaders From\nInternalHosts 127.0.0.1,{CLIENT}\n"
        )
        if self.task is Task.SIGN_RSA:
            selector, key, algorithm = RSA_SELECTOR, "rsa.pem", "rsa-sha256"
        else:
            selector, key, algorithm = ED25519_SELECTOR, "ed25519.pem", "ed25519-sha256"
        return {
            "opendkim.conf": (
                f"{signing}Domain {OUR_DOMAIN}\nSelector {selector}\nKeyFile {self.directory}/keys/{key}\n"
                f"SignatureAlgorithm {algorithm}\n{common}"
            )
        }
