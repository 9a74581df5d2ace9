"""The cards are kept: each module imports what its package's docstring allows, and nothing else.

    import in the tree  --ast-->  (module, imported)  --card-->  allowed, or a breach

A card names packages of the tree: rooms and other names of the top level, and, dotted, packages inside
its own room.  What lies inside a package is its own, and what lies around it is there for it; a package
beside it has to be named.

Rules: sources are parsed, never imported; imports inside functions and TYPE_CHECKING count as well.
Only a circle is made of imports that run: two nouns may name each other in annotations.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tightrope"
ROOMS = frozenset(
    {
        "image",
        "host",
        "world",
        "plan",
        "handover",
        "machine",
        "check",
        "corpse",
        "record",
        "views",
        "report",
    }
)

OUTSIDERS = {
    "unicorn": ("machine.unicorn",),
    "iced_x86": ("observe", "prove", "participants.linux"),
    "z3": ("prove",),
    "ctypes": (
        "observe.physical",
        "machine",
        "perform.privcmd",
        "perform.linux.calls",
        "perform.linux.digest",
        "record.tracer",
    ),
    "mmap": (
        "kdump.ring",
        "observe.physical",
        "machine",
        "perform.linux.digest",
        "perform.privcmd",
        "vmcore",
        "corpse",
        "cli.files",
        "deeds.sweep",
    ),
    "fcntl": ("machine", "perform.privcmd", "perform.linux.lock"),
    "socket": ("machine",),
    "subprocess": ("kdump.filtering", "machine", "participants.from_file", "record.tracer"),
    "distributed": ("deeds.sweep",),
    "pyarrow": ("report.parquet",),
}
"""Packages from outside that only some modules may import; a name stands for what is below it too."""

CARD = re.compile(r"^\s*May import: ([a-z0-9_., \n]+?)\.?\s*(?:\n\s*\n|\Z)", re.MULTILINE)


def card_in(docstring: str | None) -> frozenset[str] | None:
    """The names on a card, None when the docstring has none."""
    found = CARD.search(docstring or "")
    if found is None:
        return None
    names = {name.strip() for name in found[1].split(",")}
    return frozenset(names - {"nothing"})


def module_name(path: Path, root: Path) -> str:
    """Dotted, below tightrope: `machine/wire.py` is `machine.wire`, the package itself ''."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(source: str) -> ast.Module:
    """A module's tree, which nobody changes: it is looked at by several tests."""
    return ast.parse(source)


@cache
def imports(tree: ast.AST) -> tuple[str, ...]:
    """Every absolute dotted name that a module imports, `from a import b` as `a.b`."""
    return tuple(_imported(ast.walk(tree)))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def is_below(module: str, owner: str) -> bool:
    """`machine.kvm` and `machine.kvm_ports` are kvm's; `machines` is not machine's."""
    return module == owner or module.startswith((f"{owner}.", f"{owner}_"))


def governing_card(module: str, cards: dict[str, frozenset[str]]) -> frozenset[str] | None:
    """The card of the module itself or of the nearest package around it.

    A top-level module without a card (the command line, a deed) has none: None.  The card of
    tightrope itself binds its `__init__.py` alone.
    """
    while module not in cards and "." in module:
        module = module.rpartition(".")[0]
    return cards.get(module)


def cards_of(trees: dict[str, tuple[Path, ast.Module]]) -> dict[str, frozenset[str]]:
    """The cards of packages and of top-level modules; no other module has a say."""
    found: dict[str, frozenset[str]] = {}
    for name, (path, tree) in trees.items():
        card = card_in(ast.get_docstring(tree))
        if card is not None and (path.name == "__init__.py" or "." not in name):
            found[name] = card
    return found


