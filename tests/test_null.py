"""Null networks keep what they must, and the verdict says what the figures say."""

import autograd.numpy as anp
import numpy as np
import pytest
from builders import random_network
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.criteria import hoyer
from jacrot.datasets import make_planted_problem
from jacrot.inspection import NullBaseline, null_baseline
from jacrot.layers import Attention, Conv2d, Dense, LayerNorm, Residual
from jacrot.segments._null_weights import change_weights, draw_singular_vectors, shuffle

pytestmark = pytest.mark.search

PLANTED = make_planted_problem(10, 24, density=0.2, random_state=0)
X, X_TEST = PLANTED.X[:200], PLANTED.X[200:]


def rotation(network, X, **options):
    return JacobianSparsityRotation(network, tol=1e-2, random_state=0, **options).fit(X)


@pytest.fixture
def network(rng):
    mask = np.tri(3, dtype=bool)
    return Network(
        [
            Residual([LayerNorm(rng.normal(size=4)), Dense(rng.normal(size=(4, 4)))]),
            Attention(*rng.normal(size=(4, 4, 4)), n_heads=2, mask=mask),
            Dense(rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=6), anp.tanh),
        ]
    )


def arrays(layer):
    """List every array in a layer, with the place where it stands."""
    for name, value in layer.arguments.items():
        for part in value if isinstance(value, tuple) else (value,):
            if hasattr(part, "arguments"):
                yield from ((f"{name}.{inner}", array) for inner, array in arrays(part))
            elif isinstance(part, np.ndarray):
                yield name, part


@pytest.mark.parametrize("change", [shuffle, draw_singular_vectors])
def test_only_weights_change(network, change):
    null = change_weights(network, change, np.random.RandomState(0))
    n_weights = 0
    for before, after in zip(network, null, strict=True):
        for (name, old), (_, new) in zip(arrays(before), arrays(after), strict=True):
            assert new.shape == old.shape
            assert new.dtype == old.dtype
            if old.ndim < 2 or name == "mask":
                np.testing.assert_array_equal(new, old)
                continue
            n_weights += 1
            assert np.abs(new - old).max() > 0.1
            if change is shuffle:
                np.testing.assert_array_equal(np.sort(new, axis=None), np.sort(old, axis=None))
            else:
                values = [np.linalg.svd(w, compute_uv=False) for w in (old, new)]
                np.testing.assert_allclose(*values, rtol=1e-5)
    assert n_weights == 6


def test_the_spectrum_of_a_convolution_is_that_of_its_flat_kernel(rng):
    kernel = rng.normal(size=(5, 3, 2, 2))
    null = change_weights(
        Network([Conv2d(kernel)]), draw_singular_vectors, np.random.RandomState(0)
    )
    values = [
        np.linalg.svd(weight.reshape(5, 12), compute_uv=False)
        for weight in (kernel, null[0].weight)
    ]
    np.testing.assert_allclose(*values)


