"""The digests that a purgatory will compare, made by the purgatory's own code in this process.

    bytes --routines/digest_64.S, in memory of this process--> 32 bytes, eight stripes at once

On a CPU with AVX2 and without the SHA instructions that is four times as fast as OpenSSL, which
cannot make eight digests of eight places at once.

Rules: offered only where it is faster, and where a process may have code in memory that it writes;
where not, whoever asks has hashlib.  What it says is what `plan.purgatory.digest` says.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Collection

from tightrope.perform.linux.calls import in_place
from tightrope.routines import DIGEST_64, read

SIZE = 32
Digest = Callable[[bytes | bytearray | memoryview], bytes]


def eight_at_once(cpu_flags: Collection[str]) -> Digest | None:
    """Who makes such digests on a CPU with these flags of Linux's; None where hashlib is to."""
    if "avx2" not in cpu_flags or "sha_ni" in cpu_flags or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    code = read(DIGEST_64)
    try:
        memory = mmap.mmap(
            -1,
            len(code.data),
            mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        )
    except OSError:
        return None  # SELinux's execmem, or a unit's MemoryDenyWriteExecute=
    memory[:] = code.data
    first = ctypes.c_char.from_buffer(memory)
    start = ctypes.addressof(first) + code.symbols["digest_64"]
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(start)

    def digest(data: bytes | bytearray | memoryview) -> bytes:
        out = ctypes.create_string_buffer(SIZE)
        with in_place(data) as at:
            call(at, len(data), ctypes.addressof(out))
        assert first is not None  # the code lives as long as what calls it
        return out.raw

    return digest
