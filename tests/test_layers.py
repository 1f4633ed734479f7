"""Every layer: its tangents against finite differences, rotations folded in, reach, pickling."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from builders import rotation

from jacrot import Network
from jacrot._jacobians.coordinates import fold_decoder
from jacrot._jacobians.networks import network_jacobians
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    BaseLayer,
    Basis,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Function,
    GatedDense,
    Layer,
    LayerNorm,
    MaxPool2d,
    Residual,
    RMSNorm,
    Sequential,
    Softmax,
    fused,
    identity_tangents,
)
from jacrot.layers._serialization import deserialize
from jacrot.readers import load

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape) / np.sqrt(shape[-1])


def attention(mask=None, **settings):
    weights = [normal(6, 4), normal(6, 4), normal(6, 4), normal(3, 6)]
    biases = {f"{side}_bias": normal(6) for side in ("query", "key", "value")}
    return Attention(*weights, n_heads=2, mask=mask, output_bias=normal(3), **biases, **settings)


def conv(n_out, n_in, size=(3, 3), **settings):
    groups = settings.get("groups", 1)
    kernel = normal(n_out, n_in // groups, *size)
    return Conv2d(kernel, normal(n_out), settings.pop("activation", "tanh"), **settings)


ROWS, SEQUENCE, IMAGE = (4,), (3, 4), (4, 6, 5)
BATCH_NORM = BatchNorm(normal(4), RNG.uniform(0.5, 2, 4), normal(4), normal(4))
ALLOWED = np.array([[True, True, False], [False, True, False], [True, True, True]])
# Each with the shape of one sample that it reads.
LAYERS = {
    "dense": (Dense(normal(3, 4), normal(3), "tanh"), ROWS),
    "dense, rotated": (Dense(normal(3, 4), activation="gelu", output_rotation=rotation(3)), ROWS),
    "dense, sequence": (Dense(normal(3, 4), normal(3), "tanh"), SEQUENCE),
    "function": (Function(lambda x: x**2 + x[:, ::-1]), ROWS),
    "activation": (Activation("silu"), IMAGE),
    "softmax": (Softmax(), SEQUENCE),
    "softmax, image": (Softmax(), IMAGE),
    "basis": (Basis(normal(3, 4)), IMAGE),
    "basis, sequence": (Basis(normal(3, 4)), SEQUENCE),
    "batch norm": (BATCH_NORM, ROWS),
    "batch norm, image": (BATCH_NORM, IMAGE),
    "layer norm": (LayerNorm(normal(4), normal(4)), SEQUENCE),
    "layer norm, plain": (LayerNorm(eps=0.1), ROWS),
    "layer norm, image": (LayerNorm(normal(4)), IMAGE),
    "rms norm": (RMSNorm(normal(4)), SEQUENCE),
    "rms norm, plain": (RMSNorm(), IMAGE),
    "gated": (GatedDense(normal(3, 4), normal(3, 4), normal(3), normal(3), "gelu"), ROWS),
    "gated, sequence": (GatedDense(normal(3, 4), normal(3, 4)), SEQUENCE),
    "convolution": (conv(3, 4, padding=1), IMAGE),
    "convolution, geometry": (conv(6, 4, (2, 3), stride=(2, 1), padding=((0, 1), (2, 0))), IMAGE),
    "convolution, groups": (conv(6, 4, groups=2, dilation=(2, 1), padding=2), IMAGE),
    "convolution, linear groups": (conv(6, 4, groups=2, activation="identity"), IMAGE),
    "convolution, rotated": (conv(3, 4, output_rotation=rotation(3)), IMAGE),
    "average pool": (AvgPool2d(2, 1, padding=1), IMAGE),
    "average pool, ONNX": (AvgPool2d(3, 2, padding=1, count_padding=False), IMAGE),
    "average pool, whole": (AvgPool2d(), IMAGE),
    "max pool": (MaxPool2d(3, 2, padding=1), IMAGE),
    "max pool, dilated": (MaxPool2d((2, 1), 1, dilation=2), IMAGE),
    "flatten": (Flatten(), (2, 1, 2)),
    "attention": (attention(), SEQUENCE),
    "attention, causal": (attention("causal"), SEQUENCE),
    "attention, mask": (attention(ALLOWED, scale=2.0), SEQUENCE),
    "sequential": (Sequential([LayerNorm(), Dense(normal(3, 4))]), ROWS),
    "residual": (Residual([Dense(normal(5, 4), activation="tanh"), Dense(normal(4, 5))]), SEQUENCE),
    "residual, shortcut": (
        Residual(conv(3, 4, padding=1, stride=2), conv(3, 4, (1, 1), stride=2)),
        IMAGE,
    ),
}
NAMES = sorted(LAYERS)


def case(name, n_samples=2):
    layer, shape = LAYERS[name]
    return layer, np.random.default_rng(1).normal(size=(n_samples, *shape))


def features_first(x):
    return np.moveaxis(x, 2 if x.ndim == 3 else 1, 0)


def rotated(Q, x):
    axis = 2 if x.ndim == 3 else 1
    return np.moveaxis(np.tensordot(Q, x, axes=(1, axis)), 0, axis)


@pytest.mark.parametrize("name", NAMES)
def test_tangents_are_derivatives(name):
    layer, x = case(name)
    tangents = np.random.default_rng(2).normal(size=(*x.shape, 3))
    outputs, pushed = layer.jvp(x, tangents)
    np.testing.assert_allclose(outputs, layer(x), rtol=1e-13)
    step = 1e-6
    for k in range(3):
        difference = layer(x + step * tangents[..., k]) - layer(x - step * tangents[..., k])
        np.testing.assert_allclose(pushed[..., k], difference / (2 * step), atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_no_tangents_are_the_identity(name):
    layer, x = case(name)
    _, expected = layer.jvp(x, np.array(identity_tangents(x)))
    np.testing.assert_allclose(layer.jvp(x, None)[1], expected, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_rotations_are_folded_in(name):
    layer, x = case(name)
    y = layer(x)
    Q, P = rotation(len(features_first(x))), rotation(len(features_first(y)), seed=1)
    np.testing.assert_allclose(layer.rotate_inputs(Q)(rotated(Q, x)), y, atol=1e-12)
    np.testing.assert_allclose(layer.rotate_outputs(P)(x), rotated(P, y), atol=1e-12)
    both = layer.rotate_outputs(P).rotate_inputs(Q)
    np.testing.assert_allclose(both(rotated(Q, x)), rotated(P, y), atol=1e-12)
    assert both.n_inputs in (None, len(Q))
    assert both.n_outputs in (None, len(P))


@pytest.mark.parametrize("name", NAMES)
def test_pickled_and_saved_layers_compute_the_same(name, tmp_path):
    layer, x = case(name)
    if name == "function":
        with pytest.raises(ValueError, match="without pickle"):
            Network([layer]).save(tmp_path / "network.npz")
        return
    Network([layer]).save(tmp_path / "network.npz")
    copy = pickle.loads(pickle.dumps(layer))
    for other in (copy, load(tmp_path / "network.npz")[0]):
        np.testing.assert_array_equal(other(x), layer(x))
        assert repr(other) == repr(layer)
    arrays = [value for value in vars(copy).values() if isinstance(value, np.ndarray)]
    assert not any(array.flags.writeable for array in arrays)


@pytest.mark.parametrize("name", [name for name in NAMES if len(LAYERS[name][1]) > 1])
def test_nothing_changes_out_of_reach(name):
    layer, x = case(name)
    images = x.ndim == 4
    grid = x.shape[2:] if images else x.shape[1:2]
    for position in [(0,) * len(grid), tuple(n // 2 for n in grid)]:
        mask = np.zeros(grid, bool)
        mask[position] = True
        tangents = np.zeros((*x.shape, 4))
        here = (slice(None), slice(None), *position) if images else (slice(None), *position)
        tangents[here] = np.eye(4)[: x.shape[1 if images else 2]]
        _, pushed = layer.jvp(x, tangents)
        reached = layer.reach(mask)
        if reached is None:
            continue
        changed = np.abs(pushed).sum(axis=(0, 1, -1) if images else (0, 2, 3)) > 0
        assert changed.shape == reached.shape
        assert not (changed & ~reached).any()
        assert reached.sum() < reached.size or reached.size == 1
        # Something generic changes wherever it can, but a maximum elsewhere can hide it.
        assert "max" in name or (changed == reached).all()


def test_a_tied_rotation_keeps_the_identity_of_a_residual_block():
    block, x = case("residual")
    Q = rotation(4)
    turned = block.rotate_inputs(Q).rotate_outputs(Q)
    assert turned.shortcut is None
    np.testing.assert_allclose(turned(x @ Q.T), block(x) @ Q.T, atol=1e-12)
    assert block.rotate_inputs(Q).shortcut is not None


def test_the_frozen_pattern_moves_values_only():
    full, x = case("attention, causal")
    frozen = full.changed(frozen=True)
    np.testing.assert_array_equal(frozen(x), full(x))
    jacobians = Network([frozen]).jacobians(x)
    circuits = np.stack([full.value_output(head).weight for head in range(2)])
    expected = np.einsum("nhts,hab->ntasb", full.pattern(x), circuits)
    np.testing.assert_allclose(jacobians, expected, atol=1e-13)
    assert np.abs(jacobians - Network([full]).jacobians(x)).max() > 1e-3


def test_heads_add_up():
    layer, x = case("attention")
    pattern = layer.pattern(x)
    heads = [layer.value_output(head)(x) for head in range(2)]
    total = sum(pattern[:, head] @ heads[head] for head in range(2)) + layer.output_bias
    np.testing.assert_allclose(total, layer(x), atol=1e-13)


def test_offsets_are_the_kernel_with_its_groups_written_out():
    layer, _ = case("convolution, groups")
    assert layer.offsets.shape == (9, 6, 4)
    np.testing.assert_array_equal(layer.offsets[5, 3:, 2:], layer.weight[3:, :, 1, 2])
    assert not layer.offsets[:, 3:, :2].any()


def test_batch_norm_and_activations_fold():
    _, x = case("convolution")
    chain = [
        conv(4, 4, activation="identity"),
        BATCH_NORM,
        Activation("relu"),
        Activation("tanh"),
        Flatten(),
        Dense(normal(4, 48), activation="identity"),
        BATCH_NORM,
        BATCH_NORM,
    ]
    folded = fused(chain)
    assert [type(layer) for layer in folded] == [Conv2d, Activation, Flatten, Dense]
    np.testing.assert_allclose(Network(folded)(x), Network(chain)(x), atol=1e-13)


def test_a_network_of_images_chains_rotates_and_differentiates():
    layers = [conv(5, 4, padding=1), AvgPool2d((2, 1)), conv(3, 5), AvgPool2d(), Flatten()]
    network = Network([*layers, Dense(normal(2, 3), activation="identity")])
    _, x = case("convolution")
    J = network.jacobians(x)
    assert J.shape == (2, 2, *IMAGE)
    direction = np.random.default_rng(3).normal(size=x.shape)
    difference = network(x + 1e-6 * direction) - network(x - 1e-6 * direction)
    np.testing.assert_allclose(np.einsum("nachw,nchw->na", J, direction), difference / 2e-6)
    turned = network.rotated({site: rotation(n) for site, n in enumerate([4, 5, 5, 3, 3, 3])})
    np.testing.assert_allclose(turned(x), network(x), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: conv(3, 4)(np.ones((1, 5, 6, 6))), "reads images"),
        (lambda: conv(3, 4)(np.ones((1, 4))), "reads images"),
        (lambda: conv(3, 4)(np.ones((1, 4, 2, 6))), "height 2"),
        (lambda: Conv2d(np.ones((3, 2, 1, 1)), groups=2), "does not divide the 3 outputs"),
        (lambda: Conv2d(np.ones((3, 2, 1, 1)), np.ones(2)), "bias has 2 entries"),
        (lambda: Conv2d(np.ones((3, 2, 1, 0))), "all its sides"),
        (lambda: Conv2d(np.ones((3, 2, 1, 1)), output_rotation=np.eye(2)), "3 columns"),
        (lambda: Conv2d(np.ones((1, 1, 1, 1)), stride=0), "stride=0 must be at least 1"),
        (lambda: Conv2d(np.ones((1, 1, 1, 1)), stride=1.5), "stride=1.5 must be a whole number"),
        (lambda: Conv2d(np.ones((1, 1, 1, 1)), padding=-1), "padding=-1 must be at least 0"),
        (lambda: Conv2d(np.ones((1, 1, 1, 1)), padding=((1, 1),)), "must be"),
        (lambda: AvgPool2d(stride=2), "pass no stride"),
        (lambda: BatchNorm([0.0], [1.0, 1.0]), "mean has 1 entries, variance has 2"),
        (lambda: BatchNorm([0.0], [-1.0]), "negative"),
        (lambda: LayerNorm([1.0], [1.0, 2.0]), "pass as many"),
        (lambda: GatedDense(np.ones((2, 2)), np.ones((3, 2))), "one shape"),
        (lambda: Attention(*np.ones((4, 4, 4)), n_heads=3), "n_heads=3 does not divide"),
        (lambda: Attention(*np.ones((4, 4, 4)), n_heads=1, mask="future"), "must be 'causal'"),
        (lambda: Attention(*np.ones((4, 4, 4)), n_heads=1, mask=np.zeros((2, 2), bool)), "nothing"),
        (
            lambda: Attention(np.ones((2, 4)), np.ones((3, 4)), *np.ones((2, 4, 4)), n_heads=1),
            "pass query and key of one shape",
        ),
        (lambda: attention(ALLOWED)(np.ones((1, 5, 4))), "sequences of 3 positions, got 5"),
        (lambda: attention()(np.ones((1, 4))), "reads sequences"),
        (lambda: attention().value_output(2), "from 0 to 1"),
        (lambda: Dense(normal(3, 4))(np.ones((1, 2, 2, 4))), r"put Flatten\(\) before it"),
        (lambda: Sequential([]), "layers is empty"),
        (lambda: Network([conv(3, 4), conv(3, 4)]), "layer 0 writes 3 activations"),
        (lambda: Network([conv(3, 4)])(np.ones((1, 3, 6, 6))), "X has 3 features"),
        (lambda: Network([conv(3, 4)])(np.ones(4)), "2 or 3 or 4"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


@pytest.mark.parametrize("value", [2.5, "2", None])
def test_whole_numbers_are_checked(value):
    with pytest.raises(TypeError, match=f"groups={value!r} must be a whole number"):
        Conv2d(np.ones((2, 2, 1, 1)), groups=value)
    with pytest.raises(TypeError, match=f"n_heads={value!r} must be a whole number"):
        Attention(*np.ones((4, 4, 4)), n_heads=value)
    assert type(Conv2d(np.ones((2, 1, 1, 1)), groups=np.int64(2)).groups) is int


def test_a_required_argument_is_required():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'weight'"):
        Dense()


def test_a_class_of_the_same_name_is_not_saved_as_the_layer(tmp_path):
    namesake = type("Dense", (Dense,), {"__call__": lambda self, x: 2 * Dense.__call__(self, x)})
    with pytest.raises(ValueError, match="without pickle"):
        Network([namesake(np.eye(2))]).save(tmp_path / "network.npz")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Activation", "activation", None),
        ("Activation", "activation", {"layer": "Softmax", "arguments": {}}),
        ("AvgPool2d", "count_padding", 1),
        ("Attention", "frozen", "no"),
        ("Attention", "n_heads", True),
        ("Attention", "scale", "0.5"),
        ("Conv2d", "groups", 1.0),
        ("Function", "function", "print"),
        ("RMSNorm", "eps", "1e-5"),
        ("RMSNorm", "eps", True),
    ],
)
def test_a_file_holds_values_of_the_types_of_fields(kind, name, value):
    with pytest.raises(
        TypeError, match=f"{kind} takes no {name} of {type(value).__name__}|Softmax"
    ):
        deserialize({"layer": kind, "arguments": {name: value}}, {})


@pytest.mark.parametrize("kind", ["BaseLayer", "Layer", "fused", "_dense", "__name__", "numpy"])
def test_a_file_names_layers_only(kind):
    with pytest.raises(KeyError, match=kind):
        deserialize({"layer": kind, "arguments": {}}, {})


def test_a_file_may_hold_whole_numbers_where_numbers_are_asked_for():
    layer = deserialize({"layer": "RMSNorm", "arguments": {"eps": 1}}, {})
    assert type(layer.eps) is float


def test_a_layer_without_its_fields_says_so():
    with pytest.raises(AttributeError, match="weight"):
        Dense.__new__(Dense).weight  # noqa: B018


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"branch\[1\] is a int"):
        Residual([Dense([[1.0]]), 3])


class Tripled(Dense):
    """A user's own, derived from a layer that folds rotations into its weights."""

    def __call__(self, x):
        return 3 * super().__call__(x) + 1

    def jvp(self, x, tangents):
        return self(x), 3 * super().jvp(x, tangents)[1]


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_a_derived_layer_stays_what_it_is(rng, activation):
    layer = Tripled(normal(3, 4), normal(3), activation)
    x, Q, P = rng.normal(size=(5, 4)), rotation(4), rotation(3)
    expected, step = layer(x), 1e-6
    jacobians = layer.jvp(x, None)[1]
    difference = (layer(x + step * Q[0]) - layer(x - step * Q[0])) / (2 * step)
    np.testing.assert_allclose(jacobians @ Q[0], difference, atol=1e-8)
    np.testing.assert_allclose(layer.rotate_inputs(Q)(x @ Q.T), expected, atol=1e-13)
    np.testing.assert_allclose(layer.rotate_outputs(P)(x), expected @ P.T, atol=1e-13)
    with pytest.warns(FutureWarning, match="reading is deprecated"):
        np.testing.assert_allclose(layer.reading(Q)(x @ Q.T), expected, atol=1e-13)
    stack = network_jacobians(Network([layer]), x)
    np.testing.assert_allclose(np.concatenate(list(stack.rotated(None, None))), jacobians)
    chain = [layer, BatchNorm(normal(3), rng.uniform(1, 2, 3)), Activation("relu")]
    np.testing.assert_array_equal(Network(fused(chain))(x), Network(chain)(x))
    z = rng.normal(size=(5, 4))
    other = fold_decoder(layer, Q.T, x[0])
    np.testing.assert_allclose(other(z), layer(z @ Q + x[0]), atol=1e-13)


