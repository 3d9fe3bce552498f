"""`bptt info`: says what there is, as words and as JSON, and never fails."""

import json

import numpy as np
import pytest

import bptt
from bptt import acceleration, cli, devices, system
from bptt.cli import info


def test_info_prints_versions_and_hardware(capsys):
    assert cli.main(["info"]) == 0
    captured = capsys.readouterr()
    for words in (
        f"numpy {np.__version__}",
        f"bptt {bptt.__version__}",
        "array-api-compat",
        "blas",
        "threads",
        "cache",
        "cores",
    ):
        assert words in captured.out
    assert captured.err == ""


def test_info_is_readable_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setattr(info.system, "installed_versions", lambda *names: dict.fromkeys(names, "1.2.3"))
    words = []
    for columns in (40, 1000):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert cli.main(["info"]) == 0
        out = capsys.readouterr().out
        words.append(out.split())
        assert all(len(line) <= columns or len(line.split()) <= 2 for line in out.splitlines())
    assert words[0] == words[1]


def test_info_prints_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["versions", "machine", "blas", "cupy", "kernels", "extras", "cache"]
    assert found["versions"]["numpy"] == np.__version__
    assert found["extras"].keys() == info.EXTRAS.keys()
    assert found["cupy"]["usable"] in ("yes", "no")
    assert found["kernels"]["usable"] in ("yes", "no")


@pytest.mark.parametrize("error", [OSError("no"), RuntimeError("no"), KeyError("no"), ImportError("no"), AttributeError("no")])
def test_info_never_fails(capsys, monkeypatch, error):
    def fails(*_, **__):
        raise error

    for owner, name in [(system, "versions"), (system, "machine"), (system, "installed_versions"), (system, "blas")]:
        monkeypatch.setattr(owner, name, fails)
    monkeypatch.setattr(info, "PARTS", {name: getattr(system, name, part) for name, part in info.PARTS.items()})
    monkeypatch.setattr(devices, "cupy_unavailable_reason", fails)
    monkeypatch.setattr(acceleration, "unavailable_reason", fails)
    monkeypatch.setattr(info.system, "cache_folder", fails)
    for arguments in (["info"], ["info", "--json"]):
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        assert out.count(f"not known: {type(error).__name__}: ") == 7


def test_info_names_a_usable_device(capsys, monkeypatch):
    monkeypatch.setattr(devices, "cupy_unavailable_reason", lambda: "")
    monkeypatch.setattr(devices, "cuda_device_info", lambda: {"device": "a GPU", "memory": "80.0 GB"})
    assert cli.main(["info"]) == 0
    assert "cupy       usable yes\n           device a GPU\n           memory 80.0 GB\n" in capsys.readouterr().out
