"""`bptt check`: right gradients pass, wrong ones are named, and the exit code says which."""

import json

import numpy as np
import pytest

import accelerated
from bptt import acceleration, cli, dispatch, gradcheck
from bptt.nn import gradient, gru, lstm


@pytest.fixture(autouse=True)
def _pure(monkeypatch):
    monkeypatch.setenv("BPTT_KERNELS", "0")  # to compile takes longer than all the rest


def test_correct_gradients_pass(capsys):
    assert cli.main(["check", "--backend", "numpy"]) == 0
    out, err = capsys.readouterr()
    heads, *rows, verdict = out.splitlines()
    assert " ".join(heads.split()) == "backend cell checked type compared with functions largest error allowed"
    assert err == ""
    assert [row.split()[1] for row in rows] == ["vanilla", "gru", "lstm", *["vanilla"] * 3, *["gru"] * 3, *["lstm"] * 3]
    assert "WRONG" not in out
    assert verdict == "All gradients agree: 12 of 12 checks passed."


def test_the_checks_are_readable_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["check", "--backend", "numpy"]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 40
    words = " ".join(out.split())
    assert words.startswith("numpy cell vanilla checked gradient type float64 compared with central differences functions pure")
    assert words.count("largest error") == words.count("allowed") == 12
    assert words.endswith("All gradients agree: 12 of 12 checks passed.")
    assert err == ""


def test_gradcheck_runs_on_another_array_library(capsys):
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed: pip install array-api-strict")
    assert cli.main(["check", "--backend", "strict", "--json"]) == 0
    rows = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert {(row["backend"], row["passed"]) for row in rows} == {("strict", True)}
    assert {row["what"] for row in rows} == {"loss", "gradient", "segments"}
    assert len(rows) == 21


@pytest.mark.gpu
def test_gradcheck_runs_on_a_gpu(capsys, monkeypatch):
    monkeypatch.delenv("BPTT_KERNELS")
    assert cli.main(["check", "--backend", "cupy", "--require-backend"]) == 0
    assert "nvrtc" in capsys.readouterr().out


def test_a_wrong_backward_pass_is_named(capsys, monkeypatch):
    right = gru.recurrence_backward

    def wrong(*arguments):
        dz, dq, da0 = right(*arguments)
        return dz, dq, 1.001 * da0

    monkeypatch.setattr(gru, "recurrence_backward", wrong)
    assert cli.main(["check", "--backend", "numpy"]) == 1
    out, err = capsys.readouterr()
    wrong = [line.split()[1:5] for line in out.splitlines() if "WRONG" in line]
    assert wrong == [["gru", "gradient", "float64", "central"], ["gru", "segments", "float32", "pure"]]
    remedy = "do not train here: choose another --backend or update the libraries that bptt info lists, then check again"
    assert err == f"bptt: 2 of 12 checks failed: gradients of gru differ: {remedy}\n"


def test_nan_does_not_pass(capsys, monkeypatch):
    monkeypatch.setattr(gradient, "loss_and_grad", lambda theta, *_: (theta[0] * np.nan, theta * np.nan, None))
    assert cli.main(["check", "--backend", "numpy"]) == 1
    assert "12 of 12 checks failed: gradients of gru, lstm, vanilla differ" in capsys.readouterr().err


def test_an_unavailable_backend_is_reported_once(capsys, monkeypatch):
    monkeypatch.setattr(gradcheck.backends, "cupy_unavailable_reason", lambda: "there is none")
    assert cli.main(["check", "--backend", "cupy"]) == 0
    assert capsys.readouterr().err.count("going on with numpy") == 1
    assert cli.main(["check", "--backend", "cupy", "--require-backend"]) == 2
    assert capsys.readouterr().err == "bptt: backend 'cupy' is required but there is none\n"


def test_a_wrong_kernel_is_named(capsys, monkeypatch):
    """The kernels are stand-ins: for a gradient, for one in segments, and for one layer."""
    right, part, layer = gradient.loss_and_grad, gradient.segment_loss_and_grad, lstm.run_backward

    def whole_gradient(*arguments):
        loss, d, states = right.__wrapped__(*arguments)
        return loss, 1.001 * d if arguments[1].cell == "gru" else d, states

    def segment_gradient(*arguments):
        loss, d, *states = part.__wrapped__(*arguments)
        return loss, 1.001 * d if arguments[1].cell == "vanilla" else d, *states

    def run_backward(*arguments):
        dx, *rest = layer.__wrapped__(*arguments)
        return dx, *(1.001 * one for one in rest)

    def start(library):
        accelerated.use_only(
            monkeypatch,
            {
                gradient.loss_and_grad: whole_gradient,
                gradient.segment_loss_and_grad: segment_gradient,
                lstm.run_backward: run_backward,
            },
        )
        return "stand-in 1"

    monkeypatch.setattr(acceleration, "enable", start)
    monkeypatch.setattr(acceleration, "compiled_by", lambda _=None: "stand-in 1" if dispatch.enabled() else "")
    assert cli.main(["check", "--backend", "numpy"]) == 1
    out, err = capsys.readouterr()
    wrong = {tuple(line.split()[1:4]) for line in out.splitlines() if "WRONG" in line and "stand-in 1" in line}
    both = {(cell, what) for cell, what, dtype in wrong if (cell, what, "float32") in wrong and dtype == "float64"}
    assert both >= {("gru", "gradient"), ("vanilla", "segments"), ("lstm", "layers")}
    assert not both & {("gru", "layers"), ("vanilla", "gradient"), ("vanilla", "layers")}
    assert "pure" not in {line.split()[6] for line in out.splitlines() if "WRONG" in line}
    assert "gradients of gru, lstm, vanilla differ: train without compiled functions, which alone are wrong" in err
    assert "set BPTT_KERNELS=0" in err


def test_kernels_that_do_not_compile_are_reported_and_not_checked(capsys, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no compiler")

    def start(library):
        if not acceleration._given_up:
            accelerated.use_only(monkeypatch, {gradient.loss_and_grad: fail})
        return acceleration.compiled_by()

    monkeypatch.setattr(acceleration, "enable", start)
    monkeypatch.setattr(acceleration, "compiled_by", lambda _=None: "stand-in 1" if dispatch.enabled() else "")
    assert cli.main(["check", "--backend", "numpy"]) == 0
    out, err = capsys.readouterr()
    assert "stand-in" not in out
    assert "the compiled kernels failed on this machine: RuntimeError: no compiler" in err


def test_float32_errors_are_those_of_rounding():
    """Its errors are those of its rounding: neither none nor those of a wrong gradient."""
    errors = [one.error for one in gradcheck.run_checks("numpy") if one.dtype == "float32" and one.what == "gradient"]
    assert len(errors) == 3
    assert all(1e-8 < error < 1e-5 for error in errors)
