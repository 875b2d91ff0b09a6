"""`mailguard senders`: test, list, audit and import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli_process import Command, on_a_terminal
from database_site import SqliteFiles
from mailguard.config import load
from mailguard.sender_sources import open_senders
from mailguard.senders.dialect import Dialect
from postfixadmin_site import statements

CONFIG = """
[senders]
sources = ["inline", "postfixadmin"]
recipient_delimiter = "+"
[senders.inline]
own_address = false
[senders.inline.logins]
"carol@other.test" = ["press@us.test"]
"newsletter" = ["news@us.test"]
[senders.postfixadmin]
database = "sqlite"
path = "postfixadmin.sqlite"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    SqliteFiles(tmp_path).create("postfixadmin", statements(Dialect.SQLITE))
    path = tmp_path / "mailguard.toml"
    path.write_text(CONFIG)
    return path


def test_test(mailguard_command: Command, config: Path) -> None:
    done = mailguard_command("senders", "test", "Bob@us.test", "sales+x@us.test", "-c", config)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:3] == [
        "Bob@us.test as sales+x@us.test: granted",
        "  source: postfixadmin",
        "  rule: alias sales@us.test",
    ]
    assert "  with: sales@us.test" in lines
    assert any(line.startswith("  asked: SELECT ") and "?" in line for line in lines)
    done = mailguard_command("senders", "test", "alice@us.test", "bob@us.test", "-c", config)
    assert done.code == 1
    assert "  it is the mailbox of another login" in done.out
    done = mailguard_command("senders", "test", "carol@other.test", "press@us.test", "-c", config)
    assert (done.code, done.out.splitlines()[1:3]) == (
        0,
        ["  source: inline", '  rule: "carol@other.test" has "press@us.test"'],
    )
    assert "  asked:" not in done.out
    done = mailguard_command("senders", "test", "alice@us.test", "x@example.com", "-c", config)
    assert (done.code, done.out.splitlines()[0]) == (1, "alice@us.test as x@example.com: unknown")


def test_test_as_json(mailguard_command: Command, config: Path) -> None:
    done = mailguard_command("senders", "test", "bob@us.test", "sales@us.test", "-c", config, "--json")
    said = json.loads(done.out)
    assert (said["status"], said["source"], said["rule"]) == ("granted", "postfixadmin", "alias sales@us.test")
    assert any("sales@us.test" in asked["parameters"] for asked in said["asked"])


@pytest.mark.attack("L08")
@pytest.mark.parametrize(
    ("login", "address", "said"),
    [
        (b"u\xff\xfe", b"a@us.test", "the login stands for nobody: it is not UTF-8"),
        (b"\x1b[31mred", b"a@us.test", "the login stands for nobody: it has the character U+001B"),
        (b"alice@us.test", b"x", "the address stands for nobody: there is no @"),
        (b"alice@us.test", b"a\xff@us.test", "the address stands for nobody: it is not UTF-8"),
    ],
)
def test_names_that_stand_for_nobody(
    mailguard_command: Command, config: Path, login: bytes, address: bytes, said: str
) -> None:
    arguments = (os.fsdecode(login), os.fsdecode(address))
    done = mailguard_command("senders", "test", *arguments, "-c", config)
    assert (done.code, said in done.out) == (1, True)
    assert done.out.isascii()
    assert "\x1b" not in done.out
    done = mailguard_command("senders", "test", *arguments, "-c", config, "--json")
    assert json.loads(done.out)["rule"].startswith("unusable ")


@pytest.mark.attack("L10")
def test_a_source_that_is_down(mailguard_command: Command, config: Path, tmp_path: Path) -> None:
    (tmp_path / "postfixadmin.sqlite").unlink()
    done = mailguard_command("senders", "test", "bob@us.test", "sales@us.test", "-c", config)
    assert done.code == 75
    assert "unable to open database file" in done.out
    for verb in (["list", "bob@us.test"], ["audit"]):
        done = mailguard_command("senders", *verb, "-c", config)
        assert done.code == 75
        assert "unable to open database file" in done.out


def test_list(mailguard_command: Command, config: Path) -> None:
    done = mailguard_command("senders", "list", "bob@us.test", "-c", config)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "inline: bob@us.test may use 0 addresses"
    assert lines[1].startswith("postfixadmin: bob@us.test may use ")
    assert "  @us.test              alias @us.test" in lines
    assert any(line.startswith("  sales@alias.test  ") and "alias domain alias.test" in line for line in lines)
    listed = json.loads(mailguard_command("senders", "list", "bob@us.test", "-c", config, "--json").out)
    assert [each["status"] for each in listed["sources"]] == ["listed", "listed"]
    assert {"what": "@us.test", "rule": "alias @us.test"} in listed["sources"][1]["grants"]
    done = mailguard_command("senders", "list", "", "-c", config)
    assert (done.code, "stands for nobody" in done.err) == (64, True)


