/* ledger_tally.c - what this connection has written since the totals were, added up in memory.
 *
 * The totals could be had from the rows by GROUP BY, and are where another connection has written or a process has died in between;
 * that sorts every row by its texts, which takes as long as half of storing them. Here a row costs two look-ups in a hash table. A
 * tally is worth something only while it covers every row that is not in the totals (`valid`), and is lost with a transaction. */
#include <string.h>

#include "ledger.h"

#define NO_TEXT UINT32_MAX

typedef struct tally {
  int64_t version, place; /* place: the agent, or the hour where there is no item */
  uint32_t item, type;    /* numbers of texts; no type: impressions */
  int64_t n;
  double sum, squares;
} tally;

struct ledger_tally {
  bool valid;
  ev_buf bytes;                           /* the texts, NUL after each */
  uint32_t *text_at, *text_slots, *slots; /* offsets in bytes; tables by hash: number or NO_TEXT */
  tally *at;
  size_t n_texts, texts_cap, n_text_slots, n, cap, n_slots;
};

/* ---- Tables by hash ------------------------------------------------------------------------------------*/
static bool grown(void *array, size_t *cap, size_t n, size_t size) {
  if (n < *cap) return true;
  size_t next = *cap == 0 ? 1024 : 2 * *cap;
  void *p = ev_resize(*(void **)array, next, size);
  if (p == NULL) return false;
  *(void **)array = p;
  *cap = next;
  return true;
}

static bool cleared_slots(uint32_t **slots, size_t *n_slots, size_t n) { /* room for twice as many as there are; true: they are new, and empty */
  if (2 * n < *n_slots) return false;
  size_t next = *n_slots == 0 ? 4096 : 2 * *n_slots;
  uint32_t *p = ev_resize(*slots, next, sizeof *p);
  if (p == NULL) return false;
  memset(p, 0xFF, next * sizeof *p);
  *slots = p;
  *n_slots = next;
  return true;
}

static const char *text_of(const ledger_tally *t, uint32_t number) { return t->bytes.data + t->text_at[number]; }

static uint32_t *text_slot(const ledger_tally *t, const char *s, size_t len) {
  size_t mask = t->n_text_slots - 1, i = ev_checksum(s, len) & mask;
  while (t->text_slots[i] != NO_TEXT && strcmp(text_of(t, t->text_slots[i]), s) != 0) i = (i + 1) & mask;
  return &t->text_slots[i];
}

static bool number_of(ledger_tally *t, const char *s, uint32_t *out) {
  size_t len = strlen(s);
  if (cleared_slots(&t->text_slots, &t->n_text_slots, t->n_texts))
    for (uint32_t i = 0; i < t->n_texts; i++) *text_slot(t, text_of(t, i), strlen(text_of(t, i))) = i;
  if (2 * t->n_texts >= t->n_text_slots) return false;
  uint32_t *slot = text_slot(t, s, len);
  if (*slot == NO_TEXT) {
    if (t->bytes.len + len >= NO_TEXT || !grown(&t->text_at, &t->texts_cap, t->n_texts, sizeof *t->text_at)) return false;
    t->text_at[t->n_texts] = (uint32_t)t->bytes.len;
    if (ev_buf_append(&t->bytes, s, len + 1) != EV_OK) return false;
    *slot = (uint32_t)t->n_texts++;
  }
  *out = *slot;
  return true;
}

static uint32_t *tally_slot(const ledger_tally *t, const tally *x) {
  const int64_t key[3] = {x->version, x->place, (int64_t)((uint64_t)x->item << 32 | x->type)};
  size_t mask = t->n_slots - 1, i = ev_checksum(key, sizeof key) & mask;
  for (; t->slots[i] != NO_TEXT; i = (i + 1) & mask) {
    const tally *y = &t->at[t->slots[i]];
    if (y->version == x->version && y->place == x->place && y->item == x->item && y->type == x->type) break;
  }
  return &t->slots[i];
}

static bool add(ledger_tally *t, const tally *x) {
  if (cleared_slots(&t->slots, &t->n_slots, t->n))
    for (uint32_t i = 0; i < t->n; i++) *tally_slot(t, &t->at[i]) = i;
  if (2 * t->n >= t->n_slots) return false;
  uint32_t *slot = tally_slot(t, x);
  if (*slot == NO_TEXT) {
    if (!grown(&t->at, &t->cap, t->n, sizeof *t->at)) return false;
    t->at[t->n] = (tally){.version = x->version, .place = x->place, .item = x->item, .type = x->type};
    *slot = (uint32_t)t->n++;
  }
  tally *to = &t->at[*slot];
  to->n += x->n;
  to->sum += x->sum;
  to->squares += x->squares;
  return true;
}

