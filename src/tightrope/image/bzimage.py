"""Reading a Linux bzImage: everything that the setup header says is checked against the file.

    0x000 +--------------------------+
          | boot sector, setup code  |  (setup_sects + 1) * 512 bytes, not loaded by a kexec
          +--------------------------+  <- the one part begins
          | protected-mode part      |  syssize * 16 bytes; +0 startup_32, +0x200 startup_64
          +--------------------------+
          | PE certificate table     |  signed kernels only
          +--------------------------+
          | whatever else is there   |  padding to a block, or of a PE section
          +--------------------------+  <- the part and the file end

What is loaded: all that follows the setup code, the certificates and any padding included.  That
is what Linux's kexec_file_load does (arch/x86/kernel/kexec-bzimage64.c, bzImage64_load) and
kexec-tools too (kexec-bzImage.c, kexec-bzImage64.c): both take the file's size, not syssize.  So
the page list of a plan is the page list of a real kexec.  The header's offsets stay bound to
syssize.

Which protocols: 2.10 (Linux 2.6.31) and newer.  Before it a header does not say how much memory the
kernel writes before it reads its memory map (init_size), so no plan could be proved.

Rules: facts from boot.rst unless another source is named; no unpacking; fields by their own names.
"""

from __future__ import annotations

from tightrope.abi import boot
from tightrope.errors import ImageError, visible
from tightrope.image.certificates import ALIGNMENT, certificate_table
from tightrope.image.payload import compression_of
from tightrope.memory import Phys
from tightrope.model import EntryPoint, Image, Part, Payload, Protocol

OLDEST = 0x020A
_MAJOR = 2
_FOUR_GIB = 1 << 32
_PHYSICAL_LIMIT = 1 << 52
"""No x86 CPU has wider physical addresses (Intel SDM 3A, 4.1.4, MAXPHYADDR)."""


class _Header:
    """The setup header of one file: values by name, and refusals that know where the name lies."""

    def __init__(self, data: memoryview, source: str) -> None:
        self.data = data
        self.source = source
        self.protocol = boot.field("version").read(data)

    def __getitem__(self, name: str) -> int:
        """A field's value; 0 when the protocol version does not have the field."""
        field = boot.field(name)
        return field.read(self.data) if field.since <= self.protocol else 0

    def refusal(self, name: str, problem: str, limit: int | None = None) -> ImageError:
        """An error about a field."""
        offset = boot.field(name).offset
        return ImageError(problem, source=self.source, field=name, offset=offset, limit=limit)


def read(data: memoryview, source: str) -> Image:
    """The image in `data`, whose bytes at 0x202 are "HdrS".  Raises ImageError, with field and
    offset."""
    if len(data) < 2 * boot.SECTOR:
        problem = f"a kernel cut off after {len(data)} bytes"
        raise ImageError(problem, source=source, limit=2 * boot.SECTOR)
    header = _Header(data, source)
    end = _header_end(header)
    setup_header = bytes(data[boot.SETUP_HEADER : end])
    setup_size = boot.setup_size(setup_header)
    kernel_size = _kernel_size(header, setup_size)
    kernel = data[setup_size:]
    loadflags = _loadflags(header)
    xloadflags = _xloadflags(header, kernel_size)
    above_4g = bool(xloadflags & boot.XLoadFlags.XLF_CAN_BE_LOADED_ABOVE_4G)
    alignment, min_alignment = _alignments(header)
    pref_address, init_size = _memory(header, len(kernel), alignment, above_4g)
    _offsets(header, kernel[:kernel_size])
    _loaders_fields(header)
    return Image(
        source=source,
        format="bzImage",
        parts=(Part(offset=0, data=kernel, size=init_size, zeroed=False),),
        file_size=len(data),
        setup_header=setup_header,
        protocol=header.protocol,
        version=_version(header, setup_size),
        entries=_entries(xloadflags),
        relocatable=bool(header["relocatable_kernel"]),
        pref_address=Phys(pref_address),
        init_size=init_size,
        alignment=alignment,
        min_alignment=min_alignment,
        cmdline_limit=header["cmdline_size"],
        initrd_limit=Phys(header["initrd_addr_max"]),
        above_4g=above_4g,
        loadflags=loadflags,
        xloadflags=xloadflags,
        payload=_payload(header, kernel[:kernel_size]),
        initrd=None,
        command_line=None,
        signature=_signature(data),
        file=data,
        remarks=_behind(header, setup_size + kernel_size),
    )


# ------------------------------------------------------------------------ what kind of header it is


