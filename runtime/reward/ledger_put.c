/* ledger_put.c - impressions and events into the tables: once each, joined with one another whichever comes first.
 *
 * An event that names an impression takes over its version, and position and agent of its item in that slate. Where the
 * impression is not there yet the event waits with its id (`waits_for`), and the impression looks for who waits for it. */
#include <stdio.h>
#include <string.h>

#include "ledger.h"

#define AGENTS_AT_ONCE 64 /* longer slates are not kept in memory */

/* ---- Names ---------------------------------------------------------------------------------------------*/
static ev_status keep_name(ledger_names *n, const char *name, int64_t number) {
  size_t at = n->n;
  if (n->n == sizeof n->at / sizeof *n->at) { /* more than are in use at once: the oldest makes room */
    at = (n->last + 1) % n->n;
    ev_free(n->at[at].name);
    n->at[at] = n->at[--n->n];
    at = n->n;
  }
  char *copy = ev_strndup(name, strlen(name));
  if (copy == NULL) return EV_ENOMEM;
  n->at[at] = (ledger_name){copy, number};
  n->n++;
  n->last = at;
  return EV_OK;
}

static ev_status number_of(ev_ledger *l, ledger_names *n, const char *name, sqlite3_stmt *find, sqlite3_stmt *add, int64_t now_ms, int64_t *out) {
  *out = 0;
  if (name == NULL) return EV_OK;
  if (n->last < n->n && strcmp(n->at[n->last].name, name) == 0) {
    *out = n->at[n->last].number;
    return EV_OK;
  }
  for (size_t i = 0; i < n->n; i++) {
    if (strcmp(n->at[i].name, name) != 0) continue;
    n->last = i;
    *out = n->at[i].number;
    return EV_OK;
  }
  bool row;
  sqlite3_bind_text(find, 1, name, -1, SQLITE_STATIC);
  EV_TRY(ledger_step(l, find, &row));
  if (row) {
    *out = sqlite3_column_int64(find, 0);
    sqlite3_reset(find);
  } else {
    sqlite3_bind_text(add, 1, name, -1, SQLITE_STATIC);
    if (sqlite3_bind_parameter_count(add) > 1) sqlite3_bind_int64(add, 2, now_ms);
    EV_TRY(ledger_run(l, add));
    *out = sqlite3_last_insert_rowid(l->db);
  }
  return keep_name(n, name, *out);
}

static ev_status version_of(ev_ledger *l, const char *name, int64_t now_ms, int64_t *out) {
  return number_of(l, &l->versions, name, l->sql[SQL_VERSION_FIND], l->sql[SQL_VERSION_ADD], now_ms, out);
}

static ev_status agent_of(ev_ledger *l, const char *name, int64_t *out) {
  return number_of(l, &l->agents, name, l->sql[SQL_AGENT_FIND], l->sql[SQL_AGENT_ADD], 0, out);
}

/* ---- Impressions ---------------------------------------------------------------------------------------*/
/* What may be there already: known, and a conflict where it says something else. What is not there is from before what
 * retention keeps, where nobody can tell any more. */
static ev_status know(ev_ledger *l, sqlite3_stmt *same, enum ledger_count which, ev_ledger_receipt *out) {
  bool row;
  EV_TRY(ledger_step(l, same, &row));
  if (!row) {
    out->expired++;
    l->counts[COUNT_EXPIRED]++;
    return EV_OK;
  }
  bool equal = sqlite3_column_int(same, 0) == 1;
  sqlite3_reset(same);
  out->known++;
  l->counts[which]++;
  if (!equal) {
    out->conflicts++;
    l->counts[COUNT_CONFLICTS]++;
  }
  return EV_OK;
}

