/* hash.c - BLAKE2b-256 (libsodium) for content addresses, XXH3 (xxHash) for checksums. */
#include <sodium.h>
#include <xxhash.h>

#include "core.h"

struct ev_hasher {
  crypto_generichash_state state;
};

ev_hasher *ev_hasher_new(void) {
  ev_hasher *h = ev_alloc(1, sizeof *h);
  if (h != NULL) crypto_generichash_init(&h->state, NULL, 0, sizeof(ev_hash));
  return h;
}

void ev_hasher_add(ev_hasher *h, const void *data, size_t len) {
  crypto_generichash_update(&h->state, data, len);
}

void ev_hasher_end(ev_hasher *h, ev_hash *out) {
  crypto_generichash_final(&h->state, out->bytes, sizeof out->bytes);
  ev_free(h);
}

void ev_hash_of(ev_hash *out, const void *data, size_t len) {
  crypto_generichash(out->bytes, sizeof out->bytes, data, len, NULL, 0);
}

void ev_hash_hex(char out[65], const ev_hash *h) { sodium_bin2hex(out, 65, h->bytes, sizeof h->bytes); }

uint64_t ev_checksum(const void *data, size_t len) { return XXH3_64bits(data, len); }

/* An ev_summer is the library's own state, whose size may differ between its versions. */
static XXH3_state_t *state_of(ev_summer *s) { return (XXH3_state_t *)(void *)s; }

ev_summer *ev_summer_new(void) {
  if (ev_mem_fails()) return NULL;
  XXH3_state_t *state = XXH3_createState();
  if (state == NULL) ev_fail(EV_ENOMEM, "out of memory: a checksum");
  else XXH3_64bits_reset(state);
  return (ev_summer *)(void *)state;
}

void ev_summer_add(ev_summer *s, const void *data, size_t len) { XXH3_64bits_update(state_of(s), data, len); }

uint64_t ev_summer_end(ev_summer *s) {
  uint64_t sum = XXH3_64bits_digest(state_of(s));
  XXH3_freeState(state_of(s));
  return sum;
}
