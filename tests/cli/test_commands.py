"""The commands as a registry: what they offer are the names that the rooms have, and no others."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tightrope.choices import OURS, Design
from tightrope.cli.commands import FILES, known
from tightrope.cli.parser import Usage, parser
from tightrope.deeds.machines import MACHINES
from tightrope.model import Paging, Protocol, XenCrash, XenInterface
from tightrope.participants import DESIGNS
from tightrope.prove.run import THEOREMS


def actions(command: str) -> dict[str, argparse.Action]:
    """A command's arguments by name."""
    found: argparse.ArgumentParser = parser()
    for word in command.split():
        [names] = [a for a in found._actions if isinstance(a, argparse._SubParsersAction)]
        found = names.choices[word]
    return {name: each for each in found._actions for name in each.option_strings or [each.dest]}


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("rehearse", "--design", DESIGNS),
        ("prove plan", "--design", DESIGNS),
        ("rehearse", "--on", MACHINES),
        ("rehearse", "--entry", Protocol),
        ("rehearse", "--xen", XenInterface),
        ("rehearse", "--crashed", XenCrash),
        ("plan", "--mode", Paging),
        ("host example", "--mode", Paging),
        ("host example", "--xen", XenInterface),
        ("pgd", "--mode", Paging),
        ("prove", "--mode", Paging),
    ],
)
def test_a_command_offers_what_there_is(command: str, option: str, names: Iterator[str]) -> None:
    assert [str(each) for each in actions(command)[option].choices or ()] == [
        str(each) for each in names
    ]


def test_prove_has_a_word_for_every_theorem() -> None:
    words = {each.name for each in known() if each.name.startswith("prove")}
    assert words == {"prove"}
    [theorems] = [
        each for each in actions("prove").values() if isinstance(each, argparse._SubParsersAction)
    ]
    assert set(theorems.choices) == {*THEOREMS, "plan"}


def test_a_machine_that_is_none_is_refused_where_several_are_named() -> None:
    assert parser().parse_args(["matrix", "--on", "kvm,emulator,kvm"]).on == ("kvm", "emulator")
    with pytest.raises(Usage, match="'abacus' is none of emulator"):
        parser().parse_args(["matrix", "--on", "abacus"])


def test_the_designs_that_can_be_asked_for_are_those_that_there_are() -> None:
    assert [each.value for each in Design] == [*DESIGNS]
    assert OURS in DESIGNS


def test_arguments_are_made_only_for_a_command_that_is_named() -> None:
    """`--help` must not wait for registries; with its word a command has all it takes."""
    program = (
        "import sys; from tightrope.cli.parser import parser; parser(['--help']);"
        "parser(['status', 'matrix']); print('tightrope.deeds.machines' in sys.modules);"
        "parser(['matrix']); print('tightrope.deeds.machines' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_every_command_says_what_it_does() -> None:
    assert len(known()) >= 13
    assert all(each.help for each in known())


@pytest.mark.parametrize("word", sorted({word for words in FILES.values() for word in words}))
def test_a_word_has_its_commands_without_the_files_of_the_others(word: str) -> None:
    program = (
        "import sys; from tightrope.cli.commands import FILES, known\n"
        f"print(*[each.name for each in known({word!r})], sep='|')\n"
        "print(sum(f'tightrope.cli.commands.{name}' in sys.modules for name in FILES))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    names, loaded = done.stdout.splitlines()
    whole = [each.name for each in known() if each.name.split()[0] == word]
    assert names.split("|") == whole
    assert int(loaded) <= 2  # `loaded` takes words of `load`


def test_a_word_that_is_nobodys_has_all_commands_to_be_near_to() -> None:
    assert known("rehears") == known()
