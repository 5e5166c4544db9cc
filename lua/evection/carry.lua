-- carry.lua - learning state from one version to the next: what goes on, what would be dropped, and what an agent migrates.
--
-- A state goes on by the agent's name, its own and its shape (runner.states): nothing is to be done. What the champion keeps and the new
-- version would not open is lost for it, unless the agent has `migrate`: that gets copies of the old states and new ones in files beside, which
-- are moved to their places after a journal of the moves is written. Whatever kills the process, either nothing has changed or all will have.

local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"

local carry = {}

-- carry.read_json(path) → the table that a small file of JSON says; nil: it is not there, or damaged.
function carry.read_json(path)
  if not native.exists(path) then return nil end
  local ok, value = pcall(function() return native.json_decode(native.read_file(path, 1048576)) end)
  return ok and type(value) == "table" and value or nil
end

local function shape(s)
  if s.n then return ("%d numbers"):format(s.n) end
  local o = s.options
  return ("%s, n %d%s, window %s%s"):format(o.kind, o.n or 1, o.n_dims and (", n_dims %d"):format(o.n_dims) or "", o.window or "as usual",
    o.diagonal and ", diagonal" or "")
end

local function fresh(options)
  local copy = {}
  for key, value in pairs(options) do copy[key] = value end
  return copy
end

-- Whether a state has learnt anything. One that cannot be opened might have.
local function holds(s)
  if not native.exists(s.path) then return false end
  local ok, result = pcall(function()
    local state = runner.open_one(s, s.path)
    if s.options then
      local stats = state:stats()
      return stats.updates > 0 or stats.shown > 0
    end
    for i = 0, s.n - 1 do
      if state:get(i) ~= 0 then return true end
    end
    return false
  end)
  return not ok or result
end

-- A state as it stands now, in this process's memory. What was shown and is not settled stays behind.
local function copy_of(s)
  if s.options then
    local draft = ("%s.draft%d"):format(s.path, native.pid())
    local copy = native.arms(nil, fresh(s.options))
    native.arms_snapshot(native.arms(s.path, s.options), draft)
    local ok, why = pcall(native.arms_restore, copy, draft)
    native.remove(draft)
    if not ok then error(why, 0) end
    return copy
  end
  local live, copy = native.state(s.path, s.n), native.state(nil, s.n)
  for i = 0, s.n - 1 do
    local value = live:get(i)
    if value ~= 0 then copy:add(i, value) end
  end
  return copy
end

local function journal_of(w, name) return ("%s/%s.migration"):format(runner.state_folder(w), name) end

-- Ends what a journal says is under way: each move is made, if it was not yet.
local function finish(path, journal)
  for _, move in ipairs(journal.moves or {}) do
    if native.exists(move.from) then native.rename(move.from, move.to) end
  end
  journal.moves = nil
  native.write_file(path, native.json_encode(journal))
end

-- What a process that was killed left of an agent's migration; the journal is done with.
local function sweep(folder, agent)
  for _, file in ipairs(native.list(folder)) do
    local pid = file:sub(1, #agent + 1) == agent .. "." and file:match "%.draft(%d+)"
    if pid and not native.exists("/proc/" .. pid) then native.remove(folder .. "/" .. file) end
  end
end

-- The agent of the new composition that takes over what the old one's of that name knew; nil: there is none.
local function heir(c, name)
  local found
  for _, node in ipairs(c.nodes) do
    if node.agent.name == name then
      if node.agent.migrate then return node end
      found = found or node
    end
  end
  return found
end

-- What the champion keeps that the new version would not open, by agent: { name, lost = {states}, new = {states}, node }
function carry.changes(c, old, w, seed)
  local opened, before, by_agent, list = {}, {}, {}, {}
  for _, s in ipairs(runner.states(w, c.nodes, seed)) do opened[s.file] = s end
  for _, s in ipairs(runner.states(w, old.nodes, seed)) do before[s.file] = s end
  for _, file in ipairs(compose.sorted_keys(before)) do
    local s = before[file]
    if not opened[file] and holds(s) then
      local change = by_agent[s.agent]
      if not change then
        change = { agent = s.agent, lost = {}, new = {}, node = heir(c, s.agent) }
        by_agent[s.agent], list[#list + 1] = change, change
      end
      change.lost[#change.lost + 1] = s
    end
  end
  for _, file in ipairs(compose.sorted_keys(opened)) do
    local change = by_agent[opened[file].agent]
    if change and not before[file] then table.insert(change.new, opened[file]) end
  end
  return list
end

function carry.drops(list)
  local drops = native.array {}
  for _, change in ipairs(list) do
    if not change.node or not change.node.agent.migrate then
      for _, s in ipairs(change.lost) do
        drops[#drops + 1] = { agent = s.agent, state = s.name, shape = shape(s), why = change.node and "it has another shape now" or "the agent is not in it" }
      end
    end
  end
  return drops
end

function carry.text(drops)
  local parts = {}
  for i, d in ipairs(drops) do parts[i] = ("%s.%s (%s: %s)"):format(d.agent, d.state, d.shape, d.why) end
  return table.concat(parts, ", ")
end

-- One agent's states, carried over by itself. All new files come to be, or none; the old ones are not touched.
function carry.migrate(change, old_version, w)
  local node, path, pid = change.node, journal_of(w, change.agent), native.pid()
  native.mkdirs(runner.state_folder(w))
  local parts = { node.agent.hash }
  for _, s in ipairs(change.lost) do parts[#parts + 1] = s.file end
  for _, s in ipairs(change.new) do parts[#parts + 1] = s.file end
  local key, journal = native.hash(table.concat(parts, "\n")), carry.read_json(path)
  if journal and journal.moves then finish(path, journal) end
  sweep(runner.state_folder(w), change.agent)
  if journal and journal.key == key then return false end -- this text has done it: its state has learnt since
  local states, moves = {}, native.array {}
  for _, s in ipairs(change.lost) do
    states[s.name] = states[s.name] or {}
    states[s.name].old = copy_of(s)
  end
  for _, s in ipairs(change.new) do
    local draft = ("%s.draft%d"):format(s.path, pid)
    native.remove(draft)
    states[s.name] = states[s.name] or {}
    states[s.name].new = runner.open_one(s, draft)
    moves[#moves + 1] = { from = draft, to = s.path, state = s }
  end
  local ok, why = pcall(node.agent.migrate, old_version, states)
  if ok then
    ok, why = pcall(function()
      local all = native.array {}
      for _, move in ipairs(moves) do
        local s = move.state
        if s.options then -- after a crash of the machine the snapshot is what counts
          native.arms_snapshot(states[s.name].new, move.from .. ".snapshot")
          all[#all + 1] = { from = move.from .. ".snapshot", to = move.to .. ".snapshot" }
        end
        if native.exists(move.to) then all[#all + 1] = { from = move.to, to = move.to .. ".before" } end
        all[#all + 1] = { from = move.from, to = move.to }
      end
      native.write_file(path, native.json_encode { key = key, old_version = old_version, at_ms = native.wall_ms(), moves = all }) -- from here on it is done
      finish(path, carry.read_json(path))
    end)
  end
  if not ok then
    for _, move in ipairs(moves) do
      native.remove(move.from)
      native.remove(move.from .. ".snapshot")
    end
    native.raise("failed", ("node %s: migrate: %s; nothing was changed"):format(node.name, tostring(why)))
  end
  return true
end

return carry