static ev_status know_impression(ev_ledger *l, const ev_impression *i, ev_ledger_receipt *out) {
  sqlite3_stmt *s = l->sql[SQL_IMPRESSION_SAME];
  sqlite3_bind_text(s, 1, i->user, -1, SQLITE_STATIC);
  sqlite3_bind_double(s, 2, i->propensity);
  sqlite3_bind_int64(s, 3, (int64_t)i->n_items);
  sqlite3_bind_text(s, 4, i->id, -1, SQLITE_STATIC);
  return know(l, s, COUNT_DUPLICATE_IMPRESSIONS, out);
}

static ev_status know_event(ev_ledger *l, const ev_event *e, const char *id, ev_ledger_receipt *out) {
  sqlite3_stmt *s = l->sql[SQL_EVENT_SAME];
  sqlite3_bind_text(s, 1, e->user, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 2, e->item, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 3, e->type, -1, SQLITE_STATIC);
  sqlite3_bind_double(s, 4, e->value);
  sqlite3_bind_text(s, 5, id, -1, SQLITE_STATIC);
  return know(l, s, COUNT_DUPLICATE_EVENTS, out);
}

/* The event that s stands on has found impression i, number `number`. */
static ev_status join(ev_ledger *l, sqlite3_stmt *s, const ev_impression *i, int64_t number, int64_t version) {
  ledger_moved m = {.number = sqlite3_column_int64(s, 0), .version_before = sqlite3_column_int64(s, 5), .version = version,
                    .value = sqlite3_column_double(s, 3), .hour = sqlite3_column_int64(s, 4) / HOUR_MS};
  const char *item = (const char *)sqlite3_column_text(s, 1), *type = (const char *)sqlite3_column_text(s, 2);
  int64_t position = 0, time_ms = sqlite3_column_int64(s, 4);
  if (item == NULL || type == NULL) return ev_fail(EV_ENOMEM, "out of memory: ledger");
  m.item = item;
  m.type = type;
  for (size_t k = 0; k < i->n_items && position == 0; k++) {
    if (strcmp(i->items[k].item, item) != 0) continue;
    position = i->items[k].position != 0 ? i->items[k].position : (int64_t)(k + 1);
    EV_TRY(agent_of(l, i->items[k].agent, &m.agent));
  }
  sqlite3_stmt *update = l->sql[SQL_JOIN];
  sqlite3_bind_int64(update, 1, number);
  if (position != 0) sqlite3_bind_int64(update, 2, position);
  else sqlite3_bind_null(update, 2);
  sqlite3_bind_int64(update, 3, m.agent);
  sqlite3_bind_int64(update, 4, version);
  sqlite3_bind_int64(update, 5, m.number);
  EV_TRY(ledger_run(l, update));
  EV_TRY(ledger_move(l, &m));
  l->counts[COUNT_JOINED_LATE]++;
  if (position == 0) l->counts[COUNT_NOT_IN_SLATE]++;
  if (time_ms < i->time_ms) l->counts[COUNT_BEFORE_IMPRESSION]++;
  return EV_OK;
}

