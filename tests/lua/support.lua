-- support.lua - what the Lua tests share: a folder of their own, a small data set, hostile values.

local native = require "evection.native"

local support = {}

local root = os.tmpname()
os.remove(root)
native.mkdirs(root)
support.folder = root

-- What is written under $EVECTION_HOME goes there too.
native.home = root .. "/home"

function support.clean() os.execute("rm -rf '" .. root .. "'") end

-- file(name, text) → path of a new file in the folder.
function support.file(name, text)
  local path = root .. "/" .. name
  native.mkdirs(path:match "^(.*)/")
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end

-- The binary that runs these tests.
function support.binary()
  local pipe = io.popen(("readlink /proc/%d/exe"):format(native.pid()))
  local path = pipe:read "*l"
  pipe:close()
  return path
end

-- data(name, n_items) → path of a generated snapshot with 60 users; made once.
function support.data(name, n_items)
  local path = ("%s/data/%s.evs"):format(native.home, name)
  if not native.exists(path) then
    local command = "'%s' data generate --users 60 --items %d --sessions 12 --as %s --home '%s' --quiet >/dev/null"
    assert(os.execute(command:format(support.binary(), n_items, name, native.home)) == 0)
  end
  return path
end

-- refused(pattern, fn, …): fn must raise an error that says so.
function support.refused(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  if ok then error(("this should be refused (%s)"):format(pattern), 2) end
  message = tostring(message)
  if not message:find(pattern) then error(("refused for another reason: %s, not %s"):format(message, pattern), 2) end
  return message
end

-- at(errors, { { line, part }, … }): errors must be just these, in any order; line nil where there is none.
function support.errors_are(errors, expected, file)
  local left = {}
  for i, e in ipairs(errors) do left[i] = e end
  for _, want in ipairs(expected) do
    local hit
    for i, e in ipairs(left) do
      if e.line == want[1] and e.message:find(want[2], 1, true) and (file == nil or e.file == file) then hit = i end
    end
    if not hit then
      local lines = {}
      for i, e in ipairs(left) do lines[i] = ("%s:%s: %s"):format(tostring(e.file), tostring(e.line), e.message) end
      error(("no error in line %s with \"%s\" in\n%s"):format(tostring(want[1]), want[2], table.concat(lines, "\n")), 2)
    end
    table.remove(left, hit)
  end
  if #left > 0 then error(("one error too many: line %s: %s"):format(tostring(left[1].line), left[1].message), 2) end
end

-- A plain table of the words in a text, for short lists.
function support.words(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = word end
  return list
end

-- Values that no argument should choke on. nil comes last: loops over them count to support.n_hostile.
support.hostile = {
  -1, 0, 1, 0.5, 2 ^ 31, 2 ^ 32, 2 ^ 53, -2 ^ 63, 1e300, -1e300, 0 / 0, 1 / 0, -1 / 0, "", "x", "__gc", "score", true, false, {}, { 1 / 0, "x" },
  function() end, nil,
}
support.n_hostile = 23

return support
