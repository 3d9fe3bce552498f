"""Names that the package does not use: a reader from the field would have to look them up.

`REPLACED` bans names of modules, functions, classes, fields, parameters and variables, some of them only in the modules where
they were misleading; `ALLOWED` lists fields, parameters and variables with another meaning. `VAGUE` bans words that name
nothing (`found`, `here`) as parameters and variables.
"""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import bptt

SOURCE = Path(bptt.__file__).parent
MODULES = sorted(".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py"))
CUDA = sorted(SOURCE.rglob("*.cu"))

# (modules, names, what they are called instead)
REPLACED = [
    ("*", "twin twins twinned fused", "kernel, accelerated"),
    ("*", "rehearse rehearsal", "warm_up"),
    ("*", "Piece", "Segment"),
    ("nn.*", "pieces cut every", "segments, split, segment_length"),
    ("*", "shares Share", "micro-batches"),
    ("train_step.*", "share parts", "micro-batch, num_micro_batches"),
    ("distributed.*", "sums added fitting", "pairwise_sum, round_up"),
    ("*", "Link", "AllReduce"),
    ("distributed.*", "links total wire between", "all_reduce, communicator, connect"),
    ("*", "Ranks", "ProcessGroup"),
    (
        "distributed.*",
        "parallel same each gathered first one_after_another",
        "broadcast, all_gather, gather, rank_0_then_others",
    ),
    ("distributed.*", "check_alike ending_together", "assert_same, abort_all_on_error"),
    ("training.*", "together begin prepared telling_all", "launch, init_process_group, setup_all, fail_on_all"),
    ("*", "Standing Tell", "LoopState, Reporter"),
    ("training.*", "session Run", "loop, RunContext"),
    ("*", "go_on carry_out", "resume, fit"),
    ("training.*", "ANEW", "metadata of the settings"),
    ("*", "agenda LOOK impatient", "intervals, SYNC_EVERY, out_of_patience"),
    ("*", "Plan plans", "Hyperparameters, defaults"),
    ("config.*", "Size choose", "Preset, resolve"),
    ("*", "preparation Ready", "setup, Prepared"),
    ("train_step.*", "Task State Trace memory alive culprit", "TrainTask, TrainState, StepMetrics, opt_state, first_nonfinite"),
    ("*", "Together in_turn", "Grouping, run_group"),
    ("train_step.*", "small", "fits_group"),
    ("*", "Desk recording replays", "GraphRunner, graph capture"),
    ("train_step.*", "Table Rows several finish", "StepInputs, HostInputs, run, record_metrics"),
    ("*", "choosing Choice", "sampling, SamplingOptions"),
    ("inference.*", "weights draw", "unnormalized_probabilities, inverse_cdf"),
    ("*", "Writing Ending", "GenerationState, StopCriteria, RNG_BLOCK"),
    ("inference.*", "note certain LANES", "update_finished, hold_back_stop, RNG_BLOCK"),
    ("checkpoint.*", "contents", "format"),
    ("*", "Taken Unsaved Unusable", "AlreadyExists, SaveError, InvalidFile"),
    ("*", "fingerprint sweep", "checksum, remove_leftovers"),
    ("files", "reason", "describe_os_error"),
    ("*", "taste", "sample_preview"),
    ("training.*", "heading line status plain say", "header, evaluation_line, progress_line, make_reporter, print_safe"),
    ("display.text", "say", "print_safe"),
    ("*", "held_out", "validation"),
    ("*", "readout", "output layer"),
    ("nn.*", "whole piece parted joined", "loss_and_grad, segment_loss_and_grad, unstack_states, stack_states"),
    ("nn.*", "strung transform pack unpack flat packing", "concatenate, tree_map, ravel, unravel, tree"),
    ("nn.*", "arrays outer total rows", "ops, outer_sum, bias_grad, flatten_time"),
    ("nn.*", "along moments rate rule rules", "sgd_update, adam_update, learning_rate_at, optimizer"),
    ("kernels.*", "layouts clusters compiling lanes readout rules vectors whole", "tiling, occupancy, jit, simd, gemm, loss"),
    ("kernels.*", "fits new recorder wires", "single_launch, cache_is_empty, graph_recorder"),
    ("kernels.*", "moments strung outer total", "adam_update, concatenate, outer_sum, bias_grad"),
    ("*", "obstacle", "unavailable_reason"),
    ("*", "exchange", "import, export, synchronisation or staging buffer"),
    ("*", "player", "web_page"),
]
# (modules, name, why a field, parameter or variable may have it)
ALLOWED = [
    ("kernels.*", "total", "a sum that a loop adds up"),
    ("kernels.cuda.tiling", "lanes", "the threads of a warp"),
    ("kernels.cuda.tiling", "clusters", "thread block clusters of CUDA"),
    ("nn.tree", "arrays", "the arrays of a tree"),
    ("training.launch", "prepared", "a `Prepared`"),
    ("training.resume", "prepared", "a `Prepared`"),
    ("training.trainer", "prepared", "a `Prepared`"),
    ("training.resume", "session", "an entry of `sessions` in environment.json"),
]
# Their replacements in CUDA sources: BlockContext, CellCache, load_relaxed, store_relaxed, publish, wait_for_peers, backoff,
# not_ready, POLL_FIRST, ON_CHIP and EMPTY.
REPLACED_IN_CUDA = {"Place", "Left", "look", "show", "give", "meet", "idle", "missing", "SCOUTS", "NEAR", "NOT_YET"}

