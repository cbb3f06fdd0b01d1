"""Muon for the matrices (orthogonalised momentum, scaled to the size of an Adam step), AdamW for the rest."""
import torch


@torch.compile(dynamic=False)
def newton_schulz(g):
    """[k,r,c], r <= c: the nearest semi-orthogonal matrices, by five quintic steps in bfloat16."""
    kind = torch.bfloat16 if g.is_cuda else torch.float32
    x = (g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(kind)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        b = -4.7750 * a + 2.0315 * (a @ a)
        x = 3.4445 * x + b @ x
    return x


class Muon:
    """params: list of lists of matrices of one shape; cuts: row ranges treated as matrices of their own."""

    def __init__(self, groups, momentum=.95, decay=.05):
        self.groups, self.momentum, self.decay = groups, momentum, decay
        self.buffers = [torch.zeros(len(ps), *ps[0].shape, device=ps[0].device) for ps, _ in groups]

    @torch.no_grad()
    def step(self, lr):
        for (params, cuts), buf in zip(self.groups, self.buffers):
            grad = torch.stack([p.grad for p in params])
            buf.mul_(self.momentum).add_(grad)
            u = grad.add(buf, alpha=self.momentum)
            out = torch.empty_like(u)
            for a, b in zip(cuts[:-1], cuts[1:]):
                part = u[:, a:b]
                wide = part.shape[1] <= part.shape[2]
                o = newton_schulz((part if wide else part.transpose(1, 2)).contiguous())
                o = o if wide else o.transpose(1, 2)
                out[:, a:b] = o.float() * (.2 * max(part.shape[1:]) ** .5)
            torch._foreach_mul_(params, 1 - lr * self.decay)
            torch._foreach_add_(params, list(out.unbind(0)), alpha=-lr)
