"""The configuration: what loads, what is refused, and in which words."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest

from mailguard.cli.doctor_child import Person, run_as
from mailguard.config import (
    Config,
    DnsConfig,
    DomainRule,
    Listener,
    LogConfig,
    Mode,
    NetworkRule,
    SignConfig,
    SocketAddress,
    VerifyConfig,
    load,
    parse,
)
from mailguard.config_file import MAX_SENTENCES
from mailguard.config_inbound import DmarcConfig, ResultsConfig, SpfConfig, TraceConfig
from mailguard.errors import ConfigError
from mailguard.judging import inbound_rules
from sandbox_place import make_public_directory

NOBODY = Person("nobody", 65534, 65534, ())
EXAMPLE = Path(__file__).resolve().parent.parent / "contrib" / "mailguard.toml"


def write(directory: Path, text: str | bytes) -> Path:
    file = directory / "mailguard.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(0o644)
    return file


def refusal(file: Path) -> list[str]:
    """What load says of `file`, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    return [line.removeprefix(f"{file}:").lstrip() for line in lines]


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, 'authserv_id = "mx.example.com"'))
    assert config.mode is Mode.MONITOR
    assert (config.user, config.runtime_directory) == ("mailguard", "/run/mailguard")
    assert (config.log.destination, config.log.format) == ("syslog", "logfmt")
    assert (config.dns.nameservers, config.dns.port, config.dns.deadline_s) == ((), 53, 8.0)
    assert [listener.address for listener in config.listeners] == ["unix:/run/mailguard/mailguard.sock"]
    assert config.listeners[0].mode_bits == 0o660
    assert config.sign.daemon_names == ("ORIGINATING",)
    assert config.sign.networks == ()
    assert config.sign.key_selectors == ()
    assert config.domains == {}
    assert (config.verify.max_signatures, config.verify.body_length) == (10, "policy")


def test_the_default_authserv_id_is_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "mx.example.org")
    assert load(write(tmp_path, "")).authserv_id == "mx.example.org"
    monkeypatch.setattr("socket.getfqdn", lambda: "my host")
    (said,) = refusal(write(tmp_path, ""))
    assert said == (
        'authserv_id: "my host" cannot name this host in Authentication-Results;'
        " set authserv_id to a domain name of yours"
    )
    (said,) = refusal(write(tmp_path, 'authserv_id = "mx.bücher.example"\n'))
    assert said.endswith('set authserv_id to its A-labels: "mx.xn--bcher-kva.example"')


def test_the_example_loads_and_what_it_comments_out_is_the_default(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    example = load(write(tmp_path, text))
    assert example.domains["example.com"].selectors[1].name == "mg202601e"
    # Lines that are marked as examples are not defaults; all other commented keys are.
    uncommented = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and "example" not in line else line
        for line in text.splitlines()
        if not line.startswith(("#   ", "# [[listeners]]", "# address", "# group", "# allow_remote"))
    ]
    full = load(write(tmp_path, "\n".join(uncommented)))
    assert "lifetime_days" in full.sign.model_fields_set
    assert full == example


def test_every_key_of_the_model_is_in_the_example() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    named = {line.lstrip("# ").partition(" = ")[0] for line in text.splitlines() if " = " in line}
    tables = {line.strip("# []").split(".")[0] for line in text.splitlines() if line.strip("# ").startswith("[")}
    shown = (LogConfig, DnsConfig, Listener, SignConfig, NetworkRule, DomainRule, VerifyConfig)
    for section in (Config, *shown, SpfConfig, DmarcConfig, ResultsConfig, TraceConfig):
        assert set(section.model_fields) <= named | tables, section
    assert {"malformed", "trusted_temperror", "internal_networks", "dmarc", "spf"} <= named


