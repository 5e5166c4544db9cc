"""Off-policy estimators written down again with NumPy, from the papers' formulas and the files' columns.

Nothing here calls Evection. What must be the same to compare figures at all is written down too: which fold a row is in and
which rows a resample draws (xoshiro256**, seeded by splitmix64).
"""
import csv

import numpy as np

MASK = (1 << 64) - 1


# ---- Random numbers: many streams at once ----------------------------------------------------------------------------
def splitmix(state):
    state = (state + np.uint64(0x9E3779B97F4A7C15))
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


class Streams:
    """xoshiro256** generators seeded (seed, stream) for every stream > 0 of a list."""

    def __init__(self, seed, streams):
        streams = np.asarray(streams, dtype=np.uint64)
        state = np.uint64(seed) ^ splitmix(streams)[1]
        self.s = []
        for _ in range(4):
            state, z = splitmix(state)
            self.s.append(z)

    def u64(self):
        def rotl(x, k):
            return (x << np.uint64(k)) | (x >> np.uint64(64 - k))
        s = self.s
        result = rotl(s[1] * np.uint64(5), 7) * np.uint64(9)
        t = s[1] << np.uint64(17)
        s[2] = s[2] ^ s[0]
        s[3] = s[3] ^ s[1]
        s[1] = s[1] ^ s[2]
        s[0] = s[0] ^ s[3]
        s[2] = s[2] ^ t
        s[3] = rotl(s[3], 45)
        return result

    def below(self, n):
        """One draw from each stream; the multiply-and-shift of Lemire 2019, its few rejections included."""
        m = (self.u64() >> np.uint64(32)) * np.uint64(n)
        threshold = np.uint64((1 << 32) % n)
        again = (m & np.uint64(0xFFFFFFFF)) < threshold
        while again.any():
            before = [x.copy() for x in self.s]
            fresh = (self.u64() >> np.uint64(32)) * np.uint64(n)
            self.s = [np.where(again, new, old) for new, old in zip(self.s, before)]
            m = np.where(again, fresh, m)
            again = again & ((m & np.uint64(0xFFFFFFFF)) < threshold)
        return (m >> np.uint64(32)).astype(np.int64)


def folds_of(n, folds, seed):
    return Streams(seed, np.arange(1, n + 1)).below(folds)


def draws(n, resamples, seed):
    """(resamples, n) row numbers."""
    streams = Streams(seed, np.arange(1, resamples + 1))
    return np.stack([streams.below(n) for _ in range(n)], axis=1)


