"""What a crash kernel's userspace does in a test: it captures, is interrupted twice, and goes on by the hook.

    kdump-tools' initrd -> the ext4 root -> INIT here, in the place of scripts/build-kdump's
        capture, ended by SIGINT; again, ended by SIGTERM; then contrib's tightrope-save: it resumes, and is through
        tightrope-save again, with less room than the dump has: kdump-tools' own way is taken, and it restarts

Rules: nothing is asserted here.  `tightrope` runs in a root of its own, which has a Python and no numpy.
"""

from __future__ import annotations

from tests.conftest import REPOSITORY
from tests.perform import dom0

SAVE = REPOSITORY / "contrib" / "kdump-tools" / "tightrope-save"
STAMP = "202611301700"
"""What `date` says to the hook, which names its folder by it."""
FOLDER = f"/var/saved/{STAMP}"
INIT = f"""#!/bin/sh
export PATH=/own:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec </dev/console >/dev/console 2>&1
mount -o remount,rw /
mountpoint -q /proc || mount -t proc proc /proc
echo "tightrope: kdump-tools-dump.service $(uname -r)"
mkdir -p /own /python
cd /python
busybox cpio -id < /tightrope.cpio
mkdir -p /var/saved var/saved
for each in proc dev var/saved; do mount --bind /$each $each; done
cd /
mv /tightrope-command /own/tightrope
printf '#!/bin/sh\\necho {STAMP}\\n' > /own/date
printf '#!/bin/sh\\n' > /own/reboot
chmod 755 /own/date /own/reboot
journal={FOLDER}/vmcore.part.json
ended_by() {{
    cp $journal /last 2>/dev/null
    (until [ -s $journal ] && ! cmp -s $journal /last; do sleep 1; done; kill -$1 $(cat /capture.pid)) &
    tightrope kdump capture /proc/vmcore -o {FOLDER} --anyway
    echo "tightrope: capture ended with $? and left" {FOLDER}/*
    kill $! 2>/dev/null
}}
ended_by INT
ended_by TERM
echo KDUMP_COREDIR=/var/saved > /config
export TIGHTROPE_CAPTURE=--anyway KDUMP_CONFIG=/config
sh /tightrope-save
echo "tightrope: hook ended with $?"
rm /own/date /own/reboot
unset TIGHTROPE_CAPTURE KDUMP_CONFIG
sh /tightrope-save
busybox poweroff -f
"""
COMMAND = """#!/bin/sh
echo $$ > /capture.pid
exec chroot /python /bin/alone /bin/tightrope "$@"
"""


def files() -> dict[str, bytes]:
    """Programs by their paths on the crash kernel's root."""
    return {
        "/usr/sbin/init": INIT.encode(),
        "/tightrope.cpio": dom0.initramfs(),
        "/tightrope-command": COMMAND.encode(),
        "/tightrope-save": SAVE.read_bytes(),
    }
