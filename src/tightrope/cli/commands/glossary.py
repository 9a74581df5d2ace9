"""`tightrope glossary`: the words that reports use."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli.arguments import as_json
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import show
from tightrope.cli.values import chosen


def word(parser: ArgumentParser) -> None:
    """Which of them."""
    parser.add_argument("word", metavar="WORD", nargs="?", help="one of them; without it all")


@command(
    "glossary",
    help="the words that reports use: V, page_table_a, stale, ...",
    takes=(word, as_json),
    examples=(
        "tightrope glossary",
        "tightrope glossary page_table_a",
    ),
)
def glossary(options: Namespace) -> int:
    from tightrope.model.glossary import TERMS
    from tightrope.views.glossary import VIEW

    by_word = {each.word.lower(): each for each in TERMS}
    found = chosen(options.word, by_word, what="a word of the glossary", lists="tightrope glossary")
    show(options, VIEW, found)
    return HOLDS
