/* users.c - who is known: histories from the snapshot, grown by events. Users are dealt into shards, each with a lock of its own. */
#include <stdlib.h>
#include <string.h>

#include "inside.h"

#define SHARDS 64

typedef struct recent { /* the events of one user */
  char *id;
  uint32_t *items;
  uint32_t n, cap;
} recent;

typedef struct shard {
  pthread_mutex_t lock;
  recent *all;
  uint32_t n, cap;
  uint32_t *slots; /* open addressing over all; EV_NONE = free */
  uint32_t n_slots;
  size_t n_events, bytes;
} shard;

struct users {
  const ev_snapshot *snapshot;
  uint32_t *popular; /* items, most popular first */
  shard shards[SHARDS];
};

typedef struct counted_item {
  uint64_t count;
  uint32_t item;
} counted_item;

static int by_count(const void *a, const void *b) {
  const counted_item *x = a, *y = b;
  if (x->count != y->count) return x->count > y->count ? -1 : 1;
  return x->item < y->item ? -1 : x->item > y->item;
}

ev_status users_open(users **out, const ev_snapshot *s) {
  *out = NULL;
  size_t n_items = ev_snapshot_n_items(s);
  const uint64_t *ptr = ev_snapshot_item_ptr(s);
  users *u = ev_zalloc(1, sizeof *u);
  if (u == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < SHARDS; i++) pthread_mutex_init(&u->shards[i].lock, NULL);
  u->snapshot = s;
  u->popular = ev_alloc(n_items, sizeof *u->popular);
  counted_item *c = ev_alloc(n_items, sizeof *c);
  if (u->popular == NULL || c == NULL) {
    ev_free(c);
    users_close(u);
    return EV_ENOMEM;
  }
  for (size_t i = 0; i < n_items; i++) c[i] = (counted_item){ptr[i + 1] - ptr[i], (uint32_t)i};
  qsort(c, n_items, sizeof *c, by_count);
  for (size_t i = 0; i < n_items; i++) u->popular[i] = c[i].item;
  ev_free(c);
  *out = u;
  return EV_OK;
}

void users_close(users *u) {
  if (u == NULL) return;
  for (size_t k = 0; k < SHARDS; k++) {
    shard *h = &u->shards[k];
    for (size_t i = 0; i < h->n; i++) {
      ev_free(h->all[i].id);
      ev_free(h->all[i].items);
    }
    ev_free(h->all);
    ev_free(h->slots);
    pthread_mutex_destroy(&h->lock);
  }
  ev_free(u->popular);
  ev_free(u);
}

static shard *shard_of(users *u, uint64_t hash) { return &u->shards[hash >> 58]; }

static uint32_t place_of(const shard *h, const char *id, uint64_t hash) {
  uint32_t at = (uint32_t)hash & (h->n_slots - 1);
  while (h->slots[at] != EV_NONE && strcmp(h->all[h->slots[at]].id, id) != 0) at = (at + 1) & (h->n_slots - 1);
  return at;
}

static recent *find(const shard *h, const char *id, uint64_t hash) {
  if (h->n_slots == 0) return NULL;
  uint32_t i = h->slots[place_of(h, id, hash)];
  return i == EV_NONE ? NULL : &h->all[i];
}

static ev_status grow(shard *h) {
  if (h->n == h->cap) {
    uint32_t cap = h->cap == 0 ? 64 : 2 * h->cap;
    recent *all = ev_resize(h->all, cap, sizeof *all);
    if (all == NULL) return EV_ENOMEM;
    h->bytes += (cap - h->cap) * sizeof *all;
    h->all = all;
    h->cap = cap;
  }
  if (2 * (h->n + 1) <= h->n_slots) return EV_OK;
  uint32_t n_slots = h->n_slots == 0 ? 256 : 2 * h->n_slots;
  uint32_t *slots = ev_alloc(n_slots, sizeof *slots);
  if (slots == NULL) return EV_ENOMEM;
  h->bytes += (n_slots - h->n_slots) * sizeof *slots;
  ev_free(h->slots);
  h->slots = slots;
  h->n_slots = n_slots;
  memset(slots, 0xFF, n_slots * sizeof *slots);
  for (uint32_t i = 0; i < h->n; i++) slots[place_of(h, h->all[i].id, ev_checksum(h->all[i].id, strlen(h->all[i].id)))] = i;
  return EV_OK;
}

