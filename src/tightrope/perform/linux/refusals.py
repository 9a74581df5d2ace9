"""What Linux would answer to a load, and why: every errno of both calls that can be told
beforehand.

    (State, Request) --rules, in the kernel's order--> Refusal: call, errno, what was found, what mends it

Sources: kernel/kexec.c (kexec_load_check, do_kexec_load), kernel/kexec_core.c
(sanity_check_segment_list, kexec_load_permitted), kernel/kexec_file.c,
arch/x86/kernel/kexec-bzimage64.c and machine_kexec_64.c; the errnos of a load's shape, its crash
region, its command line and the sysctls were asked of 6.1, 6.12 and 7.3
(tests/perform/test_real_linux.py), the others are read in the source.

Rules: pure functions of what was read; a fact that is not known refuses nothing.  What the kernel
accepts although it cannot work is a `Refusal` too, ours, without an errno: Linux compares a plain
load with no memory map.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tightrope.abi import kexec as abi
from tightrope.memory import PAGE_SIZE, Extent, covered
from tightrope.perform.linux.state import State

if TYPE_CHECKING:
    from tightrope.perform.linux.signature import Signature

LOAD, FILE_LOAD = "kexec_load", "kexec_file_load"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A load as the call would get it."""

    crash: bool
    destinations: tuple[tuple[str, Extent], ...]
    """kexec_load: (name, where it goes); empty for a load of files."""
    sizes: tuple[int, ...]
    """Bytes that each segment brings along."""
    entry: int
    files: bool
    """By kexec_file_load: the kernel chooses the places."""
    command_line: bytes
    is_bzimage: bool
    """kexec_file_load takes nothing else on x86."""
    signed: bool | None
    """Whether the image carries a signature; None where nobody looked, or it is no PE file."""
    signature: Signature | None = None
    """What that signature says, where it was read."""
    ima_signed: bool | None = None
    """Whether the image's file has a signature of IMA's; None where nobody looked."""
    written: tuple[str, ...] = ()
    """Files to be loaded that somebody has open for writing."""
    room: int = 0
    """kexec_file_load: bytes that the image and its initrd take at least."""

    @property
    def call(self) -> str:
        """The name of the system call."""
        return FILE_LOAD if self.files else LOAD


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """One reason why a load would not be taken, or should not be."""

    call: str
    number: int | None
    """The errno; None where Linux takes the load and the machine would not survive it."""
    found: str
    mend: str

    @property
    def answer(self) -> str:
        """The errno's name, or whose refusal it is."""
        if self.number == errno.EOPNOTSUPP:
            return "EOPNOTSUPP"  # Python's table has the other name of that number
        return "ours" if self.number is None else errno.errorcode[self.number]

    def __str__(self) -> str:
        return f"{self.call}: {self.answer}: {self.found}; {self.mend}"


UNSEEN = {
    errno.EBUSY: "somebody else loads, unloads or jumps at this moment: ask again",
    errno.ENOMEM: "no memory is left for it: stop what takes much, or take a smaller initrd",
}
"""What cannot be seen before the call (kexec_trylock; what an allocation finds)."""

Reason = tuple[int | None, str, str]
_Rule = Callable[[State, Request], Iterator[Reason]]


def refusals(state: State, request: Request) -> tuple[Refusal, ...]:
    """Every reason that can be told, in the order in which the kernel looks."""
    return tuple(
        Refusal(call=request.call, number=number, found=found, mend=mend)
        for rule in _RULES
        for number, found, mend in rule(state, request)
    )


def _built_in(state: State, request: Request) -> Iterator[Reason]:
    option = "KEXEC_FILE" if request.files else "KEXEC"
    if request.files and state.architecture in ("i686", "i386"):
        yield errno.ENOSYS, "32-bit x86 has no kexec_file_load", "go by kexec_load"
    elif state.built(option) is False:
        other, its = (LOAD, "KEXEC") if request.files else (FILE_LOAD, "KEXEC_FILE")
        instead = "" if state.built(its) is False else f"go by {other}, or "
        yield (
            errno.ENOSYS,
            f"CONFIG_{option} is not in this kernel",
            f"{instead}boot a kernel with it",
        )


def _who(state: State, request: Request) -> Iterator[Reason]:
    if state.may_boot is False:
        yield errno.EPERM, "no CAP_SYS_BOOT", "be root, or give the process the capability"
    if state.disabled:
        yield (
            errno.EPERM,
            "kernel.kexec_load_disabled is 1: nothing is loaded or unloaded until the next boot",
            "find who sets it (sysctl.d) and reboot",
        )
    left = state.limits.crash if request.crash else state.limits.reboot
    if left == 0:
        name = "kexec_load_limit_panic" if request.crash else "kexec_load_limit_reboot"
        yield (
            errno.EPERM,
            f"kernel.{name} is 0: no load is left, and nothing can be unloaded",
            "it cannot be raised again: reboot",
        )


