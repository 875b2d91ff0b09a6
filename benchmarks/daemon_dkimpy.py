"""dkimpy-milter as Debian ships it: signing, or verifying DKIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench_keys import ED25519_SELECTOR, RSA_SELECTOR
from compared_daemon import USER, ComparedDaemon, Task
from milter_replies import Expected
from sample_mail import AUTHSERV_ID, OUR_DOMAIN

__all__ = ["DkimpyMilter"]


class DkimpyMilter(ComparedDaemon):
    """One process."""

    name = "dkimpy-milter"
    package = "dkimpy-milter"
    judges = Expected.DKIM

    def command(self) -> Sequence[str]:
        return ["dkimpy-milter", str(self.directory / "dkimpy-milter.conf")]

    def files(self) -> Mapping[str, str]:
        text = (
            f"Socket local:{self.path}\n"
            f"PidFile {self.directory}/run/dkimpy-milter.pid\n"
            f"UserID {USER}:nogroup\n"
            "UMask 000\n"
            "Syslog no\n"
            f"AuthservID {AUTHSERV_ID}\n"
        )
        if self.task is Task.JUDGE:
            return {"dkimpy-milter.conf": f"Mode v\n{text}"}
        text += f"Mode s\nDomain {OUR_DOMAIN}\nCanonicalization relaxed/relaxed\n"
        if "rsa" in self.task.algorithms:
            text += f"KeyFile {self.directory}/keys/rsa.pem\nSelector {RSA_SELECTOR}\n"
        if "ed25519" in self.task.algorithms:
            text += f"KeyFileEd25519 {self.directory}/keys/ed25519.seed\nSelectorEd25519 {ED25519_SELECTOR}\n"
        return {"dkimpy-milter.conf": text}
