#!/usr/bin/env bash
# fdt and pyfdt write device tree source with another boot line in it, or another seed; fdt reads dtc's wrongly, too.
#
# Guess before it was tried: a blob written as source (to_dts) and compiled by dtc has the same bytes in /chosen, as
# `dtc -O dts` and dtc give them; a string's quotes and backslashes are escaped, and undone by who reads them.
# Seen with fdt 0.3.3 and pyfdt 0.3 (PyPI), dtc 1.6.1.  bootargs of dyndbg="file a.c +p": pyfdt puts the quotes bare
# between quotes, which dtc refuses; fdt escapes them, for dtc, but its own parse_dts keeps the backslashes and drops
# the quotes, of dtc's source as well: the kernel gets dyndbg=\file a.c +p\.  A backslash is escaped by neither: of
# a=C:\new dtc makes a line break, status 0. A rng-seed of 80 ff 01 02 03: pyfdt writes [ffffff80 ffffffff 01 02 03],
# which dtc takes for eleven bytes.
#
# What it costs: a tree that is patched as text before a kexec boots with another command line, and nobody said so; a
# blob that is patched as a blob (fdt.parse_dtb to to_dtb, libfdt) is the same.
#
# Needs: Debian bookworm's package lists, python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download device-tree-compiler=1.6.1-4+b1 libfdt1=1.6.1-4+b1 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check fdt==0.3.3 pyfdt==0.3 setuptools 2>errors || { cat errors; exit 1; }
LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu root/usr/bin/dtc --version
env/bin/python - <<'PY'
import io
import os
import subprocess
from importlib.metadata import version

import fdt
from pyfdt.pyfdt import FdtBlobParse

print("fdt", version("fdt"), "pyfdt", version("pyfdt"))
PLACES = {**os.environ, "LD_LIBRARY_PATH": "root/usr/lib/x86_64-linux-gnu"}


def tool(name, *arguments, data=None):
    """What a program of the device tree compiler prints, or None where its status is not 0."""
    ran = subprocess.run([f"root/usr/bin/{name}", *arguments], input=data, capture_output=True, env=PLACES)
    return None if ran.returncode else ran.stdout


def chosen(blob, name):
    """The bytes of a property of /chosen, by fdtget; None without a blob."""
    if blob is None:
        return None
    with open("blob", "wb") as file:
        file.write(blob)
    return bytes(int(each, 16) for each in tool("fdtget", "-t", "bx", "blob", "/chosen", name).split())


def compiled(source):
    return tool("dtc", "-q", "-I", "dts", "-O", "dtb", data=source.encode())


def ways(name, value):
    """The value after each way from blob to source to blob."""
    blob = compiled("/dts-v1/; / { chosen { %s = [%s]; }; };" % (name, value.hex(" ")))
    assert chosen(blob, name) == value
    by_dtc = tool("dtc", "-q", "-I", "dtb", "-O", "dts", data=blob).decode()
    by_fdt = fdt.parse_dtb(blob).to_dts()
    by_pyfdt = FdtBlobParse(io.BytesIO(blob)).to_fdt().to_dts()
    found = {
        "dtc, dtc": compiled(by_dtc),
        "fdt, blob to blob": fdt.parse_dtb(blob).to_dtb(version=17),
        "fdt, dtc": compiled(by_fdt),
        "dtc, fdt": fdt.parse_dts(by_dtc).to_dtb(version=17),
        "pyfdt, dtc": compiled(by_pyfdt),
    }
    print(name, value)
    read = {way: chosen(result, name) for way, result in found.items()}
    for way, result in read.items():
        print(f"    {way}: {'the same' if result == value else result}")
    assert read["dtc, dtc"] == read["fdt, blob to blob"] == value
    return [read[way] for way in ("fdt, dtc", "dtc, fdt", "pyfdt, dtc")]


plain = b"console=ttyS0 ro\0"
assert ways("bootargs", plain) == [plain] * 3
quoted = b'dyndbg="file a.c +p"\0'
assert ways("bootargs", quoted) == [quoted, b"dyndbg=\\file a.c +p\\\0", None]
slash = b"a=C:\\new\0"
broken = b"a=C:\new\0"
assert ways("bootargs", slash) == [broken, b"a=C:\\\\new\0", broken]
seed = bytes.fromhex("80ff010203")
assert ways("rng-seed", seed) == [seed, seed, bytes.fromhex("ffffff80ffffffff010203")]
print("as seen")
PY
