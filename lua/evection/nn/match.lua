-- match.lua - users and items as vectors, scored by their dot product and trained on pairs: what mf, two-tower models and graph
-- convolutions have in common. They differ in what the vectors are.

local losses = require "evection.nn.losses"
local samplers = require "evection.nn.samplers"

-- match {
--   net, data,          the net; the pairs (users with their items)
--   user, item,         vectors: a tensor (n, D), or a function from ids to vectors, which is also given the batch and the
--                       word that the ids have in it: of(b.negative, b, "negative") may look at b.negative_known
--   bias = nil,         a tensor (n_items): added to an item's score
--   loss = bpr, sampler = what the loss wants, else uniform(1)
--   scheme = {},        loss, sampler, regulariser and cosine, where they are not given beside it
--   size = 2048,        pairs a batch
--   draw = nil,         further options of net:pairs, such as { id_dropout = 0.1, known_only = true }
--   cosine = false,     scores are cosines (what cosine_contrastive wants, and has)
--   regulariser = nil, regularised = { user =, item = } the vectors it sees (default: the same)
-- } → { batches, loss (a scalar), positive (B), negative (B, n), cosine, sampler }
local function match(opts)
  local o = {}
  for _, word in ipairs { "loss", "sampler", "regulariser", "cosine" } do o[word] = (opts.scheme or {})[word] end
  for name, value in pairs(opts) do o[name] = value end
  local loss = o.loss or losses.bpr()
  local sampler = o.sampler or samplers[type(loss) == "table" and loss.sampler or "uniform"](1)
  if type(sampler) ~= "table" or type(sampler.options) ~= "table" then error("match: the sampler is none of nn.sampler's", 2) end
  local cosine = o.cosine
  if cosine == nil then cosine = type(loss) == "table" and loss.cosine or false end

  local draw = { size = o.size or 2048 }
  for name, value in pairs(sampler.options) do draw[name] = value end
  for name, value in pairs(o.draw or {}) do draw[name] = value end
  local b = o.net:pairs(o.data, draw)

  local function lookup(of)
    if type(of) == "function" then return of end
    return function(ids) return of[ids] end
  end
  local function sphere(x) return cosine and x:normalise() or x end
  local user, item = lookup(o.user), lookup(o.item)
  local u, i = user(b.user, b, "user"), item(b.item, b, "item")
  local q = { batch = b, user = sphere(u), positive = sphere(i) }
  local drawn -- as they are, for the regulariser
  function q.items(ids)
    drawn = item(ids, b, "negative")
    return sphere(drawn)
  end
  function q.table()
    if type(o.item) == "function" then error("match: all items are scored only when item is a tensor", 0) end
    return sphere(o.item)
  end
  if o.bias then
    function q.bias(ids) return ids and o.bias[ids] or o.bias end
  end
  local positive = q.user:dot(q.positive)
  if o.bias then positive = positive + o.bias[b.item] end
  local negative, more = sampler:scores(q)
  local total = loss(positive, negative, more)

  if o.regulariser then
    if o.regularised then
      local bu, bi = lookup(o.regularised.user), lookup(o.regularised.item)
      u, i = bu(b.user, b, "user"), bi(b.item, b, "item")
      drawn = drawn and bi(b.negative, b, "negative")
    end
    if drawn then total = total + o.regulariser(u, i, drawn)
    else total = total + o.regulariser(u, i) end
  end
  return { batches = b, loss = total, positive = positive, negative = negative, cosine = cosine, sampler = sampler }
end

-- A scheme's parts as the text of a line: "nn.loss.bpr, nn.sampler.uniform { n = 4 }".
local function describe(scheme)
  local parts = {}
  for _, name in ipairs { "loss", "sampler", "regulariser", "optimiser", "schedule" } do
    if scheme[name] ~= nil then parts[#parts + 1] = tostring(scheme[name]) end
  end
  return table.concat(parts, ", ")
end

return { match = match, describe = describe }
