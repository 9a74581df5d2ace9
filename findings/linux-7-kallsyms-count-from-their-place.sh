#!/usr/bin/env bash
# In Linux 7.x the addresses in a kernel's kallsyms tables count from their own place; there is no base.
#
# Guess before it was tried: as in 6.12, the table behind the token index holds offsets from
# kallsyms_relative_base, a word that stands behind it.
# Seen: in Debian's 7.3.4 (and 7.2.13) each entry is a signed word that counts from its own address, and the
# word where the base stood is none; aligned to 4 bytes in 7.3 where 6.12 has 8.  A reader that has the
# alignment wrong is off by one entry and gives each symbol its neighbour's address, in order.
#
# Needs: Debian's archive in apt's sources, dpkg-deb, python3 with venv; half a minute.  Exits 1 when this changes.
set -euo pipefail
package=linux-binary-7.3.4+deb13-amd64 version=7.3.4-1~bpo13+1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie-backports main" >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
"${apt[@]}" download "$package=$version" >/dev/null
dpkg-deb -x "$package"_*.deb root
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check zstandard==0.25.0
venv/bin/python - root/usr/lib/modules/*/vmlinuz <<'END'
import struct, sys, zstandard
data = open(sys.argv[1], "rb").read()
offset, length = struct.unpack_from("<II", data, 0x248)
setup = (data[0x1F1] + 1) * 512
payload = data[setup + offset : setup + offset + length]
elf = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj().decompress(payload)
# The first PT_LOAD: its place in the file, and its linear address, which is _text's.
header = struct.unpack_from("<Q", elf, 32)[0]
at, virt = struct.unpack_from("<QQ", elf, header + 8)
# The token table has each character as itself; the index behind it says where each token begins.
def behind_index():
    digits, at = b"".join(b"%d\0" % n for n in range(10)), -1
    while (at := elf.find(digits, at + 1)) >= 0:
        end = at
        for _ in range(256 - 48):
            end = elf.index(b"\0", end) + 1
        for index in ((end + 3) & ~3, (end + 7) & ~7):
            starts = struct.unpack_from("<256H", elf, index)
            if starts[0] == 0 and list(starts) == sorted(set(starts)):
                return index + 512
table = behind_index()
place = virt + table - at
first = [place + 4 * n + struct.unpack_from("<i", elf, table + 4 * n)[0] for n in range(4)]
print("version", elf[elf.index(b"Linux version 7") :][:40].split(b" (")[0].decode())
print("_text      ", hex(virt))
print("by place   ", " ".join(map(hex, first)))
print("alignment  ", 8 if table % 8 == 0 else 4)
sys.exit(not (first[:3] == [virt] * 3 and table % 8 == 4))
END
