import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from ssl_transfer.probes import linear_probe, logistic
from ssl_transfer.probes.linear import standardization
from ssl_transfer.probes.logistic import fit_each, fit_path
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.splits import held_out_tenth, shuffled
from tests.probes.synthetic import clouds
from tests.reference import probes as twin

STRENGTHS = (1e-5, 1e-3, 1e-1)


def digits(width: int = 64):
    """scikit-learn's digits; above 64, random ReLU features of them, which are separable and badly conditioned."""
    pixels, y = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels / 16)
    if width > 64:
        x = (x @ torch.randn(64, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).relu()
    return x, torch.from_numpy(y)


def standardized(x):
    mean, scale = standardization(Rows(x))
    return (x - mean) / scale


def objective_of(model: LogisticRegression, x, y, strength: float) -> float:
    probability = model.predict_log_proba(x)[np.arange(len(y)), y]
    return -probability.mean() + strength / 2 * (model.coef_**2).sum()


@pytest.mark.parametrize("width", [64, 128])
def test_every_fit_of_the_path_equals_scikit_learn_at_the_same_c(width):
    x, y = digits(width)
    x = standardized(x)
    fit = fit_path(x, y, torch.tensor(STRENGTHS), num_classes=10)
    assert fit.converged.all()
    for strength, reached, predicted in zip(STRENGTHS, fit.objective.tolist(), fit.predict(x), strict=True):
        theirs = LogisticRegression(C=1 / (strength * len(x)), solver="newton-cg", tol=1e-8, max_iter=500).fit(
            x.numpy(), y.numpy()
        )
        assert reached == pytest.approx(objective_of(theirs, x.numpy(), y.numpy(), strength), rel=1e-6)
        assert (predicted.numpy() == theirs.predict(x.numpy())).mean() >= 0.9995


def test_float32_fits_reach_the_float64_objective():
    x, y = clouds(3000, 40, 7, spread=3.0)
    strengths = torch.logspace(-5, 0, 6)
    exact = fit_path(standardized(x.double()), y, strengths, num_classes=7)
    single = fit_path(standardized(x.double()).float(), y, strengths, num_classes=7)
    torch.testing.assert_close(single.objective, exact.objective, rtol=1e-6, atol=0)


def awkward(name: str):
    x, y = clouds(90, 12, 3, spread=1.0)
    if name == "separable":
        x = x + 20 * torch.nn.functional.one_hot(y, 12)
    if name == "duplicate rows":
        x, y = x[:30].repeat(3, 1), y[:30].repeat(3)
    if name == "constant features":
        x[:, 5:] = 7.0
    if name == "a class of two rows":
        y = torch.where(torch.arange(90) < 2, 2, y % 2)
    if name == "contradicting labels":
        x, y = x[:45].repeat(2, 1), torch.cat([y[:45], (y[:45] + 1) % 3])
    return standardized(x.double()), y


@pytest.mark.parametrize(
    "name", ["separable", "duplicate rows", "constant features", "a class of two rows", "contradicting labels"]
)
def test_awkward_rows_are_fitted_in_float32_and_float64_as_by_scikit_learn(name):
    x, y = awkward(name)
    for rows in (x, x.float()):
        fit = fit_path(rows, y, torch.tensor(STRENGTHS, dtype=torch.float64), num_classes=3)
        assert fit.converged.all()
        for strength, parameters in zip(STRENGTHS, fit.parameters, strict=True):
            theirs = LogisticRegression(C=1 / (strength * len(x)), solver="newton-cg", tol=1e-9, max_iter=1000)
            best = objective_of(theirs.fit(x.numpy(), y.numpy()), x.numpy(), y.numpy(), strength)
            reached = twin.logistic_objective(parameters[:, :-1], parameters[:, -1], x, y, strength)
            assert reached <= best * (1 + 1e-6)


def wide(name: str):
    """Fewer rows than features."""
    x, y = clouds(60, 200, 3, spread=2.0)
    if name == "duplicate rows":
        x, y = x[:20].repeat(3, 1), y[:20].repeat(3)
    if name == "on a line":
        x = x[:, :1] * torch.ones(200)
    return standardized(x.double()), y


@pytest.mark.parametrize("largest", [2048, 16], ids=["from their coordinates", "too many to decompose"])
@pytest.mark.parametrize("name", ["plain", "duplicate rows", "on a line"])
def test_fewer_rows_than_features_are_fitted_as_by_scikit_learn(name, largest, monkeypatch):
    monkeypatch.setattr(logistic, "LARGEST_DECOMPOSED", largest)
    x, y = wide(name)
    for rows in (x, x.float()):
        fit = fit_path(rows, y, torch.tensor(STRENGTHS, dtype=torch.float64), num_classes=3)
        again = fit_path(rows, y, torch.tensor(STRENGTHS[1:2]), num_classes=3, start=fit.parameters[1])
        assert fit.converged.all() and again.converged.all()
        assert again.objective.item() == pytest.approx(fit.objective[1].item(), rel=1e-6)
        for strength, parameters in zip(STRENGTHS, fit.parameters, strict=True):
            theirs = LogisticRegression(C=1 / (strength * len(x)), solver="newton-cg", tol=1e-9, max_iter=1000)
            best = objective_of(theirs.fit(x.numpy(), y.numpy()), x.numpy(), y.numpy(), strength)
            reached = twin.logistic_objective(parameters[:, :-1], parameters[:, -1], x, y, strength)
            assert reached == pytest.approx(best, rel=1e-6)


def test_rows_without_any_difference_have_a_fit():
    fit = fit_path(torch.zeros(6, 9, dtype=torch.float64), torch.arange(6) % 3, torch.tensor([0.1]), num_classes=3)
    assert fit.converged.all() and not fit.parameters[:, :, :-1].any()


def test_a_start_of_fewer_rows_than_features_is_the_same_point_in_their_coordinates():
    x, y = wide("plain")
    span = logistic._Span(x)
    parameters = torch.randn(2, 3, 61, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = parameters[:, :, : span.coordinates.shape[1] + 1]
    torch.testing.assert_close(span.inside(span.outside(parameters)[1]), parameters[1])
    logits = x @ span.outside(parameters)[0, :, :-1].T
    torch.testing.assert_close(logits, span.coordinates @ parameters[0, :, :-1].T)


def test_features_too_many_to_decompose_are_fitted_to_the_same_objective(monkeypatch):
    x, y = clouds(2000, 60, 5, spread=3.0)
    strengths = torch.logspace(-5, 0, 6)
    exact = fit_path(standardized(x.double()), y, strengths, num_classes=5)
    monkeypatch.setattr(logistic, "LARGEST_DECOMPOSED", 20)
    for rows in (standardized(x.double()), standardized(x.double()).float()):
        rough = fit_path(rows, y, strengths, num_classes=5)
        assert rough.converged.all()
        torch.testing.assert_close(rough.objective, exact.objective, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("n", "d", "largest"), [(60, 300, 60), (300, 60, 60), (300, 200, 50), (200, 300, 50)])
def test_no_larger_matrix_is_decomposed_than_rows_features_or_the_limit(n, d, largest, monkeypatch):
    """Its time grows with the cube of its size, and Ctrl-C is not heard meanwhile."""
    sizes = []
    decompose = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: sizes.append(len(matrix)) or decompose(matrix))
    monkeypatch.setattr(logistic, "LARGEST_DECOMPOSED", 100 if largest == 60 else 50)
    x, y = clouds(n, d, 3, spread=2.0)
    linear_probe(x, y, x, y, strengths=STRENGTHS)
    assert 3 < max(sizes) <= largest


@pytest.mark.parametrize("num_classes", [3, 10, 40])
def test_the_product_is_the_same_in_either_order(num_classes):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, num_classes, 5, dtype=torch.float64, generator=generator)
    rows = torch.randn(2, 50, 5, dtype=torch.float64, generator=generator)
    product = logistic._product(weight, rows)
    torch.testing.assert_close(product, torch.einsum("scd,std->sct", weight, rows))


