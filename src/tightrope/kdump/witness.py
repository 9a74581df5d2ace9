"""A witness in a crash kernel's initramfs: it says that it is there, and how much memory is left.

    initrd, as it is | archive of ours: .tightrope/init, .tightrope/{proc,dev}
    rdinit=/.tightrope/init  ->  says what it sees on the second serial port, then becomes /init

Linux unpacks archives one after the other (Documentation/driver-api/early-userspace/
buffer-format.rst), so the initrd's own files stay what they are.  The script needs the initrd's
/bin/sh and `mount`; with `dd` it passes on the beginning of /proc/vmcore, with `sleep` it goes on
watching.

    TOKEN init TOTAL AVAILABLE      KiB (/proc/meminfo)
    TOKEN modules NAME ...          drivers of disks and file systems in the initrd
    TOKEN head | bytes | TOKEN end  the beginning of /proc/vmcore
    TOKEN none                      there is no /proc/vmcore
    TOKEN least AVAILABLE           the lowest so far

Rules: bytes in, bytes out; what was heard is parsed leniently, because a crash kernel may die in
the middle of a word.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.abi import newc

HEAD = 64 << 10
"""Bytes of /proc/vmcore: its headers, and notes of about a hundred CPUs."""
PATH = "/.tightrope/init"
_SCRIPT = """#!/bin/sh
at=/.tightrope
mount -t proc proc $at/proc
mount -t devtmpfs devtmpfs $at/dev
say() { echo "TOKEN $*" >>$at/dev/ttyS1; }
look() {
    while read -r name number unit; do
        case $name in
        MemTotal:) total=$number ;;
        MemAvailable:) now=$number ;;
        esac
    done <$at/proc/meminfo
}
look
say init $total $now
here=
for each in /lib/modules/*/kernel/drivers/*/*.ko* /lib/modules/*/kernel/drivers/*/*/*.ko* \\
    /lib/modules/*/kernel/fs/*/*.ko*; do
    each=${each##*/}
    here="$here ${each%%.ko*}"
done
say modules $here
if [ -e $at/proc/vmcore ]; then
    say head
    dd if=$at/proc/vmcore bs=4096 count=16 2>/dev/null >>$at/dev/ttyS1
    say end
else
    say none
fi
(
    least=$now
    while sleep 1; do
        look
        if [ $((least - now)) -gt 512 ]; then
            least=$now
            say least $least
        fi
    done
) <$at/dev/null &
exec INIT "$@"
"""


def archive(token: str, init: str = "/init") -> bytes:
    """The archive to put behind an initrd; `init` is what the initrd's own would be."""
    script = _SCRIPT.replace("TOKEN", token).replace("INIT", init).encode()
    folder, program = 0o040755, 0o100755
    rows = [
        (".tightrope", folder, b""),
        (".tightrope/proc", folder, b""),
        (".tightrope/dev", folder, b""),
        (PATH[1:], program, script),
    ]
    members = [
        newc.member(name, data, mode=mode, inode=number, links=2 if mode == folder else 1)
        for number, (name, mode, data) in enumerate(rows, 1)
    ]
    return b"".join((*members, newc.member(newc.TRAILER, mode=0)))


def behind(initrd: bytes | bytearray | memoryview, more: bytes) -> bytes:
    """The initrd with an archive behind it, which begins at a multiple of four."""
    return bytes(initrd) + bytes(-len(initrd) % 4) + more


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """What was heard of it; sizes are bytes."""

    there: bool = False
    total: int | None = None
    least: int | None = None
    modules: frozenset[str] = frozenset()
    head: bytes = b""
    """The beginning of /proc/vmcore."""
    vmcore: bool | None = None
    """Whether there is one; None where it has not got to say."""
    done: bool = False
    """It has said all that it says at once."""


def heard(said: bytes, token: str) -> Witness:
    """What a second serial port's file says."""
    # The terminal puts a return before each line feed, those among the bytes of a core as well.
    said = said.replace(b"\r\n", b"\n")
    mark = f"{token} ".encode()
    total = least = None
    there = done = False
    modules: frozenset[str] = frozenset()
    head, vmcore = b"", None
    at = said.find(mark)
    while at >= 0:
        end = said.find(b"\n", at)
        if end < 0:
            break
        word, *rest = said[at + len(mark) : end].decode("latin-1").split() or [""]
        numbers = [int(each) << 10 for each in rest if each.isdigit()]
        if word == "init":
            there = True
            total, least = (*numbers, None, None)[:2]
        elif word == "least" and numbers:
            least = min(numbers[0], least if least is not None else numbers[0])
        elif word == "modules":
            modules = frozenset(each.replace("-", "_") for each in rest if "*" not in each)
        elif word == "none":
            vmcore, done = False, True
        elif word == "head":
            vmcore = True
            stop = said.find(mark + b"end\n", end)
            if stop < 0:
                break
            head, done = said[end + 1 : stop], True
            end = stop
        at = said.find(mark, end)
    return Witness(
        there=there,
        total=total,
        least=least,
        modules=modules,
        head=head,
        vmcore=vmcore,
        done=done,
    )
