-- canary.lua - how a canary stands, in words and a small chart. docs/reference/canary.md tells what is measured.

local report = require "evection.report"

local canary = {}

local WIDTH, HEIGHT, LABEL = 78, 9, 10

local function thousands(x)
  local text, n = ("%.0f"):format(x), 1
  while n > 0 do text, n = text:gsub("^(%d+)(%d%d%d)", "%1,%2") end
  return text
end

local function duration(ms)
  local s = math.max(0, ms / 1000)
  if s >= 172800 then return ("%d days"):format(s / 86400) end
  if s >= 3600 then return ("%d h %02d min"):format(s / 3600, s / 60 % 60) end
  if s >= 60 then return ("%d min"):format(s / 60) end
  return ("%d s"):format(s)
end

local function percent(x)
  local p = 100 * x
  return ((p >= 10 or p == 0) and "%.0f %%" or p >= 1 and "%.1f %%" or "%.2g %%"):format(p)
end

local function number(x)
  if not x then return "-" end
  return (math.abs(x) >= 100 and "%.0f" or "%.3g"):format(x)
end

local function signed(x)
  local text = ("%+.3g"):format(x)
  return tonumber(text) == 0 and "0" or text
end

-- ---- The chart --------------------------------------------------------------------------------------------
-- What the vertical axis spans: the intervals of the later half, and zero. Those of the first users are as wide as rewards can be.
local function span(history)
  local last, low, high = history[#history][1], 0, 0
  for _, p in ipairs(history) do
    if p[1] >= last / 2 then low, high = math.min(low, p[3], p[2]), math.max(high, p[4], p[2]) end
  end
  local room = math.max(0.05 * (high - low), 1e-9)
  return low - room, high + room
end

-- chart(history): the difference with its interval against the users measured, rows of at most 78 characters.
function canary.chart(history)
  if not history or #history < 2 then return nil end
  local columns, bottom, top = WIDTH - LABEL - 2, span(history)
  local last, rows, at = history[#history][1], {}, 1
  local function row_of(y) return math.floor((top - y) / (top - bottom) * HEIGHT) + 1 end
  local zero = row_of(0)
  for r = 1, HEIGHT do
    rows[r] = {}
    for c = 1, columns do rows[r][c] = r == zero and "─" or " " end
  end
  for c = 1, columns do
    local users = last * c / columns
    while at < #history and history[at + 1][1] <= users do at = at + 1 end
    local p = history[at]
    if p[1] <= users then
      for r = math.max(1, row_of(p[4])), math.min(HEIGHT, row_of(p[3])) do
        if r ~= zero then rows[r][c] = "░" end
      end
      local r = row_of(p[2])
      if r >= 1 and r <= HEIGHT then rows[r][c] = "█" end
    end
  end
  local lines = {}
  for r = 1, HEIGHT do
    local label = r == zero and "0" or r == 1 and signed(top) or r == HEIGHT and signed(bottom) or ""
    lines[r] = ("%" .. LABEL .. "s %s%s"):format(label, r == zero and "┼" or "│", table.concat(rows[r])):gsub("%s+$", "")
  end
  local foot = thousands(last) .. " users"
  lines[HEIGHT + 1] = (" "):rep(LABEL + 2) .. "0" .. (" "):rep(columns - 1 - #foot) .. foot
  return table.concat(lines, "\n")
end

-- ---- Words --------------------------------------------------------------------------------------------------
local heads = { wait = "not decided", promote = "to be promoted", ["roll back"] = "to be rolled back" }

local function head(s)
  local name = s.challenger and s.challenger ~= "" and s.challenger:sub(1, 12) or "the challenger"
  local against = s.champion and s.champion ~= "" and s.champion:sub(1, 12) or "the champion"
  local since = s.since_ms and s.now_ms and (", for " .. duration(s.now_ms - s.since_ms)) or ""
  return ("%s against %s: %s\n  %s of the users%s"):format(name, against, heads[s.verdict] or tostring(s.verdict), percent(s.share or 0), since)
end

-- Lines of at most 78 characters, broken between words.
local function wrapped(text, indent)
  local lines, line = {}, nil
  for word in text:gmatch "%S+" do
    if line and #line + #word + 1 > WIDTH - #indent then
      lines[#lines + 1] = indent .. line
      line = word
    else
      line = line and line .. " " .. word or word
    end
  end
  lines[#lines + 1] = indent .. (line or "")
  return table.concat(lines, "\n")
end

-- missing(status): what would decide it, or nil when it is decided.
function canary.missing(s)
  if s.verdict ~= "wait" then return nil end
  local o = s.outer or {}
  local text = ("Evidence that it is better: %s, needed %s; that it is worse: %s, needed %s (odds against chance)."):format(
    number(o.e_better), number(o.need_better), number(o.e_worse), number(o.need_worse))
  if s.outlook then
    local what = s.outlook.toward == "promote" and "promoted" or "rolled back"
    text = text .. (" If it goes on as it did, about %s more users have to be measured until it is %s."):format(thousands(s.outlook.more_users), what)
  else
    text = text .. " How many more users it takes cannot be said: nothing points either way strongly enough."
  end
  return text
end

local function interval(x, show)
  if not x or not x.value then return "-" end
  return ("%s [%s, %s]"):format(show(x.value), show(x.low), show(x.high))
end

local function arms(s)
  local rows, units, slates, events, outer, guards = {}, s.units or {}, s.slates, s.events, s.outer or {}, s.guardrails or {}
  local function add(what, champion, challenger, says) rows[#rows + 1] = { what, champion, challenger, says or "" } end
  local function holds(g) return g.holds and "holds" or "broken" end
  add("users measured", thousands(units.champion or 0), thousands(units.challenger or 0))
  if slates then add("slates shown", thousands(slates.champion), thousands(slates.challenger)) end
  if events then add("events counted", thousands(events.champion), thousands(events.challenger)) end
  add("reward a slate", number(outer.champion), number(outer.challenger))
  for _, a in ipairs(s.inner or {}) do
    add(("  by %s"):format(a.agent:sub(1, 16)), number(a.champion and a.champion.value), number(a.challenger and a.challenger.value))
  end
  local e, l = guards.errors, guards.latency
  if e then add("degraded", interval(e.champion, percent), interval(e.challenger, percent), holds(e)) end
  if l then
    add(("over %s ms"):format(number(l.late_ms)), interval(l.champion, percent), interval(l.challenger, percent), holds(l))
    local function ms(x) return x and x.p99_ms and ("%s ms"):format(number(x.p99_ms)) or "-" end
    add("p99", ms(l.champion), ms(l.challenger))
  end
  return report.table(rows, { { 1, "" }, { 2, "champion" }, { 3, "challenger" }, { 4, "" } })
end

-- text(status): the whole, from what `canary status --json` and GET /canary say.
function canary.text(s)
  local lines = { head(s), wrapped(s.reason or "", "  ") }
  local missing = canary.missing(s)
  if missing then lines[#lines + 1] = wrapped(missing, "  ") end
  local flight = s.in_flight or 0
  local waiting = flight > 0 and thousands(flight) or "none"
  lines[#lines + 1] = wrapped(("%s users came, %s of whom are not measured yet."):format(thousands(s.users or 0), waiting), "  ")
  if (s.ignored_slates or 0) > 0 then
    local text = "No more than %s users are followed; %s slates of others are not in it."
    lines[#lines + 1] = wrapped(text:format(thousands(s.users_max), thousands(s.ignored_slates)), "  ")
  end
  local chart = canary.chart(s.history)
  if chart then
    lines[#lines + 1] = ""
    local confidence = percent(s.options and s.options.confidence or 0.95)
    lines[#lines + 1] = ("Difference in reward a slate (█) with its %s interval (░), by users measured"):format(confidence)
    lines[#lines + 1] = chart
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = arms(s)
  return table.concat(lines, "\n")
end

return canary
