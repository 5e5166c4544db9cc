-- regularisers.lua - what is added to a loss: called with the rows that take part in a batch, each (N, …); a scalar comes back.

local object = require "evection.nn.object"

local regularisers = {}

local make = object.kind({}, function(self, ...) return self.of(...) end)

-- One row a first index: (B, n, D) → (B, n D).
local function flat(x)
  local shape = x:shape()
  if #shape == 2 then return x end
  local width = 1
  for i = 2, #shape do width = width * shape[i] end
  return x:reshape(-1, width)
end

local function sum(list, of)
  local total
  for _, x in ipairs(list) do
    local term = of(flat(x))
    total = total and total + term or term
  end
  return total
end

-- weight / 2 · mean |row|², summed over what is given: the L2 term of BPR (Rendle et al. 2009) and LightGCN (He et al. 2020) on
-- the embeddings that a batch touches.
function regularisers.l2(weight)
  object.number(weight, 0, 1e6, "regulariser.l2: weight")
  return make(("nn.regulariser.l2(%g)"):format(weight), { of = function(...)
    return sum({ ... }, function(x) return x:dot(x):mean() end) * (weight / 2)
  end })
end

-- weight · mean Σ |x| of the rows.
function regularisers.l1(weight)
  object.number(weight, 0, 1e6, "regulariser.l1: weight")
  return make(("nn.regulariser.l1(%g)"):format(weight), { of = function(...)
    return sum({ ... }, function(x) return x:abs():sum(2):mean() end) * weight
  end })
end

-- weight · mean (|row| − 1)²: keeps vectors near the unit sphere without forcing them onto it.
function regularisers.unit(weight)
  object.number(weight, 0, 1e6, "regulariser.unit: weight")
  return make(("nn.regulariser.unit(%g)"):format(weight), { of = function(...)
    return sum({ ... }, function(x) return ((x:dot(x) + 1e-12):sqrt() - 1):square():mean() end) * weight
  end })
end

return regularisers
