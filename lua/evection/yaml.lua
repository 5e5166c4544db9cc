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

local function scalar(value)
  if type(value) ~= "string" then return native.json_encode(value) end
  if value:match "^[%a_/][%w_/.@:-]*$" and value ~= "true" and value ~= "false" and value ~= "null" and not value:match ":$" then return value end
  return native.json_encode(value) -- a double-quoted YAML scalar too
end

local function emit(value, pad, lines)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local v = value[key]
    if type(v) ~= "table" then lines[#lines + 1] = ("%s%s: %s"):format(pad, key, scalar(v))
    elseif #v > 0 or next(v) == nil then lines[#lines + 1] = ("%s%s: %s"):format(pad, key, native.json_encode(v))
    else
      lines[#lines + 1] = ("%s%s:"):format(pad, key)
      emit(v, pad .. "  ", lines)
    end
  end
  return lines
end

-- yaml.emit(mapping) → text that parses to the same: keys sorted, lists in one line.
function yaml.emit(t) return table.concat(emit(t, "", {}), "\n") .. "\n" end

return yaml
