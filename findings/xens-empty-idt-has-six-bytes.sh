#!/usr/bin/env bash
# On its way to a 32-bit image Xen's kexec_reloc loads an idt from six bytes where the CPU reads ten.
#
# Guess before it was tried: `lidt compat_mode_idt` in the 64-bit half of kexec_reloc.S reads a limit of 0 and
# a base of 0, so that the 32-bit image is entered without an idt.
# Seen in Debian's 4.17 and 4.20: the data is a .word and a .long (six bytes), and the instruction stands in
# 64-bit code, where it reads a word and eight bytes.  The base is 0 and whatever follows: 0x0000906600000000
# (a two-byte nop, as padding) in 4.17, 0x0000ffff00000000 in 4.20.  Neither is canonical with 48 bits of linear
# address, for which LIDT is #GP (AMD APM volume 3, LIDT); both are with 57.
#
# What it costs: a walk through such a hypervisor into a 32-bit image (Multiboot, a 32-bit Linux) depends on
# whether the CPU can do 5 levels.  A 64-bit image is entered before that instruction.
#
# Needs: Debian's archive in apt's sources, dpkg-deb, python3 with venv; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
for suite in bookworm trixie; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main"
done >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
"${apt[@]}" download xen-hypervisor-4.17-amd64 xen-hypervisor-4.20-amd64 >/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check iced-x86==1.21.0
venv/bin/python - root/boot/xen-4.17-amd64.gz root/boot/xen-4.20-amd64.gz <<'END'
import gzip, re, sys
from iced_x86 import Decoder, Mnemonic

BEGIN = re.compile(rb"\x48\x89\xcd\x48\x8d\xa7..\0\0\x0f\x22\xde", re.DOTALL)
as_seen = True
for path, expected in zip(sys.argv[1:], (0x906600000000, 0xFFFF00000000)):
    image = gzip.open(path).read()
    [place] = [match.start() for match in BEGIN.finditer(image)]
    code = image[place : place + 0x400]
    lidt = next(each for each in Decoder(64, code) if each.mnemonic == Mnemonic.LIDT)
    at = lidt.ip_rel_memory_address
    limit, base = int.from_bytes(code[at : at + 2], "little"), int.from_bytes(code[at + 2 : at + 10], "little")
    canonical = {bits: base >> bits - 1 in (0, (1 << 65 - bits) - 1) for bits in (48, 57)}
    print(path.rpartition("/")[2], f"lidt reads limit {limit:#x}, base {base:#018x}; canonical: {canonical}")
    as_seen &= (limit, base, canonical) == (0, expected, {48: False, 57: True})
sys.exit(not as_seen)
END