def test_a_derived_layer_with_the_same_function_folds_as_its_base():
    class Named(Dense):
        name = "first"

    assert Named.rotate_inputs is Dense.rotate_inputs
    assert Named.jacobian_factors is Dense.jacobian_factors


def test_a_frozen_dataclass_is_a_layer(rng):
    @dataclass(frozen=True)
    class Power(BaseLayer):
        exponent: float
        positionwise = True

        def __call__(self, x):
            return np.abs(x) ** self.exponent * x

        def jvp(self, x, tangents):
            tangents = identity_tangents(x) if tangents is None else tangents
            return self(x), ((self.exponent + 1) * np.abs(x) ** self.exponent)[..., None] * tangents

    layer = Power(0.5)
    assert layer.arguments == {"exponent": 0.5}
    assert layer.changed(exponent=1.0) == Power(1.0)
    with pytest.raises(AttributeError, match="exponent"):
        layer.exponent = 2.0
    network = Network([layer, Dense(normal(2, 3), activation="tanh")])
    x, Q = rng.normal(size=(4, 3)), rotation(3)
    np.testing.assert_allclose(network.rotated({0: Q, 1: Q})(x), network(x), atol=1e-13)


def test_a_layer_of_ones_own_needs_two_methods(rng):
    class Cube(BaseLayer):
        positionwise = True

        def __call__(self, x):
            return x**3

        def jvp(self, x, tangents):
            tangents = identity_tangents(x) if tangents is None else tangents
            return x**3, 3 * x[..., None] ** 2 * tangents

    assert isinstance(Cube(), Layer)
    network = Network([Cube(), Dense(normal(2, 3), activation="tanh")])
    x = rng.normal(size=(4, 3))
    Q = rotation(3)
    turned = network.rotate_inputs(Q)
    np.testing.assert_allclose(turned(x @ Q.T), network(x), atol=1e-13)
    np.testing.assert_allclose(turned.jacobians(x @ Q.T), network.jacobians(x) @ Q.T, atol=1e-13)


