"""Settings: whatever is out of range is one line that names the setting; what passes is plain Python."""

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from bptt.config import defaults, settings
from bptt.config.defaults import resolve
from bptt.config.settings import Settings, from_flags, validate
from bptt.errors import InputError

WHOLE = [
    "hidden",
    "layers",
    "batch",
    "length",
    "micro_batches",
    "recompute_every",
    "steps",
    "seed",
    "split_seed",
    "evaluate_every",
    "patience",
    "checkpoint_every",
    "keep",
    "warmup",
    "stop_after",
]
REAL = ["dropout", "validation", "epochs", "learning_rate", "clip_norm"]
REAL += ["final_rate", "beta1", "beta2", "weight_decay", "average"]


def refusal(**flags):
    with pytest.raises(InputError) as error:
        from_flags(flags)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_the_defaults_pass_unchanged():
    assert validate(Settings()) == from_flags({}) == Settings()


def test_every_numeric_setting_has_a_range():
    hints = get_type_hints(Settings).items()
    numbers = {name for name, hint in hints if {int, float} & {hint, *get_args(hint)}}
    assert numbers == set(settings.RULES) == {*WHOLE, *REAL}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [7, 7.0, np.int64(7), np.float32(7), Fraction(7)])
def test_a_whole_number_of_any_type_becomes_an_int(name, value):
    assert type(getattr(from_flags({name: value}), name)) is int
    assert getattr(from_flags({name: value}), name) == 7


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5), Fraction(1, 2)])
def test_a_number_of_any_type_becomes_a_float(name, value):
    assert type(getattr(from_flags({name: value}), name)) is float
    assert getattr(from_flags({name: value}), name) == 0.5


def test_valid_settings_can_be_written_as_json(tmp_path):
    flags = {"quiet": np.bool_(True), "cell": np.str_("lstm"), "seed": np.uint8(3), "dropout": np.float16(0.25)}
    passed = from_flags(flags)
    plain = {"quiet": True, "cell": "lstm", "seed": 3, "dropout": 0.25}
    assert json.loads(json.dumps({name: getattr(passed, name) for name in flags})) == plain


@pytest.mark.parametrize("out", ["new", Path("new")])
def test_a_folder_becomes_a_path(out):
    assert from_flags({"out": out}).out == Path("new")


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, "7", b"7", True, [7], object()])
def test_values_that_are_not_numbers_or_negative_are_refused(name, value):
    message = refusal(**{name: value})
    assert message.startswith(f"{name} {value!r}: expected a ")


@pytest.mark.parametrize(
    ("name", "fine", "bad"),
    [
        *[(name, [1], [0, 1.5]) for name in ("hidden", "layers", "batch", "length", "micro_batches", "steps", "keep")],
        *[(name, [1], [0, 1.5]) for name in ("evaluate_every", "patience", "checkpoint_every", "stop_after")],
        ("layers", [1000], [1001, 10**400]),
        ("recompute_every", [1, 10**9, "sqrt"], [0, 1.5, 10**9 + 1, "sqr", ["sqrt"]]),
        ("seed", [0, 10**400], [0.5]),
        ("split_seed", [0, 10**400], [0.5]),
        ("dropout", [0, 0.99], [1, 10**400]),
        ("validation", [0, 0.99], [1]),
        ("epochs", [1e-9, 1e9], [0, 1e10, 10**400]),
        ("learning_rate", [1e-300, 1e300], [0, 10**400]),
        ("clip_norm", [0, 1e300], [-1e-300]),
    ],
)
def test_the_ends_of_every_range_are_accepted_and_no_more(name, fine, bad):
    for value in fine:
        assert getattr(from_flags({name: value}), name) == value
    for value in bad:
        assert refusal(**{name: value}).startswith(f"{name} {value!r}: expected ")


@pytest.mark.parametrize("name", ["layers", "seed", "clip_norm", "quiet", "cell"])
def test_none_is_refused_for_settings_without_a_default_rule(name):
    assert refusal(**{name: None}).startswith(f"{name} None: expected ")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"cell": "grru"}, ["cell 'grru'", "vanilla, gru, lstm"]),
        ({"cell": np.array(["gru", "lstm"])}, ["cell array(", "vanilla, gru, lstm"]),
        ({"optimizer": 5}, ["optimizer 5", "adam, rmsprop, adagrad, momentum, sgd"]),
        ({"dtype": np.float32}, ["dtype <class", "float32, float64"]),
        ({"mode": "line"}, ["mode 'line'", "lines, records, stream"]),
        ({"quiet": "yes"}, ["quiet 'yes'", "False, True"]),
        ({"require_backend": 2}, ["require_backend 2", "False, True"]),
        ({"learning_rate": math.inf}, ["learning_rate inf: expected a finite number above 0"]),
        ({"clip_norm": math.inf}, ["clip_norm inf: expected a finite number, at least 0"]),
        ({"out": 5}, ["out 5", "expected a path"]),
        ({"recompute_every": "all"}, ["recompute_every 'all': expected a whole number from 1 to 1,000,000,000, or sqrt"]),
        ({"steps": 5, "epochs": 1.5}, ["steps 5 and epochs 1.5", "one of the two"]),
        ({"hiden": 5}, ["'hiden' is unknown", "did you mean 'hidden'?"]),
        ({"learningrate": 5}, ["did you mean 'learning_rate'?"]),
        ({"lr": 5}, ["'lr' is unknown", "did you mean 'learning_rate'?"]),
        ({"zzz": 5}, ["'zzz' is unknown", "out, from_, new_symbols, backend, device, require_backend"]),
        ({"from_": 5}, ["from_ 5", "expected a path"]),
    ],
)
def test_an_error_says_what_was_given_and_what_is_expected(flags, words):
    message = refusal(**flags)
    for word in words:
        assert word in message


