"""contrib/capture.py: made from the room's source, runs on Python 3.6 alone, and tells what a capture tells."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.host.test_capture import as_nobody, as_root
from tightrope import host
from tightrope.errors import HostError
from tightrope.host.capture.collect import KALLSYMS, MARK, printed
from tightrope.host.collected import collected

SCRIPT = REPOSITORY / "contrib" / "capture.py"


def test_the_script_is_what_the_room_makes() -> None:
    assert SCRIPT.read_text() == host.script()


def test_it_is_python_3_6_and_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else each.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }
    assert names == {"errno", "itertools", "json", "os", "pathlib", "re", "stat", "sys"}


def test_it_runs_alone_and_what_it_prints_is_a_host_here(tmp_path: Path) -> None:
    """This very machine: what the script prints and what `host.capture` reads are the same files."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"],
        input=SCRIPT.read_bytes(),
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
    files = collected(done.stdout.decode(), "this machine")
    here = host.read_tree()
    assert set(files) == set(here)
    changing = {"/proc/meminfo", "/proc/cpuinfo", KALLSYMS}
    for path in set(files) - changing:
        got, read = files[path], here[path]
        if isinstance(read, OSError):
            assert isinstance(got, OSError)
            assert got.errno == read.errno
        else:
            assert got == read


@pytest.mark.parametrize("made", [as_root, as_nobody])
def test_what_was_collected_is_the_host_that_a_capture_tells(made: object) -> None:
    assert callable(made)
    files = made()
    source = "a machine"
    here = host.read(host.capture(files, source).toml, source)
    there = host.read(printed(files), source)
    assert there == here


def test_of_the_symbols_only_what_is_asked_for_is_sent() -> None:
    table = (
        "ffffffff81000000 T _text\nffffffff81000010 t secret_sauce\nffffffffc0000000 t _text\t[m]\n"
    )
    assert "secret_sauce" not in printed({KALLSYMS: table})
    assert collected(printed({KALLSYMS: table}), "x")[KALLSYMS] == table.splitlines(True)[0]


@given(
    files=st.dictionaries(
        st.text(st.characters(max_codepoint=0xFF), max_size=12).map("/proc/{}".format),
        st.text(st.characters(max_codepoint=0xFF), max_size=40)
        | st.sampled_from([errno.EACCES, errno.ENOENT, errno.EIO]).map(lambda n: OSError(n, "")),
        max_size=6,
    ).filter(lambda files: KALLSYMS not in files)
)
def test_any_bytes_of_a_file_arrive_as_they_were(files: dict[str, str | OSError]) -> None:
    def plain(some: dict[str, str | OSError]) -> dict[str, object]:
        return {p: (g.errno if isinstance(g, OSError) else g) for p, g in some.items()}

    text = printed(files)
    assert text.isascii()
    assert tomllib.loads(text)
    assert plain(collected(text, "x")) == plain(files)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[files", "HOST.toml: not TOML"),
        ("", "HOST.toml: has no [files]"),
        ("[files]\n[more]\n", "HOST.toml: has no [files], or more than"),
        ("[files]\n'/proc/iomem' = 5\n", "HOST.toml: /proc/iomem: is not text"),
        ("[files]\n[errors]\n'/proc/iomem' = 'x'\n", "/proc/iomem: is not an error's number"),
        ("[files]\n[errors]\n'/proc/iomem' = 99999999999999999999\n", "HOST.toml: memory: no file"),
        ("[files]\n'/proc/cpuinfo' = 'flags : x'\n", "/proc/cpuinfo: flags: no x86_64 CPU"),
    ],
)
def test_what_is_no_collection_is_one_line(text: str, says: str) -> None:
    with pytest.raises(HostError) as caught:
        host.read(f"{MARK}\n{text}", "HOST.toml")
    assert says in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_behind_the_mark_is_an_error(text: str) -> None:
    """Sixty characters tell of no machine."""
    with pytest.raises(HostError):
        host.read(f"{MARK}\n{text}", "HOST.toml")
