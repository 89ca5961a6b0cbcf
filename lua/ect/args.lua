-- args: what --set says. "key=value" changes the base of every sweep, "SWEEP:key=value" of one; a key that is no setting is a parameter that
-- the script asks for with ect.arg(name, default). What nobody asked for is an error.
local settings = require "ect.settings"
local args = { all = {}, of = {}, named = {}, asked = {} }
local complain = host.complain

function args.prepare()
    for _, text in ipairs(host.sets()) do
        local key, value = text:match("^%s*([^=]-)%s*=(.*)$")
        if not key or key == "" then error(("--set %s: key=value is needed"):format(text), 0) end
        local sweep, rest = key:match("^(.-):(.*)$")
        local entry = { key = rest or key, value = value, sweep = sweep, text = text }
        if settings.fields[entry.key] then
            local ok, network = pcall(settings.network, entry.key, value)
            if not ok then error(("--set %s: %s"):format(text, tostring(network):gsub("^[^\n]-:%d+: ", "")), 0) end
            if not network and settings.fields[entry.key].type ~= "fn" then -- functions: when the library is complete
                local _, message = host.check(entry.key, value)
                if message then error(("--set %s: %s"):format(text, message), 0) end
            end
        elseif sweep and entry.key ~= "replicates" then
            args.no_such(entry)
        end
        if settings.fields[entry.key] or entry.key == "replicates" then args.all[#args.all + 1] = entry
        else args.named[entry.key] = entry end
    end
end

function args.no_such(entry)
    local known = { "replicates" }
    for _, name in ipairs(settings.names) do known[#known + 1] = name end
    for name in pairs(args.asked) do known[#known + 1] = name end
    table.sort(known)
    local near = host.nearest(entry.key, known)
    error(("--set %s: unknown setting '%s'%s"):format(entry.text, entry.key,
        near and (": did you mean '" .. near .. "'?") or " (ect help settings lists them)"), 0)
end

local function canonical(e)
    local ok, text = pcall(settings.from_text, e.key, e.value)
    if ok then return text end
    error(("--set %s: %s"):format(e.text, tostring(text):gsub("^[^\n]-:%d+: ", "")), 0)
end

-- Applies what concerns a sweep; returns the number of replicates, if that was set.
function args.apply(name, base, eval_set)
    local replicates
    for _, e in ipairs(args.all) do
        if not e.sweep or e.sweep == name then
            e.used = true
            if e.key == "replicates" then
                replicates = math.tointeger(tonumber(e.value))
                if not replicates or replicates < 1 then error(("--set %s: a whole number from 1 on is needed"):format(e.text), 0) end
            elseif settings.fields[e.key].class == "eval" then
                eval_set[e.key] = canonical(e)
            elseif settings.network(e.key, e.value) then
                for key, value in pairs(settings.network(e.key, e.value)) do base[key] = settings.canonical(key, value) end
            else
                base[e.key] = canonical(e)
            end
        end
    end
    return replicates
end

-- ect.arg(name, default): a parameter of the script; its type is that of the default.
function args.arg(name, default)
    if host.in_design() then complain("arg in a design function: keep its value in a local outside, so that it is part of the identity") end
    if type(name) ~= "string" then complain("arg(name, default): the name must be text") end
    if settings.fields[name] or name == "replicates" then complain(("arg '%s': that is the name of a setting"):format(name)) end
    args.asked[name] = true
    local entry = args.named[name]
    if not entry then return default end
    local kind, value = type(default), entry.value
    if kind == "number" then
        local x = tonumber(value)
        if not x then error(("--set %s: a number is needed"):format(entry.text), 0) end
        return math.tointeger(x) or x
    elseif kind == "boolean" then
        if value ~= "true" and value ~= "false" then error(("--set %s: true or false is needed"):format(entry.text), 0) end
        return value == "true"
    elseif kind ~= "string" and kind ~= "nil" then
        complain(("arg '%s': the default must be a number, text or a boolean"):format(name))
    end
    return value
end

-- After the script: was everything used?
function args.finish()
    for name, entry in pairs(args.named) do
        if not args.asked[name] then args.no_such(entry) end
    end
    for _, e in ipairs(args.all) do
        if not e.used then error(("--set %s: there is no sweep '%s'"):format(e.text, e.sweep or ""), 0) end
    end
end

return args
