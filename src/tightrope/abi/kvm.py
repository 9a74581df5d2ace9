"""The numbers and structures of /dev/kvm that one virtual CPU needs.

Rules: numbers, layouts and encoders; nothing here opens a device.  Integers are little-endian.

Sources: Linux include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h; the order and meaning
of the calls is Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import struct

DEVICE = "/dev/kvm"
API_VERSION = 12

_KVMIO = 0xAE
_WRITE, _READ = 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    """An ioctl number (include/uapi/asm-generic/ioctl.h)."""
    return direction << 30 | size << 16 | _KVMIO << 8 | number


KVM_REGS = struct.Struct("<18Q")
"""struct kvm_regs, in the order of `REGISTERS`."""
REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
KVM_SEGMENT = struct.Struct("<QIH10B")
"""base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, padding."""
SEGMENT_LONG = 8
"""Which of these is CS.L."""
SEGMENT_ORDER = ("cs", "ds", "es", "fs", "gs", "ss")
"""The first segments of struct kvm_sregs; tr and ldt follow."""
TR_AT, GDT_AT, IDT_AT, CONTROL_AT = 6 * 24, 192, 208, 224
"""Offsets in struct kvm_sregs: tr, gdt, idt, and cr0 cr2 cr3 cr4 cr8 efer apic_base."""
KVM_DTABLE = struct.Struct("<QH6x")
KVM_CONTROL = struct.Struct("<6Q")
SREGS_SIZE = 312
KVM_USERSPACE_MEMORY_REGION = struct.Struct("<IIQQQ")
"""slot, flags, guest_phys_addr, memory_size, userspace_addr."""
KVM_GUEST_DEBUG = struct.Struct("<II8Q")
"""control, pad, debugreg[8]."""
CPUID_HEAD, CPUID_ENTRY = struct.Struct("<II"), struct.Struct("<7I12x")
"""nent, padding; function, index, flags, eax, ebx, ecx, edx, padding[3]."""
CPUID_ENTRIES = 256
KVM_SIGNAL_MASK = struct.Struct("<IQ")
"""len, sigset: eight bytes of it, as the kernel's own sigset_t is."""

GET_API_VERSION = _ioc(0, 0x00, 0)
CREATE_VM = _ioc(0, 0x01, 0)
CHECK_EXTENSION = _ioc(0, 0x03, 0)
GET_VCPU_MMAP_SIZE = _ioc(0, 0x04, 0)
GET_SUPPORTED_CPUID = _ioc(_READ | _WRITE, 0x05, CPUID_HEAD.size)
CREATE_VCPU = _ioc(0, 0x41, 0)
SET_USER_MEMORY_REGION = _ioc(_WRITE, 0x46, KVM_USERSPACE_MEMORY_REGION.size)
SET_TSS_ADDR = _ioc(0, 0x47, 0)
RUN = _ioc(0, 0x80, 0)
GET_REGS = _ioc(_READ, 0x81, KVM_REGS.size)
SET_REGS = _ioc(_WRITE, 0x82, KVM_REGS.size)
GET_SREGS = _ioc(_READ, 0x83, SREGS_SIZE)
SET_SREGS = _ioc(_WRITE, 0x84, SREGS_SIZE)
SET_SIGNAL_MASK = _ioc(_WRITE, 0x8B, 4)
SET_CPUID2 = _ioc(_WRITE, 0x90, CPUID_HEAD.size)
SET_GUEST_DEBUG = _ioc(_WRITE, 0x9B, KVM_GUEST_DEBUG.size)

CAP_SET_GUEST_DEBUG = 23
CAP_SYNC_REGS = 74
SYNC_REGS_GENERAL = 1
"""KVM_SYNC_X86_REGS: struct kvm_run carries the general registers."""

EXIT_IO, EXIT_DEBUG, EXIT_HLT, EXIT_MMIO, EXIT_SHUTDOWN = 2, 4, 5, 6, 8
EXIT_FAIL_ENTRY, EXIT_INTERNAL_ERROR = 9, 17
EXIT_NAMES = {
    EXIT_IO: "KVM_EXIT_IO", EXIT_DEBUG: "KVM_EXIT_DEBUG", EXIT_HLT: "KVM_EXIT_HLT",
    EXIT_MMIO: "KVM_EXIT_MMIO", EXIT_SHUTDOWN: "KVM_EXIT_SHUTDOWN",
    EXIT_FAIL_ENTRY: "KVM_EXIT_FAIL_ENTRY", EXIT_INTERNAL_ERROR: "KVM_EXIT_INTERNAL_ERROR",
}  # fmt: skip

# struct kvm_run
RUN_EXIT_REASON = struct.Struct("<8xI")
RUN_UNION = 32
"""Where the part begins that depends on the exit."""
RUN_DEBUG = struct.Struct("<I4xQQQ")
"""struct kvm_debug_exit_arch: exception, pc, dr6, dr7."""
RUN_IO = struct.Struct("<BBHIQ")
"""direction, size, port, count, data_offset."""
IO_OUT = 1
RUN_MMIO = struct.Struct("<Q8sIB")
"""phys_addr, data, len, is_write."""
RUN_VALID_REGS, RUN_DIRTY_REGS, RUN_SYNC = 288, 296, 304
"""kvm_valid_regs, kvm_dirty_regs and the union that the registers lie in."""

DEBUG_ENABLE, DEBUG_SINGLESTEP, DEBUG_HARDWARE = 1, 2, 1 << 17
"""KVM_GUESTDBG_ENABLE, _SINGLESTEP, _USE_HW_BP."""
DR7_EXACT, DR7_GLOBAL = 0x400, 2
"""SDM 17.2.4: bit 10 reads as one; bit 2n + 1 turns breakpoint n on globally."""
BREAKPOINTS = 4

UNUSED_TSS = 0xFFFB_D000
"""Three pages that no PC has RAM in; Intel's KVM wants them (KVM_SET_TSS_ADDR)."""

# CPUID (SDM volume 2A, CPUID; AMD APM volume 3, appendix E)
CPUID_EXTENDED, CPUID_ADDRESS_SIZES = 0x8000_0001, 0x8000_0008
EXTENDED_NX, EXTENDED_GBPAGES = 1 << 20, 1 << 26
"""EDX of CPUID_EXTENDED."""
