-- report.lua - what people read: aligned tables, metrics with intervals, progress on standard error.

local native = require "evection.native"

local report = {}

-- Characters, not bytes: what a terminal's column counts (combining and wide characters aside).
local function width(s) return select(2, s:gsub("[^\128-\191]", "")) end

-- table(rows, columns): columns = { { key or index, title, right = bool } … }
function report.table(rows, columns)
  local widths, lines = {}, {}
  for c, column in ipairs(columns) do
    widths[c] = width(column[2])
    for _, row in ipairs(rows) do widths[c] = math.max(widths[c], width(tostring(row[column[1]] or ""))) end
  end
  local function line(cells)
    local parts = {}
    for c, column in ipairs(columns) do
      local cell = tostring(cells[c] or "")
      local pad = (" "):rep(widths[c] - width(cell))
      parts[c] = column.right and pad .. cell or cell .. pad
    end
    lines[#lines + 1] = (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  local head = {}
  for c, column in ipairs(columns) do head[c] = column[2] end
  line(head)
  for _, row in ipairs(rows) do
    local cells = {}
    for c, column in ipairs(columns) do cells[c] = row[column[1]] end
    line(cells)
  end
  return table.concat(lines, "\n")
end

function report.interval(m, digits)
  local f = ("%%.%df"):format(digits or 4)
  if m.low == m.value and m.high == m.value then return f:format(m.value) end
  return (f .. "  [" .. f .. ", " .. f .. "]"):format(m.value, m.low, m.high)
end

local order = { recall = 1, ndcg = 2, hit = 3, precision = 4, mrr = 5, map = 6, coverage = 7, gini = 8, novelty = 9, diversity = 10 }

-- metrics(m): a row a metric, a column a cut-off, the value with its interval.
function report.metrics(metrics)
  local rows, by_name, cuts, singles = {}, {}, {}, {}
  for name, m in pairs(metrics) do
    local base, k = name:match "^(.-)@(%d+)$"
    if base then
      if not by_name[base] then
        by_name[base] = { base, rank = order[base] or 99 }
        rows[#rows + 1] = by_name[base]
      end
      by_name[base][k] = report.interval(m)
      cuts[k] = true
    else
      singles[#singles + 1] = { name, text = m.low == m.high and ("%.3f"):format(m.value) or report.interval(m) }
    end
  end
  table.sort(rows, function(a, b) return a.rank < b.rank or (a.rank == b.rank and a[1] < b[1]) end)
  local columns, list = { { 1, "metric" } }, {}
  for k in pairs(cuts) do list[#list + 1] = tonumber(k) end
  table.sort(list)
  for _, k in ipairs(list) do columns[#columns + 1] = { tostring(k), "@" .. k } end
  local text = #rows > 0 and report.table(rows, columns) .. "\n" or ""
  table.sort(singles, function(a, b) return a[1] < b[1] end)
  for i, s in ipairs(singles) do text = ("%s%s%s %s"):format(text, i > 1 and "\n" or "", s[1], s.text) end
  return (text:gsub("\n$", ""))
end

-- progress(quiet) → function(what, done, all, loss): one line that is rewritten on a terminal, from the second
-- second on; a line for each new task in a pipe. finish() wipes it.
function report.progress(quiet)
  if quiet then return function() end, function() end end
  local tty, started, shown, last, drawn = native.stderr_tty(), native.now(), 0, nil, false
  local task_start = started
  local function show(what, done, all, loss)
    local now = native.now()
    if what ~= last then
      task_start, last = now, what
      if not tty and now - started > 2 then io.stderr:write(what, "\n") end
    end
    if not tty or now - started < 1 or now - shown < 0.1 then return end
    local text = what
    if done and all and all > 0 then
      local left = done > 0 and (now - task_start) * (all - done) / done or 0
      text = ("%s %3.0f %%, %.0f s left"):format(what, 100 * done / all, left)
    end
    if loss and loss == loss then text = ("%s, loss %.5g"):format(text, loss) end
    io.stderr:write("\r", text:sub(1, native.columns() - 1), "\27[K")
    shown, drawn = now, true
  end
  return show, function()
    if drawn then io.stderr:write "\r\27[K" end
  end
end

return report
