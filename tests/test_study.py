"""The study: rules that decide, reports that say so, and runs that end up in files."""

import dataclasses
import json
import re
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

import skajax as ska
from skajax._files import image
from skajax.study import CLAIMS, Verdict, errors, experiments, figures, words
from skajax.study.claims import _claim, _invariance, _learning, _tensor_net, _theory, _timing
from skajax.study.reproduce import Reproduction, reproduce


class Made(NamedTuple):
    out: Path
    result: Reproduction
    room: list[float]
    """Between what is drawn and each figure's edge, in inches."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The paper, whole, on a small network and few images."""
    out, room = tmp_path_factory.mktemp("study") / "out", []

    def measured(figure, format):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out
        box, paper = figure.get_tightbbox(), figure.bbox_inches
        room.append(min(box.x0, box.y0, paper.x1 - box.x1, paper.y1 - box.y1))
        return image(figure, format)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "_paper_images", lambda: ska.data.mnist_subset(per_class=4))
        patch.setattr(experiments, "_paper_network", lambda: ska.mlp([10] * 4))
        patch.setattr(experiments, "EXPECTED", 2)
        patch.setattr(figures, "image", measured)
        return Made(out, reproduce(out, seeds=3, quick=True), room)


@pytest.fixture(scope="module")
def evidence(made):
    return made.result.evidence


def change(run, **fields):
    """The run with other records."""
    return eqx.tree_at(lambda r: [getattr(r, name) for name in fields], run, list(fields.values()))


def resampled(run, reference):
    """A run whose records are the reference's, at the run's own times."""
    names = ("entropy", "entropy_rate", "alignment", "flow_norm", "knowledge_norm", "lagrangian")
    fields = {name: _claim.at(reference, name, run.t) for name in names}
    return change(run, **fields)


def test_there_are_the_21_claims_in_order():
    assert [claim.number for claim in CLAIMS] == list(range(1, 22))


def test_experiments_are_the_papers(evidence):
    assert [float(run.parameters["dt"]) for run in evidence.published.values()] == pytest.approx(
        [0.02, 0.01, 0.005, 0.5 / 150, 0.0025, 0.001]
    )
    assert [len(run.t) for run in evidence.published.values()] == [24, 49, 99, 149, 199, 499]
    assert [len(run.t) for run in evidence.euler.values()] == [26, 51, 101, 151, 201, 501]
    assert evidence.ensemble_published.entropy.shape == (3, 49, 4)


def test_ensemble_lanes_are_single_runs(evidence):
    lane = evidence.lanes(evidence.ensemble_published)[0]
    single = evidence.published[50]
    np.testing.assert_allclose(lane.flow_norm, single.flow_norm, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(lane.entropy, single.entropy, rtol=1e-5)


def test_snapshots_end_where_the_runs_end(evidence):
    last = evidence.snapshots_published.Z[-1][-1]
    np.testing.assert_allclose(
        np.linalg.norm(last), np.linalg.norm(evidence.published[50].final.Z[-1]), rtol=0.2
    )
    # 50 updates from the start: one more than K = 50 passes make.
    weights = jax.tree.map(jax.numpy.asarray, evidence.weights)
    more = ska.simulate(
        evidence.network, weights, evidence.x, ska.Published(0.01), steps=51, observe=()
    )
    np.testing.assert_allclose(last, more.final.Z[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", range(1, 22))
def test_every_claim_is_judged_from_numbers(number, made):
    claim, finding = made.result.judged[number - 1]
    assert claim.number == number
    assert isinstance(finding.verdict, Verdict)
    assert finding.discrete
    assert finding.continuous
    assert "nan" not in finding.discrete.replace("nant", "")
    assert finding.numbers


@pytest.mark.parametrize("claim", [_invariance.entropy_curves, _invariance.cosine_curves])
def test_identical_curves_would_hold(claim, evidence):
    exact = {K: resampled(run, evidence.reference) for K, run in evidence.published.items()}
    # Least distances, so that an order exists; far below the rule's 1 %.
    exact = {
        K: change(
            run,
            entropy_rate=run.entropy_rate * (1 + 1e-3 / K),
            alignment=run.alignment * (1 + 1e-3 / K),
        )
        for K, run in exact.items()
    }
    assert (
        claim.examine(dataclasses.replace(evidence, published=exact, others=())).verdict
        is Verdict.HOLDS
    )


def test_curves_that_do_not_converge_would_not_hold(evidence):
    off = {
        K: change(run, entropy_rate=1.3 * run.entropy_rate) for K, run in evidence.published.items()
    }
    finding = _invariance.entropy_curves.examine(dataclasses.replace(evidence, published=off))
    assert finding.verdict is Verdict.FAILS


def test_every_seed_at_every_step_decides(evidence):
    """One of the seeds beside the first whose curves are far off at the finest step is enough."""
    assert len(evidence.others) == 2  # of three seeds
    numbers = _invariance.entropy_curves.examine(evidence).numbers
    assert np.shape(numbers["distance_over_seeds"]) == (3, 6)
    lanes = evidence.lanes(evidence.ensemble_reference)
    by_hand = _claim.distance(evidence.others[1][500], lanes[2], "entropy_rate").max()
    assert numbers["distance_over_seeds"][2][-1] == by_hand
    off = {K: change(r, entropy_rate=1.3 * r.entropy_rate) for K, r in evidence.others[0].items()}
    spoilt = dataclasses.replace(evidence, others=(off, *evidence.others[1:]))
    assert _invariance.entropy_curves.examine(spoilt).verdict is Verdict.FAILS


def test_a_wrong_sign_of_the_action_would_not_hold(evidence):
    wrong = change(evidence.reference, lagrangian=-evidence.reference.lagrangian)
    finding = _theory.entropy_is_action.examine(dataclasses.replace(evidence, reference=wrong))
    assert finding.verdict is Verdict.FAILS
    assert _theory.entropy_is_action.examine(evidence).verdict is not Verdict.FAILS


def test_finished_dynamics_would_hold(evidence):
    ensemble = evidence.ensemble_reference
    fade = np.linspace(1, 0, ensemble.entropy.shape[1])[None, :, None]
    done = change(ensemble, entropy=ensemble.entropy * fade, flow_norm=ensemble.flow_norm * fade)
    finding = _timing.completes.examine(dataclasses.replace(evidence, ensemble_reference=done))
    assert finding.verdict is Verdict.HOLDS


def test_shares_decide_on_the_seed():
    assert _tensor_net._by_share(0.95) is Verdict.HOLDS
    assert _tensor_net._by_share(0.5) is Verdict.SEED
    assert _tensor_net._by_share(0.05) is Verdict.FAILS
    assert _tensor_net._by_share(0.05, seed_dependent=True) is Verdict.SEED


def test_grades():
    assert _claim.graded(0.1, 0.1, 0.2) is Verdict.HOLDS
    assert _claim.graded(0.15, 0.1, 0.2) is Verdict.APPROXIMATELY
    assert _claim.graded(0.25, 0.1, 0.2) is Verdict.FAILS


def test_order_is_the_exponent():
    dt = np.array([0.1, 0.05, 0.01])
    assert errors.order(dt, 3 * dt**2) == pytest.approx(2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234.5, "1230"), (0.5, "0.5"), (2.71828, "2.72"), (4e-5, "4.0e-05")],
)
def test_numbers_are_readable(value, text):
    assert words.number(value) == text


def test_fisher_ratio_of_two_known_clusters():
    # Means ±1, unit variance within each: between 1, within 1 (population variances).
    D = np.array([[0.0], [2.0], [-2.0], [0.0]])
    assert _learning.fisher_ratio(D, np.array([0, 0, 1, 1])) == pytest.approx(1.0)


def test_nearest_centroid_counts_what_lies_nearest():
    D = np.array([[0.0], [0.2], [1.0], [0.1]])
    assert _learning.nearest_centroid(D, np.array([0, 0, 1, 1])) == pytest.approx(0.75)


def test_spearman_sees_order_only():
    assert _learning._spearman(np.array([1.0, 2, 3]), np.array([1.0, 10, 11])) == pytest.approx(1)
    assert _learning._spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, -5])) == pytest.approx(-1)


