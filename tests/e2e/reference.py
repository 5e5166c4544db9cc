"""Models and metrics against NumPy: the same data, the same formulas, computed another way."""
import json
import os
import sys

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from support import ROOT, Home, main

DUMP = os.path.join(ROOT, "tests", "e2e", "dump.lua")


def make_data(home, n_users=120, n_items=60, seed=3):
    """Clicks with a group structure, as CSV; items with tokens as an atomic file."""
    rng = np.random.default_rng(seed)
    rows = ["user,item"]
    for u in range(n_users):
        p = np.exp(rng.normal(size=n_items) + 2.0 * ((np.arange(n_items) % 4) == u % 4))
        for i in rng.choice(n_items, size=rng.integers(4, 16), replace=False, p=p / p.sum()):
            rows.append(f"u{u},i{i}")
    tokens = {f"i{i}": [f"g{i % 4}", f"h{i % 7}"] + (["rare"] if i < 3 else []) for i in range(n_items)}
    csv = home.file("clicks.csv", "\n".join(rows) + "\n")
    items = home.file("clicks.item", "item_id:token\tgenre:token_seq\n" + "".join(f"{i}\t{' '.join(t)}\n" for i, t in tokens.items()))
    home.run("data", "import", csv, items, "--as", "small", "--split", "ratio", "--valid-share", "0.2", "--test-share", "0.1")
    return tokens


def dump(home, agent, sets=None, k=20):
    done = home.run("run", DUMP, "small", f"agent:{agent}", json.dumps({f"{agent}.{n}": v for n, v in (sets or {}).items()}), str(k))
    return json.loads(done.stdout)


def matrix(d):
    ids = sorted({i for row in d["lists"] for part in ("train", "valid", "items") for i in row[part]})
    index = {i: n for n, i in enumerate(ids)}
    x = np.zeros((len(d["lists"]), len(ids)))
    for u, row in enumerate(d["lists"]):
        x[u, [index[i] for i in row["train"]]] = 1
    return x, index


def agree(d, scores, index, tolerance=2e-4, only_positive=False):
    """Each list must hold the best unseen items by the reference's scores, with these scores."""
    for u, row in enumerate(d["lists"]):
        s = scores[u].copy()
        s[[index[i] for i in row["train"]]] = -np.inf
        if only_positive:
            s[s <= 1e-12] = -np.inf
        best = np.sort(s)[::-1][: len(row["items"])]
        mine = np.array([s[index[i]] for i in row["items"]])
        assert np.isfinite(mine).all(), "an item that was seen or has no score"
        scale = max(1.0, np.abs(best[np.isfinite(best)]).max(initial=1.0))
        assert np.abs(mine - best).max(initial=0) < tolerance * scale, (row["user"], mine[:5], best[:5])
        assert np.abs(mine - np.array(row["scores"])).max(initial=0) < tolerance * scale
        assert len(row["alone"]) == len(row["items"]), "one request and a batch of them must agree"
        alone = np.array([s[index[i]] for i in row["alone"]])
        assert np.abs(alone - mine).max(initial=0) < tolerance * scale


def test_popular_counts():
    with Home() as home:
        make_data(home)
        d = dump(home, "popular")
        x, index = matrix(d)
        agree(d, np.tile(x.sum(0), (len(x), 1)), index)


def test_item_knn_is_shrunk_cosine():
    with Home() as home:
        make_data(home)
        for alpha, shrink, power in ((0.5, 10, 0), (0.3, 2, 0.5)):
            d = dump(home, "item_knn", {"alpha": alpha, "shrink": shrink, "user_power": power, "neighbours": 1000})
            x, index = matrix(d)
            n = x.sum(0)
            c = (x * x.sum(1, keepdims=True) ** -power).T @ x
            w = c / ((n[:, None] * n[None, :]) ** alpha + shrink)
            np.fill_diagonal(w, 0)
            agree(d, x @ w, index, only_positive=True)


