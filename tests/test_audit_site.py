"""`mailguard audit` with the real postconf(1) on configuration directories of its own, and what users do wrong."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from audit_host import CERTIFICATE, KEY, NOW, TABLE
from audit_site import POSTCONF, Site
from cli_process import PYTHON, Command, is_told_in_one_line, on_a_terminal

needs_postfix = pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed")
# Root owns the configuration of a hardened host.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of root are made")
pytestmark = [needs_postfix, needs_root]

PATH = "/usr/sbin:/usr/bin:/bin"
SECONDS = str(int(NOW))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def options(site: Site) -> list[str]:
    return ["audit", "--root", str(site.root), "--now", SECONDS]


def findings(command: Command, site: Site, *more: str) -> tuple[int, dict[str, Any]]:
    done = command(*options(site), "--json", *more)
    assert done.err == ""
    return done.code, json.loads(done.out)


def found_in(report: dict[str, Any]) -> set[str]:
    return {each["check"] for each in report["findings"]}


def test_a_hardened_host(mailguard_command: Command, site: Site) -> None:
    code, report = findings(mailguard_command, site)
    assert (report["findings"], report["unclear"]) == ([], [])
    assert (code, report["worst"]) == (0, None)
    assert len(report["passed"]) >= 25
    text = mailguard_command(*options(site)).out
    assert text.startswith("Postfix 3.")
    assert "nothing is found" in text


def test_nothing_is_changed(mailguard_command: Command, site: Site) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in site.root.rglob("*")}
    mailguard_command(*options(site))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in site.root.rglob("*")} == before


def test_files_around_postfix(mailguard_command: Command, site: Site) -> None:
    site.write_certificate("www.example.com", days=3)
    (site.root / KEY[1:]).chmod(0o640)
    os.chown(site.root / KEY[1:], 0, 109)
    site.write(TABLE, "user = root\npassword = x\n", 0o644)
    site.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    site.write("/etc/fail2ban/jail.d/postfix.local", "[postfix-sasl]\nenabled = false\n")
    (site.config_directory / "main.cf").chmod(0o666)
    code, report = findings(mailguard_command, site)
    assert found_in(report) == {
        "certificate-renewed",
        "certificate-name",
        "private-key",
        "database-user",
        "password-files",
        "resolver-local",
        "login-guard",
        "configuration-files",
    }
    assert (code, report["worst"]) == (3, "critical")


def test_tables_and_programs_around_postfix(mailguard_command: Command, site: Site) -> None:
    site.write_postfix(
        {
            "mynetworks": "/etc/postfix/networks cidr:/etc/postfix/more",
            "smtp_sasl_password_maps": "hash:/etc/postfix/p",
        }
    )
    site.write("/etc/postfix/networks", "127.0.0.0/8\n# 1.0.0.0/8\n\n[::1]/128 ours\n")
    site.write("/etc/postfix/more", "10.0.0.0/8 OK\n")
    site.write("/etc/postfix/p", "[relay.example.net] user:secret\n", 0o600)
    site.write("/etc/postfix/p.db", "", 0o600)
    assert findings(mailguard_command, site)[0] == 0
    site.write("/etc/postfix/more", "10.0.0.0/8 OK\n93.0.0.0/8 OK\n")
    site.write("/etc/postfix/p.db", "", 0o644)
    site.write("/etc/postfixadmin/config.local.php", "<?php\n// $CONF\n$CONF['database_user'] = 'pfa';\n")
    site.write(TABLE, "user = pfa\npassword = x\n", 0o640)
    (site.root / "usr/bin/fail2ban-client").unlink()
    (site.root / "etc/unbound/unbound.conf.d/a.conf").unlink()
    site.write("/etc/mailguard/mailguard.toml", '[senders]\nsources = ["inline"]\n[[listeners]]\naddress = "x"\n')
    wanted = {"trusted-networks", "password-files", "database-user", "login-guard", "resolver-validates"}
    assert found_in(findings(mailguard_command, site)[1]) == wanted | {"mailguard-enforces"}
    site.write("/usr/sbin/crowdsec", "")
    assert found_in(findings(mailguard_command, site)[1]) == wanted - {"login-guard"} | {"mailguard-enforces"}


def test_a_user_without_rights_is_told_what_is_not_known(site: Site) -> None:
    reachable(site)
    site.write_postfix({"smtp_sasl_password_maps": "hash:/etc/ssl/mail/passwords"})
    (site.root / KEY[1:]).parent.chmod(0o700)
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *PYTHON, *options(site), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("this Python is for root alone")
    report = json.loads(done.stdout)
    assert (done.returncode, report["findings"]) == (1, [])
    assert {each["check"] for each in report["unclear"]} == {
        "certificate-present",
        "database-user",
        "password-files",
        "private-key",
    }


OURS = """mode = "enforce"
[senders]
sources = ["inline"]
[senders.actions]
envelope = "{envelope}"
header_from = "log"
[[listeners]]
address = "unix:/var/spool/postfix/mailguard/mailguard.sock"
role = "{role}"
"""


@pytest.mark.parametrize(
    ("role", "envelope", "wanted"),
    [
        ("auto", "reject", set()),
        ("auto", "log", {"sender-login"}),
        ("verify", "reject", {"sender-login"}),
        ("sign", "quarantine", {"authentication"}),
    ],
)
def test_what_mailguard_does_is_read_from_its_configuration(
    mailguard_command: Command, site: Site, role: str, envelope: str, wanted: set[str]
) -> None:
    site.write_postfix({"smtpd_sender_login_maps": "-"})
    site.write("/etc/mailguard/mailguard.toml", OURS.format(role=role, envelope=envelope))
    assert found_in(findings(mailguard_command, site)[1]) == wanted


def reachable(site: Site) -> None:
    """For other users than root."""
    for path in (site.root, *site.root.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o055)


@pytest.mark.parametrize(
    ("changes", "code"), [({"smtpd_banner": "ESMTP 3.7"}, 0), ({"disable_vrfy_command": "no"}, 1)]
)
def test_exit_codes_below(mailguard_command: Command, site: Site, changes: dict[str, str], code: int) -> None:
    site.write_postfix(changes)
    assert findings(mailguard_command, site)[0] == code


BROKEN = {
    "disable_vrfy_command": "no",
    "local_recipient_maps": "",
    "milter_default_action": "accept",
    "mynetworks": "127.0.0.0/8 0.0.0.0/0",
    "smtp_dns_support_level": "-",
    "smtp_tls_CAfile": "-",
    "smtp_tls_mandatory_protocols": "!SSLv2, !SSLv3",
    "smtp_tls_security_level": "-",
    "smtp_tls_session_cache_timeout": "3d",
    "smtpd_banner": "$myhostname ESMTP $mail_name ($mail_version)",
    "smtpd_client_auth_rate_limit": "-",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_connection_rate_limit": "-",
    "smtpd_client_message_rate_limit": "-",
    "smtpd_forbid_bare_newline": "no",
    "smtpd_forbid_unauth_pipelining": "no",
    "smtpd_hard_error_limit": "1000",
    "smtpd_helo_required": "no",
    "smtpd_helo_restrictions": "-",
    "smtpd_helo_requierd": "yes",
    "smtpd_milters": "-",
    "smtpd_recipient_restrictions": "$mine, permit",
    "mine": "check_recipient_access hash:/etc/postfix/x",
    "smtpd_relay_restrictions": "permit",
    "smtpd_sender_restrictions": "-",
    "smtpd_tls_auth_only": "no",
    "smtpd_tls_ciphers": "low",
    "smtpd_tls_mandatory_protocols": "-",
    "smtpd_tls_protocols": "-",
    "smtpd_tls_security_level": "none",
    "soft_bounce": "yes",
    "tls_ssl_options": "-",
}
BROKEN_SERVICES = {
    "smtp/unix": {"smtp_tls_mandatory_protocols": ">=TLSv1.1", "smtp_typo": "yes"},
    "submission/inet": {
        "smtpd_tls_security_level": "may",
        "smtpd_relay_restrictions": "-",
        "smtpd_sender_restrictions": "check_sender_access,hash:/etc/postfix/x,permit_sasl_authenticated",
        "smtpd_sasl_security_options": "noplaintext",
    },
    "smtp/inet": {"smtpd_sasl_auth_enable": "yes", "milter_macro_daemon_name": "ORIGINATING"},
}


def test_the_commands_put_it_right(mailguard_command: Command, site: Site) -> None:
    """Each one run in a shell, in the order in which it is shown, all against the same files."""
    site.write_postfix(BROKEN, BROKEN_SERVICES)
    code, report = findings(mailguard_command, site)
    broken = found_in(report)
    assert code == 3
    assert len(broken) >= 30, sorted(broken)
    for _ in range(2):
        # The second round mends what the first has brought to light: TLS that is now offered has its versions.
        commands = [each for one in report["findings"] for each in one["fix"] if each.startswith("postconf")]
        assert all(f"-c {site.config_directory}" in each.replace("'", "") for each in commands)
        # Postfix waits until a main.cf that has just been written is a second old.
        lines = [f"{each}\ntouch -d '1 hour ago' {site.config_directory}/*.cf" for each in commands]
        script = ["/bin/sh", "-ec", "\n".join(lines)]
        done = subprocess.run(script, capture_output=True, text=True, check=False, env={"PATH": PATH})
        assert done.returncode == 0, done.stderr
        assert "fatal" not in done.stderr
        code, report = findings(mailguard_command, site)
    # mailguard postconf --apply has tests of its own.
    assert found_in(report) == {"authentication"}, report["findings"]
    main = (site.config_directory / "main.cf").read_text()
    assert "$mine" in main or "check_recipient_access hash:/etc/postfix/x" in main


def test_a_service_is_judged_by_what_holds_in_it(mailguard_command: Command, site: Site) -> None:
    site.write_postfix(
        {"smtpd_tls_auth_only": "no", "my_level": "may"},
        {"submission/inet": {"smtpd_tls_security_level": "$my_level"}},
    )
    code, report = findings(mailguard_command, site)
    assert code == 3
    assert {(each["check"], each["place"]) for each in report["findings"]} == {
        ("submission-encrypted", "submission/inet"),
        ("login-under-tls", "submission/inet"),
    }


# -- the baseline --------------------------------------------------------------------------------------------------


def test_a_baseline_accepts_what_is_known_and_nothing_else(mailguard_command: Command, site: Site) -> None:
    site.write_postfix({"mynetworks": "127.0.0.0/8 93.0.0.0/8", "disable_vrfy_command": "no"})
    known = site.root / "known.json"
    done = mailguard_command(*options(site), "--write-baseline", str(known))
    assert (done.code, done.err) == (0, "")
    assert "2 findings" in done.out
    assert stat.S_ISREG(known.stat().st_mode)
    code, report = findings(mailguard_command, site, "--baseline", str(known))
    assert (code, report["findings"], len(report["accepted"]), report["gone"]) == (0, [], 2, [])
    # It has got worse: that is another finding. The other one is mended.
    site.write_postfix({"mynetworks": "127.0.0.0/8 93.0.0.0/8 94.0.0.0/8"})
    code, report = findings(mailguard_command, site, "--baseline", str(known))
    assert (code, found_in(report), report["accepted"]) == (3, {"trusted-networks"}, [])
    assert [each["check"] for each in report["gone"]] == ["trusted-networks", "vrfy-disabled"]
    text = mailguard_command(*options(site), "--baseline", str(known)).out
    assert "no longer there, though accepted: vrfy-disabled" in text


MALFORMED = [
    ("", "not a baseline"),
    ("{", "not a baseline"),
    ("[]", '"baseline": 1 is missing'),
    ('{"baseline": 2, "accepted": []}', '"baseline": 1 is missing'),
    ('{"baseline": 1}', '"accepted" is not a list'),
    ('{"baseline": 1, "accepted": [1]}', "entry 1 of accepted"),
    ('{"baseline": 1, "accepted": [{"check": "x", "place": 1, "found": "y"}]}', "entry 1 of accepted"),
    ("[" * 100_000, "not a baseline"),
]


@pytest.mark.parametrize(("text", "said"), MALFORMED, ids=[row[0][:30] or "empty" for row in MALFORMED])
def test_a_malformed_baseline(mailguard_command: Command, site: Site, text: str, said: str) -> None:
    path = site.write("/known.json", text)
    done = mailguard_command(*options(site), "--baseline", str(path))
    assert (done.code, done.out) == (78, "")
    assert done.err.startswith(f"mailguard: {path}: ")
    assert said in done.err


# -- what users do wrong -------------------------------------------------------------------------------------------


def test_mistakes_are_one_plain_line(mailguard_command: Command, site: Site) -> None:
    nothing = site.root / "nothing"
    garbage = site.write("/bin/postconf", "#!/bin/sh\necho hello\n", 0o755)
    bad_toml = site.write("/bad.toml", "mode = \n")
    rows: list[tuple[list[str], int, str]] = [
        (["audit", "--config-directory", str(nothing)], 78, f"open {nothing}/main.cf: No such file or directory"),
        (["audit", "--root", str(nothing)], 64, "there is no such directory"),
        (["audit", "--root", str(garbage)], 64, "is a file"),
        (["audit", "--postconf", str(nothing)], 78, "is Postfix installed?"),
        (["audit", "--postconf", str(garbage)], 78, "is it really that?"),
        ([*options(site), "--baseline", str(nothing)], 78, "nothing: cannot be read: No such file"),
        ([*options(site), "--baseline", str(site.root)], 78, "cannot be read: Is a directory"),
        ([*options(site), "--write-baseline", str(nothing / "x")], 78, "cannot be written: No such file"),
        ([*options(site), "--write-baseline", str(site.root / "etc")], 78, "cannot be written"),
        ([*options(site), "-c", str(nothing)], 78, "cannot be read: No such file"),
        ([*options(site), "-c", str(bad_toml)], 78, "not TOML"),
        (["audit", "now"], 64, "extra argument"),
    ]
    for arguments, code, said in rows:
        is_told_in_one_line(mailguard_command(*arguments), code, said)
    assert not [path for path in site.root.iterdir() if path.name.startswith(".")], "no file is left half made"


def test_a_main_cf_that_may_not_be_read(site: Site) -> None:
    """As a user without rights: postconf says so, and that is the line."""
    (site.config_directory / "main.cf").chmod(0o600)
    reachable(site)
    postconf = site.write(
        "/as-nobody", f'#!/bin/sh\nexec setpriv --reuid 65534 --clear-groups {POSTCONF} "$@"\n', 0o755
    )
    done = subprocess.run(
        [*PYTHON, "audit", "--root", str(site.root), "--postconf", str(postconf)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert "main.cf: Permission denied" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_table_on_a_terminal(site: Site) -> None:
    site.write_postfix({"smtpd_hard_error_limit": "99", "mynetworks": "127.0.0.0/8 0.0.0.0/0"})
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    shown = on_a_terminal(options(site), environment)
    assert "\x1b[31mcritical" in shown
    assert shown.index("trusted-networks") < shown.index("error-limit")
    plain = on_a_terminal(options(site), {**environment, "NO_COLOR": "1"})
    assert "\x1b[31m" not in plain
    assert "postconf -c" in plain


def test_what_a_configuration_says_cannot_steer_the_terminal(mailguard_command: Command, site: Site) -> None:
    site.write("/etc/resolv.conf", "nameserver 9.9.9.9\x1b[2J[red]\N{RIGHT-TO-LEFT OVERRIDE}\n")
    done = mailguard_command(*options(site))
    assert "9.9.9.9\\x1b[2J[red]\\u202e" in done.out
    assert not [character for character in done.out if not character.isprintable() and character != "\n"]


def test_odd_files_are_no_crash(mailguard_command: Command, site: Site) -> None:
    for path, octets in (
        (CERTIFICATE, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        (KEY, b""),
    ):
        (site.root / path[1:]).write_bytes(octets)
    (site.root / "etc/fail2ban/jail.d/postfix.local").write_bytes(b"\xff\x00[postfix-sasl\nenabled\n=\n")
    (site.root / "etc/unbound/unbound.conf.d/b.conf").mkdir()
    (site.root / TABLE[1:]).unlink()
    os.mkfifo(site.root / TABLE[1:])
    code, report = findings(mailguard_command, site)
    assert code == 3
    assert found_in(report) == {"certificate-present", "login-guard"}
    assert [each["check"] for each in report["unclear"]] == ["database-user"]


def test_what_a_service_sets_holds_in_what_names_it(mailguard_command: Command, site: Site) -> None:
    """`$name` in main.cf comes to what the service has for the name, in the middle of a list too."""
    site.write_postfix(
        {"our_door": "reject_unauth_destination", "smtpd_relay_restrictions": "permit_mynetworks, $our_door"},
        {"smtp/inet": {"our_door": "permit"}, "submission/inet": {"smtpd_relay_restrictions": "$our_door"}},
    )
    code, report = findings(mailguard_command, site)
    assert code == 3
    assert next((each["check"], each["place"]) for each in report["findings"]) == ("open-relay", "smtp/inet")
    assert "open-relay" not in {each["check"] for each in report["findings"] if each["place"] == "submission/inet"}


def test_a_dollar_in_a_service(mailguard_command: Command, site: Site) -> None:
    site.write_postfix({}, {"smtp/inet": {"smtpd_banner": "$our_sign$$(x", "our_sign": "$$6"}})
    assert findings(mailguard_command, site)[0] == 0


def test_tables_that_let_senders_in(mailguard_command: Command, site: Site) -> None:
    lists = {
        "smtpd_relay_restrictions": "check_sender_access hash:/etc/postfix/senders, reject_unauth_destination",
    }
    site.write_postfix(lists)
    assert [each["check"] for each in findings(mailguard_command, site)[1]["unclear"]] == ["open-relay"]
    site.write("/etc/postfix/senders", "friend@them.test\n   OK\n")
    code, report = findings(mailguard_command, site)
    assert (code, found_in(report)) == (3, {"open-relay"})
    assert "check_sender_access hash:/etc/postfix/senders" in report["findings"][0]["found"]
    site.write("/etc/postfix/senders", "# OK\nfriend@them.test REJECT OK\n")
    assert findings(mailguard_command, site)[0] == 0


def test_several_certificates_in_one_file(mailguard_command: Command, site: Site) -> None:
    """As smtpd_tls_chain_files has them: a key, its certificate, and again."""
    chain = ""
    for days in (70, -1):
        site.write_certificate("mx.example.com", days=days)
        chain += (site.root / KEY[1:]).read_text() + (site.root / CERTIFICATE[1:]).read_text()
    site.write(KEY, chain, 0o600)
    site.write_postfix({"smtpd_tls_chain_files": KEY, "smtpd_tls_cert_file": "-", "smtpd_tls_key_file": "-"})
    assert found_in(findings(mailguard_command, site)[1]) == {"certificate-valid"}
    # A certificate of an authority, which is behind the server's own, is not the server's.
    own = chain.partition("-----BEGIN CERT")
    authority = chain.rpartition("-----BEGIN CERT")
    site.write(KEY, chain[: chain.index("-----BEGIN PRIVATE", 10)] + authority[1] + authority[2], 0o600)
    assert own[1]
    assert findings(mailguard_command, site)[0] == 0


def test_a_key_of_the_group_that_debian_has_for_it(mailguard_command: Command, site: Site) -> None:
    os.chown(site.root / KEY[1:], 0, 4711)
    (site.root / KEY[1:]).chmod(0o640)
    assert found_in(findings(mailguard_command, site)[1]) == {"private-key"}
    site.write("/etc/group", "root:x:0:\nssl-cert:x:4711:postgres\n")
    assert findings(mailguard_command, site)[0] == 0


def test_a_configuration_of_ours_that_this_user_may_not_read(site: Site) -> None:
    reachable(site)
    (site.root / "etc/mailguard/mailguard.toml").chmod(0o600)
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *PYTHON, *options(site), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("this Python is for root alone")
    unclear = {each["check"]: each["reason"] for each in json.loads(done.stdout)["unclear"]}
    assert unclear["mailguard-enforces"] == "/etc/mailguard/mailguard.toml: Permission denied"


HOSTILE = "x'; touch pwned; `touch pwned` \\ \" # \\u2028"


def test_no_value_gets_out_of_a_command(mailguard_command: Command, site: Site, tmp_path: Path) -> None:
    """Whatever stands in main.cf, the command that is to be pasted does nothing but what it says."""
    changes = {
        "mynetworks": f"0.0.0.0/0 {HOSTILE}",
        "myhostname": "mx.example.com",
        "smtpd_authorized_xclient_hosts": HOSTILE,
        "smtpd_discard_ehlo_keywords": f"starttls {HOSTILE}",
        "smtpd_milters": f"{{ unix:{HOSTILE}, default_action=accept }}",
        "smtpd_sasl_security_options": HOSTILE,
        "smtpd_tls_key_file": "/etc/ssl/mail/';touch\tpwned;'",
        "tls_ssl_options": HOSTILE,
        "x';touch\u00a0pwned;'": "1",
    }
    site.write_postfix(changes, {"submission/inet": {"smtpd_sasl_security_options": "x';touch\\tpwned;'"}})
    done = mailguard_command(*options(site), "--json")
    assert done.code == 3, done.err
    commands = [each for one in json.loads(done.out)["findings"] for each in one["fix"]]
    safe = [each for each in commands if each.startswith(("postconf", "#", "openssl"))]
    assert len(safe) >= 8
    place = tmp_path / "place"
    place.mkdir()
    script = [
        "/bin/sh",
        "-c",
        "\n".join(f"{each}\ntouch -d '1 hour ago' {site.config_directory}/*.cf" for each in safe),
    ]
    subprocess.run(script, capture_output=True, check=False, env={"PATH": PATH}, cwd=place)
    assert not list(place.iterdir())
    assert not list(site.root.rglob("pwned"))
