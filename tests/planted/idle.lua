-- Works, and changes nothing: twice every score is the same order.
local agent = require "evection.agent"

return agent {
  name = "idle", role = "rerank",
  about = "Doubles every score.",
  act = function(_, _, slate) slate.score:mul(2) end,
}
