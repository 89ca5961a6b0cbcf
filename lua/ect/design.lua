-- The design space of Easy Consistency Tuning (Geng et al., ICLR 2025), one function a line of the paper.
--
--   x_t = x_0 + t eps            noise level t of a sample, drawn by noise(u, s), u uniform in (0, 1)
--   r = mapping(t, s) <= t       the second, lower noise level; r = 0 is diffusion training
--   w = weight(t, r, s)          weighting of ||f(x_t) - sg f(x_r)||
--   stage(s), lr(s), dropout(s), ema(s)    schedules
--
-- s: step (optimiser steps done), nimg (images seen before this step), batch, iters, progress = step / iters, stage, N, sigma_data.
-- Each function has a name, parameters with defaults (required: none given here), and a version that is raised when its values change.
local def = require "ect.def"
local noise, mapping, weight, stage = def "noise", def "mapping", def "weight", def "stage"
local lr, dropout, ema = def "lr", def "dropout", def "ema"
local required, exp, log, max, sqrt, floor = def.required, math.exp, math.log, math.max, math.sqrt, math.floor

-- Noise ----------------------------------------------------------------------------------------------------------------

-- ln t ~ N(P_mean, P_std^2), not truncated; -1.1, 2.0 for ECT on CIFAR-10, -1.2, 1.2 for EDM.
noise.lognormal(1, { mean = -1.1, std = 2.0 }, function(p)
    local mean, std, quantile = p.mean, p.std, host.quantile
    return function(u, s) return exp(mean + std * quantile(u)) end
end)
-- The same from a standard normal z instead of u: for checks against recorded draws.
noise.lognormal_z(1, { mean = -1.1, std = 2.0 }, function(p)
    local mean, std = p.mean, p.std
    return function(z, s) return exp(mean + std * z) end
end)

-- Flow matching: the time t in (0, 1) of x_t = (1 - t) x_0 + t eps. Uniform, or logit-normal: ln(t / (1 - t)) ~ N(mean, std^2).
noise.uniform_time(1, {}, function() return function(u, s) return u end end)
noise.logit_normal(1, { mean = 0, std = 1 }, function(p)
    local mean, std, quantile = p.mean, p.std, host.quantile
    return function(u, s) return 1 / (1 + exp(-(mean + std * quantile(u)))) end
end)

-- Mapping t -> r, with a = stage + 1 ------------------------------------------------------------------------------------

-- r = max(0, t (1 - n(t) / q^a)),  n(t) = 1 + k sigma(-b t) = 1 + k / (1 + e^{b t})
mapping.sigmoid(1, { q = 2, k = 8, b = 1 }, function(p)
    local q, k, b = p.q, p.k, p.b
    return function(t, s) return max(0, t * (1 - (1 + k / (1 + exp(b * t))) / q ^ (s.stage + 1))) end
end)
-- r = t (1 - 1 / q^a)
mapping.const(1, { q = 2 }, function(p)
    local q = p.q
    return function(t, s) return t * (1 - 1 / q ^ (s.stage + 1)) end
end)
-- r = 0: diffusion
mapping.zero(1, {}, function() return function(t, s) return 0 end end)

-- Weighting (Table 2) ---------------------------------------------------------------------------------------------------

weight.inv_dt(1, {}, function() return function(t, r, s) return 1 / (t - r) end end)
-- SNR + 1/sigma_data^2 = 1/t^2 + 1/sigma_data^2 ("snrpk")
weight.snr_plus(1, {}, function() return function(t, r, s) return 1 / (t * t) + 1 / (s.sigma_data * s.sigma_data) end end)
weight.inv_t(1, {}, function() return function(t, r, s) return 1 / t end end)
-- EDM's lambda(t) = (t^2 + sigma_data^2) / (t sigma_data)^2 = 1 / c_out^2
weight.edm(1, {}, function()
    return function(t, r, s) return (t * t + s.sigma_data * s.sigma_data) / (t * s.sigma_data) ^ 2 end
end)
weight.uniform(1, {}, function() return function(t, r, s) return 1 end end)

