-- def: how design.lua defines a function. A family is a table; family.name(version, defaults, make, check) defines name, and afterwards
-- family.name{parameters} makes the function. What was made is remembered with its identity text: name(parameters, sorted)@version.
local def = {}
def.required = {} -- marks a parameter without default
def.made = setmetatable({}, { __mode = "k" }) -- function -> { id, family, name, params, short }
def.families = {}
local num = host.num

local function value_text(v)
    if type(v) == "number" then return num(v) end
    if type(v) == "boolean" then return tostring(v) end
    host.complain("a design function's parameter is a " .. type(v) .. ": numbers only")
end

local function sorted_names(t)
    local names = {}
    for name in pairs(t) do names[#names + 1] = name end
    table.sort(names)
    return names
end

local function check_parameters(title, defaults, names, given)
    if type(given) ~= "table" then
        host.complain(("%s takes a table of parameters, as in %s{%s}"):format(title, title, names[1] and names[1] .. " = ..." or ""))
    end
    for k in pairs(given) do
        if defaults[k] == nil then
            local near = type(k) == "string" and host.nearest(k, names)
            host.complain(("%s has no parameter '%s'%s"):format(title, tostring(k),
                near and (": did you mean '" .. near .. "'?") or (" (it has: " .. table.concat(names, ", ") .. ")")), tostring(k))
        end
    end
end

local function define(family, name, version, defaults, make, check)
    local names = sorted_names(defaults)
    local title = "ect." .. family .. "." .. name
    local cache = {} -- identity text -> function: equal parameters are one function
    return function(given)
        given = given == nil and {} or given
        check_parameters(title, defaults, names, given)
        local params, all, changed = {}, {}, {}
        for i, k in ipairs(names) do
            local v = given[k]
            if v == nil then v = defaults[k] end
            if v == def.required then host.complain(title .. " needs the parameter '" .. k .. "'") end
            local wrong = type(v) ~= "number" and v ~= defaults[k]
            if wrong or v ~= v then
                host.complain(("%s: %s must be a number, not %s"):format(title, k, v ~= v and "nan" or "a " .. type(v)), k)
            end
            params[k] = v
            all[i] = k .. "=" .. value_text(v)
            if v ~= defaults[k] then changed[#changed + 1] = all[i] end
        end
        local id = ("%s(%s)@%d"):format(name, table.concat(all, ","), version)
        if not cache[id] then
            local fine = not check or check(params)
            if fine ~= true then host.complain(title .. ": " .. tostring(fine)) end
            local f = make(params)
            local short = #changed == 0 and name or ("%s(%s)"):format(name, table.concat(changed, ","))
            def.made[f] = { id = id, family = family, name = name, params = params, short = short, version = version }
            cache[id] = f
        end
        return cache[id]
    end
end

-- A value that is worked out from the data set of the cell it ends up in.
def.is_deferred = setmetatable({}, { __mode = "k" }) -- value -> function of d
def.deferred_name = setmetatable({}, { __mode = "k" })
function def.deferred(name, of)
    local v = setmetatable({}, { __name = name, __metatable = "read-only", __newindex = function() end })
    def.is_deferred[v], def.deferred_name[v] = of, name
    return v
end

return setmetatable(def, {
    __call = function(_, family)
        local t = setmetatable({}, {
            __index = function(t, name)
                return function(...) rawset(t, name, define(family, name, ...)) end
            end,
        })
        def.families[family] = t
        return t
    end,
})
