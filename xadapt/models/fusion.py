"""AdapterFusion (Pfeiffer et al. 2021) without the fused adapters' outputs ever being made.

With z_i the activations inside the i-th of N adapters, U_i and b_i its up-projection, W_q, W_k, W_v the fusion's
matrices and c the key's bias, AdapterFusion scores the outputs u_i = U_i z_i + b_i by q . (W_k u_i + c) and adds up
p_i W_v u_i. Taken in another order, the same numbers need the hidden size once instead of N times:

    k = W_k^T q,   score_i = (U_i^T k) . z_i + b_i . k + c . q,   W_v ([U_1 .. U_N] [p_1 z_1 .. p_N z_N] + sum p_i b_i)

c . q is equal for all adapters, but dropout on the scores sees it. Only the order of floating-point sums differs from
the `adapters` library, whose modules keep the weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xadapt.models.fusion_attention import FusionAttention, list_fusion_layers


class FusedAdapters(FusionAttention):
    """AdapterFusion at one place of one layer, in the stead of the library's `compose_fuse`.

    `layer` is the library's bottleneck layer, which holds the adapters and the fusion. The fused adapters have one
    and the same plain configuration: sequential, no gate, no scaling, no LayerNorm of their own.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def compose(self, setup: Any, state: Any, lvl: int = 0) -> Any:
        """The library's state after the fusion `setup`; hidden states are [batch, tokens, hidden]."""
        fusion = self.layer.adapter_fusion_layer[setup.name]
        adapters = [self.layer.adapters[name] for name in setup]
        hidden, _, residual = adapters[-1].pre_forward(
            state.hidden_states, state.input_tensor, state.layer_norm, fusion_config=fusion.config
        )
        fused = self._fuse(hidden, adapters, fusion) + residual
        return state._replace(hidden_states=fused, adapter_residual=residual, last=setup.last())

    def _fuse(self, hidden: Tensor, adapters: list[Any], fusion: Any) -> Tensor:
        """Attention over the adapters, [batch, tokens, hidden]; the largest tensors made are [batch, tokens, N * r]."""
        down = [adapter.adapter_down[0] for adapter in adapters]
        ups = torch.cat([adapter.adapter_up.weight for adapter in adapters], dim=1)
        biases = torch.stack([adapter.adapter_up.bias for adapter in adapters])
        inner = functional.linear(hidden, torch.cat([d.weight for d in down]), torch.cat([d.bias for d in down]))
        inner = adapters[0].non_linearity(inner).unflatten(-1, (len(adapters), -1))
        query = fusion.query(hidden)
        key = query @ fusion.key.weight
        scores = ((key @ ups).unflatten(-1, (len(adapters), -1)) * inner).sum(-1)
        scores = scores + key @ biases.T + (query @ fusion.key.bias).unsqueeze(-1)
        probabilities = fusion.dropout(scores).softmax(-1)
        self.record(probabilities)
        probabilities = probabilities.to(inner.dtype)  # under autocast softmax gives float32
        weighted = (probabilities.unsqueeze(-1) * inner).flatten(-2)
        fused: Tensor = fusion.value(functional.linear(weighted, ups) + probabilities @ biases)
        return fused


def rewrite_fusion(encoder: nn.Module) -> None:
    """Let every layer of the encoder that has a fusion compute it in the cheap order; weights stay where they are."""
    layers = [FusedAdapters(module) for module in encoder.modules() if len(getattr(module, "adapter_fusion_layer", ()))]
    for fused in layers:
        fused.layer.compose_fuse = fused.compose
    list_fusion_layers(encoder, layers)
