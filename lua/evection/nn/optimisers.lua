-- optimisers.lua - how parameters follow their gradients: sgd, momentum, adagrad, adam, adamw.
--
-- nn.adam { rate = 0.01, weight_decay = 1e-4, clip_norm = 1 }: rate is what a schedule scales. A parameter that is only ever
-- gathered from moves in the rows that a step touched, moments and decay included. The rules stand in runtime/learn/learn.h.

local object = require "evection.nn.object"

local optimisers = {}

local make = object.kind {}

local kinds = {
  sgd = { rate = 0.1 },                                             -- w −= rate (g + decay w)
  momentum = { rate = 0.01, momentum = 0.9 },                       -- Polyak 1964
  adagrad = { rate = 0.05, epsilon = 1e-10 },                       -- Duchi, Hazan, Singer 2011
  adam = { rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 },  -- Kingma, Ba 2015
  adamw = { rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 }, -- Loshchilov, Hutter 2019: decay beside the gradient
}

for kind, own in pairs(kinds) do
  optimisers[kind] = function(options)
    local defaults = { weight_decay = 0, clip_norm = 0 }
    for name, value in pairs(own) do defaults[name] = value end
    local o = object.options(options, defaults, "nn." .. kind)
    object.number(o.rate, 0, 1e6, "nn." .. kind .. ": rate")
    local rate = o.rate
    o.rate, o.kind = nil, kind
    return make(object.show("nn." .. kind, options), { rate = rate, options = o })
  end
end

return optimisers
