std = "luajit"
max_line_length = 160
files["tests/lua"] = { std = "+busted" }
files["agents"] = { read_globals = { "vector" } }
