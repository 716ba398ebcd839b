"""Which files of a tree are images, and what is said of the others."""

import os
import socket
from pathlib import Path

import pytest

from ssl_transfer.data.sources.decode import SUFFIXES
from ssl_transfer.data.sources.listing import list_files


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def left_out(root: Path) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {part.reason: (part.count, part.first) for part in list_files(root)[1].inventory(0).left_out}


def test_files_come_in_the_order_of_their_paths(tmp_path):
    write(tmp_path, "b/2.png", "b/10.png", "b.png", "b-c/1.jpg", "a/deep/er/x.JPG", "a/deep.png", "a/Z.png")
    expected = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [tmp_path / path for path in list_files(tmp_path)[0]] == expected


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    write(tmp_path / "disk", "cat/1.png", "cat/deep/2.png", "dog/3.png")
    write(tmp_path / "photos", "ant/0.png")
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "photos" / "ant" / "linked.png").symlink_to(tmp_path / "disk" / "dog" / "3.png")
    paths = ["ant/0.png", "ant/linked.png", "cat/1.png", "cat/deep/2.png", "dog/3.png"]
    assert list_files(tmp_path / "photos")[0] == paths


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "/"])
def test_a_link_to_a_folder_that_it_lies_in_is_left_out(tmp_path, target):
    write(tmp_path, "root/train/a/1.png", "root/test/a/2.png")
    (tmp_path / "root" / "train" / "a" / "up").symlink_to(target)
    assert list_files(tmp_path / "root" / "train")[0] == ["a/1.png"]
    assert left_out(tmp_path / "root" / "train") == {"links to a folder that they lie in": (1, ("a/up",))}


def test_links_that_lead_into_each_other_come_to_an_end(tmp_path):
    write(tmp_path, "top/a/1.png", "other/2.png")
    (tmp_path / "top" / "b").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "top")
    assert list_files(tmp_path / "top")[0] == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize(
    "links", [{"b": "a"}, {"0": "a"}, {"b": "../disk", "c": "../disk"}, {"b": "../disk/deep", "c": "../disk"}]
)
def test_a_folder_that_is_met_twice_is_refused_with_both_ways(tmp_path, links):
    write(tmp_path, "top/a/1.png", "disk/deep/2.png")
    for name, target in links.items():
        (tmp_path / "top" / name).symlink_to(target)
    with pytest.raises(ValueError, match=r"top/\S+ and \S+top/\S+ are the same folder, .* a link"):
        list_files(tmp_path / "top")


def test_a_link_to_nothing_is_listed_if_it_may_be_an_image_and_refused_if_it_may_be_a_folder(tmp_path):
    write(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.jpg").symlink_to("nowhere")
    (tmp_path / "a" / "3.jpg").symlink_to("3.jpg")  # to itself
    assert list_files(tmp_path)[0] == ["a/1.png", "a/2.jpg", "a/3.jpg"]
    (tmp_path / "b").symlink_to("/nowhere/b")
    with pytest.raises(FileNotFoundError, match=r"/b is a link to nothing"):
        list_files(tmp_path)


def test_hidden_files_and_those_of_operating_systems_are_no_data(tmp_path):
    write(
        tmp_path,
        "a/1.png",
        ".ipynb_checkpoints/1.png",
        "a/._1.png",
        "__MACOSX/a/1.png",
        "a/Thumbs.db",
        "b/@eaDir/1.jpg",
    )
    assert list_files(tmp_path)[0] == ["a/1.png"]
    first = (".ipynb_checkpoints/", "__MACOSX/", "a/._1.png", "a/Thumbs.db", "b/@eaDir/")
    assert left_out(tmp_path) == {"hidden, or of the operating system": (5, first)}


def test_hidden_folders_around_the_tree_do_not_matter(tmp_path):
    write(tmp_path, ".cache/photos/a/1.png")
    assert list_files(tmp_path / ".cache" / "photos")[0] == ["a/1.png"]


def test_every_suffix_is_taken_in_any_letters_and_other_files_are_counted_by_theirs(tmp_path):
    write(tmp_path, *(f"a/{number}{suffix}" for number, suffix in enumerate(SUFFIXES)))
    write(tmp_path, "b/x.JPG", "b/y.Jfif", "b/x.heic", "b/y.HEIC", "b/README", "b/x.jpg.txt", "b/x.tar.gz")
    assert len(list_files(tmp_path)[0]) == len(SUFFIXES) + 2
    assert left_out(tmp_path) == {
        "files ending in .heic": (2, ("b/x.heic", "b/y.HEIC")),
        "files ending in .gz": (1, ("b/x.tar.gz",)),
        "files ending in .txt": (1, ("b/x.jpg.txt",)),
        "files without a suffix": (1, ("b/README",)),
    }


def test_what_is_neither_file_nor_folder_is_counted(tmp_path):
    write(tmp_path, "folder.jpg/1.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.jpg"))
    assert list_files(tmp_path)[0] == ["folder.jpg/1.png"]
    assert left_out(tmp_path) == {"devices, pipes or sockets": (2, ("pipe.jpg", "socket.jpg"))}


def test_names_of_any_bytes_can_be_listed_and_printed(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"")
    (tmp_path / os.fsdecode(b"\xff.txt")).write_bytes(b"")
    files, tally = list_files(tmp_path)
    assert [os.fsencode(path) for path in files] == [b"\xff\xfe.png"]
    assert "\\udcff.txt" in str(tally.inventory(1)).encode().decode()


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    write(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(path):  # by hand: root, as whom tests often run in containers, may read every folder
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="/b"):
        list_files(tmp_path)