-- Stage of the mapping schedule: iteration i >= 1 belongs to stage floor((i - 1) / d), iteration 0 to stage 0 ---------------

-- n stages of equal length: d = iters / n
stage.equal(1, { n = 8 }, function(p)
    local n = p.n
    return function(s) return floor(max(s.step - 1, 0) * n / s.iters) end
end)
stage.every(1, { d = required }, function(p)
    local d = p.d
    return function(s) return floor(max(s.step - 1, 0) / d) end
end)

-- Learning rate and dropout ------------------------------------------------------------------------------------------------

lr.const(1, { lr = required }, function(p) return function(s) return p.lr end end)
-- ref / sqrt(max(nimg / (batches B), 1)), times min(nimg / rampup, 1); rampup in images, batches = 0: no decay
lr.inv_sqrt(1, { ref = required, batches = 2000, rampup = 0 }, function(p)
    local ref, batches, rampup = p.ref, p.batches, p.rampup
    return function(s)
        local v = ref
        if batches > 0 then v = v / sqrt(max(s.nimg / (batches * s.batch), 1)) end
        if rampup > 0 then v = v * math.min(s.nimg / rampup, 1) end
        return v
    end
end)
dropout.const(1, { p = required }, function(p) return function(s) return p.p end end)

-- EMA of the weights: ema <- beta ema + (1 - beta) weights, B images a step ---------------------------------------------------

ema.const(1, { beta = required }, function(p) return function(s) return p.beta end end)

local function halflife(nimg, p, s) -- beta = 0.5^(B / max(min(img, ramp nimg), 1e-8))
    local h = p.ramp and math.min(p.img, nimg * p.ramp) or p.img
    return 0.5 ^ (s.batch / max(h, 1e-8))
end
-- Half-life in images, as in EDM and ECT for CIFAR-10: nimg before the step.
ema.halflife(1, { img = required, ramp = false }, function(p) return function(s) return halflife(s.nimg, p, s) end end)
-- As in ECT for ImageNet: nimg after the step.
ema.halflife_after(1, { img = required, ramp = false }, function(p)
    return function(s) return halflife(s.nimg + s.batch, p, s) end
end)

-- Power-function EMA (EDM2) of relative width std: beta = (1 - B / nimg)^(gamma + 1), nimg after the step, so the first beta is 0.
-- gamma is the largest root of g^3 + 7 g^2 + (16 - std^-2) g + 12 - std^-2 = 0; Newton from 1/std comes down to it monotonically.
local function gamma(std)
    local a, g = std ^ -2, 1 / std
    for _ = 1, 100 do
        local f = ((g + 7) * g + 16 - a) * g + 12 - a
        local next_g = g - f / ((3 * g + 14) * g + 16 - a)
        if next_g == g then break end
        g = next_g
    end
    return g
end
ema.power(1, { std = required }, function(p)
    local exponent = gamma(p.std) + 1
    return function(s) return (1 - s.batch / (s.nimg + s.batch)) ^ exponent end
end, function(p) return p.std > 0 and p.std < 0.2886 or "std must be in (0, 0.2886): the widest is 1/sqrt(12)" end)
ema.gamma = gamma

-- beta = 0.5^(1 / (f iters)): half-life of a fraction f of the run, so that a short run forgets where it began.
ema.forget(1, { iters_fraction = 0.02 }, function(p)
    local fraction = p.iters_fraction
    return function(s) return 0.5 ^ (1 / (fraction * s.iters)) end
end)

-- The constant c of the adaptive weighting by iCT's rule: c = 0.00054 sqrt(d), d = elements of an image of the cell's data set.
local function c_rule() return def.deferred("c_rule", function(d) return 0.00054 * sqrt(d) end) end

return { noise = noise, mapping = mapping, weight = weight, stage = stage, lr = lr, dropout = dropout, ema = ema, c_rule = c_rule }
