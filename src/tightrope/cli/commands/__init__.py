"""The commands, one file each, in the order of `--help`; a command line imports its own alone.

    rehearse     `rehearse`: does a handover hold
    inspect      `inspect`: what a kernel image is
    plan         `plan`: where every byte would go
    tables       `tables`: what a handover's page tables map
    compare      `compare`: which rival designs hold on one host
    matrix       `matrix`: which modes and splits hold
    pairs        `pairs`: which old kernel's code gets into which new one
    sweep        `sweep`: which of many hosts hold
    agree        `agree`: do the machines agree
    host         `host`: what an old kernel's machine is
    pgd          `pgd`: are a crashed kernel's page tables whole
    dump         `dump`: what a dead kernel says
    kdump        `kdump`: does a crash kernel work; and what is done in one
    prove        `prove`: what holds for every memory map
    record       `record`: what a command would load
    watch        `watch`: the next kexec of a running guest
    explain      `explain`: why a kexec failed, by its log
    load         `load`: load it here
    loaded       `exec`, `unload`, `status`, `refusals`: what is loaded here
    perform      `perform`: do here what was rehearsed
    rules        `rules`: what every rehearsal is checked for
    glossary     `glossary`: what a word means
    doctor       `doctor`: what this computer has
    contracts    `contracts`: what relocation code is held to
    schema       `schema`: the shape of what `--json` prints
    completion   `completion`: what a shell completes
    man          `man`: the man pages

Rules: a file has a command's arguments beside the function that does it: one call of a deed, one
report, one exit status.  Packages are imported inside the function that needs them.

May import: abi, check, choices, deeds, errors, handover, host, image, kdump, memory, model,
participants, perform, plan, printk, prove, record, report, sabotage, shipped, views, vmcore
"""

from __future__ import annotations

from importlib import import_module

from tightrope.cli.command import COMMANDS, Command

FILES = {
    "rehearse": ("rehearse",),
    "inspect": ("inspect",),
    "plan": ("plan",),
    "tables": ("tables",),
    "compare": ("compare",),
    "matrix": ("matrix",),
    "pairs": ("pairs",),
    "sweep": ("sweep",),
    "agree": ("agree",),
    "host": ("host",),
    "pgd": ("pgd",),
    "dump": ("dump",),
    "kdump": ("kdump",),
    "prove": ("prove",),
    "record": ("record",),
    "watch": ("watch",),
    "explain": ("explain",),
    "load": ("load",),
    "loaded": ("exec", "unload", "status", "refusals"),
    "perform": ("perform",),
    "rules": ("rules",),
    "glossary": ("glossary",),
    "doctor": ("doctor",),
    "contracts": ("contracts",),
    "schema": ("schema",),
    "completion": ("completion",),
    "man": ("man",),
}
"""A file of this package -> the first words of the commands in it; in the order of `--help`."""


def known(word: str | None = None) -> tuple[Command, ...]:
    """The commands whose first word this is, all of them where it is nobody's, in the order of
    `--help`.

    An initramfs on an emulated CPU waits a second for every few files that it does not need.
    """
    files = [name for name, words in FILES.items() if word in words] or list(FILES)
    modules = {import_module(f"{__name__}.{name}").__name__: n for n, name in enumerate(files)}
    last = len(files)
    asked = (
        COMMANDS.values()
        if last == len(FILES)
        else (e for e in COMMANDS.values() if e.name.split()[0] == word)
    )
    return tuple(sorted(asked, key=lambda each: modules.get(each.run.__module__, last)))
