"""The audit as a report to read (Markdown; HTML, with its figures) and to compute with (JSON)."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt

from skajax.study.claims import Claim, Finding, Verdict
from skajax.study.experiments import STEPS, Evidence, T

__all__ = ["as_html", "as_json", "illustrated", "markdown"]

_MARKS = {
    Verdict.HOLDS: "✔",
    Verdict.APPROXIMATELY: "≈",
    Verdict.SEED: "⚄",
    Verdict.SIGN: "±",
    Verdict.FAILS: "✘",
}


def markdown(
    judged: Sequence[tuple[Claim, Finding]], evidence: Evidence, setting: dict[str, Any]
) -> str:
    """The report: the setting, all verdicts at a glance, then claim by claim."""
    counts = Counter(finding.verdict for _, finding in judged)
    lines = [
        "# The paper's claims, measured",
        "",
        "*Structured Knowledge Accumulation: The Principle of Entropic Least Action* (B. Mahi,",
        "arXiv:2504.03214) reads the learning rate of a forward-only rule as a time step. This report",
        f"holds {len(judged)} of its claims against simulations of the rule as it was published, and of",
        "the differential equation dW/dt = -∇H that the rule discretises.",
        "",
        "**Setting.** " + _setting(evidence, setting),
        "",
        "**Verdicts** follow from the numbers by the rule stated with each claim: "
        + ", ".join(f"{counts[v]} {v} ({_MARKS[v]})" for v in Verdict)
        + ".",
        "",
        "| | claim | verdict |",
        "|---|---|---|",
        *(
            f"| {claim.number} | [{claim.title}](#claim-{claim.number}) |"
            f" {_MARKS[finding.verdict]} {_verdict(finding)} |"
            for claim, finding in judged
        ),
        "",
        "**How to read it.** *Discrete* is the published rule; η = 0.01, K = 50 where no other is named.",
        "*Continuous* is the limit η → 0. A value with a range, as in 28.3 (26.9 to 30.1), is a median with",
        f"the 5 % and 95 % quantiles over {len(evidence.seeds)} random initialisations. ‖·‖ is the",
        "Frobenius norm of a layer over all samples and neurons; entropies are summed over both.",
        "",
    ]
    for claim, finding in judged:
        lines += [
            f'<a id="claim-{claim.number}"></a>',
            "",
            f"## {claim.number}. {claim.title}",
            "",
            f"{_MARKS[finding.verdict]} **{_verdict(finding)}**",
            "",
            f"- **The paper** ({claim.place}): {claim.says}",
            f"- **Discrete**: {finding.discrete}.",
            f"- **Continuous**: {finding.continuous}.",
            f"- **Why**: {finding.why}",
            f"- *Rule*: {claim.rule}.",
            "",
        ]
    return "\n".join(lines)


def illustrated(report: str, figures: Mapping[int, Sequence[str]]) -> str:
    """The Markdown report with the figures of each claim, by their files' names, under its verdict."""

    def shown(found: re.Match[str]) -> str:
        files = figures.get(int(found[1]), ())
        return found[0] + "".join(f"![{Path(f).stem.replace('_', ' ')}]({f})\n\n" for f in files)

    return re.sub(r"^## (\d+)\. .*\n\n.*\n\n", shown, report, flags=re.MULTILINE)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>The paper's claims, measured</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
td, th { text-align: left; padding: 0.2rem 1rem 0.2rem 0; vertical-align: top; }
img { max-width: 100%; }
h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }
</style>
</head>
<body>
BODY</body>
</html>
"""


def as_html(report: str) -> str:
    """A report in Markdown as a page for a browser."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    return _PAGE.replace("BODY", markdown.render(report))


def as_json(
    judged: Sequence[tuple[Claim, Finding]], evidence: Evidence, setting: dict[str, Any]
) -> str:
    """Every claim with its rule, measurements, verdict and reason."""
    entries = [
        {
            "number": claim.number,
            "title": claim.title,
            "place": claim.place,
            "says": claim.says,
            "rule": claim.rule,
            "verdict": str(finding.verdict),
            "margin": finding.margin if finding.verdict is Verdict.APPROXIMATELY else "",
            "why": finding.why,
            "discrete": finding.discrete,
            "continuous": finding.continuous,
            "numbers": _plain(finding.numbers),
        }
        for claim, finding in judged
    ]
    about = {**setting, "seeds": list(evidence.seeds), "T": T, "K": list(STEPS)}
    return json.dumps({"setting": about, "claims": entries}, indent=1, ensure_ascii=False) + "\n"


def _setting(evidence: Evidence, setting: dict[str, Any]) -> str:
    samples, inputs = evidence.x.shape
    widths = "-".join(str(n) for n in (inputs, *(D.shape[-1] for D in evidence.reference.final.D)))
    return (
        f"The network {widths}, W ~ N(0, 0.01²), b = 0; one batch of {samples} MNIST images, the first 100"
        f" of each class; T = {T}; {setting['precision']}, on {setting['device']}; skajax"
        f" {setting['skajax_version']}, jax {setting['jax_version']}, diffrax"
        f" {setting['diffrax_version']}."
    )


def _verdict(finding: Finding) -> str:
    if finding.verdict is Verdict.APPROXIMATELY:
        return f"{finding.verdict} ({finding.margin})"
    return str(finding.verdict)


def _plain(value: Any) -> Any:
    """The same in JSON's own types; infinities and NaN, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return _plain(np.asarray(value).tolist())
