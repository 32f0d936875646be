"""Pictures: overlays, sheets, charts, and the programs that show them."""
