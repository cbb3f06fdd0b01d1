"""Mamba-2 as it is trained here: a chunked dual form (matrix products) with states that can be
handed in, handed out and merged, all differentiable.

Weight names and shapes on disk are those that transformers writes for `mamba2`. The plain serial
recurrence that this file is checked against is in reference.py.
"""
import json
import math
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # reading a model on a machine without Triton is fine
    triton = None

CHUNK = 128


@dataclass
class Config:
    hidden: int = 512
    layers: int = 11
    state: int = 128
    head_dim: int = 64
    vocab: int = 4096
    conv: int = 4
    eps: float = 1e-5
    extra: dict = field(default_factory=dict)

    @property
    def inner(self):
        return 2 * self.hidden

    @property
    def heads(self):
        return self.inner // self.head_dim

    @property
    def conv_dim(self):
        return self.inner + 2 * self.state

    @classmethod
    def from_json(cls, path):
        c = json.load(open(path))
        assert c["model_type"] == "mamba2" and c["n_groups"] == 1 and c["expand"] == 2
        return cls(c["hidden_size"], c["num_hidden_layers"], c["state_size"], c["head_dim"],
                   c["vocab_size"], c["conv_kernel"], c["layer_norm_epsilon"])

    def to_json(self):
        return {
            "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2",
            "hidden_size": self.hidden, "num_hidden_layers": self.layers, "state_size": self.state,
            "head_dim": self.head_dim, "num_heads": self.heads, "expand": 2, "n_groups": 1,
            "conv_kernel": self.conv, "vocab_size": self.vocab, "tie_word_embeddings": True,
            "chunk_size": 256, "rms_norm": True, "residual_in_fp32": True,
            "layer_norm_epsilon": self.eps, "use_bias": False, "use_conv_bias": True,
            "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 0,
            "time_step_limit": [0.0, 1e30], "torch_dtype": "bfloat16",
        }


# --- Running the state over chunks: s[c+1] = decay[c] * s[c] + inc[c] ---------------------------

