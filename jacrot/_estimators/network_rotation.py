"""One rotation for every hidden layer of a network, found jointly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from types import NoneType
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.base import (
    NetworkEstimator,
    mean_hoyer,
    naming,
    shared,
    some_hoyer,
    with_effect,
)
from jacrot._estimators.callbacks import Task
from jacrot._estimators.inputs import are_batches, resolve_fit_inputs
from jacrot._estimators.rotation import SCORE_SEED, JacobianSparsityRotation
from jacrot._jacobians.coordinates import (
    Coordinates,
    SiteBasis,
    after,
    read_by,
    readout_moment,
    written_by,
)
from jacrot._jacobians.networks import drawn_pairs, network_jacobians
from jacrot._jacobians.stacks import Jacobians
from jacrot._search.frame import canonical_axes, drawn_for_search, scaled_for
from jacrot._search.objective import Term
from jacrot._search.problem import Problem
from jacrot._search.solver import cheapest
from jacrot._search.subspace import effective_basis, nearest_rotation, principal_directions
from jacrot._utils.arrays import Array, Matrix
from jacrot._utils.random import drawn_seed, random_source
from jacrot._utils.threads import one_blas_thread
from jacrot._utils.warnings import silenced
from jacrot.criteria._minimised import Criterion, get_criterion
from jacrot.layers import Basis, Layer
from jacrot.network import Network
from jacrot.positions import at_positions, to_rows

Rotations = dict[int, Matrix]


@dataclass(frozen=True)
class _LayerJacobians:
    """The Jacobians of one layer, without samples of no effect, and their norms."""

    stack: Jacobians
    norms: Matrix
    # E[JᵀJ] and E[JJᵀ], every sample scaled alike.
    reading: Matrix
    writing: Matrix
    # What reads its outputs, in functional coordinates.
    readout: Matrix | None


class NetworkRotation(NetworkEstimator):
    """Rotations of all hidden layers of a network that make the Jacobian of every layer sparse.

    Finds an orthogonal ``R_l`` for every site ``l`` between two layers that minimise ::

        Σ_l mean_i 1/(m_l n_l) Σ φ(R_{l+1} J_{l,i} R_lᵀ / rms(J_{l,i}))

    jointly, where ``J_{l,i}`` is the Jacobian of layer ``l`` at sample ``i``: every rotation is
    shared by the Jacobian that reads the site and the one that writes it. Inputs and logits stay
    in their own basis, ``R_0 = I`` and ``R_L = I``, unless they are to be rotated too. The result
    is never worse than the rotations of the layers one by one; in functional coordinates, where
    the search starts from the local interaction basis, it may be.

    In functional coordinates every rotated site has whitened activations ``z = R_l C_l^-½ (a −
    mean)``, and ``X_l = R_{l+1} C_{l+1}^-½ J_l C_l^½ R_lᵀ`` is the Jacobian between them. Its rows
    are weighed by how much the logits depend on them, ``u_a² = (R C^½ G C^½ Rᵀ)_aa``, and what is
    minimised is ``Σ log(1 + M_ab/ε²)`` over the connections of all layers, ``M_ab = u_a² mean_i
    X²_{i,ab}``, ``ε = 0.001 √ΣM`` at last.

    Used as ``NetworkRotation(network).fit(X)`` or ``NetworkRotation().fit(weights, X)``, where `X`
    are the inputs of the network. In a pipeline it hands on the rotated activations of the last
    site.

    Parameters
    ----------
    network : Network, array-like, sequence, mapping or callable, default=None
        The whole network, of two layers at least; see :class:`jacrot.Network`. ``None`` if it is
        given to ``fit``.
    activation : str, callable or list of them, default="relu"
        Applied after every layer of raw weights, the last one included; a list gives one per
        layer, as ``["relu", "identity"]`` where the last one computes logits.
    rotate_input, rotate_output : bool, default=False
        Whether site 0, the inputs, and site ``n_layers``, the logits, are rotated too.
    criterion : {"hoyer", "l1", "log", "logcosh", "quartimax"} or callable, default="hoyer"
        ``φ``; see :class:`jacrot.JacobianSparsityRotation`.
    coordinates : {"neurons", "functional"}, default="neurons"
        Of what ``R_l`` is a rotation: of the activations, or of the whitened activations, for which
        ``criterion="log"`` is needed. These axes are not orthogonal in the space of neurons. The
        outputs of the network are taken for logits.
    n_init : int, default=1
        Number of searches, the best of which is kept. Further ones start from random rotations.
    max_iter : int, default=5000
        Conjugate-gradient steps of a search.
    tol : float, default=1e-4
        The search stops when the mean relative decrease of the cost over five steps is below.
    on_interrupt : {"raise", "keep"}, default="raise"
        What Ctrl-C during the search does; see :class:`jacrot.JacobianSparsityRotation`.
    random_state : int, RandomState instance or None, default=None
        Draws the samples of the search and of the warm start, and the random starts.
    n_jobs : int, default=None
        Number of searches at once, as in joblib.
    verbose : int, default=0
        Whether to show progress bars on stderr, of every layer alone and of all; see
        :class:`jacrot.JacobianSparsityRotation`.

    Attributes
    ----------
    rotations_ : dict of int to ndarray of shape (n_features, n_features)
        ``R_l`` by site; site ``l`` is what layer ``l`` reads. Rows are the new axes, by falling
        effect on that layer (of the logits: by how much they are moved).
    means_, whitenings_ : dict of int to ndarray, or None
        In functional coordinates the mean of the activations at a site, and ``C^-½``.
    network_ : Network
        The network analysed.
    sparsities_, sparsities_before_ : ndarray of shape (n_layers,)
        Mean Hoyer sparsity of every layer's Jacobian, rotated and in the given basis, over the
        training samples.
    sparsity_, sparsity_before_ : float
        Their means over the layers.
    n_iter_ : int
        Conjugate-gradient steps of the search that was kept; those of the layers one by one, where
        Ctrl-C came before it.
    history_ : dict of ndarray
        What that search visited; see :class:`jacrot.JacobianSparsityRotation`.
    stages_ : list of str
        The names of its stages.
    converged_ : bool
        Whether the search ended by itself, not by `max_iter`, Ctrl-C or a callback.
    provenance_ : dict
        Where the result comes from; see :class:`jacrot.JacobianSparsityRotation`.
    n_features_in_ : int
        Number of inputs of the network.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` has names that are strings.

    Notes
    -----
    ``transform`` and ``score`` warn where `X` lies far outside the inputs that were fitted; see
    :class:`jacrot.JacobianSparsityRotation`.

    References
    ----------
    P.-A. Absil, R. Mahony and R. Sepulchre, "Optimization Algorithms on Matrix Manifolds",
    Princeton (2008), section 8.3 (conjugate gradient).

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import NetworkRotation
    >>> from jacrot.datasets import load_digits_mlp
    >>> digits = load_digits_mlp()
    >>> model = NetworkRotation(digits.network, tol=1e-2, random_state=0).fit(digits.X[:200])
    >>> [(site, R.shape) for site, R in model.rotations_.items()]
    [(1, (64, 64)), (2, (64, 64))]
    >>> bool(model.score(digits.X_test) > model.sparsity_before_ + 0.1)
    True
    >>> np.allclose(model.rotated_network()(digits.X), digits.network(digits.X), atol=1e-5)
    True
    """

    network_: Network
    rotations_: Rotations
    _saved: ClassVar[dict[str, Any]] = {
        "rotations_": dict,
        "network_": Network,
        "sparsities_": np.ndarray,
        "sparsities_before_": np.ndarray,
        "means_": (dict, NoneType),
        "whitenings_": (dict, NoneType),
        "_coordinates": dict,
        **NetworkEstimator._saved,
    }
    _fitted = (
        "inputs",
        "are these activations of a hidden layer? pass inputs of the network, in the same units.",
    )

    # `site` says where to look, and is no metadata of the samples.
    __metadata_request__transform: ClassVar[dict[str, Any]] = {"site": UNUSED}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **NetworkEstimator._parameter_constraints,
        "rotate_input": ["boolean"],
        "rotate_output": ["boolean"],
        "coordinates": [StrOptions({"neurons", "functional"})],
    }

    def __init__(
        self,
        network: Any = None,
        *,
        activation: Any = "relu",
        rotate_input: bool = False,
        rotate_output: bool = False,
        criterion: str | Callable[[Array], Array] = "hoyer",
        coordinates: Literal["neurons", "functional"] = "neurons",
        n_init: int = 1,
        max_iter: int = 5000,
        tol: float = 1e-4,
        on_interrupt: Literal["raise", "keep"] = "raise",
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.activation = activation
        self.rotate_input = rotate_input
        self.rotate_output = rotate_output
        self.criterion = criterion
        self.coordinates = coordinates
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.on_interrupt = on_interrupt
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the rotations: ``fit(X)``, or ``fit(weights, X)`` without a network yet.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The inputs of the network; sequences or images for layers that read them. In the form
            ``fit(weights, X)`` the weights stand here.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored if the network was given to the constructor. In the form ``fit(weights, X)``
            the inputs stand here.

        Returns
        -------
        NetworkRotation
            The fitted estimator.

        Raises
        ------
        TypeError
            If the weights are an object of another kind.
        ValueError
            If there is no network or there are two, if it has no hidden layer or does not read
            `X`, or if the Jacobians of a layer are all zero, or some are NaN or infinite.
        """
        return self._fit_or_leave(X, y)

    def _set_attributes(self, X: Any, y: Any) -> None:
        weights, X = resolve_fit_inputs(type(self).__name__, self.network, X, y)
        if are_batches(X):
            raise ValueError(
                f"X is a list of {len(X)} arrays; pass the inputs of one network, or "
                "JacobianSparsityRotation for blocks that share a basis."
            )
        criterion = get_criterion(self.criterion)
        seed = drawn_seed(self.random_state)
        rng = random_source(seed)
        task = Task.of_fit(self, X, None)
        X = self._activations(X, reset=True)
        network = self._network(weights, X)
        if network.n_layers < 2:
            raise ValueError(
                f"the network has {network.n_layers} layer and no hidden activations; pass one of "
                "two layers at least, or use JacobianSparsityRotation."
            )
        last = network.n_layers
        sites = [*range(0 if self.rotate_input else 1, last + 1 if self.rotate_output else last)]
        functional = self.coordinates == "functional"
        if functional and self.criterion != "log":
            raise ValueError(
                f"criterion={self.criterion!r} is not defined in functional coordinates, where the "
                "weights of the outputs turn with the axes; pass criterion='log'."
            )
        parts = _parts(network, X, rng)
        with one_blas_thread():
            self._coordinates = _coordinates(parts, sites) if functional else {}
            layers = [
                _layer_jacobians(part, site, self._coordinates, network if functional else None)
                for site, part in enumerate(parts)
            ]
            bases = {site: effective_basis(_moment(layers, site)) for site in sites}
            problem = _problem(layers, sites, bases, criterion, rng)
        identity = {site: np.eye(len(_moment(layers, site))) for site in sites}
        # What every layer reads, rotated for that layer alone; the logits stay as they are.
        one_by_one = dict(identity)
        interrupted, n_steps = False, 0
        for site in sites:
            if site < last and not interrupted:
                alone = self._alone(network, site, parts[site].X, rng, task)
                one_by_one[site] = alone.rotation_
                interrupted, n_steps = alone._interrupted, n_steps + alone.n_iter_
        given, start = (
            [nearest_rotation(axes[site], bases[site]) for site in sites]
            for axes in (identity, one_by_one)
        )

        def attributes(point: list[Matrix]) -> dict[str, Any]:
            rotations = {}
            for site, matrix in zip(sites, point, strict=True):
                order = layers[site].reading if site < last else layers[site - 1].writing
                rotations[site] = canonical_axes(matrix, bases[site], order, len(order))
            return {"network_": network, "rotations_": rotations}

        def sparsity(point: list[Matrix]) -> float:
            found = attributes(point)["rotations_"]
            return float(
                np.mean(
                    [
                        some_hoyer(layer.stack, found.get(site + 1), found.get(site))
                        for site, layer in enumerate(layers)
                    ]
                )
            )

        with one_blas_thread():
            if interrupted:
                solution = cheapest(problem, given, start, n_steps)
            else:
                interaction = _interaction(layers, sites, bases) if functional else None
                solution = self._search(
                    problem, (given, start), interaction, rng, task, attributes, sparsity
                )

        self.__dict__.update(attributes(solution.point))
        self.means_ = self.whitenings_ = None
        if functional:
            self.means_ = {site: part.mean for site, part in self._coordinates.items()}
            self.whitenings_ = {site: part.forward for site, part in self._coordinates.items()}
        plain = layers
        if functional:
            plain = [_layer_jacobians(part, site, {}, None) for site, part in enumerate(parts)]
        self.sparsities_before_ = _sparsities(plain, {})
        self.sparsities_ = _sparsities(layers, self.rotations_)
        self.sparsity_before_ = float(self.sparsities_before_.mean())
        self.sparsity_ = float(self.sparsities_.mean())
        self._report(solution, seed, [X], network)
        task.end(attributes=lambda: attributes(solution.point))

    def transform(self, X: ArrayLike, site: int | None = None) -> Array:
        """Compute the rotated activations at a site.

        ``Z = A_l R_lᵀ``, or ``(A_l − mean) C_l^-½ R_lᵀ`` in functional coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network.
        site : int, default=None
            What layer `site` reads; ``n_layers`` is what the network writes. ``None`` is the last
            site that was rotated: the last hidden activations, or the logits with
            ``rotate_output=True``.

        Returns
        -------
        ndarray of shape (n_samples, n_activations)
            Activations in the new basis; sequences or images where the network has them there.

        Raises
        ------
        ValueError
            If no rotation was found for the site, or if ``set_output`` asks for a table, whose
            columns are the axes of the last site, and the site has others.
        """
        check_is_fitted(self)
        site = self._last_site if site is None else site
        if not isinstance(site, Integral) or isinstance(site, bool) or site not in self.rotations_:
            raise ValueError(f"site={site!r} was not rotated; pass one of {list(self.rotations_)}.")
        x = self._activations(X, reset=False)
        activations = x if site == 0 else self.network_[:site](x)
        encoder = self._site_basis(site).encoder.astype(activations.dtype, copy=False)
        mean = self._coordinates[site].mean if site in self._coordinates else 0
        Z = at_positions(lambda rows: (rows - mean) @ encoder.T, activations)
        table = _get_output_config("transform", self)["dense"] != "default"
        if table and Z.shape[1:] != (self._n_features_out,):
            raise ValueError(
                f"set_output asks for a table with the {self._n_features_out} axes of site "
                f"{self._last_site}, but the activations at site={site!r} have shape {Z.shape}; "
                "use set_output(transform='default')."
            )
        return Z.astype(activations.dtype, copy=False)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean over the layers of the Hoyer sparsity of the rotated Jacobians.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network: held-out ones are what counts.
        y : Ignored
            Not used; scikit-learn's interface.

        Returns
        -------
        float
            Between 0 and 1. Samples whose Jacobian is zero are left out, with a warning.
        """
        check_is_fitted(self)
        return float(_sparsities(self._layers(X), self.rotations_).mean())

    def rotated_network(self) -> Network:
        """Make the same network with all rotations folded in.

        Returns
        -------
        Network
            ``rotated_network()(X)`` is ``network_(X)``, with the logits in the new basis if they
            were rotated. If the inputs were, a first layer rotates them.
        """
        check_is_fitted(self)
        last = self.network_.n_layers
        if self._coordinates:
            return self._functional_network()
        inner = {site: Q for site, Q in self.rotations_.items() if site < last}
        network = self.network_.rotated(inner)
        return network.rotate_outputs(self.rotations_[last]) if last in self.rotations_ else network

    @property
    def _last_site(self) -> int:
        return max(self.rotations_)

    @property
    def _n_features_out(self) -> int:
        return len(self.rotations_[self._last_site])

    def _layers(self, X: ArrayLike) -> list[_LayerJacobians]:
        """Make the Jacobians of every layer, those that are rotated."""
        x = self._activations(X, reset=False)
        parts = _parts(self.network_, x, np.random.RandomState(SCORE_SEED))
        with one_blas_thread():
            return [
                _layer_jacobians(part, site, self._coordinates, None)
                for site, part in enumerate(parts)
            ]

    def _alone(
        self, network: Network, site: int, X: Array, rng: np.random.RandomState, task: Task
    ) -> JacobianSparsityRotation:
        """Rotate what one layer reads, with its outputs in the given basis."""
        functional = self.coordinates == "functional"
        rotation = JacobianSparsityRotation(
            criterion=self.criterion,
            coordinates=self.coordinates,
            readout=after(network, site + 1) if functional else None,
            max_iter=self.max_iter,
            tol=self.tol,
            on_interrupt=self.on_interrupt,
            random_state=rng,
            verbose=self.verbose,
        )
        rotation._bar_label = f"site {site} alone"
        # What there is to warn of is said of the whole.
        with task.handed_to(rotation, f"site {site} alone"), silenced():
            rotation.fit(network[site : site + 1], X)
        return rotation

    def _site_basis(self, site: int) -> SiteBasis:
        """Give the basis of a site, the identity where it was not rotated."""
        if site not in self.rotations_:
            network = self.network_
            X = np.zeros((1, self.n_features_in_))
            return SiteBasis.of(None, None, (network[:site](X) if site else X).shape[1])
        rotation = self.rotations_[site]
        return SiteBasis.of(rotation, self._coordinates.get(site), len(rotation))

    def _functional_network(self) -> Network:
        layers = list(self.network_.layers)
        inputs: list[Layer] = []
        for site in sorted(self.rotations_):
            basis, mean = self._site_basis(site), self._coordinates[site].mean
            if site == 0:
                inputs = [Basis(basis.encoder, -basis.encoder @ mean)]
            else:
                layers[site - 1] = written_by(layers[site - 1], basis.encoder, mean)
            if site < len(layers):
                layers[site] = read_by(layers[site], basis.decoder, mean)
        sites = (site + len(inputs) for site in self.rotations_)
        return Network._with_rotated_sites([*inputs, *layers], sites)


class _Part(NamedTuple):
    """A layer as a network, what it reads, and which samples of that are taken."""

    layer: Network
    X: Array
    pairs: Any


def _parts(network: Network, X: Array, rng: np.random.RandomState) -> list[_Part]:
    """List all layers."""
    parts = []
    for site in range(network.n_layers):
        layer = network[site : site + 1]
        parts.append(_Part(layer, X, drawn_pairs(layer, X, rng)))
        X = layer(X)
    return parts


def _coordinates(parts: list[_Part], sites: list[int]) -> dict[int, Coordinates]:
    """Whiten what is read and written at the sites to rotate."""
    # E[JᵀJ] and E[JJᵀ] of every layer, every sample and every layer counting alike.
    moments = []
    for number, part in enumerate(parts):
        with naming(f"layer {number}"), silenced():
            stack, _, norms = with_effect(network_jacobians(*part))
        moments.append(stack.scaled(1 / norms).moments())
    coordinates = {}
    for site in sites:
        with naming(f"site {site}"):
            if site == len(parts):
                coordinates[site] = Coordinates.whitening(parts[-1].layer(parts[-1].X))
                continue
            effects, _ = moments[site]
            if site > 0:
                # What the layer before writes counts too, where the next does not read it.
                effects = effects + moments[site - 1][1]
            coordinates[site] = Coordinates.whitening(parts[site].X, effective_basis(effects))
    return coordinates


def _layer_jacobians(
    part: _Part, site: int, coordinates: dict[int, Coordinates], network: Network | None
) -> _LayerJacobians:
    """Make the Jacobians of a layer in the coordinates of its two sides."""
    stack = network_jacobians(*part)
    inner, outer = coordinates.get(site), coordinates.get(site + 1)
    readout = None
    if coordinates:
        # Inputs in their own basis count by how much they vary.
        spread = np.diag(to_rows(part.X).std(axis=0)) if inner is None else inner.metric
        stack = stack.transformed(None if outer is None else outer.forward, spread)
    if outer is not None and network is not None:
        outputs = part.layer(part.X)
        moment = readout_moment(after(network, site + 1), outputs)
        readout = outer.metric @ moment @ outer.metric
    with naming(f"layer {site}"):
        stack, _, norms = with_effect(stack)
    with shared(stack) as apply:
        reading, writing = stack.scaled(1 / norms).moments(apply=apply)
    return _LayerJacobians(stack, norms, reading, writing, readout)


def _moment(layers: list[_LayerJacobians], site: int) -> Matrix:
    """Sum what the layer before a site moves and what the layer after it reads."""
    moments = []
    if site > 0:
        moments.append(layers[site - 1].writing)
    if site < len(layers):
        moments.append(layers[site].reading)
    return np.asarray(sum(moments))


def _interaction(
    layers: list[_LayerJacobians], sites: list[int], bases: dict[int, Matrix | None]
) -> list[Matrix]:
    """Make the axes of the local interaction basis: what the logits depend on most comes first."""
    point = []
    for site in sites:
        readout = layers[max(site - 1, 0)].readout
        assert readout is not None
        moment = readout
        if site == 0:
            metric = Coordinates.weighing(readout).metric
            moment, _ = layers[0].stack.transformed(metric, None).moments()
        directions, _ = principal_directions(moment)
        point.append(nearest_rotation(directions, bases[site]))
    return point


def _problem(
    layers: list[_LayerJacobians],
    sites: list[int],
    bases: dict[int, Matrix | None],
    criterion: Criterion,
    rng: np.random.RandomState,
) -> Problem:
    """Make a term of every layer, whose rotations are those of the sites at its two ends."""
    index = {site: number for number, site in enumerate(sites)}
    terms = []
    if criterion.of_table:
        layers = _in_one_unit(layers)
    for number, layer in enumerate(layers):
        output, input_ = index.get(number + 1), index.get(number)
        _, n_outputs, n_inputs = layer.stack.shape
        size = 1
        for site, n_features in ((number + 1, n_outputs), (number, n_inputs)):
            basis = bases.get(site)
            size *= n_features if basis is None else len(basis)
        scaled = layer.stack
        if not criterion.of_table:
            scaled = scaled_for(criterion, layer.stack, layer.norms, size)
        terms.append(Term(drawn_for_search(scaled, rng), output, input_, layer.readout))
    return Problem(tuple(terms), criterion, tuple(bases.values()))


def _in_one_unit(layers: list[_LayerJacobians]) -> list[_LayerJacobians]:
    """Scale all layers so that their connections count in one unit, which is about 1."""
    # Of the stack, and of what reads it.
    sizes = [
        (layer.norms.max(), 1.0 if layer.readout is None else np.sqrt(np.trace(layer.readout)))
        for layer in layers
    ]
    unit = max(size * weight for size, weight in sizes)
    scaled = []
    for (size, weight), layer in zip(sizes, layers, strict=True):
        factor, readout = 1 / unit, None
        if layer.readout is not None:
            factor, readout = 1 / size, (size * weight / unit) ** 2 * (layer.readout / weight**2)
        stack = layer.stack.scaled(np.full(len(layer.norms), factor))
        scaled.append(replace(layer, stack=stack, readout=readout))
    return scaled


def _sparsities(layers: list[_LayerJacobians], rotations: Rotations) -> Matrix:
    """Compute the mean Hoyer sparsity of every layer between its two rotations."""
    return np.array(
        [
            mean_hoyer(layer.stack, layer.norms, rotations.get(site + 1), rotations.get(site))
            for site, layer in enumerate(layers)
        ]
    )
