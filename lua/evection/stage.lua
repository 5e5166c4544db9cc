-- stage.lua - from an edited file to a version that may be loaded: checked, kept, fitted, its learning state looked after, and tried.
--
-- A version is named by the content hash of its composition and kept whole in $EVECTION_HOME/versions/HASH/: the composition, its agents'
-- files beside it, and version.json. What serves is loaded from there, so that an edit under way reaches nobody.

local native = require "evection.native"
local carry = require "evection.carry"
local compose = require "evection.compose"
local faults = require "evection.faults"
local runner = require "evection.runner"
local world = require "evection.world"
local yaml = require "evection.yaml"

local stage = {}

local KEPT = 50       -- versions beside those that are live or were ever promoted
local ALL = native.TRAIN + native.VALID + native.TEST
local PROBE_N = 20    -- items asked for by a probe
local TRIES = 3       -- a probe is late when it is late each time
local SAY_S = 5       -- between two lines of progress
local RESAMPLES = 5000
local METRICS = { recall = true, ndcg = true, hit = true, precision = true, mrr = true, map = true, novelty = true, diversity = true }

local function folder() return native.home .. "/versions" end
local function inside(version) return ("%s/%s"):format(folder(), version) end

local function remove_folder(path)
  for _, name in ipairs(native.list(path)) do native.remove(path .. "/" .. name) end
  native.remove(path)
end

-- ---- Versions -----------------------------------------------------------------------------------------------

local function is_version(name) return #name == 64 and name:match "^%x+$" ~= nil end

