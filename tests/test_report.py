"""Reports: the figures are right, and the file needs nothing else and runs nothing."""

import sys
from copy import copy
from html.parser import HTMLParser

import numpy as np
import pytest
from builders import random_network

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot._utils.text import escape_control_characters
from jacrot.criteria import hoyer
from jacrot.inspection import axis_stability, null_baseline
from jacrot.layers import Conv2d, Dense, Flatten
from jacrot.provenance import fingerprint
from jacrot.report import BasisSparsity, Comparison, compare, write_report

HOSTILE = "<script>alert('x')</script>\"'&\x1b[2J\u202e"
OPTIONS = {"random_state": 0, "tol": 1e-2, "max_iter": 50}
NETWORK = random_network([6, 8, 7, 4], ["relu", "relu", "identity"])
rng = np.random.default_rng(0)
X, X_TEST = rng.normal(size=(80, 6)), rng.normal(size=(30, 6))
pytestmark = [
    pytest.mark.search,
    pytest.mark.filterwarnings("ignore:the search did not converge"),
]


class Page(HTMLParser):
    """What a browser would see of a report."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open, self.tables = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def row(self, name):
        """Find the cells of the first row that begins with a name."""
        return next(row for table in self.tables for row in table if row[0] == name)[1:]

    def assert_self_contained(self):
        for tag, attributes in self.tags:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
            for name, value in attributes.items():
                assert not name.startswith("on")
                assert name not in ("src", "href", "srcset", "action", "background") or (
                    tag == "img" and value.startswith("data:image/png;base64,")
                )
        images = [attributes for tag, attributes in self.tags if tag == "img"]
        assert all(image["alt"] for image in images)
        return images


def mean_hoyer(jacobians, P, Q):
    P = np.eye(jacobians.shape[1]) if P is None else P
    nonzero = jacobians[np.abs(jacobians).any(axis=(1, 2))]
    return hoyer(P @ nonzero @ Q.T).mean()


def principal(moment):
    values, vectors = np.linalg.eigh(moment)
    return vectors.T[np.argsort(-values)]


def normalised(jacobians):
    nonzero = jacobians[np.abs(jacobians).any(axis=(1, 2))]
    return nonzero / np.linalg.norm(nonzero, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("rotate_output", [False, True, "tied"])
@pytest.mark.parametrize("n_components", [None, 3])
def test_bases_of_a_part(rotate_output, n_components):
    part = random_network([7, 9, 7], ["relu", "tanh"], seed=1)
    A, A_test = (np.random.default_rng(seed).normal(size=(60, 7)) for seed in (0, 1))
    fitted = JacobianSparsityRotation(
        rotate_output=rotate_output, n_components=n_components, **OPTIONS
    ).fit(part, A)
    comparison = compare(fitted, A, A_test)
    J, J_test = part.jacobians(A), part.jacobians(A_test)
    unit = normalised(J)
    reading = np.einsum("iab,iac->bc", unit, unit)
    writing = np.einsum("iab,icb->ac", unit, unit)
    left, _, right = np.linalg.svd(unit.mean(axis=0))
    tied, free = rotate_output == "tied", rotate_output is True
    inputs = {
        "principal components of the activations": principal(np.cov(A.T)),
        "principal directions of the Jacobians": principal(reading + tied * writing),
        "singular vectors of the mean Jacobian": right,
        "jacrot": fitted.rotation_,
    }
    outputs = {
        "principal components of the activations": principal(np.cov(part(A).T)),
        "principal directions of the Jacobians": principal(writing),
        "singular vectors of the mean Jacobian": left.T,
        "jacrot": fitted.output_rotation_,
    }
    if tied:
        outputs = inputs
        del inputs["singular vectors of the mean Jacobian"]
    assert list(comparison.bases) == ["given basis", *inputs]
    given = comparison.bases["given basis"]
    np.testing.assert_allclose(given, [hoyer(J).mean(), hoyer(J_test).mean()], rtol=1e-6)
    for name, Q in inputs.items():
        Q = Q[:n_components]
        P = outputs[name][: n_components if tied else None] if tied or free else None
        expected = [mean_hoyer(jacobians, P, Q) for jacobians in (J, J_test)]
        np.testing.assert_allclose(comparison.bases[name], expected, rtol=1e-6, err_msg=name)
    assert comparison.bases["jacrot"].held_out == pytest.approx(fitted.score(A_test), rel=1e-12)
    others = {name: basis.held_out for name, basis in comparison.bases.items() if name != "jacrot"}
    assert comparison.sparsest_other == max(others.items(), key=lambda item: item[1])


def test_bases_in_functional_coordinates():
    part, after = NETWORK[1:2], NETWORK[2:]
    A, A_test = NETWORK[:1](X), NETWORK[:1](X_TEST)
    fitted = JacobianSparsityRotation(
        coordinates="functional", criterion="log", rotate_output=True, readout=after, **OPTIONS
    ).fit(part, A)
    comparison = compare(fitted, A, A_test, readout=after)
    J = part.jacobians(A_test)
    given = J[np.abs(J).any(axis=(1, 2))]
    assert comparison.bases["given basis"].held_out == pytest.approx(hoyer(given).mean(), rel=1e-6)
    pca = mean_hoyer(J, principal(np.cov(part(A).T)), principal(np.cov(A.T)))
    found = comparison.bases["principal components of the activations"].held_out
    assert found == pytest.approx(pca, rel=1e-6)
    assert comparison.bases["jacrot"].held_out == pytest.approx(fitted.score(A_test))
    # Whitened activations are rotated back too: it is the same function.
    assert comparison.difference < 1e-10 < comparison.largest
    assert comparison.same_predictions == len(A_test)


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("rotate_output", [False, True])
def test_bases_of_a_whole_network(functional, rotate_output):
    options = {"coordinates": "functional", "criterion": "log"} if functional else {}
    fitted = NetworkRotation(NETWORK, rotate_output=rotate_output, **options, **OPTIONS).fit(X)
    comparison = compare(fitted, X, X_TEST)
    activations, tests, pca = [X], [X_TEST], {}
    for layer in range(3):
        activations.append(NETWORK[layer : layer + 1](activations[-1]))
        tests.append(NETWORK[layer : layer + 1](tests[-1]))
    sites = range(1, 4 if rotate_output else 3)
    pca = {site: principal(np.cov(activations[site].T)) for site in sites}
    given, expected = [], []
    for layer in range(3):
        J = NETWORK[layer : layer + 1].jacobians(tests[layer])
        given.append(mean_hoyer(J, None, np.eye(J.shape[2])))
        Q, P = pca.get(layer, np.eye(J.shape[2])), pca.get(layer + 1)
        expected.append(mean_hoyer(J, P, Q))
    assert comparison.bases["given basis"].held_out == pytest.approx(np.mean(given), rel=1e-6)
    found = comparison.bases["principal components of the activations"].held_out
    assert found == pytest.approx(np.mean(expected), rel=1e-6)
    np.testing.assert_allclose([before for before, _ in comparison.layers], given, rtol=1e-6)
    ours = np.mean([after for _, after in comparison.layers])
    assert comparison.bases["jacrot"].held_out == pytest.approx(ours, rel=1e-12)
    assert ours == pytest.approx(fitted.score(X_TEST), rel=1e-12)
    assert "singular vectors of the mean Jacobian" not in comparison.bases
    assert comparison.difference < 1e-10
    assert comparison.same_predictions == len(X_TEST)


@pytest.mark.slow
def test_images_are_compared_and_drawn(tmp_path):
    weights = np.random.default_rng(0)
    network = Network(
        [
            Conv2d(weights.normal(size=(5, 4, 3, 3)), padding=1, activation="relu"),
            Flatten(),
            Dense(weights.normal(size=(3, 5 * 16)), activation="identity"),
        ]
    )
    images, others = weights.normal(size=(12, 4, 4, 4)), weights.normal(size=(5, 4, 4, 4))
    for part, readout in ((network[:1], network[1:]), (network, None)):
        fitted = JacobianSparsityRotation(**OPTIONS).fit(part, images)
        comparison = compare(fitted, images, others, readout=readout)
        assert comparison.bases["jacrot"].held_out == pytest.approx(fitted.score(others))
        assert comparison.difference < 1e-10 < comparison.largest
        assert comparison.same_predictions == 5
        path = tmp_path / "report.html"
        write_report(path, fitted, others, comparison)
        assert len(Page(path).assert_self_contained()) == 2


def test_what_components_cost_is_found_out(tmp_path):
    network = random_network([6, 8, 4], ["tanh", "identity"], seed=3)
    fitted = JacobianSparsityRotation(n_components=2, **OPTIONS).fit(network, X)
    comparison = compare(fitted, X, X_TEST)
    outputs, projected = network(X_TEST), network(X_TEST @ fitted.rotation_.T @ fitted.rotation_)
    assert comparison.difference == pytest.approx(np.abs(projected - outputs).max())
    assert comparison.largest == pytest.approx(np.abs(outputs).max())
    same = projected.argmax(axis=1) == outputs.argmax(axis=1)
    assert not same.all()
    assert comparison.same_predictions == same.sum()
    path = tmp_path / "report.html"
    write_report(path, fitted, X_TEST, comparison)
    assert "Not all axes are kept" in Page(path).words


def test_only_logits_are_predictions():
    fitted = JacobianSparsityRotation(**OPTIONS).fit(NETWORK[:2], X)
    assert compare(fitted, X, X_TEST).same_predictions is None
    assert compare(fitted, X, X_TEST, readout=NETWORK[2:]).same_predictions == len(X_TEST)
    one = random_network([6, 1], ["identity"])
    fitted = JacobianSparsityRotation(**OPTIONS).fit(one, X)
    assert compare(fitted, X, X_TEST).same_predictions is None


def test_several_blocks_are_refused():
    blocks = JacobianSparsityRotation(**OPTIONS).fit([NETWORK, NETWORK], [X, X])
    with pytest.raises(ValueError, match="2 blocks that share a basis"):
        compare(blocks, X, X_TEST)


@pytest.fixture(scope="module")
def fitted():
    return JacobianSparsityRotation(rotate_output=True, **OPTIONS).fit(NETWORK[:2], X)


@pytest.mark.slow
def test_the_report_says_what_was_found(fitted, tmp_path):
    comparison = compare(fitted, X, X_TEST, readout=NETWORK[2:])
    null = null_baseline(fitted, X, X_TEST, n_repeats=2, random_state=0)
    stability = axis_stability(fitted, X, n_starts=1, n_resamples=1, random_state=0)
    path, weights = tmp_path / "report.html", tmp_path / "weights.npz"
    weights.write_bytes(b"these are the weights")
    write_report(
        path,
        fitted,
        X_TEST,
        comparison,
        title="layers 0 to 1",
        null=null,
        stability=stability,
        files={"weights": weights},
        command="jacrot fit",
        code="import numpy\nprint(1 < 2)",
        messages=["something was odd"],
    )
    page = Page(path)
    assert len(page.assert_self_contained()) == 4
    for name, basis in comparison.bases.items():
        assert page.row(name) == [f"{basis.training:.3f}", f"{basis.held_out:.3f}"]
    assert null.verdict.partition(": ")[2].removeprefix("sparsity") in page.words
    assert page.row("this network")[1] == f"{fitted.score(X_TEST):.3f}"
    for name, mean in stability.mean.items():
        assert page.row(f"{name} axes") == [f"{mean:.2f}", f"{stability.chance[name]:.2f}"]
    assert page.row(f"weights: file {weights}") == [
        # What sha256sum prints for the bytes above.
        "1f37de1efe65eafa62eecff07876ee832138e32600cb5e50a041b51648f402e3"
    ]
    assert page.row("held out: array 30 × 6 float64") == [fingerprint(X_TEST)]
    assert page.row("fitted on: array 80 × 6 float64") == [fingerprint(X)]
    assert page.row("seed") == ["0"]
    assert page.row("tol") == ["0.01"]
    assert page.row("numpy") == [np.__version__]
    assert "something was odd" in page.words
    assert "print(1 < 2)" in page.words
    assert "The same fit, on 2 networks of each kind" in page.words
    assert f"for {comparison.same_predictions} of 30" in page.words


def test_what_is_missing_is_said(fitted, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, fitted, X_TEST, compare(fitted, X, X_TEST))
    page = Page(path)
    assert len(page.assert_self_contained()) == 2
    assert "No null baseline was fitted" in page.words
    assert "--nulls 10" in page.words
    assert "--n-init 4" in page.words
    assert "The run gave no warnings." in page.words
    assert "the largest mean Hoyer sparsity of the Jacobians" in page.words


def test_a_criterion_without_a_description_is_named(fitted, tmp_path):
    path, comparison = tmp_path / "report.html", compare(fitted, X, X_TEST)
    for criterion, goal in ((np.cosh, "a user-defined criterion"), ("new", "the criterion new")):
        other = copy(fitted)
        other.criterion = criterion
        write_report(path, other, X_TEST, comparison)
        assert f"the smallest value of {goal} on 80 inputs" in Page(path).words


def test_the_template_is_an_extra(fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    comparison = compare(fitted, X, X_TEST)
    with pytest.raises(
        ImportError, match=r"write_report needs jinja2.*pip install 'jacrot\[cli\]'"
    ):
        write_report(tmp_path / "report.html", fitted, X_TEST, comparison)
    assert list(tmp_path.iterdir()) == []


def test_a_single_axis_has_no_search_to_draw(tmp_path):
    one = Network([rng.normal(size=(4, 1))])
    x = np.abs(X[:, :1])
    fitted = JacobianSparsityRotation(rotate_output=True, **OPTIONS).fit(one, x)
    path = tmp_path / "report.html"
    write_report(path, fitted, x, compare(fitted, x, x))
    assert "nothing to search" in Page(path).words


@pytest.mark.slow
def test_whole_networks_are_drawn_layer_by_layer(tmp_path):
    deep = random_network([4] * 9, ["tanh"] * 8)
    fitted = NetworkRotation(deep, **OPTIONS).fit(X[:, :4])
    path = tmp_path / "report.html"
    comparison = compare(fitted, X[:, :4], X_TEST[:, :4])
    write_report(path, fitted, X_TEST[:, :4], comparison)
    page = Page(path)
    assert len(page.assert_self_contained()) == 6 + 1
    assert "The first 6 of 8 layers are drawn." in page.words
    for number, (given, ours) in enumerate(comparison.layers):
        assert page.row(str(number)) == [f"{given:.3f}", f"{ours:.3f}"]


@pytest.mark.slow
def test_names_from_files_are_text(fitted, tmp_path):
    path, weights = tmp_path / "report.html", tmp_path / "a<b>&\"'.npz"
    weights.write_bytes(b"")
    bases = {HOSTILE: BasisSparsity(0.1, 0.2)} | compare(fitted, X, X_TEST).bases
    odd = Comparison(bases, [], 0.0, 1.0, None, 3)
    write_report(
        path,
        fitted,
        X_TEST,
        odd,
        title=HOSTILE,
        files={HOSTILE: weights},
        command=HOSTILE,
        code=HOSTILE,
        messages=[HOSTILE],
    )
    page = Page(path)
    page.assert_self_contained()
    shown = "<script>alert('x')</script>\"'&\\x1b[2J\\u202e"
    # Title, heading, warning, basis, code, command and file.
    assert sum(shown in text for text in page.text) == 7
    content = path.read_text(encoding="utf-8")
    assert "<script" not in content.lower()
    assert "\x1b" not in content
    assert "\u202e" not in content


def test_undecodable_names_are_written_out(fitted, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, fitted, X_TEST, compare(fitted, X, X_TEST), title="a\udcffb")
    assert "a\\udcffb" in Page(path).words


@pytest.mark.slow
def test_the_report_is_written_whole_or_not_at_all(fitted, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    comparison = compare(fitted, X, X_TEST)
    path.write_text("the old one")

    def failing(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", failing)
        with pytest.raises(OSError, match="disk full"):
            write_report(path, fitted, X_TEST, comparison)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "the old one"
    write_report(path, fitted, X_TEST, comparison)
    assert path.read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_many_axes_make_a_small_file(tmp_path):
    # Pictures of more than some hundred axes have no more cells.
    network = random_network([400, 400], ["relu"])
    x = np.random.default_rng(0).normal(size=(20, 400))
    fitted = JacobianSparsityRotation(max_iter=1, random_state=0).fit(network, x)
    path = tmp_path / "report.html"
    write_report(path, fitted, x, compare(fitted, x, x))
    assert path.stat().st_size < 1e6


def test_printable():
    assert escape_control_characters("a\tb\nc\x00é日") == "a\\tb\\nc\\x00é日"


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_bases_of_activations_of_any_size(scale):
    # Their covariance, which only gives directions, is beyond all numbers.
    network = random_network([6, 5], ["tanh"])
    first = network.layers[0]
    other = Network([Dense(first.weight / scale, first.bias, "tanh")])
    fitted = JacobianSparsityRotation(**OPTIONS).fit(network, X)
    expected = compare(fitted, X, X_TEST).bases["principal components of the activations"]
    fitted = JacobianSparsityRotation(**OPTIONS).fit(other, X * scale)
    found = compare(fitted, X * scale, X_TEST * scale).bases
    assert found["principal components of the activations"] == pytest.approx(expected)
