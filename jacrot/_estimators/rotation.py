"""Rotation of the activations that a network reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from types import NoneType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions

from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.callbacks import Task
from jacrot._estimators.fitted_rotation import FittedRotation
from jacrot._estimators.inputs import (
    are_batches,
    read_network,
    read_segments,
    resolve_fit_inputs,
)
from jacrot._estimators.segment_coordinates import (
    SegmentCoordinates,
    functional_coordinates,
    read_readout,
)
from jacrot._jacobians.base import Jacobians
from jacrot._jacobians.coordinates import Coordinates, FunctionalCoordinates
from jacrot._jacobians.effective import EffectiveJacobians, thread_map
from jacrot._search.frame import Frame
from jacrot._search.objective import OutputMode
from jacrot._search.subspace import nearest_rotation, sensitivities
from jacrot._utils.arrays import Array, Matrix, any_array
from jacrot._utils.random import random_rotation, resolve_random_state, resolve_seed
from jacrot.criteria._minimised import get_criterion
from jacrot.network import Network, orthogonal
from jacrot.segments import NetworkSegment, Segment
from jacrot.segments._captured import Captured
from jacrot.segments._network import pool


class JacobianSparsityRotation(FittedRotation):
    """Rotation of a network's activations that makes the Jacobian of what follows sparse.

    Finds the orthogonal ``Q``, and optionally an orthogonal ``P``, that minimise ::

        F(P, Q) = mean_i 1/(mn) Σ φ(P J_i Qᵀ / rms(J_i))

    where ``J_i`` is the Jacobian of the network at sample ``i`` and ``φ`` the `criterion`. A
    rotation keeps the Frobenius norm, so that with the default criterion this maximises the
    mean Hoyer sparsity of the rotated Jacobians. The search is pymanopt's Riemannian conjugate
    gradient on the square Stiefel manifold, with ``φ`` smoothed less and less.

    The estimator is used in one of two forms:

    - ``JacobianSparsityRotation(network).fit(X)``, as for every scikit-learn transformer. It can be
      cloned, and used in pipelines, cross-validation and grid search.
    - ``JacobianSparsityRotation().fit(weights, X)``, for interactive use. A fitted estimator can be
      used in a pipeline with :class:`sklearn.frozen.FrozenEstimator`.

    Parameters
    ----------
    network : Network, array-like, sequence, mapping or callable, default=None
        The computation that follows the rotated activations: a :class:`jacrot.Network`, or
        anything from which one can be built (one matrix ``(n_out, n_in)``, a list of matrices, a
        list of ``(W, b)`` pairs, a flat list ``W, b, W, b``, a mapping of names to arrays in layer
        order, a callable written with ``autograd.numpy``), or a 3-D array or memory map
        ``(n_samples, n_outputs, n_inputs)`` of Jacobians computed elsewhere, one for each row of
        the `X` passed to ``fit`` (4-D: several for each row). If `X` is a list of arrays, a list of
        networks of the same length: blocks that share their rotations, like those of a residual
        stream. ``None`` if the network is passed to ``fit``.
    activation : str, callable or list of them, default="relu"
        Activation function of every layer of raw weights, including the last; a list has one
        for each layer, such as ``["relu", "identity"]`` if the last layer computes logits. Names
        are in ``jacrot.activations.ACTIVATIONS``. Not used for a ``Network`` or a callable.
    rotate_output : bool or "tied", default=False
        Whether the outputs are rotated too. ``False`` keeps them (``P = I``), ``True`` finds a
        separate ``P``, ``"tied"`` uses ``P = Q``, for residual streams, whose inputs and outputs
        share a basis.
    n_components : int or float, default=None
        Number of axes. An integer, or a fraction in (0, 1] of the sensitivity, keeps the leading
        directions of ``E[JᵀJ]`` (of ``E[JᵀJ] + E[JJᵀ]`` if tied) and rotates their span; ``None``
        keeps all. Directions without any effect are not rotated; they are the last axes.
    criterion : {"hoyer", "l1", "log", "logcosh", "quartimax"} or callable, default="hoyer"
        The criterion to minimise. ``"hoyer"`` is the ℓ₁ norm with every sample scaled to the same
        Frobenius norm, ``"l1"`` the ℓ₁ norm without this scaling, so that samples with large
        Jacobians have more weight. ``"log"`` reduces the number of connections: it is ``Σ_ab
        log(1 + M_ab/ε²)`` of the mean squares ``M_ab`` over the samples, with a final ``ε = 0.001
        √ΣM``. ``"quartimax"`` is known from factor analysis, ``"logcosh"`` from FastICA; a callable
        is an even elementwise function written with ``autograd.numpy``.
    coordinates : {"neurons", "functional"}, default="neurons"
        Coordinates that are rotated. With ``"neurons"``, ``Q`` rotates the activations. With
        ``"functional"``, it rotates ``C^-½ (x − mean)``, where ``C`` is the covariance of `X`, and
        ``P`` rotates ``G^½ y``, where ``G`` is the second moment of the readout; the Jacobians are
        then ``G^½ J_i C^½``. In these coordinates the new activations are uncorrelated, and the
        errors of removed connections add up; but **the axes are not orthogonal in the space of
        neurons**. With ``rotate_output=False`` every output is scaled by ``√G_aa``; with ``"tied"``
        the outputs have the coordinates of the inputs, weighted by the readout, for which only
        ``criterion="log"`` is defined.
    readout : Network, or weights, default=None
        For functional coordinates, the network from the outputs to the logits, such as
        ``network[2:]`` if ``network[1:2]`` is fitted. ``None`` is the readout of a segment that
        is passed to ``fit``, and ``G = I`` for weights.
    init : {"auto", "identity", "svd", "random"} or array-like, default="auto"
        Start of the first search. ``"auto"`` chooses one, and its result is never worse than the
        given basis. ``"svd"`` is the eigenvectors of ``E[JᵀJ]`` (and ``E[JJᵀ]``), with every sample
        scaled to the same norm. An array of shape ``(n_features, n_features)`` with orthonormal
        rows is a rotation to improve. Except for ``"auto"``, the search stays closer to its start:
        the smoothing starts at 0.1.
    n_init : int, default=1
        Number of searches, the best of which is kept. All but the first start from random
        rotations.
    max_iter : int, default=5000
        Maximum number of conjugate-gradient steps of a search, over all its stages; also the
        maximum number of steps of a stochastic warm start.
    tol : float, default=1e-4
        The search stops when the mean relative decrease of the cost over five steps is below
        `tol` (below a tenth of it if all samples collapse into one matrix, whose steps are cheap).
    on_interrupt : {"raise", "keep"}, default="raise"
        Effect of Ctrl-C (``KeyboardInterrupt``) during the search. ``"raise"`` ends ``fit`` and
        leaves the estimator unchanged; ``"keep"`` keeps the best rotation so far, with
        ``converged_`` false and a warning. Before the first and after the last step it raises.
    random_state : int, RandomState instance or None, default=None
        Determines the samples of the search and of the warm start, and the random starts.
    n_jobs : int, default=None
        Number of parallel searches, as in joblib.
    verbose : int, default=0
        Whether to show a progress bar on stderr, with the stage, the step, the cost (with the
        smoothing of the stage), the sparsity of a few samples, the used share of the budget
        `max_iter`, and the time that the rest of it would take. Most searches end earlier.

    Attributes
    ----------
    rotation_ : ndarray of shape (n_components, n_features_in_)
        ``Q``, in double precision. Rows are the new axes, by decreasing sensitivity ``E‖J q‖²``,
        with the entry of largest magnitude positive.
    output_rotation_ : ndarray of shape (n_outputs, n_outputs) or None
        ``P``, with rows by decreasing ``E‖Jᵀ p‖²``; ``rotation_`` itself if tied; ``None`` if the
        outputs are not rotated.
    mean_, whitening_ : ndarray of shape (n_features_in_,) and (n_features_in_, n_features_in_)
        The mean of `X` and ``C^-½`` in functional coordinates; otherwise ``None``.
    output_whitening_ : ndarray of shape (n_outputs, n_outputs) or None
        ``G^½`` in functional coordinates with a readout; ``C^-½`` if tied.
    network_ : Network, tuple of Network or None
        The network or the blocks; ``None`` for Jacobians computed elsewhere.
    sparsity_ : float
        Mean Hoyer sparsity of the rotated Jacobians over the training samples.
    sparsity_before_ : float
        The same for the Jacobians in the given basis.
    explained_sensitivity_ratio_ : ndarray of shape (n_components,)
        ``E‖J q‖² / E‖J‖²`` for each axis.
    n_iter_ : int
        Number of conjugate-gradient steps of the search that was kept, or of steps of its warm
        start if the search ended there.
    history_ : dict of ndarray
        Columns with a row for every point that this search visited: ``"stage"``, ``"iteration"``
        within the stage, ``"evaluations"`` (cumulative passes over the samples of the stages, or
        over mini-batches in a warm start), ``"cost"`` (with the smoothing and on the samples of the
        stage or the mini-batch), ``"seconds"``.
    stages_ : list of str
        Names of the stages, which ``history_["stage"]`` indexes.
    converged_ : bool
        Whether the search converged, and was not ended by `max_iter`, Ctrl-C or a callback.
    provenance_ : dict
        Provenance of the result, as JSON values: ``"parameters"``, ``"seed"`` (also for
        ``random_state=None``), SHA-256 and shape of the ``"data"`` and the ``"networks"``,
        ``"versions"``, ``"scores"``.
    n_features_in_ : int
        Number of activations.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the activations, if `X` has feature names that are all strings.

    Notes
    -----
    The search depends on the problem. The samples of one dense layer with fixed outputs collapse
    into one matrix, which is minimised from several starts with decreasing smoothing. All other
    problems begin with a stochastic warm start (Adam) and end with conjugate gradient. They use
    1024 random samples, or fewer if scikit-learn's ``working_memory`` is too small for them, but at
    least 256. Sparsities always use all samples. For a preliminary result on a large problem,
    ``tol=1e-2`` or ``max_iter=30`` take a fraction of the time.

    For sequences ``(n, positions, features)`` and images ``(n, channels, height, width)``, the
    features at every position are rotated in the same way. A sample is then a position of an input:
    its Jacobian is that of all outputs with respect to the features there. It consists of a matrix
    for every output position that depends on them (for one convolution, for every offset of the
    kernel), and its sparsity is that of all these matrices together. If positions mix, 1024 random
    positions are the samples. :func:`jacrot.positions.at_positions` rotates such arrays.

    If all widths of a network are equal, they do not show which activations belong to which layer:
    a whole network accepts the activations of a hidden layer, and every layer accepts its inputs.
    ``transform``, ``score`` and ``jacobians`` warn if the median squared Mahalanobis distance of
    `X` from the mean of the fitted activations is over 1.5 times that of the farthest of them,
    provided that there were at least ten inputs and as many rows as features. ``fit`` cannot check
    this; pass one layer as ``network[1:2]``. ``load_digits_mlp((48, 32))`` has unequal widths,
    with which such mistakes raise errors.

    Jacobians computed elsewhere belong to their samples and cannot be cross-validated. Pass a
    memory map to ``fit``, since scikit-learn's ``clone`` copies parameters.

    A linear map is sparse in its singular basis regardless of what it computes. Before you conclude
    that a rotation has found structure, compare with the sparsity in the basis of singular vectors
    and with that of the same network with shuffled weights, and use ``score`` on held-out inputs.

    References
    ----------
    P.-A. Absil, R. Mahony and R. Sepulchre, "Optimization Algorithms on Matrix Manifolds",
    Princeton (2008), section 8.3 (conjugate gradient).

    P. O. Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5 (2004),
    section 3.1 (the measure of sparsity).

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> problem = make_planted_problem(n_features=16, n_outputs=32, random_state=0)
    >>> rotation = JacobianSparsityRotation(random_state=0).fit(problem.network, problem.X)
    >>> print(f"{rotation.sparsity_before_:.2f} -> {rotation.sparsity_:.2f}")
    0.55 -> 0.84
    >>> Z = rotation.transform(problem.X)
    >>> np.allclose(rotation.rotated_network()(Z), problem.network(problem.X))
    True
    """

    _saved: ClassVar[dict[str, Any]] = {
        "rotation_": np.ndarray,
        "output_rotation_": (np.ndarray, NoneType),
        "network_": (Network, tuple, NoneType),
        "explained_sensitivity_ratio_": np.ndarray,
        "mean_": (np.ndarray, NoneType),
        "whitening_": (np.ndarray, NoneType),
        "output_whitening_": (np.ndarray, NoneType),
        "_inner": Coordinates,
        "_outer": Coordinates,
        **NetworkEstimator._saved,
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **NetworkEstimator._parameter_constraints,
        "rotate_output": ["boolean", StrOptions({"tied"})],
        "coordinates": [StrOptions({"neurons", "functional"})],
        "readout": "no_validation",
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
            None,
        ],
        "init": [StrOptions({"auto", "identity", "svd", "random"}), "array-like"],
    }

    def __init__(
        self,
        network: Any = None,
        *,
        activation: Any = "relu",
        rotate_output: bool | Literal["tied"] = False,
        n_components: int | float | None = None,
        criterion: str | Callable[[Array], Array] = "hoyer",
        coordinates: Literal["neurons", "functional"] = "neurons",
        readout: Any = None,
        init: str | ArrayLike = "auto",
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
        self.rotate_output = rotate_output
        self.n_components = n_components
        self.criterion = criterion
        self.coordinates = coordinates
        self.readout = readout
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.on_interrupt = on_interrupt
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the rotation: ``fit(X)``, or ``fit(weights, X)`` if `network` is ``None``.

        The result of :func:`~jacrot.readers.capture` includes both: ``fit(captured)``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The activations that the network reads; sequences or images for layers that read them;
            a list of arrays for a list of blocks. All entries must be finite real numbers; masked
            arrays are accepted if no entry is masked, and gradients of tensors are ignored. In the
            form ``fit(weights, X)`` these are the weights, in any form that the parameter
            `network` accepts. A :class:`~jacrot.segments.Segment`, or a list of segments that
            share the rotation, includes both.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored if the network was passed to the constructor. In the form ``fit(weights, X)``
            these are the activations.

        Returns
        -------
        JacobianSparsityRotation
            The fitted estimator.

        Raises
        ------
        TypeError
            If the weights have an unknown type.
        ValueError
            If there is no network or there are two, if the arguments are in the wrong order, if the
            network does not read `X`, or if the Jacobians are all zero, or some are NaN or
            infinite.
        """
        return self._fit_atomically(X, y)

    def _set_attributes(self, X: Any, y: Any) -> None:
        criterion = get_criterion(self.criterion)
        weights, X = resolve_fit_inputs(type(self).__name__, self.network, X, y)
        seed = resolve_seed(self.random_state)
        rng = resolve_random_state(seed)
        task = Task.begin_fit(self, X, self.n_init)
        segments = self._read_segments(weights, X, rng)
        stack = pool(segments)
        if stack.shape[1] == 0:
            raise ValueError(
                "the Jacobians have no outputs; pass a network with at least one output."
            )
        output = _output_mode(self.rotate_output, stack)
        given = EffectiveJacobians.select(stack)
        networks = tuple(s.computation for s in segments if isinstance(s, NetworkSegment))
        network = None if not networks else networks if are_batches(X) else networks[0]
        # Logits are known for segments, not for weights.
        passed = read_segments(weights)
        coordinates, readout = self._find_coordinates(segments, given, output, passed is not None)
        # Callbacks receive estimators with these attributes and those of a point.
        self._inner, self._outer = coordinates
        effective = given
        if coordinates.right is not None:
            in_coordinates = given.stack.transformed(coordinates.left, coordinates.right)
            effective = EffectiveJacobians.select(in_coordinates)
        n_features = stack.shape[2]
        if isinstance(self.n_components, Integral) and self.n_components > n_features:
            raise ValueError(
                f"n_components={self.n_components} must be at most n_features={n_features}."
            )
        with thread_map(effective.stack) as apply:
            frame = Frame(effective.stack, effective.l2, output, self.n_components, apply)
        problem = frame.problem(criterion, rng, readout)
        start = self._initial_point(frame, rng)

        def attributes(point: list[Matrix]) -> dict[str, Any]:
            P, Q = frame.axes(point)
            return {"network_": network, "rotation_": Q, "output_rotation_": P}

        solution = self._search(
            problem,
            (frame.given, frame.singular),
            start,
            rng,
            task,
            attributes,
            lambda point: effective.sparsity_of_first(*frame.axes(point)),
        )
        P, Q = frame.axes(solution.point)
        self.network_, self.rotation_, self.output_rotation_ = network, Q, P
        self.mean_ = self.whitening_ = self.output_whitening_ = None
        if isinstance(self._inner, FunctionalCoordinates):
            self.mean_, self.whitening_ = self._inner.mean, self._inner.forward
        if isinstance(self._outer, FunctionalCoordinates):
            self.output_whitening_ = self._outer.forward
        effects = sensitivities(Q, frame.reading)
        self.explained_sensitivity_ratio_ = effects / np.trace(frame.reading)
        self.sparsity_before_ = given.given_sparsity
        self.sparsity_ = effective.sparsity(P, Q)
        self._set_search_attributes(solution, seed, segments)
        if passed is not None:
            places = [f"{segment.read} to {segment.write}" for segment in passed]
            self.provenance_["segments"] = places
        task.end(attributes=lambda: attributes(solution.point))

    def _read_segments(
        self, weights: Any, X: Any, rng: np.random.RandomState
    ) -> Sequence[Segment | Captured]:
        """Return the segments to fit, from any form of the arguments."""
        batches = self._batches(X, reset=True)
        segments = read_segments(weights)
        if segments is not None:
            return [
                _read_precomputed(any_array(segment.jacobians, "jacobians"), segment.X)
                if isinstance(segment, Captured)
                else segment
                for segment in segments
            ]
        if getattr(weights, "ndim", 0) in (3, 4):
            return [_read_precomputed(any_array(weights, "jacobians"), batches[0])]
        if not are_batches(X):
            networks = [read_network(weights, self.activation, batches[0])]
        elif not isinstance(weights, (list, tuple)) or len(weights) != len(batches):
            raise ValueError(
                f"X is a list of {len(batches)} arrays, one for each block that shares the basis; "
                "pass a list with one network for each array: fit([block, block], [X, X])."
            )
        else:
            networks = [
                read_network(one, self.activation, x)
                for one, x in zip(weights, batches, strict=True)
            ]
        return [
            NetworkSegment.draw(network, range(network.n_layers), x, rng)
            for network, x in zip(networks, batches, strict=True)
        ]

    def _find_coordinates(
        self,
        segments: Sequence[Segment | Captured],
        given: EffectiveJacobians,
        output: OutputMode,
        knows_readout: bool,
    ) -> tuple[SegmentCoordinates, Matrix | None]:
        """Return the coordinates of both sides, and the weights of tied outputs."""
        if self.coordinates == "neurons":
            if self.readout is not None:
                raise ValueError(
                    "readout weighs the outputs in functional coordinates; pass "
                    "coordinates='functional', or readout=None."
                )
            return SegmentCoordinates(), None
        if len(segments) > 1:
            raise ValueError(
                "coordinates='functional' takes one network and its activations; pass one block, "
                "or coordinates='neurons'."
            )
        (segment,) = segments
        network = segment.computation if isinstance(segment, NetworkSegment) else None
        readout = segment.readout if knows_readout else None
        if self.readout is not None:
            readout = read_readout(self.readout, self.activation, network, segment.activations)
        return functional_coordinates(
            segment, given, output, self.criterion, self.n_components, readout
        )

    def _initial_point(self, frame: Frame, rng: np.random.RandomState) -> list[Matrix] | None:
        """Return the start for `init`; ``None`` if the search chooses it."""
        if isinstance(self.init, str):
            if self.init == "auto":
                return None
            if self.init == "random":
                return [random_rotation(len(matrix), rng) for matrix in frame.given]
            return frame.given if self.init == "identity" else frame.singular
        rotation = orthogonal(self.init, "init", self.n_features_in_)
        return [*frame.given[:-1], nearest_rotation(rotation, frame.input_basis)]


def _read_precomputed(jacobians: Any, X: Array) -> Captured:
    shape = jacobians.shape
    if X.ndim != 2 or shape[0] != len(X) or shape[-1] != X.shape[1]:
        raise ValueError(
            f"a 3-D array has one Jacobian (n_outputs, n_inputs) for each sample, a 4-D array "
            f"several, but it has shape {shape} and X has shape {X.shape}; pass Jacobians "
            f"({len(X)}, n_outputs, {X.shape[-1]}), or a stack of weights as a list."
        )
    if jacobians.dtype.kind not in "fiu":
        raise TypeError(f"Jacobians have dtype {jacobians.dtype}; pass real numbers.")
    return Captured(jacobians, X)


def _output_mode(rotate_output: bool | str, jacobians: Jacobians) -> OutputMode:
    if rotate_output == "tied":
        _, n_outputs, n_inputs = jacobians.shape
        if n_outputs != n_inputs:
            raise ValueError(
                f"rotate_output='tied' shares one basis between {n_inputs} inputs and {n_outputs} "
                "outputs, but these numbers must be equal; pass rotate_output=True."
            )
        return "tied"
    return "free" if rotate_output else "fixed"
