-- feed.lua NAME SESSIONS - sessions a second of the simulated feed under one policy, chosen, stepped and counted; one number.

local feed = require "evection.feed"
local native = require "evection.native"

local name, sessions = arg[1], tonumber(arg[2])
local size = { small = { 1000, 200, 8, 10 }, plain = { 10000, 1000, 8, 10 }, large = { 200000, 20000, 16, 20 } }
local users, items, dims, places = unpack(size[name:match "^%a+"])
local f = feed.new { users = users, items = items, dims = dims, places = places }
local b, clicks, shown = f:batch(4096), feed.vector(items), feed.vector(items)
local u, v, appeal = f:features(0.1)
local show = {
  random = function() b:show_random(3) end,
  top = function() b:show_top((clicks + 1) / (shown + 20)) end,
  ranked = function() b:show_ranked(u, v, appeal) end,
  sampled = function() b:show_sampled(u, v, appeal, 0.5) end,
}
local policy = show[name:match "%a+$"]
local done, start = 0, nil
for turn = 0, math.huge do
  if turn == 2 then start = native.now() end -- the first two warm up
  b:arrive()
  policy()
  b:step():tally(clicks, shown)
  f:tally_due(clicks)
  if turn >= 2 then done = done + #b end
  if done >= sessions then break end
end
print(done / (native.now() - start))
