import pickle
import sys
import warnings

import pytest
import torch

from ssl_transfer.data import Inventory, load_images
from ssl_transfer.data.sources.hugging_face import find_saved
from ssl_transfer.data.sources.inventory import LeftOut

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


def with_column(rows, name, values, kind):
    return rows.remove_columns("fine").add_column(name, values).cast_column(name, kind)


def test_hidden_labels_are_none(rows, tmp_path):
    with_column(rows, "fine", [-1] * 7, datasets.ClassLabel(names=list("xyz"))).save_to_disk(tmp_path)
    assert load(tmp_path).labels is None


def test_labels_that_are_hidden_of_some_images_are_refused(rows, tmp_path):
    with_column(rows, "fine", [0, 1, -1, 0, 1, -1, 2], datasets.ClassLabel(names=list("xyz"))).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 7 images in column fine of .* have no class, the first is row 2: "):
        load(tmp_path)
    assert load(tmp_path, labels="none").labels is None


@pytest.mark.parametrize(
    "kind, values, labels, names",
    [
        ("int64", [3, 0, 1, 3, 0, 1, 0], [3, 0, 1, 3, 0, 1, 0], None),
        ("bool", [True, False] * 3 + [True], [1, 0] * 3 + [1], None),
        ("string", ["dog", "ant"] * 3 + ["cat"], [2, 0] * 3 + [1], ("ant", "cat", "dog")),
    ],
)
def test_classes_may_be_plain_numbers_or_names(rows, tmp_path, kind, values, labels, names):
    with_column(rows, "label", values, datasets.Value(kind)).save_to_disk(tmp_path)
    images = load(tmp_path)
    assert images.labels.tolist() == labels and images.class_names == names


def test_a_column_may_say_by_its_name_that_it_is_of_classes(rows, tmp_path):
    with_column(rows, "Fine_Label", [4] * 7, datasets.Value("int8")).save_to_disk(tmp_path / "one")
    assert load(tmp_path / "one").labels.tolist() == [4] * 7
    with_column(rows, "labeler", ["me"] * 7, datasets.Value("string")).save_to_disk(tmp_path / "other")
    assert load(tmp_path / "other").labels is None


def test_a_table_without_rows_is_refused(rows, tmp_path):
    rows.select([]).save_to_disk(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no rows"):
        load(tmp_path)


def test_labels_that_are_no_classes_are_refused_with_their_column(rows, tmp_path):
    with_column(rows, "label", [0.5] * 7, datasets.Value("float32")).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=r"row 0 in column label of .* has the label 0\.5: labels must all be whole"):
        load(tmp_path)


def test_columns_that_are_not_read_are_named(rows, tmp_path, caplog):
    save_alone(rows, tmp_path)
    assert load(tmp_path).inventory == Inventory(7, (LeftOut("columns", 1, ("id",)),))
    assert "images taken: 7; left out: columns: 1 (id)" in caplog.text
    images = load(tmp_path, labels="id")
    assert images.labels.tolist() == list(range(7)) and images.inventory.left_out[0].first == ("fine",)


def test_two_columns_of_classes_or_images_ask_which_is_meant(rows, picture, tmp_path):
    table = rows.add_column("coarse", [0] * 7).cast_column("coarse", datasets.ClassLabel(names=["all"]))
    table.save_to_disk(tmp_path / "classes")
    with pytest.raises(ValueError, match="has classes in fine, coarse: choose a column, such as labels=fine"):
        load(tmp_path / "classes")
    assert load(tmp_path / "classes", labels="coarse").class_names == ("all",)
    with pytest.raises(
        ValueError, match="has no column tags: choose labels=auto, none or one of id, img, fine, coarse"
    ):
        load(tmp_path / "classes", labels="tags")

    features = datasets.Features({"annotation": datasets.Image(), "image": datasets.Image()})
    columns = {"annotation": [picture(shade=0)], "image": [picture()]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "images")
    with pytest.raises(ValueError, match="has images in annotation, image: choose a column, such as image=annotation"):
        load(tmp_path / "images")
    annotation, image = (load(tmp_path / "images", image=name).pixels for name in ("annotation", "image"))
    assert not torch.equal(annotation, image)
    with pytest.raises(ValueError, match="has no column id of images: choose image=annotation or image=image"):
        load(tmp_path / "images", image="id")


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


def test_a_fingerprint_is_of_the_content_in_the_table_or_in_the_files_it_names(picture, save, tmp_path):
    prints = []
    for shade in (255, 254):
        files = tmp_path / str(shade)
        save(files / "0.bmp", 16, 16, shade)
        kept = {"bytes": (files / "0.bmp").read_bytes(), "path": None}
        named = {"bytes": None, "path": str(files / "0.bmp")}
        for number, row in enumerate((kept, named)):
            features = datasets.Features({"image": datasets.Image()})
            saved = datasets.Dataset.from_dict({"image": [row]}, features=features)
            saved.save_to_disk(files / f"saved{number}")
            prints.append(load(files / f"saved{number}", decode=False).fingerprint)
    assert prints[0] == prints[1] != prints[2] == prints[3]


def test_a_table_that_was_cut_is_refused(rows, tmp_path):
    rows.save_to_disk(tmp_path, num_shards=1)
    (path,) = tmp_path.glob("*.arrow")
    content = path.read_bytes()
    for length in (len(content) - 8, len(content) // 2, 3, 0):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"\.arrow has no end: it was cut"):
            load(tmp_path)


def test_a_missing_parquet_file_is_named(rows, tmp_path):
    save_as_hub_parquet(rows, tmp_path)
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of its numbered files, the first is number 0 of train-"):
        load(tmp_path)


def test_hidden_files_beside_a_table_are_not_read(rows, tmp_path):
    save_parquet_folder(rows, tmp_path)
    (tmp_path / "train" / "._0.parquet").write_bytes(b"Mac OS X")
    assert len(load(tmp_path)) == 7


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
