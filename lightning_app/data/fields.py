"""What is asked for of a field, under the name that files of users have: ``fields: {camera: {steps: 2}}``."""

from lightning_app.data.batches.fields import FieldOptions

__all__ = ["FieldOptions"]
