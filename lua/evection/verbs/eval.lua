-- eval.lua - `evection eval`: measures a composition on a fold.

local native = require "evection.native"
local common = require "evection.verbs.common"
local report = require "evection.report"
local world = require "evection.world"

local eval = {}

-- The test fold is sealed: each opening is a row in the ledger.
local function count_look(result)
  local ledger = require "evection.ledger"
  local l = ledger.open()
  local looks = ledger.look(l, { data = result.data, data_hash = result.data_hash, genome = result.genome, why = "eval" })
  l:close()
  return looks
end

function eval.main(opts)
  local progress, finish = report.progress(opts.quiet)
  local fold = opts.fold or "valid"
  local ok, result = pcall(world.evaluate, {
    composition = opts.args[1], data = opts.data, sets = common.sets(opts.set), fold = fold, refit = opts.refit,
    seed = common.number(opts, "seed", 0, 2 ^ 53), users = common.number(opts, "users", 1e-6, 1),
    cutoffs = common.cutoffs(opts.cutoffs), progress = progress, checkpoints = common.CHECKPOINT_S,
  })
  finish()
  if not ok then error(result, 0) end
  if fold == "test" then result.looks = count_look(result) end
  result.per_user = nil
  if not opts.json then
    print(("%s on %s, %s fold%s: %d users, seed %d, genome %s"):format(result.name, result.data, fold,
      opts.refit and " (fitted on train and validation)" or "", result.n_users, result.seed, result.genome:sub(1, 12)))
    print(report.metrics(result.metrics))
    if result.inner then print(("inner reward %.4f"):format(result.inner)) end
    print(("%.1f s (%.1f s of it fitting), at most %.0f MB"):format(result.seconds, result.fit_seconds, result.max_rss_mb))
    if result.looks then print(("look %d at the test fold of these data; the ledger in %s counts them"):format(result.looks, native.home)) end
  end
  return result
end

return eval