def test_values_are_normalised(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            """
            authserv_id = "mx.example.com"
            [dns]
            zone_file = "demo.zone"
            [sign]
            key_pattern = "keys/{domain}/{selector}.pem"
            key_selectors = ["S1"]
            [[sign.networks]]
            networks = ["192.0.2.1", "2001:db8::/32"]
            domains = ["EXAMPLE.com", "bücher.example"]
            [domains."Bücher.Example"]
            subdomains = true
            selectors = [{ name = "Sel_1", key_file = "k.pem" }, { name = "b", key_file = "/k/b.pem" }]
            """,
        )
    )
    assert config.dns.zone_file == f"{tmp_path}/demo.zone"
    assert config.sign.key_pattern == f"{tmp_path}/keys/{{domain}}/{{selector}}.pem"
    assert config.sign.key_selectors == ("s1",)
    rule = config.sign.networks[0]
    assert rule.networks == (ip_network("192.0.2.1/32"), ip_network("2001:db8::/32"))
    assert rule.domains == ("example.com", "xn--bcher-kva.example")
    assert list(config.domains) == ["xn--bcher-kva.example"]
    selectors = config.domains["xn--bcher-kva.example"].selectors
    assert [(each.name, each.key_file) for each in selectors] == [("sel_1", f"{tmp_path}/k.pem"), ("b", "/k/b.pem")]
    with pytest.raises(ValueError, match="frozen"):
        config.mode = Mode.ENFORCE


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:/run/m.sock", SocketAddress("unix", path="/run/m.sock")),
        ("inet:127.0.0.1:8891", SocketAddress("inet", ip=IPv4Address("127.0.0.1"), port=8891)),
        ("inet6:[::1]:8891", SocketAddress("inet6", ip=IPv6Address("::1"), port=8891)),
    ],
)
def test_listening_addresses(address: str, expected: SocketAddress) -> None:
    listener = Listener(address=address)
    assert listener.socket_address == expected
    assert listener.socket_address.is_local


DOMAIN_RULE = '[domains."example.com"]\nselectors = [{ name = "s", key_file = "/k.pem" }]\n'

