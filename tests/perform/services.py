"""An EFI machine that systemd runs: Debian's kernel started by OVMF, with Python and a rehearsal's packages.

    OVMF, with a `db` that trusts whoever signed the kernel
     -> the kernel's EFI stub -> /init -> systemd -> a service that takes commands on the console

Rules: nothing is asserted here.  systemd's programs and units are this machine's own; contrib/ lies where
its files say that they are installed.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tests.makers.efi_variables import with_trusted
from tests.perform.dom0 import MIB, Guest
from tests.perform.narrow import build_dom0
from tests.qemu.disk import Disk
from tightrope.machine.qemu.pc import Board
from tightrope.perform.linux import signature

FIRMWARE = Path("/usr/share/OVMF")
SYSTEMD = Path("/lib/systemd")
PROGRAMS = (
    SYSTEMD / "systemd",
    SYSTEMD / "systemd-shutdown",
    Path("/bin/systemctl"),
    Path("/usr/bin/systemd-detect-virt"),
)
UNITS = ("*.target", "systemd-kexec.service", "*.slice", "-.mount")
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /run /home /var /usr/bin /sbin /root
ln -s /bin/busybox /usr/bin/env
exec /lib/systemd/systemd --log-target=console --log-color=no --show-status=no
"""
COMMANDS = """#!/bin/busybox sh
mount -t securityfs security /sys/kernel/security 2>/dev/null
cd /home
export HOME=/home TERM=dumb NO_COLOR=1 PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1
echo "tightrope: linux $(uname -r)"
while read -r line; do
    eval "$line"
    echo "tightrope: did $?"
done
"""
SERVICE = """[Unit]
DefaultDependencies=no
Conflicts=umount.target
Before=umount.target
[Service]
ExecStart=/bin/busybox sh /commands
StandardInput=tty-force
StandardOutput=tty
TTYPath=/dev/console
"""
OPEN_TMP = "[Service]\nPrivateTmp=no\n"
"""A checkout, and with it the tightrope that is run, may itself lie below /tmp."""
DEFAULT = "[Unit]\nRequires=commands.service\nAfter=commands.service\nAllowIsolate=yes\n"


def signer(data: bytes) -> bytes:
    """The certificate in the signature of a kernel, in DER."""
    start = data.rindex(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02") - 4
    content = signature._of(signature._of(data[start:], signature.SEQUENCE), signature.FIELD_0)
    body = signature._of(content, signature.SEQUENCE)
    ((_, raw), *_) = signature._all(signature._of(body, signature.FIELD_0))
    return b"\x30\x82" + len(raw).to_bytes(2, "big") + raw


@functools.cache
def _contents() -> Mapping[str, tuple[int, bytes]]:
    """Path in the archive -> (mode, bytes), without files of a test's own."""
    build = build_dom0()
    out: dict[str, tuple[int, bytes]] = build.contents({}, rehearse=True)
    for each in PROGRAMS:
        if not each.exists():
            lacking(f"no {each} here: run scripts/system-packages")
        out[str(each)[1:]] = 0o100755, each.read_bytes()
    for each in build.libraries(*PROGRAMS):
        out.setdefault(str(each)[1:], (0o100755, each.read_bytes()))
    for pattern in UNITS:
        for each in (SYSTEMD / "system").glob(pattern):
            out[f"lib/systemd/system/{each.name}"] = 0o100644, each.read_bytes()
    contrib = REPOSITORY / "contrib"
    unit = "tightrope-load.service"
    out |= {
        "init": (0o100755, INIT.encode()),
        "commands": (0o100755, COMMANDS.encode()),
        "etc/systemd/system/commands.service": (0o100644, SERVICE.encode()),
        "etc/systemd/system/default.target": (0o100644, DEFAULT.encode()),
        f"etc/systemd/system/{unit}": (0o100644, (contrib / "systemd" / unit).read_bytes()),
        f"etc/systemd/system/{unit}.d/tmp.conf": (0o100644, OPEN_TMP.encode()),
        "etc/kernel/install.d/95-tightrope.install": (
            0o100755,
            (contrib / "kernel-install" / "95-tightrope.install").read_bytes(),
        ),
        "etc/kernel/postinst.d/zz-tightrope": (
            0o100755,
            (contrib / "kernel-install" / "zz-tightrope").read_bytes(),
        ),
    }
    return out


class EfiLinux(Guest):
    """Debian's signed kernel, started by OVMF; `files` by their paths."""

    def __init__(
        self,
        flavour: str,
        files: Mapping[str, bytes],
        *,
        mebibytes: int,
        words: str,
        counted: bool = False,
    ) -> None:
        if not FIRMWARE.is_dir() or shutil.which("systemctl") is None:
            lacking("no OVMF, or no systemd, here: run scripts/system-packages")
        kernel = debian_kernel(flavour).read_bytes()
        variables = (FIRMWARE / "OVMF_VARS_4M.fd").read_bytes()
        own = {name: (0o100644, data) for name, data in files.items()}
        board = Board(
            size=mebibytes * MIB,
            kernel=kernel,
            initrd=build_dom0().archive({**_contents(), **own}),
            command_line=words,
            counted=counted,
            firmware=(
                (FIRMWARE / "OVMF_CODE_4M.fd").read_bytes(),
                with_trusted(variables, signer(kernel)),
            ),
        )
        super().__init__(board, Disk(MIB))
