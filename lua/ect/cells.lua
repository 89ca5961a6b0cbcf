-- cells: after the script, the cells of all sweeps in their order, for C. Texts of a cell are made when it is asked for.
local settings, points, json = require "ect.settings", require "ect.points", require "ect.json"
local args, evals = require "ect.args", require "ect.evals"
local sweeps = require("ect.sweep").sweeps
local cells = { list = {} }

local function check_emas(sweep, name, node, checked)
    local text = points.get(sweep, node, "ema")
    if checked[text] then return end
    checked[text] = true
    local has = { raw = true }
    for _, n in ipairs(settings.ema_names(text)) do has[n] = true end
    for _, set in ipairs(sweep.evals) do
        local ema = set["eval.ema"]
        if not has[ema] and not ema:find("^posthoc:") then -- C checks those: they need snapshots, not a name
            error(("%s, cell %s: eval.ema = '%s', but its weights are: %s"):format(sweep.title, name, ema,
                table.concat({ "raw", table.unpack(settings.ema_names(text)) }, ", ")), 0)
        end
    end
end

local function check_parent(sweep, node, checked)
    local text = points.get(sweep, node, "init")
    local w = settings.parents[text]
    if checked[text] or not w then return end
    checked[text] = true
    if w.sweep.replicates < sweep.replicates then
        error(("%s has %d replicates, but it starts from %s, which has %d"):format(sweep.title, sweep.replicates, w.sweep.title,
            w.sweep.replicates), 0)
    end
end

-- Equal names are equal choices: the first is kept.
local function add_cells(sweep)
    local seen, checked, ordinal = {}, {}, 0
    sweep.first = #cells.list
    for _, node in ipairs(sweep.points) do
        local name = sweep.label or points.name(node)
        if not seen[name] then
            seen[name] = true
            check_emas(sweep, name, node, checked)
            check_parent(sweep, node, checked)
            cells.list[#cells.list + 1] = { sweep = sweep, node = node, name = name, ordinal = ordinal }
            ordinal = ordinal + 1
        end
    end
    sweep.ncells = ordinal
    if ordinal == 0 then error(sweep.title .. " has no cells: where() dropped all of them", 0) end
end

local function check_shown(sweep)
    for _, t in ipairs(sweep.tables) do
        local known = { }
        if t.rows ~= "cell" then
            for _, label in ipairs(points.labels(sweep.factors[t.rows])) do known[#known + 1] = label end
        else
            for i = sweep.first + 1, sweep.first + sweep.ncells do known[#known + 1] = cells.list[i].name end
        end
        local there = t.vs == nil
        for _, label in ipairs(known) do there = there or label == t.vs end
        if not there then
            local near = host.nearest(t.vs, known)
            error(("%s: table: vs = '%s' is none of its rows%s"):format(sweep.title, t.vs, near and (": did you mean '" .. near .. "'?") or ""), 0)
        end
    end
end

local function check_claims(sweep)
    local known, there = {}, {}
    for i = sweep.first + 1, sweep.first + sweep.ncells do known[#known + 1] = cells.list[i].name end
    for _, name in ipairs(known) do there[name] = true end
    for _, c in ipairs(sweep.claims) do
        for _, key in ipairs { "better", "than" } do
            local label = c[key]
            if not there[label] then
                local near = host.nearest(label, known)
                error(("%s: claim: %s = '%s' is none of its cells%s"):format(sweep.title, key, label, near and (": did you mean '" .. near .. "'?")
                    or (" (there are: " .. table.concat(known, ", ") .. ")")), 0)
            end
        end
    end
end

-- Name of the cell that is the base itself, if there is one.
local function base_cell(sweep)
    for i = sweep.first + 1, sweep.first + sweep.ncells do
        local c, same = cells.list[i], true
        for key, text in pairs(points.overrides(c.node)) do same = same and points.get(sweep, points.root, key) == text end
        if same then return c.name end
    end
end

local function parents_of(sweep)
    local names, seen = json.array {}, {}
    for i = sweep.first + 1, sweep.first + sweep.ncells do
        local w = settings.parents[points.get(sweep, cells.list[i].node, "init")]
        if w and not seen[w.sweep.name] then
            seen[w.sweep.name] = true
            names[#names + 1] = w.sweep.name
        end
    end
    return names
end

local function declared(sweep)
    local factors = {}
    for _, f in ipairs(sweep.factor_order) do factors[f.name] = { base = f.base, labels = json.array(points.labels(f)) } end
    local tables, pareto = json.array {}, json.array {}
    for i, t in ipairs(sweep.tables) do
        tables[i] = { rows = t.rows, cols = json.array(t.cols), vs = t.vs or json.null, stat = t.stat }
    end
    for i, p in ipairs(sweep.pareto) do
        pareto[i] = { min = json.array(p.min), max = json.array(p.max), by = p.by or json.null }
    end
    local claims -- a sweep without claims says nothing of them
    for i, c in ipairs(sweep.claims) do
        claims = claims or json.array {}
        claims[i] = { text = c.text, better = c.better, than = c.than, metric = c.metric, than_metric = c.than_metric }
    end
    local order = json.array {}
    for i, f in ipairs(sweep.factor_order) do order[i] = f.name end
    return json.encode {
        kind = sweep.kind, base = base_cell(sweep) or json.null, parents = parents_of(sweep), factors = factors, order = order,
        tables = tables, pareto = pareto, evals = evals.json(sweep.evals), claims = claims,
    }
end

-- For C, after the script: list of { name, seed, first, ncells, declared, base, evals }.
function cells.finish()
    args.finish()
    local out = {}
    for _, sweep in ipairs(sweeps.list) do
        add_cells(sweep)
        check_shown(sweep)
        check_claims(sweep)
        for _, text in ipairs(sweep.warnings) do host.log(text, true) end
        out[#out + 1] = {
            name = sweep.name, seed = tonumber(sweep.base.seed or settings.fields.seed.default), first = sweep.first,
            ncells = sweep.ncells, declared = declared(sweep), base = sweep.base, evals = sweep.evals,
        }
    end
    return out, #cells.list
end

-- For C: settings of cell i (from 1) that differ from its sweep's base, and the number of the sweep.
function cells.set(i)
    local c = cells.list[i]
    return points.overrides(c.node), c.sweep.number
end

-- For C: the texts of cell i.
function cells.about(i)
    local c = cells.list[i]
    local function get(key) return points.get(c.sweep, c.node, key) end
    local w = settings.parents[get("init")]
    return {
        name = c.name, factors = json.encode(points.factor_labels(c.sweep, c.node)), ordinal = c.ordinal, parent = w and w.sweep.first or -1,
        weights = w and w.weights, init_path = settings.files[get("init")], replicates = c.sweep.replicates, fingerprints = settings.fingerprint_lines(get),
    }
end

cells.prepare = args.prepare
return cells
