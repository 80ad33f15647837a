"""What models are for: what training minimises, what is measured, and what is predicted. One task per file."""

from lightning_app.tasks.base import Task
from lightning_app.tasks.classification import Classification
from lightning_app.tasks.forecast import Forecast
from lightning_app.tasks.multitask import MultiTask
from lightning_app.tasks.policy import Policy
from lightning_app.tasks.probabilistic import ProbabilisticForecast

__all__ = ["Classification", "Forecast", "MultiTask", "Policy", "ProbabilisticForecast", "Task"]