def _header_end(header: _Header) -> int:
    if header["boot_flag"] != boot.BOOT_FLAG:
        problem = f"{header['boot_flag']:#06x} is not {boot.BOOT_FLAG:#06x}"
        raise header.refusal("boot_flag", problem)
    major, minor = divmod(header.protocol, 256)
    if header.protocol < OLDEST:
        problem = (
            f"boot protocol {major}.{minor:02} does not say how much memory the kernel needs: "
            "that came with 2.10 (Linux 2.6.31)"
        )
        if not header["code32_start"]:
            problem += "; and its code32_start is 0: it has one entry, in real mode, as iPXE has"
        raise header.refusal("version", problem, OLDEST)
    if major != _MAJOR:
        raise header.refusal(
            "version", f"boot protocol {major}.{minor:02} is not known: only 2.x is"
        )
    reach, opcode = divmod(header["jump"], 256)
    if opcode != boot.JUMP_OPCODE:
        raise header.refusal("jump", f"{opcode:#04x} is not a short jump, so the header has no end")
    end = boot.JUMP_BASE + reach
    if reach > boot.JUMP_REACH:
        raise header.refusal(
            "jump", f"the short jump goes back by {256 - reach} bytes", boot.JUMP_REACH
        )
    if end < boot.header_end(header.protocol):
        problem = f"ends the header at {end:#x}, inside the fields of protocol {major}.{minor:02}"
        raise header.refusal("jump", problem, boot.header_end(header.protocol))
    return end


def _loadflags(header: _Header) -> int:
    loadflags = header["loadflags"]
    if not loadflags & boot.LoadFlags.LOADED_HIGH:
        problem = "LOADED_HIGH is not set: a zImage, loaded at 0x10000, and not a bzImage"
        raise header.refusal("loadflags", problem)
    return loadflags


def _xloadflags(header: _Header, kernel_size: int) -> int:
    flags = boot.XLoadFlags
    xloadflags = header["xloadflags"]
    if xloadflags & flags.XLF_KERNEL_64:
        if kernel_size <= boot.ENTRY_64_OFFSET:
            problem = (
                f"XLF_KERNEL_64 is set, but {kernel_size:#x} bytes of kernel have no startup_64"
            )
            raise header.refusal("xloadflags", problem, boot.ENTRY_64_OFFSET)
    elif xloadflags & flags.XLF_CAN_BE_LOADED_ABOVE_4G:
        problem = "XLF_CAN_BE_LOADED_ABOVE_4G is set, but XLF_KERNEL_64 is not"
        raise header.refusal("xloadflags", problem)
    return xloadflags


def _entries(xloadflags: int) -> tuple[EntryPoint, ...]:
    """The 64-bit entry first where there is one: it is the one that kexec uses then."""
    startup_32 = EntryPoint(
        name="startup_32", offset=boot.ENTRY_32_OFFSET, bits=32, protocol=Protocol.LINUX_32
    )
    if not xloadflags & boot.XLoadFlags.XLF_KERNEL_64:
        return (startup_32,)
    startup_64 = EntryPoint(
        name="startup_64", offset=boot.ENTRY_64_OFFSET, bits=64, protocol=Protocol.LINUX_64
    )
    return (startup_64, startup_32)


# --------------------------------------------------------------------------- the sizes of the parts


def _kernel_size(header: _Header, setup_size: int) -> int:
    """Bytes of the protected-mode part."""
    size = header["syssize"] * boot.PARAGRAPH
    there = len(header.data) - setup_size
    if there <= 0:
        problem = f"{setup_size:#x} bytes of setup, and the file ends at {len(header.data):#x}"
        raise header.refusal("setup_sects", problem, len(header.data))
    if not size:
        raise header.refusal("syssize", "0 bytes of kernel")
    if there < size:
        problem = f"the file is cut off: {size - there} of {size} bytes of kernel are missing"
        raise header.refusal("syssize", problem, there)
    return size


def _behind(header: _Header, end: int) -> tuple[str, ...]:
    """What lies behind the kernel, at `end`: it is loaded with it, and remarked on where nothing
    says it.

    A signer appends the PE header's certificate table, which signs what is there if it comes last.
    """
    data = header.data
    table = certificate_table(data)
    if table is None:
        more = _bytes(data, end, len(data))
        said = "which its header does not count, and no signature of the kernel alone covers"
        return (f"{more} behind the kernel, {said}",) if more else ()
    if table.start < end:
        problem, name = "lies inside the kernel", "PE certificate table"
        raise ImageError(problem, source=header.source, field=name, offset=table.start, limit=end)
    if table.end > len(data):
        missing = table.end - max(len(data), table.start)
        return (f"its signature is cut off: {missing} of {table.size} bytes are missing",)
    remarks = []
    if table.start - end >= ALIGNMENT or any(data[end : table.start]):
        remarks.append(f"{_bytes(data, end, table.start)} between the kernel and its signature")
    if table.end < len(data):
        remarks.append(
            f"{_bytes(data, table.end, len(data))} behind its signature, "
            "which has to come last: it no longer covers the file"
        )
    return tuple(remarks)


def _signature(data: memoryview) -> int:
    """Bytes of the certificate table that are there."""
    table = certificate_table(data)
    return 0 if table is None else max(0, min(table.end, len(data)) - table.start)