def test_the_objective_is_mean_cross_entropy_and_half_the_penalized_weights():
    x, y = (part[:80] for part in digits())
    fit = fit_path(x, y, torch.tensor([0.02], dtype=torch.float64), num_classes=10)
    weight, bias = fit.parameters[0, :, :-1], fit.parameters[0, :, -1]
    assert fit.objective.item() == pytest.approx(twin.logistic_objective(weight, bias, x, y, 0.02), rel=1e-12)


def test_the_gradient_vanishes_at_the_fit():
    """By autograd on the formula, so independent of the gradient the fit was made with."""
    x, y = (part[:200] for part in digits())
    parameters = fit_path(x, y, torch.tensor([0.01]), num_classes=10).parameters[0].requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ parameters[:, :-1].T + parameters[:, -1], y)
    (loss + 0.005 * parameters[:, :-1].square().sum()).backward()
    assert parameters.grad.abs().max() < 1e-4


def test_many_small_problems_together_equal_each_alone():
    x, y = digits()
    rows = torch.stack([torch.arange(30), torch.arange(400, 430), torch.arange(900, 930)])
    strengths = torch.tensor([0.1, 0.001, 0.01])
    together = fit_each(x[rows], y[rows], strengths, num_classes=10)
    assert together.converged.all()
    for i in range(3):
        alone = fit_path(x[rows[i]], y[rows[i]], strengths[i : i + 1], num_classes=10)
        assert together.objective[i].item() == pytest.approx(alone.objective.item(), rel=1e-6)


