"""Training on windows of zstore stores with PyTorch Lightning."""
