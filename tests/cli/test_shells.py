"""Completions and man pages have every command and option; shells really complete; examples are command lines."""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import lacking
from tightrope.check import RULES
from tightrope.cli import main
from tightrope.cli.command import COMMANDS
from tightrope.cli.manual import pages
from tightrope.cli.parser import GROUPS, parser, with_sizes
from tightrope.cli.shells import actions, completions
from tightrope.sabotage import SABOTAGES

SHELLS = ("bash", "zsh", "fish")
WHOLE = parser()
OPTIONS = sorted(
    {
        (command, option)
        for command, action in actions(WHOLE)
        for option in action.option_strings
        if action.help != argparse.SUPPRESS
    }
)
"""Every option that `--help` shows, with the words of its command."""


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: completions(shell) for shell in SHELLS}


# ------------------------------------------------------------------------------------ completions


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_completions(
    shell: str, scripts: dict[str, str]
) -> None:
    text = scripts[shell]
    for name in COMMANDS:
        assert all(re.search(rf"\b{re.escape(word)}\b", text) for word in name.split()), name
    for command, option in OPTIONS:
        # fish names a long option without its dashes: `-l json`.
        bare = option.lstrip("-") if shell == "fish" else option
        assert re.search(rf"(?<![\w-]){re.escape(bare)}(?![\w-])", text), (command, option)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_that_is_here_finds_no_fault_in_its_script(
    shell: str, scripts: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "script"
    path.write_text(scripts[shell])
    if shell == "bash" or shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True)


