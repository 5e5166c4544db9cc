-- world.lua - what a genome is evaluated in: a data set with its three folds.
--
-- An evaluation is a pure function: (genome, snapshot, fold, seed) → rewards. Time and memory ride along.

local native = require "evection.native"
local compose = require "evection.compose"
local faults = require "evection.faults"
local reward = require "evection.reward"
local runner = require "evection.runner"

local world = {}

local World = {}
World.__index = World

local BATCH = 32768 -- requests answered together: a bound on memory, not on results
local LATENCY_SAMPLE = 200
local LATENCY_RESAMPLES = 200
local INNER_BLOCKS = 20 -- of users, where an agent's own evaluate is asked how sure it is

local function title_like(name) return name:lower():match "title" or name:lower():match "name$" end

-- The item column people read, and the one that diversity goes by: the first token list (else token) that is no title.
local function special_columns(snapshot)
  local title, list, token
  for _, column in ipairs(snapshot:columns "item") do
    if column.type ~= "float" and title_like(column.name) then title = title or column.name
    elseif column.type == "token_list" then list = list or column.name
    elseif column.type == "token" then token = token or column.name end
  end
  return title, list or token
end

-- open(name or path of a snapshot, or feed:FILE.yaml) → world. Raises when there is none.
function world.open(data)
  if type(data) ~= "string" or data == "" then native.raise("invalid", "which data? name them with --data") end
  local path, simulated = data, nil
  local file = data:match "^feed:(.+)$"
  if file then path, simulated = require "evection.feed_world".prepare(file)
  elseif not data:match "[/.]" or not native.exists(data) then path = ("%s/data/%s.evs"):format(native.home, data) end
  if not native.exists(path) then native.raise("not found", ("no data set '%s' in %s/data; see `evection data list`"):format(data, native.home)) end
  local w = setmetatable({ name = data, snapshot = native.snapshot(path), views = {}, feed = simulated }, World)
  w.hash = w.snapshot:hash()
  w.title, w.feature = special_columns(w.snapshot)
  return w
end

-- view(folds) → the data of those folds; made once.
function World:view(folds)
  local v = self.views[folds]
  if not v then
    v = { data = self.snapshot:view(folds), key = "folds " .. folds }
    self.views[folds] = v
  end
  return v
end

-- item_columns() → { name → type }
function World:item_columns()
  local columns = {}
  for _, column in ipairs(self.snapshot:columns "item") do columns[column.name] = column.type end
  return columns
end

function World:user_index(id) return self.snapshot:find_user(id) end
function World:user_id(user) return self.snapshot:user_id(user) end
function World:item_id(item) return self.snapshot:item_id(item) end
function World:history(user, folds) return self:view(folds).data:history(user) end

function World:item_title(item)
  local value = self.title and self.snapshot:value("item", self.title, item)
  if type(value) == "table" then value = table.concat(value, " ") end
  return value or self.snapshot:item_id(item)
end

