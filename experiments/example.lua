-- Every part of the script language in one script that runs: `ect run example.lua -n` shows its cells, `ect help script` prints it.
-- A script only declares; nothing trains while it is read. It has Lua's string, table and math, no files and no clock.
local ect = require "ect"

-- ect.arg(name, default): a parameter of the script, for `ect run example.lua --set steps=200`.
local steps = ect.arg("steps", 50)

-- ect.recipe "NAME" is a table of settings (`ect help recipes`); { ... } after it overrides some. Nested tables are dotted names:
-- net = { width = 32 } is net.width = 32. `ect help settings` lists them, `ect help design` the functions.
local pre = ect.run "ex-pre" {                       -- a run of its own, trained first, shared by its hash
    ect.recipe "digits-edm" { iters = steps, batch = 16,
        ema = { short = ect.ema.const { beta = 0.9 }, long = ect.ema.power { std = 0.1 } } },   -- several EMAs, with names
    replicates = 2,                                  -- replicates 1 and 2 of everything: seeds, not settings
    eval = { sampler = "heun", nfe = { 5, 9 }, ema = "long", samples = 64 },
}

local s = ect.sweep "example" {
    init = pre:weights { ema = "long" },             -- replicate k starts from replicate k; or init = "file.pkl"; or "none"
    base = ect.recipe "digits-ect" { iters = steps, batch = 16, ema = ect.ema.const { beta = 0.9 } },
    replicates = 2, seed = 1,
    -- one set, or a list of sets: {{...}, {...}}. at: percentages of the run
    eval = { { at = { "50%", "100%" }, nfe = { 1, 2 }, mid_t = { 0.8 }, ema = "beta9", samples = 64, metrics = { "fd_pixel", "fd_random" } },
             { sampler = "dpmpp-2m", nfe = 4, ema = "beta9", samples = 64, metrics = { "fd_random" } } },
}

-- Cells. Each method turns the cells so far (first: the base alone) into others, so they compose from left to right.
--   s:grid{...}    every combination              s:zip{...}     the i-th value of each factor together
--   s:random{n =}  seeded draws                   s:ablate{...}  one factor at a time around every cell so far
--   s:concat(ect.grid{...}, ect.zip{...})         s:where(f)     keeps the cells for which f(cell) is true
-- A factor is a setting with a list of values, or with named values where a value has no short name of its own.
s:ablate {
    mapping = {
        sigmoid = ect.mapping.sigmoid { k = 8, b = 1 },
        mine = function(t, s)                        -- a function of the script: its text and constants are its identity
            return t * (1 - 2 ^ -(s.stage + 1) * (1 + 1 / (1 + t * t)))
        end,
    },
    lr = { 4e-4, 1e-3 },
    teacher = {                                      -- a named value may be several settings
        self = { loss = { teacher = "self" } },
        ema = { loss = { teacher = "ema", teacher_ema = 0.99 } },
    },
}
-- c: a cell's settings (c.lr), labels of its factors (c.labels.mapping) and cost (c.predicted.flops_total).
s:where(function(c) return c.predicted.flops_total < 1e15 end)

-- ect.range{lo, hi, log = true, int = true} is an interval to draw from.
local r = ect.sweep "example-random" {
    base = ect.recipe "points-ect" { iters = steps, batch = 16 },
    eval = { nfe = 1, samples = 64 },
}
r:random { n = 3, lr = ect.range { 1e-4, 1e-2, log = true }, c = { 0, 0.03 } }

-- What the report shows. METRIC@NFE, METRIC@SAMPLERNFE for another sampler than ect, or a cost: flops_total, flops_executed, seconds ...
s:table { rows = "cell", cols = { "fd_random@1", "fd_random@2", "fd_random@dpmpp-2m4", "flops_total" }, vs = "base", stat = "paired95" }
s:pareto { min = { "flops_total", "fd_random@2" }, by = "nfe" }
-- What is expected, said beforehand: the report answers seen, opposite or undecided by the paired interval.
s:claim { text = "two steps beat one", better = "base", metric = "fd_random@2", than_metric = "fd_random@1" }
s:claim { text = "a larger learning rate helps", better = "lr=0.001", than = "base", metric = "fd_random@2" }
