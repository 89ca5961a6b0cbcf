-- The design space: every number that a step or a sample of the method depends on, one function an equation.
--
--   x_t = x_0 + t eps                         t = noise(u, s), u uniform in (0, 1); t is the standard deviation of the noise
--   r = mapping(t, s) <= t                    the second, lower noise level; r = 0 is diffusion training
--   t, r = pair(u, s)                         both at once, on a grid of s.N = curriculum(s) levels: the discretised methods
--   L = w a d(f(x_t, t), sg f(x_r, r))        w = weight(t, r, s), a = adapt(t, r, ||f(x_t) - f(x_r)||, s), d the metric (C)
--   stage(s), lr(s), dropout(s)               schedules;  ema(s), teacher_ema(s): decays of averages of the weights
--
-- s: step k (optimiser steps done), nimg (images seen before this step), batch B, iters K, progress = k / K, stage, N, sigma_data.
-- Each function has a name, parameters with defaults (required: none given here), and a version that is raised when its values change.
-- What touches pixels is C: preconditioning in core/ops/precond.c, d in core/distance.c, objectives in core/targets/, samplers in
-- core/sampler_methods.c. Numbers (1), (2), ... are this page's; [..] says where an equation stands in its paper.
-- Sources: [ECT] Geng et al. 2025, [CM] Song et al. 2023, [iCT] Song and Dhariwal 2024, [EDM] Karras et al. 2022, [EDM2] Karras et al. 2024.
local def = require "ect.def"
local noise, levels, pair, curriculum = def "noise", def "levels", def "pair", def "curriculum"
local mapping, weight, adapt, stage = def "mapping", def "weight", def "adapt", def "stage"
local lr, dropout, ema, teacher_ema = def "lr", def "dropout", def "ema", def "teacher_ema"
local required, exp, log, max, min, sqrt = def.required, math.exp, math.log, math.max, math.min, math.sqrt
local floor, ceil = math.floor, math.ceil

-- Noise level t -----------------------------------------------------------------------------------------------------------