def test_a_fit_does_not_depend_on_the_tiles_it_is_computed_in(monkeypatch):
    x, y = clouds(1500, 10, 4, spread=3.0)
    whole = fit_path(x.double(), y, torch.tensor(STRENGTHS), num_classes=4)
    monkeypatch.setitem(logistic.TILE_NUMBERS, "cpu", 1)
    tiled = fit_path(x.double(), y, torch.tensor(STRENGTHS), num_classes=4)
    torch.testing.assert_close(tiled.parameters, whole.parameters, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(tiled.objective, whole.objective, rtol=1e-8, atol=0)


def test_a_fit_that_runs_out_of_evaluations_says_so():
    x, y = digits()
    assert not fit_path(x, y, torch.tensor([1e-4]), num_classes=10, max_evaluations=3).converged.any()


@pytest.fixture(scope="module")
def split():
    x, y = digits()
    return x[:1300], y[:1300], x[1300:], y[1300:]


def judged_by_scikit_learn(strength, fit_x, fit_y, score_x, score_y):
    """Accuracy and minus the cross-entropy: the larger pair is the better."""
    scaler = StandardScaler().fit(fit_x)
    model = LogisticRegression(C=1 / (strength * len(fit_x)), tol=1e-8, max_iter=5000)
    model.fit(scaler.transform(fit_x), fit_y)
    return model.score(scaler.transform(score_x), score_y), -log_loss(
        score_y, model.predict_proba(scaler.transform(score_x))
    )


def test_the_probe_is_scikit_learn_on_standardized_features_with_the_strength_chosen_on_the_held_out_tenth(split):
    train_x, train_y, test_x, test_y = split
    result = linear_probe(*split, strengths=STRENGTHS, seed=3)
    held_out = held_out_tenth(train_y, seed=3)
    parts = train_x[~held_out], train_y[~held_out], train_x[held_out], train_y[held_out]
    chosen_on = {strength: judged_by_scikit_learn(strength, *parts) for strength in STRENGTHS}
    best = max(chosen_on, key=chosen_on.get)
    assert result.held_out_accuracy == pytest.approx({s: accuracy for s, (accuracy, _) in chosen_on.items()})
    assert result.strength == best
    assert result.accuracy == pytest.approx(judged_by_scikit_learn(best, *split)[0], abs=5e-4)
    assert (result.n_train, result.n_held_out, result.n_test) == (1300, int(held_out.sum()), 497)
    assert result.converged


def iris():
    x, y = (torch.from_numpy(part) for part in load_iris(return_X_y=True))
    order = shuffled(len(y), 3)
    return x[order[:100]], y[order[:100]], x[order[100:]], y[order[100:]]


def test_among_strengths_of_equal_accuracy_the_one_of_lowest_cross_entropy_is_chosen():
    train_x, train_y, test_x, test_y = iris()
    held_out = held_out_tenth(train_y, seed=0)
    parts = train_x[~held_out], train_y[~held_out], train_x[held_out], train_y[held_out]
    result = linear_probe(train_x, train_y, test_x, test_y)
    highest = max(result.held_out_accuracy.values())
    equal = [strength for strength, accuracy in result.held_out_accuracy.items() if accuracy == highest]
    assert len(equal) > 3
    assert result.strength == max(equal, key=lambda s: judged_by_scikit_learn(s, *parts)) != max(equal)


def test_among_strengths_that_are_equal_in_all_the_strongest_is_chosen():
    x, y = torch.zeros(40, 3), torch.arange(40) % 2
    assert linear_probe(x, y, x, y, strengths=[0.1, 0.5, 0.01]).strength == 0.5


def test_the_choice_does_not_look_at_the_test_split(split):
    train_x, train_y, test_x, test_y = split
    other = linear_probe(train_x, train_y, test_x.flip(0) * 100, test_y, strengths=STRENGTHS)
    same = linear_probe(*split, strengths=STRENGTHS)
    assert (other.strength, other.held_out_accuracy) == (same.strength, same.held_out_accuracy)
    assert other.accuracy != same.accuracy


def test_scale_shift_and_constant_features_change_nothing(split):
    train_x, train_y, test_x, test_y = split
    stretch = torch.logspace(-3, 3, 64, dtype=torch.float64)

    def move(x):
        return torch.cat([x * stretch + 5 * stretch, torch.full((len(x), 1), 0.1)], dim=1)

    moved = linear_probe(move(train_x), train_y, move(test_x), test_y, strengths=STRENGTHS)
    plain = linear_probe(*split, strengths=STRENGTHS)
    assert moved.held_out_accuracy == pytest.approx(plain.held_out_accuracy, abs=1e-9)
    assert moved.accuracy == pytest.approx(plain.accuracy, abs=1e-9)


def test_labels_need_not_be_consecutive(split):
    train_x, train_y, test_x, test_y = split
    renamed = linear_probe(train_x, 7 * train_y + 3, test_x, 7 * test_y + 3, strengths=[1e-2])
    assert renamed.accuracy == linear_probe(*split, strengths=[1e-2]).accuracy


def test_a_choice_at_the_edge_of_the_grid_is_told(split):
    assert linear_probe(*split, strengths=[1e-2]).at_grid_edge


@pytest.mark.parametrize(("strengths", "message"), [([], "one or more"), ([0.0, 1.0], "positive")])
def test_impossible_strengths_are_refused(split, strengths, message):
    with pytest.raises(ValueError, match=message):
        linear_probe(*split, strengths=strengths)


def test_a_single_image_per_class_is_refused_with_the_way_out():
    x, y = torch.eye(4), torch.arange(4)
    with pytest.raises(ValueError, match="use few_shot"):
        linear_probe(x, y, x, y)
