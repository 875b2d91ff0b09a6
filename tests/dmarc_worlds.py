"""Strategies of hypothesis for DMARC: names, records, senders and signatures that may or may not belong together."""

from __future__ import annotations

from hypothesis import strategies as st

from dmarc_asking import dkim, spf
from mailguard.dkim.result import DkimStatus
from mailguard.spf.result import SpfStatus

__all__ = ["AT", "NAMES", "RECORDS", "names", "senders", "signatures"]

NAMES = ("test", "b.test", "a.b.test", "c.a.b.test", "d.b.test", "other.org", "h.g.f.e.d.c.x.b.test")
AT = tuple(f"_dmarc.{name}" for name in NAMES)
RECORDS = (
    "v=DMARC1; p=reject",
    "v=DMARC1; p=none; sp=reject; np=quarantine",
    "v=DMARC1; p=quarantine; psd=y",
    "v=DMARC1; p=reject; psd=n; adkim=s; aspf=s",
    "v=DMARC1; p=reject; t=y; adkim=s",
    "v=DMARC1; p=x; rua=mailto:r@b.test",
    "v=DMARC1",
    "junk",
)
names = st.sampled_from(NAMES)
signatures = st.lists(
    st.builds(dkim, names, st.sampled_from([status.value for status in DkimStatus]), testing=st.booleans()),
    max_size=4,
)
senders = st.none() | st.builds(spf, names, st.sampled_from([status.value for status in SpfStatus]))
