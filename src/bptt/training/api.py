"""The public function `bptt.train`: every setting as a keyword that editors, type checkers and help() can see."""

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from bptt.backend import BackendName, DtypeName
from bptt.config.settings import Duplicates, Mode, NewSymbols, VocabularyName
from bptt.display import text as display
from bptt.inference.language_model import LanguageModel
from bptt.nn import initializers
from bptt.nn.cells import Cell, CellName
from bptt.nn.optimizers import OptimizerName
from bptt.nn.parametrization import Parametrization
from bptt.nn.schedules import ScheduleName
from bptt.nn.segments import RecomputeEvery
from bptt.training import trainer
from bptt.training.events import Callback

FilePath = str | os.PathLike[str]
Function = TypeVar("Function", bound=Callable[..., Any])


def implemented_by(implementation: Callable[..., Any]) -> Callable[[Function], Function]:
    """Replace the body of a function that only declares a signature and a docstring.

    The implementation gets the arguments that the caller passed, without the declared defaults: beside `config` and `resume`,
    leaving out a setting and passing its default are two different things.
    """

    def decorate(declaration: Function) -> Function:
        @functools.wraps(declaration)
        def call(*args: Any, **kwargs: Any) -> Any:
            return implementation(*args, **kwargs)

        return cast(Function, call)

    return decorate