VAGUE = {"told", "given", "found", "here", "own", "among", "whole", "some", "many"}


def definitions(module: str, source: str) -> Iterator[str]:
    """The names of a module, its functions, methods and classes, and its module-level constants."""
    yield module.removesuffix(".__init__").rpartition(".")[2]
    tree = ast.parse(source)
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from (
                node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            )


def stored_names(tree: ast.AST) -> Iterator[str]:
    yield from (node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))


def variables(source: str) -> Iterator[str]:
    """The names of all parameters and variables."""
    tree = ast.parse(source)
    yield from (node.arg for node in ast.walk(tree) if isinstance(node, ast.arg))
    yield from stored_names(tree)


def replaced_names(module: str, source: str) -> dict[str, str]:
    """The replaced names that a module defines, each with its replacement."""
    allowed = {name for modules, name, _ in ALLOWED if fnmatch(module, modules)}
    names = {name.lstrip("_") for name in variables(source)} - allowed
    names |= {name.lstrip("_") for name in definitions(module, source)}
    return {
        name: instead
        for modules, banned, instead in REPLACED
        if fnmatch(module, modules)
        for name in banned.split()
        if name in names
    }


def cuda_names(source: str) -> set[str]:
    """The replaced names in the code of a CUDA source."""
    code = re.sub(r"//.*|/\*(?s:.*?)\*/", "", source)
    return REPLACED_IN_CUDA & set(re.findall(r"\w+", code))


def vague_names(source: str) -> set[str]:
    """The vague names among the parameters and variables of a source."""
    return VAGUE & set(variables(source))


def source_of(module: str) -> str:
    return SOURCE.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_no_module_defines_a_replaced_name(module):
    assert not replaced_names(module, source_of(module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nn.twins", ""),
        ("nn.gru", "class Piece: pass"),
        ("nn.gru", "def f():\n    def _twin(): pass"),
        ("nn.segments", "def cut(): pass"),
        ("training.trainer", "ANEW: set[str] = set()"),
        ("files", "reason = str"),
        ("nn.gru", "def f(rate): pass"),
        ("nn.gru", "class Gates:\n    arrays: int"),
        ("nn.gru", "def f():\n    for piece in range(3): pass"),
        ("nn.tree", "def arrays(): pass"),
    ],
)
def test_a_replaced_name_is_reported(module, source):
    assert len(replaced_names(module, source)) == 1


def test_each_allowed_name_is_used():
    for modules, name, _ in ALLOWED:
        assert any(name in variables(source_of(module)) for module in MODULES if fnmatch(module, modules))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nn.gru", "class State: pass"),
        ("data.decoding", "def f():\n    cut = 1"),
        ("nn.tree", "def f(arrays): pass"),
    ],
)
def test_a_name_with_another_meaning_is_not_reported(module, source):
    assert not replaced_names(module, source)


@pytest.mark.parametrize("path", CUDA, ids=lambda path: path.name)
def test_no_cuda_source_uses_a_replaced_name(path):
    assert not cuda_names(path.read_text("utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_no_parameter_or_variable_has_a_vague_name(module):
    assert not vague_names(source_of(module))


def test_vague_names_are_those_of_parameters_and_variables():
    assert vague_names("def here(given): return [found for found in given.some if (own := found)]") == {"given", "found", "own"}
    assert vague_names("import told") == set()


def test_comments_of_cuda_sources_may_use_any_word():
    assert cuda_names("give(); // look\n/* show\nmeet */ idle();") == {"give", "idle"}
