"""Keys that take turns and the DNS as it is: aliases, wildcards, what caches keep, and servers that few know of."""

from __future__ import annotations

import json
import os

import dns.exception
import dns.resolver
import pytest

from mailguard.cli.new_keys import GENERATORS
from mailguard.cli.rotation_dns import _fault, _has
from mailguard.cli.rotation_keys import _rotated
from mailguard.dkim.signing_key import SigningKey
from mailguard.dns.authoritative import MAX_ADDRESSES
from rotation_made import US
from rotation_site import DAY_S, FIRST, HEAD, HOUR_S, SECOND, RotationSite, rotation_site, said, servers, txt

__all__ = ["rotation_site", "servers"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: port 53")

WEEK_S = 7 * DAY_S


def lines(site: RotationSite, ttl_s: int = 60) -> str:
    return "\n".join(txt(*each).replace(". IN", f". {ttl_s} IN") for each in site.records.items()) + "\n"


def begun(site: RotationSite) -> None:
    """Keys are made, and nobody has them yet."""
    site.rotate()
    site.configure()
    site.tell()


KEYS = {
    algorithm: _rotated(
        SigningKey.from_bytes(make(), domain=US, selector=f"s{algorithm}"), f"/k/{algorithm}.pem", is_made=True
    )
    for algorithm, make in GENERATORS.items()
}
PUBLIC = KEYS["rsa"].record.partition("p=")[2]
OTHER = KEYS["ed25519"].record.partition("p=")[2]
# id, what a server has for the RSA key, what is wrong with that, whether the key is there
RECORDS = [
    ("as it was asked for", [KEYS["rsa"].record], "", True),
    ("in other words", [f" v=DKIM1 ;h=sha1:sha256; p={PUBLIC[:80]} {PUBLIC[80:]};n=x; s=email ;t=s"], "", True),
    ("without all that is the default", [f"p={PUBLIC}"], "", True),
    ("nothing", [], "nothing", False),
    ("two", [KEYS["rsa"].record, KEYS["ed25519"].record], "2 records", True),
    ("something else", ["v=spf1 -all"], "a record that no signature verifies with", False),
    ("revoked", ["v=DKIM1; p="], "a revoked key", False),
    ("for a test", [f"v=DKIM1; t=y; p={PUBLIC}"], "the key marked as a test", True),
    ("not for mail", [f"v=DKIM1; s=other; p={PUBLIC}"], "not for mail", True),
    ("not with SHA-256", [f"v=DKIM1; h=sha1; p={PUBLIC}"], "does not allow SHA-256", True),
    ("of another kind", [f"v=DKIM1; k=ed25519; p={PUBLIC}"], "not of type rsa", True),
    ("cut off", [KEYS["rsa"].record[:255]], "a record that no signature verifies with", False),
    ("twice in one", [KEYS["rsa"].record * 2], "malformed", True),
    ("the version last", [f"p={PUBLIC}; v=DKIM1"], "v= is not the first tag", True),
    ("another key", [f"v=DKIM1; p={OTHER}"], "a record that no signature verifies with", False),
]  # fmt: skip


@pytest.mark.parametrize(("values", "fault", "is_there"), [row[1:] for row in RECORDS], ids=[r[0] for r in RECORDS])
def test_what_a_verifier_makes_of_a_record(values: list[str], fault: str, is_there: bool) -> None:
    found = _fault(KEYS["rsa"], values)
    assert fault in found
    assert bool(fault) is bool(found)
    assert any(_has(KEYS["rsa"], value) for value in values) is is_there


def test_a_key_without_padding_is_there() -> None:
    published = KEYS["ed25519"].record.rstrip("=")
    assert published != KEYS["ed25519"].record
    assert _fault(KEYS["ed25519"], [published]) == ""
    assert _has(KEYS["ed25519"], published)


@pytest.mark.attack("V09")
def test_a_wrong_record_is_forgotten_first(rotation_site: RotationSite) -> None:
    site = rotation_site
    begun(site)
    wrong = lines(site, WEEK_S).replace("p=", "p=AA")
    site.servers[0].serve({"us.test": HEAD + wrong})
    site.servers[1].serve({"us.test": HEAD + lines(site)})
    assert (site.rotate().code, site.stages()) == (2, ["created"])
    site.publish()
    assert "it can sign in 7 days" in said(site.rotate().out)
    assert (site.rotate(seconds=WEEK_S - 1).code, site.stages()) == (0, ["published"])
    assert (site.rotate(seconds=1).code, site.stages()) == (0, ["signing"])


def test_a_wildcard_is_forgotten_first(rotation_site: RotationSite) -> None:
    site = rotation_site
    wild = HEAD + '*.us.test. 7200 IN TXT "v=spf1 -all"\n'
    for server in site.servers:
        server.serve({"us.test": wild})
    begun(site)
    for server in site.servers:
        server.serve({"us.test": wild + lines(site)})
    site.rotate()
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["published"])
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["signing"])


