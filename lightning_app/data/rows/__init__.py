"""Where decoded rows live while training, and how they get there."""
