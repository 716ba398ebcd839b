from pathlib import Path

import pytest

from ssl_transfer.data.sources.parts import refuse_missing_parts


def paths(*names: str) -> list[Path]:
    return [Path("root") / name for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["train-000000.tar", "train-000001.tar", "train-000002.tar"],
        ["train-1.tar", "train-2.tar"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train-00001-of-00002.parquet", "train-00002-of-00002.parquet"],
        ["train-00000-of-00001-a09b74b3ef9c3b56.parquet"],
        ["day-20240101.tar", "day-20240105.tar"],
        ["a.tar", "b7.tar", "train.tar"],
        ["v2-000.tar", "v2-001.tar", "v3-000.tar"],
    ],
)
def test_numbered_files_that_are_all_there_are_let_through(names):
    refuse_missing_parts(paths(*names))


@pytest.mark.parametrize(
    "names, words",
    [
        (["train-000000.tar", "train-000002.tar"], r"root lacks 1 .* first is number 1 of train-\*"),
        (["train-1.tar", "train-4.tar"], "lacks 2 .* number 2 of train-"),
        (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], "lacks 1 .* number 1 "),
        (["train-00001-of-00003.parquet"], "lacks 2 .* number 0 "),
        (["train-00000-of-00002-a09b74b3ef9c3b56.parquet"], "lacks 1 .* number 1 "),
        (["a-0.tar", "a-1.tar", "b-0.tar", "b-2.tar"], r"number 1 of b-\*"),
    ],
)
def test_a_missing_number_is_named(names, words):
    with pytest.raises(FileNotFoundError, match=words):
        refuse_missing_parts(paths(*names))
