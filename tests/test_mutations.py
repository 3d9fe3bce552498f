"""The table of deliberate mistakes fits the code; `nox -s mutations` makes them."""

from pathlib import Path

import pytest

import bptt
from mutations import mutations
from mutations.mutation import mutated


@pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: f"{mutation.function}: {mutation.mistake}")
def test_a_mistake_can_be_made_in_the_function_it_names(mutation):
    _, source = mutated(mutation, Path(bptt.__file__).parent)
    assert mutation.wrong in source
    assert (Path(__file__).parent / mutation.test.partition("::")[0]).is_file()
