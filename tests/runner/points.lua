-- Points instead of images, small enough for tests: a diffusion model, its tuning, and flow matching, with claims.
local ect = require "ect"
local base = { data = "swissroll", sigma_data = 0, net = { "mlp", width = 16, blocks = 2 }, batch = 32, iters = 20, optim = "adam", lr = 1e-3,
    mapping = ect.mapping.zero {}, dropout = 0, ema = ect.ema.power { std = 0.1 } }
local function with(settings)
    local all = {}
    for k, v in pairs(base) do all[k] = v end
    for k, v in pairs(settings) do all[k] = v end
    return all
end
local metrics = { "energy", "sw2" }
local pre = ect.run "pre" { with { target = "edm", weight = ect.weight.edm {} }, replicates = 3,
    eval = { sampler = "heun", nfe = { 3 }, ema = "std1", samples = 100, metrics = metrics } }
local s = ect.sweep "tune" { init = pre:weights { ema = "std1" }, replicates = 3,
    base = with { target = "ect", mapping = ect.mapping.sigmoid { q = 2, k = 8, b = 1 }, weight = ect.weight.inv_dt {} },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "std1", samples = 100, metrics = metrics } }
s:claim { text = "two steps are better than one", better = "base", metric = "energy@2", than_metric = "energy@1" }
local f = ect.sweep "flow" { replicates = 3,
    base = with { target = "flow", noise = ect.noise.uniform_time {}, weight = ect.weight.uniform {}, metric = "l2", p = 0 },
    eval = { sampler = "flow-euler", nfe = { 2, 4 }, ema = "std1", samples = 100, metrics = metrics } }
f:ablate { p = { 0, 1 } }
f:table { rows = "p", cols = { "energy@flow-euler2", "sw2@flow-euler4" }, vs = "0" }
f:claim { text = "p = 1 helps", better = "p=1", than = "base", metric = "energy@flow-euler2" }
