#!/usr/bin/env bash
# v86 puts every initrd at 64 MiB, whatever the kernel's boot header asks for.
#
# Guess before it was tried: a loader of bzImages places the initrd by the header (Documentation/arch/x86/boot.rst): not
# above initrd_addr_max, not in the init_size bytes that the kernel needs from where it runs, and inside RAM; a command
# line longer than cmdline_size is refused or cut.
# Seen with v86 0.5.462 (npm): the initrd is at 0x4000000 for an initrd_addr_max of 0x1ffffff too, and where a kernel at
# 16 MiB has an init_size of 0x3378000 (that of Debian's 6.1.192), which goes on to 0x4378000: the kernel may
# unpack over the initrd.  A guest of 64 MiB ends in a RangeError of JavaScript before it begins.  4000 bytes of command
# line are all at cmd_line_ptr though cmdline_size is 2047.  Of both nothing is said; the debug build alone has an
# assertion, of the line's length.
#
# What it costs: a kernel that finds its initrd in QEMU may have a broken one here; "it does not boot in v86" says
# little of the pair.  A kernel with a small init_size, or an initrd inside the kernel, goes round it.
#
# Needs: node and npm; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund v86@0.5.462 >said 2>&1 || { cat said; exit 1; }
cat >look.mjs <<'END'
import assert from "node:assert";
import { V86 } from "v86";

const [initSize, addrMax, memory, length] = process.argv.slice(2).map(Number);
// A bzImage of one sector of setup code and one page: only its header counts here, the guest is never started.
const kernel = new Uint8Array(1024 + 4096);
const header = new DataView(kernel.buffer);
kernel.set(new TextEncoder().encode("HdrS"), 0x202);
kernel[0x1f1] = 1; // setup_sects
kernel[0x211] = 1; // loadflags: LOADED_HIGH
kernel[0x234] = 1; // relocatable_kernel
header.setUint16(0x1fe, 0xaa55, true);
header.setUint16(0x206, 0x20f, true);
for (const [at, value] of [[0x214, 0x100000], [0x22c, addrMax], [0x230, 0x1000000], [0x238, 2047], [0x258, 0x1000000],
    [0x260, initSize]]) header.setUint32(at, value, true);
const initrd = new TextEncoder().encode("070701" + "0".repeat(506));
const emulator = new V86({wasm_path: "node_modules/v86/build/v86.wasm", memory_size: memory, autostart: false,
    bzimage: {buffer: kernel.buffer}, initrd: {buffer: initrd.buffer}, cmdline: "a".repeat(length)});
await new Promise((done) => emulator.add_listener("emulator-loaded", done));
const loaded = new DataView(Uint8Array.from(emulator.read_memory(0x80000, 1024)).buffer); // where it puts the setup code
const place = loaded.getUint32(0x218, true);
assert.equal(loaded.getUint32(0x202, true), 0x53726448);
assert.equal(Buffer.from(emulator.read_memory(place, initrd.length)).toString(), new TextDecoder().decode(initrd));
const line = Buffer.from(emulator.read_memory(loaded.getUint32(0x228, true), length + 1));
console.log(`initrd at 0x${place.toString(16)}, command line of ${line.indexOf(0)}`);
process.exit(0);
END
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
look() {  # INIT_SIZE INITRD_ADDR_MAX MEMORY LENGTH: what the loader did, or the error that ended it
    timeout 60 node look.mjs "$@" 2>errors || grep -o '^RangeError.*' errors
}
node -p '"v86 " + require("v86/package.json").version'
expect "a kernel like any" "initrd at 0x4000000, command line of 7" "$(look 0x1000000 0x7fffffff 0x10000000 7)"
expect "initrd_addr_max 0x1ffffff" "initrd at 0x4000000, command line of 7" "$(look 0x1000000 0x1ffffff 0x10000000 7)"
expect "init_size 0x3378000" "initrd at 0x4000000, command line of 7" "$(look 0x3378000 0x7fffffff 0x10000000 7)"
expect "64 MiB" "RangeError: offset is out of bounds" "$(look 0x1000000 0x7fffffff 0x4000000 7)"
expect "4000 bytes" "initrd at 0x4000000, command line of 4000" "$(look 0x1000000 0x7fffffff 0x10000000 4000)"
exit $status