def _written(_state: State, request: Request) -> Iterator[Reason]:
    for name in request.written:
        yield (
            errno.ETXTBSY,
            f"somebody has {name} open for writing",
            "wait until it is written, or load a copy",
        )


def _boots_securely(state: State) -> bool:
    """Whether IMA takes UEFI's secure boot for a policy of its own (ima_arch.c, ima_load_data)."""
    return bool(
        state.secure_boot
        and state.built("KEXEC_SIG")
        and state.built("IMA_SECURE_AND_OR_TRUSTED_BOOT")
    )


def only_files(state: State) -> bool:
    """Whether IMA lets no image in whose file it cannot look at."""
    return _boots_securely(state) or state.appraised is True


def _appraised(state: State, request: Request) -> Iterator[Reason]:
    """ima_load_data and ima_post_read_file, which are asked before lockdown is."""
    if not request.files and only_files(state):
        securely = _boots_securely(state)
        why = "UEFI secure boot is on" if securely else "its policy appraises kernels"
        yield (
            errno.EACCES,
            f"IMA lets no image in without its file: {why}",
            "go by kexec_file_load",
        )
    elif request.files and state.appraised and request.ima_signed is False:
        yield (
            errno.EACCES,
            "IMA's policy appraises kernels, and the image's file has no signature in security.ima",
            "sign it (evmctl ima_sign) with a key of the keyring .ima, or change the policy",
        )


def _locked_down(state: State, request: Request) -> Iterator[Reason]:
    if state.lockdown in (None, "none"):
        return
    if not request.files:
        yield (
            errno.EPERM,
            f"lockdown is {state.lockdown}: kexec_load takes bytes that nobody signed",
            "go by kexec_file_load with a signed kernel",
        )
        return
    for _, found, mend in _mistrusted(state, request):
        yield errno.EPERM, f"lockdown is {state.lockdown} and {found}", mend


def _signature(state: State, request: Request) -> Iterator[Reason]:
    if request.files and state.built("KEXEC_SIG_FORCE"):
        for number, found, mend in _mistrusted(state, request):
            yield number, f"CONFIG_KEXEC_SIG_FORCE is in this kernel and {found}", mend


def _mistrusted(state: State, request: Request) -> Iterator[Reason]:
    """Why kexec_image_verify_sig would not be content, with verify_pefile_signature's errno."""
    signature, keys = request.signature, state.keys
    own = "sign it with a key that this kernel trusts"
    if request.signed is False:
        yield errno.ENODATA, "the image has no signature", own
    elif signature is not None and signature.problem:
        yield errno.EBADMSG, f"the image's signature cannot be read: {signature.problem}", own
    elif signature is not None and signature.digest_right is False:
        yield (
            errno.EKEYREJECTED,
            "the image is not what was signed: it has another digest",
            "take the image as it was signed, or sign it anew",
        )
    elif signature is not None and keys is not None:
        if not signature.trusted_by(keys):
            yield (
                errno.ENOKEY,
                f"the image was signed by {signature.by}, of whom this kernel has no key"
                f" ({len(keys)} in /proc/keys)",
                "enrol it (UEFI db, mokutil --import) and boot with secure boot, or boot without lockdown=",
            )
    elif request.signed and state.foreign_keys is False:
        yield (
            errno.ENOKEY,
            "no key but this build's own is here to verify a signature with: the keyrings .platform and"
            " .machine are empty (no UEFI secure boot, no MOK)",
            "enrol the key that signed the image, or boot without lockdown=",
        )


def _platform(state: State, request: Request) -> Iterator[Reason]:
    if "tdx_host_platform" in state.cpu_flags and "tdx_pw_mce" in state.cpu_bugs:
        # machine_kexec_prepare since Linux 6.18; read in the source, not tried.
        yield (
            errno.EOPNOTSUPP,
            "a TDX host whose CPU has the partial-write erratum: Linux does not kexec there",
            "boot with kvm_intel.tdx=0, or reboot through the firmware",
        )
    if state.xen_pv and request.files:
        yield (
            None,
            "kexec_file_load in a PV guest of Xen's oopses the kernel (seen on 6.1)",
            "in dom0 go by hypercall: `tightrope perform xen`",
        )


