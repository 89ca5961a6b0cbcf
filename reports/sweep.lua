-- The report of a sweep: what was run, the tables that its script declares, the fronts, the curves, the samples, and how to run it
-- again.
local report = require "report"
local s = report.sweep()

local all = {} -- every row with runs, parents first
for _, row in ipairs(s.parents) do all[#all + 1] = row end
for _, row in ipairs(s.cells) do all[#all + 1] = row end

-- ---- head

local function tally(rows)
    local done, have, by = 0, 0, {}
    for _, row in ipairs(rows) do
        local _, d, h, b = report.count(row, s.replicates)
        done, have = done + d, have + h
        for status, n in pairs(b) do by[status] = (by[status] or 0) + n end
    end
    local text = ("%d of %d done"):format(done, have)
    for status, n in pairs(by) do text = ("%s, %d of %d %s"):format(text, n, have, status) end
    return text
end

local function plural(n, word) return n == 1 and "1 " .. word or ("%d %ss"):format(n, word) end

local train, evaluate, data, seen = 0, 0, {}, {}
local points = false -- of the plane, not images
for _, row in ipairs(all) do
    for k = 1, s.replicates do
        local run = row.runs[k]
        if run and not seen[run.run] then
            seen[run.run] = true
            train = train + (run.seconds or 0)
            for _, e in ipairs(run.evals) do evaluate, points = evaluate + (e.seconds or 0), points or e.metric == "energy" or e.metric == "sw2" end
            local p = report.sql("SELECT text FROM v_param WHERE run = ? AND key = 'data'", run.run)[1]
            if p then data[p.text] = true end
        end
    end
end
local names = {}
for name in pairs(data) do names[#names + 1] = name end

report.title(("Sweep %s"):format(s.name))
local head = { { "script", s.script }, { "data set", #names > 0 and table.concat(names, ", ") or "not recorded" }, { "ledger", report.ledger },
    { "ran", ("%s × %s: %s"):format(plural(#s.cells, "cell"), plural(s.replicates, "replicate"), tally(s.cells)) } }
for _, row in ipairs(s.parents) do head[#head + 1] = { row.label, tally { row } } end
head[#head + 1] = { "time", ("%s training, %s evaluating"):format(report.duration(train), report.duration(evaluate)) }
report.facts(head)

-- ---- tables

report.section "Results"
local wanted, have = {}, {}
for i, spec in ipairs(s:tables()) do
    spec.id = i == 1 and "main" or "table" .. i
    report.table(s:table(spec))
    for _, key in ipairs(spec.cols) do
        if not have[key] then have[key] = true; wanted[#wanted + 1] = key end
    end
end

local claims = s:claims_table()
if claims then report.table(claims) end

-- ---- figures

report.section "Figures"
for _, front in ipairs(s:fronts()) do
    local fig = s:scatter(front, { xlog = true, ylog = true, text = "Mean over replicates, bars from the lowest to the highest; hollow: " ..
        "where the cells start from." })
    if fig then
        fig.title = ("%s against %s"):format(fig.y.label, fig.x.label)
        report.figure(fig)
    end
end
-- A distance of two outputs of one noise is what consistency models learn from; diffusion and flow matching only log it.
local targets = {}
local function is_consistency(cell)
    if targets[cell] == nil then
        local run
        for k = 1, s.replicates do run = run or cell.runs[k] end
        local p = run and report.sql("SELECT text FROM v_param WHERE run = ? AND key = 'target'", run.run)[1]
        targets[cell] = not p or (p.text ~= "edm" and p.text ~= "flow")
    end
    return targets[cell]
end
for _, c in ipairs { { "loss", "training loss" }, { "delta", "‖Δ‖ = ‖D(x_t) − D(x_r)‖" } } do
    local fig = s:curves(c[1], { label = c[2], log = true, accepts = c[1] == "delta" and is_consistency or nil,
        text = "Mean over replicates and neighbouring steps." })
    local any = false
    for _, series in ipairs(fig.series) do any = any or #series.x > 0 end
    fig.title = c[1] == "loss" and "Training loss" or "Distance of neighbouring outputs"
    if any then report.figure(fig) end
end

-- ---- samples

local function caption(role, label)
    local sampler, n = role:match "^grid:([%w-]-)@?(%d+)$"
    if role == "grid:data" then return "data" end
    if not sampler then return ("%s, %s"):format(label, role) end
    local steps = sampler == "ect" or sampler == "nearest"
    local how = steps and plural(tonumber(n), "step") or ("%s, %s evaluations"):format(report.SAMPLER_NAMES[sampler] or sampler, n)
    return (sampler == "nearest" and "training images nearest to %s, %s" or "%s, %s"):format(label, how)
end

-- Order of pictures: data, samples by sampler and number, then their nearest neighbours.
local function picture_before(a, b)
    local function key(role)
        local sampler, n = role:match "^grid:([%w-]-)@?(%d+)$"
        local rank = role == "grid:data" and 1 or sampler == "nearest" and 4 or sampler == "ect" and 2 or 3
        return rank, sampler or role, tonumber(n) or 0
    end
    local ra, sa, na = key(a.role)
    local rb, sb, nb = key(b.role)
    if ra ~= rb then return ra < rb end
    if sa ~= sb then return sa < sb end
    return na < nb
end

-- Pictures of a row's first run that `accepts` takes.
local function pictures(row, list, accepts)
    local run
    for k = 1, s.replicates do run = run or row.runs[k] end
    local all = run and report.sql("SELECT role, sha FROM v_artifact WHERE run = ? AND role LIKE 'grid:%' ORDER BY role", run.run) or {}
    table.sort(all, picture_before)
    for _, a in ipairs(all) do
        if accepts(a.role) then list[#list + 1] = { caption = caption(a.role, row.label), role = a.role, run = run.run, sha = a.sha } end
    end
end

local base, first, rest = s.by_label[s.base], {}, { fold = true, title = "Samples of the other cells" }
for _, row in ipairs(s.parents) do pictures(row, first, function(role) return role ~= "grid:ect@2" end) end
for _, row in ipairs(s.cells) do
    if row == base then pictures(row, first, function() return true end)
    else pictures(row, rest, function(role) return not role:find "nearest" end) end
end
if #first > 0 then
    report.section "Samples"
    local nearest = false
    for _, p in ipairs(first) do nearest = nearest or p.role:find "nearest" ~= nil end
    first.text = "First replicate; the same sample seeds in every grid, so the same place shows the same noise." ..
        (nearest and " Nearest: by pixels." or "")
    if points then first.text = "First replicate; the same sample seeds in every picture." end
    report.images(first)
end
if #rest > 0 then report.images(rest) end

-- ---- runs

report.section "Runs"
for _, key in ipairs { "flops_total", "seconds", "images_per_s" } do
    if not have[key] then wanted[#wanted + 1] = key end
end
local runs = s:run_table(wanted)
runs.title, runs.fold = "Every run behind the numbers", false
report.table(runs)

-- ---- how to reproduce

report.section "How to reproduce"
report.code { title = "Command", text = s:command() }
local settings = s:differing_settings()
if #settings.columns > 1 then
    settings.title = "Settings that differ between cells"
    report.table(settings)
end
-- Values by key over all runs; where runs differ, each value with its number of runs.
local provenance, order = {}, {}
for id in pairs(seen) do
    for _, p in ipairs(report.sql("SELECT key, value FROM v_provenance WHERE run = ? AND value <> '' ORDER BY key", id)) do
        if not provenance[p.key] then provenance[p.key] = {}; order[#order + 1] = p.key end
        provenance[p.key][p.value] = (provenance[p.key][p.value] or 0) + 1
    end
end
table.sort(order)
local facts = { title = "Provenance" }
local functions = { title = "Values of the design functions on a fixed grid", fold = true }
for _, key in ipairs(order) do
    local values, n = {}, 0
    for _ in pairs(provenance[key]) do n = n + 1 end
    for value, count in pairs(provenance[key]) do values[#values + 1] = n > 1 and ("%s (%s)"):format(value, plural(count, "run")) or value end
    local name = key:match "^function:(.*)$"
    if name then functions[#functions + 1] = { name, table.concat(values, "; ") }
    elseif key ~= "spec" then facts[#facts + 1] = { key, table.concat(values, "; ") } end -- spec: the settings below
end
facts[#facts + 1] = { "sweep seed", s.seed }
facts[#facts + 1] = { "script SHA-256", s.script_sha }
report.facts(facts)
local changed = { title = ("Settings of %s that are not defaults"):format(s.base or "the sweep"), fold = true }
local first_run
for k = 1, s.replicates do first_run = first_run or (base and base.runs[k]) end
for _, p in ipairs(first_run and report.sql("SELECT key, text FROM v_param WHERE run = ? AND is_default = 0 ORDER BY key", first_run.run) or {}) do
    changed[#changed + 1] = { p.key, s:setting_text(base, p.key, p.text) }
end
if #changed > 0 then report.facts(changed) end
if #functions > 0 then report.facts(functions) end
local script = report.blob(s.script_sha)
if script then report.code { title = ("Script %s"):format(s.script), text = script, fold = true } end
