"""A network and its final state, as a file has them: skajax's layers by their fields, others by repr."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from skajax import layers
from skajax._checks import require
from skajax._fingerprint import fingerprint, without_addresses
from skajax.layers._layer import reads_integers
from skajax.network import Network
from skajax.system import State


@dataclasses.dataclass(frozen=True)
class UnknownLayer:
    """A layer of a file that skajax does not have: what the file says of it."""

    entry: str
    """The file's own entry, JSON."""

    def init(self, key: Any, x: Any) -> NoReturn:
        """Refused: nobody knows how."""
        self._refuse()

    def knowledge(self, weights: Any, x: Any) -> NoReturn:
        """Refused: nobody knows how."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"Argument network must hold layers that can compute, but {self!r} is all that a file"
            " knows of one of them: load(path, network=...) takes the network itself."
        )

    def __repr__(self) -> str:
        found = json.loads(self.entry)
        text = found.get("repr") if isinstance(found, dict) else None
        return self.entry if text is None else str(text)


def told(network: Network) -> str:
    """The network as text that :func:`network` reads."""
    return json.dumps([_told(layer) for layer in network.layers])


def network(text: str, given: Network | None) -> Network:
    """The network of a file; the one that is ``given`` in its place, if it can be the same."""
    found = Network(tuple(_layer(entry) for entry in json.loads(text)))
    if given is None:
        return found
    pairs = zip(given.layers, found.layers, strict=False)
    same = all(_same(layer, read) for layer, read in pairs)
    require(
        same and len(given.layers) == len(found.layers),
        "network",
        f"be that of the file, {found}",
        lambda: f"it was {given}",
    )
    return given


def leaf_names(final: State) -> list[str]:
    """What the arrays of a final state are called, in the order of its leaves; no two alike."""
    names: list[str] = []
    for path, _ in jax.tree.leaves_with_path(final):
        name = "final_" + jax.tree_util.keystr(path, simple=True, separator="_").replace("/", "_")
        while name in names:  # {"a_b": ...} beside {"a": {"b": ...}}
            name += "_"
        names.append(name)
    return names


def final(
    arrays: Mapping[str, jax.Array],
    network: Network,
    inputs: Sequence[int] | None,
    argument: str = "network",
) -> State:
    """The state at the end of a run of this network, from arrays by their names.

    ``inputs`` is the shape of one sample; None if the file does not say.
    """
    one = jax.ShapeDtypeStruct((), jnp.float32)
    rows = sum(1 for name in arrays if name.startswith("final_Z_"))
    known = not any(isinstance(layer, UnknownLayer) for layer in network.layers)
    if known and inputs is not None:
        weights = _made(arrays, network, inputs, argument)
    else:
        found = []
        for n, layer in enumerate(network.layers):
            # Of W, (inputs, outputs), one can tell it too.
            first = inputs or arrays.get("final_weights_0_W", one).shape[-2:-1] or (1,)
            # Below a layer lie its neighbour's decisions; stages between them may change their shape.
            below = arrays.get(f"final_D_{n - 1}", one).shape[arrays["steps"].ndim + 1 :] or (1,)
            own = below if n else first
            found.append(_weights(arrays, n, layer, jax.ShapeDtypeStruct((1, *own), one.dtype)))
        weights = tuple(found)
    structure: Any = State(one, weights, (one,) * rows, (one,) * rows)  # pyright: ignore[reportArgumentType]
    return jax.tree.unflatten(
        jax.tree.structure(structure), [arrays[name] for name in leaf_names(structure)]
    )


def _made(
    arrays: Mapping[str, jax.Array], network: Network, inputs: Sequence[int], argument: str
) -> Any:
    """What the network makes of inputs of this shape, if that has the arrays of the file."""
    dtype = jnp.int32 if reads_integers(network.layers[0]) else jnp.float32
    # As many samples as there were: a layer may have an array for each.
    known = arrays.get("final_Z_0")
    samples = 1 if known is None else known.shape[arrays["steps"].ndim]
    x = jax.ShapeDtypeStruct((samples, *inputs), dtype)
    made = _initial(network, "its", x)
    for n, entry in enumerate(made):
        there = _shapes(_arrays_of(arrays, n), arrays)
        # Where a file lacks some, the lookup by their names tells which.
        if argument == "network" or len(there) >= len(jax.tree.leaves(entry)):
            must = "make the weights of the file" if argument == "network" else "hold a whole run"
            _require_shapes(entry, there, n, argument, must)
    return made


def _weights(arrays: Mapping[str, jax.Array], n: int, layer: Any, x: jax.ShapeDtypeStruct) -> Any:
    """What has the structure of a layer's weights, for inputs like x."""
    own, found = f"final_weights_{n}", _arrays_of(arrays, n)
    by_name = 0 if own in found else {name.removeprefix(f"{own}_"): 0 for name in found}
    if isinstance(layer, UnknownLayer) or own in found:
        return by_name
    try:
        made = _initial(layer, f"its layer {n + 1}'s", x)
    except ValueError:
        if type(layer) in vars(layers).values():
            return by_name  # x is a guess where another layer is unknown
        raise
    if type(layer) not in vars(layers).values():
        there = _shapes(found, arrays)
        _require_shapes(made, there, n, "network", "make the weights of the file")
    return made


