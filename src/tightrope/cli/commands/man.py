"""`tightrope man`: the man pages, one for the whole and one a command."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli import outputs
from tightrope.cli.arguments import force
from tightrope.cli.command import HOLDS, command
from tightrope.cli.values import chosen, path
from tightrope.errors import BadInput


def which(parser: ArgumentParser) -> None:
    """Which page, and where to."""
    parser.add_argument(
        "command_name", metavar="COMMAND", nargs="*", help="the command; without one tightrope(1)"
    )
    parser.add_argument(
        "--to", type=path, metavar="DIR", help="write all pages there, tightrope.1 and the others"
    )
    force(parser)


@command(
    "man",
    help="print a man page, or write all of them into a directory",
    takes=(which,),
    examples=(
        "tightrope man rehearse | man -l -",
        "tightrope man --to ~/.local/share/man/man1",
    ),
)
def man(options: Namespace) -> int:
    from tightrope.cli.manual import pages

    every = pages()
    if options.to is not None:
        if options.command_name:
            raise BadInput("writes every page, and takes no COMMAND", source="--to")
        with outputs.told(options.to):
            options.to.mkdir(parents=True, exist_ok=True)
        for name in every:
            outputs.check(options.to / f"{name}.1", force=options.force)
        for name, page in every.items():
            outputs.write(options.to / f"{name}.1", page.encode())
        return HOLDS
    whole = every.pop("tightrope")
    of_commands = {name.removeprefix("tightrope-"): page for name, page in every.items()}
    name = "-".join(options.command_name)
    if name:
        (page,) = chosen(name, of_commands, what="a command", lists="tightrope --help")
    print(page if name else whole, end="")
    return HOLDS
