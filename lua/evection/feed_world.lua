-- feed_world.lua - a simulated feed as data: `--data feed:FILE.yaml`. The feed is lived for a while under a policy that explores, what
-- was clicked is the data; a composition that was fitted on them is then measured in the feed itself, whose truth is known.

local faults = require "evection.faults"
local feed = require "evection.feed"
local native = require "evection.native"
local sequential = require "evection.sequential"
local yaml = require "evection.yaml"

local feed_world = {}

local FORMAT = 1           -- raised when the same file gives other data
local SESSIONS = 25        -- of the log, a user
local BATCH, LIVE = 500, 20 -- sessions at a time; batches that a composition serves

-- The feed at the end of its log, and what was clicked: half of the slates at random, half the most clicked by then.
local function live(t)
  local f, events = feed.new(t), {}
  local n_items, places = f:option "items", f:option "places"
  local b, clicks, shown = f:batch(BATCH), feed.vector(n_items), feed.vector(n_items)
  for _ = 1, math.ceil(SESSIONS * f:option "users" / BATCH) do
    local day, generations = f:days(), f:items()
    b:arrive():show_random(7)
    b:show_top((clicks + 1) / (shown + 20), b:coin(0.5, 8)):step():tally(clicks, shown)
    local users, slates, clicked = b:users(), b:slates(), b:clicks()
    for i = 1, BATCH * places do
      if clicked[i] == 1 then
        local item = slates[i]
        events[#events + 1] = { users[math.floor((i - 1) / places) + 1], item, generations[item + 1], math.floor(day * 86400) }
      end
    end
    clicks, shown = clicks * 0.98, shown * 0.98
  end
  return f, events
end

-- The items that are alive at the end: another one's clicks say nothing of who has its number now.
local function write(f, events, path)
  local now, lines = f:items(), { "user_id:token\titem_id:token\ttimestamp:float" }
  for _, e in ipairs(events) do
    if now[e[2] + 1] == e[3] then lines[#lines + 1] = ("u%d\ti%d\t%d"):format(e[1], e[2], e[4]) end
  end
  native.mkdirs(path:match "^(.*)/")
  local text = ("%s.%d.inter"):format(path, native.pid())
  native.write_file(text, table.concat(lines, "\n") .. "\n")
  local ok, message = pcall(native.feed_import, text, path)
  native.remove(text)
  if not ok then error(message, 0) end
end

-- prepare(path of a YAML file) → path of the snapshot, the feed at the end of its log. The snapshot is made once for equal parameters.
function feed_world.prepare(file)
  local t, errors = yaml.load(file)
  faults.check(t, errors)
  local found = feed.check(type(t) == "table" and t or {}, file)
  if type(t) ~= "table" then found:add(1, "a feed's file is a table of parameters") end
  if #found > 0 then faults.check(nil, found) end
  t.about = nil
  local path = ("%s/data/feed-%s.evs"):format(native.home, native.hash(FORMAT .. native.json_encode(t)):sub(1, 16))
  local f, events = live(t)
  if not native.exists(path) then write(f, events, path) end
  return path, f
end

-- The first items of each user's slate, by the feed's numbers of users; those whom the data do not know are asked for as new.
local function slates_of(w, run, known, progress)
  local n_users, places, snapshot = w.feed:option "users", w.feed:option "places", w.snapshot
  local number, index, some, slates = {}, {}, {}, {}
  for item = 0, snapshot:n_items() - 1 do number[item] = tonumber(snapshot:item_id(item):match "%d+") end
  for u = 0, n_users - 1 do
    index[u] = snapshot:find_user("u" .. u)
    if index[u] then some[#some + 1] = index[u] end
  end
  local requests, row, stranger = native.requests(known.data, some), 0, nil
  local function items(slate)
    local list = {}
    for i = 1, math.min(places, #slate) do list[i] = number[slate:item(i)] end
    return list
  end
  for u = 0, n_users - 1 do
    if index[u] then
      row = row + 1
      slates[u] = items(run:answer(requests, row))
    else
      stranger = stranger or items(run:answer(native.request(snapshot, nil, {}, {}), 1))
      slates[u] = stranger
    end
    if u % 256 == 0 then
      if native.interrupted() then native.raise("failed", "interrupted") end
      if progress then progress("serving the feed", u, n_users) end
    end
  end
  return slates
end

-- measure(world, runner, known view, users, metrics, progress) adds what the feed says of the composition:
--   feed_clicks, feed_worth  expected clicks of the slates, and their worth, were the users to come at the end of the log; mean over users
--   feed_live                clicks a session, of sessions that it serves from then on, with a confidence sequence
function feed_world.measure(w, run, known, users, metrics, progress)
  local slates, n_users, places = slates_of(w, run, known, progress), w.feed:option "users", w.feed:option "places"
  local all = w.feed:copy():batch(n_users):everyone()
  for u = 0, n_users - 1 do all:show(u + 1, slates[u]) end
  local worth, expected = all:worth(), all:expected()
  local of = { feed_worth = 0, feed_clicks = 0 }
  for _, user in ipairs(users) do
    local u = tonumber(w.snapshot:user_id(user):match "%d+")
    of.feed_worth = of.feed_worth + worth[u + 1] / #users
    for p = 1, places do of.feed_clicks = of.feed_clicks + expected[u * places + p] / #users end
  end
  for name, value in pairs(of) do metrics[name] = { value = value, low = value, high = value } end
  local batch, mean = w.feed:copy():batch(BATCH), sequential.mean { kind = "drifting", high = places } -- they tire of a model that stands still
  for _ = 1, LIVE do
    local who = batch:arrive():users()
    for i = 1, BATCH do batch:show(i, slates[who[i]]) end
    mean:add(batch:step():rewards())
  end
  local low, high, value = mean:interval()
  metrics.feed_live = { value = value, low = low, high = high }
end

return feed_world
