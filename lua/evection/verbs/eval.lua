-- eval.lua - `evection eval`: measures a composition on a fold.

local native = require "evection.native"
local common = require "evection.verbs.common"
local report = require "evection.report"
local reward = require "evection.reward"
local world = require "evection.world"

local eval = {}

-- The test fold is sealed: each opening is a row in the ledger.
local function count_looks(result)
  local ledger = require "evection.ledger"
  local l = ledger.open()
  local looks
  for _, genome in ipairs { result.genome, result.against and result.against.genome } do
    looks = ledger.look(l, { data = result.data, data_hash = result.data_hash, genome = genome, why = "eval" })
  end
  l:close()
  return looks
end

local function say_clicks(result, of)
  print(("%s on %s, %s: %d rows of %d users, %d of them clicks (rated %g or more), seed %d, genome %s"):format(result.name, result.data, of,
    result.n_rows, result.n_users, result.n_positive, result.positive_rating, result.seed, result.genome:sub(1, 12)))
  print(report.metrics(result.metrics))
  local other = result.against
  if not other then return end
  local rows = {}
  for _, name in ipairs { "auc", "gauc", "log_loss" } do
    local d = other.difference[name]
    if d then rows[#rows + 1] = { name, report.interval(other.metrics[name]), report.interval(d), ("%.4f"):format(d.p) } end
  end
  print(report.table(rows, { { 1, "against " .. other.name }, { 2, "its value" }, { 3, "difference" }, { 4, "p" } }))
end

local function say_reward(result)
  if not result.reward then return end
  print(("reward %.5f = %s"):format(result.reward, result.formula))
  for _, c in ipairs(result.constraints) do
    local holds = (c.met and "it holds" or "it does not hold") .. (c.sure and "" or ", not beyond doubt")
    print(("constraint %s: %s, %s"):format(c.constraint, report.interval(c), holds))
  end
end

function eval.main(opts)
  local progress, finish = report.progress(opts.quiet)
  local fold, r = opts.fold or "valid", opts.reward and reward.open(opts.reward) or nil
  local ok, result = pcall(world.evaluate, {
    composition = opts.args[1], data = opts.data, sets = common.sets(opts.set), fold = fold, refit = opts.refit,
    seed = common.number(opts, "seed", 0, 2 ^ 53), users = common.number(opts, "users", 1e-6, 1),
    cutoffs = common.cutoffs(opts.cutoffs), progress = progress, checkpoints = common.CHECKPOINT_S,
    task = opts.task, positive_rating = opts.positive_rating, against = opts.against, reward = r,
  })
  finish()
  if not ok then error(result, 0) end
  if r then result.formula, result.constraints = reward.formula(r), reward.feasibility(r, result.metrics) end
  if fold == "test" then result.looks = count_looks(result) end
  result.per_user = nil
  if not opts.json then
    local of = ("%s fold%s"):format(fold, opts.refit and " (fitted on train and validation)" or "")
    if result.task == "clicks" then
      say_clicks(result, of)
    else
      print(("%s on %s, %s: %d users, seed %d, genome %s"):format(result.name, result.data, of, result.n_users, result.seed, result.genome:sub(1, 12)))
      print(report.metrics(result.metrics))
    end
    say_reward(result)
    if result.inner then print(("inner reward %.4f"):format(result.inner)) end
    print(("%.1f s (%.1f s of it fitting), at most %.0f MB"):format(result.seconds, result.fit_seconds, result.max_rss_mb))
    if result.looks then print(("look %d at the test fold of these data; the ledger in %s counts them"):format(result.looks, native.home)) end
  end
  return result
end

return eval
