-- recipes: complete settings by name. ect.recipe "cifar10-ect" is a table of settings that can be copied and changed;
-- ect.recipe "cifar10-ect" { iters = 1000 } is the same with overrides. Numbers of the cifar10 recipes are those of the published code.
local design = require "ect.design"
local settings, sandbox = require "ect.settings", require "ect.sandbox"
local noise, mapping, weight, stage, lr, ema =
    design.noise, design.mapping, design.weight, design.stage, design.lr, design.ema

local digits_net = { "songunet", width = 16, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
local cifar10_net = { "songunet", width = 128, mult = { 2, 2, 2 }, blocks = 4, attn = { 16 } }

local recipes = {}

-- A small diffusion model of 8x8 digits: minutes on two cores.
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

-- EDM's CIFAR-10 pretraining (DDPM++, unconditional, 200 Mimg), with its augmentation: p = 0.12, labels for the network.
recipes["cifar10-edm"] = {
    target = "edm", data = "cifar10", sigma_data = 0.5, net = cifar10_net,
    noise = noise.lognormal { mean = -1.2, std = 1.2 }, mapping = mapping.zero {}, weight = weight.edm {}, dropout = 0.13,
    ["net.augment"] = 9, augment = 0.12,
    optim = "adam", lr = lr.warmup { lr = 1e-3, images = 10e6 }, batch = 512, iters = 390625,
    ema = ema.halflife { img = 500e3, ramp = 0.05 },
    eval = { sampler = "heun", nfe = 35, ema = "hl500k", samples = 50000 },
}
-- ECT on CIFAR-10: 200k steps of 128 images, 8 stages of 25,000.
recipes["cifar10-ect"] = {
    target = "ect", data = "cifar10", sigma_data = 0.5, net = cifar10_net,
    noise = noise.lognormal { mean = -1.1, std = 2.0 }, mapping = mapping.sigmoid { q = 2, k = 8, b = 1 },
    weight = weight.inv_dt {}, stage = stage.every { d = 25000 }, c = 0, dropout = 0.2,
    optim = "radam", lr = 1e-4, batch = 128, iters = 200000, ema = ema.const { beta = 0.9999 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta9999", samples = 50000 },
}
-- One hour on an A100: one stage that begins where the others end, 1/q = 1/256.
recipes["cifar10-ect-1hour"] = {
    target = "ect", data = "cifar10", sigma_data = 0.5, net = cifar10_net,
    noise = noise.lognormal { mean = -1.1, std = 2.0 }, mapping = mapping.sigmoid { q = 256, k = 8, b = 1 },
    weight = weight.inv_dt {}, stage = stage.equal { n = 1 }, c = 0, dropout = 0.2,
    optim = "radam", lr = 1e-4, batch = 128, iters = 8000, ema = ema.const { beta = 0.9993 },
    eval = { sampler = "ect", nfe = { 1, 2 }, ema = "beta9993", samples = 50000 },
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
