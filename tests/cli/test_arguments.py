"""The command line on bad input: one line on stderr that names what is wrong, and exit status 2.

`main` is called in this process; what only shows in a process of its own is in test_process.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.makers.bzimage import bzimage, put
from tests.makers.hosts import document, write
from tightrope import __version__, host
from tightrope.cli import main
from tightrope.model import Paging
from tightrope.sabotage import SABOTAGES


@dataclass(frozen=True)
class Done:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str


class Shell:
    """Runs `tightrope` in this process, in an empty folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:  # argparse ends this way
            status = end.code if isinstance(end.code, int) else 1
        got = self._capsys.readouterr()
        return Done(status, got.out, got.err)

    def file(self, name: str, data: bytes | str) -> str:
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)


@pytest.fixture
def tightrope(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys, tmp_path)


def refused(done: Done, *words: str) -> None:
    """Exit status 2, nothing on stdout, one line on stderr with these words in it."""
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("tightrope: ")
    assert done.err.count("\n") == 1
    assert done.err.endswith("\n")
    for word in words:
        assert word in done.err


# -------------------------------------------------------------------------------- what is there


def test_the_version_is_the_packages(tightrope: Shell) -> None:
    done = tightrope("--version")
    assert (done.status, done.out, done.err) == (0, f"tightrope {__version__}\n", "")


def test_help_names_every_deed_and_the_exit_status(tightrope: Shell) -> None:
    done = tightrope("--help")
    assert done.status == 0
    for word in ("rehearse", "inspect", "plan", "host", "rules", "Exit status: 0", "1", "2"):
        assert word in done.out


@pytest.mark.parametrize("deed", ["rehearse", "inspect", "plan", "host", "rules"])
def test_every_deed_has_help(tightrope: Shell, deed: str) -> None:
    done = tightrope(deed, "--help")
    assert done.status == 0
    assert done.out.startswith(f"usage: tightrope {deed}")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("jump",),
        ("host",),
        ("inspect",),
        ("rehearse", "--design", "three-tables"),
        ("rehearse", "--until", "login"),
        ("rehearse", "--shipped", "--scatter", "often"),
        ("rehearse", "--shipped", "--limit", "nan"),
        ("rehearse", "--shipped", "--limit", "0"),
        ("rehearse", "--shipped", "--limit", "-1"),
        ("rehearse", "--shipped", "--limit", "soon"),
        ("rehearse", "a", "b"),
    ],
)
def test_a_wrong_usage_is_status_2_and_says_where_to_look(
    tightrope: Shell, arguments: tuple[str, ...]
) -> None:
    done = tightrope(*arguments)
    assert (done.status, done.out) == (2, "")
    said, hint = done.err.splitlines()
    assert said.startswith("tightrope: ")
    assert re.fullmatch(r"tightrope: try `tightrope [a-z ]*--help`", hint)


def test_a_wrong_word_is_told_its_neighbours_and_its_command(tightrope: Shell) -> None:
    assert "no command 'plam'; near it: plan" in tightrope("plam").err
    said = tightrope("plan", "--shiped").err
    assert said == ("tightrope: does not know --shiped\ntightrope: try `tightrope plan --help`\n")


@pytest.mark.parametrize("word", ["0", "256", "256M,high", "512M-2G:64M"])
def test_what_is_no_size_behind_crash_is_told_with_one_that_is(tightrope: Shell, word: str) -> None:
    assert (
        f"argument --crash: {word!r} is not a size, which 256M would be"
        in tightrope("rehearse", "vmlinuz", "--crash", word).err
    )


