-- ope.lua - off-policy evaluation: what a policy would have earned, from what another one showed and logged.
-- For scripts that `evection run` runs, and for `evection ope`. docs/reference/ope.md tells more.

local native = require "evection.native"
local sandbox = require "evection.sandbox"
local yaml = require "evection.yaml"

local ope = {}

local function invalid(text, ...) native.raise("invalid", text:format(...)) end

local function path_of(name)
  if type(name) ~= "string" or not name:match "^[%w_-][%w._-]*$" or #name > 100 then
    invalid("'%s' is no name for a bandit log: letters, digits, . _ -", tostring(name))
  end
  return ("%s/logs/%s.evb"):format(native.home, name)
end

-- ---- Logs ---------------------------------------------------------------------------------------------------
-- log { n_arms =, arm = { … }, reward = { … }, propensity = { … } } → a log of these rows. Also
--   n_positions =, position = { … }        context = { { … }, … }        arm_features = { { … }, … }
--   pair = { { … }, … }                    what is known of a row and each arm together
-- Arms and positions count from 0. Where arm, reward and propensity are lists of lists, each row is a slate, its propensities
-- those of each place given the places above; marginal = { { … }, … } are those of each place alone.
function ope.log(columns) return native.ope_log(columns) end

-- read(path[, { items = path of an item_context.csv, reward_range = { low, high } }]) → a log from a file.
function ope.read(path, options)
  local range = options and options.reward_range
  return native.ope_read(path, options and options.items, range and range[1], range and range[2])
end

-- open(name | path[, options of read]) → a log that was imported, or one read from a file.
function ope.open(name, options)
  if native.exists(name) then
    if name:match "%.evb$" then return native.ope_open(name) end
    return ope.read(name, options)
  end
  local ok, path = pcall(path_of, name)
  if not ok or not native.exists(path) then
    native.raise("not found", ("no bandit log '%s': no such file, and none imported into %s/logs"):format(tostring(name), native.home))
  end
  return native.ope_open(path)
end

-- import(path, name[, options of read]) → the log, kept as $EVECTION_HOME/logs/NAME.evb, and that path.
function ope.import(path, name, options)
  local to = path_of(name)
  local log = ope.read(path, options)
  native.mkdirs(native.home .. "/logs")
  log:write(to)
  return native.ope_open(to), to
end

