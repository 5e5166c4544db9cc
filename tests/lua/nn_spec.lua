-- nn_spec.lua - the vocabulary of schemes: each loss, sampler, schedule, regulariser and layer against its equation in plain Lua.

local native = require "evection.native"
local nn = require "evection.nn"
local sandbox = require "evection.sandbox"
local support = require "support"

-- The values of a tensor as a list, and its shape.
local function compute(t)
  local plan = t:net():plan { outputs = { t } }
  plan:run(0)
  local v, shape = plan:value(t)
  local list = {}
  for i = 1, #v do list[i] = v[i] end
  return list, shape
end

local function close(expected, got, tolerance)
  tolerance = tolerance or 2e-6
  if got ~= got or math.abs(expected - got) > tolerance * math.max(1, math.abs(expected)) then
    error(("%.9g expected, %.9g found"):format(expected, got), 2)
  end
end

local function all_close(expected, got, _, tolerance) -- got, shape: what compute gives
  assert.equal(#expected, #got)
  for i = 1, #expected do close(expected[i], got[i], tolerance) end
end

-- A net with an input (rows…) of seeded normal numbers. → tensor, its numbers
local serial = 0
local function given(net, shape, seed, scale)
  serial = serial + 1
  local rng, n, list = native.rng(seed), 1, {}
  for _, size in ipairs(shape) do n = n * size end
  local t = net:input("given" .. serial, shape)
  local single = native.vector(n)
  for i = 1, n do single[i] = rng:normal() * (scale or 1) end
  for i = 1, n do list[i] = single[i] end -- as floats are
  t:fill(single)
  return t, list
end

local function mean(list)
  local sum = 0
  for _, x in ipairs(list) do sum = sum + x end
  return sum / #list
end

local function softplus(x) return math.max(x, 0) + math.log(1 + math.exp(-math.abs(x))) end
local function log_sum_exp(list)
  local most, sum = -math.huge, 0
  for _, x in ipairs(list) do most = math.max(most, x) end
  for _, x in ipairs(list) do sum = sum + math.exp(x - most) end
  return most + math.log(sum)
end

local B, N = 7, 5

-- The loss of positive (B) and negative (B, N) by its equation for one pair and by what its negatives' mean is of.
local function pairwise(p, n, of, own)
  local rows = {}
  for r = 1, B do
    local sum, count = 0, 0
    for j = 1, own and B or N do
      if not (own and j == r) then sum, count = sum + of(p[r], n[(r - 1) * (own and B or N) + j]), count + 1 end
    end
    rows[r] = sum / count
  end
  return mean(rows), rows
end

-- Scores whose column i of row i is the row's positive, as in_batch makes them.
local function own_scores(net)
  local n, ln = given(net, { B, B }, 3, 2)
  local p, lp = net:input("own" .. serial, { B }), {}
  for r = 1, B do lp[r] = ln[(r - 1) * B + r] end
  p:fill(lp)
  return p, n, lp, ln
end

describe("loss", function()
  local net, p, n, lp, ln
  before_each(function()
    net = nn.net {}
    p, lp = given(net, { B }, 1, 2)
    n, ln = given(net, { B, N }, 2, 2)
  end)

  local function check(loss, expected, positive, negative, more)
    local got = compute(loss(positive or p, negative or n, more))
    assert.equal(1, #got)
    close(expected, got[1])
  end

  it("bce is the cross-entropy of ones and zeros, negatives averaged and weighted", function()
    local function bce(lists, w, own)
      local rest = select(2, pairwise(lists[1], lists[2], function(_, s) return softplus(s) end, own))
      local rows = {}
      for r = 1, B do rows[r] = softplus(-lists[1][r]) + w * rest[r] end
      return mean(rows)
    end
    check(nn.loss.bce(), bce({ lp, ln }, 1))
    check(nn.loss.bce { weight = 3 }, bce({ lp, ln }, 3))
    local op, on, olp, oln = own_scores(net)
    check(nn.loss.bce(), bce({ olp, oln }, 1, true), op, on, { own = true })
  end)

  it("bpr is -ln of the sigmoid of differences", function()
    local function of(a, b) return softplus(b - a) end
    check(nn.loss.bpr(), (pairwise(lp, ln, of)))
    local op, on, olp, oln = own_scores(net)
    check(nn.loss.bpr(), (pairwise(olp, oln, of, true)), op, on, { own = true })
  end)

  it("hinge is linear within its margin", function()
    for _, margin in ipairs { 1, 0.3 } do
      local function of(a, b) return math.max(0, margin - a + b) end
      check(nn.loss.hinge { margin = margin }, (pairwise(lp, ln, of)))
      local op, on, olp, oln = own_scores(net)
      check(nn.loss.hinge { margin = margin }, (pairwise(olp, oln, of, true)), op, on, { own = true })
    end
  end)

  it("cosine_contrastive is SimpleX's", function()
    local function ccl(a, b, m, w, own)
      return mean((function()
        local rest, rows = select(2, pairwise(a, b, function(_, s) return math.max(0, s - m) end, own)), {}
        for r = 1, B do rows[r] = 1 - a[r] + w * rest[r] end
        return rows
      end)())
    end
    check(nn.loss.cosine_contrastive(), ccl(lp, ln, 0.4, 10))
    check(nn.loss.cosine_contrastive { margin = -0.1, weight = 150 }, ccl(lp, ln, -0.1, 150))
    local op, on, olp, oln = own_scores(net)
    check(nn.loss.cosine_contrastive(), ccl(olp, oln, 0.4, 10, true), op, on, { own = true })
    assert.is_true(nn.loss.cosine_contrastive().cosine)
  end)

  it("sampled_softmax estimates the sum over all items from what was drawn", function()
    local q, lq = given(net, { B, N }, 4, 0.5)
    local function expected(t, corrected)
      local rows = {}
      for r = 1, B do
        local terms = { lp[r] / t }
        for j = 1, N do terms[j + 1] = ln[(r - 1) * N + j] / t - (corrected and math.log(N) + lq[(r - 1) * N + j] or 0) end
        rows[r] = log_sum_exp(terms) - lp[r] / t
      end
      return mean(rows)
    end
    local more = { log_q = function() return p, q end }
    check(nn.loss.sampled_softmax(), expected(1, true), p, n, more)
    check(nn.loss.sampled_softmax { temperature = 0.2 }, expected(0.2, true), p, n, more)
    check(nn.loss.sampled_softmax { log_q = false }, expected(1, false), p, n, more)
    check(nn.loss.sampled_softmax(), expected(1, false))
  end)

  it("in_batch_softmax corrects every column, the positive's too; full_softmax none", function()
    local op, on, olp, oln = own_scores(net)
    local q, lq = given(net, { B }, 5, 0.5)
    local function expected(t, corrected)
      local rows = {}
      for r = 1, B do
        local terms = {}
        for j = 1, B do terms[j] = oln[(r - 1) * B + j] / t - (corrected and lq[j] or 0) end
        rows[r] = log_sum_exp(terms) - (olp[r] / t - (corrected and lq[r] or 0))
      end
      return mean(rows)
    end
    local more = { own = true, log_q = function() return q, q end }
    check(nn.loss.in_batch_softmax(), expected(1, true), op, on, more)
    check(nn.loss.in_batch_softmax { temperature = 0.1 }, expected(0.1, true), op, on, more)
    check(nn.loss.full_softmax(), expected(1, false), op, on, more)
    assert.same({ "in_batch", "all" }, { nn.loss.in_batch_softmax().sampler, nn.loss.full_softmax().sampler })
  end)

  it("log_loss, squared and listwise are of labels", function()
    local y, ly = given(net, { B, N }, 6, 1)
    for i = 1, #ly do ly[i] = ly[i] > 0 and 1 or 0 end
    for j = 1, N do ly[j] = 0 end -- a list without a label
    y:fill(ly)
    local log_loss, squared, net_rows, share_rows = {}, {}, {}, {}
    for i = 1, B * N do
      log_loss[i] = softplus(ln[i]) - ly[i] * ln[i]
      squared[i] = (ln[i] - ly[i]) ^ 2
    end
    for r = 1, B do
      local scores, labels, sum, cross, share = {}, {}, 0, 0, 0
      for j = 1, N do scores[j], labels[j] = ln[(r - 1) * N + j], ly[(r - 1) * N + j] / 0.5 end
      for j = 1, N do sum = sum + labels[j] * 0.5 end
      local all_scores, all_labels = log_sum_exp(scores), log_sum_exp(labels)
      for j = 1, N do
        cross = cross - math.exp(labels[j] - all_labels) * (scores[j] - all_scores)
        share = share - (sum > 0 and labels[j] * 0.5 / sum or 0) * (scores[j] - all_scores)
      end
      net_rows[r], share_rows[r] = cross, share
    end
    check(nn.loss.log_loss(), mean(log_loss), n, y)
    check(nn.loss.squared(), mean(squared), n, y)
    check(nn.loss.listwise { temperature = 0.5 }, mean(net_rows), n, y)
    check(nn.loss.listwise { gain = "share" }, mean(share_rows), n, y)
  end)

  it("says what it is, and refuses what it does not know, in the script's own line", function()
    assert.equal("nn.loss.hinge { margin = 0.5 }", tostring(nn.loss.hinge { margin = 0.5 }))
    assert.equal("nn.loss.bpr", tostring(nn.loss.bpr()))
    for _, bad in ipairs { { "hinge", { marjin = 1 } }, { "bpr", { x = 1 } }, { "bce", { weight = "much" } }, { "hinge", { margin = 0 / 0 } }, { "bce", 3 },
      { "sampled_softmax", { temperature = 0 } }, { "listwise", { gain = "x" } }, { "cosine_contrastive", { margin = 2 } } } do
      support.refused("nn_spec.lua:%d+: loss." .. bad[1], function()
        local loss = nn.loss[bad[1]](bad[2])
        return loss
      end)
    end
  end)
end)

describe("regulariser", function()
  it("l2, l1 and unit are means over rows, summed over what is given", function()
    local net = nn.net {}
    local x, lx = given(net, { B, 3 }, 1)
    local y, ly = given(net, { B, 2, 3 }, 2)
    local function rows(list, width, of)
      local sums = {}
      for r = 1, #list / width do
        local sum = 0
        for k = 1, width do sum = sum + of(list[(r - 1) * width + k]) end
        sums[r] = sum
      end
      return sums
    end
    local function square(z) return z * z end
    close(0.3 / 2 * (mean(rows(lx, 3, square)) + mean(rows(ly, 6, square))), compute(nn.regulariser.l2(0.3)(x, y))[1])
    close(0.3 * (mean(rows(lx, 3, math.abs)) + mean(rows(ly, 6, math.abs))), compute(nn.regulariser.l1(0.3)(x, y))[1])
    local unit = rows(lx, 3, square)
    for i = 1, #unit do unit[i] = (math.sqrt(unit[i]) - 1) ^ 2 end
    close(2 * mean(unit), compute(nn.regulariser.unit(2)(x))[1])
  end)
end)

describe("schedule", function()
  it("gives the share of the rate at each step", function()
    local s = nn.schedule
    close(1, s.constant()(17, 100))
    close(0.1 + 0.9 * (1 + math.cos(math.pi * 0.25)) / 2, s.cosine { floor = 0.1 }(25, 100))
    close(0, s.cosine()(100, 100))
    close(0.8, s.linear { floor = 0.2 }(25, 100))
    for step, share in pairs { [0] = 1, [33] = 1, [34] = 0.5, [67] = 0.25, [99] = 0.25 } do close(share, s.step { times = 3, factor = 0.5 }(step, 100)) end
    close(1 / 11, s.warm_up(0.1)(0, 100))
    close(10 / 11, s.warm_up(0.1)(9, 100))
    close(1, s.warm_up(0.1)(10, 100))
    close(0.5, s.warm_up(0.1, s.cosine())(55, 100))
    assert.equal("nn.schedule.warm_up(0.1, nn.schedule.cosine { floor = 0.5 })", tostring(s.warm_up(0.1, s.cosine { floor = 0.5 })))
  end)
end)

describe("layer", function()
  local net
  before_each(function() net = nn.net { seed = 7 } end)

  local function numbers(t)
    local v, list = t:values(), {}
    for i = 1, #v do list[i] = v[i] end
    return list
  end
  -- x (n, k) times w (k, m) plus bias
  local function times(x, w, bias, k, m)
    local y = {}
    for r = 1, #x / k do
      for c = 1, m do
        local sum = bias and bias[c] or 0
        for i = 1, k do sum = sum + x[(r - 1) * k + i] * w[(i - 1) * m + c] end
        y[(r - 1) * m + c] = sum
      end
    end
    return y
  end
  local function layer_norm(x, gain, bias, d, epsilon)
    local y = {}
    for r = 1, #x / d do
      local sum, squares = 0, 0
      for i = 1, d do sum = sum + x[(r - 1) * d + i] end
      for i = 1, d do squares = squares + (x[(r - 1) * d + i] - sum / d) ^ 2 end
      for i = 1, d do y[(r - 1) * d + i] = (x[(r - 1) * d + i] - sum / d) / math.sqrt(squares / d + epsilon) * gain[i] + bias[i] end
    end
    return y
  end
  local function randomise(parameters)
    local seed = 100
    for _, t in pairs(parameters) do
      local v = t:values()
      seed = seed + #v
      local rng = native.rng(seed)
      t:fill(v:map(function() return rng:normal() * 0.5 end))
    end
  end

  it("linear and mlp are products, sums and activations", function()
    local x, lx = given(net, { 4, 3 }, 1)
    local linear = nn.linear(net, 3, 2)
    randomise(linear.parameters)
    all_close(times(lx, numbers(linear.parameters.w), numbers(linear.parameters.bias), 3, 2), compute(linear(x)))
    local mlp = nn.mlp(net, { 3, 5, 2 }, { activation = "tanh", last = "sigmoid" })
    randomise(mlp.parameters)
    local p = mlp.parameters
    local hidden = times(lx, numbers(p.w1), numbers(p.bias1), 3, 5)
    for i = 1, #hidden do hidden[i] = math.tanh(hidden[i]) end
    local out = times(hidden, numbers(p.w2), numbers(p.bias2), 5, 2)
    for i = 1, #out do out[i] = 1 / (1 + math.exp(-out[i])) end
    all_close(out, compute(mlp(x)))
    assert.equal("nn.mlp(3 -> 5 -> 2, tanh)", tostring(mlp))
    assert.equal("nn.linear(3 -> 2)", tostring(linear))
  end)

  it("embedding gives rows, and zeros for no id", function()
    local e = nn.embedding(net, 6, 2, { scale = 1 })
    local ids = net:ids("which", { 3 })
    ids:fill { 5, -1, 0 }
    local w = numbers(e.weight)
    all_close({ w[11], w[12], 0, 0, w[1], w[2] }, compute(e(ids)))
  end)

  it("layer_norm and transformer are as published", function()
    local d, lengths = 4, net:ids("lengths", { 2 })
    lengths:fill { 3, 2 }
    local x, lx = given(net, { 5, d }, 3)
    local norm = nn.layer_norm(net, d)
    randomise(norm.parameters)
    all_close(layer_norm(lx, numbers(norm.parameters.gain), numbers(norm.parameters.bias), d, 1e-5), compute(norm(x)), nil, 1e-5)

    for _, kind in ipairs { "pre", "post" } do
      local block = nn.transformer(net, d, { heads = 2, hidden = 6, norm = kind, activation = "relu", name = kind })
      randomise(block.parameters)
      local p = {}
      for word, t in pairs(block.parameters) do p[word] = numbers(t) end
      local function attend(y)
        local q, k, v = times(y, p["q.w"], p["q.bias"], d, d), times(y, p["k.w"], p["k.bias"], d, d), times(y, p["v.w"], p["v.bias"], d, d)
        local mixed = {}
        for _, range in ipairs { { 1, 3 }, { 4, 5 } } do
          for i = range[1], range[2] do
            for h = 0, 1 do
              local scores = {}
              for j = range[1], i do
                local dot = 0
                for c = 1, 2 do dot = dot + q[(i - 1) * d + h * 2 + c] * k[(j - 1) * d + h * 2 + c] end
                scores[#scores + 1] = dot / math.sqrt(2)
              end
              local all = log_sum_exp(scores)
              for c = 1, 2 do
                local sum = 0
                for j = range[1], i do sum = sum + math.exp(scores[j - range[1] + 1] - all) * v[(j - 1) * d + h * 2 + c] end
                mixed[(i - 1) * d + h * 2 + c] = sum
              end
            end
          end
        end
        return times(mixed, p["o.w"], p["o.bias"], d, d)
      end
      local function feed(y)
        local hidden = times(y, p["up.w"], p["up.bias"], d, 6)
        for i = 1, #hidden do hidden[i] = math.max(0, hidden[i]) end
        return times(hidden, p["down.w"], p["down.bias"], 6, d)
      end
      local function plus(a, b)
        local sum = {}
        for i = 1, #a do sum[i] = a[i] + b[i] end
        return sum
      end
      local function first(y) return layer_norm(y, p["first.gain"], p["first.bias"], d, 1e-5) end
      local function second(y) return layer_norm(y, p["second.gain"], p["second.bias"], d, 1e-5) end
      local y
      if kind == "pre" then
        y = plus(lx, attend(first(lx)))
        y = plus(y, feed(second(y)))
      else
        y = first(plus(lx, attend(lx)))
        y = second(plus(y, feed(y)))
      end
      all_close(y, compute(block(x, lengths)), nil, 2e-5)
    end
  end)

  it("gru and conv go along each sequence by itself", function()
    local from, to = 3, 2
    local lengths = net:ids("lengths", { 2 })
    lengths:fill { 3, 2 }
    local x, lx = given(net, { 5, from }, 3)
    local gru, conv = nn.gru(net, from, to), nn.conv(net, from, to, 2)
    randomise(gru.parameters)
    randomise(conv.parameters)
    local w, u, b = numbers(gru.parameters.w), numbers(gru.parameters.u), numbers(gru.parameters.bias)
    local function sigmoid(z) return 1 / (1 + math.exp(-z)) end
    local states, convolved = {}, {}
    local cw, cb = numbers(conv.parameters.w), numbers(conv.parameters.bias)
    for _, range in ipairs { { 1, 3 }, { 4, 5 } } do
      local h = { 0, 0 }
      for t = range[1], range[2] do
        local row = { unpack(lx, (t - 1) * from + 1, t * from) }
        local wx, uh = times(row, w, b, from, 3 * to), times(h, u, nil, to, 3 * to)
        local next_h = {}
        for c = 1, to do
          local r, z = sigmoid(wx[c] + uh[c]), sigmoid(wx[to + c] + uh[to + c])
          local n = math.tanh(wx[2 * to + c] + r * uh[2 * to + c])
          next_h[c] = (1 - z) * n + z * h[c]
        end
        h = next_h
        for c = 1, to do states[#states + 1] = h[c] end
        for c = 1, to do
          local sum = cb[c]
          for k = 0, 1 do
            local at = t - 1 + k
            for i = 1, at >= range[1] and from or 0 do sum = sum + lx[(at - 1) * from + i] * cw[(k * from + i - 1) * to + c] end
          end
          convolved[#convolved + 1] = sum
        end
      end
    end
    all_close(states, compute(gru(x, lengths)), nil, 1e-5)
    all_close(convolved, compute(conv(x, lengths)), nil, 1e-5)
  end)

  it("sequence puts one behind the other; dropout does nothing but in training", function()
    local x, lx = given(net, { 4, 3 }, 1)
    local two = nn.sequence { nn.linear(net, 3, 2), function(y) return y * 2 end, nn.dropout(0.5) }
    local p = two.parameters
    local expected = times(lx, numbers(p["w.1"]), nil, 3, 2)
    for i = 1, #expected do expected[i] = 2 * expected[i] end
    all_close(expected, compute(two(x)))
    assert.equal("nn.sequence { nn.linear(3 -> 2), function, nn.dropout(0.5) }", tostring(two))
    local plan = net:plan { outputs = { two(x) } , loss = (two(x)):sum() }
    assert.is_true(math.abs(plan:run(0, true) - plan:run(1, true)) > 1e-6)
    assert.equal(plan:run(3, true), plan:run(3, true))
  end)

  it("has names of its own, whatever others there are", function()
    nn.linear(net, 2, 2)
    nn.linear(net, 2, 2)
    nn.linear(net, 2, 2, { name = "head" })
    for _, name in ipairs { "linear.w", "linear2.w", "head.w", "head.bias" } do assert.is_not_nil(net:find(name), name) end
    support.refused("nn_spec.lua:%d+: transformer: 3 heads do not divide 4", function() nn.transformer(net, 4, { heads = 3 }) end)
    support.refused("nn_spec.lua:%d+: mlp: activation 'rely'", function() nn.mlp(net, { 2, 2 }, { activation = "rely" }) end)
  end)
end)

describe("sampler", function()
  local snapshot, data
  setup(function()
    snapshot = native.snapshot(support.data("tiny", 90))
    data = snapshot:view(native.TRAIN)
  end)

  -- A match on random vectors, run once; every score is checked against the vectors.
  local function run(sampler, loss, options)
    local net = nn.net { seed = 3 }
    local user = net:parameter("u", { data:n_users(), 4 }, { init = "normal", scale = 1 })
    local item = net:parameter("i", { data:n_items(), 4 }, { init = "normal", scale = 1 })
    local opts = { net = net, data = data, user = user, item = item, loss = loss, sampler = sampler, size = 32 }
    for name, value in pairs(options or {}) do opts[name] = value end
    local m = nn.match(opts)
    local b = m.batches
    local ids = { user = b.user, item = b.item, negative = sampler.options.negatives > 0 and b.negative or nil }
    local rows = b:fill(0)
    local plan = net:plan { outputs = { m.positive, m.negative }, loss = m.loss }
    local total = plan:run(0)
    local got = { positive = plan:value(m.positive), loss = total, rows = rows, match = m }
    local shape
    got.negative, shape = plan:value(m.negative)
    got.columns = shape[2]
    got.user, got.item, got.drawn = ids.user:values(), ids.item:values(), ids.negative and ids.negative:values()
    local us, is = user:values(), item:values()
    function got.score(u, i)
      local sum, nu, ni = 0, 0, 0
      for k = 1, 4 do
        local x, y = us[u * 4 + k], is[i * 4 + k]
        sum, nu, ni = sum + x * y, nu + x * x, ni + y * y
      end
      return m.cosine and sum / math.sqrt(nu * ni) or sum
    end
    return got
  end

  local function seen(user, item)
    for _, x in ipairs(data:history(user)) do
      if x == item then return true end
    end
    return false
  end

  it("uniform, popularity and mixed score what the batches drew, and nothing the user has", function()
    for _, sampler in ipairs { nn.sampler.uniform(3), nn.sampler.popularity(3, { power = 1 }), nn.sampler.mixed(3, { uniform = 0.2, popularity = 0.8 }) } do
      local got = run(sampler, nn.loss.bpr())
      assert.same({ 32, 3, 96 }, { got.rows, got.columns, #got.negative })
      for r = 1, got.rows do
        assert.is_true(seen(got.user[r], got.item[r]))
        close(got.score(got.user[r], got.item[r]), got.positive[r], 1e-5)
        for j = 1, 3 do
          local drawn = got.drawn[(r - 1) * 3 + j]
          assert.is_false(seen(got.user[r], drawn))
          close(got.score(got.user[r], drawn), got.negative[(r - 1) * 3 + j], 1e-5)
        end
      end
    end
  end)

  it("shared draws are one list for all rows; cosines lie in [-1, 1]", function()
    local got = run(nn.sampler.uniform(6, { shared = true }), nn.loss.cosine_contrastive())
    local drawn = got.drawn
    assert.equal(6, #drawn)
    for r = 1, got.rows do
      for j = 1, 6 do close(got.score(got.user[r], drawn[j]), got.negative[(r - 1) * 6 + j], 1e-5) end
    end
    local low, high = got.negative:range()
    assert.is_true(low >= -1.00001 and high <= 1.00001)
  end)

  it("hard keeps the best-scored of what was drawn", function()
    local got = run(nn.sampler.hard(2, nn.sampler.uniform(8)), nn.loss.bpr())
    local drawn = got.drawn
    for r = 1, got.rows do
      local scores = {}
      for j = 1, 8 do scores[j] = got.score(got.user[r], drawn[(r - 1) * 8 + j]) end
      table.sort(scores, function(a, b) return a > b end)
      for j = 1, 2 do close(scores[j], got.negative[(r - 1) * 2 + j], 1e-5) end
    end
  end)

  it("in_batch takes the other rows' items, but not the row's own again nor others of the same user", function()
    local got = run(nn.sampler.in_batch(), nn.loss.in_batch_softmax())
    assert.equal(32, got.columns)
    local masked = 0
    for r = 1, got.rows do
      for c = 1, got.columns do
        local x = got.negative[(r - 1) * got.columns + c]
        if c ~= r and (got.item[c] == got.item[r] or got.user[c] == got.user[r]) then
          masked = masked + 1
          assert.is_true(x <= -1e8)
        else
          close(got.score(got.user[r], got.item[c]), x, 1e-5)
        end
      end
    end
    assert.is_true(masked > 0)
  end)

  it("whole batches are never short: an epoch's last one is filled up with its first rows", function()
    local net = nn.net { seed = 4 }
    local n, size = data:n_interactions(), 100
    local b = net:pairs(data, { size = size, negatives = 0, whole = true })
    local user, item, steps, seen_pairs = b.user, b.item, b:per_epoch(), {}
    assert.equal(math.ceil(n / size), steps)
    assert.is_true(n % size > 0)
    local first
    for step = 0, steps - 1 do
      assert.equal(size, b:fill(step))
      local u, i = user:values(), item:values()
      first = first or { u, i }
      local fresh = math.min(size, n - step * size)
      for r = 1, size do
        if r <= fresh then
          local key = u[r] .. " " .. i[r]
          assert.is_nil(seen_pairs[key])
          seen_pairs[key] = true
        else
          assert.same({ first[1][r - fresh], first[2][r - fresh] }, { u[r], i[r] })
        end
      end
    end
    assert.same({ size }, user:shape())
    assert.equal(n, net:pairs(data, { size = n + 5, whole = true }):fill(0)) -- no more than there are
  end)

  it("all scores every item; a bias counts everywhere", function()
    local got = run(nn.sampler.all(), nn.loss.full_softmax())
    assert.equal(data:n_items(), got.columns)
    for r = 1, 3 do
      for c = 1, got.columns do close(got.score(got.user[r], c - 1), got.negative[(r - 1) * got.columns + c], 1e-5) end
    end
    for _, sampler in ipairs { nn.sampler.all(), nn.sampler.uniform(3), nn.sampler.uniform(3, { shared = true }), nn.sampler.in_batch() } do
      local net = nn.net {}
      local zeros = net:parameter("z", { data:n_users(), 2 }, { init = "zeros" })
      local items = net:parameter("i", { data:n_items(), 2 }, { init = "zeros" })
      local bias = net:parameter("b", { data:n_items() }, { init = "normal" })
      local m = nn.match { net = net, data = data, user = zeros, item = items, bias = bias, sampler = sampler, size = 16 }
      m.batches:fill(0)
      local plan = net:plan { outputs = { m.positive, m.negative } }
      plan:run(0)
      local ids, b = m.batches.item:values(), bias:values()
      for r = 1, 16 do close(b[ids[r] + 1], plan:value(m.positive)[r]) end
      local n, shape = plan:value(m.negative)
      assert.is_true(math.abs(n[shape[2]]) > 1e-9)
    end
  end)

  it("refuses what makes no sense", function()
    support.refused("nn_spec.lua:%d+: sampler.uniform", function() return (nn.sampler.uniform(0)) end)
    support.refused("nn_spec.lua:%d+: sampler.popularity has no option", function() return (nn.sampler.popularity(1, { powr = 1 })) end)
    support.refused("is no sampler", nn.sampler.hard, 2, {})
    support.refused("own positive", run, nn.sampler.hard(2, nn.sampler.in_batch()), nn.loss.bpr())
  end)
end)

describe("a scheme", function()
  it("is one expression over nn and named values", function()
    local text = "{ loss = nn.loss[loss](), sampler = nn.sampler.popularity(n, { power = 0.5 }), rate = nn.schedule.cosine(),\n"
      .. "score = function(a, b) return nn.loss.bpr()(a, b) end }"
    local program = assert(sandbox.expression(text, "mf.scheme"))
    local scheme = program { nn = nn, loss = "hinge", n = 3 }
    assert.equal("nn.loss.hinge", tostring(scheme.loss))
    assert.equal("nn.loss.hinge, nn.sampler.popularity { n = 3, power = 0.5 }", nn.describe(scheme))
    local net = nn.net {}
    assert.same({}, scheme.score(given(net, { 2 }, 1), given(net, { 2, 2 }, 2)):shape())
  end)
end)