REFUSED = [
    # id, configuration, the whole refusal
    ("unknown-key", 'mdoe = "monitor"', ['1: mdoe: unknown key, did you mean "mode"?']),
    (
        "unknown-key-nested",
        "\n[sign]\nlifetme_days = 7",
        ['3: sign.lifetme_days: unknown key, did you mean "lifetime_days"?'],
    ),
    (
        "unknown-key-in-a-rule",
        DOMAIN_RULE + "subdomain = true",
        ['3: domains."example.com".subdomain: unknown key, did you mean "subdomains"?'],
    ),
    (
        "key-of-another-table",
        'canonicalization = "relaxed/relaxed"',
        ["1: canonicalization: unknown key, it belongs in [sign]"],
    ),
    ("key-after-a-table", '[log]\nmode = "enforce"', None),
    ("unknown-table", "[zzz]\na = 1", None),
    (
        "mode",
        'mode = "enforced"',
        ['1: mode: must be "monitor" or "enforce", not "enforced"; did you mean "enforce"?'],
    ),
    ("mode-type", "mode = true", ['1: mode: must be "monitor" or "enforce", not true']),
    ("number-in-quotes", '[dns]\nport = "53"', ['2: dns.port: must be a whole number, not "53"']),
    ("number-from-boolean", "[dns]\nport = true", ["2: dns.port: must be a whole number, not true"]),
    ("port-range", "[dns]\nport = 65536", ["2: dns.port: must be at most 65535, not 65536"]),
    ("float-range", "[dns]\ndeadline_s = 0.0", ["2: dns.deadline_s: must be more than 0.0, not 0.0"]),
    ("float-infinite", "[dns]\nquery_timeout_s = nan", None),
    ("deadline-above-postfix", "[dns]\ndeadline_s = 26", ["2: dns.deadline_s: must be at most 25.0, not 26"]),
    (
        "boolean",
        DOMAIN_RULE + 'subdomains = "yes"',
        ['3: domains."example.com".subdomains: must be true or false, not "yes"'],
    ),
    ("text", "user = 5", ["1: user: must be text in quotes, not 5"]),
    ("empty-text", 'user = ""', ["1: user: must not be empty or hold a NUL"]),
    (
        "list",
        '[dns]\nnameservers = "127.0.0.1"',
        ['2: dns.nameservers: must be a list in square brackets, not "127.0.0.1"'],
    ),
    ("table", "dns = 5", ["1: dns: must be a table, not 5"]),
    ("nameserver-by-name", '[dns]\nnameservers = ["ns.example.com"]', None),
    ("no-listeners", "listeners = []", ["1: listeners: must have at least one entry"]),
    ("listener-twice", '[[listeners]]\naddress = "unix:/a"\n[[listeners]]\naddress = "unix:/a"', None),
    (
        "second-listener",
        "[[listeners]]\n[[listeners]]\n\nworkers = 0",
        ["4: listeners[1].workers: must be at least 1, not 0"],
    ),
    ("mode-number", "[[listeners]]\nmode = 0o660", ["2: listeners[0].mode: must be text in quotes, not 432"]),
    (
        "mode-text",
        '[[listeners]]\nmode = "rw-rw----"',
        ['2: listeners[0].mode: "rw-rw----" is not a mode in octal; write it as in "0660"'],
    ),
    (
        "network-host-bits",
        '[[sign.networks]]\nnetworks = ["10.0.0.1/8"]\ndomains = ["a.test"]',
        ['2: sign.networks[0].networks[0]: "10.0.0.1/8" has bits set beside the network; did you mean 10.0.0.0/8?'],
    ),
    ("network-everywhere", '[[sign.networks]]\nnetworks = ["::/0"]\ndomains = ["a.test"]', None),
    (
        "network-without-domains",
        '[[sign.networks]]\nnetworks = ["10.0.0.0/8"]\ndomains = []',
        ["3: sign.networks[0].domains: must have at least one entry"],
    ),
    ("network-any-domain", '[[sign.networks]]\nnetworks = ["10.0.0.0/8"]\ndomains = ["*"]', None),
    ("domain", '[domains."ex ample"]\nselectors = [{ name = "s", key_file = "/k" }]', None),
    ("domain-twice", DOMAIN_RULE + DOMAIN_RULE.replace("example.com", "Example.COM"), None),
    ("selector", DOMAIN_RULE.replace('"s"', '"../s"'), None),
    ("selector-twice", DOMAIN_RULE.replace("}]", '}, { name = "S", key_file = "/j" }]'), None),
    (
        "pattern-without-selector",
        '[sign]\nkey_selectors = ["s"]\nkey_pattern = "/k/{domain}.pem"',
        ['3: sign.key_pattern: "/k/{domain}.pem" must hold {selector}, or several keys would be one file'],
    ),
    ("pattern-without-domain", '[sign]\nkey_selectors = ["s"]\nkey_pattern = "/k/{selector}.pem"', None),
    ("pattern-with-more", '[sign]\nkey_selectors = ["s"]\nkey_pattern = "/k/{domain}/{selector}/{user}"', None),
    ("pattern-with-attribute", '[sign]\nkey_selectors = ["s"]\nkey_pattern = "/{domain}{selector}{domain.x}"', None),
    ("pattern-unused", '[sign]\nkey_pattern = "/k/{domain}/{selector}"', None),
    ("canonicalization", '[sign]\ncanonicalization = "relaxed"', None),
    ("authserv-id-empty", 'authserv_id = ""', None),
    ("authserv-id-two-words", 'authserv_id = "mx example"', None),
    ("authserv-id-semicolon", 'authserv_id = "mx;x"', None),
    ("authserv-id-non-ascii", 'authserv_id = "mx.bücher.example"', None),
    ("strip-header", '[verify]\nstrip_headers = ["X Spam"]', None),
    (
        "syntax",
        'mode = "monitor"\n[sign\n',
        ["2: not TOML: Expected ']' at the end of a table declaration (column 6)"],
    ),
    ("syntax-at-the-end", 'mode = """', None),
    ("key-twice", 'user = "a"\nuser = "b"\n', ["2: not TOML: Cannot overwrite a value (column 11)"]),
    ("not-utf-8", b'mode = "monitor"\nuser = "\xff"', ["2: not TOML: the file is not UTF-8"]),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(tmp_path: Path, text: str | bytes, expected: list[str] | None) -> None:
    said = refusal(write(tmp_path, text))
    if expected is not None:
        assert said == expected
    else:
        # One problem, one sentence; the line is part of it.
        assert len(said) == 1, said
        assert said[0].partition(":")[0].isdigit(), said


def test_of_thousands_of_problems_the_first_are_told(tmp_path: Path) -> None:
    """A program that writes the domains of a provider makes its mistake with each."""
    many = "".join(f'[domains."d{number}.test"]\nselector = []\n' for number in range(MAX_SENTENCES + 30))
    told = refusal(write(tmp_path, many))
    assert len(told) == MAX_SENTENCES + 1
    assert told[0].startswith("2: ")
    assert told[-1].endswith("and 30 problems more")


def test_all_problems_are_told_in_the_order_of_the_lines(tmp_path: Path) -> None:
    said = refusal(
        write(
            tmp_path,
            """\
            bogus = 1
            [dns]
            nameservers = [
              "127.0.0.1",
              "nowhere",
            ]
            port = 0
            [[listeners]]
            [[listeners]]
            address = "inet:nowhere"
            [domains."a.test"]
            [[domains."b.test".selectors]]
            name = "s"
            """,
        )
    )
    places = [line.split(": ")[:2] for line in said]
    assert places == [
        ["1", "bogus"],
        ["3", "dns.nameservers[1]"],
        ["7", "dns.port"],
        ["10", "listeners[1].address"],
        ["11", 'domains."a.test"'],
        ["12", 'domains."b.test".selectors[0].key_file'],
    ]


@pytest.mark.attack("D12")
@pytest.mark.parametrize("key", ["body_length_limit", "body_length", "l", "length", "BodyLengths"])
def test_signing_with_a_body_length_is_refused_with_the_reason(tmp_path: Path, key: str) -> None:
    for text in (f"[sign]\n{key} = true", DOMAIN_RULE + f"{key} = 5"):
        (said,) = refusal(write(tmp_path, text))
        assert "unknown key; mailguard never signs with a body length (l=)" in said
        assert "append" in said


def test_verifying_has_a_body_length_key_of_its_own(tmp_path: Path) -> None:
    assert load(write(tmp_path, '[verify]\nbody_length = "accept-whole"')).verify.body_length == "accept-whole"


@pytest.mark.attack("D50")
@pytest.mark.parametrize(
    "rule",
    [
        "subdomains = true",
        "selectors = []",
        'rotation = "/r"\nselectors = [{ name = "s", key_file = "/k" }]',
    ],
)
def test_a_domain_without_a_key_is_refused_with_its_line(tmp_path: Path, rule: str) -> None:
    (said,) = refusal(write(tmp_path, f'mode = "monitor"\n\n[domains."foo.test"]\n{rule}\n'))
    line, key, what = said.split(": ", 2)
    assert (line, key) == ("3", 'domains."foo.test"')
    assert "give selectors, or rotation" in what


@pytest.mark.attack("K09")
@pytest.mark.parametrize(
    "address", ["inet:0.0.0.0:8891", "inet:192.0.2.1:8891", "inet6:[::]:8891", "inet6:[2001:db8::1]:8891"]
)
def test_an_address_that_others_reach_needs_leave(tmp_path: Path, address: str) -> None:
    text = f'[[listeners]]\naddress = "{address}"\n'
    (said,) = refusal(write(tmp_path, text))
    assert "allow_remote = true" in said
    assert load(write(tmp_path, text + "allow_remote = true")).listeners[0].socket_address.port == 8891


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/run/m.sock",
        "local:/run/m.sock",
        "unix:run/m.sock",
        "unix:/run/",
        "unix:/" + "x" * 107,
        "inet:8891@127.0.0.1",
        "inet:localhost:8891",
        "inet:127.0.0.1",
        "inet:127.0.0.1:0",
        "inet:127.0.0.1:65536",
        "inet:[::1]:8891",
        "inet6:::1:8891",
        "inet6:[127.0.0.1]:8891",
    ],
)
def test_what_is_not_a_listening_address(tmp_path: Path, address: str) -> None:
    (said,) = refusal(write(tmp_path, f'[[listeners]]\naddress = "{address}"\n'))
    assert said.startswith("2: listeners[0].address: ")


