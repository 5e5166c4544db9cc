-- evolve.lua - `evection evolve PLAN`: searches the knobs of a composition, on validation alone, and tells what it found.

local native = require "evection.native"
local compose = require "evection.compose"
local coupling = require "evection.coupling"
local credit = require "evection.credit"
local display = require "evection.evolve.display"
local faults = require "evection.faults"
local layers = require "evection.evolve.layers"
local ledger = require "evection.ledger"
local lineage = require "evection.lineage"
local loop = require "evection.evolve.loop"
local plan = require "evection.plan"
local report = require "evection.report"
local reward = require "evection.reward"
local world = require "evection.world"
local yaml = require "evection.yaml"

local evolve = {}

local SEALED = { "ndcg@20", "recall@20", "coverage@20", "diversity@20", "auc", "gauc", "log_loss" }

-- An evaluation in a child process. → what is kept of it: no per-user values, no clocks but those the reward names
function evolve.measure(args)
  local result = world.evaluate(args)
  local metrics, named = {}, {}
  for _, m in ipairs(args.task ~= "clicks" and reward.parts(args.reward) or {}) do named[m.name] = true end
  for name, m in pairs(result.metrics) do
    if named[name] or not name:match "^latency" then metrics[name] = m.value end
  end
  for node, value in pairs(result.inners or {}) do metrics["inner." .. node] = value end
  return { reward = result.reward, metrics = metrics }
end

-- What each of several evaluations at once may hold, so that one that allocates without end cannot take the machine along.
local function share_of_memory(workers)
  for line in io.lines "/proc/meminfo" do
    local kb = line:match "^MemTotal:%s*(%d+) kB"
    if kb then return 0.9 * tonumber(kb) / 1024 / workers end
  end
end

local function evaluator(p, l, run, data, workers)
  return function(list, done)
    local args = native.array {}
    for i, e in ipairs(list) do
      local c = compose.open(p.composition.source, e.sets)
      e.genome, e.seed = c.hash, p.seed
      ledger.put_genome(l, c)
      args[i] = {
        composition = p.composition.source, sets = e.sets, data = data, fold = "valid", seed = p.seed, users = e.users, reward = p.reward, bootstrap = 0,
        task = p.task, positive_rating = p.positive_rating, inner = p.reward.coupling.by ~= "none" or nil,
      }
    end
    native.jobs_run {
      module = "evection.verbs.evolve", fn = "measure", args = args, workers = workers, timeout_s = p.timeout_s,
      max_memory_mb = p.memory_mb or share_of_memory(workers), confined = true,
      on_done = function(i, ok, result, seconds, peak_rss_mb)
        local e = list[i]
        if ok and result.reward then e.reward, e.metrics = result.reward, result.metrics
        else e.error = ok and "its reward is not a number" or result end
        e.seconds, e.peak_rss_mb = seconds, peak_rss_mb
        done(e)
      end,
    }
  end, function(e) ledger.put_evaluation(l, run, e) end
end

-- Champion against the given composition on a fold, user by user.
local function compare(p, champion, data, fold, refit)
  if p.task == "clicks" then
    local best = world.evaluate {
      composition = p.composition.source, sets = champion.sets, against = { composition = p.composition.source, sets = {} }, data = data, fold = fold,
      refit = refit, seed = p.seed, confidence = p.promotion.confidence, task = p.task, positive_rating = p.positive_rating,
    }
    local given = { data = best.data, data_hash = best.data_hash, genome = best.against.genome, metrics = best.against.metrics, n_users = best.n_users }
    return given, best, best.against.difference[p.promotion.metric]
  end
  local metric, pair = p.promotion.metric, {}
  for i, sets in ipairs { {}, champion.sets } do
    pair[i] = world.evaluate {
      composition = p.composition.source, sets = sets, data = data, fold = fold, refit = refit, seed = p.seed,
      per_user = metric ~= "reward" and { metric } or nil, reward = p.reward,
      values = true,
    }
  end
  local given, best = pair[1].outer, pair[2].outer
  if metric ~= "reward" then given, best = native.vector(pair[1].per_user[metric]), native.vector(pair[2].per_user[metric]) end
  return pair[1], pair[2], native.paired_bootstrap(given, best, p.seed, 5000, p.promotion.confidence)
end

local function values(metrics)
  local kept = {}
  for name, m in pairs(metrics) do
    if not name:match "^latency" then kept[name] = { value = m.value, low = m.low, high = m.high } end
  end
  return kept
end

-- Whether an inner reward is up while the outer one is down, champion against given.
local function divergence(p, given, best)
  if not (given.outer and best.outer) then return nil end
  return coupling.divergence({ outer = given.outer, inner = given.inner_values }, { outer = best.outer, inner = best.inner_values },
    { seed = p.seed, confidence = p.promotion.confidence })
end

