#!/usr/bin/env python3
"""Writes golden_bfloat16.safetensors beside golden.safetensors: logits of the same ids by a plain
pass in bfloat16, with PyTorch operations, one token after the other, written from the formulas and
not from this project's code. Linear layers, norms and products round their results to bfloat16; sums,
scans and softmax run in float32.

Usage: bfloat16_reference.py DIR... (folders of bamba, falcon_h1, granitemoehybrid, jamba, nemotron_h, zamba and zamba2
models)
"""
import json
import math
import struct
import sys

import torch
from torch.nn import functional as F

DTYPES = {"F32": torch.float32, "I32": torch.int32, "I64": torch.int64, "BF16": torch.bfloat16}


def read(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        values = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def write(path, tensors):
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, data = {}, b""
    for name, tensor in tensors.items():
        values = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class Model:
    def __init__(self, folder):
        self.config = json.load(open(folder + "/config.json"))
        stored = read(folder + "/model.safetensors")
        self.weights = {name: tensor.bfloat16() for name, tensor in stored.items()}
        self.hidden = self.config["hidden_size"]
        self.eps = self.config.get("rms_norm_eps", self.config.get("layer_norm_epsilon"))
        self.bias = {name: t.float() for name, t in stored.items() if "correction_bias" in name}

    def linear(self, x, name):
        return F.linear(x, self.weights[name + ".weight"])

    def norm(self, x, name):
        wide = x.float()
        scaled = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return self.weights[name] * scaled.bfloat16()

    def conv(self, u, prefix):
        weight = self.weights[prefix + "conv1d.weight"].float()
        width = weight.shape[-1]
        padded = torch.cat([torch.zeros(width - 1, u.shape[1]), u.float()])
        out = sum(padded[j:j + len(u)] * weight[:, 0, j] for j in range(width))
        return F.silu(out + self.weights[prefix + "conv1d.bias"].float()).bfloat16()

    def scan1(self, u, z, dt, a, b, c, d):
        h, y = torch.zeros(a.shape), []
        for t in range(len(u)):
            h = torch.exp(dt[t][:, None] * a) * h + (dt[t] * u[t])[:, None] * b[t][None]
            y.append(h @ c[t] + d * u[t])
        return (torch.stack(y).bfloat16().float() * F.silu(z)).bfloat16()

    def mamba1_normed(self, x, prefix):  # jamba's
        c, w = self.config, self.weights
        state, rank = c["mamba_d_state"], c["mamba_dt_rank"]
        u, z = self.linear(x, prefix + "in_proj").chunk(2, -1)
        u = self.conv(u.contiguous(), prefix)
        parts = self.linear(u, prefix + "x_proj").split([rank, state, state], -1)
        delta, b, cc = (self.norm(part, f"{prefix}{name}_layernorm.weight")
                        for part, name in zip(parts, ("dt", "b", "c")))
        raw = self.linear(delta, prefix + "dt_proj").float()
        dt = F.softplus(raw + w[prefix + "dt_proj.bias"].float())
        a, d = -torch.exp(w[prefix + "A_log"].float()), w[prefix + "D"].float()
        y = self.scan1(u.float(), z.float(), dt, a, b.float(), cc.float(), d)
        return self.linear(y, prefix + "out_proj")

    def mamba1(self, x, prefix):  # with heads
        c, w = self.config, {n: t for n, t in self.weights.items() if n.startswith(prefix)}
        heads, state, rank = c["n_mamba_heads"], c["mamba_d_state"], c["mamba_dt_rank"]
        projected = self.linear(x, prefix + "in_proj")
        u, z = projected[:, 0::2].contiguous(), projected[:, 1::2].float()
        u = self.conv(u, prefix)
        width = u.shape[1] // heads
        outs = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            values = F.linear(u[:, part], w[prefix + "x_proj_weight"][head])
            raw = F.linear(values[:, :rank], w[prefix + "dt_proj_weight"][head]).float()
            dt = F.softplus(raw + w[prefix + "dt_proj_bias"][head].float())
            b, cc = values[:, rank:rank + state].float(), values[:, rank + state:].float()
            a, d = -torch.exp(w[prefix + "A_log"][head].float()), w[prefix + "D"][head].float()
            outs.append(self.scan1(u[:, part].float(), z[:, part], dt, a, b, cc, d))
        return self.linear(torch.cat(outs, -1), prefix + "out_proj")

    def mamba2(self, x, prefix, heads, groups, sections=None, gated_norm_eps=None):
        w = self.weights
        state = self.config.get("mamba_d_state", self.config.get("ssm_state_size"))
        inner = w[prefix + "out_proj.weight"].shape[1]
        projected = self.linear(x, prefix + "in_proj")
        widths = [inner, inner, groups * state, groups * state, heads]
        if sections is not None:
            factors = torch.cat([torch.full((n,), s) for n, s in zip(widths, sections)])
            projected = projected * factors.bfloat16()
        z, xbc, dt = projected.split([inner, sum(widths[1:4]), heads], -1)
        xs, b, c = self.conv(xbc.contiguous(), prefix).float().split(widths[1:4], -1)
        xs = xs.reshape(len(x), heads, -1)
        b, c = (v.reshape(len(x), groups, state).repeat_interleave(heads // groups, 1)
                for v in (b, c))
        dt = F.softplus(dt.float() + w[prefix + "dt_bias"].float())
        a, d = -torch.exp(w[prefix + "A_log"].float()), w[prefix + "D"].float()
        h, y = torch.zeros(heads, xs.shape[2], state), []
        for t in range(len(x)):
            h = (torch.exp(dt[t] * a)[:, None, None] * h +
                 (dt[t][:, None] * xs[t])[:, :, None] * b[t][:, None, :])
            y.append((h * c[t][:, None, :]).sum(-1) + d[:, None] * xs[t])
        y = torch.stack(y).reshape(len(x), inner).bfloat16().float() * F.silu(z.float())
        if gated_norm_eps is None:
            return self.linear(y.bfloat16(), prefix + "out_proj")
        y = y.reshape(len(x), groups, -1)
        y = (y * torch.rsqrt((y * y).mean(-1, keepdim=True) + gated_norm_eps)).flatten(1)
        return self.linear(w[prefix + "norm.weight"] * y.bfloat16(), prefix + "out_proj")

    def attention(self, x, prefix, head_dim, scale, rotary=0, key_scale=1.0):
        q, k, v = (self.linear(x, f"{prefix}{name}_proj") for name in "qkv")
        if key_scale != 1:
            k = k * key_scale
        q, k, v = (t.reshape(len(x), -1, head_dim) for t in (q, k, v))
        if rotary:
            frequency = 1e4 ** -(torch.arange(0, rotary, 2, dtype=torch.float64) / rotary)
            angle = torch.arange(len(x), dtype=torch.float64)[:, None] * frequency
            angle = torch.cat([angle, angle], -1)[:, None]
            cosine, sine = angle.cos().bfloat16(), angle.sin().bfloat16()

            def rotate(t):
                r, rest = t[..., :rotary], t[..., rotary:]
                swapped = torch.cat([-r[..., rotary // 2:], r[..., :rotary // 2]], -1)
                return torch.cat([r * cosine + swapped * sine, rest], -1)
            q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1).float() for t in (k, v))
        mask = torch.triu(torch.full((len(x), len(x)), -math.inf), 1)
        scores = torch.einsum("thd,shd->hts", q.float(), k) * scale + mask
        weights = torch.softmax(scores, -1).bfloat16().float()
        out = torch.einsum("hts,shd->thd", weights, v).bfloat16().reshape(len(x), -1)
        return self.linear(out, prefix + "o_proj")

    def mlp(self, x, prefix, gate_scale=1.0):
        gate = self.linear(x, prefix + "gate_proj")
        gate = gate if gate_scale == 1 else gate * gate_scale
        return self.linear(F.silu(gate) * self.linear(x, prefix + "up_proj"), prefix + "down_proj")

    def relu2_mlp(self, x, prefix):
        return self.linear(F.relu(self.linear(x, prefix + "up_proj"))**2, prefix + "down_proj")

    def fused_mlp(self, x, up, down):
        gate, rest = F.linear(x, up).chunk(2, -1)
        return F.linear(F.silu(gate) * rest, down)

    def experts(self, x, chosen, weights, run):  # run(rows, e)
        total = torch.zeros(x.shape)
        for e in range(int(chosen.max()) + 1):
            row, which = torch.where(chosen == e)
            if len(row):
                part = run(x[row], e).float() * weights[row, which][:, None].float()
                total[row] += part.bfloat16().float()
        return total.bfloat16()

    def head(self, x, name, norm="model.final_layernorm.weight"):
        return self.norm(x, norm) @ self.weights[name].T

    def granitemoehybrid(self, ids):
        c, w = self.config, self.weights
        x = w["model.embed_tokens.weight"][ids] * c["embedding_multiplier"]
        head_dim, rs = self.hidden // c["num_attention_heads"], c["residual_multiplier"]
        rotary = head_dim if c.get("position_embedding_type") == "rope" else 0
        for i, kind in enumerate(c["layer_types"]):
            prefix = f"model.layers.{i}."
            n = self.norm(x, prefix + "input_layernorm.weight")
            if "full" in kind or kind == "attention":
                m = self.attention(n, prefix + "self_attn.", head_dim, c["attention_multiplier"],
                                   rotary)
            else:
                m = self.mamba2(n, prefix + "mamba.", c["mamba_n_heads"], c["mamba_n_groups"],
                                gated_norm_eps=self.eps)
            x = x + m * rs
            n = self.norm(x, prefix + "post_attention_layernorm.weight")
            shared = prefix + "shared_mlp."
            y = self.fused_mlp(n, w[shared + "input_linear.weight"],
                               w[shared + "output_linear.weight"])
            if c["num_local_experts"]:
                moe = prefix + "block_sparse_moe."
                up, down = w[moe + "input_linear.weight"], w[moe + "output_linear.weight"]
                top, chosen = self.linear(n, moe + "router.layer").float().topk(
                    c["num_experts_per_tok"], -1)
                y = y + self.experts(n, chosen, torch.softmax(top, -1).bfloat16(),
                                     lambda r, e: self.fused_mlp(r, up[e], down[e]))
            x = x + y * rs
        head = "lm_head.weight" if "lm_head.weight" in w else "model.embed_tokens.weight"
        return self.head(x, head, "model.norm.weight") / c["logits_scaling"]

    def jamba(self, ids):
        c, x = self.config, self.weights["model.embed_tokens.weight"][ids]
        head_dim = self.hidden // c["num_attention_heads"]
        for i in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{i}."
            n = self.norm(x, prefix + "input_layernorm.weight")
            if i % c["attn_layer_period"] == c["attn_layer_offset"]:
                x = x + self.attention(n, prefix + "self_attn.", head_dim, head_dim**-.5)
            else:
                x = x + self.mamba1_normed(n, prefix + "mamba.")
            n, ff = self.norm(x, prefix + "pre_ff_layernorm.weight"), prefix + "feed_forward."
            if i % c["expert_layer_period"] != c["expert_layer_offset"]:
                x = x + self.mlp(n, ff)
                continue
            share = torch.softmax(self.linear(n, ff + "router").float(), -1)
            weights, chosen = share.topk(c["num_experts_per_tok"], -1)
            x = x + self.experts(n, chosen, weights.bfloat16(),
                                 lambda r, e: self.mlp(r, f"{ff}experts.{e}."))
        return self.head(x, "lm_head.weight")

    def nemotron_h(self, ids):
        c, x = self.config, self.weights["backbone.embeddings.weight"][ids]
        for i, kind in enumerate(c["layers_block_type"]):
            prefix = f"backbone.layers.{i}.mixer."
            n = self.norm(x, f"backbone.layers.{i}.norm.weight")
            if kind == "mlp":
                x = x + self.relu2_mlp(n, prefix)
            elif kind == "full_attention":
                x = x + self.attention(n, prefix, c["head_dim"], c["head_dim"]**-.5)
            elif kind == "moe":
                gate = self.weights[prefix + "gate.weight"].float()
                share = torch.sigmoid(F.linear(n.float(), gate))
                ranked = share + self.bias[prefix + "gate.e_score_correction_bias"]
                chosen = ranked.topk(c["num_experts_per_tok"], -1).indices
                weights = share.gather(1, chosen)
                weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
                routed = self.experts(n, chosen, weights * c["routed_scaling_factor"],
                                      lambda r, e: self.relu2_mlp(r, f"{prefix}experts.{e}."))
                x = x + (routed + self.relu2_mlp(n, prefix + "shared_experts."))
            else:
                x = x + self.mamba2(n, prefix, c["mamba_num_heads"], c["n_groups"],
                                    gated_norm_eps=self.eps)
        return self.head(x, "lm_head.weight", "backbone.norm_f.weight")

    def bamba(self, ids):
        c, x = self.config, self.weights["model.embed_tokens.weight"][ids]
        head_dim = self.hidden // c["num_attention_heads"]
        for i in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{i}."
            n = self.norm(x, prefix + "input_layernorm.weight")
            if i in c["attn_layer_indices"]:
                x = x + self.attention(n, prefix + "self_attn.", head_dim, head_dim**-.5,
                                       head_dim // 2)
            else:
                x = x + self.mamba2(n, prefix + "mamba.", c["mamba_n_heads"], c["mamba_n_groups"],
                                    gated_norm_eps=self.eps)
            n = self.norm(x, prefix + "pre_ff_layernorm.weight")
            x = x + self.mlp(n, prefix + "feed_forward.")
        return self.head(x, "lm_head.weight")

    def falcon_h1(self, ids):
        c = self.config
        x = self.weights["model.embed_tokens.weight"][ids] * c["embedding_multiplier"]
        head_dim = self.hidden // c["num_attention_heads"]
        for i in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{i}."
            n = self.norm(x, prefix + "input_layernorm.weight")
            m = self.mamba2(n * c["ssm_in_multiplier"], prefix + "mamba.", c["mamba_n_heads"],
                            c["mamba_n_groups"], c["ssm_multipliers"])
            a = self.attention(n * c["attention_in_multiplier"], prefix + "self_attn.", head_dim,
                               head_dim**-.5, head_dim, c["key_multiplier"])
            x = x + (m * c["ssm_out_multiplier"] + a * c["attention_out_multiplier"])
            n = self.norm(x, prefix + "pre_ff_layernorm.weight")
            gate_scale, out_scale = c["mlp_multipliers"]
            x = x + self.mlp(n, prefix + "feed_forward.", gate_scale) * out_scale
        return self.head(x, "lm_head.weight") * c["lm_head_multiplier"]

    def shared_block(self, x, embedded, block, ordinal):
        c, head_dim = self.config, self.config["attention_head_dim"]
        rotary = head_dim if c.get("use_mem_rope") else 0
        a = self.norm(torch.cat([x, embedded], -1), block + "input_layernorm.weight")
        a = self.attention(a, block + "self_attn.", head_dim, (head_dim / 2)**-.5, rotary)
        r = self.norm(a, block + "pre_ff_layernorm.weight")
        ff = block + "feed_forward."
        if ff + "gate_up_proj.weight" in self.weights:
            adapter = f"{ff}gate_up_proj_adapter_list.{ordinal}."
            both = self.linear(r, ff + "gate_up_proj")
            both = both + self.linear(self.linear(r, adapter + "0"), adapter + "1")
            gate, up = both.chunk(2, -1)
        else:
            gate, up = self.linear(r, ff + "gate_proj"), self.linear(r, ff + "up_proj")
        return self.linear(F.gelu(gate) * up, ff + "down_proj")

    def zambas(self, ids, block_name, blocks, mixer):
        embedded = x = self.weights["model.embed_tokens.weight"][ids]
        types = self.config["layers_block_type"]
        hybrid = [i for i, kind in enumerate(types) if kind == "hybrid"]
        for i in range(len(types)):
            prefix, add = f"model.layers.{i}.", 0
            decoder = prefix
            if i in hybrid:
                j = hybrid.index(i)
                block = f"model.layers.{hybrid[j % blocks]}.{block_name}."
                add = self.linear(self.shared_block(x, embedded, block, j), prefix + "linear")
                decoder = prefix + "mamba_decoder."
            n = self.norm(x + add, decoder + "input_layernorm.weight")
            x = x + mixer(n, decoder + "mamba.")
        return self.head(x, "model.embed_tokens.weight")

    def zamba(self, ids):
        return self.zambas(ids, "shared_transf", 1, self.mamba1)

    def zamba2(self, ids):
        c = self.config
        return self.zambas(ids, "shared_transformer", c["num_mem_blocks"],
                           lambda x, prefix: self.mamba2(x, prefix, c["n_mamba_heads"],
                                                         c["mamba_ngroups"], gated_norm_eps=1e-5))


for folder in sys.argv[1:]:
    model, golden, out = Model(folder), read(folder + "/golden.safetensors"), {}
    for name in sorted(golden):
        if name.startswith("ids_"):
            out[name] = golden[name]
            logits = getattr(model, model.config["model_type"])(golden[name].long())
            out[name.replace("ids", "logits")] = logits
    write(folder + "/golden_bfloat16.safetensors", out)
