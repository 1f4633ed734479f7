"""Modules of PyTorch in training mode, parametrized, patched, hooked: against their own forward."""

import functools
from copy import deepcopy

import numpy as np
import pytest
from builders import framework

from jacrot.readers import from_torch

torch = framework("torch")
nn, functional = torch.nn, torch.nn.functional
parametrize = framework("torch.nn.utils.parametrize")
prune = framework("torch.nn.utils.prune")
parametrizations = framework("torch.nn.utils.parametrizations")


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def state(model):
    """List all that a model holds, as it is."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        [(name, id(t), t._version, t.requires_grad, t.grad) for name, t in tensors.items()],
        [t.detach().clone() for t in tensors.values()],
        [{**vars(module), "training": module.training} for module in model.modules()],
    )


def unchanged(model, before):
    ids, values, attributes = state(model)
    assert ids == before[0]
    assert all(torch.equal(a, b) for a, b in zip(values, before[1], strict=True))
    assert attributes == before[2]


def same(model, shape=(5,)):
    """Compare what is read in training mode with the model in evaluation mode, both unchanged."""
    x = torch.randn(6, *shape)
    with torch.no_grad():
        expected = deepcopy(model).eval()(x.clone()).numpy()
    before, random = state(model), torch.get_rng_state()
    network = from_torch(model)
    assert torch.equal(torch.get_rng_state(), random)
    unchanged(model, before)
    np.testing.assert_allclose(network(x.numpy()), expected, rtol=0, atol=1e-5)


def refuses(model, message):
    before, random = state(model), torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        from_torch(model)
    unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random)


class DropConnect(nn.Module):
    def forward(self, weight):
        return functional.dropout(weight, 0.5, self.training)


class Scaled(nn.Module):
    def forward(self, weight):
        return 3 * weight if self.training else 2 * weight


@pytest.mark.parametrize(
    "chain",
    [
        [parametrizations.spectral_norm],
        [parametrizations.weight_norm],
        [parametrizations.orthogonal],
        [parametrizations.weight_norm, parametrizations.spectral_norm],
        [lambda m: parametrize.register_parametrization(m, "weight", DropConnect())],
        [
            parametrizations.spectral_norm,
            lambda m: parametrize.register_parametrization(m, "weight", Scaled()),
            lambda m: parametrize.register_parametrization(m, "bias", DropConnect()),
        ],
    ],
)
@pytest.mark.parametrize("trains", [True, False])
def test_parametrizations_are_read_in_evaluation_mode(chain, trains):
    layers = nn.Linear(5, 7), nn.Conv2d(2, 3, 2)
    for layer, shape in zip(layers, [(5,), (2, 4, 3)], strict=True):
        for register in chain:
            register(layer)
        model = nn.Sequential(layer, nn.Tanh()).train(trains)
        # As an optimiser's step does.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        same(model, shape)


def test_cached_parametrizations_keep_what_the_user_computed():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    parametrize.register_parametrization(model[0], "weight", DropConnect())
    with parametrize.cached():
        weight = model[0].weight
        kept = dict(parametrize._cache)
        from_torch(model)
        assert parametrize._cache == kept
        assert model[0].weight is weight


class Modal(nn.Module):
    """Does something else in training mode, by functions and by branches."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.norm = nn.BatchNorm1d(5)
        # The error of the module itself, not of the copy.
        self.branch = lambda x: torch.tanh(x) if self.training else torch.sigmoid(x)

    def forward(self, x):
        x = functional.dropout(self.first(x), 0.5, self.training)
        if self.training:
            x = self.second(x)
        return self.norm(functional.dropout(self.branch(x), p=0.3, training=self.training))


@pytest.mark.parametrize("trains", [True, False])
def test_functions_and_branches_are_those_of_evaluation_mode(trains):
    model = Modal().train(trains)
    model.norm.running_mean.normal_()
    x = torch.randn(6, 5)
    network = from_torch(model)
    assert model.training == trains
    expected = model.eval()(x).detach().numpy()
    np.testing.assert_allclose(network(x.numpy()), expected, rtol=0, atol=1e-5)


class Frozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


class StaysRandom(nn.Dropout):
    def train(self, mode=True):
        self.training = True
        return self


class StaysInBatches(nn.Sequential):
    def eval(self):
        super().eval()
        self[1].train()
        return self


class Merged(nn.Linear):
    """Adds something to its weight when it goes into evaluation mode, as adapters do."""

    def train(self, mode=True):
        if self.training and not mode:
            self.weight.data += 1
        return super().train(mode)


def test_modes_are_those_that_eval_makes():
    same(Frozen(nn.Linear(5, 4), nn.BatchNorm1d(4)).train())
    same(nn.Sequential(Merged(5, 4), nn.Tanh()).train())
    refuses(nn.Sequential(nn.Linear(5, 4), StaysRandom()), r"1, a StaysRandom, stays in training")
    refuses(StaysInBatches(nn.Linear(5, 4), nn.BatchNorm1d(4)), "1, a BatchNorm1d, stays in train")


def double(*args):
    return 2 * args[-1]


def patch(model, forward):
    model[0].forward = forward
    return model


def test_methods_of_the_instance_are_refused():
    def model():
        return nn.Sequential(nn.Linear(5, 4), nn.ReLU())

    first = model()
    plain = first[0].forward
    refuses(patch(first, lambda x: 3 * plain(x)), "0, a Linear, has a forward on the instance")
    refuses(patch(nn.Sequential(nn.ReLU()), torch.tanh), "0, a ReLU, has a forward on the instance")
    # As accelerate does.
    hooked = model()
    hooked[0]._old_forward = hooked[0].forward
    wrapped = functools.partial(lambda module, x: 2 * module._old_forward(x), hooked[0])
    refuses(
        patch(hooked, functools.update_wrapper(wrapped, hooked[0]._old_forward)), "accelerate.hooks"
    )
    # And as it takes it back.
    hooked[0].forward = hooked[0]._old_forward
    del hooked[0]._old_forward
    same(hooked)
    outer = model()
    outer.forward = double
    refuses(outer, "model, a Sequential, has a forward on the instance")
    convolution = nn.Conv2d(1, 1, 1)
    convolution._conv_forward = lambda x, weight, bias: 2 * x
    refuses(nn.Sequential(convolution), "0: from_torch does not support this Conv2d")
    # Attributes with another name, or that are not methods, do not count.
    named = model()
    named.type, named.function = "perceptron", double
    # As one freezes a part of a model.
    named[0].eval().train = double
    same(named)


