#!/usr/bin/env bash
# dt-validate refuses the device tree that Linux gives a crash kernel with high and low memory, and takes one whose
# elfcorehdr is too short.
#
# Guess before it was tried: dtschema's chosen.yaml has what Linux itself writes: one range of linux,usable-memory-range, or
# two with crashkernel=SIZE,high (drivers/of/kexec.c appends the low one; drivers/of/fdt.c reads MAX_USABLE_RANGES, 2); and
# a property of an address and a size with too few cells for the root's #address-cells and #size-cells is an error.
# Seen with dtschema 2026.9 (2 and 2 cells): two ranges are "too long", in usable-memory-range as in elfcorehdr, where it is
# right.  linux,elfcorehdr of one cell and usable-memory-range of three, where four are meant, and initrd-start of a text
# pass without a word.  A misspelt name and a flag with a value are told.
#
# What it costs: a check of what kexec hands over fails for machines with much memory, and passes where a tool wrote half of
# a property: the crash kernel does not find the old memory.
#
# Needs: Debian bookworm's package lists, python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download device-tree-compiler=1.6.1-4+b1 libfdt1=1.6.1-4+b1 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check dtschema==2026.9 2>errors || { cat errors; exit 1; }
echo "dtschema $(env/bin/dt-validate --version)"
status=0
expect() {  # WANTED PROPERTY: what is said of it in /chosen
    local got
    cat >tree.dts <<END
/dts-v1/;
/ {
    #address-cells = <2>;
    #size-cells = <2>;
    compatible = "linux,dummy-virt";
    model = "a machine";
    memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x10 0x0>; };
    chosen { $2; };
};
END
    LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu root/usr/bin/dtc -q -O dtb -o tree.dtb tree.dts
    got=$(env/bin/dt-validate tree.dtb 2>&1 | grep -o 'chosen: .*' | tail -n 1 || true)
    echo "$2: ${got:-nothing is said}"
    [[ -z $1 && -z $got || -n $1 && $got == *"$1"* ]] || { echo "  was: ${1:-nothing}"; status=1; }
}
expect "" "linux,usable-memory-range = <0x8 0x0 0x0 0x10000000>"
expect "is too long" "linux,usable-memory-range = <0x8 0x0 0x0 0x10000000 0x0 0x70000000 0x0 0x8000000>"
expect "" "linux,elfcorehdr = <0x8 0xfff0000 0x0 0x10000>"
expect "is too long" "linux,elfcorehdr = <0x8 0xfff0000 0x0 0x10000 0x0 0x70000000 0x0 0x10000>"
expect "" "linux,elfcorehdr = <0x48000000>"
expect "" "linux,usable-memory-range = <0x8 0x0 0x10000000>"
expect "" "linux,initrd-start = \"here\""
expect "does not match any" "linux,elfcorehd = <0x8 0xfff0000 0x0 0x10000>"
expect "is not of type 'boolean'" "linux,booted-from-kexec = <1>"
exit $status
