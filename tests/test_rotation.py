"""The estimator: what it finds, what it stores, what it refuses."""

import pickle
import warnings

import autograd.numpy as anp
import numpy as np
import pytest
from builders import random_network, rotation
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.parallel import Parallel

from jacrot import JacobianSparsityRotation, Network
from jacrot.criteria import hoyer
from jacrot.datasets import load_digits_mlp, make_planted_problem
from jacrot.metrics import amari_distance, match_axes

pytestmark = pytest.mark.search

RNG = np.random.default_rng(0)
W = RNG.normal(size=(16, 10))
X = RNG.normal(size=(60, 10))


def fitted(weights=W, inputs=X, **options):
    return JacobianSparsityRotation(random_state=0, **options).fit(weights, inputs)


def J(weights=W, inputs=X):
    return (inputs @ weights.T > 0)[:, :, None] * weights


def mean_hoyer(stack):
    return hoyer(stack[stack.any(axis=(1, 2))]).mean()


# What it finds


@pytest.mark.slow
def test_planted_axes_are_found_in_at_least_19_of_20_problems():
    found = 0
    for seed in range(20):
        problem = make_planted_problem(64, 128, density=0.1, random_state=seed)
        estimator = JacobianSparsityRotation(random_state=seed).fit(problem.weights, problem.X)
        found += match_axes(estimator.rotation_, problem.rotation)[1].min() > 0.99
    assert found >= 19


@pytest.mark.slow
def test_more_starts_find_axes_that_are_hard_to_find():
    for seed in range(3):
        problem = make_planted_problem(64, 128, density=0.3, random_state=seed)
        estimator = JacobianSparsityRotation(n_init=5, random_state=0)
        estimator.fit(problem.weights, problem.X)
        assert match_axes(estimator.rotation_, problem.rotation)[1].min() > 0.99


@pytest.mark.slow
def test_one_sided_beats_fastica_and_quartimax_of_the_stacked_rows():
    from sklearn.decomposition import FastICA

    problem = make_planted_problem(24, 48, density=0.2, random_state=0)
    stack = problem.network.jacobians(problem.X[:100])
    stack = stack / np.linalg.norm(stack, axis=(1, 2), keepdims=True)
    ours = JacobianSparsityRotation(random_state=0).fit(problem.network, problem.X[:100]).sparsity_
    rows = stack.reshape(-1, 24)
    rows = rows[rows.any(axis=1)]
    ica = FastICA(whiten=False, fun="logcosh", max_iter=2000, random_state=0, tol=1e-6)
    # Orthogonal ICA of rows made white by symmetry: mirrored, so that their mean is zero.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(np.vstack([rows, -rows]) * np.sqrt(len(rows)))
    peers = [np.linalg.qr(ica.components_.T)[0].T, quartimax(rows)]
    assert all(ours > mean_hoyer(stack @ peer.T) for peer in peers)


def quartimax(rows, n_iter=500):
    """Gradient projection of Jennrich (2001), section 3, written from the paper."""
    Q = np.eye(rows.shape[1])
    for _ in range(n_iter):
        rotated = rows @ Q.T
        left, _, right = np.linalg.svd((rotated**3).T @ rows)
        Q = left @ right
    return Q


@pytest.mark.slow
def test_quartimax_equals_gradient_projection():
    problem = make_planted_problem(12, 40, density=0.3, random_state=1)
    rows = problem.network.jacobians(problem.X[:60]).reshape(-1, 12)
    estimator = JacobianSparsityRotation(criterion="quartimax", tol=1e-8, random_state=0)
    estimator.fit(problem.network, problem.X[:60])
    best = min(
        amari_distance(estimator.rotation_, quartimax(rows @ rotation(12, s).T) @ rotation(12, s))
        for s in range(5)
    )
    assert best < 1e-3
    ours = ((rows @ estimator.rotation_.T) ** 4).sum()
    assert ours >= (1 - 1e-6) * ((rows @ quartimax(rows).T) ** 4).sum()


def test_linear_network_on_both_sides_is_as_sparse_as_its_singular_basis(rng):
    for seed in range(3):
        weights = np.random.default_rng(seed).normal(size=(9, 12))
        left, _, right = np.linalg.svd(weights)
        estimator = JacobianSparsityRotation(
            activation="identity", rotate_output=True, random_state=0
        )
        estimator.fit(weights, rng.normal(size=(20, 12)))
        # That of the search is the singular basis of a matrix which --perturb changes by 1e-6.
        assert estimator.sparsity_ >= hoyer(left.T @ weights @ right.T) - 1e-5


