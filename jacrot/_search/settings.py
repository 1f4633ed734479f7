"""Every tuning constant of the search, with its unit and the measurement that justifies it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchSettings:
    """Tuning constants of the search.

    `benchmarks/ablation.py` measures what a constant is worth: it replaces one field at a time.
    Percentages below are differences of the exact cost, at equal settings otherwise.

    Parameters
    ----------
    forgetting : float
        Smoothing ``ε`` at which a search begins that may lose its start. The entries have root
        mean square 1.
    loosening : float
        The same for a start that is good already: ``[I, Q]`` after ``Q`` was found alone. 0.1 and
        0.5 end 0.3 % higher.
    keeping : float
        The same for a start that is to be kept in sight: the user's, the one from which a search
        is to come back, and the singular basis of the criterion ``"log"``.
    last_smoothing : float
        ``ε`` at which every search ends. 0.01 ends 0.1 % higher on stacks, 0.2 % on one matrix.
    bounded_widths : tuple of float
        Widths of the bounded criterion. From a random start, (1, 0.5, 0.25) finds the axes of 15
        of 15 problems of 64 axes with density 0.3, (1, 0.3) of 11.
    ladder : tuple of float
        Smoothings of conjugate gradient on one matrix that is not searched thoroughly; the first
        one on large matrices only. Without the first, 2 % higher there; with it, 2 % on others.
    settling : float
        ``ε`` of conjugate gradient after a plane sweep, before the last.
    jitter : float
        Angle in rad by which every axis is turned at the start: the given basis may be a saddle
        point, as it is for a Hadamard matrix.
    near_axis : float
        Median ``|cos|`` between output axes and the given ones above which the input axes of a
        stack that does not collapse are searched alone as well. Without that, planted axes cost
        0.3 to 0.6 % more and two in a hundred are lost; always first takes 1.7 times as long where
        the output axes are hidden too.
    alone_entries : int
        Entries of the Jacobians up to which they are.
    far_angle : float
        Angle in rad, about that of a random rotation, from which a search has to come back.
    same_axis : float
        Median ``|cos|`` of the axes of two minima that count as one.
    thorough_tol : float
        Tolerance up to which one matrix is searched from several starts.
    thorough_iter : int
        Value of ``max_iter`` from which it is.
    thorough_work : int
        Multiplications of rotating one matrix (512 × 256 inputs) up to which it is.
    exhaustive_work : int
        The same (256 × 128) up to which two starts more pay.
    max_sweeps : int
        Plane sweeps of one search. Without any, planted axes cost 0.3 % more and one in 40 is lost.
    sweep_gain : float
        Share of the cost that a sweep must gain for another one to follow.
    sweep_rows : int
        Rows of the Jacobians that a plane sweep compares angles on.
    sweep_angles, sweep_partners : int
        Angles of a quarter turn that are compared, and pairs of an axis that are visited.
    steps_per_axis, min_steps, max_steps : int
        Steps of Adam. Half as many take half the time and end 0.2 % higher, twice as many no lower.
    rows_per_axis, max_rows : int
        Rows of the Jacobians in a mini-batch. Half as many end 0.2 to 0.5 % higher.
    max_warm_start_work : float
        Multiplications of all steps of Adam, some minutes, or large problems would take hours.
    first_decay, second_decay : float
        Decay of Adam's mean gradient and of its mean square, per step. On planted axes that are
        hard to find, 0.99 in the place of 0.999 raises the rate of success from 0.75 to 1.
    one_matrix_tol : float
        Factor of the tolerance on one matrix, which costs so little.
    coarseness : float
        Factor of the tolerance of the stages before the last.
    first_samples : int
        Samples of the first stage of a criterion without smoothing, and of the curvatures of the
        preconditioner. All samples in the first stage take twice as long.
    stage_entries, min_stage_samples : int
        Entries of the Jacobians of conjugate gradient, and how many samples it has at least: more
        say nothing new about a rotation.
    largest_angle : float
        Root mean square angle in rad by which a step of conjugate gradient turns the axes at most.
    sufficient_decrease : float
        Share of the decrease that the slope promises which a step must bring (Armijo).
    near_step : float
        A trial step within this factor of the minimiser of the parabola is not made again.
    max_trials : int
        Trial steps of a line search.
    window : int
        Steps over which the relative decrease is averaged that ends a stage.
    curvature_floor : float
        Share of the median curvature that bounds curvatures from below in the preconditioner.
    curvature_refresh : int
        Gradients after which the curvatures are computed again.
    single_precision_tol : float
        Tolerance below which rounding in single precision hides the decrease. Double precision
        everywhere takes 1.03 to 1.25 times as long.
    large_matrix : int
        Rows or columns from which one matrix is worth single precision.
    exact_entries : int
        Entries up to which exact costs are computed in double precision.
    max_samples, min_samples : int
        Samples that are searched on: at most `max_samples`, more of which change the rotation
        less than another seed does; fewer where scikit-learn's ``working_memory`` is smaller,
        but at least `min_samples`.
    kept_share : float
        Share of ``working_memory`` for the rotated blocks between a cost and its gradient. Without
        it a search takes 1.07 to 1.10 times as long.
    """

    forgetting: float = 0.5
    loosening: float = 0.2
    keeping: float = 0.1
    last_smoothing: float = 0.001
    bounded_widths: tuple[float, ...] = (1.0, 0.5, 0.25)
    ladder: tuple[float, ...] = (1.0, 0.5, 0.15, 0.05, 0.01)
    settling: float = 0.03
    jitter: float = 0.01
    near_axis: float = 0.6
    alone_entries: int = 2**25
    far_angle: float = 1.3
    same_axis: float = 0.995
    thorough_tol: float = 5e-4
    thorough_iter: int = 200
    thorough_work: int = 2**25
    exhaustive_work: int = 2**22
    max_sweeps: int = 3
    sweep_gain: float = 1e-3
    sweep_rows: int = 4096
    sweep_angles: int = 24
    sweep_partners: int = 8
    steps_per_axis: int = 12
    min_steps: int = 400
    max_steps: int = 1600
    rows_per_axis: int = 16
    max_rows: int = 2048
    max_warm_start_work: float = 1.2e12
    first_decay: float = 0.9
    second_decay: float = 0.99
    one_matrix_tol: float = 0.1
    coarseness: float = 10
    first_samples: int = 32
    stage_entries: int = 2**24
    min_stage_samples: int = 32
    largest_angle: float = 0.5
    sufficient_decrease: float = 1e-4
    near_step: float = 2
    max_trials: int = 12
    window: int = 5
    curvature_floor: float = 0.3
    curvature_refresh: int = 5
    single_precision_tol: float = 1e-5
    large_matrix: int = 64
    exact_entries: int = 2**23
    max_samples: int = 1024
    min_samples: int = 256
    kept_share: float = 0.25


DEFAULT_SETTINGS = SearchSettings()
