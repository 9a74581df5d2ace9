"""The entry stub's theorem notices when any of its instructions is gone."""

from __future__ import annotations

import pytest

from tightrope.prove.code import stubs
from tightrope.prove.code.contract import Contract
from tightrope.prove.code.mutations import Mutation, mutations
from tightrope.prove.code.semantics import Refused

DATA, SYMBOLS = stubs.shipped()
CHANGED = [
    mutation
    for mutation in mutations(DATA, SYMBOLS["gdt"], 64)
    if mutation.kind in ("NOP out", "wrong register")
][::3]


def test_the_shipped_stub_has_no_failure() -> None:
    count, failure = stubs.first_failure(Contract(64, None), DATA, SYMBOLS, 20.0)
    assert (count > 50, failure) == (True, None)


@pytest.mark.parametrize("mutation", CHANGED, ids=lambda mutation: mutation.says)
def test_a_changed_stub_fails_or_is_refused(mutation: Mutation) -> None:
    try:
        _, failure = stubs.first_failure(Contract(64, None), mutation.data, SYMBOLS, 20.0)
    except Refused:
        return
    assert failure is not None
    assert failure.model is not None
