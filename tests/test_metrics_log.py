"""The curves of a fit are those of all its starts: a checkpoint goes on with them, a new fit begins anew."""

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_training import config

from lightning_app.metrics_log import MetricsLog
from zstore import Store, StoreError

App = Callable[..., subprocess.CompletedProcess[str]]
Rows = list[dict[str, str]]

# Lightning's and jsonargparse's own warnings are theirs to fix; ours are errors in every other test.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def fit(app: App, hourly: Store, tmp_path: Path) -> Callable[..., Rows]:
    """Fit so many epochs of ten batches in the run folder of that name, and return what is logged there."""
    limits = {"limit_train_batches": 10, "limit_val_batches": 2, "log_every_n_steps": 2}
    saves = {"monitor": None, "every_n_train_steps": 7, "save_top_k": -1, "filename": "{step}"}
    config(tmp_path / "n.yaml", hourly, trainer=limits, checkpoint=saves)

    def fitted(run: str, epochs: int, *words: object) -> Rows:
        place = ("--trainer.default_root_dir", tmp_path / run, "--trainer.max_epochs", epochs, "--quiet")
        app("fit", "--config", "n.yaml", *place, *words, check=True)
        return logged(tmp_path / run / "logs")

    return fitted


def logged(folder: Path) -> Rows:
    """Rows of metrics, without speeds and memory, which differ from one run to the next."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if "perf/" not in key} for row in csv.DictReader(file)]
    return [row for row in rows if any(value for key, value in row.items() if key not in ("step", "epoch"))]


def test_a_fit_that_goes_on_keeps_its_curves_and_logs_nothing_twice(fit: Callable[..., Rows], tmp_path: Path) -> None:
    whole = fit("whole", 3)
    assert [int(row["step"]) for row in whole if row["val/mse"]] == [9, 19, 29]
    assert [int(row["step"]) for row in whole if row["train/loss"]] == list(range(1, 30, 2))
    fit("run", 2)
    assert fit("run", 3, "--ckpt_path", "last") == whole
    in_mid_epoch = tmp_path / "run" / "checkpoints" / "step=14.ckpt"
    assert fit("run", 3, "--ckpt_path", in_mid_epoch) == whole
    of_another_run = fit("other", 3, "--ckpt_path", in_mid_epoch)
    assert of_another_run == [row for row in whole if int(row["step"]) >= 14]
    assert {row["step"] for row in fit("other", 1)} == {row["step"] for row in whole if int(row["step"]) < 10}


@pytest.fixture
def log(tmp_path: Path) -> MetricsLog:
    """A log behind five rows of an earlier start, the last of them torn by a kill."""
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss\r\n" + "".join(f"{n},0.{n}25\r\n" for n in range(4)) + "4,0."
    )
    return MetricsLog(str(tmp_path), name="", version="")


def test_a_line_that_a_kill_has_torn_is_dropped(log: MetricsLog, tmp_path: Path) -> None:
    log.go_on(6)
    log.log_metrics({"val/mse": 1.0}, 6)
    log.save()
    of_before = [{"step": str(n), "train/loss": f"0.{n}25", "val/mse": ""} for n in range(4)]
    assert logged(tmp_path) == [*of_before, {"step": "6", "train/loss": "", "val/mse": "1.0"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_fit_that_fails_before_its_first_step_leaves_no_curves_of_another_fit(
    log: MetricsLog, tmp_path: Path
) -> None:
    log.save()  # as Lightning does once it has read the checkpoint, if there is any
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_table_of_metrics_is_kept_and_the_fit_ends(log: MetricsLog, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss\nten,0.5\n")
    log.go_on(6)
    with pytest.raises(StoreError, match=r"metrics that a fit cannot go on with .*metrics\.csv"):
        log.save()
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\nten,0.5\n"