def _arrays_of(arrays: Mapping[str, jax.Array], n: int) -> dict[str, jax.Array]:
    """The weights of one layer or stage, by their names in the file."""
    own = f"final_weights_{n}_"
    return {name: array for name, array in arrays.items() if f"{name}_".startswith(own)}


def _shapes(found: Mapping[str, jax.Array], arrays: Mapping[str, jax.Array]) -> list[Any]:
    """Their shapes in one lane, in order."""
    lanes = arrays["steps"].ndim
    return sorted(array.shape[lanes:] for array in found.values())


def _initial(maker: Any, whose: str, x: jax.ShapeDtypeStruct) -> Any:
    """Shapes of the initial weights that a network, or a layer, makes for inputs like x."""
    try:
        return jax.eval_shape(maker.init, jax.random.key(0), x)
    except Exception as error:
        raise ValueError(
            f"Argument network must make the weights of the file, but {whose} init raised {error!r}"
            f" for inputs of shape {x.shape}."
        ) from error


def _require_shapes(made: Any, there: list[Any], n: int, argument: str, must: str) -> None:
    shapes = [leaf.shape for leaf in jax.tree.leaves(made)]
    require(
        sorted(shapes) == there,
        argument,
        must,
        f"its layer {n + 1} makes arrays of {shapes}, and there they are of {there}",
    )


def _same(layer: Any, read: Any) -> bool:
    """Whether a layer can be what was read of a file, as far as the file tells."""
    if isinstance(read, UnknownLayer):
        return _fits(_told(layer), json.loads(read.entry))
    return bool(read == layer)


def _fits(given: Any, entry: Any) -> bool:
    """Whether a layer, or a field of one, as :func:`_told` has it, fits what the file has of it."""
    if not isinstance(entry, dict):
        return given == entry
    if entry["type"] != "array" and not hasattr(layers, entry["type"]):
        return True  # a layer of the user's own, of which only the name and the repr are told
    fields = given if isinstance(given, dict) else {}
    return all(name in fields and _fits(fields[name], entry[name]) for name in entry)


def _told(value: Any) -> Any:
    """A layer, perhaps with another in it, as JSON has it; of an array, what tells it from others."""
    if isinstance(value, jax.Array | np.ndarray):
        told = {"shape": list(value.shape), "dtype": str(value.dtype)}
        return {"type": "array"} | told | {"digest": fingerprint(value)}
    kind = type(value)
    if getattr(layers, kind.__name__, None) is kind:
        fields = {name: _told(field) for name, field in vars(value).items()}
        return {"type": kind.__name__} | fields
    if isinstance(value, UnknownLayer):
        return json.loads(value.entry)
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, tuple):
        return [_told(entry) for entry in value]
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "repr": without_addresses(repr(value))}


def _layer(entry: Any) -> Any:
    """A layer, or a field of one; an :class:`UnknownLayer` where any of it is not skajax's."""
    if isinstance(entry, list):
        return tuple(map(_layer, entry))
    if not isinstance(entry, dict):
        return entry
    kind = getattr(layers, entry["type"], None)
    fields = {name: _layer(value) for name, value in entry.items() if name != "type"}
    parts = [
        part for field in fields.values() for part in (field if type(field) is tuple else (field,))
    ]
    if kind is None or any(isinstance(part, UnknownLayer) for part in parts):
        return UnknownLayer(json.dumps(entry))
    return kind(**fields)
