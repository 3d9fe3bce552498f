"""What is run on this package: `nox` lints and tests, `nox -s NAME` runs one session, `nox -l` lists them all."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.11.12"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # every Python that is installed is tested, also where CI is set

SHORT = {  # what of a benchmark takes less than a minute
    "cores.py": ["--cell", "gru", "--hidden", "128", "512", "--batch", "64", "--repeats", "5"],
    "defaults.py": ["--scale", "0.05", "--shares", "1"],
    "devices.py": ["--hidden", "64", "256", "--repeats", "5"],
    "dinosaurs_quality.py": ["--seeds", "20"],
    "dynamic_evaluation.py": ["dinosaurs"],
    "learning_rate.py": ["--rows", "3", "--steps", "60"],
    "memory.py": ["--cell", "gru", "--steps", "1000", "1000000"],
    "names_quality.py": ["--steps", "500", "--seeds", "20"],
    "one_at_a_time.py": ["--updates", "3000"],
    "parallel.py": ["--hidden", "128", "--steps", "60"],
    "sampling.py": ["--batch", "64", "--repeats", "3"],
    "startup.py": ["--repeats", "3"],
    "stream_quality.py": ["--rows", "1", "--steps", "60"],
    "time_to_quality.py": ["--seeds", "0", "--flags", "--steps", "200"],
    "what_helps.py": ["dinosaurs", "--scale", "0.02", "--seeds", "0", "--only", "no dropout", "weight dropout", "layer"],
    "train_step.py": ["--hidden", "50", "256", "--batch", "1", "32", "--vocabulary", "27"],
}
# the tests of what depends on the version of Python, which run in each
EVERYWHERE = {
    "backend": "finds libraries by importing them; copies and pickles",
    "checkpoint_format": "JSON and what of it is refused",
    "cli": "the command line, which is made of annotations",
    "cli_inference": "reads and writes standard streams",
    "compatibility": "checkpoints of older versions",
    "corpus": "decodes text of any encoding",
    "examples": "scripts, run as a user would",
    "files": "writes that replace a file, folders, links",
    "info": "names the versions",
    "input_texts": "decoders, and readers of compressed files",
    "killed": "processes that end at any moment, and go on",
    "package": "what is installed, and what is imported when",
    "public_api": "signatures, annotations and help",
    "run_folder": "names and locks",
    "settings": "dataclasses and types that choose",
    "signals": "Ctrl-C and its relatives, and runs that go on after them",
    "store": "arrays in files",
    "token_store": "a cache on the disk, memory maps",
    "toml": "tomllib, and what the package writes for it",
    "untrusted_files": "whatever a file holds",
    "user_cells": "a module imported from a file",
    "vocabulary": "Unicode",
}
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
ALL = "3.11 3.12 3.13 3.14"
PYTHONS = dict.fromkeys([*os.environ.get("BPTT_PYTHONS", ALL).split(), HERE])  # the one that runs nox: no run passes untested


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the files of tests: in memory where there is room, as a disk takes milliseconds to sync or empty each."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4e9
    usable = roomy and os.access(memory, os.W_OK) and not os.statvfs(memory).f_flag & os.ST_NOEXEC  # some compile a library
    return tempfile.TemporaryDirectory(dir=memory if usable else None)


def pytest(session: nox.Session, *arguments: str, **env: str) -> None:
    # One BLAS thread: the tests' matrices are tiny, and the cores are busy with other tests.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = (os.cpu_count() or 1) + 1  # one more than cores: some tests wait for a process or a clock
    command = "pytest", f"--numprocesses={workers}", "--dist=worksteal", "--override-ini=tmp_path_retention_policy=failed"
    with temporary_folder() as folder:
        session.run(*command, *arguments, *session.posargs, env={**threads, "TMPDIR": folder, **env})


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules, ruff's format, mypy's types, and the public API as mypy, pyright and jedi see it."""
    session.install(".", "--group", "lint", "--group", "test")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy", "--strict")
    pytest(session, "-k", "mypy or pyright or jedi", "tests/test_public_api.py")


@nox.session(python=list(PYTHONS))
def tests(session: nox.Session) -> None:
    """The tests on NumPy, on all its kinds of arrays; in every other installed Python those that depend on its version."""
    session.install(".[plot]" if session.python == HERE else ".", "--group", "test")
    if session.python == HERE:
        pytest(session, *(f"--backend={name}" for name in ("numpy", "numpy-readonly", "strict", "strict-f32")))
    else:
        few = str(min(2000, int(os.environ.get("BPTT_MUTATIONS", "2000"))))
        named = any(word.startswith("tests/") for word in session.posargs)  # those alone
        rooms = () if named else (f"tests/test_{room}.py" for room in EVERYWHERE)
        pytest(session, "--backend=numpy", *rooms, BPTT_MUTATIONS=few)


@nox.session(default=False)
def kernels(session: nox.Session) -> None:
    """The CPU kernels: each against its pure function, then the tests of the maths and of training with them enabled."""
    session.install(".[fast]", "--group", "test")
    rooms = ("cpu_kernels", "jit", "acceleration", "stepper")
    pytest(session, "--numprocesses=auto", "--dist=loadgroup", *(f"tests/test_{name}.py" for name in rooms))
    names = ("cells", "model", "segments", "threads", "update")
    switch = {"BPTT_TEST_KERNELS": "numpy"}
    pytest(session, "--numprocesses=auto", "--backend=numpy", *(f"tests/test_{name}.py" for name in names), **switch)


