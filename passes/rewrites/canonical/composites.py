"""Operators of which torch's own word, composite or not, does not decide whether they are split on capture."""

from __future__ import annotations

from typing import Any, Final

from passes.graphs.emitter import aten

# Composite, but named as a whole where they are refused.
WHOLE: Final[tuple[Any, ...]] = (
    aten.gru.data,
    aten.lstm.data,
    aten.rnn_relu.data,
    aten.rnn_tanh.data,
)

# Not composite for torch, or known here as well, and yet split.
SPLIT: Final[tuple[Any, ...]] = (
    aten._euclidean_dist.default,
    aten._weight_norm_interface.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten.addcdiv.default,
    aten.addcmul.default,
    aten.addr.default,
    aten.affine_grid_generator.default,
    aten.aminmax.default,
    aten.baddbmm.default,
    aten.binary_cross_entropy.default,
    aten.binary_cross_entropy_with_logits.default,
    aten.channel_shuffle.default,
    aten.clamp_max.Tensor,
    aten.clamp_min.Tensor,
    aten.deg2rad.default,
    aten.diag_embed.default,
    aten.dot.default,
    aten.fill.Scalar,
    aten.frac.default,
    aten.glu.default,
    aten.huber_loss.default,
    aten.index_fill.int_Scalar,
    aten.lerp.Scalar,
    aten.lerp.Tensor,
    aten.linalg_cross.default,
    aten.linalg_vector_norm.default,
    aten.logaddexp.default,
    aten.logaddexp2.default,
    aten.logsumexp.default,
    aten.masked_fill.Tensor,
    aten.mse_loss.default,
    aten.nan_to_num.default,
    aten.nansum.default,
    aten.norm.Scalar,
    aten.norm.ScalarOpt_dim,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.rad2deg.default,
    aten.renorm.default,
    aten.rot90.default,
    aten.rsub.Scalar,
    aten.rsub.Tensor,
    aten.smooth_l1_loss.default,
    aten.soft_margin_loss.default,
    aten.split.Tensor,
    aten.squeeze.dim,
    aten.stack.default,
    aten.sum.default,
    aten.t.default,
    aten.trace.default,
    aten.transpose.int,
    aten.tril.default,
    aten.triu.default,
    aten.unbind.int,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
    aten.xlogy.Scalar_Self,
    aten.xlogy.Scalar_Other,
)
