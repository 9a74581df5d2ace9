"""`host example` and `host xen`: whatever is asked, what is printed can be read, or it is one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.host.test_xen_file import FACTS
from tightrope import host
from tightrope.cli import main
from tightrope.errors import HostError
from tightrope.memory import Extent
from tightrope.model import Paging


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--crash", "0x1000+0x0"], "'0x0' is not a size of memory"),
        (["--crash=-5+3"], "'-5+3' is not a stretch of memory"),
        (["--crash", "0x1000"], "'0x1000' is not START+SIZE"),
        (["--crash", "x+1"], "'x' is not a number"),
        (["--crash", f"0x1000+{'9' * 5000}"], f"'{'9' * 40}...' is not a number"),
        (["--crash", f"0x1000+0x{'f' * 400}"], "is not a size of memory"),
        (["--crash", "0x33000001+0x1000"], "crash_region.start: 0x33000001 is not a multiple"),
        (["--crash", "0xf0000000+0x1000"], "crash_region: [0xf0000000, 0xf0001000) is not all RAM"),
        (["--crash", "0x2e200000+0x200000"], "overlaps the old kernel itself"),
        (["--xen", "v2", "--crash", "0x400000+0x200000"], "overlaps the old kernel itself"),
        (["--split", "9" * 5000], f"'{'9' * 40}...' is not a number"),
        (["--mode", "i386", "--split=-0x400000"], "is not a memory split"),
        (["--xen=--"], "argument --xen: expected a value, found '--'"),
        (["--mode=--"], "argument --mode: expected a value, found '--'"),
        (["--pc", "9" * 20], "is not between 256 and 3583"),
    ],
)
def test_what_cannot_be_an_example_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "example", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    line = err.splitlines()[0]
    assert line.startswith("tightrope: ")
    assert says in line
    assert len(line) < 300


@pytest.mark.parametrize(
    "more", [(), ("--mode", "pae"), ("--mode", "i386"), ("--xen", "v2"), ("--pc", "512")]
)
def test_a_crash_region_s_size_alone_is_put_where_there_is_room(
    more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "example", "--crash", "128M", *more]) == 0
    old = host.read(capsys.readouterr().out, "an example")
    assert old.crash_region is not None
    assert old.crash_region.size == 128 << 20
    narrow = more[:1] == ("--mode",)  # a 32-bit Linux reserves below 512 MiB
    assert (old.crash_region.end <= 512 << 20) == (narrow or "512" in more)
    assert main(["host", "example", "--crash", "64G", *more]) == 2
    below = "512 MiB" if narrow else "4 GiB"
    assert f"no free RAM below {below} for a crash region" in capsys.readouterr().err


@given(
    paging=st.sampled_from(Paging),
    start=st.integers(0, 1 << 33).map(lambda at: at & -4096),
    pages=st.integers(1, 1 << 18),
)
def test_an_example_with_any_crash_region_can_be_read_or_is_refused(
    paging: Paging, start: int, pages: int
) -> None:
    region = Extent.sized(start, pages * 4096)
    try:
        text = host.example(paging, crash=region)
    except HostError:
        return
    assert host.read(text, "example").crash_region == region


NUMBER = st.integers(-1, 1 << 65) | st.integers(0, 1 << 32) | st.sampled_from([0, 1, 4096])
EXTENT = st.fixed_dictionaries({"start": NUMBER, "size": NUMBER})
ANY = st.none() | st.booleans() | NUMBER | st.text(max_size=6) | st.lists(NUMBER, max_size=2)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    changed=st.dictionaries(
        st.sampled_from(sorted(FACTS)),
        ANY
        | EXTENT
        | st.lists(EXTENT, max_size=3)
        | st.lists(
            st.fixed_dictionaries({"start": NUMBER, "size": NUMBER, "type": NUMBER}), max_size=4
        )
        | st.sampled_from(['4.17"\nfoo = "', "4.17", "4.20-unstable"]),
        max_size=3,
    )
)
def test_what_host_xen_prints_can_be_read(changed: dict[str, object]) -> None:
    facts = json.loads(json.dumps({**FACTS, **changed}))
    error: HostError | None = None
    try:
        assert host.read(host.xen_file(facts, "facts"), "what was printed").xen is not None
    except HostError as err:
        error = err
    if error is not None:
        assert error.source.startswith("facts")
        assert str(error).isprintable()


def test_a_quote_in_the_version_is_no_second_line() -> None:
    with pytest.raises(HostError, match=r"^facts: version: expected printable text on one line$"):
        host.xen_file({**FACTS, "version": '4.17"\nfixmap = 1\n#'}, "facts")
    with pytest.raises(HostError, match=r"version: '4.17\"' is not MAJOR.MINOR$"):
        host.xen_file({**FACTS, "version": '4.17"'}, "facts")
