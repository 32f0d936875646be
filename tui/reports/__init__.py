"""Pages, and files for other programs."""
