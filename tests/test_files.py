import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_transfer import files
from ssl_transfer.files import is_leftover, read_json, verified, with_checksum, write_atomically, write_json, write_text


def test_a_file_is_whole_while_another_is_written_over_it(tmp_path):
    path = tmp_path / "scores.json"
    write_text(path, "old")

    def write(temporary):
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["scores.json"]


def test_writers_of_one_file_never_share_a_temporary_one_even_with_one_process_number(tmp_path):
    path = tmp_path / "scores.json"

    def write(temporary):
        temporary.write_text("first")
        write_text(path, "second")  # by another container, say, whose processes have the same numbers

    write_atomically(path, write)
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["scores.json"]


def test_what_a_killed_writer_left_is_removed_and_a_write_that_goes_on_is_not(tmp_path):
    code = (
        "import os, sys, pathlib; from ssl_transfer.files import write_atomically\n"
        "write_atomically(pathlib.Path(sys.argv[1]) / 'a.bin', lambda path: (path.write_bytes(b'1'), os._exit(9)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    (left,) = tmp_path.iterdir()
    assert is_leftover(left)

    def write(temporary):
        write_text(tmp_path / "other.txt", "whole")  # looks for leftovers, and finds ours in use
        temporary.write_text("mine")

    write_atomically(tmp_path / "b.txt", write)
    assert sorted(os.listdir(tmp_path)) == ["b.txt", "other.txt"]
    assert (tmp_path / "b.txt").read_text() == "mine"


@pytest.mark.parametrize("moment", ["before the folder is opened", "before it is locked", "while it is being removed"])
def test_a_write_whose_folder_is_taken_for_a_leftover_before_it_is_locked_begins_again(tmp_path, monkeypatch, moment):
    """Seen where eight processes wrote an index of shards each into one folder: one index was missing."""
    open_folder, take_lock, removed = os.open, files.take_lock, []

    def another_program_removes(place):
        removed.append(place)
        place.rmdir()

    def opened(place, *flags):
        if moment == "before the folder is opened" and not removed and is_leftover(Path(place)):
            another_program_removes(Path(place))
        return open_folder(place, *flags)

    def locked(descriptor):
        if moment == "before it is locked" and not removed:
            another_program_removes(next(tmp_path.iterdir()))
        if moment == "while it is being removed" and not removed:
            another_program_removes(next(tmp_path.iterdir()))
            raise BlockingIOError
        take_lock(descriptor)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(files, "take_lock", locked)
    write_text(tmp_path / "a.txt", "whole")
    assert removed and (tmp_path / "a.txt").read_text() == "whole"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a.txt", lambda path: 1 / 0)
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.bin", lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_content_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (happened.append("replace"), replace(*paths)))
    write_text(tmp_path / "a.txt", "text")
    assert happened == ["fsync", "replace", "fsync"]


def test_a_json_object_that_was_changed_is_refused_unless_in_its_times(tmp_path):
    path, content = tmp_path / "run.json", {"value": 0.951, "k": [5, 20], "names": {"b": 1, "a": None}, "seconds": 3.5}
    write_json(path, with_checksum(content, unchecked=("seconds",)))
    written = path.read_text()
    assert verified(read_json(path), unchecked=("seconds",)) == content
    for old, new in (("0.951", "0.953"), ("20", "28"), ('"a"', '"c"'), ("null", "1")):
        path.write_text(written.replace(old, new))
        with pytest.raises(ValueError, match="not what was written; if you changed it yourself, remove its key sha256"):
            verified(read_json(path), unchecked=("seconds",))
    path.write_text(written.replace("3.5", "7.5"))
    assert verified(read_json(path), unchecked=("seconds",)) == content | {"seconds": 7.5}
    assert verified(content) == content  # of an earlier version


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", "[" * 100_000, "\xff"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError):
        read_json(tmp_path / "run.json")
