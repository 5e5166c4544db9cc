/* guard.c - tokens and rates: who may what, and how often.
 *
 * A token is never compared itself: what is kept and what comes in are hashed under a key of this process to 32 bytes, and every hash
 * is looked at whole, so that time says neither where two differ nor how long they are nor which line it was.
 *
 * Rates are token buckets by address, an IPv6 address being its first 64 bits, in a table of fixed size. A set of it that is full
 * gives up the bucket that is fullest by now, which has least to forget: who asks from many addresses does not get others forgiven. */
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <sodium.h>

#include "inside.h"

#define TOKENS_MAX 1024
#define TOKEN_MIN 8
#define TOKEN_MAX 256
#define FILE_MAX (1u << 20)
#define WAYS 8
#define SETS 8192 /* 65536 buckets: 1.5 MiB */
#define LOCKS 64

typedef struct token {
  uint8_t hash[crypto_generichash_BYTES];
  role role;
} token;

typedef struct bucket {
  uint64_t who;  /* 0: free */
  uint64_t at_ns;
  double tokens; /* at that time */
} bucket;

struct guard {
  bool tokens_needed, admin_token;
  token *tokens;
  size_t n_tokens;
  uint8_t key[crypto_generichash_KEYBYTES], address_key[crypto_shorthash_KEYBYTES];
  double rate, burst;
  bucket *buckets; /* (SETS, WAYS); NULL: no rate */
  pthread_mutex_t locks[LOCKS];
};

static void hash_token(const guard *g, const char *s, size_t len, uint8_t out[crypto_generichash_BYTES]) {
  crypto_generichash(out, crypto_generichash_BYTES, (const uint8_t *)s, len, g->key, sizeof g->key);
}

/* ---- The file ------------------------------------------------------------------------------------------*/
static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static size_t word(const char **at, const char *end, const char **out) { /* → its length; 0: no more */
  while (*at < end && blank(**at)) ++*at;
  *out = *at;
  while (*at < end && !blank(**at)) ++*at;
  return (size_t)(*at - *out);
}

static ev_status read_line(guard *g, const char *path, size_t line, const char *s, const char *end) {
  static const char *const names[] = {"read", "feedback", "admin"};
  const char *role_name, *text, *at = s;
  size_t len = word(&at, end, &role_name), n;
  role r = ROLE_NONE;
  if (len == 0 || *role_name == '#') return EV_OK;
  for (int i = 0; i < 3; i++)
    if (strlen(names[i]) == len && memcmp(names[i], role_name, len) == 0) r = (role)(ROLE_READ + i);
  if (r == ROLE_NONE) return ev_fail(EV_EINVAL, "%s:%zu: the first word is read, feedback or admin", path, line); /* it may be a token: it is not shown */
  n = word(&at, end, &text);
  if (n < TOKEN_MIN || n > TOKEN_MAX) return ev_fail(EV_EINVAL, "%s:%zu: a token has %d to %d bytes, and this has %zu", path, line, TOKEN_MIN, TOKEN_MAX, n);
  for (size_t i = 0; i < n; i++)
    if (text[i] < 0x21 || text[i] > 0x7E) return ev_fail(EV_EINVAL, "%s:%zu: a token is of printable ASCII characters", path, line);
  if (g->n_tokens == TOKENS_MAX) return ev_fail(EV_ELIMIT, "%s:%zu: more than %d tokens", path, line, TOKENS_MAX);
  token t = {.role = r};
  hash_token(g, text, n, t.hash);
  for (size_t i = 0; i < g->n_tokens; i++)
    if (sodium_memcmp(t.hash, g->tokens[i].hash, sizeof t.hash) == 0) return ev_fail(EV_EINVAL, "%s:%zu: this token stands further up already", path, line);
  g->tokens[g->n_tokens++] = t;
  g->admin_token |= r == ROLE_ADMIN;
  return EV_OK;
}

static ev_status read_tokens(guard *g, const char *path) {
  ev_buf text = {0};
  struct stat st;
  EV_TRY(ev_file_read(&text, path, FILE_MAX));
  if (stat(path, &st) == 0 && (st.st_mode & S_IROTH) != 0) ev_log(EV_LOG_WARN, "%s: everybody on this machine can read the tokens; chmod 600 keeps them", path);
  ev_status status = EV_OK;
  size_t line = 1;
  const char *at = text.data != NULL ? text.data : "", *all = at + text.len;
  for (const char *end; at < all && status == EV_OK; at = end + 1, line++) {
    end = memchr(at, '\n', (size_t)(all - at));
    if (end == NULL) end = all;
    status = read_line(g, path, line, at, end);
  }
  if (text.data != NULL) sodium_memzero(text.data, text.cap);
  ev_buf_free(&text);
  if (status == EV_OK && g->n_tokens == 0) return ev_fail(EV_EINVAL, "%s: no token in it; a line is ROLE TOKEN [NAME]", path);
  return status;
}

