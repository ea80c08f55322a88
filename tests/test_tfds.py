"""Sets that TensorFlow Datasets prepares on disk here, read back by skajax."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import skajax as ska

SHAPE = (2, 4, 3)
NAMES = ["ant", "bee", "cat"]
# Unequal classes, mixed, so that no order comes about by itself.
LABELS = {"train": [2, 0, 1, 0, 2, 2, 1, 0, 2, 0, 1, 2, 1, 0, 2], "test": [1, 0, 2]}


def picture(split, number):
    seed = list(LABELS).index(split)
    return np.random.default_rng([seed, number]).integers(0, 256, SHAPE, dtype=np.uint8)


def features(image=(1, 1, 1), dtype=np.uint8, classes=("only",), **others):
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=image, dtype=dtype),
            "label": tfds.features.ClassLabel(names=classes),
            **others,
        }
    )


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.3")
    FEATURES = features()

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=self.FEATURES)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train")}

    def _generate_examples(self, split):
        raise AssertionError("A set that cannot be read must not be prepared.")


class SkajaxAnimals(_Builder):
    """An ordinary set, with a feature that nobody asks for."""

    FEATURES = features(SHAPE, classes=NAMES, number=np.int64)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in LABELS}

    def _generate_examples(self, split):
        for number, label in enumerate(LABELS[split]):
            yield number, {"image": picture(split, number), "label": label, "number": number}


class SkajaxRagged(_Builder):
    """Images of two sizes."""

    FEATURES = features((None, None, 1))

    def _generate_examples(self, split):
        for number in range(4):
            yield number, {"image": np.zeros((3 + number % 2, 5, 1), np.uint8), "label": 0}


class SkajaxUnlabelled(_Builder):
    """An image without a label, which TensorFlow Datasets writes as -1."""

    def _generate_examples(self, split):
        yield 0, {"image": np.zeros((1, 1, 1), np.uint8), "label": -1}


class SkajaxRegression(_Builder):
    """A label that is no class."""

    FEATURES = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(1, 1, 1)), "label": np.float32}
    )


class SkajaxDeep(_Builder):
    """Images of 16 bits."""

    FEATURES = features(dtype=np.uint16)


class SkajaxOffline(_Builder):
    """A set whose source cannot be reached: nothing listens on port 9 of this machine."""

    def _split_generators(self, dl_manager):
        dl_manager.download("http://127.0.0.1:9/images.zip")


class SkajaxHuge(_Builder):
    """A set that fills the disk."""

    def _generate_examples(self, split):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which skajax itself has had the set of animals prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    ska.data.tfds("skajax_animals", data_dir=folder)
    return folder


def records(folder, split):
    """Numbers and labels in the order of the records, as TensorFlow Datasets reads them."""
    source = SkajaxAnimals(data_dir=folder).as_data_source(split)
    return [(int(record["number"]), int(record["label"])) for record in source]


def expected(folder, split, per_class=None):
    """Rows and labels, class by class, from the images as they were before they were prepared."""
    order = records(folder, split)
    chosen = [
        number
        for label in range(len(NAMES))
        for number in [number for number, of in order if of == label][:per_class]
    ]
    x = np.stack([picture(split, number).reshape(-1) for number in chosen])
    return x.astype(np.float32) / np.float32(255), [LABELS[split][number] for number in chosen]


def test_a_set_that_is_not_there_is_prepared_as_array_record(folder):
    files = sorted(path.name for path in (folder / "skajax_animals" / "1.2.3").iterdir())
    assert "skajax_animals-train.array_record-00000-of-00001" in files
    assert "skajax_animals-test.array_record-00000-of-00001" in files


@pytest.mark.parametrize(
    ("split", "per_class"),
    [("train", None), ("train", 1), ("train", 2), ("train", 4), ("test", None), ("test", 1)],
)
def test_images_come_class_by_class_in_the_order_of_the_records(folder, split, per_class):
    x, y = ska.data.tfds("skajax_animals", split=split, per_class=per_class, data_dir=folder)
    rows, labels = expected(folder, split, per_class)
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    np.testing.assert_array_equal(x, rows)
    np.testing.assert_array_equal(y, labels)


def test_no_image_is_lost_or_read_twice(folder):
    _, y = ska.data.tfds("skajax_animals", data_dir=folder)
    np.testing.assert_array_equal(np.bincount(y), np.bincount(LABELS["train"]))
    assert sorted(number for number, _ in records(folder, "train")) == list(range(len(y)))


def test_the_split_is_train_unless_named(folder):
    x, y = ska.data.tfds("skajax_animals", data_dir=folder)
    rows, labels = expected(folder, "train")
    np.testing.assert_array_equal(x, rows)
    np.testing.assert_array_equal(y, labels)


def test_a_part_of_a_split_is_that_part_of_its_records(folder):
    _, y = ska.data.tfds("skajax_animals", split="train[:40%]", data_dir=str(folder))
    first = [label for _, label in records(folder, "train")[:6]]
    np.testing.assert_array_equal(y, sorted(first))


def test_batches_of_records_do_not_show(folder, monkeypatch):
    monkeypatch.setattr(sys.modules["skajax.data._tfds"], "_BATCH", 4)
    x, _ = ska.data.tfds("skajax_animals", data_dir=folder)
    np.testing.assert_array_equal(x, expected(folder, "train")[0])


def test_the_order_is_the_same_wherever_the_set_is_prepared(folder, tmp_path):
    x, y = ska.data.tfds("skajax_animals:1.2.3", data_dir=tmp_path)
    again = ska.data.tfds("skajax_animals:1.2.3", data_dir=folder)
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(y, again[1])


def without_tensorflow(code, *arguments):
    """What a fresh interpreter prints that finds neither TensorFlow nor importlib_resources."""
    absent = """
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.split(".")[0] in ("tensorflow", "importlib_resources")
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
"""
    done = subprocess.run(
        [sys.executable, "-c", absent + code, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_reading_needs_no_tensorflow(folder):
    code = """
