"""How the store-*.h5 beside this were made: python tests/archive/make.py, once for each version of the format.

An archived file never changes; a change of the format adds one beside it, and all of them stay readable.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from store_factory import dissection

from ndissect.store.parts import VERSION
from ndissect.store.writer import write_store

if __name__ == "__main__":
    target = Path(__file__).with_name(f"store-{VERSION}.h5")
    if target.exists():
        raise SystemExit(f"{target} exists, and an archived file never changes")
    made = dissection(groups=("train", "val"), evidence=True, effects=True, drawn=True)
    write_store(target, made)
    print(target)
