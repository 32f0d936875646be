"""The answer of a dissection as one portable HDF5 file, and the numbers that follow from its counts."""
