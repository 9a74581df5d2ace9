"""Mistakes in the builder, one at a time, and theorem 1 that has to refuse each.

    paging.py --ast, one change--> a mutated module --map_page twice--> every class of every mode

Mistakes are made by rule, so that none is left out because nobody thought of it: every statement of
the builder's functions is left out, every condition turned round, every flag swapped for another,
every field of every format moved.  A survivor has to be shown equivalent: it writes the very same
entries as the builder, class by class, for all modes.  (A branch that page_table_a never takes may
be anything.)

Rules: the source that is changed is the one that ships; a kill carries addresses on which the
mutant, run on numbers through bytes and walker, does wrong.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from types import ModuleType
from typing import Any

from tightrope.handover.designs import CODE_AND_STACK, map_twice
from tightrope.model import Paging
from tightrope.prove.goal import Fate, Killed, Limits, Mutant
from tightrope.prove.theorems.enumerate import (
    BREAKS,
    Filler,
    Wrong,
    counterexample,
    every_class,
    filled,
)
from tightrope.prove.theorems.modes import GEOMETRIES
from tightrope.prove.theorems.opaque import TokenTables, pairs
from tightrope.prove.theorems.tables import lemmas
from tightrope.x86 import paging

SUBJECT = "builder"
FUNCTIONS = ("leaf_bits", "table_bits", "table_at", "map_page")
FLAGS = (
    "PRESENT",
    "WRITABLE",
    "USER",
    "ACCESSED",
    "DIRTY",
    "PAGE_SIZE_BIT",
    "GLOBAL",
    "EXECUTE_DISABLE",
)
LEVELS = ("_PT", "_PD", "_PDPT", "_PML4", "_PML5")
FORMATS = ("I386", "PAE", "X86_64", "LA57", "ADDRESS", "ADDRESS_I386", *LEVELS)

Change = Callable[[ast.Module], None]


def mutants() -> Iterator[Mutant]:
    """Every mistake; names are the line and the change."""
    for name, says, change in changes():
        yield Mutant(subject=SUBJECT, name=name, says=says, kill=partial(kill, name, says, change))


# ------------------------------------------------------------------------------------- changes


def changes() -> Iterator[tuple[str, str, Change]]:
    """(name, in words, what does it to a fresh tree of the builder's source)."""
    tree = _source()
    for number, node in enumerate(ast.walk(tree)):
        where = _function_of(tree, node)
        if where in FUNCTIONS:
            yield from _in_function(number, node, where)
        elif _format_of(tree, node):
            yield from _in_format(number, node, _format_of(tree, node))


def _source() -> ast.Module:
    return ast.parse(inspect.getsource(paging))


def _function_of(tree: ast.Module, node: ast.AST) -> str:
    return next(
        (
            each.name
            for each in tree.body
            if isinstance(each, ast.FunctionDef)
            and any(inner is node for stmt in each.body for inner in ast.walk(stmt))
        ),
        "",
    )


def _format_of(tree: ast.Module, node: ast.AST) -> str:
    for each in tree.body:
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            name = each.targets[0].id
            if name in FORMATS and any(inner is node for inner in ast.walk(each.value)):
                return name
    return ""


def _at(number: int, change: Callable[[Any], None]) -> Change:
    """The change of the node with that number in a fresh tree."""

    def do(tree: ast.Module) -> None:
        change(next(node for n, node in enumerate(ast.walk(tree)) if n == number))

    return do


def _in_function(number: int, node: ast.AST, where: str) -> Iterator[tuple[str, str, Change]]:
    text = ast.unparse(node).splitlines()[0] if isinstance(node, ast.stmt | ast.expr) else ""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Raise) or _is_call(node):
        yield (
            f"{where}-{number}-left-out",
            f"{where}: `{text}` is left out",
            _at(number, _leave_out),
        )
    if isinstance(node, ast.If | ast.IfExp):
        yield (
            f"{where}-{number}-turned-round",
            f"{where}: the condition `{ast.unparse(node.test)}` is turned round",
            _at(number, _turn_round),
        )
    if isinstance(node, ast.Name) and node.id in FLAGS:
        for other in FLAGS:
            if other != node.id:
                yield (
                    f"{where}-{number}-{other.lower()}",
                    f"{where}: {node.id} becomes {other}",
                    _at(number, partial(_rename, other)),
                )
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield (
            f"{where}-{number}-plus-one",
            f"{where}: the number {node.value} becomes {node.value + 1}",
            _at(number, _plus_one),
        )
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in OTHER_NAME:
        other = OTHER_NAME[node.id]
        yield (
            f"{where}-{number}-{other}",
            f"{where}: `{node.id}` becomes `{other}`",
            _at(number, partial(_rename, other)),
        )


OTHER_NAME = {"virt": "phys", "phys": "virt", "below": "table", "table": "root"}
"""Another name that is about, for each address that a function handles."""