def test_a_size_where_none_is_asked_for_is_told_as_it_was_typed(tightrope: Shell) -> None:
    said = tightrope("pairs", "--from", "a", "--to", "b", "--crash", "256M").err
    assert said.startswith("tightrope: does not know 256M\n")


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("--crash", "256M"), 256 << 20),
        (("--crash=0.25GiB",), 256 << 20),
        (("--crash", "65536k"), 64 << 20),
    ],
)
def test_a_crash_region_s_size_may_be_said(
    tightrope: Shell, words: tuple[str, ...], size: int
) -> None:
    example = tightrope.file("host.toml", host.example())
    assert "`--crash 256M` takes one" in tightrope("plan", "--host", example, "--crash").err
    done = tightrope("plan", "--shipped", "--host", example, *words)
    found = re.search(r"crash region \[(0x[0-9a-f]+), (0x[0-9a-f]+)\)", done.out)
    assert found is not None
    start, end = (int(each, 16) for each in found.groups())
    assert end - start == size
    assert start % (16 << 20) == 0
    assert end <= 1 << 32


def test_a_kernel_behind_crash_is_a_kernel(tightrope: Shell) -> None:
    kernel = tightrope.file("256", bzimage())
    assert tightrope("plan", "--crash", kernel).status == 0
    assert "no free RAM below 4 GiB" in tightrope("plan", "--shipped", "--crash", "9T").err
    assert "is not a size of memory" in tightrope("plan", "--shipped", "--crash=0").err


@pytest.mark.parametrize(
    "words", [["--crash=0x33000000+0x10000000"], ["--crash", "0x33000000+0x10000000"]]
)
def test_an_example_s_crash_region_is_where_it_is_asked_for(
    tightrope: Shell, words: list[str]
) -> None:
    done = tightrope("host", "example", *words)
    assert (done.status, done.err) == (0, "")
    assert "start = 0x3300_0000" in done.out


def test_the_example_host_comes_out_as_it_is_and_can_be_used(tightrope: Shell) -> None:
    done = tightrope("host", "example")
    assert (done.status, done.out, done.err) == (0, host.example(), "")
    path = tightrope.file("host.toml", done.out)
    assert tightrope("plan", "--shipped", "--host", path).status == 0


def test_the_rules_and_sabotages_are_listed(tightrope: Shell) -> None:
    rules = tightrope("rules")
    assert rules.status == 0
    assert len(rules.out.splitlines()) >= 3 * 40
    listed = json.loads(tightrope("rules", "--json").out)["rules"]
    assert [each["rule"] for each in listed if not each["mend"]] == []
    assert rules.out.count("mend: ") == len(listed)
    broken = tightrope("rehearse", "--sabotage", "list")
    assert broken.status == 0
    assert [name for name in SABOTAGES if name not in broken.out] == []


# --------------------------------------------------------------------------------- bad kernels


@pytest.mark.parametrize("deed", ["rehearse", "plan", "inspect"])
def test_a_file_that_is_not_there(tightrope: Shell, deed: str) -> None:
    refused(tightrope(deed, "no/such/kernel"), "no/such/kernel: No such file or directory")


@pytest.mark.parametrize("deed", ["rehearse", "plan", "inspect"])
def test_a_folder_cannot_be_read(tightrope: Shell, deed: str) -> None:
    refused(tightrope(deed, str(tightrope.folder)), f"{tightrope.folder}: Is a directory")


KERNEL = bzimage()
NOT_KERNELS = {
    "empty": b"",
    "text": b"not a kernel\n" * 100,
    "elf": b"\x7fELF\x02\x01\x01" + bytes(2000),
    "cut-in-the-header": KERNEL[:0x230],
    "cut-in-the-kernel": KERNEL[:-100],
    "bad-flag": put(KERNEL, "boot_flag", 0),
}


@pytest.mark.parametrize("deed", ["rehearse", "plan", "inspect"])
@pytest.mark.parametrize("what", NOT_KERNELS)
def test_what_is_not_a_whole_kernel(tightrope: Shell, deed: str, what: str) -> None:
    path = tightrope.file("kernel", NOT_KERNELS[what])
    refused(tightrope(deed, path), path)


