-- sequential.lua - statistics that may be looked at after every event. docs/reference/sequential.md has the formulas.

local native = require "evection.native"

local sequential = {}

-- mean{ kind = "betting" | "bernstein" | "drifting", confidence = 0.95, low = 0, high = 1 } → a confidence sequence of a mean.
--   s:add(reward | rewards[, weight | weights])   weights: importance weights, of mean 1
--   s:interval() → low, high, value               holds at all times at once
--   s:drifted()                                    the mean was not constant after all (betting and bernstein)
--   #s, s:save() → text
function sequential.mean(options) return native.sequential_mean(options) end

-- canary{ confidence = 0.95, caution = 0.95, margin = 0, harm = 0, low = 0, high = 1 } → a challenger against the champion.
--   c:add(is challenger, reward, share) → "go on", "promote" or "roll back"; lists or vectors of the first two, too
--   c:result() → { difference, low, high, p, better, worse, champion, challenger, n_champion, n_challenger, decision }
--   c:save() → text
function sequential.canary(options) return native.sequential_canary(options) end

-- adjust(values, "holm" | "bh" | "by" | "e-bh") → adjusted p-values: take those at or below the level. e-bh: values are e-values.
function sequential.adjust(values, how) return native.sequential_adjust(values, how) end

-- online{ method = "e-lond" | "lord++", level = 0.05 } → challengers one after the other.
--   o:test(value) → whether it is a discovery, the level it was tested at    e-lond: an e-value; lord++: a p-value
--   o:level() → of the next; o:save() → text
function sequential.online(options) return native.sequential_online(options) end

-- load(text) → what was saved, whichever it was.
function sequential.load(text) return native.sequential_load(text) end

return sequential
