"""``nd export --effects``: what ablations do to the network's classes, as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ndissect.store.errors import WrongUse
from ndissect.store.names import quoted

if TYPE_CHECKING:
    from ndissect.store.layer_view import LayerView
    from ndissect.store.reader import Store

#: How many values are written at a time.
_PIECE = 1 << 16


def export_effects(
    store: Store, views: Sequence[LayerView], format: Literal["csv", "json", "parquet"] | str, to: Path | None
) -> None:
    """Write the effects of ``views`` to ``to``, or to the standard output; WrongUse where none are in the store."""
    from ndissect.store.files import atomic, check_writable
    from ndissect.tui.cli.export import write_text
    from ndissect.tui.cli.output import emit, tell
    from ndissect.tui.tables.effects import effects_notes
    from ndissect.tui.tables.remarks import layer_notes

    known = [view for view in views if view.effects is not None]
    on_concepts = [view for view in views if view.concept_effects is not None]
    if known and on_concepts and format != "json":
        raise WrongUse(
            f"{store.path} holds effects on classes and on concepts, and a table has one kind",
            "export them with --format json, or name a layer",
        )
    if on_concepts and not known:
        _export_on_concepts(store, on_concepts, format, to)
        return
    if not known:
        name = quoted(views[-1].name if views else "LAYER", positional=True)
        raise WrongUse(f"{store.path} holds no effects of these layers", f"nd ablate {name} measures and adds them")
    if format == "json":
        write_text(to, _json(store, views) + "\n")
    elif format == "parquet":
        assert to is not None
        _parquet(to, store, known)
    elif to is None:
        for text in _csv(known):
            emit(text)
    else:
        check_writable(to, 1 << 20)
        with atomic(to) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(_csv(known))
        tell(f"wrote {to}")
    for line in (*layer_notes(views), *effects_notes(known)):
        tell(line)


def _csv(views: Sequence[LayerView]) -> Iterator[str]:
    """The table, a piece at a time."""
    from ndissect.tui.tables.effect_table import COLUMNS, effect_arrays

    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n")
    write.writerow(COLUMNS)
    for view in views:
        assert view.effects is not None
        some = max(_PIECE // max(view.effects.images.size, 1), 1)
        for start in range(0, len(view.effects.units), some):
            rows = np.arange(start, min(start + some, len(view.effects.units)))
            columns = [values.tolist() for values in effect_arrays(view, view.effects, rows).values()]
            write.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _json(store: Store, views: Sequence[LayerView]) -> str:
    from ndissect.tui.cli.output import json_text
    from ndissect.tui.tables.effect_table import effects_layer_json
    from ndissect.tui.tables.effects import has_classes
    from ndissect.tui.tables.unit_table import header

    named = store.classes
    classes = {"names": list(named.names), "named_by": named.source} if named else None
    layers = [
        effects_layer_json(view) | _on_concepts_json(view)
        for view in views
        if has_classes(view) or view.concept_effects is not None
    ]
    return json_text({**header(store, views), "classes": classes, "layers": layers})


def _parquet(to: Path, store: Store, views: Sequence[LayerView]) -> None:
    from ndissect.tui.tables.effect_table import COLUMNS, effect_arrays
    from ndissect.tui.tables.effects import effects_json

    tables = [effect_arrays(view, view.effects) for view in views if view.effects is not None]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in COLUMNS}
    _write_parquet(to, columns, store, views, [effects_json(view) for view in views])


def _write_parquet(
    to: Path, columns: dict[str, Any], store: Store, views: Sequence[LayerView], about: Sequence[Any]
) -> None:
    from ndissect.store.files import atomic, check_writable
    from ndissect.tui.cli.output import tell
    from ndissect.tui.reports import parquet
    from ndissect.tui.tables.unit_table import header

    parquet.check_pyarrow()
    check_writable(to, 1 << 20)
    with atomic(to) as part:
        parquet.write(part, columns, {**header(store, views), "effects": about})
    tell(f"wrote {to}")


def _export_on_concepts(store: Store, views: Sequence[LayerView], format: str, to: Path | None) -> None:
    """What units of a generator do to concepts, with learned coefficients."""
    from ndissect.tui.cli.export import write_text
    from ndissect.tui.cli.output import tell
    from ndissect.tui.tables import concept_effects
    from ndissect.tui.tables.remarks import layer_notes

    if format == "json":
        write_text(to, _json(store, views) + "\n")
    else:
        tables = [concept_effects.effect_arrays(view) for view in views]
        columns = {name: np.concatenate([table[name] for table in tables]) for name in concept_effects.COLUMNS}
        if format == "parquet":
            assert to is not None
            _write_parquet(to, columns, store, views, [concept_effects.effects_json(view) for view in views])
        else:
            text = io.StringIO()
            write = csv.writer(text, lineterminator="\n")
            write.writerow(columns)
            rows = zip(*(values.tolist() for values in columns.values()), strict=True)
            write.writerows([_cell(value) for value in row] for row in rows)
            write_text(to, text.getvalue())
    for line in (*layer_notes(views), *concept_effects.effects_notes(views)):
        tell(line)


def _on_concepts_json(view: LayerView) -> dict[str, Any]:
    from ndissect.tui.tables.concept_effects import layer_json

    return {"concept_effects": layer_json(view)} if view.concept_effects is not None else {}
