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
