"""handover.build: the tables map what they should and nothing else, from frames that were set aside.

Tables are read through the survey and the walker, which share nothing with the builder.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.makers.hosts import GIB, MIB, PAGE, make_host, plans, read_image, small_host, table_b
from tightrope import handover, participants, routines
from tightrope import world as world_room
from tightrope.errors import BadInput
from tightrope.memory import Extent, Virt, union
from tightrope.model import Code, Handover, Host, Plan, Tables, World, with_code
from tightrope.plan import Request, prepare
from tightrope.x86.survey import Mappings, survey
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

CODE = routines.read(routines.RELOCATE_X86_64)
FEW = settings(max_examples=40)


def build(plan: Plan, code: Code = CODE, world: World | None = None) -> Handover:
    chain = with_code(participants.chain(plan, participants.OURS), code)
    return handover.build(plan, world or world_room.lay(plan.host, code), chain)


def mmu(built: Handover, tables: Tables) -> Mmu:
    registers = built.registers
    return Mmu(
        cr0=registers.cr0,
        cr3=tables.root,
        cr4=registers.cr4,
        efer=registers.efer,
        physical_bits=built.host.cpu.physical_bits,
        gbpages=built.host.cpu.gbpages,
    )


def mapped(built: Handover, tables: Tables) -> Mappings:
    found = survey(tables.pages.get, mmu(built, tables))
    assert found.lost == ()
    return found


def translate(built: Handover, tables: Tables, virt: int, access: Access) -> Translated | Refused:
    def read(at: int, size: int) -> int | None:
        page = tables.pages.get(at & -PAGE)
        return None if page is None else int.from_bytes(page[at % PAGE :][:size], "little")

    return walk(read, mmu(built, tables), virt, access)


# ---------------------------------------------------------------------------------- page_table_a


@FEW
@given(plan=plans())
def test_page_table_a_maps_v_and_p_to_the_control_page_and_nothing_else(plan: Plan) -> None:
    built = build(plan)
    found = mapped(built, built.page_table_a)
    assert set(found.virt.tolist()) == {plan.relocation, plan.control_page}
    assert set(found.phys.tolist()) == {plan.control_page}
    assert found.size.tolist() == [PAGE, PAGE]
    assert found.writable.all()
    assert found.executable.all()
    assert not found.user.any()
    assert not found.is_global.any()


@FEW
@given(plan=plans())
def test_the_walker_never_has_to_write_into_a_table(plan: Plan) -> None:
    built = build(plan)
    wanted = [(built.page_table_a, plan.relocation), (built.page_table_a, plan.control_page)]
    wanted += [(table_b(built), each.extent.start) for each in plan.identity]
    wanted += [(table_b(built), each.extent.end - 1) for each in plan.identity]
    for tables, virt in wanted:
        for access in Access:
            found = translate(built, tables, virt, access)
            assert isinstance(found, Translated)
            assert not found.sets_accessed


# ---------------------------------------------------------------------------------- page_table_b


@FEW
@given(plan=plans())
def test_page_table_b_maps_what_the_plan_says_each_address_to_itself(plan: Plan) -> None:
    built = build(plan)
    found = mapped(built, table_b(built))
    assert found.virt.tolist() == found.phys.tolist()
    assert found.physical() == union(each.extent for each in plan.identity)
    assert int(found.size.sum()) == sum(each.size for each in found.physical())
    assert found.writable.all()
    assert found.executable.all()
    assert not found.user.any()
    assert not found.is_global.any()


def largest_pages(extent: Extent, sizes: list[int]) -> list[int]:
    """Page sizes that cover an extent with the fewest pages, by brute force from the start on."""
    out, at = [], extent.start
    while at < extent.end:
        size = max(s for s in sizes if at % s == 0 and at + s <= extent.end)
        out.append(size)
        at += size
    return out


@FEW
@given(plan=plans())
def test_page_table_b_uses_the_largest_pages_that_fit_inside(plan: Plan) -> None:
    built = build(plan)
    found = mapped(built, table_b(built))
    sizes = [PAGE, 2 * MIB] + ([GIB] if plan.host.cpu.gbpages else [])
    expected = [
        size
        for extent in union(each.extent for each in plan.identity)
        for size in largest_pages(extent, sizes)
    ]
    assert sorted(found.size.tolist()) == sorted(expected)


@pytest.mark.parametrize("gbpages", [True, False])
def test_a_kernel_of_a_gib_is_mapped_with_a_gib_page_where_the_cpu_has_them(gbpages: bool) -> None:
    roomy = make_host(
        [Extent(0, 0x9FC00), Extent(MIB, 3 * GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
        gbpages=gbpages,
    )
    image = read_image(pref_address=GIB, init_size=GIB)
    built = build(prepare(image, roomy, Request()))
    sizes = mapped(built, table_b(built)).size.tolist()
    assert sizes.count(GIB) == (1 if gbpages else 0)


# ---------------------------------------------------------------------------------------- frames


@FEW
@given(plan=plans())
def test_every_table_is_in_a_frame_that_was_set_aside_and_none_is_used_twice(plan: Plan) -> None:
    built = build(plan)
    a, b = set(built.page_table_a.pages), set(table_b(built).pages)
    assert not a & b
    assert built.page_table_a.root in a
    assert table_b(built).root in b
    assert {frame // PAGE for frame in a | b} <= {f for each in plan.spare for f in each.pages}
    assert all(len(page) == PAGE for page in built.page_table_a.pages.values())


@FEW
@given(plan=plans())
def test_no_two_pieces_of_the_handover_or_of_the_old_kernel_share_a_byte(plan: Plan) -> None:
    built = build(plan)
    places = sorted(piece.extent for piece in (*built.pieces, *built.world.pieces))
    assert sum(each.size for each in places) == sum(each.size for each in union(places))


# ------------------------------------------------------------------------------------ the pieces


def piece_bytes(built: Handover, what: str) -> dict[int, bytes]:
    return {piece.phys: bytes(piece.data) for piece in built.pieces if piece.what == what}


@FEW
@given(plan=plans())
def test_the_pieces_are_the_control_page_the_tables_and_the_list(plan: Plan) -> None:
    built = build(plan)
    control = piece_bytes(built, "the control page")
    (code_at_v,) = [p for p in built.world.pieces if p.phys == built.world.code_phys]
    assert control == {plan.control_page: bytes(code_at_v.data)}
    assert len(control[plan.control_page]) == PAGE
    for what, tables in (
        ("page_table_a", built.page_table_a),
        ("page_table_b", table_b(built)),
    ):
        assert piece_bytes(built, what) == {
            frame: bytes(page) for frame, page in tables.pages.items()
        }
    assert piece_bytes(built, "the page list") == {
        address: b"".join(int(word).to_bytes(8, "little") for word in words)
        for address, words in plan.list_pages.items()
    }
    named = {"the control page", "page_table_a", "page_table_b", "the page list"}
    assert {piece.what for piece in built.pieces} == named
    assert built.segments == plan.segments


def example(old: Host | None = None) -> Plan:
    return prepare(read_image(), old or small_host(), Request(command_line="quiet"))


def test_the_control_page_is_the_old_kernels_page_at_v_whatever_the_code_is() -> None:
    built = build(example(), Code(name="own", data=b"\xf4" * 77, symbols={}))
    (page,) = piece_bytes(built, "the control page").values()
    assert page == b"\xf4" * 77 + bytes(PAGE - 77)


def test_v_is_about_to_be_called_with_the_routines_arguments() -> None:
    plan = example()
    built = build(plan)
    registers, before = built.registers, built.world.registers
    assert registers.rip == plan.relocation
    assert registers.general == {
        **before.general,
        "rdi": plan.head,
        "rsi": plan.control_page,
        "rdx": plan.entry,
        "rcx": built.page_table_a.root,
        "r8": table_b(built).root,
    }
    # Everything else is as the old kernel has it.
    assert replace(registers, general=before.general) == before
    assert built.intent is plan
    assert built.design == "two-tables"


def test_v_and_p_may_be_the_same_address() -> None:
    plan = example()
    plan = replace(plan, relocation=Virt(plan.control_page))
    world = world_room.lay(small_host(), CODE)
    built = build(plan, world=world)
    found = mapped(built, built.page_table_a)
    assert found.virt.tolist() == found.phys.tolist() == [plan.control_page]


def test_v_and_p_may_share_upper_tables() -> None:
    plan = example()
    near = Virt(plan.control_page ^ 0x1000)
    plan = replace(plan, relocation=near)
    world = world_room.lay(small_host(), CODE)
    built = build(plan, world=world)
    found = mapped(built, built.page_table_a)
    assert set(found.virt.tolist()) == {near, plan.control_page}
    assert set(found.phys.tolist()) == {plan.control_page}
    assert len(built.page_table_a.pages) == 4


def test_a_design_that_is_not_there_is_refused_with_those_that_are() -> None:
    plan = example()
    with pytest.raises(
        BadInput, match=r"no design 'three-tables'; there are in-place, two-tables,"
    ):
        participants.chain(plan, "three-tables")
