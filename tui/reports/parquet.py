"""Tables of units as Parquet files, for data frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ndissect.store.errors import NDError
from ndissect.tui.tables.units import Array

#: Where a file's header stands among its metadata, as JSON.
HEADER = b"ndissect"


def check_pyarrow() -> None:
    """NDError where the library that writes the format is not installed: to be told before the work."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - takes its time, and is an extra
    except ImportError as e:
        raise NDError("Parquet files need pyarrow, which is not installed", "pip install 'ndissect[parquet]'") from e


def write(path: Path, columns: dict[str, Array], header: dict[str, Any]) -> None:
    """Write ``columns`` with ``header``, JSON values, in the file's metadata; NaN and None become null."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    arrays = {
        name: pa.array(values, pa.string() if values.dtype == object else None, from_pandas=True)
        for name, values in columns.items()
    }
    metadata = {HEADER: json.dumps(header).encode()}
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), path, compression="zstd")
