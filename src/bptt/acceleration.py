"""The compiled twins of the maths in a run: loaded, called for the first time, and what is said of them."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from bptt import dispatch, kernels, system
from bptt.backend import Backend
from bptt.distributed import process_group
from bptt.distributed.process_group import ALONE, Ranks
from bptt.errors import KernelWarning
from bptt.nn import gradient, model, optimizers, tree


def load(backend: Backend) -> None:
    """Use what makes a run on this backend faster: twins, and on NumPy memory that is kept."""
    kernels.start(backend.name)
    if backend.name == "numpy":
        system.keep_memory()


@contextlib.contextmanager
def on_a_gpu(backend: Backend) -> Iterator[None]:
    """Use twins here if the backend is a GPU, where the functions of CuPy's own would wait for the host most of the time."""
    with dispatch.restored():
        if backend.name == "cupy":
            kernels.start(backend.name)
        yield


@contextlib.contextmanager
def for_sampling(backend: Backend) -> Iterator[None]:
    """Use twins here if the backend is a GPU, and none on a CPU: those would pack the weights anew for each character."""
    with on_a_gpu(backend):
        if backend.name == "numpy":
            kernels.stop()
        yield


def name(backend: Backend) -> str:
    """What compiled the twins that a run on this backend uses; nothing where it uses none."""
    return kernels.name() if backend.name in kernels.LIBRARIES else ""


def rehearse(config: model.Config, backend: Backend, among: Ranks = ALONE) -> None:
    """Compile, or find on disk, what every run calls; go on without twins, with a warning, where that fails.

    Where it fails in one of several processes, which all call this, none uses them: they would round in other ways.
    Gradients in pieces call more, which takes some seconds once.
    """
    if not name(backend):
        return
    small = model.Config(config.cell, 1, 1)
    params = tree.transform(backend.put, model.init(small, np.random.default_rng(0)))
    ids, mask = backend.put(np.zeros((1, 1), np.int64)), backend.put(np.ones((1, 1)))
    problem = ""
    try:
        model.forward(small, params, ids)
        theta = tree.pack(params)
        _, d, _ = gradient.whole(theta, small, ids, ids, mask, None, (), None)
        d, _ = optimizers.clip_by_norm(d, 1.0)
        optimizers.sgd(theta, d, optimizers.start(d), 0.1)
        optimizers.adam(theta, d, optimizers.start(d), 0.1)
    except Exception as error:  # a compiler that this was not written for, say
        problem = f"{type(error).__name__}: {error!s:.200}"
    if problem := next(filter(None, process_group.each(among, problem)), ""):
        kernels.give_up(backend.name, problem)
        warnings.warn(f"the compiled twins fail here: {problem}: going on without them", KernelWarning, stacklevel=2)


def compare(record: dict[str, Any], backend: Backend) -> None:
    """Warn if the session before, which the record of a run tells of, used twins and this one does not, or the reverse."""
    before, ran = bool(record.get("compiled")), record.get("backend")
    on_numpy = backend.name == "numpy" and isinstance(ran, dict) and ran.get("ran") == "numpy"
    if on_numpy and before != bool(name(backend)):
        was, goes_on = ("with", "without") if before else ("without", "with")
        changed = f"the run was {was} compiled twins before and goes on {goes_on} them"
        warnings.warn(f"{changed}: its numbers will be the same but for rounding, not bit for bit", KernelWarning, stacklevel=2)
