-- display.lua - what a run shows while it goes: one line that is rewritten on a terminal, a line a batch in a pipe.

local native = require "evection.native"
local loop = require "evection.evolve.loop"

local display = {}

local BLOCKS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }

-- The last n values as a line of blocks, from the least to the greatest of them.
function display.sparkline(values, n)
  local first = math.max(1, #values - n + 1)
  local low, high = math.huge, -math.huge
  for i = first, #values do low, high = math.min(low, values[i]), math.max(high, values[i]) end
  local line = {}
  for i = first, #values do
    local u = high > low and (values[i] - low) / (high - low) or 0.5
    line[#line + 1] = BLOCKS[math.min(#BLOCKS, math.floor(u * #BLOCKS) + 1)]
  end
  return table.concat(line)
end

local function seconds(s)
  if s >= 3600 then return ("%dh%02dm"):format(s / 3600, s / 60 % 60) end
  if s >= 60 then return ("%dm%02ds"):format(s / 60, s % 60) end
  return ("%ds"):format(s)
end

-- new(total, quiet) → show(history, e), finish()
function display.new(total, quiet)
  if quiet then return function() end, function() end end
  local tty, started, known, errors, done, drawn = native.stderr_tty(), native.now(), {}, 0, 0, false
  local rewards, reached = {}, 0 -- evaluations of a batch end in any order
  local function show(_, e)
    known[#known + 1] = e
    done, reached = done + 1, math.max(reached, e.number)
    if e.error then errors = errors + 1 end
    if e.reward and e.users == 1 then rewards[#rewards + 1] = e.reward end
    local best, elapsed = loop.champion(known), native.now() - started
    local left = elapsed / done * (total - reached)
    if tty then
      local line = ("%d/%d  best %s  %s  users %.0f %%  %.1f/s  %s left%s"):format(reached, total, best and ("%.4f"):format(best.reward) or "-",
        display.sparkline(rewards, 20), e.users * 100, done / math.max(elapsed, 1e-3), seconds(left), errors > 0 and ("  %d failed"):format(errors) or "")
      io.stderr:write("\r", line, "\27[K")
      drawn = true
    else
      io.stderr:write(("evaluation %d/%d by %s: %s, best %s\n"):format(e.number, total, e.proposer,
        e.reward and ("%.5f on %.0f %% of the users"):format(e.reward, e.users * 100) or "failed: " .. e.error, best and ("%.5f"):format(best.reward) or "-"))
    end
  end
  return show, function()
    if drawn then io.stderr:write "\r\27[K" end
  end
end

return display
