-- nn.lua - training schemes: nets of tensors, layers, losses, samplers, schedules, optimisers, and the loop.
--
-- A script records operators on tensors; C runs them. A scheme is a table of these parts, so that one text can say it whole:
--   { loss = nn.loss.bpr(), sampler = nn.sampler.popularity(4), optimiser = nn.adam { rate = 0.01 } }
-- docs/reference/nn.md lists the vocabulary with its equations.

local native = require "evection.native"
local fields = require "evection.nn.fields"
local layers = require "evection.nn.layers"
local losses = require "evection.nn.losses"
local match = require "evection.nn.match"
local next_item = require "evection.nn.next_item"
local optimisers = require "evection.nn.optimisers"
local rank = require "evection.nn.rank"
local regularisers = require "evection.nn.regularisers"
local samplers = require "evection.nn.samplers"
local schedules = require "evection.nn.schedules"
local train = require "evection.nn.train"

local nn = {
  loss = losses, sampler = samplers, schedule = schedules, regulariser = regularisers,
  match = match.match, next_item = next_item, fields = fields, rank = rank, describe = match.describe, train = train.train,
}
for name, layer in pairs(layers) do nn[name] = layer end
for name, optimiser in pairs(optimisers) do nn[name] = optimiser end

-- net { seed = 1, data = nil, max_mb = half of the machine's memory }: a graph to record on. data: of whose fit the seed is.
function nn.net(options) return native.net(options) end

-- op(name, tensor, …): any operator by name; tensor:name(…) is the same.
function nn.op(name, tensor, ...) return tensor:op(name, ...) end

-- concat({ x, y, … }, dim): side by side along a dimension (default the last).
function nn.concat(list, dim)
  if type(list) ~= "table" or not list[1] then error("concat({ tensor, … }, dim) wants a list", 2) end
  local args = { unpack(list, 2) }
  args[#args + 1] = dim or -1
  return list[1]:concat(unpack(args))
end

-- holdout(data, { share = 0.1, users = nil, seed = nil }) → rest, held: what a training learns from and, of at most so many
-- users, what it is validated on while it goes. Both are cut from `data`: the validation fold stays unseen.
function nn.holdout(data, options)
  options = options or {}
  for name in pairs(options) do
    if name ~= "share" and name ~= "users" and name ~= "seed" then error(("holdout has no option '%s'"):format(tostring(name)), 2) end
  end
  return data:split(options.share or 0.1, options.seed, options.users)
end

-- scheme(knobs, values): what the program of the knob `scheme` gives; it sees the knobs and the values, { nn = nn } at least.
function nn.scheme(knobs, values)
  local seen = {}
  for name, value in pairs(knobs) do seen[name] = value end
  for name, value in pairs(values) do seen[name] = value end
  return knobs.scheme(seen)
end

-- sizes(from, hidden, layers, to) → { from, hidden, …, hidden, to }, of an mlp; without `to` hidden is the last.
function nn.sizes(from, hidden, n_layers, to)
  local list = { from }
  for _ = 1, n_layers do list[#list + 1] = hidden end
  list[#list + 1] = to
  return list
end

-- The mean of tensors of one shape.
function nn.mean_of(list)
  local total = list[1]
  for i = 2, #list do total = total + list[i] end
  return total * (1 / #list)
end

return nn
