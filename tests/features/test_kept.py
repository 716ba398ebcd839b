"""Features in a file: made part by part, continued, extended and mended, and never all in memory."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from ssl_transfer import distributed
from ssl_transfer.data import Images, load_images
from ssl_transfer.features import extraction, kept
from ssl_transfer.features.extraction import compute_features, kept_features
from ssl_transfer.features.kept import KeptFeatures, read_at
from ssl_transfer.features.model_features import features_of
from ssl_transfer.models import Output
from ssl_transfer.models.checkpoint import tensors_hash
from ssl_transfer.probes import (
    extract_features,
    few_shot,
    linear_cka,
    linear_probe,
    nearest,
    nearest_neighbors,
    retrieval,
    rows,
    sgd_probe,
    transfer_probe,
)
from tests.probes.test_scale import MEASURES, PIXELS
from tests.processes import on_two_processes
from tests.simulated_cuda.banks import scores_on

ROOT = Path(__file__).parents[2]
KEY = {"weights": "aa", "layer": "features"}


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """The numbers of images that features were computed of, in batches of at most 512 and parts of 512."""
    found: list[int] = []

    def counting(network, pixels, **options):
        found.append(len(pixels))
        return extract_features(network, pixels, **options)

    monkeypatch.setattr(extraction, "extract_features", counting)
    monkeypatch.setattr(kept, "ROWS", 512)
    return found


def features(model, images, folder, **options) -> torch.Tensor:
    return kept_features(Output(model, "features"), images, key=KEY, folder=folder, **options)


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_parts_are_those_of_the_whole_in_a_file_that_anybody_reads(model, digits, seen, tmp_path):
    found = features(model, digits[0], tmp_path)
    assert torch.equal(found, compute_features(model, digits[0]))
    assert torch.equal(found, features(model, digits[0], tmp_path)) and seen[:3] == [512, 512, 418]
    with safe_open(the_file(tmp_path), framework="pt") as file:
        assert torch.equal(file.get_tensor("features"), found)
        assert file.metadata().items() >= KEY.items() and len(file.metadata()["sha256"].split()) == 3


@pytest.mark.parametrize("changed", KEY)
def test_features_of_another_key_are_not_found(model, digits, seen, tmp_path, changed):
    features(model, digits[1], tmp_path)
    kept_features(
        Output(model, "features"), digits[1], key=KEY | {changed: "other"}, folder=tmp_path, advance=lambda n: None
    )
    assert seen == [355, 355] and len(list(tmp_path.iterdir())) == 2


def test_what_was_there_before_the_end_is_not_computed_again(model, digits, seen, tmp_path):
    def stop(count):
        if sum(seen) > 512:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(model, digits[0], tmp_path, advance=stop)
    assert seen == [512, 512]
    found = features(model, digits[0], tmp_path)
    assert seen == [512, 512, 512, 418]
    assert torch.equal(found, compute_features(model, digits[0]))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_damaged_part_alone_is_computed_again(model, digits, seen, tmp_path, caplog):
    features(model, digits[0], tmp_path)
    whole = the_file(tmp_path).read_bytes()
    flip(the_file(tmp_path), -1)
    features(model, digits[0], tmp_path)
    assert seen == [512, 512, 418, 418] and "1 of its 3 parts" in caplog.text
    assert the_file(tmp_path).read_bytes() == whole


@pytest.mark.parametrize("place", [0, 9, 40, 300])
def test_a_damaged_header_is_of_no_file(model, digits, seen, tmp_path, place):
    features(model, digits[1], tmp_path)
    whole = the_file(tmp_path).read_bytes()
    flip(the_file(tmp_path), place)
    features(model, digits[1], tmp_path)
    assert seen == [355, 355] and the_file(tmp_path).read_bytes() == whole


def test_a_folder_that_nobody_may_write_to_gives_what_it_has(model, digits, seen, tmp_path, monkeypatch, caplog):
    """As for another user: the tests may be run by one whom permissions do not stop."""
    expected = features(model, digits[0], tmp_path)
    real = kept.FileIO

    def refused(path, mode):
        if "+" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, mode)

    def not_made(path, write):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(kept, "FileIO", refused)
    monkeypatch.setattr(kept, "write_atomically", not_made)
    assert torch.equal(features(model, digits[0], tmp_path), expected) and len(seen) == 3 and not caplog.records
    flip(the_file(tmp_path), -1)
    assert torch.equal(features(model, digits[0], tmp_path), expected) and len(seen) == 6
    assert "the features are not kept" in caplog.text
    with pytest.raises(PermissionError, match=str(tmp_path)):
        features(model, digits[0], tmp_path, must_keep=True)


def pictures(root: Path, numbers: range) -> Images:
    for number in numbers:
        path = root / "train" / f"class {number // 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9 * number, 40, 250 - 9 * number)).save(path)
    return load_images("folder", root, split="train", image_size=8, resident=False, workers=0)


def test_a_data_set_that_has_grown_computes_what_is_new(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "ROWS", 4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    made = [
        kept_features(network, pictures(tmp_path / "pictures", range(count)), key=KEY, folder=tmp_path / "features")
        for count in (10, 18)
    ]
    assert seen == [4, 4, 2, 4, 4, 2]  # of the second part of three one was not whole
    assert torch.equal(made[0][:8], made[1][:8])
    fresh = kept_features(network, pictures(tmp_path / "pictures", range(18)), key=KEY, folder=tmp_path / "new")
    assert torch.equal(made[1], fresh)


@pytest.fixture
def mapped(tmp_path, monkeypatch, model, digits):
    """A function that gives a table of the digits' size, mapped from a file."""
    monkeypatch.setattr(extraction, "IN_MEMORY", 0)

    def write(x: torch.Tensor) -> torch.Tensor:
        with KeptFeatures(tmp_path, {"table": str(x.dtype)}, digits[0].subset(torch.arange(len(x)))) as file:
            assert file.missing() == [0]
            file.write(0, x)
            return file.read()

    return write


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_of_mapped_features_is_that_of_held_ones(name, mapped):
    """A mapped table cannot be written to: whoever does is ended by a signal."""
    x = PIXELS[:500].float()
    assert MEASURES[name](mapped(x)) == MEASURES[name](x)


