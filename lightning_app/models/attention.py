r"""Attention of tokens to each other, and the layer of a transformer's encoder.

.. math::
    \mathrm{Attention}(z) = W \, \mathrm{concat}_h\left(\operatorname{softmax}\left(
        \frac{Q_h K_h^\top}{\sqrt d}\right) V_h\right), \qquad (Q_h, K_h, V_h) = z \, (W^Q_h, W^K_h, W^V_h)

with heads h of width d, and the layer, whose norms follow the sums:

.. math::
    z \leftarrow \mathrm{Norm}(z + \mathrm{Attention}(z)), \qquad
    z \leftarrow \mathrm{Norm}(z + W_2 \operatorname{GELU}(W_1 z))

Vaswani et al. 2017, "Attention is all you need". PyTorch's ``TransformerEncoderLayer`` is this one with layer norm; its
fast path takes any norm for a layer norm, so that batch norm would be another one in a test than in a fit.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from zstore import UsageError


def self_attention(
    tokens: Tensor, queries_keys_values: nn.Linear, out: nn.Linear, heads: int, dropout: float = 0.0
) -> Tensor:
    """Attention along the last axis but one.

    Parameters
    ----------
    tokens
        (…, token, width).
    queries_keys_values
        From width to three times width.
    out
        From width to width.
    heads
        How many attend side by side; width is a multiple.
    dropout
        Share of the weights of attention that is dropped.

    Returns
    -------
    (…, token, width).
    """
    shape = (*tokens.shape[:-1], 3, heads, tokens.shape[-1] // heads)
    split = queries_keys_values(tokens).view(shape).transpose(-2, -4)  # (…, head, 3, token, part)
    queries, keys, values = (each.reshape(-1, *each.shape[-3:]) for each in split.unbind(-3))  # 4 axes, as ONNX has it
    found = nn.functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
    mixed: Tensor = out(found.transpose(-2, -3).reshape(tokens.shape))  # of (sequence, head, token, part)
    return mixed


class EncoderLayer(nn.Module):
    """Attention and two linear layers, each added to what came in and normalised then.

    Parameters
    ----------
    width
        Of tokens, a multiple of `heads`.
    heads
        Of the attention.
    hidden
        Width between the linear layers.
    dropout
        Share dropped behind each while training, and between the linear layers.
    attention_dropout
        Share of the weights of attention dropped while training.
    norm
        Makes a norm of that width.

    Raises
    ------
    UsageError
        If the width is no multiple of the heads.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float,
        attention_dropout: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(
                f"width {width} for {heads} heads",
                expected="a multiple of the heads",
                fix="correct --model.width or --model.heads",
            )
        self.heads, self.attention_dropout = heads, attention_dropout
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norms = nn.ModuleList([norm(width), norm(width)])
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, token, width) to the same."""
        dropped = self.attention_dropout if self.training else 0.0
        attended = self_attention(tokens, self.queries_keys_values, self.out, self.heads, dropped)
        tokens = self.norms[0](tokens + self.dropout(attended))
        return self.norms[1](tokens + self.dropout(self.mlp(tokens)))  # type: ignore[no-any-return]


class TokenBatchNorm(nn.Module):
    """Batch norm over all tokens of all windows.

    Parameters
    ----------
    width
        Of tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, token, width) to the same."""
        return self.norm(tokens.flatten(0, -2)).view(tokens.shape)  # type: ignore[no-any-return]