@pytest.mark.parametrize("rotate_output", [False, True])
def test_digits_network_becomes_sparser_on_inputs_it_has_not_seen(rotate_output):
    digits = load_digits_mlp()
    first, middle = digits.network[:1], digits.network[1:2]
    estimator = JacobianSparsityRotation(middle, rotate_output=rotate_output, random_state=0)
    estimator.fit(first(digits.X[:300]))
    held_out = first(digits.X_test)
    before = mean_hoyer(middle.jacobians(held_out))
    assert estimator.score(held_out) > before + 0.3
    assert estimator.score(held_out) > estimator.sparsity_ - 0.02


@pytest.mark.slow
def test_never_worse_than_the_given_basis():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sparse = [(np.diag(rng.uniform(1, 2, size=8)) + 0.3 * rng.normal(size=(8, 8)), np.ones(8))]
        for rotate_output in (False, True, "tied"):
            estimator = fitted(sparse, rng.normal(size=(30, 8)), rotate_output=rotate_output)
            assert estimator.sparsity_ >= estimator.sparsity_before_


# Invariances


def test_rotated_problem_has_the_rotated_answer():
    problem = make_planted_problem(16, 40, random_state=2)
    R = rotation(16, 7)
    here = fitted(problem.weights, problem.X)
    there = fitted(problem.weights @ R.T, problem.X @ R.T)
    assert amari_distance(there.rotation_ @ R, here.rotation_) < 1e-3


