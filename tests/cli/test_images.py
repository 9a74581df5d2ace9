"""`--flat`, `--module`, `--entry` and `--unpack` on the command line."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_arguments import Shell, refused, tightrope
from tests.makers.bzimage import bzimage, packed_gzip
from tests.makers.cpio import archive
from tests.makers.elf import elf, note
from tests.makers.multiboot import flat_kernel
from tests.makers.pe import unified

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""

FLAT = ("--flat", "0x1000000")


def test_a_flat_binary_is_rehearsed_in_either_mode(tightrope: Shell) -> None:
    path = tightrope.file("flat.bin", b"\xf4")
    for bits in ("32", "64"):
        done = tightrope("rehearse", path, *FLAT, "--bits", bits, "--json")
        assert (done.status, done.err) == (0, "")
        plan = json.loads(done.out)["plan"]
        assert (plan["protocol"], plan["entry_bits"]) == ("flat", int(bits))
        assert (plan["kernel_entry"], plan["arguments"]) == (0x1000000, {})
        assert plan["boot_params"] is None


def test_a_flat_binary_is_planned_in_words(tightrope: Shell) -> None:
    done = tightrope("plan", tightrope.file("flat.bin", b"\xf4"), *FLAT)
    assert (done.status, done.err) == (0, "")
    assert "entered by flat, 32-bit, with no arguments" in done.out


def test_modules_are_handed_to_a_multiboot_kernel(tightrope: Shell) -> None:
    kernel = tightrope.file("xen", flat_kernel())
    first = tightrope.file("vmlinuz", b"a" * 5000)
    second = tightrope.file("initrd", b"b")
    done = tightrope(
        "rehearse", kernel, "--module", f"{first} quiet  ro", "--module", second, "--json"
    )
    assert (done.status, done.err) == (0, "")
    plan = json.loads(done.out)["plan"]
    modules = [each for each in plan["segments"] if each["name"].startswith("module")]
    assert [(each["name"], each["data"]) for each in modules] == [
        ("module 1", 5000),
        ("module 2", 1),
    ]
    assert plan["arguments"]["rax"] == 0x2BADB002


def test_the_plan_says_what_a_multiboot_kernel_is_handed(tightrope: Shell) -> None:
    done = tightrope("plan", tightrope.file("xen", flat_kernel(version=2)))
    assert "entered by multiboot2, 32-bit, with eax = 0x36d76289, ebx = 0x" in done.out


@pytest.mark.parametrize("wrapped", [False, True], ids=["bzImage", "unified"])
def test_the_kernel_inside_is_entered(tightrope: Shell, wrapped: bool) -> None:
    inner = elf(notes=note("Linux", 0x100, b"salt"))
    outer = bzimage(payload=packed_gzip(inner))
    data = unified(linux=outer, initrd=archive(), cmdline=b"quiet") if wrapped else outer
    done = tightrope("rehearse", tightrope.file("kernel", data), "--unpack", "--json")
    assert (done.status, done.err) == (0, "")
    plan = json.loads(done.out)["plan"]
    assert plan["image"].endswith("kernel (unpacked)")
    assert plan["kernel_entry"] == 0x1000000
    assert plan["command_line"] == ("quiet" if wrapped else "")
    names = [each["name"] for each in plan["segments"]]
    assert ("initrd" in names) is wrapped


def test_a_unified_image_is_rehearsed_with_what_it_carries(tightrope: Shell) -> None:
    path = tightrope.file("linux.efi", unified(initrd=archive(), cmdline=b"quiet"))
    done = tightrope("rehearse", path, "--json")
    assert (done.status, done.err) == (0, "")
    plan = json.loads(done.out)["plan"]
    assert plan["command_line"] == "quiet"
    assert "initrd" in [each["name"] for each in plan["segments"]]


# ------------------------------------------------------------------------------------ bad input


def test_a_module_that_is_not_there(tightrope: Shell) -> None:
    kernel = tightrope.file("xen", flat_kernel())
    refused(tightrope("plan", kernel, "--module", "no/such/file x"), "no/such/file", "No such")


def test_a_module_without_a_name(tightrope: Shell) -> None:
    refused(tightrope("plan", tightrope.file("xen", flat_kernel()), "--module", "  "), "--module")


def test_a_flat_binary_without_a_name(tightrope: Shell) -> None:
    refused(tightrope("plan", *FLAT), "--flat", "has to be named")


def test_a_multiboot_kernel_with_an_initrd(tightrope: Shell) -> None:
    kernel, initrd = tightrope.file("xen", flat_kernel()), tightrope.file("initrd", b"x")
    refused(tightrope("plan", kernel, "--initrd", initrd), "takes modules, and no initrd")


def test_nothing_inside_to_unpack(tightrope: Shell) -> None:
    kernel = tightrope.file("xen", flat_kernel())
    refused(tightrope("plan", kernel, "--unpack"), "names no payload")


def test_an_entry_that_the_image_does_not_have(tightrope: Shell) -> None:
    kernel = tightrope.file("xen", flat_kernel())
    refused(tightrope("plan", kernel, "--entry", "pvh"), "has no PVH entry, only multiboot")


def test_a_sabotage_of_another_entry(tightrope: Shell) -> None:
    refused(tightrope("rehearse", "--shipped", "--sabotage", "wrong-magic"), "only a Multiboot")
