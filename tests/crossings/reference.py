"""What must come out, in plain numpy and pandas, from the documentation alone; nothing of the project is imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .draws import DAY_MS, Case, Draw
from .formulas import InvalidError, fitted, refuse_nothing, shared
from .rules import Array, Key, Rule
from .versions import Version

STAGES = ("train", "val", "test")
USUAL = (0.7, 0.1, 0.2)


@dataclass(frozen=True)
class Stretch:
    """Rows that follow each other, of a series or of a panel.

    Parameters
    ----------
    series
        Position of the series; 0 for a panel.
    times
        (row,) int64.
    values
        (row, column) float64 in source units, NaN where missing; of a panel (row, node, column).
    """

    series: int
    times: Array
    values: Array


@dataclass(frozen=True)
class Stage:
    """Every window of a split in order, as arrays over windows."""

    keys: list[tuple[int, int]]
    times: Array
    batch: dict[str, Array]
    truth: Array
    n_rows: int
    n_targets: int
    n_missing: int

    def __len__(self) -> int:
        return len(self.keys)


class Reference:
    """All that is asked of one draw.

    Parameters
    ----------
    case, version, draw
        What is looked at.
    words
        Texts of the codes of each channel of categories, as the store numbers them.
    assigned
        (series,) split of each series, -1 for none, where a shuffle deals them out.
    unit
        Of the times of the store, in ms.
    """

    def __init__(
        self, case: Case, version: Version, draw: Draw, words: dict[str, list[str]], assigned: Array | None, unit: int
    ) -> None:
        self.unit = unit
        self.case, self.version, self.draw, self.words, self.assigned = case, version, draw, words, assigned
        self.options: dict[str, Any] = draw.options
        options = self.options
        self.columns = list(dict.fromkeys([*options["channels"], *options["targets"], *options["future"]]))
        self.ids = version.ids
        self.lookback, self.horizon, self.delay = (options[name] for name in ("lookback", "horizon", "delay"))
        self.offset = self.lookback + self.delay
        self.span = max(self.lookback, self.offset + self.horizon)
        self.panel = draw.panel is not None
        self.inputs, self.targets, self.future = (
            [self.columns.index(name) for name in options[role]] for role in ("channels", "targets", "future")
        )
        one_hot = self._one_hot()
        self.input_words = [column for column in self.inputs if column in one_hot]
        self.future_words = [column for column in self.future if column in one_hot]
        self.inputs, self.future = (
            [column for column in columns if column not in one_hot] for columns in (self.inputs, self.future)
        )

    def _one_hot(self) -> list[int]:
        """Columns of categories that become one for each word."""
        if self.options["category_encoding"] == "code":
            return []
        words = [name for name in self.columns if name in self.case.words and name not in self.options["targets"]]
        return [self.columns.index(name) for name in words]

    def stands(self, values: Array, columns: list[int]) -> list[Array]:
        """Of each column of codes, where each of its words stands."""
        return [values[..., column, None] == np.arange(len(self.words[self.columns[column]])) for column in columns]

    @property
    def n_inputs(self) -> int:
        """Columns of `x` without those of times."""
        words = sum(len(self.words[self.columns[column]]) for column in self.input_words)
        return len(self.inputs) + len(self.observed_inputs) + words

    @property
    def n_future(self) -> int:
        """Columns of `x_future` without those of times."""
        return len(self.future) + sum(len(self.words[self.columns[column]]) for column in self.future_words)

    # Values ----------------------------------------------------------------------------------------------------------

    def number(self, channel: str, text: str) -> float:
        """A cell in source units, as the store keeps it."""
        if text == "":
            return np.nan
        if channel in self.case.words:
            return float(self.words[channel].index(text))
        return float(text) if self.case.dtype == "float64" else float(np.float32(float(text)))

    @cached_property
    def table(self) -> dict[Key, Array]:
        """(column,) values of each row."""
        places = [(name, self.case.channels.index(name)) for name in self.columns]
        blank = np.full(len(places), np.nan)
        return {
            key: blank if texts is None else np.array([self.number(name, texts[n]) for name, n in places])
            for key, texts in self.version.rows.items()
        }

    @cached_property
    def may_miss(self) -> Array:
        """(column,) whether any value of the store may be missing."""
        missing: Array = np.isnan(np.stack(list(self.table.values()))).any(axis=0)
        return missing

    @cached_property
    def members(self) -> list[int]:
        """Positions of the series of the panel, or all."""
        chosen = self.draw.panel or {}
        if "ids" in chosen:
            return sorted(self.ids.index(id_) for id_ in chosen["ids"])
        if "attribute" in chosen:
            land = self.case.statics[chosen["attribute"]]
            return [n for n, id_ in enumerate(self.ids) if land.get(id_) in chosen["values"]]
        return list(range(len(self.ids)))

    @cached_property
    def stretches(self) -> list[Stretch]:
        """Where windows lie."""
        if not self.panel:
            return [
                Stretch(self.ids.index(id_), np.array(times), np.stack([self.table[id_, time] for time in times]))
                for id_, times in self.version.runs()
            ]
        rule = self.version.rule
        if rule.kind == "irregular":
            raise InvalidError("a panel of irregular times")
        names = [self.ids[n] for n in self.members]
        known = np.unique([time for id_ in names for time in self.version.times(id_)])
        times = known if rule.kind == "rows" else rule.grid(int(known[0]), int(known[-1]))
        if not np.isin(known, times).all():
            raise InvalidError("series off the grid of the others")
        blank = np.full(len(self.columns), np.nan)
        cells = [[self.table.get((id_, time), blank) for id_ in names] for time in times.tolist()]
        return [Stretch(0, times, np.array(cells))]

    @cached_property
    def observed_inputs(self) -> list[int]:
        """Inputs that have a mask beside them."""
        if not self.options["observed_inputs"]:
            return []
        holes = self.panel and not all(
            (self.ids[n], time) in self.version.rows for n in self.members for time in self.stretches[0].times.tolist()
        )
        inputs = [self.columns.index(name) for name in self.options["channels"]]
        return [column for column in inputs if self.may_miss[column] or holes]

    # Splits ----------------------------------------------------------------------------------------------------------

    @cached_property
    def borders(self) -> Array:
        """(split, series, 2) times ``[start, stop)`` of the targets of each split."""
        split, rule = self.draw.split, self.version.rule
        if split["by"] == "series":
            return np.tile(np.array([-(2**62), 2**62]), (3, len(self.ids), 1))
        of_rows = rule.kind == "rows" and split.get("over") == "series"
        counted, embargo = rule.regular or of_rows, split.get("embargo", 0)
        if embargo and not counted:
            raise InvalidError("an embargo of steps of irregular times")
        every = [np.array(self.version.times(id_)) for id_ in self.ids]
        ends = np.array([[times[0], times[-1]] for times in every])
        if split.get("over") != "series":
            ends[:] = ends[:, 0].min(), ends[:, 1].max()
        first = ends[:, 0]
        lengths = [
            len(times) if of_rows else self._n_steps(*end) for times, end in zip(every, ends.tolist(), strict=True)
        ]

        def later(times: Array, steps: Any) -> Array:
            steps = np.broadcast_to(steps, len(times)).tolist()
            if of_rows:
                return np.array([_rows_later(*parts) for parts in zip(every, times.tolist(), steps, strict=True)])
            unit = Rule("fixed", self.unit)
            return np.array(
                [(rule if counted else unit).later(t, n) for t, n in zip(times.tolist(), steps, strict=True)]
            )

        if "dates" in split:
            edges = [np.full(len(self.ids), date) for date in split["dates"]]
        elif (sizes := split.get("sizes", USUAL)) and sum(sizes) > 1 and all(s == int(s) for s in sizes):
            if not counted:
                raise InvalidError("steps of irregular times")
            if sum(sizes) > max(lengths):
                raise InvalidError("more steps than there are")
            edges = [later(first, int(n)) for n in np.cumsum([0, *sizes])]
        else:
            if sum(sizes) > 1 + 1e-9:
                raise InvalidError("fractions of more than the whole")
            counts = np.array([shared(n, sizes) for n in lengths])
            refuse_nothing(counts, sizes)
            edges = [first, *(later(first, n) for n in counts.cumsum(axis=1).T)]
        begins = [later(edge, embargo) if n else edge for n, edge in enumerate(edges[:3])]
        return np.array([np.stack([begins[n], edges[n + 1]], axis=1) for n in range(3)])

    def _n_steps(self, first: int, last: int) -> int:
        """Steps from a time to another, both among them; units of time where no rule counts them."""
        rule = self.version.rule if self.version.rule.regular else Rule("fixed", self.unit)
        return rule.number(last, first) + 1

    @property
    def series_sizes(self) -> Sequence[float]:
        """Fractions of the series."""
        sizes: Sequence[float] = self.draw.split.get("sizes", USUAL) if self.draw.split["by"] == "series" else USUAL
        return sizes

    @cached_property
    def of_split(self) -> Array:
        """(series,) split of each series, -1 for none; -2 where all are in every split."""
        split, found = self.draw.split, np.full(len(self.ids), -1)
        if split["by"] == "time":
            return np.full(len(self.ids), -2)
        if "ids" in split:
            for n, name in enumerate(STAGES):
                found[[self.ids.index(id_) for id_ in split["ids"][name]]] = n
        elif "attribute" in split:
            for n, name in enumerate(STAGES):
                land = [self.case.statics[split["attribute"]].get(id_) for id_ in self.ids]
                found[[value in split["values"][name] for value in land]] = n
        else:
            if split.get("folds", 0) > len(self.ids):
                raise InvalidError("more folds than series")
            if "folds" not in split:
                sizes = self.series_sizes
                refuse_nothing(np.array([shared(len(self.ids), sizes)]), sizes)
            assert self.assigned is not None
            found = self.assigned
        return found

    def allowed(self, stretch: Stretch, number: int) -> Array:
        """(row,) whether a target of a split may lie there."""
        if not self.panel and self.of_split[stretch.series] not in (-2, number):
            return np.zeros(len(stretch.times), bool)
        start, stop = self.borders[number][self.members[0] if self.panel else stretch.series]
        inside: Array = (stretch.times >= start) & (stretch.times < stop)
        return inside

    @cached_property
    def training(self) -> list[tuple[int, Array]]:
        """Series, and (row, column) values of its training rows, of the series in use."""
        found = []
        for position in self.members:
            id_ = self.ids[position]
            if self.of_split[position] not in (-2, 0):
                continue
            start, stop = self.borders[0][position]
            rows = [self.table[id_, time] for time in self.version.times(id_) if start <= time < stop]
            if rows or self.draw.split["by"] == "series":
                found.append((position, np.array(rows).reshape(len(rows), len(self.columns))))
        return found

    # Scaling ---------------------------------------------------------------------------------------------------------

    def kind(self, column: int) -> str:
        """The scaler of a column."""
        if column in self.input_words or column in self.future_words:
            return "none"
        kind: Any = self.options["scaler"]
        return str(kind if isinstance(kind, str) else kind.get(self.columns[column], "standard"))

    def floor(self, column: int) -> float:
        """The smallest deviation or range of a column."""
        floor: Any = self.options["scale_floor"]
        return float(floor.get(self.columns[column], 0.0) if isinstance(floor, dict) else floor)

    def clip(self, values: Array, columns: list[int]) -> Array:
        """Scaled inputs, those of some scalers from −1 to 1."""
        ends = np.array([1.0 if self.kind(column) == "quantile" else np.inf for column in columns])
        return np.clip(values, -ends, ends)

    @cached_property
    def scaler(self) -> tuple[Array, Array]:
        """Offset and scale, both (series, column)."""
        shape = len(self.ids), len(self.columns)
        offset, scale = np.zeros(shape), np.ones(shape)
        by_series = self.options["scale_by"] == "series"
        for column in range(len(self.columns)):
            kind = self.kind(column)
            everything = np.array([row[column] for row in self.table.values()])
            if kind == "log1p" and (everything <= -1).any():
                raise InvalidError("a logarithm of -1 or less")
            parts = {series: self._scaled_kind(rows[:, column], kind) for series, rows in self.training}
            whole = np.concatenate([np.zeros(0), *parts.values()])
            for series in range(len(self.ids)):
                own = parts.get(series, whole)
                own = own if by_series and (~np.isnan(own)).any() else whole
                offset[series, column], scale[series, column] = fitted(own[~np.isnan(own)], kind, self.floor(column))
        return offset, scale

    def _scaled_kind(self, values: Array, kind: str) -> Array:
        return np.log1p(values) if kind == "log1p" else values

    def scale(self, values: Array, column: int, series: Any) -> Array:
        """Values of a column in source units, scaled; `series` of each."""
        offset, scale = self.scaler
        wanted = self._scaled_kind(values, self.kind(column))
        scaled: Array = (wanted - offset[series, column]) / scale[series, column]
        return scaled

    def to_source(self, scaled: Array, column: int, series: Any) -> Array:
        """The inverse."""
        offset, scale = self.scaler
        values: Array = scaled * scale[series, column] + offset[series, column]
        return np.expm1(values) if self.kind(column) == "log1p" else values

    def scaled_stretch(self, stretch: Stretch) -> Array:
        """Its values scaled; NaN where missing."""
        series = np.array(self.members) if self.panel else stretch.series
        parts = [self.scale(stretch.values[..., column], column, series) for column in range(len(self.columns))]
        return np.stack(parts, axis=-1)

    # Statics and times -----------------------------------------------------------------------------------------------

    @cached_property
    def statics(self) -> Array:
        """(series, column)."""
        columns = []
        training = [series for series, _ in self.training]
        for name in self.options["statics"]:
            texts = [self.case.statics[name].get(id_, "") for id_ in self.ids]
            if name == "land":
                words = sorted(set(self.case.statics[name].values()))
                columns += [np.array([text == word for text in texts], float) for word in words]
                continue
            values = np.array([float(text or "nan") for text in texts])
            seen = values[training][~np.isnan(values[training])]
            mean, std = (seen[0], 1.0) if len(seen) else (0.0, 1.0)
            if len(seen) and seen.min() < seen.max():
                mean, std = seen.mean(), seen.std()
            columns.append(np.nan_to_num((values - mean) / std))
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.ids), 0))

    def cycles(self, times: Array) -> Array:
        """(…, 2 * feature) sine and cosine of the share of the day, week or year that has passed."""
        found = []
        for feature in self.options["time_features"]:
            days = times / DAY_MS
            share = {"day_of_week": (days + 3) / 7, "day_of_year": days / 365.2425}.get(feature, days)
            if feature == "month_of_year":
                share = (self.dates(times).month.to_numpy().reshape(times.shape) - 1) / 12
            found += [np.sin(2 * np.pi * (share % 1)), np.cos(2 * np.pi * (share % 1))]
        return np.stack(found, axis=-1) if found else np.zeros((*times.shape, 0))

    @staticmethod
    def dates(times: Array) -> pd.DatetimeIndex:
        """Times as pandas has them."""
        return pd.DatetimeIndex(times.ravel().astype("datetime64[ms]"))

    def indices(self, times: Array) -> Array:
        """(…, feature) whole steps, hours, days and months."""
        dates = self.dates(times)
        found: list[Any] = []
        for feature in self.options["time_features"]:
            read: dict[str, Any] = {
                "hour_of_day": lambda: dates.hour,
                "day_of_week": lambda: dates.day_of_week,
                "day_of_year": lambda: dates.day_of_year - 1,
                "month_of_year": lambda: dates.month - 1,
                "time_of_day": lambda: times.ravel() % DAY_MS // self.version.rule.count,
            }
            found.append(read[feature]())
        return np.stack([np.asarray(values, np.int64).reshape(times.shape) for values in found], axis=-1)

    # Windows ---------------------------------------------------------------------------------------------------------

    def refusals(self) -> list[str]:
        """Why the draw as a whole cannot be meant; empty if it can."""
        reasons = []
        features = self.options["time_features"]
        if features and not self.case.dated:
            reasons.append("time features of plain steps")
        if "time_of_day" in features and self.version.rule.kind != "fixed":
            reasons.append("time of day of irregular times")
        if features and self.panel and self.options["time_encoding"] != "index":
            reasons.append("cycles of a panel")
        for part in ("stretches", "borders", "of_split", "scaler"):
            try:
                getattr(self, part)
            except InvalidError as why:
                reasons.append(str(why))
        return reasons

    def starts(self, number: int, stride: int, everything: bool) -> Iterator[tuple[Stretch, int]]:
        """The windows of a split in order, one by one."""
        for stretch in self.stretches:
            allowed, first = self.allowed(stretch, number), None
            for start in range(len(stretch.times) - self.span + 1):
                target = start + self.offset
                inside = allowed[target : target + self.horizon].all()
                stop = np.flatnonzero(allowed)[-1] + 1 if allowed.any() else 0
                inside &= start + self.span <= stop
                if self.draw.split["context"] == "forbid":
                    inside &= allowed[start : start + self.span].all()
                if not inside:
                    continue
                first = start if first is None else first
                seen = ~np.isnan(stretch.values[target : target + self.horizon][..., self.targets])
                if (start - first) % stride == 0 and (everything or seen.any()):
                    yield stretch, start

    def stage(self, name: str, everything: bool = False) -> Stage:
        """All windows of a split, with their batch.

        Raises
        ------
        InvalidError
            If there is none.
        """
        number = STAGES.index(name)
        stride = self.options["stride"] if name == "train" and not everything else self.options["evaluation_stride"]
        windows = list(self.starts(number, stride, everything))
        if not windows:
            raise InvalidError(f"no window in {name}")
        scaled = {id(stretch): self.scaled_stretch(stretch) for stretch in self.stretches}
        past, ahead = range(self.lookback), range(self.offset, self.offset + self.horizon)

        def cut(values: Any, steps: range) -> Array:
            return np.stack([values(stretch)[start + steps.start : start + steps.stop] for stretch, start in windows])

        x, y = (cut(lambda stretch: scaled[id(stretch)], steps) for steps in (past, ahead))
        times = [cut(lambda stretch: stretch.times, steps) for steps in (past, ahead)]
        truth = cut(lambda stretch: stretch.values, ahead)[..., self.targets]
        series = np.array([stretch.series for stretch, _ in windows])
        batch = {
            "x": np.concatenate(
                [
                    self.clip(x[..., self.inputs], self.inputs),
                    ~np.isnan(x[..., self.observed_inputs]),
                    *self.stands(x, self.input_words),
                ],
                axis=-1,
            ),
            "y": y[..., self.targets],
            "mask": ~np.isnan(y[..., self.targets]),
            "x_future": np.concatenate(
                [self.clip(y[..., self.future], self.future), *self.stands(y, self.future_words)], axis=-1
            ),
            "x_static": self.statics[series],
            "series": series,
            "time": times[1][:, 0],
        }
        if self.panel:
            batch["series"] = np.tile(self.members, (len(windows), 1))
            batch["x_static"] = np.tile(self.statics[self.members], (len(windows), 1, 1))
        if self.options["time_features"] and self.options["time_encoding"] == "index":
            batch["x_time"], batch["y_time"] = map(self.indices, times)
        elif self.options["time_features"]:
            for key, when in zip(("x", "x_future"), times, strict=True):
                batch[key] = np.concatenate([batch[key], self.cycles(when)], axis=-1)
        for key in ("x", "y", "x_future"):
            batch[key] = np.nan_to_num(batch[key])
        rows: dict[Any, Any] = {}
        targets: dict[Any, Any] = {}
        for stretch, start in windows:
            rows |= {(stretch.series, stretch.times[start + k]): None for k in range(self.span)}
            for k in ahead:
                targets[stretch.series, stretch.times[start + k]] = stretch.values[start + k][..., self.targets]
        cells = np.array(list(targets.values()))
        keys = [(0 if self.panel else int(s), int(time)) for s, time in zip(series, batch["time"], strict=True)]
        n_rows = len(rows) * (len(self.members) if self.panel else 1)
        return Stage(keys, times[1], batch, truth, n_rows, cells.size, int(np.isnan(cells).sum()))

    # Forecasts and metrics -------------------------------------------------------------------------------------------

    def model_refusal(self) -> str | None:
        """Why the model cannot be built."""
        absent = any(target not in self.inputs for target in self.targets)
        model = self.draw.model
        if model == "Climatology":
            return None if self.options["time_features"] and self.options["time_encoding"] == "index" else "no indices"
        if absent:
            return "a target that is no input"
        return "it would copy the target" if self.delay < 0 and model != "NLinear" else None

    def forecast(self, stage: Stage, weight: Array, bias: Array) -> Array:
        """Scaled forecasts, like `y`.

        Raises
        ------
        InvalidError
            If nothing can be learned from the training rows.
        """
        if self.draw.model == "Climatology":
            return self._climatology(stage)
        x = np.moveaxis(stage.batch["x"][..., self.targets_in_inputs], 1, -1)
        if self.draw.model == "Repeat":
            found = np.repeat(x[..., -1:], self.horizon, axis=-1)
        elif self.draw.model == "SeasonalRepeat":
            season = self.draw.season
            found = x[..., [self.lookback - season + (self.delay + h) % season for h in range(self.horizon)]]
        else:
            found = (x - x[..., -1:]) @ weight.T + bias + x[..., -1:]
        return np.moveaxis(found, -1, 1)

    @property
    def targets_in_inputs(self) -> list[int]:
        """Position of each target among the inputs."""
        return [self.inputs.index(target) for target in self.targets]

    def _climatology(self, stage: Stage) -> Array:
        """Means of the scaled training targets at the same time; of the first feature; of the series; of all."""
        records = []
        for position, times, values in self._training_rows():
            slots = self.indices(times)
            for n in range(len(times)):
                records.append([position, *slots[n], *values[n]])
        features = [f"f{n}" for n in range(len(self.options["time_features"]))]
        targets = [f"y{n}" for n in range(len(self.targets))]
        frame = pd.DataFrame(records, columns=["series", *features, *targets])
        if not frame[targets].notna().to_numpy().any():
            raise InvalidError("no training row has an observed target")
        levels = [["series", *features], ["series", features[0]], ["series"]]
        tables = [frame.groupby(level)[targets].mean() for level in levels]
        overall = frame[targets].mean().fillna(0).to_numpy()
        found = np.empty(stage.batch["y"].shape)
        wanted = stage.batch["y_time"]
        for where in np.ndindex(found.shape[:-1]):
            window, step, *node = where
            series = stage.batch["series"][window][node[0]] if node else stage.batch["series"][window]
            key = [int(series), *wanted[window, step].tolist()]
            values = np.full(len(targets), np.nan)
            for table, length in zip(tables, (len(key), 2, 1), strict=True):
                lookup = tuple(key[:length]) if length > 1 else key[0]
                if lookup in table.index:
                    values = np.where(np.isnan(values), table.loc[lookup].to_numpy(float), values)
            found[where] = np.where(np.isnan(values), overall, values)
        return found

    def _training_rows(self) -> Iterator[tuple[int, Array, Array]]:
        """Series, times and scaled targets of the training rows."""
        for stretch in self.stretches:
            allowed = self.allowed(stretch, 0)
            values = self.scaled_stretch(stretch)[allowed][..., self.targets]
            for n, position in enumerate(self.members if self.panel else [stretch.series]):
                yield position, stretch.times[allowed], values[:, n] if self.panel else values

    def spread(self, units: str) -> Array:
        """(series, target) population standard deviation of training targets; of all, where a series has none."""
        found = np.empty((len(self.ids), len(self.targets)))
        for n, column in enumerate(self.targets):
            logs = units == "scaled" and self.kind(column) == "log1p"
            parts = {s: rows[:, column] for s, rows in self.training}
            parts = {s: values[~np.isnan(values)] for s, values in parts.items()}
            parts = {s: np.log1p(values) if logs else values for s, values in parts.items()}
            whole = np.concatenate([np.zeros(0), *parts.values()])
            for series in range(len(self.ids)):
                own = parts.get(series, whole)
                own = own if len(own) else whole
                found[series, n] = own.std() if len(own) else 0.0
        return found / self.scaler[1][:, self.targets] if units == "scaled" else found

    def in_source(self, scaled: Array, series: Array) -> Array:
        """Scaled targets, (window, step, [node,] target), in source units."""
        series = series[:, None]
        parts = [self.to_source(scaled[..., n], column, series) for n, column in enumerate(self.targets)]
        return np.stack(parts, axis=-1)

    def slack(self, forecast: Array, stage: Stage, units: str) -> Array:
        """How far a float32 forecast may be from this one, elementwise."""
        largest = max(1.0, *(float(np.abs(part).max(initial=0)) for part in (stage.batch["x"], forecast)))
        slack = np.full(forecast.shape, 1e-6) * largest * (self.lookback if self.draw.model == "NLinear" else 1)
        if units == "scaled":
            return slack
        series = stage.batch["series"][:, None]
        scale = self.scaler[1]
        source = self.in_source(forecast, stage.batch["series"])
        parts = []
        for n, column in enumerate(self.targets):
            slope = scale[series, column] * (np.abs(source[..., n]) + 1 if self.kind(column) == "log1p" else 1)
            parts.append(slack[..., n] * slope)
        return np.stack(parts, axis=-1) + 3e-7 * np.abs(source)


def _rows_later(times: Array, time: int, n: int) -> int:
    """The time of the n-th of some rows behind the first one not before a time; later than all if there is none."""
    row = int((times < time).sum()) + n
    if not n:
        return time
    return int(times[row]) if row < len(times) else int(times[-1]) + 1
