"""Files that are refused, in one sentence that says what to do, and nothing of which is ever run."""

import pickle
import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from ssl_transfer.models import load_foreign
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


def test_a_lightning_checkpoint_with_settings_of_odd_classes_is_refused_and_loads_when_converted_as_told(tmp_path):
    path = tmp_path / "last.ckpt"
    content = {"state_dict": torchvision.models.resnet18().state_dict(), "hyper_parameters": {"root": Path("data")}}
    torch.save(content, path)
    assert "pathlib" in (sentence := refusal(path))
    FILE, NEW_FILE = path, tmp_path / "weights.pth"  # noqa: N806  (the names in the sentence)
    order = re.search(r"by (torch\.save\(.*\)) and give", sentence)
    exec(order[1], {"torch": torch, "FILE": FILE, "NEW_FILE": NEW_FILE})
    load_foreign(NEW_FILE, backbone="resnet18", **PLAIN)
