-- What tends to follow what you had last: transitions between items, by how far apart they stood.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "markov", role = "recall",
  about = "Item-to-item transitions within a window; the last things count most.",
  references = {
    "Ludewig, Jannach: Evaluation of session-based recommendation algorithms, UMUAI 2018",
    "Shani, Heckerman, Brafman: An MDP-based recommender system, JMLR 2005",
  },
  space = {
    neighbours = space.logint(10, 1000, 200),
    window     = space.logint(1, 200, 10),    -- steps ahead that are counted
    decay      = space.linear(0.1, 1, 0.8),   -- what each further step ahead keeps
    backward   = space.linear(0, 1, 0.3),     -- what a transition the other way round counts
    from_power = space.linear(0, 1, 0.5),     -- 1: a distribution over what follows
    to_power   = space.linear(0, 1, 0.3),     -- how much less a popular follower counts
    shrink     = space.log(0.01, 100, 1),
    user_power = space.linear(0, 1, 0),
    half_life  = space.log(0.3, 100, 2),      -- in steps of the history that asks
  },
  fit = function(knobs, data) return data:markov(knobs) end,
}
