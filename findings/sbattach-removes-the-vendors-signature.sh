#!/usr/bin/env bash
# `sbattach --remove` takes an image's first signature off, the vendor's, and leaves the one that was added.
#
# Guess before it was tried: of an image signed twice --remove takes off what its manual says, the signature table, as
# osslsigncode's remove-signature does, or at least the signature that was added last.
# Seen with sbsigntool 0.9.4 (0.9.5 of forky too, 2026-12-01) and Debian's signed 6.1.192, signed again with sbsign
# ("adding additional signature"): after --remove one signature is left, the own one, status 0, nothing said.  --detach
# writes only the first one to its file.  The second --remove takes the rest.  (--signum chooses one; "defaults to
# first".)  What --detach wrote can be attached again.
#
# What it costs: who undoes a trial signature this way has a kernel or a UKI without the vendor's, which firmware and
# kexec's signature check refuse where only the vendor's key is known; and --remove works in place.
#
# Needs: Debian bookworm's package lists, openssl, python3; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download linux-image-6.1.0-57-cloud-amd64=6.1.192-3 \
    sbsigntool=0.9.4-3.1 osslsigncode=2.5-4 libssl3 libuuid1 libcurl4 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
tool() {  # NAME ARGUMENT...
    LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu "root/usr/bin/$1" "${@:2}"
}
signers() {  # IMAGE: the names that signed it, in order
    { tool sbverify --list "$1" 2>/dev/null || true; } | sed -n 's/^ - subject: .*CN=//p' | paste -sd'|'
}
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -subj "/CN=a trial" -days 2 2>/dev/null
cp root/boot/vmlinuz-* kernel
vendor="Debian Secure Boot Signer 2022 - linux"
tool sbattach --version
expect "the kernel" "$vendor" "$(signers kernel)"
tool sbsign --key key --cert certificate --output twice kernel 2>said
expect "sbsign says" "Image was already signed; adding additional signature" "$(cat said)"
expect "signed again" "$vendor|a trial" "$(signers twice)"

tool sbattach --detach detached twice
expect "--detach wrote, bytes" "$(python3 -c '
import struct
data = open("kernel", "rb").read()
(at,) = struct.unpack_from("<I", data, 0x40 + 24 + 112 + 32)
print(struct.unpack_from("<I", data, at)[0] - 8)')" "$(stat -c %s detached)"
cp twice once
code=0
tool sbattach --remove once >said 2>&1 || code=$?
expect "--remove" "status 0, says " "status $code, says $(cat said)"
expect "what is left" "a trial" "$(signers once)"
tool sbattach --remove once
expect "after a second --remove" "" "$(signers once)"
tool sbattach --attach detached once 2>/dev/null
expect "--attach of what was detached" "$vendor" "$(signers once)"
tool osslsigncode remove-signature -in twice -out none >/dev/null
expect "osslsigncode remove-signature" "" "$(signers none)"
exit $status
