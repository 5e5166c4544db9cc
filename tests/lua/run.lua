-- run.lua [SPEC…] [busted's options] - the Lua tests, by Debian's busted inside the binary.
--   evection run tests/lua/run.lua             all of them
--   evection run tests/lua/run.lua space       space_spec.lua alone

local ffi = require "ffi"
local native = require "evection.native"

local folder = arg[0]:match "^(.*)/[^/]*$" or "."

-- Where Debian keeps Lua modules, should this LuaJIT not look there by itself.
local function look_in(key, place)
  if not package[key]:find(place, 1, true) then package[key] = package[key] .. ";" .. place end
end
look_in("path", "/usr/share/lua/5.1/?.lua")
look_in("path", "/usr/share/lua/5.1/?/init.lua")
for _, triplet in ipairs(native.list "/usr/lib") do
  if triplet:match "%-linux%-" then look_in("cpath", ("/usr/lib/%s/lua/5.1/?.so"):format(triplet)) end
end
package.path = folder .. "/?.lua;" .. package.path
-- Jobs look for their module in a fresh state: victims.lua must be found there too.
ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"
ffi.C.setenv("LUA_PATH", folder .. "/?.lua;;", 1)

-- busted forgets after each file what the file required. The sandbox changes the strings' metatable once a state.
require "evection.serve"
local support = require "support"

local args = { [0] = arg[0] }
for _, word in ipairs(arg) do
  args[#args + 1] = word:match "^%-" and word or ("%s/%s_spec.lua"):format(folder, word:gsub("_spec%.lua$", ""):match "[^/]*$")
end
if not args[1] or args[#args]:match "^%-" then args[#args + 1] = folder end
rawset(_G, "arg", args) -- busted reads the global

-- Called from a Lua function of a file, busted ends a failed run by an error and not by os.exit.
local runner = require "busted.runner"
local ok, message = pcall(function() runner { standalone = false, output = "plainTerminal" } end)
support.clean()
if not ok then
  if message ~= nil then io.stderr:write(tostring(message), "\n") end
  os.exit(1, true)
end