def faults_of_cards(
    trees: dict[str, tuple[Path, ast.Module]], cards: dict[str, frozenset[str]], root: Path
) -> Iterator[str]:
    """Packages without a card, cards that name nothing here, rooms that list rooms."""
    for folder in sorted({path.parent for path, _ in trees.values()}):
        name = module_name(folder / "__init__.py", root)
        if name not in cards:
            yield f"{name or 'tightrope'}: a package without a card"
    for name, card in cards.items():
        here = {module.partition(".")[0] for module in trees} | packages_of(trees)
        for other in sorted(card - here):
            yield f"{name}: its card names {other}, which is not here"
        room = name.partition(".")[0]
        if room in ROOMS:
            for other in sorted(card & ROOMS - {room}):
                yield f"{name}: a room lists the room {other}"


def packages_of(trees: dict[str, tuple[Path, ast.Module]]) -> frozenset[str]:
    """The names of the packages, '' for tightrope itself."""
    return frozenset(name for name, (path, _) in trees.items() if path.name == "__init__.py")


def nearest(name: str, known: Collection[str]) -> str:
    """The longest of some dotted names that `name` is or begins with; '' when there is none."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def faults_inside_rooms(
    trees: dict[str, tuple[Path, ast.Module]], cards: dict[str, frozenset[str]]
) -> Iterator[str]:
    """Imports from one package of a room into one beside it that its card does not name."""
    packages = packages_of(trees)
    for name, (_, tree) in trees.items():
        mine = nearest(name, packages)
        for imported in imports(tree):
            theirs = nearest(imported.removeprefix("tightrope."), packages)
            same_room = bool(mine) and mine.partition(".")[0] == theirs.partition(".")[0]
            own = mine == theirs or mine.startswith(f"{theirs}.") or theirs.startswith(f"{mine}.")
            if same_room and not own and theirs not in cards.get(mine, frozenset()):
                yield f"{name}: imports tightrope.{theirs}, which its card does not allow"


def running(tree: ast.Module) -> Iterator[str]:
    """Like `imports`, without what is imported for annotations alone."""
    nodes = tuple(ast.walk(tree))
    hidden = {
        inner
        for node in nodes
        if isinstance(node, ast.If) and _is_for_annotations(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    return _imported(node for node in nodes if node not in hidden)


def _is_for_annotations(test: ast.expr) -> bool:
    """`TYPE_CHECKING` or `typing.TYPE_CHECKING`."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def circles(root: Path) -> list[list[str]]:
    """Modules under a package root that import one another in a circle, each circle sorted."""
    trees = trees_of(root)
    known = set(trees)
    to = {
        name: {
            nearest(each.removeprefix("tightrope."), known)
            for each in running(tree)
            if each.startswith("tightrope.")
        }
        - {name, ""}
        for name, (_, tree) in trees.items()
    }
    # What nobody imports any more, or what imports nothing, is in no circle: take it away until all is.
    left = set(to)
    while gone := {
        name for name in left if not to[name] & left or not any(name in to[other] for other in left)
    }:
        left -= gone
    rings = {frozenset(_reach(name, to, left) & _reach(name, _turned(to), left)) for name in left}
    return sorted(sorted(ring) for ring in rings if len(ring) > 1)


def _turned(to: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name: {other for other in to if name in to[other]} for name in to}


def _reach(name: str, to: dict[str, set[str]], inside: set[str]) -> set[str]:
    """Everything that can be got to from a module, itself included."""
    found, ahead = {name}, [name]
    while ahead:
        new = (to[ahead.pop()] & inside) - found
        found |= new
        ahead += new
    return found


def faults_of_imports(
    trees: dict[str, tuple[Path, ast.Module]], cards: dict[str, frozenset[str]]
) -> Iterator[str]:
    """Imports that the governing card or the rule about outsiders does not allow."""
    top_level = {name.partition(".")[0] for name in trees if name}
    for name, (_, tree) in trees.items():
        card = governing_card(name, cards)
        for imported in imports(tree):
            package, _, rest = imported.partition(".")
            target = rest.partition(".")[0]
            if not package:
                yield f"{name}: relative import of {imported}"
            elif package == "tightrope":
                foreign = target in top_level and target != name.partition(".")[0]
                if card is not None and foreign and target not in card:
                    yield f"{name}: imports tightrope.{target}, which its card does not allow"
            elif package in OUTSIDERS and not any(is_below(name, o) for o in OUTSIDERS[package]):
                yield f"{name}: may not import {package}"


