-- columns: names of numbers that s:table, s:pareto and s:claim show: METRIC@EVALUATIONS, METRIC@SAMPLEREVALUATIONS, or a cost. A name that no
-- evaluation could ever fill is refused at its line; one that only `ect eval` could fill is warned of.
local settings, sandbox = require "ect.settings", require "ect.sandbox"
local columns = {}
local complain = host.complain

local costs = { "flops_total", "flops_executed", "flops_nominal", "flops_ancestors", "units_paper", "seconds", "images_per_s", "iters" }
local is_cost = {}
for _, name in ipairs(costs) do is_cost[name] = true end

-- Measures and what they look at: core/metrics/metric.h, core/eval_points.h.
local whole = { energy = true, sw2 = true, fid = true, kid = true, ["fid:pytorch"] = true, ["kid:pytorch"] = true, ["fid:nvidia"] = true }
local measures = { fd = true, kd = true, classes = true, precision = true, recall = true, density = true, coverage = true }
local spaces = { pixel = true, random = true, digits = true, dinov2 = true, inception = true }

local function is_metric(name)
    if whole[name] then return true end
    local measure, space = name:match "^(%l+)_([%w.]+)"
    return measures[measure] and spaces[space] or false
end

local samplers, is_sampler = {}, {}
for name in settings.fields["eval.sampler"].range:gmatch "[^|]+" do samplers[#samplers + 1], is_sampler[name] = name, true end

local function words(text)
    local list = {}
    for w in text:gmatch "[^,]+" do list[#list + 1] = w end
    return list
end

local long = { fid = "fid:pytorch", kid = "kid:pytorch" } -- one number, two names
local short = { ["fid:pytorch"] = "fid", ["kid:pytorch"] = "kid" }

-- Columns that the declared evaluations fill, as a list, and as sets: of them, and of their metrics.
local function declared(sweep)
    local list, has, metrics = {}, {}, {}
    for _, set in ipairs(sweep.evals) do
        local sampler = set["eval.sampler"] == "ect" and "" or set["eval.sampler"]
        for _, metric in ipairs(words(set["eval.metrics"])) do
            metrics[metric] = true
            for _, nfe in ipairs(words(set["eval.nfe"])) do
                local key = metric .. "@" .. sampler .. nfe
                if not has[key] then list[#list + 1] = key end
                has[key] = true
                if short[metric] then has[short[metric] .. "@" .. sampler .. nfe] = true end
                if long[metric] then has[long[metric] .. "@" .. sampler .. nfe] = true end
            end
        end
    end
    return list, has, metrics
end

local function refuse(what, option, key, list, metrics, any_nfe)
    local names = { table.unpack(list) }
    if any_nfe then
        for _, name in ipairs(list) do names[#names + 1] = name:match "^[^@]+" end
    end
    for _, name in ipairs(costs) do names[#names + 1] = name end
    local near = host.nearest(key, names)
    local metric, ending = key:match "^([^@]+)(@.+)$"
    if not near and metric then -- a metric's typo before evaluations that nobody declared
        local known = sandbox.sorted_keys(metrics)
        for name in pairs(whole) do known[#known + 1] = name end
        table.sort(known)
        near = host.nearest(metric, known)
        near = near and near .. ending
    end
    complain(("%s: no column '%s'%s"):format(what, key, near and (": did you mean '" .. near .. "'?")
        or (": write METRIC@EVALUATIONS such as fd_random@2 or fd_pixel@heun35, or one of " .. table.concat(costs, ", "))), option)
end

-- any_nfe: the number of evaluations is filled in later, so METRIC alone will do.
function columns.check(sweep, what, option, keys, any_nfe)
    local list, has, metrics = declared(sweep)
    for _, key in ipairs(keys) do
        local metric, sampler = key:match "^([%w_:.+-]+)@([%w-]-)%d+$"
        if any_nfe and not metric and not is_cost[key] then metric, sampler = key, "" end
        if not is_cost[key] and not has[key] then
            if not metric or not (metrics[metric] or is_metric(metric)) or not (sampler == "" or is_sampler[sampler]) then
                refuse(what, option, key, list, metrics, any_nfe)
            end
            local filled = any_nfe and metrics[metric]
            if not filled and next(sweep.eval_override) == nil then -- evaluations of the command line replace the script's
                columns.warn(sweep, ("%s: %s: no evaluation '%s' is declared (there are: %s): empty until `ect eval` adds it to the runs"):format(
                    sweep.title, what, key, #list > 0 and table.concat(list, ", ") or "none"))
            end
        end
    end
end

function columns.warn(sweep, text)
    for _, t in ipairs(sweep.warnings) do
        if t == text then return end
    end
    sweep.warnings[#sweep.warnings + 1] = text
end

return columns
