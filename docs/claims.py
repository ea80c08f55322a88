"""Writes the page of the paper's claims: ``python docs/claims.py OUT``, OUT being that of ``reproduce``."""

import pathlib
import sys

from PIL import Image

from skajax.study.figures import BESIDE
from skajax.study.report import illustrated

DOCS = pathlib.Path(__file__).parent
WIDTH = 1100


def main(out: pathlib.Path) -> None:
    """Write the page and its images."""
    images = DOCS / "images" / "claims"
    images.mkdir(exist_ok=True)
    for name in [name for names in BESIDE.values() for name in names]:
        picture = Image.open(out / "figures" / f"{name}.png").convert("RGB")
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        picture.quantize(128).save(images / f"{name}.png", optimize=True)
    files = {
        claim: [f"images/claims/{name}.png" for name in names] for claim, names in BESIDE.items()
    }
    report = illustrated((out / "claims.md").read_text(), files)
    (DOCS / "claims.md").write_text(report)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
