-- What definitions show besides tables of means: curves, fronts, settings and single runs. Adds to the sweep of report.lua.
local report = ...
local Sweep, measure, finite, parse_column = report.Sweep, report.measure, report.finite, report.column

-- Means over replicates of a logged quantity against the step, at most `most` points a cell. spec.accepts: which cells, all where nil.
function Sweep:curves(key, spec)
    local fig = { id = spec.id or key, title = spec.title, text = spec.text, x = { label = "training step" },
        y = { label = spec.label or key, log = spec.log }, series = {} }
    local most = spec.most or 120
    for i, cell in ipairs(self.cells) do
        local sum, count, steps, ids = {}, {}, {}, {}
        for k = 1, self.replicates do
            local run = cell.runs[k]
            if run and (not spec.accepts or spec.accepts(cell)) then
                ids[#ids + 1] = run.run
                for _, p in ipairs(report.sql("SELECT step, value FROM v_metric WHERE run = ? AND key = ? ORDER BY step", run.run, key)) do
                    if finite(p.value) then
                        if not sum[p.step] then sum[p.step], count[p.step] = 0, 0; steps[#steps + 1] = p.step end
                        sum[p.step], count[p.step] = sum[p.step] + p.value, count[p.step] + 1
                    end
                end
            end
        end
        table.sort(steps)
        local series = { label = cell.label, line = true, color = i - 1, x = {}, y = {}, runs = table.concat(ids, " ") }
        local buckets = math.min(most, #steps)
        for b = 1, buckets do
            local from, to = (b - 1) * #steps // buckets + 1, b * #steps // buckets
            local x, y = 0, 0
            for j = from, to do x, y = x + steps[j], y + sum[steps[j]] / count[steps[j]] end
            series.x[b], series.y[b] = x / (to - from + 1), y / (to - from + 1)
        end
        if not spec.accepts or spec.accepts(cell) then fig.series[#fig.series + 1] = series end
    end
    return fig
end

-- A setting of a row as a person reads it: runs and functions by their names instead of hashes. Programs get the text itself.
function Sweep:setting_text(row, key, text)
    if report.format == "json" or report.format == "csv" then return text end
    text = text:gsub("run:(%x+)@", function(hash)
        for _, parent in ipairs(self.parents) do
            for k = 1, self.replicates do
                local run = parent.runs[k]
                if run and run.config_hash == hash then return parent.label .. "@" end
            end
        end
    end)
    return (text:gsub("lua:(%x+)", function(hash)
        local label = row.factors[key]
        if label and not label:find "lua:" then return label end
        return ("function of the script (%s)"):format(hash:sub(1, 6))
    end))
end

-- Numbers of a column to 4 digits, where they stay apart.
local function shorten_numbers(group, j)
    local short, of = {}, {}
    for i, row in ipairs(group) do
        local text = row[j]
        local n = not text:match "^-?%d*$" and tonumber(text)
        short[i] = n and #text > #("%.4g"):format(n) and ("%.4g"):format(n) or text
        if of[short[i]] and of[short[i]] ~= text then return end
        of[short[i]] = text
    end
    for i, row in ipairs(group) do row[j] = short[i] end
end

-- A front as a figure: one mark a row, from the lowest to the highest replicate, and the front as a line. nil with fewer than two
-- objectives or no values.
function Sweep:scatter(front, spec)
    local rows = {}
    for _, r in ipairs(self.parents) do rows[#rows + 1] = r end
    for _, r in ipairs(self.cells) do rows[#rows + 1] = r end
    local on, points, at, keys = self:on_front(front, rows)
    if #keys < 2 or #points == 0 then return nil end
    local fig = { id = spec.id or front.name, title = spec.title, text = spec.text, series = {}, x = { label = spec.xlabel or keys[1].head,
        log = spec.xlog }, y = { label = spec.ylabel or keys[2].head, log = spec.ylog } }
    local line = {}
    for i, row in ipairs(at) do
        if on[row] then line[#line + 1] = points[i] end
    end
    table.sort(line, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
    local series = { label = "front", line = true, color = 6, x = {}, y = {} }
    for i, p in ipairs(line) do series.x[i], series.y[i] = p[1], p[2] end
    if #line > 1 then fig.series[1] = series end
    for i, row in ipairs(at) do
        local m = measure(self, row, keys[2])
        local lo, hi = math.huge, -math.huge
        for k = 1, self.replicates do
            if m.values[k] then lo, hi = math.min(lo, m.values[k]), math.max(hi, m.values[k]) end
        end
        fig.series[#fig.series + 1] = { label = row.label, points = true, hollow = row.group ~= "cell", runs = table.concat(m.runs, " "),
            color = row.group == "cell" and self:color(row) or 6, x = { points[i][1] }, y = { points[i][2] }, lo = { lo }, hi = { hi } }
    end
    return fig
end

-- One colour a cell in all figures.
function Sweep:color(row)
    for i, cell in ipairs(self.cells) do
        if cell == row then return i - 1 end
    end
    return 6
end

-- ---- claims -------------------------------------------------------------------------------------------------------------------

-- Cost of one side of a claim over the other's: "equal" within 1 %.
local function cost_ratio(s, better, than)
    local column = parse_column "flops_total"
    local a, b = measure(s, better, column).mean, measure(s, than, column).mean
    if not a or not b or b == 0 then return "–" end
    return math.abs(a / b - 1) < 0.01 and "equal" or ("× %.2f"):format(a / b)
end

-- One row a claim of the script: both sides, the paired difference with its 95 % interval, and what it says of the claim. A difference of
-- values by other evaluators (of one metric) says nothing.
function Sweep:claims_table()
    local claims = self.declared.claims
    if not claims or #claims == 0 then return nil end
    local columns = { { key = "claim", head = "claim", kind = "text" }, { key = "verdict", head = "verdict", kind = "text" },
        { key = "difference", head = "difference", kind = "metric" }, { key = "better", head = "claimed better", kind = "metric" },
        { key = "than", head = "than", kind = "metric" }, { key = "n", head = "n", kind = "count" },
        { key = "cost", head = "FLOPs total", kind = "text" }, { key = "cells", head = "compared", kind = "text" } }
    local group = {}
    for i, c in ipairs(claims) do
        local better, than = self.by_label[c.better], self.by_label[c.than]
        local column, than_column = parse_column(c.metric), parse_column(c.than_metric)
        if not better or not than then report.refuse(("a claim is about '%s', which is no cell of the sweep"):format(better and c.than or c.better)) end
        local a, b = measure(self, better, column), measure(self, than, than_column)
        local sign = report.higher_is_better(column.metric) and -1 or 1
        local d, verdict = report.paired(a.values, b.values, self.replicates), "undecided"
        local alike = c.metric ~= c.than_metric
        for sha in pairs(a.evaluators) do alike = alike or b.evaluators[sha] end
        if d.n == 0 then verdict = "missing"
        elseif column.metric and not alike then verdict = "not comparable: measured by different evaluators"
        elseif d.lo and sign * d.mean < 0 and d.lo * d.hi > 0 then verdict = "seen"
        elseif d.lo and d.lo * d.hi > 0 then verdict = "opposite" end
        local side = c.metric == c.than_metric and ("%s against %s, %s"):format(c.better, c.than, c.metric)
            or ("%s %s against %s %s"):format(c.better, c.metric, c.than, c.than_metric)
        group[i] = { id = "claim" .. i, c.text, verdict, d.mean and { mean = d.mean, lo = d.lo, hi = d.hi, n = d.n, of = d.n } or "–",
            { mean = a.mean, n = a.n, of = a.of, runs = a.runs, values = a.list, text = not a.mean and "–" or nil },
            { mean = b.mean, n = b.n, of = b.of, runs = b.runs, values = b.list, text = not b.mean and "–" or nil },
            d.n, cost_ratio(self, better, than), side }
    end
    return { id = "claims", title = "Claims", columns = columns, groups = { group },
        text = "Seen: the 95 % interval of the paired difference over n replicates lies on the claimed side of 0; opposite: on the other side; " ..
            "undecided: it includes 0, or n is below 3. Difference: claimed better minus than. FLOPs total: of the former over the latter." }
end

-- ---- where it comes from -------------------------------------------------------------------------------------------------------

function report.duration(seconds)
    if seconds < 60 then return ("%.1f s"):format(seconds) end
    seconds = math.floor(seconds + .5)
    if seconds < 3600 then return ("%d min %d s"):format(seconds // 60, seconds % 60) end
    return ("%d h %d min"):format(seconds // 3600, seconds % 3600 // 60)
end

-- Settings whose text differs between cells, as a table: one row a cell.
function Sweep:differing_settings()
    local text, keys, order = {}, {}, {}
    for i, cell in ipairs(self.cells) do
        local run
        for k = 1, self.replicates do run = run or cell.runs[k] end
        text[i] = {}
        for _, p in ipairs(run and report.sql("SELECT key, text FROM v_param WHERE run = ? AND class <> 'exec' ORDER BY key", run.run) or {}) do
            text[i][p.key] = p.text
            if not keys[p.key] then keys[p.key] = true; order[#order + 1] = p.key end
        end
    end
    table.sort(order)
    local columns, group = { { key = "cell", head = "cell", kind = "text" } }, {}
    for _, key in ipairs(order) do
        local differs = false
        for i = 2, #self.cells do differs = differs or text[i][key] ~= text[1][key] end
        if differs then columns[#columns + 1] = { key = key, head = key, kind = "text" } end
    end
    for i, cell in ipairs(self.cells) do
        group[i] = { id = cell.id, cell.label }
        for j = 2, #columns do group[i][j] = self:setting_text(cell, columns[j].key, text[i][columns[j].key] or "") end
    end
    if report.format ~= "json" and report.format ~= "csv" then
        for j = 2, #columns do shorten_numbers(group, j) end
    end
    return { id = "settings", columns = columns, groups = { group } }
end

-- Every run with its values: what the numbers of the main table are means of.
function Sweep:run_table(cols)
    local columns = { { key = "cell", head = "cell, replicate", kind = "text" }, { key = "run", head = "run", kind = "text" },
        { key = "status", head = "status", kind = "text" } }
    local parsed = {}
    for _, key in ipairs(cols) do parsed[#parsed + 1] = parse_column(key) end
    for _, c in ipairs(parsed) do columns[#columns + 1] = { key = c.key, head = c.head, kind = c.kind } end
    local group = {}
    local function add(row)
        for k = 1, self.replicates do
            local run = row.runs[k]
            if run then
                local r = { id = row.id, ("%s #%d"):format(row.label, k), run.run,
                    run.status .. ((run.reason or "") ~= "" and ": " .. run.reason or "") }
                for j, c in ipairs(parsed) do
                    local m = measure(self, { runs = { [k] = run } }, c)
                    if m.n == 1 then r[3 + j] = { mean = m.mean, runs = m.runs, values = m.list, n = 1, of = 1 }
                    elseif m.nonfinite then r[3 + j] = "NaN" end
                end
                group[#group + 1] = r
            end
        end
    end
    for _, row in ipairs(self.parents) do add(row) end
    for _, row in ipairs(self.cells) do add(row) end
    return { id = "runs", wide = true, columns = columns, groups = { group } }
end