def test_the_zone_of_an_alias_says_how_long_it_is_not_there(rotation_site: RotationSite) -> None:
    site = rotation_site
    begun(site)
    names = {name: f"{name.partition('.')[0]}.keys.test" for name in site.records}
    aliases = "".join(f"{name}. IN CNAME {target}.\n" for name, target in names.items())
    theirs = HEAD.replace("60 60 60 60", "60 60 60 10800").replace("us.test", "keys.test")
    records = "".join(f"{txt(names[name], value)}\n" for name, value in site.records.items())
    for server in site.servers:
        server.serve({"us.test": HEAD + aliases, "keys.test": theirs})
    lacking = site.rotate()
    assert lacking.code == 2
    assert "for mg202701r.keys.test has nothing at mg202701r._domainkey.us.test" in said(lacking.out)
    for server in site.servers:
        server.serve({"us.test": HEAD + aliases, "keys.test": theirs + records})
    site.rotate()
    assert (site.rotate(seconds=2 * HOUR_S).code, site.stages()) == (0, ["published"])
    assert "it can sign in 60 minutes" in said(site.rotate().out)


@pytest.mark.attack("V09")
def test_servers_that_only_the_zone_above_names(rotation_site: RotationSite) -> None:
    """The domain has moved: the world asks the new server, and the resolver remembers the old one."""
    site = rotation_site
    old = HEAD.replace("@ IN NS ns2.us.test.\n", "")
    above = f"$TTL 60\n@ IN SOA up.test. h.test. 1 60 60 60 60\n@ IN NS up.test.\nup IN A {SECOND}\n"
    new = f"us IN NS ns2.us.test.\nns2.us IN A {SECOND}\n"
    site.servers[0].serve({"us.test": old, "test": above})
    site.servers[1].serve({"test": above + new})
    site.rotate()
    assert not site.state.exists() or site.stages() == [], "nobody knows what is free there"
    site.servers[1].serve({"test": above + new.replace("us IN NS ns2.us.test", "us IN NS ns1.us.test")})
    begun(site)
    site.servers[0].serve({"us.test": old + lines(site), "test": above})
    site.servers[1].serve({"test": above + new})
    held = site.rotate()
    assert (held.code, site.stages()) == (75, ["created"])
    assert f"ns2.us.test ({SECOND}): it does not speak for the zone" in said(held.out)
    assert "each must answer this host, or no longer be a name server of the zone" in said(held.out)
    site.servers[1].serve({"us.test": HEAD + lines(site), "test": above + new})
    assert (site.rotate().code, site.stages()) == (0, ["published"])


def test_servers_that_only_the_others_name(rotation_site: RotationSite) -> None:
    site = rotation_site
    begun(site)
    one = HEAD.replace("@ IN NS ns1.us.test.\n", "")
    site.servers[0].serve({"us.test": one})
    site.servers[1].serve({"us.test": HEAD + lines(site)})
    lacking = site.rotate()
    assert (lacking.code, f"ns1.us.test ({FIRST}) has nothing at " in said(lacking.out)) == (2, True)


