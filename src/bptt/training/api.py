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
    out: FilePath | None = None,
    from_: FilePath | None = None,
    new_symbols: NewSymbols = "error",
    backend: BackendName = "auto",
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

    The text is a path or the name of a built-in text (dinosaurs, python-help); a str with a newline in it is the text itself,
    as are bytes, and "-" is standard input. The path of a folder, or a pattern such as texts/*.txt, is that of all its files,
    each of which is a text of its own; so is each `pathlib.Path` of a list. Another iterable gives lines, or whole texts if
    one has a newline in it. Without a text it is the one that `config` names, or the dinosaurs.

    The model that is returned is the best one: the one with the lowest validation loss. Ctrl-C stops the run after the next
    update; so does a loss that becomes NaN or infinite, with a TrainingWarning. After any other exception the weights are
    saved in the folder of the run before the exception is raised again. If the model cannot be saved, it is still returned,
    with a TrainingWarning and the reason in its record.

    On Linux with glibc, the process keeps the memory that it frees from then on (`bptt.system.keep_freed_memory`).

    Args:
        text: What to learn from; see above.
        report: Function that gets each message as a str; None for silence.
        config: TOML file with settings and a text; what is passed beside it takes precedence.
        resume: Run folder to continue exactly as if it had never stopped, or one checkpoint to continue in a new run.
        changed_text: Resume even if the text or the validation file is no longer the same.
        out: New folder for the run, with checkpoints to resume from. By default everything stays in memory.
        from_: Run or checkpoint whose weights and vocabulary to start from in a new run (fine-tuning).
        new_symbols: Characters that the model to start from lacks: an error, add them to its vocabulary, or skip them.
        backend: Array library; auto is CuPy if a CUDA device responds, else NumPy; strict is array-api-strict, for tests.
        require_backend: Raise an error, instead of falling back to NumPy, if the backend cannot be used.
        dtype: Floating-point type of weights and arithmetic.
        cell: Recurrent cell: tanh (vanilla), gated recurrent unit, long short-term memory, or your own. Pass a module or file.
        hidden: Hidden size (units per layer); by default 64 to 320, more for longer texts.
        layers: Number of recurrent layers, one on top of the other.
        dropout: Fraction of units dropped in training, the same at every step; by default 0 to 0.5, by cell and text.
        init: Initialization of the recurrent weights.
        batch: Batch size, in lines or parallel pieces of a stream; by default 8 to 128, more for longer texts.
        length: Maximum number of steps to backpropagate through; by default 256 in lines, 64 in a stream.
        distributed: Train data-parallel with the processes that mpiexec or srun started; by default if there are any.
        micro_batches: Parts of a batch to accumulate gradients over: large batches in less memory, the same updates.
        recompute_every: Keep the states of one step in so many, recompute the rest (gradient checkpointing), or sqrt.
        nccl: With several processes, each on its own GPU, all-reduce gradients from device to device.
        graph: On a GPU, replay updates as CUDA graphs, captured once for each shape of batch.
        mode: Whether each line is a text of its own (names), each record of several lines, or all is one long text.
        separator: What stands between two records, texts of several lines that end by themselves, as in '\n---\n'.
        encoding: Encoding of the text, by its name in Python, as in cp1252, gb18030 or utf-16.
        glob: Which files of a folder to read, as in '*.py'; 'src/*.py' and 'src/**/*.py' are paths in the folder.
        vocabulary: What a token is: a character of the text, or a byte of its UTF-8 form.
        steps: Number of updates; by default one that suits the size of the text.
        epochs: Passes over the training text, instead of a number of steps.
        budget: Time for the whole command on this machine, as in 30s, 5m or 1.5h, instead of steps.
        optimizer: Update rule.
        learning_rate: Peak learning rate of the recurrent weights; by default one that suits the text and the optimizer.
        parametrization: Learning rates and first weights by the role of a tensor (mup), or alike for all (standard).
        schedule: How the learning rate falls after the warm-up; wsd keeps the peak for four fifths of the run, then falls.
        warmup: Number of updates in which the learning rate rises to its peak; by default 200, or a tenth of a short run.
        final_rate: Learning rate that the schedule falls towards, as a fraction of the peak; constant does not fall.
        beta1: Decay of the running mean of the gradient in adam; by default 0.9.
        beta2: Decay of the running mean of the squared gradient in adam; by default 0.999.
        weight_decay: Decoupled weight decay of the weight matrices in adam (AdamW); by default one that suits the text.
        average: Decay of the moving average (EMA) of the weights, which is measured, saved and sampled; 0 for none.
        clip_norm: Largest Euclidean norm of a gradient: larger ones are scaled down; 0 switches clipping off.
        seed: Seed of everything random but the validation split: initial weights, order of batches, dropout.
        split_seed: Seed of the validation split of lines: runs with the same one hold out the same lines.
        duplicates: Copies of a line: together on one side of the validation split, or drawn independently, as in earlier runs.
        validation: Validation set: the fraction of the text to hold out, 0 for none, or a file; by default a tenth, or less.
        evaluate_every: Steps from one evaluation on the validation set to the next; by default a tenth of the run.
        patience: Evaluations without a new best after which to stop (early stopping); by default training never stops early.
        checkpoint_every: Steps from one checkpoint to the next; by default after each evaluation. A new best is always saved.
        keep: Number of newest checkpoints to keep; the best one is kept too.
        stop_after: Pause after so many steps of this call. The run can be resumed.
        quiet: Report only the folder of the run, if it was not given.
        json: Report each event as a line of JSON.

    Raises:
        InputError: the text cannot be read or trained on, or a setting is unknown or out of its range.
        CheckpointError: there is nothing to resume or to start from.
        Diverged: the loss was not finite before there was anything to keep.
        OutOfMemory: the run needs more memory than there is.
    """
    raise NotImplementedError  # `implemented_by` calls `trainer.train` instead
