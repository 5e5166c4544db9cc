-- Implicit matrix factorisation by alternating least squares, regularised by frequency.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "ials", role = "recall",
  about = "Implicit-feedback factors by alternating least squares.",
  references = {
    "Hu, Koren, Volinsky: Collaborative filtering for implicit feedback datasets, ICDM 2008",
    "Rendle, Krichene, Zhang, Koren: Revisiting the performance of iALS on item recommendation benchmarks, RecSys 2022",
  },
  space = {
    n_dims            = space.logint(8, 512, 64),
    epochs            = space.int(1, 32, 12),
    unobserved_weight = space.log(1e-4, 10, 0.05),
    regularization    = space.log(1e-5, 1, 0.003),
    frequency_power   = space.linear(0, 1, 1),
  },
  fit = function(knobs, data) return data:ials(knobs) end,
}