@pytest.mark.parametrize("deed", ["rehearse", "plan", "inspect"])
def test_a_kernel_that_is_padded_to_a_block_is_whole_and_said_to_be_padded(
    tightrope: Shell, deed: str
) -> None:
    done = tightrope(deed, tightrope.file("kernel", KERNEL + bytes(4096)))
    assert (done.status, done.err) == (0, "")
    assert "4096 bytes of zeros behind the kernel" in done.out


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_kernel_is_a_plan_or_one_line(
    tightrope: Shell, data: st.DataObject
) -> None:
    broken = bytearray(KERNEL)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0x1F1, 0x26C))] = data.draw(st.integers(0, 255))
    done = tightrope("plan", tightrope.file("kernel", bytes(broken)))
    if done.status:
        refused(done)
    else:
        assert done.err == ""


def test_a_kernel_and_the_shipped_one_are_one_too_many(tightrope: Shell) -> None:
    path = tightrope.file("kernel", KERNEL)
    for deed in ("rehearse", "plan"):
        refused(tightrope(deed, path, "--shipped"), "command line", "not both")


def test_a_kernel_that_cannot_be_unpacked_is_shown_and_is_a_finding(tightrope: Shell) -> None:
    packed = KERNEL.index(b"\x1f\x8b\x08")
    broken = KERNEL[: packed + 100] + bytes(50) + KERNEL[packed + 150 :]
    path = tightrope.file("kernel", broken)
    assert tightrope("inspect", tightrope.file("good", KERNEL)).status == 0
    done = tightrope("inspect", path)
    assert (done.status, done.err) == (1, "")
    assert "startup_64" in done.out


# ----------------------------------------------------------------------------- bad host, bad words


def test_a_host_field_of_a_wrong_type(tightrope: Shell) -> None:
    table = document()
    table["text"]["size"] = "large"
    path = tightrope.file("host.toml", write(table))
    for deed in ("rehearse", "plan"):
        done = tightrope(deed, "--shipped", "--host", path)
        refused(done, f"{path}: text.size: expected a whole number, found text")


def test_a_v_that_is_not_page_aligned(tightrope: Shell) -> None:
    path = tightrope.file("host.toml", write(document() | {"relocation": 0xFFFF_FFFF_9AC0_1008}))
    refused(tightrope("rehearse", "--shipped", "--host", path), "relocation", "multiple of 0x1000")


def test_a_host_file_that_is_not_text(tightrope: Shell) -> None:
    path = tightrope.file("host.toml", b"paging = \xff\xfe")
    done = tightrope("rehearse", "--shipped", "--host", path)
    refused(done, f"{path} at offset 0x9: not UTF-8 text")


@pytest.mark.parametrize("text", ["paging", "a = " + "[" * 100_000, "\0", "a = " + "1" * 5000])
def test_a_host_file_that_is_not_toml(tightrope: Shell, text: str) -> None:
    path = tightrope.file("host.toml", text)
    refused(tightrope("plan", "--shipped", "--host", path), "not TOML")


def test_a_host_or_an_initrd_that_is_not_there(tightrope: Shell) -> None:
    refused(tightrope("plan", "--shipped", "--host", "gone"), "gone: No such file")
    refused(tightrope("plan", "--shipped", "--initrd", "gone"), "gone: No such file")


def test_a_host_whose_tables_have_no_room(tightrope: Shell) -> None:
    table = document()
    table["private"]["size"] = 0x1000
    path = tightrope.file("host.toml", write(table))
    refused(tightrope("rehearse", "--shipped", "--host", path), "private.size", "too small")


def small_host_file(tightrope: Shell) -> str:
    """A host of 64 MiB, so that an initrd need not be large to be too large."""
    table = document()
    table["memory"] = [{"start": 0, "size": 64 << 20, "kind": "ram"}]
    table["text"] |= {"phys": 0x20_0000}
    table["private"] = {"start": 0x300_0000, "size": 0x80_0000}
    table["busy"], table["firmware"] = [], []
    return tightrope.file("small.toml", write(table))


