-- runner.lua - a composition, fitted: artifacts from the content-addressed cache, and the path of a request.
--
-- An artifact is a pure function of the agent's text, the knobs its fit looks at, the view of the data, the seed,
-- and for a ranker of everything upstream. Its file is named by the hash of these, so that nothing is fitted twice
-- and every process maps the same bytes.

local native = require "evection.native"
local agent = require "evection.agent"

local runner = {}

local Runner = {}
Runner.__index = Runner

local FORMAT = 5 -- raised when a fit or a file format changes what equal inputs give
local HELD_SHARE = 0.2 -- of each user's interactions, what a ranker learns to predict
local RANK_USERS = 5000 -- users a ranker learns from, at most
local DEFAULT_RECALL = 100
local SNAPSHOT_S = 60 -- between two snapshots of learning state
local CHECKPOINT_AGE_S = 7 * 86400 -- one that nobody went on from for so long goes

local function fit_knobs(node)
  if not node.agent.fit_knobs then return node.knobs end
  local some = {}
  for _, name in ipairs(node.agent.fit_knobs) do some[name] = node.knobs[name] end
  return some
end

local function artifact_key(node, w, view, seed, upstream, positive_rating)
  return native.hash(native.json_encode {
    format = FORMAT, agent = node.agent.hash, knobs = fit_knobs(node), data = w.hash, view = view.key, seed = seed,
    upstream = upstream or "", held = upstream and HELD_SHARE or 0, clicks = positive_rating,
  })
end

local function call(node, verb, ...)
  local ok, result = pcall(node.agent[verb], ...)
  if ok then return result end
  if type(result) == "table" and result.status then
    native.raise(result, ("node %s: %s: %s"):format(node.name, verb, tostring(result)))
  end
  error(("node %s: %s: %s"):format(node.name, verb, tostring(result)), 0)
end

