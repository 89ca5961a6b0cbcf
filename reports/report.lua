-- report: what report definitions share. A sweep is loaded once into cells with their replicates; s:table{...} makes a table of it
-- with paired intervals, bold, Pareto marks and gaps by the rules below, so a table of a paper is a dozen lines:
--
--     local report = require "report"
--     local s = report.sweep()                       -- the newest, or the one that --sweep names
--     report.title "Table 1"
--     report.table(s:table { rows = "mapping", cols = {"fd_random@1", "fd_random@2", "flops_total"}, vs = "const" })
--
-- Rules. A number is a mean over the replicates that have a finite value. Brackets hold the 95 % interval of the paired difference to
-- the comparison row, over the replicates that both have; with fewer than three there is none, and no bold. Bold: among the cells of
-- the sweep, those whose paired interval to the best one includes 0. A value of another evaluator than the rest of its column is not
-- shown. Baselines and controls never take part in bold.
local report = ...

local RUN_COLUMNS = {
    flops_total = { head = "FLOPs total", kind = "flops" }, flops_executed = { head = "FLOPs executed", kind = "flops" },
    flops_nominal = { head = "FLOPs nominal", kind = "flops" }, flops_ancestors = { head = "FLOPs before", kind = "flops" },
    units_paper = { head = "paper's units", kind = "metric" }, seconds = { head = "seconds", kind = "seconds" },
    images_per_s = { head = "images/s", kind = "metric" }, iters = { head = "steps", kind = "count" },
}
local HIGHER_IS_BETTER = { precision = true, recall = true, density = true, coverage = true }
function report.higher_is_better(metric) return HIGHER_IS_BETTER[metric:match "^%a*"] or false end -- precision_dinov2:k3
local SAMPLER_NAMES = {
    heun = "Heun", euler = "Euler", ect = "consistency", ["dpmpp-2m"] = "DPM-Solver++(2M)", ["ancestral-ve"] = "ancestral (VE)",
    ["ancestral-vp"] = "ancestral (VP)", ["flow-euler"] = "flow matching, Euler",
}
report.SAMPLER_NAMES = SAMPLER_NAMES
local CONTROLS = { { "real_half", "real halves" }, { "real_fresh", "real, drawn afresh" }, { "gaussian", "Gaussian" } }
local STATUSES = { "diverged", "failed", "blocked", "interrupted", "running", "pending" }

-- Short names under which nothing is recorded: core/metrics/metric.h.
local SHORT_METRICS = { fid = "fid:pytorch", kid = "kid:pytorch" }

-- "fd_random@2" -> metric, sampler, evaluations; "flops_total" -> a column of v_run.
local function parse_column(key)
    if RUN_COLUMNS[key] then
        return { key = key, field = key, head = RUN_COLUMNS[key].head, kind = RUN_COLUMNS[key].kind }
    end
    local metric, sampler, nfe = key:match "^([%w_:.+-]+)@([%w-]-)(%d+)$"
    if not metric then
        report.refuse(("no column '%s': write METRIC@EVALUATIONS such as fd_random@2 or fd_pixel@heun35, or one of flops_total, " ..
            "flops_executed, flops_nominal, units_paper, seconds, images_per_s"):format(key))
    end
    metric = SHORT_METRICS[metric] or metric
    local mark = metric:match "^fid:nvidia" and " (unverified)" or "" -- never compared with NVIDIA's own numbers
    return { key = key, head = key .. mark, kind = "metric", metric = metric, sampler = sampler == "" and "ect" or sampler, nfe = tonumber(nfe) }
end
report.column = parse_column -- of report_figures.lua too, as are measure, finite and Sweep

local function contains(list, x)
    for _, v in ipairs(list or {}) do
        if v == x then return true end
    end
    return false
end

-- ---- loading ----------------------------------------------------------------------------------------------------------

local Sweep = {}
Sweep.__index = Sweep
report.Sweep = Sweep

local function percent(text) return tonumber((tostring(text):match "^([%d.]+)%%$")) end

-- What the script asked for about a column: which weights, how many samples, at which step.
local function declared_eval(declared, column)
    for _, e in ipairs(declared.evals or {}) do
        if contains(e.metrics, column.metric) and contains(e.nfe, column.nfe) and (e.sampler or "ect") == column.sampler then
            return e
        end
    end
end

local canons = {}
local function canon_of(sha)
    if not canons[sha] then
        local r = report.sql("SELECT canon FROM v_evaluator WHERE evaluator = ?", sha)[1]
        canons[sha] = r and r.canon or ""
    end
    return canons[sha]
