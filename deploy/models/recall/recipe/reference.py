"""The same model as a plain serial recurrence in float64: slow, independent of model.py, and what
the reference logits (golden.safetensors) are made with."""
import torch


def run(tensors, cfg, ids):
    w = {k: v.double() for k, v in tensors.items()}
    i, n, h, p, eps = cfg.inner, cfg.state, cfg.heads, cfg.head_dim, cfg.eps
    norm = lambda v, g: v / torch.sqrt((v * v).mean(-1, keepdim=True) + eps) * g
    silu = lambda v: v / (1 + torch.exp(-v))
    x = w["backbone.embeddings.weight"][ids]
    for k in range(cfg.layers):
        pre = f"backbone.layers.{k}."
        m = pre + "mixer."
        proj = norm(x, w[pre + "norm.weight"]) @ w[m + "in_proj.weight"].t()
        z, xbc, dt = proj.split([i, i + 2 * n, h], -1)
        padded = torch.cat([torch.zeros(cfg.conv - 1, xbc.shape[1], dtype=x.dtype), xbc])
        xbc = silu(sum(padded[j:j + len(ids)] * w[m + "conv1d.weight"][:, 0, j]
                       for j in range(cfg.conv)) + w[m + "conv1d.bias"])
        xs, B, C = xbc.split([i, n, n], -1)
        dt = torch.log1p(torch.exp(dt + w[m + "dt_bias"]))
        decay = torch.exp(-dt * torch.exp(w[m + "A_log"]))
        state = torch.zeros(h, p, n, dtype=x.dtype)
        ys = []
        for t in range(len(ids)):
            xt = xs[t].view(h, p)
            state = decay[t].view(h, 1, 1) * state + (dt[t].view(h, 1) * xt)[:, :, None] * B[t]
            ys.append(state @ C[t] + w[m + "D"].view(h, 1) * xt)
        y = norm(torch.stack(ys).view(-1, i) * silu(z), w[m + "norm.weight"])
        x = x + y @ w[m + "out_proj.weight"].t()
    return norm(x, w["backbone.norm_f.weight"]) @ w["backbone.embeddings.weight"].t()
