"""How an epoch is cut into batches and steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foldwise.engine.pace import Pace, starts
from foldwise.reference import batches_of
from foldwise.settings import Settings

paces = st.builds(
    Pace,
    batch_size=st.integers(1, 20),
    growth=st.sampled_from([1.0, 1.3, 2.0]),
    growth_every=st.integers(1, 3),
    accumulation=st.integers(1, 4),
)


@given(paces, st.integers(1, 200), st.integers(1, 12))
def test_every_row_is_in_one_batch(pace: Pace, rows: int, epoch: int) -> None:
    steps = pace.steps(rows, epoch)
    assert sum(map(sum, steps)) == rows
    assert all(1 <= len(step) <= pace.accumulation for step in steps)
    assert all(size > 1 for step in steps for size in step) or pace.size(epoch) == 1 or rows == 1


@given(paces, st.integers(1, 200), st.integers(1, 12))
def test_counts_are_those_of_the_steps(pace: Pace, rows: int, epoch: int) -> None:
    steps = pace.steps(rows, epoch)
    assert pace.count(rows, epoch) == (len(steps), sum(map(len, steps)))
    before = [pace.steps(rows, e) for e in range(1, epoch)]
    assert pace.before(rows, epoch) == (sum(map(len, before)), sum(len(s) for e in before for s in e))
    assert pace.total_steps(rows, epoch - 1) == pace.before(rows, epoch)[0]


@given(paces, st.integers(1, 200), st.integers(1, 12))
def test_the_reference_cuts_alike(pace: Pace, rows: int, epoch: int) -> None:
    s = Settings(batch_size=pace.batch_size, batch_growth=pace.growth, accumulation=pace.accumulation)
    s = s.model_copy(update={"batch_growth_every": pace.growth_every})
    assert batches_of(s, rows, epoch) == [size for step in pace.steps(rows, epoch) for size in step]


@given(paces, st.integers(1, 200), st.integers(1, 12))
def test_a_step_begins_where_the_whole_ones_before_it_end(pace: Pace, rows: int, epoch: int) -> None:
    # the engine takes steps of members with different rows at the same place of their orders
    first = 0
    for number, step in enumerate(pace.steps(rows, epoch)):
        assert first == number * pace.accumulation * pace.size(epoch)
        first += sum(step)
    assert list(starts((3, 2), 4)) == [(4, 7), (7, 9)]


def test_all_rows_one_row_and_growing_batches() -> None:
    assert Pace(64).steps(23, 1) == [(23,)]
    assert Pace(1).steps(3, 1) == [(1,), (1,), (1,)]
    assert [Pace(4, growth=2, growth_every=2).size(epoch) for epoch in range(1, 7)] == [4, 4, 8, 8, 16, 16]
    assert [Pace(64, growth=3.0).size(epoch) for epoch in (1, 2, 3)] == [64, 192, 576]
    assert Pace(100, growth=1.15).size(2) == 115
    assert Pace(4, growth=100.0).size(10_000) == 4 * 2**40
    assert batches_of(Settings(batch_size=4, batch_growth=2.0), 9, 5_000) == [9]