end

local ON_GRID = { heun = true, euler = true, ["dpmpp-2m"] = true, ["ancestral-ve"] = true }
local function close(a, b) return a and math.abs(a - b) <= 1e-9 * b end

-- Was it sampled as the script asks? Two evaluations may differ in the sampler's settings or the labels alone.
local function is_as_asked(e, want)
    local canon = "\n" .. canon_of(e.evaluator)
    local function line(key) return canon:match("\n" .. key .. "=([^\n]*)") end
    local function number(x) return x and report.number(x) end
    local t = line "t"
    if not want or not t then return true end
    local asked, said = want.labels or "data", line "labels"
    if said ~= asked and not (asked == "data" and (said == "iid from the data set" or said == "none")) then return false end
    local churns = e.sampler == "heun" or e.sampler == "euler"
    if line "churn" ~= (churns and number(want.churn) or nil) then return false end
    if line "alpha" ~= (e.sampler == "heun" and number(want.alpha) or nil) then return false end
    local raised = churns and want.churn
    local first, last = tonumber(t:match "^[^,]+"), tonumber(t:match "[^,]+$")
    if (e.sampler == "ect" or ON_GRID[e.sampler]) and not raised and not close(first, want.sigma_max or 80) then return false end
    if ON_GRID[e.sampler] and not raised and e.nfe > 2 and not close(last, want.sigma_min or 0.002) then return false end
    if not want.mid_t or e.sampler ~= "ect" or e.nfe < 2 then return true end
    local levels = {}
    for i = 1, e.nfe - 1 do levels[i] = number(want.mid_t[i]) or "" end
    return t:sub(-#table.concat(levels, ",")) == table.concat(levels, ",")
end

-- The evaluation of a run that a column shows, or nil.
local function pick_eval(run, column, declared)
    local want = declared_eval(declared, column)
    local share = 100
    if want and want.at and #want.at > 0 then
        share = 0
        for _, at in ipairs(want.at) do share = math.max(share, percent(at) or 100) end
    end
    local best
    for _, e in ipairs(run.evals) do
        if e.metric == column.metric and e.nfe == column.nfe and e.sampler == column.sampler
            and (not want or not want.ema or want.ema == e.weights) and (not want or not want.samples or want.samples == e.samples)
            and (not want or not want.seed or want.seed == tonumber(e.seed)) and is_as_asked(e, want)
            and (not want or run.iters == 0 or math.abs(e.step - run.iters * share / 100) <= 1)
            and (not best or e.step > best.step or (e.step == best.step and e.samples > best.samples)) then
            best = e
        end
    end
    return best
end

-- Adds the run with its evaluations to s.runs, once.
local function load_run(s, id, declared)
    if s.runs[id] then return s.runs[id] end
    local run = report.sql("SELECT * FROM v_run WHERE run = ? LIMIT 1", id)[1]
    if not run then return nil end
    run.iters, run.status = run.iters or 0, run.status or "pending"
    run.declared = declared
    run.evals = report.sql("SELECT * FROM v_eval WHERE run = ? ORDER BY metric, sampler, nfe, weights, step, evaluator, samples, seed", id)
    s.runs[id] = run
    return run
end

local function new_row(label, group, id) return { label = label, group = group, id = id, runs = {}, factors = {} } end

-- Runs that the cells started from, as rows: replicate k of the parent under replicate k.
local function load_parents(s)
    local rows, by_name = {}, {}
    for _, cell in ipairs(s.cells) do
        for k = 1, s.replicates do
            local parent = cell.runs[k] and cell.runs[k].parent
            if parent and not s.runs[parent] then
                local t = report.sql("SELECT v_trial.sweep AS sweep, cell, replicate, declared FROM v_trial JOIN v_sweep USING (sweep_id) " ..
                    "WHERE run = ? ORDER BY created DESC, sweep_id DESC LIMIT 1", parent)[1]
                t = t or { sweep = "", cell = "parent", replicate = k, declared = "{}" }
                local name = t.sweep .. "/" .. t.cell
                local row = by_name[name]
                if not row then
                    row = new_row(t.cell, "baseline", "p" .. #rows)
                    row.sweep, by_name[name], rows[#rows + 1] = t.sweep, row, row
                end
                row.runs[t.replicate] = load_run(s, parent, report.json(t.declared) or {})
            end
        end
    end
    local count = {}
    for _, row in ipairs(rows) do count[row.label] = (count[row.label] or 0) + 1 end
    for _, row in ipairs(rows) do
        if count[row.label] > 1 then row.label = ("%s (%s)"):format(row.label, row.sweep) end
    end
    return rows
end

-- The sweep of that name that was declared last; without a name the newest sweep (a lone `run` only if there is nothing else).
function report.sweep(name)
    name = name or report.sweep_name
    local all = name and report.sql("SELECT * FROM v_sweep WHERE sweep = ? ORDER BY created DESC, sweep_id DESC", name)
        or report.sql "SELECT * FROM v_sweep ORDER BY created DESC, sweep_id DESC"
    local row
    for _, r in ipairs(all) do
        r.declared = report.json(r.declared or "{}") or {}
        if not row or (row.declared.kind == "run" and r.declared.kind ~= "run" and not name) then row = r end
    end
    if not row then
        if not name then report.not_found "the ledger has no sweep yet: ect run SCRIPT makes one" end
        local names = {}
        for _, r in ipairs(report.sql "SELECT DISTINCT sweep FROM v_sweep ORDER BY sweep") do names[#names + 1] = r.sweep end
        report.not_found(("no sweep '%s' in this ledger (there are: %s)"):format(name, #names > 0 and table.concat(names, ", ") or "none"))
    end
    local s = setmetatable({ name = row.sweep, id = row.sweep_id, script = row.script, script_sha = row.script_sha, sets = row.sets or "",
        declared = row.declared, seed = row.seed, cells = {}, runs = {}, replicates = 0, by_label = {} }, Sweep)
    for _, t in ipairs(report.sql("SELECT * FROM v_trial WHERE sweep_id = ? ORDER BY ordinal, replicate, cell", s.id)) do
        local cell = s.by_label[t.cell]
        if not cell then
            cell = new_row(t.cell, "cell", "c" .. t.ordinal)
            cell.ordinal, cell.factors = t.ordinal, report.json(t.factors or "{}") or {}
            s.cells[#s.cells + 1], s.by_label[t.cell] = cell, cell
        end
        cell.runs[t.replicate] = load_run(s, t.run, s.declared)
        s.replicates = math.max(s.replicates, t.replicate)
    end
    s.parents = load_parents(s)
    s.base = s.by_label[s.declared.base or "base"] and (s.declared.base or "base") or (s.cells[1] and s.cells[1].label)
    for _, r in ipairs(s.parents) do
        for k in pairs(r.runs) do s.replicates = math.max(s.replicates, k) end
    end
    return s
end

local function quoted(word) return word:find "[^%w_./,:=+-]" and ("'%s'"):format(word:gsub("'", "'\\''")) or word end

-- The command that fills what is missing.
function Sweep:command()
    local recipe = self.script:match "^recipe:(.*)$"
    local c = { recipe and "ect train" or "ect run", quoted(recipe or self.script) }
    if report.ledger ~= "ect.db" then c[#c + 1] = "--ledger " .. quoted(report.ledger) end
    for set in (self.sets or ""):gmatch "[^\n]+" do c[#c + 1] = "--set " .. quoted(set) end
    return table.concat(c, " ")
end

-- Runs of a row by status: "2/3 diverged 1".
function report.count(row, replicates)
    local have, done, by = 0, 0, {}
    for k = 1, replicates do
        local run = row.runs[k]
        if run then
            have = have + 1
            if run.status == "done" then done = done + 1 else by[run.status] = (by[run.status] or 0) + 1 end
        end
    end
    local text = ("%d/%d"):format(done, have)
    for _, status in ipairs(STATUSES) do
        if by[status] then text = ("%s %s %d"):format(text, status, by[status]) end
    end
    return text, done, have, by
end

-- ---- values -------------------------------------------------------------------------------------------------------------

local function finite(v) return v and v == v and v ~= math.huge and v ~= -math.huge end
report.finite = finite

-- One row and column: values by replicate, the mean of the finite ones, evaluators seen, and what is absent. A value that the script never asked for
-- is not absent: the same command would not fill it.
local function measure(s, row, column)
    local m = { values = {}, runs = {}, list = {}, evaluators = {}, samples = {}, n = 0, of = 0, absent = 0 }
    for k = 1, s.replicates do
        local run = row.runs[k]
        if run then
            local v, seen
            if column.field then
                v = run[column.field]
                seen = v ~= nil and run.status ~= "pending" and run.status ~= "blocked"
                if not seen then v = nil end
            else
                local e = pick_eval(run, column, run.declared)
                if e then
                    v, seen = e.value, true
                    m.evaluators[e.evaluator], m.samples[e.samples] = true, true
                end
            end
            m.of = m.of + 1
            m.runs[#m.runs + 1] = run.run
            m.list[#m.list + 1] = v or 0 / 0
            if finite(v) then m.values[k], m.n = v, m.n + 1 end
            local asked = seen or column.field or not run.declared.evals or declared_eval(run.declared, column)
            if not asked then m.unasked = true
            elseif not seen and run.status ~= "diverged" then m.absent = m.absent + 1 end
            if seen and not finite(v) then m.nonfinite = true end
        end
    end
    m.mean = m.n > 0 and report.interval(m.values, s.replicates).mean or nil
    return m
end
report.measure = measure

-- What differs between two evaluators, in words.
local function evaluator_difference(sha, other)
    local function lines(id)
        local t = {}
        for key, value in canon_of(id):gmatch "([^\n=]+)=([^\n]*)" do t[key] = value end
        return t
    end
    local a, b, out, keys = lines(sha), lines(other), {}, {}
    for k in pairs(a) do keys[k] = true end
    for k in pairs(b) do keys[k] = true end
    for k in pairs(keys) do
        if a[k] ~= b[k] then out[#out + 1] = ("%s is %s here and %s in the rest of the column"):format(k, a[k] or "absent", b[k] or "absent") end
    end
    return #out > 0 and table.concat(out, "; ") or ("evaluator %s here and %s in the rest of the column"):format(sha:sub(1, 12), other:sub(1, 12))
end

-- The evaluator that a column stands for: that of the comparison row, else the most used one.
local function column_evaluator(rows, j, vs)
    local count, best = {}, nil
    for _, row in ipairs(rows) do
        for sha in pairs(row.m[j].evaluators) do
            count[sha] = (count[sha] or 0) + (row == vs and 1000000 or 1)
            if not best or count[sha] > count[best] or (count[sha] == count[best] and sha < best) then best = sha end
        end
    end
    return best
end

local function add_note(notes, text)
    for i, t in ipairs(notes) do
        if t == text then return i end
    end
    notes[#notes + 1] = text
    return #notes
end

-- Rows of a table: cells as they are, or one row a label of a factor.
local function table_rows(s, by)
    if not by or by == "cell" then return s.cells end
    local f = (s.declared.factors or {})[by]
    if not f then report.refuse(("a table asks for rows = '%s', but the sweep has no such factor"):format(by)) end
    local rows = {}
    for i, label in ipairs(f.labels) do
        local pure, any
        for _, cell in ipairs(s.cells) do
            if (cell.factors[by] or f.base) == label then
                any = any or cell
                local rest = true
                for name, other in pairs(s.declared.factors) do
                    if name ~= by and (cell.factors[name] or other.base) ~= other.base then rest = false end
                end
                if rest then pure = pure or cell end
            end
        end
        local cell = pure or any
        if cell then
            local row = new_row(label, "cell", cell.id)
            row.runs, row.cell, row.ordinal = cell.runs, cell, i
            rows[#rows + 1] = row
        end
    end
    return rows
end

-- What a metric was declared to be measured with, as the columns' endings: "1", "2", "heun35". In the order of declaration, numbers of one
-- set ascending. metric: nil for those of any.
function Sweep:endings(metric)
    local list = {}
    for _, e in ipairs(self.declared.evals or {}) do
        local sampler, nfe = e.sampler or "ect", { table.unpack(e.nfe or {}) }
        table.sort(nfe)
        for _, n in ipairs((not metric or contains(e.metrics, metric)) and nfe or {}) do
            local ending = ("%s%d"):format(sampler == "ect" and "" or sampler, n)
            if not contains(list, ending) then list[#list + 1] = ending end
        end
    end
    return self.declared.evals and list or { "1", "2" }
end

-- Endings by which by = "nfe" tells fronts apart: steps of the consistency sampler, or of whatever there is.
function Sweep:steps()
    local list, all = {}, self:endings()
    for _, ending in ipairs(all) do
        if tonumber(ending) then list[#list + 1] = ending end
    end
    return #list > 0 and list or all
end

function Sweep:metrics()
    local list = {}
    for _, e in ipairs(self.declared.evals or {}) do
        for _, m in ipairs(e.metrics or {}) do
            if not contains(list, m) then list[#list + 1] = m end
        end
    end
    return #list > 0 and list or { "fd_random", "fd_pixel" }
end

-- Fronts that the script declares, one for each number of steps where it says by = "nfe": { name, min = {...}, max = {...} }.
function Sweep:fronts()
    local declared = self.declared.pareto
    if not declared or #declared == 0 then
        local metric = self:metrics()[1]
        local out = {}
        local endings = self:endings(metric)
        for i, ending in ipairs(endings) do
            if i == 1 or i == #endings then -- more would be a page of figures
                out[#out + 1] = { name = "front@" .. ending, min = { "flops_total", ("%s@%s"):format(metric, ending) }, max = {} }
            end
        end
        return out
    end
    local out = {}
    for _, p in ipairs(declared) do
        if p.by == "nfe" then
            for _, n in ipairs(self:steps()) do
                local front = { name = "front@" .. n, min = {}, max = {} }
                local function at_steps(key)
                    if not key:find "@" and not RUN_COLUMNS[key] then return key .. "@" .. n end
                    return (key:gsub("@%d+$", function() return "@" .. n end))
                end
                for _, key in ipairs(p.min or {}) do front.min[#front.min + 1] = at_steps(key) end
                for _, key in ipairs(p.max or {}) do front.max[#front.max + 1] = at_steps(key) end
                out[#out + 1] = front
            end
        else
            out[#out + 1] = { name = #declared > 1 and "front " .. #out + 1 or "front", min = p.min or {}, max = p.max or {} }
        end
    end
    return out
end

-- Means of rows under a front's objectives, and which rows are on it. Rows without a value are on none.
function Sweep:on_front(front, rows)
    local keys, sense, points, at, on = {}, {}, {}, {}, {}
    for _, k in ipairs(front.min) do keys[#keys + 1], sense[#sense + 1] = parse_column(k), "min" end
    for _, k in ipairs(front.max) do keys[#keys + 1], sense[#sense + 1] = parse_column(k), "max" end
    for _, row in ipairs(rows) do
        local p, whole = {}, true
        for j, c in ipairs(keys) do
            p[j] = measure(self, row, c).mean
            whole = whole and p[j] ~= nil
        end
        if whole then points[#points + 1], at[#at + 1] = p, row end
    end
    for i, yes in ipairs(report.front(points, sense)) do on[at[i]] = yes end
    return on, points, at, keys
end

-- ---- tables ---------------------------------------------------------------------------------------------------------------

-- Which rows of a column are bold. Refused rows (other evaluator) and those with fewer than three values are out of it.
local function bold_rows(s, rows, j, column)
    local best, eligible = nil, {}
    local sign = column.metric and report.higher_is_better(column.metric) and -1 or 1
    for _, row in ipairs(rows) do
        local m = row.m[j]
        if row.group == "cell" and not m.refused and m.n >= 3 then
            eligible[#eligible + 1] = row
            if not best or sign * m.mean < sign * best.m[j].mean then best = row end
        end
    end
    local bold = {}
    if #eligible < 2 then return bold end
    for _, row in ipairs(eligible) do
        local d = report.paired(row.m[j].values, best.m[j].values, s.replicates)
        bold[row] = row == best or (d.lo ~= nil and d.lo <= 0 and d.hi >= 0)
    end
    return bold
end

local function value_cell(s, row, j, column, vs, bold, notes, perfect)
    local m = row.m[j]
    local cell = { n = m.n, of = m.of, runs = m.runs, values = m.list }
    if m.refused then
        cell.refused, cell.note = true, add_note(notes, "Not shown, measured by another evaluator: " .. m.refused .. ".")
    elseif m.n == 0 then
        if m.absent > 0 then cell.missing = s:command()
        elseif m.nonfinite then cell.text = "NaN"
        elseif m.unasked then cell.text = "–"
        else cell.text = "diverged" end
    else
        cell.mean, cell.bold = m.mean, column.metric and bold[row] or false
        if column.metric and vs and row ~= vs and not vs.m[j].refused then
            local d = report.paired(m.values, vs.m[j].values, s.replicates)
            if d.n >= 3 then cell.lo, cell.hi = d.lo, d.hi end
        end
        if perfect and m.mean < perfect and (column.metric == "energy" or column.metric == "sw2") then
            cell.note = add_note(notes, "Below what points drawn afresh score: chance where samples are few, else a sign of memorised points.")
        elseif perfect and m.mean < perfect then
            cell.note = add_note(notes, "Warning: below what a perfect model would score. That is a sign of memorised training images: look at the " ..
                "nearest ones.")
        elseif column.metric and m.nonfinite then
            cell.note = add_note(notes, ("Over %d of %d replicates: the others are not finite."):format(m.n, m.of))
        elseif column.metric and m.absent > 0 then
            cell.note = add_note(notes, ("Over %d of %d replicates: the others are missing; %s fills them."):format(m.n, m.of, s:command()))
        end
    end
    return cell
end

-- What a perfect model would score: samples of the data's own distribution, as many as the cells', against the same reference. Points are
-- drawn afresh as often as one likes, so their control is that value. Of images it is estimated from the halves of n images: a Frechet
-- distance of two sets from one distribution is, to leading order, a constant times 1/N + 1/M, here 4/n, and the distance of histograms
-- goes with its root. Other metrics have no such rule.
local function perfect_values(s, columns, control)
    local out, counts = {}, {}
    for _, run in pairs(s.runs) do
        for _, e in ipairs(run.evals) do
            local n = tonumber(canon_of(e.evaluator):match "reference%.count=(%d+)")
            if n and e.samples and not counts[e.metric] then counts[e.metric] = { ref = n, got = e.samples } end
        end
    end
    for _, c in ipairs(columns) do
        local metric, n = c.metric, counts[c.metric]
        local fresh, half = metric and control("real_fresh", metric), metric and control("real_half", metric)
        if fresh then out[metric] = fresh
        elseif half and n then
            local share = (1 / n.got + 1 / n.ref) / (4 / n.ref)
            if metric:match "^fd_" or metric:match "^fid:" then out[metric] = half * share
            elseif metric:match "^classes_" then out[metric] = half * share ^ 0.5 end
        end
    end
    return out
end

-- A value that belongs to a metric, whatever the number of steps: it spans the metric's columns.
local function spread(row, columns, first, value)
    local j = 1
    while j <= #columns do
        local span = 1
        while columns[j].metric and columns[j + span] and columns[j + span].metric == columns[j].metric do span = span + 1 end
        local cell = columns[j].metric and value(columns[j].metric)
        if cell then
            cell.span = span
            row[first + j] = cell
        end
        j = j + span
    end
end

-- Other samplers of the baselines (EDM's Heun): what the ledger has of them.
local function sampler_rows(s, parent, columns, first, ncols)
    local seen, order, out = {}, {}, {}
    for _, c in ipairs(columns) do
        if c.metric then seen[c.sampler .. c.nfe] = true end -- a column of its own
    end
    for k = 1, s.replicates do
        for _, e in ipairs(parent.runs[k] and parent.runs[k].evals or {}) do
            local key = e.sampler .. e.nfe
            if e.sampler ~= "ect" and not seen[key] then seen[key] = e; order[#order + 1] = key end
        end
    end
    for _, key in ipairs(order) do
        local e = seen[key]
        local row = { id = parent.id, ("%s, %s %d"):format(parent.label, SAMPLER_NAMES[e.sampler] or e.sampler, e.nfe) }
        spread(row, columns, first, function(metric)
            local m = measure(s, parent, { metric = metric, sampler = e.sampler, nfe = e.nfe })
            return m.n > 0 and { mean = m.mean, n = m.n, of = m.of, runs = m.runs, values = m.list } or nil
        end)
        row[ncols] = (report.count(parent, s.replicates))
        out[#out + 1] = row
    end
    return out
end

-- Points: the control is the perfect model itself.
local function control_is_fresh(columns, control)
    for _, c in ipairs(columns) do
        if c.metric and control("real_fresh", c.metric) then return true end
    end
    return false
end

-- A function (name of a control, metric) -> its value: for the data set that this sweep's evaluators measured against, with as many samples
-- where there are such.
local function control_finder(s)
    local seen, used, samples = {}, {}, {}
    for _, run in pairs(s.runs) do
        for _, e in ipairs(run.evals) do
            if not seen[e.evaluator] then seen[e.evaluator] = true; used[#used + 1] = canon_of(e.evaluator) end
            samples[e.samples] = true
        end
    end
    used = table.concat(used, "\n")
    local function rank(r) return (used:find(r.dataset, 1, true) and 2 or 0) + (samples[r.samples] and 1 or 0) end
    return function(name, metric)
        local pick
        for _, r in ipairs(report.sql("SELECT * FROM v_control WHERE name = ? AND metric = ? ORDER BY samples DESC, dataset, evaluator, seed",
            name, metric)) do
            if r.value and (not pick or rank(r) > rank(pick)) then pick = r end
        end
        return pick and pick.value
    end
end

local function control_rows(columns, first, control, perfect)
    local out = {}
    local function add(label, value)
        local row, any = { label }, false
        spread(row, columns, first, function(metric)
            local v = value(metric)
            any = any or v ~= nil
            return v and { mean = v }
        end)
        if any then out[#out + 1] = row end
        return any
    end
    for _, c in ipairs(CONTROLS) do add(("%s (control)"):format(c[2]), function(metric) return control(c[1], metric) end) end
    if not control_is_fresh(columns, control) then
        out.perfect = add("perfect model (est.)", function(metric) return perfect[metric] end)
    end
    return out
end

local DEFAULT_SAMPLES = 10000 -- eval.samples of core/spec.def
-- Samples behind the values of a column each, in words; nil where all are the default.
local function samples_text(rows, columns)
    local groups, order, differ = {}, {}, false
    for j, c in ipairs(columns) do
        local counts, seen = {}, {}
        for _, row in ipairs(c.metric and rows or {}) do
            for n in pairs(row.m[j].samples) do
                if not seen[n] then seen[n] = true; counts[#counts + 1] = n end
            end
        end
        table.sort(counts)
        for i, n in ipairs(counts) do
            differ = differ or n ~= DEFAULT_SAMPLES
            counts[i] = tostring(n)
        end
        if #counts > 0 then
            local text = table.concat(counts, " or ")
            if not groups[text] then groups[text] = {}; order[#order + 1] = text end
            table.insert(groups[text], c.head)
        end
    end
    if not differ then return nil end
    if #order == 1 then return ("Samples an evaluation: %s."):format(order[1]) end
    for i, text in ipairs(order) do order[i] = ("%s for %s"):format(text, table.concat(groups[text], ", ")) end
    return ("Samples an evaluation: %s."):format(table.concat(order, "; "))
end

-- The table of a sweep. spec: rows = "cell" or a factor; cols = list of columns; vs = label of the comparison row; baselines = false,
-- controls = false leave those groups out. Returns what report.table takes.
function Sweep:table(spec)
    local columns, notes, has = {}, {}, {}
    for _, key in ipairs(spec.cols) do columns[#columns + 1] = parse_column(key); has[key] = true end
    if not has.flops_total then columns[#columns + 1] = parse_column "flops_total" end
    if not has.seconds then columns[#columns + 1] = parse_column "seconds" end
    local cells = table_rows(self, spec.rows)
    local rows = {}
    for _, row in ipairs(spec.baselines == false and {} or self.parents) do rows[#rows + 1] = row end
    for _, row in ipairs(cells) do rows[#rows + 1] = row end

    local wanted, vs = spec.vs or self.base, nil
    for _, row in ipairs(cells) do
        if row.label == wanted or (row.cell and row.cell.label == wanted) then vs = row end
    end
    if spec.vs and not vs then report.refuse(("a table compares with '%s', but has no such row"):format(spec.vs)) end

    local bold = {}
    for _, row in ipairs(rows) do row.m = {} end
    for j, column in ipairs(columns) do
        for _, row in ipairs(rows) do row.m[j] = measure(self, row, column) end
        local evaluator = column_evaluator(rows, j, vs)
        for _, row in ipairs(rows) do
            for sha in pairs(row.m[j].evaluators) do
                if sha ~= evaluator and not row.m[j].refused then row.m[j].refused = evaluator_difference(sha, evaluator) end
            end
        end
        bold[j] = bold_rows(self, rows, j, column)
    end

    local fronts, marks = self:fronts(), {}
    for i, front in ipairs(fronts) do marks[i] = self:on_front(front, rows) end

    local ncols = 1 + #columns + #fronts + 1
    local by = (spec.rows and spec.rows ~= "cell") and spec.rows or nil
    local title = spec.title or (by and ("Sweep %s by %s"):format(self.name, by) or ("Sweep %s"):format(self.name))
    local out = { id = spec.id or "main", title = title, vs = vs and vs.label, notes = notes, columns = {}, groups = {} }
    out.columns[1] = { key = "cell", head = by or "cell", kind = "text" }
    for j, c in ipairs(columns) do out.columns[j + 1] = { key = c.key, head = c.head, kind = c.kind } end
    for i, f in ipairs(fronts) do out.columns[1 + #columns + i] = { key = f.name, head = f.name, kind = "text" } end
    out.columns[ncols] = { key = "n", head = "n", kind = "text" }

    local control = control_finder(self)
    local perfect = perfect_values(self, columns, control)
    local function make(row)
        local r = { id = row.id, row.label }
        for j, c in ipairs(columns) do r[j + 1] = value_cell(self, row, j, c, vs, bold[j], notes, perfect[c.metric]) end
        for i in ipairs(fronts) do r[1 + #columns + i] = marks[i][row] and "●" or nil end
        r[ncols] = (report.count(row, self.replicates))
        return r
    end
    local base, tuned = { label = "Baselines" }, { label = "Cells" }
    if spec.baselines ~= false then
        for _, row in ipairs(self.parents) do
            base[#base + 1] = make(row)
            for _, extra in ipairs(sampler_rows(self, row, columns, 1, ncols)) do base[#base + 1] = extra end
        end
    end
    for _, row in ipairs(cells) do tuned[#tuned + 1] = make(row) end
    out.groups = { base, tuned }
    if spec.controls ~= false then
        out.groups[3] = control_rows(columns, 1, control, perfect)
        out.groups[3].label = "Controls"
    end
    out.samples = samples_text(rows, columns)
    out.text = spec.text or self:explain(out)
    if (spec.left_out or 0) > 0 then
        out.text = ("%s %d more columns: s:table { cols = {...} } in the script chooses."):format(out.text, spec.left_out)
    end
    return out
end

-- How to read the table: only what it has.
function Sweep:explain(t)
    local any = { interval = false, bold = false, front = false, missing = false }
    for _, g in ipairs(t.groups) do
        for _, r in ipairs(g) do
            for j = 2, #t.columns do
                local c = r[j]
                if type(c) == "table" then
                    any.interval, any.bold = any.interval or c.lo ~= nil, any.bold or c.bold == true
                    any.missing = any.missing or c.missing ~= nil
                elseif c == "●" then any.front = true end
                if type(c) == "table" and c.text == "–" then any.unasked = true end
            end
        end
    end
    local text = { "Means over replicates.", t.samples }
    if #t.groups[1] > 0 or #(t.groups[3] or {}) > 0 then
        text[#text + 1] = "A value across a metric's columns belongs to no number of steps, or to the one that its row names."
    end
    if #(t.groups[3] or {}) > 0 then
        local fresh = t.groups[3][1][1]:find "afresh"
        text[#text + 1] = ("Controls, by the same metrics: %s, and a Gaussian with the moments of the data."):format(fresh
            and "points drawn afresh from what the data were drawn from" or "one half of the real images against the other")
    end
    if t.groups[3] and t.groups[3].perfect then
        text[#text + 1] = "Perfect model: what samples of the data's own distribution would score, as many as the cells', estimated from the halves " ..
            "by the numbers of images."
    end
    if any.interval then text[#text + 1] = ("In brackets: the 95 %% interval of the paired difference to %s."):format(t.vs) end
    if any.bold then text[#text + 1] = (report.format == "term" and "A star" or "Bold") .. ": the paired interval to the best cell includes 0." end
    if any.front then text[#text + 1] = "●: on the Pareto front of the means." end
    if any.unasked then text[#text + 1] = "–: the script asks for no such evaluation." end
    if any.missing then text[#text + 1] = ("Missing values are filled by: %s"):format(self:command()) end
    return table.concat(text, " ")
end

local MOST_COLUMNS = 12 -- of metrics in a table that nobody wrote

-- Columns of every declared evaluation, metric by metric; of too many, each metric's first ones and its last.
local function declared_columns(s)
    local metrics, cols, left_out = s:metrics(), {}, 0
    local most = math.max(2, MOST_COLUMNS // #metrics)
    for _, metric in ipairs(metrics) do
        local endings = s:endings(metric)
        for i, ending in ipairs(endings) do
            if i < most or i == #endings then cols[#cols + 1] = ("%s@%s"):format(metric, ending) else left_out = left_out + 1 end
        end
    end
    return cols, left_out
end

-- The tables that the script declares, or one of every declared evaluation. Where their columns are not what was asked for (evaluations
-- of the command line replace the script's), a table of that comes first.
function Sweep:tables()
    local out, shown, unasked = {}, {}, false
    for _, t in ipairs(self.declared.tables or {}) do
        out[#out + 1] = t
        for _, key in ipairs(t.cols) do
            local c = parse_column(key)
            if c.metric then
                shown[("%s@%s%d"):format(c.metric, c.sampler == "ect" and "" or c.sampler, c.nfe)] = true
                unasked = unasked or (self.declared.evals and not declared_eval(self.declared, c))
            end
        end
    end
    local cols, left_out = declared_columns(self)
    if #out > 0 then
        local rest = {}
        for _, key in ipairs(cols) do
            if not shown[key] then rest[#rest + 1] = key end
        end
        if not unasked or #rest == 0 then return out end
        cols = rest
    end
    table.insert(out, 1, { rows = "cell", cols = cols, left_out = left_out })
    return out
end

require "report_figures"
return report
