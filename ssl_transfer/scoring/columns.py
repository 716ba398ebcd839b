"""What a column of a table of scores is called: the settings that decide its numbers show, or are the default.

But for an augmentation's preset and the layer of what learns from training images, which stand in the protocol and keep
comparisons from mixing. Plain words, no torch: recipes are checked by them before anything runs.
"""

_METRICS = {"cosine": "", "euclidean": "L2"}


def knn(k: int, temperature: float | None, metric: str) -> str:
    """``kNN 20``; a vote without weights has no temperature."""
    vote = "majority" if temperature is None else "" if temperature == 0.1 else f"T {temperature:g}"
    return _words(f"kNN {k}", vote, _METRICS[metric])


def linear_probe(protocol: str, epochs: int | None, folds: bool) -> str:
    """``linear`` for the exact fit; those trained by SGD name their protocol and its length. ``per fold`` if so."""
    name = "linear" if protocol == "lbfgs" else f"linear {protocol} {epochs} ep"
    return _words(name, "per fold" if folds else "")


def few_shot(amount: int | float, draws: int) -> str:
    """``10/class`` or ``1 %``."""
    label = f"{100 * amount:g} %" if amount < 1 else f"{amount}/class"
    return _words(label, "" if draws == 10 else f"({draws} draws)")


def finetune(fraction: float, epochs: int, batch_size: int) -> str:
    """``fine-tuned 10 % 30 ep``, in batches of 256 where it says nothing else."""
    return _words(f"fine-tuned {100 * fraction:g} % {epochs} ep", "" if batch_size == 256 else f"batch {batch_size}")


def on_test_images(name: str, metric: str, layer: str) -> str:
    """``R@1``, ``MAP@R``, ``NMI``, ...: with the metric and the layer where they are not cosine and features."""
    return _words(name, _METRICS[metric], "" if layer == "features" else layer)


def classification(bins: int) -> list[str]:
    """``top-1``, ``top-5`` and ``ECE``, of 15 bins where it says nothing else."""
    return ["top-1", "top-5", _words("ECE", "" if bins == 15 else f"({bins} bins)")]


def best_on_test(k: int) -> str:
    """``R@1 best-on-test``: of an epoch chosen on the images that it is a score of."""
    return f"R@{k} best-on-test"


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)
