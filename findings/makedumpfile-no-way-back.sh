#!/usr/bin/env bash
# makedumpfile does not turn a compressed dump back into an ELF core: with -E it refuses to read one.
#
# Seen with makedumpfile 1.7.2 (Debian) on a kdump file of version 6 written by kdumpling 0.4.0.
# Guess beforehand: `makedumpfile -E -d 1 DUMP CORE` converts, because -E "creates DUMPFILE in the ELF format"
# and a compressed dump is a legal input for another filtering.
#
# What it costs: a tool that reads ELF cores alone cannot send its users to makedumpfile; a dump that has been
# taken in the compressed format stays in it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip --quiet --disable-pip-version-check install kdumpling==0.4.0
apt-get download -qq -o APT::Sandbox::User=root makedumpfile liblzo2-2 libdw1 libelf1 >/dev/null
for each in ./*.deb; do dpkg-deb -x "$each" root; done
export LD_LIBRARY_PATH="$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu"

venv/bin/python - <<'PYTHON'
import kdumpling

made = kdumpling.KdumpBuilder(arch="x86_64")
made.set_vmcoreinfo("OSRELEASE=6.1.0\nPAGESIZE=4096\n")
made.add_memory_segment(0x1000000, b"A" * 16384)
made.write("dump", format=kdumpling.OutputFormat.KDUMP_COMPRESSED)
PYTHON

root/usr/bin/makedumpfile -v 2>&1 | sed -n 1p
head -c 8 dump | tr ' ' '.'; echo
status=0
timeout 60 root/usr/bin/makedumpfile -E -d 1 dump core >said 2>&1 </dev/null || status=$?
cat said

test "$status" -ne 0
test ! -e core
grep -q "'-E' option is disable, because dump is kdump compressed format" said
echo "as seen"
