"""Which keys sign for a domain, and what a key that cannot be used does."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from mailguard.config import Config
from mailguard.dkim.signing_key import KeyCheck, SigningKey, generate_ed25519, generate_rsa
from mailguard.domain import Domain
from mailguard.errors import KeyFileError
from mailguard.key_places import NamedKey
from mailguard_milter import keyring
from mailguard_milter.actions import Accept
from mailguard_milter.keyring import KeyRing
from mailguard_milter.service import Service
from milter_peer import (
    ALICE,
    US,
    Peer,
    configuration,
    make_keys,
    message,
    reply,
    write_key,
)
from zone0 import pem, rsa_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


def test_no_rule_is_unsigned_with_the_reason(keys: Path) -> None:
    for mode in ("monitor", "enforce"):
        conclusion = Peer(configuration(keys, mode=mode)).connect().send(message(b"a@third.test"), macros=ALICE)
        assert conclusion.actions == (Accept(),)
        assert conclusion.record["reason"] == "unsigned: no key is configured for third.test"


@pytest.mark.attack("D49")
def test_a_key_that_fails_tempfails_its_domain_only(keys: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    good, torn, open_to_all = (tmp_path / name / "s.pem" for name in ("good.test", "torn.test", "open.test"))
    for path in (good, open_to_all):
        write_key(path, generate_ed25519())
    write_key(torn, generate_rsa()[:500])
    open_to_all.chmod(0o644)
    config = configuration(
        keys, sign={"key_pattern": str(tmp_path / "{domain}" / "{selector}.pem"), "key_selectors": ["s"]}
    )
    for mode in ("monitor", "enforce"):
        peer = Peer(config.model_copy(update={"mode": type(config.mode)(mode)})).connect()
        for domain, problem in (("torn.test", "incomplete"), ("open.test", "0644")):
            conclusion = peer.send(message(f"a@{domain}".encode()), macros=ALICE)
            assert (reply(conclusion).code, reply(conclusion).enhanced) == ("451", "4.7.5")
            assert str(tmp_path) not in reply(conclusion).text, "the client learns no path"
            assert conclusion.record["action"] == "tempfail"
            assert domain in str(conclusion.record["reason"])
            assert problem in str(conclusion.record["reason"])
        for domain in ("good.test", "us.test"):
            assert peer.send(message(f"a@{domain}".encode()), macros=ALICE).record["d"] == domain
    write_key(torn, generate_ed25519())
    assert peer.send(message(b"a@torn.test"), macros=ALICE).record["d"] == "torn.test", "repaired without a restart"


@pytest.mark.attack("K03", "D49")
def test_a_named_key_that_cannot_be_used_is_an_error_at_the_start(keys: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    rule = {"us.test": {"selectors": [{"name": "s", "key_file": str(tmp_path / "missing.pem")}]}}
    with pytest.raises(KeyFileError, match=r"missing\.pem"):
        Service.open(Config.model_validate({"authserv_id": US, "domains": rule}))


@pytest.fixture
def pattern(tmp_path: Path) -> Mapping[str, object]:
    tmp_path.chmod(0o700)
    return {"key_pattern": str(tmp_path / "{domain}" / "{selector}.pem"), "key_selectors": ["s", "t"]}


def selectors(ring: KeyRing, domain: str) -> list[tuple[str, str]]:
    return [(str(key.domain), key.selector) for key in ring.keys_for(Domain.parse(domain))]


def test_the_nearest_rule_decides(keys: Path, tmp_path: Path, pattern: Mapping[str, object]) -> None:
    for domain in ("a.us.test", "third.test", "sub.other.test", "us.test"):
        write_key(tmp_path / domain / "s.pem", generate_ed25519())
    rules = configuration(keys, sign=pattern).model_dump()["domains"]
    rules["deep.us.test"] = {"selectors": rules["other.test"]["selectors"], "subdomains": True}
    ring = KeyRing(configuration(keys, sign=pattern, domains=rules))
    assert selectors(ring, "us.test") == [("us.test", "r1"), ("us.test", "e1")], "its own rule"
    assert selectors(ring, "a.us.test") == [("us.test", "r1"), ("us.test", "e1")], "a parent's before the pattern"
    assert selectors(ring, "b.deep.us.test") == [("deep.us.test", "o1")], "the nearest parent's"
    assert selectors(ring, "third.test") == [("third.test", "s")], "the pattern"
    assert selectors(ring, "sub.other.test") == [("sub.other.test", "s")], (
        "a parent without subdomains does not count"
    )
    assert selectors(ring, "xus.test") == []
    assert selectors(ring, "test") == []


@pytest.mark.attack("V10")
def test_pattern_keys_are_read_at_first_use_and_kept(
    keys: Path, tmp_path: Path, pattern: Mapping[str, object]
) -> None:
    ring = KeyRing(configuration(keys, sign=pattern))
    assert selectors(ring, "third.test") == []
    write_key(tmp_path / "third.test" / "t.pem", generate_ed25519())
    assert selectors(ring, "third.test") == [("third.test", "t")], "a key that appears later is found"
    (tmp_path / "third.test" / "t.pem").unlink()
    assert selectors(ring, "third.test") == [("third.test", "t")], "and used until the configuration is read again"
    assert selectors(KeyRing(configuration(keys, sign=pattern)), "third.test") == []


def test_both_keys_of_the_pattern_sign(keys: Path, tmp_path: Path, pattern: Mapping[str, object]) -> None:
    for name in ("s", "t"):
        write_key(tmp_path / "third.test" / f"{name}.pem", generate_ed25519())
    conclusion = Peer(configuration(keys, sign=pattern)).connect().send(message(b"a@third.test"), macros=ALICE)
    assert (conclusion.record["d"], conclusion.record["s"]) == ("third.test", "s t")


def test_no_pattern_asks_for_no_file(keys: Path) -> None:
    assert selectors(KeyRing(configuration(keys, sign={"key_pattern": None})), "third.test") == []


def test_thousands_of_domains_are_bounded(
    keys: Path, tmp_path: Path, pattern: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "MAX_PATTERN_DOMAINS", 100)
    names = [f"d{number}.test" for number in range(2_000)]
    for name in names:
        write_key(tmp_path / name / "s.pem", number_key(name))
    ring = KeyRing(configuration(keys, sign=pattern))
    for name in names:
        assert selectors(ring, name) == [(name, "s")]
    for name in names:
        (tmp_path / name / "s.pem").unlink()
    kept = [name for name in names if selectors(ring, name)]
    assert kept == names[-100:], "what is no longer kept is read again, and is gone"


def number_key(name: str) -> bytes:
    """A raw Ed25519 key that depends on the name, with an octet that is not ASCII."""
    return name.encode().ljust(32, b"\xff")


def test_the_log_does_not_show_keys(keys: Path) -> None:
    conclusion = Peer(configuration(keys)).connect().send(message(), macros=ALICE)
    assert "PRIVATE" not in repr(conclusion)
    key = SigningKey.load(keys / "ed.pem", domain="us.test", selector="e1")
    assert repr(key) == "SigningKey(e1._domainkey.us.test, ed25519-sha256, 256 bits)"


@pytest.mark.attack("D49")
def test_a_domain_whose_name_is_too_long_for_a_file_has_no_key(keys: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    pattern = {"key_pattern": str(tmp_path / "{domain}.{selector}.pem"), "key_selectors": ["s" * 60]}
    ring = KeyRing(configuration(keys, sign=pattern))
    assert ring.keys_for(Domain.parse(".".join(["a" * 60] * 4))) == ()


@pytest.mark.attack("D49")
def test_a_key_out_of_sight_is_a_key_error(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    pattern = {"key_pattern": str(tmp_path / "{domain}" / "{selector}.pem"), "key_selectors": ["s"]}
    ring = KeyRing(configuration(keys, sign=pattern))
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(KeyFileError, match=r"closed\.test/s\.pem cannot be examined: Permission denied"):
        ring.keys_for(Domain.parse("closed.test"))


def test_the_group_may_read_keys_where_the_configuration_says_so(keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "third.test" / "s.pem"
    write_key(path, generate_ed25519())
    path.chmod(0o640)
    rule = {"selectors": [{"name": "s", "key_file": str(path)}]}
    pattern = {"key_pattern": str(tmp_path / "{domain}" / "{selector}.pem"), "key_selectors": ["s"]}
    for domains in ({}, {"third.test": rule}):
        permissive = configuration(keys, domains=domains, sign={**pattern, "key_permissions": "group"})
        assert selectors(KeyRing(permissive), "third.test") == [("third.test", "s")]
    with pytest.raises(KeyFileError, match="0640"):
        KeyRing(configuration(keys, domains={"third.test": rule}, sign=pattern))


def test_a_key_is_the_one_that_the_rotation_made(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another one nobody could verify what it signs, by the record that is published."""
    path = tmp_path / "third.test" / "s.pem"
    write_key(path, generate_ed25519())
    made = SigningKey.load(path, domain="third.test", selector="s").fingerprint
    named = NamedKey("s", str(path), made)
    monkeypatch.setattr(keyring, "signing_keys", lambda domain, rule: (named,))
    config = configuration(keys, domains={"third.test": {"selectors": [{"name": "s", "key_file": str(path)}]}})
    assert selectors(KeyRing(config), "third.test") == [("third.test", "s")]
    write_key(path, generate_ed25519())
    with pytest.raises(KeyFileError, match="it is not the key that mailguard key rotate made; put that back"):
        KeyRing(config)


def test_a_key_whose_numbers_do_not_belong_together_is_found_where_it_is_looked_for(
    keys: Path, tmp_path: Path
) -> None:
    """As with --check-config; a daemon with thousands of keys has no time for it."""
    path = tmp_path / "third.test" / "s.pem"
    one, other = (rsa_key(1024, number).private_numbers() for number in range(2))
    wrong = rsa.RSAPrivateNumbers(one.p, one.q, one.d, other.dmp1, one.dmq1, one.iqmp, one.public_numbers)
    write_key(path, pem(wrong.private_key(unsafe_skip_rsa_key_validation=True)))
    config = configuration(keys, domains={"third.test": {"selectors": [{"name": "s", "key_file": str(path)}]}})
    assert selectors(KeyRing(config), "third.test") == [("third.test", "s")]
    with pytest.raises(KeyFileError, match="numbers"):
        Service.open(config, check=KeyCheck.FULL)
