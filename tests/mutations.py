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
TWINS = (
    "test_fused.py",
    "test_compiling.py",
    "test_pieces.py",
    "test_twins.py",
    "test_updates.py",
)  # the only ones that run compiled twins


def in_a_twin(mistake: str, file: str, right: str, wrong: str, twin: str, test: str = "equals_its_pure_function") -> Mutation:
    return Mutation(f"twins: {mistake}", f"fused/{file}.py", right, wrong, f"test_fused.py::{test} and float64-{twin}]")


def in_a_kernel(mistake: str, right: str, wrong: str, case: str = "gru-33-20", file: str = "recurrence") -> Mutation:
    test = f"test_cuda_source.py::the_kernels_compute and {case}"
    return Mutation(f"kernels: {mistake}", f"fused/{file}.cu", right, wrong, test)


MUTATIONS = [
    *in_every_cell("unshifted a_prev in dWaa", ", a[:-1, ...])", ", a[1:, ...])", DIFFERENCES),
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
        "dban = namespace(da).sum(rows(dq)[:, 2 * n.shape[2] :], axis=0)",
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
        "namespace(W).sum(dW, axis=1)",
        "namespace(W).sum(dz[0, ...], axis=0)",
        "test_linear.py",
    ),
    Mutation(
        "bias left out for tokens",
        "nn/linear.py",
        "(-1,)), axis=0) + b,",
        "(-1,)), axis=0) + 0.0 * b,",
        "test_linear.py::test_tokens_pick_columns",
    ),
    Mutation(
        "mask ignored",
        "nn/loss.py",
        "weight = mask / (xp.sum(mask) if count is None else count)",
        "weight = xp.ones_like(each) / (y.shape[0] * y.shape[1])",
        PADDED,
    ),
    Mutation("mean over all steps, padding included", "nn/loss.py", "xp.sum(mask) if", "y.shape[0] * y.shape[1] if", PADDED),
    Mutation(
        "gradient of the loss without its target",
        "nn/loss.py",
        "(rows(p) - one_hot(y, p.shape[2], p))",
        "rows(p)",
        "test_loss.py::test_gradient_equals_central_differences",
    ),
    Mutation(
        "no maximum taken off",
        "nn/loss.py",
        "logits - xp.max(logits, axis=2, keepdims=True)",
        "logits",
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
        ".maximum(length, limit)), length",
        ".maximum(length, 0.0)), length",
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
        "batches.stream(data.held_out, HELD_OUT_STREAMS",
        "batches.stream(data.training, HELD_OUT_STREAMS",
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
        "put = window.columns.shape[1], task.backend.put\n    start, masks = None if window.start else states, drawn",
        "put = window.columns.shape[1], task.backend.put\n    start, masks = None, drawn",
        "test_training.py::test_the_state_is_carried_to_the_next_window",
    ),
    Mutation(
        "the last model kept instead of the best",
        "run/session.py",
        "if was.best is not None and was.best[1] <= held_out:",
        "if False:",
        "test_session.py::test_the_best_model_is_kept",
    ),
    Mutation(
        "state not carried in evaluation",
        "run/evaluation.py",
        "None if batch.window.start else states",
        "None",
        "test_evaluation.py::test_a_stream_in_windows",
    ),
    Mutation("padding measured, too", "run/evaluation.py", " * batch.mask", "", "test_evaluation.py"),
    Mutation(
        "all states kept while those of the next window are computed",
        "run/evaluation.py",
        "packing.transform(lambda a: namespace(a).asarray(a, copy=True), states)",
        "packing.transform(lambda a: a, states)",
        "test_memory.py::test_the_numbers_of_a_measurement",
    ),
    Mutation(
        "no curve before the end",
        "run/session.py",
        "if due.measured or now.ended:",
        "if now.ended or state.step == task.plan.steps:",
        "test_session.py::test_the_curve_is_drawn_at_each_measurement",
    ),
    Mutation(
        "the limits of the curve before",
        "run/plots.py",
        "        axes.autoscale()\n",
        "",
        "test_plots.py::test_a_curve_is_the_same_on_the_figure",
    ),
    Mutation(
        "padding counted as if it were computed",
        "run/memory.py",
        "steps[own].tolist()",
        "[window.steps] * len(steps[own])",
        "test_memory.py::test_the_numbers_of_the_largest_update_by_lines",
    ),
    Mutation(
        "state lost while sampling",
        "run/sampling.py",
        "(1, -1)), now.states)",
        "(1, -1)), None)",
        "test_sampling.py::test_each_character_is_fed_back",
    ),
    Mutation(
        "states of other texts, once some have ended",
        "run/sampling.py",
        "_rows(now, rest, backend)",
        "_rows(now, np.arange(len(rest)), backend)",
        "test_sampling.py::test_a_text_depends_on_the_seed_and_its_number_only",
    ),
    Mutation(
        "random numbers of other texts, once some have ended",
        "run/sampling.py",
        "write(now, next(numbers)[going])",
        "write(now, next(numbers)[: len(going)])",
        "test_sampling.py::test_a_text_depends_on_the_seed_and_its_number_only",
    ),
    Mutation("temperature ignored", "run/choosing.py", "if choice.temperature != 1.0:", "if False:", "test_sampling.py"),
    Mutation(
        "top_p of what top_k takes away, too",
        "run/choosing.py",
        "choice.top_p * xp.sum(heaviest,",
        "choice.top_p * xp.sum(w,",
        "test_sampling.py::test_the_temperature_comes_first_then_top_k_then_top_p",
    ),
    Mutation(
        "top_p without the one that reaches it",
        "run/choosing.py",
        "xp.cumulative_sum(heaviest, axis=1) - heaviest",
        "xp.cumulative_sum(heaviest, axis=1)",
        "test_sampling.py::test_top_p_keeps_the_fewest",
    ),
    Mutation(
        "what was held back for the stop string given away whole",
        "run/sampling.py",
        "yield held.pop(0)",
        "yield from held; held.clear()",
        "test_sampling.py::test_what_is_certain_to_stay",
    ),
    Mutation(
        "scores in the order of their lengths",
        "run/scoring.py",
        "nats[i] = together",
        "nats[first + b] = together",
        "test_scoring.py::test_every_target_by_itself",
    ),
    Mutation(
        "integers put on the device as floats", "backend.py", 'if host.dtype.kind == "f" else integers', "", "test_backend.py"
    ),
    Mutation(
        "a mean of each part of the columns",
        "run/parallel.py",
        "one in keep), count\n",
        "one in keep), None\n",
        "test_parallel.py::test_parts_add_up",
    ),
    Mutation(
        "the last part of the columns forgotten",
        "run/parallel.py",
        "    for share, d, after in results:",
        "    for share, d, after in list(results)[:-1]:",
        "test_parallel.py::test_parts_add_up",
    ),
    Mutation(
        "parts by the cores there are",
        "run/parallel.py",
        "max(2, batch // WIDTH)",
        "workers()",
        "test_parallel.py::test_a_training_run_is_the_same",
    ),
    Mutation(
        "a part of nothing but columns that are over",
        "run/parallel.py",
        "*ends[steps[ends - 1] < steps[-1]].tolist()",
        "*ends.tolist()",
        "test_parallel.py::test_no_part_has_nothing_to_do",
    ),
    Mutation(
        "warnings from a thread",
        "run/parallel.py",
        ', initializer=partial(np.seterr, all="ignore")',
        "",
        "test_parallel.py::test_numbers_that_overflow",
    ),
    Mutation(
        "the BLAS has its threads beside ours",
        "run/parallel.py",
        'with threadpool_limits(1, "blas"), ThreadPool',
        "with contextlib.nullcontext(), ThreadPool",
        "test_parallel.py::test_the_blas_has_one_thread",
    ),
    Mutation(
        "lines of one length together",
        "text/batches.py",
        "return shuffled(len(lengths), rng)",
        "return np.argsort(lengths + rng.random(len(lengths)))",
        "test_batches.py::test_lines_of_all_lengths_meet",
    ),
    Mutation(
        "the longest line of a batch last",
        "text/batches.py",
        "np.lexsort((~sequences.lengths[places]",
        "np.lexsort((sequences.lengths[places]",
        "test_batches.py::test_lines_give_every_sequence",
    ),
    Mutation(
        "columns that are over computed",
        "nn/pieces.py",
        "Piece(first, end, len(until) - over)",
        "Piece(first, end, len(until))",
        "test_pieces.py::test_columns_that_are_over",
    ),
    Mutation(
        "a column over one step too soon",
        "nn/pieces.py",
        "bisect_right(until, end)\n    return",
        "bisect_right(until, end + 1)\n    return",
        "test_pieces.py",
    ),
    Mutation(
        "last target wrapped to the front",
        "text/batches.py",
        "last = places <= columns[1, :], xp.minimum(places, columns[1, :])",
        "last = places <= columns[1, :], xp.minimum(places, columns[1, :]) % (ids.shape[0] - 1)",
        "test_batches.py",
    ),
    Mutation(
        "tail of the text dropped",
        "text/batches.py",
        "start + targets * b // streams",
        "start + targets // streams * b",
        "test_batches.py",
    ),
    Mutation(
        "a sequence read beyond its end",
        "text/batches.py",
        "xp.where(inside, xp.astype(found, xp.int64), 0)",
        "xp.astype(ids[places % ids.shape[0]], xp.int64)",
        "test_batches.py::test_windows_are_what_a_loop_over_the_columns_gives",
    ),
    Mutation(
        "mask a step late",
        "text/batches.py",
        "xp.where(inside[1:, :], ones, 0.0)",
        "xp.where(inside[:-1, :], ones, 0.0)",
        "test_batches.py::test_windows_are_what_a_loop_over_the_columns_gives",
    ),
    Mutation(
        "the whole text put on the device for each batch",
        "text/batches.py",
        "batch(there, put(window.columns)",
        "batch(put(ids, 'int32'), put(window.columns)",
        "test_training.py::test_a_text_that_fits_travels_once",
    ),
    Mutation(
        "a text put on a device that has no room for it",
        "text/batches.py",
        " or len(ids) * small.itemsize > backend.room():",
        ":",
        "test_training.py::test_a_text_that_fits_travels_once",
    ),
    Mutation(
        "columns that are read from a file taken for each other",
        "text/batches.py",
        "+ np.cumsum(counts) - counts",
        "+ np.cumsum(counts) - counts[0]",
        "test_batches.py::test_an_epoch_may_come_from_a_file",
    ),
    Mutation("a text that takes the whole device", "backend.py", "int(free) // 4", "int(free)", "test_backend.py::test_room"),
    Mutation(
        "checksums not looked at",
        "run/checkpoint.py",
        "if files.fingerprint(data) != listed[name]:",
        "if False:",
        "test_checkpoint.py::test_every_flipped_bit_is_noticed",
    ),
    Mutation(
        "manifest written in any way",
        "run/contents.py",
        "if to_json(value) != raw:",
        "if False:",
        "test_contents.py::test_a_manifest_is_as_it_was_written_to_the_byte",
    ),
    Mutation(
        "another format read",
        "run/contents.py",
        'if value["format"] != FORMAT or type(value["format"]) is not int:',
        "if False:",
        "test_checkpoint.py::test_another_format_is_told",
    ),
    Mutation(
        "links followed",
        "run/files.py",
        "os.lstat(path)",
        "os.stat(path)",
        "test_checkpoint.py::test_a_file_that_is_none_is_named",
    ),
    Mutation(
        "files of any size read",
        "run/files.py",
        "if not least <= size <= most:",
        "if size < least:",
        "test_files.py::test_a_file_of_the_size",
    ),
    Mutation(
        "file elsewhere in a manifest",
        "run/contents.py",
        "if name not in MODEL + RUN:",
        "if False:",
        "test_contents.py::test_a_manifest_lists_no_other_files",
    ),
    Mutation(
        "weights of any size read",
        "run/checkpoint.py",
        'contents.check_size(listed[name]["bytes"], parameters)',
        "pass",
        "test_checkpoint.py::test_a_forged_size",
    ),
    Mutation(
        "JSON of any size read",
        "run/checkpoint.py",
        'if listed[name]["bytes"] > most:',
        "if False:",
        "test_checkpoint.py::test_a_forged_size",
    ),
    Mutation(
        "more than there is memory read",
        "run/checkpoint.py",
        "if size > environment.physical():",
        "if False:",
        "test_checkpoint.py::test_a_forged_size",
    ),
    Mutation(
        "headers of any size parsed",
        "run/contents.py",
        'if int.from_bytes(data[:8], "little") > LARGEST_HEADER:',
        "if False:",
        "test_contents.py::test_tensors_are_looked_at",
    ),
    Mutation(
        "lists not counted",
        "run/files.py",
        '> most:\n        raise Unusable(f"holds',
        '> 10**9:\n        raise Unusable(f"holds',
        "test_strangers.py::test_a_bomb",
    ),
    Mutation(
        "brackets in strings counted",
        "run/files.py",
        '_STRING.sub(b"", data)',
        "data",
        "test_checkpoint.py::test_brackets_in_texts",
    ),
    Mutation(
        "a reason of many lines",
        "run/files.py",
        'character if character.isprintable() else " "',
        "character",
        "test_files.py::test_a_reason_is_one_short_line",
    ),
    Mutation(
        "numbers that are not finite",
        "run/contents.py",
        "if not all(math.isfinite(bound)",
        "if False and not all(math.isfinite(bound)",
        "test_checkpoint.py::test_tensors_of_another_model",
    ),
    Mutation(
        "arrays of any shape",
        "run/contents.py",
        "if array.shape != shape or",
        "if",
        "test_checkpoint.py::test_tensors_of_another_model",
    ),
    Mutation(
        "true for 1",
        "run/contents.py",
        "type(value) in (int, float)",
        "isinstance(value, int | float)",
        "test_contents.py::test_what_is_no_number",
    ),
    Mutation(
        "counts of any kind",
        "run/contents.py",
        "type(number) is not kind or ",
        "",
        "test_checkpoint.py::test_a_forged_configuration",
    ),
    Mutation(
        "rows with anything else in them",
        "run/contents.py",
        "row.keys() <= {*ROW, *MEASURED}",
        "True",
        "test_checkpoint.py::test_a_forged_progress",
    ),
    Mutation(
        "states of another batch",
        "run/preparation.py",
        "elif not _fit(task, state):",
        "elif False:",
        "test_strangers.py::test_states_that",
    ),
    Mutation(
        "Fortran order saved as it is",
        "run/checkpoint.py",
        'np.asarray(array, order="C")',
        "np.asarray(array)",
        "test_checkpoint.py::test_every_layout",
    ),
    Mutation(
        "files not on the disk",
        "run/files.py",
        "os.fsync(file.fileno())",
        "pass",
        "test_checkpoint.py::test_the_files_are_on_the_disk",
    ),
    Mutation(
        "folder not on the disk",
        "run/files.py",
        "_fsync_folder(partial)",
        "pass",
        "test_checkpoint.py::test_the_files_are_on_the_disk",
    ),
    Mutation(
        "folder written where it will be",
        "run/files.py",
        "    partial = temporary(folder)\n    try:",
        "    partial = folder\n    try:",
        "test_files.py::test_a_folder_is_there_whole",
    ),
    Mutation(
        "file written where it is",
        "run/files.py",
        "    partial = temporary(path)\n    try:\n        _write(partial, data)\n        os.replace(partial, path)",
        "    partial = temporary(path)\n    try:\n        path.write_bytes(data)",
        "test_files.py::test_a_file_is_replaced_whole",
    ),
    Mutation(
        "half of a text added",
        "run/files.py",
        "data = data[file.write(data) :]",
        "file.write(data)\n            break",
        "test_files.py::test_a_disk_that_takes_a_part",
    ),
    Mutation(
        "parent that is a file",
        "run/files.py",
        "except FileExistsError:  # it",
        "except ZeroDivisionError:  # it",
        "test_checkpoint.py::test_a_folder_that_cannot_be_made",
    ),
    Mutation("no lock", "run/folder.py", "        lock.acquire()\n", "        pass\n", "test_folder.py::test_a_second_writer"),
    Mutation(
        "the best one goes",
        "run/folder.py",
        "if path.name != name(best):",
        "if True:",
        "test_folder.py::test_the_newest_and_the_best_stay",
    ),
    Mutation(
        "all stay",
        "run/folder.py",
        "steps(folder)[most:]",
        "steps(folder)[99:]",
        "test_folder.py::test_the_newest_and_the_best_stay",
    ),
    Mutation(
        "old ones removed file by file",
        "run/folder.py",
        "path.rename(aside)\n                shutil.rmtree(aside, ignore_errors=True)\n    return",
        "shutil.rmtree(path)\n    return",
        "test_folder.py::test_a_failure_at_any_call",
    ),
    Mutation(
        "newest by its letters",
        "run/folder.py",
        'key=lambda path: int(path.name.removeprefix("step-"))',
        "key=lambda path: path.name",
        "test_folder.py::test_numbers_and_not_letters",
    ),
    Mutation(
        "best to go on from",
        "run/folder.py",
        "best = None if run else _pointed(",
        "best = _pointed(",
        "test_folder.py::test_of_a_run_the_best",
    ),
    Mutation(
        "links to links followed",
        "run/folder.py",
        " and not beside.is_symlink() else",
        " else",
        "test_folder.py::test_links_that_lead_elsewhere",
    ),
    Mutation(
        "links anywhere followed",
        "run/folder.py",
        "if STEP.fullmatch(target) else None",
        "if target else None",
        "test_folder.py::test_links_that_lead_elsewhere",
    ),
    Mutation(
        "named links anywhere followed",
        "run/folder.py",
        "(path.is_symlink() or not os.path.isfile(path / MANIFEST))",
        "not os.path.isfile(path / MANIFEST)",
        "test_folder.py::test_links_that_lead_elsewhere",
    ),
    Mutation(
        "passed over in silence",
        "run/folder.py",
        'warnings.warn(f"{problem}; {candidate.name} is used instead", CheckpointWarning, stacklevel=2)',
        "pass",
        "test_folder.py::test_what_does_not_verify",
    ),
    Mutation(
        "damaged ones left in place",
        "run/folder.py",
        "        path.rename(next(other",
        "        (next(other",
        "test_folder.py::test_what_was_half_written",
    ),
    Mutation("left-overs left", "run/folder.py", "files.sweep(path)", "pass", "test_folder.py::test_what_was_half_written"),
    Mutation(
        "the optimizer's memory begins anew",
        "run/training.py",
        "remembered = optimizers.State(*(put(memory[field]) for field in optimizers.State._fields))",
        "remembered = optimizers.start(theta)",
        "test_resume.py::test_what_an_optimizer_remembers",
    ),
    Mutation(
        "states lost on the way to the disk",
        "run/training.py",
        "if memory.keys() > set(optimizers.State._fields):",
        "if False:",
        "test_resume.py::test_a_run_can_be_stopped_after_any_step",
    ),
    Mutation(
        "an epoch begun again",
        "run/preparation.py",
        "Position(now.epoch, now.batch))",
        "Position(now.epoch, 0))",
        "test_resume.py::test_a_run_can_be_stopped_after_any_step",
    ),
    Mutation(
        "the schedule begun again",
        "run/preparation.py",
        "saved.memory or {}, now.step, Position",
        "saved.memory or {}, 0, Position",
        "test_resume.py::test_a_run_in_sessions",
    ),
    Mutation(
        "numbers between two rows forgotten",
        "run/session.py",
        "losses=(*was.losses, *losses),",
        "losses=tuple(losses),",
        "test_resume.py::test_the_numbers_between_two_rows",
    ),
    Mutation(
        "patience begun again",
        "run/preparation.py",
        "now = saved.progress or BEGINNING",
        "now = (saved.progress or BEGINNING)._replace(waited=0)",
        "test_resume.py::test_patience_does_not_begin_anew",
    ),
    Mutation(
        "a changed text let through",
        "run/preparation.py",
        "if not changed_text:",
        "if False:",
        "test_resume.py::test_a_text_that_changed",
    ),
    Mutation(
        "what was best on another text",
        "run/preparation.py",
        "batch=0, best=None, waited=0)",
        "batch=0)",
        "test_resume.py::test_what_was_best_on_another_text",
    ),
    Mutation(
        "settings of a run changed",
        "run/trainer.py",
        'if name not in ANEW and not (name == "out" and not in_place):',
        "if False:",
        "test_resume.py::test_a_run_goes_on_as_it_was_begun",
    ),
    Mutation(
        "metrics of a killed session kept",
        "run/folder.py",
        "    rewrite(folder, history)\n",
        "",
        "test_resume.py::test_a_half_written_history",
    ),
    Mutation(
        "a damaged checkpoint ends all",
        "run/folder.py",
        "problems.append(error)\n            continue",
        "raise",
        "test_resume.py::test_a_damaged_checkpoint_is_passed_over",
    ),
    Mutation(
        "left-overs of a killed session kept",
        "run/folder.py",
        "files.sweep(path)",
        "pass",
        "test_killed.py::test_three_kills",
    ),
    Mutation(
        "a signal that is not saved at",
        "run/session.py",
        "saving = due.saved or bool(now.ended) or is_best",
        "saving = due.saved or is_best",
        "test_signals.py::test_a_signal_saves",
    ),
    Mutation(
        "a second Ctrl-C that waits",
        "run/signals.py",
        "if len(arrived) > 1:",
        "if False:",
        "test_signals.py::test_a_second_ctrl_c_in_a_program",
    ),
    Mutation(
        "Ctrl-C in the imports",
        "__main__.py",
        "signal.signal(signal.SIGINT, leave)",
        "pass",
        "test_signals.py::test_ctrl_c_where_an_exception_is_ignored",
    ),
    Mutation(
        "a bad update made all the same",
        "run/training.py",
        "xp.where(alive, theta, state.theta)",
        "theta",
        "test_full_disk.py::test_the_first_gradient",
    ),
    Mutation(
        "no gradient handed to the piece of steps before",
        "nn/pieces.py",
        "held.pop(), _widened(dstart, piece.width))",
        "held.pop(), None)",
        "test_pieces.py::test_loss_gradient_and_states",
    ),
    Mutation(
        "lstm: no gradient from the cell state after",
        "nn/lstm.py",
        "*(dafter or State(zero, zero))",
        "*(dafter._replace(c=zero) if dafter else State(zero, zero))",
        "test_cells.py::test_backward_from_the_state_after",
    ),
    Mutation(
        "a mean of each piece of steps",
        "nn/pieces.py",
        "own_keep, count, dafter)",
        "own_keep, None, dafter)",
        "test_pieces.py::test_loss_gradient_and_states",
    ),
    Mutation(
        "a mean of each piece of columns",
        "nn/pieces.py",
        "own_y, own_mask, count)",
        "own_y, own_mask)",
        "test_pieces.py::test_columns_that_are_over",
    ),
    Mutation(
        "initial states forgotten by the first piece of steps",
        "nn/pieces.py",
        "None if states is None and piece.first == 0 else now",
        "now",
        "test_pieces.py::test_two_layers_of_new_texts",
    ),
    Mutation(
        "all states kept behind the last one",
        "nn/pieces.py",
        "held.append(None)",
        "held.append(forward(piece, starts[-1]))",
        "test_pieces.py::test_memory_grows_with_the_root",
    ),
    Mutation(
        "every state stored in training",
        "run/training.py",
        "every = task.settings.recompute_every\n    if task",
        "every = None\n    if task",
        "test_pieces.py::test_a_run_that_recomputes",
    ),
    Mutation(
        "a gradient not looked at",
        "run/session.py",
        "math.isfinite(loss) and math.isfinite(norm)",
        "math.isfinite(loss)",
        "test_full_disk.py::test_the_first_gradient",
    ),
    in_a_twin("bias left out for tokens", "cells", "= Wax[j, i] + b[j]", "= Wax[j, i]", "vanilla_run"),
    in_a_twin("the last two rows of four not multiplied", "product", "if rows % 4 >= 2:", "if rows % 4 > 2:", "linear_affine"),
    in_a_twin("the last block of rows alone", "product", "add or start > 0", "add", "linear_affine_backward"),
    in_a_twin("the last block of steps alone", "cells", "add = t + steps < T", "add = False", "gru_run_backward"),
    Mutation(
        "the norm of a matrix taken for its spectral radius",
        "nn/arrays.py",
        "xp.matmul(W, W)",
        "xp.matmul(W, W.T)",
        "test_arrays.py::test_the_spectral_radius",
    ),
    Mutation(
        "the spectral radius of the first gate alone",
        "nn/model.py",
        "range(0, layer.Waa.shape[0], H)",
        "range(0, H, H)",
        "test_report.py::test_the_spectral_radii_are_those",
    ),
    Mutation(
        "texts written by twins that pack the weights for each character",
        "run/twins.py",
        'if backend.name == "numpy":\n            fused.stop()\n',
        "",
        "test_twins.py::test_texts_are_written_without",
    ),
    in_a_twin(
        "a sum written over what is beside it",
        "product",
        "C if M % ROWS == 0 and N == padded(N, C) else",
        "C if M else",
        "gradient_whole",
    ),
    in_a_twin("a gradient from after the last step lost", "cells", "dc_after.copy()", "0.0 * dc_after", "lstm_run_backward"),
    in_a_twin(
        "second moment of what is not squared", "rules", "(d[i] * d[i])\n        new", "d[i]\n        new", "optimizers_moments"
    ),
    Mutation(
        "several updates: states of another text",
        "run/updates.py",
        "None if window.start else states",
        "states",
        "test_updates.py::test_many_at_a_time",
    ),
    Mutation(
        "several updates: the same dropout for all",
        "run/updates.py",
        "window.columns.shape[1], state.step + i)",
        "window.columns.shape[1], state.step)",
        "test_updates.py::test_many_at_a_time",
    ),
    Mutation(
        "several updates: the rate of the first for all",
        "run/updates.py",
        "[rate_at(task, state.step + i)",
        "[rate_at(task, state.step)",
        "test_updates.py::test_many_at_a_time",
    ),
    Mutation(
        "several updates: a bad one made",
        "run/updates.py",
        "if not (math.isfinite(loss) and math.isfinite(norm)):",
        "if False:",
        "test_updates.py::test_an_update_that_fails",
    ),
    Mutation(
        "several updates: those after a bad one made",
        "run/updates.py",
        "if len(group) == 1 or not state.alive:",
        "if len(group) == 1:",
        "test_updates.py::test_nothing_more_is_learnt",
    ),
    Mutation(
        "several updates: lost with an exception",
        "run/updates.py",
        "  # what was learnt until then is not lost with it\n        error = problem\n",
        "\n        raise\n",
        "test_updates.py::test_an_exception_loses",
    ),
    Mutation(
        "a window without padding one step late",
        "text/batches.py",
        "return found[:-1, :], found[1:, :], ones",
        "return found[1:, :], found[1:, :], ones",
        "test_batches.py",
    ),
    Mutation(
        "a measurement passed over",
        "run/agenda.py",
        "periods = plan.evaluate_every, plan.checkpoint_every,",
        "periods = plan.checkpoint_every,",
        "test_updates.py::test_nothing_due_is_passed_over",
    ),
    in_a_twin(
        "a layer whose states begin where another's do",
        "whole",
        "inputs[layer], before[layer]\n",
        "inputs[layer], before[0]\n",
        "gradient_whole",
    ),
    in_a_twin(
        "nothing comes back from the steps after", "whole", "dafter if dafter.size else", "before if 0 else", "gradient_piece"
    ),
    in_a_twin("no gradient of the initial states", "whole", "        if fresh:\n", "        if not fresh:\n", "gradient_whole"),
    in_a_twin("dropout in one direction alone", "whole", "dropped(da, keep, layer)", "da", "gradient_whole"),
    in_a_twin(
        "biases in each other's places",
        "whole",
        "enter(d, end + own.size, db), dban)",
        "enter(d, end + own.size, dban), db)",
        "gradient_whole",
    ),
    in_a_twin(
        "a panel left out on the way back", "product", "count - 1 - i if back", "max(0, count - 2 - i) if back", "vanilla_run"
    ),
    in_a_twin("NaN taken for a small number", "lanes", 'ordered("<", x', 'unordered("<", x', "vanilla_run", "not_finite"),
    Mutation(
        "twins: a whole vector written at the end of a row",
        "fused/lanes.py",
        'b.icmp_signed(">=", left, ir.IntType(64)(value.type.count))',
        "ir.IntType(1)(1)",
        "test_fused.py::beyond_the_arrays and float64",
    ),
    in_a_twin(
        "the cache is written over",
        "cpu",
        "c, gates.copy(), *after",
        "c, gates, *after",
        "lstm_run_backward",
        "layout and plain",
    ),
    in_a_twin(
        "the sums of the gates and of the candidate in the same rows",
        "cells",
        "gather(n, p, 2 * H,",
        "gather(n, p, H,",
        "gru_run_backward",
    ),
    in_a_twin(
        "arrays taken as if they were contiguous",
        "cpu",
        "and not a.flags.carray",
        "and False",
        "linear_affine",
        "layout and strided",
    ),
    Mutation(
        "twins: read beyond the end",
        "fused/product.py",
        "W[k, begin + j] if begin + j < N else 0",
        "W[k, begin + j]",
        "test_fused.py::beyond_the_arrays and float64",
    ),
    Mutation(
        "twins: a norm that is no number leaves the gradient alone",
        "fused/rules.py",
        "d if norm[()] <= limit else",
        "d if not norm[()] > limit else",
        "test_fused.py::whose_norm_is_no_number and float64",
    ),
    Mutation(
        "twins: damaged code used",
        "fused/compiling.py",
        "if hashlib.sha256(data).digest() == checksum else None",
        "",
        "test_compiling.py::test_code_of_numba_that_looks_whole",
    ),
    Mutation(
        "twins: those of a run stay",
        "run/trainer.py",
        "stack.enter_context(fused.restored())\n        if settings.out",
        "if settings.out",
        "test_twins.py::test_after_a_run",
    ),
    Mutation(
        "twins: going on without them is not told",
        "run/preparation.py",
        "    twins.compare(saved.record, backend)\n",
        "",
        "test_twins.py::test_a_run_that_goes_on_in_another_way",
    ),
    Mutation(
        "twins: what a twin cannot do is not done",
        "fused/__init__.py",
        "if result is not NotImplemented:",
        "if True:",
        "test_twins.py::where_a_twin_cannot",
    ),
    Mutation(
        "kernels: more blocks than can run at a time",
        "fused/layouts.py",
        "if cluster else limits.processors // G",
        "if cluster else batch",
        "test_cuda_source.py::a_layout_keeps",
    ),
    in_a_kernel("blocks do not wait for each other", "unsigned(step * G)) idle();", "unsigned(step)) idle();"),
    in_a_kernel(
        "a block's own threads do not wait",
        "        __syncthreads();\n        if (G > 1 && tid == 0) {",
        "        if (G > 1 && tid == 0) {",
        "lstm-50-12",
    ),
    in_a_kernel("sums of only one warp", "total += q[(i * R + row) * M + output];", ";", "lstm-33-20"),
    in_a_kernel("lanes give the wrong half", "upper ? s[i] : s[i + left], keep", "upper ? s[i + left] : s[i], keep", "gru-7-5"),
    in_a_kernel("last group counts columns that are not there", "B - column < R ? B - column : R", "R", "vanilla-33-20"),
    in_a_kernel("units beyond the last one", " && unit + offset < H", ""),
    in_a_kernel(
        "blocks of a cluster write where others still read", "in_block(next, block)", "in_block(x, block)", "gru-50-20"
    ),
    in_a_kernel("a block gives to itself alone", "in_block(next, block)", "in_block(next, blockIdx.x % G)", "gru-50-20"),
    in_a_kernel(
        "tanh: slope before the step", "after = a[(at + B) * H + unit]", "after = a[at * H + unit]", "vanilla-33", "backward"
    ),
    in_a_kernel("what forward left at another step", "size_t(t - 1) * B", "size_t(t) * B", "lstm-33-20", "backward"),
    in_a_kernel("gru: reset gate left out of dq", "d * (slope * was.r)", "d * slope", file="backward"),
    in_a_kernel("gru: nothing carried by the update gate", "direct[e] = d * was.update", "direct[e] = 0", file="backward"),
    in_a_kernel("lstm: cell not carried by the forget gate", "cell[e] = dc * was.f", "cell[e] = dc", "lstm-33-20", "backward"),
    in_a_kernel(
        "lstm: gradient after the last step left out", "cell[e] = dc_next[place]", "cell[e] = 0", "lstm-33-20", "backward"
    ),
    Mutation(
        "micro-batches: each with a mean of its own",
        "run/training.py",
        "task.read(own), begun, keep, count, executor",
        "task.read(own), begun, keep, None, executor",
        "test_shares.py::test_the_updates_are_those",
    ),
    Mutation(
        "micro-batches: dropout of other columns",
        "run/training.py",
        "keep = tuple(put(mask[columns])",
        "keep = tuple(put(mask[: len(columns)])",
        "test_shares.py::test_the_updates_are_those",
    ),
    Mutation(
        "micro-batches: states of other columns",
        "run/shares.py",
        "order = np.argsort(np.concatenate([*(columns for columns, _ in parts), over]))",
        "order = np.arange(width)",
        "test_shares.py::test_the_updates_are_those",
    ),
    Mutation(
        "shares: added up one after the other, however many there are",
        "run/sums.py",
        "step = count // (count & -count)",
        "step = count",
        "test_together.py::test_each_has_its_columns",
    ),
    Mutation(
        "shares: the first half of them twice",
        "run/sums.py",
        "first + step, 2 * step",
        "first, 2 * step",
        "test_shares.py::test_the_updates_are_those",
    ),
    Mutation(
        "processes: to go on from the states of others",
        "run/shares.py",
        "states[:, :, among.rank :: among.size, :]",
        "states[:, :, : len(range(among.rank, states.shape[2], among.size)), :]",
        "test_together.py::test_each_has_its_columns",
    ),
    Mutation(
        "processes: states gathered one process after the other",
        "run/shares.py",
        "found[:, :, number :: among.size, :] = part",
        "found[:, :, number * part.shape[2] : (number + 1) * part.shape[2], :] = part",
        "test_together.py::test_each_has_its_columns",
    ),
    Mutation(
        "processes: those whose columns are over, too",
        "run/training.py",
        "sorted({which % among.size for which in every})",
        "list(range(min(among.size, len(every))))",
        "test_together.py::test_each_has_its_columns",
    ),
    Mutation(
        "processes: sums of those that have no part",
        "run/ranks.py",
        "if number in present else None",
        "",
        "test_together.py::test_a_total",
    ),
    Mutation(
        "processes: an end of one is not told to the others",
        "run/ranks.py",
        "ranks.comm.Abort(",
        "(lambda code: None)(",
        "test_together.py::test_an_end_of_one",
    ),
    Mutation(
        "processes: the others begin though the first one cannot",
        "run/ranks.py",
        "if problem is None and ranks.rank:",
        "if ranks.rank:",
        "test_together.py::test_one_after_another",
    ),
    Mutation(
        "replays: the row of an update that was before",
        "run/replays.py",
        "at[...] = at + 1",
        "at[...] = at",
        "test_replays.py::test_recorded_updates",
    ),
    Mutation(
        "replays: states of a bad update gone",
        "run/replays.py",
        "xp.where(alive, new_states, states)",
        "new_states",
        "test_replays.py::test_after_a_bad_update",
    ),
    Mutation(
        "replays: targets beyond the window",
        "run/replays.py",
        "if steps % ROUND and bool((ends - starts <= steps).all()):",
        "if steps % ROUND:",
        "test_replays.py::test_shapes_are_few",
    ),
    Mutation(
        "replays: arrays that were given change",
        "run/replays.py",
        "copy(desk.theta), memory, after",
        "desk.theta, memory, after",
        "test_replays.py::test_states_that_were_given",
    ),
    Mutation(
        "replays: rows prepared for other updates",
        "run/replays.py",
        "desk.next.step == step and",
        "",
        "test_replays.py::test_recorded_updates",
    ),
    Mutation(
        "recordings: a result that the next call changes",
        "run/recording.py",
        "return _copy(found)",
        "return found",
        "test_recording.py::test_a_recorded",
    ),
    Mutation(
        "recordings: the arrays of the call before",
        "run/recording.py",
        "        _fill(given, trees)\n",
        "",
        "test_recording.py::test_a_recorded",
    ),
    Mutation(
        "held out: the first columns again",
        "run/shares.py",
        "columns[:, first::count]",
        "columns[:, ::count]",
        "test_validation.py::test_every_target",
    ),
    Mutation(
        "held out: a process with one part of several",
        "run/validation.py",
        "range(among.rank, count, among.size)",
        "[among.rank]",
        "test_validation.py::test_processes",
    ),
    Mutation(
        "held out: what the others measured is left out",
        "run/validation.py",
        "ranks.each(among, found)",
        "[found]",
        "test_validation.py::test_processes",
    ),
    Mutation(
        "panel: among several processes",
        "cli/training.py",
        " or ranks.launched() > 1",
        "",
        "test_panel.py::test_there_is_none",
    ),
    Mutation(
        "check: an error that is no number passes",
        "run/checking.py",
        "self.error <= self.allowed",
        "not self.error > self.allowed",
        "test_check.py::test_numbers",
    ),
    Mutation(
        "check: the twins of single layers left out",
        "run/checking.py",
        "    if compiled:\n        got",
        "    if not compiled:\n        got",
        "test_check.py::test_a_wrong_twin",
    ),
    Mutation(
        "check: compared with itself",
        "run/checking.py",
        '"gradient"), loss_and_gradient(large, backend)))',
        '"gradient"), loss_and_gradient(large, backends.select("numpy", "float64"))))',
        "test_check.py::test_single_precision",
    ),
    Mutation(
        "onnx: the blocks of a GRU in our order",
        "run/onnx_graph.py",
        '"gru": (1, 0, 2)',
        '"gru": (0, 1, 2)',
        "test_onnx.py::test_logits",
    ),
    Mutation(
        "onnx: the bias inside of the reset product outside",
        "run/onnx_graph.py",
        "[ordered(params.b), ordered(second)]",
        "[ordered(params.b + second), ordered(0 * second)]",
        "test_onnx.py::test_logits",
    ),
    Mutation(
        "page: the script ended by a name",
        "run/player.py",
        '.replace("<", "\\\\u003c")',
        "",
        "test_page.py::test_nothing_in_a_model",
    ),
    Mutation(
        "inspect: nothing comes from the layer above",
        "inspect.py",
        "above = zero if dx is None else dx[0, ...]",
        "above = zero",
        "test_inspect.py::finite_differences",
    ),
    Mutation(
        "inspect: the state after instead of the one before",
        "inspect.py",
        "np.stack([array[at, 0], array[at + 1, 0]]",
        "np.stack([array[at + 1, 0], array[at + 1, 0]]",
        "test_inspect.py::finite_differences or test_the_spectrum",
    ),
    Mutation(
        "inspect: a gradient from before the first step",
        "inspect.py",
        " * there\n",
        "\n",
        "test_inspect.py::finite_differences",
    ),
    Mutation(
        "exchange: a bias inside of the reset product is added outside of it",
        "run/exchange.py",
        "np.concatenate([b[:n], first[n:]])",
        "b",
        "test_exchange.py::test_two_biases",
    ),
    Mutation(
        "exchange: the bias inside of the reset product stays at home",
        "run/exchange.py",
        "second[-len(p.ban) :] = p.ban",
        "pass",
        "test_exchange.py::test_what_is_exported_comes_back",
    ),
    Mutation(
        "exchange: symbols stay in the order of another program",
        "run/exchange.py",
        ", key=symbols.__getitem__",
        "",
        "test_exchange.py::test_a_network_with_two_biases",
    ),
    Mutation(
        "exchange: arrays in another order are scrambled",
        "run/exchange.py",
        'np.asarray(array, order="C")',
        "array",
        "test_exchange.py::test_arrays_in_another_order",
    ),
    Mutation(
        "exchange: a file is written over",
        "run/exchange.py",
        "os.path.lexists(target)",
        "False",
        "test_exchange.py::test_nothing_is_written_over",
    ),
    Mutation(
        "exchange: what a header claims is asked of the memory",
        "run/exchange.py",
        "whole > environment.physical()",
        "False",
        "test_exchange.py::test_no_memory",
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
    switch = {"BPTT_FUSED": str(int(file in TWINS)), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, "PYTHONPATH": str(source), **switch}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > 1:  # not a verdict: nothing collected, say; less than 0: killed by what it did to memory
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
