-- json: writing only; keys sorted, so equal values are equal texts.
local json = { null = {} }
local arrays = setmetatable({}, { __mode = "k" })

-- Marks t as a list, also when it is empty.
function json.array(t)
    arrays[t] = true
    return t
end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
local function string_text(s)
    return '"' .. s:gsub('[%c"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

function json.encode(v)
    local kind = type(v)
    if v == json.null or v == nil then return "null" end
    if kind == "boolean" then return tostring(v) end
    if kind == "number" then return (v ~= v or v == math.huge or v == -math.huge) and "null" or host.num(v) end
    if kind == "string" then return string_text(v) end
    local parts = {}
    if arrays[v] then
        for i, x in ipairs(v) do parts[i] = json.encode(x) end
        return "[" .. table.concat(parts, ",") .. "]"
    end
    local keys = {}
    for k in pairs(v) do keys[#keys + 1] = k end
    table.sort(keys)
    for i, k in ipairs(keys) do parts[i] = string_text(k) .. ":" .. json.encode(v[k]) end
    return "{" .. table.concat(parts, ",") .. "}"
end

return json
