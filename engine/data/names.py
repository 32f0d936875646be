"""The data sets that have a name."""

from __future__ import annotations

#: The data sets that ``nd data download`` fetches.
DOWNLOADS = ("broden1_224", "broden1_227", "broden1_384")
