-- Two policies in one loop: what everybody clicks lately, against what one's own segment clicks. A canary looks after every batch.
local feed, sequential = require "evection.feed", require "evection.sequential"

local f = feed.new(arg[1] or "examples/feed/feed.yaml")
local share, n_items, segment_of = 0.2, f:option "items", f:segments()
local canary, batch = sequential.canary { caution = 0.99 }, f:batch(500)

local function counts() return { clicks = feed.vector(n_items), shown = feed.vector(n_items) } end
local function rates(c) return (c.clicks + 1) / (c.shown + 40) end
local all, own = counts(), { counts(), counts() }

local function masks(b) -- which rows are of each segment
  local users, of = b:users(), { feed.vector(#b), feed.vector(#b) }
  for i = 1, #b do of[segment_of[users[i] + 1]]:set(i, 1) end
  return of
end
local function champion(b) b:show_top(rates(all)) end
local function challenger(b, rows)
  for s, mask in ipairs(masks(b)) do b:show_top(rates(own[s]), rows and mask * rows or mask) end
end

for _ = 1, 20 do -- at first something of everything
  batch:arrive():show_random():step():tally(all.clicks, all.shown)
  for s, mask in ipairs(masks(batch)) do batch:tally(own[s].clicks, own[s].shown, mask) end
end
local decision, batches = "go on", 0
while decision == "go on" and batches < 200 do
  batches = batches + 1
  local tried = batch:arrive():coin(share)
  champion(batch)
  challenger(batch, tried)
  decision = canary:add(tried, batch:step():rewards "any", share)
  for _, c in ipairs { all, own[1], own[2] } do c.clicks, c.shown = c.clicks * 0.98, c.shown * 0.98 end -- items and tastes change
  batch:tally(all.clicks, all.shown)
  for s, mask in ipairs(masks(batch)) do batch:tally(own[s].clicks, own[s].shown, mask) end
end

local r, one, other = canary:result(), select(2, feed.value(f, champion)), select(2, feed.value(f, challenger))
print(("%s after %d sessions, day %.1f"):format(decision, r.n_champion + r.n_challenger, f:days()))
print(("sessions with a click: %.3f and %.3f, difference within [%.3f, %.3f]"):format(r.champion, r.challenger, r.low, r.high))
print(("the truth now, clicks a session: %.3f and %.3f"):format(one, other))
