import math

import pytest
import torch

from ssl_transfer.probes import attentive_probe, linear_probe
from ssl_transfer.probes.attentive import AttentivePool
from ssl_transfer.probes.splits import held_out_tenth, shuffled


def hidden(n: int, seed: int):
    """Images of six tokens, one of which says the class and is marked as such; the others say other classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    said = torch.randint(3, (n, 6), generator=generator)
    place = torch.randint(6, (n,), generator=generator)
    said[torch.arange(n), place] = labels
    marked = torch.zeros(n, 6, 4)
    marked[torch.arange(n), place, :] = 2.0
    tokens = torch.cat([torch.nn.functional.one_hot(said, 4).float() * 2, marked], dim=2)
    return tokens + 0.1 * torch.randn(tokens.shape, generator=generator), labels


def twin(tokens, labels, rate, *, queries, epochs, batch_size, seed, classes):
    """The trained classifier in plain PyTorch, float64: attention as loops over queries, Adam written out."""
    width = tokens.shape[2]
    start = torch.Generator().manual_seed(seed)
    query = (0.02 * torch.randn(queries, width, generator=start)).double().requires_grad_()
    weight = torch.zeros(classes, width, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    parameters = [query, weight, bias]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    def logits(x):
        x = x.double()
        x = (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, correction=0, keepdim=True) + 1e-5).sqrt()
        size = width // queries
        pooled = []
        for number in range(queries):
            attention = torch.softmax(
                torch.stack([x[:, t] @ query[number] for t in range(x.shape[1])], 1) / width**0.5, 1
            )
            part = x[:, :, number * size : (number + 1) * size]
            pooled.append(sum(attention[:, t, None] * part[:, t] for t in range(x.shape[1])))
        return torch.cat(pooled, dim=1) @ weight.T + bias

    batches = [rows for epoch in range(epochs) for rows in shuffled(len(labels), seed, epoch).split(batch_size)]
    for step, rows in enumerate(batches):
        found = torch.log_softmax(logits(tokens[rows]), dim=1)
        loss = -found[torch.arange(len(rows)), labels[rows]].mean()
        gradients = torch.autograd.grad(loss, parameters)
        lr = rate * math.sqrt(batch_size / 256) * (1 + math.cos(math.pi * step / len(batches))) / 2
        with torch.no_grad():
            for p, g, (first, second) in zip(parameters, gradients, moments, strict=True):
                first.mul_(0.9).add_(0.1 * g)
                second.mul_(0.999).add_(0.001 * g**2)
                corrected = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p -= lr * first / (1 - 0.9 ** (step + 1)) / corrected
    return lambda x: logits(x).detach()


def test_the_probe_is_its_twin_in_plain_pytorch():
    (train_x, train_y), (test_x, test_y) = hidden(90, 0), hidden(60, 1)
    options = {"queries": 4, "epochs": 3, "batch_size": 16, "seed": 5}
    found = attentive_probe(train_x, train_y, test_x, test_y, rates=[0.01, 0.1], **options)
    held_out = held_out_tenth(train_y, seed=5)
    assert found.n_held_out == held_out.sum() == 9
    for rate, accuracy in found.held_out_accuracy.items():
        trained = twin(train_x[~held_out], train_y[~held_out], rate, classes=3, **options)
        assert accuracy == (trained(train_x[held_out]).argmax(1) == train_y[held_out]).double().mean()
    final = twin(train_x, train_y, found.rate, classes=3, **options)
    assert found.accuracy == pytest.approx((final(test_x).argmax(1) == test_y).double().mean().item())
    assert found.held_out_accuracy[found.rate] == max(found.held_out_accuracy.values())


def test_it_finds_what_the_mean_of_the_tokens_loses():
    (train_x, train_y), (test_x, test_y) = hidden(600, 0), hidden(300, 1)
    attentive = attentive_probe(train_x, train_y, test_x, test_y, epochs=20, batch_size=32, rates=[0.03])
    pooled = linear_probe(train_x.mean(dim=1), train_y, test_x.mean(dim=1), test_y)
    assert attentive.accuracy > 0.95 > pooled.accuracy + 0.1


def test_without_queries_the_tokens_are_averaged_and_their_order_never_counts():
    tokens, _ = hidden(8, 2)
    pool = AttentivePool(8, 3, queries=4, seed=0)
    torch.nn.init.normal_(pool.linear.weight)
    shifted = pool(tokens[:, [3, 1, 5, 0, 2, 4]])
    torch.testing.assert_close(pool(tokens), shifted)
    torch.nn.init.zeros_(pool.query)
    averaged = torch.nn.functional.layer_norm(tokens, (8,)).mean(dim=1)
    torch.testing.assert_close(pool(tokens), pool.linear(averaged))


def test_it_is_a_function_of_its_seed():
    (train_x, train_y), (test_x, test_y) = hidden(60, 0), hidden(30, 1)
    first, again, other = (
        attentive_probe(train_x, train_y, test_x, test_y, epochs=1, rates=[0.01, 0.02], seed=seed) for seed in (0, 0, 1)
    )
    assert first == again and first != other


def test_half_precision_is_taken_and_the_queries_divide_the_width():
    tokens, labels = hidden(60, 0)
    found = attentive_probe(tokens[:, :, :6].half(), labels, tokens[:, :, :6].half(), labels, epochs=1, queries=4)
    assert (found.queries, found.tokens) == (3, 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rates": []}, "give one or more positive numbers"),
        ({"queries": 0}, "queries is 0"),
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    tokens, labels = hidden(12, 0)
    with pytest.raises(ValueError, match=words):
        attentive_probe(tokens, labels, tokens, labels, **options)


def test_tokens_of_two_networks_are_refused():
    tokens, labels = hidden(12, 0)
    with pytest.raises(ValueError, match=r"train_tokens are \(6, 8\) an image and test_tokens \(5, 8\)"):
        attentive_probe(tokens, labels, tokens[:, :5], labels)
