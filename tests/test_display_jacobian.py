"""The plot of the Jacobian: what its panels show, and where it draws."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from jacrot import JacobianSparsityRotation
from jacrot.datasets import make_planted_problem
from jacrot.display import JacobianDisplay
from jacrot.display._jacobian import order_by_links

pytestmark = pytest.mark.search

PROBLEM = make_planted_problem(8, 12, n_samples=40, random_state=0)
FITTED = JacobianSparsityRotation(rotate_output=False, random_state=0).fit(
    PROBLEM.network, PROBLEM.X
)


def normalised_mean(J):
    J = J[J.any(axis=(1, 2))]
    return (np.abs(J) / np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))).mean(axis=0)


def test_images_are_the_mean_absolute_jacobians_on_one_scale():
    display = JacobianDisplay.from_estimator(FITTED, PROBLEM.X)
    before, after = display.images_[0]
    np.testing.assert_allclose(
        before.get_array(), normalised_mean(PROBLEM.network.jacobians(PROBLEM.X))
    )
    rows, columns = display.row_orders_[0], display.column_orders_[0]
    np.testing.assert_allclose(
        after.get_array(), normalised_mean(FITTED.jacobians(PROBLEM.X))[np.ix_(rows, columns)]
    )
    assert before.get_clim() == after.get_clim() == display.colorbar_.mappable.get_clim()
    assert before.get_clim()[0] == 0
    labels = [ax.get_xlabel() for ax in display.axes_[0]]
    assert labels == ["input neuron", "input axis (ordered)"]
    assert display.axes_[0, 1].get_ylabel() == "output neuron (ordered)"
    assert display.colorbar_.ax.get_ylabel() == "|derivative| / rms, mean over samples"


def test_single_samples_on_request():
    display = JacobianDisplay.from_estimator(FITTED, PROBLEM.X, samples=[3, 7])
    assert display.axes_.shape == (2, 2)
    J = PROBLEM.network.jacobians(PROBLEM.X)[7]
    np.testing.assert_allclose(
        display.images_[1, 0].get_array(), np.abs(J) / np.sqrt(np.mean(J**2))
    )
    assert display.axes_[1, 0].get_title() == "sample 7, given basis"
    assert display.colorbar_.ax.get_ylabel() == "|derivative| / rms"
    one = JacobianDisplay.from_estimator(FITTED, PROBLEM.X, samples=0)
    assert one.axes_.shape == (1, 2)


def test_rotated_outputs_are_named():
    both = JacobianSparsityRotation(rotate_output=True, random_state=0)
    both.fit(PROBLEM.network, PROBLEM.X)
    display = JacobianDisplay.from_estimator(both, PROBLEM.X)
    assert display.axes_[0, 1].get_ylabel() == "output axis (ordered)"


def test_axes_given_are_drawn_into():
    figure, (left, right) = plt.subplots(1, 2)
    display = JacobianDisplay.from_estimator(FITTED, PROBLEM.X, ax=[left, right])
    assert list(display.axes_[0]) == [left, right]
    assert display.figure_ is figure
    figure, ax = plt.subplots()
    display = JacobianDisplay.from_estimator(FITTED, PROBLEM.X, ax=ax)
    assert display.figure_ is figure
    assert len(display.images_[0]) == 2
    with pytest.raises(ValueError, match="ax has 3 Axes; pass 2, or one"):
        JacobianDisplay.from_estimator(FITTED, PROBLEM.X, ax=[left, right, ax])
    with pytest.raises(ValueError, match="ax is not a subplot"):
        display.plot(ax=figure.add_axes((0, 0, 1, 1)))


def test_plot_again_with_other_colours():
    display = JacobianDisplay.from_estimator(FITTED, PROBLEM.X)
    display.plot(cmap="viridis", vmax=2.0)
    image = display.images_[0, 0]
    assert image.get_clim() == (0, 2)
    assert to_hex(image.get_cmap()(0.0)) == to_hex(plt.get_cmap("viridis")(0.0))


def test_from_jacobians_computed_elsewhere():
    J = PROBLEM.network.jacobians(PROBLEM.X)
    display = JacobianDisplay.from_jacobians(J, J @ FITTED.rotation_.T)
    reference = JacobianDisplay.from_estimator(FITTED, PROBLEM.X)
    for one, other in zip(display.images_[0], reference.images_[0], strict=True):
        np.testing.assert_allclose(one.get_array(), other.get_array())


@pytest.mark.parametrize("samples", [[40], [-41], [], 1.5, "a"])
def test_samples_that_do_not_exist_are_refused(samples):
    with pytest.raises(ValueError, match="must be rows of the 40 samples"):
        JacobianDisplay.from_estimator(FITTED, PROBLEM.X, samples=samples)


def test_stacks_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="before has 3 samples and after 1"):
        JacobianDisplay.from_jacobians(np.ones((3, 2, 2)), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="before has 2 panels, after 2 and titles 1"):
        JacobianDisplay(np.ones((2, 2, 2)), np.ones((2, 2, 2)), titles=["a"])


@pytest.mark.parametrize("shape", [(3, 1, 8), (3, 8, 1), (3, 2, 90)])
def test_unusual_shapes(shape, rng):
    J = rng.normal(size=shape)
    display = JacobianDisplay.from_jacobians(J, J)
    assert display.images_[0, 1].get_array().shape == shape[1:]


def test_large_jacobians_are_drawn_in_cells_of_their_means(rng):
    # 7 × 3 entries a cell, but the last: 1,100 = 157 · 7 + 1, 400 = 133 · 3 + 1.
    before, after = rng.exponential(size=(2, 1, 1100, 400))
    display = JacobianDisplay(before, after).plot()
    assert display.cell_ == (7, 3)
    ordered = after[0][np.ix_(display.row_orders_[0], display.column_orders_[0])]
    for image, matrix in zip(display.images_[0], (before[0], ordered), strict=True):
        cells = image.get_array()
        assert cells.shape == (158, 134)
        np.testing.assert_allclose(cells[2, 5], matrix[14:21, 15:18].mean())
        np.testing.assert_allclose(cells[157, 133], matrix[1099, 399])
        # A cell stands where its entries are.
        assert image.get_extent() == [-0.5, 3 * 134 - 0.5, 7 * 158 - 0.5, -0.5]
    for ax in display.axes_[0]:
        assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 399.5), (1099.5, -0.5))
        assert ax.get_xlabel().endswith("\neach cell: mean over 7 outputs × 3 inputs")


def test_strongest_axes_only(rng):
    before, after = rng.exponential(size=(2, 1, 12, 1000))
    before[0, :, 17] += 10
    after[0, :, 900] += 10
    display = JacobianDisplay(before, after, rotated_output=True).plot(max_axes=50)
    given, rotated = (image.get_array() for image in display.images_[0])
    assert given.shape == rotated.shape == (12, 50)
    np.testing.assert_array_equal(given[:, 0], before[0, :, 17])
    strongest = np.argsort(-(after[0] ** 2).sum(axis=0))[:50]
    assert sorted(display.column_orders_[0]) == sorted(strongest)
    expected = after[0][np.ix_(display.row_orders_[0], display.column_orders_[0])]
    np.testing.assert_array_equal(rotated, expected)
    labels = [(ax.get_ylabel(), ax.get_xlabel()) for ax in display.axes_[0]]
    assert labels == [
        ("output neuron", "input neuron (50 strongest of 1,000)"),
        ("output axis (ordered)", "input axis (50 strongest of 1,000, ordered)"),
    ]
    for max_axes in (0, 2.5):
        with pytest.raises(ValueError, match=f"max_axes={max_axes} must be an integer of at least"):
            display.plot(max_axes=max_axes)


def test_zero_jacobians_are_refused():
    with pytest.raises(ValueError, match="before: all Jacobians are zero"):
        JacobianDisplay.from_jacobians(np.zeros((3, 2, 2)), np.ones((3, 2, 2)))


@pytest.mark.parametrize("shape", [(5, 5), (5, 9), (9, 5)])
def test_order_puts_strong_links_on_the_diagonal(shape, rng):
    matrix = rng.uniform(0, 0.1, size=shape)
    size = min(shape)
    rows, columns = rng.permutation(shape[0])[:size], rng.permutation(shape[1])[:size]
    matrix[rows, columns] = np.arange(1, size + 1)
    order = order_by_links(matrix)
    assert sorted(order[0]) == list(range(shape[0]))
    assert sorted(order[1]) == list(range(shape[1]))
    ordered = matrix[np.ix_(*order)]
    np.testing.assert_array_equal(np.diag(ordered), np.arange(size, 0, -1))
