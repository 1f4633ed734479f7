"""Exact measures by their definitions; criteria by finite differences."""

import warnings
from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import defvjp, primitive
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jacrot.criteria._measures import gini, hoyer, hoyer_of_norms, participation_ratio
from jacrot.criteria._minimised import (
    CRITERIA,
    CallableCriterion,
    Cauchy,
    EntrywiseCriterion,
    get_criterion,
)

MEASURES = {"hoyer": hoyer, "gini": gini, "participation_ratio": participation_ratio}


def test_hoyer_by_hand():
    J = np.array([[[1.0, 2.0], [0.0, -2.0]], [[5.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [-1.0, 1.0]]])
    np.testing.assert_allclose(hoyer(J), [(2 - 5 / 3) / 1, 1, 0], atol=1e-15)


def test_hoyer_of_norms_is_that_of_the_entries():
    J = np.random.default_rng(0).normal(size=(4, 3, 5))
    J[1] = 0
    l1, l2 = np.abs(J).sum((1, 2)), np.linalg.norm(J, axis=(1, 2))
    found = hoyer_of_norms(l1, l2, 15)
    np.testing.assert_allclose(found, hoyer(J), rtol=1e-12)
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, False])


def test_gini_is_the_mean_absolute_difference():
    x = np.random.default_rng(0).normal(size=(5, 3, 4))
    flat = np.abs(x.reshape(5, -1))
    difference = np.abs(flat[:, :, None] - flat[:, None, :]).mean(axis=(1, 2))
    np.testing.assert_allclose(gini(x), difference / (2 * flat.mean(axis=1)), rtol=1e-12)


