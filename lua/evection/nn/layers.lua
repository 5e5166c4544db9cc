-- layers.lua - parts of a net with parameters of their own: made once with the net, called on tensors, printed as what they are.
--
-- layer(net, sizes…, options) → layer; layer(x, …) → tensor. layer.parameters lists its tensors by name. A layer's parameters are
-- called after its `name` (default: its kind) in messages and files. Rows come first: x is (N, sizes).

local object = require "evection.nn.object"

local layers = {}

local number = object.number

local function whole(x, what) return number(x, 1, 2 ^ 31, what, 4) end

local make = object.kind({}, function(self, ...) return self.of(...) end)

-- A name for a layer whose first parameter is called NAME.WORD: the name itself, or the name with a number.
local function fresh(net, name, word)
  local n, free = 1, name
  while net:find(free .. "." .. word) do
    n = n + 1
    free = name .. n
  end
  return free
end

-- Its parameters, each called NAME.WORD: { word = { shape, options } } → { word = tensor }.
local function parameters(net, name, wanted)
  local words, made = {}, {}
  for word in pairs(wanted) do words[#words + 1] = word end
  table.sort(words) -- a parameter's numbers depend on when it was recorded
  for _, word in ipairs(words) do made[word] = net:parameter(name .. "." .. word, unpack(wanted[word])) end
  return made
end

-- A table of n vectors: embedding(ids) or embedding.weight[ids]. init "normal" with std `scale` (default 0.1).
function layers.embedding(net, n, d, options)
  whole(n, "embedding: rows")
  whole(d, "embedding: dimensions")
  local o = object.options(options, { init = "normal", scale = 0.1, decay = 1, name = "embedding" }, "embedding")
  local p = { weight = net:parameter(net:unique(o.name), { n, d }, { init = o.init, scale = o.scale, decay = o.decay }) }
  return make(("nn.embedding(%d, %d)"):format(n, d), { of = function(ids) return p.weight[ids] end, weight = p.weight, parameters = p })
end

-- x (N, from) W (from, to) + b. rate: of its parameters, times the optimiser's.
function layers.linear(net, from, to, options)
  whole(from, "linear: from")
  whole(to, "linear: to")
  local o = object.options(options, { bias = true, init = "xavier", scale = 1, rate = 1, name = "linear" }, "linear")
  local p = parameters(net, fresh(net, o.name, "w"), {
    w = { { from, to }, { init = o.init, scale = o.scale, rate = o.rate } },
    bias = o.bias and { { to }, { init = "zeros", decay = 0, rate = o.rate } } or nil,
  })
  return make(("nn.linear(%d -> %d%s)"):format(from, to, o.bias and "" or ", no bias"), { parameters = p, of = function(x)
    local y = x:matmul(p.w)
    return p.bias and y + p.bias or y
  end })
end

local activations = "relu gelu silu sigmoid tanh softplus none"

local function activate(x, word)
  if word == "none" then return x end
  return x:op(word)
end

local function check_activation(word, what)
  if not (" " .. activations .. " "):find(" " .. word .. " ", 1, true) then
    error(("%s: activation '%s' is none of %s"):format(what, word, activations), 3)
  end
end

-- Linear layers one behind the other: mlp(net, { 64, 32, 1 }). The activation stands after each but the last, which has `last`
-- (default "none"); dropout of the share p after each activation. rate: of their parameters, times the optimiser's. begin: the
-- scale of the last layer's weights (0: what is added to others begins as nothing).
function layers.mlp(net, sizes, options)
  local o = object.options(options, { activation = "relu", last = "none", dropout = 0, rate = 1, begin = 1, name = "mlp" }, "mlp")
  check_activation(o.activation, "mlp")
  check_activation(o.last, "mlp")
  number(o.dropout, 0, 0.999, "mlp: dropout")
  if type(sizes) ~= "table" or #sizes < 2 then error("mlp(net, { from, …, to }): at least two sizes", 2) end
  local list, p = {}, {}
  for i = 1, #sizes - 1 do
    list[i] = layers.linear(net, sizes[i], sizes[i + 1], { name = o.name, rate = o.rate, scale = i == #sizes - 1 and o.begin or 1 })
    for word, t in pairs(list[i].parameters) do p[word .. i] = t end
  end
  return make(("nn.mlp(%s, %s)"):format(table.concat(sizes, " -> "), o.activation), { parameters = p, of = function(x)
    for i, layer in ipairs(list) do
      x = activate(layer(x), i < #list and o.activation or o.last)
      if o.dropout > 0 and i < #list then x = x:dropout(o.dropout) end
    end
    return x
  end })
end

-- (x − mean) / √(variance + epsilon) over the last dimension, times gain, plus bias (Ba, Kiros, Hinton 2016).
function layers.layer_norm(net, d, options)
  whole(d, "layer_norm: dimensions")
  local o = object.options(options, { epsilon = 1e-5, name = "norm" }, "layer_norm")
  local p = parameters(net, fresh(net, o.name, "gain"), { gain = { { d }, { init = "ones", decay = 0 } }, bias = { { d }, { init = "zeros", decay = 0 } } })
  return make(("nn.layer_norm(%d)"):format(d), { parameters = p, of = function(x) return x:layer_norm(p.gain, p.bias, o.epsilon) end })
end

-- While training each number is 0 with probability p, and the others are divided by 1 − p (Srivastava et al. 2014).
function layers.dropout(p)
  number(p, 0, 0.999, "dropout")
  return make(("nn.dropout(%g)"):format(p), { parameters = {}, of = function(x) return p > 0 and x:dropout(p) or x end })
end

-- Gated recurrent unit (Cho et al. 2014) over sequences that lie one after the other: gru(x (T, from), lengths (B)) → (T, to).
function layers.gru(net, from, to, options)
  whole(from, "gru: from")
  whole(to, "gru: to")
  local o = object.options(options, { name = "gru" }, "gru")
  local p = parameters(net, fresh(net, o.name, "w"), {
    w = { { from, 3 * to }, { init = "uniform", scale = 1 / math.sqrt(to) } }, u = { { to, 3 * to }, { init = "uniform", scale = 1 / math.sqrt(to) } },
    bias = { { 3 * to }, { init = "zeros", decay = 0 } },
  })
  return make(("nn.gru(%d -> %d)"):format(from, to), { parameters = p, of = function(x, lengths) return x:gru(p.w, p.u, p.bias, lengths) end })
end

-- Causal convolution within each sequence: conv(x (T, from), lengths (B)) → (T, to), each row of itself and the width − 1 before.
function layers.conv(net, from, to, width, options)
  whole(from, "conv: from")
  whole(to, "conv: to")
  whole(width, "conv: width")
  local o = object.options(options, { name = "conv" }, "conv")
  local p = parameters(net, fresh(net, o.name, "w"), {
    w = { { width, from, to }, { init = "uniform", scale = 1 / math.sqrt(width * from) } }, bias = { { to }, { init = "zeros", decay = 0 } },
  })
  return make(("nn.conv(%d -> %d, width %d)"):format(from, to, width), { parameters = p, of = function(x, lengths) return x:conv1d(p.w, p.bias, lengths) end })
end

-- A transformer's block (Vaswani et al. 2017) over sequences: block(x (T, d), lengths (B)) → (T, d). Attention by `heads` that
-- look back only when causal, then two linear layers through `hidden` (default 4 d). norm: "pre" (Xiong et al. 2020), or
-- "post" as published.
function layers.transformer(net, d, options)
  whole(d, "transformer: dimensions")
  local o = object.options(options, { heads = 2, hidden = 4 * d, dropout = 0, causal = true, norm = "pre", activation = "gelu", name = "block" }, "transformer")
  number(o.dropout, 0, 0.999, "transformer: dropout")
  check_activation(o.activation, "transformer")
  if d % whole(o.heads, "transformer: heads") ~= 0 then error(("transformer: %d heads do not divide %d dimensions"):format(o.heads, d), 2) end
  if o.norm ~= "pre" and o.norm ~= "post" then error("transformer: norm is \"pre\" or \"post\"", 2) end
  local name = fresh(net, o.name, "q.w")
  local q, k, v, out = {}, {}, {}, {}
  for word, slot in pairs { q = q, k = k, v = v, o = out } do slot.name = ("%s.%s"):format(name, word) end
  for _, slot in ipairs { q, k, v, out } do slot.layer = layers.linear(net, d, d, { name = slot.name }) end
  local up, down = layers.linear(net, d, o.hidden, { name = name .. ".up" }), layers.linear(net, o.hidden, d, { name = name .. ".down" })
  local first, second = layers.layer_norm(net, d, { name = name .. ".first" }), layers.layer_norm(net, d, { name = name .. ".second" })
  local p = {}
  for word, layer in pairs { q = q.layer, k = k.layer, v = v.layer, o = out.layer, up = up, down = down, first = first, second = second } do
    for part, t in pairs(layer.parameters) do p[word .. "." .. part] = t end
  end
  local function dropped(x) return o.dropout > 0 and x:dropout(o.dropout) or x end
  local function attend(x, lengths)
    return dropped(out.layer(q.layer(x):attention(k.layer(x), v.layer(x), lengths, o.heads, o.causal)))
  end
  local function feed(x) return dropped(down(activate(up(x), o.activation))) end
  return make(("nn.transformer(%d, %d heads, %d hidden, %s)"):format(d, o.heads, o.hidden, o.norm), { parameters = p, of = function(x, lengths)
    if o.norm == "post" then
      x = first(x + attend(x, lengths))
      return second(x + feed(x))
    end
    x = x + attend(first(x), lengths)
    return x + feed(second(x))
  end })
end

-- One behind the other: sequence { layer, function(x) return x:relu() end, layer }; further arguments go to each.
function layers.sequence(list)
  if type(list) ~= "table" or #list == 0 then error("sequence { layer, … } wants layers or functions", 2) end
  local names, p = {}, {}
  for i, layer in ipairs(list) do
    names[i] = type(layer) == "table" and tostring(layer.text) or "function"
    for word, t in pairs(type(layer) == "table" and layer.parameters or {}) do p[("%s.%d"):format(word, i)] = t end
  end
  return make(("nn.sequence { %s }"):format(table.concat(names, ", ")), { parameters = p, of = function(x, ...)
    for _, layer in ipairs(list) do x = layer(x, ...) end
    return x
  end })
end

return layers
