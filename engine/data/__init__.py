"""Labelled image data sets: read, checked, fetched. No torch here."""
