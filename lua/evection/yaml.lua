-- yaml.lua - YAML files as trees that know the line of every key.

local native = require "evection.native"

local yaml = {}

local line_of = setmetatable({}, { __mode = "k" }) -- table of a tree → { key → line }

-- yaml.parse(text, file) → tree. Raises "FILE:LINE: …" (status invalid).
function yaml.parse(text, file)
  local tree, lines = native.yaml_parse(text, file)
  for t, keys in pairs(lines) do line_of[t] = keys end
  return tree
end

-- yaml.load(path) → tree, or nil and a list of one error { file, line, message }.
function yaml.load(path)
  local ok, result = pcall(function() return yaml.parse(native.read_file(path, 1048576), path) end)
  if ok then return result end
  local message = tostring(result)
  local file, line, rest = message:match "^(.-):(%d+): (.*)$"
  if file ~= path then return nil, { { file = path, message = message:gsub("^" .. path:gsub("%p", "%%%0") .. ": ", "") } } end
  return nil, { { file = file, line = tonumber(line), message = rest } }
end

-- yaml.line(t, key) → the line where t[key] stands; nil for tables that came from elsewhere.
function yaml.line(t, key)
  local lines = line_of[t]
  return lines and lines[key]
end

-- yaml.lines(t) → { key → line }, empty when unknown.
function yaml.lines(t) return line_of[t] or {} end

return yaml
