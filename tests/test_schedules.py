"""The learning rate of each update."""

import itertools
from functools import partial
from typing import get_args

import pytest

from bptt.nn import schedules


def test_the_names_of_schedules_are_those_of_the_table():
    assert get_args(schedules.ScheduleName) == tuple(schedules.SCHEDULES)


def rates(schedule, steps=111, **options):
    rate_at = partial(schedules.learning_rate, peak=2.0, schedule=schedule, warmup=10, total_steps=110, **options)
    return [rate_at(step) for step in range(steps)]


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_every_schedule_rises_linearly_and_never_exceeds_the_peak(schedule):
    rate = rates(schedule)
    assert rate[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rate[10] == pytest.approx(2.0)
    assert all(a >= b for a, b in itertools.pairwise(rate[10:]))


@pytest.mark.parametrize(
    ("schedule", "half", "tenth", "end"),
    [
        ("cosine", 2.0 * (0.1 + 0.9 * 0.5), 2.0 * (0.1 + 0.9 * 0.0244717), 0.2),
        ("linear", 2.0 * (0.1 + 0.9 * 0.5), 2.0 * (0.1 + 0.9 * 0.1), 0.2),
        ("constant", 2.0, 2.0, 2.0),
        ("wsd", 2.0, 2.0 * (0.1 + 0.9 * 0.5), 0.2),
    ],
)
def test_the_schedules_decay_as_their_names_say(schedule, half, tenth, end):
    rate = rates(schedule, 130, final_rate=0.1)
    assert [rate[60], rate[100], rate[110]] == pytest.approx([half, tenth, end], rel=1e-5)
    assert rate[129] == rate[110]  # and stays there


def test_no_warm_up_starts_at_the_peak():
    assert schedules.learning_rate(0, 3.0, warmup=0, total_steps=50) == 3.0
    assert schedules.learning_rate(50, 1.0, warmup=0, total_steps=50) == pytest.approx(0.02)


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_the_last_update_of_the_warm_up_and_the_next_have_the_peak(schedule):
    """As the docstring says: other rates would change runs that are resumed."""
    rate = rates(schedule, 20)
    assert rate[8] < rate[9] == rate[10] == 2.0
    if schedule in ("cosine", "linear"):
        assert rate[11] < 2.0
