-- Question: what makes a short consistency tuning of a small diffusion model work: the mapping r(t), the constant c of the adaptive
-- weighting, or dropout? On the UCI 8x8 digits, in minutes on two cores.
-- Protocol: three replicates. Each pretrains a diffusion model of its own (EDM); every cell tunes the EMA weights of its replicate (ECT)
-- with the same data order, noise levels and noise as the other cells, so differences are paired. 10,000 samples per evaluation.
-- The network is half the recipes' and runs are short, so that 15 of them and their evaluations fit into minutes.
-- Expected: tuning brings one step from hopeless to near the 35 evaluations of Heun; two steps are better than one; the factors differ little.
local ect = require "ect"
local samples = ect.arg("samples", 10000)
local net = { mult = { 1, 1 } }

local pre = ect.run "pre" {
    ect.recipe "digits-edm" { net = net, iters = 2000, lr = 1e-3 }, replicates = 3,
    eval = {
        { sampler = "ect", nfe = { 1, 2 }, ema = "std05", samples = samples },
        { sampler = "heun", nfe = { 35 }, ema = "std05", samples = samples },
    },
}

local s = ect.sweep "demo" {
    init = pre:weights { ema = "std05" },
    base = ect.recipe "digits-ect" { net = net, iters = 800, lr = 3e-4, ema = ect.ema.power { std = 0.1 } }, replicates = 3,
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "std1", samples = samples },
}
s:ablate {
    mapping = { sigmoid = ect.mapping.sigmoid { q = 2, k = 8, b = 1 }, const = ect.mapping.const { q = 2 } },
    c = { 0, ect.c_rule() },
    dropout = { 0, 0.1 },
}
s:table { rows = "cell", cols = { "fd_pixel@1", "fd_pixel@2", "fd_random@1", "fd_random@2", "flops_total", "seconds" }, vs = "base", stat = "paired95" }
s:pareto { min = { "flops_total", "fd_random@2" }, by = "nfe" }