def test_what_cannot_be_listed_is_said(mailguard_command: Command, config: Path, tmp_path: Path) -> None:
    query = "SELECT goto FROM alias WHERE address='%s'"
    (tmp_path / "owners.cf").write_text(f"dbpath = {tmp_path}/postfixadmin.sqlite\nquery = {query}\n")
    config.write_text(f'[senders]\nsources = ["postfix"]\n[senders.postfix]\nmaps = "sqlite:{tmp_path}/owners.cf"\n')
    done = mailguard_command("senders", "list", "bob@us.test", "-c", config)
    assert (done.code, done.out.startswith("postfix: cannot be listed: sqlite:")) == (1, True)
    done = mailguard_command("senders", "audit", "-c", config)
    assert done.code == 1
    assert done.out.startswith("no account is listed\nnote: postfix: sqlite:")
    assert mailguard_command("senders", "test", "alice@us.test", "sales@us.test", "-c", config).code == 0


@pytest.mark.attack("L11")
def test_audit(mailguard_command: Command, config: Path) -> None:
    done = mailguard_command("senders", "audit", "-c", config)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    # bob has whole domains; alice and carol reach the other tenant; the others are not marked.
    heads = [line for line in lines if "address" in line.split("  ")[0] or line.lstrip()[:1].isdigit()]
    assert heads[0].split()[2] == "bob@us.test"
    assert "whole domain alias.test, whole domain us.test" in heads[0]
    marked = [line for line in heads if "other tenant " in line]
    assert [line.split()[2] for line in marked] == ["alice@us.test", "carol@other.test"]
    assert "other tenant other.test" in marked[0]
    assert any(line.strip() == "info@other.test  alias info@other.test" for line in lines)
    assert any(line.strip() == 'press@us.test  "carol@other.test" has "press@us.test"' for line in lines)
    assert lines[-1].startswith("8 accounts; 3 of them reach a whole domain or another tenant")
    audit = json.loads(mailguard_command("senders", "audit", "-c", config, "--json").out)
    assert audit["accounts"][0]["login"] == "bob@us.test"
    by_login = {each["login"]: each for each in audit["accounts"]}
    assert by_login["alice@us.test"]["other_tenants"] == ["other.test"]
    assert by_login["o'brien@us.test"]["other_tenants"] == []
    assert by_login["newsletter"]["other_tenants"] == []
    assert by_login["bob@us.test"]["whole_domains"] == ["alias.test", "us.test"]


def test_on_a_terminal_nothing_is_markup(config: Path) -> None:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    shown = on_a_terminal(["senders", "test", "[red]x", "[bold]y@us.test", "-c", str(config)], environment)
    assert "[red]x" in shown
    assert "[bold]y@us.test" in shown


