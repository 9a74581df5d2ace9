"""The commands that docs/perform.md has people type, for a guest to follow.

Rules: nothing is asserted here.  A command is what stands behind a prompt (`# `, `here$    `) in a block that is
indented, with the lines that it goes on in; what is written behind it, three blanks away, is a remark.
"""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "perform.md"
PROMPT = re.compile(r"    (#|here\$|there\$|here#) +(.*)")


def typed(heading: str) -> list[tuple[str, str]]:
    """(prompt, command) of all commands below a heading, in order."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f" {heading}\n")
    found: list[tuple[str, str]] = []
    goes_on = False
    for line in re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0].splitlines():
        begins = PROMPT.fullmatch(line)
        if goes_on or (found and found[-1][1].count("'") % 2 and line.startswith("    ")):
            prompt, before = found.pop()
            found.append(
                (prompt, f"{before}{line.strip()}" if goes_on else f"{before}\n{line[4:]}")
            )
        elif begins:
            found.append((begins[1], re.split(r" {3,}", begins[2])[0]))
        else:
            continue
        prompt, command = found.pop()
        goes_on = command.endswith("\\")
        found.append((prompt, command.removesuffix("\\")))
    return found


def commands(heading: str, begin: str = "tightrope ") -> list[str]:
    """Those of them that begin with a word."""
    return [each for _, each in typed(heading) if each.startswith(begin)]
