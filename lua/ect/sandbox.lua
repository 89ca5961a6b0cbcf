-- sandbox: what a script sees. Read-only tables, no addresses, no clock, no order that depends on hashing: the same script gives the same
-- cells on every machine. The state (memory, instructions, no binary code) is bounded in C.
local sandbox = {}
sandbox.known = setmetatable({}, { __mode = "k" }) -- library value -> its name, for identities

local function nearest_hint(word, list)
    local near = type(word) == "string" and host.nearest(word, list)
    return near and (": did you mean '" .. near .. "'?") or ""
end

local function keys_of(t)
    local names = {}
    for k in pairs(t) do names[#names + 1] = tostring(k) end
    table.sort(names)
    return names
end

-- A read-only view of a library table; functions and inner tables get names.
function sandbox.freeze(t, name)
    local view = {}
    for k, v in pairs(t) do
        if type(v) == "table" and not sandbox.known[v] then v = sandbox.freeze(v, name .. "." .. k) end
        if type(v) == "function" then sandbox.known[v] = name .. "." .. k end
        view[k] = v
    end
    local proxy = setmetatable({}, {
        __index = function(_, k)
            local v = view[k]
            if v == nil then host.complain(("%s has no '%s'%s"):format(name, tostring(k), nearest_hint(k, keys_of(view)))) end
            return v
        end,
        __newindex = function() host.complain(name .. " is read-only") end,
        __metatable = "read-only",
    })
    sandbox.known[proxy] = name
    return proxy
end

-- pairs in the order of keys: numbers, then strings, then the rest by type (false, true).
local rank = { number = 1, string = 2, boolean = 3 }
function sandbox.sorted_keys(t)
    local keys = {}
    for k in next, t do
        if not rank[type(k)] then host.complain("pairs: a " .. type(k) .. " as key has no order that two machines share") end
        keys[#keys + 1] = k
    end
    table.sort(keys, function(a, b)
        local ra, rb = rank[type(a)], rank[type(b)]
        if ra ~= rb then return ra < rb end
        if ra == 3 then return a == false and b == true end
        return a < b
    end)
    return keys
end
local function sorted_pairs(t)
    local keys, i = sandbox.sorted_keys(t), 0
    return function()
        i = i + 1
        if keys[i] ~= nil then return keys[i], t[keys[i]] end
    end
end

-- Stable merge sort: table.sort of C picks pivots by the clock in long tables, which equal elements can show.
local function merge_sort(t, less)
    less = less or function(a, b) return a < b end
    local n, width = #t, 1
    local from, to = t, {}
    while width < n do
        for lo = 1, n, 2 * width do
            local mid, hi = math.min(lo + width, n + 1), math.min(lo + 2 * width, n + 1)
            local a, b = lo, mid
            for k = lo, hi - 1 do
                if a < mid and (b >= hi or not less(from[b], from[a])) then to[k], a = from[a], a + 1
                else to[k], b = from[b], b + 1 end
            end
        end
        from, to, width = to, from, 2 * width
    end
    if from ~= t then for i = 1, n do t[i] = from[i] end end
end

local real_tostring, real_format = tostring, string.format
local function plain_tostring(v)
    local kind = type(v)
    if kind == "table" or kind == "function" or kind == "userdata" then
        local mt = kind == "table" and getmetatable(v)
        if type(mt) == "table" and mt.__tostring then return mt.__tostring(v) end
        return kind -- not its address
    end
    return real_tostring(v)
end
local function plain_format(fmt, ...)
    if type(fmt) == "string" and fmt:gsub("%%%%", ""):find("%%[-+ #0-9.]*p") then error("format: %p would show an address", 2) end
    local args = table.pack(...)
    for i = 1, args.n do
        local kind = type(args[i])
        if kind == "table" or kind == "function" or kind == "userdata" then args[i] = plain_tostring(args[i]) end
    end
    return real_format(fmt, table.unpack(args, 1, args.n))
end
string.format = plain_format -- ("%p"):format too

-- math.random: a counter, so the n-th number of a script is always the same.
local seed, count = 0, 0
local function random(lo, hi)
    if host.in_design() then error("math.random in a design function: its values must depend on its arguments and s only", 2) end
    count = count + 1
    local u = host.random(seed, "math.random", count)
    if lo == nil then return u end
    if hi == nil then lo, hi = 1, lo end
    if math.type(lo) ~= "integer" or math.type(hi) ~= "integer" or lo > hi then error("math.random: bad interval", 2) end
    return lo + math.floor(u * (hi - lo + 1))
end
local function randomseed(x)
    if math.type(x) ~= "integer" then error("math.randomseed needs a whole number: scripts have no other source of chance", 2) end
    seed, count = x, 0
end

local function plain_setmetatable(t, mt)
    if type(mt) == "table" and (rawget(mt, "__gc") ~= nil or rawget(mt, "__mode") ~= nil) then
        error("setmetatable: __gc and __mode depend on the garbage collector, scripts do not", 2)
    end
    return setmetatable(t, mt)
end

-- An error leaves design functions behind: what is allowed afterwards is what was allowed before.
local function plain_pcall(f, ...)
    local inside = host.in_design()
    local results = table.pack(pcall(f, ...))
    host.design(inside)
    return table.unpack(results, 1, results.n)
end
-- The handler runs after the call has ended: inside it, an error of the instruction hook would run with the hook switched off.
local function plain_xpcall(f, handler, ...)
    local results = table.pack(plain_pcall(f, ...))
    if results[1] then return table.unpack(results, 1, results.n) end
    return false, handler(results[2])
end

local function copy(t)
    local r = {}
    for k, v in pairs(t) do r[k] = v end
    return r
end

local function print(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = plain_tostring(words[i]) end
    host.log(table.concat(words, "\t"), false)
end

-- modules: name -> frozen module, for require
function sandbox.environment(modules)
    local math_copy = copy(math)
    math_copy.random, math_copy.randomseed = random, randomseed
    local table_copy = copy(table)
    table_copy.sort = merge_sort
    local g = {
        assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, pairs = sorted_pairs, pcall = plain_pcall,
        print = print, rawequal = rawequal, rawlen = rawlen, select = select, setmetatable = plain_setmetatable,
        tonumber = tonumber, tostring = plain_tostring, type = type, xpcall = plain_xpcall, _VERSION = _VERSION,
        math = math_copy, string = copy(string), table = table_copy, utf8 = copy(utf8),
    }
    function g.require(name)
        local m = modules[name]
        if m == nil then
            host.complain(("require '%s': scripts can use 'ect' and its parts only"):format(plain_tostring(name)))
        end
        return m
    end
    local missing = {
        os = true, io = true, debug = true, package = true, load = true, loadstring = true, dofile = true, loadfile = true,
        collectgarbage = true, coroutine = true, rawset = true, rawget = true,
    }
    local view = {}
    for k, v in pairs(g) do
        if type(v) == "table" then v = sandbox.freeze(v, k) end
        if type(v) == "function" then sandbox.known[v] = k end
        view[k] = v
    end
    local names = keys_of(view)
    local env = setmetatable({}, {
        __index = function(_, k)
            local v = view[k]
            if v ~= nil then return v end
            if missing[k] then host.complain(("'%s' is not available: scripts are pure"):format(k)) end
            if k == "next" then host.complain("'next' is not available: use pairs, which goes through keys in order") end
            host.complain(("no variable '%s'%s"):format(plain_tostring(k), nearest_hint(k, names)))
        end,
        __newindex = function(_, k)
            host.complain(("'%s' is not a local variable: write local %s = ..."):format(plain_tostring(k), plain_tostring(k)))
        end,
        __metatable = "read-only",
    })
    sandbox.known[env] = "_ENV"
    return env
end

return sandbox
