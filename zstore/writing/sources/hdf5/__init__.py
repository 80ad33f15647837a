"""HDF5: sessions and episodes, by a mapping that says what is what."""
