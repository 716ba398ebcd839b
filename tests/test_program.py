"""What ends a program in one sentence, and what the machine refuses."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_transfer.errors import Interrupted, UserError, machine_limits
from ssl_transfer.files import append_text, new_folder, write_atomically
from ssl_transfer.program import ends_in_a_sentence
from ssl_transfer.training.metrics import keep_steps_before, read_metrics

ROOT = Path(__file__).parents[1]
REFUSED = [
    (OSError(errno.ENOSPC, "No space left on device", "runs/a.pt"), "runs/a.pt cannot be written (No space left on"),
    (OSError(errno.ENOSPC, "No space left on device"), "nothing more can be written (No space left on device)"),
    (OSError(errno.EROFS, "Read-only file system", "a"), "a cannot be used (Read-only file system)"),
    (MemoryError(), "the memory does not suffice (Python has none left): lower data.batch_size"),
    (RuntimeError("can't allocate memory: you tried to allocate 3145728 bytes."), "(3.0 MiB more were asked for)"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower data.workers"),
    (RuntimeError("Connection closed by peer [127.0.0.1]:4711"), "another process of this run has ended"),
]


@pytest.mark.parametrize(("error", "words"), REFUSED)
def test_what_the_machine_refuses_is_a_sentence(error, words):
    with pytest.raises(UserError) as caught, machine_limits():
        raise error
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_fault_of_ours_stays_what_it_is():
    for error in (RuntimeError("sizes do not match"), OSError("a sentence of our own"), KeyError("loss")):
        with pytest.raises(type(error)) as caught, machine_limits():
            raise error
        assert caught.value is error


def test_an_error_ends_with_its_own_code(capsys):
    for error, code in ((UserError("no"), 2), (Interrupted("no"), 130)):
        with pytest.raises(SystemExit) as stop, ends_in_a_sentence("knn.py"):
            raise error
        assert (stop.value.code, capsys.readouterr().err) == (code, "knn.py: no\n")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_130_and_what_is_half_done_is_removed(tmp_path, number):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from ssl_transfer.files import write_atomically; from ssl_transfer.program import ends_in_a_sentence\n"
        "def write(path):\n"
        "    path.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
        "with ends_in_a_sentence('ssl-transfer'): write_atomically(Path(sys.argv[1]) / 'a.txt', write)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and not list(tmp_path.iterdir())
    assert said == "ssl-transfer: stopped; what was finished is kept, and the same command goes on from there\n"


def test_a_reader_that_has_gone_ends_it_without_a_word():
    code = (
        "from ssl_transfer.program import ends_in_a_sentence\n"
        "with ends_in_a_sentence('ssl-transfer'):\n"
        "    for number in range(100_000): print(number)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stderr is not None and process.stdout.readline() == "0\n"
        process.stdout.close()  # as head does
        assert (process.wait(60), process.stderr.read()) == (1, "")


def refuse(path: Path) -> None:
    raise ValueError("I/O error: No space left on device (os error 28)")  # as safetensors, which is written in Rust


def test_a_refused_write_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device: '.*a.txt'"):
        write_atomically(tmp_path / "a.txt", refuse)
    (tmp_path / "folder").mkdir()
    for write in (
        lambda: append_text(tmp_path / "folder", "x"),
        lambda: write_atomically(tmp_path / "folder", os.mknod),
    ):
        with pytest.raises(IsADirectoryError, match="'.*folder'"):
            write()
    assert os.listdir(tmp_path) == ["folder"]


def test_a_new_folder_is_whole_or_absent(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "out") as folder:
        (folder / "in").mkdir()
        (folder / "in" / "a").write_text("a")
        (folder / "in" / "a").chmod(0o600)
        assert not (tmp_path / "out").exists()
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "out" / "in" / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_folders_of_others_that_look_temporary_are_left_alone(tmp_path):
    (tmp_path / ".mine.tmp").mkdir()
    write_atomically(tmp_path / "a.txt", lambda path: path.write_text("a"))
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "a.txt"]


def test_damaged_lines_of_the_log_are_counted_and_each_step_stands_once(tmp_path, caplog):
    log = tmp_path / "metrics.jsonl"
    assert read_metrics(log) == ({}, 0)
    lines = [b'{"step": %d, "epoch": %d, "loss": 1.5}' % (step, step) for step in range(4)]
    odd = [b"", b"\0" * 20, b"null", b'{"step": "1", "epoch": 1}', b'{"step": 9, "epoch": NaN}', b"\xff", b"[" * 10**5]
    log.write_bytes(b"\n".join([*lines[:2], *odd, lines[1], lines[3]]) + b'\n{"step": 4, "ep')
    rows, damaged = read_metrics(log)
    assert (list(rows), damaged) == ([0, 1, 3], len(odd))
    keep_steps_before(log, 3)
    assert f"{log} has lost 1 of its first 3 lines" in caplog.text
    assert log.read_bytes() == b"\n".join(lines[:2]) + b"\n"
    caplog.clear()
    keep_steps_before(log, 2)
    assert not caplog.text
