-- points: which cells a sweep has. A cell is a path from the base through choices: node = { up, factor, choice }; the root is the base.
-- Methods turn a list of cells into another, so they compose from left to right:
--
--   grid{a = {..}, b = {..}}   every cell so far, with every combination
--   zip{a = {..}, b = {..}}    every cell so far, with the i-th value of each
--   random{n = 20, a = ..}     every cell so far, with n seeded draws; a list is drawn from, ect.range{lo, hi} is uniform
--   ablate{a = {..}, b = {..}} adds, around every cell that is no ablation yet, cells that differ in one factor
--   concat(space, ...)         adds the cells of spaces (ect.grid{..}, ect.zip{..}, ...) around the base
--   where(function(c) .. end)  keeps the cells for which the function is true
--
-- A choice is { label, set = { key = text } }: usually one setting, or several where a label names a table of settings.
local settings, sandbox, def = require "ect.settings", require "ect.sandbox", require "ect.def"
local points = { root = {} }
local complain = host.complain

-- Value of a setting in a cell, as canonical text.
function points.get(sweep, node, key)
    while node.up do
        local text = node.choice.set[key]
        if text then return text end
        node = node.up
    end
    return sweep.base[key] or settings.fields[key].default
end
local get = points.get

-- ---- factors ---------------------------------------------------------------------------------------------------------------

local function check_factor_key(key)
    local class = settings.fields[key].class
    if class == "eval" then complain(key .. " cannot be a factor: list several sets in eval = {{...}, {...}}", key) end
    if class == "exec" then complain(key .. " does not change a result, so it cannot be a factor", key) end
end

local function is_compound(name, v)
    if type(v) ~= "table" or getmetatable(v) ~= nil or name == "ema" then return false end
    for k in pairs(v) do
        if type(k) ~= "string" then return false end
    end
    return next(v) ~= nil
end

-- One choice from what the script wrote for a factor. label: nil for the value's own text.
local function choice(sweep, name, label, v)
    local set = {}
    local network = settings.network(name, v)
    if network or (name == "net" and type(v) == "table" and v[1] ~= nil) then
        label = label or (network and v) or complain("factor 'net': a choice of several settings needs a name", name)
        name, v = "network", { net = v }
    end
    if is_compound(name, v) then
        if not label then complain(("factor '%s': a choice of several settings needs a name"):format(name), name) end
        for key, value in pairs(settings.flatten(v)) do
            check_factor_key(key)
            set[key] = settings.canonical(key, value)
        end
    else
        if not settings.fields[name] then settings.unknown(name, "factor") end
        check_factor_key(name)
        set[name] = settings.canonical(name, v)
    end
    for key, text in pairs(set) do set[key] = settings.resolve(key, text, set.data or get(sweep, points.root, "data")) end
    return { label = label or settings.label(name, set[name]), set = set }
end

local function same(sweep, node, c)
    for key, text in pairs(c.set) do
        if get(sweep, node, key) ~= text then return false end
    end
    return true
end

