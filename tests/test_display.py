"""The display: what its artists hold."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from jacrot import JacobianSparsityRotation
from jacrot.datasets import make_planted_problem
from jacrot.display import JacobianDisplay, _structure_order

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
    assert display.colorbar_.ax.get_ylabel() == "|derivative| / rms"


def test_single_samples_on_request():
    display = JacobianDisplay.from_estimator(FITTED, PROBLEM.X, samples=[3, 7])
    assert display.axes_.shape == (2, 2)
    J = PROBLEM.network.jacobians(PROBLEM.X)[7]
    np.testing.assert_allclose(
        display.images_[1, 0].get_array(), np.abs(J) / np.sqrt(np.mean(J**2))
    )
    assert display.axes_[1, 0].get_title() == "sample 7, given basis"
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
    with pytest.raises(ValueError, match="ax has 3 Axes; write 2, or one"):
        JacobianDisplay.from_estimator(FITTED, PROBLEM.X, ax=[left, right, ax])
    with pytest.raises(ValueError, match="ax is no subplot"):
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
def test_samples_that_do_not_exist(samples):
    with pytest.raises(ValueError, match="must be rows of the 40 samples"):
        JacobianDisplay.from_estimator(FITTED, PROBLEM.X, samples=samples)


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match="before has 3 samples and after 1"):
        JacobianDisplay.from_jacobians(np.ones((3, 2, 2)), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="before has 2 panels, after 2 and titles 1"):
        JacobianDisplay(np.ones((2, 2, 2)), np.ones((2, 2, 2)), titles=["a"])


@pytest.mark.parametrize("shape", [(3, 1, 8), (3, 8, 1), (3, 2, 90)])
def test_unusual_shapes(shape, rng):
    J = rng.normal(size=shape)
    display = JacobianDisplay.from_jacobians(J, J)
    assert display.images_[0, 1].get_array().shape == shape[1:]


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="before: all Jacobians are zero"):
        JacobianDisplay.from_jacobians(np.zeros((3, 2, 2)), np.ones((3, 2, 2)))


@pytest.mark.parametrize("shape", [(5, 5), (5, 9), (9, 5)])
def test_order_puts_strong_links_on_the_diagonal(shape, rng):
    matrix = rng.uniform(0, 0.1, size=shape)
    size = min(shape)
    rows, columns = rng.permutation(shape[0])[:size], rng.permutation(shape[1])[:size]
    matrix[rows, columns] = np.arange(1, size + 1)
    order = _structure_order(matrix)
    assert sorted(order[0]) == list(range(shape[0]))
    assert sorted(order[1]) == list(range(shape[1]))
    ordered = matrix[np.ix_(*order)]
    np.testing.assert_array_equal(np.diag(ordered), np.arange(size, 0, -1))