@pytest.mark.parametrize("rotate_output", [False, True, "tied"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.slow
def test_scale_does_not_matter(rotate_output, scale):
    weights, inputs = W[:10], X
    one = fitted(weights, inputs, rotate_output=rotate_output)
    for dtype in (np.float64, np.float32):
        other = fitted((scale * weights).astype(dtype), inputs, rotate_output=rotate_output)
        assert other.sparsity_ == pytest.approx(one.sparsity_, abs=2e-3)
        assert np.isfinite(other.explained_sensitivity_ratio_).all()


def test_order_of_the_samples_does_not_matter_where_they_collapse():
    # One deep minimum: where there are many, rounding decides which one is found.
    problem = make_planted_problem(16, 40, random_state=2)
    # With the default tolerance a search may end a little before its minimum.
    one, other = (fitted(problem.weights, X, tol=1e-6) for X in (problem.X, problem.X[::-1]))
    np.testing.assert_allclose(one.rotation_, other.rotation_, atol=1e-3)


def test_order_and_sign_of_the_neurons_do_not_matter(rng):
    problem = make_planted_problem(16, 40, random_state=2)
    order, one = rng.permutation(40), fitted(problem.weights, problem.X, tol=1e-6)
    other = fitted(problem.weights[order], problem.X, tol=1e-6)
    np.testing.assert_allclose(other.sparsity_, one.sparsity_, rtol=1e-5)


def test_same_seed_same_result():
    for rotate_output in (False, True, "tied"):
        options = {"rotate_output": rotate_output, "n_init": 2}
        one, other = (fitted(W[:10], **options) for _ in range(2))
        np.testing.assert_array_equal(one.rotation_, other.rotation_)


@pytest.mark.slow
@pytest.mark.search(other_processes=True)
def test_number_of_jobs_does_not_matter():
    one, other = (fitted(n_init=3, n_jobs=n_jobs) for n_jobs in (1, 2))
    np.testing.assert_allclose(one.rotation_, other.rotation_, atol=1e-8)


def test_more_starts_are_no_worse():
    assert fitted(rotate_output=True, n_init=4).sparsity_ >= fitted(rotate_output=True).sparsity_


# What it stores


@pytest.mark.parametrize("rotate_output", [False, True, "tied"])
@pytest.mark.parametrize("n_components", [None, 4])
def test_attributes(rotate_output, n_components):
    weights = W[:10]
    estimator = fitted(weights, rotate_output=rotate_output, n_components=n_components)
    Q, P = estimator.rotation_, estimator.output_rotation_
    k = n_components or 10
    assert Q.shape == (k, 10)
    np.testing.assert_allclose(Q @ Q.T, np.eye(k), atol=1e-12)
    assert np.all(Q[np.arange(k), np.abs(Q).argmax(axis=1)] > 0)
    stack = J(weights)
    sensitivity = ((stack @ Q.T) ** 2).sum(axis=1).mean(axis=0)
    assert np.all(np.diff(sensitivity) <= 1e-12 * sensitivity[0])
    np.testing.assert_allclose(
        estimator.explained_sensitivity_ratio_, sensitivity / (stack**2).sum((1, 2)).mean()
    )
    rotated = stack @ Q.T
    if rotate_output is False:
        assert P is None
    else:
        np.testing.assert_allclose(P @ P.T, np.eye(len(P)), atol=1e-12)
        rotated = P @ rotated
    if rotate_output == "tied":
        np.testing.assert_array_equal(P, Q)
    np.testing.assert_allclose(estimator.sparsity_before_, mean_hoyer(stack), rtol=1e-12)
    np.testing.assert_allclose(estimator.sparsity_, mean_hoyer(rotated), rtol=1e-12)
    np.testing.assert_allclose(estimator.score(X), estimator.sparsity_, rtol=1e-12)
    np.testing.assert_allclose(estimator.jacobians(X), rotated, atol=1e-12)
    assert estimator.n_features_in_ == 10
    assert estimator.converged_
    assert 1 <= estimator.n_iter_ <= 1000
    lengths = {name: len(column) for name, column in estimator.history_.items()}
    assert set(lengths) == {"stage", "iteration", "evaluations", "cost", "seconds"}
    assert len(set(lengths.values())) == 1


@settings(deadline=None, max_examples=15)
@given(
    m=st.integers(1, 7),
    n=st.integers(1, 7),
    n_samples=st.integers(1, 12),
    rank=st.integers(1, 7),
    rotate_output=st.sampled_from([False, True, "tied"]),
    activation=st.sampled_from(["relu", "tanh", "gelu", "identity"]),
    seed=st.integers(0, 1000),
)
def test_any_layer_ends_in_the_same_function(
    m, n, n_samples, rank, rotate_output, activation, seed
):
    rng = np.random.default_rng(seed)
    m = n if rotate_output == "tied" else m
    weights = rng.normal(size=(m, min(rank, m, n))) @ rng.normal(size=(min(rank, m, n), n))
    network = Network([(weights, 3 + rng.normal(size=m))], activation)
    inputs = rng.normal(size=(n_samples, n))
    assume(network.jacobians(inputs).any())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ samples have a zero Jacobian")
        estimator = JacobianSparsityRotation(rotate_output=rotate_output, random_state=0)
        estimator.fit(network, inputs)
    P = np.eye(m) if estimator.output_rotation_ is None else estimator.output_rotation_
    Z = estimator.transform(inputs)
    np.testing.assert_allclose(estimator.rotated_network()(Z), network(inputs) @ P.T, atol=1e-10)
    np.testing.assert_allclose(estimator.inverse_transform(Z), inputs, atol=1e-12)
    np.testing.assert_allclose(estimator.rotation_ @ estimator.rotation_.T, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(P @ P.T, np.eye(m), atol=1e-10)
    assert estimator.sparsity_ >= estimator.sparsity_before_ - 1e-9


@pytest.mark.parametrize("rotate_output", [False, True])
def test_whole_network_keeps_its_function(rotate_output, rng):
    network = random_network([5, 10, 12, 3], ["relu", "gelu", "identity"])
    inputs = rng.normal(size=(80, 5))
    estimator = fitted(network[1:2], network[:1](inputs), rotate_output=rotate_output)
    sites = {1: estimator.rotation_}
    if rotate_output:
        sites[2] = estimator.output_rotation_
    rotated = network.rotated(sites)
    np.testing.assert_allclose(rotated(inputs), network(inputs), atol=1e-10)
    np.testing.assert_allclose(
        rotated[1:2].jacobians(rotated[:1](inputs)),
        estimator.jacobians(network[:1](inputs)),
        atol=1e-10,
    )


def test_directions_without_effect_complete_the_axes():
    weights = W.copy()
    weights[:, 3] = 0
    weights[:, 7] = 0
    estimator = fitted(weights)
    np.testing.assert_allclose(np.abs(estimator.rotation_[8:]).max(axis=1), 1)
    np.testing.assert_allclose(estimator.explained_sensitivity_ratio_[8:], 0, atol=1e-15)
    np.testing.assert_allclose(estimator.explained_sensitivity_ratio_.sum(), 1)


@pytest.mark.parametrize(("n_components", "expected"), [(0.5, None), (1.0, 10), (10, 10)])
def test_fraction_of_the_sensitivity(n_components, expected):
    estimator = fitted(n_components=n_components)
    moment = np.einsum("iab,iac->bc", J(), J()) / len(X)
    shares = np.cumsum(np.linalg.eigvalsh(moment)[::-1]) / np.trace(moment)
    if expected is None:
        expected = int(np.searchsorted(shares, n_components) + 1)
    assert len(estimator.rotation_) == expected
    np.testing.assert_allclose(estimator.explained_sensitivity_ratio_.sum(), shares[expected - 1])


def test_fewer_components_compute_the_projection():
    estimator = fitted(n_components=6)
    projected = estimator.inverse_transform(estimator.transform(X))
    np.testing.assert_allclose(
        estimator.rotated_network()(estimator.transform(X)), estimator.network_(projected)
    )


def test_single_precision_in_and_out():
    inputs = X.astype(np.float32)
    estimator = fitted(W.astype(np.float32), inputs)
    Z = estimator.transform(inputs)
    assert Z.dtype == np.float32
    assert estimator.inverse_transform(Z).dtype == np.float32
    assert estimator.rotation_.dtype == np.float64
    assert estimator.sparsity_ == pytest.approx(fitted().sparsity_, abs=1e-3)


def test_arguments_are_not_modified():
    weights, inputs = W.copy(), X.copy()
    weights.flags.writeable = inputs.flags.writeable = False
    fitted(weights, inputs, rotate_output=True)


# The forms of fit, and every kind of network


def test_both_forms_give_the_same():
    prompt = fitted()
    constructor = JacobianSparsityRotation(W, random_state=0)
    np.testing.assert_array_equal(constructor.fit(X).rotation_, prompt.rotation_)
    np.testing.assert_array_equal(constructor.fit_transform(X), prompt.transform(X))
    np.testing.assert_array_equal(
        JacobianSparsityRotation(random_state=0).fit_transform(W, X), prompt.transform(X)
    )
    np.testing.assert_array_equal(constructor.fit(X, np.arange(60)).rotation_, prompt.rotation_)


@pytest.mark.parametrize(
    "weights",
    [Network(W), [W], [(W, None)], [W, np.zeros(16)], {"W": W}, lambda x: anp.maximum(x @ W.T, 0)],
    ids=["network", "matrices", "pairs", "flat", "mapping", "callable"],
)
def test_every_form_of_weights(weights):
    estimator = fitted(weights)
    assert isinstance(estimator.network_, Network)
    assert estimator.sparsity_ == pytest.approx(fitted().sparsity_, abs=0.02)


@pytest.mark.parametrize("rotate_output", [False, True])
def test_precomputed_jacobians(rotate_output, tmp_path):
    np.save(tmp_path / "J.npy", J())
    maps = np.load(tmp_path / "J.npy", mmap_mode="r")
    one, other = (fitted(stack, rotate_output=rotate_output) for stack in (J(), maps))
    np.testing.assert_array_equal(one.rotation_, other.rotation_)
    P = np.eye(16) if one.output_rotation_ is None else one.output_rotation_
    np.testing.assert_allclose(one.sparsity_, mean_hoyer(P @ J() @ one.rotation_.T))
    assert one.sparsity_ == pytest.approx(fitted(rotate_output=rotate_output).sparsity_, abs=0.02)
    assert one.network_ is None
    for method in (one.score, one.jacobians):
        with pytest.raises(ValueError, match="fitted to Jacobians computed elsewhere"):
            method(X)
    with pytest.raises(ValueError, match="fitted to Jacobians computed elsewhere"):
        one.rotated_network()


def test_chain_that_is_recomputed_gives_the_same():
    network = random_network([10, 12, 6], ["tanh", "gelu"])
    stored = fitted(network)
    with config_context(working_memory=0):
        recomputed = fitted(network)
    np.testing.assert_allclose(recomputed.rotation_, stored.rotation_, atol=1e-9)


def test_criterion_of_ones_own():
    estimator = fitted(criterion=lambda x: anp.log(1 + (x / 0.3) ** 2))
    assert estimator.sparsity_ > estimator.sparsity_before_ + 0.1


@pytest.mark.parametrize("criterion", ["hoyer", "l1", "quartimax", "logcosh"])
def test_named_criteria_make_it_sparser(criterion):
    estimator = fitted(criterion=criterion)
    assert estimator.sparsity_ > estimator.sparsity_before_ + 0.1


@pytest.mark.parametrize("init", ["auto", "identity", "svd", "random", rotation(10)])
@pytest.mark.parametrize("rotate_output", [False, True])
@pytest.mark.slow
def test_every_start_arrives(init, rotate_output):
    estimator = fitted(init=init, rotate_output=rotate_output)
    assert estimator.sparsity_ > fitted(rotate_output=rotate_output).sparsity_ - 0.03


def test_a_start_is_improved_not_forgotten(rng):
    # So dense that a search from elsewhere hardly finds the axes.
    problem = make_planted_problem(64, 128, density=0.3, random_state=0)
    near = np.linalg.qr(problem.rotation.T + 0.02 * rng.normal(size=(64, 64)))[0].T
    estimator = fitted(problem.weights, problem.X, init=near)
    assert match_axes(estimator.rotation_, problem.rotation)[1].min() > 0.999


# What it refuses, and what it warns of


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (None, (X,), r"no network: pass JacobianSparsityRotation\(network\).fit\(X\), or"),
        (None, (X, np.arange(60)), "there is no network, or"),
        (None, (X, Network(W)), "the network was passed in place of the activations"),
        (W, (W, X), "there are two networks"),
        (W, (Network(W), X), "there are two networks"),
        (W, ([W, W], X), "there are two networks"),
        (W, ([(W, np.ones(16))], X), "there are two networks"),
        (W, (W.tolist(), X), "there are two networks"),
        (None, (X, [(W, np.ones(16))]), "the network was passed in place of the activations"),
        (None, (np.ones((60, 0, 10)), X), "have no outputs"),
        (None, (W, X[:, :9]), "X has 9 features but the network reads 10; pass the layers that"),
        (None, (W.T, X), r"pass Network\(weights, layout='in_out'\)"),
        (None, (np.ones((3, 10, 10)), X), "one Jacobian .* for each sample"),
        (None, (W, X[0]), "no network, or the activations have fewer than two dimensions"),
        (None, (W, X * np.nan), "contains NaN"),
        (None, (0 * W, X), "zero at every one of n_samples=60"),
        (None, (np.full((60, 3, 10), np.nan), X), "60 of 60 samples have a Jacobian with NaN"),
        (None, (lambda x: anp.log(x), X), "returns NaN or infinity for"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_fits_are_refused(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        JacobianSparsityRotation(network).fit(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 11}, "n_components=11 must be at most n_features=10"),
        ({"rotate_output": "tied"}, "between 10 inputs and 16 outputs"),
        ({"init": np.eye(9)}, r"init has shape \(9, 9\); pass a matrix \(10, 10\)"),
        ({"init": np.ones((10, 10))}, "init is not orthogonal"),
        ({"criterion": lambda x: x}, "is not even"),
        ({"activation": ["relu", "relu"]}, "lists 2 activations for 1 layers"),
        ({"n_components": 0}, "The 'n_components' parameter"),
        ({"n_components": 1.5}, "The 'n_components' parameter"),
        ({"rotate_output": "free"}, "The 'rotate_output' parameter"),
        ({"criterion": "l2"}, "The 'criterion' parameter"),
        ({"init": "pca"}, "The 'init' parameter"),
        ({"tol": -1}, "The 'tol' parameter"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_use_before_fit():
    estimator = JacobianSparsityRotation(W)
    for method in (estimator.transform, estimator.score, estimator.inverse_transform):
        with pytest.raises(NotFittedError):
            method(X)
    with pytest.raises(NotFittedError):
        estimator.rotated_network()


def test_inverse_transform_checks_its_width():
    with pytest.raises(ValueError, match="X has 9 components but the rotation has 10"):
        fitted().inverse_transform(X[:, :9])


def test_running_out_of_steps_warns():
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=3 steps"):
        estimator = fitted(max_iter=3)
    assert not estimator.converged_
    assert estimator.n_iter_ == 3


def test_a_sample_of_almost_no_effect_is_no_obstacle():
    stack = J().copy()
    stack = stack[stack.any(axis=(1, 2))]
    stack[0] *= 1e-160
    estimator = fitted(stack, X[: len(stack)], rotate_output=True)
    rotated = estimator.output_rotation_ @ stack @ estimator.rotation_.T
    assert estimator.sparsity_ == pytest.approx(mean_hoyer(rotated))


@pytest.mark.parametrize("rotate_output", [False, True])
@pytest.mark.parametrize("criterion", ["hoyer", "l1", "logcosh"])
def test_neurons_of_very_different_scales_do_not_overflow(rotate_output, criterion):
    weights = np.random.default_rng(0).normal(size=(10, 10)) * 1e-20
    weights[0] *= 1e45
    estimator = fitted(weights, rotate_output=rotate_output, criterion=criterion)
    assert np.isfinite(estimator.history_["cost"]).all()
    assert np.isfinite(estimator.sparsity_)


def test_components_that_no_sample_uses_are_refused():
    weights = np.array([[0, 3.0, 0], [0, 0, 2], [1, 0, 0]])
    with pytest.raises(ValueError, match="n_components=1 keeps directions in which no sample"):
        fitted(weights, X[:, :3], activation="identity", rotate_output="tied", n_components=1)


def test_samples_that_the_components_annihilate_are_left_out():
    inputs = np.abs(X[:, :2])
    inputs[::2, 0] *= -1
    estimator = JacobianSparsityRotation(n_components=1, random_state=0)
    with pytest.warns(UserWarning, match="30 of 60 samples"):
        estimator.fit(np.diag([5.0, 1.0]), inputs)
    assert estimator.sparsity_ == pytest.approx(1)
    with pytest.raises(ValueError, match="zero at every one of n_samples=30"):
        estimator.score(inputs[::2])


def test_outputs_that_the_components_do_not_reach_are_not_rotated():
    estimator = fitted(W, rotate_output=True, n_components=3, activation="identity")
    reached = np.linalg.norm(estimator.jacobians(X)[0], axis=1)
    np.testing.assert_allclose(reached[3:], 0, atol=1e-12)


@pytest.mark.parametrize("rotate_output", [False, True])
def test_axes_without_effect_have_their_sign_too(rotate_output):
    for seed in range(5):
        weights = np.random.default_rng(seed).normal(size=(2, 5))
        estimator = fitted(weights, X[:, :5], rotate_output=rotate_output, activation="gelu")
        for axes in (estimator.rotation_, estimator.output_rotation_):
            if axes is not None:
                assert np.all(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] > 0)
        assert np.all(estimator.explained_sensitivity_ratio_ >= 0)


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()  # noqa: NPY002
    JacobianSparsityRotation(n_init=2).fit(W, X)
    make_planted_problem(8, 16)
    after = np.random.get_state()  # noqa: NPY002
    assert before[2] == after[2]
    np.testing.assert_array_equal(before[1], after[1])


def test_network_knows_its_own_activation():
    network = Network(W, "tanh")
    one, other = fitted(network, activation="gelu"), fitted(network)
    np.testing.assert_array_equal(one.rotation_, other.rotation_)


def test_more_processes_than_searches_start_none(monkeypatch):
    monkeypatch.setattr(
        "jacrot._estimators.base.Parallel",
        lambda n_jobs, **options: (
            pytest.fail("processes") if n_jobs != 1 else Parallel(n_jobs=n_jobs, **options)
        ),
    )
    fitted(n_jobs=2)


def test_dead_samples_are_left_out_with_a_warning():
    network = Network([(W, np.full(16, -9.0))])
    dead = ~(X @ W.T - 9 > 0).any(axis=1)
    assert 0 < dead.sum() < 60
    with pytest.warns(UserWarning, match=f"{dead.sum()} of 60 samples have a zero Jacobian"):
        estimator = fitted(network)
    alive = fitted(network, X[~dead])
    np.testing.assert_allclose(estimator.sparsity_, alive.sparsity_, rtol=1e-6)
    with pytest.warns(UserWarning, match="left out"):
        assert estimator.score(X) == pytest.approx(estimator.sparsity_)


def test_verbose_shows_a_bar_with_the_stages(capsys):
    fitted(verbose=1, n_init=2)
    assert "ε=0.25" in capsys.readouterr().err
    fitted()
    assert capsys.readouterr() == ("", "")


def test_verbose_counts_searches_in_other_processes(capsys):
    fitted(verbose=1, n_init=2, n_jobs=2)
    assert "search 2 of 2" in capsys.readouterr().err


def test_pickle():
    estimator = fitted(rotate_output=True)
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.transform(X), estimator.transform(X))
    np.testing.assert_array_equal(copy.score(X), estimator.score(X))
