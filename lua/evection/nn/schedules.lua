-- schedules.lua - how the learning rate goes over a training: schedule(step, steps) → the share of the optimiser's rate.
--
-- step counts from 0, steps is how many there will be (as far as is known: early stopping may end before). Any function of the
-- two is a schedule.

local object = require "evection.nn.object"

local schedules = {}

local make = object.kind({}, function(self, step, steps) return self.of(step, steps) end)

function schedules.constant() return make("nn.schedule.constant()", { of = function() return 1 end }) end

-- From 1 down to the floor along half a cosine (Loshchilov and Hutter 2017).
function schedules.cosine(options)
  local o = object.options(options, { floor = 0 }, "schedule.cosine")
  object.number(o.floor, 0, 1, "schedule.cosine: floor")
  return make(object.show("nn.schedule.cosine", options), { of = function(step, steps)
    return o.floor + (1 - o.floor) * (1 + math.cos(math.pi * math.min(1, step / steps))) / 2
  end })
end

-- From 1 down to the floor in a straight line.
function schedules.linear(options)
  local o = object.options(options, { floor = 0 }, "schedule.linear")
  object.number(o.floor, 0, 1, "schedule.linear: floor")
  return make(object.show("nn.schedule.linear", options), { of = function(step, steps) return 1 - (1 - o.floor) * math.min(1, step / steps) end })
end

-- Times the factor after each of `times` equal parts: schedule.step { times = 3, factor = 0.1 }.
function schedules.step(options)
  local o = object.options(options, { times = 3, factor = 0.1 }, "schedule.step")
  object.number(o.times, 1, 1e6, "schedule.step: times")
  object.number(o.factor, 0, 1, "schedule.step: factor")
  return make(object.show("nn.schedule.step", options), { of = function(step, steps)
    return o.factor ^ math.floor(math.min(step / steps, 1 - 1e-9) * o.times)
  end })
end

-- Up from 0 in a straight line over the first share of the steps, then what `after` says of the rest (default: constant).
function schedules.warm_up(share, after)
  object.number(share, 0, 1, "schedule.warm_up: the share of steps")
  after = after or schedules.constant()
  return make(("nn.schedule.warm_up(%g, %s)"):format(share, tostring(after)), { of = function(step, steps)
    local first = share * steps
    if step < first then return (step + 1) / (first + 1) end
    return after(step - first, math.max(1, steps - first))
  end })
end

return schedules