def test_ease_is_its_closed_form():
    with Home() as home:
        make_data(home)
        for lam, a, b_in, b_out in ((20, 0, 0, 0), (2, 0.3, 0.25, 0.4)):
            d = dump(home, "ease", {"lambda": lam, "user_power": a, "item_power_in": b_in, "item_power_out": b_out})
            x, index = matrix(d)
            deg_u, deg_i = x.sum(1), x.sum(0)
            with np.errstate(divide="ignore"):
                w_in = np.where(deg_i > 0, deg_i ** -b_in, 0)
                w_out = np.where(deg_i > 0, deg_i ** b_out, 0)
            w = x * (deg_u ** -a)[:, None] * w_in
            p = np.linalg.inv(w.T @ w + lam * np.eye(x.shape[1]))
            b = -p / np.diag(p)[None, :]
            np.fill_diagonal(b, 0)
            agree(d, (x * w_in) @ b * w_out, index)


def graph_filter_reference(x, k, alpha, sharpen_time=0.0, order=4):
    """GF-CF with SciPy's truncated SVD, and BSPM's early merge where there is a time to sharpen."""
    deg_u, deg_i = x.sum(1), x.sum(0)
    with np.errstate(divide="ignore"):
        half_u, half_i = np.where(deg_u > 0, deg_u ** -0.5, 0), np.where(deg_i > 0, deg_i ** -0.5, 0)
    r = scipy.sparse.csr_matrix(half_u[:, None] * x * half_i)
    _, _, vt = scipy.sparse.linalg.svds(r, k=k, tol=1e-10, random_state=1)
    y = (r.T @ (r @ x.T)).T + alpha * (((x * half_i) @ vt.T) @ vt) * np.where(half_i > 0, 1 / np.maximum(half_i, 1e-9), 0)
    term = y
    for j in range(1, order + 1 if sharpen_time > 0 else 1):
        term = -sharpen_time / j * (r.T @ (r @ term.T)).T
        y = y + term
    return y


def test_graph_filter_is_gfcf_and_bspm_by_scipy():
    for shape, sets, reference in (
            ({}, {"n_dims": 12, "low_pass": 0.3, "sharpen_steps": 0}, (12, 0.3)),
            ({"n_users": 700, "n_items": 900, "seed": 5}, {"n_dims": 10, "low_pass": 0.4, "sharpen_steps": 0}, (10, 0.4)),
            ({"n_users": 700, "n_items": 900, "seed": 6}, {"n_dims": 10, "low_pass": 0.2, "sharpen_steps": 1, "sharpen_time": 2.5}, (10, 0.2, 2.5))):
        with Home() as home:
            make_data(home, **shape)
            d = dump(home, "graph_filter", sets)
            x, index = matrix(d)
            agree(d, graph_filter_reference(x, *reference), index, tolerance=1e-3)


def test_markov_counts_transitions():
    with Home() as home:
        make_data(home)
        d = dump(home, "markov", {"window": 2, "decay": 0.5, "backward": 0.25, "from_power": 1, "to_power": 0.5, "shrink": 2, "half_life": 3, "neighbours": 1000})
        x, index = matrix(d)
        n, c, h = x.sum(0), np.zeros((x.shape[1],) * 2), np.zeros_like(x)
        for u, r in enumerate(d["lists"]):
            items = [index[i] for i in r["train"]]
            for back, i in enumerate(reversed(items)):
                h[u, i] = 2 ** (-back / 3)
            for a, i in enumerate(items):
                for d_, j in enumerate(items[a + 1:a + 3]):
                    c[i, j] += 0.5 ** d_
                    c[j, i] += 0.25 * 0.5 ** d_
        agree(d, h @ (c / (n[:, None] * n[None, :] ** 0.5 + 2)), index, only_positive=True)


