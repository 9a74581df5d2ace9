"""Xen 4.17 with Debian's dom0 in QEMU: asked, loaded, and left for bare Linux, as the new kernel tells.

    facts    dom0 -> here: what Xen says of itself becomes a host file
    here     the kexec is planned and rehearsed on that host, and written
    disk     here -> dom0: `tightrope perform xen` takes it, or in_dom0.py what goes through v1

Each boot ends in one jump.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from tests.conftest import debian_kernel
from tests.perform import asked, v1
from tests.perform.dom0 import Dom0
from tests.perform.modelled import Modelled
from tests.qemu.pcs import QUIET, initramfs, qemu, token
from tightrope import host, image
from tightrope.abi import xen as abi
from tightrope.cli import main
from tightrope.deeds import performable
from tightrope.deeds.rehearse import rehearse
from tightrope.model import Host, Outcome, XenInterface
from tightrope.perform import load_file
from tightrope.plan import Request

FRAMES = 14_500
"""What the kernel, its initrd, tables and list need, in pages of 4 KiB, and a few."""


@pytest.fixture(scope="module")
def guests() -> Iterator[dict[str, Dom0]]:
    """One for each jump; all of them boot at once, on the cores that a test alone would leave idle."""
    qemu().close()
    with ExitStack() as stack:
        crash_regions = {"kexec": 128, "crash": 128, "v1": 0}
        yield {name: stack.enter_context(Dom0(crash=mib)) for name, mib in crash_regions.items()}


def facts(dom0: Dom0) -> dict[str, object]:
    """What `tightrope perform xen --json` says in there."""
    status, lines = dom0.do("tightrope perform xen --json")
    assert status == 0, lines
    said: dict[str, object] = json.loads("\n".join(lines))
    return said


def old_kernel(said: dict[str, object]) -> Host:
    """The Xen in the guest as a host here."""
    return host.read(host.xen_file(said, "the guest"), "the guest")


def rehearsed(old: Host, words: str, *, crash: bool = False) -> bytes:
    """Debian's cloud kernel on that Xen: rehearsed here, and what is carried into the guest."""
    path = debian_kernel("cloud-amd64")
    got = rehearse(
        image.read(path.read_bytes(), path.name),
        old,
        Request(
            initrd=initramfs("amd64"),
            command_line=f"{QUIET} {words}",
            crash=crash,
            xen=XenInterface.V2,
        ),
    )
    assert got.outcome is Outcome.HOLDS, got.findings
    return load_file.write(performable.of(got.handover.plan, got.outcome.value))


NOT_AS_MODELLED = {"a command that is none": 0}
"""Xen 4.17 does nothing and says that it worked; the model answers EOPNOTSUPP."""


def xens_answers(dom0: Dom0) -> dict[str, int]:
    """What the running Xen says to the questions of asked.py."""
    dom0.put("asked.py", Path(asked.__file__).read_bytes())
    status, lines = dom0.do("python asked.py")
    assert status == 0, lines
    answers: dict[str, int] = json.loads(lines[-1])
    return answers


def test_xen_answers_as_its_model_and_leaves_for_bare_linux(guests: dict[str, Dom0]) -> None:
    word = token()
    with guests["kexec"].up() as dom0:
        said = facts(dom0)
        assert said["version"] == "4.17"
        assert said["loaded"] == {"DEFAULT": False, "CRASH": False}
        old = old_kernel(said)
        assert xens_answers(dom0) == asked.answers(Modelled(old)) | NOT_AS_MODELLED
        load = rehearsed(old, f"tightrope.token={word}")
        path = dom0.put("load", load)
        status, lines = dom0.do(f"tightrope perform xen {path}")
        assert (status, lines[-1]) == (
            0,
            "tightrope: would load it and jump; say --really to do it",
        )
        dom0.pc.say(f"tightrope perform xen {path} --really\n")
        lines = dom0.wait(f"tightrope: userspace {word} ")
    release = debian_kernel("cloud-amd64").name.removeprefix("vmlinuz-")
    assert lines[-1] == f"tightrope: userspace {word} {release} x86_64"


def test_dom0_panics_and_the_crash_kernel_finds_xens_notes(
    guests: dict[str, Dom0], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word = token()
    with guests["crash"].up() as dom0:
        said = facts(dom0)
        words = f"nr_cpus=1 tightrope.do=vmcore tightrope.token={word}"
        load = rehearsed(old_kernel(said), words, crash=True)
        path = dom0.put("load", load)
        status, lines = dom0.do(f"tightrope perform xen {path} --really")
        assert (status, lines[-1]) == (0, "loaded")
        assert facts(dom0)["loaded"] == {"DEFAULT": False, "CRASH": True}
        dom0.pc.say("echo c > /proc/sysrq-trigger\n")
        dom0.wait(f"tightrope: userspace {word} ")
        dom0.wait("tightrope: vmcore ")
        core = dom0.core(tmp_path / "vmcore")
    with core.open("rb") as file:
        notes = [
            (note["n_name"], note["n_type"])
            for part in ELFFile(file).iter_segments("PT_NOTE")
            if isinstance(part, NoteSegment)
            for note in part.iter_notes()
        ]
    assert notes == [
        ("CORE", "NT_PRSTATUS"),
        ("Xen", abi.CRASH_REGS),
        ("Xen", abi.CRASH_INFO),
        ("VMCOREINFO_XEN", 0),
    ]
    assert main(["pgd", str(core)]) == 0
    heard = capsys.readouterr().out
    assert "CR3 in Xen's note" in heard
    assert "all tables are whole" in heard


def test_the_threads_system_is_loaded_unloaded_and_entered_through_v1(
    guests: dict[str, Dom0],
) -> None:
    """Our control page, page_table_a, page_table_b and list, in dom0's frames, from V on."""
    word = token()
    script = Path(__file__).with_name("in_dom0.py").read_bytes()
    with guests["v1"].up() as dom0:
        old = old_kernel(facts(dom0))
        dom0.put("in_dom0.py", script)
        dom0.do(f"python in_dom0.py {FRAMES} pages &")
        told = dom0.wait("tightrope: frames ")[-1].removeprefix("tightrope: frames ")
        made = v1.prepared(old, v1.parsed(told), word)
        assert made.verdict.outcome is Outcome.HOLDS, made.verdict.findings
        dom0.put("arriving", made.pages)
        dom0.do("mv arriving pages")
        lines = dom0.wait(f"tightrope: userspace {word} ")
    assert [each for each in lines if each.startswith("tightrope: v1 ")] == [
        "tightrope: v1 loaded True",
        "tightrope: v1 unloaded False",
        "tightrope: v1 loaded True",
    ]
    release = debian_kernel("cloud-amd64").name.removeprefix("vmlinuz-")
    assert lines[-1] == f"tightrope: userspace {word} {release} x86_64"
