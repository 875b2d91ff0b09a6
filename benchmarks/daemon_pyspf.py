"""pyspf-milter (spf-engine) as Debian ships it: SPF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compared_daemon import USER, ComparedDaemon, Task
from milter_replies import Expected
from sample_mail import AUTHSERV_ID

__all__ = ["PySpfMilter"]


class PySpfMilter(ComparedDaemon):
    """It looks every name up anew: it keeps no answers."""

    name = "pyspf-milter"
    package = "pyspf-milter"
    tasks = frozenset({Task.JUDGE})
    judges = Expected.SPF

    def command(self) -> Sequence[str]:
        return ["pyspf-milter", str(self.directory / "pyspf-milter.conf")]

    def files(self) -> Mapping[str, str]:
        return {
            "pyspf-milter.conf": (
                f"Socket = local:{self.path}\n"
                f"PidFile = {self.directory}/run/pyspf-milter.pid\n"
                f"UserID = {USER}:nogroup\n"
                "UMask = 0\n"
                "debugLevel = 0\n"
                "TestOnly = 1\n"
                "Header_Type = AR\n"
                f"Authserv_Id = {AUTHSERV_ID}\n"
                "HELO_reject = False\n"
                "Mail_From_reject = False\n"
                "InternalHosts = 127.0.0.1\n"
            )
        }