-- (1) ln t ~ N(P_mean, P_std^2), not truncated. P_mean, P_std: -1.1, 2.0 [ECT on CIFAR-10; iCT's values]; -1.2, 1.2 [EDM, Table 1];
-- -0.8, 1.6 [EDM2 and ECT on ImageNet 64x64].
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

-- Grids of noise levels: sigma_1 < ... < sigma_N, with N = s.N; levels are functions of i, to look at ----------------------------------------------------------------

local function count(s)
    local n = s.N
    if n < 2 then error("a grid of " .. host.num(n) .. " noise levels: curriculum must give at least 2", 0) end
    return n
end

-- (2) sigma_i = (min^(1/rho) + (i - 1) / (N - 1) (max^(1/rho) - min^(1/rho)))^rho, i = 1..N    [EDM, eq. 5; CM, section 5; iCT, Table 1]
local function karras(p)
    local rho, a, b = p.rho, p.min ^ (1 / p.rho), p.max ^ (1 / p.rho)
    local function sigma(i, n) return (a + (i - 1) / (n - 1) * (b - a)) ^ rho end
    local function below(x, n) -- the i < N with sigma_i <= x
        return min(max(1 + floor((x ^ (1 / rho) - a) / (b - a) * (n - 1)), 1), n - 1)
    end
    return sigma, below
end
local ends = { min = 0.002, max = 80, rho = 7 }
local function with_ends(t)
    for k, v in pairs(ends) do t[k] = v end
    return t
end
levels.karras(1, ends, function(p)
    local sigma = karras(p)
    return function(i, s) return sigma(i, count(s)) end
end)

-- (3) i uniform in 1..N-1; t = sigma_{i+1}, r = sigma_i    [CM, algorithms 2 and 3]
pair.uniform(1, ends, function(p)
    local sigma = karras(p)
    return function(u, s)
        local n = count(s)
        local i = n - 1 - min(floor(u * (n - 1)), n - 2)
        return sigma(i + 1, n), sigma(i, n)
    end
end)

-- (4) p(sigma_i) ~ erf((ln sigma_{i+1} - P_mean) / (sqrt(2) P_std)) - erf((ln sigma_i - P_mean) / (sqrt(2) P_std))    [iCT, section 3.5]
-- is what falls between sigma_i and sigma_{i+1} of (1), cut off at the ends of the grid: so draw that, and take the interval it is in.
local function between(p)
    local mean, std, cdf = p.mean, p.std, host.cdf
    return function(x) return cdf((log(x) - mean) / std) end
end
levels.probability(1, with_ends { mean = -1.1, std = 2.0 }, function(p) -- p(sigma_i), i = 1..N-1
    local sigma, cdf = karras(p), between(p)
    local all = cdf(p.max) - cdf(p.min)
    return function(i, s)
        local n = count(s)
        return (cdf(sigma(i + 1, n)) - cdf(sigma(i, n))) / all
    end
end)
pair.lognormal(1, with_ends { mean = -1.1, std = 2.0 }, function(p)
    local sigma, below = karras(p)
    local mean, std, quantile, cdf = p.mean, p.std, host.quantile, between(p)
    local lo, all = cdf(p.min), cdf(p.max) - cdf(p.min)
    return function(u, s)
        local n = count(s)
        local i = below(exp(mean + std * quantile(lo + u * all)), n)
        return sigma(i + 1, n), sigma(i, n)
    end
end)

-- Number N(k) of noise levels at step k of K; a plain number is a fixed grid -----------------------------------------------------

-- (5) N = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1, at least 2    [CM, appendix C; s0 = 2, s1 = 150 CIFAR-10, 200 ImageNet]
curriculum.ct(1, { s0 = 2, s1 = 150 }, function(p)
    local s0, s1 = p.s0, p.s1
    return function(s) return max(ceil(sqrt(s.step / s.iters * ((s1 + 1) ^ 2 - s0 ^ 2) + s0 ^ 2) - 1), 1) + 1 end
end)
-- (6) N = min(s0 2^floor(k / K'), s1) + 1,  K' = floor(K / (log2 floor(s1 / s0) + 1))    [iCT, section 3.4]
curriculum.ict(1, { s0 = 10, s1 = 1280 }, function(p)
    local s0, s1 = p.s0, p.s1
    return function(s)
        local each = max(floor(s.iters / (log(floor(s1 / s0), 2) + 1)), 1)
        return min(s0 * 2 ^ floor(s.step / each), s1) + 1
    end
end, function(p) return p.s0 >= 1 and p.s1 >= p.s0 or "s0 must be at least 1 and s1 at least s0" end)

-- Mapping t -> r, with a = stage + 1    [ECT, section 3] -----------------------------------------------------------------------------

-- (7) r = max(0, t (1 - n(t) / q^a))
local function ratio(n, q) return function(t, s) return max(0, t * (1 - n(t) / q ^ (s.stage + 1))) end end
-- n(t) = 1 + k sigma(-b t) = 1 + k / (1 + e^{b t}): the published models
mapping.sigmoid(1, { q = 2, k = 8, b = 1 }, function(p)
    local q, k, b = p.q, p.k, p.b
    return function(t, s) return max(0, t * (1 - (1 + k / (1 + exp(b * t))) / q ^ (s.stage + 1))) end
end)
-- n(t) = 1: r = t (1 - 1 / q^a)
mapping.const(1, { q = 2 }, function(p)
    local q = p.q
    return function(t, s) return t * (1 - 1 / q ^ (s.stage + 1)) end
end)
-- n(t) = min(1 + k log2(1 + 1 / t^2), cut) and n(t) = min(1 + t^-k, cut): in the code before the paper, not in its results
mapping.logsnr(1, { q = 2, k = 1, cut = 4 }, function(p)
    local k, cut = p.k, p.cut
    return ratio(function(t) return min(1 + k * log(1 + 1 / (t * t), 2), cut) end, p.q)
end)
mapping.power(1, { q = 2, k = 1, cut = 4 }, function(p)
    local k, cut = p.k, p.cut
    return ratio(function(t) return min(1 + t ^ -k, cut) end, p.q)
end)
-- r = 0: diffusion
mapping.zero(1, {}, function() return function(t, s) return 0 end end)

-- Weighting w(t)    [ECT, Table 2], with SNR = 1 / t^2 ---------------------------------------------------------------------------------

weight.uniform(1, {}, function() return function(t, r, s) return 1 end end) -- [CM]: "uniform"
weight.inv_t(1, {}, function() return function(t, r, s) return 1 / t end end)
-- (8) 1 / (t - r): ECT's on CIFAR-10; on a grid iCT's lambda = 1 / (sigma_{i+1} - sigma_i)    [iCT, section 3.1]
weight.inv_dt(1, {}, function() return function(t, r, s) return 1 / (t - r) end end)
weight.snr(1, {}, function() return function(t, r, s) return 1 / (t * t) end end)
weight.snr_one(1, {}, function() return function(t, r, s) return 1 / (t * t) + 1 end end) -- SNR + 1
-- (9) SNR + 1/sigma_data^2: ECT's on ImageNet ("snrpk"); "karras" in [CM]'s code
weight.snr_plus(1, {}, function() return function(t, r, s) return 1 / (t * t) + 1 / (s.sigma_data * s.sigma_data) end end)
-- the same as [EDM, Table 1] writes it: lambda(t) = (t^2 + sigma_data^2) / (t sigma_data)^2 = 1 / c_out^2
weight.edm(1, {}, function()
    return function(t, r, s) return (t * t + s.sigma_data * s.sigma_data) / (t * s.sigma_data) ^ 2 end
end)
weight.inv_t_plus(1, {}, function() return function(t, r, s) return 1 / t + 1 / s.sigma_data end end) -- 1/t + 1/sigma_data
weight.soft_min_snr(1, {}, function() return function(t, r, s) return 1 / (t * t + s.sigma_data * s.sigma_data) end end)
weight.truncated_snr(1, {}, function() return function(t, r, s) return max(1 / (t * t), 1) end end) -- [CM]'s code

-- Adaptive weighting    [ECT, Table 3] ----------------------------------------------------------------------------------------------------

-- (10) w(Delta) = 1 / (||Delta||^2 + c^2)^p, detached; Pseudo-Huber's gradient is half of p = 1/2's. The metrics l2 and pseudo-huber have
-- it built in (settings c, p); this is for other metrics, and a place for others.
adapt.power(1, { p = 0.5, c = 0.001 }, function(p)
    local power, c2 = p.p, p.c * p.c
    return function(t, r, d, s) return (d * d + c2) ^ -power end
end, function(p) return p.c > 0 or "c must be positive: without it the factor of a distance of 0 is infinite" end)

-- Stage of the mapping schedule ----------------------------------------------------------------------------------------------------------

-- (11) iteration i >= 1 belongs to stage floor((i - 1) / d), iteration 0 to stage 0    [as ECT's code counts]

-- n stages of equal length: d = iters / n
stage.equal(1, { n = 8 }, function(p)
    local n = p.n
    return function(s) return floor(max(s.step - 1, 0) * n / s.iters) end
end)
stage.every(1, { d = required }, function(p)
    local d = p.d
    return function(s) return floor(max(s.step - 1, 0) / d) end
end)
-- the last of n stages from the start: no annealing, the final ratio 1 - 1/q^n all along
stage.final(1, { n = 8 }, function(p) return function(s) return p.n - 1 end end)

-- Learning rate and dropout ------------------------------------------------------------------------------------------------

lr.const(1, { lr = required }, function(p) return function(s) return p.lr end end)
-- lr min(nimg / images, 1): linear warm-up over the first images, then constant, as in EDM
lr.warmup(1, { lr = required, images = required }, function(p)
    local value, images = p.lr, p.images
    return function(s) return value * math.min(s.nimg / images, 1) end
end, function(p) return p.images > 0 or "images must be positive" end)
-- (12) ref / sqrt(max(nimg / (batches B), 1)), times min(nimg / rampup, 1); rampup in images, batches = 0: no decay    [EDM2, eq. 67]
lr.inv_sqrt(1, { ref = required, batches = 2000, rampup = 0 }, function(p)
    local ref, batches, rampup = p.ref, p.batches, p.rampup
    return function(s)
        local v = ref
        if batches > 0 then v = v / sqrt(max(s.nimg / (batches * s.batch), 1)) end
        if rampup > 0 then v = v * min(s.nimg / rampup, 1) end
        return v
    end
end)
-- ref / 2 (1 + cos(pi k / K)) down to `last`
lr.cosine(1, { ref = required, last = 0 }, function(p)
    return function(s) return p.last + (p.ref - p.last) * 0.5 * (1 + math.cos(math.pi * s.progress)) end
end)
dropout.const(1, { p = required }, function(p) return function(s) return p.p end end)
-- from the one to the other over the run
dropout.linear(1, { from = required, to = required }, function(p)
    return function(s) return p.from + (p.to - p.from) * s.progress end
end)

-- EMA of the weights: ema <- beta ema + (1 - beta) weights, B images a step ---------------------------------------------------

ema.const(1, { beta = required }, function(p) return function(s) return p.beta end end)

local function halflife(nimg, p, s) -- beta = 0.5^(B / max(min(img, ramp nimg), 1e-8))
    local h = p.ramp and min(p.img, nimg * p.ramp) or p.img
    return 0.5 ^ (s.batch / max(h, 1e-8))
end
-- Half-life in images, as in EDM and ECT for CIFAR-10: nimg before the step.
ema.halflife(1, { img = required, ramp = false }, function(p) return function(s) return halflife(s.nimg, p, s) end end)
-- As in ECT for ImageNet: nimg after the step.
ema.halflife_after(1, { img = required, ramp = false }, function(p)
    return function(s) return halflife(s.nimg + s.batch, p, s) end
end)

-- (13) Power-function EMA of relative width std [EDM2, eq. 121-123]: beta = (1 - B / nimg)^(gamma + 1), nimg after the step, so the first beta is 0.
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

-- EMA of the weights as teacher: theta^- <- mu theta^- + (1 - mu) theta; a plain number is a fixed mu [CM on CD: 0, 0.95] ----------------

-- (14) mu = exp(s0 ln mu0 / (N - 1)) for curriculum (5); mu0 = 0.9 CIFAR-10, 0.95 ImageNet    [CM, appendix C, as in its code]
teacher_ema.ct(1, { mu0 = 0.9, s0 = 2 }, function(p)
    local rate = p.s0 * log(p.mu0)
    return function(s) return exp(rate / (count(s) - 1)) end
end, function(p) return p.mu0 > 0 and p.mu0 <= 1 or "mu0 must be in (0, 1]" end)

-- The constant c of the adaptive weighting by iCT's rule: c = 0.00054 sqrt(d), d = elements of an image of the cell's data set.
local function c_rule() return def.deferred("c_rule", function(d) return 0.00054 * sqrt(d) end) end

return {
    noise = noise, levels = levels, pair = pair, curriculum = curriculum, mapping = mapping, weight = weight, adapt = adapt, stage = stage,
    lr = lr, dropout = dropout, ema = ema, teacher_ema = teacher_ema, c_rule = c_rule,
}
