r"""PatchSTG: attention within patches of the map and across them, so that no two of all nodes need be compared.

The nodes of a panel lie in the slots of patches (see `patches`). A token is a temporal patch of one slot:

.. math::
    e = [\, W x_{\text{patch}} + b,\; E_{\text{node}},\; E_{\text{time}}(k_1),\; E_{\text{time}}(k_2), \dots \,]

with an embedding of each time feature k of the patch's last row. Each block attends *in depth*, among the slots of one
patch, and then *in breadth*, among the slots of one number in all patches:

.. math::
    z \leftarrow z + \mathrm{Attention}(\mathrm{LN}(z)), \qquad z \leftarrow z + \mathrm{MLP}(\mathrm{LN}(z))

first along the one axis, then, with other weights, along the other. Each node's tokens, from its own slot, are decoded
into the whole horizon by one linear map.

Fang, Liang, Hui, Shao, Deng, Liu, Jiang & Zheng 2025, "Efficient Large-Scale Traffic Forecasting with Transformers: A
Spatial Data Management Perspective", KDD.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.attention import self_attention
from lightning_app.models.base import TaskModel
from lightning_app.models.patches import Patches
from lightning_app.models.states import refuse_known
from zstore import UsageError


class PatchSTG(TaskModel):
    """A transformer over the places of a panel, in patches of a k-d tree.

    Patches are found where a fit begins, from the positions of the series and the means of their training rows by the
    first time feature, and are part of the checkpoint.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    depth
        Of the k-d tree, which has ``2 ** depth`` leaves ("recur" in the authors' settings).
    leaf_size
        Slots of a leaf, at least as many as it has nodes ("sps").
    merged
        Leaves beside each other that make a patch, a power of two ("factors").
    layers
        Blocks of attention in depth and in breadth.
    heads
        Of each attention.
    input_width, node_width, time_width
        Of the embeddings of values, of nodes, and of each time feature; tokens are as wide as all together.
    mlp_ratio
        Width of the hidden layer of a block over that of tokens.
    patch_rows
        Input rows of a temporal patch. Default: all.
    dropout
        Share dropped behind each attention and MLP while training.
    options
        See `TaskModel`.

    Notes
    -----
    Cost of a layer, with n slots in patches of s: O(n (s + n / s)) products of tokens, not O(n²).
    """

    only_forecasts = True
    panels = True
    gather: Tensor
    undo: Tensor

    of_weights = ("depth", "leaf_size", "merged", "heads")

    def __init__(
        self,
        shape: BatchShape,
        depth: int = 5,
        leaf_size: int = 7,
        merged: int = 1,
        layers: int = 5,
        heads: int = 1,
        input_width: int = 64,
        node_width: int = 32,
        time_width: int = 32,
        mlp_ratio: float = 1.0,
        patch_rows: int | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(shape, **options)
        refuse_known(shape, "PatchSTG")
        n_leaves, self.patch_rows = 2**depth, patch_rows or shape.lookback
        if not shape.time_sizes:
            raise UsageError(
                "PatchSTG without time features as whole numbers",
                expected="--data.time_features [time_of_day, day_of_week] and --data.time_encoding index",
                fix="add them",
            )
        if shape.lookback % self.patch_rows or n_leaves % merged or n_leaves > shape.n_nodes:
            raise UsageError(
                f"PatchSTG of {n_leaves:,} leaves merged by {merged}, and temporal patches of {self.patch_rows} rows",
                expected=f"at most {shape.n_nodes:,} leaves, a multiple of those merged; patches that fill the "
                f"lookback of {shape.lookback}",
                fix="correct --model.depth, --model.merged or --model.patch_rows",
            )
        self.depth, self.leaf_size, self.merged = depth, leaf_size, merged
        width = input_width + node_width + time_width * len(shape.time_sizes)
        self.values = nn.Linear(self.patch_rows * shape.n_inputs, input_width)
        self.nodes = nn.Parameter(torch.empty(shape.n_nodes, node_width))
        self.times = nn.ModuleList(nn.Embedding(size, time_width) for size in shape.time_sizes)
        for table in [self.nodes, *(each.weight for each in self.times)]:
            nn.init.xavier_uniform_(table)  # type: ignore[arg-type]
        self.in_depth, self.in_breadth = (
            nn.ModuleList(Attended(width, heads, mlp_ratio, dropout) for _ in range(layers)) for _ in range(2)
        )
        self.head = nn.Linear(shape.lookback // self.patch_rows * width, shape.horizon * shape.n_targets)
        self.register_buffer("gather", torch.zeros(n_leaves * leaf_size, dtype=torch.int64))
        self.register_buffer("undo", torch.zeros(shape.n_nodes, dtype=torch.int64))

    def setup(self, stage: str) -> None:
        """Find the patches, where a fit begins."""
        super().setup(stage)
        if stage == "fit":
            self.place(self.patches())

    def patches(self) -> Patches:
        """Patches of the nodes of the data module. Cost: one pass over the training rows."""
        positions = self.data.node_positions.numpy()
        return Patches.of(positions, self._profiles().numpy(), self.depth, self.leaf_size)

    def place(self, patches: Patches) -> None:
        """Take patches: of as many nodes and slots as this model has."""
        self.gather.copy_(torch.from_numpy(patches.gather))
        self.undo.copy_(torch.from_numpy(patches.undo))

    def forward(self, batch: Batch) -> Tensor:
        """(batch, lookback, node, channel) to (batch, horizon, node, target)."""
        tokens = self._embedded(batch)[:, :, self.gather]  # (batch, temporal patch, slot, width)
        n_batch, n_times, _, width = tokens.shape
        inside = self.leaf_size * self.merged
        z = tokens.reshape(n_batch * n_times, -1, inside, width)  # (…, patch, slot of the patch, width)
        for in_depth, in_breadth in zip(self.in_depth, self.in_breadth, strict=True):
            z = in_depth(z)
            z = in_breadth(z.transpose(1, 2)).transpose(1, 2)
        own = z.reshape(n_batch, n_times, -1, width)[:, :, self.undo]  # (batch, temporal patch, node, width)
        ahead: Tensor = self.head(own.transpose(1, 2).flatten(2))  # (batch, node, horizon * target)
        return ahead.unflatten(-1, (self.shape.horizon, -1)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]

    def _embedded(self, batch: Batch) -> Tensor:
        """(batch, temporal patch, node, width)."""
        x, rows = batch["x"], self.patch_rows
        n_batch, lookback, n_nodes, _ = x.shape
        n_times = lookback // rows
        cut = x.reshape(n_batch, n_times, rows, n_nodes, -1).transpose(2, 3).flatten(3)
        last = batch["x_time"][:, rows - 1 :: rows]  # (batch, temporal patch, time feature)
        shared = [table(last[..., feature]) for feature, table in enumerate(self.times)]
        parts = [self.values(cut), self.nodes.expand(n_batch, n_times, -1, -1)]
        parts += [part[:, :, None].expand(-1, -1, n_nodes, -1) for part in shared]
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=-1)

    def _profiles(self) -> Tensor:
        """(node, value of the first time feature) mean of the training targets, all channels beside each other."""
        shape = (self.shape.time_sizes[0], self.shape.n_nodes, self.shape.n_targets)
        sums, counts = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for rows in self.data.training_rows():
            slot = rows["y_time"][:, 0, 0].cpu()
            y, mask = rows["y"][:, 0].cpu(), rows["mask"][:, 0].cpu()
            sums.index_add_(0, slot, torch.where(mask, y, 0.0).double())
            counts.index_add_(0, slot, mask.double())
        return (sums / counts).movedim(1, 0).flatten(1)  # scaled, NaN where nothing was observed


class Attended(nn.Module):
    """Attention and an MLP, each on normalised tokens and added to what came in; along the last axis but one.

    Parameters
    ----------
    width
        Of tokens.
    heads
        Of the attention.
    mlp_ratio
        Width of the MLP's hidden layer over `width`.
    dropout
        Share dropped behind each.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.heads, hidden = heads, int(width * mlp_ratio)
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, token, width) to the same."""
        normal = self.before_attention(tokens)
        tokens = tokens + self.dropout(self_attention(normal, self.queries_keys_values, self.out, self.heads))
        return tokens + self.dropout(self.mlp(self.before_mlp(tokens)))  # type: ignore[no-any-return]