ev_status guard_open(guard **out, const char *tokens_file, double rate_per_s, double burst) {
  *out = NULL;
  if (sodium_init() < 0) return ev_fail(EV_EIO, "libsodium has no source of random numbers");
  if (rate_per_s < 0 || rate_per_s != rate_per_s || burst < 0 || burst != burst) return ev_fail(EV_EINVAL, "a rate and a burst are 0 or more");
  guard *g = ev_zalloc(1, sizeof *g);
  if (g == NULL) return EV_ENOMEM;
  for (int i = 0; i < LOCKS; i++) pthread_mutex_init(&g->locks[i], NULL);
  randombytes_buf(g->key, sizeof g->key);
  randombytes_buf(g->address_key, sizeof g->address_key);
  g->rate = rate_per_s;
  g->burst = burst >= 1 ? burst : rate_per_s > 1 ? rate_per_s : 1; /* a second's worth */
  g->tokens_needed = tokens_file != NULL;
  ev_status status = EV_OK;
  if (rate_per_s > 0 && (g->buckets = ev_zalloc((size_t)SETS * WAYS, sizeof *g->buckets)) == NULL) status = EV_ENOMEM;
  if (status == EV_OK && tokens_file != NULL && (g->tokens = ev_alloc(TOKENS_MAX, sizeof *g->tokens)) == NULL) status = EV_ENOMEM;
  if (status == EV_OK && tokens_file != NULL) status = read_tokens(g, tokens_file);
  if (status != EV_OK) guard_close(g);
  else *out = g;
  return status;
}

void guard_close(guard *g) {
  if (g == NULL) return;
  for (int i = 0; i < LOCKS; i++) pthread_mutex_destroy(&g->locks[i]);
  ev_free(g->tokens);
  ev_free(g->buckets);
  sodium_memzero(g->key, sizeof g->key);
  ev_free(g);
}

/* ---- Roles ---------------------------------------------------------------------------------------------*/
role guard_role(const guard *g, const char *token_text, bool admin_socket) {
  role found = ROLE_NONE;
  uint8_t hash[crypto_generichash_BYTES];
  if (!g->tokens_needed) return admin_socket ? ROLE_ADMIN : ROLE_FEEDBACK;
  if (admin_socket && !g->admin_token) found = ROLE_ADMIN; /* else nobody could */
  if (token_text == NULL) return found;
  hash_token(g, token_text, strnlen(token_text, TOKEN_MAX + 1), hash);
  for (size_t i = 0; i < g->n_tokens; i++) {
    bool same = sodium_memcmp(hash, g->tokens[i].hash, sizeof hash) == 0;
    if (same && g->tokens[i].role > found) found = g->tokens[i].role;
  }
  return found;
}

/* ---- Rates ---------------------------------------------------------------------------------------------*/
/* Who it is; 0: nobody whose rate is counted. */
static uint64_t address_of(const guard *g, const struct sockaddr *from) {
  uint8_t bytes[9] = {0};
  uint64_t who;
  if (from == NULL) return 0;
  if (from->sa_family == AF_INET) {
    bytes[0] = 4;
    memcpy(bytes + 1, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
  } else if (from->sa_family == AF_INET6) {
    const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr;
    bytes[0] = IN6_IS_ADDR_V4MAPPED(a) ? 4 : 6;
    if (bytes[0] == 4) memcpy(bytes + 1, a->s6_addr + 12, 4);
    else memcpy(bytes + 1, a->s6_addr, 8);
  } else {
    return 0;
  }
  crypto_shorthash((uint8_t *)&who, bytes, sizeof bytes, g->address_key);
  return who != 0 ? who : 1;
}

static double tokens_at(const guard *g, const bucket *b, uint64_t now_ns) {
  double t = b->tokens + (now_ns > b->at_ns ? (double)(now_ns - b->at_ns) * 1e-9 * g->rate : 0); /* threads' clocks may be a little apart */
  return t < g->burst ? t : g->burst;
}

bool guard_allows(guard *g, const struct sockaddr *from, uint64_t now_ns) {
  uint64_t who = g->buckets != NULL ? address_of(g, from) : 0;
  if (who == 0) return true;
  size_t set = who % SETS;
  bucket *b = g->buckets + set * WAYS, *mine = NULL, *fullest = b;
  pthread_mutex_t *lock = &g->locks[set % LOCKS];
  pthread_mutex_lock(lock);
  for (int i = 0; i < WAYS && mine == NULL; i++) {
    if (b[i].who == who) mine = &b[i];
    else if (fullest->who != 0 && (b[i].who == 0 || tokens_at(g, &b[i], now_ns) > tokens_at(g, fullest, now_ns))) fullest = &b[i];
  }
  if (mine == NULL) {
    mine = fullest;
    *mine = (bucket){who, now_ns, g->burst};
  }
  double t = tokens_at(g, mine, now_ns);
  bool allowed = t >= 1;
  mine->tokens = allowed ? t - 1 : t;
  if (now_ns > mine->at_ns) mine->at_ns = now_ns;
  pthread_mutex_unlock(lock);
  return allowed;
}
