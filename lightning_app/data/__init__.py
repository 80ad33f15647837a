"""From a store to batches: what columns mean, windows, scaling, rows, batches; and the data module made of them."""
