"""One model per file. A model knows the batch, and nothing of where it comes from."""

from lightning_app.models.base import ForecastModel
from lightning_app.models.dlinear import DLinear
from lightning_app.models.lstm import LSTM
from lightning_app.models.nlinear import NLinear
from lightning_app.models.repeat import Repeat

__all__ = ["LSTM", "DLinear", "ForecastModel", "NLinear", "Repeat"]
