-- A weighted sum of sixteen columns, each weight a knob: what a policy looks like that is written by hand and tuned by evolution.
-- Eleven columns are of the item, made once from the training data and looked up; five are of the request.
local agent, space = require "evection.agent", require "evection.space"

local function weight(default) return space.linear(-8, 8, default) end

-- Mean 0 and deviation 1 over the items, so that a weight says how much a column counts.
local function standard(v)
  local mean = v:sum() / #v
  local centred = v - mean
  local deviation = math.sqrt((centred * centred):sum() / #v)
  return deviation > 0 and centred / deviation or centred
end

-- Over items, of the users who have it: Σ 1/√n, Σ 1/n and Σ log n, n being the length of a user's history.
local function company(data)
  local light, lighter, length = {}, {}, {}
  for i = 1, data:n_items() do light[i], lighter[i], length[i] = 0, 0, 0 end
  for user = 0, data:n_users() - 1 do
    local history = data:history(user)
    local n = #history
    local a, b, c = n ^ -0.5, 1 / n, math.log(n)
    for k = 1, n do
      local i = history[k] + 1
      light[i], lighter[i], length[i] = light[i] + a, lighter[i] + b, length[i] + c
    end
  end
  return vector(light), vector(lighter), vector(length)
end

-- Over items, of their clusters: how many items and clicks a cluster has, and the item's place in it by clicks.
local function of_clusters(cluster, count)
  local items, clicks, members, place = {}, {}, {}, {}
  for i = 1, #cluster do
    local c = cluster[i]
    items[c], clicks[c] = (items[c] or 0) + 1, (clicks[c] or 0) + count[i]
    members[c] = members[c] or {}
    table.insert(members[c], i)
  end
  local size, popular = {}, {}
  for i = 1, #cluster do size[i], popular[i] = items[cluster[i]], clicks[cluster[i]] end
  for _, list in pairs(members) do
    local own = {}
    for _, i in ipairs(list) do own[i] = count[i] end
    table.sort(list, function(a, b) return own[a] > own[b] or (own[a] == own[b] and a < b) end)
    for at, i in ipairs(list) do place[i] = at end
  end
  return vector(size), vector(popular), vector(place)
end

return agent {
  name = "linear_policy", role = "rank",
  about = "A weighted sum of sixteen columns of item and request, each weight a knob.",
  references = { "Liu: Learning to rank for information retrieval, FnTIR 2009 (features of this kind)" },
  space = {
    -- Of the request:
    score    = weight(0), -- the recall's
    scaled   = weight(1), -- the same brought to [0, 1]
    place    = weight(0), -- 1 / log2(1 + place in the recall)
    affinity = weight(0), -- share of the user's history in the item's cluster
    mine     = weight(0), -- popular, times the logarithm of how much the user has
    -- Of the item:
    popular         = weight(0), -- logarithm of its number of users
    popular_root    = weight(0), -- the number's square root,
    popular_square  = weight(0), -- the logarithm's square,
    rare            = weight(0), -- and 1 / root
    light           = weight(0), -- logarithm of its users, each counting 1/√n for a history of n,
    lighter         = weight(0), -- and 1/n
    company         = weight(0), -- mean logarithm of its users' histories
    cluster_size    = weight(0), -- logarithm of the items in its cluster,
    cluster_popular = weight(0), -- and of their clicks
    share           = weight(0), -- logarithm of its share of its cluster's clicks
    cluster_place   = weight(0), -- 1 / log2(1 + its place in the cluster by clicks)
    clusters        = space.logint(2, 4096, 256), -- into which k-means sorts the items' vectors
  },
  fit_knobs = { "clusters" },

  fit = function(knobs, data)
    local count = data:item_counts()
    local light, lighter, length = company(data)
    local cluster = data:ials { n_dims = 32, epochs = 4, unobserved_weight = 0.02 }:clusters(knobs.clusters)
    local size, clicks, place = of_clusters(cluster, count)
    local popular = (count + 1):log()
    return data:item_columns {
      cluster = cluster, -- no part of the sum: what a reranker may go by
      popular = standard(popular), popular_root = standard(count:sqrt()), popular_square = standard(popular * popular), rare = standard((count + 1) ^ -0.5),
      light = standard((light + 1):log()), lighter = standard((lighter + 0.1):log()), company = standard(length / count:max_with(1)),
      cluster_size = standard(size:log()), cluster_popular = standard((clicks + 1):log()), share = standard(((count + 1) / (clicks + 1)):log()),
      cluster_place = standard(1 / (place + 1):log()),
    }
  end,

  act = function(model, request, slate, ctx)
    model:fill(slate)
    slate:column("scaled"):set(slate.score):normalise()
    slate:column("place"):set(math.log(2) / (slate:places() + 1):log())
    slate:column("affinity"):set(model:share(request, slate, "cluster"))
    slate:column("mine"):set(slate.popular):mul(math.log(1 + request.n_history))
    slate:weigh(ctx.knobs)
  end,
}
