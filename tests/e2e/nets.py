"""Agents that are nets against NumPy: their numbers out of the model's file, the published equations over them, the same lists."""
import glob
import json
import os
import struct
import sys

import numpy as np

from support import ROOT, Home, main

DUMP = os.path.join(ROOT, "tests", "e2e", "dump.lua")
DTYPES = [np.uint8, np.uint32, np.uint64, np.int64, np.float32, np.float64]


def make_data(home, n_users=90, n_items=40, seed=3):
    """Walks over items in groups, timed; users and items with features."""
    rng = np.random.default_rng(seed)
    rows, time = ["user,item,time"], 0
    for u in range(n_users):
        at, had = rng.integers(n_items), set()
        for _ in range(rng.integers(4, 14)):
            if int(at) not in had:
                rows.append(f"u{u},i{at},{time}")
            had.add(int(at))
            time += 1
            at = (at + rng.choice([1, 2, 5, 11])) % n_items
    items = "item_id:token\tgenre:token_seq\tyear:float\n" + "".join(f"i{i}\tg{i % 4} h{i % 3}\t{1990 + i % 9}\n" for i in range(n_items))
    users = "user_id:token\tage:float\tjob:token\n" + "".join(f"u{u}\t{20 + u % 40}\tj{u % 5}\n" for u in range(n_users))
    files = home.file("walks.csv", "\n".join(rows) + "\n"), home.file("walks.item", items), home.file("walks.user", users)
    home.run("data", "import", *files, "--as", "small", "--split", "leave-one-out")


def dump(home, agent, sets, k=15, *options):
    return home.run("run", *options, DUMP, "small", f"agent:{agent}", json.dumps({f"{agent}.{n}": v for n, v in sets.items()}), str(k)).stdout


def read_pack(path):
    """The arrays of a pack, as runtime/store/pack.c lays them out."""
    data = open(path, "rb").read()
    assert data[:6] == b"EVPACK"
    n, table = struct.unpack_from("<QQ", data, 8)
    kind, arrays = data[32:64].rstrip(b"\0").decode(), {}
    for i in range(n):
        at = table + 96 * i
        name = data[at : at + 48].rstrip(b"\0").decode()
        dtype, rows, cols, offset = struct.unpack_from("<QQQQ", data, at + 48)
        arrays[name] = np.frombuffer(data, DTYPES[dtype], rows * cols, offset).reshape(rows, cols)
    return kind, arrays


def model_of(home):
    (path,) = glob.glob(os.path.join(home.path, "artifacts", "*.evm"))
    return read_pack(path)



