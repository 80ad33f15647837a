"""What batches have of the fields of a store: as asked for, or as a checkpoint has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning_app.batch import BATCH_KEYS
from lightning_app.data.batches.fields import FieldUse
from lightning_app.data.columns.meaning import Meaning, agreed
from lightning_app.data.options import DataOptions
from zstore import FieldReader, Store, UsageError, observed_key

_IMAGE_AXES = ("y", "x", "colour")


def field_readers(store: Store, options: DataOptions, recorded: Meaning | None) -> dict[str, FieldReader]:
    """By name, what decodes the fields that batches have.

    Raises
    ------
    NotFoundError
        If the store has no such field.
    """
    names = options.fields if recorded is None else recorded.fields
    return {name: FieldReader.of(store, name) for name in names}


def field_uses(
    readers: Mapping[str, FieldReader], options: DataOptions, recorded: Meaning | None
) -> dict[str, FieldUse]:
    """By name, what batches have of fields.

    Raises
    ------
    UsageError
        If rows are not as was asked for, or a checkpoint has something else.
    """
    asked, lookback = options.fields, options.window.lookback
    if recorded is not None:
        uses = {name: FieldUse.from_json(use, recorded.crops.get(name)) for name, use in recorded.fields.items()}
        wanted = {name: options.rows for name, options in asked.items()}
        if asked and wanted != (known := {name: use.steps for name, use in uses.items()}):
            agreed("fields", *([f"{name} ({use})" for name, use in each.items()] for each in (wanted, known)))
    else:
        uses = {name: FieldUse.of(readers[name], options, lookback) for name, options in asked.items()}
    for name in (BATCH_KEYS | set(map(observed_key, uses))).intersection(uses):
        raise UsageError(f"a field called {name!r}", expected="a name that no other part of a batch has")
    return uses


def refuse_in_panel(fields: Mapping[str, FieldUse], vectors: Iterable[str]) -> None:
    """Raise UsageError if a panel is to have fields, or vectors on steps of their own."""
    for what, names in (("fields", list(fields)), ("vectors", list(vectors))):
        if names:
            raise UsageError(
                f"{what} ({', '.join(names)}) of a panel",
                expected="windows of single series",
                fix=f"leave out --data.panel or --data.{what}",
            )


def axes_of(store: Store, name: str) -> list[str]:
    """Names of the axes of a field's rows, such as ``y``, ``x``, ``colour``; encoded images are stored without any."""
    field = store.field(name)
    if not field.dimensions:
        return list(_IMAGE_AXES[: len(FieldReader.of(store, name).shape)])
    return [axis.removeprefix(f"{field.variable}_") for axis in field.dimensions]