def test_an_initrd_larger_than_memory(tightrope: Shell) -> None:
    small, initrd = small_host_file(tightrope), tightrope.file("initrd", bytes(60 << 20))
    assert tightrope("plan", "--shipped", "--host", small).status == 0
    refused(
        tightrope("rehearse", "--shipped", "--host", small, "--initrd", initrd),
        f"{initrd}: initrd_addr_max: no room for 0x3c00000 bytes",
    )


def test_an_empty_initrd(tightrope: Shell) -> None:
    initrd = tightrope.file("initrd", b"")
    refused(tightrope("plan", "--shipped", "--initrd", initrd), f"{initrd}: the initrd is empty")


def test_a_command_line_that_is_too_long(tightrope: Shell) -> None:
    path = tightrope.file("kernel", KERNEL)
    assert tightrope("plan", path, "--append", "x" * 2047).status == 0
    done = tightrope("plan", path, "--append", "x" * 2048)
    refused(done, "command line: cmdline_size: 2048 bytes", "(limit 0x7ff)")


def test_a_command_line_that_is_not_utf_8_is_handed_over_as_it_is(tightrope: Shell) -> None:
    """Linux takes any bytes; a screen shows them escaped."""
    done = tightrope("rehearse", "--shipped", "--append", "a=\udcff", "-v")
    assert (done.status, done.err) == (0, "")
    assert "\udcff" not in done.out
    document = json.loads(tightrope("plan", "--shipped", "--append", "a=\udcff", "--json").out)
    assert "a=\udcff" in document["command_line"]


def test_a_negative_seed(tightrope: Shell) -> None:
    refused(tightrope("rehearse", "--shipped", "--scatter", "-1"), "scatter", "-1")


def test_a_sabotage_that_nobody_knows(tightrope: Shell) -> None:
    refused(tightrope("rehearse", "--shipped", "--sabotage", "coffee"), "coffee")


@pytest.mark.parametrize("where", ["no/such/folder/trace", "."])
def test_a_trace_that_cannot_be_written(tightrope: Shell, where: str) -> None:
    done = tightrope("rehearse", "--shipped", "--trace", str(tightrope.folder / where))
    refused(done, str(tightrope.folder))


# ------------------------------------------------------------------------------------ what is said

KEYS = {
    "": "schema verdict steps findings advice relocation_code facts rules unasked unpacked entry stopped plan"
    " segments xen console stats blackout",
    "steps.0": "number name ok",
    "entry": "general rip rflags cr0 cr3 cr4 efer segments gdt idt",
    "stopped": "why registers",
    "plan": "image remarks host crash segments control_page relocation entry kernel_entry entry_bits"
    " protocol boot_params arguments command_line list pages pages_in_place identity page_table_a page_table_b",
    "plan.segments.0": "name start size data why",
    "plan.list": "head pages",
    "plan.identity.0": "start size what",
    "plan.page_table_a": "root pages",
    "plan.page_table_b": "root pages",
    "stats": "machine sees blind instructions translations pages_copied pages_in_place bytes_copied"
    " seconds peak_memory",
}


def test_json_has_the_keys_that_are_documented_and_no_others(tightrope: Shell) -> None:
    done = tightrope("rehearse", "--shipped", "--json")
    assert (done.status, done.err) == (0, "")
    document = json.loads(done.out)
    for path, keys in KEYS.items():
        found = document
        for step in filter(None, path.split(".")):
            found = found[int(step)] if isinstance(found, list) else found[step]
        assert set(found) == set(keys.split()), path
    assert document["verdict"] == "holds"
    assert document["findings"] == []
    assert document["console"] is None
    assert document["stopped"]["why"] == "entry"
    assert document["entry"] == document["stopped"]["registers"]
    assert document["entry"]["rip"] == document["plan"]["kernel_entry"]
    assert [step["number"] for step in document["steps"]] == list(range(7))
    assert all(step["ok"] for step in document["steps"])


