"""What is fitted on training rows only: offsets and scales of channels and static attributes, and the way back."""
