"""An archive of files as Linux unpacks it into its initramfs ("newc").

    member  :=  "070701", 13 numbers of 8 hexadecimal digits, name NUL, padding | data, padding
    archive :=  members, and one called TRAILER

Numbers: inode, mode, owner, group, links, time, bytes of data, major and minor of the file system,
major and minor of the device that it is, bytes of the name with its NUL, 0.

Rules: bytes out; `image.cpio` reads what anybody wrote, and shares nothing with this.
Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

TRAILER = "TRAILER!!!"


def member(
    name: str,
    data: bytes | bytearray | memoryview = b"",
    *,
    mode: int,
    inode: int = 0,
    links: int = 1,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One file's bytes; `mode` as in stat(2), its type with it."""
    raw = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + raw
    return b"".join((head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)))