-- The files of an unfinished fit, when no process is at it and none is to go on: it was finished in another way, or is old.
local function sweep_checkpoint(folder, key, files)
  local locks, age = {}, math.huge
  for _, file in ipairs(files) do
    local path = folder .. "/" .. file
    age = math.min(age, native.age(path) or math.huge)
    if file:match "%.lock$" then
      locks[#locks + 1] = native.lock(path)
      if not locks[#locks] then return end
    end
  end
  if age < CHECKPOINT_AGE_S and not native.exists(("%s/%s.evm"):format(folder, key)) then return end
  for _, file in ipairs(files) do native.remove(folder .. "/" .. file) end
end

-- What fits that did not end left behind; looked for once.
local swept = false
local function sweep(folder)
  if swept then return end
  swept = true
  local unfinished = {}
  for _, file in ipairs(native.list(folder)) do
    local pid, key = file:match "%.draft(%d+)", file:match "^(.-)%.checkpoint%."
    if pid and not native.exists("/proc/" .. pid) then native.remove(folder .. "/" .. file) end
    if key then
      unfinished[key] = unfinished[key] or {}
      table.insert(unfinished[key], file)
    end
  end
  for key, files in pairs(unfinished) do sweep_checkpoint(folder, key, files) end
end

local function remove_all(folder, prefix)
  for _, file in ipairs(native.list(folder)) do
    local path = folder .. "/" .. file
    if path:sub(1, #prefix) == prefix then native.remove(path) end
  end
end

-- The node's fit, or the file that it left the last time. checkpoints: what is interrupted goes on where it stood; seconds
-- between two of them, or nil.
local function fit_node(node, view, seed, key, rows, checkpoints)
  local folder = native.home .. "/artifacts"
  local path = ("%s/%s.evm"):format(folder, key)
  if native.exists(path) then return native.model(path), true end
  native.mkdirs(folder)
  sweep(folder)
  local draft = ("%s/%s.draft%d"):format(folder, key, native.pid())
  local checkpoint = ("%s/%s.checkpoint"):format(folder, key)
  local data = rows or view.data
  native.data_artifact(data, draft, seed, checkpoints and checkpoint or nil, checkpoints)
  local ok, model, kept = pcall(call, node, "fit", agent.live(node.agent, node.knobs), data)
  native.data_artifact(data, nil)
  if ok and type(model) == "userdata" then ok, kept = pcall(native.model_path, model) end
  if kept and (not ok or kept:sub(1, #draft) ~= draft or not native.exists(kept)) then -- another fit's file is not to be moved
    ok, model = false, ("node %s: fit: what it returned is no model that it made"):format(node.name)
  elseif kept then
    native.rename(kept, path)
  end
  remove_all(folder, draft .. ".")
  if checkpoints and not native.interrupted() then remove_all(folder, checkpoint .. ".") end -- a fit that failed would fail again
  if not ok then error(model, 0) end
  return model, false
end

-- The view cut in two for a ranker: what its upstream is fitted on, and what it learns to predict.
local function split(w, view, seed)
  local key = ("%s, all but the last %g of each user, seed %d"):format(view.key, HELD_SHARE, seed)
  local halves = w.views[key]
  if not halves then
    local rest, held = native.data_split(view.data, HELD_SHARE, seed)
    halves = { rest = { data = rest, key = key }, held = held }
    w.views[key] = halves
  end
  return halves
end

local fit

-- A ranker's training rows: what the nodes before it make of the users, labelled by what was held from them.
local function ranker_rows(c, node, w, view, opts)
  local halves = split(w, view, opts.seed)
  local inner = fit(c, w, { view = halves.rest, seed = opts.seed, progress = opts.progress, checkpoints = opts.checkpoints, until_node = node.name })
  local users = {}
  for user = 0, halves.held:n_users() - 1 do
    if halves.held:n_of_user(user) > 0 then users[#users + 1] = user end
  end
  if #users > RANK_USERS then
    local rng = native.rng(opts.seed, 11)
    for i = 1, RANK_USERS do
      local j = i + rng:below(#users - i + 1)
      users[i], users[j] = users[j], users[i]
    end
    for i = #users, RANK_USERS + 1, -1 do users[i] = nil end
    table.sort(users)
  end
  local rows = w.snapshot:view(native.TRAIN) -- a handle of its own: the rows and the artifact path are set on it
  local requests = native.requests(halves.rest.data, users)
  for i, user in ipairs(users) do
    local slate = inner:run_until(node.from[1], requests, i)
    if i == 1 then
      local names = { "score" }
      for _, name in ipairs(slate:columns()) do names[#names + 1] = name end
      native.data_set_rows(rows, names)
    end
    native.data_add_rows(rows, slate, user, halves.held)
    if i % 256 == 0 then
      if native.interrupted() then native.raise("failed", "interrupted") end
      if opts.progress then opts.progress("candidates for " .. node.name, i, #users) end
    end
  end
  return rows
end

-- Hash of everything a node's slate depends on.
local function upstream_key(nodes, name)
  local node = nodes[name]
  local parts = { key = node.key or "", agent = node.agent.hash, knobs = node.knobs, n = node.n or 0, from = native.array {} }
  for i, input in ipairs(node.from) do parts.from[i] = { input, upstream_key(nodes, input) } end
  return native.hash(native.json_encode(parts))
end

-- The node that runs.
local function enliven(node, w, view)
  return {
    name = node.name, agent = node.agent, role = node.role, from = node.from, n = node.n, budget_ms = node.budget_ms, knobs = node.knobs,
    slate = native.slate(), inputs = {},
    ctx = { knobs = agent.live(node.agent, node.knobs), data = view.data, inputs = { unpack(node.from) }, feature = w.feature },
  }
end

local function fit_live(live, view, opts, rows)
  local progress = opts.progress
  if progress then progress("fitting " .. live.name) end
  native.on_progress(progress and function(what, done, all, loss, more)
    progress(("fitting %s: %s"):format(live.name, what), done, all, loss, more)
  end)
  live.model, live.cached = fit_node(live, view, opts.seed, live.key, rows, opts.checkpoints)
  native.on_progress(nil)
end

-- Fits a node that stands where the composition has it; the nodes before it are fitted already.
local function fit_in_place(self, c, node, live, opts)
  if not node.agent.fit then return end
  local started, w, view = native.now(), self.world, self.view
  local rows, upstream
  if node.role == "rank" then upstream = upstream_key(self.by_name, node.from[1]) end
  live.key = artifact_key(node, w, view, opts.seed, upstream)
  if node.role == "rank" and not native.exists(("%s/artifacts/%s.evm"):format(native.home, live.key)) then
    rows = ranker_rows(c, node, w, view, opts)
  end
  fit_live(live, view, opts, rows)
  live.seconds = native.now() - started
end

-- fit(composition, world, { folds, seed, progress, state, checkpoints }) → runner.
-- Inside: view instead of folds; until_node fits only what stands before that node.
function fit(c, w, opts)
  local view = opts.view or w:view(opts.folds)
  local self = setmetatable({ composition = c, world = w, view = view, folds = opts.folds, nodes = {}, by_name = {}, list = {}, n = 20 }, Runner)
  self.seed, self.snapshots, self.snapshot_s = opts.seed, {}, SNAPSHOT_S
  local wanted = {}
  local function want(name)
    wanted[name] = true
    for _, node in ipairs(c.nodes) do
      if node.name == name then
        for _, input in ipairs(node.from) do want(input) end
      end
    end
  end
  for _, node in ipairs(c.nodes) do
    if opts.until_node and node.name == opts.until_node then
      for _, input in ipairs(node.from) do want(input) end
    elseif not opts.until_node and node.name == c.output then
      want(node.name)
    end
  end
  local n_recalls = 0
  for _, node in ipairs(c.nodes) do
    if wanted[node.name] then
      local live = enliven(node, w, view)
      if node.role == "recall" then
        live.bit = 2 ^ n_recalls
        n_recalls = math.min(n_recalls + 1, 31)
      end
      self.by_name[node.name] = live
      fit_in_place(self, c, node, live, opts)
      for i, input in ipairs(node.from) do live.inputs[i] = self.by_name[input].slate end
      live.step = native.step(live.role, live.slate, live.inputs, live.from, live.bit)
      self.list[#self.list + 1] = live
    end
  end
  self.output = self.by_name[c.output]
  if opts.state then self:open_state(opts.state) end
  return self
end
runner.fit = fit

-- fit_clicks(composition, world, { folds, seed, progress, positive_rating }) → runner of the composition's ranker alone. It
-- learns from impressions: the interactions of the folds, clicked when rated positive_rating or more. What feeds it is not asked.
function runner.fit_clicks(c, w, opts)
  local view, node = w:view(opts.folds), nil
  for _, n in ipairs(c.nodes) do
    if n.name == c.output then node = n end
  end
  if node.role ~= "rank" or not node.agent.fit then
    native.raise("invalid", ("%s: clicks are told by a ranker, and the output '%s' is of role %s"):format(c.name, node.name, node.role))
  end
  local live = enliven(node, w, view)
  local self = setmetatable({ composition = c, world = w, view = view, folds = opts.folds, list = { live }, by_name = { [live.name] = live } }, Runner)
  self.output, self.n = live, 20
  local started = native.now()
  live.key = artifact_key(node, w, view, opts.seed, nil, opts.positive_rating)
  local rows
  if not native.exists(("%s/artifacts/%s.evm"):format(native.home, live.key)) then
    rows = w.snapshot:view(opts.folds) -- a handle of its own: the rows and the artifact path are set on it
    native.data_click_rows(rows, opts.positive_rating)
  end
  fit_live(live, view, opts, rows)
  live.seconds = native.now() - started
  return self
end

-- What native.arms takes: sizes by their number, knobs by their value.
local function arms_options(spec, sizes, knobs, seed)
  local options = { seed = seed }
  for key, value in pairs(spec) do
    options[key] = key == "n" and (sizes[value] or value) or key ~= "kind" and type(value) == "string" and knobs[value] or value
  end
  return options
end

-- A state is carried from one version to the next by the agent's name, its own and its shape.
local function arms_file(node, name, o)
  local shape = ("%s.%d.%d.%s%s"):format(o.kind, o.n or 1, o.n_dims or 0, o.window or "w", o.diagonal and ".diagonal" or "")
  return ("%s.%s.%s.arms"):format(node.agent.name, name, shape)
end

function runner.state_folder(w) return ("%s/state/%s"):format(native.home, w.hash:sub(1, 16)) end

-- states(world, nodes, seed) → what the agents of these nodes keep, sorted: { node, agent, name, path, options | n }: of native.arms, or how
-- many numbers. Nothing is opened.
function runner.states(w, nodes, seed)
  local sizes, list = { items = w.snapshot:n_items(), users = w.snapshot:n_users() }, {}
  for _, node in ipairs(nodes) do
    for name, size in pairs(node.agent.state or {}) do
      local s = { node = node, agent = node.agent.name, name = name }
      if type(size) == "table" then
        s.options = arms_options(size, sizes, node.knobs, seed)
        s.file = arms_file(node, name, s.options)
      else
        s.n = sizes[size] or size
        s.file = ("%s.%s.%d.f64"):format(s.agent, name, s.n)
      end
      s.path = ("%s/%s"):format(runner.state_folder(w), s.file)
      list[#list + 1] = s
    end
  end
  table.sort(list, function(a, b) return a.file < b.file end)
  return list
end

-- The state itself; path nil: this process's own.
function runner.open_one(s, path)
  if s.options then return native.arms(path, s.options) end
  return native.state(path, s.n)
end

-- The agents' learning state: arrays shared by all processes, kept by agent and name, whatever the version.
-- With `where` "memory" they are this process's own and end with it: a simulator's.
function Runner:open_state(where)
  local kept = where ~= "memory"
  if kept then native.mkdirs(runner.state_folder(self.world)) end
  for _, node in ipairs(self.list) do
    if next(node.agent.state) then node.ctx.state = {} end
  end
  for _, s in ipairs(runner.states(self.world, self.list, self.seed)) do
    local state = runner.open_one(s, kept and s.path or nil)
    s.node.ctx.state[s.name] = state
    if kept and s.options then self.snapshots[#self.snapshots + 1] = { state = state, path = s.path .. ".snapshot" } end
  end
end

-- How many items the output gives when its node does not say.
function Runner:set_n(n) self.n = n end

-- How many candidates a node gives; nil: as it comes.
local function wanted(self, node)
  return node.n or (node == self.output and self.n) or (node.role == "recall" and DEFAULT_RECALL) or nil
end

-- One node of an evaluation: an act that raises ends it. What a node finds in its slate, and what becomes of it, stands in
-- runtime/script/step.h: the service has its own loop over the nodes (asks.c), which leaves a node that raises out.
local function step(self, node, request)
  local slate, absent, n = node.slate, self.absent and self.absent[node.name], wanted(self, node)
  native.step_open(node.step)
  local actor = node
  if absent then actor = absent ~= true and absent or nil end
  if actor then
    native.request_set_n(request, n or math.max(1, #slate))
    local started = self.clock and native.now()
    local ok, message = pcall(actor.agent.act, actor.model, request, slate, actor.ctx)
    if not ok then error(("node %s: act: %s"):format(node.name, tostring(message)), 0) end
    if started then self.clock[node.name] = native.now() - started end
  else
    native.step_pass(node.step)
  end
  native.step_close(node.step, n)
  return slate
end

-- stand_in(node name, agent, { seed, progress, checkpoints }) → what Runner.absent takes for the node: that agent with its default
-- knobs, fitted in the node's place.
function Runner:stand_in(name, a, opts)
  for _, node in ipairs(self.composition.nodes) do
    if node.name == name then
      local other = { name = name, agent = a, role = node.role, from = node.from, n = node.n, knobs = agent.knobs(a) }
      local live = enliven(other, self.world, self.view)
      fit_in_place(self, self.composition, other, live, opts)
      return live
    end
  end
end

-- Runner.absent: { node name → true, or a stand-in }: nodes that the next answers do without. Nothing is fitted again: the others act
-- with the models they have. Runner.clock: a table that takes the seconds of each node's act.

-- The slate of one node for a row of the requests.
function Runner:run_until(name, requests, row)
  native.request_select(requests, row)
  for _, node in ipairs(self.list) do
    local slate = step(self, node, requests)
    if node.name == name then return slate end
  end
end

-- The answer to a row of the requests: at most n items, best first. The slate is the runner's: it holds until the
-- next call.
function Runner:answer(requests, row)
  native.request_select(requests, row)
  for _, node in ipairs(self.list) do step(self, node, requests) end
  local slate = self.output.slate
  slate:truncate(self.n)
  return slate
end

-- What the ranker of a runner of clicks says of a slate: its logits become the scores.
function Runner:score(requests, row, slate)
  local node = self.output
  native.request_select(requests, row)
  native.request_set_n(requests, math.max(1, #slate))
  local ok, message = pcall(node.agent.act, node.model, requests, slate, node.ctx)
  if not ok then error(("node %s: act: %s"):format(node.name, tostring(message)), 0) end
end

-- fn() with learning state that begins empty and ends with it: what it does leaves no trace.
function Runner:apart(fn)
  local kept = {}
  for i, node in ipairs(self.list) do kept[i] = node.ctx.state or false end
  self:open_state "memory"
  local ok, message = pcall(fn)
  for i, node in ipairs(self.list) do node.ctx.state = kept[i] or nil end
  if not ok then error(message, 0) end
end

-- A slate for nobody, as fast as code that has run before can make the next.
function Runner:warm()
  self:apart(function() self:recommend { n = 1 } end)
end

-- From now on this Lua state is asked for this composition: ev_host_recommend and ev_host_learn of runtime/script/script.h.
function Runner:serve()
  local nodes, output = {}, nil
  for i, node in ipairs(self.list) do
    nodes[i] = { name = node.name, agent = node.agent.name, hash = node.agent.hash, step = node.step, act = node.agent.act, model = node.model,
      slate = node.slate, ctx = node.ctx, n = node.n, budget_ms = node.budget_ms }
    if node == self.output then output = i end
  end
  native.serving { snapshot = self.world.snapshot, nodes = nodes, output = output, budget_ms = self.composition.budget_ms,
    learn = function(events) self:learn(events) end }
end

-- recommend{ user = index or nil, history = {items, oldest first}, seen = {items}, n } → slate
function Runner:recommend(request)
  self.n = request.n or self.n
  local history = request.history or {}
  return self:answer(native.request(self.world.snapshot, request.user, history, request.seen or history), 1)
end

-- A copy of what one agent may read, so that what it writes there reaches no other.
local function copy_of(events)
  local list = {}
  for i, event in ipairs(events) do
    list[i] = {}
    for key, value in pairs(event) do list[i][key] = value end
  end
  return list
end

-- learn(events): each { user, item, type, value, time }; every agent that closes its loop gets them, also when another's raises: then the
-- first error is raised at the end.
function Runner:learn(events)
  local failed
  for _, node in ipairs(self.list) do
    if node.agent.learn and node.ctx.state then
      local ok, message = pcall(call, node, "learn", node.ctx.state, copy_of(events), node.ctx)
      if not ok then failed = failed or message end
    end
  end
  if not self.kept_apart then self:keep() end
  if failed then error(failed, 0) end
end

-- keep(now) → whether all learning state is on disk: a state's snapshot is written when the last one is snapshot_s old, or now.
-- Runner.kept_apart: another process calls this; learn does not.
function Runner:keep(now)
  local all = true
  for _, s in ipairs(self.snapshots) do
    local due = native.arms_snapshot_due(s.state, now and 0 or self.snapshot_s)
    if due then native.arms_snapshot(s.state, s.path) end
    all = all and due
  end
  return all
end

-- evaluate(node, data) → what the agent's own evaluate says of held-out data; nil: it has none.
function Runner.evaluate(_, node, data)
  if not node.agent.evaluate then return nil end
  local value = call(node, "evaluate", node.model, data, node.ctx)
  if type(value) ~= "number" or value ~= value or math.abs(value) == math.huge then
    native.raise("failed", ("node %s: evaluate: a number is wanted, not '%s'"):format(node.name, tostring(value)))
  end
  return value
end

-- An agent's own evaluate, when it stands alone.
function Runner:inner(held)
  if #self.list == 1 then return self:evaluate(self.output, held.data) end
end

-- Megabytes of the model files that the nodes at work map.
function Runner:model_mb()
  local bytes, seen = 0, {}
  for _, node in ipairs(self.list) do
    local absent = self.absent and self.absent[node.name]
    local of = absent and (absent ~= true and absent or nil) or (not absent and node or nil)
    if of and of.key and not seen[of.key] then
      seen[of.key] = true
      local file = io.open(("%s/artifacts/%s.evm"):format(native.home, of.key), "rb")
      if file then
        bytes = bytes + file:seek "end"
        file:close()
      end
    end
  end
  return bytes / 2 ^ 20
end

return runner
