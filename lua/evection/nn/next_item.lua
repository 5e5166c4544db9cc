-- next_item.lua - histories as vectors, each trained to be near the item that came next: what recurrent nets, transformers and
-- convolutions over sequences have in common. They differ in how they encode.

local samplers = require "evection.nn.samplers"
local losses = require "evection.nn.losses"

-- next_item {
--   net, data,          the net; the data whose histories are learnt from
--   item,               the items' vectors: a tensor (n, D)
--   encode = function(b) … end,   the batch → a vector (T, D) for each row of the sequences: of what came so far, itself included
--   bias = nil,         a tensor (n): added to an item's score
--   loss = full_softmax, sampler = what the loss wants, else uniform(1); scheme = {}: both, where they are not given beside it
--   size = 128, max_length = 50, position = "start", window = false    as net:sequences has them
--   scale = 1,          scores are multiplied by it
-- } → { batches, loss (a scalar), query (T, D), sampler }
return function(opts)
  local scheme = opts.scheme or {}
  local loss = opts.loss or scheme.loss or losses.full_softmax()
  local sampler = opts.sampler or scheme.sampler or samplers[type(loss) == "table" and loss.sampler or "uniform"](1)
  if type(sampler) ~= "table" or type(sampler.options) ~= "table" then error("next_item: the sampler is none of nn.sampler's", 2) end
  if type(opts.encode) ~= "function" then error("next_item: encode is a function of the batch", 2) end
  local item, scale = opts.item, opts.scale or 1

  local draw = { size = opts.size or 128, max_length = opts.max_length or 50, position = opts.position, window = opts.window }
  for name, value in pairs(sampler.options) do draw[name] = value end
  draw.whole = nil
  local b = opts.net:sequences(opts.data, draw)
  local query = opts.encode(b)
  local scaled = scale == 1 and query or query * scale

  -- What a sampler asks of pairs, of the items that came next.
  local batch = setmetatable({}, { __index = function(_, word)
    if word == "user" then error("next_item: a sampler that compares the batch's rows does not go with sequences", 0) end
    if word == "item" then return b.target end
    return b[(word:gsub("^item_log_", "target_log_"))]
  end })
  local q = { batch = batch, user = scaled, positive = item[b.target] }
  function q.items(ids) return item[ids] end
  function q.table() return item end
  if opts.bias then
    function q.bias(ids) return ids and opts.bias[ids] or opts.bias end
  end
  local positive = scaled:dot(q.positive)
  if opts.bias then positive = positive + opts.bias[b.target] end
  local negative, more = sampler:scores(q)
  return { batches = b, loss = loss(positive, negative, more), query = query, sampler = sampler }
end