def completed(script: str, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    path = folder / "tightrope.bash"
    path.write_text(script)
    program = (
        f"cd {shlex.quote(str(folder))}; source ./tightrope.bash;"
        f" COMP_WORDS=(tightrope {shlex.join(words)}); COMP_CWORD={len(words)};"
        " COMP_LINE=${COMP_WORDS[*]}; COMP_POINT=${#COMP_LINE};"
        ' of=$(complete -p tightrope | sed "s/.*-F \\([^ ]*\\).*/\\1/");'
        ' $of tightrope "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}";'
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, check=True
    )
    return [each.strip() for each in done.stdout.splitlines() if each.strip()]


def test_bash_completes_commands_options_and_names(scripts: dict[str, str], tmp_path: Path) -> None:
    bash = scripts["bash"]
    assert completed(bash, tmp_path, "reh") == ["rehearse"]
    assert {"example", "capture", "check"} <= set(completed(bash, tmp_path, "host", ""))
    assert completed(bash, tmp_path, "plan", "--scat") == ["--scatter"]
    assert set(completed(bash, tmp_path, "rehearse", "--until", "")) == {
        "entry",
        "console",
        "userspace",
    }
    stale = completed(bash, tmp_path, "rehearse", "--sabotage", "stale")
    assert stale == [each for each in SABOTAGES if each.startswith("stale")]
    found = completed(bash, tmp_path, "rules", "table-a-maps")
    assert set(found) == {each.id for each in RULES if each.id.startswith("table-a-maps")}
    (tmp_path / "vmlinuz-mine").touch()
    assert "vmlinuz-mine" in completed(bash, tmp_path, "plan", "vml")
    assert completed(bash, tmp_path, "no-such") == []


def test_fish_completes_commands_options_and_names(scripts: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        lacking("no fish here: run scripts/system-packages")
    (tmp_path / "tightrope.fish").write_text(scripts["fish"])

    def offered(line: str) -> set[str]:
        program = f"source tightrope.fish; complete -C {shlex.quote(line)}"
        done = subprocess.run(
            ["fish", "--no-config", "--private", "-c", program],
            cwd=tmp_path,
            env=os.environ | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return {each.partition("\t")[0] for each in done.stdout.splitlines()}

    assert offered("tightrope reh") == {"rehearse"}
    assert {"example", "capture", "check"} <= offered("tightrope host ")
    assert offered("tightrope plan --scat") == {"--scatter"}
    assert offered("tightrope rehearse --until ") == {"entry", "console", "userspace"}
    assert offered("tightrope rehearse --sabotage stale") == {"stale-pdpte", "stale-global"}


def in_zsh(folder: Path, lines: dict[str, str]) -> dict[str, str]:
    """What a zsh on a terminal of its own has made of each line after a Tab; the values are what to
    wait for."""
    child, at = pty.fork()
    if not child:
        os.chdir(folder)
        plain = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": ""}
        os.execvpe("zsh", ["zsh", "-f", "-i"], plain)
    try:

        def until(text: str) -> str:
            said, end = b"", time.monotonic() + 30
            while text.encode() not in said and time.monotonic() < end:
                if select.select([at], [], [], 0.1)[0]:
                    said += os.read(at, 1 << 16)
            return said.decode(errors="replace")

        begin = f"fpath=({shlex.quote(str(folder))} $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy"
        os.write(at, f"{begin}\n".encode())
        assert "ready\r\n" in until("ready\r\n")
        out = {}
        for line, wanted in lines.items():
            os.write(at, f"{line}\t".encode())
            out[line] = until(wanted)
            assert wanted in out[line], (line, out[line])
            os.write(at, b"\x15")  # the line is taken away again
        return out
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(at)


def test_zsh_completes_commands_options_and_names(scripts: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        lacking("no zsh here: run scripts/system-packages")
    (tmp_path / "_tightrope").write_text(scripts["zsh"])
    (tmp_path / "vmlinuz-mine").touch()
    lines = {
        "tightrope reh": "tightrope rehearse",
        "tightrope host exa": "tightrope host example",
        "tightrope plan --scat": "tightrope plan --scatter",
        "tightrope rehearse --until con": "--until console",
        "tightrope rehearse --sabotage stale-p": "--sabotage stale-pdpte",
        "tightrope rules table-a-maps-v": "table-a-maps-v ",
        "tightrope plan --initrd vml": "--initrd vmlinuz-mine",
    }
    assert all("invalid" not in said for said in in_zsh(tmp_path, lines).values())


# -------------------------------------------------------------------------------------- man pages


def test_there_is_a_page_for_every_command_with_every_option() -> None:
    every = pages()
    assert set(every) == {"tightrope", *(f"tightrope-{n.replace(' ', '-')}" for n in COMMANDS)}
    for command, option in OPTIONS:
        if command in GROUPS or command.startswith("prove "):
            continue  # they have no page of their own
        page = every["-".join(("tightrope", *command.split()))]
        escaped = option.replace("-", "\\-")
        assert f"\\fB{escaped}\\fR" in page, (command, option)
    for name in COMMANDS:
        assert name.split()[0].replace("-", "\\-") in every["tightrope"]


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_read_without_a_warning_and_says_what_help_says(name: str) -> None:
    if shutil.which("groff") is None:
        lacking("no groff here: run scripts/system-packages")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-P-c", "-rLL=200n"],
        input=pages()[name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    text = re.sub(r".\x08", "", done.stdout)
    about = COMMANDS.get(name.removeprefix("tightrope-").replace("-", " "))
    if about is not None:
        assert " ".join(about.help.split()) in " ".join(text.split())
        for each in about.examples:
            assert each in text


def test_a_page_is_printed_and_all_of_them_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["man", "host", "example"]) == 0
    assert capsys.readouterr().out.startswith(".TH TIGHTROPE-HOST-EXAMPLE 1")
    assert main(["man", "moon"]) == 2
    assert "'moon' is not a command; near it: man" in capsys.readouterr().err
    folder = tmp_path / "man1"
    assert main(["man", "--to", str(folder)]) == 0
    assert {each.stem for each in folder.iterdir()} == set(pages())
    assert main(["man", "--to", str(folder)]) == 2
    assert "--force" in capsys.readouterr().err


# --------------------------------------------------------------------------------------- examples

HELPS: list[argparse.ArgumentParser] = [
    WHOLE,
    *(
        choice
        for _, action in actions(WHOLE)
        if isinstance(action, argparse._SubParsersAction)
        for choice in action.choices.values()
    ),
]


def examples(one: argparse.ArgumentParser) -> list[str]:
    lines = one.format_help().partition("examples:\n")[2].splitlines()
    return [each.strip() for each in lines if each.startswith("  ")]


@pytest.mark.parametrize("one", HELPS, ids=lambda one: one.prog.replace(" ", "-"))
def test_every_help_ends_with_two_examples_that_are_command_lines(
    one: argparse.ArgumentParser,
) -> None:
    found = examples(one)
    assert len(found) >= 2
    for line in found:
        words = shlex.split(re.split(r" [|>] ", line)[0])
        assert words[0] == "tightrope"
        options = parser(words[1:]).parse_args([*with_sizes(words[1:])])
        if one is not WHOLE:
            assert line.startswith(one.prog)
        assert options.command.name in COMMANDS


CHEAP = re.compile(
    r"tightrope (glossary|rules|contracts|schema|doctor|status|host example|host schema"
    r"|plan --shipped|tables --shipped|rehearse --shipped|compare --shipped|prove tables --mode)"
    r"(?!.*/)"
)
RUN = [each for one in HELPS for each in examples(one) if CHEAP.match(each)]


@pytest.mark.parametrize("line", sorted({re.split(r" [|>] ", each)[0] for each in RUN}))
def test_a_cheap_example_runs(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(shlex.split(line)[1:])
    said = capsys.readouterr()
    assert status == (1 if "--sabotage" in line else 0), said.err
    assert said.out