def _bytes(data: memoryview, start: int, end: int) -> str:
    """So many bytes, in words; empty for none."""
    count, zeros = end - start, not any(data[start:end])
    if count == 1:
        return "1 byte of zeros" if zeros else "1 byte, not a zero,"
    kind = "bytes of zeros" if zeros else "bytes, not all of them zeros,"
    return f"{count} {kind}" if count > 0 else ""


# ------------------------------------------------------------------------- what it asks of memory


def _alignments(header: _Header) -> tuple[int, int]:
    """Preferred and smallest alignment of the load address, in bytes."""
    alignment = header["kernel_alignment"]
    if alignment.bit_count() != 1:
        raise header.refusal("kernel_alignment", f"{alignment:#x} is not a power of two")
    shift = header["min_alignment"]
    if shift and 1 << shift > alignment:
        problem = f"2^{shift} is more than kernel_alignment"
        raise header.refusal("min_alignment", problem, alignment)
    # 0 means that the field says nothing; then there is no smaller alignment than the preferred
    # one.
    return alignment, 1 << shift if shift else alignment


def _memory(header: _Header, loaded: int, alignment: int, above_4g: bool) -> tuple[int, int]:
    """pref_address and init_size, in bytes."""
    pref_address, init_size = header["pref_address"], header["init_size"]
    if init_size < loaded:
        problem = f"{init_size:#x} bytes are less than are loaded"
        raise header.refusal("init_size", problem, loaded)
    if pref_address % alignment:
        problem = f"{pref_address:#x} is not a multiple of kernel_alignment"
        raise header.refusal("pref_address", problem, alignment)
    if not pref_address and not header["relocatable_kernel"]:
        problem = "is 0, but the kernel is not relocatable and has to run there"
        raise header.refusal("pref_address", problem)
    limit = _PHYSICAL_LIMIT if above_4g else _FOUR_GIB
    if pref_address + init_size > limit:
        problem = f"{pref_address:#x} + init_size is more than the kernel can be loaded to"
        raise header.refusal("pref_address", problem, limit)
    return pref_address, init_size


def _loaders_fields(header: _Header) -> None:
    """Limits that nobody filled in, and what only a loader may fill in."""
    for name in ("cmdline_size", "initrd_addr_max"):
        if not header[name]:
            raise header.refusal(name, "is 0, as in a header that was never filled in")
    # The header is copied into boot_params as it is: the kernel would follow this pointer, and take
    # itself for a guest of lguest or Xen, or for a phone (boot.rst, hardware_subarch).
    for name in ("setup_data", "hardware_subarch"):
        if header[name]:
            problem = f"{header[name]:#x} in a file, where only a loader could have put it"
            raise header.refusal(name, problem, 0)


# -------------------------------------------------------------------------- where the header points


def _version(header: _Header, setup_size: int) -> str | None:
    pointer = header["kernel_version"]
    if not pointer:
        return None
    start = pointer + boot.KERNEL_VERSION_BASE
    text, zero, _ = bytes(header.data[start:setup_size]).partition(b"\0")
    if not zero:
        problem = f"points to {start:#x}: no zero-terminated string inside the setup code"
        raise header.refusal("kernel_version", problem, setup_size)
    return visible(text.decode("utf-8", "backslashreplace"))


def _payload(header: _Header, kernel: memoryview) -> Payload | None:
    offset, size = header["payload_offset"], header["payload_length"]
    if not offset:
        return None
    if offset + size > len(kernel) or not size:
        problem = f"{size:#x} bytes from {offset:#x} are not inside the kernel"
        raise header.refusal("payload_length", problem, len(kernel))
    compression = compression_of(kernel[offset : offset + size])
    if compression is None:
        first = bytes(kernel[offset : offset + 4]).hex(" ")
        raise header.refusal("payload_offset", f"no compression is known that begins with {first}")
    return Payload(offset=offset, size=size, compression=compression)


def _offsets(header: _Header, kernel: memoryview) -> None:
    """The EFI handover entry and kernel_info lie in the kernel; neither is used by a kexec."""
    if header["handover_offset"] >= len(kernel):
        problem = f"{header['handover_offset']:#x} is not inside the kernel"
        raise header.refusal("handover_offset", problem, len(kernel))
    start = header["kernel_info_offset"]
    if not start:
        return
    name, layout = "kernel_info_offset", boot.KERNEL_INFO
    if start + layout.size > len(kernel):
        raise header.refusal(name, f"{start:#x} is not inside the kernel", len(kernel))
    magic, size, size_total, _ = layout.unpack_from(kernel, start)
    if magic != boot.KERNEL_INFO_MAGIC:
        raise header.refusal(
            name, f"{start:#x}: the bytes there are not {boot.KERNEL_INFO_MAGIC!r}"
        )
    if not layout.size <= size <= size_total <= len(kernel) - start:
        problem = f"{start:#x}: sizes {size:#x} and {size_total:#x} do not fit the kernel"
        raise header.refusal(name, problem, len(kernel) - start)
