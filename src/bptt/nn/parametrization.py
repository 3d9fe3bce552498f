"""Learning rates and initial weights by the role of a tensor: the maximal update parametrization, for Adam.

Adam moves each element by about the learning rate. How much that changes what a layer computes depends on how many inputs its
products add up. A token enters one-hot: one input. A recurrent product adds up H of them. So the input weights, the biases and
the initial states need a higher rate than the recurrent weights, and the rate of the recurrent weights falls as 1/H.

Source: Yang et al. 2022 (arXiv 2203.03466), table 8: input weights and biases have a rate that does not depend on the width,
hidden and output weights one that falls as 1/width. All rates are divided by the square root of the number of layers: Yang et
al. 2023 (arXiv 2310.02244). A cell may have a factor of its own. The constants are measured: bench/learning_rate.py.
"""

import functools
from typing import Literal

from bptt.backend import Array
from bptt.nn import model, tree
from bptt.nn.optimizers import ParamGroup

Parametrization = Literal["mup", "standard"]

BASE_HIDDEN = 256  # units at which a recurrent weight has the learning rate itself
INPUT_FACTOR = 10.0  # of the learning rate: first Wax
BIAS_FACTOR = 10.0  # biases and initial states
OUTPUT_FACTOR = 3.0  # Wya
INPUT_STD = 1.0  # of the elements of the first Wax


@functools.lru_cache(8)
def param_groups(config: model.Config, parametrization: Parametrization) -> tuple[ParamGroup, ...]:
    """The groups of a model's parameter vector: neighbouring tensors with equal factors are one group.

    With "standard", all tensors have the same rate. Weight decay is for matrices only, the same for all of them: it does not
    grow with the rate of a tensor.
    """
    groups: list[ParamGroup] = []
    end = 0
    common = getattr(config.definition, "RATE_FACTOR", 1.0) / config.layers**0.5
    for name, shape in tree.named_leaves(model.shapes(config)):
        end += tree.num_elements(shape)
        factor = 1.0 if parametrization == "standard" else common * rate_factor(name, len(shape), config.hidden)
        group = ParamGroup(end, factor, 1.0 / factor if len(shape) > 1 else 0.0)
        if groups and groups[-1][1:] == group[1:]:
            groups.pop()
        groups.append(group)
    return tuple(groups)


def rate_factor(name: str, ndim: int, hidden: int) -> float:
    """The factor of the learning rate of a tensor by its role and the width, in the maximal update parametrization."""
    if name == "layers.0.Wax":
        return INPUT_FACTOR
    if ndim == 1:
        return BIAS_FACTOR
    width = BASE_HIDDEN / hidden
    return OUTPUT_FACTOR * width if name == "Wya" else width


def scale(params: model.Params, parametrization: Parametrization) -> model.Params:
    """The first weights as a parametrization wants them, given those of `model.init`.

    The elements of the first Wax, uniform between ±1/sqrt(H), get the standard deviation `INPUT_STD`.
    """
    if parametrization == "standard" or not hasattr(params.layers[0], "Wax"):
        return params
    hidden = params.Wya.shape[1]
    Wax: Array = params.layers[0].Wax * (INPUT_STD * (3.0 * hidden) ** 0.5)
    return params._replace(layers=(params.layers[0]._replace(Wax=Wax), *params.layers[1:]))