-- The users that have something held out; a share below 1 takes a seeded sample, and a larger share of the same
-- seed holds the smaller one.
local function users_with(held, share, seed)
  local users = {}
  for user = 0, held:n_users() - 1 do
    if held:n_of_user(user) > 0 then users[#users + 1] = user end
  end
  local n = math.max(1, math.ceil(share * #users))
  if n >= #users then return users end
  local rng = native.rng(seed, 7)
  for i = 1, n do
    local j = i + rng:below(#users - i + 1)
    users[i], users[j] = users[j], users[i]
  end
  local some = {}
  for i = 1, n do some[i] = users[i] end
  table.sort(some)
  return some
end

local function percentile(sorted, p)
  return sorted[math.max(1, math.min(#sorted, math.ceil(p * #sorted)))]
end

-- A percentile (nil: the mean) of times, with the 95 % bootstrap interval of a few hundred resamples.
local function time_metric(times, p, rng)
  local function of(list)
    if p then
      table.sort(list)
      return percentile(list, p)
    end
    local sum = 0
    for _, x in ipairs(list) do sum = sum + x / #list end
    return sum
  end
  local value, found = of(times), {}
  for b = 1, rng and LATENCY_RESAMPLES or 0 do
    local drawn = {}
    for i = 1, #times do drawn[i] = times[rng:below(#times) + 1] end
    found[b] = of(drawn)
  end
  table.sort(found)
  return { value = value, low = found[1] and percentile(found, 0.025) or value, high = found[1] and percentile(found, 0.975) or value }
end

-- One request at a time, as it would be served: milliseconds of the whole, and of the act of nodes that the reward names.
local function measure_latency(run, view, users, metrics, opts)
  local step, times = math.max(1, math.floor(#users / LATENCY_SAMPLE)), { [""] = {} }
  local wanted = { latency_p50_ms = { "", 0.5 }, latency_p99_ms = { "", 0.99 } }
  local kinds = { latency_p50_ms = 0.5, latency_p99_ms = 0.99 }
  for _, m in ipairs(opts.reward and reward.parts(opts.reward) or {}) do
    if m.kind == "latency" then
      wanted[m.name] = { m.node or "", kinds[m.base] }
      times[m.node or ""] = {}
      if m.node then run.clock = {} end
    end
  end
  for i = 1, #users, step do
    local request = native.requests(view.data, { users[i] })
    local start = native.now()
    run:answer(request, 1)
    table.insert(times[""], (native.now() - start) * 1000)
    for node, list in pairs(times) do
      if node ~= "" then list[#list + 1] = (run.clock[node] or 0) * 1000 end
    end
  end
  run.clock = nil
  local resample = opts.bootstrap ~= 0
  for name, how in pairs(wanted) do metrics[name] = time_metric(times[how[1]], how[2], resample and native.rng(opts.seed, 13) or nil) end
end

local function parse_fold(name)
  if name == "valid" then return native.VALID, native.TRAIN end
  if name == "test" then return native.TEST, native.TRAIN + native.VALID end
  native.raise("invalid", ("fold '%s': valid and test can be measured"):format(tostring(name)))
end

local function progress_step(progress, what, done, all)
  if native.interrupted() then native.raise("failed", "interrupted") end
  if progress then progress(what, done, all) end
end

-- A figure of all lists together, with the interval that resampling its jackknife values gives.
local function around(value, vector, opts)
  if opts.bootstrap == 0 then return { value = value, low = value, high = value } end
  local d = native.paired_bootstrap(native.vector(#vector):set(0), vector, opts.seed, opts.bootstrap or 1000)
  return { value = value, low = value + d.low - d.value, high = value + d.high - d.value }
end

-- What the reward names beside the usual: shares of exposure and costs. With opts.values also, into `values`, what each user adds
-- to coverage and Gini.
local function measure_named(run, lists, data, opts, metrics, values)
  for _, m in ipairs(opts.reward and reward.parts(opts.reward) or {}) do
    if m.kind == "share" then
      local value, vector, token = lists:exposure(data, m.base, m.k, m.column, m.token)
      metrics[m.name] = around(value, vector, opts)
      metrics[m.name].token, values[m.name] = m.base == "max_share" and token or nil, vector
    elseif m.kind == "total" and opts.values then
      values[m.name] = select(2, lists:exposure(data, m.base, m.k))
    elseif m.kind == "cost" then
      local value = m.base == "model_mb" and run:model_mb() or native.peak_rss_mb()
      metrics[m.name] = { value = value, low = value, high = value }
    end
  end
end

-- What each user of the fold is given, measured. → metrics, number of users, per-user values of opts.per_user, and with opts.values
-- of the reward's parts, lists of the nodes in opts.nodes. opts.requests: a table that keeps the askers for another call.
local function measure(w, run, opts, held, known, users)
  local cutoffs = opts.cutoffs or { 5, 10, 20 }
  local k = cutoffs[#cutoffs]
  run:set_n(k)
  local lists, of_nodes, kept = native.lists(k, #users), {}, opts.requests or {}
  for _, name in ipairs(opts.nodes or {}) do of_nodes[name] = native.lists(k, #users) end
  for first = 1, #users, BATCH do
    local requests = kept[first]
    if not requests then
      local some = {}
      for i = first, math.min(first + BATCH - 1, #users) do some[#some + 1] = users[i] end
      requests = native.requests(known.data, some)
      if opts.requests then kept[first] = requests end
    end
    for row = 1, #requests do
      local user = users[first + row - 1]
      if row % 256 == 1 then progress_step(opts.progress, "ranking", first + row - 1, #users) end
      lists:put(user, run:answer(requests, row))
      for name, own in pairs(of_nodes) do own:put(user, run.by_name[name].slate) end
    end
  end
  local wanted, seen = {}, {}
  for _, name in ipairs(opts.per_user or {}) do
    if not seen[name] then wanted[#wanted + 1], seen[name] = name, true end
  end
  for _, m in ipairs(opts.values and opts.reward and reward.parts(opts.reward) or {}) do
    if m.kind == "mean" and not seen[m.name] then wanted[#wanted + 1], seen[m.name] = m.name, true end
  end
  local metrics, n_users, values = lists:measure(held.data, w:view(run.folds).data, {
    cutoffs = cutoffs, bootstrap = opts.bootstrap, seed = opts.seed, diversity = w.feature, per_user = wanted,
  })
  measure_named(run, lists, held.data, opts, metrics, values)
  if w.feed then require "evection.feed_world".measure(w, run, known, users, metrics, opts.progress) end
  return metrics, n_users, values, of_nodes
end

-- Inner rewards: of a node with its own evaluate what that says, of another one the slates that leave it. With values also what each
-- user adds, or each of a few blocks of users where evaluate tells only of all. → { node → { value, of, values } }
local function measure_inner(w, run, of_nodes, held, opts)
  local inner = {}
  for _, node in ipairs(run.list) do
    local metric = reward.inner_metric(opts.reward or reward.of_metric "ndcg@20", node.name)
    local value = run:evaluate(node, held.data)
    if value then
      local blocks = {}
      for b = 1, opts.values and INNER_BLOCKS or 0 do
        local block = native.data_block(held.data, b, INNER_BLOCKS)
        if block:n_interactions() > 0 then blocks[#blocks + 1] = run:evaluate(node, block) end
      end
      inner[node.name] = { value = value, of = "evaluate", values = opts.values and native.vector(blocks) or nil }
    else
      local metrics, _, values = of_nodes[node.name]:measure(held.data, w:view(run.folds).data, {
        cutoffs = { 5, 10, 20 }, bootstrap = 0, seed = opts.seed, diversity = w.feature, per_user = opts.values and { metric } or nil,
      })
      if not metrics[metric] then native.raise("invalid", ("inner: the data have no column for '%s'"):format(metric)) end
      inner[node.name] = { value = metrics[metric].value, of = metric, values = values[metric] }
    end
  end
  return inner
end

-- What a ranker says of the held interactions of these users.
local function score_clicks(run, held, known, users, opts)
  local clicks, slate = native.clicks(held.data, opts.positive_rating), native.slate()
  for first = 1, #users, BATCH do
    local some = {}
    for i = first, math.min(first + BATCH - 1, #users) do some[#some + 1] = users[i] end
    local requests = native.requests(known.data, some)
    for row, user in ipairs(some) do
      if row % 256 == 1 then progress_step(opts.progress, "scoring", first + row - 1, #users) end
      clicks:fill(slate, held.data, user)
      run:score(requests, row, slate)
      clicks:put(slate, held.data, user)
    end
  end
  return clicks
end

-- Two compositions, each with the knobs whose node it has.
local function open_both(one, two, sets)
  local opened, reached = {}, {}
  for i, source in ipairs { one, two } do
    local own, names = {}, {}
    for _, node in ipairs(compose.open(source).nodes) do names[node.name] = true end
    for path, value in pairs(sets) do
      if names[path:match "^([^.]+)"] then own[path], reached[path] = value, true end
    end
    opened[i] = compose.open(source, own)
  end
  for path in pairs(sets) do
    if not reached[path] then native.raise("invalid", ("--set %s: neither composition has such a node"):format(path)) end
  end
  return opened[1], opened[2]
end

-- A reward for another task is refused before anything is fitted.
local function check_task(r, clicks)
  for _, m in ipairs(r and reward.parts(r) or {}) do
    if (m.kind == "clicks") ~= clicks then
      native.raise("invalid", clicks and ("the reward names '%s'; of clicks, auc, gauc and log_loss are measured"):format(m.name)
        or ("the reward names '%s', which is measured of clicks (--task clicks), not of slates"):format(m.name))
    end
  end
end

-- How well a ranker tells which of the held interactions were rated positive_rating or more.
local function evaluate_clicks(opts)
  local start, seed, positive = native.now(), opts.seed or 1, opts.positive_rating or 4
  check_task(opts.reward, true)
  local c, other
  if type(opts.against) == "table" then
    c, other = compose.open(opts.composition, opts.sets), compose.open(opts.against.composition, opts.against.sets)
  elseif opts.against then
    c, other = open_both(opts.composition, opts.against, opts.sets or {})
  else
    c = compose.open(opts.composition, opts.sets)
  end
  local w = type(opts.data) == "table" and opts.data or world.open(opts.data or c.data)
  local fold, known_folds = parse_fold(opts.fold or "valid")
  if opts.refit and fold ~= native.TEST then native.raise("invalid", "refit is for the test fold: it trains on the validation fold") end
  local held, known = w:view(fold), w:view(known_folds)
  local users = users_with(held.data, opts.users or 1, seed)
  if held.data:n_interactions() == 0 then native.raise("invalid", ("%s has an empty %s fold"):format(w.name, opts.fold or "valid")) end
  local fit_seconds = 0
  local function clicks_of(composition)
    local fit_start = native.now()
    local run = runner.fit_clicks(composition, w, {
      folds = opts.refit and native.TRAIN + native.VALID or native.TRAIN, seed = seed, progress = opts.progress, positive_rating = positive,
    })
    if composition == c then fit_seconds = native.now() - fit_start end
    return score_clicks(run, held, known, users, { positive_rating = positive, progress = opts.progress })
  end
  local clicks = clicks_of(c)
  local options = { bootstrap = opts.bootstrap, confidence = opts.confidence, seed = seed }
  local metrics, n_rows, n_positive = clicks:measure(options)
  local result = {
    task = "clicks", metrics = metrics, reward = opts.reward and reward.scalar(opts.reward, metrics) or nil,
    data = w.name, data_hash = w.hash, fold = opts.fold or "valid", genome = c.hash, name = c.name, seed = seed,
    n_users = #users, n_rows = n_rows, n_positive = n_positive, positive_rating = positive, fit_seconds = fit_seconds,
  }
  if other then
    local theirs = clicks_of(other)
    result.against = { name = other.name, genome = other.hash, metrics = (theirs:measure(options)), difference = clicks:compare(theirs, {
      bootstrap = opts.bootstrap or 5000, confidence = opts.confidence, seed = seed }) }
  end
  result.seconds, result.max_rss_mb = native.now() - start, native.peak_rss_mb()
  return result
end

-- Everything an evaluation of slates stands on: the composition fitted, the users, the folds.
local function prepare(opts)
  local seed = opts.seed or 1
  local c = compose.open(opts.composition, opts.sets)
  local w = type(opts.data) == "table" and opts.data or world.open(opts.data or c.data)
  local fold, known_folds = parse_fold(opts.fold or "valid")
  if opts.refit and fold ~= native.TEST then native.raise("invalid", "refit is for the test fold: it trains on the validation fold") end
  check_task(opts.reward, false)
  if opts.reward then faults.raise(reward.check(opts.reward, c, w:item_columns())) end
  local start = native.now()
  local run = runner.fit(c, w, {
    folds = opts.refit and native.TRAIN + native.VALID or native.TRAIN, seed = seed, progress = opts.progress, checkpoints = opts.checkpoints,
  })
  local fit_seconds = native.now() - start
  local held, known = w:view(fold), w:view(known_folds)
  if held.data:n_interactions() == 0 then native.raise("invalid", ("%s has an empty %s fold"):format(w.name, opts.fold or "valid")) end
  return { composition = c, world = w, run = run, held = held, known = known, users = users_with(held.data, opts.users or 1, seed), seed = seed,
    fold = opts.fold or "valid", fit_seconds = fit_seconds, requests = {} }
end

-- trial{ composition, sets, data, fold, seed, users, reward, progress, checkpoints } → trial { composition, world, run, users, … }, whose
-- measure(absent, bootstrap) → metrics, vector of what each user adds to the reward: of the fitted composition without some of its
-- nodes (Runner.absent), always over the same users; and inner() → inner rewards of the whole.
function world.trial(opts)
  local t = prepare(opts)
  local timed = false
  for _, m in ipairs(reward.parts(opts.reward)) do timed = timed or m.kind == "latency" end
  function t.measure(absent, bootstrap)
    t.run.absent = absent
    local how = { bootstrap = bootstrap or 0, seed = t.seed, reward = opts.reward, values = true, requests = t.requests }
    local metrics, _, values = measure(t.world, t.run, how, t.held, t.known, t.users)
    if timed then measure_latency(t.run, t.known, t.users, metrics, how) end
    t.run.absent = nil
    return metrics, reward.per_user(opts.reward, metrics, values)
  end
  function t.inner()
    local names = {}
    for i, node in ipairs(t.run.list) do names[i] = node.name end
    local how = { bootstrap = 0, seed = t.seed, reward = opts.reward, values = true, requests = t.requests, nodes = names }
    local _, _, _, of_nodes = measure(t.world, t.run, how, t.held, t.known, t.users)
    return measure_inner(t.world, t.run, of_nodes, t.held, how)
  end
  return t
end

-- The lengths that are wanted, and those that the reward is measured at.
local function cutoffs_of(opts)
  if not opts.cutoffs or not (opts.reward or opts.inner or opts.values) then return opts.cutoffs end
  local list, seen = {}, {}
  local function want(k)
    if k and not seen[k] then list[#list + 1], seen[k] = k, true end
  end
  for _, k in ipairs(opts.cutoffs) do want(k) end
  for _, k in ipairs { 5, 10, 20 } do want(k) end
  table.sort(list)
  return list
end

local function list_of(vector)
  local list = native.array {}
  for i = 1, #vector do list[i] = vector[i] end
  return list
end

-- evaluate{ composition, sets, data, fold, seed, users, refit, reward, per_user, cutoffs, bootstrap, progress, checkpoints, inner, values } →
-- { metrics, inner, reward, data, fold, genome, seed, n_users, seconds, max_rss_mb, per_user }. Raises on failure.
-- users: share in (0, 1]. refit: fitted on train and validation (test only). reward: a reward table (reward.lua).
-- per_user: names of metrics → arrays in the order of the users. inner: the agent's own measure, when it stands alone.
-- inner = true → also inners = { node → number }. values = true → also outer (vector of what each user adds to the reward, or nil) and
-- inner_values ({ node → vector over users or blocks of them }).
-- task = "clicks": { task, positive_rating (4), against (another composition, whose nodes sets reach too, or { composition, sets }) } →
-- metrics of clicks (auc, gauc, log_loss), n_rows, n_positive, against { name, genome, metrics, difference }; no inner, no per_user.
function world.evaluate(opts)
  if opts.task == "clicks" then return evaluate_clicks(opts) end
  if opts.task and opts.task ~= "slates" then native.raise("invalid", ("task '%s': slates and clicks can be measured"):format(opts.task)) end
  if opts.against then native.raise("invalid", "against compares what two rankers say of clicks: task clicks") end
  local start, names = native.now(), {}
  local t = prepare(opts)
  local c, w, run, held, users = t.composition, t.world, t.run, t.held, t.users
  local how = { cutoffs = cutoffs_of(opts), bootstrap = opts.bootstrap, seed = t.seed, per_user = opts.per_user, progress = opts.progress, reward = opts.reward,
    values = opts.values }
  if opts.inner or opts.values then
    for i, node in ipairs(run.list) do names[i] = node.name end
    how.nodes = names
  end
  local metrics, n_users, per_user, of_nodes = measure(w, run, how, held, t.known, users)
  local inner = run:inner(held)
  local inners = how.nodes and measure_inner(w, run, of_nodes, held, how) or nil
  measure_latency(run, t.known, users, metrics, how)
  local values, inner_numbers, inner_values = {}, inners and {} or nil, opts.values and {} or nil
  for _, name in ipairs(opts.per_user or {}) do values[name] = list_of(per_user[name]) end
  for name, i in pairs(inners or {}) do
    inner_numbers[name] = i.value
    if inner_values then inner_values[name] = i.values end
  end
  return {
    metrics = metrics, inner = inner, reward = opts.reward and reward.scalar(opts.reward, metrics) or nil, inners = inner_numbers,
    outer = opts.values and opts.reward and reward.per_user(opts.reward, metrics, per_user) or nil, inner_values = inner_values,
    data = w.name, data_hash = w.hash, fold = t.fold, genome = c.hash, name = c.name, seed = t.seed, n_users = n_users, per_user = values,
    fit_seconds = t.fit_seconds, seconds = native.now() - start, max_rss_mb = native.peak_rss_mb(),
  }
end

return world