-- list() → what version.json says of each version that is kept, the latest first.
function stage.list()
  local list = native.array {}
  for _, name in ipairs(native.list(folder())) do
    local v = is_version(name) and carry.read_json(inside(name) .. "/version.json")
    if v then
      v.version = name
      list[#list + 1] = v
    end
  end
  table.sort(list, function(a, b)
    local x, y = a.staged_ms or a.made_ms or 0, b.staged_ms or b.made_ms or 0
    if x ~= y then return x > y end
    return a.version < b.version
  end)
  return list
end

-- find(prefix) → the version whose name begins so, or nil. Raises when there are several.
function stage.find(prefix)
  local found
  for _, name in ipairs(native.list(folder())) do
    if is_version(name) and name:sub(1, #prefix) == prefix then
      if found then
        native.raise("invalid", ("version '%s': there are several that begin so, such as %s and %s"):format(prefix, found:sub(1, 16), name:sub(1, 16)))
      end
      found = name
    end
  end
  return found
end

-- A source that names a version → its path and name; any other → itself.
local function resolve(source)
  if type(source) ~= "string" or source == "" then native.raise("invalid", "what is to be staged? a composition's file, agent:NAME or a version") end
  if #source >= 6 and #source <= 64 and source:match "^%x+$" and not native.exists(source) then
    local version = stage.find(source)
    if not version then native.raise("not found", ("no version '%s' in %s"):format(source, folder())) end
    return inside(version) .. "/composition.yaml", version
  end
  return source
end

-- What a folder of a version says it does, or nil and why not.
local function verify(path, version)
  local c, errors = compose.load(path .. "/composition.yaml")
  if not c then return nil, faults.describe(errors) end
  if c.hash ~= version then return nil, ("%s/composition.yaml: does what version %s does"):format(path, c.hash:sub(1, 12)) end
  return c
end

-- The composition with its agents beside it, as files of a folder: { name → text }
local function files_of(c)
  local source = native.json_decode(native.json_encode(c.source))
  local files, hash_of = {}, {}
  for _, node in ipairs(c.nodes) do
    local a = node.agent
    local name = a.name .. ".lua"
    if hash_of[name] and hash_of[name] ~= a.hash then name = ("%s-%s.lua"):format(a.name, a.hash:sub(1, 12)) end
    hash_of[name] = a.hash
    files[name] = native.read_file(a.file, 1048576)
    if native.hash(files[name]) ~= a.hash then native.raise("failed", ("%s: changed while it was staged"):format(a.file)) end
    source.nodes[node.name].agent = name
  end
  files["composition.yaml"] = yaml.emit(source)
  return files
end

-- What a stage that was killed left.
local function sweep()
  for _, name in ipairs(native.list(folder())) do
    local pid = name:match "%.draft(%d+)$"
    if pid and not native.exists("/proc/" .. pid) then remove_folder(inside(name)) end
  end
end

-- snapshot(composition, { source, parent }) → the composition as it was kept, version.json. Written beside and renamed: it is there whole or
-- not at all. What is there already is used when it still is what its name says.
function stage.snapshot(c, about)
  local path, version, now = inside(c.hash), c.hash, native.wall_ms()
  local kept, known = nil, nil
  if native.exists(path) then
    kept = verify(path, version)
    known = carry.read_json(path .. "/version.json")
    if not kept then
      native.log("warning", ("%s: damaged; it is written again"):format(path))
      remove_folder(path)
    end
  end
  local sources = native.array {}
  for i, file in ipairs(c.files) do sources[i] = native.absolute(file) end
  local source = about.source
  if not source:match "^agent:" then source = native.absolute(source) end
  if known and about.of_version then source, sources = known.source or source, known.files or sources end
  local json = {
    version = version, source = source, files = sources, made_ms = known and known.made_ms or now, staged_ms = now,
    parent = known and known.parent or (about.parent ~= version and about.parent or nil), name = about.of_version and known and known.name or c.name,
  }
  if kept then
    native.write_file(path .. "/version.json", native.json_encode(json))
    return kept, json
  end
  native.mkdirs(folder())
  sweep()
  local draft = ("%s.draft%d"):format(path, native.pid())
  remove_folder(draft)
  native.mkdirs(draft)
  local ok, why = pcall(function()
    for name, text in pairs(files_of(c)) do native.write_file(draft .. "/" .. name, text) end
    native.write_file(draft .. "/version.json", native.json_encode(json))
    faults.check(verify(draft, version))
    if not pcall(native.rename, draft, path) then faults.check(verify(path, version)) end -- another was faster
  end)
  if not ok then
    remove_folder(draft)
    error(why, 0)
  end
  remove_folder(draft)
  return faults.check(verify(path, version)), json
end

-- Versions that the ledger knows to have been tried, promoted or rolled back.
local function promoted()
  local names, path = {}, native.home .. "/ledger.db"
  if not native.exists(path) then return names end
  local l = native.ledger(path)
  for _, row in ipairs(l:exec([[SELECT DISTINCT v.version AS version FROM promotions p JOIN versions v ON v.number IN (p.version, p.against)
      WHERE p.action <> 'stage']])) do names[row.version] = true end
  l:close()
  return names
end

-- prune{ live = {versions}, keep = 50 } → versions removed: all beyond the latest `keep` that are neither live nor in the ledger's promotions.
function stage.prune(args)
  local list, keep, gone = stage.list(), args.keep or KEPT, native.array {}
  if #list <= keep then return gone end
  local safe = promoted()
  for _, version in ipairs(args.live or {}) do safe[version] = true end
  for i = keep + 1, #list do
    local version = list[i].version
    if not safe[version] then
      local path = inside(version)
      local doomed = ("%s.draft%d"):format(path, native.pid()) -- gone at once, so that nobody finds half of it
      if pcall(native.rename, path, doomed) then
        remove_folder(doomed)
        gone[#gone + 1] = version
      end
    end
  end
  return gone
end

-- ---- Gate ---------------------------------------------------------------------------------------------------

local function gate_of(given)
  if given == false then return { probes = 0 } end
  local gate, known = {}, { probes = 32, margin = 0.02, users = 0.2, metric = "" }
  for key, value in pairs(known) do gate[key] = value end
  for key, value in pairs(given or {}) do
    if value ~= native.null then
      if known[key] == nil then native.raise("invalid", ("the gate has no '%s'; there are probes, metric, margin and users"):format(tostring(key))) end
      if type(value) ~= type(known[key]) then native.raise("invalid", ("the gate's %s must be a %s, not a %s"):format(key, type(known[key]), type(value))) end
      gate[key] = value
    end
  end
  if gate.probes < 0 or gate.probes > 10000 or gate.probes % 1 ~= 0 then native.raise("invalid", "the gate's probes must be a whole number from 0 to 10000") end
  if not (gate.margin >= 0 and gate.margin <= 1) then native.raise("invalid", "the gate's margin must be between 0 and 1") end
  if not (gate.users > 0 and gate.users <= 1) then native.raise("invalid", "the gate's users must be a share above 0, at most 1") end
  if gate.metric == "" then
    gate.metric = nil
  else
    local base, k = gate.metric:match "^(%a+)@(%d+)$"
    if not METRICS[base] or tonumber(k) < 1 or tonumber(k) > 1000 then
      native.raise("invalid", ("the gate's metric '%s': a metric of users such as ndcg@20 is wanted"):format(gate.metric))
    end
    gate.k = tonumber(k)
  end
  return gate
end

-- Users that have a history, drawn by the seed: at most n.
local function draw_users(data, n, seed)
  local users, rng, seen = {}, native.rng(seed, 17), {}
  local all = data:n_users()
  for _ = 1, 50 * n do
    if #users == n or all == 0 then break end
    local user = rng:below(all)
    if not seen[user] and data:n_of_user(user) > 0 then users[#users + 1] = user end
    seen[user] = true
  end
  return users
end

local function set_of(list)
  local set, n = {}, 0
  for _, item in ipairs(list) do
    if not set[item] then n = n + 1 end
    set[item] = true
  end
  return set, n
end

-- What is wrong with a slate; nil: nothing.
local function fault_of(slate, seen)
  if #slate > PROBE_N then return ("%d items, %d were asked for"):format(#slate, PROBE_N) end
  local had = {}
  for i = 1, #slate do
    local item, score = slate:item(i), slate:score_at(i)
    if had[item] then return ("item %d stands in it twice"):format(item) end
    if seen[item] then return ("item %d was seen"):format(item) end
    if score ~= score or math.abs(score) == math.huge then return ("item %d has the score %s"):format(item, tostring(score)) end
    had[item] = true
  end
end

-- One request as the service would make it. → milliseconds, how many items
local function probe(run, w, who, user, history, args)
  local seen, n_seen = set_of(history)
  local best, slate = math.huge, nil
  for _ = 1, TRIES do
    local request = native.request(w.snapshot, user, history, history)
    if args.watchdog_ms then native.alarm(args.watchdog_ms) end
    local started, cpu = native.now(), os.clock()
    local ok, result = pcall(run.answer, run, request, 1)
    local ms = math.min((native.now() - started) * 1000, 2 * (os.clock() - cpu) * 1000) -- it may have waited for a processor: that is not its fault
    if args.watchdog_ms then native.alarm(0) end
    if not ok then native.raise("conflict", ("the gate: %s: %s"):format(who, tostring(result))) end
    best, slate = math.min(best, ms), result
    local fault = fault_of(slate, seen)
    if fault then native.raise("conflict", ("the gate: %s: no slate that can be served: %s"):format(who, fault)) end
    if not args.deadline_ms or best <= args.deadline_ms then break end
  end
  if args.deadline_ms and best > args.deadline_ms then
    native.raise("conflict", ("the gate: %s: a slate took %.1f ms; the deadline is %g ms"):format(who, best, args.deadline_ms))
  end
  return best, #slate, n_seen
end

-- The first slates: made of what the data know of real users, and for somebody nobody knows.
local function smoke(run, w, gate, args, warnings)
  if gate.probes == 0 then return nil end
  local data, times = w:view(ALL).data, {}
  if args.watchdog_ms then native.alarm(args.watchdog_ms) end
  local ok, why = pcall(run.warm, run)
  native.alarm(0)
  if not ok then native.raise("conflict", "the gate: the first slate: " .. tostring(why)) end
  run:set_n(PROBE_N)
  local users = draw_users(data, gate.probes, args.seed)
  for _, user in ipairs(users) do
    local id = ("user '%s'"):format(w:user_id(user))
    local ms, n, n_seen = probe(run, w, id, user, data:history(user), args)
    times[#times + 1] = ms
    if n == 0 and n_seen < data:n_items() then native.raise("conflict", ("the gate: %s: an empty slate"):format(id)) end
  end
  local strangers = { { "somebody new", {} }, { "somebody new with a history", users[1] and data:history(users[1]) or {} } }
  for _, stranger in ipairs(strangers) do
    local ms, n = probe(run, w, stranger[1], nil, stranger[2], args)
    times[#times + 1] = ms
    if n == 0 and data:n_items() > 0 then warnings[#warnings + 1] = ("%s gets an empty slate, and will be shown what is popular"):format(stranger[1]) end
  end
  table.sort(times)
  return { probes = #times, median_ms = times[math.ceil(#times / 2)], worst_ms = times[#times] }
end

-- Challenger against champion on the validation fold, over the same users.
local function measure(gate, path, args, w, progress, warnings)
  if not gate.metric then return nil end
  local against = args.champion and inside(args.champion) .. "/composition.yaml"
  if not against or not native.exists(against) then
    warnings[#warnings + 1] = ("there is no champion to compare %s with"):format(gate.metric)
    return nil
  end
  local cutoffs, k = { 5, 10, 20 }, gate.k
  if k ~= 5 and k ~= 10 and k ~= 20 then cutoffs = { k } end
  local function values(composition)
    local result = world.evaluate { composition = composition, data = w, fold = "valid", seed = args.seed, users = gate.users, per_user = { gate.metric },
      cutoffs = cutoffs, bootstrap = 0, progress = progress }
    local list = result.per_user[gate.metric]
    if not list then native.raise("invalid", ("the gate's metric '%s' cannot be measured on these data"):format(gate.metric)) end
    return native.vector(list), result.metrics[gate.metric].value, result.n_users
  end
  local new, challenger, n = values(path)
  local old, champion = values(against)
  local d = native.paired_bootstrap(old, new, args.seed, RESAMPLES)
  local found = { metric = gate.metric, champion = champion, challenger = challenger, margin = gate.margin, n_users = n,
    difference = { value = d.value, low = d.low, high = d.high } }
  if d.high < -gate.margin * math.abs(champion) then
    local words = "the gate: %s is %.4f, the champion's %.4f: a difference of %.4f [%.4f, %.4f] over %d users, worse than the margin of %g %%"
    native.raise("conflict", words:format(gate.metric, challenger, champion, d.value, d.low, d.high, n, gate.margin * 100))
  end
  return found
end

-- ---- All of it ----------------------------------------------------------------------------------------------

-- progress(what, done, all, …) → a line of the log each few seconds.
local function reporter(version)
  local said = native.now()
  return function(what, done, all)
    if native.now() - said < SAY_S then return end
    said = native.now()
    native.log("info", ("staging %s: %s%s"):format(version:sub(1, 12), what, all and all > 0 and (", %d of %d"):format(done, all) or ""))
  end
end

local function recalls_of(list)
  local names = native.array {}
  for _, node in ipairs(list) do
    if node.bit and #names < 32 then names[#names + 1] = node.name end
  end
  return names
end

-- run{ composition (file, agent:NAME, a version or the beginning of its name), data, seed, champion (version), gate { probes, metric, margin, users } or
-- false, drop_state, deadline_ms, watchdog_ms (SIGALRM ends this process when one slate takes longer), live (further versions not to be pruned) } →
-- { version, composition (the file to load), files (to be watched), source, recalls, nodes, warnings, drops, migrated, gate { probes, median_ms, worst_ms,
-- metric { … } }, seconds }. Raises with all that is wrong; then nothing has changed but what is kept by content.
function stage.run(args)
  for key, value in pairs(args) do
    if value == native.null or value == "" then args[key] = nil end
  end
  local started, gate, warnings = native.now(), gate_of(args.gate), native.array {}
  local seed = args.seed or 1
  args.seed = seed
  if args.champion and not is_version(args.champion) then args.champion = stage.find(args.champion) or args.champion end
  local source, of_version = resolve(args.composition)
  local edited = compose.open(source)
  if of_version and edited.hash ~= of_version then
    native.raise("failed", ("%s: does what version %s does; it was changed"):format(source, edited.hash:sub(1, 12)))
  end
  local w = world.open(args.data)
  local c, about = stage.snapshot(edited, { source = source, parent = args.champion, of_version = of_version })
  local progress = reporter(c.hash)

  local changed = {}
  if args.champion and args.champion ~= c.hash then
    local old, why = verify(inside(args.champion), args.champion)
    if old then changed = carry.changes(c, old, w, seed)
    else warnings[#warnings + 1] = ("the champion's version cannot be read: whether its learning state is dropped is not known (%s)"):format(why) end
  end
  local drops = carry.drops(changed)
  if #drops > 0 and not args.drop_state then
    native.raise("conflict", ("would drop the learning state of %s; say drop_state to do so"):format(carry.text(drops)))
  end

  local run = runner.fit(c, w, { folds = ALL, seed = seed, progress = progress, state = "memory" })
  local report = smoke(run, w, gate, args, warnings) or { probes = 0 }
  report.metric = measure(gate, inside(c.hash) .. "/composition.yaml", args, w, progress, warnings)

  local migrated = native.array {}
  for _, change in ipairs(changed) do
    if change.node and change.node.agent.migrate then
      local name = change.agent
      if carry.migrate(change, args.champion, w) then migrated[#migrated + 1] = name
      else warnings[#warnings + 1] = ("%s has migrated its learning state before: it goes on with that"):format(name) end
    end
  end

  local nodes, recalls = native.array {}, recalls_of(run.list)
  for i, node in ipairs(run.list) do
    nodes[i] = { name = node.name, agent = node.agent.name, role = node.role, fitted = node.key ~= nil and not node.cached or nil }
  end
  run = nil -- luacheck: ignore
  collectgarbage() -- models and views are mapped: what serves maps its own
  collectgarbage()
  local live = native.array { c.hash, args.champion }
  for _, version in ipairs(args.live or {}) do live[#live + 1] = version end
  stage.prune { live = live }
  return {
    version = c.hash, composition = inside(c.hash) .. "/composition.yaml", source = about.source, parent = about.parent,
    files = of_version and native.array {} or native.array(edited.files), recalls = recalls,
    nodes = nodes, warnings = warnings, drops = drops, migrated = migrated, gate = report,
    seconds = native.now() - started,
  }
end

return stage