def test_participation_ratio_is_that_of_the_moments():
    x = np.random.default_rng(0).normal(size=(5, 3, 4))
    expected = [np.sum(J**2) ** 2 / np.sum(J**4) for J in x]
    np.testing.assert_allclose(participation_ratio(x), expected, rtol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_stacks_of_any_depth_and_size(name):
    measure, J = MEASURES[name], np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = measure(J)
    assert expected.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(measure(J[i, j]), expected[i, j], rtol=1e-12)
    # Powers of the entries would vanish or overflow.
    for size in (1e-300, 1e300):
        np.testing.assert_allclose(measure(size * J), expected, rtol=1e-12)
    integers = np.array([[3, -1], [0, 2]])
    np.testing.assert_allclose(measure(integers), measure(integers.astype(float)), rtol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_infinite_matrices_have_no_measure(name):
    finite = np.array([[3.0, -1.0], [0.0, 2.0]])
    found = MEASURES[name]([[[np.inf, 1.0], [0.0, -np.inf]], finite])
    np.testing.assert_array_equal(found, [np.nan, MEASURES[name](finite)])


def test_participation_ratio_counts_equal_entries():
    for count in range(1, 7):
        matrix = np.zeros(6)
        matrix[:count] = -3.0
        np.testing.assert_allclose(participation_ratio(matrix.reshape(2, 3)), count)


@settings(deadline=None)
@given(
    J=arrays(
        np.float64, (2, 3, 4), elements=st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-6)
    ),
    exponent=st.integers(-30, 30),
)
@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.slow
def test_measures_ignore_scale_sign_and_order(name, J, exponent):
    measure = MEASURES[name]
    expected = measure(J)
    np.testing.assert_allclose(measure(J * -(10.0**exponent)), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measure(J[:, ::-1, ::-1]), expected, rtol=1e-9, atol=1e-12)
    zero = ~J.any(axis=(1, 2))
    np.testing.assert_array_equal(np.isnan(expected), zero)


def test_one_entry_and_bad_shapes():
    np.testing.assert_array_equal(hoyer([[[3.0]], [[0.0]]]), [1.0, np.nan])
    assert hoyer(np.zeros((0, 2, 2))).shape == (0,)
    with pytest.raises(TypeError, match="J has dtype complex128"):
        hoyer(np.ones((2, 2)) * 1j)
    message = r"J has shape \(3,\); pass a stack of matrices \(.*\) or one matrix\.$"
    with pytest.raises(ValueError, match=message):
        hoyer([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"^J cannot be read as an array"):
        hoyer([[1.0, 2.0], [3.0]])


CUSTOM = CallableCriterion(lambda x: anp.log(1 + x**2))
ALL = {name: criterion() for name, criterion in CRITERIA.items()}
ALL |= {"callable": CUSTOM, "cauchy": Cauchy()}
ENTRYWISE = [name for name, criterion in ALL.items() if isinstance(criterion, EntrywiseCriterion)]
POINTS = np.array([-4.1, -1.2, -0.3, -0.02, 0.0, 0.02, 0.3, 1.2, 4.1])


@pytest.mark.parametrize("smoothing", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("name", ENTRYWISE)
def test_derivatives_are_finite_differences(name, smoothing):
    criterion, step = ALL[name], 1e-6
    value, slope, curvature = criterion.curvatures(POINTS, smoothing)
    right = criterion.slopes(POINTS + step, smoothing)
    left = criterion.slopes(POINTS - step, smoothing)
    np.testing.assert_allclose(slope, (right[0] - left[0]) / (2 * step), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(curvature, (right[1] - left[1]) / (2 * step), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(value, value[::-1], rtol=1e-14)
    np.testing.assert_array_equal(criterion.value(POINTS, smoothing), value)
    np.testing.assert_array_equal(criterion.slopes(POINTS, smoothing), (value, slope))


@pytest.mark.parametrize("smoothing", [1.0, 0.1, 0.0])
def test_derivatives_of_a_table_are_finite_differences(smoothing):
    table, rng = np.array([4.0, 1.0, 0.2, 1e-3]), np.random.default_rng(0)
    value, slope = ALL["log"].slopes(table, smoothing)
    tau = max(smoothing / 10, 1e-3)
    np.testing.assert_allclose(value, np.log1p(table / (tau**2 * table.sum())), rtol=1e-12)
    # What rotations do to a table: its sum stays.
    direction = rng.normal(size=4) * table
    direction -= direction.mean()
    step = 1e-6
    right = ALL["log"].value(table + step * direction, smoothing)
    left = ALL["log"].value(table - step * direction, smoothing)
    np.testing.assert_allclose(slope * direction, (right - left) / (2 * step), rtol=1e-4)


@pytest.mark.parametrize("smoothing", [1.0, 0.1, 0.0])
def test_one_matrix_has_its_squares_for_a_table(smoothing):
    x, step = np.array([-3.0, -0.4, 0.01, 1.2]), 1e-6
    x /= np.sqrt(np.mean(x**2))
    entries = ALL["log"].collapsed(x.size)
    value, slope, curvature = entries.curvatures(x, smoothing)
    np.testing.assert_allclose(value, ALL["log"].value(x**2, smoothing), rtol=1e-10)
    np.testing.assert_array_equal(entries.value(x, smoothing), value)
    np.testing.assert_array_equal(entries.slopes(x, smoothing), (value, slope))
    right = entries.slopes(x + step, smoothing)
    left = entries.slopes(x - step, smoothing)
    np.testing.assert_allclose(slope, (right[0] - left[0]) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(curvature, (right[1] - left[1]) / (2 * step), rtol=1e-5)


def test_few_strong_connections_cost_less_than_many_weak_ones():
    few, many = np.eye(10) * 10, np.ones((10, 10))
    cost = {
        scale: [ALL["log"].value(scale * M, 0.1).sum() for M in (few, many)] for scale in (1.0, 1e6)
    }
    assert cost[1.0][0] < cost[1.0][1] / 5
    np.testing.assert_allclose(cost[1.0], cost[1e6])


@pytest.mark.parametrize("name", ALL)
def test_derivatives_leave_their_argument_and_its_precision(name):
    x = (POINTS**2 if name == "log" else POINTS).astype(np.float32)
    x.flags.writeable = False
    criterion = ALL[name]
    results = [criterion.value(x, 0.1), *criterion.slopes(x, 0.1)]
    if isinstance(criterion, EntrywiseCriterion):
        results += criterion.curvatures(x, 0.1)
    for result in results:
        assert result.dtype == np.float32


def test_values_by_their_formulas():
    x = np.array([-3.0, 0.5])
    np.testing.assert_allclose(ALL["hoyer"].value(x, 0.0), [3, 0.5])
    np.testing.assert_allclose(ALL["l1"].value(x, 4.0), [1, np.sqrt(16.25) - 4])
    np.testing.assert_allclose(ALL["quartimax"].value(x, 0.0), [-81 / 4, -1 / 64])
    np.testing.assert_allclose(ALL["logcosh"].value(x, 0.0), np.log(np.cosh(x)))
    np.testing.assert_allclose(ALL["cauchy"].value(x, 2.0), np.log(1 + x**2 / 4))
    # Exact also where squares vanish.
    tiny = np.array([1e-200, -1e-200])
    np.testing.assert_array_equal(ALL["l1"].value(tiny, 0.0), [1e-200, 1e-200])
    big = np.array([1e4])
    np.testing.assert_allclose(ALL["logcosh"].value(big, 0.0), big - np.log(2))


@pytest.mark.parametrize("name", CRITERIA)
def test_declared_degree_is_that_of_the_exact_function(name):
    criterion = ALL[name]
    if criterion.degree is not None and isinstance(criterion, EntrywiseCriterion):
        one, two = (criterion.value(np.array([x]), 0.0) for x in (1.3, 2.6))
        np.testing.assert_allclose(two / one, 2**criterion.degree)


FIT = {
    "log": (lambda x: anp.log(1 + x**2), lambda x: 2 * x / (1 + x**2)),
    "kink": (lambda x: anp.abs(x), np.sign),
    # autograd warns about its slope, which no longer depends on x.
    "constant slope": (lambda x: anp.maximum(x, -x), np.sign),
    "power": (lambda x: x**4, lambda x: 4 * x**3),
    "negative": (lambda x: -anp.sqrt(101**2 - x**2), lambda x: x / np.sqrt(101**2 - x**2)),
    # Even up to rounding.
    "rounded": (lambda x: (x + 1000) ** 2 - 2000 * x - 1e6, lambda x: 2 * x),
}


@pytest.mark.parametrize("unit", [1e-14, 1.0, 1e14])
@pytest.mark.parametrize("name", FIT)
def test_fit_functions_are_taken_in_any_unit(name, unit):
    function, slope = FIT[name]
    criterion = get_criterion(lambda x: unit * function(x))
    found = criterion.slopes(POINTS, 0.0)
    np.testing.assert_allclose(found[0], unit * function(POINTS), rtol=1e-12)
    np.testing.assert_allclose(found[1], unit * slope(POINTS), rtol=1e-6, atol=1e-9 * unit)


def test_functions_keep_precision_whatever_they_compute_in():
    criterion = get_criterion(lambda x: x**2 * np.ones(1))
    for result in criterion.curvatures(POINTS.astype(np.float32), 0.1):
        assert result.dtype == np.float32


def test_what_a_function_warns_of_is_heard():
    def warning(x):
        warnings.warn("of its own", UserWarning, stacklevel=2)
        return x**2

    with pytest.warns(UserWarning, match="of its own"):
        criterion = get_criterion(warning)
    with pytest.warns(UserWarning, match="of its own"):
        criterion.value(POINTS, 0.0)


# The function with a derivative that is not its own.
@primitive
def wrong_slope(x):
    return x**2


@primitive
def wrong_curvature(x):
    return np.log(np.cosh(x))


@primitive
def slope_of_it(x):
    return np.tanh(x)


defvjp(wrong_slope, lambda answer, x: lambda cotangent: cotangent * 2.1 * x)
defvjp(slope_of_it, lambda answer, x: lambda cotangent: cotangent * 1.05 / anp.cosh(x) ** 2)
defvjp(wrong_curvature, lambda answer, x: lambda cotangent: cotangent * slope_of_it(x))


@pytest.mark.parametrize("unit", [1e-14, 1.0, 1e14])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: np.log1p(np.asarray(x, float) ** 2),
            r"cannot be evaluated and differentiated by autograd \(\w+Error: .*\); pass an "
            r"elementwise function with autograd\.numpy\.$",
        ),
        (lambda x: anp.sum(x**2), r"not elementwise; .* \(the search takes the mean itself\)\.$"),
        (
            lambda x: anp.sqrt(x**2),
            r"NaN or infinite between -100 and 100; .* no derivative at 0 .* \+ 1e-4\) has\.$",
        ),
        (lambda x: anp.log(x**2 - 1), "NaN or infinite"),
        (lambda x: anp.sqrt(99**2 - x**2), "NaN or infinite between -100 and 100"),
        (lambda x: x**3, "is not even"),
        (lambda x: x**2 * (1 + 1e-6 * anp.tanh(x)), "is not even"),
        (wrong_slope, "derivative 1 by autograd differs from finite"),
        (wrong_curvature, "derivative 2 by autograd differs from finite"),
    ],
)
def test_unfit_functions_are_refused_before_the_run_in_any_unit(function, message, unit):
    with pytest.raises(ValueError, match=message):
        get_criterion(lambda x: unit * function(x))


def test_functions_that_normalise_are_refused():
    with pytest.raises(ValueError, match="is not elementwise"):
        get_criterion(lambda x: x**2 / anp.sum(x**2))


def test_a_refusal_names_the_function_and_says_by_how_much():
    # 2.1 x in the place of 2 x, at most at 100.
    message = r"^criterion wrong_slope: derivative 1 .* differences by 1\.0e\+01; use .* by hand\.$"
    with pytest.raises(ValueError, match=message):
        get_criterion(wrong_slope)
    nameless = partial(lambda exponent, x: x**exponent, 3)
    with pytest.raises(ValueError, match=r"^criterion functools\.partial\(.* is not even"):
        get_criterion(nameless)


def test_unknown_name():
    with pytest.raises(
        ValueError, match=r"criterion='hoier' is unknown; .* elementwise function\.$"
    ):
        get_criterion("hoier")
