-- yaml_spec.lua - YAML files: what is refused, the line of every key, and that what is emitted reads back.

local native = require "evection.native"
local support = require "support"
local yaml = require "evection.yaml"

local function parse(text) return yaml.parse(text, "f.yaml") end

local function refused(pattern, text) return support.refused(pattern, parse, text) end

describe("a tree", function()
  it("has the types of the YAML 1.2 core schema", function()
    local t = parse "a: 1\nb: 2.5e3\nc: true\nd: false\ne: null\nf: ~\ng:\nh: text\ni: '1'\nj: \"true\"\nk: yes\nl: -0.5\nm: 1e\nn: .5\n"
    assert.same({ a = 1, b = 2500, c = true, d = false, h = "text", i = "1", j = "true", k = "yes", l = -0.5, m = "1e", n = 0.5 }, t)
  end)

  it("has no numbers that are none: nan, inf, hexadecimal and octal stay text", function()
    local t = parse "a: nan\nb: .inf\nc: 0x10\nd: 1_000\ne: .nan\nf: inf\ng: 1e999\nh: 0o7\ni: '0b1'\n"
    for _, key in ipairs(support.words "a b c d e f g h i") do assert.equal("string", type(t[key])) end
  end)

  it("has lists and mappings in either style", function()
    assert.same({ a = { 1, { b = "x" }, {} }, c = { d = { "e" } } }, parse "a: [1, {b: x}, []]\nc:\n  d:\n    - e\n")
    assert.same({ "x", "y" }, parse "- x\n- y\n")
    assert.equal("[]", native.json_encode(parse "a: []".a))
    assert.equal("{}", native.json_encode(parse "a: {}".a))
    assert.equal("plain", parse "plain")
    assert.equal("one two\n", parse "a: >\n  one\n  two\n".a)
    assert.same({ ["1"] = "one", ["true"] = "yes" }, parse "1: one\ntrue: 'yes'\n") -- a key is text
  end)

  it("knows the line of each key and each element", function()
    local t = parse "# first\na: 1\n\nb:\n  c: 2\n  d:\n    - x\n    - { e: 1,\n        f: 2 }\n"
    assert.equal(2, yaml.line(t, "a"))
    assert.equal(4, yaml.line(t, "b"))
    assert.equal(5, yaml.line(t.b, "c"))
    assert.equal(7, yaml.line(t.b.d, 1))
    assert.equal(8, yaml.line(t.b.d, 2))
    assert.equal(8, yaml.line(t.b.d[2], "e"))
    assert.equal(9, yaml.line(t.b.d[2], "f"))
    assert.is_nil(yaml.line(t, "absent"))
    assert.is_nil(yaml.line({}, "a"))
    assert.same({ a = 2, b = 4 }, yaml.lines(t))
  end)
end)

