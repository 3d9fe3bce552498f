"""Update rules against their papers' equations written out for one number at a time, clipping, schedules."""

import math
from typing import get_args

import numpy as np
import pytest

from bptt.backend import namespace
from bptt.nn import optimizers
from bptt.nn.optimizers import OPTIMIZERS, ParamGroup


def scalar_sgd(theta, d, memory, t, rate):
    return theta - rate * d


def scalar_momentum(theta, d, memory, t, rate):
    memory["m"] = 0.9 * memory.get("m", 0.0) + d
    return theta - rate * memory["m"]


def scalar_adagrad(theta, d, memory, t, rate):
    memory["v"] = memory.get("v", 0.0) + d**2
    return theta - rate * d / (math.sqrt(memory["v"]) + 1e-10)


def scalar_rmsprop(theta, d, memory, t, rate):
    memory["v"] = 0.99 * memory.get("v", 0.0) + 0.01 * d**2
    return theta - rate * d / (math.sqrt(memory["v"]) + 1e-8)


def scalar_adam(theta, d, memory, t, rate, decay=0.0):
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * d
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * d**2
    m_hat, v_hat = memory["m"] / (1 - 0.9**t), memory["v"] / (1 - 0.999**t)
    return theta - rate * (m_hat / (math.sqrt(v_hat) + 1e-8) + decay * theta)


def decayed_adam(theta, d, state, rate):
    return optimizers.adam(theta, d, state, rate, weight_decay=0.1)


ADAM = OPTIMIZERS["adam"]
RULES = {
    "sgd": (OPTIMIZERS["sgd"], scalar_sgd),
    "momentum": (OPTIMIZERS["momentum"], scalar_momentum),
    "adagrad": (OPTIMIZERS["adagrad"], scalar_adagrad),
    "rmsprop": (OPTIMIZERS["rmsprop"], scalar_rmsprop),
    "adam": (ADAM, scalar_adam),
    "adamw": (ADAM._replace(update=decayed_adam), lambda *arguments: scalar_adam(*arguments, decay=0.1)),
}


@pytest.mark.parametrize(("optimizer", "scalar"), RULES.values(), ids=list(RULES))
def test_five_updates_follow_the_equations(lab, rng, optimizer, scalar):
    theta, gradients = rng.normal(size=4), rng.normal(size=(5, 4))

    def run(theta, gradients):
        state = optimizer.init(theta)
        for t in range(5):
            theta, state = optimizer.update(theta, gradients[t, :], state, 0.1 / (t + 1))
        return theta

    expected = []
    for i in range(4):
        value, memory = float(theta[i]), {}
        for t in range(5):
            value = scalar(value, float(gradients[t, i]), memory, t + 1, 0.1 / (t + 1))
        expected.append(value)
    tolerance = 1e-12 if lab.backend.dtype == "float64" else 1e-4
    lab.close(lab.call(run, theta, gradients), np.array(expected), tolerance)


@pytest.mark.parametrize(
    ("name", "fields"), [("sgd", ""), ("momentum", "m"), ("adagrad", "v"), ("rmsprop", "v"), ("adam", "tmv")]
)
def test_the_state_of_an_optimizer_is_what_it_uses(lab, rng, name, fields):
    theta, d = rng.normal(size=(2, 4))
    optimizer = OPTIMIZERS[name]
    before, after = lab.call(
        lambda theta, d: (optimizer.init(theta), optimizer.update(theta, d, optimizer.init(theta), 0.1)[1]), theta, d
    )
    assert before._fields == after._fields == tuple(fields)
    for was, now in zip(before, after):
        assert not np.any(was)  # zeros
        assert np.all(now)


def test_the_names_of_optimizers_are_those_of_the_table():
    assert get_args(optimizers.OptimizerName) == tuple(OPTIMIZERS)


def test_clip_by_value_limits_each_element(lab):
    d = np.array([-7.0, -2.0, 0.5, 3.0, 11.0])
    once = lab.call(lambda d: optimizers.clip_by_value(d, 3.0), d)
    lab.close(once, np.array([-3.0, -2.0, 0.5, 3.0, 3.0]))
    lab.close(lab.call(lambda d: optimizers.clip_by_value(d, 3.0), once), once)


def test_clip_by_norm_scales_down_to_the_limit(lab):
    d = np.array([3.0, -4.0])
    clip = lambda limit: lambda d: optimizers.clip_by_norm(d, limit)  # noqa: E731
    lab.close(lab.call(clip(1.0), d), (np.array([0.6, -0.8]), np.asarray(5.0)))
    lab.close(lab.call(clip(7.0), d), (d, np.asarray(5.0)))
    lab.close(lab.call(clip(1.0), np.zeros(2)), (np.zeros(2), np.asarray(0.0)))
    once = lab.call(clip(1.0), d)[0]
    lab.close(lab.call(clip(1.0), once)[0], once)


def test_bias_correction_is_exact_in_float32(lab):
    """1 - 0.999**t loses half its digits in float32 when it is computed as it is written."""
    theta, d = np.zeros(3), np.array([0.5, -2.0, 50.0])

    def first_update(theta, d):
        return optimizers.adam(theta, d, optimizers.init_adam(theta), 1.0)[0]

    lab.close(lab.call(first_update, theta, d), -np.sign(d), 2e-6)


def test_parameter_groups_have_rates_and_decays_of_their_own(lab, rng):
    theta, gradients = rng.normal(size=5), rng.normal(size=(3, 5))
    groups = (ParamGroup(2, 10.0, 0.0), ParamGroup(3, 1.0, 1.0), ParamGroup(5, 0.5, 1.0))

    def updated(theta, gradients, begin, end, rate, decay, groups):
        part = theta[begin:end]
        state = optimizers.init_adam(part)
        for t in range(3):
            d = gradients[t, begin:end]
            part, state = optimizers.adam(part, d, state, rate, weight_decay=decay, groups=groups)
        return part

    together = lab.call(lambda *arrays: updated(*arrays, 0, 5, 0.01, 0.2, groups), theta, gradients)
    alone = [(0, 2, 0.1, 0.0), (2, 3, 0.01, 0.2), (3, 5, 0.005, 0.2)]
    expected = [lab.call(lambda *arrays, case=case: updated(*arrays, *case, ()), theta, gradients) for case in alone]
    lab.close(together, np.concatenate([np.asarray(part) for part in expected]), 1e-6)


def test_an_average_of_equal_parameters_is_these_parameters():
    """Also in float32, which has no 0.9999: as a factor it would be too small, and the average 2e-4 too low."""
    params = np.linspace(0.1, 2, 7).astype(np.float32)
    mean = np.zeros_like(params)
    for _ in range(10_000):
        mean = optimizers.average_update(mean, params, 0.9999)
    np.testing.assert_allclose(optimizers.debiased(mean, 0.9999, 10_000), params, rtol=1e-5)


def test_the_average_is_the_weighted_mean_of_the_parameters(lab, rng):
    steps = rng.normal(size=(4, 3))

    def average(steps):
        mean = namespace(steps).zeros_like(steps[0, :])
        for t in range(4):
            mean = optimizers.average_update(mean, steps[t, :], 0.9)
        return optimizers.debiased(mean, 0.9, 4)

    lab.close(lab.call(average, steps), np.average(steps, axis=0, weights=0.9 ** np.arange(3, -1, -1)), 1e-6)
