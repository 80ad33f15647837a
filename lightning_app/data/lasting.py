"""Tensors that outlive the stage that first asks for them."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def lasting() -> AbstractContextManager[object]:
    """Make tensors inside of this that training may use too, whichever stage makes them.

    Lightning takes a checkpoint after `setup`, and then validates in inference mode before it fits, to try the code.
    So what depends on a checkpoint can only be built when a loader is first asked for, which may be in inference mode;
    autograd would refuse tensors made there for the rest of their life.
    """
    return torch.inference_mode(False)