/* ---- For the ledger --------------------------------------------------------------------------------------*/
void ledger_tally_reset(ev_ledger *l, bool valid) {
  ledger_tally *t = l->tally;
  if (t == NULL) t = l->tally = ev_zalloc(1, sizeof *t);
  if (t == NULL) return; /* the totals come from the rows */
  t->n = t->n_texts = 0;
  ev_buf_clear(&t->bytes);
  if (t->n_slots > 0) memset(t->slots, 0xFF, t->n_slots * sizeof *t->slots);
  if (t->n_text_slots > 0) memset(t->text_slots, 0xFF, t->n_text_slots * sizeof *t->text_slots);
  t->valid = valid;
}

void ledger_tally_free(ev_ledger *l) {
  ledger_tally *t = l->tally;
  if (t == NULL) return;
  ev_buf_free(&t->bytes);
  ev_free(t->text_at);
  ev_free(t->text_slots);
  ev_free(t->slots);
  ev_free(t->at);
  ev_free(t);
}

bool ledger_tally_valid(const ev_ledger *l) { return l->tally != NULL && l->tally->valid; }

void ledger_tally_impression(ev_ledger *l, const ev_impression *i, int64_t version) {
  if (!ledger_tally_valid(l)) return;
  l->tally->valid = add(l->tally, &(tally){.version = version, .place = i->time_ms / HOUR_MS, .item = NO_TEXT, .type = NO_TEXT, .n = 1});
}

void ledger_tally_shown(ev_ledger *l, const char *item, int64_t version, int64_t agent) {
  tally x = {.version = version, .place = agent, .type = NO_TEXT, .n = 1};
  if (!ledger_tally_valid(l)) return;
  l->tally->valid = number_of(l->tally, item, &x.item) && add(l->tally, &x);
}

void ledger_tally_event(ev_ledger *l, const ledger_moved *m, int64_t version, int64_t agent, int sign) {
  tally x = {.version = version, .place = agent, .n = sign, .sum = sign * m->value, .squares = sign * m->value * m->value};
  if (!ledger_tally_valid(l)) return;
  l->tally->valid = number_of(l->tally, m->item, &x.item) && number_of(l->tally, m->type, &x.type) && add(l->tally, &x);
  x.place = m->hour;
  x.item = NO_TEXT;
  l->tally->valid = l->tally->valid && add(l->tally, &x);
}

/* ---- Into the totals -------------------------------------------------------------------------------------*/
#define SUMS " DO UPDATE SET events = events + excluded.events, value_sum = value_sum + excluded.value_sum, value_squares = value_squares + excluded.value_squares"

ev_status ledger_tally_write(ev_ledger *l) {
  static const char *const sql[4] = {/* by whether there is a type, and whether there is an item */
      "INSERT INTO impression_hours (version, hour, impressions) VALUES (?1, ?2, ?5) ON CONFLICT (hour, version) DO UPDATE SET impressions = impressions + excluded.impressions",
      "INSERT INTO impression_items (version, agent, item, impressions) VALUES (?1, ?2, ?3, ?5)"
      " ON CONFLICT (version, item, agent) DO UPDATE SET impressions = impressions + excluded.impressions",
      "INSERT INTO event_hours (version, hour, type, events, value_sum, value_squares) VALUES (?1, ?2, ?4, ?5, ?6, ?7) ON CONFLICT (hour, version, type)" SUMS,
      "INSERT INTO event_items (version, agent, item, type, events, value_sum, value_squares) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (version, item, agent, type)" SUMS};
  const ledger_tally *t = l->tally;
  sqlite3_stmt *statements[4] = {NULL};
  ev_status status = EV_OK;
  for (size_t i = 0; i < 4 && status == EV_OK; i++) status = ledger_prepare(l, sql[i], &statements[i]);
  for (size_t i = 0; i < t->n && status == EV_OK; i++) {
    const tally *x = &t->at[i];
    sqlite3_stmt *s = statements[2 * (x->type != NO_TEXT) + (x->item != NO_TEXT)];
    if (x->n == 0) continue; /* all of it has moved on */
    sqlite3_bind_int64(s, 1, x->version);
    sqlite3_bind_int64(s, 2, x->place);
    if (x->item != NO_TEXT) sqlite3_bind_text(s, 3, text_of(t, x->item), -1, SQLITE_STATIC);
    if (x->type != NO_TEXT) sqlite3_bind_text(s, 4, text_of(t, x->type), -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 5, x->n);
    if (x->type != NO_TEXT) {
      sqlite3_bind_double(s, 6, x->sum);
      sqlite3_bind_double(s, 7, x->squares);
    }
    status = ledger_run(l, s);
  }
  for (size_t i = 0; i < 4; i++) sqlite3_finalize(statements[i]);
  return status;
}