def test_features_that_are_too_large_stay_in_the_file(model, digits, tmp_path, monkeypatch):
    held = features_of("student", model, digits, cache=tmp_path).features
    monkeypatch.setattr(extraction, "IN_MEMORY", held.train_x.nbytes - 1)
    left = features_of("student", model, digits, cache=tmp_path).features
    assert torch.equal(held.train_x, left.train_x) and torch.equal(held.test_x, left.test_x)
    maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
    for path in tmp_path.iterdir():
        with safe_open(path, framework="pt") as file:
            large = file.get_slice("features").get_shape()[0] == len(digits[0])
        assert (str(path) in maps) == large or not maps


def test_a_file_that_was_replaced_is_not_read_for_another(model, digits, tmp_path):
    features(model, digits[1], tmp_path)
    with KeptFeatures(tmp_path, KEY, digits[1]) as found:
        assert found.missing() == []
        assert torch.equal(read_at(found.place), found.read())
        copy = tmp_path / "copy"
        copy.write_bytes(found.path.read_bytes())
        copy.replace(found.path)
        with pytest.raises(OSError, match="written again meanwhile"):
            read_at(found.place)


N, D = 2**18, 128


def found_in(x: torch.Tensor, labels: torch.Tensor) -> list[str]:
    """Hashes of what is found in a bank in several walks of many tiles."""
    nearest_neighbors.BANK_ROWS, nearest_neighbors.HELD = 2**12, 2**15
    said = []
    for metric in ("cosine", "euclidean"):
        parts = list(nearest(x[:700], x, 9, metric=metric))
        found = {"s": torch.cat([part.similarity for part in parts]), "i": torch.cat([part.index for part in parts])}
        said.append(tensors_hash(found))
    return [*said, str(retrieval(x, labels, k=[1], queries=300)), *fitted_to(x, labels % 2)]


