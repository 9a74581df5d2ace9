"""The parser as man pages: `tightrope.1`, and one a command, `tightrope-rehearse.1`.

    .TH TIGHTROPE-PLAN 1 "" "tightrope 0.1.0" "tightrope"
    .SH NAME            what --help of the command above it says of this one
    .SH SYNOPSIS        the usage
    .SH OPTIONS         each argument as --help has it, group by group
    .SH EXAMPLES        the command's own
    .SH "EXIT STATUS"

Rules: man(7)'s macros alone, so that man-db and mandoc read it; every text is escaped here and
nowhere else.  No date: the same version makes the same page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tightrope import __version__
from tightrope.cli.command import COMMANDS  # all of them, once `parser` is whole
from tightrope.cli.parser import EXAMPLES, GROUPS, STATUS, parser

OTHERWISE = (
    "0 it holds, or it is done or told; 1 a finding; 2 no verdict, with the reason on stderr"
)
"""The exit status of a command that says nothing else."""
SIGNALS = "128 + N where signal N ended it"


def pages() -> dict[str, str]:
    """Name of the page, without its section, to its text."""
    top = parser()
    out = {"tightrope": _page(top, "tightrope", _lower(top.description or ""), EXAMPLES, STATUS)}
    for command, one in _leaves(top):
        about = COMMANDS[command]
        name = f"tightrope-{command.replace(' ', '-')}"
        out[name] = _page(one, name, about.help, about.examples, about.status)
    return out


def _leaves(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command and its parser."""
    for word, one in _children(top):
        if word in GROUPS:
            yield from ((f"{word} {second}", each) for second, each in _children(one))
        else:
            yield word, one


def _children(one: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _page(
    one: argparse.ArgumentParser,
    name: str,
    help: str,
    examples: tuple[str, ...],
    status: str | None,
) -> str:
    usage = " ".join(one.format_usage().split()).removeprefix(f"usage: {one.prog}").strip()
    described = one.description if name != "tightrope" else None
    lines = [
        f'.TH {name.upper()} 1 "" "tightrope {__version__}" "tightrope"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(help)}",
        ".SH SYNOPSIS",
        f".B {_text(one.prog)}",
        _text(usage),
        *((".SH DESCRIPTION", _text(described)) if described else ()),
        *_arguments(one),
        ".SH EXAMPLES",
        *(line for each in examples for line in (".PP", ".nf", f"    {_text(each)}", ".fi")),
        '.SH "EXIT STATUS"',
        _text(f"{status or OTHERWISE}; {SIGNALS}."),
        '.SH "SEE ALSO"',
        _see_also(name),
    ]
    return "\n".join(lines) + "\n"


def _see_also(name: str) -> str:
    if name != "tightrope":
        return ".BR tightrope (1)"
    names = [f"tightrope-{each.replace(' ', '-')}" for each in COMMANDS]
    rows = [f".BR {_text(each)} (1)," for each in names]
    return "\n".join(rows).rstrip(",")


def _arguments(one: argparse.ArgumentParser) -> Iterator[str]:
    """The groups that have arguments, under their titles."""
    form = argparse.HelpFormatter(one.prog)
    for group in one._action_groups:
        shown = [each for each in group._group_actions if each.help != argparse.SUPPRESS]
        if not shown:
            continue
        yield f'.SH "{_text((group.title or "arguments").upper())}"'
        for each in shown:
            if isinstance(each, argparse._SubParsersAction):
                for choice in each._choices_actions:
                    yield from _row(f"\\fB{_text(choice.dest)}\\fR", choice.help or "")
            else:
                yield from _row(_heading(form, each), form._expand_help(each) if each.help else "")


def _heading(form: argparse.HelpFormatter, action: argparse.Action) -> str:
    """`-o, --output FILE`, options in bold, what stands for a value in italics."""
    value = form._format_args(action, form._get_default_metavar_for_optional(action))
    if not action.option_strings:
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest
        return f"\\fI{_text(metavar)}\\fR"
    names = ", ".join(f"\\fB{_text(each)}\\fR" for each in action.option_strings)
    return f"{names} \\fI{_text(value)}\\fR" if action.nargs != 0 else names


def _row(heading: str, text: str) -> Iterator[str]:
    yield from (".TP", heading, _text(text))


def _lower(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}".rstrip(".")


def _text(text: str) -> str:
    """A text that troff prints as it is: on one line, nothing in it a request or an escape."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    line = line.replace('"', "\\(dq")
    return f"\\&{line}" if line[:1] in (".", "'") else line
