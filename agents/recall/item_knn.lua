-- Items that share users with what you have: cosine neighbours, shrunk where little is known.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "item_knn", role = "recall",
  about = "Item neighbours by shrunk cosine.",
  references = {
    "Sarwar, Karypis, Konstan, Riedl: Item-based collaborative filtering recommendation algorithms, WWW 2001",
    "Bell, Koren: Scalable collaborative filtering with jointly derived neighborhood interpolation weights, ICDM 2007",
  },
  space = {
    neighbours = space.logint(10, 1000, 200),
    shrink     = space.log(0.1, 1000, 10),  -- users
    alpha      = space.linear(0, 1, 0.5),   -- 0.5: cosine; less favours popular neighbours
    user_power = space.linear(0, 1, 0),     -- how much less a user of long history says
  },
  fit = function(knobs, data) return data:item_knn(knobs) end,
}
