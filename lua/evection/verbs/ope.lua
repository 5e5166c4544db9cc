-- ope.lua (verb) - `evection ope` and `evection ope import`.

local native = require "evection.native"
local common = require "evection.verbs.common"
local ope = require "evection.ope"
local report = require "evection.report"

local verb = {}

local function range(text)
  if not text then return nil end
  local low, high = text:match "^([^,]+),([^,]+)$"
  low, high = tonumber(low), tonumber(high)
  local wrong = not low or not high or low >= high or high - low == math.huge or low ~= low or high ~= high
  if wrong then native.raise("invalid", ("--reward-range: '%s' is not LOW,HIGH"):format(text)) end
  return { low, high }
end

-- Work with the display on, and wiped in every case.
local function shown(opts, fn)
  local progress, finish = report.progress(opts.quiet)
  native.on_progress(progress)
  local ok, result = pcall(fn, progress)
  native.on_progress(nil)
  finish()
  if not ok then error(result, 0) end
  return result
end

local function say_log(info)
  local rows = info.slates and ("%d slates of up to %d places"):format(info.n, info.length) or ("%d rows"):format(info.n)
  local more = info.n_positions > 1 and (", %d positions"):format(info.n_positions) or ""
  return ("%s, %d arms%s, %d context columns"):format(rows, info.n_arms, more, info.n_context)
end

function verb.import(opts)
  if not opts.as then native.raise("invalid", "--as NAME is missing: what the log will be called") end
  local start = native.now()
  local made = shown(opts, function() return { ope.import(opts.args[1], opts.as, { items = opts.args[2], reward_range = range(opts.reward_range) }) } end)
  local log, path = made[1], made[2]
  local info = log:info()
  local seconds = native.now() - start
  if not opts.json then print(("%s: %s, mean reward %.5g, in %.1f s → %s"):format(opts.as, say_log(info), info.value, seconds, path)) end
  return { log = opts.as, file = path, rows = info.n, length = info.length, slates = info.slates, arms = info.n_arms, positions = info.n_positions,
    users = info.n_users, context_columns = info.n_context, hash = info.hash, value = info.value, seconds = seconds, max_rss_mb = native.peak_rss_mb() }
end

local function finite(t) -- JSON knows no infinity
  for key, x in pairs(t) do
    if x == math.huge then t[key] = "inf" end
    if x == -math.huge then t[key] = "-inf" end
  end
  return t
end

local function number(x) return x and ("%.6g"):format(x) or "" end
local function interval(low, high) return low and ("[%.6g, %.6g]"):format(low, high) or "" end
local function percent(x) return x and ("%.1f"):format(100 * x) or "" end

local function say(result, info)
  print(("%s: %s; policy %s, reward model %s, seed %d"):format(result.data, say_log(info), result.policy, result.model, result.seed))
  local w = result.weights
  print(("weights: mean %.4g ± %.2g, largest %.4g, 99 %% below %.4g, zero in %.1f %%; effective sample size %.0f of %d; unsupported %.2g"):format(
    w.mean, w.standard_error, w.max, w.p99, 100 * w.zero, w.ess, info.n, w.unsupported))
  local rows = {}
  for _, name in ipairs(result.order) do
    local e = result.metrics[name]
    if e then
      rows[#rows + 1] = { name, number(e.value), interval(e.low, e.high), interval(e.bernstein_low, e.bernstein_high), ("%.0f"):format(e.ess),
        e.parameter == "inf" and "none needed" or number(e.parameter), percent(e.parameter and e.changed), percent(e.relative_error) }
    end
  end
  local confidence = ("%g %%"):format(100 * result.confidence)
  local columns = { { 1, "estimator" }, { 2, "value", right = true }, { 3, "bootstrap " .. confidence }, { 4, "Bernstein " .. confidence },
    { 5, "ESS", right = true } }
  if not info.slates then
    columns[#columns + 1] = { 6, "parameter", right = true }
    columns[#columns + 1] = { 7, "changed %", right = true }
  end
  if result.on_policy then columns[#columns + 1] = { 8, "error %", right = true } end
  print(report.table(rows, columns))
  if result.on_policy then
    local known = result.on_policy
    local sure = known.standard_error and (" ± %.2g (standard error, from %d rows)"):format(known.standard_error, known.n) or ""
    print(("on-policy value %.6g%s; error: |value − that| / that"):format(known.value, sure))
  end
  local z = math.abs(w.mean - 1) / math.max(w.standard_error, 1e-300)
  if z > 3 and math.abs(w.mean - 1) > 1e-6 then
    print(("beware: weights should have mean 1 and are %.1f standard errors off: propensities or the policy are not what they are said to be"):format(z))
  end
  if w.ess < 100 or w.ess < 0.01 * info.n then print "beware: so few rows count that no interval here deserves much trust" end
end

-- The weights an estimator stands on decide how many rows it is worth.
local of_slates = { iips = "place_weights", sniips = "place_weights", rips = "prefix_weights", snrips = "prefix_weights", cascade_dr = "prefix_weights" }

function verb.main(opts)
  local start, seed = native.now(), common.number(opts, "seed", 0, 2 ^ 53) or 1
  local least = 1e-300 -- above 0
  for key, limits in pairs { penalty = { 1e-12, 1e12 }, folds = { 1, 1000 }, clip = { least, math.huge }, switch = { 0, math.huge },
    shrink = { 0, math.huge }, max_weight = { least, math.huge }, confidence = { 0.5, 0.999999 }, bootstrap = { 0, 1000000 }, max_unsupported = { 0, 1 } } do
    common.number(opts, key, limits[1], limits[2])
  end
  if not opts.policy then native.raise("invalid", "--policy P is missing: uniform, another log, or a Lua or YAML file") end
  local reward_range = range(opts.reward_range)
  local log, other
  local result = shown(opts, function(progress)
    log = ope.open(opts.args[1], { items = opts.items, reward_range = reward_range })
    progress("asking the policy", 0, 1)
    local policy
    policy, other = ope.find_policy(log, opts.policy, { counted = opts.counted, items = opts.policy_items, reward_range = reward_range })
    return ope.evaluate(log, policy, {
      model = opts.model, penalty = opts.penalty, folds = opts.folds, crossed = opts.crossed, seed = seed, progress = progress,
      clip = opts.clip, switch_at = opts.switch, shrink = opts.shrink, max_weight = opts.max_weight,
      reward_low = reward_range and reward_range[1], reward_high = reward_range and reward_range[2],
      confidence = opts.confidence, bootstrap = opts.bootstrap, max_unsupported = opts.max_unsupported,
    })
  end)
  local info, of_other = log:info(), other and other:info()
  if opts.on_policy then result.on_policy = { value = opts.on_policy }
  elseif of_other then result.on_policy = { value = of_other.value, standard_error = of_other.standard_error, n = of_other.n } end
  result.metrics, result.estimates = result.estimates, nil
  for name, e in pairs(result.metrics) do
    local known = result.on_policy and result.on_policy.value
    if known and known ~= 0 then e.relative_error = math.abs(e.value - known) / math.abs(known) end
    e.ess = name == "dm" and info.n or result[of_slates[name] or "weights"].ess
    finite(e)
  end
  result.data, result.policy, result.seed, result.confidence = opts.args[1], opts.policy, seed, opts.confidence or 0.95
  result.hash, result.rows, result.logging_value = info.hash, info.n, info.value
  result.seconds, result.max_rss_mb = native.now() - start, native.peak_rss_mb()
  if not opts.json then say(result, info) end
  return result
end

return verb
