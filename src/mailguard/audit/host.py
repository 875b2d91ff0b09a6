"""What stands around Postfix: its files, its databases, fail2ban. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailguard.audit.facts import FileFacts, HostFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear
from mailguard.audit.postfix import Postfix, quoted
from mailguard.audit.restriction_list import words
from mailguard.audit.table_files import table_files

__all__ = ["CHECKS", "database_files", "password_files"]

OWNERS = frozenset({"root", "mysql", "postgres", "admin", "postfixadmin", "mariadb.sys", "debian-sys-maint"})
"""Users of a database that can write as a rule."""
BANNERS = ("crowdsec", "sshguard")
"""What does the same as fail2ban."""
POSTFIX_JAILS = ("postfix", "postfix-sasl")
PASSWORD_MAPS = "smtp_sasl_password_maps"
SQL_PORTS = {"mysql": "3306", "pgsql": "5432"}
"""What a table uses where `hosts` names none. iRedMail writes it into each of its tables, as `port`."""

_DATABASE = re.compile(r"(?:proxy:)?(mysql|pgsql|ldap):(/[^\s,{}]+)")
_PHP_USER = re.compile(r"""(?:\$CONF\[['"]database_user['"]\]|\$dbuser)\s*=\s*['"]([^'"]+)['"]""")
_TRUE = re.compile(r"enabled\s*[=:]\s*(?:true|yes|on|1)\b", re.IGNORECASE)


def database_files(values: Sequence[str]) -> dict[str, str]:
    """The files of database tables that the values of parameters name, and their kind: `mysql`, `pgsql` or `ldap`."""
    return {path: kind for value in values for kind, path in _DATABASE.findall(value)}


def password_files(postfix: Postfix) -> tuple[str, ...]:
    """The files of the tables with this host's own passwords, of every service that sends mail."""
    services = (None, *postfix.running("smtp"))
    groups = (group for each in services for group in table_files(postfix.value(PASSWORD_MAPS, each)))
    return tuple(dict.fromkeys(path for group in groups for path in group))


def configuration_files(facts: HostFacts) -> Iterator[Found | Unclear]:
    """main.cf, master.cf and the directory."""
    directory = facts.postfix.directory
    for path in (directory, f"{directory}/main.cf", f"{directory}/master.cf"):
        file = facts.files.get(path, "it was not looked at")
        if isinstance(file, str):
            yield Unclear(f"{path}: {file}")
        elif file.uid or file.mode & 0o002 or (file.mode & 0o020 and file.gid):
            commands = (f"chown root:root {quoted(path)}", f"chmod go-w {quoted(path)}")
            yield Found(path, f"it has mode {file.mode:04o}, owner {file.uid}, group {file.gid}", commands)


def password_tables(facts: HostFacts) -> Iterator[Found | Unclear]:
    """This host's own passwords, at other hosts and in databases."""
    yield from _passwords_in_configuration(facts)
    paths = list(password_files(facts.postfix))
    for path, table in facts.tables.items():
        if not isinstance(table, str) and table.has_password:
            paths.append(path)
    for path in dict.fromkeys(paths):
        file = facts.files.get(path)
        if isinstance(file, str):
            yield Unclear(f"{path}: {file}")
        elif file is not None and file.mode & 0o007:
            group = "postfix" if path in facts.tables else "root"
            commands = (f"chown root:{group} {quoted(path)}", f"chmod 0640 {quoted(path)}")
            yield Found(path, f"it holds a password and has mode {file.mode:04o}", commands)


def _passwords_in_configuration(facts: HostFacts) -> Iterator[Found]:
    """main.cf and master.cf are for every user, who could not send mail without."""
    postfix = facts.postfix
    for service in (None, *postfix.running("smtp")):
        place = postfix.place(PASSWORD_MAPS, service)
        path = f"{postfix.directory}/{'main.cf' if place == 'main.cf' else 'master.cf'}"
        file = facts.files.get(path)
        kinds = [word.partition(":")[0] for word in words(postfix.value(PASSWORD_MAPS, service))]
        if isinstance(file, FileFacts) and file.mode & 0o007 and {"static", "inline"} & set(kinds):
            advice = f"# put it into {postfix.directory}/sasl_passwd, mode 0600, and hash: that file; then change it"
            yield Found(place, f"{PASSWORD_MAPS} holds a password, in a file with mode {file.mode:04o}", (advice,))


def database_user(facts: HostFacts) -> Iterator[Found | Unclear]:
    """By its name: whether it can write is known to the database alone."""
    postfixadmin = {found for line in facts.settings.get("postfixadmin", ()) for found in _PHP_USER.findall(line)}
    for path, table in facts.tables.items():
        if isinstance(table, str):
            yield Unclear(f"{path}: {table}")
        elif table.kind == "ldap":
            continue
        elif table.user in OWNERS or table.user in postfixadmin:
            whose = "PostfixAdmin's own" if table.user in postfixadmin else "an owner of databases"
            # To be filled in: a command that can be run would make an account whose password everybody knows.
            statement = (
                "CREATE USER 'postfix'@'localhost' IDENTIFIED BY '...'; GRANT SELECT ON DATABASE.* TO"
                " 'postfix'@'localhost';"
                if table.kind == "mysql"
                else "CREATE ROLE postfix LOGIN PASSWORD '...'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO"
                " postfix;"
            )
            commands = (
                f"# in {table.kind}: {statement}",
                f"# then set user and password in {path}; postfix reload",
            )
            yield Found(path, f'Postfix reads the database as "{table.user}", {whose}', commands)


def login_guard(facts: HostFacts) -> Iterator[Found]:
    """Only where somebody can log in."""
    if not facts.postfix.login_services or facts.programs & frozenset(BANNERS):
        return
    # Read last, and nobody else's file.
    enable = "printf '[postfix-sasl]\\nenabled = true\\n' > /etc/fail2ban/jail.d/zz-postfix-sasl.local"
    if "fail2ban-client" not in facts.programs:
        commands = ("apt install fail2ban", enable, "systemctl restart fail2ban")
        yield Found("host", "fail2ban is not installed", commands)
    elif not _jail_enabled(facts.settings.get("fail2ban", ())):
        yield Found("/etc/fail2ban", "no jail for Postfix is enabled", (enable, "systemctl restart fail2ban"))


def misspelt(facts: HostFacts) -> Iterator[Found]:
    """As postconf warns: Postfix itself passes over them."""
    postfix = facts.postfix
    for file, setting in postfix.unused:
        name, _, value = setting.partition("=")
        name = name.strip()
        kind, colon, path = file.partition(":")
        if colon:
            # The value may be a password.
            if name != "port" or value.strip() != SQL_PORTS.get(kind):
                fix = "write hosts = HOST:PORT in its place" if name == "port" else "mend or take it out"
                yield Found(path, f"nothing reads {name}", (f"# in {path}: {fix}",))
            continue
        services = [each for each in postfix.services if file == "master.cf" and name in each.overrides]
        commands = [f"{postfix.postconf} -PX {quoted(f'{each.place}/{name}')}" for each in services]
        yield Found(file, f"nothing reads {setting}", tuple(commands or [f"{postfix.postconf} -X {quoted(name)}"]))


def soft_bounce(facts: HostFacts) -> Iterator[Found]:
    """Meant for tests."""
    postfix = facts.postfix
    for service in (None, *postfix.public_services):
        if postfix.is_on("soft_bounce", service):
            command = postfix.setting("soft_bounce", "no", service)
            yield Found(postfix.place("soft_bounce", service), "soft_bounce = yes", (command,))


def limits_counted(facts: HostFacts) -> Iterator[Found]:
    """anvil(8) counts for every limit on clients."""
    if facts.postfix.public_services and not facts.postfix.running("anvil"):
        command = f"{facts.postfix.postconf} -M 'anvil/unix=anvil unix - - y - 1 anvil'"
        yield Found("master.cf", "there is no anvil service", (command,))


def _jail_enabled(lines: Sequence[str]) -> bool:
    """Whether a section of fail2ban's for Postfix says so, the last word being the one that holds."""
    section, sections, enabled = "", set(), {}
    for line in lines:
        if line.startswith("["):
            section = line.partition("]")[0].strip("[ ")
            sections.add(section)
        elif re.match(r"enabled\s*[=:]", line):
            enabled[section] = _TRUE.match(line) is not None
    everywhere = enabled.get("DEFAULT", False)
    return any(enabled.get(jail, everywhere and jail in sections) for jail in POSTFIX_JAILS)


CHECKS = (
    Check(
        "configuration-files",
        Severity.CRITICAL,
        "Only root can write to Postfix's configuration",
        "Who can write to it has commands run as other users, and reads all mail.",
        configuration_files,
    ),
    Check(
        "password-files",
        Severity.WARNING,
        "Files with passwords (`smtp_sasl_password_maps`, database tables) cannot be read by every user",
        "Every account and every web application on the host has the password.",
        password_tables,
    ),
    Check(
        "database-user",
        Severity.WARNING,
        "Postfix reads its database as a user who has SELECT alone, and not as root or PostfixAdmin",
        "A fault in a query, or the file itself, otherwise gives away the right to make accounts.",
        database_user,
    ),
    Check(
        "login-guard",
        Severity.WARNING,
        "fail2ban watches the logins (`[postfix-sasl]`), or crowdsec or sshguard is there",
        "Passwords are guessed day and night, from many addresses.",
        login_guard,
    ),
    Check(
        "limits-counted",
        Severity.WARNING,
        "The anvil service is in master.cf",
        "Without it no limit on clients has an effect.",
        limits_counted,
    ),
    Check(
        "misspelt-parameters",
        Severity.WARNING,
        "Every parameter in main.cf, master.cf and the files of tables is one that Postfix reads",
        "A misspelt restriction restricts nothing, and Postfix says nothing of it.",
        misspelt,
    ),
    Check(
        "soft-bounce",
        Severity.WARNING,
        "`soft_bounce` is off",
        "Mail that is refused is refused for a time only: strangers try again for days, and users learn late.",
        soft_bounce,
    ),
)