static ev_status put_impression(ev_ledger *l, const ev_impression *i, int64_t now_ms, ev_ledger_receipt *out) {
  int64_t version, agents[AGENTS_AT_ONCE], agent;
  sqlite3_stmt *s = l->sql[SQL_IMPRESSION];
  if (i->time_ms < l->pruned_before_ms) return know_impression(l, i, out);
  EV_TRY(version_of(l, i->version, now_ms, &version));
  sqlite3_bind_text(s, 1, i->id, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 2, i->user, -1, SQLITE_STATIC);
  sqlite3_bind_int64(s, 3, version);
  sqlite3_bind_double(s, 4, i->propensity);
  sqlite3_bind_int64(s, 5, i->time_ms);
  sqlite3_bind_int64(s, 6, now_ms);
  EV_TRY(ledger_run(l, s));
  if (sqlite3_changes(l->db) == 0) return know_impression(l, i, out);
  int64_t number = sqlite3_last_insert_rowid(l->db);
  s = l->sql[SQL_SHOWN];
  sqlite3_bind_int64(s, 1, number);
  for (size_t k = 0; k < i->n_items; k++) {
    EV_TRY(agent_of(l, i->items[k].agent, &agent));
    if (k < AGENTS_AT_ONCE) agents[k] = agent;
    ledger_tally_shown(l, i->items[k].item, version, agent);
    sqlite3_bind_int64(s, 2, i->items[k].position != 0 ? i->items[k].position : (int64_t)(k + 1));
    sqlite3_bind_text(s, 3, i->items[k].item, -1, SQLITE_STATIC);
    sqlite3_bind_double(s, 4, i->items[k].propensity);
    sqlite3_bind_int64(s, 5, agent);
    EV_TRY(ledger_run(l, s));
  }
  if (i->n_items <= AGENTS_AT_ONCE) EV_TRY(ledger_recent_keep(l, i, number, version, agents));
  ledger_tally_impression(l, i, version);
  out->new_impressions++;
  l->tail_rows += (int64_t)i->n_items;
  s = l->sql[SQL_WAITING];
  sqlite3_bind_text(s, 1, i->id, -1, SQLITE_STATIC);
  for (bool row;;) { /* one at a time, since joining takes it out of what is being read */
    EV_TRY(ledger_step(l, s, &row));
    if (!row) return EV_OK;
    ev_status status = join(l, s, i, number, version);
    sqlite3_reset(s);
    EV_TRY(status);
    out->joined_late++;
  }
}

/* ---- Events --------------------------------------------------------------------------------------------*/
/* Equal events without an id are one event. */
static ev_status make_id(char out[65], const ev_event *e) {
  char text[512];
  ev_hash h;
  snprintf(text, sizeof text, "%.17g %lld", e->value, (long long)e->time_ms);
  ev_hasher *hasher = ev_hasher_new();
  if (hasher == NULL) return EV_ENOMEM;
  const char *parts[] = {e->user, e->item, e->type, text};
  for (size_t i = 0; i < 4; i++) ev_hasher_add(hasher, parts[i], strlen(parts[i]) + 1);
  if (e->impression != NULL) ev_hasher_add(hasher, e->impression, strlen(e->impression) + 1);
  ev_hasher_end(hasher, &h);
  ev_hash_hex(out, &h);
  return EV_OK;
}

static ev_status find_impression(ev_ledger *l, const ev_event *e, ledger_found *f) {
  sqlite3_stmt *s = l->sql[SQL_IMPRESSION_FIND];
  bool row;
  if (ledger_recent_find(l, e, f)) return EV_OK;
  sqlite3_bind_text(s, 1, e->impression, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 2, e->item, -1, SQLITE_STATIC);
  EV_TRY(ledger_step(l, s, &row));
  if (!row) return EV_OK;
  *f = (ledger_found){sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1), sqlite3_column_int64(s, 4), sqlite3_column_int64(s, 3), e->time_ms < sqlite3_column_int64(s, 2)};
  sqlite3_reset(s);
  return EV_OK;
}

static void bind_or_null(sqlite3_stmt *s, int at, int64_t x) {
  if (x != 0) sqlite3_bind_int64(s, at, x);
  else sqlite3_bind_null(s, at);
}

