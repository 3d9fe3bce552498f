"""The table of deliberate mistakes fits the code; `nox -s mutations` makes them."""

import re
from pathlib import Path

import pytest

import bptt
from mutations import mutations
from mutations.mutation import mutated


@pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: f"{mutation.function}: {mutation.mistake}")
def test_each_mutation_applies_to_the_function_it_names(mutation):
    _, source = mutated(mutation, Path(bptt.__file__).parent)
    assert mutation.wrong in source
    file, _, expression = mutation.test.partition("::")
    names = re.findall(r"^def (test_\w+)", (Path(__file__).parent / file).read_text("utf-8"), re.MULTILINE)
    assert all(any(word in name for name in names) for word in re.split(" and | or ", expression) if word.startswith("test_"))
