"""Finds the network's tensors in a checkpoint: the state dict under its usual names, flattened."""
from __future__ import annotations

from dataclasses import dataclass

from gluon_ft.errors import WeightsError, near, printable
from gluon_ft.weights.readers.strided_tensors import Inline, Tensor

# Searched in this order; the first that holds tensors is taken. EMA weights come last: `key` asks for them.
USUAL_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params",
              "weights", "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")
# Put before every name by DataParallel and by torch.compile.
PREFIXES = ("module.", "_orig_mod.")
_DEEPEST = 16
_LONGEST_NAME = 500
_LONGEST_TEXT = 1000
_MOST_METADATA = 100_000
_NEVER = _MOST_METADATA + 1


@dataclass(frozen=True)
class Layout:
    """The tensors of a checkpoint by name, the key that they were under ('' for none), and the prefix removed."""

    tensors: dict[str, Tensor | Inline]
    key: str
    prefix: str
    metadata: dict


def find_state(content: object, key: str | None = None) -> Layout:
    """Finds the state dict in `content`.

    Parameters
    ----------
    content : object
        The pickled object: a state dict, or a checkpoint that has one under a usual key, perhaps several levels deep.
    key : str, optional
        Dotted keys of the state dict to take; default: see USUAL_KEYS.

    Raises
    ------
    WeightsError
        There is no state dict, there are several without a usual key, or `key` does not exist.
    """
    if not isinstance(content, dict):
        raise WeightsError("the file holds no state dict", expected="a dict of names and tensors",
                           found=f"a {printable(type(content).__name__)}",
                           remedy="save the weights by name: net.state_dict()")
    path, state = _asked(content, key) if key is not None else _usual(content)
    tensors = _flattened(state)
    if not tensors:
        raise WeightsError("the file holds no tensors" if not path else f"no tensors under {printable(path)}",
                           remedy="give a file of network weights")
    tensors, prefix = without_prefixes(tensors)
    return Layout(tensors, path, prefix, _metadata(content))


def _is_tensor(value) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, Inline) and value.array is not None)


def _holds_tensors(value) -> bool:
    return isinstance(value, dict) and any(_is_tensor(v) for v in value.values())


def _asked(content: dict, key: str) -> tuple[str, dict]:
    state = content
    for part in key.split("."):
        inner = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, dict)}
        if part not in inner:
            raise WeightsError(f"there is no state dict under '{printable(key)}'",
                               remedy=near(part, [printable(k, 40) for k in list(inner)[:100]]) if inner else None)
        state = inner[part]
    return key, state


def _usual(content: dict, path: tuple[str, ...] = ()) -> tuple[str, dict]:
    """The state dict under the first usual key; else `content` itself, or the only dict in it that holds tensors."""
    for name in USUAL_KEYS:
        if len(path) < 3 and isinstance(content.get(name), dict) and _somewhere(content[name]):
            return _usual(content[name], (*path, name))
    if path or _holds_tensors(content):
        return ".".join(path), content
    inner = [k for k, v in _dicts(content).items() if "optim" not in k and _holds_tensors(v)]
    if len(inner) > 1:
        raise WeightsError("the file holds several state dicts", found=", ".join(printable(k, 40) for k in inner[:8]),
                           remedy="name the one to take")
    return (inner[0], content[inner[0]]) if inner else ("", content)


def _dicts(content: dict) -> dict[str, dict]:
    """The dicts in a dict by name, each only once: a pickle can put the same one under a hundred thousand names."""
    found = {id(v): (k, v) for k, v in content.items() if isinstance(k, str) and isinstance(v, dict)}
    return dict(found.values())


def _somewhere(content: dict) -> bool:
    """Whether a dict holds a tensor, directly or up to two dicts deeper."""
    level = [content]
    for _ in range(3):
        if any(_holds_tensors(d) for d in level):
            return True
        level = list({id(v): v for d in level for v in _dicts(d).values()}.values())
    return False


def _flattened(state: dict) -> dict[str, Tensor | Inline]:
    """The tensors of nested dicts, names joined by dots. A dict met twice is refused: sharing can nest without end."""
    tensors, seen, waiting = {}, set(), [("", state, 0)]
    while waiting:
        before, current, depth = waiting.pop()
        if id(current) in seen or depth > _DEEPEST:
            raise WeightsError("the state dict contains itself, or the same part twice")
        seen.add(id(current))
        for name, value in current.items():
            inner = isinstance(value, dict) and isinstance(name, str) and "optim" not in name
            if not inner and not _is_tensor(value):
                continue
            full = before + name if isinstance(name, str) else None
            if not full or len(full) > _LONGEST_NAME:
                raise WeightsError(f"a tensor's name is {printable(name)}",
                                   expected=f"text of at most {_LONGEST_NAME} characters")
            if inner:
                waiting.append((full + ".", value, depth + 1))
            elif full in tensors:
                raise WeightsError(f"two tensors are named {printable(full)}")
            else:
                tensors[full] = value
    return tensors


def without_prefixes(tensors: dict) -> tuple[dict, str]:
    """`tensors` without those `PREFIXES` that all names share, and what was removed."""
    removed, again = "", True
    while again:
        again = False
        for prefix in PREFIXES:
            if tensors and all(name.startswith(prefix) and name != prefix for name in tensors):
                tensors = {name[len(prefix):]: value for name, value in tensors.items()}
                removed, again = removed + prefix, True
    return tensors, removed


def _metadata(content: dict) -> dict:
    """Small values beside the state dict: epoch, best accuracy, class names, the training script's options.

    A tensor of one value stays a Tensor. Lists and dicts are kept up to two levels deep, with 100,000 values in all.
    """
    kept, left, refused = {}, _MOST_METADATA, set()
    for name, value in content.items():
        cost = _cost(value, 2, left, refused) if isinstance(name, str) and len(name) <= _LONGEST_NAME else _NEVER
        if cost <= left:
            kept[name], left = _plain(value), left - cost
    return kept


def _cost(value, depth: int, left: int, refused: set[int]) -> int:
    """The number of values in `value`; _NEVER if it is not small and plain, or has more than `left` values.

    refused : ids of lists and dicts that were refused, so that none is searched twice
    """
    if value is None or type(value) in (bool, int, float) or (isinstance(value, Tensor) and value.count == 1):
        return 1
    if type(value) is str:
        return 1 if len(value) <= _LONGEST_TEXT else _NEVER
    if not isinstance(value, (list, tuple, dict)) or not depth or len(value) > left or id(value) in refused:
        return _NEVER
    total = 1 if not isinstance(value, dict) or all(type(k) in (str, int) for k in value) else _NEVER
    for inner in value.values() if isinstance(value, dict) else value:
        if total > left:
            break
        total += _cost(inner, depth - 1, left - total, refused)
    if total > left:
        refused.add(id(value))
    return total if total <= left else _NEVER


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
