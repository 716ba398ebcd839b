"""What scoring needs of the images, looked at before a network is trained for hours."""

from collections.abc import Sequence
from typing import Literal

from ssl_transfer import config
from ssl_transfer.data import Images
from ssl_transfer.data.opening import are_held
from ssl_transfer.probes.checks import check_classes, check_k, check_labels
from ssl_transfer.probes.classification import check_known
from ssl_transfer.probes.few_shot import images_per_class
from ssl_transfer.probes.linear import refuse_single_images
from ssl_transfer.probes.retrieval import images_to_find
from ssl_transfer.probes.splits import held_out_tenth
from ssl_transfer.scoring.measures import refuse_streamed
from ssl_transfer.scoring.subject import labels_of


def check_scores(
    kinds: Sequence[config.Score],
    train: Images,
    test: Images,
    *,
    resident: Literal["auto", True, False],
    teacher: bool,
    classes: int | None,
) -> None:
    """Refuse what the measures of ``kinds`` would refuse, as far as the images' number and labels tell it.

    Pixels are not looked at: ``resident`` says which will be held. ``classes`` are those of a trained classifier.

    Raises:
        ValueError: a kind of score cannot be had from these images, in the words of its probe.
    """
    train_y, test_y = labels_of(train), labels_of(test)
    for kind in kinds:
        if not isinstance(kind, config.Monitor | config.Agreement):
            check_labels(test_y, len(test), "test")
        if isinstance(kind, config.LEARNING):
            check_labels(train_y, len(train), "train")
            check_classes(train_y, test_y)
        if isinstance(kind, config.KNN):
            check_k(max(kind.k), len(train))
        if isinstance(kind, config.LinearProbe):
            refuse_single_images(held_out_tenth(train_y, seed=0))
        if isinstance(kind, config.FewShot):
            for amount in (*kind.labels_per_class, *kind.fractions):
                images_per_class(amount, train_y.unique(return_counts=True)[1])
        if isinstance(kind, config.Finetune):
            for images in (train, test):
                if not images.resident and not are_held(len(images), images.pixels.shape[-1], resident):
                    refuse_streamed(images)
        if isinstance(kind, config.Retrieval | config.BestOnTest):
            images_to_find(test_y, k=kind.k, queries=test.queries)
        if isinstance(kind, config.Agreement) and teacher:
            check_k(kind.k, len(test) - 1)
        if isinstance(kind, config.Classification) and classes is not None:
            check_known(test_y, classes)
