/* vector_functions.h - exp, log, tanh and their kin of a vector; after one of vector_*.h.
 *
 * exp and log are Cephes' (Moshier 1992). tanh and Φ are odd rational functions, fitted for this file: the least largest
 * relative error, by an iteration of weighted least squares (Lawson 1961). Against double, over every 211th float and on
 * every instruction set, the worst is in units of the last place: exp 1.0, log 0.8, σ 2.3, softplus 2.4, x σ(x) 2.5,
 * tanh 5.3; Φ has an absolute error of 2e-7. */
INLINE V v_abs(V x) { return (V)((VI)x & 0x7fffffff); }

INLINE V v_exp(V x) {
  x = pick(below(x, splat(-110)), splat(-110), x);
  x = pick(below(splat(90), x), splat(90), x); /* beyond are 0 and infinity anyway */
  V k = mul_add(x, splat(1.44269504f), splat(0x1.8p23f)) - splat(0x1.8p23f); /* to the nearest whole number */
  V r = mul_add(k, splat(2.12194440e-4f), mul_add(k, splat(-0.693359375f), x));
  V p = mul_add(r, splat(1.9875691500e-4f), splat(1.3981999507e-3f));
  p = mul_add(p, r, splat(8.3334519073e-3f));
  p = mul_add(p, r, splat(4.1665795894e-2f));
  p = mul_add(p, r, splat(1.6666665459e-1f));
  p = mul_add(p, r, splat(5.0000001201e-1f));
  return two_to(mul_add(p * r, r, r) + splat(1), k);
}

/* Of x >= 2^-126, finite: x = 2^k m with m in [√½, √2). */
INLINE V v_log_normal(V x, V scale) {
  VU bits = (VU)x, k = (VU)((VI)(bits - 0x3f3504f3) >> 23);
  V f = (V)(bits - (k << 23)) - splat(1), e = __builtin_convertvector((VI)k, V) + scale, f2 = f * f;
  V p = mul_add(f, splat(7.0376836292e-2f), splat(-1.1514610310e-1f));
  p = mul_add(p, f, splat(1.1676998740e-1f));
  p = mul_add(p, f, splat(-1.2420140846e-1f));
  p = mul_add(p, f, splat(1.4249322787e-1f));
  p = mul_add(p, f, splat(-1.6668057665e-1f));
  p = mul_add(p, f, splat(2.0000714765e-1f));
  p = mul_add(p, f, splat(-2.4999993993e-1f));
  p = mul_add(p, f, splat(3.3333331174e-1f));
  V tail = mul_add(e, splat(-2.12194440e-4f), p * f * f2);
  return mul_add(e, splat(0.693359375f), f + mul_add(splat(-0.5f), f2, tail));
}

INLINE V v_log(V x) {
  const V least = splat(0x1p-126f);
  V small = pick(below(x, least), splat(-23), splat(0));
  V y = v_log_normal(pick(below(x, least), x * splat(0x1p23f), x), small);
  y = pick(below(splat(0), x), y, pick(equal(x, splat(0)), splat(-INFINITY), splat(NAN)));
  return pick(equal(x, splat(INFINITY)), x, y);
}

INLINE V v_sigmoid(V x) { return splat(1) / (splat(1) + v_exp(-x)); }

/* max(x, 0) + log(1 + e^−|x|); what is lost of the exponential when 1 is added is added back. */
INLINE V v_softplus(V x) {
  V u = v_exp(-v_abs(x)), s = splat(1) + u;
  return pick(below(x, splat(0)), splat(0), x) + (v_log_normal(s, splat(0)) + (u - (s - splat(1))));
}

/* x P(x²) / Q(x²) up to 9, where the next float to tanh is 1. */
INLINE V v_tanh(V x) {
  V v = pick(below(x, splat(-9)), splat(-9), pick(below(splat(9), x), splat(9), x)), z = v * v;
  V p = mul_add(z, splat(1.33547005e-8f), splat(2.06091627e-5f));
  p = mul_add(p, z, splat(3.49559542e-3f));
  p = mul_add(p, z, splat(0.133810326f));
  p = mul_add(p, z, splat(1));
  V q = mul_add(z, splat(7.77658897e-7f), splat(3.28564493e-4f));
  q = mul_add(q, z, splat(2.58770138e-2f));
  q = mul_add(q, z, splat(0.467143476f));
  q = mul_add(q, z, splat(1));
  return larger(splat(-1), smaller(splat(1), v * p / q)); /* rounding may pass 1 */
}

/* Φ(x), the share of a standard normal below x: ½ + x P(x²) / Q(x²) up to 5.4, where 3e-8 are left; then 0 or 1. */
INLINE V v_normal_below(V x) {
  V z = smaller(splat(5.4f * 5.4f), x * x);
  V p = mul_add(z, splat(2.35913671e-8f), splat(6.32356523e-6f));
  p = mul_add(p, z, splat(1.60683208e-4f));
  p = mul_add(p, z, splat(4.62889019e-3f));
  p = mul_add(p, z, splat(3.30282897e-2f));
  p = mul_add(p, z, splat(0.398942262f));
  V q = mul_add(z, splat(1.2198235e-6f), splat(7.11687535e-5f));
  q = mul_add(q, z, splat(1.83858769e-3f));
  q = mul_add(q, z, splat(2.81794593e-2f));
  q = mul_add(q, z, splat(0.249456108f));
  q = mul_add(q, z, splat(1));
  V y = larger(splat(0), smaller(splat(1), mul_add(x, p / q, splat(0.5f))));
  return pick(below(x, splat(-5.4f)), splat(0), pick(below(splat(5.4f), x), splat(1), y));
}
