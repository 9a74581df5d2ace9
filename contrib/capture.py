#!/usr/bin/env python3
"""Collect what Tightrope asks of a machine: ssh HOST python3 - < capture.py > HOST.toml

Made from Tightrope's own source by `make collector`; do not edit.  It reads, and writes to its output
alone; Python 3.6 or newer and nothing else.  Root sees more, and what others cannot see is assumed.
"""

import errno
import json
import os
import re
import stat
import sys
from itertools import islice
from pathlib import Path

PATHS = (
    '/proc/cmdline',
    '/proc/cpuinfo',
    '/proc/iomem',
    '/proc/kallsyms',
    '/proc/kcore',
    '/proc/meminfo',
    '/proc/sys/kernel/kexec_load_disabled',
    '/proc/sys/kernel/osrelease',
    '/sys/kernel/boot_params/data',
    '/proc/xen/capabilities',
    '/sys/hypervisor/guest_type',
    '/sys/hypervisor/type',
    '/sys/kernel/security/lockdown',
    '/sys/devices/system/cpu/vulnerabilities/spectre_v2',
    '/sys/firmware/efi/config_table',
    '/sys/firmware/efi/fw_vendor',
    '/sys/firmware/efi/systab',
    '/sys/kernel/kexec/loaded',
    '/sys/kernel/kexec_loaded',
    '/sys/kernel/kexec/crash_loaded',
    '/sys/kernel/kexec_crash_loaded',
    '/sys/kernel/kexec/crash_size',
    '/sys/kernel/kexec_crash_size',
    '/sys/kernel/kexec/crash_cma_ranges',
    '/sys/kernel/kexec_crash_cma_ranges',
    '/sys/kernel/vmcoreinfo',
)
DIRECTORIES = (
    ('/sys/firmware/memmap', '\\d+', ('start', 'end', 'type')),
    ('/sys/devices/system/cpu', 'cpu\\d+', ('crash_notes', 'crash_notes_size')),
    ('/sys/firmware/efi/runtime-map', '\\d+', ('type', 'phys_addr', 'num_pages', 'virt_addr', 'attribute')),
    ('/sys/kernel/boot_params/setup_data', '\\d+', ('type',)),
)
LIMITS = {'/proc/kcore': 65536, '/proc/kallsyms': 67108864}
MOST_ENTRIES = 8192
SYMBOLS = (
    '_text',
    '_stext',
    '_end',
    'relocate_kernel',
    '__relocate_kernel_start',
    'kexec_va_control_page',
)
MARK = '# The files of a machine, collected for Tightrope: `tightrope host check` says what they tell.'
KALLSYMS = '/proc/kallsyms'


def read_tree(root = "/", *, symbols = True):
    """The files under `root`, which stands for /.

    Without `symbols` two are left out, which say what only a walk asks and are long to read.
    """
    base = Path(root)
    files = {}
    paths = [each for each in PATHS if symbols or each not in LIMITS]
    for directory, pattern, keys in DIRECTORIES:
        try:
            entries = sorted(_entries(base / directory[1:], pattern))
            paths += [f"{directory}/{name}/{key}" for name in entries for key in keys]
        except OSError as err:
            files[directory] = err
    for path in paths:
        try:
            files[path] = _text(base / path[1:], LIMITS.get(path, 1 << 20))
        except OSError as err:
            files[path] = err
    return files


def _entries(directory, pattern):
    with os.scandir(directory) as found:
        names = (each.name for each in found)
        for name in islice(names, MOST_ENTRIES):
            if re.fullmatch(pattern, name, re.ASCII):
                yield name


def _text(path, limit):
    """A file's first bytes.  Raises OSError; a FIFO is not a file that would wait for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return file.read(limit).decode("latin-1")


def printed(files):
    """The files as TOML, those of them that were there; of the symbols only what is asked for."""
    lines = [MARK, "", "[files]"]
    failed = ["", "[errors]"]
    for path in sorted(files):
        got = files[path]
        if isinstance(got, OSError):
            failed.append(f"{json.dumps(path)} = {got.errno or errno.EIO}")
            continue
        if path == KALLSYMS:
            names = "|".join(SYMBOLS)
            got = "".join(re.findall(rf"^\S+ \S (?:{names})\n", got, re.MULTILINE))
        text = json.dumps(got).replace("\x7f", "\\u007f")  # TOML's only other rule
        lines.append(f"{json.dumps(path)} = {text}")
    return "\n".join([*lines, *failed]) + "\n"


def main():
    """Print this machine's files."""
    sys.stdout.write(printed(read_tree()))
    if os.geteuid() != 0:
        sys.stderr.write("capture: not root: addresses are hidden, and will be assumed\n")


main()
