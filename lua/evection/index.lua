-- index.lua - vectors by row number in memory, and the best of them for a query. For scripts that `evection run` runs.

local native = require "evection.native"

local index = {}

-- new(options) → an index. n_dims is wanted; the other options and their defaults are those of items.open (kind, metric,
-- form, rescore, n_links, effort_build, n_lists, effort, seed, max_rows).
-- Rows count from 0. An index has
--   index:put(rows | first row, vectors)      vectors: a list of them, or one vector that holds them one behind the other
--   index:delete(rows | row)   index:has(row)   index:get(row) → vector or nil   #index
--   index:search(vector, k, { allowed = { row, … }, exclude = { row, … }, effort = 100 }) → rows, scores, vectors looked at
--   index:search_many(vectors, k, options) → lists of rows, lists of scores, vectors looked at; on all threads
--   index:stats()   index:save(path)   index:close()
function index.new(options) return native.index(options) end

-- open(path) → the index that was saved there.
function index.open(path) return native.index_open(path) end

return index
