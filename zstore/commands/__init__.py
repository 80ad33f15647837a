"""The commands of `zstore`: the flags of each, and what it does with the functions behind it."""