def _in_format(number: int, node: ast.AST, name: str) -> Iterator[tuple[str, str, Change]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield (
            f"{name.lower()}-{number}-turned-round",
            f"{name}: {node.value} becomes {not node.value}",
            _at(number, _other_truth),
        )
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        for step in (-1, 1):
            yield (
                f"{name.lower()}-{number}-{'less' if step < 0 else 'more'}",
                f"{name}: {node.value} becomes {node.value + step}",
                _at(number, partial(_step, step)),
            )
    elif isinstance(node, ast.Tuple):
        yield (
            f"{name.lower()}-{number}-without-top",
            f"{name}: the top level is missing",
            _at(number, _without_first),
        )
        for first in range(len(node.elts) - 1):
            yield (
                f"{name.lower()}-{number}-swapped-{first}",
                f"{name}: levels {first} and {first + 1} are swapped",
                _at(number, partial(_swap, first)),
            )


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _leave_out(node: Any) -> None:
    """A statement that does nothing, in its place."""
    new = ast.Pass()
    node.__class__ = ast.Pass
    node.__dict__ = {**new.__dict__, "lineno": node.lineno, "col_offset": node.col_offset}


def _turn_round(node: Any) -> None:
    node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)


def _rename(other: str, node: Any) -> None:
    node.id = other


def _plus_one(node: Any) -> None:
    node.value += 1


def _step(step: int, node: Any) -> None:
    node.value += step


def _other_truth(node: Any) -> None:
    node.value = not node.value


def _without_first(node: Any) -> None:
    del node.elts[0]


def _swap(first: int, node: Any) -> None:
    node.elts[first], node.elts[first + 1] = node.elts[first + 1], node.elts[first]


# ---------------------------------------------------------------------------------------- kill


def mutated(change: Change) -> ModuleType:
    """The builder with one change, and without its own check at import:
    that is not what is tried.
    """
    tree = _source()
    change(tree)
    tree.body = [each for each in tree.body if not isinstance(each, ast.For)]
    ast.fix_missing_locations(tree)
    module = ModuleType("tightrope_mutant")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(tree, "<mutant>", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


def filler_of(module: ModuleType) -> Filler:
    """What `map_twice` would be with this builder."""

    def fill(
        tables: Any, fmt: Any, root: int, virt: int, phys: int, new: Callable[[], int]
    ) -> None:
        for address in (virt, phys):
            module.map_page(tables, fmt, root, address, phys, CODE_AND_STACK, new)

    return fill


def kill(name: str, says: str, change: Change, limits: Limits) -> Killed:
    """Theorem 1 on a mutant, for all modes; else that it writes what the builder writes."""

    def fate(fate: Fate, by: str, evidence: str) -> Killed:
        return Killed(
            subject=SUBJECT, name=name, says=says, fate=fate, by=by, evidence=evidence, seconds=0.0
        )

    module = mutated(change)
    filler = filler_of(module)
    differing = [mode for mode in Paging if not same_entries(filler, mode, module)]
    for mode in differing:
        fmt = as_read(module.FORMATS[mode.value], mode)
        try:
            for _ in every_class(filler, mode, fmt):
                pass
        except Wrong as wrong:
            found = counterexample(filler, mode, wrong, fmt)
            if found is None:
                return fate(Fate.UNDECIDED, "", f"no example on numbers: {wrong.problem}")
            return fate(
                Fate.KILLED,
                f"tables only-v-and-p {mode.value}",
                f"V = {found['V']}, P = {found['P']}: {found['problem']}",
            )
    for mode in Paging:
        for so, problem in lemmas(GEOMETRIES[mode], module.FORMATS[mode.value]):
            if not so:
                return fate(Fate.KILLED, f"tables bits {mode.value}", problem)
    if not differing:
        return fate(Fate.EQUIVALENT, "", "writes the same entries in every class of every mode")
    return fate(
        Fate.SURVIVED, "", f"writes other entries for {differing[0].value}, and nobody minds"
    )


def same_entries(filler: Filler, mode: Paging, module: ModuleType) -> bool:
    """Whether a mutant writes what the builder writes, in every class of a mode."""
    geometry = GEOMETRIES[mode]
    try:
        fmt = as_read(module.FORMATS[mode.value], mode)
        return all(
            _entries(filled(filler, geometry, fmt, virt, phys, geometry.frame_bits)[0]) == right
            for (virt, phys), right in zip(pairs(geometry), _right(mode), strict=True)
        )
    except BREAKS:
        return False


@cache
def _right(mode: Paging) -> tuple[Written, ...]:
    """What the builder writes, in every class of a mode."""
    geometry = GEOMETRIES[mode]
    return tuple(
        _entries(filled(map_twice, geometry, geometry.format, virt, phys, geometry.frame_bits)[0])
        for virt, phys in pairs(geometry)
    )


def as_read(fmt: Any, mode: Paging) -> Any:
    """A mutant's format with the builder's own indices, where it reads every address alike.

    A field that is too wide by a bit that no linear address has is no mistake, and no token knows
    that.
    """
    geometry = GEOMETRIES[mode]
    if not all(so for so, _ in lemmas(geometry, fmt)):
        return fmt
    levels = zip(fmt.levels, geometry.format.levels, strict=True)
    return replace(fmt, levels=tuple(replace(one, index=other.index) for one, other in levels))


Written = dict[tuple[str, int, str], tuple[str, int]]
"""(table, level, index) -> (frame, flags)."""


def _entries(tables: TokenTables) -> Written:
    return {
        (table.name, index.level, index.name): (entry.frame.name, entry.flags)
        for (table, index), entry in tables.entries.items()
    }