local function factor(sweep, name)
    local f = sweep.factors[name]
    if not f then
        f = { name = name, labels = {}, has = {}, sets = {} }
        sweep.factors[name] = f
        sweep.factor_order[#sweep.factor_order + 1] = f
    end
    return f
end

local function set_text(c)
    local parts = {}
    for _, k in ipairs(sandbox.sorted_keys(c.set)) do parts[#parts + 1] = k .. "=" .. c.set[k] end
    return table.concat(parts, "\n")
end

-- Notes a choice's label. One label has one value and one value one label in a sweep.
local function note(f, c)
    local text = set_text(c)
    if f.has[c.label] and f.has[c.label] ~= text then
        complain(("factor '%s': the label '%s' stands for two values"):format(f.name, c.label), f.name)
    end
    if not f.has[c.label] then
        f.has[c.label] = text
        f.labels[#f.labels + 1] = c.label
    end
end

-- Labels in the order to show, the base's among them: it keeps its place in a list, and goes first among named ones.
local function place_base(sweep, f, choices, named)
    if f.base then return end
    for _, c in ipairs(choices) do
        if same(sweep, points.root, c) then f.base = c.label end
    end
    local in_list = f.base ~= nil
    if not in_list then f.base = settings.fields[f.name] and settings.label(f.name, get(sweep, points.root, f.name)) or "base" end
    f.base_first = named or not in_list
end
function points.labels(f)
    if not f.base_first then return f.labels end
    local list = { f.base }
    for _, label in ipairs(f.labels) do
        if label ~= f.base then list[#list + 1] = label end
    end
    return list
end

-- Choices of a factor: a list (labels are the values' texts) or a table label -> value.
local function choices_of(sweep, name, values)
    if type(values) ~= "table" or def.is_deferred[values] then
        complain(("factor '%s': a list of values is needed, or a table label = value"):format(name), name)
    end
    local list, seen, named = {}, {}, false
    local keys = sandbox.sorted_keys(values)
    for _, k in ipairs(keys) do
        if type(k) == "string" then named = true end
        if named and type(k) ~= "string" or type(k) == "boolean" then
            complain(("factor '%s': values either all with labels or all without"):format(name), name)
        end
    end
    if type(keys[1]) == "number" and named then
        complain(("factor '%s': values either all with labels or all without"):format(name), name)
    end
    for _, k in ipairs(keys) do
        local c = choice(sweep, name, named and k or nil, values[k])
        local text = set_text(c)
        if not seen[text] then list[#list + 1] = c end
        seen[text] = true
    end
    if #list == 0 then complain(("factor '%s' has no values"):format(name), name) end
    local f = factor(sweep, name)
    place_base(sweep, f, list, named)
    for _, c in ipairs(list) do note(f, c) end
    return f, list
end

local function factors_of(sweep, what, t)
    if type(t) ~= "table" then complain(what .. " takes a table: factor = values") end
    local list = {}
    for _, name in ipairs(sandbox.sorted_keys(t)) do
        if type(name) ~= "string" then complain(what .. ": a factor needs a name") end
        local f, choices = choices_of(sweep, name, t[name])
        list[#list + 1] = { f = f, choices = choices }
    end
    return list
end

local function child(node, f, c, ablated) return { up = node, factor = f, choice = c, ablated = ablated or node.ablated } end

-- ---- methods ----------------------------------------------------------------------------------------------------------------

local methods = {}
points.methods = methods

function methods.grid(sweep, list, t)
    for _, g in ipairs(factors_of(sweep, "grid", t)) do
        local out = {}
        for _, node in ipairs(list) do
            for _, c in ipairs(g.choices) do out[#out + 1] = child(node, g.f, c) end
        end
        list = out
    end
    return list
end

function methods.zip(sweep, list, t)
    local factors = factors_of(sweep, "zip", t)
    local n
    for _, z in ipairs(factors) do
        local count = 0
        for _ in pairs(t[z.f.name]) do count = count + 1 end
        n = n or count
        if count ~= n or #t[z.f.name] ~= n then
            complain(("zip: lists of one length are needed, '%s' has %d values and another %d"):format(z.f.name, count, n), z.f.name)
        end
    end
    local out = {}
    for _, node in ipairs(list) do
        for i = 1, n or 0 do
            local at = node
            for _, z in ipairs(factors) do at = child(at, z.f, choice(sweep, z.f.name, nil, t[z.f.name][i])) end
            out[#out + 1] = at
        end
    end
    return out
end

function methods.ablate(sweep, list, t)
    local factors = factors_of(sweep, "ablate", t)
    local out = {}
    for i, node in ipairs(list) do out[i] = node end
    for _, node in ipairs(list) do
        for _, a in ipairs(node.ablated and {} or factors) do
            for _, c in ipairs(a.choices) do
                if not same(sweep, node, c) then out[#out + 1] = child(node, a.f, c, true) end
            end
        end
    end
    return out
end

local ranges = setmetatable({}, { __mode = "k" })
-- ect.range{lo, hi, log = true, int = true}: for random
function points.range(t)
    local lo, hi = type(t) == "table" and t[1], type(t) == "table" and t[2]
    if type(lo) ~= "number" or type(hi) ~= "number" or not (lo <= hi) or t.log and lo <= 0 then
        complain("range{lo, hi, log = true, int = true}: two numbers are needed, lo <= hi, positive if log")
    end
    local r = setmetatable({}, { __metatable = "read-only" })
    ranges[r] = { lo = lo, hi = hi, log = t.log, int = t.int }
    return r
end

local function draw(r, u)
    if r.int then return math.floor(r.lo + u * (r.hi - r.lo + 1)) end
    if r.log then return math.exp(math.log(r.lo) + u * (math.log(r.hi) - math.log(r.lo))) end
    return r.lo + u * (r.hi - r.lo)
end

function methods.random(sweep, list, t)
    local n = type(t) == "table" and t.n
    if math.type(n) ~= "integer" or n < 1 then complain("random needs n, the number of draws") end
    local seed = t.seed or 0
    if math.type(seed) ~= "integer" then complain("random: seed must be a whole number", "seed") end
    local names, out, fixed = {}, {}, {}
    for _, name in ipairs(sandbox.sorted_keys(t)) do
        if name ~= "n" and name ~= "seed" then
            names[#names + 1] = name
            if not ranges[t[name]] then
                local f, choices = choices_of(sweep, name, t[name])
                fixed[name] = { f = f, choices = choices }
            end
        end
    end
    sweep.draws = (sweep.draws or 0) + 1 -- two random{} of a sweep differ
    local different, seen = 0, {}
    for number, node in ipairs(list) do
        for i = 1, n do
            local at = node
            for _, name in ipairs(names) do
                local u = host.random(seed, ("%s:%d"):format(name, sweep.draws), i)
                if fixed[name] then
                    local choices = fixed[name].choices
                    at = child(at, fixed[name].f, choices[1 + math.floor(u * #choices)])
                else
                    local c, f = choice(sweep, name, nil, draw(ranges[t[name]], u)), factor(sweep, name)
                    place_base(sweep, f, {}, false)
                    note(f, c)
                    at = child(at, f, c)
                end
            end
            out[#out + 1] = at
            local name = ("%d:%s"):format(number, points.name(at))
            if not seen[name] then seen[name] = true; different = different + 1 end
        end
    end
    if different < #list * n then -- equal cells are one cell
        sweep.warnings[#sweep.warnings + 1] = ("%s: random: %d draws, %d of them different; ect.range{...} draws from an interval, a list is chosen from")
            :format(sweep.title, #list * n, different)
    end
    return out
end

function methods.concat(sweep, list, ...)
    local out = {}
    for i, node in ipairs(list) do out[i] = node end
    for i, space in ipairs { ... } do
        local ops = points.space_ops[space]
        if not ops then complain(("concat: argument %d is not a space (ect.grid{..}, ect.zip{..}, ect.ablate{..}, ect.random{..})"):format(i)) end
        local more = { points.root }
        for _, op in ipairs(ops) do more = methods[op.name](sweep, more, table.unpack(op.args, 1, op.args.n)) end
        for _, node in ipairs(more) do out[#out + 1] = node end
    end
    return out
end

-- ---- where ------------------------------------------------------------------------------------------------------------------

local function typed(key, text)
    local kind = settings.fields[key].type
    if kind == "int" or kind == "real" then return math.tointeger(tonumber(text)) or tonumber(text) end
    if kind == "bool" then return text == "true" end
    if kind == "fn" then return tonumber(text) or settings.label(key, text) end
    if kind == "text" then return text end
    local list = {}
    for word in text:gmatch("[^,]+") do list[#list + 1] = tonumber(word) or word end
    return list
end

-- All settings of a cell that differ from the base of the sweep's defaults, as one table.
function points.settings(sweep, node)
    local all = {}
    for k, v in pairs(sweep.base) do all[k] = v end
    for k, v in pairs(points.overrides(node)) do all[k] = v end
    return all
end
function points.overrides(node)
    local set = {}
    while node.up do
        for k, v in pairs(node.choice.set) do
            if set[k] == nil then set[k] = v end
        end
        node = node.up
    end
    return set
end

local function predicted(sweep, node)
    local values
    return setmetatable({}, {
        __index = function(_, k)
            if not values then
                local total, executed, params = host.predict(points.settings(sweep, node))
                values = { flops_total = total, flops_executed = executed, params = params }
            end
            if values[k] == nil then complain(("c.predicted has no '%s': flops_total, flops_executed, params"):format(tostring(k))) end
            return values[k]
        end,
    })
end

local function view(sweep, node, prefix)
    return setmetatable({}, {
        __index = function(_, k)
            if k == "predicted" and prefix == "" then return predicted(sweep, node) end
            if k == "labels" and prefix == "" then return points.factor_labels(sweep, node) end
            local key = prefix .. tostring(k)
            if settings.prefixes[key] and key ~= "optim" then return view(sweep, node, key .. ".") end
            if not settings.fields[key] then settings.unknown(key) end
            return typed(key, get(sweep, node, key))
        end,
        __newindex = function() complain("a cell is read-only in where") end,
        __metatable = "read-only",
    })
end

function methods.where(sweep, list, keep)
    if type(keep) ~= "function" then complain("where takes a function of a cell") end
    local out = {}
    for _, node in ipairs(list) do
        if keep(view(sweep, node, "")) then out[#out + 1] = node end
    end
    return out
end

-- ---- names -------------------------------------------------------------------------------------------------------------------

-- Label of every factor in a cell, the base's where the cell does not choose.
function points.factor_labels(sweep, node)
    local labels = {}
    while node.up do
        local name = node.factor.name
        if labels[name] == nil then labels[name] = node.choice.label end
        node = node.up
    end
    for _, f in ipairs(sweep.factor_order) do
        if labels[f.name] == nil then labels[f.name] = f.base end
    end
    return labels
end

-- "base", or "factor=label,..." of the choices made, in their order.
function points.name(node)
    if not node.up then return "base" end
    if not node.up.up then return node.factor.name .. "=" .. node.choice.label end
    local parts, seen = {}, {}
    while node.up do
        local name = node.factor.name
        if not seen[name] then table.insert(parts, 1, name .. "=" .. node.choice.label) end
        seen[name] = true
        node = node.up
    end
    return table.concat(parts, ",")
end

-- Spaces: operations that are replayed in a sweep by concat.
points.space_ops = setmetatable({}, { __mode = "k" })
local space_methods = {}
local function space(ops)
    local s = setmetatable({}, { __index = space_methods, __metatable = "space" })
    points.space_ops[s] = ops
    return s
end
points.spaces = {}
for _, name in ipairs { "grid", "zip", "ablate", "random" } do
    points.spaces[name] = function(...) return space { { name = name, args = table.pack(...) } } end
end
for name in pairs(methods) do
    space_methods[name] = function(self, ...)
        local ops = { table.unpack(points.space_ops[self]) }
        ops[#ops + 1] = { name = name, args = table.pack(...) }
        return space(ops)
    end
end

return points
