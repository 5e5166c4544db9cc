-- loop.lua - the evolution loop: proposals in batches, evaluated, recorded, until the budget is spent.
--
-- Everything that decides what is proposed next is the seed and the recorded results in order of number, and a batch is
-- evaluated whole before the next is proposed. So a run that was killed anywhere, resumed, walks the same way: what is
-- recorded is not evaluated again, and the champion is that of an unbroken run.

local native = require "evection.native"

local loop = {}

-- Who keeps the constraints is before who breaks them, who breaks them less before who breaks them more (Deb 2000); then the
-- layered reward, where there is one, or the reward decides.
local function better(a, b)
  local x, y = a.violation or 0, b.violation or 0
  if x ~= y then return x < y end
  return (a.layered or a.reward) > (b.layered or b.reward)
end

-- The best measurement on all users; equals by number. The given composition counts like any other.
function loop.champion(history)
  local best
  for _, e in ipairs(history) do
    if e.reward and e.users == 1 and (not best or better(e, best)) then best = e end
  end
  return best
end

local function same(a, b) return native.json_encode(a) == native.json_encode(b) end

-- A proposal becomes an evaluation with the next number. Knobs equal to the given composition's are left out.
local function numbered(proposal, number, proposer, dims)
  local sets = {}
  for _, d in ipairs(dims) do
    local value = proposal.sets[d.path]
    if value ~= nil and value ~= d.value then sets[d.path] = value end
  end
  return { number = number, sets = sets, users = proposal.users, rung = proposal.rung, parent = proposal.parent, proposer = proposer, reason = proposal.reason }
end

-- run{ dims, proposers = { { name, module } … }, evaluations, batch, seed, seconds, recorded = { number → evaluation },
--      evaluate = function(list, done), record = function(e), show = function(history, e), layers } → history, why it ended.
-- layers (layers.lua, or nil): judge(e) of each result, done(history) after each batch, and view(history), what proposers see
-- instead of the history: it depends on the recorded results alone.
-- evaluate(list, done) measures a list of evaluations and calls done(e) for each when e.reward or e.error is set.
function loop.run(opts)
  local history, started = {}, native.now()
  local total = opts.evaluations

  local function measure(batch)
    local open = {}
    for _, e in ipairs(batch) do
      local known = opts.recorded[e.number]
      if known and same(known.sets, e.sets) and known.users == e.users and known.proposer == e.proposer then
        e.reward, e.metrics, e.error, e.genome, e.seconds = known.reward, known.metrics, known.error, known.genome, known.seconds
        if opts.layers then opts.layers.judge(e) end
      else
        open[#open + 1] = e
      end
    end
    if #open > 0 then
      opts.evaluate(open, function(e)
        if opts.layers then opts.layers.judge(e) end
        opts.record(e)
        if opts.show then opts.show(history, e) end
      end)
    end
    for _, e in ipairs(batch) do history[e.number] = e end
    if opts.layers then opts.layers.done(history) end
  end

  measure { { number = 1, sets = {}, users = 1, rung = 0, proposer = "given", reason = "the composition as it was given" } }
  for _, proposer in ipairs(opts.proposers) do
    while #history < total do
      if opts.seconds and native.now() - started > opts.seconds then return history, "seconds" end
      local seen = opts.layers and opts.layers.view(history) or history
      local proposals = proposer.module.propose {
        dims = opts.dims, history = seen, total = total, budget = total - #history, batch = opts.batch, rng = native.rng(opts.seed, #history + 1),
      }
      if #proposals == 0 then break end
      local batch = {}
      for i = 1, math.min(#proposals, total - #history) do batch[i] = numbered(proposals[i], #history + i, proposer.name, opts.dims) end
      measure(batch)
    end
  end
  return history, "evaluations"
end

return loop
