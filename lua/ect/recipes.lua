-- recipes: complete settings by name. ect.recipe "cifar10-ect" is a table of settings that can be copied and changed;
-- ect.recipe "cifar10-ect" { iters = 1000 } is the same with overrides. Start tuning and distillation with init = pre:weights{...} or a file.
--
-- Numbers of the cifar10 and imagenet64 recipes are published ones. Marks behind a line say how sure that is: no mark, from published code
-- or text; (M) from memory of a paper, not checked again; (U) not published as far as known, our choice. The digits recipes are ours.
local design = require "ect.design"
local settings, sandbox = require "ect.settings", require "ect.sandbox"
local noise, pair, curriculum, mapping, weight = design.noise, design.pair, design.curriculum, design.mapping, design.weight
local stage, lr, ema, teacher_ema = design.stage, design.lr, design.ema, design.teacher_ema

local recipes = {}
-- A recipe that differs from another in some settings.
local function like(name, changes)
    local copy = {}
    for k, v in pairs(recipes[name]) do copy[k] = v end
    for k, v in pairs(changes) do copy[k] = v end
    return copy
end
local function c_of(elements) return 0.00054 * elements ^ 0.5 end -- iCT's rule, section 3.3

-- What the methods on a grid share: CT [Song et al. 2023] and iCT [Song and Dhariwal 2024].
local function ct_grid(s1, mu0)
    return {
        pair = pair.uniform {}, curriculum = curriculum.ct { s0 = 2, s1 = s1 }, weight = weight.uniform {}, sigma_min = 0.002,
        ["loss.teacher"] = "ema", ["loss.teacher_ema"] = teacher_ema.ct { mu0 = mu0, s0 = 2 },
    }
end
local ict_grid = { pair = pair.lognormal { mean = -1.1, std = 2.0 }, curriculum = curriculum.ict { s0 = 10, s1 = 1280 } }
local function with(t, ...)
    local all = {}
    for _, part in ipairs { t, ... } do
        for k, v in pairs(part) do all[k] = v end
    end
    return all
end

-- Digits: small models of 8x8 images, minutes on two cores ----------------------------------------------------------------------

