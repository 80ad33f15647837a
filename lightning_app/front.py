"""The front door: what is answered before torch is imported. Help, the version, and commands that do not exist."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from lightning_app import shipped
from lightning_app.demo import whole
from zstore import ZstoreError, __version__

WORDS = "LIGHTNING_APP_ARGUMENTS"
"""The variable that has the arguments of a process whose command line must not show them."""
PROGRAM = "python -m lightning_app"
_LIBRARIES = ("torch", "pytorch_lightning", "torchmetrics", "tensorboard", "matplotlib")
_MODELS = {
    "linear": "NLinear, DLinear, Linear",
    "recurrent": "LSTM, GRU, EALSTM, BranchLSTM",
    "other": "MLP, TCN, PatchTST, ITransformer, TSMixer, TiDE, ChannelMLP",
    "panels": "PatchSTG",
    "electrodes": "TDS, RMSRegression",
    "images": "SpatialSoftmaxCNN, FieldToFloat; of volumes CNN3D, ResNet3D",
    "to beat": "Repeat, SeasonalRepeat, Climatology; of several: Ensemble",
}
"""Models by what they are, or are for."""

_FLAGS = {
    "--config FILE": "YAML with any option; of several, the last wins",
    "--data.store PATH": "the store, or CSV files, ingested into the cache",
    "--data.targets A,B": "channels to forecast; default: all of numbers",
    "--data.lookback N": "input rows of a window",
    "--data.horizon N": "target rows of a window",
    "--data.split.sizes A,B,C": "train, val, test; default: 0.7,0.1,0.2",
    "--data.batch_size N": "windows of a batch on all devices; default: 256",
    "--model NAME": "see below; --model.hidden 64 is an argument of it",
    "--optimizer NAME": "default: Adam; --optimizer.lr 0.001 is its rate",
    "--trainer.max_epochs N": "the most; a fit stops where validation does",
    "--trainer.accelerator NAME": "cpu, gpu, mps; default: what there is",
    "--trainer.default_root_dir": "run folder; default: runs/NAME of --config",
    "--ckpt_path FILE": "to start from: last, best, or a path",
}
_READS = ("--config FILE", "--data.store PATH", "--trainer.default_root_dir", "--ckpt_path FILE")


@dataclass(frozen=True)
class Short:
    """The help of a command that fits on a screen.

    Parameters
    ----------
    line
        What it does, in one line.
    about
        What else is worth knowing.
    flags
        Those that matter, and what they say.
    examples
        Words behind the program.
    """

    line: str
    about: str
    flags: dict[str, str]
    examples: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether a model is named."""
        return "--model NAME" in self.flags


def _of_checkpoint(line: str, about: str, more: dict[str, str], *examples: str) -> Short:
    """A command that takes the configuration and the checkpoint of a fit."""
    return Short(line, about, {**{flag: _FLAGS[flag] for flag in _READS}, **more}, examples)


_DEMO = "--config configs/demo_lstm.yaml"
_MINE = """--data.store mine.zarr --model NLinear \\
    --data.targets flow --data.lookback 72 --data.horizon 24"""
