-- A pretraining and a tuning small enough for tests: seconds, not quality.
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
local samples, at = ect.arg("samples", 64), ect.arg("at", "100%")

local pre = ect.run "pre" {
    ect.recipe "digits-edm" { net = net, batch = 16, iters = 24, ckpt = { every = 8 }, log = { every = 4 } },
    replicates = 2,
    eval = { sampler = "ect", nfe = { 1 }, ema = "std05", samples = samples },
}
local s = ect.sweep "tiny" {
    init = pre:weights { ema = "std05" },
    base = ect.recipe "digits-ect" { net = net, batch = 16, iters = 16, ckpt = { every = 8 }, log = { every = 4 } },
    replicates = 2,
    eval = { at = { at }, sampler = "ect", nfe = { 1, 2 }, ema = "std05", samples = samples },
}
s:ablate { dropout = { 0, 0.1 } }
s:table { rows = "cell", cols = { "fd_random@1", "fd_random@2", "flops_total" }, vs = "base" }
s:pareto { min = { "flops_total", "fd_random@2" } }