@implemented_by(trainer.train)
def train(
    text: FilePath | bytes | Iterable[str | os.PathLike[str]] | None = None,
    *,
    report: Callable[[str], None] | None = display.print_safe,
    config: FilePath | None = None,
    resume: FilePath | None = None,
    changed_text: bool = False,
    callbacks: Iterable[Callback] = (),
    out: FilePath | None = None,
    from_: FilePath | None = None,
    new_symbols: NewSymbols = "error",
    backend: BackendName = "auto",
    device: str | None = None,
    require_backend: bool = False,
    dtype: DtypeName = "float32",
    cell: CellName | Cell = "gru",
    hidden: int | None = None,
    layers: int = 1,
    dropout: float | None = None,
    init: initializers.Kind = "uniform",
    batch: int | None = None,
    length: int | None = None,
    distributed: bool | None = None,
    micro_batches: int = 1,
    recompute_every: RecomputeEvery | None = None,
    nccl: bool = False,
    graph: bool = True,
    mode: Mode | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    glob: str = "*",
    vocabulary: VocabularyName = "characters",
    steps: int | None = None,
    epochs: float | None = None,
    budget: str | None = None,
    optimizer: OptimizerName = "adam",
    learning_rate: float | None = None,
    parametrization: Parametrization | None = None,
    schedule: ScheduleName = "cosine",
    warmup: int | None = None,
    final_rate: float = 0.02,
    beta1: float | None = None,
    beta2: float | None = None,
    weight_decay: float | None = None,
    average: float | None = None,
    clip_norm: float = 1.0,
    seed: int = 0,
    split_seed: int = 0,
    duplicates: Duplicates = "together",
    validation: float | FilePath | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    checkpoint_every: int | None = None,
    keep: int = 3,
    stop_after: int | None = None,
    quiet: bool = False,
    json: bool = False,
) -> LanguageModel:
    r"""Train a model on a text, as in `bptt.train("names.txt", cell="gru", hidden=128, seed=1)`.

    The text is a path or the name of a built-in text (dinosaurs, python-help). A str with a newline in it is the text itself,
    bytes are too, and "-" is standard input. A folder, or a pattern such as `texts/*.txt`, stands for all its files, each of
    which is a separate text. In a list, each `pathlib.Path` is a file or a folder; a list of str has lines, or records if one
    of them has a newline in it. By default the text is the one that `config` names, or else the dinosaurs.

    The model that is returned is the best one: the one with the lowest validation loss. Ctrl-C stops the run after the next
    update; so does a loss that becomes NaN or infinite, with a TrainingWarning. After any other exception the weights are
    saved in the folder of the run before the exception is raised again. If the model cannot be saved, it is still returned,
    with a TrainingWarning and the reason in its record.

    Each callback is called with a `bptt.Event` at the start, for each row of numbers and each checkpoint, and at the end. The
    weights are the same, bit for bit, as without callbacks. If a callback returns True, the run stops after that update and can
    be resumed. With several processes, process 0 calls its callbacks. In a notebook, the default report is a progress display.

    On Linux with glibc, the process keeps the memory that it frees from then on (`bptt.system.keep_freed_memory`).

    Args:
        text: The training text, in one of the forms above.
        report: Function that gets each message as a str; None for silence.
        config: TOML file with settings and a text; what is passed beside it takes precedence.
        resume: Run folder to continue exactly as if it had never stopped, or one checkpoint to continue in a new run.
        changed_text: Resume even if the text or the validation file is no longer the same.
        callbacks: Functions that get each `bptt.Event`; one that returns True for a row or a checkpoint stops the run.
        out: New folder for the run and its checkpoints. By default everything stays in memory.
        from_: Run or checkpoint whose weights and vocabulary a new run starts from (fine-tuning).
        new_symbols: Characters that the model to start from lacks: stop at them, add them to its vocabulary, or skip them.
        backend: Array library that does the computing; auto is CuPy if a CUDA device responds, else NumPy; strict is for tests.
        device: Device in the words of the array library, such as cuda:1, mps or an index. By default the one that it prefers.
        require_backend: Stop with an error if the backend cannot be used, instead of falling back to NumPy.
        dtype: Floating-point type of weights and arithmetic.
        cell: Recurrent cell, or the Python file of a cell of your own; vanilla is the plain tanh cell. Also a module.
        hidden: Hidden size: number of units per layer. By default 64 to 320, more for longer texts.
        layers: Number of recurrent layers.
        dropout: Fraction of units dropped in training, the same units at every time step.
            By default at most 0.5, less for longer texts; 0 for the cell vanilla.
        init: Initialization of the recurrent weights.
        batch: Batch size: number of lines, or of parallel pieces of a stream. By default 8 to 128, more for longer texts.
        length: Maximum number of time steps to backpropagate through. By default 256 for lines, else 64.
        distributed: Train data-parallel with the processes that mpiexec or srun started.
            By default on if there are several; False trains each by itself.
        micro_batches: Number of parts of a batch to accumulate gradients over: less memory, the same updates.
            Several processes share the parts, by default one each.
        recompute_every: Keep only every N-th state and recompute the others, to save memory (gradient checkpointing).
            By default all are kept; sqrt is the square root of the length.
        nccl: All-reduce gradients from GPU to GPU with NCCL, where each of several processes has its own GPU.
        graph: Replay updates as CUDA graphs, which is faster, on a GPU. On by default; False launches each kernel by itself.
        mode: Whether the text is a list of lines (such as names), of records of several lines each, or one long stream.
            By default detected from the text.
        separator: Text between two records, which are texts of several lines, as in '\n---\n'.
        encoding: Encoding of the text, by its name in Python, such as cp1252, gb18030 or utf-16.
        glob: Files of a folder to read, as in '*.py'. A pattern with a slash is a path in the folder.
        vocabulary: What a token is: a character of the text, or a byte of its UTF-8 form.
        steps: Number of updates. By default 500 to 5,000, more for longer texts.
        epochs: Number of passes over the training text, instead of a number of steps.
        budget: About how long the whole command takes, as in 30s, 5m or 1.5h, instead of a number of steps.
            A short trial on this machine chooses steps and hidden size.
        optimizer: Rule that updates the weights.
        learning_rate: Peak learning rate of the recurrent weights.
            By default 0.004 to 0.008 for adam, by the length of the text; one fixed value for each other optimizer.
        parametrization: Learning rates and initial weights by the role of each tensor (mup), or alike for all (standard).
            By default mup for adam, else standard.
        schedule: How the learning rate falls after the warm-up; wsd keeps the peak for 80 % of the run, then falls.
        warmup: Number of updates in which the learning rate rises to its peak. By default 200, or a tenth of a shorter run.
        final_rate: Learning rate at the end of the schedule, as a fraction of the peak. The schedule constant ignores it.
        beta1: Decay of the running mean of the gradient in adam. By default 0.9.
        beta2: Decay of the running mean of the squared gradient in adam. By default 0.999.
        weight_decay: Decoupled weight decay of the weight matrices in adam (AdamW).
            By default 0.1 to 1.2, less for longer texts.
        average: Decay of the moving average (EMA) of the weights, which is evaluated, saved and sampled; 0 for none.
            By default it is about as long as a tenth of the run.
        clip_norm: Maximum norm of the gradient; a larger one is scaled down to it; 0 for no clipping.
        seed: Seed of the initial weights, the order of batches and dropout.
        split_seed: Seed of the validation split of lines. Runs with the same seed hold out the same lines.
        duplicates: Copies of a line: together on one side of the validation split, or drawn independently.
        validation: Validation set: the fraction of the text to hold out, 0 for none, or a file or folder.
            By default 0.1, or less for texts over 1,000,000 characters.
        evaluate_every: Number of updates from one evaluation on the validation set to the next. By default a tenth of the run.
        patience: Number of evaluations without a new best after which to stop (early stopping).
            By default training never stops early.
        checkpoint_every: Number of updates from one checkpoint to the next.
            By default after each evaluation; a new best is always saved.
        keep: Number of newest checkpoints to keep; the best one is kept too.
        stop_after: Pause the run after this many updates of this call.
            The schedule still covers all steps, and the run can be resumed.
        quiet: Report only the folder of the run, and only if it was not given. Warnings and errors are still printed.
        json: Report each event as a line of JSON.

    Raises:
        InputError: the text cannot be read or trained on, or a setting is unknown or out of its range.
        CheckpointError: there is nothing to resume or to start from.
        Diverged: the loss was not finite before there was anything to keep.
        OutOfMemory: the run needs more memory than there is.
    """
    raise NotImplementedError  # `implemented_by` calls `trainer.train` instead
