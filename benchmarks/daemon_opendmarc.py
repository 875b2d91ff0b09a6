"""opendmarc as Debian ships it. It verifies no DKIM: it judges by the Authentication-Results of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compared_daemon import ComparedDaemon, Task
from milter_replies import Expected
from sample_mail import AUTHSERV_ID

__all__ = ["OpenDmarc", "OpenDmarcWithSpf"]


class OpenDmarc(ComparedDaemon):
    """Takes SPF too from what stands in the header."""

    name = "opendmarc"
    package = "opendmarc"
    tasks = frozenset({Task.JUDGE})
    judges = Expected.DMARC
    checks_spf = False

    def command(self) -> Sequence[str]:
        return ["opendmarc", "-f", "-c", str(self.directory / "opendmarc.conf")]

    def files(self) -> Mapping[str, str]:
        text = (
            f"Socket local:{self.path}\n"
            "UMask 000\n"
            "Syslog false\n"
            f"PidFile {self.directory}/run/opendmarc.pid\n"
            f"AuthservID {AUTHSERV_ID}\n"
            f"TrustedAuthservIDs {AUTHSERV_ID}\n"
            "PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat\n"
            "RejectFailures false\n"
        )
        if self.checks_spf:
            text += "SPFIgnoreResults true\nSPFSelfValidate true\n"
        return {"opendmarc.conf": text}


class OpenDmarcWithSpf(OpenDmarc):
    """Checks SPF itself. Without a DKIM verifier before it, it judges by SPF alone."""

    name = "opendmarc (own SPF)"
    checks_spf = True
