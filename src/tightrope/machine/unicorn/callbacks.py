"""The callbacks that Unicorn makes most often, as its library declares them.

Rules: signatures only, from unicorn.h.  The binding would put three Python calls between the
library and the one that is called, which doubles the time of a walk.
"""

from __future__ import annotations

import ctypes

CODE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
"""uc_cb_hookcode_t: engine, address, bytes, data."""
ACCESS = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_void_p,
)
"""uc_cb_hookmem_t: engine, kind, address, bytes, value, data."""


class TlbEntry(ctypes.Structure):
    """uc_tlb_entry."""

    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_uint32))


TRANSLATION = ctypes.CFUNCTYPE(
    ctypes.c_bool,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.POINTER(TlbEntry),
    ctypes.c_void_p,
)
"""uc_cb_tlbevent_t: engine, page, kind, answer, data; true when there is one."""