def cube(x, tangents):
    tangents = identity_tangents(x) if tangents is None else tangents
    return x**3, 3 * x[..., None] ** 2 * tangents


def test_layers_with_the_old_names_of_methods_work(rng):
    with pytest.warns(FutureWarning) as warned:

        class Cube(BaseLayer):
            def __call__(self, x):
                return x**3

            def push(self, x, tangents):
                return cube(x, tangents)

            def reading(self, rotation):
                turned = super().reading(rotation)
                assert isinstance(turned, Sequential)
                return Sequential([*turned.layers, Activation("identity")])

    messages = [str(warning.message) for warning in warned]
    assert messages == [
        "Cube defines push, which is now called jvp; rename the method.",
        "Cube defines reading, which is now called rotate_inputs; rename the method.",
    ]
    assert {warning.filename for warning in warned} == {__file__}
    x, Q = rng.normal(size=(4, 3)), rotation(3)
    network = Network([Cube(), Dense(normal(2, 3), activation="tanh")])
    with pytest.warns(FutureWarning, match=r"reading is deprecated; call rotate_inputs instead"):
        turned = network.rotated({0: Q})
    assert len(turned.layers[1].layers) == 3
    np.testing.assert_allclose(turned(x), network(x), atol=1e-13)
    np.testing.assert_allclose(turned.jacobians(x), network.jacobians(x), atol=1e-13)


