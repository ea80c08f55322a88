"""The paper's figures, and those of the audit, as files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from skajax import plot, timescales
from skajax._files import image, put
from skajax._progress import each
from skajax.plot._style import GREY
from skajax.study.claims._claim import distance
from skajax.study.experiments import STEPS, Evidence, T
from skajax.trajectory import Trajectory

__all__ = ["BESIDE", "draw"]

BESIDE = {
    1: ("figure_1_entropy", "convergence"),
    2: ("figure_2_cosine",),
    4: ("knowledge_history",),
    5: ("figure_4_flow", "flow_ensemble"),
    6: ("figure_3_flow_against_knowledge",),
    7: ("convergence_of_the_flow",),
    8: ("figure_5_tensor_net_against_knowledge", "tensor_net_ensemble"),
    10: ("figure_6_tensor_net",),
    14: ("lagrangian",),
    18: ("weight_history",),
    19: ("output_activation",),
    20: ("residence_time",),
    21: ("steps_of_the_controller",),
}
"""Which figures stand beside which claims."""

_PER_STEP = "per time; the paper: per step, which is η times that"


def draw(evidence: Evidence, folder: Path, format: str = "png") -> Iterator[Path]:
    """Draw every figure into the folder, one file each, and yield the files as they are written."""
    figures = _figures(evidence)
    for name, (title, figure) in each(figures.items(), "figures", len(figures)):
        axes = figure()
        first: Axes = np.ravel(np.asarray(axes, dtype=object))[0]
        whole = first.get_figure(root=True)
        assert whole is not None  # axes that were just drawn into one
        whole.suptitle(title, fontsize="medium")
        path = folder / f"{name}.{format}"
        put(image(whole, format), path)
        plt.close(whole)
        yield path


def _figures(evidence: Evidence) -> dict[str, tuple[str, Callable[[], object]]]:
    run = evidence.published[50]
    published = {f"η = {T / K:.3g}, K = {K}": evidence.published[K] for K in STEPS}
    euler = {f"Δt = {T / K:.3g}, K = {K}": evidence.euler[K] for K in STEPS}
    limit = evidence.reference
    here = "published rule, η = 0.01, K = 50, seed 0"
    return {
        "figure_1_entropy": (
            f"Figure 1: entropy rate at fixed η K = 0.5, published rule\n{_PER_STEP}, over K",
            lambda: plot.comparison(published, "entropy_rate", reference=limit),
        ),
        "figure_2_cosine": (
            "Figure 2: cosine alignment at fixed η K = 0.5, published rule\nover time; the paper: over the"
            " passes K\nNear layer 2's trough small errors in time are large ones in the cosine",
            lambda: plot.comparison(published, "alignment", reference=limit),
        ),
        "figure_3_flow_against_knowledge": (
            f"Figure 3: knowledge flow against knowledge; {here}",
            lambda: plot.flow_against_knowledge(run),
        ),
        "figure_4_flow": (
            f"Figure 4: knowledge flow; {here}",
            lambda: plot.history(run, "flow_norm", against="K"),
        ),
        "figure_5_tensor_net_against_knowledge": (
            f"Figure 5: Tensor Net rate, published sign; {here}\n{_PER_STEP}",
            lambda: plot.tensor_net_against_knowledge(run),
        ),
        "figure_6_tensor_net": (
            f"Figure 6: Tensor Net rate, published sign; {here}\n{_PER_STEP}",
            lambda: plot.history(run, "tensor_net_rate", against="K"),
        ),
        "euler_entropy": (
            "Entropy rate by Euler's method, and its limit",
            lambda: plot.comparison(euler, "entropy_rate", reference=limit),
        ),
        "convergence": (
            "Distance of the curves to the ODE's, the largest over the layers",
            lambda: plot.convergence(np.array([T / K for K in STEPS]), _distances(evidence)),
        ),
        "entropy_heatmap": (
            f"Entropy rate; {here}",
            lambda: plot.heatmap(run, "entropy_rate"),
        ),
        "cosine_heatmap": (f"Cosine alignment; {here}", lambda: plot.heatmap(run, "alignment")),
        "knowledge_history": (f"Knowledge; {here}", lambda: plot.history(run, "knowledge_norm")),
        "weight_history": (f"Weights; {here}", lambda: plot.history(run, "weight_norm")),
        "output_activation": (f"Mean output decisions; {here}", lambda: plot.output_mean(run)),
        "phase_portrait": (f"Phase portrait; {here}", lambda: plot.phase_portrait(run)),
        "lagrangian": (f"Lagrangian; {here}", lambda: plot.history(run, "lagrangian")),
        "convergence_of_the_flow": (
            "Knowledge flow and entropy until the flow has converged, continuous limit, seed 0",
            lambda: plot.overview(evidence.late, ("flow_norm", "entropy")),
        ),
        "residence_time": (
            "Residence time ‖Z‖ / ‖Φ‖ (eq. 5), continuous limit, seed 0; dashed: T = 0.5",
            lambda: _residence(limit),
        ),
        "steps_of_the_controller": (
            "Steps that the controller chose at rtol = 1e-3, and the flow that it followed; seed 0",
            lambda: plot.step_sizes(evidence.adaptive[1e-3]),
        ),
        "flow_ensemble": (
            f"Knowledge flow over {len(evidence.seeds)} seeds, continuous limit",
            lambda: plot.ensemble(evidence.ensemble_reference, "flow_norm"),
        ),
        "tensor_net_ensemble": (
            f"Tensor Net rate, published sign, over {len(evidence.seeds)} seeds, continuous limit",
            lambda: plot.ensemble(evidence.ensemble_reference, "tensor_net_rate"),
        ),
    }


def _residence(run: Trajectory) -> Axes:
    ax = plot.history(run.to_dataset().assign(residence=timescales.residence(run)), "residence")
    ax.axhline(T, color=GREY, linestyle="--", zorder=1)
    return ax


def _distances(evidence: Evidence) -> dict[str, np.ndarray]:
    return {
        f"{name}, {text}": np.array(
            [distance(runs[K], evidence.reference, observable).max() for K in STEPS]
        )
        for name, runs in (("published", evidence.published), ("Euler", evidence.euler))
        for observable, text in (("entropy_rate", "entropy rate"), ("alignment", "cosine"))
    }
