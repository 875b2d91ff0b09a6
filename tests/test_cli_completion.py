"""`mailguard completion`: bash, zsh and fish, each asked as a user asks it, with the script that the command prints.

Left out: mailguard-milter, whose few options need no completion, and what click itself does in other shells.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli_process import Command
from command_tree import commands

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 60.0
# What is typed, and what must stand there when TAB has done its work; in a directory with the file signed.eml.
TYPED = [
    pytest.param("mailguard qui", "mailguard quickstart ", id="a command"),
    pytest.param("mailguard tlspolicy ser", "mailguard tlspolicy serve ", id="a command of a group"),
    pytest.param("mailguard dns --ssh", "mailguard dns --ssh-host ", id="an option"),
    pytest.param("mailguard dns --policy quar", "mailguard dns --policy quarantine ", id="a choice"),
    pytest.param("mailguard completion f", "mailguard completion fish ", id="a choice that is an argument"),
    pytest.param("mailguard verify sig", "mailguard verify signed.eml ", id="a file"),
    pytest.param("mailguard dns a.test -c mail", "mailguard dns a.test -c mailguard.toml ", id="a file of an option"),
    pytest.param(
        "mailguard audit --config-directory con", "mailguard audit --config-directory conf.d/", id="a directory"
    ),
    pytest.param("mailguard verify --no-such", "mailguard verify --no-such", id="nothing"),
]


def environment(directory: Path) -> dict[str, str]:
    return {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "HOME": str(directory),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "INPUTRC": "/dev/null",
    }


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the script for each shell, and with files whose names begin alike."""
    directory = tmp_path_factory.mktemp("completion")
    for name in ("signed.eml", "mailguard.toml", "confused"):
        (directory / name).touch()
    (directory / "conf.d").mkdir()
    for shell in ("bash", "zsh", "fish"):
        command = [str(PROGRAMS / "mailguard"), "completion", shell]
        made = subprocess.run(command, env=environment(directory), capture_output=True, check=True)
        assert made.stderr == b""
        (directory / f"_mailguard.{shell}").write_bytes(made.stdout)
    return directory


@pytest.fixture
def place(scripts: Path, tmp_path: Path) -> Path:
    shutil.copytree(scripts, tmp_path, dirs_exist_ok=True)
    return tmp_path


class Terminal:
    """A shell that runs in a terminal of its own."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(directory),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = b""

    def type(self, keys: str, until: Path) -> str:
        """Type `keys`; what the file that comes of it says."""
        os.write(self._master, keys.encode())
        deadline = time.monotonic() + PATIENCE_S
        while not (until.exists() and until.read_bytes().endswith(b"\n")):
            assert time.monotonic() < deadline, self.shown.decode("utf-8", "replace")
            # A terminal that nobody reads from stops its writer.
            if select.select([self._master], [], [], 0.02)[0]:
                self.shown += os.read(self._master, 4096)
        text = until.read_text("utf-8").removesuffix("\n")
        until.unlink()
        return text

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


BASH = """PS1='> '; set +o history; source ./_mailguard.bash
bind -x '"\\C-g": printf "%s\\\\n" "$READLINE_LINE" >line; READLINE_LINE='; echo >line
"""
# -D: no file with the completions of this machine; -u: whoever owns them.
ZSH = """PS1='> '; fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D
zstyle ':completion:*' menu no
show-line() { print -r -- "$BUFFER" >line; BUFFER= }; zle -N show-line; bindkey '^G' show-line; echo >line
"""


@pytest.fixture(params=["bash", "zsh"])
def terminal(request: pytest.FixtureRequest, place: Path) -> Iterator[Terminal]:
    """A shell that completes with TAB, and writes its line to the file `line` at control-G."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "zsh":
        # Where a system has it: in a directory of fpath, under the name that compinit looks for.
        (place / "functions").mkdir()
        (place / "_mailguard.zsh").rename(place / "functions" / "_mailguard")
    arguments = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    opened = Terminal(arguments, place)
    opened.type({"bash": BASH, "zsh": ZSH}[shell], place / "line")
    yield opened
    opened.close()


def test_tab_in_bash_and_zsh(terminal: Terminal, place: Path) -> None:
    for row in TYPED:
        typed, expected = row.values
        assert isinstance(typed, str)
        assert terminal.type(f"{typed}\t\a", place / "line") == expected
    assert b"Traceback" not in terminal.shown


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_fish(place: Path, typed: str, expected: str) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    ask = 'source ./_mailguard.fish; complete -C "$argv"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", ask, typed],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert found == ([] if typed == expected else [expected.split()[-1]])
    assert "Traceback" not in done.stderr


def test_bash_is_told_every_command(place: Path) -> None:
    ask = (
        "source ./_mailguard.bash; COMP_WORDS=(mailguard ''); COMP_CWORD=1; _mailguard_completion mailguard mailguard"
        " ''; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", ask], cwd=place, env=environment(place), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted({path[1] for path, _, _ in commands() if len(path) > 1})


def test_each_file_and_directory_is_completed_as_one() -> None:
    kinds = {"FILE": "file", "CONFIG": "file", "CERT": "file", "CERT|HOST": "file", "DIR": "dir", "DIRECTORY": "dir"}
    wrong = []
    seen = set()
    for path, command, ctx in commands():
        for parameter in command.params:
            kind = kinds.get(parameter.metavar or parameter.make_metavar(ctx).strip("[]"))
            if kind is not None:
                seen.add(kind)
                offered = parameter.shell_complete(ctx, "x")
                if [each.type for each in offered] != [kind]:
                    wrong.append(f"{' '.join(path)} {parameter.name}: type=FILE or DIRECTORY of cli/parameters.py")
    assert not wrong, "\n".join(wrong)
    assert seen == {"file", "dir"}


def test_only_what_is_called_is_imported() -> None:
    """TAB must not wait for the modules of each command."""
    program = (
        "import sys; from mailguard.cli.group import run\n"
        "try: run([])\n"
        "finally: print(*(name for name in sys.modules if name.startswith('mailguard.cli.') or name == 'pydantic'))"
    )
    asked = {"_MAILGUARD_COMPLETE": "bash_complete", "COMP_WORDS": "mailguard ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert "plain,quickstart\n" in done.stdout
    modules = {f"mailguard.cli.{name}" for name in ("exit_code", "group", "printable", "standard_error")}
    assert set(done.stdout.splitlines()[-1].split()) == modules


def test_each_verb_is_where_the_list_says() -> None:
    for path, command, _ in commands():
        assert isinstance(command, click.Command)
        assert command.help, path
        assert command.name == path[-1]


def test_a_shell_that_click_does_not_know(mailguard_command: Command) -> None:
    done = mailguard_command("completion", "tcsh")
    assert (done.code, done.out) == (64, "")
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.err


def test_the_help_of_each_command_fits_into_80_columns() -> None:
    wide = []
    for path, command, ctx in commands():
        ctx.terminal_width = 80
        wide += [(" ".join(path), line) for line in command.get_help(ctx).splitlines() if len(line) > 80]
    assert not wide