def trees_of(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Every module under a package root: its file and its tree, by name."""
    return {
        module_name(path, root): (path, parsed(path.read_text(encoding="utf-8")))
        for path in sorted(root.rglob("*.py"))
    }


def breaches(root: Path) -> list[str]:
    """One sentence for each broken card or rule under a package root such as src/tightrope."""
    trees = trees_of(root)
    cards = cards_of(trees)
    return [
        *faults_of_cards(trees, cards, root),
        *faults_of_imports(trees, cards),
        *faults_inside_rooms(trees, cards),
    ]


def test_every_module_keeps_to_its_card() -> None:
    assert breaches(SOURCE) == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circles(SOURCE) == []


# ------------------------------------------------------------------------- the tester, tested

GOOD = {
    "__init__.py": '"""The package.\n\nMay import: nothing\n"""\n',
    "errors.py": '"""Errors."""\n',
    "cli.py": '"""Knows everything."""\nfrom tightrope.image import read\n',
    "image/__init__.py": '"""A room.\n\nMay import: errors\n"""\n',
    "image/read.py": '"""Reads."""\nfrom tightrope import errors\nfrom tightrope.image import elf\n',
    "image/elf.py": '"""ELF."""\nimport struct\nimport numpy\n',
    "machine/__init__.py": '"""A room.\n\nMay import: errors,\nimage_free\n"""\n',
    "machine/unicorn.py": '"""A CPU."""\ndef run() -> None:\n    import unicorn\n',
    "machine/port.py": '"""All machines\' own."""\n',
    "machine/all.py": '"""Makes them."""\nfrom tightrope.machine.bochs import cpu\n',
    "machine/bochs/__init__.py": '"""A machine.\n\nMay import: errors\n"""\n',
    "machine/bochs/cpu.py": '"""A CPU."""\nfrom tightrope.machine import port\n',
    "machine/qemu/__init__.py": '"""A machine.\n\nMay import: errors, machine.bochs\n"""\n',
    "machine/qemu/pc.py": '"""A PC."""\nfrom tightrope.machine.bochs import cpu\n',
    "observe/__init__.py": '"""Sees.\n\nMay import: errors\n"""\n',
    "observe/decode.py": '"""Decodes."""\ndef run() -> None:\n    import iced_x86\n',
    "image_free.py": '"""Not a room.\n\nMay import: errors\n"""\nimport tightrope.errors\n',
}


