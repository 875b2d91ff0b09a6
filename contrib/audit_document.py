"""The text of docs/audit.md: every check of `mailguard audit`, from the checks themselves."""

from __future__ import annotations

from mailguard.audit.checks import CHECKS, THEMES
from mailguard.audit.finding import Severity

__all__ = ["audit"]

HEAD = """\
# Audit

<!-- Made by contrib/generate_docs.py from src/mailguard/audit/ and contrib/audit_document.py. Do not edit. -->

`mailguard audit` holds a Postfix host against what the hardening guides recommend: {count} checks. It asks
`postconf` and reads files; it changes nothing, connects to nothing and starts nothing else. Each finding says where,
what was found, why it matters, and the command that puts it right.

    mailguard audit                                # as root: it then sees the permissions of private keys
    mailguard audit --json
    mailguard audit --root /mnt/image              # another host's files; its Postfix is read from etc/postfix there
    mailguard audit --config-directory /etc/postfix-out     # another instance on this host
    mailguard audit --write-baseline known.json    # accept what is found today
    mailguard audit --baseline known.json          # show what is new since, and what is gone

What a service sets in master.cf (`-o`) counts for that service. Defaults are those of the installed Postfix, from its
`postconf`; with `--root` they are those of the `postconf` that is run, which `--postconf` names. What must hold for
port 25 is asked of every smtpd on port 25 or behind postscreen, what must hold for submission of those on 587 and
465, and what must hold for mail that goes out of the service that `default_transport` names. A service that listens
on loopback alone is left out. On a host without users, or without mail from outside, the checks for these have
nothing to say.

| exit code | meaning |
|---|---|
| 0 | nothing is found, or all of it is accepted |
| 1 | the worst is a notice, or something could not be told |
| 2 | the worst is a warning |
| 3 | the worst is critical |
| 64 | the command was not called as it must be |
| 78 | there is no Postfix, its configuration cannot be read, or the baseline is not one |

What cannot be read, as by another user than root, is said to be not told; nothing passes for that.

A baseline accepts single findings, by their check, place and text. One that changes, such as a further network in
`mynetworks`, is shown again.

Several commands may be run one after the other. A command sets a parameter where it is set now: in main.cf
(`postconf -e`), or for a service in master.cf (`postconf -P`). Lines that begin with # are for you to do. Look at
what a command will do before you run it, keep a copy of /etc/postfix, and run `postfix check` and `postfix reload`
afterwards. Run the audit again: what was mended may bring another thing to light.

## What is not looked at

- What the tables say that a restriction asks (`check_client_access` and its like), but for one thing: whether those
  before `reject_unauth_destination` that go by what a client says of itself, as `check_sender_access` does, say OK.
  Read for that are `hash:`, `texthash:`, `pcre:` and other tables with a text beside them, and those in place.
- What a policy service or a milter decides. A milter is known by its address; of one that is not, the audit says so.
- Whether the resolver does validate, and who can reach which port: nothing is connected to.
- What a database grants to its users: a user is judged by the name.
- Whether certificates lead to an authority that others trust.
"""


def audit() -> str:
    """The document."""
    parts = [HEAD.format(count=len(CHECKS))]
    for severity in sorted(Severity, reverse=True):
        number = sum(check.severity is severity for check in CHECKS)
        parts.append(f"- {number} checks are {_MEANT[severity]}")
    parts.append("")
    for theme, checks in THEMES:
        parts.append(f"## {theme}\n\n| check | severity | what must hold | why |\n|---|---|---|---|")
        parts += [f"| `{each.id}` | {each.severity.word} | {each.rule} | {each.why} |" for each in checks]
        parts.append("")
    return "\n".join(parts)


_MEANT = {
    Severity.CRITICAL: "critical: the host can be abused, or mail or passwords can be read.",
    Severity.WARNING: "warnings: the host is weaker than it should be.",
    Severity.NOTICE: "notices: the host could be harder.",
}
