"""Packages that not every user needs: each comes with an extra of skajax's."""

import importlib
from types import ModuleType


def take(what: str, extra: str, module: str) -> ModuleType:
    """The module, which a part of skajax called ``what`` needs; an ImportError names its extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f'{what} needs {package} ({error}): pip install "skajax[{extra}]".', name=package
        ) from error
