"""What a start and a step cost against the number of images: the order of an epoch, the index of shards, stores.

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--images 100000 1000000 10000000]
    OMP_NUM_THREADS=1 python benchmarks/scale.py --features 100000 400000 1600000       # kept features, searched

Times are of the processor, which other programs disturb little. Shards are real for the cost of making an index, of
tiny images; that of starting with one that is known is measured on arrays made up for as many images in shards of
10,000.
"""

import argparse
import http.server
import io
import json
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_transfer.data import Images
from ssl_transfer.data.counter import ORDER, epoch_order, rows_at
from ssl_transfer.data.sources.shards import _checksum, _How, _keep_whole, _tars, find_shards
from ssl_transfer.features.kept import ROWS, KeptFeatures
from ssl_transfer.files import json_hash
from ssl_transfer.probes import nearest

A_SHARD = 10_000
BATCH = 4096
WIDTH, QUERIES, NEIGHBORS = 512, 1024, 20


def seconds(do) -> float:
    """The processor's time for a call."""
    began = time.process_time()
    do()
    return time.process_time() - began


def order(images: int) -> None:
    """Print what the order of an epoch costs, by places and sorted whole."""
    places = torch.arange(BATCH)
    times = sorted(seconds(lambda e=e: rows_at(places, images, seed=0, stream=ORDER, epoch=e)) for e in range(7))
    row = f"| order of an epoch | {images:,} | a batch of {BATCH:,} in {1e3 * times[3]:.1f} ms, nothing kept |"
    if images <= 10**7:
        before = peak()
        whole = seconds(lambda: epoch_order(0, 0, images))
        row += f" sorted whole: {whole:.2f} s, {(peak() - before) / images:.0f} bytes an image |"
    print(row, flush=True)


