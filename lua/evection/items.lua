-- items.lua - live tables of items: vectors and features that are changed while they are searched, and never lost.
-- For scripts that `evection run` runs; agents, whose files are sandboxed, have no way here. docs/reference/items.md tells more.

local native = require "evection.native"

local items = {}

local function folder_of(name)
  if type(name) ~= "string" then native.raise("invalid", "a table's name or folder is a text, not a " .. type(name)) end
  if name:find("/", 1, true) then return name end
  if not name:match "^[%w_-][%w._-]*$" or #name > 100 then native.raise("invalid", ("'%s' is no name for a table of items"):format(name)) end
  return ("%s/items/%s"):format(native.home, name)
end

-- open(name | folder[, options]) → the table $EVECTION_HOME/items/NAME, or the one in a folder (what has a slash in it).
--   create = true        makes it when it is not there; then also
--   n_dims = 0           numbers a vector has; 0: no vectors
--   kind = "hnsw"        flat, hnsw or ivf
--   metric = "dot"       dot, cosine or l2
--   form = "i8"          what is searched: f32, f16, bf16 or i8
--   rescore = true       keep f32 vectors beside a smaller form, and order the best by them
--   n_links, effort_build, n_lists, effort, seed, max_rows
--   read_only = true     as it was when it was opened; others may write to it
--   compact_mb = 64      a log longer than this, and than half the snapshot, is compacted in the background
-- A table has
--   table:put(item | { item, … })      item = { id =, vector =, genre = { "a", "b" }, year = 1990, … }
--   table:get(id) → item or nil        table:has(id)        table:ids() → { id, … }        #table
--   table:delete(id | { id, … })       all or none
--   table:search(vector | id, k, { where = "year >= 1990", exclude = { id, … }, effort = 100 }) → { { id =, score = }, … }
--   table:stats()   table:compact()   table:verify()   table:close()
function items.open(name, options) return native.items(folder_of(name), options) end

-- list() → names of the tables in $EVECTION_HOME/items.
function items.list()
  local found = {}
  for _, name in ipairs(native.list(native.home .. "/items")) do
    for _, file in ipairs(native.list(("%s/items/%s"):format(native.home, name))) do
      if found[#found] ~= name and (file:find "^log%.%d+$" or file:find "^snapshot%.%d+$") then found[#found + 1] = name end
    end
  end
  return found
end

return items
