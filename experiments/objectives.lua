-- Question: the objectives of one core on the UCI 8x8 digits: do the orderings of the paper show on images at equal cost? Adaptive weighting
-- helps few-step sampling, diffusion pretraining helps, two steps beat one.
-- Protocol: as swissroll.lua: every method spends the forward passes of `budget` batches of 64, pretraining included (3 a step of EDM and
-- flow matching, 4 of ECT, iCT and CT, 6 of CD), on the demo's small network. Five paired replicates; Frechet distance in the features of a
-- fixed random network over 2,000 samples. One learning rate, 1e-3 down a cosine, and CT's grid as in swissroll.lua. Runs are short: what is
-- compared is what a small budget gives, not where the methods end.
-- Expected: as the paper says. What came out is in experiments/README.md.
local ect = require "ect"
local samples = ect.arg("samples", 2000)
local replicates = 5
local budget = ect.arg("budget", 3600) -- forward passes, in batches
local metrics = { "fd_random" }
local function lr(ref) return ect.lr.cosine { ref = ref } end

local function common(settings)
    local all = { net = { mult = { 1, 1 } }, ema = ect.ema.power { std = 0.1 } }
    for key, value in pairs(settings) do all[key] = value end
    return all
end
local few = { sampler = "ect", nfe = { 1, 2 }, ema = "std1", samples = samples, metrics = metrics }

-- Half of the budget goes into diffusion; its own quality is measured with 35 evaluations.
local pre = ect.run "digits-pre" {
    ect.recipe "digits-edm" (common { lr = lr(1e-3), iters = budget // 6 }), replicates = replicates,
    eval = { few, { sampler = "heun", nfe = { 35 }, ema = "std1", samples = samples, metrics = metrics } },
}
local s = ect.sweep "objectives" {
    init = pre:weights { ema = "std1" }, replicates = replicates,
    base = ect.recipe "digits-ect" (common { lr = lr(1e-3), iters = budget // 8 }), eval = few,
}
local scratch = { init = "none", iters = budget // 4 }
local function with(settings, more)
    local all = {}
    for _, t in ipairs { settings, more } do
        for key, value in pairs(t) do all[key] = value end
    end
    return all
end
s:ablate {
    method = {
        scratch = scratch,
        ["p=0"] = { metric = "l2", p = 0 },
        ["p=1"] = { metric = "l2", p = 1, c = 0.03 },
        ict = with(scratch, { target = "ict", pair = ect.pair.lognormal {}, curriculum = ect.curriculum.ict {}, c = ect.c_rule() }),
        ct = with(scratch, { target = "ct", pair = ect.pair.uniform {}, curriculum = ect.curriculum.ct { s1 = 40 }, weight = ect.weight.uniform {},
            metric = "l2", p = 0, sigma_min = 0.002, loss = { teacher = "ema", teacher_ema = ect.teacher_ema.ct {} } }),
        cd = { target = "cd", pair = ect.pair.uniform {}, curriculum = 18, weight = ect.weight.uniform {}, metric = "l2", p = 0, sigma_min = 0.002,
            iters = budget // 12 },
    },
}
s:table { rows = "cell", cols = { "fd_random@1", "fd_random@2", "flops_total", "seconds" }, vs = "base", stat = "paired95" }
for _, nfe in ipairs { 1, 2 } do
    local m = "fd_random@" .. nfe
    s:claim { text = "diffusion pretraining helps ECT, steps: " .. nfe, better = "base", than = "method=scratch", metric = m }
    s:claim { text = "adaptive weighting (p = 1/2) helps ECT, steps: " .. nfe, better = "base", than = "method=p=0", metric = m }
    s:claim { text = "adaptive weighting (p = 1) helps ECT, steps: " .. nfe, better = "method=p=1", than = "method=p=0", metric = m }
end
for _, cell in ipairs { "base", "method=scratch", "method=ict", "method=ct", "method=cd" } do
    s:claim { text = "two steps beat one: " .. cell:gsub("^method=", ""):gsub("^base$", "ect"), better = cell, metric = "fd_random@2",
        than_metric = "fd_random@1" }
end

local f = ect.sweep "objectives-flow" {
    replicates = replicates,
    base = ect.recipe "digits-edm" (common { target = "flow", noise = ect.noise.uniform_time {}, weight = ect.weight.uniform {}, metric = "l2", p = 0,
        c = 0.01, lr = lr(1e-3), iters = budget // 3 }),
    eval = { sampler = "flow-euler", nfe = { 1, 2, 4, 8, 32 }, ema = "std1", samples = samples, metrics = metrics },
}
f:ablate { p = { 0, 0.5, 1 } }
f:table { rows = "p", cols = { "fd_random@flow-euler1", "fd_random@flow-euler2", "fd_random@flow-euler4", "fd_random@flow-euler8", "fd_random@flow-euler32",
    "flops_total", "seconds" }, vs = "0", stat = "paired95" }
for _, nfe in ipairs { 1, 2, 4, 8, 32 } do
    for _, p in ipairs { "0.5", "1" } do
        f:claim { text = ("adaptive weighting (p = %s) helps flow matching, steps: %d"):format(p, nfe), better = "p=" .. p, than = "base",
            metric = "fd_random@flow-euler" .. nfe }
    end
end
