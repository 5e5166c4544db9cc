-- lineage.lua - `evection lineage`: a run's champion with its ancestors, or the whole tree.

local native = require "evection.native"
local ledger = require "evection.ledger"
local lineage = require "evection.lineage"
local loop = require "evection.evolve.loop"

local verb = {}

function verb.main(opts)
  local l = ledger.open()
  local run = ledger.find_run(l, opts.args[1])
  if not run then
    native.raise("not found", opts.args[1] and ("no run '%s' in %s"):format(opts.args[1], native.home)
      or ("no run in %s; make one with `evection evolve`"):format(native.home))
  end
  local history = ledger.evaluations(l, run.run)
  local champion = run.champion or (loop.champion(history) or {}).number
  l:close()
  if not opts.json then
    print(("run %s on %s, seed %d: %d evaluations%s"):format(run.run:sub(1, 12), run.data, run.seed, #history, run.champion and "" or ", not ended"))
    if opts.all then print(lineage.all(history))
    elseif champion then print(lineage.text(history, champion)) end
  end
  return { run = run.run, data = run.data, seed = run.seed, evaluations = #history, champion = champion,
    lineage = champion and lineage.steps(history, champion, native) or native.array {} }
end

return verb