static ev_status put_event(ev_ledger *l, const ev_event *e, int64_t now_ms, ev_ledger_receipt *out) {
  char made[65];
  const char *id = e->id;
  ledger_found f = {0};
  sqlite3_stmt *s = l->sql[SQL_EVENT];
  if (id == NULL) {
    EV_TRY(make_id(made, e));
    id = made;
  }
  if (e->time_ms < l->pruned_before_ms) return know_event(l, e, id, out);
  if (e->impression != NULL) EV_TRY(find_impression(l, e, &f));
  if (f.impression == 0) EV_TRY(version_of(l, e->version, now_ms, &f.version));
  sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 2, e->user, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 3, e->item, -1, SQLITE_STATIC);
  sqlite3_bind_text(s, 4, e->type, -1, SQLITE_STATIC);
  sqlite3_bind_double(s, 5, e->value);
  sqlite3_bind_int64(s, 6, e->time_ms);
  sqlite3_bind_int64(s, 7, now_ms);
  sqlite3_bind_int64(s, 8, f.version);
  sqlite3_bind_int64(s, 9, f.agent);
  bind_or_null(s, 10, f.impression);
  bind_or_null(s, 11, f.position);
  if (e->impression != NULL && f.impression == 0) sqlite3_bind_text(s, 12, e->impression, -1, SQLITE_STATIC);
  else sqlite3_bind_null(s, 12);
  EV_TRY(ledger_run(l, s));
  if (sqlite3_changes(l->db) == 0) return know_event(l, e, id, out);
  const ledger_moved counted = {.hour = e->time_ms / HOUR_MS, .item = e->item, .type = e->type, .value = e->value};
  ledger_tally_event(l, &counted, f.version, f.agent, 1);
  out->new_events++;
  l->tail_rows++;
  if (e->impression != NULL && f.impression == 0) out->waiting++;
  if (f.impression != 0 && f.position == 0) l->counts[COUNT_NOT_IN_SLATE]++;
  if (f.early) l->counts[COUNT_BEFORE_IMPRESSION]++;
  return EV_OK;
}

/* ---- A batch -------------------------------------------------------------------------------------------*/
ev_status ledger_apply(ev_ledger *l, const ev_ledger_batch *b, ev_ledger_receipt *out) {
  *out = (ev_ledger_receipt){0};
  EV_TRY(ledger_check_ranges(l, b));
  int64_t now_ms = ledger_now_ms(l);
  for (size_t i = 0; i < b->n_impressions; i++) EV_TRY(put_impression(l, &b->impressions[i], now_ms, out));
  for (size_t i = 0; i < b->n_events; i++) EV_TRY(put_event(l, &b->events[i], now_ms, out));
  return EV_OK;
}

ev_status ev_ledger_begin(ev_ledger *l) { return ledger_begin(l); }
void ev_ledger_rollback(ev_ledger *l) { ledger_rollback(l); }

ev_status ev_ledger_add(ev_ledger *l, const ev_ledger_batch *b, ev_ledger_receipt *out) {
  *out = (ev_ledger_receipt){0};
  EV_TRY(ledger_check_batch(b));
  return ledger_apply(l, b, out);
}

ev_status ev_ledger_commit(ev_ledger *l) {
  ev_status status = l->tail_rows >= LEDGER_FOLD_AT_ONCE ? ledger_fold(l) : EV_OK;
  if (status == EV_OK) return ledger_commit(l);
  ledger_rollback(l);
  return status;
}

ev_status ev_ledger_put(ev_ledger *l, const ev_ledger_batch *b, ev_ledger_receipt *out) {
  *out = (ev_ledger_receipt){0};
  EV_TRY(ledger_check_batch(b));
  EV_TRY(ledger_begin(l));
  ev_status status = ledger_apply(l, b, out);
  if (status != EV_OK) ledger_rollback(l);
  else status = ev_ledger_commit(l);
  if (status != EV_OK) *out = (ev_ledger_receipt){0};
  return status;
}

bool ev_ledger_unsettled(const ev_ledger *l) { return l->tail_rows >= LEDGER_FOLD_IDLE; }

ev_status ev_ledger_settle(ev_ledger *l) {
  if (!ev_ledger_unsettled(l)) return EV_OK;
  EV_TRY(ledger_begin(l));
  ev_status status = ledger_fold(l);
  if (status == EV_OK) return ledger_commit(l);
  ledger_rollback(l);
  return status;
}

ev_status ev_ledger_events(ev_ledger *l, const ev_event *events, size_t n, size_t *n_new) {
  ev_ledger_receipt r;
  ev_status status = ev_ledger_put(l, &(ev_ledger_batch){.events = events, .n_events = n}, &r);
  *n_new = r.new_events;
  return status;
}
