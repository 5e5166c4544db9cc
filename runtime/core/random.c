/* random.c - xoshiro256** 1.0 and splitmix64 (Blackman and Vigna 2018, public domain algorithms), and clocks. */
#include <math.h>
#include <time.h>

#include "core.h"

static uint64_t splitmix64(uint64_t *state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

void ev_rng_seed(ev_rng *r, uint64_t seed, uint64_t stream) {
  /* The stream is mixed through a round of its own, so that (seed, stream) and (seed + 1, stream - 1) differ. */
  uint64_t mixed = stream, state = seed ^ (stream == 0 ? 0 : splitmix64(&mixed));
  for (int i = 0; i < 4; i++) r->s[i] = splitmix64(&state);
}

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t ev_rng_u64(ev_rng *r) {
  uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotl(s[3], 45);
  return result;
}

uint32_t ev_rng_below(ev_rng *r, uint32_t n) {
  uint64_t m = (ev_rng_u64(r) >> 32) * n;
  if ((uint32_t)m < n) {
    uint32_t threshold = -n % n;
    while ((uint32_t)m < threshold) m = (ev_rng_u64(r) >> 32) * n;
  }
  return (uint32_t)(m >> 32);
}

double ev_rng_f64(ev_rng *r) { return (double)(ev_rng_u64(r) >> 11) * 0x1p-53; }

double ev_rng_normal(ev_rng *r) {
  /* The second value of the pair is dropped: the generator then has no hidden state beside s. */
  for (;;) {
    double u = 2 * ev_rng_f64(r) - 1, v = 2 * ev_rng_f64(r) - 1, q = u * u + v * v;
    if (q > 0 && q < 1) return u * sqrt(-2 * log(q) / q);
  }
}

static int64_t read_clock(clockid_t which, int64_t unit_ns) {
  struct timespec t;
  clock_gettime(which, &t);
  return (int64_t)t.tv_sec * (1000000000 / unit_ns) + t.tv_nsec / unit_ns;
}

uint64_t ev_now_ns(void) { return (uint64_t)read_clock(CLOCK_MONOTONIC, 1); }
int64_t ev_wall_ms(void) { return read_clock(CLOCK_REALTIME, 1000000); }
