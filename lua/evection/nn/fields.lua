-- fields.lua - what a ranker sees of a row, as vectors: the start of factorisation machines and of the nets that grew from them.

local object = require "evection.nn.object"

-- fields(net, b, d, { scale = 0.01, dropout = 0, name = "fields" }) → f, of batches of rows. dropout: so many tokens of a row are left
-- out while training (the others count more), so that rows of unknown users and items are nothing new.
--   f.flat        (B, F d + n_dense): each field of tokens as the weighted sum of its tokens' vectors, side by side, then the numbers
--   f.width       how wide that is
--   f.linear()    (B): a weight for each feature, and one for all rows
--   f.pairs()     (B): ½ Σ ((Σ vₖ xₖ)² − Σ (vₖ xₖ)²), every pair of features through their vectors (Rendle 2010)
--   f.others(x)   (B, F d + n_dense), x of that shape: at each field the sum of the other fields' vectors in x, 0 at the numbers
--   f.l2(own)     a scalar: ½ · mean over rows of Σ |v|² and w² of the row's features, none left out; those of the user's id count
--                 `own` times (default 1). So each row of a feature holds it back once more: many rows alike are worth few
return function(net, b, d, options)
  object.number(d, 1, 4096, "fields: dimensions")
  local o = object.options(options, { scale = 0.01, dropout = 0, name = "fields" }, "fields")
  object.number(o.dropout, 0, 0.999, "fields: dropout")
  local n, tokens, n_dense, n_slots = b:n_features(), {}, 0, 0
  for _, field in ipairs(b:fields()) do
    if field.column then n_dense = math.max(n_dense, field.column)
    else tokens[#tokens + 1], n_slots = field, math.max(n_slots, field.last) end
  end
  local present = n_slots > 0 and b.weights
  local weights = present and present:reshape(-1, n_slots, 1)
  if weights and o.dropout > 0 then weights = weights:dropout(o.dropout) end
  local dense, squares = n_dense > 0 and b.dense, {}

  local function cut(x, dim, first, last, size) return last - first + 1 < size and x:slice(dim, first, last) or x end
  local function beside(list)
    local rest = { unpack(list, 2) }
    rest[#rest + 1] = 2
    return #list > 1 and list[1]:concat(unpack(rest)) or list[1]
  end

  -- The vectors of one table: of the tokens, each times its weight (B, S, d), and of the numbers (n_dense, d).
  local function look_up(word, width, scale)
    local of_tokens = n_slots > 0 and net:parameter(("%s.%s"):format(o.name, word), { n, width }, { init = "normal", scale = scale })
    local of_numbers = n_dense > 0 and net:parameter(("%s.%s.dense"):format(o.name, word), { n_dense, width }, { init = "normal", scale = scale })
    local found = of_tokens and of_tokens[b.codes]
    squares[#squares + 1] = { found and found:square():sum(3), of_numbers and of_numbers:square():sum() }
    return found and found * weights, of_numbers
  end

  local function sum_of(x, y) return x and y and x + y or x or y end

  local vectors, numbers = look_up("vectors", d, o.scale)
  local parts = {}
  for _, field in ipairs(tokens) do
    local own = cut(vectors, 2, field.first, field.last, n_slots)
    parts[#parts + 1] = field.last > field.first and own:sum(2) or own:reshape(-1, d)
  end
  if dense then parts[#parts + 1] = dense end
  local f = { flat = beside(parts), width = #tokens * d + n_dense }

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

  function f.others(x)
    local list, total = {}, nil
    for i = 1, #tokens do
      list[i] = cut(x, 2, (i - 1) * d + 1, i * d, f.width)
      total = total and total + list[i] or list[i]
    end
    for i = 1, #tokens do list[i] = total - list[i] end
    if dense then list[#list + 1] = dense * 0 end
    return beside(list)
  end

  function f.l2(own)
    object.number(own or 1, 0, 1e6, "fields: l2 of the user's id")
    local counts, total = {}, nil
    for i, field in ipairs(tokens) do
      counts[i] = cut(present, 2, field.first, field.last, n_slots)
      if field.id and field.from == "user" then counts[i] = counts[i] * (own or 1) end
    end
    counts = n_slots > 0 and beside(counts)
    for _, s in ipairs(squares) do
      total = sum_of(total, sum_of(s[1] and (s[1] * counts):sum(2):mean(), s[2]))
    end
    return total * 0.5
  end

  return f
end
