"""Writes the page of the paper's claims: ``python docs/claims.py OUT``, OUT being that of ``reproduce``."""

import pathlib
import re
import sys

from PIL import Image

DOCS = pathlib.Path(__file__).parent
FIGURES = {
    1: ("figure_1_entropy", "convergence"),
    2: ("figure_2_cosine",),
    4: ("knowledge_history",),
    5: ("figure_4_flow", "flow_ensemble"),
    6: ("figure_3_flow_against_knowledge",),
    8: ("figure_5_tensor_net_against_knowledge", "tensor_net_ensemble"),
    10: ("figure_6_tensor_net",),
    14: ("lagrangian",),
    18: ("weight_history",),
    19: ("output_activation",),
}
"""Which figures stand beside which claims."""
WIDTH = 1100


def page(report: str) -> str:
    """The report, with the figures behind the verdicts."""

    def shown(found: re.Match[str]) -> str:
        names = FIGURES.get(int(found[1]), ())
        pictures = [f"![{name.replace('_', ' ')}](images/claims/{name}.png)" for name in names]
        return "\n\n".join([found[0].rstrip("\n"), *pictures]) + "\n\n"

    return re.sub(r"^## (\d+)\. .*\n\n.*\n\n", shown, report, flags=re.MULTILINE)


def main(out: pathlib.Path) -> None:
    """Write the page and its images."""
    images = DOCS / "images" / "claims"
    images.mkdir(exist_ok=True)
    for name in [name for names in FIGURES.values() for name in names]:
        picture = Image.open(out / "figures" / f"{name}.png").convert("RGB")
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        picture.quantize(128).save(images / f"{name}.png", optimize=True)
    (DOCS / "claims.md").write_text(page((out / "claims.md").read_text()))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
