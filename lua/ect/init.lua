-- ect: the library as scripts see it.
local sandbox = require "ect.sandbox"
local design = require "ect.design"
local state, expression = require "ect.state", require "ect.expression"

local api = {}
for k, v in pairs(design) do api[k] = v end
for k, v in pairs(require("ect.sweep").api) do api[k] = v end

local ect = sandbox.freeze(api, "ect")
local modules = { ect = ect }
for name in pairs(design) do
    if type(api[name]) == "table" then modules["ect." .. name] = ect[name] end
end
local environment = sandbox.environment(modules)
local expression_env = setmetatable({}, {
    __index = function(_, k)
        if k == "ect" then return ect end
        if k == "math" or k == "pairs" or k == "ipairs" then return environment[k] end
        error(("no variable '%s' here: ect.* and math.* only"):format(tostring(k)), 2)
    end,
    __newindex = function(_, k) error("an expression cannot assign to " .. tostring(k), 2) end,
    __metatable = "read-only",
})
require("ect.settings").expression_env = expression_env

return {
    ect = ect,
    environment = environment,
    state = state,
    -- for C: a design function by expression
    call = function(text) return expression.value(text, expression_env) end,
    -- for C: the function behind an identity text; number for a constant, nil and message where there is none
    design = require("ect.settings").design_by_id,
    cells = require "ect.cells",
    recipes = require("ect.recipes").names,
}
