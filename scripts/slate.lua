-- slate.lua - prints a slate that `evection serve` answered, from standard input, as a table.
local native = require "evection.native"
local report = require "evection.report"

local slate = native.json_decode(io.read "*a")
local rows = {}
for i, item in ipairs(slate.items) do
  rows[i] = { i, item.id, item.title or "", item.score and ("%.4f"):format(item.score) or "" }
end
print(("user %s, version %s%s"):format(slate.user, slate.version:sub(1, 12), slate.degraded and ", fallback" or ""))
print(report.table(rows, { { 1, "place", right = true }, { 2, "item" }, { 3, "title" }, { 4, "score", right = true } }))
