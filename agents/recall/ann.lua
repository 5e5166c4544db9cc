-- Factors as ials has them, and an index over the items' vectors, so that a request looks at a part of the items only.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "ann", role = "recall",
  about = "Implicit-feedback factors, searched through an approximate index.",
  references = {
    "Rendle, Krichene, Zhang, Koren: Revisiting the performance of iALS on item recommendation benchmarks, RecSys 2022",
    "Malkov, Yashunin: Efficient and robust approximate nearest neighbor search using hierarchical navigable small world graphs, TPAMI 2020",
  },
  space = {
    n_dims            = space.logint(8, 512, 64),
    epochs            = space.int(1, 32, 12),
    unobserved_weight = space.log(1e-4, 10, 0.05),
    regularization    = space.log(1e-5, 1, 0.003),
    frequency_power   = space.linear(0, 1, 1),
    index             = space.choice { "hnsw", "ivf", "flat" },              -- flat looks at all: exact
    form              = space.choice { "f32", "f16", "bf16", "i8" }, -- what the search reads; the best are ordered by f32 in any case
    n_links           = space.logint(4, 64, 16),     -- hnsw: of an item
    effort_build      = space.logint(16, 1024, 200), -- hnsw: candidates kept while an item is put
    effort            = space.logint(1, 4096, 64),   -- hnsw: candidates kept, at least as many as are asked for; ivf: lists looked at
  },
  fit_knobs = { "n_dims", "epochs", "unobserved_weight", "regularization", "frequency_power", "index", "form", "n_links", "effort_build" },

  fit = function(knobs, data)
    return data:ials {
      n_dims = knobs.n_dims, epochs = knobs.epochs, unobserved_weight = knobs.unobserved_weight, regularization = knobs.regularization,
      frequency_power = knobs.frequency_power,
      index = { kind = knobs.index, form = knobs.form, n_links = knobs.n_links, effort_build = knobs.effort_build },
    }
  end,

  act = function(model, request, slate, ctx) model:recall(request, slate, nil, ctx.knobs.effort) end,
}
