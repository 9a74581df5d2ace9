#!/usr/bin/env bash
# `kexec -e` takes every network interface down before it asks the kernel for the jump, so that one that
# is refused leaves the machine up and cut off.
#
# Guess before it was tried: kexec -e asks the kernel first, and a caller without the right, or without a
# kernel loaded, gets an error and nothing else.
# Seen: with kexec-tools 2.0.25 "kexec failed: Operation not permitted", status 255, and all interfaces but lo
# are down, their routes gone; -x (--no-ifdown) leaves them.  kexec(8) tells -x, and nothing of the order.
#
# Needs: Debian bookworm's package lists, root (for a network namespace of its own), unshare, capsh, ip.
# Exits 1 when this changes.
set -euo pipefail
package=kexec-tools version=1:2.0.25-3+deb12u3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download "$package=$version" >/dev/null
dpkg-deb -x "$package"_*.deb root
root/sbin/kexec --version

state() {  # OPTION...: the interface after a kexec -e that has no right to jump
    unshare --net bash -c '
        ip link add left type veth peer name right
        ip link set left up && ip link set right up
        capsh --drop=cap_sys_boot -- -c "root/sbin/kexec -e $*" >&2 || true
        ip -brief link show left | { read -r _ state _; echo "$state"; }' sh "$@"
}

status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
expect "an interface after a kexec -e that was refused" DOWN "$(state)"
expect "after kexec -e -x" UP "$(state -x)"
exit "$status"
