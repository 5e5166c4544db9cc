-- fields.lua - what a ranker sees of a row, as vectors: the start of factorisation machines and of the nets that grew from them.

local object = require "evection.nn.object"

-- fields(net, b, d, { scale = 0.01, dropout = 0, name = "fields" }) → f, of batches of rows. dropout: so many tokens of a row are left
-- out while training (the others count more), so that rows of unknown users and items are nothing new.
--   f.flat        (B, F d + n_dense): each field of tokens as the weighted sum of its tokens' vectors, side by side, then the numbers
--   f.width       how wide that is
--   f.linear()    (B): a weight for each feature, and one for all rows
--   f.pairs()     (B): ½ Σ ((Σ vₖ xₖ)² − Σ (vₖ xₖ)²), every pair of features through their vectors (Rendle 2010)
return function(net, b, d, options)
  object.number(d, 1, 4096, "fields: dimensions")
  local o = object.options(options, { scale = 0.01, dropout = 0, name = "fields" }, "fields")
  object.number(o.dropout, 0, 0.999, "fields: dropout")
  local n, tokens, n_dense, n_slots = b:n_features(), {}, 0, 0
  for _, field in ipairs(b:fields()) do
    if field.column then n_dense = math.max(n_dense, field.column)
    else tokens[#tokens + 1], n_slots = field, math.max(n_slots, field.last) end
  end
  local weights = n_slots > 0 and b.weights:reshape(-1, n_slots, 1)
  if weights and o.dropout > 0 then weights = weights:dropout(o.dropout) end
  local dense = n_dense > 0 and b.dense

  -- The vectors of one table: of the tokens, each times its weight (B, S, d), and of the numbers (n_dense, d).
  local function look_up(word, width, scale)
    local of_tokens = n_slots > 0 and net:parameter(("%s.%s"):format(o.name, word), { n, width }, { init = "normal", scale = scale })
    local of_numbers = n_dense > 0 and net:parameter(("%s.%s.dense"):format(o.name, word), { n_dense, width }, { init = "normal", scale = scale })
    return of_tokens and of_tokens[b.codes] * weights, of_numbers
  end

  local function sum_of(x, y) return x and y and x + y or x or y end

  local vectors, numbers = look_up("vectors", d, o.scale)
  local parts = {}
  for _, field in ipairs(tokens) do
    local own = n_slots > 1 and vectors:slice(2, field.first, field.last) or vectors
    parts[#parts + 1] = field.last > field.first and own:sum(2) or own:reshape(-1, d)
  end
  if dense then parts[#parts + 1] = dense end
  local flat = parts[1]
  if #parts > 1 then
    local rest = { unpack(parts, 2) }
    rest[#rest + 1] = 2
    flat = flat:concat(unpack(rest))
  end
  local f = { flat = flat, width = #tokens * d + n_dense }

  function f.linear()
    local of_tokens, of_numbers = look_up("linear", 1, 0)
    local base = net:parameter(o.name .. ".base", { 1 }, { decay = 0 })
    local x = sum_of(of_tokens and of_tokens:sum(2), of_numbers and dense:matmul(of_numbers))
    return x:reshape(-1) + base
  end

  function f.pairs()
    local all = sum_of(vectors and vectors:sum(2), numbers and dense:matmul(numbers))
    local own = sum_of(vectors and vectors:square():sum(2), numbers and dense:square():matmul(numbers:square()))
    return (all:square() - own):sum(2) * 0.5
  end

  return f
end
