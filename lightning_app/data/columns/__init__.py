"""What the columns of a batch mean: channels, words, static attributes, times."""
