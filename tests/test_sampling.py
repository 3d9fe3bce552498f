"""Sampling: the characters drawn are as frequent as the model says, and the same for the same seed."""

import itertools

import numpy as np
import pytest

from bptt.nn import model, packing
from bptt.run import sampling


def softmax(u):
    e = np.exp(u - u.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frequencies_are_the_softmax_of_logits_over_temperature(temperature, dtype):
    logits = np.array([0.3, -1.0, 2.0, 0.0, 1.1, -4.0], dtype)
    count = 200_000
    drawn = sampling.draw(np.tile(logits, (count, 1)), temperature, generator())
    expected = count * softmax(logits.astype(float) / temperature)
    chi_square = ((np.bincount(drawn, minlength=6) - expected) ** 2 / expected).sum()
    assert chi_square < 25.7  # 5 degrees of freedom: one in ten thousand
    assert drawn.dtype.kind == "i"


def test_each_row_has_its_own_distribution():
    logits = np.where(np.eye(5, dtype=bool)[[3, 0, 4]], 0.0, -100.0)
    for temperature in (0.0, 0.5, 1.0):
        assert sampling.draw(logits, temperature, generator()).tolist() == [3, 0, 4]


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 1e-320])
def test_no_temperature_is_the_most_likely_character_the_first_of_equals(temperature):
    logits = generator().normal(size=(50, 9)).astype(np.float32)
    np.testing.assert_array_equal(sampling.draw(logits, temperature, generator()), logits.argmax(axis=1))
    assert sampling.draw(np.zeros((1, 4)), 0.0, generator()).tolist() == [0]


def test_a_high_temperature_makes_all_characters_alike():
    drawn = sampling.draw(np.tile(generator().normal(size=8), (80_000, 1)), 1e300, generator())
    np.testing.assert_allclose(np.bincount(drawn, minlength=8), 10_000, rtol=0.04)


@pytest.mark.parametrize("scale", [1e3, 1e30, 1e300])
def test_logits_of_any_size_and_the_ends_of_the_unit_interval(scale):
    class Ends:
        def random(self, shape):
            return np.resize([0.0, 1.0 - 2.0**-53], shape)

    logits = np.array([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]) * scale
    assert sampling.draw(logits, 1.0, Ends()).tolist() == [2, 2]
    assert sampling.draw(np.zeros((2, 3)), 1.0, Ends()).tolist() == [0, 2]


def test_one_uniform_number_a_row_in_their_order():
    logits = generator(1).normal(size=(4, 6))
    rng = generator()
    u = rng.random(4)
    expected = [int(np.searchsorted(np.cumsum(p), x)) for p, x in zip(softmax(logits), u)]
    again = generator()
    assert sampling.draw(logits, 1.0, again).tolist() == expected
    assert again.random() == rng.random()


def test_each_character_is_fed_back_and_the_state_carried(lab):
    """Greedy generation equals the whole text so far through `forward`, its most likely next character appended."""
    config = model.Config("vanilla", 7, 5, 2)
    params = packing.transform(lambda array: 3 * array, model.init(config, generator(3)))
    steps = sampling.generate(config, lab.put(params), lab.backend, np.array([2, 6, 1]), 3, 0.0, generator())
    drawn = np.array(list(itertools.islice(steps, 6)))  # (6, 3)
    text = [2, 6, 1]
    for _ in range(6):
        logits, _, _ = model.forward(config, params, np.array(text)[:, None])
        text.append(int(logits[-1, 0, :].argmax()))
    assert drawn.T.tolist() == [text[3:]] * 3
    assert len(set(text[3:])) > 1


def test_texts_side_by_side_differ_and_a_seed_repeats_them(lab):
    config = model.Config("vanilla", 7, 5)
    params = lab.put(model.init(config, generator(3)))

    def texts(seed):
        steps = sampling.generate(config, params, lab.backend, np.array([0]), 4, 1.0, generator(seed))
        return np.array(list(itertools.islice(steps, 12))).T.tolist()

    assert texts(0) == texts(0) != texts(1)
    assert len({tuple(text) for text in texts(0)}) == 4
