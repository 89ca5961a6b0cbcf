-- settings: from what a script writes to canonical text, one key at a time. Every setting and its type comes from core/spec.def.
local def, identity, expression = require "ect.def", require "ect.identity", require "ect.expression"
local sandbox = require "ect.sandbox"
local settings = {}

local fields, names, prefixes = {}, {}, {}
for _, f in ipairs(host.fields()) do
    fields[f.key] = f
    names[#names + 1] = f.key
    local prefix = f.key:match("^(.*)%.")
    if prefix then prefixes[prefix] = true end
end
settings.fields, settings.names, settings.prefixes = fields, names, prefixes
settings.parents = {}  -- canonical text of init -> run object
settings.files = {}    -- canonical text of init -> path of the file
settings.deferred = {} -- text that stands for a deferred value -> its function
settings.functions = {}    -- "family:id" -> function
settings.fingerprints = {} -- "family:id" -> text
settings.labels = {}       -- "family:id" -> short label

local complain = host.complain

-- The family of design functions that a setting takes ("loss.teacher_ema": teacher_ema); nil for other settings.
local function family_of(key) return fields[key].type == "fn" and key:match("[^.]*$") or nil end
-- Settings that may have no function at all: "none", in a script also false.
local function is_none(key, text) return text == "none" and fields[key].default == "none" end

function settings.unknown(key, what)
    local near = type(key) == "string" and host.nearest(key, names)
    complain(("unknown %s '%s'%s"):format(what or "setting", tostring(key),
        near and (": did you mean '" .. near .. "'?") or " (ect help settings lists them)"), tostring(key))
end

-- ---- networks by name: net = "cifar10-ncsnpp" stands for all settings of that network ------------------------------------------

local network_names = host.networks()
local families = {}
for name in fields.net.range:gmatch("[^|]+") do families[name] = true end

-- The settings (values, not texts) that a value of `net` stands for; nil where it is a family. An unknown name is an error.
function settings.network(key, value)
    if key ~= "net" or type(value) ~= "string" or families[value] then return nil end
    local texts = host.network(value)
    if not texts then
        local known = {}
        for _, name in ipairs(network_names) do known[#known + 1] = name end
        for _, name in ipairs(sandbox.sorted_keys(families)) do known[#known + 1] = name end
        local near = host.nearest(value, known)
        complain(("net: no network '%s'%s"):format(value,
            near and (": did you mean '" .. near .. "'?") or " (ect help recipes lists them)"), "net")
    end
    local values = {}
    for k, text in pairs(texts) do
        local kind = fields[k].type
        if kind == "ints" then
            values[k] = {}
            for word in text:gmatch("[^%[%],]+") do table.insert(values[k], math.tointeger(tonumber(word))) end
        elseif kind == "bool" then values[k] = text == "true"
        elseif kind == "int" or kind == "real" then values[k] = tonumber(text)
        else values[k] = text end
    end
    return values
end

-- {net = {width = 16}, ["net.mult"] = {1, 2}} -> {["net.width"] = 16, ["net.mult"] = {1, 2}}
function settings.flatten(t, into, prefix)
    into = into or {}
    for _, k in ipairs(sandbox.sorted_keys(t)) do
        local v = t[k]
        local key = prefix and (prefix .. "." .. tostring(k)) or k
        if prefix and k == 1 then key = prefix end
        if type(key) ~= "string" then complain(("a setting needs a name: '%s' has none"):format(tostring(v))) end
        local inner = type(v) == "table" and prefixes[key] and getmetatable(v) == nil and not def.made[v]
        if inner then
            settings.flatten(v, into, key)
        else
            if not fields[key] then settings.unknown(key) end
            local network = settings.network(key, v)
            for name, value in pairs(network or { [key] = v }) do into[name] = value end
        end
    end
    return into
end

-- ---- design functions ---------------------------------------------------------------------------------------------------

-- Registers a function as value of a setting and returns its identity text.
local function register(family, f)
    local made = def.made[f]
    if made and made.family ~= family then
        complain(("%s: ect.%s.%s is a function for '%s'"):format(family, made.family, made.name, made.family), family)
    end
    if made and made.name == "const" and (family == "lr" or family == "dropout") then return host.num(made.params.lr or made.params.p) end
    local id = identity.of(f)
    local key = family .. ":" .. id
    if not settings.functions[key] then
        settings.functions[key] = f
        settings.labels[key] = made and made.short or id:sub(1, 12)
        settings.fingerprints[key] = identity.fingerprint(family, f)
        identity.check_constant(f, id)
    end
    return id
end

local function digits(x) return (host.num(x):gsub("^0?%.", ""):gsub("[^%w]", "_")) end
local function images(n)
    if n % 1e6 == 0 then return ("%dm"):format(n // 1e6) end
    if n % 1e3 == 0 then return ("%dk"):format(n // 1e3) end
    return host.num(n):gsub("[^%w]", "_")
end
-- Name of an EMA that was given none: std05, beta9999, hl500k.
local function ema_name(f, id)
    local made = def.made[f]
    if not made then return "lua_" .. id:sub(5, 12) end
    local p = made.params
    if made.name == "power" then return "std" .. digits(p.std) end
    if made.name == "const" then return "beta" .. digits(p.beta) end
    if made.name == "halflife" then return "hl" .. images(p.img) end
    if made.name == "halflife_after" then return "hla" .. images(p.img) end
    if made.name == "forget" then return "forget" .. digits(p.iters_fraction) end
    return made.name
end

-- The setting ema: one decay function, a number, a list of them, or a table name -> function. Text: "name=id" sorted by name.
local function ema_text(value)
    local list = {}
    if type(value) ~= "table" or def.is_deferred[value] then value = { value } end
    for _, k in ipairs(sandbox.sorted_keys(value)) do
        local f = value[k]
        if type(f) == "number" then f = def.families.ema.const { beta = f } end
        if type(f) ~= "function" then complain("ema: a decay function or a number is needed, not a " .. type(f), "ema") end
        local id = register("ema", f)
        local name = type(k) == "string" and k or ema_name(f, id)
        if not name:match("^[%w_]+$") or #name > 31 or name == "raw" then
            complain(("ema: '%s' is not a name for an EMA (letters, digits and _, at most 31, not raw)"):format(name), k)
        end
        for _, e in ipairs(list) do
            if e.name == name then complain(("ema: two EMAs are called '%s'"):format(name), "ema") end
        end
        list[#list + 1] = { name = name, id = id }
    end
    if #list > 8 then complain("ema: at most 8 EMAs", "ema") end
    table.sort(list, function(a, b) return a.name < b.name end)
    for i, e in ipairs(list) do list[i] = e.name .. "=" .. e.id end
    return table.concat(list, " ")
end
-- Names of the EMAs in such a text.
function settings.ema_names(text)
    local list = {}
    for word in text:gmatch("%S+") do list[#list + 1] = word:match("^[%w_]+") end
    return list
end

-- ---- values ----------------------------------------------------------------------------------------------------------------

local wants = {
    int = "a whole number", real = "a number", bool = "true or false", text = "text", ints = "a list of whole numbers",
    reals = "a list of numbers", texts = "a list of words", fn = "a number or a function",
}
local scalar = { int = "number", real = "number", bool = "boolean", text = "string", ints = "number", reals = "number", texts = "string" }

local function wrong_type(key, value)
    complain(("%s: %s is needed, not a %s"):format(key, wants[fields[key].type], type(value)), key)
end

local function checked(key, text)
    local canonical, message = host.check(key, text)
    if not canonical then complain(message, key) end
    return canonical
end

local function plain_text(key, value)
    local kind = fields[key].type
    local is_list = kind == "ints" or kind == "reals" or kind == "texts"
    if type(value) == "table" and is_list then
        local parts = {}
        for i, v in ipairs(value) do
            if type(v) ~= scalar[kind] then wrong_type(key, v) end
            parts[i] = type(v) == "number" and host.num(v) or v
        end
        for k in pairs(value) do
            if math.type(k) ~= "integer" or k < 1 or k > #parts then wrong_type(key, value) end
        end
        return "[" .. table.concat(parts, ",") .. "]"
    end
    if type(value) ~= scalar[kind] then wrong_type(key, value) end
    return type(value) == "number" and host.num(value) or tostring(value)
end

-- Starting weights from a file count by its contents, not by its place.
local function init_text(text)
    if text == "none" or settings.parents[text] then return text end
    if text:match("^run:") then
        complain(("init = %s: no run of this script has these weights. From a run of the ledger: `ect export %s w.safetensors`, then "
            .. "init = w.safetensors; in a script: local pre = ect.run ..., init = pre:weights{}"):format(text,
            text:match("^run:([%w]+)") or "RUN"), "init")
    end
    local path, sha = host.init_file((text:gsub("^file:", "")))
    text = "file:" .. sha
    settings.files[text] = path
    return text
end

-- Canonical text of a value of the script. A deferred value (c_rule) gives a placeholder, see settings.resolve.
function settings.canonical(key, value)
    local family = family_of(key)
    if def.is_deferred[value] then
        if fields[key].type ~= "real" then wrong_type(key, value) end
        local name = "deferred:" .. def.deferred_name[value]
        settings.deferred[name] = def.is_deferred[value]
        return name
    end
    if key == "init" and settings.weights_text then
        local text = settings.weights_text(value)
        if text then return checked(key, text) end
        if type(value) == "string" then return checked(key, init_text(value)) end
    end
    if key == "ema" then return checked(key, value == false and "" or ema_text(value)) end
    if family then
        if is_none(key, value or "none") then return "none" end
        if fields[key].default == "none" and type(value) ~= "function" then
            complain(("%s: a function is needed, or false, not a %s"):format(key, type(value)), key)
        end
        if type(value) == "number" then return checked(key, host.num(value)) end
        if type(value) ~= "function" then wrong_type(key, value) end
        return checked(key, register(family, value))
    end
    return checked(key, plain_text(key, value))
end

-- Canonical text of a value given as text (--set). Raises with key and value.
function settings.from_text(key, text)
    local function design(family, word)
        local x = tonumber(word)
        if x and fields[key].default == "none" then complain(("%s: a function is needed, or none, not a number"):format(key)) end
        if x and family ~= "ema" then return host.num(x) end
        local f, message
        if x then f = def.families.ema.const { beta = x }
        else f, message = expression.design(family, word, settings.expression_env) end
        if not f then complain(message) end
        return register(family, f), f
    end
    if key == "ema" then
        local value = {}
        for word in text:gmatch("%S+") do
            local name, rest = word:match("^([%a_][%w_]*)=(.*)$")
            local _, f = design("ema", rest or word)
            if name then value[name] = f else value[#value + 1] = f end
        end
        return checked(key, ema_text(value))
    end
    if is_none(key, text) then return text end
    if family_of(key) then return checked(key, (design(family_of(key), text))) end
    if key == "init" then text = init_text(text) end
    return checked(key, text)
end

-- Replaces placeholders in a flat table key -> text, now that the data set is known.
function settings.resolve(key, text, data)
    local of = settings.deferred[text]
    if not of then return text end
    return checked(key, host.num(of((host.data_info(data)))))
end

-- For C: the function behind the text of a setting. Number: a constant. For ema: list of { name, function or number }.
local function by_id(family, id)
    local x = tonumber(id)
    if x then return x end
    local f = settings.functions[family .. ":" .. id]
    if f then return f end
    if id:sub(1, 4) == "lua:" then return nil, ("%s: the function %s is not in this script"):format(family, id:sub(1, 12)) end
    local message
    f, message = expression.design(family, id, settings.expression_env)
    return f, message
end
function settings.design_by_id(family, text)
    if family ~= "ema" then return by_id(family, text) end
    local list = {}
    for word in text:gmatch("%S+") do
        local name, id = word:match("^([%w_]+)=(.*)$")
        if not name then return nil, ("ema: '%s' is not name=function"):format(word) end
        local f, message = by_id("ema", id)
        if f == nil then return nil, message end
        list[#list + 1] = { name, f }
    end
    return list
end

-- Label of a value in tables: a library function by name and changed parameters, other values by their text.
function settings.label(key, text)
    local family = family_of(key)
    if not family or is_none(key, text) then return text end
    if key ~= "ema" then
        if not tonumber(text) and not settings.labels[family .. ":" .. text] then
            local f = by_id(family, text)
            if type(f) == "function" then register(family, f) end
        end
        return settings.labels[family .. ":" .. text] or text
    end
    return table.concat(settings.ema_names(text), "+")
end

function settings.fingerprint_lines(get)
    local lines = {}
    for _, key in ipairs(names) do
        local family = family_of(key)
        if family and not is_none(key, get(key)) then
            local text = get(key)
            for word in (key == "ema" and text or text:gsub("%s", "")):gmatch("%S+") do
                local id = key == "ema" and word:match("=(.*)$") or word
                if not tonumber(id) then
                    local print_key = family .. ":" .. id
                    if not settings.fingerprints[print_key] then
                        local f = by_id(family, id)
                        if type(f) == "function" then settings.fingerprints[print_key] = identity.fingerprint(family, f) end
                    end
                    lines[#lines + 1] = ("%s %s %s"):format(key, id, settings.fingerprints[print_key] or "")
                end
            end
        end
    end
    return table.concat(lines, "\n") .. "\n"
end

return settings
