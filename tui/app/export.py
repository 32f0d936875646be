"""Taking a table away: as a file of comma-separated values, or a row to the clipboard."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from ndissect.store.files import atomic
from ndissect.store.names import safe_name
from ndissect.tui.app.listing import Listing, Rows


def export(listing: Listing, rows: Rows, folder: Path, store: Path) -> Path:
    """Write ``rows`` of ``listing`` as CSV to a new file in ``folder``, and return its path. Raises NDError.

    Numbers are written in full, whatever the screen rounds; a file that exists is never replaced.
    """
    plain = [listing.plain(int(row)) for row in rows if int(row) not in listing.headings]
    titles = list(dict.fromkeys(title for row in plain for title in row))
    path = _free(folder, "-".join(filter(None, (store.name.removesuffix(".nd.h5"), listing.name, listing.subject))))
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, titles, restval="")
        writer.writeheader()
        writer.writerows(plain)
    return path


def _free(folder: Path, name: str) -> Path:
    stem = safe_name(re.sub(r"[^\w.-]+", "-", name).strip("-"))
    path, number = folder / f"{stem}.csv", 1
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}-{number}.csv"
    return path
