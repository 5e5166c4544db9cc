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

local function duration(s)
  if s >= 3600 then return ("%d h %02d min"):format(s / 3600, s / 60 % 60) end
  if s >= 60 then return ("%d min %02d s"):format(s / 60, s % 60) end
  return ("%.0f s"):format(s)
end

-- 1234567 → "1,234,567"
local function thousands(x)
  local text, n = ("%.0f"):format(x), 1
  while n > 0 do text, n = text:gsub("^(%d+)(%d%d%d)", "%1,%2") end
  return text
end

-- training(what, loss, more): how a training stands, in a line.
function report.training(what, loss, more)
  local parts = { what }
  if loss then parts[#parts + 1] = ("loss %.5g"):format(loss) end
  if more.value and more.best then
    parts[#parts + 1] = ("%s %.4f"):format(more.metric, more.value) .. (more.is_best and ", the best" or (" (best %.4f)"):format(more.best))
  end
  if more.rate then parts[#parts + 1] = thousands(more.rate) .. " examples/s" end
  if more.left then parts[#parts + 1] = duration(more.left) .. " left" end
  return table.concat(parts, ", ")
end

-- progress(quiet) → function(what, done, all, loss, more): one line that is rewritten on a terminal, from the second second on;
-- in a pipe a line for each new task, and for each epoch of a training. finish() wipes it. more: of a training (nn/train.lua).
function report.progress(quiet)
  if quiet then return function() end, function() end end
  local tty, started, shown, last, drawn = native.stderr_tty(), native.now(), 0, nil, false
  local task_start = started
  local function draw(text, now)
    io.stderr:write("\r", text:sub(1, native.columns() - 1), "\27[K")
    shown, drawn = now, true
  end
  local function train(what, loss, more, now)
    if more.note then
      io.stderr:write(drawn and "\r\27[K" or "", what:gsub(": epoch .*", ": "), more.note, "\n")
      drawn = false
    elseif tty and now - started >= 1 then draw(report.training(what, loss, more), now)
    elseif not tty and more.event == "epoch" then io.stderr:write(report.training(what, loss, more), "\n") end
  end
  local function show(what, done, all, loss, more)
    local now = native.now()
    if more then return train(what, loss, more, now) end
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
    draw(text, now)
  end
  return show, function()
    if drawn then io.stderr:write "\r\27[K" end
  end
end

return report
