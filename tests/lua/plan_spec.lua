-- plan_spec.lua - plans: what they may say, every error at once with its line, and what makes two plans the same run.

local native = require "evection.native"
local plan = require "evection.plan"
local support = require "support"

local count = 0

local composition = [[
nodes:
  knn:   { agent: item_knn, knobs: { shrink: 20 } }
  fresh: { agent: fresh_popular }
  blend: { agent: rank_fusion, from: [knn, fresh] }
output: blend
]]

-- The plan of this text, its composition beside it as c.yaml.
local function load(text, files)
  count = count + 1
  local folder = ("plans/%d/"):format(count)
  support.file(folder .. "c.yaml", composition)
  for name, content in pairs(files or {}) do support.file(folder .. name, content) end
  local path = support.file(folder .. "plan.yaml", text)
  local p, errors = plan.load(path)
  return p, errors, path
end

local function whole(text, files)
  local p, errors = load(text, files)
  assert(p, errors and errors[1] and errors[1].message)
  return p
end

local function paths(p)
  local list = {}
  for i, d in ipairs(p.dims) do list[i] = d.path end
  return table.concat(list, " ")
end

describe("a plan", function()
  it("says what the service does with the champion, which makes no other run of it", function()
    local p, q = whole "composition: c.yaml\n", whole "composition: c.yaml\npromotion: { then: canary, share: 0.3 }\n"
    assert.is_nil(p.handing)
    assert.same({ ["then"] = "canary", share = 0.3 }, q.handing)
    assert.same({ ["then"] = "canary", share = 0.1 }, whole "composition: c.yaml\npromotion: { then: canary }\n".handing)
    assert.same({ ["then"] = "stage" }, whole "composition: c.yaml\npromotion: { then: stage }\n".handing)
    assert.same(plan.identity(p), plan.identity(q))
  end)

  it("needs no more than a composition", function()
    local p = whole "composition: c.yaml\n"
    assert.equal("ndcg@20", p.reward.objectives[1].metric)
    assert.same({ "halving", "tpe" }, { p.proposers[1].name, p.proposers[2].name })
    assert.same({ 60, 4, 1, 600, 0.95, "ndcg@20" }, { p.evaluations, p.batch, p.seed, p.timeout_s, p.promotion.confidence, p.promotion.metric })
    assert.is_nil(p.seconds)
    assert.is_function(p.proposers[1].module.propose)
  end)

  it("may be about what a ranker says of clicks", function()
    local p = whole "composition: c.yaml\ntask: clicks\n"
    assert.same({ "auc", 1, "auc" }, { p.reward.objectives[1].metric, p.reward.objectives[1].weight, p.promotion.metric })
    local q = whole "composition: c.yaml\ntask: clicks\nreward: log_loss\npositive_rating: 3.5\npromotion: { metric: gauc }\n"
    assert.same({ "log_loss", -1, "gauc", 3.5 }, { q.reward.objectives[1].metric, q.reward.objectives[1].weight, q.promotion.metric, q.positive_rating })
    assert.are_not.same(plan.identity(whole "composition: c.yaml\n"), plan.identity(p))
    assert.is_nil(plan.identity(whole "composition: c.yaml\ntask: slates\n").task) -- runs of before keep their names
    local _, errors = load "composition: c.yaml\ntask: clicks\nreward: ndcg@20\npromotion: { metric: ndcg@20 }\n"
    support.errors_are(errors, { { 3, "the reward names 'ndcg@20'" }, { 4, "'ndcg@20' is no metric of clicks" } })
    _, errors = load "composition: c.yaml\ntask: views\n"
    support.errors_are(errors, { { 2, "task: 'views'" } })
  end)

  it("says everything it may say", function()
    local p = whole([[
name: mine
composition: c.yaml
data: somewhere
reward: r.yaml
evolve: ["knn.*"]
proposers: [random]
budget: { evaluations: 7, seconds: 1.5 }
promotion: { metric: recall@10, confidence: 0.9 }
batch: 2
timeout_s: 0.5
seed: 0
]], { ["r.yaml"] = "objectives: [{ maximise: recall@10, weight: 2 }, { minimise: gini@20 }]\nconstraints: [\"gini@20 <= 0.9\"]\n" })
    assert.same({ 7, 1.5, 2, 0.5, 0, 0.9, "recall@10" }, { p.evaluations, p.seconds, p.batch, p.timeout_s, p.seed, p.promotion.confidence, p.promotion.metric })
    assert.same({ metric = "recall@10", weight = 2 }, p.reward.objectives[1])
    assert.same({ metric = "gini@20", weight = -1 }, p.reward.objectives[2])
    assert.same({ metric = "gini@20", op = "<=", bound = 0.9 }, p.reward.constraints[1])
    assert.equal("somewhere", p.data)
  end)

  it("chooses its knobs by patterns, programs never, each once", function()
    assert.equal("blend.k blend.w1 blend.w2 blend.w3 blend.w4 fresh.forget fresh.half_life_days fresh.window " ..
      "knn.alpha knn.neighbours knn.shrink knn.user_power", paths(whole "composition: c.yaml\n"))
    local function chosen(evolve) return paths(whole("composition: c.yaml\nevolve: " .. evolve .. "\n")) end
    assert.equal("knn.alpha knn.neighbours knn.shrink knn.user_power", chosen '["knn.*"]')
    assert.equal("knn.shrink", chosen "[knn.shrink]")
    assert.equal("blend.w1 blend.w2 blend.w3 blend.w4", chosen '["blend.w*"]')
    assert.equal("knn.alpha knn.neighbours knn.shrink knn.user_power", chosen '["knn.*", knn.shrink]')
    assert.equal("fresh.half_life_days", chosen '["*half*"]')
    assert.equal(20, whole("composition: c.yaml\nevolve: [knn.shrink]\n").dims[1].value)
  end)

  it("may name a composition and a reward anywhere", function()
    local p = whole(("composition: %s\nreward: coverage@20\n"):format(support.file("plans/elsewhere.yaml", composition)))
    assert.equal("coverage@20", p.reward.objectives[1].metric)
    assert.equal("ease", whole("composition: agent:ease\n").composition.name)
  end)

  it("that ships is whole", function()
    for _, file in ipairs(native.list(native.root .. "/policies/plans")) do assert.is_table(plan.open(native.root .. "/policies/plans/" .. file)) end
  end)
end)

