-- samplers.lua - where negatives come from.
--
-- A sampler says what the batches must draw (options, for net:pairs) and how the drawn become scores: sampler:scores(q) with
-- q = { user (B, D), positive items (B, D), batch, items(ids) → their vectors, table() → all of them (R, D), bias(ids) }
-- → negative scores (B, n), and what the loss may know of them (losses.lua).

local object = require "evection.nn.object"

local samplers = {}

local methods = {}
local make = object.kind(methods)

local function add_bias(scores, q, ids)
  if not q.bias then return scores end
  return scores + q.bias(ids)
end

-- Items that the batches drew: for each row its own (B, n), or with `shared` the same for all (n).
function methods:scores(q) -- luacheck: no self
  local b = q.batch
  local drawn = q.items(b.negative)
  local scores
  if #b.negative:shape() == 1 then scores = q.user:matmul(drawn, false, true)
  else scores = q.user:dot(drawn) end
  return add_bias(scores, q, b.negative), { log_q = function() return b.item_log_q, b.negative_log_q end }
end

local function drawn(word, n, given, options)
  object.number(n, 1, 65536, word .. ": the number of negatives", 4)
  if n % 1 ~= 0 then error(word .. ": the number of negatives is whole", 4) end
  local o = object.options(given, options, word, 4)
  o.negatives = n
  local shown = { n = n }
  for name, value in pairs(given or {}) do shown[name] = value end
  return make(object.show("nn." .. word, shown), { options = o })
end

-- n items, all equally likely. shared: the same for every row of a batch. seen: "avoid" what the user has, or "allow" it.
function samplers.uniform(n, options)
  local sampler = drawn("sampler.uniform", n, options, { shared = false, seen = "avoid" })
  sampler.options.sampler = "uniform"
  return sampler
end

-- n items, each as likely as its number of interactions to the power (word2vec's ¾: Mikolov et al. 2013).
function samplers.popularity(n, options)
  local sampler = drawn("sampler.popularity", n, options, { power = 0.75, shared = false, seen = "avoid" })
  sampler.options.sampler = "popularity"
  return sampler
end

-- n items, a share of them drawn each way: sampler.mixed(8, { uniform = 0.5, popularity = 0.5 }).
function samplers.mixed(n, options)
  local sampler = drawn("sampler.mixed", n, options, { uniform = 0.5, popularity = 0.5, power = 0.75, shared = false, seen = "avoid" })
  local o = sampler.options
  o.mix = { uniform = o.uniform, popularity = o.popularity }
  o.uniform, o.popularity = nil, nil
  return sampler
end

-- The k best-scored of what another sampler gives (Zhang et al. 2013): sampler.hard(4, sampler.uniform(64)).
function samplers.hard(k, of)
  object.number(k, 1, 65536, "sampler.hard: how many are kept")
  if type(of) ~= "table" or not of.scores then error("sampler.hard(k, sampler): the second is no sampler", 2) end
  return make(("nn.sampler.hard(%g, %s)"):format(k, tostring(of)), { options = of.options, scores = function(_, q)
    local scores, more = of:scores(q)
    if more.own then error("sampler.hard: the row's own positive is among what it would choose from", 0) end
    return scores:topk(k), {} -- how likely a chosen one was is not known any more
  end })
end

-- The positives of the other rows (Hidasi et al. 2016). The same item in another row, and another item of the same user, are
-- no negatives: they count as if their score were −10⁹.
function samplers.in_batch()
  return make("nn.sampler.in_batch()", { options = { negatives = 0, whole = true }, scores = function(_, q)
    local b = q.batch
    local scores = add_bias(q.user:matmul(q.positive, false, true), q, b.item)
    scores = scores:mask_equal(b.item, b.item):mask_equal(b.user, b.user)
    return scores, { own = true, log_q = function() return b.item_log_share, b.item_log_share end }
  end })
end

-- Every item there is.
function samplers.all()
  return make("nn.sampler.all()", { options = { negatives = 0 }, scores = function(_, q)
    local scores = q.user:matmul(q.table(), false, true)
    if q.bias then scores = scores + q.bias() end
    return scores, { own = true }
  end })
end

return samplers