static ev_status add_locked(shard *h, const char *user, uint64_t hash, uint32_t item) {
  recent *r = find(h, user, hash);
  if (r == NULL) {
    EV_TRY(grow(h));
    char *id = ev_strndup(user, strlen(user));
    if (id == NULL) return EV_ENOMEM;
    h->bytes += strlen(user) + 1;
    h->slots[place_of(h, user, hash)] = h->n;
    r = &h->all[h->n++];
    *r = (recent){.id = id};
  }
  if (r->n == r->cap) {
    uint32_t cap = r->cap == 0 ? 4 : r->cap + r->cap / 2;
    uint32_t *items = ev_resize(r->items, cap, sizeof *items);
    if (items == NULL) return EV_ENOMEM;
    h->bytes += (cap - r->cap) * sizeof *items;
    r->items = items;
    r->cap = cap;
  }
  r->items[r->n++] = item;
  h->n_events++;
  return EV_OK;
}

ev_status users_add(users *u, const char *user, uint32_t item) {
  uint64_t hash = ev_checksum(user, strlen(user));
  shard *h = shard_of(u, hash);
  pthread_mutex_lock(&h->lock);
  ev_status status = add_locked(h, user, hash, item);
  pthread_mutex_unlock(&h->lock);
  return status;
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* The last of `most` places behind one another: what the snapshot has, then the events. */
static uint32_t latest(uint32_t *out, size_t most, const uint32_t *known, size_t n_known, const uint32_t *later, size_t n_later) {
  size_t n_new = n_later < most ? n_later : most, n_old = n_known < most - n_new ? n_known : most - n_new;
  if (n_old > 0) memcpy(out, known + (n_known - n_old), n_old * sizeof *out);
  if (n_new > 0) memcpy(out + n_old, later + (n_later - n_new), n_new * sizeof *out);
  return (uint32_t)(n_old + n_new);
}

void users_fill(users *u, const char *user, past *out, uint32_t *history, uint32_t *seen) {
  uint64_t hash = ev_checksum(user, strlen(user));
  shard *h = shard_of(u, hash);
  uint32_t index = ev_snapshot_find_user(u->snapshot, user, strlen(user));
  const uint64_t *ptr = ev_snapshot_user_ptr(u->snapshot);
  const uint32_t *known = index != EV_NONE ? ev_snapshot_items(u->snapshot) + ptr[index] : NULL;
  size_t n_known = index != EV_NONE ? ptr[index + 1] - ptr[index] : 0;
  pthread_mutex_lock(&h->lock);
  const recent *r = find(h, user, hash);
  size_t n_later = r != NULL ? r->n : 0;
  const uint32_t *later = r != NULL ? r->items : NULL;
  out->user = index;
  out->n_history = latest(history, HISTORY_MAX, known, n_known, later, n_later);
  uint32_t n = latest(seen, SEEN_MAX, known, n_known, later, n_later);
  out->mark = n_known + n_later > SEEN_MAX ? UINT64_MAX : n_later;
  pthread_mutex_unlock(&h->lock);
  qsort(seen, n, sizeof *seen, by_number);
  uint32_t distinct = 0;
  for (uint32_t i = 0; i < n; i++)
    if (i == 0 || seen[i] != seen[i - 1]) seen[distinct++] = seen[i];
  out->n_seen = distinct;
}

bool users_has_seen(users *u, const char *user, uint32_t item) {
  uint64_t hash = ev_checksum(user, strlen(user));
  shard *h = shard_of(u, hash);
  uint32_t index = ev_snapshot_find_user(u->snapshot, user, strlen(user));
  const uint64_t *ptr = ev_snapshot_user_ptr(u->snapshot);
  if (index != EV_NONE)
    for (uint64_t i = ptr[index]; i < ptr[index + 1]; i++)
      if (ev_snapshot_items(u->snapshot)[i] == item) return true;
  bool found = false;
  pthread_mutex_lock(&h->lock);
  const recent *r = find(h, user, hash);
  for (uint32_t i = 0; r != NULL && i < r->n && !found; i++) found = r->items[i] == item;
  pthread_mutex_unlock(&h->lock);
  return found;
}

bool users_changed(users *u, const char *user, uint64_t mark) {
  if (mark == UINT64_MAX) return true;
  uint64_t hash = ev_checksum(user, strlen(user));
  shard *h = shard_of(u, hash);
  pthread_mutex_lock(&h->lock);
  const recent *r = find(h, user, hash);
  uint64_t n = r != NULL ? r->n : 0;
  pthread_mutex_unlock(&h->lock);
  return n != mark;
}

const uint32_t *users_popular(const users *u, size_t *n) {
  *n = ev_snapshot_n_items(u->snapshot);
  return u->popular;
}

size_t users_bytes(users *u, size_t *n_users, size_t *n_events) {
  size_t bytes = 0;
  *n_users = *n_events = 0;
  for (size_t i = 0; i < SHARDS; i++) {
    shard *h = &u->shards[i];
    pthread_mutex_lock(&h->lock);
    bytes += h->bytes;
    *n_users += h->n;
    *n_events += h->n_events;
    pthread_mutex_unlock(&h->lock);
  }
  return bytes;
}
