"""Rotations of all hidden layers of a network, found jointly."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from types import NoneType
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.base import SCORE_SEED, NetworkEstimator
from jacrot._estimators.callbacks import Task
from jacrot._estimators.inputs import are_batches, read_network, read_segments, resolve_fit_inputs
from jacrot._estimators.joint import (
    coordinate_factors,
    interaction_start,
    joint_problem,
    read_layer,
    site_moment,
    whiten_sites,
)
from jacrot._estimators.rotation import JacobianSparsityRotation
from jacrot._jacobians.coordinates import (
    NeuronCoordinates,
    SiteBasis,
    network_after,
    rotate_network,
)
from jacrot._search.frame import canonical_axes
from jacrot._search.solver import cheapest
from jacrot._search.subspace import effective_basis, nearest_rotation
from jacrot._utils.arrays import Array, Matrix
from jacrot._utils.random import resolve_random_state, resolve_seed
from jacrot._utils.warnings import silenced
from jacrot.criteria._minimised import get_criterion
from jacrot.network import Network
from jacrot.segments import NetworkSegment, RotatedSegment
from jacrot.segments._network import network_segments

Rotations = dict[int, Matrix]


class NetworkRotation(NetworkEstimator):
    """Rotations of all hidden layers of a network that make the Jacobian of every layer sparse.

    Finds an orthogonal ``R_l`` for every site ``l`` between two layers that minimise ::

        Σ_l mean_i 1/(m_l n_l) Σ φ(R_{l+1} J_{l,i} R_lᵀ / rms(J_{l,i}))

    jointly, where ``J_{l,i}`` is the Jacobian of layer ``l`` at sample ``i``. Every rotation is
    shared by the Jacobian that reads the site and the one that writes it. Inputs and logits keep
    their basis, ``R_0 = I`` and ``R_L = I``, unless they are rotated too. The result is never worse
    than separate rotations of the layers; in functional coordinates, where the search starts from
    the local interaction basis, it may be.

    In functional coordinates, every rotated site has whitened activations ``z = R_l C_l^-½ (a −
    mean)``, and ``X_l = R_{l+1} C_{l+1}^-½ J_l C_l^½ R_lᵀ`` is the Jacobian between them. Its rows
    are weighted by how much the logits depend on them, ``u_a² = (R C^½ G C^½ Rᵀ)_aa``. The cost is
    ``Σ log(1 + M_ab/ε²)`` over the connections of all layers, where ``M_ab = u_a² mean_i
    X²_{i,ab}``, with a final ``ε = 0.001 √ΣM``.

    Use it as ``NetworkRotation(network).fit(X)`` or ``NetworkRotation().fit(weights, X)``, where
    `X` are the inputs of the network. In a pipeline, the next step receives the rotated activations
    of the last site.

    Parameters
    ----------
    network : Network, array-like, sequence, mapping or callable, default=None
        Network of at least two layers; see :class:`jacrot.Network`. ``None`` if passed to `fit`.
    activation : str, callable or list of them, default="relu"
        Activation function of every layer of raw weights, including the last; a list has one
        for each layer, such as ``["relu", "identity"]`` if the last layer computes logits.
    rotate_input, rotate_output : bool, default=False
        Whether site 0, the inputs, and site ``n_layers``, the logits, are rotated too.
    criterion : {"hoyer", "l1", "log", "logcosh", "quartimax"} or callable, default="hoyer"
        ``φ``; see :class:`jacrot.JacobianSparsityRotation`.
    coordinates : {"neurons", "functional"}, default="neurons"
        Coordinates that are rotated: the activations, or the whitened activations, which need
        ``criterion="log"`` and whose axes are not orthogonal in the space of neurons. The outputs
        of the network are then interpreted as logits.
    n_init : int, default=1
        Number of searches; the best is kept. Further searches start from random rotations.
    max_iter : int, default=5000
        Maximum number of conjugate-gradient steps of a search.
    tol : float, default=1e-4
        Mean relative decrease of the cost over five steps below which the search stops.
    on_interrupt : {"raise", "keep"}, default="raise"
        Effect of Ctrl-C during the search; see :class:`jacrot.JacobianSparsityRotation`.
    random_state : int, RandomState instance or None, default=None
        Determines the samples of the search and of the warm start, and the random starts.
    n_jobs : int, default=None
        Number of parallel searches, as in joblib.
    verbose : int, default=0
        Whether to show progress bars on stderr, for every single layer and for all layers; see
        :class:`jacrot.JacobianSparsityRotation`.

    Attributes
    ----------
    rotations_ : dict of int to ndarray of shape (n_features, n_features)
        ``R_l`` by site; site ``l`` is the input of layer ``l``. Rows are the new axes, by
        decreasing effect on that layer (for the logits, by the size of their changes).
    means_, whitenings_ : dict of int to ndarray, or None
        In functional coordinates, the mean of the activations at each site, and ``C^-½``.
    network_ : Network
        The network.
    sparsities_, sparsities_before_ : ndarray of shape (n_layers,)
        Mean Hoyer sparsity of the Jacobian of every layer over the training samples, rotated and in
        the given basis.
    sparsity_, sparsity_before_ : float
        Their means over the layers.
    n_iter_ : int
        Number of conjugate-gradient steps of the search that was kept, or of the searches for
        single layers if Ctrl-C ended one of them.
    history_ : dict of ndarray
        Points that this search visited; see :class:`jacrot.JacobianSparsityRotation`.
    stages_ : list of str
        Names of its stages.
    converged_ : bool
        Whether the search converged, and was not ended by `max_iter`, Ctrl-C or a callback.
    provenance_ : dict
        Provenance of the result; see :class:`jacrot.JacobianSparsityRotation`.
    n_features_in_ : int
        Number of inputs of the network.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the inputs, if `X` has feature names that are all strings.

    Notes
    -----
    ``transform`` and ``score`` warn if `X` lies far outside the inputs that were fitted; see
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
        "are these activations of a hidden layer? pass inputs of the network, with the same scale.",
    )

    # `site` is an option of `transform`, not metadata of the samples.
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
        """Find the rotations: ``fit(X)``, or ``fit(weights, X)`` if `network` is ``None``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The inputs of the network; sequences or images for layers that read them. In the form
            ``fit(weights, X)`` these are the weights.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored if the network was passed to the constructor. In the form ``fit(weights, X)``
            these are the inputs.

        Returns
        -------
        NetworkRotation
            The fitted estimator.

        Raises
        ------
        TypeError
            If the weights have an unknown type.
        ValueError
            If there is no network or there are two, if it has no hidden layer or does not read
            `X`, or if the Jacobians of a layer are all zero, or some are NaN or infinite.
        """
        return self._fit_atomically(X, y)

    def _set_attributes(self, X: Any, y: Any) -> None:
        weights, X = resolve_fit_inputs(type(self).__name__, self.network, X, y)
        if read_segments(weights) is not None:
            raise ValueError(
                "NetworkRotation takes a network and its inputs, not segments; pass "
                "NetworkRotation().fit(network, X), or the segment to JacobianSparsityRotation."
            )
        if are_batches(X):
            raise ValueError(
                f"X is a list of {len(X)} arrays; pass the inputs of one network, or "
                "JacobianSparsityRotation for blocks that share a basis."
            )
        criterion = get_criterion(self.criterion)
        seed = resolve_seed(self.random_state)
        rng = resolve_random_state(seed)
        task = Task.begin_fit(self, X, None)
        X = self._read_activations(X, reset=True)
        network = read_network(weights, self.activation, X)
        if network.n_layers < 2:
            raise ValueError(
                f"the network has {network.n_layers} layer and no hidden activations; pass a "
                "network with at least two layers, or use JacobianSparsityRotation."
            )
        last = network.n_layers
        sites = [*range(0 if self.rotate_input else 1, last + 1 if self.rotate_output else last)]
        functional = self.coordinates == "functional"
        if functional and self.criterion != "log":
            raise ValueError(
                f"criterion={self.criterion!r} is not defined in functional coordinates, where the "
                "weights of the outputs depend on the rotations; pass criterion='log'."
            )
        segments = network_segments(network, X, rng)
        coordinates = whiten_sites(segments, sites) if functional else {}
        # Callbacks receive estimators with these attributes and those of a point.
        self._coordinates = coordinates
        layers = [read_layer(segment, coordinates) for segment in segments]
        bases = {site: effective_basis(site_moment(layers, site)) for site in sites}
        problem = joint_problem(layers, bases, criterion, rng)
        alone = self._fit_layerwise(segments, [site for site in sites if site < last], rng, task)
        identity = {site: np.eye(len(site_moment(layers, site))) for site in sites}
        # The search for single layers does not rotate the logits.
        given, start = (
            [nearest_rotation(axes[site], bases[site]) for site in sites]
            for axes in (identity, identity | alone.rotations)
        )

        def attributes(point: list[Matrix]) -> dict[str, Any]:
            rotations = {}
            for site, matrix in zip(sites, point, strict=True):
                moments = layers[min(site, last - 1)].effective.moments
                order = moments.inputs if site < last else moments.outputs
                rotations[site] = canonical_axes(matrix, bases[site], order, len(order))
            return {"network_": network, "rotations_": rotations}

        def sparsity(point: list[Matrix]) -> float:
            found = attributes(point)["rotations_"]
            sparsities = [
                layer.effective.sparsity_of_first(found.get(site + 1), found.get(site))
                for site, layer in enumerate(layers)
            ]
            return float(np.mean(sparsities))

        if alone.interrupted:
            solution = cheapest(problem, given, start, alone.n_iter)
        else:
            interaction = interaction_start(layers, bases) if functional else None
            solution = self._search(
                problem, (given, start), interaction, rng, task, attributes, sparsity
            )
        self.network_, self.rotations_ = network, attributes(solution.point)["rotations_"]
        self.means_ = self.whitenings_ = None
        if functional:
            self.means_ = {site: one.mean for site, one in coordinates.items()}
            self.whitenings_ = {site: one.forward for site, one in coordinates.items()}
        given_layers = [read_layer(one, {}) for one in segments] if functional else layers
        before = [layer.effective.sparsity(None, None) for layer in given_layers]
        self.sparsities_before_ = np.array(before)
        self.sparsities_ = np.array(
            [
                layer.effective.sparsity(self.rotations_.get(site + 1), self.rotations_.get(site))
                for site, layer in enumerate(layers)
            ]
        )
        self.sparsity_before_ = float(self.sparsities_before_.mean())
        self.sparsity_ = float(self.sparsities_.mean())
        self._set_search_attributes(solution, seed, segments[:1])
        task.end(attributes=lambda: attributes(solution.point))

    def transform(self, X: ArrayLike, site: int | None = None) -> Array:
        """Compute the rotated activations at a site.

        ``Z = A_l R_lᵀ``, or ``(A_l − mean) C_l^-½ R_lᵀ`` in functional coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network.
        site : int, default=None
            Site, the input of layer `site`; ``n_layers`` is the output of the network. ``None`` is
            the last rotated site: the last hidden activations, or the logits if rotated.

        Returns
        -------
        ndarray of shape (n_samples, n_activations)
            Activations in the new basis; sequences or images if the site has such activations.

        Raises
        ------
        ValueError
            If the site was not rotated, or if ``set_output`` requests a table, whose columns are
            the axes of the last site, and the site has other axes.
        """
        check_is_fitted(self)
        site = self._last_site if site is None else site
        if not isinstance(site, Integral) or isinstance(site, bool) or site not in self.rotations_:
            raise ValueError(f"site={site!r} was not rotated; pass one of {list(self.rotations_)}.")
        x = self._read_activations(X, reset=False)
        activations = x if site == 0 else self.network_[:site](x)
        Z = self._site_basis(site, len(self.rotations_[site])).encode(activations)
        table = _get_output_config("transform", self)["dense"] != "default"
        if table and Z.shape[1:] != (self._n_features_out,):
            raise ValueError(
                f"set_output requests a table with the {self._n_features_out} axes of site "
                f"{self._last_site}, but the activations at site={site!r} have shape {Z.shape}; "
                "use set_output(transform='default')."
            )
        return Z

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Return the mean over the layers of the Hoyer sparsity of the rotated Jacobians.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network, preferably held out.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        float
            Sparsity between 0 and 1. Samples whose Jacobian is zero are left out, with a warning.
        """
        return float(np.mean([one.sparsity for one in self.rotated_segments(X)]))

    def rotated_segments(self, X: Any) -> list[RotatedSegment]:
        """Return the layers as segments, on other inputs and in the fitted bases.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network.

        Returns
        -------
        list of RotatedSegment
            One segment for every layer.
        """
        check_is_fitted(self)
        x = self._read_activations(X, reset=False)
        rng = np.random.RandomState(SCORE_SEED)
        return self._rotate(network_segments(self.network_, x, rng))

    @property
    def segment_layers(self) -> list[range]:
        """Layers of ``network_`` in each of the rotated segments."""
        return [range(number, number + 1) for number in range(self.network_.n_layers)]

    def _rotate(self, segments: list[NetworkSegment]) -> list[RotatedSegment]:
        sizes = [self.n_features_in_, *(segment.d_write for segment in segments)]
        bases = [self._site_basis(site, size) for site, size in enumerate(sizes)]
        return [
            RotatedSegment(
                segment,
                (site, site + 1),
                bases[site],
                bases[site + 1],
                self.rotations_.get(site),
                self.rotations_.get(site + 1),
                *coordinate_factors(segment, self._coordinates),
            )
            for site, segment in enumerate(segments)
        ]

    def rotated_network(self) -> Network:
        """Return the network with all rotations folded into its weights.

        Returns
        -------
        Network
            ``rotated_network()(X)`` equals ``network_(X)``, with the logits in the new basis if
            they were rotated. If the inputs were rotated, an additional first layer rotates them.
        """
        check_is_fitted(self)
        bases = {site: self._site_basis(site, len(R)) for site, R in self.rotations_.items()}
        return rotate_network(self.network_, bases, given_inputs=True)

    @property
    def _last_site(self) -> int:
        return max(self.rotations_)

    @property
    def _n_features_out(self) -> int:
        return len(self.rotations_[self._last_site])

    def _fit_layerwise(
        self,
        segments: list[NetworkSegment],
        sites: list[int],
        rng: np.random.RandomState,
        task: Task,
    ) -> LayerwiseInit:
        """Fit a rotation of the inputs of every single layer."""
        rotations: Rotations = {}
        n_iter = 0
        for site in sites:
            alone = self._fit_layer(segments[site], site, rng, task)
            rotations[site] = alone.rotation_
            n_iter += alone.n_iter_
            if alone.interrupted_:
                return LayerwiseInit(rotations, n_iter, True)
        return LayerwiseInit(rotations, n_iter, False)

    def _fit_layer(
        self, segment: NetworkSegment, site: int, rng: np.random.RandomState, task: Task
    ) -> JacobianSparsityRotation:
        """Fit a rotation of the inputs of one layer, with its outputs in the given basis."""
        functional = self.coordinates == "functional"
        rotation = JacobianSparsityRotation(
            criterion=self.criterion,
            coordinates=self.coordinates,
            readout=network_after(segment.network, site + 1) if functional else None,
            max_iter=self.max_iter,
            tol=self.tol,
            on_interrupt=self.on_interrupt,
            random_state=rng,
            verbose=self.verbose,
        )
        rotation._bar_label = f"site {site} alone"
        # The joint search warns for the whole network.
        with task.propagate_to(rotation, f"site {site} alone"), silenced():
            rotation.fit(segment.computation, segment.activations)
        return rotation

    def _site_basis(self, site: int, size: int) -> SiteBasis:
        """Return the basis of a site of `size` features, the neurons if it was not rotated."""
        coordinates = self._coordinates.get(site, NeuronCoordinates())
        return coordinates.basis(self.rotations_.get(site), size)


class LayerwiseInit(NamedTuple):
    """Rotations of single layers, and whether Ctrl-C ended the searches for them."""

    rotations: Rotations
    n_iter: int
    interrupted: bool
