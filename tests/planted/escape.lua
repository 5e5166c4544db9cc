-- escape.lua - what broken sandbox would mean: Lua that holds the whole of C (LuaJIT's FFI) and asks the kernel. For tests/unit/jobs_confine.c.

local ffi = require "ffi"

ffi.cdef [[
int open(const char *path, int flags, ...); int socket(int domain, int kind, int protocol); int execve(const char *path, const char **argv, const char **env);
int fork(void); long syscall(long number, ...); int *__errno_location(void);
]]

local escape = {}
local function errno(result) return result < 0 and ffi.errno() or 0 end

-- Each → errno, or 0 when the kernel let it.
function escape.open(path) return errno(ffi.C.open(path, 0)) end
function escape.fork()
  local pid = ffi.C.fork()
  return errno(pid)
end
function escape.socket() return errno(ffi.C.socket(2, 1, 0)) end
function escape.exec(path)
  local argv = ffi.new("const char *[2]", { path, nil })
  return errno(ffi.C.execve(path, argv, argv + 1))
end

-- What it is there for goes on: a loop long enough to be compiled after the fork, memory, time.
function escape.work(n)
  local sum, list = 0, {}
  for i = 1, n do
    sum = sum + i % 7
    list[i % 1000 + 1] = ("%d"):format(i)
  end
  return #list <= 1000 and sum
end

return escape