def tree_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_tree_that_keeps_to_its_cards_has_no_breach(tmp_path: Path) -> None:
    assert breaches(tree_of(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("path", "text", "breach"),
    [
        ("image/elf.py", "import tightrope.machine", "image.elf: imports tightrope.machine"),
        ("image/elf.py", "from tightrope import machine", "image.elf: imports tightrope.machine"),
        ("image/elf.py", "from tightrope.machine import run", "image.elf: imports tightrope.mac"),
        ("image/elf.py", "def f():\n    import tightrope.cli", "image.elf: imports tightrope.cli"),
        (
            "image/elf.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tightrope.cli import main",
            "image.elf: imports tightrope.cli",
        ),
        ("image/elf.py", "from . import read", "image.elf: relative import"),
        ("image/elf.py", "import mmap", "image.elf: may not import mmap"),
        ("image/elf.py", "from ctypes import c_char", "image.elf: may not import ctypes"),
        ("cli.py", "import subprocess", "cli: may not import subprocess"),
        ("machine/unicorn.py", "import z3", "machine.unicorn: may not import z3"),
        ("machine/kvm.py", "import unicorn.x86_const", "machine.kvm: may not import unicorn"),
        ("image_free.py", '"""May import: nothing\n"""\nimport tightrope.errors', "image_free: im"),
        ("__init__.py", '"""May import: nothing\n"""\nimport tightrope.errors', ": imports tight"),
        ("image/__init__.py", '"""No card."""', "image: a package without a card"),
        ("image/deep/__init__.py", '"""No card."""', "image.deep: a package without a card"),
        ("host/profile.py", '"""No package."""', "host: a package without a card"),
        (
            "image/__init__.py",
            '"""May import: errors, machine\n"""',
            "image: a room lists the room",
        ),
        ("image/__init__.py", '"""May import: errors, moon\n"""', "image: its card names moon"),
        (
            "machine/bochs/cpu.py",
            "from tightrope.machine.qemu import pc",
            "machine.bochs.cpu: imports tightrope.machine.qemu, which its card does not allow",
        ),
        (
            "machine/bochs/cpu.py",
            "import tightrope.machine.qemu.pc",
            "machine.bochs.cpu: imports tig",
        ),
        (
            "machine/qemu/__init__.py",
            '"""May import: errors, machine.moon, machine.bochs\n"""',
            "machine.qemu: its card names machine.moon",
        ),
    ],
)
def test_a_breach_is_named(tmp_path: Path, path: str, text: str, breach: str) -> None:
    (found,) = breaches(tree_of(tmp_path, GOOD | {path: text}))
    assert found.startswith(breach)


@given(st.sets(st.sampled_from(["abi", "errors", "memory", "model", "x86"]), min_size=1))
def test_a_card_reads_back_as_it_was_written(names: set[str]) -> None:
    line = "May import: " + ", ".join(sorted(names))
    for docstring in (line, f"Rules.\n\n{line}\n", f"{line}\n\nMore: prose, with commas"):
        assert card_in(docstring) == frozenset(names)
    assert card_in("May import: nothing") == frozenset()
    assert card_in("It may import whatever it likes.") is None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, []),
        (
            {
                "image/elf.py": "from tightrope.image.read import x",
                "image/read.py": "import struct",
            },
            [],
        ),
        (
            {"image/elf.py": "from tightrope.image import read"},
            [["image.elf", "image.read"]],
        ),
        (
            {
                "image/elf.py": "def f():\n    from tightrope.image.note import x",
                "image/note.py": "import tightrope.image.read",
            },
            [["image.elf", "image.note", "image.read"]],
        ),
        (
            {
                "image/elf.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
                "    from tightrope.image import read"
            },
            [],
        ),
        (
            {
                "image/elf.py": "import tightrope.image.read",
                "machine/port.py": "from tightrope.machine.bochs.cpu import x",
            },
            [["image.elf", "image.read"], ["machine.bochs.cpu", "machine.port"]],
        ),
    ],
)
def test_a_circle_is_named_and_a_way_to_one_is_not(
    tmp_path: Path, files: dict[str, str], found: list[list[str]]
) -> None:
    assert circles(tree_of(tmp_path, GOOD | files)) == found


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_whatever_imports_only_what_comes_before_it_has_no_circle(
    arrows: list[tuple[int, int]],
) -> None:
    down = {(a, b) for a, b in arrows if a > b}
    with tempfile.TemporaryDirectory() as folder:
        root = tree_of(Path(folder), {f"m{n}.py": "" for n in range(7)})
        for a, b in down:
            with open(root / f"m{a}.py", "a", encoding="utf-8") as file:
                file.write(f"import tightrope.m{b}\n")
        assert circles(root) == []
        for a, b in down:
            with open(root / f"m{b}.py", "a", encoding="utf-8") as file:
                file.write(f"import tightrope.m{a}\n")
        assert {name for ring in circles(root) for name in ring} == {
            f"m{n}" for arrow in down for n in arrow
        }
