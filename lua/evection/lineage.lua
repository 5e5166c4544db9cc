-- lineage.lua - who came from whom: the tree of evaluations, with what changed and what it gained.

local lineage = {}

local function short(value, digits)
  if value == nil then return "given" end
  if type(value) == "number" then return ("%%.%dg"):format(digits):format(value) end
  return tostring(value)
end

-- "before → after", in as few digits as tell them apart.
local function change(before, after)
  local digits = 4
  while digits < 17 and short(before, digits) == short(after, digits) do digits = digits + 1 end
  return ("%s → %s"):format(short(before, digits), short(after, digits))
end

-- What e has that its parent had not: "knn.shrink 10 → 32"; nil stands for the given composition's own value.
local function changes(e, parent)
  local list, seen = {}, {}
  for path in pairs(e.sets) do seen[path] = true end
  for path in pairs(parent and parent.sets or {}) do seen[path] = true end
  for path in pairs(seen) do
    local before, after = parent and parent.sets[path], e.sets[path]
    if before ~= after then
      list[#list + 1] = path .. " " .. change(before, after)
    end
  end
  table.sort(list)
  return list
end

local function line(e, parent)
  local gain = ""
  if e.reward and parent and parent.reward and e.users == parent.users then gain = (" (%+.5f)"):format(e.reward - parent.reward) end
  local users = e.users < 1 and (" on %.0f %% of the users"):format(e.users * 100) or ""
  return ("%d  %s%s%s  %s: %s"):format(e.number, e.reward and ("%.5f"):format(e.reward) or "failed", gain, users, e.proposer, e.error or e.reason)
end

-- ancestors(history, number) → numbers from the given composition down to it.
function lineage.ancestors(history, number)
  local path = {}
  while number and history[number] and #path < 10000 do
    table.insert(path, 1, number)
    number = history[number].parent
  end
  return path
end

-- text(history, number): the ancestors of an evaluation, a step deeper each.
function lineage.text(history, number)
  local lines = {}
  for depth, n in ipairs(lineage.ancestors(history, number)) do
    local e, pad = history[n], ("   "):rep(depth - 1)
    local parent = e.parent and history[e.parent]
    lines[#lines + 1] = (depth > 1 and ("   "):rep(depth - 2) .. "└─ " or "") .. line(e, parent)
    if parent then
      for _, text in ipairs(changes(e, parent)) do lines[#lines + 1] = pad .. "     " .. text end
    end
  end
  return table.concat(lines, "\n")
end

-- all(history): the whole tree, children by number.
function lineage.all(history)
  local children, lines = {}, {}
  for n, e in ipairs(history) do
    local parent = e.parent or 0
    children[parent] = children[parent] or {}
    table.insert(children[parent], n)
  end
  local function walk(parent, pad)
    for i, n in ipairs(children[parent] or {}) do
      local last = i == #children[parent]
      lines[#lines + 1] = (parent == 0 and "" or pad .. (last and "└─ " or "├─ ")) .. line(history[n], history[parent])
      walk(n, parent == 0 and "" or pad .. (last and "   " or "│  "))
    end
  end
  walk(0, "")
  return table.concat(lines, "\n")
end

-- steps(history, number): the ancestors as data.
function lineage.steps(history, number, native)
  local steps = native.array {}
  for _, n in ipairs(lineage.ancestors(history, number)) do
    local e = history[n]
    local parent = e.parent and history[e.parent]
    steps[#steps + 1] = { number = n, parent = e.parent, reward = e.reward, users = e.users, proposer = e.proposer, reason = e.reason, genome = e.genome,
      changes = native.array(parent and changes(e, parent) or {}),
      gain = parent and parent.reward and e.reward and parent.users == e.users and e.reward - parent.reward or nil }
  end
  return steps
end

return lineage
