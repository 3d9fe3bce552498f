"""A function captured as a CUDA graph returns what the function does; the graph is a stand-in that calls the function."""

import numpy as np
import pytest

from bptt import acceleration
from bptt import backend as backends
from bptt.errors import CaptureError
from bptt.inference import generate
from bptt.inference.request import GenerationRequest, StopCriteria
from bptt.inference.sampling import SamplingOptions
from bptt.nn import model, tree


@pytest.mark.parametrize("error", [None, CaptureError("a matrix product")])
def test_a_captured_function_returns_what_the_function_does(error):
    calls, recorded = [], []

    def function(pair, c):
        calls.append(c.shape)
        a, b = pair
        return (a + b, (a * c,))

    def record(action):
        recorded.append(action)
        if error:
            raise error
        return action

    replayed = acceleration.graphed(function, record)
    rng, given, found = np.random.default_rng(0), [], []
    for n in (3, 3, 3, 4, 3, 4, 4):
        given.append(((rng.random(n), rng.random(n)), rng.random(n)))
        found.append(replayed(*given[-1]))
    for ((a, b), c), (total, (product,)) in zip(given, found, strict=True):
        np.testing.assert_array_equal(total, a + b)  # none of them is changed by the calls after it
        np.testing.assert_array_equal(product, a * c)
    assert len(recorded) == 2  # once for each shape


@pytest.mark.parametrize("ending", [StopCriteria(40), StopCriteria(40, boundary=0), StopCriteria(50, stop=np.array([2, 3]))])
def test_texts_sampled_with_a_cuda_graph_are_the_same(monkeypatch, ending):
    where, here = backends.select("strict", "float64"), backends.select("numpy", "float64")
    config = model.Config("lstm", 7, 5, 2)
    params = tree.tree_map(lambda a: 3 * a, model.init(config, np.random.default_rng(1)))

    def written(backend):
        request, weights = (
            GenerationRequest(np.array([0, 4]), SamplingOptions(0.9), ending, 5),
            tree.tree_map(backend.put, params),
        )
        return np.array(list(generate.generate(config, weights, backend, request, generate.uniform_numbers(5, 0, 70))))

    expected, recorded = written(here), []
    monkeypatch.setattr(acceleration, "graph_recorder", lambda: lambda action: recorded.append(action) or action)
    monkeypatch.setattr(generate, "CHARACTERS_PER_READ", 4)
    np.testing.assert_array_equal(written(where), expected)
    assert recorded or ending.boundary == 0  # where so many end early that no two batches are of one size
