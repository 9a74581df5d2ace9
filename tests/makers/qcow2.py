"""An empty qcow2 disk, for QEMU to save a machine's states in.

    cluster 0   header        1   refcount table        2   refcounts of 0 to 3        3   L1 table

Rules: bytes out; nobody has to have qemu-img.
Source: QEMU docs/interop/qcow2.txt, version 3.  All numbers are big-endian.
"""

from __future__ import annotations

import struct

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


def empty(size: int = 1 << 20) -> bytes:
    """A disk of `size` bytes (at most 512 MiB, one entry of L1) that reads as zeros."""
    header = HEADER.pack(
        b"QFI\xfb",
        3,
        0,  # no backing file
        0,
        CLUSTER_BITS,
        size,
        0,  # no encryption
        1,  # entries of L1
        3 * CLUSTER,  # L1
        1 * CLUSTER,  # the refcount table,
        1,  # of so many clusters
        0,  # no snapshots yet
        0,
        0,  # features: none of three kinds
        0,
        0,
        4,  # refcounts of 16 bits
        HEADER.size,
    )
    clusters = [header, struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1), b""]
    return b"".join(each.ljust(CLUSTER, b"\0") for each in clusters)
