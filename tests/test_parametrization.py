"""The groups of parameters and the first weights of a parametrization."""

import numpy as np
import pytest

from bptt.nn import model, parametrization, tree
from bptt.nn.optimizers import ParamGroup


def factors(config, kind):
    """The factors of the learning rate and of the weight decay, by the name of the tensor."""
    groups, found, end = parametrization.param_groups(config, kind), {}, 0
    for name, shape in tree.named_leaves(model.shapes(config)):
        start, end = end, end + tree.num_elements(shape)
        (group,) = [group for before, group in zip((ParamGroup(0, 0, 0), *groups), groups) if before.end < end <= group.end]
        assert group.end - end >= 0
        assert start >= 0
        found[name] = group[1:]
    assert groups[-1].end == end
    return found


@pytest.mark.parametrize(
    ("cell", "layers", "common"), [("vanilla", 4, 0.5), ("gru", 4, 0.5), ("lstm", 4, 1.0), ("lstm", 1, 2.0)]
)
def test_rates_depend_on_the_role_the_width_the_depth_and_the_cell(cell, layers, common):
    found = factors(model.Config(cell, 20, 512, layers), "mup")
    recurrent = [f"layers.{layer}.{weight}" for layer in range(layers) for weight in ("Wax", "Waa")][1:]
    biases = [f"{name}.{layer}.{leaf}" for layer in range(layers) for name, leaf in (("layers", "b"), ("initial", "a"))]
    factor_of = {
        "layers.0.Wax": parametrization.INPUT_FACTOR,
        **dict.fromkeys(recurrent, 0.5),  # half of those of 256 units
        **dict.fromkeys([*biases, "by"], parametrization.BIAS_FACTOR),
        "Wya": parametrization.OUTPUT_FACTOR / 2,
    }
    for name, factor in factor_of.items():
        rate, decay = found[name]
        assert rate == pytest.approx(common * factor)
        assert decay == (0.0 if name in (*biases, "by") else pytest.approx(1 / rate))


def test_all_matrices_decay_alike():
    groups = parametrization.param_groups(model.Config("lstm", 20, 512, 2), "mup")
    assert {round(group.learning_rate * group.weight_decay, 12) for group in groups} == {0.0, 1.0}


def test_the_standard_parametrization_has_one_rate_and_decays_matrices():
    found = factors(model.Config("gru", 20, 64, 2), "standard")
    assert {rate for rate, _ in found.values()} == {1.0}
    assert {name for name, (_, decay) in found.items() if decay} == {
        *(f"layers.{layer}.{name}" for layer in (0, 1) for name in ("Wax", "Waa")),
        "Wya",
    }


def test_neighbours_with_the_same_factors_are_one_group():
    groups = parametrization.param_groups(model.Config("gru", 20, 256), "standard")
    assert [group.weight_decay for group in groups] == [1.0, 0.0, 1.0, 0.0]  # Wax and Waa, b to initial, Wya, by


def test_the_first_input_weights_have_unit_deviation():
    params = model.init(model.Config("gru", 30, 200, 2), np.random.default_rng(0))
    scaled = parametrization.scale(params, "mup")
    assert np.std(scaled.layers[0].Wax) == pytest.approx(parametrization.INPUT_STD, rel=0.02)
    changed = [name for (name, a), (_, b) in zip(tree.named_leaves(params), tree.named_leaves(scaled)) if a is not b]
    assert changed == ["layers.0.Wax"]
    assert parametrization.scale(params, "standard") is params
