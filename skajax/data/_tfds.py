"""Image classification sets of TensorFlow Datasets, read without TensorFlow."""

import os
import urllib.error
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from skajax._checks import require
from skajax._extras import take
from skajax.data._labelled import Labelled, labelled, require_whole

Image: TypeAlias = UInt8[np.ndarray, "height width channels"]

# Records read at once: TensorFlow Datasets reads a batch several times faster than one by one.
_BATCH = 1000


def tfds(
    name: str,
    *,
    split: str = "train",
    per_class: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Labelled:
    """Images and labels of a TensorFlow Datasets set, such as "mnist" or "fashion_mnist".

    A set that ``data_dir`` holds already is read without TensorFlow and without a network:
    ``pip install "skajax[tfds]"``. One that it does not hold is first downloaded and prepared
    there, in the format array_record, which needs TensorFlow: ``pip install "skajax[prepare]"``.

    Order: class by class, 0, 1, ..., and within a class as in the records of the prepared set.
    TensorFlow Datasets shuffles the records when it prepares a set, always in the same way, so one
    version of a set (``name="mnist:3.0.1"`` names it) has one order on every machine. The images
    of any ``per_class`` are the first ones, class by class, of any larger one.

    Args:
        name: The set's name, with configuration and version if wanted: "emnist/letters:3.1.0".
        split: The set's split, "train" or "test" in most, or a part of it: "train[:10%]".
        per_class: Images of each class, the same number of all; None takes every image there is,
            in the same order, however many a class has.
        data_dir: Folder of the prepared sets; None is TensorFlow Datasets' own, which is
            ``$TFDS_DATA_DIR`` or else ``~/tensorflow_datasets``.

    Returns:
        ``(x, y)``: images x, float32 of shape (samples, height * width * channels), each a row of
        pixels from the top left, line by line, channels innermost, pixel / 255 in [0, 1]; and
        labels y, int32 of shape (samples,), from 0 to classes - 1. With ``per_class``, samples is
        classes * per_class.

    Raises:
        ValueError: The set or split is unknown; the set does not classify 8-bit images; its images
            differ in size; it has images without a label; a class has fewer than ``per_class``
            images; or ``data_dir`` holds the set in a format without random access (tfrecord).
        ImportError: A package is missing; the message names the extra that has it.
        ConnectionError: The set has to be prepared and could not be downloaded, which TensorFlow
            Datasets tries for some minutes.
        OSError: The set has to be prepared and could not be written, as on a full disk.

    >>> x, y = ska.data.tfds("fashion_mnist", per_class=100)  # doctest: +SKIP
    """
    if per_class is not None:
        require_whole("per_class", per_class, "be None or a whole number, at least 1")
    _import("to read a set", "tfds", "tensorflow_datasets", "array_record", "PIL")
    folder = None if data_dir is None else os.path.expanduser(data_dir)
    builder = _builder(name, folder)
    _require_image_classification(builder)
    if not builder.is_prepared():
        _import_for_preparing(name, folder)
        _prepare(builder)
    classes = _choose(builder, split, per_class)
    images = [image for chosen in classes for image in chosen]
    return labelled(np.stack(images), [len(chosen) for chosen in classes])


def _import(purpose: str, extra: str, *packages: str) -> None:
    # TensorFlow Datasets imports its own dependencies only where it uses them, so that without
    # this a missing one would surface deep inside it, and half way through the work.
    for package in packages:
        take(f"skajax.data.tfds, {purpose},", extra, package)


def _import_for_preparing(name: str, folder: str | None) -> None:
    where = "TensorFlow Datasets' own folder" if folder is None else folder
    purpose = f"to prepare {name}, which {where} does not hold"
    _import(purpose, "prepare", "tensorflow", "importlib_resources")


def _builder(name: str, folder: str | None) -> Any:
    import tensorflow_datasets as datasets
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    reason = ""
    # The files come first: they describe themselves, whereas the code that makes a set may need
    # TensorFlow to do so, and may be of another version.
    for find in (builder_from_files, datasets.builder):
        try:
            return find(name, data_dir=folder)
        except DatasetNotFoundError:
            reason = f"{name!r} is neither"
        except (ValueError, AssertionError) as error:  # No such configuration or version.
            reason = str(error).rstrip(".\n")
            break
        except ImportError:
            _import_for_preparing(name, folder)
            raise
    require(
        False,
        "name",
        "name a set that data_dir holds or that https://www.tensorflow.org/datasets/catalog lists",
        reason,
    )


def _require_image_classification(builder: Any) -> None:
    import tensorflow_datasets as datasets

    features = builder.info.features
    kinds = {"image": datasets.features.Image, "label": datasets.features.ClassLabel}
    require(
        isinstance(features, datasets.features.FeaturesDict)
        and all(key in features and isinstance(features[key], kinds[key]) for key in kinds),
        "name",
        "name an image classification set, with an Image 'image' and a ClassLabel 'label'",
        f"{builder.name} has the features {features!r}",
    )
    dtype = np.dtype(builder.info.features["image"].np_dtype)
    require(
        dtype == np.uint8,
        "name",
        "name a set of 8-bit images",
        f"the pixels of {builder.name} are {dtype}",
    )


def _prepare(builder: Any) -> None:
    import requests
    import tensorflow_datasets as datasets

    try:
        # Google's bucket of prepared sets has tfrecord files only.
        builder.download_and_prepare(
            file_format="array_record",
            download_config=datasets.download.DownloadConfig(try_download_gcs=False),
        )
    except (
        datasets.download.DownloadError,
        requests.RequestException,
        urllib.error.URLError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise ConnectionError(
            f"{builder.name} could not be downloaded: {error}. Without a network, copy"
            f" {builder.data_dir} from a machine that has prepared the set."
        ) from error
    except OSError as error:
        raise OSError(
            f"{builder.name} could not be prepared in {builder.data_dir}: {error}."
            " Give data_dir a folder with enough space."
        ) from error


def _choose(builder: Any, split: str, per_class: int | None) -> list[list[Image]]:
    """The images of each class, in the order of the records, ``per_class`` of each or all."""
    image, label = builder.info.features["image"], builder.info.features["label"]
    classes: list[list[Image]] = [[] for _ in range(label.num_classes)]
    short = set(range(label.num_classes))
    shape = None
    for number, (encoded, index) in enumerate(_records(builder, split)):
        require(
            0 <= index < label.num_classes,
            "split",
            "name images that all have a label",
            f"record {number} of {builder.name}'s {split!r} has the label {index}",
        )
        if index not in short:
            continue
        pixels = image.decode_example_np(encoded)
        shape = shape or pixels.shape
        require(
            pixels.shape == shape,
            "name",
            "name a set of images of one size, (height, width, channels)",
            f"{builder.name} has {shape} and {pixels.shape}",
        )
        classes[index].append(pixels)
        if len(classes[index]) == per_class:
            short.remove(index)
        if not short:
            return classes
    if per_class is not None:
        least = min(short, key=lambda index: len(classes[index]))
        require(
            False,
            "per_class",
            "be no more than every class holds",
            f"it was {per_class}, and class {least} ({label.int2str(least)}) has"
            f" {len(classes[least])} of them in {builder.name}'s {split!r}",
        )
    return classes


def _records(builder: Any, split: str) -> Iterator[tuple[bytes, int]]:
    """The encoded image and the label of every record, in the order of the files."""
    import tensorflow_datasets as datasets

    _require_random_access(builder)
    _require_split(builder, split)
    # Images that are not wanted need no decoding, which is most of the work.
    source = builder.as_data_source(split, decoders={"image": datasets.decode.SkipDecoding()})
    for start in range(0, len(source), _BATCH):
        batch = range(start, min(start + _BATCH, len(source)))
        for record in source.__getitems__(batch):
            yield record["image"], int(record["label"])


def _require_random_access(builder: Any) -> None:
    from tensorflow_datasets.core.file_adapters import FileFormat

    formats = builder.info.available_file_formats()
    found = ", ".join(sorted(entry.value for entry in formats))
    require(
        not formats.isdisjoint(FileFormat.with_random_access()),
        "data_dir",
        f"hold {builder.name} in a format with random access, such as array_record",
        f"{builder.data_dir} has it as {found} (in any other data_dir it is prepared anew)",
    )


def _require_split(builder: Any, split: str) -> None:
    reason = f"{split!r} has none"
    try:
        images = builder.info.splits[split].num_examples
    except ValueError as error:
        images, reason = 0, str(error).rstrip(".\n")
    require(images >= 1, "split", f"name images that {builder.name} has", reason)
