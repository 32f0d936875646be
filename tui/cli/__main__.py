"""``python -m ndissect.tui.cli``: nd, by an interpreter that is named."""

import sys

from ndissect.tui.cli.main import main

if __name__ == "__main__":
    sys.argv[0], __package__ = "nd", ""  # what messages about options call the program
    main()
