-- What a user's history becomes when the graph of users and items filters it: smoothed, then sharpened.
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "graph_filter", role = "recall",
  about = "Low-pass graph filtering in closed form (GF-CF), with blurring and sharpening (BSPM).",
  references = {
    "Shen, Wu, Zhang, Shan, Zhang, Letaief, Li: How powerful is graph convolution for recommendation?, CIKM 2021",
    "Choi, Hong, Park, Cho: Blurring-sharpening process models for collaborative filtering, SIGIR 2023",
  },
  space = {
    n_dims         = space.logint(4, 1024, 256),
    user_power     = space.linear(0, 1, 0.5),
    item_power     = space.linear(0, 1, 0.5),
    low_pass       = space.linear(0, 2, 0.3),
    low_pass_power = space.linear(0, 1, 0.5),
    singular_power = space.linear(0, 4, 0),
    blur_time      = space.linear(0.1, 2, 1),
    blur_steps     = space.int(1, 3, 1),
    sharpen_time   = space.linear(0, 5, 2.5),
    sharpen_steps  = space.int(0, 3, 0),
    sharpen_order  = space.int(1, 4, 4),
    late           = space.bool(false),
    item_power_out = space.linear(-0.5, 0.5, 0),
  },
  fit = function(knobs, data) return data:graph_filter(knobs) end,
}
