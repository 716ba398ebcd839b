"""Folders that one process holds at a time."""

import fcntl
import subprocess
import sys
from errno import ENOLCK

import pytest

from ssl_transfer.runs import locks
from ssl_transfer.runs.locks import is_free, locked


class Waited(Exception):
    """Somebody else holds the lock."""


def give_up(seconds):
    raise Waited


def test_a_folder_is_held_until_it_is_left(tmp_path):
    assert is_free(tmp_path)
    with locked(tmp_path, give_up):
        assert not is_free(tmp_path)
        with pytest.raises(Waited), locked(tmp_path, give_up):
            pass
    assert is_free(tmp_path)
    with pytest.raises(ZeroDivisionError), locked(tmp_path, give_up):
        raise ZeroDivisionError
    assert is_free(tmp_path)


def test_a_process_that_dies_holds_nothing(tmp_path):
    code = (
        "import sys, pathlib; from ssl_transfer.runs.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Waited), locked(tmp_path, give_up):
            pass
        other.kill()
        other.wait()
        with locked(tmp_path, give_up):
            pass


def test_where_files_cannot_be_locked_nobody_waits_and_nothing_is_known_to_be_free(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path, give_up), locked(tmp_path, give_up):
        assert not is_free(tmp_path)
    with locked(tmp_path / "nowhere", give_up):
        pass


def test_who_waits_is_told_for_how_long(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    told = []

    def leave_after_three(seconds):
        told.append(seconds)
        if seconds == 2:
            raise Waited

    with locked(tmp_path), pytest.raises(Waited), locked(tmp_path, leave_after_three):
        pass
    assert told == [0, 1, 2]
