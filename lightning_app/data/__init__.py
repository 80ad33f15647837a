"""From a store to batches: splits, order, scaler, residency, loader, data module."""
