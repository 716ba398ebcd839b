"""Files that are refused, in one sentence that says what to do, and nothing of which is ever run."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from ssl_transfer.models import load_foreign
from ssl_transfer.models.foreign.unreadable import shortened
from tests.models.foreign_files import PLAIN, refusal, seen


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("kept", [0, 30, 2000, 0.5])
def test_a_truncated_file_is_one_sentence(tmp_path, as_zip, kept):
    path = tmp_path / "cut.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path, _use_new_zipfile_serialization=as_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    assert "may be cut short" in refusal(path)


@pytest.mark.parametrize("content", [b"hello world", b"\x89PNG\r\n\x1a\n", b"{}", b"(dp0", b"PK\x03\x04"])
def test_a_file_of_another_kind_is_one_sentence(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    assert "cannot be read as a checkpoint" in refusal(path)


def test_a_cut_or_missing_safetensors_file_is_one_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    assert "there is no checkpoint" in refusal(path)
    save_file(torchvision.models.resnet18().state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    assert "may be cut short" in refusal(path)


def test_safetensors_load_too(tmp_path):
    network = seen(torchvision.models.resnet18(), 64)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    model, _ = load_foreign(tmp_path / "model.safetensors", backbone="resnet18", **PLAIN)
    assert torch.equal(model.backbone.network.conv1.weight, network.conv1.weight)


class Code:
    """What a hostile checkpoint holds: reading it with pickle makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return self.mark.touch, ()


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path, as_zip):
    path, mark = tmp_path / "hostile.ckpt", tmp_path / "ran"
    weights = torchvision.models.resnet18().state_dict()
    torch.save({"state_dict": weights, "hyper_parameters": Code(mark)}, path, _use_new_zipfile_serialization=as_zip)
    sentence = refusal(path)
    assert "would run code" in sentence and "weights_only=False" in sentence
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the same file, read carelessly
    assert mark.exists()


def test_bare_pickles_do_not_run(tmp_path):
    path, mark = tmp_path / "hostile.pkl", tmp_path / "ran"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"state_dict": Code(mark)}, protocol))
        refusal(path)
        assert not mark.exists()


def as_told(path: Path) -> Path:
    """Run the line that the refusal of ``path`` prints, where one trusts the file."""
    FILE, NEW_FILE = path, path.with_name("weights.pth")  # noqa: N806  (the names in the sentence)
    order = re.search(r"by (torch\.save\(.*\)) and give NEW_FILE$", refusal(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; files of it are still about
        exec(order[1], {"torch": torch, "FILE": FILE, "NEW_FILE": NEW_FILE})
    return NEW_FILE


class Trainer:
    """Settings of a class that no reader knows."""

    def __init__(self, network: nn.Module | None = None):
        self.network, self.root = network, Path("data")


def content_of(kind: str, network: nn.Module) -> Any:
    weights = network.state_dict()
    return {
        "model": network,
        "model in DataParallel": nn.DataParallel(network),
        "lightning": {"epoch": 3, "state_dict": weights, "hyper_parameters": {"root": Path("data")}},
        "model in a dict": {"epoch": 3, "model": network, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        "half precision, models of an average": {"ema": None, "model": network.half()},
        "a number of numpy": {"net": weights, "acc": np.float64(0.9)},
        "nested": {"trainer": Trainer(), "checkpoint": {"net": weights, "step": torch.tensor(3)}},
    }[kind]


KINDS = [
    "model",
    "model in DataParallel",
    "lightning",
    "model in a dict",
    "half precision, models of an average",
    "a number of numpy",
    "nested",
]


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_objects_loads_when_it_is_converted_as_told(kind, as_zip, tmp_path):
    network = seen(torchvision.models.resnet18(), 64)
    expected = network.conv1.weight.clone()
    torch.save(content_of(kind, network), tmp_path / "x.pth", _use_new_zipfile_serialization=as_zip)
    model, _ = load_foreign(as_told(tmp_path / "x.pth"), backbone="resnet18", **PLAIN)
    torch.testing.assert_close(model.backbone.network.conv1.weight, expected, rtol=1e-3, atol=1e-6)


def test_objects_among_the_weights_are_to_be_taken_out_by_hand(tmp_path):
    """No line of torch alone does it, so none is printed."""
    torch.save({**torchvision.models.resnet18().state_dict(), "trainer": Trainer()}, tmp_path / "x.pth")
    sentence = refusal(tmp_path / "x.pth")
    assert "an object of tests.models.test_unreadable.Trainer" in sentence
    assert sentence.endswith(
        "save the network's state_dict() by torch.save where the file was made, and give that file"
    )


def test_a_pickle_of_arrays_is_to_be_saved_again_where_it_was_made(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {"conv1.weight": np.zeros((2, 3))}}))
    assert "save the network's state_dict() by torch.save" in refusal(tmp_path / "x.pkl")


def test_torchscript_loads_when_it_is_converted_as_told(tmp_path):
    network = seen(torchvision.models.resnet18(), 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(tmp_path / "x.pt")
    assert "is a TorchScript archive" in refusal(tmp_path / "x.pt")
    model, _ = load_foreign(as_told(tmp_path / "x.pt"), backbone="resnet18", **PLAIN)
    assert torch.equal(model.backbone.network.conv1.weight, network.conv1.weight)


def test_another_archive_and_a_folder_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", weights=np.zeros(3))
    assert "is a zip archive that torch.save did not write" in refusal(tmp_path / "x.npz")
    assert "is a folder: give the file with the weights" in refusal(tmp_path)


def test_a_reason_ends_with_a_whole_word():
    words = "a reason of many words that goes on and on " * 9
    short = shortened(ValueError(f"{words}\n\nand lines"))
    assert len(short) <= 160 and short.endswith(" ...") and short.split(" ...")[0].split()[-1] in words.split()


class Swallowing(dict):
    """Looks like a dictionary when it is read, and makes a file when it is asked anything."""

    mark: Path

    def __reduce__(self) -> tuple:
        return eval, (f"__import__('pathlib').Path({str(self.mark)!r}).touch() or {{}}",)


@pytest.mark.parametrize("as_zip", [True, False])
def test_nothing_runs_where_a_conversion_is_looked_for(as_zip, tmp_path):
    """Code at the top, in a key's place, as a class, as a method and in the weights' own place."""
    mark, path = tmp_path / "ran", tmp_path / "x.pth"
    swallowing = Swallowing()
    swallowing.mark = mark
    weights = {"state_dict": {"weight": torch.zeros(2)}}
    for content in (Code(mark), swallowing, [Code(mark)], weights | {"a": swallowing}, {"state_dict": Code(mark)}):
        torch.save(content, path, _use_new_zipfile_serialization=as_zip)
        refusal(path)
        assert not mark.exists()
    path.write_bytes(pickle.dumps(swallowing))
    refusal(path)
    assert not mark.exists()


def test_an_endless_pickle_is_one_sentence(tmp_path):
    loop: dict = {"state_dict": {"weight": torch.zeros(2)}, "trainer": Trainer()}
    loop["loop"] = loop
    torch.save(loop, tmp_path / "x.pth")
    assert "would run code" in refusal(tmp_path / "x.pth")
