/* recommend.c - slates: what is asked, over the board, and the answer as JSON and as an impression in the ledger.
 *
 *   GET  /recommend/{user}?n=&where=&exclude=&seen=&explain=      a user
 *   POST /recommend  {"user", "recent", "n", "where", "exclude", "seen", "explain"}   a session, with or without a user
 *   GET  /similar/{item}?n=&where=                                what goes with an item */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inside.h"

#define N_DEFAULT 10
#define EXCLUDED_MAX 1000

/* ---- The wanted slate → a slot ---------------------------------------------------------------------------*/
static void free_wanted(wanted *w) {
  if (w == NULL) return;
  free(w->where);
  free(w->excluded);
  free(w);
}

void job_free(http_thread *t, job *j) {
  catalog_release(t->f->catalog, j->mask);
  free_wanted(j->w);
  free(j);
}

static int by_number(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* More that is not to come, into the ascending list. What has no place there is left out when the answer comes back. */
static uint32_t bar(uint32_t *seen, uint32_t n, const uint32_t *more, size_t n_more) {
  size_t room = SEEN_MAX - n, taken = n_more < room ? n_more : room;
  if (taken == 0) return n;
  memcpy(seen + n, more, taken * sizeof *seen);
  n += (uint32_t)taken;
  qsort(seen, n, sizeof *seen, by_number);
  uint32_t distinct = 0;
  for (uint32_t i = 0; i < n; i++)
    if (i == 0 || seen[i] != seen[i - 1]) seen[distinct++] = seen[i];
  return distinct;
}

static void fill(const front *f, job *j, slot *s) {
  const wanted *w = j->w;
  s->kind = ASK_SLATE;
  users_fill(f->users, w->user, &j->past, s->history, s->seen);
  uint32_t n = j->past.n_history, n_seen = w->again ? 0 : j->past.n_seen;
  if (w->n_recent > 0) { /* the session's items are the latest */
    size_t keep = n + w->n_recent > HISTORY_MAX ? HISTORY_MAX - w->n_recent : n;
    memmove(s->history, s->history + (n - keep), keep * sizeof *s->history);
    memcpy(s->history + keep, w->recent, w->n_recent * sizeof *w->recent);
    n = (uint32_t)(keep + w->n_recent);
    if (!w->again) n_seen = bar(s->seen, n_seen, w->recent, w->n_recent);
  }
  if (w->n_excluded > 0) n_seen = bar(s->seen, n_seen, w->excluded, w->n_excluded);
  s->user = j->past.user;
  s->n_history = n;
  s->n_seen = n_seen;
  s->n = (uint32_t)(w->n + w->offset);
  s->mask = j->mask;
  s->explain = w->explain;
}

static bool among(const uint32_t *list, size_t n, uint32_t item) {
  for (size_t i = 0; i < n; i++)
    if (list[i] == item) return true;
  return false;
}

/* May the item be shown now? What was seen while the slate was made counts. */
static bool may_come(const front *f, const job *j, uint32_t item, bool look_at_seen) {
  const wanted *w = j->w;
  if (catalog_hidden(f->catalog, item) || (j->mask != EV_NONE && catalog_barred(f->catalog, j->mask, item))) return false;
  if (w->n_excluded > 0 && among(w->excluded, w->n_excluded, item)) return false;
  if (!w->again && w->n_recent > 0 && among(w->recent, w->n_recent, item)) return false;
  return !look_at_seen || !users_has_seen(f->users, w->user, item);
}

/* Popular items, from nobody. */
static void fall_back(const front *f, const job *j, ev_answer *out) {
  size_t n;
  const uint32_t *popular = users_popular(f->users, &n);
  *out = (ev_answer){.propensity = 1, .degraded = 1};
  for (size_t i = 0; i < n && out->n < j->w->n + j->w->offset; i++)
    if (may_come(f, j, popular[i], !j->w->again)) out->picks[out->n++] = (ev_pick){.item = popular[i], .propensity = 1};
}

static void sift(const front *f, const job *j, ev_answer *a) {
  bool look = !j->w->again && j->w->user[0] != '\0' && users_changed(f->users, j->w->user, j->past.mark);
  uint32_t n = 0;
  for (uint32_t i = 0; i < a->n && n < j->w->n + j->w->offset; i++)
    if (may_come(f, j, a->picks[i].item, look)) a->picks[n++] = a->picks[i];
  a->n = n;
}

static void leave_out_top(ev_answer *a, size_t offset) {
  uint32_t skip = offset < a->n ? (uint32_t)offset : a->n;
  memmove(a->picks, a->picks + skip, (a->n - skip) * sizeof *a->picks);
  a->n -= skip;
}

/* ---- Impressions ---------------------------------------------------------------------------------------*/
static const char *agents_of(char out[256], const char (*recalls)[48], uint32_t sources) { /* joined by '+'; NULL: nobody says */
  size_t used = 0;
  for (uint32_t b = 0; b < 32 && recalls != NULL; b++) {
    size_t n = sources >> b & 1 ? strlen(recalls[b]) : 0;
    if (n == 0 || used + n + 2 > 256) continue;
    if (used > 0) out[used++] = '+';
    memcpy(out + used, recalls[b], n);
    used += n;
  }
  out[used] = '\0';
  return used > 0 ? out : NULL;
}

/* The slate goes to the ledger; id is its name there, or "" when it could not be taken or was nobody's choice that is known. */
static void log_impression(http_thread *t, const wanted *w, const served *v, char id[40]) {
  static _Thread_local char names[SLATE_MAX][USER_MAX + 1], agents[SLATE_MAX][256];
  static _Thread_local ev_shown shown[SLATE_MAX];
  const ev_answer *a = v->answer;
  uint32_t last_sources = 0;
  const char *last = NULL;
  size_t n = 0;
  id[0] = '\0';
  if (t->f->o->no_impressions || isnan(a->propensity)) return;
  for (size_t i = 0; i < a->n; i++) {
    if (!catalog_id(t->f->catalog, a->picks[i].item, names[n])) continue;
    if (last == NULL || a->picks[i].sources != last_sources) last = agents_of(agents[n], v->recalls, a->picks[i].sources);
    last_sources = a->picks[i].sources;
    shown[n] = (ev_shown){names[n], a->picks[i].propensity, v->fallback ? "fallback" : last, (uint32_t)(n + 1)};
    n++;
  }
  if (n == 0) return;
  snprintf(id, 40, "%016llx-%llx", (unsigned long long)t->first_id, (unsigned long long)++t->n_impressions);
  ev_impression i = {id, w->user[0] != '\0' ? w->user : "(nobody)", v->fallback ? "fallback" : v->version, a->propensity, ev_wall_ms(), shown, n};
  if (scribe_post(t->f->scribe, t->index, &(ev_ledger_batch){.impressions = &i, .n_impressions = 1}, NULL) == EV_OK) {
    atomic_fetch_add_explicit(&t->n.impressions, 1, memory_order_relaxed);
    return;
  }
  if (atomic_fetch_add(&t->n.impressions_lost, 1) == 0) ev_log(EV_LOG_ERROR, "a slate was not logged: %s", ev_error());
  id[0] = '\0';
}

/* ---- JSON ----------------------------------------------------------------------------------------------*/
static void put_sources(ev_buf *b, const served *v, uint32_t sources) {
  bool first = true;
  if (v->fallback) {
    ev_buf_append(b, "\"fallback\"", 10);
    return;
  }
  for (uint32_t k = 0; k < 32; k++) {
    if ((sources >> k & 1) == 0 || v->recalls[k][0] == '\0') continue;
    if (!first) ev_buf_append(b, ",", 1);
    ev_buf_quoted(b, v->recalls[k], strlen(v->recalls[k]));
    first = false;
  }
}

/* Seven digits, as a float has them. Most scores need no printf, which takes a third of a microsecond for each. */
static void put_score(ev_buf *b, float score) {
  double x = fabs((double)score);
  char text[32], *end = text + sizeof text, *at = end;
  if (!(x >= 0.1 && x < 1e6) && x != 0) {
    ev_buf_printf(b, "%.9g", (double)score);
    return;
  }
  uint64_t scaled = (uint64_t)(x * 1e7 + 0.5), whole = scaled / 10000000, part = scaled % 10000000;
  if (part != 0) {
    int digits = 7;
    while (part % 10 == 0) {
      part /= 10;
      digits--;
    }
    for (; digits > 0; digits--, part /= 10) *--at = (char)('0' + part % 10);
    *--at = '.';
  }
  do *--at = (char)('0' + whole % 10);
  while ((whole /= 10) != 0);
  if (score < 0) *--at = '-';
  ev_buf_append(b, at, (size_t)(end - at));
}

static void put_propensity(ev_buf *b, double p) {
  if (isnan(p)) ev_buf_printf(b, "\"propensity\":null,");
  else ev_buf_printf(b, "\"propensity\":%.9g,", p);
}

/* {"degraded", "impression", "items": [{"id", "propensity", "score", "sources", "title"}], "propensity", "user", "version"} */
static void own_form(call *c, const wanted *w, const served *v) {
  static _Thread_local ev_buf title;
  const front *f = call_front(c);
  const ev_answer *a = v->answer;
  ev_buf *b = &c->response;
  char id[USER_MAX + 1];
  bool first = true;
  ev_buf_printf(b, "{");
  if (a->degraded != 0 && a->cut[0] != '\0') {
    ev_buf_printf(b, "\"cut\":");
    ev_buf_quoted(b, a->cut, strlen(a->cut));
    ev_buf_append(b, ",", 1);
  }
  ev_buf_printf(b, "\"degraded\":%s,", a->degraded != 0 ? "true" : "false");
  if (v->explain != NULL) ev_buf_printf(b, "\"explain\":%s,", v->explain);
  if (v->impression[0] != '\0') ev_buf_printf(b, "\"impression\":\"%s\",", v->impression);
  ev_buf_append(b, "\"items\":[", 9);
  for (size_t i = 0; i < a->n; i++) {
    const ev_pick *p = &a->picks[i];
    if (!catalog_id(f->catalog, p->item, id)) continue;
    ev_buf_append(b, first ? "{\"id\":" : ",{\"id\":", first ? 6 : 7);
    ev_buf_quoted(b, id, strlen(id));
    ev_buf_append(b, ",", 1);
    if (a->explored != 0) put_propensity(b, p->propensity);
    ev_buf_append(b, "\"score\":", 8);
    put_score(b, p->score);
    ev_buf_append(b, ",\"sources\":[", 12);
    put_sources(b, v, p->sources);
    ev_buf_append(b, "]", 1);
    const char *text = catalog_title(f->catalog, p->item, &title);
    if (text != NULL) {
      ev_buf_append(b, ",\"title\":", 9);
      ev_buf_quoted(b, text, strlen(text));
    }
    ev_buf_append(b, "}", 1);
    first = false;
  }
  ev_buf_append(b, "],", 2);
  if (a->explored != 0) put_propensity(b, a->propensity);
  ev_buf_append(b, "\"user\":", 7);
  ev_buf_quoted(b, w->user, strlen(w->user));
  ev_buf_append(b, ",\"version\":", 11);
  ev_buf_quoted(b, v->version, strlen(v->version));
  if (ev_buf_append(b, "}", 1) == EV_OK) call_text(c, 200, "application/json", NULL, 0);
  else call_error(c, 500, "out of memory");
}

/* ---- There and back ------------------------------------------------------------------------------------*/
/* explain's items are the snapshot's numbers: the front knows their names. */
static const char *named_explain(const front *f, const slot *s, ev_buf *out) {
  uint32_t len = *(const volatile uint32_t *)&s->text_len; /* once: it is a worker's to write on */
  json_t *o = len > 0 && len < TEXT_BYTES ? json_loadb(s->text, len, 0, NULL) : NULL, *item;
  size_t i;
  if (o == NULL) return NULL;
  json_array_foreach(json_object_get(o, "items"), i, item) {
    char id[USER_MAX + 1];
    json_t *number = json_object_get(item, "item");
    if (json_is_integer(number) && catalog_id(f->catalog, (uint32_t)json_integer_value(number), id)) json_object_set_new(item, "id", json_string(id));
    json_object_del(item, "item");
  }
  char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
  json_decref(o);
  if (text == NULL || ev_buf_append(out, text, strlen(text)) != EV_OK) {
    free(text);
    return NULL;
  }
  free(text);
  return out->data;
}

void job_done(http_thread *t, job *j, slot *s, const ev_answer *answer, bool degraded) {
  static _Thread_local ev_answer mine;
  static _Thread_local ev_buf explained;
  const front *f = t->f;
  if (j->call == NULL) {
    job_free(t, j);
    return;
  }
  call *c = j->call;
  const team_board *team = &f->b->teams[j->team];
  served v = {.version = answer != NULL ? j->version : "fallback", .answer = &mine, .fallback = answer == NULL, .recalls = team->recalls};
  char id[40];
  if (answer == NULL) {
    fall_back(f, j, &mine);
  } else {
    memcpy(&mine, answer, offsetof(ev_answer, picks));
    if (mine.n > SLATE_MAX) mine.n = 0; /* the board is a worker's to write on */
    mine.cut[sizeof mine.cut - 1] = '\0';
    memcpy(mine.picks, answer->picks, mine.n * sizeof *mine.picks);
    sift(f, j, &mine);
    if (degraded) mine.degraded = 1;
  }
  leave_out_top(&mine, j->w->offset);
  ev_buf_clear(&explained);
  if (j->w->explain && answer != NULL) v.explain = named_explain(f, s, &explained);
  log_impression(t, j->w, &v, id);
  v.impression = id;
  double ms = (double)(ev_now_ns() - c->started_ns) * 1e-6;
  latency_count(t, ms);
  atomic_fetch_add_explicit(&t->n.slates, 1, memory_order_relaxed);
  if (mine.degraded != 0) atomic_fetch_add(&t->n.degraded, 1);
  if (v.fallback) atomic_fetch_add(&t->n.fallbacks, 1);
  if (atomic_load(&f->b->challenger) != 0) {
    pthread_rwlock_rdlock((pthread_rwlock_t *)(uintptr_t)&f->canary_lock);
    if (f->canary != NULL) canary_slate(f->canary, j->w->user, j->challenger, mine.degraded != 0, ms, ev_wall_ms());
    if (f->lately != NULL && id[0] != '\0') lately_add(f->lately, id, v.fallback ? NULL : v.recalls, &mine);
    pthread_rwlock_unlock((pthread_rwlock_t *)(uintptr_t)&f->canary_lock);
  }
  (j->w->form != NULL ? j->w->form : own_form)(c, j->w, &v);
  job_free(t, j);
  call_go_on(c);
}

static bool in_share(const front *f, const char *user) {
  double share;
  if (atomic_load(&f->b->challenger) == 0) return false;
  uint64_t bits = atomic_load(&f->b->share_bits);
  memcpy(&share, &bits, sizeof share);
  return canary_picks(atomic_load(&f->b->salt), share, user);
}

void recommend(call *c, wanted *w) {
  http_thread *t = c->at;
  front *f = t->f;
  job *j = calloc(1, sizeof *j);
  wanted *mine = malloc(sizeof *mine);
  if (j == NULL || mine == NULL) {
    free(j);
    free(mine);
    free(w->where);
    free(w->excluded);
    call_error(c, 500, "out of memory");
    return;
  }
  memcpy(mine, w, offsetof(wanted, recent) + w->n_recent * sizeof *w->recent);
  *j = (job){.call = c, .w = mine, .mask = EV_NONE, .challenger = in_share(f, w->user), .end_ns = c->started_ns + (uint64_t)f->o->deadline_ms * 1000000};
  ev_status status = catalog_where(f->catalog, mine->where, &j->mask);
  if (status != EV_OK) {
    job_free(t, j);
    if (status == EV_ELIMIT) call_error(c, 503, "%s", ev_error()); /* all conditions that can be at once are in use */
    else call_fail(c, status);
    return;
  }
  call_hold(c);
  slot *s = dispatch_begin(t, j);
  if (s == NULL) { /* more is under way than can be: the popular ones */
    job_done(t, j, NULL, NULL, true);
    return;
  }
  fill(f, j, s);
  dispatch_send(t, j);
}

/* ---- Lessons -------------------------------------------------------------------------------------------*/
static void lesson(http_thread *t, const parsed_events *e, const size_t *which, size_t n, bool challenger) {
  const front *f = t->f;
  job *j = calloc(1, sizeof *j);
  slot *s = NULL;
  if (j != NULL) {
    *j = (job){.mask = EV_NONE, .challenger = challenger, .end_ns = UINT64_MAX};
    s = dispatch_begin(t, j);
  }
  if (s == NULL) {
    free(j);
    if (atomic_fetch_add(&t->n.unlearned, n) == 0) ev_log(EV_LOG_WARN, "agents did not learn of some events: they came too fast");
    return;
  }
  s->kind = ASK_LEARN;
  s->n_lessons = (uint32_t)n;
  for (size_t i = 0; i < n; i++) {
    const ev_event *v = &e->events[which[i]];
    ev_lesson *l = &s->lessons[i];
    *l = (ev_lesson){ev_snapshot_find_user(f->snapshot, v->user, strlen(v->user)), e->items[which[i]], v->value, (double)v->time_ms / 1000, ""};
    snprintf(l->type, sizeof l->type, "%s", v->type);
  }
  dispatch_send(t, j);
}

void lessons_send(http_thread *t, const parsed_events *e) {
  size_t which[SLOT_LESSONS], n;
  if (atomic_load(&t->f->b->champion) == 0) return;
  for (int challenger = 0; challenger < 2; challenger++) {
    n = 0;
    for (size_t i = 0; i < e->n; i++) {
      if (in_share(t->f, e->events[i].user) != (challenger == 1)) continue;
      which[n++] = i;
      if (n == SLOT_LESSONS) {
        lesson(t, e, which, n, challenger == 1);
        n = 0;
      }
    }
    if (n > 0) lesson(t, e, which, n, challenger == 1);
  }
}

/* ---- Routes --------------------------------------------------------------------------------------------*/
static bool flag(const call *c, const char *name) {
  const char *text = call_arg(c, name);
  return text != NULL && strcmp(text, "0") != 0 && strcmp(text, "false") != 0;
}

static bool read_n(call *c, size_t *n) {
  const char *text = call_arg(c, "n");
  int64_t x = N_DEFAULT;
  if (text != NULL && (!ev_parse_i64(text, strlen(text), &x) || x < 1 || x > SLATE_MAX)) {
    call_error(c, 400, "n must be a whole number from 1 to %d", SLATE_MAX);
    return false;
  }
  *n = (size_t)x;
  return true;
}

static bool user_fits(call *c, const char *user, size_t len) {
  if (len > 0 && len <= USER_MAX && ev_utf8_invalid(user, len) == len && strlen(user) == len) return true;
  call_error(c, 400, "the user must be 1 to %d bytes of UTF-8", USER_MAX);
  return false;
}

static bool exclude(call *c, wanted *w, const char *id, size_t len, size_t most) {
  uint32_t item = catalog_find(call_front(c)->catalog, id, len);
  if (w->excluded == NULL) w->excluded = malloc(most * sizeof *w->excluded);
  if (w->excluded == NULL || w->n_excluded >= most) {
    call_error(c, w->excluded == NULL ? 500 : 400, "at most %d items can be excluded", EXCLUDED_MAX);
    return false;
  }
  if (item != EV_NONE) w->excluded[w->n_excluded++] = item; /* one that is not there does not come */
  return true;
}

static bool query(call *c, wanted *w) {
  const char *where = call_arg(c, "where"), *list = call_arg(c, "exclude");
  if (!read_n(c, &w->n)) return false;
  w->again = flag(c, "seen");
  w->explain = flag(c, "explain");
  if (where != NULL) w->where = strdup(where);
  while (list != NULL && *list != '\0') {
    size_t n = strcspn(list, ",");
    if (n > 0 && !exclude(c, w, list, n, EXCLUDED_MAX)) return false;
    list += n + (list[n] == ',');
  }
  return true;
}

static void drop(wanted *w) {
  free(w->where);
  free(w->excluded);
}

static void begin(wanted *w) {
  memset(w, 0, offsetof(wanted, recent));
  w->n = N_DEFAULT;
}

static void for_user(call *c) {
  wanted w;
  begin(&w);
  if (!user_fits(c, c->rest, strlen(c->rest))) return;
  snprintf(w.user, sizeof w.user, "%s", c->rest);
  if (query(c, &w)) recommend(c, &w);
  else drop(&w);
}

static void similar(call *c) {
  wanted w;
  begin(&w);
  uint32_t item = catalog_find(call_front(c)->catalog, c->rest, strlen(c->rest));
  if (item == EV_NONE) {
    call_error(c, 404, "no item '%.60s'", c->rest);
    return;
  }
  w.recent[0] = item;
  w.n_recent = 1;
  if (query(c, &w)) recommend(c, &w);
  else drop(&w);
}

static bool read_items(call *c, const json_t *list, const char *key, wanted *w, bool recent) {
  if (list == NULL) return true;
  if (!json_is_array(list) || json_array_size(list) > (recent ? HISTORY_MAX : EXCLUDED_MAX)) {
    call_error(c, 400, "%s must be a list of at most %d items' ids", key, recent ? HISTORY_MAX : EXCLUDED_MAX);
    return false;
  }
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *v = json_array_get(list, i);
    if (!json_is_string(v)) {
      call_error(c, 400, "%s: place %zu is no text", key, i);
      return false;
    }
    if (recent) {
      uint32_t item = catalog_find(call_front(c)->catalog, json_string_value(v), json_string_length(v));
      if (item != EV_NONE) w->recent[w->n_recent++] = item;
    } else if (!exclude(c, w, json_string_value(v), json_string_length(v), EXCLUDED_MAX)) {
      return false;
    }
  }
  return true;
}