describe("errors", function()
  it("in the form come all at once, with their lines", function()
    local p, errors, path = load "compositon: c.yaml\nevolve: knn\nbatch: x\nbudget: 5\nproposers: tpe\nseed: []\nname: [a]\n"
    assert.is_nil(p)
    support.errors_are(errors, {
      { 1, "a plan has no field 'compositon' (did you mean 'composition'?)" }, { 1, "a plan names a composition" }, { 2, "evolve must be a list" },
      { 3, "batch must be a number" }, { 4, "budget must be a list or mapping" }, { 5, "proposers must be a list" }, { 6, "seed must be a number" },
      { 7, "name must be a string" },
    }, path)
  end)

  it("in what is said come all at once, those of its other files too", function()
    local _, errors, path = load([[
composition: c.yaml
evolve: [knn.shrink, nothing.*, "fresh.score", 7]
proposers: [tpe, tpee, Tpe, loop, display, "../x", 3]
budget: { evaluations: 0, seconds: -1, money: 3 }
promotion: { metric: ndcg@20, confidence: 1.5 }
batch: 0
timeout_s: -5
seed: 0.5
reward: r.yaml
]], { ["r.yaml"] = "objectives: [{ maximise: ndcg@20, weight: -1 }]\npenalty: x\n" })
    local own, other = {}, {}
    for _, e in ipairs(errors) do table.insert(e.file == path and own or other, e) end
    support.errors_are(own, {
      { 2, "'nothing.*' matches no knob" }, { 2, "'fresh.score' matches no knob" }, { 2, "'7' matches no knob" }, { 3, "no proposer 'tpee'" },
      { 3, "'Tpe' is no name of a proposer" }, { 3, "no proposer 'loop'" }, { 3, "no proposer 'display'" }, { 3, "'../x' is no name" }, { 3, "'3' is no name" },
      { 4, "evaluations must be a whole number from 1 to 1000000, not '0'" }, { 4, "seconds must be a positive number" }, { 4, "a budget has no 'money'" },
      { 5, "confidence must lie between 0.5 and 1" }, { 6, "batch must be a whole number" }, { 7, "timeout_s must be positive" },
      { 8, "seed must be a whole number" },
    })
    support.errors_are(other, { { 1, "weight must be a positive number" }, { 2, "penalty must be a number" } }, path:gsub("plan.yaml$", "r.yaml"))
  end)

  it("in what the service is to do with the champion have their line", function()
    for text, message in pairs {
      ["then: fly"] = "then: 'fly' is none of stage, canary, publish", ["share: 0.5"] = "share wants then: canary",
      ["then: publish, share: 0.5"] = "share wants then: canary",
      ["then: canary, share: 0"] = "share must be above 0 and at most 1, not '0'", ["then: canary, share: x"] = "share must be above 0",
      ["than: canary"] = "a promotion has no 'than'",
    } do
      local _, errors, path = load("composition: c.yaml\npromotion: { " .. text .. " }\n")
      support.errors_are(errors, { { 2, message } }, path)
    end
  end)

  it("of the composition are the plan's too", function()
    local _, errors = load("composition: c.yaml\n", { ["c.yaml"] = "nodes:\n  a: { agent: nothing }\noutput: b\n" })
    assert.equal(2, #errors)
    for _, e in ipairs(errors) do assert.matches("c.yaml$", e.file) end
    _, errors = load "composition: absent.yaml\n"
    assert.matches("absent.yaml$", errors[1].file)
  end)

  it("name metrics that no evaluation measures", function()
    for _, text in ipairs {
      "reward: ndcg@7\n", "reward: nonsense@20\n", "promotion: { metric: ndcg }\n", "promotion: { metric: coverage@20 }\n", "promotion: { metric: 5 }\n",
    } do
      local _, errors = load("composition: c.yaml\n" .. text)
      assert.equal(1, #errors, text)
      assert.equal(2, errors[1].line)
    end
  end)

  it("of a reward for another composition stand in the reward's file", function()
    local p, errors, path = load("composition: c.yaml\nreward: r.yaml\n", {
      ["r.yaml"] = "objectives: [{ maximise: ndcg@20 }]\nconstraints:\n  - latency_p99_ms.knm <= 3\nbaselines: { knn: rank_fusion }\n",
    })
    assert.is_nil(p)
    support.errors_are(errors, { { 3, "no node 'knm' (did you mean 'knn'?)" }, { 4, "of role merge" } }, path:gsub("plan.yaml$", "r.yaml"))
  end)

  it("of a promotion by a reward that no user has a share in", function()
    local files = { ["r.yaml"] = "objectives: [{ minimise: latency_p99_ms }]\n" }
    local _, errors = load("composition: c.yaml\nreward: r.yaml\npromotion: { metric: reward }\n", files)
    support.errors_are(errors, { { 3, "'reward' is no metric with a value for each user" } })
    files["r.yaml"] = "objectives: [{ minimise: gini@20 }]\n"
    assert.equal("reward", whole("composition: c.yaml\nreward: r.yaml\npromotion: { metric: reward }\n", files).promotion.metric)
  end)

  it("are errors and nothing worse, whatever the file", function()
    for _, text in ipairs {
      "", "1", "[]", "[1]", "composition: ''", "composition: c.yaml\nevolve: []", "composition: c.yaml\nevolve: [[]]", "composition: c.yaml\nevolve: ['']",
      "composition: c.yaml\nevolve: ['%', '[', '(']", "composition: c.yaml\nproposers: [[]]", "composition: c.yaml\npromotion: { confidence: x }",
      "composition: c.yaml\nbudget: { seconds: x }", "composition: /\n", "composition: agent:nothing", "composition: c.yaml\nname: a/b",
      "composition: c.yaml\nreward: absent.yaml", "composition: c.yaml\nreward: c.yaml", "composition: plan.yaml",
    } do
      local p, errors = load(text)
      assert.is_nil(p, text)
      assert.is_true(#errors > 0)
    end
    assert.matches("absent", select(2, plan.load(support.folder .. "/absent.yaml"))[1].file)
    support.refused("matches no knob", plan.open, support.file("plans/c/p.yaml", "composition: agent:ease\nevolve: [x]\n"))
  end)
end)

it("two plans are the same run when they decide the same", function()
  local function identity(text) return native.json_encode(plan.identity(whole(text))) end
  local one = identity "composition: c.yaml\n"
  assert.equal(one, identity "composition: c.yaml\nname: other\ntimeout_s: 5\nabout: x\n")
  for _, text in ipairs {
    "evolve: [knn.shrink]", "proposers: [tpe, halving]", "budget: { evaluations: 61 }", "batch: 5", "reward: recall@20",
    "promotion: { metric: ndcg@10 }",
  } do assert.are_not.equal(one, identity("composition: c.yaml\n" .. text .. "\n")) end
end)
