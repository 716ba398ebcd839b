"""The digests by which files are known again."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.sources.storage import FileStorage, sampled

NAMES = ["a/small", "a/large", "b/empty"]


@pytest.fixture
def files(tmp_path):
    contents = {"a/small": b"x" * 40_000, "a/large": np.random.default_rng(0).bytes(500_000), "b/empty": b""}
    for name, content in contents.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(content)
    return tmp_path / "root"


def digests(root: Path, names=NAMES) -> list[bytes]:
    joined = FileStorage(names, root).digests(range(len(names)))
    return [joined[start : start + 16] for start in range(0, len(joined), 16)]


def test_digests_are_of_names_and_content_wherever_and_whenever(files, tmp_path):
    before = digests(files)
    assert len(set(before)) == 3
    shutil.copytree(files, tmp_path / "else" / "where")
    for path in (tmp_path / "else").rglob("*"):
        os.utime(path, (1, 1))
    assert digests(tmp_path / "else" / "where") == before
    (files / "a" / "small").rename(files / "a" / "other")
    assert digests(files, ["a/other"])[0] not in before


@pytest.mark.parametrize(
    "name, places", [("a/small", range(0, 40_000, 1_999)), ("a/large", [0, 498_000 * 3 // 7, 499_999])]
)
def test_other_content_of_the_same_size_and_date_has_another_digest(files, name, places):
    before = digests(files)
    path = files / name
    status, content = path.stat(), path.read_bytes()
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        after = digests(files)
        assert [one == other for one, other in zip(before, after, strict=True)] == [name != other for other in NAMES]


def test_a_file_of_other_length_has_another_digest_though_its_pieces_agree():
    assert sampled(100_000, lambda start, count: b"") != sampled(100_001, lambda start, count: b"")


@pytest.mark.parametrize("size", [65_537, 500_000, 10**12])
def test_a_long_file_is_read_in_pieces_from_its_first_byte_to_its_last(size):
    asked = []
    sampled(size, lambda start, count: asked.append((start, start + count)) or b"")
    assert asked[0][0] == 0 and asked[-1][1] == size and sum(end - start for start, end in asked) == 16_384
    gaps = [later[0] - earlier[0] for earlier, later in zip(asked, asked[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_digests_are_read_once_and_do_not_travel_to_workers(files):
    storage = FileStorage(NAMES, files)
    length = len(pickle.dumps(storage))
    before = storage.digests([1, 0])
    shutil.rmtree(files)
    assert storage.digests([0, 1]) == before[16:] + before[:16]
    assert len(pickle.dumps(storage)) == length


def test_a_file_that_cannot_be_read_has_a_digest_of_its_own(files):
    before = digests(files)
    (files / "a" / "small").unlink()
    missing = digests(files)
    assert missing[0] != before[0] and missing[1:] == before[1:]
    (files / "a" / "small").symlink_to("nowhere")
    assert digests(files) == missing
    with pytest.raises(OSError, match="link to a file that is not there"):
        FileStorage(NAMES, files).read(0)
