#!/usr/bin/env bash
# QMP's pmemsave saves memory that a guest does not have, as zeros, and says that it went well.
#
# Guess before it was tried: what lies beyond the guest's RAM, in no device either, is an error, as it is for the
# monitor's `xp` ("Cannot access memory") and `gpa2hva`, and for memsave with a linear address that is not mapped.
# Seen with QEMU 7.2.22 (Debian), 16 MiB of RAM: 16 bytes at 8 GiB are 16 zeros and {"return": {}}; 16 bytes over the
# end of RAM are 8 of RAM and 8 zeros.
#
# What it costs: a page table of a paused guest that is read with pmemsave from a wrong frame (a bit too many in an
# entry, a pseudo-physical address) is an empty table, not an error: the walk ends with "not present", which is false.
#
# Needs: qemu-system-x86_64 of Debian bookworm, python3; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# The loader device writes the last word of RAM, so that RAM is told from nothing.
timeout 60 qemu-system-x86_64 -S -nodefaults -M q35 -m 16 -display none -qmp stdio \
    -device loader,addr=0xfffff8,data=0x1122334455667788,data-len=8 > answers <<'QMP'
{"execute": "qmp_capabilities"}
{"execute": "pmemsave", "arguments": {"val": 8589934592, "size": 16, "filename": "beyond"}}
{"execute": "pmemsave", "arguments": {"val": 16777208, "size": 16, "filename": "edge"}}
{"execute": "human-monitor-command", "arguments": {"command-line": "xp /2x 0x200000000"}}
{"execute": "human-monitor-command", "arguments": {"command-line": "gpa2hva 0x200000000"}}
{"execute": "quit"}
QMP
python3 - <<'PY'
import json

lines = [json.loads(line) for line in open("answers")]
said = [line.get("return", line.get("error")) for line in lines if "return" in line or "error" in line]
beyond, edge = (open(name, "rb").read() for name in ("beyond", "edge"))
version = lines[0]["QMP"]["version"]["qemu"]
print("QEMU", *(version[key] for key in ("major", "minor", "micro")))
print("pmemsave at 8 GiB:", said[1], beyond.hex())
print("pmemsave over the end:", said[2], edge.hex())
print("xp:", said[3].strip(), "- gpa2hva:", said[4].strip())
assert said[1] == said[2] == {}
assert beyond == bytes(16)
assert edge == bytes.fromhex("8877665544332211") + bytes(8), edge.hex()
assert "Cannot access memory" in said[3] and "No memory is mapped" in said[4]
print("as seen")
PY