@pytest.mark.attack("K10")
def test_a_file_that_every_user_can_write_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    file.chmod(0o646)
    (said,) = refusal(file)
    assert "every user can write to it" in said


@pytest.mark.attack("K10")
def test_a_directory_above_that_every_user_can_write_is_refused(tmp_path: Path) -> None:
    below = tmp_path / "open" / "below"
    below.mkdir(parents=True)
    file = write(below, "")
    load(file)
    (tmp_path / "open").chmod(0o777)
    (said,) = refusal(file)
    assert f"every user can write to the directory {tmp_path}/open" in said
    # Through a symbolic link the same holds for where the file really is.
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert "every user can write to the directory" in refusal(link)[0]
    # Nobody but its owner can replace an entry of a sticky directory.
    (tmp_path / "open").chmod(0o777 | stat.S_ISVTX)
    load(file)


@pytest.mark.attack("K10")
@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to others")
def test_an_entry_of_a_sticky_directory_that_is_anothers_is_refused() -> None:
    directory = make_public_directory("mailguard-config-")
    try:
        (directory / "entry").mkdir()
        file = write(directory / "entry", "")
        directory.chmod(0o1777)
        found = []
        for owner in (NOBODY.uid, NOBODY.uid + 1):
            os.chown(directory / "entry", owner, -1)
            found.append(run_as(NOBODY, lambda: {"mode": load(file).mode.value}, timeout_s=20))
    finally:
        shutil.rmtree(directory)
    assert found[0] == {"mode": "monitor"}
    assert "every user can write to the directory" in str(found[1]["error"])


