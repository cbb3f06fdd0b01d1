"""Attention without positions (NoPE) between the Mamba-2 layers: every token may look at every token before it, in this context
and in all contexts that were merged into it, whatever their order.

Shapes: keys and values [b, kv heads, tokens, head_dim]. Weight names are those of transformers' `nemotron_h`.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right


def visible(keep, seen, rows, device):
    """What each token sees: True for [b,1,l,past+l], or None where nothing was padded (then all that is before it).

    keep [b,l] or None: 0 where a row is padded. seen [b,past] or None: the same of what was read before.
    """
    if keep is None and seen is None:
        return None
    here = torch.ones(rows, device=device, dtype=torch.bool) if keep is None else keep > 0
    l = here.shape[1]
    # A padded token sees itself, or its softmax would be over nothing.
    causal = torch.ones(l, l, dtype=torch.bool, device=device).tril()
    inside = causal & (here.unsqueeze(1) | torch.eye(l, dtype=torch.bool, device=device))
    if seen is None:
        return inside.unsqueeze(1)
    return torch.cat([seen.unsqueeze(1).expand(-1, l, -1), inside], 2).unsqueeze(1)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        d, q, kv = cfg.hidden, cfg.q_heads * cfg.attention_dim, cfg.kv_heads * cfg.attention_dim
        self.norm = nn.Parameter(torch.ones(d))
        self.q_proj = nn.Parameter(torch.randn(q, d) * d ** -0.5)
        self.k_proj = nn.Parameter(torch.randn(kv, d) * d ** -0.5)
        self.v_proj = nn.Parameter(torch.randn(kv, d) * d ** -0.5)
        self.o_proj = nn.Parameter(torch.zeros(d, q))  # adds nothing at first: put into a trained model it changes nothing

    def forward(self, x, keys, values, mask, kind):
        """x [b,l,d] float32; keys and values of what was read before, past tokens, may be empty; mask of visible().

        Returns x, and keys and values with those of x behind.
        """
        cfg = self.cfg
        b, l, _ = x.shape
        h = x.float()
        h = (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + cfg.eps) * self.norm).to(kind)
        heads = lambda w, n: (h @ w.to(kind).t()).view(b, l, n, cfg.attention_dim).transpose(1, 2)
        q = heads(self.q_proj, cfg.q_heads)
        keys = torch.cat([keys.to(kind), heads(self.k_proj, cfg.kv_heads)], 2)
        values = torch.cat([values.to(kind), heads(self.v_proj, cfg.kv_heads)], 2)
        many = lambda t: t.repeat_interleave(cfg.q_heads // cfg.kv_heads, 1)
        if mask is None:
            mask = causal_lower_right(l, keys.shape[2])
        y = F.scaled_dot_product_attention(q, many(keys), many(values), attn_mask=mask)
        y = y.transpose(1, 2).reshape(b, l, -1)
        return x + (y @ self.o_proj.to(kind).t()).float(), keys, values
