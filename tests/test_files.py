import os

from ssl_transfer.files import write_atomically, write_text


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
