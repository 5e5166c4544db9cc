-- credit.lua - `evection credit`: what each agent of a composition earns from the whole.

local native = require "evection.native"
local common = require "evection.verbs.common"
local credit = require "evection.credit"
local report = require "evection.report"
local reward = require "evection.reward"

local verb = {}

local function baselines(list)
  local given = {}
  for _, text in ipairs(list or {}) do
    local node, name = text:match "^([^=]+)=(.+)$"
    if not node then native.raise("invalid", ("--baseline %s: node=agent is wanted"):format(text)) end
    if given[node] then native.raise("invalid", ("--baseline %s: '%s' has one already"):format(text, node)) end
    given[node] = name
  end
  return given
end

local function cell(m)
  if not m then return "" end
  local error = m.error and (" ± %.4f"):format(m.error) or ""
  if m.low == m.high then return ("%+.4f%s"):format(m.value, error) end
  return ("%+.4f%s  [%+.4f, %+.4f]"):format(m.value, error, m.low, m.high)
end

-- text(result) → the table of agents, the largest earner first, and how it came about.
function verb.text(result)
  local rows, by = {}, {}
  for i, a in ipairs(result.agents) do by[i] = a end
  table.sort(by, function(a, b)
    local x, y = (a.shapley or a.difference).value, (b.shapley or b.difference).value
    return x > y or (x == y and a.node < b.node)
  end)
  for i, a in ipairs(by) do
    local name = a.agent .. (a.baseline and " (else " .. a.baseline .. ")" or "")
    rows[i] = { a.node, name, a.role, ("%.4f of %s"):format(a.inner, a.inner_of), cell(a.difference), cell(a.shapley), a.verdict,
      a.pay and ("%.4f"):format(a.pay) }
  end
  local columns = { { 1, "node" }, { 2, "agent" }, { 3, "role" }, { 4, "inner reward" } }
  if result.agents[1].difference then columns[#columns + 1] = { 5, "difference" } end
  if result.agents[1].shapley then columns[#columns + 1] = { 6, "Shapley value" .. (result.exact and "" or " ± error") } end
  columns[#columns + 1] = { 7, "so it" }
  if result.agents[1].pay then columns[#columns + 1] = { 8, "pay" } end
  local lines = { report.table(rows, columns) }
  lines[#lines + 1] = ("the whole: %.4f, nobody: %.4f; reward = %s"):format(result.whole, result.empty, result.formula)
  lines[#lines + 1] = ("%d coalitions of %d agents%s, %.0f %% intervals over users%s"):format(result.coalitions, #result.agents,
    result.agents[1].shapley and (result.exact and ", exact" or (", %d orders sampled"):format(result.orders)) or "", result.confidence * 100,
    result.exact and "" or " and orders")
  return table.concat(lines, "\n")
end

function verb.main(opts)
  local progress, finish = report.progress(opts.quiet)
  if opts.method and opts.method ~= "difference" and opts.method ~= "shapley" then
    native.raise("invalid", ("--method: '%s': difference and shapley are known"):format(opts.method))
  end
  local samples = common.number(opts, "samples", 2, 1e6)
  if samples and opts.method == "difference" then native.raise("invalid", "--samples is for Shapley values") end
  local ok, result = pcall(credit.measure, {
    composition = opts.args[1], data = opts.data, sets = common.sets(opts.set), seed = common.number(opts, "seed", 0, 2 ^ 53),
    users = common.number(opts, "users", 1e-6, 1), reward = reward.open(opts.reward or "ndcg@20"), method = opts.method, samples = samples,
    confidence = common.number(opts, "confidence", 0.5, 0.999), baselines = baselines(opts.baseline), progress = progress, checkpoints = common.CHECKPOINT_S,
  })
  finish()
  if not ok then error(result, 0) end
  if not opts.json then
    print(("%s on %s, %s fold: %d users, seed %d, genome %s"):format(result.name, result.data, result.fold, result.n_users, result.seed,
      result.genome:sub(1, 12)))
    print(verb.text(result))
    print(("%.1f s, at most %.0f MB"):format(result.seconds, result.max_rss_mb))
  end
  return result
end

return verb
