"""Fifteen logs of real falls, each explained with the step where it fell, and what falls just so."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.explain import falls
from tightrope import corpse
from tightrope.cli import main
from tightrope.deeds.explain import explain
from tightrope.model import Paging, Step
from tightrope.model.corpse import Ending, Explanation, LogKind, Phase
from tightrope.report import text
from tightrope.views.explanation import VIEW

W, L5, PAE, I386 = Paging.X86_64, Paging.LA57, Paging.PAE, Paging.I386


def likeliest(found: Explanation) -> str:
    return found.candidates[0].cause


@pytest.mark.parametrize(
    ("sabotage", "paging", "step", "place", "cause"),
    [
        ("no-v", W, 2, "V + 0x5 after_table_a", "page_table_a's PT entry"),
        ("nx", W, 2, "V + 0x5 after_table_a", "has NX set"),
        ("reserved-bit", W, 2, "V + 0x5 after_table_a", "address bit that the CPU does not have"),
        ("no-p", W, 3, "V + 0x17 set_stack", "page_table_a's PT entry"),
        ("table-b-small", W, 6, "kernel + 0x200", "page_table_b's PD entry"),
        ("no-v", I386, 2, "V", "page_table_a's PT entry"),
        ("no-v", PAE, 2, "V", "page_table_a's PT entry"),
        ("la57-toggled", L5, 2, "V", "clear CR4.LA57 at V"),
        ("pae-before-pg", PAE, 5, "P", "clear CR4.PAE before CR0.PG"),
    ],
)  # fmt: skip
def test_qemus_log_of_a_fall_on_the_walk(
    sabotage: str, paging: Paging, step: int, place: str, cause: str
) -> None:
    log = falls.qemus(sabotage, paging)
    found = explain(log, "qemu.log", rehearsed=falls.sound(paging))
    assert found.fell
    assert found.last is not None
    assert found.last.ending is Ending.TRIPLE_FAULT
    assert (found.phase, found.step) == (Phase.WALK, Step(step))
    assert (found.place or "").startswith(place)
    fits = [each.cause for each in found.candidates if each.rehearsed]
    assert any(cause in each for each in fits), found.candidates
    assert all(each.rehearsed for each in found.candidates[: len(fits)]), "they come first"
    # The same machine, and no rehearsal: it goes as far as the registers do.
    alone = explain(log, "qemu.log")
    assert alone.step is None
    assert alone.place is None
    assert alone.last == found.last
    assert any("KERNEL" in each for each in alone.limits)


def test_the_level_of_an_entry_is_told_where_the_walk_tells_it() -> None:
    found = explain(falls.qemus("table-b-small", W), "qemu.log", rehearsed=falls.sound(W))
    fits = [each.cause for each in found.candidates if each.rehearsed]
    ruled_out = [each.cause for each in found.candidates if each.rehearsed is False]
    assert ["PD entry" in each for each in fits] == [True]
    assert len(ruled_out) == 2
    assert all(" P + " in each.speaks_against[0] for each in found.candidates[1:])
    assert found.entry is not None
    assert "page_table_b, as it was built, leads" in found.entry


def test_qemus_log_of_damaged_code_names_the_new_kernel() -> None:
    found = explain(falls.qemus_of_damaged_code(), "qemu.log", rehearsed=falls.sound(W))
    assert found.place == "kernel + 0x200"
    assert found.last is not None
    assert found.last.raised[0].vector == 6
    assert any("not code" in each.cause for each in found.candidates)


@pytest.mark.parametrize(
    ("was", "becomes", "vector"),
    [("4883c308", "48c1e308", 14), ("4883c308", "0f0b9090", 6)],
    ids=["a list that is not there", "no instruction"],
)
def test_what_linuxs_handlers_print(was: str, becomes: str, vector: int) -> None:
    log = falls.handlers(was, becomes)
    found = explain(log, "serial", rehearsed=falls.linux_7())
    assert found.last is not None
    assert found.last.kind is LogKind.HANDLER
    assert found.last.raised[0].vector == vector
    assert (found.phase, found.step) == (Phase.WALK, Step.COPY)
    assert (found.place or "").startswith("P + ")
    if vector == 6:
        assert "is not what was put there" in likeliest(found)
    # Another frame than the rehearsal's: known by the offset alone, and that is said.
    rip = found.last.raised[0].rip or 0
    moved = log.replace(b"rip:%016x" % rip, b"rip:%016x" % (rip + 0x5000_0000))
    there = explain(moved, "serial", rehearsed=falls.linux_7())
    assert (there.step, there.place) == (found.step, found.place)
    assert any("another frame" in each for each in there.limits)


def test_kvms_trace_of_a_fall() -> None:
    found = explain(falls.kvms("no-v", W), "trace", rehearsed=falls.sound(W))
    assert found.last is not None
    assert found.last.kind is LogKind.KVM
    assert (found.step, found.place) == (Step.TABLE_A, "V + 0x5 after_table_a")
    assert any("neither registers nor tables" in each for each in found.limits)


def test_a_purgatorys_words() -> None:
    found = explain(falls.purgatorys(), "serial")
    assert (found.fell, found.phase) == (True, Phase.PURGATORY)
    assert "initrd is damaged" in (found.last.words if found.last else "")
    assert "after it was loaded" in likeliest(found)


def test_a_decompressors_last_words() -> None:
    log = falls.decompressors()
    found = explain(log, "serial")
    assert (found.fell, found.phase) == (True, Phase.DECOMPRESSOR)
    assert "the packed kernel in memory is not the file's" in likeliest(found)
    assert found.last is not None
    assert "Decoding failed -- System halted" in found.last.words
    # The same log, cut where it had not given up: it ends, and no more is claimed.
    cut = explain(log[: log.index(b"-- System")], "serial")
    assert (cut.fell, cut.candidates) == (None, ())


def test_a_kernel_that_speaks_did_not_fall(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"Linux version 6.1.0 (a kernel)\nRun /init as init process\n")
    assert main(["explain", str(log)]) == 0
    assert "Nothing fell" in capsys.readouterr().out


LEFT = b"[    9.1] kexec_core: Starting new kernel\n"
PANIC = b"[    9.9] Kernel panic - not syncing: sysrq triggered crash\n"
INITRAMFS = b"[    1.0] Initramfs unpacking failed: XZ-compressed data is corrupt\n"
XEN = b"(XEN) Hardware Dom0 crashed: "


@pytest.mark.parametrize(
    ("log", "fell", "phase", "cause"),
    [
        # A crash kernel is entered behind the panic's words, where there is one.
        (PANIC, None, Phase.UNKNOWN, "it fell on the walk"),
        (PANIC + b"---[ end Kernel panic - not syncing: sysrq ]---\n", True, Phase.UNKNOWN, "no crash kernel"),
        (PANIC + b"Rebooting in 10 seconds..\n", True, Phase.UNKNOWN, "no crash kernel"),
        (LEFT + b"Linux version 7.3.4\n" + PANIC, True, Phase.NEW_KERNEL, "panicked by itself"),
        (LEFT + INITRAMFS + PANIC, True, Phase.NEW_KERNEL, "the initrd in memory"),
        (LEFT + INITRAMFS, None, Phase.NEW_KERNEL, "the initrd in memory"),
        (PANIC + LEFT, None, Phase.OLD_KERNEL, "it fell on the walk"),
        # Xen says both on one line, and enters the image that it has.
        (XEN + b"Executing kexec image on cpu1\n", None, Phase.HYPERVISOR, "it fell on the walk"),
        (XEN + b"rebooting machine in 5 seconds.\n", True, Phase.HYPERVISOR, "no crash kernel"),
        (XEN + b"'noreboot' set - not rebooting.\n", True, Phase.HYPERVISOR, "no crash kernel"),
        (b"(XEN) Panic on CPU 0:\n(XEN) Executing kexec image on cpu0\n", None, Phase.HYPERVISOR,
         "it fell on the walk"),
    ],
)  # fmt: skip
def test_whose_last_word_it_is_and_what_came_of_it(
    log: bytes, fell: bool | None, phase: Phase, cause: str
) -> None:
    found = explain(log, "serial")
    assert (found.fell, found.phase) == (fell, phase)
    assert cause in likeliest(found)


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no byte"),
        (b"a letter to a friend\n" * 40, "none of the logs"),
        (bytes(4096), "none of"),
    ],
)
def test_a_log_of_something_else_is_one_clear_line(
    data: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_bytes(data)
    assert main(["explain", "-q", str(log)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert said in line


def test_what_needs_a_kernel_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tmp_path / "none"), "--mode", "pae"]) == 2
    assert "name the KERNEL" in capsys.readouterr().err
    assert main(["explain", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_truncated_log_says_what_is_there() -> None:
    whole = falls.qemus("no-v", W)
    before = whole[: whole.index(b"Triple fault")]
    ended = explain(before, "log")
    assert ended.fell is None
    assert any("no triple fault" in each for each in ended.limits)
    first = whole[: whole.index(b"GDT=")]
    cut = explain(first, "log")
    assert cut.last is not None
    assert cut.last.cut
    assert "cr3" not in cut.last.raised[0].registers
    handlers = falls.handlers("4883c308", "48c1e308")
    part = explain(handlers[: len(handlers) // 2], "serial")
    assert part.last is not None
    assert part.last.cut


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(range(4)), st.randoms(use_true_random=False))
@example(b"check_exception old: 0x\nTriple fault", 3, random.Random(0))
def test_any_bytes_are_a_log(data: bytes, which: int, chance: random.Random) -> None:
    seeds = [
        b"Exc:000000000000000e\r\nErr:00",
        b"kvm_exit: reason TRIPLE_FAULT rip 0x",
        b"     0: v=0e e=0010 i=0 cpl=0 IP=0010:ff pc=ff SP=0018:ff CR2=ff\nRAX=1\nTriple fault",
        b"Decompressing Linux... -- System halted",
    ]
    at = chance.randrange(len(data) + 1)
    log = data[:at] + seeds[which][: chance.randrange(len(seeds[which]) + 1)] + data[at:]
    found = explain(log, "log")
    assert found.size == len(log)
    assert all(1 <= each.line <= log.count(b"\n") + 1 for each in found.remains)
    assert text.text(VIEW.sheet(found))
    json.dumps(VIEW.facts(found))


def test_json_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_bytes(falls.purgatorys())
    assert main(["explain", "--json", str(log)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "tightrope/explain/1"
    assert said["phase"] == "the purgatory"
    assert said["remains"][-1]["line"] == corpse.read(log.read_bytes())[-1].line


# -------------------------------------------------------------------------------------- speed

MEASURE = """
import re, sys, time
from tightrope.cli import main
started = time.process_time()
status = main(["explain", "-q", sys.argv[1]])
# Not ru_maxrss: that begins with what the parent had.
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(status, time.process_time() - started, peak)
"""


@pytest.mark.parametrize("kind", ["qemu", "words"])
def test_a_hundred_megabytes_take_five_seconds_and_two_hundred_megabytes(
    kind: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    fall = falls.qemus("no-v", W)
    record = fall[: fall.index(b"check_exception old: 0xe new 0xe")]
    line = record if kind == "qemu" else b"[   12.345678] a line of a console that says nothing\n"
    log.write_bytes(line * (100_000_000 // len(line)) + fall)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(log)], capture_output=True, text=True, check=True
    )
    *_, last = done.stdout.splitlines()
    status, seconds, kibibytes = last.split()
    assert status == "1"
    assert float(seconds) < 5
    assert int(kibibytes) < 200_000