local digits_net = { "songunet", width = 16, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
recipes["digits-edm"] = {
    target = "edm", data = "digits", sigma_data = 0, net = digits_net,
    noise = noise.lognormal { mean = -1.2, std = 1.2 }, mapping = mapping.zero {}, weight = weight.edm {}, dropout = 0,
    optim = "radam", lr = 4e-4, batch = 64, iters = 2000, ema = ema.power { std = 0.05 },
    eval = { sampler = "heun", nfe = 35, ema = "std05" },
}
-- Its tuning: 8 stages, q = 2. The EMA forgets the starting weights, which a short tune must.
recipes["digits-ect"] = {
    target = "ect", data = "digits", sigma_data = 0, net = digits_net,
    noise = noise.lognormal { mean = -1.1, std = 2.0 }, mapping = mapping.sigmoid { q = 2, k = 8, b = 1 },
    weight = weight.inv_dt {}, stage = stage.equal { n = 8 }, c = 0, dropout = 0,
    optim = "radam", lr = 4e-4, batch = 64, iters = 1500, ema = ema.power { std = 0.05 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "std05" },
}
-- Diffusion pretraining under ECT's own weighting: r = 0 all along, so the same loss with the image as target.
recipes["digits-ect-pretrain"] = like("digits-ect", {
    mapping = mapping.zero {}, stage = stage.equal { n = 1 }, iters = 2000, eval = { sampler = "heun", nfe = 35, ema = "std05" },
})
-- Table 5 of the paper walks from ECT to iCT: dropout as for iCT; then this recipe, iCT's grid and curriculum instead of the mapping;
-- then init = "none". What is left to digits-ict is c and the longer run.
recipes["digits-ect-discrete"] = like("digits-ect", ict_grid)
recipes["digits-ict"] = like("digits-ect", with(ict_grid, { target = "ict", c = c_of(64), lr = 1e-3, iters = 3000 }))
-- 40 levels at most: a run this short is too short for 150.
recipes["digits-ct"] = like("digits-ect", with(ct_grid(40, 0.9), { target = "ct", metric = "l2-mean", lr = 1e-3, iters = 3000 }))
-- 18 levels, no EMA teacher: as CD on CIFAR-10.
recipes["digits-cd"] = like("digits-ect", {
    target = "cd", pair = pair.uniform {}, curriculum = 18, weight = weight.uniform {}, sigma_min = 0.002, metric = "l2-mean",
})

-- Points of the plane (data: swissroll, gauss8, gaussian), standard deviation 1: seconds on two cores -----------------------------

recipes["points-edm"] = {
    target = "edm", data = "swissroll", sigma_data = 0, net = { "mlp", width = 128, blocks = 4 },
    noise = noise.lognormal { mean = -0.5, std = 1.2 }, mapping = mapping.zero {}, weight = weight.edm {}, dropout = 0,
    optim = "adam", lr = lr.cosine { ref = 1e-3 }, batch = 256, iters = 4000, ema = ema.power { std = 0.1 },
    eval = { sampler = "heun", nfe = 35, ema = "std1", samples = 5000, metrics = { "energy", "sw2" } },
}
recipes["points-ect"] = like("points-edm", {
    target = "ect", noise = noise.lognormal { mean = -0.4, std = 2.0 }, mapping = mapping.sigmoid { q = 2, k = 8, b = 1 },
    weight = weight.inv_dt {}, stage = stage.equal { n = 8 }, c = 0, iters = 3000,
    eval = { sampler = "ect", nfe = { 1, 2 }, mid_t = 1.5, ema = "std1", samples = 5000, metrics = { "energy", "sw2" } },
})
-- Flow matching with adaptive weighting [ECT, Figure 6]: p from 0 (none) to 1. Network, steps and c: (U).
recipes["points-flow"] = like("points-edm", {
    target = "flow", noise = noise.uniform_time {}, weight = weight.uniform {}, metric = "l2", p = 0.5, c = 0.01,
    eval = { sampler = "flow-euler", nfe = { 1, 2, 4, 8 }, ema = "std1", samples = 5000, metrics = { "energy", "sw2" } },
})

-- CIFAR-10 -------------------------------------------------------------------------------------------------------------------------

local cifar10_net = { "songunet", width = 128, mult = { 2, 2, 2 }, blocks = 4, attn = { 16 } }
-- EDM's pretraining (DDPM++, unconditional, 200 Mimg), with its augmentation: p = 0.12, labels for the network.
recipes["cifar10-edm"] = {
    target = "edm", data = "cifar10", sigma_data = 0.5, net = cifar10_net,
    noise = noise.lognormal { mean = -1.2, std = 1.2 }, mapping = mapping.zero {}, weight = weight.edm {}, dropout = 0.13,
    ["net.augment"] = 9, augment = 0.12,
    optim = "adam", lr = lr.warmup { lr = 1e-3, images = 10e6 }, batch = 512, iters = 390625,
    ema = ema.halflife { img = 500e3, ramp = 0.05 },
    eval = { sampler = "heun", nfe = 35, ema = "hl500k", samples = 50000 },
}
-- ECT: 200k steps of 128 images, 8 stages of 25,000.
recipes["cifar10-ect"] = {
    target = "ect", data = "cifar10", sigma_data = 0.5, net = cifar10_net,
    noise = noise.lognormal { mean = -1.1, std = 2.0 }, mapping = mapping.sigmoid { q = 2, k = 8, b = 1 },
    weight = weight.inv_dt {}, stage = stage.every { d = 25000 }, c = 0, dropout = 0.2,
    optim = "radam", lr = 1e-4, batch = 128, iters = 200000, ema = ema.const { beta = 0.9999 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta9999", samples = 50000 },
}
recipes["cifar10-ect-100k"] = like("cifar10-ect", { iters = 100000, stage = stage.every { d = 12500 } }) -- (U) the stage's length
recipes["cifar10-ect-400k"] = like("cifar10-ect", { iters = 400000, stage = stage.every { d = 50000 } }) -- (U) likewise
-- One hour on an A100: one stage that begins where the others end, 1/q = 1/256.
recipes["cifar10-ect-1hour"] = like("cifar10-ect", {
    mapping = mapping.sigmoid { q = 256, k = 8, b = 1 }, stage = stage.equal { n = 1 }, iters = 8000, ema = ema.const { beta = 0.9993 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta9993", samples = 50000 },
})
-- Diffusion pretraining under ECT's weighting (Table 4): the budget and optimiser of cifar10-edm. (U) everything but the loss
recipes["cifar10-ect-pretrain"] = like("cifar10-edm", {
    target = "ect", noise = noise.lognormal { mean = -1.1, std = 2.0 }, weight = weight.inv_dt {}, stage = stage.equal { n = 1 }, c = 0,
})
recipes["cifar10-ect-discrete"] = like("cifar10-ect", ict_grid) -- between ECT and iCT, see digits-ect-discrete
-- iCT: NCSN++ with Fourier features of scale 0.02 (M), dropout 0.3 (M), EMA 0.99993 (M), from scratch.
recipes["cifar10-ict"] = with(ict_grid, {
    target = "ict", data = "cifar10", sigma_data = 0.5, net = { "cifar10-ncsnpp", fourier_scale = 0.02 },
    weight = weight.inv_dt {}, metric = "pseudo-huber", c = c_of(3072), dropout = 0.3,
    optim = "radam", lr = 1e-4, batch = 1024, iters = 400000, ema = ema.const { beta = 0.99993 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta99993", samples = 50000 },
})
recipes["cifar10-ict-deep"] = like("cifar10-ict", { net = { "cifar10-ncsnpp-deep", fourier_scale = 0.02 } })
-- CT: s1, mu0, lr, EMA and network (M).
recipes["cifar10-ct"] = with(ct_grid(150, 0.9), {
    target = "ct", data = "cifar10", sigma_data = 0.5, net = { "cifar10-ncsnpp" }, metric = "lpips", dropout = 0,
    optim = "radam", lr = 4e-4, batch = 512, iters = 800000, ema = ema.const { beta = 0.9999 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta9999", samples = 50000 },
})
-- CD: 18 levels, the target network is the network itself (mu = 0); lr, EMA and network (M). init: EDM's network.
recipes["cifar10-cd"] = {
    target = "cd", data = "cifar10", sigma_data = 0.5, sigma_min = 0.002, net = { "cifar10-ncsnpp" },
    pair = pair.uniform {}, curriculum = 18, weight = weight.uniform {}, metric = "lpips", dropout = 0,
    optim = "radam", lr = 4e-4, batch = 512, iters = 800000, ema = ema.const { beta = 0.9999 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta9999", samples = 50000 },
}

-- ImageNet 64x64, class-conditional ---------------------------------------------------------------------------------------------------

-- EDM2: batches of 2048, 1074, 2147, 1074 and 671 Mimg; dropout and warm-up (M).
local function edm2(size, lr_ref, iters, dropout)
    recipes["imagenet64-edm2-" .. size] = {
        target = "edm", data = "imagenet64", sigma_data = 0.5, net = { "edm2-img64-" .. size, logvar = true },
        noise = noise.lognormal { mean = -0.8, std = 1.6 }, mapping = mapping.zero {}, weight = weight.edm {}, dropout = dropout,
        optim = { "adam", beta1 = 0.9, beta2 = 0.99 }, lr = lr.inv_sqrt { ref = lr_ref, batches = 35000, rampup = 10e6 },
        ["grad.clean"] = "imgnet", batch = 2048, iters = iters, ema = { ema.power { std = 0.05 }, ema.power { std = 0.1 } },
        eval = { sampler = "heun", nfe = 63, ema = "std05", samples = 50000 },
    }
end
edm2("s", 0.0100, 524288, 0)
edm2("m", 0.0090, 1048576, 0.1)
edm2("l", 0.0080, 524288, 0.1)
edm2("xl", 0.0070, 327680, 0.1)

-- ECT: 100k steps of 128 images, 4 stages of 25,000 with q = 4. Which of the three EMAs the tables quote: (U).
local function ect(size, lr_ref, dropout)
    recipes["imagenet64-ect-" .. size] = {
        target = "ect", data = "imagenet64", sigma_data = 0.5, net = { "edm2-img64-" .. size, dropout_res = 16 },
        noise = noise.lognormal { mean = -0.8, std = 1.6 }, mapping = mapping.sigmoid { q = 4, k = 8, b = 1 },
        weight = weight.snr_plus {}, stage = stage.every { d = 25000 }, c = 0.06, dropout = dropout,
        optim = { "adam", beta1 = 0.9, beta2 = 0.99 }, lr = lr.inv_sqrt { ref = lr_ref, batches = 2000 },
        ["grad.clean"] = "imgnet", batch = 128, iters = 100000,
        ema = { ema.power { std = 0.01 }, ema.power { std = 0.05 }, ema.power { std = 0.1 }, ema.const { beta = 0.9999 } },
        eval = { sampler = "ect", nfe = { 1, 2 }, mid_t = { 1.526 }, ema = "std1", samples = 50000 },
    }
end
ect("s", 1.0e-3, 0.4)
ect("m", 0.9e-3, 0.5)
ect("l", 0.8e-3, 0.5)
ect("xl", 0.7e-3, 0.5)

-- iCT on ADM: dropout 0.2 (M), EMA 0.99997 (M).
recipes["imagenet64-ict"] = with(ict_grid, {
    target = "ict", data = "imagenet64", sigma_data = 0.5, net = { "imagenet64-adm" },
    weight = weight.inv_dt {}, metric = "pseudo-huber", c = c_of(12288), dropout = 0.2,
    optim = "radam", lr = 1e-4, batch = 4096, iters = 800000, ema = ema.const { beta = 0.99997 },
    eval = { sampler = "ect", nfe = { 1, 2 }, mid_t = { 1.526 }, ema = "beta99997", samples = 50000 },
})
local three_emas = { ema.const { beta = 0.999 }, ema.const { beta = 0.9999 }, ema.const { beta = 0.99994323 } }
recipes["imagenet64-ct"] = with(ct_grid(200, 0.95), {
    target = "ct", data = "imagenet64", sigma_data = 0.5, net = { "imagenet64-adm" }, metric = "lpips", dropout = 0,
    optim = "radam", lr = 1e-4, batch = 2048, iters = 800000, ema = three_emas,
    eval = { sampler = "ect", nfe = { 1, 2 }, mid_t = { 1.526 }, ema = "beta99994323", samples = 50000 }, -- (U) mid_t
})
-- init: EDM's network
recipes["imagenet64-cd"] = {
    target = "cd", data = "imagenet64", sigma_data = 0.5, sigma_min = 0.002, net = { "imagenet64-adm" },
    pair = pair.uniform {}, curriculum = 40, weight = weight.uniform {}, metric = "lpips", dropout = 0,
    ["loss.teacher"] = "ema", ["loss.teacher_ema"] = 0.95,
    optim = "radam", lr = 8e-6, batch = 2048, iters = 600000, ema = three_emas,
    eval = { sampler = "ect", nfe = { 1, 2 }, mid_t = { 1.526 }, ema = "beta99994323", samples = 50000 }, -- (U) mid_t
}

-- Flat settings of a recipe as a table that can be called with overrides.
local callable
callable = {
    __call = function(self, overrides)
        if type(overrides) ~= "table" then host.complain("a recipe takes a table of settings") end
        local copy = {}
        for k, v in pairs(self) do copy[k] = v end
        for k, v in pairs(settings.flatten(overrides)) do
            settings.canonical(k, v) -- a mistake is told here, at its line
            copy[k] = v
        end
        return setmetatable(copy, callable)
    end,
    __metatable = "recipe",
}

local names = {}
for name in pairs(recipes) do names[#names + 1] = name end
table.sort(names)

local function recipe(name)
    local r = recipes[name]
    if not r then
        local near = type(name) == "string" and host.nearest(name, names)
        host.complain(("no recipe '%s'%s"):format(tostring(name),
            near and (": did you mean '" .. near .. "'?") or (" (there are: " .. table.concat(names, ", ") .. ")")))
    end
    return setmetatable(settings.flatten(r), callable)
end

return { recipe = recipe, names = names }
