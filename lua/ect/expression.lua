-- expression: a design function from text, as --set and the golden vectors write it. "ect.mapping.const{q=4}"; within the family of a
-- setting also "const{q=4}", "const", and the identity text "const(q=4)@1".
local def = require "ect.def"
local expression = {}

local cache = {}
-- Value of a Lua expression that may use ect and math. Raises with the expression as place.
function expression.value(text, env)
    if cache[text] == nil then
        local f, message = host.compile("return " .. text, "=" .. text, env)
        if not f then error(message, 0) end
        cache[text] = f()
    end
    return cache[text]
end

-- Design function of a family from text, or nil and what is wrong.
function expression.design(family, text, env)
    local id_name, id_args, version = text:match("^%s*([%w_]+)%((.*)%)@(%d+)%s*$")
    local name, rest = text:match("^%s*([%w_]+)%s*(.-)%s*$")
    local code = text
    if id_name then
        code = ("ect.%s.%s{%s}"):format(family, id_name, id_args)
    elseif name and rest == "" then
        code = ("ect.%s.%s{}"):format(family, name)
    elseif name and rest:sub(1, 1) == "{" then
        code = ("ect.%s.%s%s"):format(family, name, rest)
    end
    local ok, f = pcall(expression.value, code, env)
    if not ok then return nil, (tostring(f):gsub("^[^\n]-:%d+: ", "")) end
    local made = def.made[f]
    if not made then return nil, ("'%s' is not a design function"):format(text) end
    if made.family ~= family then return nil, ("'%s' is a function of ect.%s"):format(text, made.family) end
    if version and tonumber(version) ~= made.version then
        return nil, ("%s: this program has version %d of '%s'"):format(text, made.version, made.name)
    end
    return f
end

return expression