def test_singular_vectors_are_from_the_haar_measure():
    # The mean square of every entry of a random axis is 1/n, and its mean 0.
    weight = np.diag([1.0, 0, 0])
    rng = np.random.RandomState(0)
    draws = np.array([draw_singular_vectors(weight, rng) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / 9, atol=0.01)


def test_a_planted_basis_is_far_above_its_nulls():
    estimator = rotation(PLANTED.network, X)
    result = null_baseline(estimator, X, X_TEST, n_repeats=4, random_state=0)
    assert list(result.nulls) == ["shuffled", "spectrum"]
    assert min(result.z_score.values()) > 5
    assert result.verdict.startswith("sparser than every null: sparsity")
    assert result.score == estimator.score(X_TEST)
    np.testing.assert_allclose(result.given, hoyer(PLANTED.network.jacobians(X_TEST)).mean())
    assert result.gain == result.score - result.given


def test_a_random_network_cannot_be_told_from_its_shuffles():
    network = random_network([8, 16], ["tanh"], seed=3)
    estimator = rotation(network, PLANTED.X[:150, :8])
    result = null_baseline(
        estimator, PLANTED.X[:150, :8], PLANTED.X[150:, :8], n_repeats=8, random_state=0
    )
    assert abs(result.z_score["shuffled"]) < 2
    assert result.verdict.startswith("no sparser than shuffled")
    assert "not distinguishable from shuffled" in result.verdict


def test_weights_before_training_are_fitted_from_other_seeds():
    estimator = rotation(PLANTED.network, X)
    result = null_baseline(
        estimator, X, X_TEST, initial=PLANTED.weights, n_repeats=2, random_state=0
    )
    assert "initial" in result.verdict
    # Here they are the network itself.
    np.testing.assert_allclose(result.nulls_given["initial"], result.given)
    np.testing.assert_allclose(result.nulls["initial"], result.score, atol=0.01)


@pytest.mark.slow
def test_every_layer_of_a_whole_network():
    network = random_network([6, 8, 7, 3], ["tanh", "tanh", "identity"])
    data = PLANTED.X[:60, :6]
    estimator = NetworkRotation(network, tol=1e-2, random_state=0).fit(data[:40])
    result = null_baseline(estimator, data[:40], data[40:], n_repeats=2, random_state=0)
    given = [
        hoyer(network[site : site + 1].jacobians(network[:site](data[40:]))).mean()
        if site
        else hoyer(network[:1].jacobians(data[40:])).mean()
        for site in range(3)
    ]
    np.testing.assert_allclose(result.given, np.mean(given))
    assert result.score == estimator.score(data[40:])
    assert all((gain > 0).all() for gain in result.nulls_gain.values())


@pytest.mark.search(other_processes=True)
@pytest.mark.slow
def test_seeds_agree_and_the_estimator_stays():
    estimator = rotation(PLANTED.network, X)
    before = estimator.rotation_.copy()
    first, second = (
        null_baseline(estimator, X, X_TEST, n_repeats=2, random_state=7, n_jobs=n_jobs)
        for n_jobs in (None, 2)
    )
    for name, runs in first.nulls.items():
        np.testing.assert_array_equal(runs, second.nulls[name])
        assert runs[0] != runs[1]
    np.testing.assert_array_equal(estimator.rotation_, before)
    assert estimator.network is PLANTED.network


@pytest.mark.parametrize(
    ("score", "runs", "words"),
    [
        (0.8, [0.4, 0.5, 0.6], "sparser than every null: sparsity 0.800 is above one (0.500 ± 0.1"),
        (0.2, [0.4, 0.5, 0.6], "no sparser than one: sparsity 0.200 is below one"),
        (0.65, [0.4, 0.5, 0.6], "no sparser than one: sparsity 0.650 is not distinguishable"),
        # Beyond two deviations, but one run of the null was as sparse.
        (0.5, [0.1] * 30 + [0.5], "no sparser than one"),
        # A difference that the figures do not show, however small the spread.
        (0.5001, [0.5, 0.5], "no sparser than one: sparsity 0.500 is not distinguishable"),
        (0.6, [0.5, 0.5], "sparser than every null"),
    ],
)
def test_the_verdict_follows_from_the_figures(score, runs, words):
    runs = {"one": np.array(runs)}
    assert NullBaseline(score, 0.0, runs, {"one": np.zeros(1)}).verdict.startswith(words)


def test_what_the_figures_are():
    null = NullBaseline(0.8, 0.5, {"one": np.array([0.4, 0.6])}, {"one": np.array([0.3, 0.3])})
    assert null.mean == {"one": 0.5}
    np.testing.assert_allclose(null.spread["one"], np.sqrt(0.02))
    np.testing.assert_allclose(null.z_score["one"], 0.3 / np.sqrt(0.02))
    np.testing.assert_allclose(null.nulls_gain["one"], [0.1, 0.3])
    np.testing.assert_allclose(null.gain_z_score["one"], 0.1 / np.sqrt(0.02))


def test_what_has_no_nulls_is_refused():
    fitted = rotation(PLANTED.network, X)
    with pytest.raises(ValueError, match="n_repeats=1 must be an integer of at least 2"):
        null_baseline(fitted, X, X_TEST, n_repeats=1)
    with pytest.raises(ValueError, match="X has 10 features but the network reads 3"):
        null_baseline(fitted, X, X_TEST, initial=np.ones((24, 3)))
    with pytest.raises(NotFittedError):
        null_baseline(JacobianSparsityRotation(PLANTED.network), X, X_TEST)
    with pytest.raises(TypeError, match="estimator is a StandardScaler; pass a fitted"):
        null_baseline(StandardScaler().fit(X), X, X_TEST)
    elsewhere = JacobianSparsityRotation(tol=1e-2).fit(PLANTED.network.jacobians(X), X)
    with pytest.raises(ValueError, match="fitted to Jacobians computed elsewhere"):
        null_baseline(elsewhere, X, X_TEST)
    blocks = JacobianSparsityRotation(tol=1e-2).fit([PLANTED.network] * 2, [X, X])
    with pytest.raises(ValueError, match="fitted to 2 blocks that share a basis"):
        null_baseline(blocks, X, X_TEST)
    function = rotation(lambda x: anp.tanh(x @ PLANTED.weights.T), X)
    with pytest.raises(ValueError, match="a function whose weights cannot be shuffled"):
        null_baseline(function, X, X_TEST)
    bare = rotation([LayerNorm()], X)
    with pytest.raises(ValueError, match="no array of two dimensions or more"):
        null_baseline(bare, X, X_TEST)
