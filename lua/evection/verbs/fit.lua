-- fit.lua - `evection fit`: trains every agent of a composition into the artifact cache.

local native = require "evection.native"
local common = require "evection.verbs.common"
local compose = require "evection.compose"
local report = require "evection.report"
local runner = require "evection.runner"
local world = require "evection.world"

local fit = {}

function fit.main(opts)
  local progress, finish = report.progress(opts.quiet)
  local started = native.now()
  local c = compose.open(opts.args[1], common.sets(opts.set))
  local w = world.open(opts.data or c.data)
  local ok, run = pcall(runner.fit, c, w, {
    folds = opts.refit and native.TRAIN + native.VALID or native.TRAIN, seed = common.number(opts, "seed", 0, 2 ^ 53) or 1, progress = progress,
    checkpoints = common.number(opts, "checkpoint", 0, 1e6) or common.CHECKPOINT_S,
  })
  finish()
  if not ok then error(run, 0) end
  local nodes, rows = native.array {}, {}
  for _, node in ipairs(run.list) do
    local kind = node.model and type(node.model) == "userdata" and node.model:kind()
    nodes[#nodes + 1] = { node = node.name, agent = node.agent.name, role = node.role, kind = kind or nil, cached = node.cached,
      artifact = node.key and kind and ("artifacts/%s.evm"):format(node.key) or nil, seconds = node.seconds }
    rows[#rows + 1] = { node.name, node.agent.name, kind or "-", node.key and kind and node.key:sub(1, 12) or "-",
      node.cached and "cached" or node.seconds and ("%.2f s"):format(node.seconds) or "-" }
  end
  local result = { name = c.name, genome = c.hash, data = w.name, nodes = nodes, seconds = native.now() - started, max_rss_mb = native.peak_rss_mb() }
  if not opts.json then
    print(report.table(rows, { { 1, "node" }, { 2, "agent" }, { 3, "model" }, { 4, "artifact" }, { 5, "time" } }))
    print(("%.1f s, at most %.0f MB"):format(result.seconds, result.max_rss_mb))
  end
  return result
end

return fit
