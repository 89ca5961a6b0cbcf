-- evals: eval = {...} or a list of such sets, in terms of the eval.* settings without their prefix.
local settings, sandbox, json = require "ect.settings", require "ect.sandbox", require "ect.json"
local evals = {}
local complain = host.complain

local keys, short = {}, {}
for _, key in ipairs(settings.names) do
    if settings.fields[key].class == "eval" then
        keys[#keys + 1] = key
        short[#short + 1] = key:match("^eval%.(.*)$")
    end
end

local function words(text)
    local list = json.array {}
    for w in text:gmatch("[^,]+") do list[#list + 1] = w end
    return list
end
local function numbers(text)
    local list = words(text)
    for i, w in ipairs(list) do list[i] = tonumber(w) end
    return list
end

local function check(set)
    for _, at in ipairs(words(set["eval.at"])) do
        local percent = tonumber(at:match("^(.*)%%$"))
        if not percent or percent <= 0 or percent > 100 then
            complain(("eval.at: '%s' is not a percentage such as \"25%%\""):format(at), "at")
        end
    end
    local mid_t = #words(set["eval.mid_t"])
    local labels = set["eval.labels"]
    if not (labels == "data" or labels == "uniform" or labels == "balanced" or labels == "none" or labels:match("^class:%d+$")) then
        complain(("eval.labels: '%s' is none of data, uniform, balanced, class:K, none"):format(labels), "labels")
    end
    if tonumber(set["eval.sigma_min"]) >= tonumber(set["eval.sigma_max"]) and set["eval.sampler"] ~= "ect" then
        complain("eval.sigma_min: must be below eval.sigma_max", "sigma_min")
    end
    for _, nfe in ipairs(numbers(set["eval.nfe"])) do
        if set["eval.sampler"] == "heun" and nfe % 2 == 0 then
            complain(("eval.nfe: heun takes 2 evaluations a step and 1 in the last, so nfe is odd, not %d"):format(nfe), "nfe")
        end
        if set["eval.sampler"] == "ancestral-vp" and nfe <= tonumber(set["eval.beta_max"]) then
            complain(("eval.nfe: ancestral-vp with beta_max = %s needs more than %s evaluations, not %d"):format(set["eval.beta_max"],
                set["eval.beta_max"], nfe), "nfe")
        end
        if set["eval.sampler"] == "ect" and nfe - 1 > mid_t then
            complain(("eval.nfe: %d steps need %d noise levels in eval.mid_t, it has %d"):format(nfe, nfe - 1, mid_t), "nfe")
        end
    end
end

-- { churn = { 40, min = 0.05 } } -> { churn = 40, ["churn.min"] = 0.05 }
local function flat(given)
    local out = {}
    for _, k in ipairs(sandbox.sorted_keys(given)) do
        local v = given[k]
        if type(k) == "string" and type(v) == "table" and settings.prefixes["eval." .. k] then
            for _, inner in ipairs(sandbox.sorted_keys(v)) do out[inner == 1 and k or k .. "." .. tostring(inner)] = v[inner] end
        else
            out[k] = v
        end
    end
    return out
end

-- One set as text per eval.* key: defaults, then the base's, the script's, and the command line's.
local function one(base, given, override)
    local set = {}
    for _, key in ipairs(keys) do set[key] = base[key] or settings.fields[key].default end
    if type(given) ~= "table" then complain("eval: a table of settings is needed, not a " .. type(given), "eval") end
    given = flat(given)
    for _, k in ipairs(sandbox.sorted_keys(given)) do
        local key = "eval." .. tostring(k)
        if type(k) == "string" and not settings.fields[key] and settings.fields[k] and settings.fields[k].class == "eval" then key = k end
        if not settings.fields[key] then
            local near = type(k) == "string" and host.nearest(k, short)
            complain(("unknown eval setting '%s'%s"):format(tostring(k), near and (": did you mean '" .. near .. "'?")
                or (" (there are: " .. table.concat(short, ", ") .. ")")), tostring(k))
        end
        set[key] = settings.canonical(key, given[k])
    end
    for key, text in pairs(override) do set[key] = text end
    check(set)
    return set
end

-- given: the script's eval, nil if none. No eval and no eval.* in the base: nothing is evaluated.
function evals.sets(base, given, override)
    local list = {}
    if given == nil then
        local any = next(override) ~= nil
        for _, key in ipairs(keys) do any = any or base[key] ~= nil end
        if any then list[1] = one(base, {}, override) end
    elseif type(given) == "table" and given[1] ~= nil then
        for i, set in ipairs(given) do list[i] = one(base, set, override) end
    else
        list[1] = one(base, given, override)
    end
    return list
end

-- Settings of samplers that a report needs in order to tell two evaluations apart; left out where they are the default.
local told = { "labels", "sigma_min", "sigma_max", "churn", "alpha" }

-- "fid" is recorded as fid:pytorch (core/metrics/metric.h), so reports must look for that.
local short = { fid = "fid:pytorch", kid = "kid:pytorch" }
local function full_names(metrics)
    for i, name in ipairs(metrics) do metrics[i] = short[name] or name end
    return metrics
end

function evals.json(list)
    local out = json.array {}
    for i, set in ipairs(list) do
        out[i] = {
            at = words(set["eval.at"]), nfe = numbers(set["eval.nfe"]), sampler = set["eval.sampler"], ema = set["eval.ema"],
            samples = tonumber(set["eval.samples"]), metrics = full_names(words(set["eval.metrics"])), mid_t = numbers(set["eval.mid_t"]),
            seed = tonumber(set["eval.seed"]),
        }
        for _, key in ipairs(told) do
            local text = set["eval." .. key]
            if text ~= settings.fields["eval." .. key].default then out[i][key] = tonumber(text) or text end
        end
    end
    return out
end

return evals