def test_what_no_resolver_finds_does_not_sign(rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site = rotation_site
    begun(site)
    site.publish()
    resolve = dns.resolver.Resolver.resolve

    def bogus(self: dns.resolver.Resolver, name: object, *rest: object, **more: object) -> object:
        if "._domainkey" in str(name):
            raise dns.exception.DNSException("SERVFAIL")  # type: ignore[no-untyped-call]  # dnspython has no type for it
        return resolve(self, name, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(dns.resolver.Resolver, "resolve", bogus)
        assert (site.rotate().code, site.stages()) == (0, ["published"])
        hidden = site.rotate(seconds=HOUR_S)
        assert (hidden.code, site.stages()) == (75, ["published"])
        assert "they do not sign yet: the resolver of this host does not find them" in said(hidden.out)
    assert (site.rotate().code, site.stages()) == (0, ["signing"])


def test_a_stolen_key_is_not_asked_for(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    assert site.stages() == ["retired", "signing"]
    stolen = site.selectors(0)
    site.records = {
        name: "v=DKIM1; p=" if name.partition(".")[0] in stolen else value for name, value in site.records.items()
    }
    site.publish(lagging=True)
    half = site.rotate(seconds=60)
    assert (half.code, json.loads(half.out)["publish"], site.stages()) == (0, [], ["retired", "signing"])
    site.publish()
    done = site.rotate()
    assert (done.code, site.stages()) == (0, ["signing"])
    assert "its records are revoked, and it is forgotten" in said(done.out)


def test_what_the_daemon_signs_with_is_not_forgotten_when_it_is_revoked(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    before = (site.runtime / "keys.json").read_bytes()
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    (site.runtime / "keys.json").write_bytes(before)
    revoked = site.selectors(0)
    site.records = {
        name: "v=DKIM1; p=" if name.partition(".")[0] in revoked else value for name, value in site.records.items()
    }
    site.publish()
    assert (site.rotate(seconds=60, reload="false").code, site.stages()) == (1, ["retired", "signing"])


def test_a_clock_that_went_back_moves_nothing(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    kept = site.state.read_bytes()
    back = site.rotate(seconds=-30 * DAY_S)
    assert (back.code, site.state.read_bytes()) == (78, kept)
    assert "a stage began in the future" in back.err
    assert (site.rotate(seconds=30 * DAY_S + HOUR_S).code, site.stages()) == (0, ["retired", "signing"])
    # The clock was ahead, and is right now.
    site.rotate("--clock-is-right", seconds=-DAY_S)
    assert [each["since"] for each in site.kept()["generations"]] == [site.now, site.now]


def test_an_old_state_does_not_make_the_daemon_sign_with_keys_that_are_gone(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    old, backup = site.selectors(0), site.state.read_bytes()
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    new = site.selectors(1)
    site.rotate(seconds=9 * DAY_S)
    site.forget(old)
    site.publish()
    site.rotate()
    site.state.write_bytes(backup)
    held = site.rotate()
    assert held.code == 1
    assert "is not reloaded while a server may lack their records" in said(held.out)
    assert f"the daemon signs with {', '.join(sorted(new, reverse=True))}, of which " in said(held.out)
    assert "leave the records there for 7 days after it has stopped" in said(held.out)
    told = json.loads((site.runtime / "keys.json").read_text())
    assert set(told["domains"]["us.test"]["keys"]) == new


def test_a_server_is_silent_when_the_daemon_is_to_be_reloaded(rotation_site: RotationSite) -> None:
    site = rotation_site
    begun(site)
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S, reload="true")
    assert site.stages() == ["switching"]
    site.servers[1].stop()
    silent = site.rotate()
    site.servers[1].start()
    assert (silent.code, site.stages()) == (75, ["switching"])
    assert "is not reloaded while a server may lack their records" in said(silent.out)
    assert "reload failed" not in said(silent.out)


def test_nobody_is_told_to_name_a_state_that_is_not_there(rotation_site: RotationSite) -> None:
    site = rotation_site
    dry = site.rotate("--dry-run")
    assert (dry.code, site.state.exists(), "put this into" in said(dry.out)) == (2, False, False)
    assert "put this into" in said(site.rotate().out)


def test_what_is_said_to_who_publishes_the_records(rotation_site: RotationSite) -> None:
    site = rotation_site

    def notes() -> list[str]:
        text = mailguard("dns", "us.test", "--mx", "mx.us.test", "-c", site.config).out
        return [
            line.partition(" bits")[2] for line in text.splitlines() if "DKIM: the public half of the rsa" in line
        ]

    mailguard = site._command
    begun(site)
    assert notes() == ["; it does not sign yet"]
    assert "no key signs" in mailguard("key", "test", "-c", site.config).err
    doctor = mailguard("doctor", "-c", site.config, "--config-directory", site.directory).out
    assert "no key signs yet" in doctor
    assert "mailguard key new" not in doctor
    site.publish()
    site.rotate()
    assert notes() == ["; it does not sign yet"]
    site.rotate(seconds=HOUR_S, reload="true")
    assert notes() == ["; it is about to sign"]
    site.rotate()
    assert notes() == [""]
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    assert notes() == ["; it signs no more; mail on its way needs this record until 2027-01-22T11:15+00:00", ""]
    site.rotate(seconds=9 * DAY_S)
    assert notes() == [""]


def test_servers_of_great_providers_have_many_addresses() -> None:
    assert MAX_ADDRESSES >= 6


def test_a_domain_that_cannot_be_stops_no_other(rotation_site: RotationSite) -> None:
    """Its top-level domain is not there, so that the root answers for it."""
    site = rotation_site
    begun(site)
    state = site.state.with_name("us.con.json")
    state.write_text(site.state.read_text().replace("us.test", "us.con"))
    state.chmod(0o644)
    root = "$TTL 60\n@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 60\n@ IN NS ns1.us.test.\n"
    site.servers[0].serve({"us.test": HEAD + lines(site), ".": root})
    site.servers[1].serve({"us.test": HEAD + lines(site)})
    rule = '[domains."{0}"]\nrotation = "{1}"\n'
    site.configure(rule.format("us.con", state) + rule.format("us.test", site.state))
    first, second = json.loads(site.rotate("--all", domain="").out)
    assert "there is no top-level domain con in the DNS" in first["said"]
    assert [each["generations"][0]["stage"] for each in (first, second)] == ["created", "published"]
    # New keys want names that are free.
    state.unlink()
    site.configure()
    found = site.rotate(domain="us.con")
    assert (found.code, "there is no top-level domain con in the DNS" in found.out) == (75, True), found.err
