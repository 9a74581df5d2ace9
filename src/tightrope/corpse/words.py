"""What programs say on a console on the way from one kernel to the next: a table of words.

Each row: the word, whose console it is, who had the CPU, and how it ended if it is the last.

Sources: kernel/kexec_core.c and kernel/reboot.c; arch/x86/boot/compressed/misc.c and error.c,
lib/decompress_*.c ("... -- System halted"); drivers/firmware/efi/libstub; kexec-tools
purgatory/purgatory.c; kernel/panic.c, init/initramfs.c; Xen's common/kexec.c, common/shutdown.c.

Rules: only words that nobody else says, as long as they are sure.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.model.corpse import Ending, LogKind, Phase


@dataclass(frozen=True, slots=True)
class Word:
    """One row."""

    word: bytes
    kind: LogKind
    phase: Phase
    ending: Ending
    means: str
    """What it says, and no more."""


C, P, X = LogKind.CONSOLE, LogKind.PURGATORY, LogKind.XEN
LAST, STOPPED, ON = Ending.LAST_WORD, Ending.STOPPED, Ending.WENT_ON

WORDS = (
    Word(b"Starting new kernel", C, Phase.OLD_KERNEL, LAST, "the old kernel was about to leave"),
    Word(b"Loading crashdump kernel...", C, Phase.OLD_KERNEL, LAST, "a crash kernel was loaded"),
    Word(b"kexec: Bye!", C, Phase.OLD_KERNEL, LAST, "the old kernel was about to leave"),
    Word(
        b"Kernel panic - not syncing", C, Phase.UNKNOWN, LAST,
        "a kernel panicked, and enters its crash kernel where it has one",
    ),
    Word(
        b"---[ end Kernel panic - not syncing", C, Phase.UNKNOWN, STOPPED,
        "a kernel panicked and stays there: it entered no crash kernel",
    ),
    Word(
        b"Rebooting in ", C, Phase.UNKNOWN, STOPPED,
        "a kernel panicked and restarts the machine: it entered no crash kernel",
    ),
    Word(b"I'm in purgatory", P, Phase.PURGATORY, LAST, "the purgatory was entered: the walk held"),
    Word(
        b"sha256 digests do not match", P, Phase.PURGATORY, STOPPED,
        "the purgatory found a segment that is not what was loaded, and stays there",
    ),
    Word(
        b" is damaged", P, Phase.PURGATORY, STOPPED,
        "Tightrope's purgatory found this segment not to be what was loaded",
    ),
    Word(
        b"early console in extract_kernel", C, Phase.DECOMPRESSOR, LAST,
        "the decompressor was entered: walk and entry held",
    ),
    Word(
        b"Decompressing Linux...", C, Phase.DECOMPRESSOR, LAST,
        "the decompressor began to unpack the kernel",
    ),
    Word(
        b"Booting the kernel", C, Phase.NEW_KERNEL, LAST,
        "the kernel was unpacked and about to be entered",
    ),
    Word(
        b"-- System halted", C, Phase.DECOMPRESSOR, STOPPED,
        "the decompressor gave up with the words before it",
    ),
    Word(
        b"data is corrupt", C, Phase.DECOMPRESSOR, STOPPED,
        "the packed kernel is not what the decompressor can unpack",
    ),
    # A kernel that runs says the same of its initramfs, on the line of these words.
    Word(
        b"Initramfs unpacking failed", C, Phase.NEW_KERNEL, LAST,
        "a kernel could not unpack its initramfs, and goes on without it",
    ),
    Word(b"EFI stub: ", C, Phase.DECOMPRESSOR, LAST, "the EFI stub had the CPU"),
    Word(
        b"EFI stub: ERROR:", C, Phase.DECOMPRESSOR, STOPPED, "the EFI stub gave up with these words"
    ),
    Word(b"Linux version ", C, Phase.NEW_KERNEL, ON, "a kernel said its banner"),
    Word(b"Run /init as init process", C, Phase.NEW_KERNEL, ON, "a kernel started its init"),
    Word(b"(XEN) Kexec: ", X, Phase.HYPERVISOR, LAST, "Xen spoke of a kexec"),
    Word(b"Panic on CPU", X, Phase.HYPERVISOR, STOPPED, "the hypervisor panicked"),
    Word(b"Hardware Dom0 crashed", X, Phase.HYPERVISOR, LAST, "dom0 crashed"),
    # Both are said on the line of the crash.
    Word(b"Executing kexec image on cpu", X, Phase.HYPERVISOR, LAST, "Xen was about to leave"),
    Word(
        b"rebooting machine in 5 seconds", X, Phase.HYPERVISOR, STOPPED,
        "Xen restarts the machine: it entered no crash image",
    ),
    Word(
        b"'noreboot' set - not rebooting", X, Phase.HYPERVISOR, STOPPED,
        "Xen stays where it is: it entered no crash image",
    ),
)  # fmt: skip
