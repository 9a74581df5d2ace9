#!/usr/bin/env bash
# A sosreport has the kernel's /proc/iomem and all of /proc/kallsyms, and none of the files that a kexec loader
# reads the firmware's memory map from.
#
# Seen with sosreport 4.0 of Debian 12, all of its plugins for kernel, CPU, PCI, boot, hardware and kdump on,
# as root.  Guess beforehand: what kexec-tools reads to make a memory map, /sys/firmware/memmap, is in a report
# that has a plugin for kdump and one for hardware, beside /proc/iomem; kallsyms, of 5 MB, is not.
#
# What it costs: of a machine that sent a sosreport it is not known which memory is ACPI, persistent or Soft
# Reserved by e820's types; RAM is told by /proc/iomem, without what mem= hid; notes for a crash kernel and the
# RSDP are not told.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download sosreport >download 2>&1
dpkg-deb -x sosreport_*.deb x
dpkg-deb -f sosreport_*.deb Package Version

PYTHONPATH=$work/x/usr/lib/python3/dist-packages timeout 300 python3 x/usr/bin/sos report --batch --build \
    --config-file /dev/null --tmp-dir "$work" -o kernel,processor,pci,boot,hardware,memory,kdump \
    >report 2>&1
tree=$(find "$work" -maxdepth 1 -type d -name 'sosreport-*')

# has PATH: whether this machine has it, and the report.
has() {
    local here=no there=no
    if [ -e "$1" ]; then here=yes; fi
    if [ -e "$tree$1" ]; then there=yes; fi
    printf '%-34s this machine: %-4s the report: %s\n' "$1" "$here" "$there"
}

for path in /proc/iomem /proc/kallsyms /proc/cpuinfo /proc/cmdline /sys/firmware/memmap \
    /sys/kernel/boot_params/data /sys/kernel/vmcoreinfo /sys/devices/system/cpu/cpu0/crash_notes; do
    has "$path"
done

cmp -s <(wc -l </proc/iomem) <(wc -l <"$tree/proc/iomem")
test "$(wc -c <"$tree/proc/kallsyms")" -gt 1000000
test -e /sys/firmware/memmap
for absent in /sys/firmware/memmap /sys/kernel/boot_params /sys/kernel/vmcoreinfo; do
    test ! -e "$tree$absent"
done