def test_balance_of_decision_and_gradient_exists_in_one_sign_only(evidence):
    roots = _theory.meaning_of_zero.examine(evidence).numbers["roots"]
    (z,) = roots["equation"]
    # D = -(1/ln 2) z D (1 - D)  <=>  -z σ(-z) = ln 2.
    assert -z / (1 + np.exp(z)) == pytest.approx(np.log(2), abs=1e-4)
    assert roots["published"].size == 0


def test_reproduce_writes_everything(made):
    out, result, _ = made
    assert all(path.is_file() and path.stat().st_size > 0 for path in result.files)
    report = (out / "claims.md").read_text(encoding="utf-8")
    for claim, finding in result.judged:
        assert f"## {claim.number}. {claim.title}" in report
        assert finding.discrete in report
        assert claim.rule in report
    page = (out / "claims.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert len(pictures) == 16 and all((out / name).is_file() for name in pictures)
    assert page.count("<h2>") == len(result.judged) and "**" not in page
    first = page.split('id="claim-2"')[0]  # figures stand under their claims' verdicts
    assert "figure_1_entropy.png" in first and "figure_2_cosine.png" not in first

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (out / "claims.json").read_text(encoding="utf-8")
    audit = json.loads(text, parse_constant=refuse)
    assert [entry["verdict"] for entry in audit["claims"]] == [
        str(finding.verdict) for _, finding in result.judged
    ]
    with xr.open_datatree(out / "runs.nc", engine="h5netcdf") as runs:
        assert set(runs.children) == {
            "published", "euler", "adaptive", "reference", "late", "ensemble",
        }  # fmt: skip
        lane = runs["ensemble/published"]
        assert lane["flow_norm"].dims == ("seed", "time", "layer")
        np.testing.assert_array_equal(
            runs["published/K50"]["entropy"], result.evidence.published[50].entropy
        )
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert {name.split("_")[1] for name in drawn if name.startswith("figure_")} == set("123456")


def test_nothing_on_a_figure_is_cut(made):
    """All that is drawn lies within the figure: titles, legends, labels, markers."""
    paths = made.result.files[-20:]
    cut = [path.stem for path, least in zip(paths, made.room, strict=True) if least < 0]
    assert cut == []


@pytest.mark.parametrize("seeds", [0, 1, 2.5, True])
def test_too_few_seeds_are_refused(seeds, tmp_path, untyped):
    with pytest.raises(ValueError, match="Argument seeds must be a whole number, at least 2"):
        reproduce(tmp_path / "out", seeds=seeds)
    assert not (tmp_path / "out").exists()


def test_out_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="Argument out must be a folder"):
        reproduce(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
