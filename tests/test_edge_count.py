"""Counts of connections: where they lie, how sure they are, and that no one input moves them."""

import copy
import pickle

import numpy as np
import pytest

from jacrot.datasets import load_digits_mlp
from jacrot.inspection import EdgeCount, edge_curve
from jacrot.inspection._edge_count import count_edges

COUNTS = np.unique(np.geomspace(1, 3000, 20).round().astype(int)).tolist()


def count(per_input, tolerance, n_inputs, seed=0, n_resamples=1000):
    """Count for inputs whose losses by number of connections are `per_input`."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(n_inputs, size=(n_resamples, n_inputs))
    seen = {}

    def losses(counts):
        for n_edges in counts:
            seen.setdefault(n_edges, per_input(n_edges)[rows].mean(axis=1))
        return np.column_stack([seen[n_edges] for n_edges in counts])

    return count_edges(losses, COUNTS, tolerance)


def test_the_interval_is_the_percentile_bootstrap(rng):
    # With losses a_i / n, a mean of 0.1 is reached with 10 mean(a) connections.
    a = rng.exponential(20, size=200)
    found = count(lambda n_edges: a / n_edges, 0.1, len(a))
    means = rng.choice(a, size=(2000, len(a))).mean(axis=1)
    np.testing.assert_allclose(found, 10 * a.mean(), rtol=0.02)
    # The ends of a percentile interval vary by a few per cent from draw to draw.
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose((found.low, found.high), (10 * low, 10 * high), rtol=0.04)


def last_that_fails(per_input, tolerance):
    """Return the count from which on all larger ones hold too, tried one by one."""
    losses = np.array([per_input(n_edges).mean() for n_edges in range(1, 3001)])
    return 2 + np.flatnonzero(losses > tolerance)[-1]


@pytest.mark.slow
def test_one_input_does_not_move_the_count():
    # 58 of 500 inputs need up to 300 connections and two need all: 0.5 % are 2.5 inputs.
    needs = np.zeros(500)
    needs[:58], needs[58:60] = np.geomspace(2, 300, 58), 3000

    def per_input(n_edges):
        return (needs > n_edges).astype(float)

    def with_one_more(n_edges):
        # One input that is right with few connections, and wrong with some more.
        return per_input(n_edges) + (np.arange(500) == 100) * (1000 < n_edges < 1600)

    assert last_that_fails(with_one_more, 0.005) > 5 * last_that_fails(per_input, 0.005)
    one, other = count(per_input, 0.005, 500), count(with_one_more, 0.005, 500)
    assert abs(np.log(other / one)) < 0.1
    for left_out in (57, 58):
        rest = np.arange(500) != left_out
        other = count(lambda n_edges, rest=rest: per_input(n_edges)[rest], 0.005, 499)
        assert abs(np.log(other / one)) < 0.25


@pytest.mark.slow
def test_rounding_does_not_move_the_count(rng):
    digits = load_digits_mlp()

    def counts(noise):
        X, calibration = (
            inputs * (1 + noise * rng.normal(size=inputs.shape))
            for inputs in (digits.X_test, digits.X[:100])
        )
        curves = [
            edge_curve(
                digits.network,
                X,
                digits.y_test,
                calibration=calibration,
                layer=1,
                basis="pca",
                metric=metric,
                n_resamples=200,
                random_state=0,
            )
            for metric in ("accuracy", "kl")
        ]
        return [curve.edges_needed(0.01) for curve in curves]

    for before, after in zip(counts(0), counts(1e-6), strict=True):
        np.testing.assert_allclose(after, before, rtol=0.05)
        assert before.low <= before <= before.high


@pytest.mark.slow
def test_losses_are_paired_with_those_of_the_network(rng):
    digits = load_digits_mlp()
    arguments = {"calibration": digits.X[:100], "layer": 1, "n_points": 5, "random_state": 0}
    data = digits.X_test, digits.y_test

    def minus_error(outputs, y):
        return -np.mean(outputs.argmax(axis=1) != y)

    curve = edge_curve(digits.network, *data, **arguments)
    own = edge_curve(digits.network, *data, metric=minus_error, **arguments)
    counts = curve.n_edges.tolist()
    losses = curve.resampled_losses(counts)
    assert losses.shape == (1000, len(counts))
    # A named metric and a user's function draw the same resamples.
    np.testing.assert_allclose(losses, own.resampled_losses(counts), atol=1e-12)
    right = np.array([curve.full - curve.values])[0]
    # The standard error of 500 inputs and a mean over 1,000 resamples.
    np.testing.assert_allclose(losses.mean(axis=0), right, atol=5 * 0.5 / np.sqrt(500 * 1000))
    # With all connections, every resample of the inputs is as with the network itself.
    np.testing.assert_allclose(losses[:, -1], 0, atol=1e-12)
    np.testing.assert_allclose(curve.intervals[:, -1], curve.full)
    low, high = curve.intervals
    assert (low <= curve.values + 1e-12).all()
    assert (curve.values <= high + 1e-12).all()


@pytest.mark.parametrize("tolerance", [np.nan, -1e-9, -np.inf, "0.01", None, True, [0.1]])
def test_a_tolerance_is_a_number_of_at_least_zero(tolerance):
    with pytest.raises(ValueError, match=r"tolerance=.* must be a number of at least 0"):
        count_edges(lambda counts: np.zeros((10, len(counts))), COUNTS, tolerance)


def test_counts_at_the_ends():
    def flat(loss):
        return lambda counts: np.full((20, len(counts)), loss)

    assert count_edges(flat(0.1), COUNTS, np.inf) == 1
    assert count_edges(flat(0.1), COUNTS, 0.1) == 1
    with pytest.raises(ValueError, match=r"less than the loss with all 3000 connections on 100 %"):
        count_edges(flat(0.1), COUNTS, 0.05)
    # Exact where the loss falls at once.
    step = count(lambda n_edges: np.full(50, float(n_edges < 577)), 1e-9, 50)
    assert abs(step - 577) <= 1 + 0.05 * 577
    step = count(lambda n_edges: np.full(50, float(n_edges < 12)), 1e-9, 50)
    assert step == step.low == step.high == 12


def test_counts_are_integers_with_an_interval():
    found = EdgeCount(279, 140, 673)
    assert found == found.median == 279
    assert isinstance(found, int)
    assert repr(found) == f"{found!r}" == "279 (140 to 673)"
    assert str(found) == f"{found}" == "279"
    assert f"{found:>6}" == "   279"
    for same in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert (same, same.low, same.high) == (279, 140, 673)
