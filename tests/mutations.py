"""Deliberate mistakes, each of which a named test must catch: `python tests/mutations.py` applies them one at a time.

A mistake is made in a copy of the package, never in the checkout. The named test must pass without it and fail with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A mistake: in a file below src/bptt/, `right` becomes `wrong`, and `test` notices."""

    mistake: str
    file: str
    right: str
    wrong: str
    test: str


def in_every_cell(mistake: str, right: str, wrong: str, test: str) -> list[Mutation]:
    return [Mutation(f"{cell}: {mistake}", f"nn/{cell}.py", right, wrong, test) for cell in ("vanilla", "gru", "lstm")]


DIFFERENCES = "test_cells.py::test_backward_equals_central_differences"
STACK = "test_model.py::test_every_gradient_of_a_new_text"
PADDED = "test_model.py::test_a_padded_batch_is_its_lines_one_at_a_time"

MUTATIONS = [
    *in_every_cell("unshifted a_prev in dWaa", "rows(a[:-1, ...])", "rows(a[1:, ...])", DIFFERENCES),
    *in_every_cell("dropped da0", "State(da0", "State(0.0 * da0", DIFFERENCES),
    *in_every_cell("missing + da_next from the step after", "da[t, ...] + da_next", "da[t, ...]", DIFFERENCES),
    Mutation("vanilla: first step skipped", "nn/vanilla.py", "* slope[t, ...])", "* slope[t, ...] * (t > 0))", DIFFERENCES),
    Mutation("gru: first step skipped", "nn/gru.py", "* slope_q[t, ...],", "* slope_q[t, ...] * (t > 0),", DIFFERENCES),
    Mutation(
        "lstm: first step skipped",
        "nn/lstm.py",
        "d * slope_o[t, ...]], axis=1)",
        "d * slope_o[t, ...]], axis=1) * (t > 0)",
        DIFFERENCES,
    ),
    *in_every_cell("loop not reversed", "in reversed(range(T))", "in range(T)", DIFFERENCES),
    *in_every_cell(
        "state handed over one step early", "a[-1, ...]", "a[-2, ...]", "test_cells.py::test_two_halves_that_hand_over"
    ),
    Mutation(
        "vanilla: slope of tanh before the step",
        "nn/vanilla.py",
        "1.0 - a[1:, ...] * a[1:, ...]",
        "1.0 - a[:-1, ...] * a[:-1, ...]",
        DIFFERENCES,
    ),
    Mutation("vanilla: Waa transposed backward", "nn/vanilla.py", "dz[-1] @ Waa", "dz[-1] @ Waa.T", DIFFERENCES),
    Mutation("gru: a_prev not carried by the update gate", "nn/gru.py", "d[-1] * u[t, ...] + ", "", DIFFERENCES),
    Mutation("gru: reset gate left out of dq", "nn/gru.py", "slope_n * r], axis=2)", "slope_n], axis=2)", DIFFERENCES),
    Mutation(
        "gru: bias inside the reset product without gradient",
        "nn/gru.py",
        "dban = xp.sum(rows(dq)[:, 2 * H :], axis=0)",
        "dban = 0.0 * p[0, 0, :]",
        DIFFERENCES,
    ),
    Mutation(
        "gru: gates swapped",
        "nn/gru.py",
        "r, u = ru[-1][:, :H], ru[-1][:, H:]",
        "u, r = ru[-1][:, :H], ru[-1][:, H:]",
        "test_cells.py::test_forward_follows_the_equations",
    ),
    Mutation("lstm: cell gradient not carried", "nn/lstm.py", "dc = dc_next + d", "dc = d", DIFFERENCES),
    Mutation("lstm: forget gate left out of dc", "nn/lstm.py", "dc_next = dc * f[t, ...]", "dc_next = dc", DIFFERENCES),
    Mutation("lstm: c instead of c_prev at the forget gate", "nn/lstm.py", "c[:-1, ...] * f", "c[1:, ...] * f", DIFFERENCES),
    Mutation(
        "lstm: no forget bias",
        "nn/lstm.py",
        "[zero, one, zero, zero]",
        "[zero, zero, zero, zero]",
        "test_cells.py::test_init_draws",
    ),
    Mutation(
        "bias gradient summed over one axis",
        "nn/linear.py",
        "xp.sum(d, axis=0)",
        "xp.sum(dz[0, ...], axis=0)",
        "test_linear.py",
    ),
    Mutation(
        "bias left out for tokens",
        "nn/linear.py",
        "xp.reshape(z + b,",
        "xp.reshape(z if x.ndim == 2 else z + b,",
        "test_linear.py::test_tokens_pick_columns",
    ),
    Mutation(
        "mask ignored", "nn/loss.py", "xp.reshape(mask, (-1, 1)) / xp.sum(mask)", "xp.ones_like(each) / each.shape[0]", PADDED
    ),
    Mutation("mean over all steps, padding included", "nn/loss.py", "/ xp.sum(mask)", "/ each.shape[0]", PADDED),
    Mutation(
        "gradient of the loss without its target",
        "nn/loss.py",
        "(p - target)",
        "p",
        "test_loss.py::test_gradient_equals_central_differences",
    ),
    Mutation(
        "no maximum taken off",
        "nn/loss.py",
        "    u = u - xp.max(u, axis=1, keepdims=True)\n",
        "",
        "test_loss.py::test_large_logits",
    ),
    Mutation(
        "dropout forgotten on the way back",
        "nn/model.py",
        "da = da * cache.keep[layer] if cache.keep else da",
        "da = da",
        "test_model.py::test_every_gradient_from_a_carried_state",
    ),
    Mutation(
        "gradient of the initial state through a carried one",
        "nn/model.py",
        "if not cache.fresh:",
        "if False:",
        "test_model.py::test_no_gradient_reaches",
    ),
    Mutation("initial state summed over nothing", "nn/model.py", "xp.sum(d, axis=0)", "d[0, ...]", STACK),
    Mutation(
        "layers' gradients in the wrong order",
        "nn/model.py",
        "tuple(layers[::-1])",
        "tuple(layers)",
        "test_model.py::test_every_gradient_of_a_new_text",
    ),
    Mutation(
        "pieces unpacked one place late",
        "nn/packing.py",
        "start = stop",
        "start = stop + 1 - 1 if start else stop - 1",
        "test_packing.py::test_round_trip",
    ),
    Mutation(
        "no lower limit in clip_by_value",
        "nn/optimizers.py",
        "xp.maximum(d, -limit)",
        "d",
        "test_optimizers.py::test_clip_by_value",
    ),
    Mutation(
        "short gradients scaled up",
        "nn/optimizers.py",
        "xp.maximum(norm, limit)",
        "norm",
        "test_optimizers.py::test_clip_by_norm",
    ),
    Mutation(
        "no bias correction of v in adam",
        "nn/optimizers.py",
        "v / -xp.expm1(t * math.log(beta2))",
        "v",
        "test_optimizers.py::test_five_updates",
    ),
    Mutation(
        "weight decay coupled to the gradient's scale",
        "nn/optimizers.py",
        "(1.0 - rate * weight_decay)",
        "(1.0 - weight_decay)",
        "test_optimizers.py::test_five_updates",
    ),
    Mutation("textbook: missing + da_next", "textbook/basic_rnn.py", ' + gradients["da_next"]', "", "test_textbook.py"),
    Mutation("textbook: a instead of a_prev", "textbook/basic_rnn.py", "daraw @ a_prev.T", "daraw @ a.T", "test_textbook.py"),
    Mutation(
        "held-out part measured on what was trained on",
        "run/data.py",
        "batches.stream(data.held_out[0], 16",
        "batches.stream(data.training[0], 16",
        "test_data.py::test_what_is_measured_is_what_is_held_out",
    ),
    Mutation(
        "kind of first weights ignored",
        "nn/model.py",
        "H if layer else V, H, kind)",
        "H if layer else V, H)",
        "test_model.py::test_init_of_every_kind",
    ),
    Mutation(
        "rotations not uniform",
        "nn/initialisation.py",
        "Q * xp.sign(xp.linalg.diagonal(R))",
        "Q",
        "test_cells.py::test_rotations_have_no_favourite_direction",
    ),
    Mutation(
        "rate left too high at the end",
        "nn/optimizers.py",
        "floor: float = 0.02",
        "floor: float = 0.2",
        "test_optimizers.py::test_warmup_cosine",
    ),
    Mutation(
        "state not carried in training",
        "run/training.py",
        "None if batch.start else states",
        "None",
        "test_training.py::test_the_state_is_carried_to_the_next_window",
    ),
    Mutation(
        "the last model kept instead of the best",
        "run/training.py",
        "best if before is not None and before <= after else now",
        "now",
        "test_training.py::test_the_best_model_is_kept",
    ),
    Mutation(
        "state not carried in evaluation",
        "run/evaluation.py",
        "None if batch.start else states",
        "None",
        "test_evaluation.py::test_a_stream_in_windows",
    ),
    Mutation("padding measured, too", "run/evaluation.py", " * backend.put(batch.mask)", "", "test_evaluation.py"),
    Mutation(
        "state lost while sampling",
        "run/sampling.py",
        "backend.put(x), states)",
        "backend.put(x), None)",
        "test_sampling.py::test_each_character_is_fed_back",
    ),
    Mutation("temperature ignored", "run/sampling.py", "keepdims=True)) / temperature", "keepdims=True))", "test_sampling.py"),
    Mutation(
        "checksums not looked at",
        "run/checkpoint.py",
        "if _fingerprint(files[name]) != expected:",
        "if False:",
        "test_checkpoint.py::test_every_flipped_bit_is_noticed",
    ),
    Mutation(
        "integers put on the device as floats", "backend.py", 'if host.dtype.kind == "f" else "int64"', "", "test_backend.py"
    ),
    Mutation(
        "last target wrapped to the front",
        "text/batches.py",
        "sequence[a : b + 1] for a, b",
        "np.roll(sequence, -1)[a : b + 1] for a, b",
        "test_batches.py",
    ),
    Mutation(
        "tail of the text dropped",
        "text/batches.py",
        "cuts = [targets * b // streams",
        "cuts = [targets // streams * b",
        "test_batches.py",
    ),
]


def passes(test: str, source: Path) -> bool:
    """Whether a test passes with the package in `source`."""
    file, _, name = test.partition("::")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        f"tests/{file}",
        "-k",
        name or "test",
        "--backend",
        "numpy",
    ]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # not a verdict: nothing collected, say
        sys.exit(f"{test}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main() -> int:
    """Apply every mutation and print what caught it; 1 if one went unnoticed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for test in dict.fromkeys(mutation.test for mutation in MUTATIONS):
            if not passes(test, source):
                sys.exit(f"{test} fails without any mistake")
        for mutation in MUTATIONS:
            path = source / "bptt" / mutation.file
            original = path.read_text()
            if original.count(mutation.right) != 1:
                sys.exit(f"{mutation.mistake}: {mutation.right!r} stands {original.count(mutation.right)} times in {path.name}")
            path.write_text(original.replace(mutation.right, mutation.wrong))
            caught = not passes(mutation.test, source)
            path.write_text(original)
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {mutation.mistake}  ({mutation.test})", flush=True)
    print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} mistakes caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