def test_without_sources(mailguard_command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    for verb in (["test", "a", "b@c.test"], ["list", "a"], ["audit"]):
        done = mailguard_command("senders", *verb, "-c", tmp_path / "empty.toml")
        assert (done.code, "set sources in [senders]" in done.err) == (64, True)


# import


def postfix(directory: Path, main: str, master: str = "") -> Path:
    place = directory / "postfix"
    place.mkdir(exist_ok=True)
    (place / "main.cf").write_text(f"compatibility_level = 3.7\nmyhostname = mail.us.test\n{main}")
    (place / "master.cf").write_text(master)
    for file in place.iterdir():
        os.utime(file, (0, 0))
    return place


def imported(mailguard_command: Command, place: Path) -> tuple[int, str]:
    done = mailguard_command("senders", "import", "--config-directory", place)
    assert done.err == ""
    return done.code, done.out


def test_import(mailguard_command: Command, tmp_path: Path) -> None:
    logins = tmp_path / "logins"
    logins.write_text("sales@us.test alice@us.test\nlocal alice@us.test\n")
    place = postfix(
        tmp_path,
        f"x = texthash:{logins}\nsmtpd_sender_login_maps = $x, proxy:inline:{{ {{a@us.test = b, c}} }}\n"
        "mydestination = us.test, $myhostname, localhost, hash:/x\nmyorigin = us.test\nrecipient_delimiter = +\n",
    )
    code, text = imported(mailguard_command, place)
    assert (code, text) == (
        0,
        "[senders]\n"
        'sources = ["postfix"]\n'
        'recipient_delimiter = "+"\n'
        "\n"
        "[senders.postfix]\n"
        "# from smtpd_sender_login_maps in main.cf\n"
        f'maps = "texthash:{logins}, inline:{{ {{a@us.test = b, c}} }}"\n'
        'local_domains = ["us.test", "mail.us.test", "localhost"]\n'
        "# not read: hash:/x in mydestination or myorigin\n",
    )
    (tmp_path / "mailguard.toml").write_text(text)
    assert (
        mailguard_command(
            "senders", "test", "alice@us.test", "sales+x@us.test", "-c", tmp_path / "mailguard.toml"
        ).code
        == 0
    )
    assert (
        mailguard_command("senders", "test", "alice@us.test", "local@us.test", "-c", tmp_path / "mailguard.toml").code
        == 0
    )
    assert mailguard_command("senders", "test", "b", "a@us.test", "-c", tmp_path / "mailguard.toml").code == 0


def test_import_from_master_cf(mailguard_command: Command, tmp_path: Path) -> None:
    place = postfix(
        tmp_path,
        "x = inline:{a@us.test=alice}\nsmtpd_sender_login_maps = inline:{b@us.test=bob}\n",
        "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n -o smtpd_sender_login_maps=$x\n",
    )
    code, text = imported(mailguard_command, place)
    assert code == 0
    assert "# from smtpd_sender_login_maps of submission/inet in master.cf\n" in text
    assert 'maps = "inline:{a@us.test=alice}"\n' in text
    assert "# not used: smtpd_sender_login_maps in main.cf: inline:{b@us.test=bob}\n" in text


def test_import_from_services_that_differ(mailguard_command: Command, tmp_path: Path) -> None:
    """There is one list of tables here for all services, so that the users of one are judged by those of another."""
    services = "".join(
        f"{name} inet n - n - - smtpd\n -o smtpd_sender_login_maps=inline:{{{entry}}}\n"
        for name, entry in (
            ("submission", "a@us.test=alice"),
            ("2587", "b@us.test=bob"),
            ("smtps", "a@us.test=alice"),
        )
    )
    place = postfix(tmp_path, "smtpd_sender_login_maps = inline:{c@us.test=carol}\n", services)
    code, text = imported(mailguard_command, place)
    assert code == 1
    assert 'maps = "inline:{a@us.test=alice}"\n' in text
    assert "# not used: smtpd_sender_login_maps in main.cf: inline:{c@us.test=carol}\n" in text
    told = "# not read: smtpd_sender_login_maps of 2587/inet in master.cf: inline:{b@us.test=bob}; who logs in there"
    assert [line for line in text.splitlines() if line.startswith("# not read")] == [
        f"{told} is held to the tables of smtpd_sender_login_maps of smtps/inet in master.cf too: if those are about"
        " other addresses, name both in maps"
    ]


def test_import_right_after_a_change(mailguard_command: Command, tmp_path: Path) -> None:
    place = postfix(tmp_path, "smtpd_sender_login_maps = texthash:$config_directory/logins\n")
    os.utime(place / "main.cf")
    code, text = imported(mailguard_command, place)
    assert code == 0
    assert f'maps = "texthash:{place}/logins"\n' in text


def test_import_of_what_is_not_read(mailguard_command: Command, tmp_path: Path) -> None:
    place = postfix(tmp_path, "smtpd_sender_login_maps = ldap:/etc/x.cf, unionmap:{hash:/a, pcre:/b}, lmdb:/c\n")
    code, text = imported(mailguard_command, place)
    assert code == 1
    assert 'maps = "hash:/a, lmdb:/c"\n' in text
    assert '# not read: "ldap:/etc/x.cf": tables of the type "ldap" are not read; write what it has' in text
    assert '# not read: "pcre:/b"' in text
    done = mailguard_command("senders", "import", "--config-directory", place, "--json")
    assert (done.code, len(json.loads(done.out)["left_out"])) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "policy", "is_said"),
    [("mysql", "inet:127.0.0.1:7777", True), ("mysql", "inet:127.0.0.1:9999", False), ("texthash", ":7777", False)],
)
def test_import_beside_iredapd(
    mailguard_command: Command, tmp_path: Path, kind: str, policy: str, is_said: bool
) -> None:
    """iRedMail's table has mailboxes alone, and its policy service knows their aliases."""
    table = tmp_path / "x.cf"
    table.write_text("dbname = d\nquery = SELECT a FROM b WHERE c='%s'\n")
    restrictions = f"smtpd_recipient_restrictions = check_policy_service {policy}, permit_sasl_authenticated"
    place = postfix(tmp_path, f"smtpd_sender_login_maps = proxy:{kind}:{table}\n{restrictions}\n")
    code, text = imported(mailguard_command, place)
    assert (code, "# iRedAPD is asked, too" in text) == (0, is_said)