@nox.session(default=False)
def torch(session: nox.Session) -> None:
    """The tests on PyTorch, and PyTorch as a witness."""
    session.install(".", "torch", "--group", "test")
    pytest(session, "-k", "torch", "--backend=torch")


@nox.session(default=False)
def jax(session: nox.Session) -> None:
    """The tests on JAX, eager and compiled, and JAX as a witness."""
    session.install(".", "jax", "--group", "test")
    # nearly all of the time goes into compiling, a function an operation: half of it without XLA's new emitters
    flags = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    fast = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": flags}
    together = "--numprocesses=auto", "--dist=loadfile"  # the tests of a file share what they have compiled
    pytest(session, *together, "-k", "jax", "-m", "not endurance and not variant", "--backend=jax", "--backend=jax-jit", **fast)


@nox.session(default=False)
def cupy_without_gpu(session: nox.Session) -> None:
    """The CuPy wheel where no GPU is: detection, fall-back, refusal, kernels compiled; a GPU that is there is hidden."""
    without_the_rest = "cupy-cuda13x>=14", "nvidia-cuda-nvrtc>=13,<14"  # CUDA's other libraries, a gigabyte, want a GPU
    session.install(".", *without_the_rest, "--group", "test")
    pytest(session, "-m", "cupy_without_gpu", CUDA_VISIBLE_DEVICES="-1")


@nox.session(default=False)
def mpi(session: nox.Session) -> None:
    """Several processes on MPICH that train one model, fail together and are killed."""
    session.install(".[mpi]", "--group", "test")
    pytest(session, "-m", "mpi", "--numprocesses=2")  # each test has processes of its own


@nox.session(default=False)
def onnx(session: nox.Session) -> None:
    """Exported graphs, run by onnxruntime and by the reference of the standard."""
    session.install(".[onnx]", "onnxruntime", "--group", "test")
    pytest(session, "-m", "onnx", "tests/test_onnx_export.py")


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Exported pages and reports in Chromium, which has to be there with its driver: apt-get install chromium-driver."""
    session.install(".[plot]", "selenium", "--group", "test")
    pytest(session, "-m", "browser", "--numprocesses=0", "tests/test_web_page.py")


@nox.session(default=False)
def trackers(session: nox.Session) -> None:
    """The examples for TensorBoard, MLflow, Weights & Biases, Trackio and Optuna, with the real packages."""
    session.install(".", "tensorboard", "mlflow", "wandb", "trackio", "optuna", "--group", "test")
    pytest(session, "-m", "trackers", "tests/test_trackers.py")


@nox.session(default=False)
def notebook(session: nox.Session) -> None:
    """The example notebook, executed by Jupyter's kernel."""
    session.install(".[plot]", "nbclient", "ipykernel", "pandas", "--group", "test")
    pytest(session, "-m", "notebook", "--numprocesses=0", "tests/test_example_notebook.py")


@nox.session(default=False)
def endurance(session: nox.Session) -> None:
    """What takes minutes: runs killed and resumed, commands on 5,000 forged runs, 100 MB of text, the memory of whole runs."""
    session.install(".[plot]", "--group", "test")
    pytest(session, "-m", "endurance", "--backend=numpy", "--numprocesses=auto")  # no test waits for anything


@nox.session(default=False, venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The tests at the lowest versions that pyproject.toml allows, which uv chooses."""
    session.install("--resolution=lowest-direct", ".[plot,fast]", "--group", "test")
    pytest(session, "--backend=numpy", "--backend=strict")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation as a site in build/docs; a warning, or a page that needs the network to open, is an error."""
    session.install(".[plot]", "--group", "docs")
    session.run("python", "docs/build.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(default=False)
def mutations(session: nox.Session) -> None:
    """Deliberate mistakes, one at a time, each of which a named test must catch."""
    session.install(".[fast,onnx,plot,mpi]", "onnxruntime", "--group", "test")
    session.run("python", "tests/mutations")


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """The tests on CuPy, without its kernels and with them; fails where no CUDA device answers."""
    session.install(".[cuda13,nccl13,mpi]", "--group", "test")
    for library in ("", "cupy"):
        pytest(session, "-m", "gpu", "--backend=cupy", BPTT_REQUIRE_BACKEND="1", BPTT_TEST_KERNELS=library)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Every script in bench/ in some minutes, or one with its arguments: nox -s bench -- bench/NAME.py --help."""
    session.install(".[fast,plot,mpi]", "torch", "jax", "array-api-strict")
    scripts = [path for path in sorted(Path("bench").glob("*.py")) if "__main__" in path.read_text("utf-8")]
    short = [[str(path), *SHORT.get(path.name, [])] for path in scripts]
    pinned = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    for command in [session.posargs] if session.posargs else short:
        one_core = not command[0].endswith(("cores.py", "parallel.py"))
        where, threads = (pinned, {"OMP_NUM_THREADS": "1"}) if one_core else ([], {})
        session.run(*where, "python", *command, env=threads, external=True)