def peak() -> int:
    """The most memory that this process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """The memory that this process has now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def make_index(images: int) -> None:
    """Real shards, of images of one pixel, each with a class."""
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(-(-images // A_SHARD)):
            with tarfile.open(f"{folder}/train-{shard:06}.tar", "w") as archive:
                for number in range(shard * A_SHARD, min(images, (shard + 1) * A_SHARD)):
                    for name, content in ((f"{number:09}.png", pixel.getvalue()), (f"{number:09}.cls", b"7")):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
        index = Path(folder) / "index"
        first = seconds(lambda: find_shards(folder, "train", index=index))
        again = seconds(lambda: find_shards(folder, "train", index=index))
        digests = seconds(lambda: find_shards(folder, "train", index=index).fingerprint)
        kept = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
    each = f"{1e6 * first / images:.0f} us an image, its fingerprint {1e6 * digests / images:.0f} us"
    print(f"| index made | {images:,} | {each}, {kept / images:.0f} bytes on disk | again {again:.3f} s |", flush=True)


def start(images: int) -> None:
    """With an index that is known, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shards = -(-images // A_SHARD)
        for shard in range(shards):
            (Path(folder) / f"train-{shard:06}.tar").touch()
        names = np.char.add(np.char.zfill(np.arange(images).astype("S9"), 9), b".jpg")
        arrays = {
            "offset": np.arange(images, dtype=np.int64) % A_SHARD * 100_000,
            "size": np.full(images, 99_000, dtype=np.int64),
            "names": np.frombuffer(names.tobytes(), np.uint8),
            "end_of_name": np.arange(1, images + 1, dtype=np.int64) * 13,
            "tar": np.repeat(np.arange(shards, dtype=np.uint32), A_SHARD)[:images],
            "labels": np.arange(images, dtype=np.int64) % 1000,
        }
        about = {"labels": True, "classes": 1000, "class_names": None, "left_out": {"counts": {}, "first": {}}}
        index, how = Path(folder) / "index", _How(None, True)
        whole = index / f"all-{json_hash([how.key(tar) for tar in _tars(folder, 'train')])}"
        _keep_whole(whole, arrays, about)
        np.save(whole / "digests.npy", np.random.default_rng(0).integers(1, 255, (images, 16), dtype=np.uint8))
        (whole / "digests.npy").rename(whole / f"digests-{_checksum(whole / 'digests.npy')}.npy")
        found = subprocess.run(
            [sys.executable, __file__, "--started", folder], capture_output=True, text=True, check=True
        )
    print(f"| start with a known index | {images:,} | {found.stdout.strip()} |", flush=True)


def started(folder: str) -> None:
    """Print what it costs to begin with the index in a folder."""
    before = resident()
    kept = []
    took = seconds(lambda: kept.append(find_shards(folder, "train", index=Path(folder) / "index")))
    images = len(kept[0])
    known = (resident() - before) / images
    rows = rows_at(torch.arange(BATCH), images, seed=0, stream=ORDER, epoch=0)
    step = seconds(lambda: [kept[0].storage._where(place) for place in rows.tolist()])
    fingerprint = seconds(lambda: kept[0].fingerprint)
    print(
        f"{took:.2f} s, {known:.0f} bytes an image; where a batch of {BATCH:,} lies: {1e3 * step:.0f} ms; the "
        f"fingerprint: {fingerprint:.2f} s"
    )


def features(images: int) -> None:
    """Print what features in a file cost, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--kept", folder, str(images)], capture_output=True, text=True, check=True
        )
    print(f"| features in a file | {images:,} | {done.stdout.strip()} |", flush=True)


def kept_in(folder: str, images: int) -> None:
    """Print what it costs to write, to open and to search the features of as many images."""

    def anonymous() -> int:
        """The memory that this process has and cannot give back, in bytes."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    pixels = torch.zeros(images, 1, 1, 1, dtype=torch.uint8)
    named = Images(pixels, None, None, "numbers", "train", (0.0,), (1.0,))
    part = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(QUERIES, WIDTH, generator=torch.Generator().manual_seed(1))
    list(nearest(queries, part, NEIGHBORS))  # so that all is loaded
    before, most = anonymous(), 0
    with KeptFeatures(Path(folder), {}, named) as file:

        def write() -> None:
            for number in file.missing():
                file.write(number, part[: file.parts[number].stop - file.parts[number].start])

        written = seconds(write)
    with KeptFeatures(Path(folder), {}, named) as file:
        opened = seconds(file.missing)
        bank = file.read()

    def search() -> None:
        nonlocal most
        for _ in nearest(queries, bank, NEIGHBORS):
            most = max(most, anonymous())

    searched = seconds(search)
    held = bank.clone()
    in_memory = seconds(lambda: list(nearest(queries, held, NEIGHBORS)))
    print(
        f"{WIDTH} wide, {bank.nbytes / 1e9:.2f} GB: written {written:.2f} s, checked {opened:.2f} s, the {NEIGHBORS} "
        f"neighbors of {QUERIES:,} queries {searched:.1f} s (from memory {in_memory:.1f} s), memory beyond the file "
        f"{(most - before) / 1e6:.0f} MB"
    )


class RangeServer(http.server.BaseHTTPRequestHandler):
    """Gives the file of its server, or a range of it."""

    protocol_version = "HTTP/1.1"
    content = b""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.answer(with_body=False)

    def do_GET(self) -> None:
        """Answer with the range that is asked for."""
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        """The whole file, or its range."""
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = self.content[int(asked[1]) : int(asked[2]) + 1] if asked else self.content
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(self.content)}")
        self.end_headers()
        if with_body:
            self.wfile.write(part)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def serve(path: str) -> None:
    """Be a web server of one file on the loopback address, and print its port."""
    RangeServer.content = Path(path).read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeServer) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


def stores(images: int = 600, rounds: int = 5) -> None:
    """Print how many encoded images a process reads in a second, with eight threads, from a disk and from stores."""
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        picture = io.BytesIO()
        Image.fromarray(noise).resize((500, 375)).save(picture, "JPEG", quality=90)
        with tarfile.open(f"{folder}/train-000.tar", "w") as archive:
            for number in range(images):
                member = tarfile.TarInfo(f"{number:05}.jpg")
                member.size = len(picture.getvalue())
                archive.addfile(member, io.BytesIO(picture.getvalue()))
        command = [sys.executable, __file__, "--serve", f"{folder}/train-000.tar"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            roots = {"disk": folder, "file://": f"file://{folder}", "http://": f"http://127.0.0.1:{port}"}
            found = {name: find_shards(root, "train-{000..000}.tar").storage for name, root in roots.items()}
            rates: dict[str, list[float]] = {name: [] for name in roots}
            for _ in range(rounds):
                for name, storage in found.items():
                    began = time.perf_counter()
                    with ThreadPoolExecutor(8) as pool:
                        list(pool.map(storage.read, range(images)))
                    rates[name].append(images / (time.perf_counter() - began))
            server.terminate()
    medians = ", ".join(f"{name} {sorted(rates[name])[rounds // 2]:,.0f}" for name in rates)
    print(f"| images of {len(picture.getvalue()):,} bytes read in a second | {medians} |", flush=True)


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--stores", action="store_true", help="only what is read from a disk and from stores")
    parser.add_argument("--features", type=int, nargs="+", help="only features of these numbers of images")
    parser.add_argument("--kept", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--started", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.serve:
        return serve(given.serve)
    if given.started:
        return started(given.started)
    if given.kept:
        return kept_in(given.kept[0], int(given.kept[1]))
    if given.stores:
        return stores()
    if given.features:
        for images in given.features:
            features(images)
        return None
    print(json.dumps({"torch": torch.__version__, "batch": BATCH}))
    for images in (*given.images, 10**9):
        order(images)
    for images in (10_000, 20_000, 40_000):
        make_index(images)
    for images in given.images:
        start(images)
    stores()


if __name__ == "__main__":
    main()