def test_import_of_queries(mailguard_command: Command, tmp_path: Path) -> None:
    """What is printed opens: a file that is not understood is told of here, not when the daemon starts."""
    query = "query = SELECT login FROM owners WHERE address='%s'\n"
    (tmp_path / "read.cf").write_text(f"dbpath = {tmp_path}/x\n{query}")
    (tmp_path / "not.cf").write_text(f"dbname = d\noption_file = /x\n{query}")
    maps = f"proxy:sqlite:{tmp_path}/read.cf, mysql:{tmp_path}/not.cf, pgsql:{tmp_path}/no.cf"
    place = postfix(tmp_path, f"smtpd_sender_login_maps = {maps}\n")
    code, text = imported(mailguard_command, place)
    assert code == 1
    assert f'maps = "sqlite:{tmp_path}/read.cf"\n' in text
    assert f'# not read: {tmp_path}/not.cf: "option_file" is not understood here' in text
    assert f"# not read: {tmp_path}/no.cf: cannot be read: No such file or directory\n" in text
    (tmp_path / "mailguard.toml").write_text(text)
    assert open_senders(load(tmp_path / "mailguard.toml").senders) is not None
    program = "import sys; sys.modules['sqlalchemy'] = None; import mailguard.cli; mailguard.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "senders", "import", "--config-directory", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert f'# not read: "sqlite:{tmp_path}/read.cf": asking a database needs SQLAlchemy; install it' in done.stdout


@pytest.mark.parametrize(
    ("value", "sources", "maps"),
    [
        (
            "texthash:{0}/virtual, texthash:{0}/aliases, pcre:{0}/own",
            ["postfix", "inline"],
            "texthash:{0}/virtual, texthash:{0}/aliases",
        ),
        ("unionmap:{{ texthash:{0}/virtual, pcre:{0}/own }}", ["inline", "postfix"], "texthash:{0}/virtual"),
        ("pcre:{0}/own", ["inline"], ""),
    ],
)
def test_import_of_docker_mailservers_tables(
    mailguard_command: Command, tmp_path: Path, value: str, sources: list[str], maps: str
) -> None:
    """Its pattern table says that each address belongs to the login of that name."""
    (tmp_path / "own").write_text("# own\n/^(.*)$/   ${1}\n")
    (tmp_path / "virtual").write_text("sales@us.test alice@us.test\n")
    (tmp_path / "aliases").write_text("root alice@us.test\n")
    place = postfix(tmp_path, f"smtpd_sender_login_maps = {value.format(tmp_path)}\nmydestination = us.test\n")
    code, text = imported(mailguard_command, place)
    assert (code, "local_domains" in text) == (0, False)
    path = tmp_path / "mailguard.toml"
    path.write_text(text)
    config = load(path).senders
    assert list(config.sources) == sources
    assert (config.postfix.maps or "") == maps.format(tmp_path)
    opened = open_senders(config)
    assert opened is not None
    assert [source.name for source in opened.sources] == sources
    (tmp_path / "own").write_text("/^(.*)$/   ${1}\n/^ceo@/ alice\n")
    assert imported(mailguard_command, place)[0] == 1


@pytest.mark.parametrize(
    ("main", "said"),
    [("", "Postfix has no smtpd_sender_login_maps"), ("smtpd_sender_login_maps = inline:{a\n", "not closed")],
)
def test_nothing_to_import(mailguard_command: Command, tmp_path: Path, main: str, said: str) -> None:
    done = mailguard_command("senders", "import", "--config-directory", postfix(tmp_path, main))
    assert (done.code, said in done.err) == (78, True)


def test_a_postconf_that_is_not_there(mailguard_command: Command, tmp_path: Path) -> None:
    done = mailguard_command("senders", "import", "--postconf", tmp_path / "postconf")
    assert (done.code, "is Postfix installed?" in done.err) == (78, True)
    done = mailguard_command("senders", "import", "--config-directory", tmp_path / "nowhere")
    assert (done.code, "nowhere/main.cf" in done.err) == (78, True)