@pytest.mark.attack("K10")
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone has more to lose than its own")
def test_root_takes_orders_from_root_alone(tmp_path: Path) -> None:
    """Or the daemon's user, who owns the file because it has a password in it, names a program for root to run."""
    directory = tmp_path / "etc"
    directory.mkdir()
    file, link = write(directory, ""), tmp_path / "link.toml"
    link.symlink_to(file)
    for place in (file, directory):
        mode = stat.S_IMODE(place.stat().st_mode)
        os.chown(place, 65534, 65534)
        assert f"{place} belongs to another user (uid 65534)" in refusal(file)[0]
        assert f"run: chown root {place}" in refusal(link)[0].replace(str(link), str(file))
        os.chown(place, 0, 65534)
        load(file)
        place.chmod(mode | stat.S_IWGRP)
        assert f"run: chmod g-w {place}" in refusal(file)[0]
        os.chown(place, 0, 0)
        load(link)
        place.chmod(mode)


@pytest.mark.attack("K10")
@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", "a\\u0000b"])
def test_a_name_cannot_lead_out_of_the_key_directory(tmp_path: Path, name: str) -> None:
    assert refusal(write(tmp_path, f'[sign]\nkey_selectors = ["{name}"]'))
    assert refusal(write(tmp_path, f'[domains."{name}"]\nselectors = [{{ name = "s", key_file = "/k" }}]'))


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, what in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "not a regular file"),
        (fifo, "not a regular file"),
        (loop, "Too many levels"),
    ):
        assert what in refusal(path)[0]
    with pytest.raises(ConfigError, match="not the name of a file"):
        load("a\0b")


def test_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    assert load(write(tmp_path, b'\xef\xbb\xbfmode = "enforce"\r\n[sign]\r\n')).mode is Mode.ENFORCE
    assert refusal(write(tmp_path, b'\xef\xbb\xbfmode = "enforce"\r\n\r\nx = 1\r\n'))[0].startswith("3: x: ")


def test_the_line_is_right_after_values_of_several_lines(tmp_path: Path) -> None:
    text = 'user = """\n[sign]\nbogus = 1\n"""\n[sign]\nkey_selectors = [ # a comment ]\n  "a",\n]\nbogus = 1\n'
    assert [line.split(": ")[:2] for line in refusal(write(tmp_path, text))] == [["9", "sign.bogus"]]


