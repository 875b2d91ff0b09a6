"""Write the manual pages: one for each command of mailguard, mailguard-milter(8) and mailguard.toml(5).

Run with the Python that mailguard is installed in: python contrib/man_pages.py DIRECTORY. The pages are written to
man1, man5 and man8 in DIRECTORY, such as /usr/local/share/man, and their names printed. They come from the commands,
the arguments of the daemon and the configuration model, as docs/configuration.md does. Their date is that of
$SOURCE_DATE_EPOCH, where it is set, and otherwise today.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

import generate_docs
import mailguard_milter.__main__ as daemon
from command_tree import commands
from mailguard.cli.exit_code import ExitCode
from mailguard.config import DEFAULT_PATH
from roff import Page, bold, from_markdown, italic, plain

DAEMON = "mailguard-milter"
CONFIGURATION = "mailguard.toml"
_ROW = re.compile(r"^\| `(?P<key>[^`]+)` \| (?P<type>.*) \| ?(?P<default>.*) \| (?P<meaning>.*) \|$")


def pages() -> Iterator[Page]:
    """All of them."""
    begun = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    made = {"version": version("mailguard-milter"), "date": time.strftime("%Y-%m-%d", begun)}
    for path, command, ctx in commands():
        page = Page("-".join(path), 1, _sentence(command), **made)
        _describe(page, command, ctx)
        yield page
    page = Page(DAEMON, 8, "signs and verifies mail for Postfix", **made)
    _describe_daemon(page)
    yield page
    page = Page(CONFIGURATION, 5, "the configuration of mailguard", **made)
    _describe_configuration(page)
    yield page


def _describe(page: Page, command: click.Command, ctx: click.Context) -> None:
    page.heading("SYNOPSIS")
    page.paragraph(f"{bold(ctx.command_path)} {plain(' '.join(command.collect_usage_pieces(ctx)))}")
    page.heading("DESCRIPTION")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        # click's mark for a paragraph that is not filled.
        if paragraph.startswith("\b\n"):
            page.lines([plain(line) for line in paragraph.splitlines()[1:]])
        else:
            page.paragraph(plain(" ".join(paragraph.split())))
    page.heading("OPTIONS")
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if isinstance(parameter, click.Option) and record is not None:
            names = ", ".join(bold(name) for name in (*parameter.opts, *parameter.secondary_opts))
            value = parameter.make_metavar(ctx) if not parameter.is_flag and not parameter.count else ""
            page.item(f"{names} {italic(value)}" if value else names, plain(record[1]) or plain("See above."))
    if isinstance(command, click.Group):
        page.heading("COMMANDS")
        for name in command.list_commands(ctx):
            _, inner, _ = command.resolve_command(ctx, [name])
            if inner is not None:
                page.item(_reference(f"{ctx.command_path} {name}", 1), plain(_sentence(inner)))
    if ctx.parent is None:
        page.heading("EXIT STATUS")
        for code in ExitCode:
            page.item(bold(str(int(code))), plain(code.meaning))
        page.heading("ENVIRONMENT")
        page.item(
            bold("NO_COLOR"), plain("Where it is set, nothing is coloured; nor is what does not go to a terminal.")
        )
        page.heading("FILES")
        page.item(italic(DEFAULT_PATH), plain("The configuration, where no other is named."))
    else:
        page.heading("EXIT STATUS")
        page.paragraph(f"As {_reference('mailguard', 1)} tells, where nothing else is said above.")
    page.heading("SEE ALSO")
    above = [_reference(ctx.parent.command_path, 1)] if ctx.parent is not None else []
    page.paragraph(", ".join([*above, _reference(DAEMON, 8), _reference(CONFIGURATION, 5)]))


def _describe_daemon(page: Page) -> None:
    parser = daemon.command_line()
    page.heading("SYNOPSIS")
    page.paragraph(plain(" ".join(parser.format_usage().removeprefix("usage: ").split())))
    page.heading("DESCRIPTION")
    page.paragraph(plain(parser.description or ""))
    page.heading("OPTIONS")
    # argparse has no other way to ask.
    for action in parser._actions:
        names = ", ".join(bold(name) for name in action.option_strings)
        explained = (action.help or "") % {"default": action.default}
        page.item(f"{names} {italic(str(action.metavar))}" if action.metavar else names, plain(explained))
    page.heading("EXIT STATUS")
    page.paragraph(plain(" ".join((daemon.__doc__ or "").partition("Exit codes (sysexits.h): ")[2].split())))
    page.heading("FILES")
    page.item(italic(DEFAULT_PATH), plain("The configuration, where no other is named."))
    page.heading("SEE ALSO")
    page.paragraph(", ".join([_reference("mailguard", 1), _reference(CONFIGURATION, 5)]))


def _describe_configuration(page: Page) -> None:
    """docs/configuration.md, read again: its headings, paragraphs and tables."""
    page.heading("DESCRIPTION")
    for block in generate_docs.configuration().split("\n\n")[1:]:
        if block.startswith("## "):
            page.heading(block.removeprefix("## ").replace("`", ""))
        elif block.startswith("| key"):
            for line in block.splitlines()[2:]:
                _key(page, line)
        elif not block.startswith("<!--"):
            page.paragraph(from_markdown(" ".join(block.split())))
    page.heading("SEE ALSO")
    page.paragraph(", ".join([_reference("mailguard", 1), _reference(DAEMON, 8)]))


def _key(page: Page, line: str) -> None:
    row = _ROW.match(line)
    if row is None:
        raise SystemExit(f"docs/configuration.md has a line that is no row of a table: {line}")
    cells = {name: text.replace(r"\|", "|").strip() for name, text in row.groupdict().items()}
    said = f"{cells['type']}; default: {cells['default']}" if cells["default"].startswith("`") else cells["type"]
    if cells["default"] and not cells["default"].startswith("`"):
        said += f"; {cells['default']}"
    page.item(f"{bold(cells['key'])} ({from_markdown(said)})", from_markdown(cells["meaning"]))


def _sentence(command: click.Command) -> str:
    """The first of its description."""
    first = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", first)[0]


def _reference(name: str, section: int) -> str:
    return f"{bold(name.replace(' ', '-'))}({section})"


def main() -> int:
    """Write them; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where man1, man5 and man8 are, such as /usr/local/share/man")
    directory = parser.parse_args().directory
    try:
        for page in pages():
            file = directory / page.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(page.text(), encoding="utf-8")
            print(file)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