def fitted_to(x: torch.Tensor, labels: torch.Tensor) -> list[str]:
    """What probes find that fit classifiers to a table, or compare two, of many parts."""
    rows.WHOLE, rows.PART = 0, 2**18
    split = x, labels, x[-999:], labels[-999:]
    return [
        str(linear_probe(*split, strengths=[1.0]).held_out_accuracy),
        str(transfer_probe(*split, penalties=[1e6]).held_out),
        str(sgd_probe(*split, epochs=1, rates=[0.1], batch_size=2**14).held_out_accuracy),
        str(few_shot(*split, labels_per_class=[2], draws=2)),
        str(linear_cka(x, x[:, 1:])),
    ]


LIMITED = """
import resource, sys
from tests.features.test_kept import *
torch.set_num_threads(1)
extraction.IN_MEMORY = 0
pixels = torch.arange(N * 4, dtype=torch.int32).view(torch.uint8).view(N, 4, 2, 2)
images = Images(pixels, torch.arange(N) % 1000, 1000, "numbers", "train", (0.0,), (1.0,))
network = nn.Sequential(nn.Flatten(), nn.Linear(16, D)).eval()
found_in(torch.eye(3).repeat(1000, 1), torch.arange(3000) % 2)  # so that all is loaded
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, 2 * (used + N * D * 4 * 3 // 4,))
x = extraction.kept_features(network, images, key={}, folder=Path(sys.argv[1]))
try:
    x.clone()
except RuntimeError:
    print("no room for a copy")
print(*found_in(x, images.labels), sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process without mapped files")
def test_less_memory_than_the_features_take_is_enough_and_changes_no_bit(tmp_path, monkeypatch):
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    # glibc gives large blocks back as they are freed, and does not keep some, which would count as taken.
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=surroundings)
    assert done.returncode == 0, done.stderr
    for part, name in ((nearest_neighbors, "BANK_ROWS"), (nearest_neighbors, "HELD"), (rows, "WHOLE"), (rows, "PART")):
        monkeypatch.setattr(part, name, getattr(part, name))  # which found_in changes
    with safe_open(the_file(tmp_path), framework="pt") as file:
        expected = found_in(file.get_tensor("features"), torch.arange(N) % 1000)
    assert done.stdout.splitlines() == ["no room for a copy", *expected]


def check_two_processes(rank: int, folder: Path) -> None:
    images = load_images("digits", Path(), split="train", download=False)
    kept.ROWS = 600
    tempfile.tempdir = str(folder)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 7)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.arange(7 * 64).view(7, 64).sin())
        network[1].bias.zero_()
    for machines in (1, 2):
        os.environ["LOCAL_RANK"] = "0" if machines == 2 else str(rank)
        distributed._machine_of.cache_clear()
        extraction.IN_MEMORY = 0
        own = folder / str(machines) / str(rank if machines == 2 else 0)
        for _ in range(2):  # computed, then read
            found = kept_features(network, images, key=KEY, folder=own)
            torch.testing.assert_close(found, extract_features(network, images.pixels), rtol=1e-6, atol=1e-6)
            maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
            assert ("/ssl-transfer-features-" in maps) == (machines == 2 and rank == 1) or not maps
            assert not list(folder.glob("ssl-transfer-*"))  # it goes with the process
        assert own.exists() == (rank == 0 or machines == 1)
        extraction.IN_MEMORY = 2**30
        assert torch.equal(found, kept_features(network, images, key=KEY, folder=own))


@pytest.mark.slow
def test_processes_share_the_work_and_all_have_the_features(tmp_path):
    on_two_processes(check_two_processes, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_searches_a_bank_that_is_not_on_it():
    assert scores_on("cuda") == pytest.approx(scores_on("cpu"), abs=0.01)
