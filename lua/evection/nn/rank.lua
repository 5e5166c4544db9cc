-- rank.lua - what nets that rank have in common: rows as fields, log loss, what holds the vectors back, and the loop. They differ in
-- how a logit comes of the fields.

local native = require "evection.native"
local fields = require "evection.nn.fields"
local losses = require "evection.nn.losses"
local object = require "evection.nn.object"
local train = require "evection.nn.train"

-- rank {
--   data,               of an agent of role rank
--   knobs = {           others may stand among them
--     n_dims = 16, field_dropout = 0,     of nn.fields
--     l2 = 0, own_l2 = 1,                 l2 · f.l2(own_l2) is added to the log loss
--     size, negatives_per_positive, use_features, use_ids, held, held_by,      of net:rows
--     epochs, patience,                   of nn.train; with rows that are held, their log loss ends it
--   },
--   scheme = {},        optimiser, schedule of nn.train
--   logit = function(net, f) … end,     the fields → a logit (B)
-- } → model
return function(opts)
  if type(opts) ~= "table" or type(opts.knobs) ~= "table" or type(opts.logit) ~= "function" then
    error("rank { data =, knobs =, scheme =, logit = function(net, f) … end }", 2)
  end
  local k = opts.knobs
  local net = native.net { data = opts.data }
  local b = net:rows(opts.data, {
    size = k.size, negatives_per_positive = k.negatives_per_positive, use_features = k.use_features, use_ids = k.use_ids, held = k.held, held_by = k.held_by,
  })
  local f = fields(net, b, k.n_dims or 16, { dropout = k.field_dropout, scale = k.scale })
  local logit = opts.logit(net, f)
  local log_loss, l2 = losses.log_loss()(logit, b.label), object.number(k.l2 or 0, 0, 1e6, "rank: l2")
  local model = train.train {
    data = opts.data, net = net, batches = b, loss = l2 > 0 and log_loss + f.l2(k.own_l2) * l2 or log_loss, held_loss = log_loss,
    scheme = opts.scheme, epochs = k.epochs, patience = k.patience,
    model = function() return opts.data:network { logit = logit, batches = b } end,
  }
  return model -- no tail call: errors name the script's line by counting frames
end
