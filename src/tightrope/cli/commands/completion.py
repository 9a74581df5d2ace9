"""`tightrope completion`: what a shell needs to complete our commands, options and names."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli.command import HOLDS, command

SHELLS = ("bash", "zsh", "fish")


def shell(parser: ArgumentParser) -> None:
    """For whom."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


@command(
    "completion",
    help="print what makes bash, zsh or fish complete tightrope's words",
    description="Print a script for the shell.  Bash looks for it in"
    " ~/.local/share/bash-completion/completions/tightrope, zsh for _tightrope in its $fpath, fish in"
    " ~/.config/fish/completions/tightrope.fish.",
    takes=(shell,),
    examples=(
        "tightrope completion bash > ~/.local/share/bash-completion/completions/tightrope",
        "tightrope completion fish > ~/.config/fish/completions/tightrope.fish",
    ),
)
def completion(options: Namespace) -> int:
    from tightrope.cli.shells import completions

    print(completions(options.shell), end="")
    return HOLDS