SHORT = {
    "run": Short(
        "fit, test and predict in one process",
        "The run folder then has metrics, predictions and pictures.",
        _FLAGS,
        (f"run {_DEMO}", f"run {_MINE}"),
    ),
    "fit": Short(
        "fit a model on windows of a store",
        "Keeps the best and the last checkpoint. After a kill: --ckpt_path last.",
        _FLAGS,
        (f"fit {_DEMO} \\\n    --data.lookback 120", f"fit {_MINE}"),
    ),
    "validate": _of_checkpoint(
        "measure a checkpoint on the validation windows",
        "Takes the best checkpoint of the run folder unless another is named.",
        {},
        f"validate {_DEMO}",
    ),
    "test": _of_checkpoint(
        "measure a checkpoint on the test windows",
        "Takes the best checkpoint. Writes test_metrics.json and pictures.",
        {"--intervals.levels A,B": "intervals for such shares of targets: 0.5,0.8"},
        f"test {_DEMO}",
    ),
    "predict": _of_checkpoint(
        "forecast the test windows, or the days to come",
        "Takes the best checkpoint. Writes predictions.zarr, keyed by id, time and step.",
        {
            "--data.predict_on NAME": "train, val, test; future: behind the last rows",
            "--data.predict_from TIME": "with future, the first time that is not known",
            "--intervals.levels A,B": "intervals for such shares of targets: 0.5,0.8",
        },
        f"predict {_DEMO}",
        f"predict {_DEMO} \\\n    --data.predict_on future",
    ),
    "rollout": _of_checkpoint(
        "let a policy act in an environment",
        "Takes the last checkpoint. Writes rollout.json, and films of two episodes.",
        {"--acting.episodes N": "how many episodes, each with its own seed"},
        "rollout --config configs/pusht_state_bc.yaml",
    ),
    "export": _of_checkpoint(
        "write a model as ONNX, or as a program of torch.export",
        "Takes the best checkpoint. Scaling and intervals are inside the file.",
        {"--export.format NAME": "onnx or torch", "--export.path FILE": "default: model.onnx in the run folder"},
        f"export {_DEMO} \\\n    --export.path model.onnx",
    ),
}
"""Commands that Lightning's parser reads, whose whole help has hundreds of lines."""
OTHERS = {
    "demo": "see it work: simulate rivers, ingest, fit, forecast, compare",
    "backtest": "forecast from several origins in the past, and score it",
    "evaluate": "score kept forecasts of days to come, once their truth is in",
    "splits": "count train, val, test; prove that they share no target",
    "table": "fit and test several configurations, their metrics side by side",
    "configs": "list the configurations that come with the package, or copy some",
    "completion": "print what makes a shell complete commands and flags",
}
COMMANDS = [*SHORT, *OTHERS]


def answered(words: Sequence[str]) -> int | None:
    """Answer what needs no torch.

    Parameters
    ----------
    words
        The arguments of the program.

    Returns
    -------
    The exit code; None for words that a command has to do.
    """
    if not words and WORDS in os.environ:
        return None
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"lightning_app {__version__}")
        return 0
    command, asked = words[0], set(words[1:])
    if command == "configs":
        return _ended(shipped.main, words[1:])
    if command in SHORT and asked & {"-h", "--help"}:
        print(_of_command(command, SHORT[command]))
        return 0
    if command not in COMMANDS and not command.startswith("-"):
        similar = get_close_matches(command, COMMANDS, 1)
        wanted = similar[0] if similar else f"one of {', '.join(COMMANDS)}"
        return _failed(f"command {command!r}; expected {wanted}. Fix: correct it; {PROGRAM} --help lists them.", 2)
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        lacking = f"{command} needs {', '.join(missing)}, not installed here"
        return _failed(f"{lacking}; expected the extra train. Fix: pip install 'zstore[train]'.", 1)
    if command == "demo":
        return _ended(whole.main, words[1:])
    return None


def _ended(run: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    try:
        return run(words)
    except ZstoreError as error:
        return _failed(str(error), error.exit_code)


def _failed(message: str, code: int) -> int:
    print(f"lightning_app: {message}", file=sys.stderr)
    return code


def _overview() -> str:
    lines = [f"Usage: {PROGRAM} COMMAND [options]", "", "Train models on windows of the series in a zstore store.", ""]
    lines += [f"  {name:<10} {line}" for name, line in {**{n: s.line for n, s in SHORT.items()}, **OTHERS}.items()]
    lines += ["", f"Of each: {PROGRAM} COMMAND --help. Also --version."]
    return "\n".join(lines)


def _of_command(name: str, short: Short) -> str:
    lines = [f"Usage: {PROGRAM} {name} [options]", "", f"{short.line[0].upper()}{short.line[1:]}.", short.about, ""]
    width = max(map(len, short.flags)) + 2
    lines += [f"  {flag:<{width}}{text}" for flag, text in short.flags.items()]
    if short.fits:
        lines += ["", "Models:"]
        kinds = max(map(len, _MODELS)) + 2
        lines += [f"  {kind:<{kinds}}{names}" for kind, names in _MODELS.items()]
        lines += [f"  {'your own':<{kinds}}mymodule.MyModel"]
    lines += ["", "Examples:", *(f"  {PROGRAM} {example}" for example in short.examples)]
    return "\n".join([*lines, "", f"All options: {PROGRAM} {name} --help-all"])
