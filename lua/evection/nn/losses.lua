-- losses.lua - what a scheme minimises.
--
-- A loss is called as loss(positive, negative, more) with the scores of the items that users have, positive (B), and of items
-- drawn for them, negative (B, n); it gives a scalar. more, from a sampler (samplers.lua), may say
--   own       column i of row i is the row's own positive, or one column is: no negative (in-batch, all items)
--   log_q()   → log of the probability with which the sampler draws the positives (B), and the negatives ((B, n) or (n))
-- Any function of the same arguments is a loss too. Means are over live rows.

local object = require "evection.nn.object"

local losses = {}

local make = object.kind({}, function(self, positive, negative, more) return self.of(positive, negative, more or {}) end)

local function column(x) return x:reshape(-1, 1) end

-- The mean over a row's negatives of of(negative), less what a positive among them adds: of(positive) as if it were one.
local function mean_over_negatives(negative, more, of, of_own)
  local values = of(negative)
  if not more.own then return values:mean(2) end
  local n = negative:shape()[2]
  return (values:sum(2) - of_own()) / math.max(1, n - 1)
end

-- Binary cross-entropy of scores as logits: −ln σ(s⁺) − weight · mean ln(1 − σ(s⁻)).
function losses.bce(options)
  local o = object.options(options, { weight = 1 }, "loss.bce")
  object.number(o.weight, 0, 1e6, "loss.bce: weight")
  return make(object.show("nn.loss.bce", options), { of = function(positive, negative, more)
    local rest = mean_over_negatives(negative, more, function(s) return s:softplus() end, function() return positive:softplus() end)
    return ((-positive):softplus() + rest * o.weight):mean()
  end })
end

-- Bayesian personalised ranking (Rendle et al. 2009): mean −ln σ(s⁺ − s⁻).
function losses.bpr(options)
  object.options(options, {}, "loss.bpr")
  return make("nn.loss.bpr", { of = function(positive, negative, more)
    return mean_over_negatives(negative, more, function(s) return (s - column(positive)):softplus() end, function() return math.log(2) end):mean()
  end })
end

-- Pairwise hinge: mean max(0, margin − s⁺ + s⁻).
function losses.hinge(options)
  local o = object.options(options, { margin = 1 }, "loss.hinge")
  object.number(o.margin, 0, 1e6, "loss.hinge: margin")
  return make(object.show("nn.loss.hinge", options), { of = function(positive, negative, more)
    return mean_over_negatives(negative, more, function(s) return (s - column(positive) + o.margin):relu() end, function() return o.margin end):mean()
  end })
end

-- Cosine contrastive loss of SimpleX (Mao et al. 2021): 1 − s⁺ + weight · mean max(0, s⁻ − margin), of scores that are cosines.
function losses.cosine_contrastive(options)
  local o = object.options(options, { margin = 0.4, weight = 10 }, "loss.cosine_contrastive")
  object.number(o.margin, -1, 1, "loss.cosine_contrastive: margin")
  object.number(o.weight, 0, 1e6, "loss.cosine_contrastive: weight")
  return make(object.show("nn.loss.cosine_contrastive", options), { cosine = true, of = function(positive, negative, more)
    local function over(s) return (s - o.margin):relu() end
    local rest = mean_over_negatives(negative, more, over, function() return over(positive) end)
    return (1 - positive + rest * o.weight):mean()
  end })
end

-- Softmax cross-entropy: −s⁺/t + ln Σ e^(s/t) over the positive and the negatives; with log_q, s/t − ln(n q) of what is drawn.
--   own negatives (in-batch, all items): the sum is over them as they stand, and so is the correction (Yi et al. 2019).
--   drawn ones: the positive is added and not corrected: e^(s⁺/t) + mean e^(s⁻/t) / q estimates the sum over all items.
local function softmax(word, options, log_q)
  local o = object.options(options, { temperature = 1, log_q = log_q }, word, 4)
  object.number(o.temperature, 1e-6, 1e6, word .. ": temperature", 4)
  return make(object.show("nn." .. word, options), { of = function(positive, negative, more)
    local p, n = positive, negative
    if o.temperature ~= 1 then p, n = p / o.temperature, n / o.temperature end -- all items' scores are many
    local of_positive, of_negative
    if o.log_q and more.log_q then of_positive, of_negative = more.log_q() end
    if more.own then
      if of_negative then p, n = p - of_positive, n - of_negative end
      return (n:logsumexp(2) - p):mean()
    end
    if of_negative then n = n - (of_negative + math.log(negative:shape()[2])) end
    return (column(p):concat(n, 2):logsumexp(2) - p):mean()
  end })
end

-- Over drawn items, corrected for how they were drawn (Bengio and Senécal 2008) unless log_q = false.
function losses.sampled_softmax(options)
  local loss = softmax("loss.sampled_softmax", options, true)
  return loss -- no tail call: errors name the script's line by counting frames
end
-- Over all items: with sampler.all() (its own default).
function losses.full_softmax(options)
  local loss = softmax("loss.full_softmax", options, false)
  loss.sampler = "all"
  return loss
end
-- Over the other rows' items, each corrected for its popularity (Yi et al. 2019): with sampler.in_batch() (its own default).
function losses.in_batch_softmax(options)
  local loss = softmax("loss.in_batch_softmax", options, true)
  loss.sampler = "in_batch"
  return loss
end

-- ---- Of labelled scores: called as loss(scores, labels) ------------------------------------------------------
local labelled = object.kind({}, function(self, scores, labels) return self.of(scores, labels) end)

-- Log-loss of logits (…) and labels from 0 to 1 of the same shape: mean ln(1 + e^s) − y s.
function losses.log_loss(options)
  object.options(options, {}, "loss.log_loss")
  return labelled("nn.loss.log_loss", { of = function(scores, labels) return (scores:softplus() - labels * scores):mean() end })
end

-- Squared error: mean (s − y)².
function losses.squared(options)
  object.options(options, {}, "loss.squared")
  return labelled("nn.loss.squared", { of = function(scores, labels) return (scores - labels):square():mean() end })
end

-- A list (N, M) at once: −Σ t ln softmax(s), t = softmax(labels / temperature): ListNet's top one (Cao et al. 2007); with
-- gain = "share" t = labels / Σ labels (Bruch et al. 2019), and a list without any label counts nothing.
function losses.listwise(options)
  local o = object.options(options, { gain = "softmax", temperature = 1 }, "loss.listwise")
  object.number(o.temperature, 1e-6, 1e6, "loss.listwise: temperature")
  if o.gain ~= "softmax" and o.gain ~= "share" then error("loss.listwise: gain is \"softmax\" or \"share\"", 2) end
  return labelled(object.show("nn.loss.listwise", options), { of = function(scores, labels)
    local target
    if o.gain == "softmax" then target = (labels / o.temperature):softmax()
    else target = labels / (labels:sum(2, true) + 1e-12) end
    return -(target * scores:log_softmax()):sum(2):mean()
  end })
end

return losses
