#!/usr/bin/env bash
# A sysctl file that is read with a buffer of 4 MiB or more answers ENOMEM, whatever it holds.
#
# Seen on Linux 6.1 (Debian) and 6.18, with GNU dd and with Python's open(path, "rb").read(1 << 24).
# Guess beforehand: a file of six bytes is read in one short read, however large the buffer is; /proc and
# /sys files next to it do just that.  proc_sys_call_handler (fs/proc/proc_sysctl.c) refuses a count of
# KMALLOC_MAX_SIZE before it looks at the file.
#
# What it costs: a program that reads "at most 16 MiB" of any file takes kernel.kexec_load_disabled for one
# that cannot be read, and says that loading is allowed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uname -sr
dd --version | sed -n 1p

# answer FILE SIZE: what one read with a buffer of SIZE gives, the bytes or the error.
answer() {
    if dd if="$1" bs="$2" count=1 of="$work/out" 2>"$work/err"; then
        head -c 40 "$work/out" | tr -d '\n'
    else
        sed -n 's/^dd: .*: //p' "$work/err"
    fi
}

for size in 4095K 4M 16M; do
    printf 'a buffer of %-5s  /proc/sys/kernel/ostype: %-26s /proc/version: %s\n' "$size" \
        "$(answer /proc/sys/kernel/ostype "$size")" "$(answer /proc/version "$size" | cut -c 1-13)"
done
python3 - <<'PYTHON'
try:
    print("Python:", open("/proc/sys/kernel/ostype", "rb").read(1 << 24))
except OSError as err:
    print("Python:", type(err).__name__, err.errno)
PYTHON

test "$(answer /proc/sys/kernel/ostype 4095K)" = Linux
test "$(LC_ALL=C answer /proc/sys/kernel/ostype 4M)" = "Cannot allocate memory"
test "$(answer /proc/version 16M | cut -c 1-5)" = Linux
echo "as seen"