describe("what is refused", function()
  it("names the file and the line", function()
    assert.matches("^f%.yaml:3: ", refused("f%.yaml:3: ", "a: 1\nb: 2\n c: [\n"))
    refused("f%.yaml:2: .*given twice", "a: 1\na: 2\n")
    refused("f%.yaml:1: the file is empty", "")
    refused("f%.yaml:1: the file is empty", "# nothing\n")
  end)

  it("is a key given twice, at any depth and also with null", function()
    refused(":4: 'c' is given twice", "a:\n  c: 1\n  b: 2\n  c: 3\n")
    refused("given twice", "{a: 1, 'a': 2}")
    refused("given twice", "a: ~\na: 1\n")
    refused("given twice", "a: 1\n\"\\x61\": 2\n")
    assert.same({ { a = 1 }, { a = 1 } }, parse "[{a: 1}, {a: 1}]")
  end)

  it("is every anchor, alias and tag, so that nothing can multiply", function()
    refused(":1: anchors", "a: &x 1\nb: 2\n")
    refused(":1: anchors", "a: &x [1]\n")
    refused(":1: anchors", "a: &x {b: 1}\n")
    refused(":1: anchors", "&x a: 1\n")
    refused(":1: anchors", "a: !!str 1\n")
    refused(":1: anchors", "a: !!set {b}\n")
    refused(":1: anchors", "a: !local [1]\n")
    refused(":1: anchors", "!!str a: 1\n")
    refused(":1: aliases", "a: *x\n")
    local laughs = { "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]" }
    for i = 1, 30 do laughs[i + 1] = ("a%d: &a%d [%s]"):format(i, i, ("*a%d, "):format(i - 1):rep(9):sub(1, -3)) end
    local start = native.now()
    refused(":1: anchors", table.concat(laughs, "\n"))
    refused(":", "<<: *x\n")
    assert.is_true(native.now() - start < 1)
  end)

  it("is more than one document, and a key that is no text", function()
    refused(":2: one document", "a: 1\n---\nb: 2\n")
    refused("a key must be plain text", "[a]: 1\n")
    refused("a key must be plain text", "? {a: 1}\n: 2\n")
  end)

  it("is text that is not UTF-8, by its line", function()
    refused("f%.yaml:3: not UTF%-8", "a: 1\nb: 2\nc: \255\n")
    refused("f%.yaml:1: not UTF%-8", "\192\128: 1\n")
    refused("f%.yaml:2: not UTF%-8", "a: é\nb: \237\160\128\n")
    refused("f%.yaml", "a: \"\1\"\n") -- control characters are not YAML
    refused("f%.yaml", "a: x\0y\n")
    assert.equal("é→\240\159\140\153", parse "a: é→\240\159\140\153".a)
  end)

  it("is more than 32 levels, in either style, and quickly", function()
    assert.is_table(parse(("["):rep(32) .. ("]"):rep(32)))
    refused("f%.yaml:1: nested deeper than 32", ("["):rep(33) .. ("]"):rep(33))
    local start = native.now()
    refused("nested deeper than 32", ("["):rep(500000))
    refused("nested deeper than 32", ("{a: "):rep(200000))
    refused("nested deeper than 32", ("- "):rep(500000))
    local block = {}
    for i = 0, 40 do block[#block + 1] = (" "):rep(i) .. "k:" end
    refused("f%.yaml:33: nested deeper than 32", table.concat(block, "\n") .. " 1\n")
    assert.is_true(native.now() - start < 2)
  end)

  it("is more than a mebibyte", function()
    refused("larger than 1048576", "a: " .. ("x"):rep(1048576))
    assert.equal(1048000, #parse("a: " .. ("x"):rep(1048000)).a)
  end)

  it("costs time in proportion, whatever the text", function()
    local start = native.now()
    for _, text in ipairs {
      ("a"):rep(1000000) .. ":", ("? "):rep(300000), ("a:\n"):rep(30), "[" .. ("a, "):rep(300000) .. "]", ("\n"):rep(1000000), ("# x\n"):rep(200000),
      "a: '" .. ("''"):rep(400000) .. "'", ("{"):rep(30) .. ("a,"):rep(100000), ("%"):rep(1000), ("'"):rep(99999), "a: |\n" .. (" x\n"):rep(200000),
    } do pcall(parse, text) end
    assert.is_true(native.now() - start < 8)
  end)
end)

describe("a file", function()
  it("that is wrong gives its error with file and line", function()
    local path = support.file("yaml/bad.yaml", "a: 1\nb: [\n")
    local tree, errors = yaml.load(path)
    assert.is_nil(tree)
    assert.equal(1, #errors)
    assert.equal(path, errors[1].file)
    assert.equal(3, errors[1].line)
  end)

  it("that is not there, is a folder or is too large is an error with its name", function()
    for _, path in ipairs { support.folder .. "/absent.yaml", support.folder, support.file("yaml/large.yaml", string.rep("# 1234567\n", 110000)) } do
      local tree, errors = yaml.load(path)
      assert.is_nil(tree)
      assert.equal(path, errors[1].file)
      assert.is_string(errors[1].message)
    end
  end)

  it("may have a name full of pattern characters", function()
    local path = support.file("yaml/a-b+(c)%.[1].yaml", "a: 1\na: 2\n")
    local _, errors = yaml.load(path)
    assert.equal(path, errors[1].file)
    assert.equal(2, errors[1].line)
  end)
end)

describe("what is emitted", function()
  local function back(t) return parse(yaml.emit(t)) end

  it("reads back as it was, however the text looks", function()
    local texts = {
      "true", "false", "null", "~", "1", "1e5", "", " ", "a: b", "a:", "- x", "#x", "'", "\"", "\\", "a\nb", "a #b", "é", "*x", "&x", "!x", "{", "[", "@x",
      "%x", "yes", "agents/recall/x.lua", "../up", "ndcg@20", "rate * decay", "0x10", "\t", "a\1", "-", "?", "|", ">", "=", "<<", "nan", ".inf",
      "2026-01-01", "a,b", "Null", "TRUE",
    }
    for _, text in ipairs(texts) do
      local t = { k = text, list = { text, text }, sub = { k = text } }
      assert.same(t, back(t))
    end
  end)

  it("has its keys sorted, its lists in a line", function()
    assert.equal("a: 1\nb:\n  c: [1,\"x\"]\n  d: true\nz: text\n", yaml.emit { z = "text", a = 1, b = { d = true, c = native.array { 1, "x" } } })
  end)

  it("keeps every number", function()
    local rng = native.rng(31)
    for _ = 1, 500 do
      local x = rng:normal() * 10 ^ (rng:below(40) - 20.0)
      assert.equal(x, back { k = x }.k)
    end
  end)
end)

it("garbage is refused or read, and never more", function()
  local rng = native.rng(32)
  local text = "name: x\nnodes:\n  a: { agent: popular, n: 5, knobs: { k: [1, 2.5, 'q'] } }\n  b:\n    agent: \"ease\"\n    from: [a]\noutput: b\n"
  for _ = 1, 3000 do
    local bad = text
    for _ = 1, rng:below(4) + 1 do
      local at = rng:below(#bad) + 1
      bad = bad:sub(1, at - 1) .. string.char(rng:below(256)) .. bad:sub(at + rng:below(3))
    end
    local ok, message = pcall(parse, bad)
    if not ok then assert.matches("^f%.yaml:%d+: ", tostring(message)) end
  end
end)
