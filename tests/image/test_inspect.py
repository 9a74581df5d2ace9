"""views.inspection: the text says what a kexec has to know, the dict says the same as numbers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import OFFSETS, bzimage, put, vmlinux
from tests.makers.elf import Segment, elf, note, pvh_note
from tests.makers.multiboot import flat_kernel
from tests.makers.pe import unified
from tests.makers.screens import facts, screen
from tightrope import image
from tightrope.errors import ImageError
from tightrope.model import Image
from tightrope.views.inspection import VIEW, Inspected, Unpacked


def inspect_text(read: Image, unpacked: Unpacked = None) -> str:
    return screen(VIEW, Inspected(read, unpacked))


def inspect_json(read: Image, unpacked: Unpacked = None) -> dict[str, Any]:
    return facts(VIEW, Inspected(read, unpacked))


def text_of(data: bytes) -> str:
    """The report as one line, so that it does not matter where lines are broken."""
    return " ".join(inspect_text(image.read(data, "vmlinuz")).split())


def test_a_report_is_these_lines() -> None:
    data = bzimage(payload=vmlinux(1000), xloadflags=0b0010_0011)
    read = image.read(data, "vmlinuz")
    assert inspect_text(read, image.unpack(read)).splitlines() == [
        "vmlinuz: Linux bzImage, boot protocol 2.15",
        "  version         6.1.0-test (maker@tests) #1",
        "  file            3072 bytes: 1024 setup + 2048 kernel",
        "",
        "memory",
        "  needs           [0x1000000, 0x1200000) free, or 0x200000 bytes at any 2 MiB aligned place",
        "                  that place may be above 4 GiB",
        "  is loaded       0x800 bytes; the 0x1ff800 behind them are scratch memory",
        "  initrd          anywhere in RAM through startup_64; through startup_32 no byte above 0x7fffffff",
        "  command line    2047 bytes; 2017 if a loader keeps elfcorehdr's",
        "",
        "handover",
        "  startup_64      load address + 0x200, in 64-bit long mode, paging on; rsi points to boot_params",
        "  startup_32      load address + 0x0, in 32-bit protected mode, paging off; esi points to",
        "                  boot_params",
        "  loadflags       LOADED_HIGH",
        "  xloadflags      XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_5LEVEL",
        "  paging          startup_64 can be entered with 4-level or 5-level tables",
        "  kexec_file_load takes it",
        "",
        "payload",
        "  compression     none, 1000 bytes at load address + 0x410",
        "  unpacks to      1000 bytes, an ELF64; within init_size",
        "  with --unpack   entered at the vmlinux's own startup_64, without KASLR",
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(
            bzimage(relocatable=False),
            "needs [0x1000000, 0x1200000) free, and nowhere else: the kernel is not relocatable",
            id="fixed",
        ),
        pytest.param(
            bzimage(pref_address=0), "needs 0x200000 bytes free at any 2 MiB", id="no preference"
        ),
        pytest.param(bzimage(alignment=1 << 30, pref_address=1 << 30), "any 1 GiB", id="GiB"),
        pytest.param(bzimage(alignment=256, min_alignment=0), "any 256 byte aligned", id="bytes"),
        pytest.param(
            bzimage(min_alignment=13),
            "down to 8 KiB if kernel_alignment is lowered with it",
            id="less aligned",
        ),
        pytest.param(bzimage(xloadflags=0b1), "that place has to be below 4 GiB", id="below 4 GiB"),
        pytest.param(bzimage(xloadflags=0), "initrd no byte above 0x7fffffff", id="low initrd"),
        pytest.param(bzimage(xloadflags=0b11), "must not be entered with 5-level", id="no 5-level"),
        pytest.param(bzimage(xloadflags=0), "xloadflags none", id="no flags"),
        pytest.param(
            bzimage(xloadflags=0x8001), "xloadflags XLF_KERNEL_64, bit 15", id="unnamed flag"
        ),
        pytest.param(bzimage(signature=b"S" * 1472), "+ 1472 signature, which", id="signed"),
        pytest.param(bzimage(version=None), "version not named in the header", id="no version"),
        pytest.param(bzimage(payload=b""), "the header names no payload", id="no payload"),
        pytest.param(bzimage(cmdline_size=20), "20 bytes; 0 if", id="short command line"),
        pytest.param(
            bzimage(protocol=0x020B), "refuses it: it asks for boot protocol 2.12", id="2.11"
        ),
        pytest.param(bzimage(xloadflags=0), "refuses it: it asks for a 64-bit entry", id="32-bit"),
        pytest.param(
            bzimage(xloadflags=1), "refuses it: it asks for XLF_CAN_BE_LOADED_ABOVE_4G", id="low"
        ),
    ],
)
def test_what_is_special_about_an_image_is_said(data: bytes, words: str) -> None:
    assert words in text_of(data)


def test_a_32_bit_image_has_nothing_said_about_paging() -> None:
    assert "startup_64" not in text_of(bzimage(xloadflags=0))


def test_why_a_payload_did_not_unpack_is_said() -> None:
    read = image.read(bzimage(payload=b"\x89LZO" + b"\0" * 40), "vmlinuz")
    with pytest.raises(ImageError) as caught:
        image.unpack(read)
    assert "does not unpack vmlinuz: payload" in " ".join(inspect_text(read, caught.value).split())
    payload = inspect_json(read, caught.value)["payload"]
    assert isinstance(payload, dict)
    assert payload["error"] == str(caught.value)
    assert payload["unpacked_size"] is None


@pytest.mark.parametrize(
    ("elf", "words", "bits"),
    [(b"\x7fELF\x01", "an ELF32", 32), (b"\x7fELF", "ELF file of an unknown class", None)],
)
def test_the_class_of_the_unpacked_kernel_is_said(elf: bytes, words: str, bits: int | None) -> None:
    read = image.read(bzimage(payload=elf), "vmlinuz")
    assert words in inspect_text(read, elf)
    payload = inspect_json(read, elf)["payload"]
    assert isinstance(payload, dict)
    assert (payload["elf_bits"], payload["unpacked_size"]) == (bits, len(elf))


@given(
    protocol=st.sampled_from([0x020A, 0x020C, 0x020F]),
    xloadflags=st.integers(0, 0xFFFF).filter(lambda flags: flags & 3 != 2),
    loadflags=st.integers(0, 255).map(lambda flags: flags | 1),
    payload=st.sampled_from([None, b"", vmlinux(100)]),
    relocatable=st.booleans(),
)
def test_the_dict_is_plain_data_with_the_same_keys_and_the_files_values(
    protocol: int, xloadflags: int, loadflags: int, payload: bytes | None, relocatable: bool
) -> None:
    data = put(
        bzimage(protocol=protocol, xloadflags=xloadflags, payload=payload, relocatable=relocatable),
        "loadflags",
        loadflags,
    )
    read = image.read(data, "vmlinuz")
    facts = inspect_json(read)
    assert json.loads(json.dumps(facts)) == facts
    assert facts.keys() == inspect_json(image.read(bzimage(), "other")).keys()
    header = facts["setup_header"]
    assert isinstance(header, dict)
    for name, (offset, size) in OFFSETS.items():
        if name in header:
            assert header[name] == int.from_bytes(data[offset : offset + size], "little")
    assert ("xloadflags" in header) == (protocol >= 0x020C)
    assert (facts["payload"] is None) == (payload == b"")
    assert inspect_text(read).startswith("vmlinuz: Linux bzImage")


def test_sizes_in_the_dict_add_up() -> None:
    facts = inspect_json(image.read(bzimage(signature=b"S" * 24), "vmlinuz"))
    sizes = [facts["setup_size"], facts["kernel_size"], facts["signature_size"]]
    assert facts["file_size"] == sum(size for size in sizes if isinstance(size, int))
    assert facts["signature_size"] == 24


# ------------------------------------------------------------------------- images without a header


def test_a_report_of_an_elf_kernel_is_these_lines() -> None:
    data = elf(
        Segment(0x1000000, b"code" * 5000),
        Segment(0x1006000, b"data", size=0x2000),
        notes=note("Linux", 0x100, b"salt") + pvh_note(0x1000020),
    )
    assert inspect_text(image.read(data, "vmlinux")).splitlines() == [
        "vmlinux: ELF64, entered by linux64, pvh",
        f"  file            {len(data)} bytes, 20004 of them are loaded",
        "",
        "memory",
        "  needs           [0x1000000, 0x1008000) free, and nowhere else: the kernel is not relocatable",
        "  is loaded       [0x1000000, 0x1004e20): 0x4e20 bytes of the file",
        "                  [0x1006000, 0x1008000): 0x4 bytes of the file, then 0x1ffc zeros",
        "  initrd          no byte above 0x7fffffff",
        "  command line    2047 bytes; 2017 if a loader keeps elfcorehdr's",
        "",
        "handover",
        "  startup_64      at 0x1000000, in 64-bit long mode, paging on; rsi points to boot_params",
        "  PVH             at 0x1000020, in 32-bit protected mode, paging off; ebx points to Xen's start info",
        "  kexec_file_load refuses it: it takes nothing but a bzImage",
    ]


def test_a_report_of_a_multiboot_kernel_is_these_lines() -> None:
    data = flat_kernel()
    assert inspect_text(image.read(data, "kernel")).splitlines() == [
        "kernel: Multiboot, entered by multiboot",
        f"  file            {len(data)} bytes, {len(data) - 64} of them are loaded",
        "",
        "memory",
        "  needs           [0x100000, 0x103000) free, and nowhere else: the kernel is not relocatable",
        f"  is loaded       [0x100000, 0x103000): {len(data) - 64:#x} bytes of the file, then "
        f"{0x3000 - len(data) + 64:#x} zeros",
        "  modules         no byte above 0xffffffff",
        "  command line    the image does not say how much it reads; below 4 GiB",
        "",
        "handover",
        "  Multiboot       at 0x100000, in 32-bit protected mode, paging off; eax is 0x2badb002, ebx points",
        "                  to the information structure",
        "  kexec_file_load refuses it: it takes nothing but a bzImage",
    ]


def test_a_report_of_a_flat_binary_is_these_lines() -> None:
    assert inspect_text(image.read_flat(b"\xf4" * 100, "halt", 0x8000, 32)).splitlines() == [
        "halt: flat binary, entered by flat",
        "  file            100 bytes, 100 of them are loaded",
        "",
        "memory",
        "  needs           [0x8000, 0x8064) free, and nowhere else: the kernel is not relocatable",
        "  is loaded       [0x8000, 0x8064): 0x64 bytes of the file",
        "",
        "handover",
        "  first byte      at 0x8000, in 32-bit protected mode, paging off; nothing is handed over",
        "  kexec_file_load refuses it: it takes nothing but a bzImage",
    ]


def test_what_a_unified_kernel_image_carries_is_said() -> None:
    kernel, initrd = bzimage(), b"an archive"
    data = unified(linux=kernel, initrd=initrd, cmdline=b"quiet\x1b[0m")
    lines = inspect_text(image.read(data, "linux.efi")).splitlines()
    assert lines[0] == "linux.efi: unified kernel image with a Linux bzImage, boot protocol 2.15"
    assert lines[2:6] == [
        f"  file            {len(data)} bytes",
        f"  .linux          {len(kernel)} bytes: 1024 setup + {len(kernel) - 1024} kernel",
        "  .initrd         10 bytes",
        "  .cmdline        quiet\\x1b[0m",
    ]
    assert "  kexec_file_load refuses it: it takes nothing but a bzImage" in lines
    bare = text_of(unified(initrd=None, cmdline=None))
    assert ".initrd none .cmdline none memory" in bare


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(image.read(elf(notes=pvh_note(0x1000000)), "made"), id="ELF"),
        pytest.param(image.read(flat_kernel(version=2), "made"), id="Multiboot2"),
        pytest.param(image.read_flat(b"x", "made", 1, 64), id="flat"),
        pytest.param(image.read(unified(), "made"), id="unified"),
    ],
)
def test_the_dict_has_the_same_keys_for_every_format(read: Image) -> None:
    facts = inspect_json(read)
    assert json.loads(json.dumps(facts)) == facts
    assert facts.keys() == inspect_json(image.read(bzimage(), "other")).keys()
    assert (facts["setup_header"] is None) == (read.format != "unified kernel image")
    entries = facts["entries"]
    assert isinstance(entries, list)
    assert [each["protocol"] for each in entries] == [str(each.protocol) for each in read.entries]
    assert facts["command_line"] == read.command_line


def test_xen_needs_what_its_headers_say(xen_hypervisor: Path) -> None:
    lines = inspect_text(image.read(xen_hypervisor.read_bytes(), "xen.gz")).splitlines()
    assert lines[0] == "xen.gz (unpacked): ELF32, entered by multiboot2, multiboot"


# ------------------------------------------------------------------------------------ real kernels


@pytest.mark.parametrize("kernel", ["debian_amd64", "debian_cloud"])
def test_debians_kernels_need_what_their_headers_say(
    request: pytest.FixtureRequest, kernel: str
) -> None:
    path: Path = request.getfixturevalue(kernel)
    data = path.read_bytes()
    start, size = struct.unpack_from("<QI", data, 0x258)
    text = text_of(data)
    assert f"needs [{start:#x}, {start + size:#x}) free, or {size:#x} bytes at any 2 MiB" in text
    assert "signature, which is loaded with the kernel" in text
    assert "kexec_file_load takes it" in text
