"""The backends that every test of the maths runs on.

A test asks for the fixture `lab` and lets it run functions on NumPy arrays: `lab.call` moves them to the backend, runs the
function there, checks namespace, type and device of all that comes back, and returns it as NumPy arrays. Without options every
backend that is installed takes part; `--backend NAME` names the ones that must, and a missing one fails the run. With
BPTT_TEST_KERNELS=numpy, or cupy, those of that library run the compiled kernels.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt import acceleration, cli, dispatch
from bptt import backend as backends
from bptt.data.sequences import Sequences
from bptt.errors import InputError
from bptt.nn import tree

ALWAYS = ("numpy", "numpy-readonly", "strict", "strict-f32")
WHERE_INSTALLED = ("torch", "jax", "jax-jit", "cupy")
ONE_WAY = {"compiled": ("jax-jit", "jax"), "eager": ("jax", "jax-jit")}  # by mark: what runs a test, and what then need not
HOST_READS = ("__bool__", "__float__", "__int__", "__index__", "__complex__")


@dataclasses.dataclass(frozen=True)
class Lab:
    """One backend to run the maths on."""

    name: str
    backend: backends.Backend

    @property
    def tolerance(self) -> float:
        """How far a result may be from the float64 one, relative to the largest element (or to 1)."""
        return 1e-12 if self.backend.dtype == "float64" else 2e-5

    def put(self, nested: Any) -> Any:
        """A tree of NumPy arrays on the backend: the only way a test makes arrays."""

        def one(host: Any) -> Any:
            if not isinstance(host, np.ndarray | np.generic):
                return host
            array = self.backend.put(np.asarray(host))
            if self.name == "numpy-readonly":
                array.flags.writeable = False
            return array

        return tree.tree_map(one, nested)

    def get(self, nested: Any) -> Any:
        """A tree of results as NumPy arrays, each checked for namespace, type and device."""

        def one(array: Any) -> Any:
            if not hasattr(array, "dtype"):
                return array
            assert backends.namespace(array) is self.backend.xp or isinstance(array, np.generic)
            assert str(array.dtype).rpartition(".")[2] in (self.backend.dtype, "int64", "bool")
            if self.backend.device is not None:
                assert backends.device(array) == self.backend.device
            return self.backend.get(array)

        return tree.tree_map(one, nested)

    def call(self, function: Callable[..., Any], *trees: Any) -> Any:
        """What the function returns for trees of NumPy arrays, computed on the backend without a look from the host."""
        if self.name == "jax-jit":
            import jax

            function = jax.jit(function)
        arguments = [self.put(nested) for nested in trees]
        with forbid_host_reads() if self.backend.name == "strict" else contextlib.nullcontext():
            results = function(*arguments)
        return self.get(results)

    def close(self, got: Any, expected: Any, tolerance: float | None = None) -> None:
        """Assert that two trees of NumPy arrays have the same names and shapes and nearly the same values."""
        left, right = tree.named_leaves(got), tree.named_leaves(expected)
        assert [name for name, _ in left] == [name for name, _ in right]
        for (name, a), (_, b) in zip(left, right):
            assert (a is None) == (b is None), name
            if a is not None:
                assert np.shape(a) == np.shape(b), name
                scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
                np.testing.assert_allclose(a, b, rtol=0, atol=scale * (tolerance or self.tolerance), err_msg=name)


def variant(*values: Any) -> Any:
    """Parameters that only give other sizes or settings to a test: left out on JAX, which compiles each anew."""
    return pytest.param(*values, marks=pytest.mark.variant)


def make_sequences(sequences: list[np.ndarray]) -> Sequences:
    """Sequences of ids (n + 1,) one after the other in one array, places and lengths in the smallest type."""
    lengths = np.array([len(one) - 1 for one in sequences], np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    small = [numbers.astype(np.min_scalar_type(numbers.max(initial=0))) for numbers in (starts, lengths)]
    return Sequences(np.concatenate([np.zeros(0, np.uint8), *sequences]), *small)


@contextlib.contextmanager
def forbid_host_reads() -> Iterator[None]:
    """Let every conversion of a strict array to a Python number raise: on a GPU each one waits for the device."""
    import array_api_strict

    kind = type(array_api_strict.zeros(1))

    def raises(self: Any, *_: Any) -> Any:
        raise AssertionError("the host looked at an array inside a step")

    with pytest.MonkeyPatch.context() as patch:
        for method in HOST_READS:
            patch.setattr(kind, method, raises)
        yield


def make_lab(name: str) -> Lab:
    """The lab of that name; an InputError where its library is missing."""
    library = name.split("-")[0]
    dtype = "float32" if name == "strict-f32" else "float64"
    backend = backends.select(library, dtype, require=True)
    if name == "strict-f32":
        backend = dataclasses.replace(backend, device=backend.xp.Device("no_float64"))
    return Lab(name, backend)


def missing_backend_reason(name: str) -> str:
    """Why a backend cannot take part; empty where it can."""
    try:
        make_lab(name)
    except InputError as error:
        return str(error)
    return ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        choices=ALWAYS + WHERE_INSTALLED,
        help="run the maths on this backend, which must be there",
    )


def pytest_configure(config: pytest.Config) -> None:
    library = os.environ.get("BPTT_TEST_KERNELS")
    if library and not acceleration.enable(library):
        raise pytest.UsageError(f"BPTT_TEST_KERNELS: {acceleration.unavailable_reason(library)}")
    for name in config.getoption("--backend") or ():
        if reason := missing_backend_reason(name):
            raise pytest.UsageError(f"--backend {name}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, those that ran in other processes, too."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "summary":
                terminalreporter.write_sep("-", report.nodeid)
                terminalreporter.write_line(str(value))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" in metafunc.fixturenames:
        named = metafunc.config.getoption("--backend")
        names = named or [*ALWAYS, *(name for name in WHERE_INSTALLED if not missing_backend_reason(name))]
        spared = [
            other for mark, (way, other) in ONE_WAY.items() if metafunc.definition.get_closest_marker(mark) and way in names
        ]
        names = [name for name in names if name not in spared]
        marks = {"cupy": [pytest.mark.gpu]}
        metafunc.parametrize("lab", [pytest.param(name, marks=marks.get(name, ())) for name in names], indirect=True)


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest) -> None:
    """What is marked gpu has a CUDA device, or is not run."""
    if request.node.get_closest_marker("gpu") and (reason := backends.cupy_unavailable_reason()):
        pytest.skip(reason)  # a machine without a CUDA device: array-api-strict and the kernels' tests on a CPU stand in


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """One backend after the other."""
    return make_lab(request.param)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the ids of large texts out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPTT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_columns() -> Iterator[None]:
    """Print tables as into a pipe, also in the processes of pytest-xdist, which sets the width of a terminal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(autouse=True)
def _kernels_as_before() -> Iterator[None]:
    """No test leaves compiled kernels to the next one."""
    with dispatch.restored():
        yield
    acceleration._given_up.clear()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def run(workdir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in the fixture `workdir` of a test module: its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def real_text() -> Callable[[str], Path]:
    """The path of a text that the package does not ship: in $BPTT_TEST_DATA, or in shared/data beside the checkout."""
    folder = Path(os.environ.get("BPTT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def path(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"{name} is not in {folder}: set BPTT_TEST_DATA to a folder that holds it")  # not ours to ship
        return folder / name

    return path
