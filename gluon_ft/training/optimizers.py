"""The optimiser's arrays by parameter, and the way back, so that no pickle (which could run code) is needed."""
from __future__ import annotations

from gluon_ft.errors import CheckpointError


def optimizer_state(updater, names: dict) -> dict:
    """A flat dict of an updater's arrays: 'parameter' or, where a parameter has several, 'parameter#0', ...

    names : the updater's key -> parameter; several keys of one parameter (its devices) have equal states.
    """
    flat = {}
    for key, value in updater.states.items():
        parts = {"": value} if not isinstance(value, (list, tuple)) else {f"#{i}": v for i, v in enumerate(value)}
        flat.update({f"{names[key]}{suffix}": part for suffix, part in parts.items() if part is not None})
    return flat


def restore_optimizer(updater, names: dict, flat: dict, weights: dict, updates: int) -> None:
    """Puts saved arrays back, and the number of updates, on which Adam's correction depends.

    weights : parameter -> array, from which the form of the state is made. Raises CheckpointError where the arrays
    are not those of this optimiser.
    """
    used = set()
    for key, name in names.items():
        if name not in weights:
            continue
        fresh = updater.optimizer.create_state_multi_precision(key, weights[name])
        several = isinstance(fresh, (list, tuple))
        wanted = {"": fresh} if not several else {f"#{i}": v for i, v in enumerate(fresh)}
        values = []
        for suffix, part in wanted.items():
            saved = flat.get(name + suffix)
            if (saved is None) != (part is None) or (part is not None and saved.shape != part.shape):
                raise CheckpointError(f"the optimiser's state of '{name}' does not fit", found=
                                      "none" if saved is None else saved.shape, remedy="train with the same optimiser")
            used.add(name + suffix)
            values.append(None if saved is None else saved.copy())
        updater.states[key] = tuple(values) if several else values[0]
        updater.states_synced[key] = False
    stray = set(flat) - used
    if stray:
        raise CheckpointError("the optimiser's state is another network's", found=sorted(stray)[0])
    updater.optimizer.begin_num_update = updater.optimizer.num_update = updates


def trainer_state(trainer, paths: dict) -> tuple[dict, dict]:
    """(arrays, counts) of a Gluon Trainer: its optimiser's arrays, and the updates of each parameter so far.

    paths : parameter's index in the trainer -> path. Devices have equal states; those of the first are taken.
    """
    updater = trainer._updaters[0]
    counts = {paths[index]: count for index, count in
              trainer._optimizer._all_index_update_counts.get(0, {}).items()}
    return optimizer_state(updater, paths), counts


def restore_trainer(trainer, paths: dict, arrays: dict, counts: dict) -> None:
    """The way back, on every device; CheckpointError where the arrays are not those of this optimiser."""
    known = {index: path for index, path in paths.items() if path in counts}
    for number, updater in enumerate(trainer._updaters):
        weights = {path: trainer._params[index].list_data()[number] for index, path in known.items()}
        placed = {name: array.as_in_context(next(iter(weights.values())).context) for name, array in arrays.items()}
        restore_optimizer(updater, known, placed, weights, max(counts.values(), default=0))
    optimizer = trainer._optimizer
    optimizer.begin_num_update = 0
    optimizer._all_index_update_counts = {number: {index: counts[path] for index, path in known.items()}
                                          for number in range(len(trainer._updaters))}
    optimizer._index_update_count = optimizer._all_index_update_counts[0]