def layer_norm(x, p, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p[f"p.{name}.gain"].ravel() + p[f"p.{name}.bias"].ravel()


def linear(x, p, name):
    return x @ p[f"p.{name}.w"] + p[f"p.{name}.bias"].ravel()


def sasrec(p, history, blocks, heads, from_end):
    x = p["p.item"][history] * np.sqrt(p["p.item"].shape[1]) + p["p.place"][: len(history)][:: -1 if from_end else 1]
    d = x.shape[1] // heads
    for b in range(blocks):
        name = "block" if b == 0 else f"block{b + 1}"
        y = layer_norm(x, p, f"{name}.first")
        q, k, v = (linear(y, p, f"{name}.{w}") for w in "qkv")
        out = np.zeros_like(x)
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            scores = q[:, part] @ k[:, part].T / np.sqrt(d)
            scores[np.triu_indices(len(x), 1)] = -np.inf
            weights = np.exp(scores - scores.max(1, keepdims=True))
            out[:, part] = weights / weights.sum(1, keepdims=True) @ v[:, part]
        x = x + linear(out, p, f"{name}.o")
        x = x + linear(np.maximum(linear(layer_norm(x, p, f"{name}.second"), p, f"{name}.up"), 0), p, f"{name}.down")
    return layer_norm(x, p, "norm")[-1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru4rec(p, history, layers):
    x = p["p.item"][history]
    for layer in range(layers):
        name = "gru" if layer == 0 else f"gru{layer + 1}"
        w, u, bias = p[f"p.{name}.w"], p[f"p.{name}.u"], p[f"p.{name}.bias"].ravel()
        d, states = x.shape[1], []
        h = np.zeros(d)
        for row in x:
            a, b = row @ w + bias, h @ u
            r, z = sigmoid(a[:d] + b[:d]), sigmoid(a[d : 2 * d] + b[d : 2 * d])
            h = (1 - z) * np.tanh(a[2 * d :] + r * b[2 * d :]) + z * h
            states.append(h)
        x = np.array(states)
    return x[-1]


def agree(lists, query, p, number, length):
    """Each list must hold the best unseen items by query(history) · item + bias, with these scores."""
    item, bias = p["item"].astype(float), p["bias"].ravel() if "bias" in p else 0
    some = 0
    for row in lists:
        history = [number[i] for i in row["train"]]
        if not history:
            assert row["items"] == []
            continue
        s = item @ query(history[-length:]) + bias
        s[history] = -np.inf
        best = np.sort(s)[::-1][: len(row["items"])]
        for mine in (row["items"], row["alone"]):
            assert len(mine) == len(row["items"]) > 0
            assert np.abs(s[[number[i] for i in mine]] - best).max() < 1e-3 * max(1, np.abs(best).max()), row["user"]
        assert np.abs(np.array(row["scores"]) - s[[number[i] for i in row["items"]]]).max() < 1e-3 * max(1, np.abs(best).max())
        some += 1
    assert some > 50


def numbers(home):
    """What number each item has: the order of its first appearance in the interactions, users first."""
    done = home.run("run", home.file("ids.lua", """
local native = require "evection.native"
local s, out = native.snapshot(arg[1]), {}
for i = 0, s:n_items() - 1 do out[i + 1] = s:item_id(i) end
io.write(native.json_encode(native.array(out)))"""), os.path.join(home.path, "data", "small.evs"))
    return {item: n for n, item in enumerate(json.loads(done.stdout))}


def test_sasrec_is_causal_self_attention():
    for sets in ({"blocks": 2, "heads": 2, "n_dims": 16}, {"blocks": 1, "heads": 4, "n_dims": 16, "max_length": 5, "position": "start"}):
        with Home() as home:
            make_data(home)
            lists = json.loads(dump(home, "sasrec", dict(sets, epochs=3, size=32)))["lists"]
            kind, p = model_of(home)
            assert kind == "encoder" and np.array_equal(p["item"], p["p.item"])
            p = {name: a.astype(float) if a.dtype == np.float32 else a for name, a in p.items()}
            agree(lists, lambda h: sasrec(p, h, sets["blocks"], sets["heads"], sets.get("position") != "start"), p, numbers(home), sets.get("max_length", 50))


def test_gru4rec_is_a_gated_recurrent_unit():
    for layers in (1, 2):
        with Home() as home:
            make_data(home)
            lists = json.loads(dump(home, "gru4rec", {"layers": layers, "n_dims": 16, "epochs": 3, "size": 32, "max_length": 6}))["lists"]
            kind, p = model_of(home)
            assert kind == "encoder" and np.abs(p["bias"]).max() > 0
            p = {name: a.astype(float) if a.dtype == np.float32 else a for name, a in p.items()}
            agree(lists, lambda h: gru4rec(p, h, layers), p, numbers(home), 6)


def test_two_towers_are_vectors_of_users_and_items():
    with Home() as home:
        make_data(home)
        lists = json.loads(dump(home, "two_tower", {"n_dims": 8, "hidden": 16, "epochs": 3, "size": 128}))["lists"]
        kind, p = model_of(home)
        assert kind == "vectors" and p["user"].shape == (90, 8) and p["item"].shape == (40, 8)
        number = numbers(home)
        for u, row in enumerate(lists):
            s = p["item"].astype(float) @ p["user"][u]
            s[[number[i] for i in row["train"]]] = -np.inf
            best = np.sort(s)[::-1][: len(row["items"])]
            assert np.abs(s[[number[i] for i in row["items"]]] - best).max() < 1e-4 * max(1, np.abs(best).max())


def test_nets_are_the_same_whatever_the_threads():
    for agent, sets in (("sasrec", {"n_dims": 16, "epochs": 2}), ("gru4rec", {"n_dims": 16, "epochs": 2}), ("two_tower", {"n_dims": 8, "epochs": 2, "size": 128})):
        seen = set()
        for threads in ("1", "3"):
            with Home() as home:
                make_data(home)
                seen.add(dump(home, agent, sets, 15, "--threads", threads))
        assert len(seen) == 1, agent


if __name__ == "__main__":
    if "--list" in sys.argv:
        print("\n".join(n for n in globals() if n.startswith("test_")))
    else:
        main(globals())