def test_json_of_a_fall_names_the_rule_and_is_status_1(tightrope: Shell) -> None:
    name = next(iter(SABOTAGES))
    done = tightrope("rehearse", "--shipped", "--json", "--sabotage", name)
    assert done.status == 1
    document = json.loads(done.out)
    assert document["verdict"] == "falls"
    assert SABOTAGES[name].rule in [finding["rule"] for finding in document["findings"]]
    for finding in document["findings"]:
        assert set(finding) == {"rule", "step", "message", "evidence", "mend"}


def test_json_of_a_plan_is_the_plan_of_a_rehearsal(tightrope: Shell) -> None:
    planned = json.loads(tightrope("plan", "--shipped", "--json").out)
    assert planned.pop("schema") == "tightrope/plan/1"
    walked = json.loads(tightrope("rehearse", "--shipped", "--json").out)["plan"]
    assert set(walked) - set(planned) == {"page_table_a", "page_table_b"}
    assert planned.pop("blackout")["seconds"] >= 0
    assert planned == {key: walked[key] for key in planned}


def test_json_of_an_inspected_kernel_parses(tightrope: Shell) -> None:
    done = tightrope("inspect", "--json", tightrope.file("kernel", KERNEL))
    assert done.status == 0
    assert isinstance(json.loads(done.out), dict)


def test_a_trace_has_a_line_for_every_instruction(tightrope: Shell) -> None:
    trace = tightrope.folder / "trace"
    done = tightrope("rehearse", "--shipped", "--json", "--trace", str(trace))
    rows = [line.split("\t") for line in trace.read_text().splitlines()]
    document = json.loads(done.out)
    assert len(rows) == document["stats"]["instructions"] > 1000
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    assert int(rows[0][2], 16) == document["plan"]["relocation"]
    assert (rows[0][3], rows[1][3]) == ("cli", "cld")
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert {row[1] for row in rows} == set("123456")
    assert "?" not in {row[3] for row in rows}


def test_a_trace_of_a_fall_ends_where_it_fell(tightrope: Shell) -> None:
    trace = tightrope.folder / "trace"
    region = tightrope("host", "example", "--crash", "0x33000000+0x10000000").out
    crash_host = tightrope.file("crash.toml", region)
    for name, each in SABOTAGES.items():
        if Paging.X86_64 not in each.modes:
            continue
        crash: tuple[str, ...] = ("--crash", "--host", crash_host) if each.crash else ()
        crash += ("--backup",) if each.backup else ()
        done = tightrope(
            "rehearse",
            "--shipped",
            "--json",
            "--sabotage",
            name,
            "--trace",
            str(trace),
            "--force",
            *crash,
        )
        assert done.status == 1, name
        lines = trace.read_text().splitlines()
        assert len(lines) == json.loads(done.out)["stats"]["instructions"], name


def test_a_pipe_gets_no_escape_codes(tightrope: Shell) -> None:
    for extra in ((), ("--sabotage", next(iter(SABOTAGES)))):
        done = tightrope("rehearse", "--shipped", *extra)
        assert done.out
        assert "\x1b" not in done.out + done.err


def test_a_scattered_walk_holds(tightrope: Shell) -> None:
    done = tightrope("rehearse", "--shipped", "--scatter", "7")
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rehearse", "--shipped"),
        ("rehearse", "--shipped", "--json"),
        ("plan", "--shipped"),
        ("host", "example"),
        ("rules",),
        ("rehearse", "--shipped", "--sabotage", "nonsense"),
    ],
)
def test_nothing_is_written_to_the_current_folder(
    tightrope: Shell, arguments: tuple[str, ...]
) -> None:
    tightrope(*arguments)
    assert list(tightrope.folder.iterdir()) == []
