"""MTA-STS against the cases of others: mox, chasquid, postfix-tlspol, and the tables of postfix-mta-sts-resolver.

Each has a SOURCE.txt that says what passing means.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from mailguard.dns.answers import evaluate
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.mtasts.cache import PolicyCache
from mailguard.mtasts.malformed import Malformed
from mailguard.mtasts.policy import MAX_AGE_S, StsMode, StsPolicy, matches
from mailguard.mtasts.record import Discovery, discover
from policy_site import Authority, Connection, PolicySite, reply
from vectors import require

NOW = 1_800_000_000.0
# SOURCE.txt lets a sender cut a max_age of more than a year instead of refusing it, as we do.
CUT = "over the one-year ceiling (implementations may clamp instead)"


def discovered(domain: Domain, resolver: ZoneResolver) -> Discovery:
    return evaluate(lambda answers: discover(domain, answers), resolver, deadline=time.monotonic() + 60)


def test_every_vector() -> None:
    document = yaml.safe_load((require("mtasts-vectors") / "vectors.yaml").read_text("utf-8"))
    records, policies, pairs = document["txt_records"], document["policies"], document["mx_match"]
    assert (len(records), len(policies), len(pairs)) == (26, 31, 17)
    domain = Domain.parse("example.com")
    for case in records:
        chunks = [tuple(part.encode() for part in parts) for parts in case.get("txt_chunks", ())]
        zone = ZoneResolver({f"_mta-sts.{domain}": {"TXT": case.get("txt") or chunks}})
        record = discovered(domain, zone).record
        assert (record is not None) == case["valid"], case
        if record is not None:
            assert record.id == case.get("id", record.id)
            assert dict(record.extensions) == case.get("extensions", {})
    cut = 0
    for case in policies:
        policy = StsPolicy.parse(case["policy"].encode())
        if case.get("why") == CUT:
            assert isinstance(policy, StsPolicy)
            assert policy.max_age_s == MAX_AGE_S
            cut += 1
            continue
        assert isinstance(policy, StsPolicy) == case["valid"], case
        if isinstance(policy, StsPolicy) and "mode" in case:
            expected = (case["mode"], tuple(case["mx"]), case["max_age"])
            assert (policy.mode.value, policy.mx, policy.max_age_s) == expected
        assert isinstance(policy, StsPolicy | Malformed)
    assert cut == 1
    for case in pairs:
        assert matches(case["pattern"], case["mx_host"]) is case["match"], case


# -- the tables of postfix-mta-sts-resolver: next hops, and what Postfix is told ----------------------------------

BAD_POLICIES = {
    "bad-policy1.loc": b"version: STSv1\nmode: enforce\nmx: mail.loc\n",
    "bad-policy2.loc": b"version: STSv1\nmode: enforce\nmax_age: 86400\n",
    "bad-policy3.loc": b"not a policy",
}
RECORDS = {
    "good.loc": ["v=STSv1; id=20180907T090909;"],
    "valid-none.loc": ["v=STSv1; id=20180907T090909;"],
    "testing.loc": ["v=STSv1; id=20180907T090909;"],
    "no-record.loc": [],
    "bad-record1.loc": ["v=STSv1; id=20180907T090909;", "v=STSv1; id=20180907T090910;"],
    "bad-record2.loc": ["v=STSv1; note=x;"],
    "bad-cert1.loc": ["v=STSv1; id=20180907T090909;"],
    "bad-cert2.loc": ["v=STSv1; id=20180907T090909;"],
    **{name: ["v=STSv1; id=20180907T090909;"] for name in BAD_POLICIES},
}


def body(host: str) -> bytes:
    domain = host.removeprefix("mta-sts.")
    mode = {"valid-none.loc": "none", "testing.loc": "testing"}.get(domain, "enforce")
    return BAD_POLICIES.get(domain, f"version: STSv1\nmode: {mode}\nmx: mail.loc\nmax_age: 86400\n".encode())


def answer(connection: Connection) -> None:
    (host,) = (line[6:] for line in connection.request.decode().split("\r\n") if line.startswith("Host: "))
    reply(body(host))(connection)


def domain_of(next_hop: str) -> Domain | None:
    """The Policy Domain that the request of a table is about; None where it has none."""
    name = next_hop.partition("]")[0].removeprefix("[") if next_hop.startswith("[") else next_hop.partition(":")[0]
    try:
        domain = Domain.parse(name.removesuffix("."))
    except DomainError:
        return None
    return None if domain.rpartition(".")[2].isdigit() else domain


@pytest.mark.parametrize(
    ("table", "modes", "server_name"),
    [
        ("refdata.tsv", {StsMode.ENFORCE}, " servername=hostname"),
        ("refdata_nosni.tsv", {StsMode.ENFORCE}, ""),
        ("refdata_strict.tsv", {StsMode.ENFORCE, StsMode.TESTING}, " servername=hostname"),
    ],
)
def test_every_row_of_the_tables(table: str, modes: set[StsMode], server_name: str, tmp_path: Path) -> None:
    """What the library finds out, for each request that Postfix can make, over DNS and HTTPS."""
    rows = [tuple(line.split("\t")) for line in (require("mtasts-snawoot") / table).read_text("ascii").splitlines()]
    assert len(rows) == 21
    authority = Authority(tmp_path)
    good = authority.issue(*(f"mta-sts.{name}" for name in RECORDS if not name.startswith("bad-cert")))
    zone = {f"_mta-sts.{name}": {"TXT": texts} for name, texts in RECORDS.items() if texts}
    zone |= {f"mta-sts.{name}": {"A": ["127.0.0.1"]} for name in RECORDS}
    resolver = ZoneResolver(zone)
    cache = PolicyCache(None, draw=lambda: 0.5)
    with PolicySite(good, answer) as site:
        fetcher = site.fetcher(ca_file=authority.ca_file, resolver=resolver)
        for request, expected in rows:
            domain = domain_of(request.partition(" ")[2])
            said = "NOTFOUND "
            if domain is not None:
                fetch = cache.noticed(domain, discovered(domain, resolver), now=NOW)
                if fetch is not None:
                    cache.fetched(fetch, fetcher.fetch(domain), now=NOW)
                held = cache.policy_for(domain, now=NOW).held
                if held is not None and held.policy.mode in modes:
                    said = f"OK secure match={':'.join(held.policy.mx)}{server_name}"
            assert said == expected, request
    # Each domain with a record that counts was asked once: one of them for five of the requests.
    assert len(site.requests) == 6
