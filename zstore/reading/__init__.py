"""The way out: open a store, read rows, cut windows."""