def _image(state: State, request: Request) -> Iterator[Reason]:
    if request.files and not request.is_bzimage:
        yield (
            errno.ENOEXEC,
            "the image is not a bzImage with a 64-bit entry, and kexec_file_load takes nothing else",
            "go by kexec_load",
        )


def _command_line(state: State, request: Request) -> Iterator[Reason]:
    size = len(request.command_line) + 1
    if not request.files:
        return
    limit = abi.COMMAND_LINE_LIMIT - abi.ELFCOREHDR_ROOM
    if size > limit:
        yield (
            errno.EINVAL,
            f"the command line has {size} bytes with its zero: {limit} is the most, since"
            f" {abi.ELFCOREHDR_ROOM} are kept for elfcorehdr=, also without a crash",
            f"take {size - limit} bytes out of it, or go by kexec_load",
        )


def _shape(state: State, request: Request) -> Iterator[Reason]:
    """sanity_check_segment_list."""
    if len(request.destinations) > abi.SEGMENT_MAX:
        yield (
            errno.EINVAL,
            f"{len(request.destinations)} segments: {abi.SEGMENT_MAX} is the most",
            "join some of them",
        )
    for name, extent in request.destinations:
        if extent.start % PAGE_SIZE or extent.end % PAGE_SIZE:
            yield errno.EADDRNOTAVAIL, f"{name} at {extent} is not whole pages", "align it"
    ordered = sorted(request.destinations, key=lambda row: row[1])
    for (name, one), (other_name, other) in pairwise(ordered):
        if one.overlaps(other):
            yield errno.EINVAL, f"{name} {one} and {other_name} {other} overlap", "move one"
    for (name, extent), size in zip(request.destinations, request.sizes, strict=False):
        if size > extent.size:
            yield errno.EINVAL, f"{name}: {size:#x} bytes for {extent.size:#x}", "make room for it"
    total = sum(extent.size for _, extent in request.destinations)
    if state.total_ram is not None and total > state.total_ram // 2:
        yield (
            errno.EINVAL,
            f"the segments take {total >> 20} MiB, more than half of {state.total_ram >> 20} MiB",
            "make the initrd smaller, or move the load to a machine with more memory",
        )


def _crash_region(state: State, request: Request) -> Iterator[Reason]:
    region = state.crash_region
    if not request.crash:
        return
    if region is None:
        if state.ram:
            yield errno.EADDRNOTAVAIL, "no crash region is reserved", "boot with crashkernel="
        return
    if request.room > region.size:
        yield (
            errno.EADDRNOTAVAIL,
            f"image and initrd take {request.room:#x} bytes at least, and the crash region {region}"
            f" has {region.size:#x}",
            "boot with a larger crashkernel=, or take a smaller initrd",
        )
    for name, extent in request.destinations:
        if not region.covers(extent):
            yield (
                errno.EADDRNOTAVAIL,
                f"{name} {extent} is outside the crash region {region}",
                "plan it for this machine: `tightrope plan --crash`",
            )
    if request.destinations and request.entry not in region:
        yield errno.EADDRNOTAVAIL, f"the entry {request.entry:#x} is outside {region}", "as above"
    taken = sum(extent.size for _, extent in request.destinations)
    if taken >= region.size:
        yield (
            errno.ENOMEM,
            f"the segments fill the crash region {region}: the control pages are taken from it too",
            "leave some pages of it free",
        )


def _memory(state: State, request: Request) -> Iterator[Reason]:
    """What a plain kexec_load accepts without a look: its destinations' memory."""
    if request.files or not state.ram:
        return
    outside = [
        f"{name} {extent}"
        for name, extent in request.destinations
        if not covered(extent, state.ram)
    ]
    if outside:  # a plan for another machine: one reason, however many segments it has
        verb = "is" if len(outside) == 1 else "are"
        told = ", ".join(outside)
        yield None, f"{told} {verb} not RAM in /proc/iomem", "plan it for this machine"
    for name, extent in request.destinations:
        if not request.crash:
            for region in state.crash_regions:
                if extent.overlaps(region):
                    yield None, f"{name} {extent} is in the crash region {region}", "move it"
    if request.destinations and not any(
        request.entry in extent for _, extent in request.destinations
    ):
        yield None, f"the entry {request.entry:#x} is in no segment", "enter what is loaded"


_RULES: tuple[_Rule, ...] = (
    _built_in,
    _who,
    _written,
    _appraised,
    _locked_down,
    _platform,
    _shape,
    _crash_region,
    _image,
    _signature,
    _command_line,
    _memory,
)
