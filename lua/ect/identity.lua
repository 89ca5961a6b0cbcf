-- identity: when are two design functions the same? A library function is its name, parameters and version. A function of the script is its
-- tokens plus its upvalues, so comments do not matter and two closures of one loop with different k are two.
local def, sandbox, state = require "ect.def", require "ect.sandbox", require "ect.state"
local identity = {}

local function refuse(file, line, message) error(("%s:%d: design function: %s"):format(file, line, message), 0) end

local value_text

local function function_text(f, path)
    if def.made[f] then return def.made[f].family .. "." .. def.made[f].id end
    local tokens, file, line, why = host.tokens(f)
    if not tokens then refuse(file, line, why) end
    local parts, i = { tokens }, 1
    while true do
        local name, value = host.upvalue(f, i)
        if not name then break end
        parts[#parts + 1] = name .. "=" .. value_text(value, path, function(message)
            refuse(file, line, ("upvalue '%s' %s"):format(name, message))
        end)
        i = i + 1
    end
    return table.concat(parts, "\n")
end

-- path: function or table -> depth, of those that are being written, for recursion
function value_text(v, path, bad)
    local kind = type(v)
    if sandbox.known[v] then return "lib:" .. sandbox.known[v] end
    if kind == "nil" or kind == "boolean" then return tostring(v) end
    if kind == "number" then return math.type(v) == "integer" and ("%d"):format(v) or host.num(v) end
    if kind == "string" then return ("%d:%s"):format(#v, v) end
    if kind ~= "table" and kind ~= "function" then bad("is a " .. kind .. ": numbers, strings, booleans, constant tables and functions only") end
    if path[v] then return "up:" .. path.depth - path[v] end
    if path.depth > 100 then bad("is nested too deeply") end
    path.depth = path.depth + 1
    path[v] = path.depth
    local text
    if kind == "function" then
        text = "{" .. function_text(v, path) .. "}"
    else
        if getmetatable(v) ~= nil then bad("is a table with a metatable: it has no text that tells what it does") end
        local parts = {}
        for i, k in ipairs(sandbox.sorted_keys(v)) do
            parts[i] = value_text(k, path, bad) .. "=" .. value_text(v[k], path, bad)
        end
        text = "{" .. table.concat(parts, ",") .. "}"
    end
    path[v] = nil
    path.depth = path.depth - 1
    return text
end

-- Identity text of a design function.
function identity.of(f)
    if def.made[f] then return def.made[f].id end
    return "lua:" .. host.sha256(function_text(f, { [f] = 1, depth = 1 }))
end

-- Fingerprint: values on a fixed grid, to see equal identities with unequal values. The first state must work; later ones may fail
-- (they are then written as such), as a run may stop before them.
local states = {
    { step = 0, nimg = 0, stage = 0 },
    { step = 500, nimg = 32000, stage = 3 },
    { step = 999, nimg = 63936, stage = 7 },
}
local us = { 1e-4, 0.1, 0.5, 0.9, 0.9999 }
local ts = { 0.003, 0.05, 0.5, 1, 3, 80 }
local function grid(family)
    if family == "noise" or family == "pair" then return us, 1 end
    if family == "mapping" then return ts, 1 end
    if family == "weight" then return ts, 2 end
    if family == "adapt" then return ts, 3 end
    return { 0 }, 0
end

-- The first look at a function's values; training looks at each again (design.c).
local function number_of(v, family, f, x, most)
    local wrong = type(v) ~= "number" and "is no number" or v ~= v and "is nan" or nil
    if family == "mapping" then most = x end
    if most and not wrong then
        wrong = v < 0 and "must not be negative" or v > most and "must not be larger than t" or nil
    end
    if not wrong then return v end
    local _, file, line = host.tokens(f)
    local arg = ({ noise = "u=%s, s", pair = "u=%s, s", mapping = "t=%s, s", weight = "t=%s, r, s", adapt = "t=%s, r, d, s" })[family] or "s"
    error(("%s:%d: %s(%s) = %s %s"):format(file, line, family, arg:format(host.num(x)), tostring(v), wrong), 0)
end

function identity.fingerprint(family, f)
    local args, n = grid(family)
    local values = {}
    for i, st in ipairs(states) do
        for k, v in pairs(st) do state.fields[k] = v end
        state.fields.batch, state.fields.iters, state.fields.progress = 64, 1000, st.step / 1000
        state.fields.N, state.fields.sigma_data = 18.0, 0.5
        for _, x in ipairs(args) do
            local function call()
                if n == 0 then return f(state.s) end
                if n == 1 then return f(x, state.s) end
                if n == 2 then return f(x, x / 2, state.s) end
                return f(x, x / 2, 3 * x, state.s)
            end
            host.design(true)
            if i == 1 then
                local v, r = call()
                values[#values + 1] = host.num(number_of(v, family, f, x))
                if family == "pair" then values[#values + 1] = host.num(number_of(r, family, f, x, v)) end
            else
                local ok, v, r = pcall(call)
                values[#values + 1] = ok and type(v) == "number" and host.num(v) or "error"
                if family == "pair" then values[#values + 1] = ok and type(r) == "number" and host.num(r) or "error" end
            end
            host.design(false)
        end
    end
    return table.concat(values, " ")
end

-- A function that changes its own upvalues is not a function of its arguments: resuming would not give the same values.
function identity.check_constant(f, id)
    if def.made[f] then return end
    if identity.of(f) ~= id then
        local _, file, line = host.tokens(f)
        refuse(file, line, "it changes its upvalues: its values must depend on its arguments and s only")
    end
end

return identity
