-- world.lua - what a genome is evaluated in: a data set with its three folds.
--
-- An evaluation is a pure function: (genome, snapshot, fold, seed) → rewards. Time and memory ride along.

local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"

local world = {}

local World = {}
World.__index = World

local BATCH = 32768 -- requests answered together: a bound on memory, not on results
local LATENCY_SAMPLE = 200

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

-- One request at a time, as it would be served: milliseconds at the median and at the 99th percentile.
local function measure_latency(run, view, users, metrics)
  local step, times = math.max(1, math.floor(#users / LATENCY_SAMPLE)), {}
  for i = 1, #users, step do
    local request = native.requests(view.data, { users[i] })
    local start = native.now()
    run:answer(request, 1)
    times[#times + 1] = (native.now() - start) * 1000
  end
  table.sort(times)
  for name, p in pairs { latency_p50_ms = 0.5, latency_p99_ms = 0.99 } do
    local value = percentile(times, p)
    metrics[name] = { value = value, low = value, high = value }
  end
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

-- What each user of the fold is given, measured. → metrics, number of users, per-user values
local function measure(w, run, opts, held, known, users)
  local cutoffs = opts.cutoffs or { 5, 10, 20 }
  local k = cutoffs[#cutoffs]
  run:set_n(k)
  local lists = native.lists(k, #users)
  for first = 1, #users, BATCH do
    local some = {}
    for i = first, math.min(first + BATCH - 1, #users) do some[#some + 1] = users[i] end
    local requests = native.requests(known.data, some)
    for row, user in ipairs(some) do
      if row % 256 == 1 then progress_step(opts.progress, "ranking", first + row - 1, #users) end
      lists:put(user, run:answer(requests, row))
    end
  end
  return lists:measure(held.data, w:view(run.folds).data, {
    cutoffs = cutoffs, bootstrap = opts.bootstrap, seed = opts.seed, diversity = w.feature, per_user = opts.per_user,
  })
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

-- How well a ranker tells which of the held interactions were rated positive_rating or more.
local function evaluate_clicks(opts)
  local start, seed, positive = native.now(), opts.seed or 1, opts.positive_rating or 4
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
    task = "clicks", metrics = metrics, reward = opts.reward and require "evection.reward".scalar(opts.reward, metrics) or nil,
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

-- evaluate{ composition, sets, data, fold, seed, users, refit, reward, per_user, cutoffs, bootstrap, progress, checkpoints } →
-- { metrics, inner, reward, data, fold, genome, seed, n_users, seconds, max_rss_mb, per_user }. Raises on failure.
-- users: share in (0, 1]. refit: fitted on train and validation (test only). reward: a reward table (reward.lua).
-- per_user: names of metrics → arrays in the order of the users. inner: the agent's own measure, when it stands alone.
-- task = "clicks": { task, positive_rating (4), against (another composition, whose nodes sets reach too, or { composition, sets }) } →
-- metrics of clicks (auc, gauc, log_loss), n_rows, n_positive, against { name, genome, metrics, difference }; no inner, no per_user.
function world.evaluate(opts)
  if opts.task == "clicks" then return evaluate_clicks(opts) end
  if opts.task and opts.task ~= "slates" then native.raise("invalid", ("task '%s': slates and clicks can be measured"):format(opts.task)) end
  if opts.against then native.raise("invalid", "against compares what two rankers say of clicks: task clicks") end
  local start = native.now()
  local seed = opts.seed or 1
  local c = compose.open(opts.composition, opts.sets)
  local w = type(opts.data) == "table" and opts.data or world.open(opts.data or c.data)
  local fold, known_folds = parse_fold(opts.fold or "valid")
  if opts.refit and fold ~= native.TEST then native.raise("invalid", "refit is for the test fold: it trains on the validation fold") end
  local run = runner.fit(c, w, {
    folds = opts.refit and native.TRAIN + native.VALID or native.TRAIN, seed = seed, progress = opts.progress, checkpoints = opts.checkpoints,
  })
  local fit_seconds = native.now() - start
  local held, known = w:view(fold), w:view(known_folds)
  local users = users_with(held.data, opts.users or 1, seed)
  if held.data:n_interactions() == 0 then native.raise("invalid", ("%s has an empty %s fold"):format(w.name, opts.fold or "valid")) end
  local simulated, asked = w.feed and require "evection.feed_world", opts.per_user
  if simulated and asked then
    asked = {}
    for _, name in ipairs(opts.per_user) do asked[#asked + 1] = not simulated.metric(name) and name or nil end
  end
  local metrics, n_users, per_user = measure(w, run, {
    cutoffs = opts.cutoffs, bootstrap = opts.bootstrap, seed = seed, per_user = asked, progress = opts.progress,
  }, held, known, users)
  if simulated then
    local of = simulated.measure(w, run, known, users, metrics, opts)
    for _, name in ipairs(opts.per_user or {}) do per_user[name] = per_user[name] or of[name] end
  end
  local inner = run:inner(held)
  measure_latency(run, known, users, metrics)
  local values = {}
  for name, vector in pairs(per_user) do
    local list = native.array {}
    for i = 1, #vector do list[i] = vector[i] end
    values[name] = list
  end
  return {
    metrics = metrics, inner = inner, reward = opts.reward and require "evection.reward".scalar(opts.reward, metrics) or nil,
    data = w.name, data_hash = w.hash, fold = opts.fold or "valid", genome = c.hash, name = c.name, seed = seed, n_users = n_users, per_user = values,
    fit_seconds = fit_seconds, seconds = native.now() - start, max_rss_mb = native.peak_rss_mb(),
  }
end

return world
