-- victims.lua - what jobs_spec.lua and sandbox_spec.lua run in processes of their own: code that behaves badly.

local ffi = require "ffi"
local native = require "evection.native"
local sandbox = require "evection.sandbox"

ffi.cdef [[
int kill(int pid, int signal); int getpid(void); int fork(void); int setsid(void); int close(int fd); long write(int fd, const void *data, size_t n);
unsigned sleep(unsigned s); void _exit(int code);
]]

local victims = {}

function victims.double(x) return x * 2 end
function victims.echo(x) return x end
function victims.pid() return ffi.C.getpid() end

function victims.loop() while true do end end
function victims.loop_in_pcall()
  while true do pcall(victims.loop) end
end
function victims.sleep()
  while true do ffi.C.sleep(1000) end
end

function victims.hoard()
  local list = {}
  for i = 1, 2 ^ 40 do list[i] = ("%d"):format(i) .. ("x"):rep(1000) end
  return #list
end
function victims.hoard_vectors()
  local list = {}
  for i = 1, 2 ^ 20 do list[i] = native.vector(2 ^ 20) end
  return #list
end
function victims.recurse()
  local function f() return 1 + f() end
  return f()
end

function victims.exit(code) ffi.C._exit(code) end
function victims.signal(n) ffi.C.kill(ffi.C.getpid(), n) end
function victims.segfault() return ffi.cast("int *", 8)[0] end

function victims.raise(text) error(text, 0) end
function victims.raise_table() error { message = {}, status = {} } end
function victims.raise_nil() error() end
function victims.raise_status() native.raise("not found", "nothing here") end

function victims.a_function() return function() end end
function victims.a_vector() return native.vector(3) end
function victims.bytes() return "\255\254" end
function victims.nul() return "a\0b" end
function victims.deep()
  local t = {}
  for _ = 1, 100 do t = { t } end
  return t
end
function victims.circle()
  local t = {}
  t.t = t
  return t
end
function victims.large(mb) return string.rep("x", mb * 1048576) end
function victims.nothing() end

-- Every descriptor that could be the pipe to the parent gets nonsense, then the process is gone.
function victims.garbage(text)
  for fd = 3, 63 do ffi.C.write(fd, text, #text) end
  ffi.C._exit(0)
end
function victims.garbage_without_end()
  local block = string.rep("\171", 1048576)
  while true do
    for fd = 3, 63 do ffi.C.write(fd, block, #block) end
  end
end
function victims.close_all()
  for fd = 0, 63 do ffi.C.close(fd) end
  return 1
end

-- A grandchild in a session of its own holds the pipe open while the child hangs; it ends by itself.
function victims.fugitive()
  if ffi.C.fork() == 0 then
    ffi.C.setsid()
    ffi.C.sleep(8)
    ffi.C._exit(0)
  end
  victims.loop()
end

-- Sandboxed code, as an agent's would be run.
function victims.sandboxed(text) return tostring(assert(sandbox.load(text, "attack", sandbox.environment {}))()) end

return victims
