"""What cannot be captured is refused with a reason; the model is as it was, and says where from."""

import contextlib
import importlib
import pickle

import numpy as np
import pytest
from builders import framework
from test_capture_models import CASES, Net, draw, linear, state_of

from jacrot import JacobianSparsityRotation
from jacrot.provenance import fingerprint
from jacrot.readers import Captured, capture

torch = framework("torch")
nn, F = torch.nn, torch.nn.functional
ERRORS = importlib.import_module("jacrot.readers._capture_errors")


@pytest.fixture(autouse=True)
def _random_numbers_of_its_own():
    """Seed what PyTorch's modules draw their weights from, for one test."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def two(between=torch.tanh, n_in=3):
    """Two linear modules, and a function between them."""
    return Net(lambda self, x: self.last(between(self.first(x))), first=linear(n_in, 6),
               last=linear(6, 4, 1))  # fmt: skip


# Random models, and inputs that influence each other.


def outlier(h, size):
    return h + torch.tensor([size, 0, 0, 0, 0, 0], dtype=h.dtype)


INFLUENCES = {
    "mean": lambda h: h - 0.5 * h.mean(0),
    "small mean": lambda h: h - 1e-6 * h.mean(0),
    "mean without its gradient": lambda h: h - 0.5 * h.mean(0).detach(),
    "largest": lambda h: h * (h == h.amax(0)),
    "neighbour": lambda h: h + h.roll(1, 0),
    "rank": lambda h: h + 0.3 * h[:, 0].argsort().argsort()[:, None].to(h.dtype),
}


@pytest.mark.parametrize("large", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", INFLUENCES)
def test_inputs_that_influence_each_other(kind, dtype, large):
    model = two(lambda h: outlier(torch.tanh(INFLUENCES[kind](h)), large)).to(dtype)
    with pytest.raises(ValueError, match="influence each other"):
        capture(model, draw(8, 3).to(dtype), "first", "last")


def test_an_influence_on_derivatives_alone():
    # In half precision the outputs of 1e4 show nothing of what their derivatives depend on.
    for shift in (lambda h: h.mean(0), lambda h: torch.randn_like(h)):
        model = two(lambda h, shift=shift: outlier(torch.tanh(h - shift(h)), 1e4)).half()
        with pytest.raises(ValueError, match=r"influence each other|the model is random"):
            capture(model, draw(8, 3).half(), "first", "last")


@pytest.mark.parametrize("large", [0.0, 1e4])
@pytest.mark.parametrize("n_inputs", [1, 8])
def test_random_models(n_inputs, large):
    noises = {
        "normal": lambda h: h + torch.randn_like(h),
        "small": lambda h: h + 1e-3 * torch.randn_like(h),
        "dropout": F.dropout,
        "NumPy": lambda h: h * np.random.default_rng().random(),
        "binary": lambda h: h * torch.bernoulli(torch.full_like(h, 0.5)),
    }
    for noise in noises.values():
        model = two(lambda h, noise=noise: outlier(torch.tanh(noise(h)), large))
        with pytest.raises(ValueError, match="the model is random"):
            capture(model, draw(n_inputs, 3), "first", "last")


def test_random_numbers_that_change_nothing_are_allowed():
    captured = capture(two(lambda h: h + 0 * torch.rand_like(h)), draw(5, 3), "first", "last")
    assert captured.source["computed"] == "reverse"


@pytest.mark.parametrize(
    "between", [lambda h: h / len(h), lambda h: h + torch.arange(len(h))[:, None]]
)
def test_number_and_order_of_the_inputs_do_not_matter(between):
    with pytest.raises(ValueError, match="depends on the number or the order of its inputs"):
        capture(two(between), draw(5, 3), "first", "last")


def test_batch_norm_of_the_batch_is_named():
    line = nn.Sequential(linear(3, 6), nn.BatchNorm1d(6, track_running_stats=False))
    image = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, track_running_stats=False))
    for model, inputs in ((line, draw(8, 3)), (image, draw(4, 2, 5, 5))):
        with pytest.raises(ValueError, match=r"BatchNorm.d '1' has no running statistics"):
            capture(model, inputs, "0", "1")


@pytest.mark.parametrize("large", [0, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_activations_and_half_precision_are_no_false_alarm(dtype, large):
    # Without a kink, which rounding may pass.
    options = {"activation": "gelu", "batch_first": True, "norm_first": True}
    layers = [nn.TransformerEncoderLayer(8, 2, 16, **options) for _ in range(3)]

    def forward(self, x):
        x = F.pad(self.embed(x)[..., :7] * 3, (0, 1), value=large)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    model = Net(forward, embed=linear(3, 8), layers=nn.ModuleList(layers), norm=nn.LayerNorm(8))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 4)
    captured = capture(model.to(dtype), draw(9, 6, 3).to(dtype), "layers.0", "layers.1.linear2")
    assert captured.jacobians.any()


# Models and places.


def test_models_that_are_not_modules_of_python():
    plain = nn.Sequential(linear(3, 6), linear(6, 4))
    inputs = draw(8, 3)
    program = torch.export.export(plain, (inputs,))
    half = nn.Sequential(linear(3, 6), torch.jit.script(nn.Sequential(linear(6, 4))))
    lazy = nn.Sequential(linear(3, 6), nn.LazyLinear(4))
    meta = nn.Sequential(linear(3, 6), nn.Linear(6, 4, device="meta"))
    for model, error, message in (
        (torch.jit.script(plain), TypeError, "TorchScript.*pass the Python module"),
        (torch.jit.trace(plain, inputs), TypeError, "TorchScript.*pass the Python module"),
        (program, TypeError, "torch.export.*pass the Python module"),
        (program.module(), TypeError, "torch.export.*pass the Python module"),
        (half, ValueError, "write='1' is in the TorchScript module '1'.*pass a place outside"),
        (lazy, ValueError, "1.weight of the model has no shape yet"),
        (meta, ValueError, "1.weight of the model is on the meta device"),
        (plain.state_dict(), TypeError, r"model is a OrderedDict; pass a torch\.nn\.Module"),
    ):
        before = state_of(model) if isinstance(model, nn.Module) and model is half else None
        with pytest.raises(error, match=message):
            capture(model, inputs, "0", "1")
        assert before is None or state_of(model) == before
    with pytest.raises(ValueError, match=r"write='1.0' is in the TorchScript module '1'"):
        capture(half, inputs, "0", "1.0")


def test_exported_module_inside_for_a_fixed_number_of_inputs():
    inner = torch.export.export(linear(6, 4), (draw(8, 6),)).module()
    model = nn.Sequential(linear(3, 6), inner, nn.Tanh())
    with pytest.raises(ValueError, match="runs on a batch but not on one of its inputs alone"):
        capture(model, draw(8, 3), "0", "2")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_modules_have_no_derivative():
    model = Net(lambda self, x: (lambda h: self.last(h + self.middle(h)))(self.first(x)),
                first=nn.Tanh(), middle=linear(3, 3), last=nn.Tanh())  # fmt: skip
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    before = state_of(model)
    with pytest.raises(ValueError, match=r"the quantized module 'middle' .* has no derivative"):
        capture(model, draw(8, 3), "first", "last")
    assert state_of(model) == before
    # Before the two places it does not matter, but that its range is that of the batch.
    assert capture(model, draw(1, 3), "last:input", "last").X.shape == (1, 3)
    with pytest.raises(ValueError, match="influence each other"):
        capture(model, draw(8, 3), "last:input", "last")


def test_results_that_are_not_the_first_tensor():
    model = Net(lambda self, x: self.head(self.lstm(x)[1][0][0]),
                lstm=nn.LSTM(3, 6, batch_first=True), head=linear(6, 4))  # fmt: skip
    with pytest.raises(ValueError, match=r"tensor 2 of the 3 that LSTM returns.*the input of the"):
        capture(model, draw(5, 4, 3), "lstm", "head")
    attention = Net(lambda self, x: self.head(self.mha(x, x, x)[1]),
                    mha=nn.MultiheadAttention(4, 2, batch_first=True),
                    head=linear(3, 2))  # fmt: skip
    with pytest.raises(ValueError, match="tensor 2 of the 2 that MultiheadAttention returns"):
        capture(attention, draw(5, 3, 4), "mha", "head", positions="all")
    both = Net(lambda self, x: (lambda out, state: self.head(out[:, -1] + state[0]))(*self.gru(x)),
               gru=nn.GRU(3, 6, batch_first=True), head=linear(6, 4))  # fmt: skip
    held = pytest.warns(UserWarning, match="and also on tensor 2 of 2, which is held constant")
    with held, pytest.warns(UserWarning, match="one input after the other"):
        capture(both, draw(5, 4, 3), "gru", "head")


def test_places_that_no_derivative_reaches():
    def forward(self, x):
        with torch.no_grad():
            x = self.first(x)
        return self.last(x)

    frozen = Net(forward, first=linear(3, 6), last=linear(6, 4))
    with pytest.raises(ValueError, match=r"read='first' runs under torch.no_grad"):
        capture(frozen, draw(5, 3), "first", "last")
    with pytest.raises(ValueError, match=r"PyTorch cannot differentiate .*out=.*; pass places"):
        capture(two(lambda h: torch.mul(h, 2, out=h)), draw(5, 3), "first", "last")


def test_a_change_in_place_under_another_name():
    def forward(self, x):
        h = self.first(x)
        same = self.through(h)
        h += 1
        return self.last(torch.tanh(same))

    model = Net(forward, first=linear(3, 6), through=nn.Identity(), last=linear(6, 4))
    with pytest.raises(ValueError, match="in place under another name"):
        capture(model, draw(5, 3), "through", "last")


class Bounded(nn.Linear):
    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, maxnorm=0.5)
        return super().forward(x)


class Clamped(nn.Linear):
    def forward(self, x):
        self.bias.data.clamp_(max=0.1)
        return super().forward(x)


@pytest.mark.parametrize(("kind", "name"), [(Bounded, "weight"), (Clamped, "bias")])
def test_models_that_change_their_weights_when_called(kind, name):
    model = nn.Sequential(linear(3, 6), nn.Tanh(), kind(6, 4))
    with torch.no_grad():
        model[2].bias += 1
    before = state_of(model)
    with pytest.raises(ValueError, match=rf"changes its own weights .*\(2\.{name}\)"):
        capture(model, draw(5, 3), "0", "2")
    assert state_of(model) == before


# Errors, and the state afterwards.


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("call", [1, 2, 4, 9, 11, 13])
@pytest.mark.parametrize(
    "name", ["state_that_every_run_changes", "residual_network_with_activations_in_place",
             "weights_made_in_inference_mode", "gradients_everywhere"],
)  # fmt: skip
def test_the_model_is_as_it_was_after_an_interrupt(name, call):
    made = CASES[name]()
    calls = []

    def stop(module, args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt

    made.model.register_forward_pre_hook(stop)
    before = state_of(made.model)
    expectation = pytest.raises(KeyboardInterrupt)
    with expectation if call < 12 else contextlib.suppress(KeyboardInterrupt):
        capture(made.model, made.inputs, made.read, made.write, positions=made.positions)
    assert state_of(made.model) == before
    assert torch.backends.mha.get_fastpath_enabled()


def fails_when_vectorized(error):
    def between(h):
        if torch._C._functorch.is_functorch_wrapped_tensor(h):
            raise error
        return torch.tanh(h)

    return between


def test_only_what_pytorch_refuses_is_tried_in_another_way():
    inputs = draw(5, 3)
    with pytest.warns(
        UserWarning, match=r"do not support the model \(Batching rule\): .* one input after"
    ):
        slow = capture(
            two(fails_when_vectorized(RuntimeError("Batching rule"))), inputs, "first", "last"
        )
    np.testing.assert_allclose(slow.jacobians, capture(two(), inputs, "first", "last").jacobians,
                               atol=1e-6)  # fmt: skip
    for error in (torch.OutOfMemoryError("CUDA out of memory"), KeyError("mine"), MemoryError()):
        with pytest.raises(type(error)) as raised:
            capture(two(fails_when_vectorized(error)), inputs, "first", "last")
        assert raised.value is error


def test_an_error_of_the_model_is_shown_as_it_is():
    error = RuntimeError("mine")

    def between(h):
        # An input that is not among the first.
        if len(h) == 1 and torch._C._functorch.is_functorch_wrapped_tensor(h):
            raise RuntimeError("what vmap refuses")
        if (h == marked).all(1).any():
            raise error
        return torch.tanh(h)

    model, inputs = two(between), draw(5, 3)
    marked = model.first(inputs[3:4]).detach()
    for given in (inputs, inputs[3:]):
        with pytest.raises(RuntimeError) as raised:
            capture(model, given, "first", "last")
        assert raised.value is error


def test_wrong_rules_of_vmap_are_found():
    class Twice(torch.autograd.Function):
        generate_vmap_rule = False

        @staticmethod
        def forward(x):
            return torch.tanh(x)

        @staticmethod
        def setup_context(context, inputs, output):
            context.save_for_backward(output)

        @staticmethod
        def backward(context, gradient):
            (y,) = context.saved_tensors
            return gradient * (1 - y**2)

        @staticmethod
        def vmap(info, in_dims, x):
            return 2 * torch.tanh(x), in_dims[0]

    inputs = draw(5, 3)
    with pytest.warns(UserWarning, match="differ from those of ordinary autograd"):
        captured = capture(two(Twice.apply), inputs, "first", "last")
    right = capture(two(), inputs, "first", "last")
    np.testing.assert_allclose(captured.jacobians, right.jacobians, atol=1e-6)


def test_results_that_do_not_fit_memory(monkeypatch):
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))
    each = 4 * 6 * 4
    monkeypatch.setattr(ERRORS, "available_memory", lambda: 10 * each)
    inputs = draw(2, 8, 3)
    with pytest.raises(MemoryError, match="max_samples=10 or fewer"):
        capture(model, inputs, "0", "2")
    assert len(capture(model, inputs, "0", "2", max_samples=10).X) == 10
    with pytest.raises(MemoryError, match="max_samples=1 or fewer, or positions='same'"):
        capture(model, inputs, "0", "2", positions="all", max_samples=3)
    monkeypatch.setattr(ERRORS, "available_memory", lambda: each - 1)
    with pytest.raises(MemoryError, match="places with fewer features"):
        capture(model, inputs, "0", "2", max_samples=1)


def test_free_memory_is_that_of_this_machine():
    free = ERRORS.available_memory()
    assert free is None or 2**20 < free < 2**50


# Where the samples come from.


@pytest.fixture
def captured():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))
    return capture(model, draw(6, 5, 3), "0", "2", max_samples=20)


def test_captured_says_what_it_is(captured):
    expected = "Captured(read='0', write='2', jacobians=(20, 4, 6), X=(20, 6), samples=20 of 30)"
    assert repr(captured) == expected
    assert "<td>20 of 30</td>" in captured._repr_html_()
    jacobians, X = captured
    assert jacobians is captured.jacobians is captured[0]
    assert X is captured.X
    bare = Captured(jacobians, X)
    assert repr(bare) == "Captured(jacobians=(20, 4, 6), X=(20, 6))"
    again = pickle.loads(pickle.dumps(captured))
    assert repr(again) == expected
    assert again.source == captured.source
    np.testing.assert_array_equal(again.samples, captured.samples)


def test_source_draws_the_same_samples_again(captured):
    source = captured.source
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))
    inputs = draw(6, 5, 3)
    again = capture(model, inputs, "0", "2", max_samples=20, random_state=source["seed"])
    assert again.source == source
    np.testing.assert_array_equal(again.jacobians, captured.jacobians)
    np.testing.assert_array_equal(again.samples, captured.samples)
    assert source["samples"] == fingerprint(captured.samples)
    hidden = model[0](inputs).detach().numpy()
    np.testing.assert_allclose(hidden[tuple(captured.samples.T)], captured.X, atol=1e-6)
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    other = capture(model, inputs, "0", "2", max_samples=20)
    changed = {key for key in source if source[key] != other.source[key]}
    assert changed == {"weights", "seed", "samples"}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_fit_knows_where_its_jacobians_come_from(captured, suffix, tmp_path):
    framework("safetensors")
    options = {"tol": 1e-2, "random_state": 0}
    for estimator in (
        JacobianSparsityRotation(**options).fit(*captured),
        JacobianSparsityRotation(**options).fit(captured),
        JacobianSparsityRotation(**options).fit(pickle.loads(pickle.dumps(captured))),
    ):
        assert estimator.provenance_["captured"] == captured.source
        path = tmp_path / f"rotation.{suffix}"
        estimator.save(path)
        loaded = JacobianSparsityRotation.load(path)
        assert loaded.provenance_["captured"] == captured.source
        path.unlink()
    # Other Jacobians, though the numbers are the same.
    copy = JacobianSparsityRotation(**options).fit(captured.jacobians.copy(), captured.X)
    assert "captured" not in copy.provenance_
    Z = JacobianSparsityRotation(**options).fit_transform(captured)
    np.testing.assert_allclose(Z, captured.X @ estimator.rotation_.T, atol=1e-5)


def test_what_was_captured_has_its_own_jacobians(captured):
    for estimator, arguments in (
        (JacobianSparsityRotation([np.eye(6)]), (captured,)),
        (JacobianSparsityRotation(), (captured, captured.X)),
    ):
        with pytest.raises(ValueError, match=r"pass JacobianSparsityRotation\(\)\.fit\(segment\)"):
            estimator.fit(*arguments)


def test_verbose_says_how_many_samples_and_how_far(capsys):
    model, inputs = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1)), draw(6, 5, 3)
    capture(model, inputs, "0", "2", max_samples=20)
    assert capsys.readouterr() == ("", "")
    capture(model, inputs, "0", "2", max_samples=20, verbose=1)
    out, err = capsys.readouterr()
    assert "capture: 20 of 30 samples, from 6 inputs of 5 positions" in out + err
    assert "20/20" in err
