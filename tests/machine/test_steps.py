"""The six steps, told from what instructions do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrope.memory import Virt
from tightrope.model import Step
from tightrope.observe.steps import StepTracker

V = Virt(0xFFFF_FFFF_8100_5000)
P = 0x200_0000


def test_a_walk_begins_at_the_call() -> None:
    tracker = StepTracker(V)
    assert tracker.step is Step.CALL
    assert tracker.starts == [(0, Step.CALL)]


def test_the_walk_of_the_thread_has_its_six_steps_in_order() -> None:
    tracker = StepTracker(V)
    tracker.control_write(2, "cr3")
    tracker.after_control_write(3)
    tracker.sets_state(6)
    tracker.indirect_jump(9, V + 100)
    tracker.control_write(11, "cr0")
    tracker.after_control_write(12)
    tracker.control_write(12, "cr3")
    tracker.after_control_write(13)
    assert tracker.starts == [
        (0, Step.CALL),
        (2, Step.TABLE_A),
        (6, Step.STATE),
        (9, Step.IDENTITY),
        (11, Step.TABLE_B),
        (13, Step.COPY),
    ]


def test_other_control_registers_do_not_load_page_table_a() -> None:
    tracker = StepTracker(V)
    tracker.control_write(1, "cr4")
    tracker.control_write(2, "cr0")
    assert tracker.step is Step.CALL


def test_state_that_is_set_before_page_table_a_is_no_step() -> None:
    tracker = StepTracker(V)
    tracker.sets_state(1)
    assert tracker.step is Step.CALL


def test_a_jump_under_the_old_tables_is_no_step() -> None:
    tracker = StepTracker(V)
    tracker.indirect_jump(1, V)
    assert tracker.step is Step.CALL


def test_a_routine_that_sets_no_state_goes_to_the_identity_address_all_the_same() -> None:
    tracker = StepTracker(V)
    tracker.control_write(1, "cr3")
    tracker.indirect_jump(2, V + 0xFFF)
    assert tracker.step is Step.IDENTITY


def test_a_jump_from_another_page_does_not_leave_v() -> None:
    tracker = StepTracker(V)
    tracker.control_write(1, "cr3")
    tracker.indirect_jump(2, V + 0x1000)
    tracker.indirect_jump(3, V - 1)
    assert tracker.step is Step.TABLE_A


def test_the_copy_waits_for_page_table_b() -> None:
    tracker = StepTracker(V)
    tracker.control_write(1, "cr3")
    tracker.indirect_jump(2, V)
    tracker.control_write(3, "cr4")
    tracker.after_control_write(4)
    assert tracker.starts[-1] == (3, Step.TABLE_B)
    tracker.control_write(5, "cr3")
    tracker.after_control_write(6)
    assert tracker.step is Step.COPY


def test_a_second_cr3_write_at_v_is_not_page_table_b() -> None:
    tracker = StepTracker(V)
    tracker.control_write(1, "cr3")
    tracker.control_write(2, "cr3")
    tracker.after_control_write(3)
    assert tracker.starts == [(0, Step.CALL), (1, Step.TABLE_A)]


def test_tables_that_a_way_out_of_long_mode_loads_before_v_are_not_page_table_a() -> None:
    tracker = StepTracker(V, way_out=True)
    tracker.control_write(1, "cr3", P)
    tracker.indirect_jump(2, P)
    assert tracker.starts == [(0, Step.CALL)]
    tracker.control_write(3, "cr3", V + 0x10)
    assert tracker.starts[-1] == (3, Step.TABLE_A)
    other = StepTracker(V)
    other.control_write(1, "cr3", P)
    assert other.step is Step.TABLE_A


events = st.lists(
    st.one_of(
        st.tuples(st.just("control"), st.sampled_from(["cr0", "cr3", "cr4"])),
        st.tuples(st.just("after"), st.none()),
        st.tuples(st.just("state"), st.none()),
        st.tuples(st.just("jump"), st.sampled_from([V, V + 8, P, P + 8])),
    ),
    max_size=40,
)


@given(events)
def test_steps_only_go_forward_and_each_begins_once(
    sequence: list[tuple[str, str | int | None]],
) -> None:
    tracker = StepTracker(V)
    for index, (event, what) in enumerate(sequence, 1):
        if event == "control":
            tracker.control_write(index, str(what))
        elif event == "after":
            tracker.after_control_write(index)
        elif event == "state":
            tracker.sets_state(index)
        else:
            assert isinstance(what, int)
            tracker.indirect_jump(index, what)
    indices = [index for index, _ in tracker.starts]
    steps = [step for _, step in tracker.starts]
    assert indices == sorted(indices)
    assert steps == sorted(set(steps))
    assert steps[-1] is tracker.step
