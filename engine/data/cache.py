"""Where downloaded and generated data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

#: The data sets that ``nd data download`` fetches.
DOWNLOADS = ("broden1_224", "broden1_227", "broden1_384")


def cache_folder() -> Path:
    """The folder of downloaded and generated data, which may not exist yet: ``$ND_CACHE``, else the user's cache."""
    chosen = os.environ.get("ND_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ndissect", appauthor=False))
