"""Which inputs a module's outputs depend on: found by running it once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Origins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes of each tensor which inputs its values come from."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noted: dict[int, tuple[Tensor, set[str]]] = {}  # with the tensors, so that no number is used again
        for name, tensor in inputs.items():
            self._noted[id(tensor)] = (tensor, {name})

    def of(self, values: Any) -> set[str]:
        """Names of inputs that some tensors come from."""
        return set().union(*(self._noted[id(each)][1] for each in tree_leaves(values) if id(each) in self._noted))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        names = self.of((args, kwargs))
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                self._noted[id(each)] = (each, names)
        return found


def inputs_read(module: nn.Module, inputs: dict[str, Tensor]) -> list[str]:
    """Names of the inputs that outputs depend on, in their order; of a module that takes tensors by name.

    Notes
    -----
    Memory: all that is computed on the way.
    """
    own = {name: tensor.clone() for name, tensor in inputs.items()}
    with torch.no_grad(), _Origins(own) as origins:
        names = origins.of(module(own))
    return [name for name in inputs if name in names]
