"""How a person meets a dissection: the command line, overlays, and the terminal UI."""
