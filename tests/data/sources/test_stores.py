"""Shards by address: in memory, on a disk, behind a web server that gives ranges or does not, or is away."""

import http.server
import io
import re
import tarfile
import threading

import fsspec
import pytest
import torch

from ssl_transfer.data import load_images
from ssl_transfer.data.sources import shards, stores

SAMPLES, SHARDS = 6, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of three images each, and the images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("shards")
    for shard in range(SHARDS):
        with tarfile.open(folder / f"train-{shard:03}.tar", "w") as archive:
            for number in range(shard * 3, shard * 3 + 3):
                picture = io.BytesIO()
                Image.new("RGB", (9, 9), (40 * number, 0, 9)).save(picture, "PNG")
                for name, content in ((f"{number}.png", picture.getvalue()), (f"{number}.cls", b"%d" % (number % 2))):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


class Server(http.server.ThreadingHTTPServer):
    """A web server on the loopback address that answers ranges; it fails as often as it is told, and counts bytes."""

    def __init__(self, folder):
        self.failures, self.ranges, self.sent = 0, True, 0
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(with_body=False)

            def do_GET(self):
                self.answer(with_body=True)

            def answer(self, with_body):
                path = folder / self.path.rpartition("/")[2]
                if served.failures:
                    served.failures -= 1
                    return self.reply(503, b"", with_body)
                if not path.is_file():
                    return self.reply(404, b"", with_body)
                content, asked = path.read_bytes(), re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if not asked or not served.ranges:
                    return self.reply(200, content, with_body)
                first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
                self.reply(206, content[first : last + 1], with_body, f"bytes {first}-{last}/{len(content)}")

            def reply(self, status, content, with_body, content_range=None):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", '"1"')
                if served.ranges:
                    self.send_header("Accept-Ranges", "bytes")
                if content_range:
                    self.send_header("Content-Range", content_range)
                self.end_headers()
                if with_body:
                    served.sent += len(content)
                    self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(stores, "_PAUSES", (0.01, 0.01))
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def load(root, split="train", **options):
    return load_images("webdataset", root, **dict(split=split, image_size=8, memory=None, workers=0) | options)


@pytest.fixture(scope="module")
def expected(folder):
    return load(folder)


def same(images, expected):
    assert torch.equal(images.pixels[:], expected.pixels) and torch.equal(images.labels, expected.labels)
    assert list(images.files) == list(expected.files) and images.classes == 2


def test_shards_in_memory_and_by_a_file_address_are_those_on_the_disk(folder, expected):
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    for root in ("memory://bucket", f"file://{folder}"):
        for split in ("train", "train-*.tar", "train-{000..001}.tar"):
            for resident in (True, False):
                same(load(root, split, resident=resident), expected)
    with pytest.raises(FileNotFoundError, match="There is no tar file for split test: looked for memory://bucket/test"):
        load("memory://bucket", "test")
    with pytest.raises(FileNotFoundError, match="1 of the files .* are missing, the first is train-002.tar"):
        load("memory://bucket", "train-{000..002}.tar")


def test_a_web_server_is_read_by_ranges(server, expected, tmp_path):
    images = load(server.address, "train-{000..001}.tar", resident=False, memory=tmp_path / "checked")
    same(images, expected)
    server.sent = 0
    again = load(server.address, "train-{000..001}.tar", resident=False, memory=tmp_path / "checked")
    assert server.sent == 0 and again.fingerprint == images.fingerprint  # the index is known, and no image is checked
    assert torch.equal(again.pixels[2:3], expected.pixels[2:3]) and 0 < server.sent < 500  # the bytes of one image


def test_what_passes_is_tried_again_and_what_does_not_is_a_sentence(server, expected):
    server.failures = 2
    same(load(server.address, "train-{000..001}.tar"), expected)
    server.failures = 10**6
    with pytest.raises(ValueError, match=r"cannot be listed: the store of http://\S+ is away, after 3 tries: .*503"):
        load(server.address, "train-{000..001}.tar")
    server.failures = 0
    images = load(server.address, "train-{000..001}.tar", decode=False)
    server.failures = 10**6
    with pytest.raises(ValueError, match="images cannot be decoded: .*the store of .* is away"):
        images.pixels[0:1]


def test_a_server_that_ignores_ranges_is_refused(server):
    images = load(server.address, "train-{000..001}.tar", decode=False)
    server.ranges = False
    with pytest.raises(ValueError, match="it must give ranges of files"):
        images.pixels[0:1]


def test_an_address_is_for_shards_and_needs_its_library(monkeypatch):
    with pytest.raises(ValueError, match="is an address, which is for dataset webdataset, and not for folder"):
        load_images("folder", "s3://bucket/photos", split="train", image_size=8)
    with pytest.raises(ValueError, match="nowhere://bucket/.* cannot be read: .*nowhere"):
        load("nowhere://bucket")


def test_an_index_is_made_once_and_grows_with_the_shards(folder, expected, tmp_path, monkeypatch):
    root, memory = tmp_path / "data", tmp_path / "checked"
    root.mkdir()
    first, second = sorted(folder.iterdir())
    read = []
    samples = shards._samples
    monkeypatch.setattr(shards, "_samples", lambda file, tar, *rest: read.append(tar[-7:]) or samples(file, tar, *rest))
    (root / first.name).write_bytes(first.read_bytes())
    assert len(load(root, memory=memory)) == 3 and read == ["000.tar"]
    (root / second.name).write_bytes(second.read_bytes())
    images = load(root, memory=memory, resident=False)
    assert read == ["000.tar", "001.tar"] and images.inventory == expected.inventory
    same(images, expected)
    assert load(root, memory=memory, resident=False).fingerprint == images.fingerprint and len(read) == 2
    # What was written into a shard since then is seen, also where size and time are as they were.
    damaged = bytearray(second.read_bytes())
    place = damaged.index(b"IDAT")
    damaged[place : place + 4] = b"iDAT"
    (root / second.name).write_bytes(damaged)
    with pytest.raises(ValueError, match="1 of 6 images cannot be decoded"):
        load(root, memory=memory)
    assert read == ["000.tar", "001.tar", "001.tar"]
    # A part that is damaged is made again.
    for part in (tmp_path / "shard-index").rglob("*.npz"):
        part.write_bytes(part.read_bytes()[:-40])
    for whole in (tmp_path / "shard-index").glob("all-*"):
        whole.rename(tmp_path / whole.name)
    (root / second.name).write_bytes(second.read_bytes())
    same(load(root, memory=memory), expected)
    assert len(read) == 5


def test_a_damaged_index_is_made_again(folder, expected, tmp_path):
    def start():
        return load(folder, memory=tmp_path / "checked", resident=False)

    fingerprint = start().fingerprint
    (whole,) = (tmp_path / "shard-index").glob("all-*")
    names = sorted(path.name for path in whole.iterdir())
    assert len(names) == 8
    for name in names:
        content = bytearray((whole / name).read_bytes())
        content[-2] ^= 1
        (whole / name).write_bytes(content)
        images = start()
        assert images.fingerprint == fingerprint and sorted(path.name for path in whole.iterdir()) == names
        same(images, expected)


def test_many_shards_are_indexed_by_several_processes(folder, tmp_path):
    content = sorted(folder.iterdir())[0].read_bytes()
    for number in range(9):
        (tmp_path / f"many-{number:03}.tar").write_bytes(content)
    images = load(tmp_path, "many", memory=tmp_path / "checked", resident=False)
    assert len(images) == 27 and list(images.files)[3] == "many-001.tar:0.png"
    assert len(list((tmp_path / "shard-index").glob("*.npz"))) == 9