@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize("targets", [1, 10_000, 10**9])
def test_resolved_hyperparameters_are_what_the_user_chose(mode, targets):
    chosen = {"hidden": 5, "dropout": 0.0, "batch": 3, "length": 2, "steps": 11, "learning_rate": 0.125}
    chosen |= {"weight_decay": 0.25, "average": 0.5, "parametrization": "mup"}
    chosen |= {"evaluate_every": 4, "checkpoint_every": 6}
    assert resolve(from_flags(chosen), mode, targets, lambda batch, length: 1)._asdict() == chosen


@pytest.mark.parametrize("mode", ["lines", "stream"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adagrad", "momentum", "sgd"])
@pytest.mark.parametrize("targets", [1, 10_000, 10**9])
def test_default_hyperparameters_are_within_their_ranges(mode, optimizer, targets):
    plan = resolve(Settings(optimizer=optimizer), mode, targets, lambda batch, length: 1)
    assert from_flags(plan._asdict())


@pytest.mark.parametrize(("epochs", "steps"), [(1, 7), (2.5, 18), (0.01, 1)])
def test_epochs_are_converted_to_steps_rounded_up(epochs, steps):
    asked = []

    def batches(batch, length):
        asked.append((batch, length))
        return 7

    assert resolve(Settings(epochs=epochs, batch=3, length=2), "lines", 99, batches).steps == steps
    assert asked == [(3, 2)]


def test_epochs_that_give_too_many_steps_are_refused():
    with pytest.raises(InputError, match=r"^epochs=1e\+09 makes steps 7000000000: expected a whole number from 1 to 1,000"):
        resolve(Settings(epochs=1e9), "lines", 99, lambda batch, length: 7)


@pytest.mark.parametrize("flags", [{"weight_decay": 0.1}, {"beta1": 0.5}, {"beta2": 0.5}, {"parametrization": "mup"}])
def test_settings_of_adam_are_refused_with_other_optimizers(flags):
    ((name, value),) = flags.items()
    expected = f"{name} {value}: optimizer sgd does not have it: leave it out, or give optimizer adam"
    assert refusal(optimizer="sgd", **flags) == expected
    assert from_flags(flags)


def test_sgd_takes_the_neutral_values_that_a_config_repeats():
    assert from_flags({"optimizer": "sgd", "weight_decay": 0.0, "parametrization": "standard"})


@pytest.mark.parametrize("mode", ["lines", "stream"])
def test_presets_are_interpolated_without_jumps(mode):
    """From one text to one that is 2 % longer, no number changes by more than a tenth, but for what is rounded."""
    targets = [int(1000 * 1.02**k) for k in range(400)]
    presets = [defaults.preset_for(mode, count) for count in targets]
    for before, after in itertools.pairwise(presets):
        for a, b in zip(before[1:], after[1:]):
            assert abs(math.log(b / a)) < 0.1
    for preset in defaults.PRESETS[mode]:
        assert defaults.preset_for(mode, int(preset.targets)) == pytest.approx(preset)
    assert defaults.preset_for(mode, 1) == pytest.approx(defaults.PRESETS[mode][0])
    assert defaults.preset_for(mode, 10**12) == pytest.approx(defaults.PRESETS[mode][-1])


@pytest.mark.parametrize(
    ("flags", "dropout"),
    [({}, 0.4), ({"hidden": 80}, 0.2), ({"hidden": 1600}, 0.5), ({"dropout": 0.1}, 0.1), ({"cell": "vanilla"}, 0.0)],
)
def test_the_default_dropout_is_in_proportion_to_the_units(flags, dropout):
    plan = defaults.resolve(from_flags(flags), "lines", 20_000, lambda batch, length: 1)
    assert plan.dropout == pytest.approx(dropout)


@pytest.mark.parametrize(("steps", "decay"), [(1, 0.0), (10, 0.0), (40, 0.75), (2000, 0.995), (10**9, 0.9999)])
def test_the_default_average_is_a_tenth_of_the_run_long(steps, decay):
    assert defaults.default_average(steps) == decay
