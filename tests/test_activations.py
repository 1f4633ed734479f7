"""Activations against their definitions, autograd and finite differences."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from autograd.scipy.special import erf, expit

from jacrot.activations import ACTIVATIONS, get_activation

# Written out a second time, for autograd to differentiate.
DEFINITIONS = {
    "relu": lambda x: anp.where(x > 0, x, 0.0),
    "leaky_relu": lambda x: anp.where(x > 0, x, 0.01 * x),
    "elu": lambda x: anp.where(x > 0, x, anp.exp(x) - 1),
    "selu": lambda x: (
        1.0507009873554804934193349852946
        * anp.where(x > 0, x, 1.6732632423543772848170429916717 * (anp.exp(x) - 1))
    ),
    "gelu": lambda x: x * (1 + erf(x / anp.sqrt(2.0))) / 2,
    "gelu_tanh": lambda x: x * (1 + anp.tanh(anp.sqrt(2 / anp.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * expit(x),
    "tanh": anp.tanh,
    "sigmoid": expit,
    "softplus": lambda x: anp.log(1 + anp.exp(x)),
    "identity": lambda x: x,
}
POINTS = np.array([-5.0, -2.3, -1.0, -0.4, -0.01, 0.01, 0.3, 1.0, 2.7, 6.0])


def test_every_activation_is_tested():
    assert set(DEFINITIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_value_is_the_definition(name):
    np.testing.assert_allclose(
        get_activation(name).function(POINTS), DEFINITIONS[name](POINTS), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_slope_is_autograds_of_the_definition(name):
    np.testing.assert_allclose(
        get_activation(name).slope(POINTS),
        elementwise_grad(DEFINITIONS[name])(POINTS),
        rtol=1e-11,
        atol=1e-14,
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_slope_is_the_finite_difference_of_the_value(name):
    activation, step = get_activation(name), 1e-6
    difference = (activation.function(POINTS + step) - activation.function(POINTS - step)) / (
        2 * step
    )
    np.testing.assert_allclose(activation.slope(POINTS), difference, rtol=1e-7, atol=1e-8)


def test_slopes_at_zero_are_pytorchs():
    # torch.autograd gives these for torch.nn.functional's functions at 0.
    expected = {"relu": 0.0, "leaky_relu": 0.01, "gelu": 0.5, "silu": 0.5, "sigmoid": 0.25}
    for name, slope in expected.items():
        assert get_activation(name).slope(np.zeros(1))[0] == slope


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_size_of_input_gives_nan_and_the_dtype_is_kept(name, dtype):
    x = np.array([-1e30, -1e4, -50, 0, 50, 1e4, 1e30], dtype=dtype)
    activation = get_activation(name)
    for result in (activation.function(x), activation.slope(x)):
        assert result.dtype == dtype
        assert np.isfinite(result).all()


def test_saturated_tanh_keeps_its_relative_accuracy():
    np.testing.assert_allclose(
        get_activation("tanh").slope(np.array([25.0])), 1 / np.cosh(25.0) ** 2, rtol=1e-12
    )


def test_callable_gets_its_slope_from_autograd():
    activation = get_activation(lambda x: anp.sin(x) ** 2)
    np.testing.assert_allclose(activation.slope(POINTS), np.sin(2 * POINTS), atol=1e-14)


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        ("rleu", ValueError, "'rleu' is unknown; pass one of"),
        (3, TypeError, "must be a name or a callable, got int"),
        (lambda x: x / anp.sum(x), ValueError, "is not elementwise"),
        (lambda x: anp.sum(x, axis=1), ValueError, "cannot be evaluated|is not elementwise"),
        (
            lambda x: np.tanh(np.asarray(x, float)),
            ValueError,
            "use the functions of autograd.numpy in it",
        ),
        (lambda x: undefined(x), ValueError, "NameError"),  # noqa: F821
    ],
)
def test_bad_activation_is_refused(activation, error, message):
    with pytest.raises(error, match=message):
        get_activation(activation)
