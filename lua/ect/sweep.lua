-- sweep: what a script declares. ect.run is one cell, ect.sweep a base and the cells around it; nothing runs here.
local settings, sandbox, points = require "ect.settings", require "ect.sandbox", require "ect.points"
local args, evals, recipes, def = require "ect.args", require "ect.evals", require "ect.recipes", require "ect.def"
local columns = require "ect.columns"
local complain = host.complain

local sweeps = { list = {}, by_object = setmetatable({}, { __mode = "k" }) }
local weights_of = setmetatable({}, { __mode = "k" }) -- value of init -> { sweep, weights }

-- ---- options ---------------------------------------------------------------------------------------------------------------

local function check_options(what, options, allowed)
    if type(options) ~= "table" then complain(what .. " takes a table of options") end
    for _, k in ipairs(sandbox.sorted_keys(options)) do
        if not allowed[k] then
            local names = {}
            for name in pairs(allowed) do names[#names + 1] = type(name) == "string" and name or nil end
            table.sort(names)
            local near = type(k) == "string" and host.nearest(k, names)
            local hint = near and (": did you mean '" .. near .. "'?") or (" (there are: " .. table.concat(names, ", ") .. ")")
            if settings.fields[k] then hint = ": it is a setting and belongs into the base" end
            complain(("%s: unknown option '%s'%s"):format(what, tostring(k), hint), tostring(k))
        end
    end
end

local function whole(what, name, value, least)
    if value == nil then return nil end
    if math.type(value) == "float" and value == math.floor(value) then value = math.tointeger(value) end
    if math.type(value) ~= "integer" or value < least then
        complain(("%s: %s must be a whole number from %d on"):format(what, name, least), name)
    end
    return value
end

-- Text of an init value that is a parent's weights; nil for other values.
function settings.weights_text(value)
    local w = weights_of[value]
    if not w then return nil end
    local text = ("run:%s@%s"):format(w.sweep.hash, w.weights)
    settings.parents[text] = w
    return text
end

-- Canonical base settings: the recipe or table, seed, init, then --set.
local function base_of(sweep, options)
    local given = options.base or options[1] or {}
    if type(given) ~= "table" then complain(sweep.title .. ": base must be a recipe or a table of settings", "base") end
    local base = {}
    for key, value in pairs(settings.flatten(given)) do base[key] = settings.canonical(key, value) end
    local seed = whole(sweep.title, "seed", options.seed, 0)
    if seed then base.seed = settings.canonical("seed", seed) end
    if options.init ~= nil then base.init = settings.canonical("init", options.init) end
    sweep.eval_override = {}
    sweep.replicates = args.apply(sweep.name, base, sweep.eval_override) or whole(sweep.title, "replicates", options.replicates, 1) or 1
    for key, text in pairs(base) do base[key] = settings.resolve(key, text, base.data or settings.fields.data.default) end
    return base
end

local function declare(kind, name, options, allowed)
    local title = kind .. " " .. tostring(name)
    if host.in_design() then complain(title .. " in a design function") end
    if type(name) ~= "string" or not name:match("^[%w][%w_.+-]*$") or #name > 64 then
        complain(("%s: a name is needed, of letters, digits and _ . + - (at most 64)"):format(title))
    end
    for _, s in ipairs(sweeps.list) do
        if s.name == name then complain(("%s: the name is taken by a %s"):format(title, s.kind)) end
    end
    check_options(title, options, allowed)
    local sweep = { kind = kind, name = name, title = title, factors = {}, factor_order = {}, points = { points.root }, tables = {}, pareto = {}, claims = {}, warnings = {} }
    sweep.base = base_of(sweep, options)
    sweep.evals = evals.sets(sweep.base, options.eval, sweep.eval_override)
    sweeps.list[#sweeps.list + 1] = sweep
    sweep.number = #sweeps.list
    return sweep
end

-- ---- objects ---------------------------------------------------------------------------------------------------------------

local run_methods, sweep_methods = {}, {}

local function object(sweep, methods)
    local o = setmetatable({}, {
        __index = function(_, k)
            local m = methods[k]
            if m then return m end
            local names = {}
            for name in pairs(methods) do names[#names + 1] = name end
            table.sort(names)
            local near = type(k) == "string" and host.nearest(k, names)
            complain(("a %s has no '%s'%s"):format(sweep.kind, tostring(k), near and (": did you mean '" .. near .. "'?")
                or (" (it has: " .. table.concat(names, ", ") .. ")")))
        end,
        __newindex = function() complain("a " .. sweep.kind .. " is changed by its methods only") end,
        __metatable = sweep.kind,
    })
    sweeps.by_object[o] = sweep
    return o
end

local function self_of(o, method)
    local sweep = sweeps.by_object[o]
    if not sweep then complain(("%s is a method: write s:%s(...), with a colon"):format(method, method)) end
    return sweep
end

for name, method in pairs(points.methods) do
    sweep_methods[name] = function(o, ...)
        local sweep = self_of(o, name)
        sweep.points = method(sweep, sweep.points, ...)
        return o
    end
end

-- run:weights{ema = "std05"}: starting weights for another run. Without ema: the raw weights.
function run_methods.weights(o, t)
    local sweep = self_of(o, "weights")
    t = t == nil and {} or t
    check_options("weights", t, { ema = true, raw = true })
    local name = t.ema or "raw"
    local names = settings.ema_names(sweep.base.ema or "")
    local there = name == "raw"
    for _, n in ipairs(names) do there = there or n == name end
    if not there then
        complain(("%s has no weights '%s' (there are: %s)"):format(sweep.title, tostring(name), table.concat({ "raw", table.unpack(names) }, ", ")), "ema")
    end
    local w = setmetatable({}, { __metatable = "weights", __newindex = function() end })
    weights_of[w] = { sweep = sweep, weights = name }
    return w
end

local function list_of_text(what, key, v)
    if type(v) == "string" then v = { v } end
    if type(v) ~= "table" then complain(("%s: %s must be a list of names"):format(what, key), key) end
    for _, x in ipairs(v) do
        if type(x) ~= "string" then complain(("%s: %s must be a list of names"):format(what, key), key) end
    end
    return v
end

-- What the report shows. rows: "cell" or a factor; cols: metric@nfe or cost columns; vs: the label to compare with.
local function show_methods(methods)
    function methods.table(o, t)
        local sweep = self_of(o, "table")
        check_options("table", t, { rows = true, cols = true, vs = true, stat = true })
        local rows = t.rows or "cell"
        if t.cols == nil then complain("table: cols is needed: the columns to show") end
        if t.stat ~= nil and t.stat ~= "paired95" then complain(("table: no statistic '%s' (there is: paired95)"):format(tostring(t.stat)), "stat") end
        if t.vs ~= nil and type(t.vs) ~= "string" then complain("table: vs must be a label", "vs") end
        local cols = list_of_text("table", "cols", t.cols)
        columns.check(sweep, "table", "cols", cols)
        sweep.tables[#sweep.tables + 1] = { rows = rows, cols = cols, vs = t.vs, stat = t.stat or "paired95" }
        if rows ~= "cell" and not sweep.factors[rows] then
            local names = { "cell" }
            for _, f in ipairs(sweep.factor_order) do names[#names + 1] = f.name end
            local near = type(rows) == "string" and host.nearest(rows, names)
            complain(("table: no factor '%s'%s"):format(tostring(rows), near and (": did you mean '" .. near .. "'?")
                or (" (there are: " .. table.concat(names, ", ") .. ")")), "rows")
        end
        return o
    end
    function methods.pareto(o, t)
        local sweep = self_of(o, "pareto")
        check_options("pareto", t, { min = true, max = true, by = true })
        local p = { min = list_of_text("pareto", "min", t.min or {}), max = list_of_text("pareto", "max", t.max or {}), by = t.by }
        if #p.min + #p.max < 2 then complain("pareto: at least two objectives are needed in min and max") end
        if t.by ~= nil and t.by ~= "nfe" then complain(("pareto: no by = '%s' (there is: nfe, one front a number of evaluations)"):format(tostring(t.by)), "by") end
        for _, key in ipairs { "min", "max" } do columns.check(sweep, "pareto", key, p[key], p.by == "nfe") end
        sweep.pareto[#sweep.pareto + 1] = p
        return o
    end
    -- What is expected, before it is known: { text =, better = CELL, than = CELL, metric = "fd_random@2", than_metric = }. The report says seen (the
    -- 95 % interval of the paired difference lies on the claimed side of 0), opposite (on the other side) or undecided. than: the same cell
    -- where two metrics are compared.
    function methods.claim(o, t)
        local sweep = self_of(o, "claim")
        check_options("claim", t, { text = true, better = true, than = true, metric = true, than_metric = true })
        for _, key in ipairs { "text", "better", "metric" } do
            if type(t[key]) ~= "string" then complain(("claim: %s is needed, and must be text"):format(key), key) end
        end
        local c = { text = t.text, better = t.better, than = t.than or t.better, metric = t.metric, than_metric = t.than_metric or t.metric }
        for _, key in ipairs { "than", "than_metric" } do
            if type(c[key]) ~= "string" then complain(("claim: %s must be text"):format(key), key) end
        end
        if c.better == c.than and c.metric == c.than_metric then
            complain("claim: than or than_metric is needed: a cell is not better than itself", "than")
        end
        columns.check(sweep, "claim", "metric", { c.metric })
        columns.check(sweep, "claim", "than_metric", { c.than_metric })
        sweep.claims[#sweep.claims + 1] = c
        return o
    end
end
show_methods(run_methods)
show_methods(sweep_methods)

-- ---- what scripts call --------------------------------------------------------------------------------------------------------

local api = {}

-- ect.run NAME { recipe, replicates =, seed =, eval =, init = }
function api.run(name)
    return function(options)
        local sweep = declare("run", name, options, { [1] = true, base = true, init = true, replicates = true, seed = true, eval = true })
        sweep.label = (sweep.base.target or settings.fields.target.default) == "edm" and "pretrain" or name
        sweep.hash = host.hash(sweep.base)
        return object(sweep, run_methods)
    end
end

-- ect.sweep NAME { base =, init =, replicates =, seed =, eval = }
function api.sweep(name)
    return function(options)
        local sweep = declare("sweep", name, options, { [1] = true, base = true, init = true, replicates = true, seed = true, eval = true })
        return object(sweep, sweep_methods)
    end
end

api.recipe, api.arg, api.range = recipes.recipe, args.arg, points.range
for name, space in pairs(points.spaces) do api[name] = space end

return { api = api, sweeps = sweeps }
