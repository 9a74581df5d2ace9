"""The bisect of docs/old-kernels.md, word for word, over builds of a kernel of which some copy a word too few.

    a commit = which word its relocate_kernel has; `make` puts the image of that commit where Linux's own does

Rules: the history is made here; git, the shell and `tightrope` are the real ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tests.makers.bzimage import bzimage
from tightrope import image

PAGE, SHORT, NONE = "b900020000", "b9ff010000", ""
"""How many words a page has, as relocate_kernel says it; one less; a commit that does not build."""
HISTORY = (PAGE, PAGE, NONE, PAGE, SHORT, NONE, SHORT, SHORT)
FIRST_BAD = 4
MAKE = """#!{python}
import sys
from pathlib import Path

word = bytes.fromhex(Path("word").read_text())
if not word:
    sys.exit(2)
place = Path("arch/x86/boot/bzImage")
place.parent.mkdir(parents=True, exist_ok=True)
place.write_bytes(Path({kernel!r}).read_bytes().replace(bytes.fromhex({page!r}), word))
"""


def example() -> str:
    """The commands that the docs have, whose `make` leaves out what does not build."""
    text = (REPOSITORY / "docs/old-kernels.md").read_text(encoding="utf-8")
    found = [each[1] for each in re.finditer(r"```\n(.*?)```", text, re.S)]
    block = next(each for each in found if "git bisect" in each)
    assert "make -j8 bzImage || exit 125" in block
    return block


def test_the_bisect_of_the_docs_finds_the_first_bad_build(tmp_path: Path) -> None:
    source = debian_kernel("cloud-amd64")
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(image.unpack(image.read(source.read_bytes(), source.name)))
    assert bytes.fromhex(PAGE) in kernel.read_bytes()
    (tmp_path / "good").write_bytes(bzimage())
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "make").write_text(MAKE.format(python=sys.executable, kernel=str(kernel), page=PAGE))
    (tools / "make").chmod(0o755)
    (tools / "tightrope").write_text(f'#!/bin/sh\nexec {sys.executable} -m tightrope "$@"\n')
    (tools / "tightrope").chmod(0o755)
    tree = tmp_path / "linux"
    tree.mkdir()
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "LC_ALL": "C",
        "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip

    def run(command: str) -> str:
        try:
            done = subprocess.run(
                ["sh", "-ec", command], cwd=tree, env=environment, check=True, capture_output=True, text=True
            )  # fmt: skip
        except FileNotFoundError:
            lacking("no git here: run scripts/system-packages")
        except subprocess.CalledProcessError as err:
            raise AssertionError(f"{err.stdout}\n{err.stderr}") from err
        return done.stdout

    run("git init -q . && echo arch > .gitignore")
    for number, word in enumerate(HISTORY):
        (tree / "word").write_text(word)
        (tree / "number").write_text(str(number))
        run(f"git add -A && git commit -qm 'build {number}'")
    run(f"git tag v6.12 HEAD~{len(HISTORY) - 1} && git tag v7.3")
    said = run(example().replace("/boot/vmlinuz-known-good", str(tmp_path / "good")))
    assert "is the first bad commit" in said, said
    assert run("git show -s --format=%s refs/bisect/bad").strip() == f"build {FIRST_BAD}"