def test_methods_are_called_by_their_old_names(rng):
    with pytest.warns(FutureWarning, match="Doubled defines push, which is now called jvp"):

        class Doubled(Dense):
            def __call__(self, x):
                return 2 * super().__call__(x)

            def push(self, x, tangents):
                return tuple(2 * part for part in super().push(x, tangents))

    x, Q = rng.normal(size=(4, 3)), rotation(3)
    layer = Doubled(normal(2, 3), activation="tanh")
    with pytest.warns(FutureWarning, match="push is deprecated; call jvp instead"):
        outputs, jacobians = layer.jvp(x, None)
    np.testing.assert_allclose(outputs, layer(x))
    step = 1e-6 * Q[0]
    difference = (layer(x + step) - layer(x - step)) / 2e-6
    np.testing.assert_allclose(jacobians @ Q[0], difference, atol=1e-8)
    dense = Dense(layer.weight, activation="tanh")
    for holder in (dense, Network([dense])):
        with pytest.warns(FutureWarning, match="reading is deprecated") as warned:
            turned = holder.reading(Q)
        assert warned[0].filename == __file__
        assert type(turned) is type(holder)
        np.testing.assert_allclose(turned(x @ Q.T), dense(x), atol=1e-13)
        with pytest.warns(FutureWarning, match="writing is deprecated; call rotate_outputs"):
            turned = holder.writing(rotation(2))
        np.testing.assert_allclose(turned(x), dense(x) @ rotation(2).T, atol=1e-13)


def test_a_mixin_with_an_old_name_counts_where_it_did(rng):
    class Mixin:
        def push(self, x, tangents):
            return cube(x, tangents)

    with pytest.warns(FutureWarning, match="Cube defines push"):

        class Cube(Mixin, BaseLayer):
            def __call__(self, x):
                return x**3

    x = rng.normal(size=(4, 3))
    np.testing.assert_array_equal(Cube().jvp(x, None)[1], cube(x, None)[1])

    # One that comes after a layer never counted.
    class After(Dense, Mixin):
        pass

    weight = normal(2, 3)
    np.testing.assert_array_equal(After(weight).jvp(x, None)[1], Dense(weight).jvp(x, None)[1])


def test_a_layer_without_the_base_class_is_told_the_new_names():
    class Cube:
        n_inputs = n_outputs = None

        def __call__(self, x):
            return x**3

        def push(self, x, tangents):
            return cube(x, tangents)

        reading = writing = reach = None

    with pytest.raises(TypeError, match=r"Cube, a layer whose .* rename push to jvp, reading to"):
        Network([Cube()])
