"""Debian's root of kdump-tools with `tightrope` and contrib's hooks in it: what a crash kernel boots into.

    root.ext4 of scripts/build-kdump + this Python's standard library as far as a capture loads it
                                     + src/tightrope as far as a capture loads it, contrib's hooks
                                     + an init that runs them one after the other

Rules: nothing is asserted here.  No package is in it: a Python and its standard library are enough.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "src"
CONTRIB = REPOSITORY / "contrib"
BY_HAND, UTILS = "/var/crash/by-hand", "/var/crash/utils"
INIT = f"""#!/bin/sh
export PATH=/stand-in:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec </dev/console >/dev/console 2>&1
mount -o remount,rw /
mountpoint -q /proc || mount -t proc proc /proc
export PYTHONDONTWRITEBYTECODE=1
echo "tightrope: by hand, twice ended and gone on with"
for signal in TERM HUP none; do
    tightrope kdump capture /proc/vmcore -o {BY_HAND} --anyway &
    if [ $signal != none ]; then
        before=$(cat {BY_HAND}/vmcore.part.json 2>/dev/null)
        until [ -s {BY_HAND}/vmcore.part.json ] && [ "$(cat {BY_HAND}/vmcore.part.json)" != "$before" ]; do
            kill -0 $! || break
            sleep 0.1
        done
        kill -$signal $!
    fi
    wait $!
    echo "tightrope: ended by $signal: $?"
done
(cd {BY_HAND} && sha256sum -c vmcore.sha256) && rm {BY_HAND}/vmcore
echo "tightrope: kdump-utils' core_collector"
mkdir -p {UTILS}
TIGHTROPE_CAPTURE='--filter 31' tightrope-collector /proc/vmcore {UTILS}/vmcore-incomplete
echo "tightrope: collector $?"
echo "tightrope: kdump-tools' unit"
export TIGHTROPE_CAPTURE=--anyway
$(sed -n 's/^ExecStart=\\(.\\)/\\1/p' /etc/systemd/system/kdump-tools-dump.service.d/tightrope.conf)
echo "tightrope: unit $?"
sync
busybox reboot -f
"""
LOADED = """
import contextlib, io, sys, tempfile
sys.path[:] = [each for each in sys.path if "site-packages" not in each]
sys.path[:0] = [{source!r}]
from tightrope.cli import main
with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    assert main(["kdump", "capture", {core!r}, "-o", out]) == 0
    main(["kdump", "capture", {core!r}, "-o", out])
import encodings.idna, encodings.ascii, encodings.latin_1, traceback
files = {{getattr(each, "__file__", None) for each in sys.modules.values()}}
for line in open("/proc/self/maps"):
    if line.split()[1][2] == "x" and "/" in line:
        files.add(line[line.index("/"):].strip())
print(sorted(each for each in files if each))
"""
COMMAND = """#!{python} -IS
import sys
sys.path[:0] = [{source!r}]
sys.argv[0] = "tightrope"
from tightrope.cli import main
sys.exit(main())
"""


def root(plain: Path, core: Path, folder: Path) -> Path:
    """The disk; `core` is a small core of a kernel with a log, `folder` an empty one."""
    image, tree = folder / "root.ext4", folder / "tree"
    shutil.copyfile(plain, image)
    tree.mkdir()
    commands = list(_written(dict(_files(core)), tree))
    script = folder / "commands"
    script.write_text("\n".join(commands) + "\n")
    debugfs = shutil.which("debugfs") or "/usr/sbin/debugfs"
    done = subprocess.run(
        [debugfs, "-w", "-f", str(script), str(image)], check=True, capture_output=True, text=True
    )
    said = done.stderr.splitlines()[1:]  # its version
    if wrong := [each for each in said if "already exists" not in each]:
        raise AssertionError(wrong[:5])
    return image


def _files(core: Path) -> Iterator[tuple[str, Path | str]]:
    """Path in the root -> a file here, or the text of a program."""
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    program = LOADED.format(source=str(SOURCE), core=str(core))
    run = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    yield from ((each, Path(each)) for each in ast.literal_eval(run.stdout.splitlines()[-1]))
    yield str(python), python
    yield "/usr/local/bin/tightrope", COMMAND.format(python=python, source=str(SOURCE))
    yield "/usr/local/sbin/tightrope-save", CONTRIB / "kdump-tools" / "tightrope-save"
    yield "/usr/local/sbin/tightrope-collector", CONTRIB / "kdump-utils" / "tightrope-collector"
    unit = "/etc/systemd/system/kdump-tools-dump.service.d/tightrope.conf"
    yield unit, CONTRIB / "kdump-tools" / "tightrope.conf"
    yield "/stand-in/reboot", "#!/bin/sh\necho 'tightrope: would restart'\n"
    yield "/usr/sbin/init", INIT


def _written(files: dict[str, Path | str], tree: Path) -> Iterator[str]:
    """What debugfs is told, with each text as a file in `tree`."""
    made: set[str] = set()
    for number, (path, what) in enumerate(sorted(files.items())):
        # The root has /lib, /lib64, /bin and /sbin as links into /usr.
        where = f"/usr{path}" if path.split("/")[1] in {"lib", "lib64", "bin", "sbin"} else path
        for each in reversed(Path(where).parents):
            if str(each) not in {"/", *made}:
                made.add(str(each))
                yield f"mkdir {each}"
        if isinstance(what, str):
            file = tree / str(number)
            file.write_text(what)
            file.chmod(0o755)
        else:
            file = what
        if where == "/usr/sbin/init" or isinstance(what, str):
            yield f"rm {where}" if where == "/usr/sbin/init" else f"mkdir {Path(where).parent}"
        yield f"write {file} {where}"
