"""The arguments that say what the new kernel is and what it is handed.

Rules: argparse and nothing heavy, as in `parser`.
"""

from __future__ import annotations

import argparse

from tightrope.cli.values import number

FORMATS = "a bzImage, an ELF vmlinux, a Multiboot kernel or a unified kernel image"


def kernel_arguments(deed: argparse.ArgumentParser, *, optional: bool) -> None:
    new = deed.add_argument_group("the new kernel")
    new.add_argument(
        "kernel",
        metavar="KERNEL",
        nargs="?" if optional else None,
        help=f"{FORMATS}; without one the newest readable /boot/vmlinuz-*, else the shipped kernel",
    )
    new.add_argument(
        "--shipped", action="store_true", help="the small kernel that comes with tightrope"
    )
    new.add_argument("--initrd", metavar="FILE", help="an initrd")
    new.add_argument("--append", metavar="TEXT", default="", help="the command line")
    new.add_argument(
        "--module",
        metavar='"FILE ARGUMENTS"',
        action="append",
        default=[],
        help="a module of a Multiboot or PVH kernel, with its own command line; repeatable",
    )
    new.add_argument(
        "--entry",
        choices=["linux64", "linux32", "pvh", "multiboot", "multiboot2", "flat"],
        help="the entry to take; without it the first that the old kernel can reach",
    )
    flat_arguments(new)
    new.add_argument(
        "--unpack",
        action="store_true",
        help="unpack the bzImage first and enter the kernel inside it, without KASLR",
    )


def flat_arguments(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--flat", type=number, metavar="ADDRESS", help="a flat binary that is loaded at ADDRESS"
    )
    group.add_argument(
        "--bits", type=int, choices=[32, 64], default=32, help="of a flat binary (%(default)s)"
    )