def run_without(packages: list[str], program: str) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys\nfor name in {packages!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", blocked + program], capture_output=True, text=True, check=False)


def test_the_library_does_not_need_the_extra() -> None:
    program = "import mailguard, mailguard.pipeline, mailguard.dns.live"
    done = run_without(["pydantic", "pydantic_core", "click", "rich"], program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["pydantic", "pydantic_core"])
def test_a_missing_extra_is_named(package: str) -> None:
    program = (
        "from mailguard.errors import MissingExtraError\n"
        "try:\n    import mailguard.config\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = run_without([package], program)
    assert "pip install 'mailguard-milter[cli]'" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[domains.example.com]\nselectors = []\n",
            'domains.example.com: unknown key; a domain has quotes: write [domains."example.com"]',
        ),
        ("[listeners]\nworkers = 1\n", "listeners: is a list of tables: write [[listeners]], with two brackets"),
        ("mode = enforce\n", "not TOML: Invalid value; text needs quotes"),
        (
            '[domains."us.test"]\nkey_file = "k"\n',
            'it belongs in [[domains."example.com".selectors]]',
        ),
        ("[[listeners]]\nmode = 0660\n", "after a statement; text needs quotes (column 9)"),
        (
            '[domains."*.us.test"]\nsubdomains = true\n',
            '"*.us.test" is not a domain name: write "us.test", and subdomains = true in its table',
        ),
        (
            '[domains."us.test"]\nselectors = [{ name = "s1._domainkey.us.test", key_file = "k" }]\n',
            'is not a selector: it is what stands before ._domainkey: write "s1"',
        ),
        ('[verify]\nstrip_headers = ["From"]\n', "a field that a message cannot do without"),
        ('[[listeners]]\nmode = "0666"\n', "lets every user connect"),
    ],
    ids=[
        "domain without quotes",
        "one bracket",
        "word without quotes",
        "wrong table",
        "octal number",
        "pattern",
        "name of the record",
        "From stripped",
        "open socket",
    ],
)
def test_common_mistakes_are_told_with_the_remedy(tmp_path: Path, text: str, told: str) -> None:
    assert any(told in line for line in refusal(write(tmp_path, text)))


JUDGING: list[tuple[str, str, str]] = [
    (
        "a domain twice",
        '[policy.domains."example.com"]\nsubdomains = true\n[policy.domains."EXAMPLE.com"]\nsubdomains = false',
        '"EXAMPLE.com" and "example.com" are the same domain',
    ),
    (
        "a domain without quotes",
        "[policy.domains.example.com]\nsubdomains = true",
        'a domain has quotes: write [policy.domains."example.com"]',
    ),
    ("a list that is not used", '[dmarc]\nsuffix_list = "x.dat"', 'only with organizational_domain = "psl"'),
    (
        "a rule for what is not checked",
        '[spf]\ncheck_helo = false\n[policy.helo]\nfail = "reject"',
        "policy.helo has no effect with check_helo = false",
    ),
    ("nobody is trusted", '[[trusted]]\ntype = "mailing_list"', "it trusts nobody"),
    ("everybody is trusted", '[[trusted]]\ntype = "mailing_list"\ndkim = ["com"]', '"com" is a top-level domain'),
    ("every address", '[[trusted]]\ntype = "local_policy"\nnetworks = ["0.0.0.0/0"]', "every address there is"),
    (
        "IPv4 in IPv6 form",
        '[[trusted]]\ntype = "local_policy"\nnetworks = ["::ffff:198.51.100.0/120"]',
        "write 198.51.100.0/24",
    ),
    (
        "trusted domains",
        '[[trusted]]\ntype = "mailing_list"\ndomains = ["a.test"]',
        "by what the domain is verified",
    ),
    ("a fault of the DNS that refuses", '[policy.dmarc]\ntemperror = "reject"', '"tempfail"'),
    ("a misspelt action", '[policy.dmarc]\nreject = "rejct"', 'did you mean "reject"?'),
    ("a misspelt table", "[policy.dmark]\n", 'did you mean "dmarc"?'),
    ("a misplaced action", '[spf]\nfail = "reject"', "[policy.spf]"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in JUDGING], ids=[row[0] for row in JUDGING])
def test_what_is_wrong_with_the_judging_is_told(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(refusal(write(tmp_path, text)))


def test_a_rule_about_the_clients_name_has_it_looked_up(tmp_path: Path) -> None:
    assert not inbound_rules(load(write(tmp_path, ""))).checks_iprev
    assert inbound_rules(load(write(tmp_path, '[policy.iprev]\nfail = "reject"'))).checks_iprev
    trusted = '[[trusted]]\ntype = "trusted_forwarder"\nptr = ["forward.test"]'
    assert inbound_rules(load(write(tmp_path, trusted))).checks_iprev


def test_a_text_is_what_a_file_of_it_would_be(tmp_path: Path) -> None:
    text = '[domains."us.test"]\nselectors = [{ name = "s", key_file = "keys/s.pem" }]\n'
    file = tmp_path / "mailguard.toml"
    file.write_text(text)
    assert parse(text, path=str(file)) == load(file)
    with pytest.raises(ConfigError, match=r"^/etc/new\.toml:2: mod: unknown key, did you mean"):
        parse('# one\nmod = "enforce"', path="/etc/new.toml")