static bool read_body(call *c, const json_t *o, wanted *w) {
  static const char *const known[] = {"user", "recent", "n", "where", "exclude", "seen", "explain"};
  const char *key;
  json_t *v;
  if (!json_is_object(o)) {
    call_error(c, 400, "the body must be an object");
    return false;
  }
  json_object_foreach((json_t *)(uintptr_t)o, key, v) {
    bool fine = false;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) fine = fine || strcmp(key, known[k]) == 0;
    if (!fine) {
      call_error(c, 400, "no field '%.40s'; user, recent, n, where, exclude, seen and explain are known", key);
      return false;
    }
  }
  const json_t *user = json_object_get(o, "user"), *n = json_object_get(o, "n"), *where = json_object_get(o, "where");
  const json_t *again = json_object_get(o, "seen"), *explain = json_object_get(o, "explain");
  if (user != NULL) {
    if (!user_fits(c, json_is_string(user) ? json_string_value(user) : "", json_string_length(user))) return false;
    snprintf(w->user, sizeof w->user, "%s", json_string_value(user));
  }
  if (n != NULL && (!json_is_integer(n) || json_integer_value(n) < 1 || json_integer_value(n) > SLATE_MAX)) {
    call_error(c, 400, "n must be a whole number from 1 to %d", SLATE_MAX);
    return false;
  }
  if ((where != NULL && !json_is_string(where)) || (again != NULL && !json_is_boolean(again)) || (explain != NULL && !json_is_boolean(explain))) {
    call_error(c, 400, "where must be text, seen and explain true or false");
    return false;
  }
  if (n != NULL) w->n = (size_t)json_integer_value(n);
  if (where != NULL) w->where = strdup(json_string_value(where));
  w->again = json_is_true(again);
  w->explain = json_is_true(explain);
  return read_items(c, json_object_get(o, "recent"), "recent", w, true) && read_items(c, json_object_get(o, "exclude"), "exclude", w, false);
}

static void for_session(call *c) {
  wanted w;
  begin(&w);
  json_t *o = call_body(c);
  if (o == NULL) return;
  bool fine = read_body(c, o, &w);
  json_decref(o);
  if (fine) recommend(c, &w);
  else drop(&w);
}

const route recommend_routes[] = {
    {"GET", "/recommend/", ROLE_READ, for_user, false},
    {"POST", "/recommend", ROLE_READ, for_session, false},
    {"GET", "/similar/", ROLE_READ, similar, false},
    {NULL, NULL, ROLE_NONE, NULL, false},
};
