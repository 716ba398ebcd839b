"""mteb's own image classification on a folder of images, one sub-folder a class.

    pip install -e '.[mteb]'
    python benchmarks/mteb_images.py runs/birds-transfer-cpu photos --samples 8

prints the accuracy that mteb finds: logistic regression on some images of each class, drawn ten times, tested on a
fifth that is never trained on.
"""

import argparse
from pathlib import Path
from typing import Any

import mteb
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from mteb.abstasks import AbsTaskClassification
from mteb.abstasks.task_metadata import TaskMetadata

from ssl_transfer.mteb import ImageEncoder


class Folder(AbsTaskClassification):
    """A task of mteb that lies in a folder."""

    input_column_name = "image"
    n_experiments = 10
    root: Path

    metadata = TaskMetadata(
        name="LocalFolder",
        description="Images in a folder for each class.",
        reference="https://github.com/embeddings-benchmark/mteb",
        dataset={"path": "local", "revision": "1"},
        type="ImageClassification",
        category="i2c",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="accuracy",
        date=("2026-01-01", "2026-01-01"),
        domains=[],
        task_subtypes=[],
        license="not specified",
        annotations_creators="derived",
        dialect=[],
        modalities=["image"],
        sample_creation="found",
        bibtex_citation="",
    )

    def load_data(self, num_proc: int | None = None, **options: Any) -> None:
        """Every fifth image of a class is for testing."""
        splits: dict[str, dict[str, list[Any]]] = {name: {"image": [], "label": []} for name in ("train", "test")}
        classes = sorted(path for path in self.root.iterdir() if path.is_dir())
        for label, folder in enumerate(classes):
            for place, path in enumerate(sorted(folder.iterdir())):
                split = splits["test" if place % 5 == 0 else "train"]
                split["image"].append(str(path))
                split["label"].append(label)
        features = Features({"image": Image(), "label": ClassLabel(names=[path.name for path in classes])})
        self.dataset = DatasetDict({name: Dataset.from_dict(rows, features) for name, rows in splits.items()})
        self.data_loaded = True


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run, an exported folder, timm:NAME or another tool's checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=16, help="images of each class that are trained on; 16 in MIEB")
    given = parser.parse_args()
    Folder.root, Folder.samples_per_label = given.folder, given.samples
    encoder = ImageEncoder(given.model)
    result = mteb.evaluate(encoder, Folder(), cache=None, encode_kwargs={"batch_size": 64})
    (found,) = result[0].scores["test"]
    print(f"{encoder.mteb_model_meta.name}: accuracy {100 * found['accuracy']:.2f} % by mteb {mteb.__version__}")


if __name__ == "__main__":
    main()
