"""How store-1.0.h5 was made. It is never made again: a change of the format adds a file, old ones stay readable."""

from pathlib import Path

from ndissect.store.writer import VERSION
from store_factory import dissection

from ndissect.store.writer import write_store

if __name__ == "__main__":
    target = Path(__file__).with_name(f"store-{VERSION}.h5")
    if target.exists():
        raise SystemExit(f"{target} exists, and an archived file never changes")
    write_store(target, dissection(groups=("train", "val")))
    print(target)