-- Why a champion is not promoted: a list, empty when nothing speaks against it. found: by fold, feasibility and divergence.
local function objections(p, gain, found)
  local list = native.array {}
  local less = p.promotion.metric:match "loss$"
  if not (less and gain.high < 0 or not less and gain.low > 0) then
    list[1] = ("on validation the gain's interval [%+.4f, %+.4f] includes zero"):format(gain.low, gain.high)
    if (less and gain.low or -gain.high) > 0 then list[1] = ("on validation it is worse: [%+.4f, %+.4f]"):format(gain.low, gain.high) end
  end
  for _, c in ipairs(found.validation.constraints) do
    if not c.met then list[#list + 1] = ("on validation %s does not hold: %.4g [%.4g, %.4g]"):format(c.constraint, c.value, c.low, c.high) end
  end
  for _, fold in ipairs { "validation", "test" } do
    local d = found[fold].divergence
    for _, node in ipairs(d and d.nodes or {}) do
      if node.diverges then
        local function range(m) return ("%+.4f [%+.4f, %+.4f]"):format(m.value, m.low, m.high) end
        list[#list + 1] = ("divergence on %s: the inner reward of %s is up, %s, while the outer reward is down, %s, p = %.4f"):format(
          fold, node.node, range(node.inner), range(d.outer), node.p)
      end
    end
  end
  return list
end

-- The sealed comparison. It is made once a run and kept; each of its two evaluations counts as a look.
local function sealed_report(p, l, champion, data, weights)
  local valid_given, valid_best, valid = compare(p, champion, data, "valid", false)
  local given, best, test = compare(p, champion, data, "test", true)
  local looks
  for _, result in ipairs { given, best } do
    looks = ledger.look(l, { data = result.data, data_hash = result.data_hash, genome = result.genome, why = "report of an evolution run" })
  end
  local found = {
    validation = { constraints = reward.feasibility(p.reward, valid_best.metrics), divergence = divergence(p, valid_given, valid_best) },
    test = { constraints = reward.feasibility(p.reward, best.metrics), divergence = divergence(p, given, best) },
  }
  local against, opposed, earned = objections(p, valid, found), coupling.opposed(weights, p.promotion.confidence), nil
  if p.reward.coupling.by ~= "none" then
    local of_nodes = {}
    for node, w in pairs(weights) do of_nodes[node] = w.weight end
    earned = credit.kept(credit.measure {
      composition = p.composition.source, sets = champion.sets, data = data, fold = "valid", seed = p.seed, reward = p.reward,
      method = p.reward.coupling.by, samples = p.reward.coupling.by == "shapley" and #p.composition.nodes > credit.EXACT and p.reward.coupling.samples or nil,
      confidence = p.promotion.confidence, weights = of_nodes,
    })
  end
  return {
    metric = p.promotion.metric, confidence = p.promotion.confidence, validation = valid, test = test, promoted = #against == 0, against = against,
    given = values(given.metrics), champion = values(best.metrics), users = given.n_users, looks = looks,
    genomes = { given = given.genome, champion = best.genome },
    constraints = { validation = found.validation.constraints, test = found.test.constraints },
    divergence = { validation = found.validation.divergence, test = found.test.divergence, opposed = opposed },
    credit = earned,
  }
end

-- Rows of a constraint: what it is on both folds, and whether it holds.
local function print_constraints(constraints)
  local rows = {}
  for i, v in ipairs(constraints.validation) do
    local t = constraints.test[i]
    local function cell(c)
      return ("%s  %s%s"):format(report.interval(c), c.met and "holds" or "does not hold", c.sure and "" or ", not beyond doubt")
    end
    rows[i] = { v.constraint, cell(v), cell(t) }
  end
  if #rows > 0 then print(report.table(rows, { { 1, "constraint" }, { 2, "champion, validation" }, { 3, "champion, test" } })) end
end

local function print_report(p, r, champion)
  local rows = {}
  for _, name in ipairs(SEALED) do
    if r.given[name] then rows[#rows + 1] = { name, report.interval(r.given[name]), report.interval(r.champion[name]) } end
  end
  print(("sealed test fold, %d users, fitted on train and validation"):format(r.users))
  print(report.table(rows, { { 1, "metric" }, { 2, p.composition.name .. ", as given" }, { 3, "evolved champion" } }))
  if r.constraints then print_constraints(r.constraints) end -- reports of before have none
  print(("%s, champion − given: %+.4f  [%+.4f, %+.4f] at %.0f %%, p = %.4f (paired bootstrap over users)"):format(
    r.metric, r.test.value, r.test.low, r.test.high, r.confidence * 100, r.test.p))
  for _, node in ipairs(r.divergence and r.divergence.opposed or {}) do
    print(("over the run the inner reward of %s went against the outer reward"):format(node))
  end
  if r.credit then print(require "evection.verbs.credit".text(r.credit)) end
  if champion.number == 1 then print "nothing found is better than the composition as given"
  else
    for _, why in ipairs(r.against or {}) do print("not for promotion: " .. why) end
  end
  print(("the test fold of these data has been opened %d times"):format(r.looks))
end

local function start(opts, p, l, run, w)
  local known = ledger.find_run(l, run)
  if known and opts.fresh then
    ledger.forget_run(l, run)
    known = nil
  end
  if known and not opts.resume then
    native.raise("invalid", ("this plan with this seed is in the ledger already (run %s): --resume continues it, --fresh starts over"):format(run:sub(1, 12)))
  end
  if not known then
    if opts.resume and not opts.quiet then io.stderr:write "nothing to resume: the run starts here\n" end
    ledger.put_run(l, { run = run, plan = p.source, data = w.name, data_hash = w.hash, seed = p.seed })
    return {}, nil
  end
  return ledger.evaluations(l, run), known.report and native.json_decode(known.report)
end

-- handing(opts) → { then, share, data }: what the service is to do with the champion, by the command line, else by the plan; without then: nothing.
-- Said before the run, so that a service that is not there, or serves other data, is known before the work is done.
function evolve.handing(opts)
  local p = plan.open(opts.args[1])
  local handing = p.handing
  if opts["then"] or opts.share then
    local word = opts["then"] or (handing and handing["then"])
    handing = plan.handing(word, opts.share, function(_, message, ...) native.raise("invalid", ("--" .. message:gsub(" then:", " --then")):format(...)) end)
  end
  local to = { ["then"] = handing and handing["then"], share = handing and handing.share }
  if handing then to.data = world.open(opts.data or p.data or p.composition.data).name end
  return to
end

function evolve.main(opts)
  local p = plan.open(opts.args[1])
  local data = opts.data or p.data or p.composition.data
  local w = world.open(data)
  if p.task ~= "clicks" then faults.raise(reward.check(p.reward, p.composition, w:item_columns())) end
  p.seed, p.evaluations = opts.seed or p.seed, opts.evaluations or p.evaluations
  local workers = opts.workers or native.threads()
  if workers < 1 or p.evaluations < 1 then native.raise("invalid", "--workers and --evaluations are 1 or more") end
  local l = ledger.open()
  local run = native.hash(native.json_encode { plan = plan.identity(p), data = w.hash, seed = p.seed })
  local recorded, kept = start(opts, p, l, run, w)
  local show, finish = display.new(p.evaluations, opts.quiet)
  local evaluate, record = evaluator(p, l, run, data, workers)
  local above
  if layers.needed(p.reward) then above = layers.new(p.reward, function(number, state) ledger.put_reward_state(l, run, number, state) end) end
  local ok, history, why = pcall(loop.run, {
    dims = p.dims, proposers = p.proposers, evaluations = p.evaluations, batch = p.batch, seed = p.seed, seconds = p.seconds,
    recorded = recorded, evaluate = evaluate, record = record, show = show, layers = above,
  })
  finish()
  if not ok then
    if native.interrupted() and not opts.quiet then io.stderr:write "what was measured is in the ledger; --resume goes on from here\n" end
    error(history, 0)
  end
  local champion = loop.champion(history)
  if not champion then native.raise("failed", "every evaluation failed; the first said: " .. tostring(history[1].error)) end
  local r = kept
  if not r and not opts.no_report then r = sealed_report(p, l, champion, data, above and above.weights or {}) end
  ledger.end_run(l, run, champion.number, r)
  local c = compose.open(p.composition.source, champion.sets)
  c.source.name = (c.source.name or "champion") .. "_evolved"
  native.mkdirs(native.home .. "/champions")
  local out = opts.out or ("%s/champions/%s.yaml"):format(native.home, (p.name:match "([^/]+)$":gsub("%.ya?ml$", "")))
  local head = { "# found by `evection evolve`, run " .. run:sub(1, 12) }
  for _, against in ipairs(r and champion.number > 1 and r.against or {}) do head[#head + 1] = "# not for promotion: " .. against end
  native.write_file(out, table.concat(head, "\n") .. "\n" .. yaml.emit(c.source))
  local failed = 0
  for _, e in ipairs(history) do
    if e.error then failed = failed + 1 end
  end
  if not opts.json then
    print(("%d evaluations, %d failed; champion is evaluation %d, reward %.5f (given: %s)"):format(#history, failed, champion.number, champion.reward,
      history[1].reward and ("%.5f"):format(history[1].reward) or "failed"))
    print(lineage.text(history, champion.number))
    print("reward = " .. reward.formula(p.reward))
    if champion.violation and champion.violation > 0 then print "no evaluation keeps every constraint; the champion breaks them least" end
    for _, line in ipairs(above and layers.told(above.state(history)) or {}) do print(line) end
    if r then print_report(p, r, champion) end
    print("champion written to " .. out)
    if why == "seconds" then print "the time budget ended the run" end
  end
  l:close()
  return { run = run, evaluations = #history, failed = failed, champion = { number = champion.number, genome = champion.genome, reward = champion.reward,
    sets = champion.sets, file = out, violation = champion.violation, layered = champion.layered }, given = history[1].reward, report = r, ended_by = why,
    formula = reward.formula(p.reward), state = above and above.state(history) or nil }
end

return evolve
