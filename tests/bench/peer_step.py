"""The peer of `make bench B=cpu`: one ECT training step (two forwards, one backward, RAdam, EMA) of a DDPM++-style U-Net in plain
PyTorch, written as a user would write it. Usage: peer_step.py RES CHANNELS WIDTH MULT,MULT BLOCKS ATTN,ATTN BATCH THREADS STEPS
[channels_last]. Prints the PyTorch version, then one line a step: milliseconds."""
import copy
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def groups(c):
    return min(32, c // 4)


class Block(nn.Module):
    def __init__(self, cin, cout, emb, mode=None, attn=False):
        super().__init__()
        self.mode, self.attn = mode, attn
        self.norm0 = nn.GroupNorm(groups(cin), cin, eps=1e-6)
        self.conv0 = nn.Conv2d(cin, cout, 3, padding=1)
        self.affine = nn.Linear(emb, cout)
        self.norm1 = nn.GroupNorm(groups(cout), cout, eps=1e-6)
        self.conv1 = nn.Conv2d(cout, cout, 3, padding=1)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout or mode else None
        if attn:
            self.norm2 = nn.GroupNorm(groups(cout), cout, eps=1e-6)
            self.qkv = nn.Conv2d(cout, 3 * cout, 1)
            self.proj = nn.Conv2d(cout, cout, 1)

    def resample(self, x):
        if self.mode == "down":
            return F.avg_pool2d(x, 2)
        if self.mode == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x

    def forward(self, x, emb):
        h = self.conv0(self.resample(F.silu(self.norm0(x))))
        h = h + self.affine(emb)[:, :, None, None]
        h = self.conv1(F.dropout(F.silu(self.norm1(h)), 0.1, self.training))
        x = (h + (self.skip(self.resample(x)) if self.skip is not None else x)) * math.sqrt(0.5)
        if self.attn:
            n, c, hh, ww = x.shape
            q, k, v = self.qkv(self.norm2(x)).reshape(n, c, 3, hh * ww).unbind(2)
            w = torch.softmax(torch.bmm(q.transpose(1, 2), k / math.sqrt(c)), dim=2)
            a = torch.bmm(v, w.transpose(1, 2)).reshape(n, c, hh, ww)
            x = (self.proj(a) + x) * math.sqrt(0.5)
        return x


class Net(nn.Module):
    def __init__(self, res, channels, width, mult, blocks, attn, sigma_data=0.5):
        super().__init__()
        self.width, self.sd = width, sigma_data
        emb = 4 * width
        self.map0, self.map1 = nn.Linear(width, emb), nn.Linear(emb, emb)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.enc, self.dec = nn.ModuleList(), nn.ModuleList()
        c, skips = width, [width]
        for level, m in enumerate(mult):
            r = res >> level
            if level:
                self.enc.append(Block(c, c, emb, "down"))
                skips.append(c)
            for _ in range(blocks):
                self.enc.append(Block(c, m * width, emb, attn=r in attn))
                c = m * width
                skips.append(c)
        for level in reversed(range(len(mult))):
            r = res >> level
            if level == len(mult) - 1:
                self.dec.append(Block(c, c, emb, attn=True))
                self.dec.append(Block(c, c, emb))
            else:
                self.dec.append(Block(c, c, emb, "up"))
            for i in range(blocks + 1):
                b = Block(c + skips.pop(), mult[level] * width, emb, attn=r in attn and i == blocks)
                b.joins = True
                self.dec.append(b)
                c = mult[level] * width
        self.norm, self.last = nn.GroupNorm(groups(c), c, eps=1e-6), nn.Conv2d(c, channels, 3, padding=1)

    def forward(self, x, t):
        s = t[:, None, None, None]
        d = torch.sqrt(s * s + self.sd ** 2)
        f = torch.exp(-math.log(1e4) * torch.arange(self.width // 2) / (self.width // 2 - 1))
        a = (torch.log(t) / 4)[:, None] * f
        emb = F.silu(self.map1(F.silu(self.map0(torch.cat([a.sin(), a.cos()], 1)))))
        h = self.first(x / d)
        skips = [h]
        for b in self.enc:
            h = b(h, emb)
            skips.append(h)
        for b in self.dec:
            if getattr(b, "joins", False):
                h = torch.cat([h, skips.pop()], 1)
            h = b(h, emb)
        return x * (self.sd ** 2 / d ** 2) + self.last(F.silu(self.norm(h))) * (s * self.sd / d)


def main():
    res, channels, width = (int(v) for v in sys.argv[1:4])
    mult = [int(v) for v in sys.argv[4].split(",")]
    blocks, attn = int(sys.argv[5]), [int(v) for v in sys.argv[6].split(",")]
    batch, threads, steps = (int(v) for v in sys.argv[7:10])
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    fmt = torch.channels_last if "channels_last" in sys.argv else torch.contiguous_format
    net = Net(res, channels, width, mult, blocks, attn).to(memory_format=fmt).train()
    ema = copy.deepcopy(net).requires_grad_(False)
    opt = torch.optim.RAdam(net.parameters(), lr=1e-4)
    data = torch.rand(1024, channels, res, res) * 2 - 1
    print("torch", torch.__version__, "parameters", sum(p.numel() for p in net.parameters()))
    for _ in range(steps):
        begin = time.perf_counter()
        y = data[torch.randint(0, 1024, (batch,))].contiguous(memory_format=fmt)
        t = torch.exp(torch.randn(batch) * 2.0 - 1.1)
        r = (t * (1 - 0.25 * (1 + 8 * torch.sigmoid(-t)))).clamp(min=0)
        eps = torch.randn_like(y)
        state = torch.get_rng_state()
        dt = net(y + t[:, None, None, None] * eps, t)
        with torch.no_grad():
            torch.set_rng_state(state)
            dr = net(y + r[:, None, None, None] * eps, r.clamp(min=1e-6))
            dr = torch.where((r > 0)[:, None, None, None], dr, y)
        loss = ((dt - dr) ** 2).sum((1, 2, 3)).add(1e-8).sqrt() / (t - r)
        opt.zero_grad(set_to_none=True)
        loss.mean().backward()
        opt.step()
        with torch.no_grad():
            for e, p in zip(ema.parameters(), net.parameters()):
                e.lerp_(p, 1e-3)
        print("%.3f" % ((time.perf_counter() - begin) * 1e3), flush=True)


main()
