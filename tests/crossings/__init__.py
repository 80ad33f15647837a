"""Random crossings of stores, views, splits, scalers and everything else, against plain numpy and pandas.

`draws` makes cases from a number alone; `reference` says what must come out, from the documentation and in plain loops;
`run` asks the project and compares. A draw can be run again by its number: ``python -m crossings 17 18``, in `tests`.
"""