# ---- The Open Bandit Dataset -------------------------------------------------------------------------------------------
class Obd:
    """Columns of men.csv and its item_context.csv; words as one column each."""

    def __init__(self, folder, name="men"):
        with open(f"{folder}/{name}.csv", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        with open(f"{folder}/{name}_item_context.csv", encoding="utf-8") as f:
            items = sorted(csv.DictReader(f), key=lambda r: int(r["item_id"]))
        self.n, self.arms = len(rows), len(items)
        self.arm = np.array([int(r["item_id"]) for r in rows])
        self.position = np.array([int(r["position"]) - 1 for r in rows])
        self.reward = np.array([float(r["click"]) for r in rows])
        self.propensity = np.array([float(r["propensity_score"]) for r in rows])
        users = [k for k in rows[0] if k.startswith("user_feature")]
        self.context = np.concatenate([self.words([r[k] for r in rows]) for k in users], axis=1)
        self.pair = np.array([[float(r[f"user-item_affinity_{a}"]) for a in range(self.arms)] for r in rows])
        features = [k for k in items[0] if k.startswith("item_feature")]
        self.arm_features = np.concatenate([self.numbers_or_words([r[k] for r in items]) for k in features], axis=1)

    @staticmethod
    def words(column):
        levels = sorted(set(column))
        return np.array([[float(x == level) for level in levels] for x in column])

    @classmethod
    def numbers_or_words(cls, column):
        try:
            return np.array([[float(x)] for x in column])
        except ValueError:
            return cls.words(column)

    def shares(self):
        """(positions, arms): the harmonic mean of the propensities an arm was shown with, made to add up to 1."""
        out = np.zeros((self.position.max() + 1, self.arms))
        for p in range(len(out)):
            for a in range(self.arms):
                shown = self.propensity[(self.position == p) & (self.arm == a)]
                out[p, a] = 1 / np.mean(1 / shown) if len(shown) else 0
        return out / out.sum(axis=1, keepdims=True)


# ---- Reward models -------------------------------------------------------------------------------------------------------
def standardised(x, axis=0):
    deviation = x.std(axis=axis)
    scale = np.where(deviation > 1e-12 * (1 + np.abs(x.mean(axis=axis))), deviation, np.inf)
    return (x - x.mean(axis=axis)) / scale


class Design:
    """Rows [1, arm, position, context, arm features, pair, arm × context] for any arms."""

    def __init__(self, log, crossed=False):
        self.log, self.crossed = log, crossed
        self.context = standardised(log.context) if log.context is not None else np.zeros((log.n, 0))
        self.features = standardised(log.arm_features) if log.arm_features is not None else np.zeros((log.arms, 0))
        self.pair = None if log.pair is None else standardised(log.pair, axis=None)

    def rows(self, which, arm):
        log, n = self.log, len(which)
        parts = [np.ones((n, 1)), np.eye(log.arms)[arm]]
        if log.position is not None and log.position.max() > 0:
            parts.append(np.eye(log.position.max() + 1)[log.position[which]])
        parts += [self.context[which], self.features[arm]]
        if self.pair is not None:
            parts.append(self.pair[which, arm][:, None])
        if self.crossed:
            parts.append((np.eye(log.arms)[arm][:, :, None] * self.context[which][:, None, :]).reshape(n, -1))
        return np.concatenate(parts, axis=1)


def fit(x, y, weight, penalty, logistic):
    """argmin Σ weight · (half squares | log losses) + penalty / 2 |θ without its first|²."""
    ridge = penalty * np.eye(x.shape[1])
    ridge[0, 0] = 0
    if not logistic:
        return np.linalg.solve(x.T @ (weight[:, None] * x) + ridge, x.T @ (weight * y))
    theta = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (weight * (p - y)) + ridge @ theta
        step = np.linalg.solve(x.T @ ((weight * p * (1 - p))[:, None] * x) + ridge, gradient)
        theta = theta - step
        if np.abs(step).max() < 1e-14:
            break
    return theta


def cross_fit(log, weight=None, logistic=False, penalty=1.0, folds=5, seed=1, crossed=False, target=None):
    """q̂ (n, arms): of a row, from the other folds."""
    design, fold = Design(log, crossed), folds_of(log.n, folds, seed)
    weight = np.ones(log.n) if weight is None else weight
    target = log.reward if target is None else target
    q = np.zeros((log.n, log.arms))
    for k in range(folds):
        learn = np.flatnonzero((fold != k) | (folds == 1))
        theta = fit(design.rows(learn, log.arm[learn]), target[learn], weight[learn], penalty, logistic)
        out = np.flatnonzero((fold == k) | (folds == 1))
        for a in range(log.arms):
            z = design.rows(out, np.full(len(out), a)) @ theta
            q[out, a] = 1 / (1 + np.exp(-z)) if logistic else z
    return q


class Moves:
    """To first order, what each row did through the regression to Σ_i (Σ_b u(i, b) q̂(i, b)): by the explicit formula
    Σ_k c_k H_k⁻¹ φ_i (y_i − ŷ_i), c_k the derivative of fold k's part by the parameters that were fitted without it."""

    def __init__(self, log, logistic=False, penalty=1.0, folds=5, seed=1, crossed=False):
        self.log, self.logistic, self.folds = log, logistic, folds
        design, self.fold, self.parts = Design(log, crossed), folds_of(log.n, folds, seed), []
        for k in range(folds):
            learn, out = np.flatnonzero(self.fold != k), np.flatnonzero(self.fold == k)
            x = design.rows(learn, log.arm[learn])
            theta = fit(x, log.reward[learn], np.ones(len(learn)), penalty, logistic)
            ridge = penalty * np.eye(x.shape[1])
            ridge[0, 0] = 0
            p = 1 / (1 + np.exp(-x @ theta)) if logistic else x @ theta
            h = x.T @ ((p * (1 - p) if logistic else np.ones(len(p)))[:, None] * x) + ridge
            per_arm = []
            for a in range(log.arms):
                xa = design.rows(out, np.full(len(out), a))
                pa = 1 / (1 + np.exp(-xa @ theta))
                per_arm.append(xa * (pa * (1 - pa))[:, None] if logistic else xa)
            self.parts.append((learn, out, x * (log.reward[learn] - p)[:, None], h, np.stack(per_arm)))

    def of(self, u):
        moved = np.zeros(self.log.n)
        for learn, out, scores, h, per_arm in self.parts:
            moved[learn] += scores @ np.linalg.solve(h, np.einsum("ja,ajp->p", u[out], per_arm))
        return moved - moved.mean()


def mrdr_weights(log, policy):
    p, chosen = log.propensity, policy[np.arange(log.n), log.arm]
    weight = chosen ** 2 * (1 - p) / p ** 2
    return weight / weight.mean()


# ---- Estimators ------------------------------------------------------------------------------------------------------------
def changed(kind, w, parameter):
    if np.isinf(parameter):
        return w
    if kind == "clipped_ips":
        return np.minimum(w, parameter)
    if kind == "switch_dr":
        return np.where(w <= parameter, w, 0)
    return parameter * w / (w ** 2 + parameter)


def terms(kind, w, r, q, v, parameter=np.inf):
    if kind == "dm":
        return v
    if kind in ("ips", "clipped_ips"):
        return (w if kind == "ips" else changed(kind, w, parameter)) * r
    if kind in ("dr", "mrdr"):
        return v + w * (r - q)
    return v + changed(kind, w, parameter) * (r - q)


def ladder(kind, top, points=25):
    top = max(top, 1)
    steps = np.arange(1, points - 1) / (points - 2)
    grid = 100 * top ** 2 * (1e-6 / top ** 2) ** steps if kind == "dros" else top ** (1 - steps)
    grid = [np.inf] + [g for i, g in enumerate(grid) if i == 0 or g < grid[i - 1]]
    return grid + ([0.0] if kind != "clipped_ips" else [])


def slope(kind, w, r, q, v, moved=lambda kind, parameter: 0, error=None):
    """Su, Srinath, Krishnamurthy 2020: the last candidate whose interval, two standard errors to either side, meets all those
    before it; no candidate's error counts for less than that of one behind it."""
    grid = ladder(kind, w.max())
    x = [terms(kind, w, r, q, v, parameter) + moved(kind, parameter) for parameter in grid]
    errors = np.array([error(y) for y in x])
    errors = np.maximum.accumulate(errors[::-1])[::-1]
    low, high, chosen = -np.inf, np.inf, None
    for parameter, y, error in zip(grid, x, errors):
        low, high = max(low, y.mean() - 2 * error), min(high, y.mean() + 2 * error)
        if low > high:
            break
        chosen = parameter
    return chosen


def bernstein(x, span, confidence=0.95):
    """Maurer and Pontil 2009, theorem 4, for both sides at once."""
    n, log = len(x), np.log(4 / (1 - confidence))
    half = np.sqrt(2 * x.var(ddof=1) * log / n) + 7 * span * log / (3 * (n - 1))
    return x.mean() - half, x.mean() + half


def ratio_bernstein(w, x, top, low, high, confidence=0.95):
    """The ratios ρ in [low, high] which that bound does not refute as those with E w (x − ρ) = 0: the edges, by bisection."""
    def refuted(rho):
        a, b = bernstein(w * (x - rho), top * (high - low), confidence)
        return a > 0 or b < 0
    centre, out = (w * x).sum() / w.sum(), []
    for edge in (low, high):
        if not refuted(edge):
            out.append(edge)
            continue
        inside, outside = centre, edge
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
        out.append(inside)
    return out


def clusters(cluster):
    """Rows of each cluster; and the standard error of a mean whose rows go together so: the usual one when each is alone."""
    members = [np.flatnonzero(cluster == g) for g in range(cluster.max() + 1)]

    def error(y):
        sums = np.array([(y[i] - y.mean()).sum() for i in members])
        return np.sqrt((sums ** 2).sum() * len(members) / (len(members) - 1)) / len(y)
    return members, error


def estimates(log, policy, q=None, mrdr_q=None, resamples=0, seed=1, confidence=0.95, reward=None, moves=None, cluster=None, fixed=None):
    """{ estimator: { value, low, high, bernstein_low, bernstein_high, standard_error, parameter } } as the papers have them."""
    rows, r = np.arange(log.n), log.reward
    w = policy[rows, log.arm] / log.propensity
    rl, rh = reward if reward is not None else (r.min(), r.max())
    top, out = w.max(), {}
    models = {"": (None, None)} if q is None else {"": (q[rows, log.arm], (policy * q).sum(axis=1)), "mrdr": (mrdr_q[rows, log.arm], (policy * mrdr_q).sum(axis=1))}
    if q is not None:
        ql, qh = min(q.min(), mrdr_q.min()), max(q.max(), mrdr_q.max())
    if cluster is None:
        cluster = np.arange(log.n)
    members, error = clusters(cluster)
    drawn = [np.concatenate([members[g] for g in d]) for d in draws(len(members), resamples, seed)] if resamples else None

    def moved(kind, parameter=None):
        """The spread that dm, switch_dr and dros owe to q̂; the others' is of second order."""
        if moves is None or not (kind == "dm" or (kind in ("switch_dr", "dros") and np.isfinite(parameter))):
            return 0
        u = policy.copy()
        if kind != "dm":
            u[rows, log.arm] -= changed(kind, w, parameter)
        return moves.of(u)

    def interval(of):
        if drawn is None:
            return None
        sample = np.array([of(rows_drawn) for rows_drawn in drawn])
        return np.quantile(sample, [(1 - confidence) / 2, (1 + confidence) / 2])

    for kind in ("dm", "ips", "snips", "clipped_ips", "dr", "sndr", "switch_dr", "dros", "mrdr"):
        qa, v = models["mrdr" if kind == "mrdr" else ""] if q is not None else (None, None)
        if q is None and kind not in ("ips", "snips", "clipped_ips"):
            continue
        e = out[kind] = {}
        if kind in ("snips", "sndr"):
            x, base = (r, np.zeros(log.n)) if kind == "snips" else (r - qa, v)
            rho = (w * x).sum() / w.sum()
            e["value"] = base.mean() + rho
            e["standard_error"] = error(base + w * (x - rho) / w.mean())
            each = confidence if kind == "snips" else (1 + confidence) / 2
            a, b = ratio_bernstein(w, x, top, *((rl, rh) if kind == "snips" else (rl - qh, rh - ql)), each)
            if kind == "sndr":
                c, d = bernstein(v, qh - ql, each)
                a, b = a + c, b + d
            e["bernstein_low"], e["bernstein_high"] = a, b
            both = interval(lambda i, base=base, x=x: base[i].mean() + (w[i] * x[i]).sum() / w[i].sum())
        else:
            parameter = None
            if kind in ("clipped_ips", "switch_dr", "dros"):
                parameter = fixed[kind] if fixed else slope(kind, w, r, qa, v, moved, error)
            x = terms(kind, w, r, qa, v, np.inf if parameter is None else parameter)
            y = x + moved(kind, parameter)
            e["value"], e["standard_error"] = x.mean(), error(np.broadcast_to(y, (log.n,)))
            if parameter is not None:
                e["parameter"] = parameter
            most = top
            if parameter is not None and np.isfinite(parameter):
                # the largest weight that is left, over all weights up to the largest: by looking at many of them
                most = min(top, parameter) if kind != "dros" else (0 if parameter == 0 else changed(kind, min(top, np.sqrt(parameter)), parameter))
            if kind == "dm":
                span = qh - ql
            elif kind in ("ips", "clipped_ips"):
                span = most * (max(rh, 0) - min(rl, 0))
            else:
                span = qh - ql + most * (max(rh - ql, 0) - min(rl - qh, 0))
            if moves is None or (kind != "dm" and parameter != 0):
                e["bernstein_low"], e["bernstein_high"] = bernstein(x, span, confidence)
            both = interval(lambda i, y=y: y[i].mean())
        e["low"], e["high"] = both if both is not None else (e["value"], e["value"])
    for kind, whole in (("clipped_ips", "ips"), ("switch_dr", "dr"), ("dros", "dr")):
        for a, b in (("low", "high"), ("bernstein_low", "bernstein_high")) if kind in out else ():
            if a in out[kind] and (resamples or a != "low"):
                out[kind][a], out[kind][b] = min(out[kind][a], out[whole][a]), max(out[kind][b], out[whole][b])
    return out


def weights(log, policy):
    w = policy[np.arange(log.n), log.arm] / log.propensity
    p = np.quantile(w, [0.5, 0.9, 0.95, 0.99, 0.999])
    return {"mean": w.mean(), "max": w.max(), "ess": w.sum() ** 2 / (w ** 2).sum(), "zero": (w == 0).mean(), "standard_error": w.std(ddof=1) / np.sqrt(len(w)),
            "p50": p[0], "p90": p[1], "p95": p[2], "p99": p[3], "p999": p[4]}


# ---- Slates ----------------------------------------------------------------------------------------------------------------
class Slates:
    """Columns (n, length): arm (−1 behind the end), reward, propensity, marginal; policy (n, length, arms), policy_marginal (n, length)."""

    def __init__(self, **columns):
        self.__dict__.update(columns)
        self.n, self.length = self.arm.shape
        self.there = self.arm >= 0


def slate_model(s, folds=5, seed=1, penalty=1.0):
    """Q̂ of what was logged and E_π of it, fitted backwards, each fold from the others alone. (n, length) both."""
    fold, arms = folds_of(s.n, folds, seed), s.policy.shape[2]
    q, v = np.zeros((s.n, s.length)), np.zeros((s.n, s.length))
    context = standardised(s.context)
    for k in range(folds):
        below = np.zeros(s.n)
        for place in reversed(range(s.length)):
            here, learn = s.there[:, place], s.there[:, place] & (fold != k)
            def rows(which, arm, place=place):
                parts = [np.ones((len(which), 1)), np.eye(arms)[arm]]
                if place > 0:
                    parts.append(np.eye(arms)[np.where(s.there[which, place], s.arm[which, place - 1], 0)])
                return np.concatenate(parts + [context[which]], axis=1)
            at = np.flatnonzero(learn)
            theta = fit(rows(at, s.arm[at, place]), s.reward[at, place] + below[at], np.ones(len(at)), penalty, False)
            everyone = np.arange(s.n)
            predicted = np.stack([rows(everyone, np.full(s.n, a)) @ theta for a in range(arms)], axis=1)
            expected = (s.policy[:, place] * predicted).sum(axis=1)
            out = here & (fold == k)
            q[out, place], v[out, place] = predicted[np.flatnonzero(out), s.arm[out, place]], expected[out]
            below = np.where(here, expected, 0)
    return q, v


def slate_estimates(s, q, v, cluster):
    """{ estimator: (value, standard error) }, McInerney et al. 2020 and Kiyohara et al. 2022."""
    error = clusters(cluster)[1]
    safe = np.where(s.there, s.arm, 0)
    chosen = np.take_along_axis(s.policy, safe[:, :, None], axis=2)[:, :, 0]
    step = np.where(s.there, chosen / np.where(s.there, s.propensity, 1), 1)
    prefix = np.cumprod(step, axis=1)
    whole, prefix = prefix[:, -1], np.where(s.there, prefix, 0)
    place = np.where(s.there, s.policy_marginal / np.where(s.there, s.marginal, 1), 0)
    reward = np.where(s.there, s.reward, 0)
    above = np.concatenate([np.ones((s.n, 1)), prefix[:, :-1]], axis=1)
    single = {"sips": whole * reward.sum(axis=1), "iips": (place * reward).sum(axis=1), "rips": (prefix * reward).sum(axis=1),
              "cascade_dr": np.where(s.there, prefix * (reward - q) + above * v, 0).sum(axis=1)}
    out = {k: (x.mean(), error(x)) for k, x in single.items()}
    ratio = (whole * reward.sum(axis=1)).sum() / whole.sum()
    out["snsips"] = (ratio, error(whole * (reward.sum(axis=1) - ratio) / whole.mean()))
    for name, w in (("sniips", place), ("snrips", prefix)):
        ratios, reach = (w * reward).sum(axis=0) / w.sum(axis=0), s.there.mean(axis=0)
        influence = sum(reach[k] * w[:, k] * (reward[:, k] - ratios[k]) / w[:, k].mean() + s.there[:, k] * ratios[k] for k in range(s.length))
        out[name] = ((ratios * reach).sum(), error(influence))
    return out, {"whole": whole, "prefix": prefix[s.there], "place": place[s.there]}