def test_slim_is_the_elastic_net():
    """Against proximal gradient descent in doubles, and scikit-learn's ElasticNet where it is installed."""
    with Home() as home:
        make_data(home)
        for l1, l2, nonnegative in ((1.0, 5.0, True), (0.5, 3.0, False)):
            d = dump(home, "slim", {"l1": l1, "l2": l2, "nonnegative": nonnegative, "candidates": 5000})
            x, index = matrix(d)
            gram, n = x.T @ x, x.shape[1]
            step = 1 / (np.linalg.eigvalsh(gram)[-1] + l2)
            w = np.zeros((n, n))
            for _ in range(3000):
                w = w - step * (gram @ w - gram + l2 * w)
                w = np.maximum(w - step * l1, 0) if nonnegative else np.sign(w) * np.maximum(np.abs(w) - step * l1, 0)
                np.fill_diagonal(w, 0)
            if nonnegative:
                agree(d, x @ w, index, tolerance=2e-3, only_positive=True)
            else:  # a score of exactly 0 is no candidate of ours, so lists may differ at their end
                s = x @ w
                for u, r in enumerate(d["lists"]):
                    mine = np.array([s[u, index[i]] for i in r["items"]])
                    assert np.abs(mine - np.array(r["scores"])).max(initial=0) < 2e-3
            try:
                from sklearn.linear_model import ElasticNet
            except ImportError:
                continue
            for j in range(0, n, 7):
                net = ElasticNet(alpha=(l1 + l2) / len(x), l1_ratio=l1 / (l1 + l2), fit_intercept=False, positive=nonnegative, max_iter=100000, tol=1e-10)
                others = np.arange(n) != j
                net.fit(x[:, others], x[:, j])
                assert np.abs(net.coef_ - w[others, j]).max() < 1e-5


def test_content_is_cosine_of_tfidf():
    with Home() as home:
        tokens = make_data(home)
        d = dump(home, "similar_content", {"neighbours": 1000, "half_life": 5, "idf_power": 1})
        x, index = matrix(d)
        words = sorted({t for ts in tokens.values() for t in ts})
        f = np.zeros((len(tokens), len(words)))
        names = sorted(tokens)
        for n, i in enumerate(names):
            f[n, [words.index(t) for t in tokens[i]]] = 1
        f *= np.log((1 + len(names)) / (1 + f.sum(0)))
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        w = f @ f.T
        np.fill_diagonal(w, 0)
        row = {i: n for n, i in enumerate(names)}
        order = [row[i] for i in sorted(index, key=index.get)]
        w = w[np.ix_(order, order)]
        h = np.zeros_like(x)
        for u, r in enumerate(d["lists"]):
            for back, i in enumerate(reversed(r["train"])):
                h[u, index[i]] = 2 ** (-back / 5)
        agree(d, h @ w, index, only_positive=True)


def test_ials_solves_its_last_half_step_and_fits():
    with Home() as home:
        make_data(home)
        sets = {"n_dims": 8, "epochs": 10, "unobserved_weight": 0.1, "regularization": 0.01}
        d = dump(home, "ials", sets)
        x, index = matrix(d)
        rng = np.random.default_rng(1)
        n_u, n_i = x.shape[0], d["n_items"]
        a0, lam = 0.1, 0.01
        h = rng.normal(size=(x.shape[1], 8)) * 0.1 / np.sqrt(8)

        def half(other, rows, n_other):
            gram = a0 * other.T @ other
            out = np.zeros((len(rows), 8))
            for r, entries in enumerate(rows):
                e = other[entries > 0]
                if len(e):
                    out[r] = np.linalg.solve(gram + e.T @ e + lam * (len(e) + a0 * n_other) * np.eye(8), e.sum(0))
            return out

        for _ in range(10):
            w = half(h, x, n_i)
            h = half(w, x.T, n_u)
        w = half(h, x, n_i)
        reference = w @ h.T
        # Another start finds another rotation, and perhaps a slightly other optimum: rankings must be alike and as good.
        mine = {r["user"]: r for r in d["lists"]}
        hits = [0, 0]
        for u, r in enumerate(d["lists"]):
            s = reference[u].copy()
            s[[index[i] for i in r["train"]]] = -np.inf
            top = {k for k, n in index.items() if n in set(np.argsort(-s)[:10])}
            held = set(r["valid"])
            hits[0] += len(top & held)
            hits[1] += len(set(mine[r["user"]]["items"][:10]) & held)
        assert abs(hits[0] - hits[1]) <= 0.15 * max(hits), hits


def test_an_index_finds_what_the_factors_find():
    """Of ials and ann with the same seed every list has the same items, and scores to what folding in leaves open."""
    with Home() as home:
        make_data(home)
        sets = {"n_dims": 8, "epochs": 5, "unobserved_weight": 0.1}
        for more in ({"index": "flat"}, {"index": "hnsw", "effort": 100}, {"index": "ivf", "effort": 1000}):
            pairs = zip(dump(home, "ials", sets)["lists"], dump(home, "ann", {**sets, **more})["lists"])
            for a, b in pairs:
                assert np.allclose(a["scores"], b["scores"], rtol=0, atol=1e-4), (more, a["user"])
                assert set(a["items"][:10]) <= set(b["items"]), (more, a["user"])
                assert b["items"] == b["alone"]