-- ---- Policies ------------------------------------------------------------------------------------------------
-- What a policy function gives: a list over the arms, or { [arm's name] = probability } with the others at 0.
local function distribution(given, arms, number_of, where)
  if type(given) ~= "table" then invalid("%s: a distribution is a table, not a %s", where, type(given)) end
  local list, sum = {}, 0
  if #given == #arms and #given > 0 then
    for a = 1, #arms do list[a] = given[a] end
  else
    for a = 1, #arms do list[a] = 0 end
    for name, p in pairs(given) do
      local a = number_of[tostring(name)]
      if not a then
        if type(name) == "number" then invalid("%s: %d probabilities for %d arms", where, #given, #arms) end
        invalid("%s: no arm '%s'", where, tostring(name))
      end
      list[a] = p
    end
  end
  for a = 1, #arms do
    local p = list[a]
    if type(p) ~= "number" or not (p >= 0 and p <= 1 + 1e-9) then invalid("%s: arm '%s' has the probability %s", where, arms[a], tostring(p)) end
    sum = sum + p
  end
  if math.abs(sum - 1) > 1e-6 then invalid("%s: the probabilities add up to %.9g, not to 1", where, sum) end
  return list
end

local function numbers_of(arms)
  local number_of = {}
  for a, name in ipairs(arms) do number_of[name] = a end
  return number_of
end

-- policy(log, fn[, name]) → a policy over the log's rows; fn(context, row) → distribution.
--   context   numbers by place and by column name
--   row       { n_arms =, arms = names, position = from 1, time = seconds, pair = { … } }; of slates also place = from 1 and
--             above = names of the arms above. A slate's fn may return a second distribution: the place's alone, whatever is above.
function ope.policy(log, fn, name)
  local info, matrix = log:info(), log:matrix()
  local arms, columns = log:names()
  local number_of = numbers_of(arms)
  name = name or "policy"
  for i = 0, info.n - 1 do
    local context, position, slate, pair, time = log:row(i)
    for c, column in ipairs(columns) do context[column] = context[c] end
    for place = 1, #slate do
      local row = { n_arms = #arms, arms = arms, position = position, time = time, pair = pair }
      if info.slates then
        row.place, row.above = place, {}
        for above = 1, place - 1 do row.above[above] = arms[slate[above] + 1] end
      end
      local where = info.slates and ("%s: slate %d, place %d"):format(name, i + 1, place) or ("%s: row %d"):format(name, i + 1)
      local ok, given, alone = pcall(fn, context, row)
      if not ok then invalid("%s: %s", where, tostring(given)) end
      local list = distribution(given, arms, number_of, where)
      local marginal = alone and distribution(alone, arms, number_of, where .. " alone")[slate[place] + 1]
      matrix:set(i, place - 1, list, marginal or nil)
    end
  end
  return matrix
end

-- The function of an untrusted file, in an environment of its own.
local function load_function(path)
  local chunk, message = sandbox.load(native.read_file(path, 1048576), path, sandbox.environment())
  if not chunk then invalid("%s", message) end
  local ok, fn = pcall(chunk)
  if not ok then invalid("%s", tostring(fn):find(path, 1, true) and tostring(fn) or path .. ": " .. tostring(fn)) end
  if type(fn) ~= "function" then invalid("%s: a policy file returns a function (context, row), not a %s", path, type(fn)) end
  return fn
end

local function blame(path, t, key, text, ...)
  local line = yaml.line(t, key)
  invalid("%s%s: %s", path, line and ":" .. line or "", text:format(...))
end

-- probabilities: { arm: p }, or positions: [ { arm: p }, … ], or mix: [ { policy: P, share: s }, … ].
local function load_yaml(log, path)
  local tree, faults = yaml.load(path)
  if not tree then invalid("%s%s: %s", faults[1].file, faults[1].line and ":" .. faults[1].line or "", faults[1].message) end
  if type(tree) ~= "table" then invalid("%s: a policy is a table", path) end
  local info = log:info()
  if info.slates then invalid("%s: a policy of slates is a Lua file", path) end
  for key in pairs(tree) do
    if key ~= "probabilities" and key ~= "positions" and key ~= "mix" then
      blame(path, tree, key, "no key '%s': probabilities, positions or mix", tostring(key))
    end
  end
  local matrix, arms = log:matrix(), log:names()
  local number_of, rows = numbers_of(arms), {}
  if tree.mix then
    if type(tree.mix) ~= "table" or #tree.mix == 0 then blame(path, tree, "mix", "a list of { policy, share } is wanted") end
    local parts, sum = {}, 0
    for k, part in ipairs(tree.mix) do
      local share = type(part) == "table" and part.share
      if type(share) ~= "number" or not (share >= 0 and share <= 1) or type(part.policy) ~= "string" then
        blame(path, tree, "mix", "part %d needs a policy and a share from 0 to 1", k)
      end
      if part.policy:match "%.ya?ml$" then blame(path, part, "policy", "a mixture is of logs, Lua files, uniform, logged and evaluated") end
      parts[k] = { ope.find_policy(log, part.policy), share }
      sum = sum + share
    end
    if math.abs(sum - 1) > 1e-6 then blame(path, tree, "mix", "the shares add up to %.9g, not to 1", sum) end
    for i = 0, info.n - 1 do
      local list = {}
      for a = 1, #arms do list[a] = 0 end
      for _, part in ipairs(parts) do
        local row = part[1]:get(i)
        for a = 1, #arms do list[a] = list[a] + part[2] * row[a] end
      end
      matrix:set(i, 0, list)
    end
    return matrix
  end
  local given = tree.positions or tree.probabilities
  if type(given) ~= "table" then invalid("%s: probabilities, positions or mix is missing", path) end
  if tree.positions and #given ~= info.n_positions then blame(path, tree, "positions", "%d distributions for %d positions", #given, info.n_positions) end
  for p = 1, info.n_positions do
    local where = tree.positions and ("%s: position %d"):format(path, p) or path
    rows[p] = distribution(tree.positions and given[p] or given, arms, number_of, where)
  end
  for i = 0, info.n - 1 do
    local _, position = log:row(i)
    matrix:set(i, 0, rows[position])
  end
  return matrix
end

-- find_policy(log, spec[, { counted = bool, items = … }]) → a policy over the log's rows, and the log it came from, if any.
--   "uniform"               every arm alike (slates: every arm that is not above, where the log repeats none)
--   "logged", "evaluated"   what came with the log's rows
--   FILE.lua, FILE.yaml     a function, a table
--   another log             what it shows at each position: arms' propensities, or (counted) how often each was shown
function ope.find_policy(log, spec, options)
  if spec == "uniform" then return log:uniform(log:info().repeats) end
  if spec == "logged" then return log:logged() end
  if spec == "evaluated" then return log:evaluated() end
  if spec:match "%.lua$" then return ope.policy(log, load_function(spec), spec) end
  if spec:match "%.ya?ml$" then return load_yaml(log, spec) end
  local other = ope.open(spec, options)
  return log:shares(other, options and options.counted or false), other
end

-- ---- Estimates -----------------------------------------------------------------------------------------------
local order = { "dm", "ips", "snips", "clipped_ips", "dr", "sndr", "switch_dr", "dros", "mrdr" }
local slate_order = { "sips", "iips", "rips", "snsips", "sniips", "snrips", "cascade_dr" }

-- evaluate(log, policy[, options]) → { estimates = { name → { value =, low =, high =, bernstein_low =, bernstein_high =,
-- standard_error =, parameter =, changed = } }, order = names, weights = …, model = … }; of slates also place_weights, prefix_weights.
--   model = "auto"       the reward model: logistic (auto, where rewards are 0 and 1), ridge (auto otherwise) or none
--   penalty = 1, folds = 5, crossed = false
--   clip, switch_at, shrink            fixed instead of chosen
--   max_weight, reward_low, reward_high what can be: Bernstein's intervals stand on it
--   confidence = 0.95, bootstrap = 1000, max_unsupported = 0.01, seed = 1
--   progress(what, done, all)
function ope.evaluate(log, policy, options)
  options = options or {}
  local info, progress = log:info(), options.progress or function() end
  local model = options.model or "auto"
  if model == "auto" then model = info.binary and not info.slates and "logistic" or "ridge" end
  if model ~= "none" and model ~= "ridge" and model ~= "logistic" then invalid("model: '%s' is not auto, ridge, logistic or none", tostring(model)) end
  local how = { kind = model, penalty = options.penalty, folds = options.folds, crossed = options.crossed, seed = options.seed }
  local result = { model = model, order = info.slates and slate_order or order }
  if info.slates then
    if model == "logistic" then invalid("the reward model of slates is ridge or none") end
    progress("estimating", 0, 1)
    result.estimates, result.weights, result.place_weights, result.prefix_weights = log:measure_slates(policy, model ~= "none" and how or nil, options)
    return result
  end
  local q, mrdr
  if model ~= "none" then
    progress("fitting the reward model", 0, 3)
    q = log:regress(how)
    progress("fitting mrdr's reward model", 1, 3)
    mrdr = log:mrdr(policy, how)
  end
  progress("estimating", 2, 3)
  result.estimates, result.weights = log:measure(policy, q, mrdr, options)
  return result
end

return ope
