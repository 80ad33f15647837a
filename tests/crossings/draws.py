"""Cases and draws from their numbers alone: what a store goes through, and what is cut from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

SEED = 1609
DRAWS_PER_CASE = 4
KINDS = (
    "single",
    "many",
    "irregular",
    "gaps",
    "late",
    "recoded",
    "compacted",
    "older",
    "wide",
    "ms",
    "steps",
    "float64",
    "categories",
    "all_missing",
    "constant",
    "one_row",
)
RULES = ("MS", "B", "YE-JUN", "rows", "ME", "2MS", "QE", "YS", "W-WED", "QS", "YE", "15min")
MODELS = ("Repeat", "SeasonalRepeat", "NLinear", "Climatology")
DAY_MS = 86_400_000
LONGEST = 1100  # steps from the first row of a store to its last one, at most

Row = tuple[str, int, tuple[str, ...]]  # id, time in ms or steps, texts of the channels


@dataclass(frozen=True)
class Action:
    """One thing that is done to a store: ingest, append, compact, gc or rollback.

    Parameters
    ----------
    verb
        Which.
    rows
        Of the file, in its order.
    on_duplicate
        Policy of an ingest or an append.
    fill_gaps
        Of an ingest; one that is not the first takes the place of the store.
    version
        That a rollback brings back.
    """

    verb: str
    rows: tuple[Row, ...] = ()
    on_duplicate: str = "error"
    fill_gaps: bool = False
    version: int = 0


@dataclass(frozen=True)
class Case:
    """The history of one store.

    Parameters
    ----------
    number, kind
        Which.
    dated
        Whether times are dates, in ms since 1970; else they are plain steps.
    channels
        Names; those in `words` hold categories.
    words
        Channels of categories.
    actions
        In order.
    read
        The version to read, counted from the newest: 0, or 1 for the one before.
    statics
        By attribute the text of each id; empty for none.
    dtype
        Of the channels.
    layout
        long or wide.
    numbered
        The step of a file without a column of times; empty where it has one.
    rule
        Time step rule that rows follow, for the most part; empty where steps have one length, or none.
    freq
        What the ingest is told of it; empty for nothing.
    texts
        Unit of the texts of times: D, s or ms.
    """

    number: int
    kind: str
    dated: bool
    channels: tuple[str, ...]
    words: tuple[str, ...]
    actions: tuple[Action, ...]
    read: int = 0
    statics: dict[str, dict[str, str]] = field(default_factory=dict)
    dtype: str = "float32"
    layout: str = "long"
    numbered: str = ""
    rule: str = ""
    freq: str = ""
    texts: str = "s"


@dataclass(frozen=True)
class Draw:
    """What is cut from the store of a case, and how it is looked at.

    Parameters
    ----------
    number
        Which.
    options
        Of the data module: those whose meaning is the same for the project and the reference.
    panel, split
        Of `Panel` and `Split`; None for windows of single series.
    world
        Processes.
    budget
        Share of the bytes of all rows that a stream may have.
    resume
        None; or after which share of the batches, with which budget and how many processes, and what happens to the
        store meanwhile: nothing, compact or append.
    model, season, units
        What forecasts, and the units of its metrics.
    limit
        Test batches that are looked at; None for all.
    scores
        Whether series are scored too.
    """

    number: int
    options: dict[str, Any]
    panel: dict[str, Any] | None
    split: dict[str, Any]
    world: int
    budget: float
    resume: tuple[float, float, int, str] | None
    model: str
    season: int
    units: str
    limit: int | None
    scores: bool


class Maker:
    """Tables of one case."""

    def __init__(self, number: int) -> None:
        self.random = np.random.default_rng([SEED, number])
        self.kind = KINDS[number % len(KINDS)]

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pick(self, values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.random.integers(low, high + 1))


_IDS = ("007", "12", "a", "Zürich", "NA", "b b", "z-9", "B")
_WORDS = ("none", "easter", "x y", "été", "10th", "zz")


def _style(maker: Maker, kind: str) -> dict[str, Any]:
    """How the values of one channel look."""
    if kind == "float64":
        style = maker.pick(["big", "float", "decimal", "tiny"])
    elif kind == "constant":
        style = maker.pick(["constant", "constant_late", "decimal"])
    elif kind == "all_missing":
        style = maker.pick(["missing", "missing_series", "decimal"])
    else:
        style = maker.pick(["decimal", "decimal", "decimal", "float", "positive", "zeros", "counts"])
    return {
        "style": style,
        "decimals": maker.whole(1, 3),
        "missing": maker.pick([0, 0, 0.1, 0.4]),
        "level": float(maker.pick([0, 5, 100])),
        "fixed": maker.pick(["0.1", "45.3", "0", "-7.25", "1e-7"]),
        "words": _WORDS[: maker.whole(2, 4)],
    }


def cell(maker: Maker, style: dict[str, Any], id_: str, late: bool = False) -> str:
    """The text of one value; `late` for those of appends that need more room."""
    random, name = maker.random, style["style"]
    if name == "missing" or (name == "missing_series" and id_ == style["blank"]) or maker.chance(style["missing"]):
        return ""
    decimals = style["decimals"] + (2 if late else 0)
    if name == "words":
        return str(maker.pick(_WORDS if late else style["words"]))
    if name == "constant":
        return str(style["fixed"])
    if name == "constant_late":
        return "1.1" if late or maker.chance(0.03) else "0.1"
    if name == "big":
        return f"{1e7 + random.normal() / 2:.6f}"
    if name == "tiny":
        return repr(float(random.normal() * 1e-9))
    if name == "float":
        return repr(float(random.normal() * 3 + style["level"]))
    if name == "positive":
        return f"{random.gamma(2, 3) * (50 if late else 1):.{decimals}f}"
    if name == "zeros":
        return "0" if maker.chance(0.5) else f"{random.gamma(2, 3):.{decimals}f}"
    if name == "counts":
        return str(maker.whole(-3, 900 if not late else 90_000))
    return f"{random.normal() * (2000 if late else 4) + style['level']:.{decimals}f}"


def rule_of(number: int) -> str:
    """The time step rule of a case: of each in turn, for a quarter of all cases; empty for the others."""
    chosen = (number + number // len(KINDS)) % 4 == 1 and KINDS[number % len(KINDS)] != "steps"
    return RULES[number // 4 % len(RULES)] if chosen else ""


@dataclass
class Calendar:
    """When the rows of a case lie that follows a time step rule.

    Parameters
    ----------
    rule
        Which.
    times
        (unit,) ms since 1970 of months, quarters, years, weekdays, weeks, days or quarters of an hour.
    count
        Units from a row to the next.
    phase
        First unit of the series that do not begin with the others.
    odd
        Share of rows that lie beside the rule.
    """

    rule: str
    times: list[int]
    count: int
    phase: dict[str, int]
    odd: float

    @classmethod
    def of(cls, maker: Maker, rule: str, kind: str) -> Calendar:
        """Draw one."""
        start = pd.Timestamp(year=maker.whole(1890, 2015), month=maker.whole(1, 12), day=maker.whole(1, 28))
        day = maker.pick([1, 1, 1, 15, 28, 30, 31])
        clock = pd.Timedelta(hours=0) if maker.chance(0.5) else pd.Timedelta(minutes=maker.whole(1, 1439))
        if kind == "ms":
            clock += pd.Timedelta(milliseconds=maker.pick([20, 250, 500]))
        count, unit = (2, 1) if rule == "2MS" else (1, {"M": 1, "Q": 3, "Y": 12}.get(rule[0], 1))
        length = LONGEST * count
        if rule in ("MS", "2MS", "QS", "YS"):
            offset: Any = pd.DateOffset(months=unit, day=day)
            start = start + pd.DateOffset(day=day)
        elif rule == "15min":
            offset, clock = "15min", pd.Timedelta(0)
        else:
            offset = {"rows": "B"}.get(rule, rule)
            start = pd.tseries.frequencies.to_offset(offset).rollforward(start)
        times = pd.date_range(start, periods=length, freq=offset, unit="ms") + clock
        if rule == "rows":
            times = times[maker.random.random(length) > 0.05]
        odd = 0 if kind == "wide" else maker.pick([0, 0, 0, 0.02])
        return cls(rule, times.as_unit("ms").asi8.tolist(), count, {}, odd)

    def shift(self, maker: Maker, ids: list[str], kind: str) -> None:
        """Let some series begin between the steps of the others."""
        if kind != "wide" and self.rule in ("2MS", "QS", "YS", "YE") and maker.chance(0.3):
            self.count = max(self.count, 2)
            self.phase = {id_: 1 for id_ in ids if maker.chance(0.4)}

    def freq(self, maker: Maker) -> str:
        """What the ingest is told: nothing, the rule, or something else."""
        if self.rule == "rows" or maker.chance(0.35):
            return self.rule
        other = maker.pick(["MS", "YE", "QS", "B", "1D", "rows", "W-WED", "7D"])
        return str(other) if maker.chance(0.15) else ""

    def beside(self, maker: Maker, rows: list[Row]) -> list[Row]:
        """The rows, of which some lie beside the rule."""
        late = 60_000 if self.rule == "15min" else maker.pick([3_600_000, DAY_MS])
        return [(id_, time + late * maker.chance(self.odd), texts) for id_, time, texts in rows] if self.odd else rows

    def at(self, id_: str, step: int) -> int:
        """Time of a step of a series."""
        return self.times[step * self.count + self.phase.get(id_, 0)]


def case(number: int) -> Case:
    """The case of a number."""
    maker = Maker(number)
    kind = maker.kind
    rule = rule_of(number)
    dated = kind != "steps"
    wide = kind == "wide"
    step = {"ms": maker.pick([20, 250, 1000, 1500]), "steps": maker.pick([1, 1, 3])}.get(
        kind, maker.pick([DAY_MS, DAY_MS, 3_600_000, 300_000])
    )
    start = 11_323 * DAY_MS + (0 if step == DAY_MS else maker.whole(0, 40) * step) if dated else maker.whole(0, 9)
    n_series = 1 if kind == "single" else maker.whole(2, 6)
    ids = ["0"] if kind == "single" else sorted(maker.random.permutation(_IDS)[:n_series].tolist())
    names = ["value"] if wide else [f"c{n}" for n in range(maker.whole(2, 4))]
    styles = {name: _style(maker, kind) for name in names}
    words = (
        [] if wide else [name for name in names[1:] if kind == "categories" or (kind != "single" and maker.chance(0.1))]
    )
    for name in words:
        styles[name]["style"] = "words"
    for style in styles.values():
        style["blank"] = ids[0]
    of_ingest = list(ids)
    if not wide and not [name for name in names if name not in words]:
        words = words[1:]
    total = {"one_row": n_series, "wide": 120}.get(kind, maker.whole(90, 200))
    times = {}
    last = 0
    for id_ in ids:
        n_rows = 1 if kind == "one_row" else max(total // n_series + maker.whole(-6, 6), 2)
        begin = 0 if wide or maker.chance(0.5) else maker.whole(0, 12)
        if kind == "irregular":
            steps = maker.random.choice([1, 2, 3, 5, 9], n_rows).cumsum()
        elif kind == "gaps":
            steps = np.flatnonzero(maker.random.random(int(n_rows * 1.15) + 2) > 0.12)
        else:
            steps = np.arange(n_rows)
        if wide:
            steps = np.arange(total // n_series)
        times[id_] = (steps + begin).tolist() or [begin]
        last = max(last, *times[id_])

    calendar = Calendar.of(Maker(SEED * 3 + number), rule, kind) if rule else None
    if calendar is not None:
        calendar.shift(maker, ids, kind)

    def rows(id_: str, at: Any, late: bool = False) -> list[Row]:
        when = [start + step * int(k) if calendar is None else calendar.at(id_, int(k)) for k in at]
        table = [(id_, time, tuple(cell(maker, styles[n], id_, late) for n in names)) for time in when]
        return table if calendar is None else calendar.beside(maker, table)

    first = [row for id_ in ids for row in rows(id_, times[id_])]
    duplicates = "error"
    if not wide and kind not in ("one_row", "gaps") and maker.chance(0.25):
        duplicates = maker.pick(["first", "last"])
        extra = [first[n] for n in maker.random.integers(len(first), size=3)]
        first += [(id_, time, rows(id_, [0])[0][2]) for id_, time, _ in extra]
    if maker.chance(0.5) and not wide:
        first = [first[n] for n in maker.random.permutation(len(first))]
    fill = kind == "gaps" and maker.chance(0.6)
    actions = [Action("ingest", tuple(first), duplicates, fill)]
    if fill and rule:  # which may be refused
        actions.append(Action("ingest", tuple(first), duplicates))
        actions = actions[:: maker.pick([1, -1])]
    if duplicates == "error" and len({row[:2] for row in first}) < len(first):  # rows beside the rule met others
        actions.append(Action("ingest", tuple(first), "last"))
    if (
        kind
        in (
            *(["one_row"] if rule else []),
            "late",
            "recoded",
            "compacted",
            "older",
            "categories",
            "gaps",
            "float64",
            "steps",
        )
        and not wide
    ):
        n_appends = maker.whole(1, 3) if kind in ("late", "recoded", "compacted", "older") else maker.whole(0, 1)
        for _ in range(n_appends):
            actions.append(_append(maker, ids, times, rows, kind))
            if maker.chance(0.2):
                actions.append(Action("compact"))
    if kind == "compacted" or maker.chance(0.1):
        actions.append(Action("compact"))
        if maker.chance(0.4):
            actions += [Action("gc"), Action("compact")]
    read = 0
    if kind == "older":
        if maker.chance(0.3) and all(action.verb != "gc" for action in actions):
            actions.append(Action("rollback", version=1))
        else:
            read = 1
    statics: dict[str, dict[str, str]] = {}
    if kind != "single" and maker.chance(0.7):
        known = of_ingest if maker.chance(0.7) else of_ingest[1:]
        statics = {
            "area": {id_: "" if maker.chance(0.15) else f"{maker.random.gamma(2, 50):.1f}" for id_ in known},
            "even": dict.fromkeys(known, "45.3"),
            "land": {id_: str(maker.pick(["forest", "grass", "bare rock"])) for id_ in known},
        }
    dtype = "float64" if kind == "float64" else "float32"
    numbered = wide and rule not in ("rows", "YE-JUN") and maker.chance(0.4)
    freq, shown = "", "ms" if kind == "ms" else "s"
    if calendar is not None:
        freq = calendar.freq(maker)
        every = {time % DAY_MS for action in actions for _, time, _ in action.rows}
        shown = "D" if every == {0} and maker.chance(0.6) else shown
    return Case(
        number,
        kind,
        dated,
        tuple(names),
        tuple(words),
        tuple(actions),
        read,
        statics,
        dtype,
        "wide" if wide else "long",
        (rule or {DAY_MS: "1D", 3_600_000: "1h", 300_000: "5min"}[step]) if numbered else "",
        rule,
        freq,
        shown,
    )


def _append(maker: Maker, ids: list[str], times: dict[str, list[int]], rows: Any, kind: str) -> Action:
    """Later rows, late rows, rows of new series, rows that are there already."""
    more: list[Row] = []
    recoded = kind == "recoded" or maker.chance(0.2)
    for id_ in ids:
        known = times[id_]
        if maker.chance(0.7):
            behind = [known[-1] + 1 + k for k in range(maker.whole(1, 9))]
            if maker.chance(0.2):
                behind = [k + 2 for k in behind]
            more += rows(id_, behind, recoded)
            times[id_] = known + behind
        missing = sorted(set(range(known[0], known[-1])) - set(known))
        if missing and kind != "irregular" and maker.chance(0.6):
            at = maker.pick(missing)
            more += rows(id_, [at], recoded)
            times[id_] = sorted({*times[id_], at})
    if maker.chance(0.4) and len(ids) > 1:
        new = f"new{len(ids)}"
        ids.append(new)
        times[new] = list(range(times[ids[0]][0], times[ids[0]][0] + maker.whole(4, 15)))
        more += rows(new, times[new], recoded)
    policy = maker.pick(["error", "first", "last"])
    if maker.chance(0.35):
        id_ = maker.pick(ids)
        more += rows(id_, [maker.pick(times[id_])], recoded)
    if not more:
        more = rows(ids[0], [times[ids[0]][-1] + 1], recoded)
        times[ids[0]] = [*times[ids[0]], times[ids[0]][-1] + 1]
    return Action("append", tuple(more), policy)


def draw(number: int, case: Case, ids: list[str], longest: int, times: list[int]) -> Draw:
    """The draw of a number.

    Parameters
    ----------
    number
        Which.
    case
        Its case.
    ids
        Of the version that is read.
    longest
        Rows of its longest run.
    times
        All its times, ascending, for dates of splits.
    """
    maker = Maker(SEED + 7 * number)
    numbers = [name for name in case.channels if name not in case.words]
    panel = maker.chance(0.35) and len(ids) > 1
    short = maker.chance(0.9)
    lookback = maker.whole(1, max(1, min(8, longest // 4))) if short else maker.whole(1, 30)
    horizon = maker.whole(1, max(1, min(4, longest // 8))) if short else maker.whole(1, 25)
    delay = maker.pick([0, 0, 0, 1, 3, -1, -horizon, -lookback])
    delay = max(delay, -lookback)
    pool = numbers if maker.chance(0.8) else list(case.channels)
    channels = maker.random.permutation(pool)[: maker.whole(1, len(pool))].tolist()
    others = [name for name in numbers if name not in channels]
    targets = maker.random.permutation(channels)[: maker.whole(1, len(channels))].tolist()
    if others and maker.chance(0.3):
        targets = [maker.pick(others), *targets[1:]]
    future = maker.random.permutation(list(case.channels))[: maker.whole(1, 2)].tolist() if maker.chance(0.4) else []
    model = maker.pick(MODELS)
    features: list[str] = []
    if maker.chance(0.4) or (model == "Climatology" and case.dated):
        known = ["hour_of_day", "day_of_week", "day_of_year", "time_of_day"]
        if case.rule:
            known = ["hour_of_day", "month_of_year", "month_of_year", "day_of_year", "day_of_week", "time_of_day"]
            known = known[:5] if maker.chance(0.8) else known
            known = list(dict.fromkeys(maker.random.permutation(known).tolist()))
        features = maker.random.permutation(known)[: maker.whole(1, 2)].tolist()
        if model == "Climatology":
            features = features[:1] if "time_of_day" in features or "day_of_year" in features else features
    encoding = "index" if panel or model == "Climatology" or maker.chance(0.5) else "cyclic"
    kinds = ["standard", "minmax", "robust", "log1p", "none"]
    scaler: Any = maker.pick(kinds)
    columns = list(dict.fromkeys([*channels, *targets, *future]))
    if maker.chance(0.4):
        scaler = {name: maker.pick(kinds) for name in columns if maker.chance(0.7)}
    chosen = None
    if panel:
        chosen = {}
        if maker.chance(0.4):
            chosen = {"ids": maker.random.permutation(ids)[: maker.whole(1, len(ids))].tolist()}
        elif case.statics and maker.chance(0.3):
            chosen = {"attribute": "land", "values": [maker.pick(sorted(set(case.statics["land"].values())))]}
    options = {
        "lookback": lookback,
        "horizon": horizon,
        "delay": delay,
        "stride": maker.pick([1, 1, 2, 5]),
        "evaluation_stride": maker.pick([1, horizon, 3]),
        "channels": channels,
        "targets": targets,
        "future": future,
        "statics": maker.random.permutation(list(case.statics))[: maker.whole(1, 3)].tolist()
        if case.statics and maker.chance(0.6)
        else [],
        "scaler": scaler,
        "scale_by": maker.pick(["channel", "channel", "series"]),
        "batch_size": maker.pick([6, 12, 24, 60]),
        "seed": maker.whole(0, 99),
        "predict_on": maker.pick(["train", "val", "test", "test"]),
        "time_features": features,
        "time_encoding": encoding,
        "observed_inputs": maker.chance(0.3),
        "residency": maker.pick(["host", "device", "stream", "stream"]),
    }
    options["category_encoding"] = Maker(SEED + 7 * number + 3).pick(["one_hot", "one_hot", "code"])
    if options["category_encoding"] == "one_hot" and isinstance(scaler, dict):
        words = set(case.words) - set(targets)
        options["scaler"] = {name: kind for name, kind in scaler.items() if name not in words}
    later = Maker(SEED + 7 * number + 4)
    signed = ["minmax_signed", "quantile"]
    if later.chance(0.4) and isinstance(scaler, dict):
        changed = {name: later.pick([kind, *signed]) for name, kind in options["scaler"].items()}
        options["scaler"] = changed
    elif later.chance(0.4):
        options["scaler"] = later.pick(signed)
    options["scale_floor"] = later.pick([0.0, 0.0, 0.0, 0.5, {columns[0]: 2.0}])
    resume = None
    if maker.chance(0.5):
        change = maker.pick(["", "", "", "compact", "append"])
        resume = (float(maker.random.random()), maker.pick([0.4, 0.8, 1.5]), maker.pick([1, 2, 3]), change)
    return Draw(
        number,
        options,
        chosen,
        _split(maker, case, ids, times, panel),
        maker.pick([1, 1, 2, 3]),
        maker.pick([0.4, 0.7, 1.5]),
        resume,
        model,
        maker.whole(1, lookback),
        maker.pick(["scaled", "source"]),
        maker.pick([None, None, None, 1]),
        maker.chance(0.3),
    )


def _split(maker: Maker, case: Case, ids: list[str], times: list[int], panel: bool) -> dict[str, Any]:
    by = "time" if panel or len(ids) == 1 or maker.chance(0.6) else maker.pick(["series", "both"])
    split: dict[str, Any] = {"by": by, "context": maker.pick(["allow", "allow", "forbid"])}
    fractions = [(0.7, 0.1, 0.2), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)]
    if by != "series":
        way = maker.pick(["sizes", "sizes", "steps", "dates", "usual"])
        if way == "sizes":
            split["sizes"] = maker.pick(fractions)
        elif way == "steps":
            n_steps = max(len(set(times)), 3)
            split["sizes"] = (n_steps // 2, n_steps // 4, n_steps // 5)
        elif way == "dates":
            split["dates"] = sorted(maker.random.choice(times, 4).tolist())
        if way != "dates" and not panel and maker.chance(0.3):
            split["over"] = "series"
        if maker.chance(0.3):
            split["embargo"] = maker.whole(1, 3)
    if by != "time":
        way = maker.pick(["fractions", "ids", "attribute", "folds"])
        if way == "ids" or (way == "attribute" and not case.statics):
            order = maker.random.permutation(ids).tolist()
            cut = sorted(maker.random.integers(0, len(ids) + 1, 2).tolist())
            split["ids"] = {"train": order[: cut[0]], "val": order[cut[0] : cut[1]], "test": order[cut[1] :]}
        elif way == "attribute":
            lands = sorted({case.statics["land"][id_] for id_ in ids if id_ in case.statics["land"]})
            split["attribute"] = "land"
            split["values"] = {name: lands[n : n + 1] for n, name in enumerate(("train", "val", "test"))}
        elif way == "folds":
            split |= {"folds": maker.whole(3, 4), "fold": maker.whole(0, 2)}
        elif by == "series":
            split["sizes"] = maker.pick(fractions)
        if maker.chance(0.5):
            split["seed"] = maker.whole(0, 9)
    return split
