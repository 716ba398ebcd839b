"""``--processes N``: started together, ended together, with one exit code and each signal once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssl_transfer import launching
from ssl_transfer.cli import main

ROOT = Path(__file__).parents[1]
# Stands for the package: what each process does is in the first argument, of which a rank has its own part.
STAND_IN = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
folder, does = sys.argv[1], sys.argv[2].split(",")[rank]
def asked(number, frame):
    open(f"{folder}/signals", "a").write(f"{rank} {number}\\n"); sys.exit(130)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, asked)
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
open(f"{folder}/{rank}", "w").write(" ".join(os.environ[name] for name in names) + f" {os.environ['MASTER_PORT']}")
if does == "wait":
    time.sleep(60)
elif does == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(does))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "ssl_transfer").mkdir()
    (tmp_path / "ssl_transfer" / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launching, "_SECONDS_FOR_OTHERS", 0.3)
    return tmp_path


def test_each_process_has_its_place_in_the_environment(package):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert launching.start_processes(3, [str(package), "0,0,0"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    places = [(package / str(rank)).read_text().split() for rank in range(3)]
    assert [place[:5] for place in places] == [[str(rank), str(rank), "3", "3", "127.0.0.1"] for rank in range(3)]
    assert len({place[5] for place in places}) == 1


@pytest.mark.parametrize("does, code", [("0,2", 2), ("wait,3", 3), ("die,wait", 128 + 9)])
def test_one_that_fails_ends_all_with_its_code(package, capfd, does, code):
    assert launching.start_processes(2, [str(package), does]) == code
    assert ("process 0 of 2 was ended by SIGKILL" in capfd.readouterr().err) == (does == "die,wait")
    if "wait" in does:  # the other was asked to end, and did
        assert (package / "signals").read_text().split()[1] == str(int(signal.SIGTERM))


def test_a_signal_reaches_every_process_once_also_from_a_terminal(package):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ssl_transfer.launching import start_processes\n"
        f"sys.exit(start_processes(2, [{str(package)!r}, 'wait,wait']))"
    )
    started = subprocess.Popen([sys.executable, "-c", program], process_group=0)
    until = time.monotonic() + 60
    while not all((package / str(rank)).exists() for rank in range(2)) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGTERM)  # as a terminal does with its own: the whole group in the foreground
    assert started.wait(30) == 130
    assert sorted((package / "signals").read_text().splitlines()) == [f"{rank} {signal.SIGTERM:d}" for rank in range(2)]


def test_a_mistake_is_told_before_any_process_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(launching, "start_processes", None)
    with pytest.raises(SystemExit) as caught:
        main(["run", str(tmp_path / "none.yaml"), "--processes", "2"])
    assert caught.value.code == 2 and "there is no recipe" in capsys.readouterr().err


def test_the_option_goes_to_the_launcher_and_is_done_in_each_process(monkeypatch, capsys, recipes):
    started = []
    monkeypatch.setattr(launching, "start_processes", lambda *given: started.append(given) or 7)
    words = ["run", str(recipes / "digits" / "simclr.yaml"), "--processes", "3", "train.steps=1"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 7 and started == [(3, words)]
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")  # srun started two of this program, each of which would start three
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and len(started) == 1
    assert "srun started 2 tasks" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and len(started) == 1
    assert "--processes is 3, and a launcher has started 2: leave out one" in capsys.readouterr().err