def metric_reference(d, k, popularity, n_active, tokens):
    recall, ndcg, hit, precision, mrr, ap, novelty, diversity, shown = [], [], [], [], [], [], [], [], {}
    for r in d["lists"]:
        held, items = set(r["valid"]), r["items"][:k]
        if not held:
            continue
        rel = np.array([i in held for i in items] + [False] * (k - len(items)), dtype=float)
        discount = 1 / np.log2(np.arange(2, k + 2))
        recall.append(rel.sum() / len(held))
        ndcg.append((rel * discount).sum() / discount[: min(k, len(held))].sum())
        hit.append(float(rel.any()))
        precision.append(rel.sum() / k)
        mrr.append(1 / (1 + np.argmax(rel)) if rel.any() else 0.0)
        ap.append((rel * np.cumsum(rel) / np.arange(1, k + 1)).sum() / min(k, len(held)))
        novelty.append(np.mean([-np.log2(max(popularity.get(i, 0), 1) / n_active) for i in items]) if items else 0)
        pairs = [1 - len(set(tokens[a]) & set(tokens[b])) / len(set(tokens[a]) | set(tokens[b])) for n, a in enumerate(items) for b in items[:n]]
        diversity.append(np.mean(pairs) if pairs else 0)
        for i in items:
            shown[i] = shown.get(i, 0) + 1
    counts = np.sort(np.array(list(shown.values()) + [0] * (d["n_items"] - len(shown)), dtype=float))
    n = len(counts)
    gini = ((2 * np.arange(1, n + 1) - n - 1) * counts).sum() / (n * counts.sum())
    means = dict(recall=recall, ndcg=ndcg, hit=hit, precision=precision, mrr=mrr, map=ap, novelty=novelty, diversity=diversity)
    return {name: np.array(v) for name, v in means.items()}, len(shown) / d["n_items"], gini


def test_metrics_are_their_formulas():
    with Home() as home:
        tokens = make_data(home)
        d = dump(home, "item_knn")
        result = home.json("eval", "agent:item_knn", "--data", "small", "--cutoffs", "3,10,20")
        popularity, active = {}, 0
        for r in d["lists"]:
            active += bool(r["train"])
            for i in r["train"]:
                popularity[i] = popularity.get(i, 0) + 1
        for k in (3, 10, 20):
            users, coverage, gini = metric_reference(d, k, popularity, active, tokens)
            assert result["n_users"] == len(users["recall"])
            for name, values in users.items():
                m = result["metrics"][f"{name}@{k}"]
                assert abs(m["value"] - values.mean()) < 1e-5 * max(1, values.mean()), (name, k, m, values.mean())
                # the percentile bootstrap's half width is near the normal one
                half = 1.96 * values.std() / np.sqrt(len(values))
                assert m["low"] <= m["value"] <= m["high"]
                assert abs((m["high"] - m["low"]) / 2 - half) < 0.2 * half + 1e-6, (name, k, m, half)
            assert abs(result["metrics"][f"coverage@{k}"]["value"] - coverage) < 1e-9
            assert abs(result["metrics"][f"gini@{k}"]["value"] - gini) < 1e-9


def test_every_agent_is_the_same_whatever_the_threads():
    with Home() as home:
        make_data(home)
        for agent in ("ann", "ease", "graph_filter", "ials", "item_knn", "markov", "similar_content", "slim"):
            seen = set()
            for threads in ("1", "3"):
                with Home() as other:
                    make_data(other)
                    done = other.run("run", DUMP, "small", f"agent:{agent}", "{}", "20") if threads == "1" else other.run(
                        "run", "--threads", threads, DUMP, "small", f"agent:{agent}", "{}", "20")
                    seen.add(done.stdout)
            assert len(seen) == 1, agent


if __name__ == "__main__":
    if "--list" in sys.argv:
        print("\n".join(n for n in globals() if n.startswith("test_")))
    else:
        main(globals())
