"""What `contrib/capture.py` does on a machine where nothing is installed, once it has read its
files.

    ssh HOST python3 - < contrib/capture.py > HOST.toml

The files are printed as they are and become a host where Tightrope is (`host.collected`): a newer
Tightrope may know more of the same machine.

Rules: like `tree`, whose functions it goes with, it runs on Python 3.6 once its annotations are
gone: the standard library alone, nothing written but to its output.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys

from tightrope.host.capture.sources import SYMBOLS
from tightrope.host.capture.tree import Files, read_tree

MARK = (
    "# The files of a machine, collected for Tightrope: `tightrope host check` says what they tell."
)
"""The first line."""
KALLSYMS = "/proc/kallsyms"


def printed(files: Files) -> str:
    """The files as TOML, those of them that were there; of the symbols only what is asked for."""
    lines = [MARK, "", "[files]"]
    failed = ["", "[errors]"]
    for path in sorted(files):
        got = files[path]
        if isinstance(got, OSError):
            failed.append(f"{json.dumps(path)} = {got.errno or errno.EIO}")
            continue
        if path == KALLSYMS:
            names = "|".join(SYMBOLS)
            got = "".join(re.findall(rf"^\S+ \S (?:{names})\n", got, re.MULTILINE))
        text = json.dumps(got).replace("\x7f", "\\u007f")  # TOML's only other rule
        lines.append(f"{json.dumps(path)} = {text}")
    return "\n".join([*lines, *failed]) + "\n"


def main() -> None:
    """Print this machine's files."""
    sys.stdout.write(printed(read_tree()))
    if os.geteuid() != 0:
        sys.stderr.write("capture: not root: addresses are hidden, and will be assumed\n")
