"""Seconds and extra memory of the evaluators, against scikit-learn, lightly and pytorch-metric-learning.

    python benchmarks/probes.py                                    # everything, on this CPU
    python benchmarks/probes.py linear --features features.npz     # on real features: train_x, train_y
    python benchmarks/probes.py --device cuda                      # peers that have no GPU path stay on the CPU

Candidates run turn about in one process, and the median of the rounds counts. scikit-learn's logistic regression
fits one strength, ours the ten of the grid; its tolerance is the loosest power of ten that reaches our objective to
1e-6. Extra memory is the peak above what stands before the first call. Prints tables, writes
benchmarks/results/probes-<device>.json. Retrieval's peer needs faiss-cpu.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import recording
import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict as lightly_knn_predict
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ssl_transfer.probes import DEFAULT_GRID, knn_predict, retrieval
from ssl_transfer.probes.linear import standardization
from ssl_transfer.probes.logistic import fit_path
from ssl_transfer.probes.rows import Rows

STRENGTH = DEFAULT_GRID[4]
K = 200
Work = Callable[[], object]


def clouds(n: int, d: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Easy features: round Gaussian clouds around random centers."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (n,), generator=generator)
    centers = torch.randn(num_classes, d, generator=generator) * 4 / d**0.5
    return centers[labels] + torch.randn(n, d, generator=generator), labels


def bent_clouds(n: int, d: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Hard features: clouds through a random ReLU network, a few directions far larger than the rest."""
    generator = torch.Generator().manual_seed(1)
    x, labels = clouds(n, 64, num_classes)
    hidden = (x @ torch.randn(64, d, generator=generator) / 8 + 0.3 * torch.randn(d, generator=generator)).relu()
    decay = torch.arange(1, d + 1).rsqrt()[:, None]
    hidden = (hidden @ (torch.randn(d, d, generator=generator) / 16 * decay)).relu()
    return hidden + 1e-3 * torch.randn(n, d, generator=generator), labels


def linear_problems(options: argparse.Namespace) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and labels by name."""
    if options.features:
        with np.load(options.features) as file:
            x, y = torch.from_numpy(file["train_x"]).float(), torch.from_numpy(file["train_y"]).long()
        return {Path(options.features).stem: (x, y)}
    makers = {"easy": clouds, "hard": bent_clouds}
    return {f"{name}, {c} classes": make(options.rows, 512, c) for name, make in makers.items() for c in (10, 100)}


def linear(options: argparse.Namespace) -> list[dict]:
    """The whole grid by us, and one strength of it by scikit-learn at an equal objective."""
    rows = []
    for name, (x, y) in linear_problems(options).items():
        mean, scale = standardization(Rows(x))
        x = ((x - mean) / scale).contiguous()
        grid = torch.tensor(DEFAULT_GRID, dtype=torch.float64)
        on_device = x.to(options.device), y.to(options.device), grid.to(options.device)
        num_classes = int(y.max()) + 1

        def ours(x=on_device[0], y=on_device[1], grid=on_device[2], c=num_classes):
            return fit_path(x, y, grid, num_classes=c)

        candidates: dict[str, Work] = {"ours, 10 strengths": ours}
        if options.peers:
            objective = ours().objective[DEFAULT_GRID.index(STRENGTH)].item()
            model = equally_converged(x.numpy(), y.numpy(), objective)
            candidates["scikit-learn, 1 strength"] = lambda m=model, x=x, y=y: m.fit(x.numpy(), y.numpy())
            print(f"{name}: scikit-learn needs tol {model.tol:g}, {model.n_iter_[0]} iterations")
        rows += compare(f"linear, {name}", candidates, options)
    return rows


def equally_converged(x: np.ndarray, y: np.ndarray, objective: float) -> LogisticRegression:
    """scikit-learn's model with the loosest tolerance that reaches ``objective`` to 1e-6."""
    for tolerance in (1e-4, 1e-5, 1e-6, 1e-7):
        model = LogisticRegression(C=1 / (STRENGTH * len(x)), tol=tolerance, max_iter=5000).fit(x, y)
        loss = -model.predict_log_proba(x)[np.arange(len(y)), y].mean(dtype=np.float64)
        reached = loss + STRENGTH / 2 * np.square(model.coef_, dtype=np.float64).sum()
        if reached <= objective * (1 + 1e-6):
            break
    else:
        print(f"scikit-learn stays {reached / objective - 1:.1e} above our objective")
    return model


