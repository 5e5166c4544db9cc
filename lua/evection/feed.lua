-- feed.lua - a simulated feed in which the truth is known: parameters from a table or a YAML file, sessions in batches.
-- docs/reference/feed.md says what happens in it.

local faults = require "evection.faults"
local native = require "evection.native"
local yaml = require "evection.yaml"

local feed = {}

local function check_number(t, p, value, found)
  if type(value) ~= "number" or value ~= value then found:add(yaml.line(t, p.name), "%s must be a number, not '%s'", p.name, tostring(value))
  elseif value < p.low or value > p.high then found:add(yaml.line(t, p.name), "%s: %g is not between %g and %g", p.name, value, p.low, p.high)
  elseif p.whole and value % 1 ~= 0 then found:add(yaml.line(t, p.name), "%s: %g is not a whole number", p.name, value) end
end

local function check_fields(t, parameters, others, what, found)
  local known, names = {}, {}
  for _, p in ipairs(parameters) do
    known[p.name], names[#names + 1] = p, p.name
    if t[p.name] ~= nil then check_number(t, p, t[p.name], found) end
  end
  for _, name in ipairs(others) do names[#names + 1], known[name] = name, true end
  for key in pairs(t) do
    if not known[key] then found:add(yaml.line(t, key), "%s has no '%s'%s", what, tostring(key), faults.suggest(key, names)) end
  end
end

-- check(table, file) → list of all that is wrong, empty when nothing is.
function feed.check(t, file)
  local found = faults.new(file)
  local parameters, of_segment = native.feed_parameters()
  check_fields(t, parameters, { "segments", "about" }, "a feed", found)
  if type(t.places or 1) == "number" and type(t.items or 1e9) == "number" and (t.places or 10) > (t.items or 500) then
    found:add(yaml.line(t, "places"), "places: %g places for %g items", t.places or 10, t.items or 500)
  end
  if t.segments == nil then return found end
  if type(t.segments) ~= "table" or #t.segments < 1 or #t.segments > 8 then
    found:add(yaml.line(t, "segments"), "segments must be a list of 1 to 8 of { name, share, activity, click, patience, drift }")
    return found
  end
  for i, segment in ipairs(t.segments) do
    if type(segment) ~= "table" then found:add(yaml.line(t.segments, i), "segment %d is a %s", i, type(segment))
    else
      check_fields(segment, of_segment, { "name" }, "a segment", found)
      local named = type(segment.name) == "string" and #segment.name <= 23
      if not named then found:add(yaml.line(t.segments, i), "segment %d needs a name of at most 23 characters", i) end
    end
  end
  return found
end

-- new(table | path of a YAML file) → a feed, at its beginning. Raises a list of what is wrong. A feed has
--   f:sessions(), f:days(), f:option(name)   how far it is; a parameter
--   f:weights()      → vector: probability that the next to come is each user       f:segments() → vector of 1 …, names
--   f:items()        → generations, ages in days                                  f:features(noise) → users, items, appeal
--   f:due()          → list of conversions that became known { item, user, session, days }; f:tally_due(vector) counts them
--   f:copy()         → the same future, to be given other slates
--   f:batch(n)       → n sessions with the users that arrive. A batch has
--     b:show_random([seed[, mask]])  b:show_top(scores[, mask])  b:show_ranked(users, items[, bias[, mask]])
--     b:show_sampled(users, items, bias | nil, temperature[, seed[, mask]])  b:show(row, items)  b:put(slates)     what is shown
--     b:step()       they happen            b:arrive()  the users of the next n
--     b:users()  b:slates()  b:clicks()  b:rewards(["any"])  b:propensities()  b:expected()        columns, as vectors
--     b:worth()      → vector: what each slate would be worth to its user now      b:everyone([first])  all users instead
--     b:coin(share[, seed]) → vector of 0 and 1      b:tally(clicks, shown[, mask])  adds up for each item
function feed.new(source)
  local t, file = source, "feed"
  if type(source) == "string" then
    local errors
    file = source
    t, errors = yaml.load(source)
    faults.check(t, errors)
  end
  if type(t) ~= "table" then native.raise("invalid", "a feed is made from a table or the path of a YAML file") end
  local found = feed.check(t, file)
  if #found > 0 then faults.check(nil, found) end
  return native.feed(t)
end

-- value(f, show[, n]) → the true value now of a policy, the mean worth of its slates over all users by how often they come, and
-- the probabilities of clicks per session. show(batch) fills the batch's slates. Users come n at a time (default 4096).
function feed.value(f, show, n)
  local users, weights = f:option "users", f:weights()
  local batch, worth, clicks = f:batch(math.min(n or 4096, users)), 0, 0
  local places = f:option "places"
  for first = 0, users - 1, #batch do
    batch:everyone(first)
    show(batch)
    local w, expected = batch:worth(), batch:expected()
    for i = 1, math.min(#batch, users - first) do
      local share, sum = weights[first + i], 0
      for p = 1, places do sum = sum + expected[(i - 1) * places + p] end
      worth, clicks = worth + share * w[i], clicks + share * sum
    end
  end
  return worth, clicks
end

-- vector(n | list) → n zeros, or these numbers: what scores, counts and masks are made of. +, -, *, / work on whole vectors.
function feed.vector(what) return native.vector(what) end

-- parameters() → list of { name, about, default, low, high, whole }, the same of a segment.
function feed.parameters() return native.feed_parameters() end

return feed
