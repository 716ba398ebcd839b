import pickle
import sys
import warnings

import pytest
import torch

from ssl_transfer.data import load_images
from ssl_transfer.data.sources.hugging_face import find_saved

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets


def load(root, **options):
    return load_images("hf", root, **dict(split="train", image_size=16) | options)


@pytest.fixture
def rows(picture, tmp_path, monkeypatch):
    """Seven PNG images of three classes, and a column that is neither."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = {"id": datasets.Value("int64"), "img": datasets.Image(), "fine": datasets.ClassLabel(names=list("xyz"))}
    columns = {
        "id": list(range(7)),
        "img": [picture(20 + number, 20) for number in range(7)],
        "fine": [number % 3 for number in range(7)],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def of_pictures(picture, save, root):
    """The same images through the folder source."""
    for number in range(7):
        save(root / f"{number}.png", 20 + number, 20)
    return load_images("folder", root, split="train", download=False, image_size=16).pixels


def save_table(rows, root):
    rows.save_to_disk(root / "train")


def save_alone(rows, root):
    rows.save_to_disk(root)


def save_all_splits(rows, root):
    datasets.DatasetDict({"train": rows, "test": rows.select([1, 2])}).save_to_disk(root)


def save_as_hub_parquet(rows, root):
    (root / "data").mkdir(parents=True)
    for number in range(2):
        rows.shard(2, number, contiguous=True).to_parquet(root / "data" / f"train-0000{number}-of-00002.parquet")


def save_parquet_folder(rows, root):
    (root / "train").mkdir(parents=True)
    rows.to_parquet(root / "train" / "0.parquet")


@pytest.mark.parametrize(
    "write",
    [save_table, save_alone, save_all_splits, save_as_hub_parquet, save_parquet_folder],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("resident", [True, False])
def test_every_way_to_save_gives_the_same_images_and_classes(rows, picture, save, tmp_path, write, resident):
    write(rows, tmp_path / "saved")
    images = load(tmp_path / "saved", resident=resident)
    assert torch.equal(images.pixels[:], of_pictures(picture, save, tmp_path / "files"))
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and images.class_names == ("x", "y", "z")


def test_each_split_of_a_dictionary_is_its_own(rows, tmp_path):
    save_all_splits(rows, tmp_path)
    assert load(tmp_path, split="test").labels.tolist() == [1, 2]


def test_hidden_labels_are_none(rows, tmp_path):
    rows.remove_columns("fine").add_column("fine", [-1] * 7).cast_column(
        "fine", datasets.ClassLabel(names=list("xyz"))
    ).save_to_disk(tmp_path)
    assert load(tmp_path).labels is None


def test_images_kept_as_paths_are_read(picture, save, tmp_path):
    expected = of_pictures(picture, save, tmp_path / "files")
    paths = [str(tmp_path / "files" / f"{number}.png") for number in range(7)]
    table = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "saved")
    assert torch.equal(load(tmp_path / "saved", resident=False).pixels[:], expected)


def test_a_broken_row_is_named(rows, tmp_path):
    broken = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"nothing", "path": None}, None, rows[0]["img"]]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    broken.save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"2 of 3 images cannot be decoded: .*row 0 .*row 1 "):
        load(tmp_path / "saved")


def test_a_saved_table_travels_to_worker_processes_as_a_path(rows, tmp_path):
    save_alone(rows, tmp_path)
    encoded = find_saved(tmp_path, "train")
    sent = pickle.dumps(encoded)
    assert len(sent) < 5000
    assert torch.equal(pickle.loads(sent).decode([3], 16)[0], encoded.decode([3], 16)[0])


def test_a_folder_without_a_saved_data_set_says_where_was_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"for split train: looked for {tmp_path}/train/state"):
        load(tmp_path)


def test_a_table_without_images_is_refused(rows, tmp_path):
    rows.remove_columns("img").save_to_disk(tmp_path)
    with pytest.raises(ValueError, match="no images among its id, fine"):
        load(tmp_path)


def test_without_the_library_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="dataset hf needs Hugging Face's library: pip install datasets"):
        load(tmp_path)
