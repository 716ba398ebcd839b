"""benchmarks/gpu.py from start to end, where there is no GPU and all is tiny."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent.parent / "benchmarks" / "gpu.py"
PARTS = ["tests", "losses", "views", "probes", "steps", "compiled", "simclr", "transfer"]

pytestmark = pytest.mark.slow


def gpu(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def results(folder: Path) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text())["result"] for file in folder.glob("*.json")}


def test_every_part_leaves_its_numbers(tmp_path):
    done = gpu("--tiny", "--minutes", 0.2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    assert sorted(found) == sorted(PARTS)
    for part, result in found.items():
        assert "problem" not in result, result
        assert f"\n{part}:" in (tmp_path / "summary.md").read_text()
    assert found["losses"]["nt_xent, n = 64"]["ms"] > 0
    assert found["views"]["simclr, 32 px"]["views_per_second"] > 0
    assert found["probes"]["knn"]["value"]
    assert found["steps"]["constant"]["of_ceiling"] == 1 and {"ours", "lightly"} <= found["steps"].keys()
    assert found["compiled"]["traced"]["loss_differs_by"] < 1e-4
    assert found["simclr"]["epochs"] >= 1 and found["transfer"]["epochs"] >= 1
    assert {"teacher", "student"} <= {row["role"] for row in found["transfer"]["scores"]["scores"]}


def test_a_part_that_fails_says_so_and_the_next_one_begins(tmp_path):
    done = gpu("--minutes", 0.1, "--out", tmp_path, "--data", tmp_path / "nothing", "--parts", "simclr", "transfer")
    assert done.returncode == 0, done.stderr
    assert {part: "Traceback" in result["problem"] for part, result in results(tmp_path).items()} == {
        "simclr": True,
        "transfer": True,
    }
    assert "FAILED" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    "arguments, sentence",
    [(["--parts", "everything"], "there is no part everything"), (["--parts", "simclr"], "need --data")],
)
def test_what_it_needs_is_said_before_anything_runs(tmp_path, arguments, sentence):
    done = gpu("--out", tmp_path / "out", *arguments)
    assert done.returncode == 2 and sentence in done.stderr
    assert not (tmp_path / "out").exists()
