"""System calls by which a process has another process do something: numbers only.

    struct sockaddr_un    0x00  family, u16     0x02  the path, or a zero and a name that is no path

Sources: arch/x86/entry/syscalls/syscall_{32,64}.tbl; include/uapi/linux/un.h and net.h; connect(2),
kill(2), socketcall(2).  Numbers are by what uname calls the machine that the process is built for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CONNECT: Mapping[str, int] = MappingProxyType({"x86_64": 42, "i686": 362})
SOCKETCALL: Mapping[str, int] = MappingProxyType({"i686": 102})
"""i386's older way to the same: which call, and where its arguments are, 32 bits each."""
SYS_CONNECT = 3
AF_UNIX = 1
SOCKADDR_UN = 110
"""Bytes of struct sockaddr_un."""

SIGNAL: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {
        "x86_64": MappingProxyType({62: 0, 129: 0, 200: 0, 234: 0, 297: 0, 434: 0}),
        "i686": MappingProxyType({37: 0, 178: 0, 238: 0, 270: 0, 335: 0, 434: 0}),
    }
)
"""kill, rt_sigqueueinfo, tkill, tgkill, rt_tgsigqueueinfo, pidfd_open -> which argument is the
process."""

OPEN: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {
        "x86_64": MappingProxyType({2: 0, 85: 0, 257: 1, 437: 1}),
        "i686": MappingProxyType({5: 0, 8: 0, 295: 1, 437: 1}),
    }
)
"""open, creat, openat, openat2 -> which argument is the path."""

CAP_NET_ADMIN, CAP_SYS_MODULE = 12, 16
"""include/uapi/linux/capability.h."""