def knn(options: argparse.Namespace) -> list[dict]:
    """Weighted and majority votes of 200 neighbors, and what no exact search can do without."""
    x, y = clouds(options.rows + 10_000, 512, 10)
    x = F.normalize(x, dim=1).to(options.device)
    y = y.to(options.device)
    bank, queries, labels = x[10_000:], x[:10_000], y[10_000:]
    columns = bank.T.contiguous()

    def bare() -> None:
        for rows in queries.split(1024):
            (rows @ bank.T).topk(K, dim=1)

    def lightly() -> Tensor:
        return torch.cat(
            [lightly_knn_predict(rows, columns, labels, 10, knn_k=K, knn_t=0.1)[:, 0] for rows in queries.split(512)]
        )

    def ours() -> Tensor:
        return knn_predict(bank, labels, queries, k=K, temperature=0.1)

    candidates: dict[str, Work] = {"ours": ours, "product and topk": bare}
    if options.peers:
        candidates |= {"lightly": lightly}
        agree = (ours() == lightly()).double().mean().item()
        print(f"knn: {agree:.2%} of our predictions are lightly's")
        if options.device == "cpu":
            brute = KNeighborsClassifier(K, algorithm="brute", metric="cosine").fit(bank.numpy(), labels.numpy())
            candidates |= {"scikit-learn": lambda: brute.predict(queries.numpy())}
            majority = knn_predict(bank, labels, queries, k=K, weighted=False).numpy()
            agree = (majority == brute.predict(queries.numpy())).mean()
            print(f"knn: {agree:.2%} of our majority votes are scikit-learn's")
    return compare(f"knn, {options.rows:,} x 10,000", candidates, options)


def large_bank(options: argparse.Namespace) -> list[dict]:
    """A bank of a million rows and 1,000 queries."""
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(1_000_000, 512, generator=generator).to(options.device)
    labels = torch.randint(1000, (1_000_000,), generator=generator).to(options.device)
    return compare("knn, 1,000,000 x 1,000", {"ours": lambda: knn_predict(bank, labels, bank[:1000], k=K)}, options)


def search(options: argparse.Namespace) -> list[dict]:
    """Retrieval among as many images and classes as the test split of Stanford Online Products has."""
    x, y = clouds(60_502, 512, 11_316)
    x, y = F.normalize(x, dim=1).to(options.device), y.to(options.device)
    candidates: dict[str, Work] = {"ours": lambda: retrieval(x, y, k=[1])}
    if options.peers:
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        names = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
        peer = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device(options.device))
        mine, theirs = retrieval(x, y, k=[1]), peer.get_accuracy(x, y)
        print(f"retrieval: ours {mine.recall[1]:.6f} {mine.map_at_r:.6f} {mine.r_precision:.6f}")
        print("retrieval: peer " + " ".join(f"{theirs[name]:.6f}" for name in names))
        candidates |= {"pytorch-metric-learning": lambda: peer.get_accuracy(x, y)}
    return compare("retrieval, 60,502", candidates, options)


def compare(title: str, candidates: dict[str, Work], options: argparse.Namespace) -> list[dict]:
    """Time the candidates turn about and print how they stand to the first."""
    memory = {name: recording.extra_memory(work, options.device) for name, work in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(options.rounds):
        for name, work in candidates.items():
            start = time.perf_counter()
            work()
            if options.device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    first = median(next(iter(seconds.values())))
    print(f"\n{title}, {options.device}, {torch.get_num_threads()} thread(s), median of {options.rounds}")
    rows = []
    for name, values in seconds.items():
        row = dict(task=title, candidate=name, seconds=median(values), lowest=min(values), highest=max(values))
        rows.append(row | dict(times_ours=median(values) / first, extra_mib=memory[name]))
        print(
            f"  {name:26s} {median(values):8.2f} s  {median(values) / first:5.2f} x ours"
            f"  {memory[name]:6.0f} MiB extra   ({min(values):.2f} to {max(values):.2f} s)"
        )
    return rows


TASKS = {"linear": linear, "knn": knn, "large_bank": large_bank, "retrieval": search}


def main() -> None:
    """Measure, print tables, write them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("tasks", nargs="*", choices=[*TASKS, []], default=[], help="all, unless named")
    arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--rows", type=int, default=50_000, help="of the training split")
    arguments.add_argument("--features", help="an npz file with train_x and train_y for the linear probe")
    arguments.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    options = arguments.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")

    rows = [row for task in options.tasks or TASKS for row in TASKS[task](options)]
    recording.write("probes", options, results=rows)


if __name__ == "__main__":
    main()