if triton is not None:

    @triton.jit
    def _scan_forward(inc, decay, start, states, end, heads, nc: tl.constexpr, size: tl.constexpr,
                      BLOCK: tl.constexpr):
        bh, blk = tl.program_id(0).to(tl.int64), tl.program_id(1)
        b, h = bh // heads, bh % heads
        cols = blk * BLOCK + tl.arange(0, BLOCK)
        s = tl.load(start + bh * size + cols)
        for c in range(nc):
            at = (b * nc + c) * heads + h
            tl.store(states + at * size + cols, s.to(states.dtype.element_ty))
            s = s * tl.load(decay + at) + tl.load(inc + at * size + cols).to(tl.float32)
        tl.store(end + bh * size + cols, s)

    @triton.jit
    def _scan_backward(d_states, d_end, states, decay, d_inc, d_start, d_decay, heads, nc: tl.constexpr,
                       size: tl.constexpr, BLOCK: tl.constexpr):
        bh, blk = tl.program_id(0).to(tl.int64), tl.program_id(1)
        b, h = bh // heads, bh % heads
        cols = blk * BLOCK + tl.arange(0, BLOCK)
        ds = tl.load(d_end + bh * size + cols)
        for r in range(nc):
            at = (b * nc + nc - 1 - r) * heads + h
            tl.store(d_inc + at * size + cols, ds.to(d_inc.dtype.element_ty))
            s = tl.load(states + at * size + cols).to(tl.float32)
            tl.store(d_decay + at * (size // BLOCK) + blk, tl.sum(ds * s, 0))
            ds = ds * tl.load(decay + at) + tl.load(d_states + at * size + cols).to(tl.float32)
        tl.store(d_start + bh * size + cols, ds)


def _use_triton(x):
    return triton is not None and (x.is_cuda or FORCE_TRITON)


FORCE_TRITON = False  # tests set it, with TRITON_INTERPRET=1


@torch.library.custom_op("recall::scan", mutates_args=())
def scan(inc: torch.Tensor, decay: torch.Tensor,
         start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """inc [b,c,h,pn], decay [b,c,h], start [b,h,pn] -> state before each chunk, last state."""
    b, nc, h, size = inc.shape
    states, end = torch.empty_like(inc), torch.empty_like(start)
    if _use_triton(inc):
        block = min(1024, size)
        _scan_forward[(b * h, size // block)](inc, decay, start, states, end, h, nc, size, block)
        return states, end
    s = start
    for c in range(nc):
        states[:, c] = s.to(states.dtype)
        s = s * decay[:, c, :, None] + inc[:, c].float()
    return states, s.clone()


@scan.register_fake
def _(inc, decay, start):
    return torch.empty_like(inc), torch.empty_like(start)


@torch.library.custom_op("recall::scan_backward", mutates_args=())
def scan_backward(d_states: torch.Tensor, d_end: torch.Tensor, states: torch.Tensor,
                  decay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    b, nc, h, size = states.shape
    d_inc, d_start = torch.empty_like(states), torch.empty_like(d_end)
    if _use_triton(states):
        block = min(1024, size)
        part = torch.empty(b, nc, h, size // block, dtype=torch.float32, device=states.device)
        _scan_backward[(b * h, size // block)](d_states, d_end, states, decay, d_inc, d_start,
                                               part, h, nc, size, block)
        return d_inc, part.sum(-1), d_start
    d_decay, ds = torch.empty_like(decay), d_end
    for c in reversed(range(nc)):
        d_inc[:, c] = ds.to(d_inc.dtype)
        d_decay[:, c] = (ds * states[:, c].float()).sum(-1)
        ds = ds * decay[:, c, :, None] + d_states[:, c].float()
    return d_inc, d_decay, ds.clone()


@scan_backward.register_fake
def _(d_states, d_end, states, decay):
    return torch.empty_like(states), torch.empty_like(decay), torch.empty_like(d_end)


def _scan_setup(ctx, inputs, output):
    ctx.save_for_backward(output[0], inputs[1])


def _scan_grad(ctx, d_states, d_end):
    states, decay = ctx.saved_tensors
    return scan_backward(d_states.contiguous(), d_end.contiguous(), states, decay)


scan.register_autograd(_scan_grad, setup_context=_scan_setup)


def ssd(x, dt, log_decay, B, C, start, chunk):
    """x [b,l,h,p], dt and log_decay [b,l,h] (float32), B and C [b,l,n], start [b,h,p,n] (float32).

    Returns y [b,l,h,p] and the state after the last token. The recurrence is
    S_t = exp(log_decay_t) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t.
    """
    b, l, h, p = x.shape
    n, kind = B.shape[-1], x.dtype
    q = min(chunk, l)
    c = l // q
    cum = log_decay.view(b, c, q, h).cumsum(2)
    total = cum[:, :, -1]
    B, C = B.reshape(b, c, q, n), C.reshape(b, c, q, n)
    xd = x.float().view(b, c, q, h, p) * dt.view(b, c, q, h, 1)
    # Inside a chunk: a masked, decayed C B^T, one matrix per head.
    by_head = cum.permute(0, 1, 3, 2)
    seen = torch.ones(q, q, dtype=torch.bool, device=x.device).tril()
    gap = (by_head.unsqueeze(-1) - by_head.unsqueeze(-2)).masked_fill(~seen, -math.inf)
    mix = ((C @ B.transpose(-1, -2)).unsqueeze(2).float() * gap.exp()).to(kind)
    inside = mix @ xd.permute(0, 1, 3, 2, 4).to(kind).contiguous()
    # Across chunks: what each adds to the state, the state before each, what it gives.
    late = (xd * (total.unsqueeze(2) - cum).exp().unsqueeze(-1)).to(kind)
    inc = late.view(b, c, q, h * p).transpose(-1, -2) @ B
    states, end = scan(inc.view(b, c, h, p * n).contiguous(), total.exp().contiguous(),
                       start.reshape(b, h, p * n).contiguous())
    before = C @ states.view(b, c, h * p, n).transpose(-1, -2)
    y = inside.permute(0, 1, 3, 2, 4).float()
    y = y + before.view(b, c, q, h, p).float() * cum.exp().unsqueeze(-1)
    return y.reshape(b, l, h, p), end.view(b, h, p, n)


def rms(x, weight, eps):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        d, i, h, cd = cfg.hidden, cfg.inner, cfg.heads, cfg.conv_dim
        self.norm = nn.Parameter(torch.ones(d))
        self.in_proj = nn.Parameter(torch.randn(i + cd + h, d) * d ** -0.5)
        self.conv_w = nn.Parameter((torch.rand(cd, cfg.conv) * 2 - 1) * cfg.conv ** -0.5)
        self.conv_b = nn.Parameter(torch.zeros(cd))
        # Some heads start out forgetting almost nothing: memories must last for ten thousand tokens.
        self.A_log = nn.Parameter(torch.empty(h).uniform_(math.log(.02), math.log(16)))
        dt = torch.exp(torch.rand(h) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.D = nn.Parameter(torch.ones(h))
        self.gate_norm = nn.Parameter(torch.ones(i))
        self.out_proj = nn.Parameter(torch.randn(d, i) * i ** -0.5 / math.sqrt(2 * cfg.layers))

    def forward(self, x, keep, start, window, kind, chunk):
        """x [b,l,d] float32; keep [b,l] is 0 before a row's first token, else 1.

        Returns x, the state, the conv window, and log P (the log decay of the whole row).
        """
        cfg = self.cfg
        b, l, _ = x.shape
        i, n, h = cfg.inner, cfg.state, cfg.heads
        u = rms(x, self.norm, cfg.eps).to(kind)
        z, xbc, dt = (u @ self.in_proj.to(kind).t()).split([i, cfg.conv_dim, h], -1)
        xbc = torch.cat([window.to(kind), xbc * keep.unsqueeze(-1).to(kind)], 1)
        end_window = xbc[:, -(cfg.conv - 1):].float()
        conv = self.conv_b
        for k in range(cfg.conv):
            conv = conv + xbc[:, k:k + l].float() * self.conv_w[:, k]
        conv = F.silu(conv).to(kind)
        xs, B, C = conv.split([i, n, n], -1)
        xs = xs.reshape(b, l, h, cfg.head_dim)
        dt = F.softplus(dt.float() + self.dt_bias) * keep.unsqueeze(-1)
        log_decay = dt * -self.A_log.exp()
        y, end = ssd(xs, dt, log_decay, B, C, start, chunk)
        y = (y + self.D.view(h, 1) * xs.float()).reshape(b, l, i)
        y = rms(y * F.silu(z.float()), self.gate_norm, cfg.eps).to(kind)
        return x + (y @ self.out_proj.to(kind).t()).float(), end, end_window, log_decay.sum(1)


@dataclass
class Memory:
    """What a row has read: per layer the state, the conv window and log P since its start."""
    states: list
    windows: list
    log_p: list

    def detach(self):
        return Memory(*([t.detach() for t in ts] for ts in (self.states, self.windows, self.log_p)))

    def pick(self, rows):
        return Memory(*([t[rows] for t in ts] for ts in (self.states, self.windows, self.log_p)))


class Model(nn.Module):
    def __init__(self, cfg, kind=torch.bfloat16, chunk=CHUNK):
        super().__init__()
        self.cfg, self.kind, self.chunk = cfg, kind, chunk
        self.embedding = nn.Parameter(torch.randn(cfg.vocab, cfg.hidden) * cfg.hidden ** -0.5)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm_f = nn.Parameter(torch.ones(cfg.hidden))

    def empty(self, b):
        cfg, dev = self.cfg, self.embedding.device
        zeros = lambda *s: [torch.zeros(b, *s, device=dev) for _ in range(cfg.layers)]
        return Memory(zeros(cfg.heads, cfg.head_dim, cfg.state),
                      zeros(cfg.conv - 1, cfg.conv_dim), zeros(cfg.heads))

    def forward(self, ids, memory=None, keep=None):
        """ids [b,l], l a multiple of the chunk or shorter than it -> hidden [b,l,d], Memory."""
        memory = memory or self.empty(ids.shape[0])
        keep = torch.ones(ids.shape, device=ids.device) if keep is None else keep
        x = self.embedding[ids].float()
        states, windows, log_p = [], [], []
        for k, block in enumerate(self.blocks):
            x, s, w, p = block(x, keep, memory.states[k], memory.windows[k], self.kind, self.chunk)
            states.append(s), windows.append(w), log_p.append(p + memory.log_p[k])
        return x, Memory(states, windows, log_p)

    def logits(self, x):
        return (rms(x, self.norm_f, self.cfg.eps).to(self.kind) @
                self.embedding.to(self.kind).t()).float()

    # --- the names of the weights on disk ---
    def named(self):
        yield "backbone.embeddings.weight", self.embedding
        for k, bl in enumerate(self.blocks):
            pre = f"backbone.layers.{k}."
            yield pre + "norm.weight", bl.norm
            for name, t in (("A_log", bl.A_log), ("D", bl.D), ("dt_bias", bl.dt_bias),
                            ("conv1d.weight", bl.conv_w), ("conv1d.bias", bl.conv_b),
                            ("in_proj.weight", bl.in_proj), ("norm.weight", bl.gate_norm),
                            ("out_proj.weight", bl.out_proj)):
                yield pre + "mixer." + name, t
        yield "backbone.norm_f.weight", self.norm_f

    def export(self, dtype=torch.bfloat16):
        out = {}
        for name, t in self.named():
            t = t.detach().to("cpu", dtype)
            out[name] = (t.unsqueeze(1) if name.endswith("conv1d.weight") else t).contiguous()
        return out

    def load(self, tensors):
        for name, t in self.named():
            t.data.copy_(tensors[name].reshape(t.shape))
        return self


def merge_weights(log_p, n_max=64):
    """log_p [g,k,h] (-inf rows are absent contexts' P = 1 and get weight 0 by the caller's mask).

    W_k = integral_0^1 prod_{j != k} ((1 - t) + t P_j) dt by Gauss-Legendre nodes.
    """
    import numpy as np
    nodes, weights = np.polynomial.legendre.leggauss((log_p.shape[1] + 1) // 2)
    t = torch.tensor((nodes + 1) / 2, device=log_p.device, dtype=torch.float32)
    w = torch.tensor(weights / 2, device=log_p.device, dtype=torch.float32)
    # 1 - t (1 - P) > 0 for every node, so the product over the others is a quotient of logs.
    term = torch.log1p(t * torch.expm1(log_p).unsqueeze(-1))
    others = term.sum(1, keepdim=True) - term
    return (others.exp() * w).sum(-1)


def merge(memory, members, last, ancestor=None):
    """Merge groups of rows into one state each, in no order (the product's COMPOSE).

    members [g,k] row numbers, -1 where a group has fewer; last [g] the row whose conv window is
    kept; ancestor: a Memory of g rows that all members grew from (their log P counts from it).
    S = (prod P_j) S_O + sum_k W_k (S_k - P_k S_O).
    """
    here = (members >= 0)
    rows = members.clamp(min=0)
    states, windows, log_p = [], [], []
    for k, (s, w, p) in enumerate(zip(memory.states, memory.windows, memory.log_p)):
        p = p[rows].masked_fill(~here.unsqueeze(-1), 0.0)
        weight = merge_weights(p) * here.unsqueeze(-1)
        parts = s[rows]
        total = p.sum(1)
        if ancestor is not None:
            old = ancestor.states[k]
            parts = parts - p.exp()[..., None, None] * old.unsqueeze(1)
            base = total.exp()[..., None, None] * old
            total = total + ancestor.log_p[k]
        else:
            base = 0.0
        states.append(base + torch.einsum("gkh,gkhpn->ghpn", weight, parts))
        windows.append(w[last])
        log_p.append(total)
    return Memory(states, windows, log_p)