class Chosen(nn.Module):
    """Chooses one of its methods when it is made, as configurable modules do."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 4)
        self.function = torch.tanh

    def forward(self, x):
        return self.function(self.inner(x))

    def function(self, x):
        return torch.sigmoid(x)


def test_other_methods_of_the_instance_are_traced():
    same(Chosen())


class Doubled(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + super().forward(x)


class DoubledCall(nn.Linear):
    def __call__(self, x):
        return super().__call__(x) + super().__call__(x)


class DoubledInside(nn.Linear):
    def _call_impl(self, x):
        return super()._call_impl(x) * 2


class DoubledConvolution(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight * 2, bias)


class Named(nn.Linear):
    def extra_repr(self):
        return "named"

    def reset_parameters(self):
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)


class Mixin:
    def forward(self, x):
        y = super().forward(x)
        return y + y


class Mixed(Mixin, nn.Tanh):
    pass


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def test_derived_classes_are_not_taken_for_their_base():
    for model in (Doubled(), DoubledCall(5, 4), Named(5, 4), Mixed()):
        same(nn.Sequential(nn.Linear(5, 5), model))
        same(nn.Sequential(model))
    for model in (DoubledInside(5, 5), DoubledConvolution(5, 5, 1), Standardized(5, 5, 1)):
        refuses(nn.Sequential(model), "does not support this|cannot trace")


def test_hooks_are_refused():
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
        handle = getattr(model[1], register)(lambda module, *args: None)
        refuses(model, "1, a ReLU, has forward hooks")
        handle.remove()
        same(model)
    for kind in ("forward_hook", "forward_pre_hook", "full_backward_hook"):
        register = getattr(nn.modules.module, f"register_module_{kind}")
        handle = register(lambda module, *args: None)
        try:
            refuses(model, r"hook is registered for all modules .*remove\(\)")
        finally:
            handle.remove()
    for norm in (nn.utils.spectral_norm, prune.random_unstructured):
        options = () if norm is nn.utils.spectral_norm else ("weight", 0.5)
        refuses(nn.Sequential(norm(nn.Linear(5, 4), *options)), "remove_spectral_norm")


def test_hooks_of_gradients_change_no_function():
    for kind in ("backward_hook", "full_backward_hook", "full_backward_pre_hook"):
        model = nn.Sequential(nn.Sequential(nn.Linear(5, 4)), nn.ReLU())
        for module in (model, model[0], model[0][0]):
            getattr(module, f"register_{kind}")(lambda module, *gradients: None)
        model[0][0].weight.register_hook(lambda gradient: 2 * gradient)
        same(model)


# Importing PyTorch's compiler takes seconds.
@pytest.mark.slow
def test_compiled_modules_are_refused():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(ValueError, match=r"model, an OptimizedModule, .* _orig_mod"):
        from_torch(torch.compile(model))
    with pytest.raises(ValueError, match=r"1, an OptimizedModule, .* _orig_mod"):
        from_torch(nn.Sequential(nn.Linear(5, 5), torch.compile(model)))
    # In place, it changes nothing of the module.
    model.compile()
    same(model)


def test_scripted_modules_are_refused():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(ValueError, match="model, a RecursiveScriptModule, is a ScriptModule"):
        from_torch(torch.jit.script(model))
    with pytest.raises(ValueError, match=r"0, a .*, is a ScriptModule"):
        from_torch(nn.Sequential(torch.jit.trace(model, torch.ones(1, 5))))


def test_modules_without_values_are_refused():
    refuses_message = "0, a LazyLinear, has no weight before it is first called"
    with pytest.raises(ValueError, match=refuses_message):
        from_torch(nn.Sequential(nn.LazyLinear(3)))
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(5, 4))
    with pytest.raises(ValueError, match="weight on the device 'meta'"):
        from_torch(model)
    lazy = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    lazy(torch.ones(1, 5))
    same(lazy)


class Counting(nn.Module):
    """Keeps something at every call."""

    def __init__(self, keep):
        super().__init__()
        self.inner, self.keep = nn.Linear(5, 5), keep
        self.register_buffer("count", torch.zeros(()))
        self.kept = None

    def forward(self, x):
        y = self.inner(x)
        self.keep(self, y)
        return y


def count(module, y):
    module.count += 1


def replace(module, y):
    module.count = module.count + 1


def keep(module, y):
    module.kept = y


def test_what_a_forward_keeps_is_kept_in_a_copy():
    refuses(Counting(count), "model changes its count")
    refuses(Counting(replace), "model changes its count")
    model = Counting(keep)
    same(model)
    assert model.kept is None
    model(torch.ones(1, 5))
    kept = model.kept
    from_torch(model)
    assert model.kept is kept


def test_errors_leave_the_module_as_it_is():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = parametrizations.spectral_norm(nn.Linear(5, 5))
            self.drop = nn.Dropout().eval()

        def forward(self, x):
            y = self.drop(self.inner(x))
            return y.cumsum(0) if y.shape[0] > 1 else y

    refuses(Failing().train(), r"torch\.fx cannot trace")
    refuses(nn.Sequential(nn.Linear(5, 5), nn.Mish()).train(), "this Mish")


def test_a_model_that_cannot_be_copied_is_refused():
    class Locked(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle '_thread.lock' object")

    refuses(nn.Sequential(Locked(5, 4)), r"model cannot be copied \(TypeError: cannot pickle")

    # As one keeps a teacher from being copied with the student.
    class Shared(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    class SharedWeight(nn.Linear):
        def __deepcopy__(self, memo):
            copy = SharedWeight(self.in_features, self.out_features)
            copy.weight = self.weight
            return copy

    refuses(nn.Sequential(Shared(5, 4)), "shares '0' with model")
    refuses(nn.Sequential(SharedWeight(5, 4)), "shares '0.weight' with model")
    refuses(Shared(5, 4), "shares 'model' with model")


def test_under_autocast_and_inference_mode():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    with torch.autocast("cpu", torch.bfloat16):
        same_weights = from_torch(model)
    with torch.inference_mode():
        again = from_torch(model)
        made = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    x = np.ones((2, 5), np.float32)
    np.testing.assert_array_equal(same_weights(x), again(x))
    expected = made(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(from_torch(made)(x), expected, rtol=0, atol=1e-6)


class Branching(nn.Module):
    """Computes something else of what torch.fx gives it than of a tensor."""

    def __init__(self, first):
        super().__init__()
        self.first = first

    def forward(self, x):
        y = self.first(x)
        return torch.tanh(y) if isinstance(x, torch.Tensor) else torch.sigmoid(y)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 4)

    def forward(self, x):
        y = self.inner(x)
        return functional.leaky_relu(y, torch.rand(()).item())


@pytest.mark.parametrize(
    "first",
    [nn.Linear(5, 4), nn.Conv2d(3, 2, 5), nn.MultiheadAttention(4, 2, batch_first=True)],
)
def test_what_cannot_be_seen_is_found_on_a_random_input(first):
    if isinstance(first, nn.MultiheadAttention):
        attention = first

        class Attended(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = attention

            def forward(self, x):
                return self.attention(x, x, x)[0]

        first = Attended()
    refuses(
        Branching(first), r"the network converted from model has outputs that differ by .*capture"
    )


class Tokens(Branching):
    def __init__(self):
        super().__init__(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3)))


class Beside(Branching):
    """Returns more than its outputs, as blocks of transformers do."""

    def forward(self, x):
        return super().forward(x), None


def test_tokens_and_several_outputs_are_compared_too():
    refuses(Tokens(), "outputs that differ by")
    refuses(Beside(nn.Linear(5, 4)), "outputs that differ by")


class Undefined(nn.Module):
    """Computes the root of something negative, of tensors only or always."""

    def __init__(self, always):
        super().__init__()
        self.inner, self.norm = nn.Linear(5, 4), nn.LayerNorm(4, eps=-1e10)
        self.always = always
        # Not the width that other modules have under this name.
        self.num_features = torch.ones(2, 3)

    def forward(self, x):
        y = self.inner(x)
        return self.norm(y) if self.always or isinstance(x, torch.Tensor) else y


def test_outputs_that_are_not_numbers_are_compared_too():
    refuses(Undefined(always=False), "outputs that differ by inf")
    from_torch(Undefined(always=True))


class OtherBlock(nn.TransformerEncoderLayer):
    def _ff_block(self, x):
        return torch.zeros_like(x)


def test_encoder_layers_with_other_blocks_are_refused():
    refuses(OtherBlock(4, 2, 8, batch_first=True), "this OtherBlock|cannot trace")
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    layer._sa_block = torch.tanh
    refuses(layer, "this TransformerEncoderLayer|cannot trace")


def test_random_functions_are_refused():
    refuses(Noisy(), "draws random numbers")


def test_a_class_whose_forward_was_replaced_is_refused(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: torch.tanh(x))
    refuses(nn.Sequential(nn.Linear(5, 4), nn.ReLU()), "outputs that differ by")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_networks_of_every_precision_agree(dtype):
    model = nn.Sequential(nn.Linear(5, 40), nn.ReLU(inplace=True), nn.LayerNorm(40), nn.GELU())
    from_torch(model.to(getattr(torch, dtype)))
