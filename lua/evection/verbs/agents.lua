-- agents.lua - `evection agents`: what there is to compose, and the knobs of each.

local native = require "evection.native"
local agent = require "evection.agent"
local faults = require "evection.faults"
local report = require "evection.report"
local space = require "evection.space"

local agents = {}

local function knob_names(a)
  local names = {}
  for name in pairs(a.space) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function describe(a)
  local knobs = {}
  for name, dim in pairs(a.space) do knobs[name] = dim end
  return { name = a.name, role = a.role, about = a.about, file = a.file, knobs = knobs, references = native.array(a.references or {}), learns = a.learn ~= nil }
end

local function show_one(a)
  print(("%s (%s): %s"):format(a.name, a.role, a.about))
  local rows = {}
  for _, name in ipairs(knob_names(a)) do rows[#rows + 1] = { name, space.describe(a.space[name]) } end
  if #rows > 0 then print(report.table(rows, { { 1, "knob" }, { 2, "values" } })) end
  for _, reference in ipairs(a.references or {}) do print("reference: " .. reference) end
  print("file: " .. a.file)
end

function agents.main(opts)
  if opts.args[1] then
    local a = faults.check(agent.find(opts.args[1]))
    if not opts.json then show_one(a) end
    return describe(a)
  end
  local list, rows = native.array {}, {}
  for _, path in ipairs(agent.list()) do
    local a, errors = agent.load(path)
    if a then
      list[#list + 1] = describe(a)
      rows[#rows + 1] = { a.role, a.name, a.about, table.concat(knob_names(a), " ") }
    else
      io.stderr:write(faults.describe(errors), "\n")
    end
  end
  if not opts.json then print(report.table(rows, { { 1, "role" }, { 2, "agent" }, { 3, "what it does" }, { 4, "knobs" } })) end
  return list
end

return agents