import json
import skajax as ska

x, y = ska.data.tfds("skajax_animals", per_class=4, data_dir=sys.argv[1])
loaded = [name for name in ("tensorflow", "importlib_resources") if name in sys.modules]
print(json.dumps([x.tolist(), y.tolist(), loaded]))
"""
    x, y, loaded = without_tensorflow(code, folder)
    rows, labels = expected(folder, "train", 4)
    np.testing.assert_array_equal(np.array(x, np.float32), rows)
    assert y == labels
    assert loaded == []


def test_preparing_without_tensorflow_says_what_to_install(tmp_path):
    code = """
import json
import skajax as ska

try:
    ska.data.tfds("mnist", data_dir=sys.argv[1])
except ImportError as error:
    print(json.dumps([str(error), error.name]))
"""
    message, name = without_tensorflow(code, tmp_path)
    assert name == "tensorflow"
    assert f"to prepare mnist, which {tmp_path} does not hold" in message
    assert 'pip install "skajax[prepare]"' in message


@pytest.mark.parametrize("package", ["tensorflow_datasets", "array_record", "PIL"])
def test_a_missing_package_is_named_with_its_extra(folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'needs {package} .*pip install "skajax\[tfds\]"'):
        ska.data.tfds("skajax_animals", data_dir=folder)


def test_a_source_out_of_reach_is_a_connection_error(tmp_path, monkeypatch):
    # TensorFlow Datasets tries ten times, which takes minutes.
    monkeypatch.setattr("tensorflow_datasets.core.download.downloader.MAX_RETRIES", 0)
    with pytest.raises(ConnectionError, match="skajax_offline could not be downloaded"):
        ska.data.tfds("skajax_offline", data_dir=tmp_path)


def test_a_full_disk_is_an_os_error_that_names_the_folder(tmp_path):
    with pytest.raises(OSError, match=f"(?s)prepared in {tmp_path}.*No space left.*enough space"):
        ska.data.tfds("skajax_huge", data_dir=tmp_path)


def refusal(name, **options):
    with pytest.raises(ValueError) as refused:
        ska.data.tfds(name, **options)
    return str(refused.value)


@pytest.mark.parametrize(
    "name", ["no_such_set", "huggingface_mnist", "skajax_animals:9.9.9", "a b"]
)
def test_an_unknown_set_is_refused(folder, name):
    message = refusal(name, data_dir=folder)
    assert message.startswith("Argument name must name a set that data_dir holds or that")
    assert name in message or "9.9.9" in message


@pytest.mark.parametrize("split", ["validation", "train[", "train[:0]", "train[:1000]"])
def test_an_unknown_or_empty_split_is_refused(folder, split):
    message = refusal("skajax_animals", split=split, data_dir=folder)
    assert message.startswith("Argument split must name images that skajax_animals has, but ")
    assert split in message or "[:1000]" in message


def test_more_images_than_a_class_has_are_refused_with_that_class(folder):
    assert refusal("skajax_animals", per_class=5, data_dir=folder) == (
        "Argument per_class must be no more than every class holds, but it was 5, and class 1"
        " (bee) has 4 of them in skajax_animals's 'train'."
    )


@pytest.mark.parametrize("per_class", [0, -3, 1.5, True, "2"])
def test_a_bad_number_of_images_is_refused(untyped, folder, per_class):
    assert refusal("skajax_animals", per_class=per_class, data_dir=folder) == (
        f"Argument per_class must be None or a whole number, at least 1, but it was {per_class!r}."
    )


def test_images_of_two_sizes_are_refused(tmp_path):
    message = refusal("skajax_ragged", data_dir=tmp_path)
    assert message.startswith("Argument name must name a set of images of one size")
    assert "(3, 5, 1)" in message
    assert "(4, 5, 1)" in message


def test_an_image_without_a_label_is_refused(tmp_path):
    message = refusal("skajax_unlabelled", data_dir=tmp_path)
    assert message.startswith("Argument split must name images that all have a label")
    assert "has the label -1" in message


def test_a_set_that_does_not_classify_is_refused_before_it_is_prepared(tmp_path):
    message = refusal("skajax_regression", data_dir=tmp_path)
    assert message.startswith("Argument name must name an image classification set")
    assert not any(tmp_path.iterdir())


def test_images_of_more_than_eight_bits_are_refused_before_they_are_prepared(tmp_path):
    message = refusal("skajax_deep", data_dir=tmp_path)
    assert "must name a set of 8-bit images, but the pixels of skajax_deep are uint16" in message
    assert not any(tmp_path.iterdir())


def test_a_set_prepared_as_tfrecord_alone_is_refused(tmp_path):
    SkajaxAnimals(data_dir=tmp_path).download_and_prepare(file_format="tfrecord")
    message = refusal("skajax_animals", data_dir=tmp_path)
    assert message.startswith(
        "Argument data_dir must hold skajax_animals in a format with random access"
    )
    assert message.endswith("has it as tfrecord (in any other data_dir it is prepared anew).")
