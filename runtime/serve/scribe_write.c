/* scribe_write.c - the ledger's writer, a process of its own: gathers what lies in the rings, commits, tells who waits.
 *
 * While one commit waits for the disk the next records gather, and one sync serves them all. Records with a ticket go at once; those
 * that nobody waits for linger for company. A commit that fails is tried record by record, so that none fails for another's sake.
 *
 * Killed anywhere, it is followed by one that goes on. Each commit also writes its number and the scribe's nonce into the ledger
 * (`settings`, 'scribe'), and before that into its records, with what will be told of them. The next writer finds the number of the
 * last commit there is: records with that number are in the file, and what is told of them is true; all others are not. Another
 * service on the same ledger may have overwritten the number meanwhile; then records are written again, where ids make them count
 * once, and are told to be known. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scribe.h"

#define COMMIT_ROWS 8192   /* of one commit, unless one record alone has more; also its records at most */
#define LINGER_MS 20       /* how long rows that nobody waits for may gather */
#define IDLE_MS 250        /* without a commit, before rows are folded into the totals */
#define RETRY_MS 200       /* after a failure, for records that nobody waits for */
#define BUSY_MS 2000       /* a locked ledger is waited for */
#define LOOK_MS 1000       /* a producer killed between the record and the word of it is not waited for longer */
#define HOPELESS 8         /* so many records in a row that fail singly: it is not their fault */

typedef struct entry { /* a record at hand */
  record *x;
  size_t ring;
  ev_status status;      /* of it alone */
} entry;

typedef struct writer {
  scribe *s;
  ev_ledger *l;
  sqlite3_stmt *mark;
  wire wire;
  entry *list;           /* (COMMIT_ROWS), of them n */
  size_t n, rows;
  bool urgent;           /* somebody waits for one of them, or they are as many as go into a commit, or a ring is half full */
  uint64_t *heads, *posted, *at; /* (n_rings) what the rings had when they were looked at; at: how far */
  bool *told;            /* (n_rings) tickets to be rung for */
  char wrong[SCRIBE_ERROR_BYTES]; /* what was said of the last wrong record */
  uint64_t retry_ns;     /* until then only tickets are tried; 0: there is no trouble */
  bool said;             /* that there is trouble */
  uint64_t dropped_ns;   /* until then no word of wrong records */
  uint64_t begun_ns, breath_ns; /* of this commit; when it last let others go first */
} writer;

/* ---- Long commits ------------------------------------------------------------------------------------------
 * Every quarter of a million rows a commit folds them into the totals, which takes a processor for a tenth of a second: long enough
 * for requests to pile up where processors are few. It takes small bites, as long as nobody waits for the commit. */
#define BREATH_OPS 2000      /* of SQLite's machine, between two looks */
#define LONG_NS 5000000      /* a commit as usual is shorter */
#define BITE_NS 300000
#define BITE_MOST_NS 3000000 /* it had no processor itself for the rest */
#define BREATHS 4            /* of a bite's time, given to others after it */

static bool awaited(const scribe *s) {
  for (size_t i = 0; i < s->n_rings; i++)
    if (atomic_load(&s->rings[i].posted) != atomic_load(&s->rings[i].taken)) return true;
  return atomic_load(&s->stopping) != 0;
}

static int breathe(void *ctx) { /* SQLite's progress handler; 0: go on */
  writer *w = ctx;
  uint64_t now = ev_now_ns();
  if (now < w->begun_ns + LONG_NS || now < w->breath_ns + BITE_NS || awaited(w->s)) return 0;
  uint64_t bite = now - w->breath_ns;
  usleep((useconds_t)(BREATHS * (bite < BITE_MOST_NS ? bite : BITE_MOST_NS) / 1000));
  w->breath_ns = ev_now_ns();
  return 0;
}

/* ---- The last failure ----------------------------------------------------------------------------------*/
static void note(scribe *s, const char *error) {
  char text[SCRIBE_ERROR_BYTES] = {0};
  snprintf(text, sizeof text, "%s", error);
  uint64_t turn = atomic_load(&s->error_turn);
  atomic_store(&s->error_turn, turn | 1);
  for (size_t i = 0; i < SCRIBE_ERROR_BYTES / 8; i++) {
    uint64_t word;
    memcpy(&word, text + 8 * i, sizeof word);
    atomic_store(&s->error[i], word);
  }
  atomic_store(&s->error_turn, (turn | 1) + 1);
}

/* ---- Gathering -----------------------------------------------------------------------------------------*/
/* The next record of a ring that is not done with; NULL: none. */
static record *next_record(writer *w, size_t i) {
  scribe *s = w->s;
  while (w->at[i] < w->heads[i]) {
    uint64_t at = w->at[i];
    if (record_check(s, i, at, w->heads[i] - at) != EV_OK) { /* cannot be, but for a stray write: nothing behind it can be told apart */
      note(s, ev_error());
      atomic_fetch_add(&s->dropped, 1);
      w->at[i] = w->heads[i];
      atomic_store(&s->rings[i].done, w->heads[i]);
      return NULL;
    }
    record *x = record_at(s, i, at);
    w->at[i] += x->size;
    if (x->kind != RECORD_FILLER && atomic_load_explicit(&x->state, memory_order_relaxed) != RECORD_DONE) return x;
  }
  return NULL;
}

static bool has_ticket(record *x) { return atomic_load_explicit(&x->ticket, memory_order_relaxed) != 0; }

static void look(writer *w) {
  scribe *s = w->s;
  for (size_t i = 0; i < s->n_rings; i++) {
    w->heads[i] = atomic_load(&s->rings[i].head);
    w->posted[i] = atomic_load(&s->rings[i].posted);
    w->at[i] = atomic_load(&s->rings[i].done);
    if (w->heads[i] - w->at[i] > s->ring_bytes / 2) w->urgent = true;
  }
}

/* From all rings in turn, so that none is starved by another. */
static void gather(writer *w, bool only_tickets) {
  w->n = w->rows = 0;
  w->urgent = false;
  look(w);
  for (bool any = true; any;) {
    any = false;
    for (size_t i = 0; i < w->s->n_rings; i++) {
      record *x = next_record(w, i);
      while (x != NULL && only_tickets && !has_ticket(x)) x = next_record(w, i);
      if (x == NULL) continue;
      if (w->n == COMMIT_ROWS || (w->n > 0 && w->rows + x->rows > COMMIT_ROWS)) {
        w->urgent = true;
        return;
      }
      any = true;
      w->list[w->n].x = x;
      w->list[w->n++].ring = i;
      w->rows += x->rows;
      if (has_ticket(x)) w->urgent = true;
    }
  }
}

/* ---- Done with -----------------------------------------------------------------------------------------*/
/* What the owner of the ticket will read: true only once the state says so, or the commit has been made. */
static void set_outcome(record *x, ev_status status, const char *error, const ev_ledger_receipt *receipt) {
  outcome *o = record_outcome(x);
  if (o == NULL) return;
  o->status = status;
  o->receipt = *receipt;
  snprintf(o->error, sizeof o->error, "%s", error);
}

static void end(writer *w, record *x, size_t i) {
  atomic_store_explicit(&x->state, RECORD_DONE, memory_order_release);
  if (has_ticket(x)) w->told[i] = true;
}

/* done goes on over all that is, and bells ring. */
static void tell(writer *w) {
  scribe *s = w->s;
  for (size_t i = 0; i < s->n_rings; i++) {
    scribe_ring *r = &s->rings[i];
    uint64_t before = atomic_load(&r->done), at = before;
    while (at < w->heads[i]) {
      record *x = record_at(s, i, at);
      if (x->kind != RECORD_FILLER && atomic_load_explicit(&x->state, memory_order_relaxed) != RECORD_DONE) break;
      at += x->size;
    }
    if (at != before) atomic_store(&r->done, at);
    if ((at != before && atomic_load(&r->starved) != 0 && atomic_exchange(&r->starved, 0) != 0) || w->told[i]) bell_ring(r->bell);
    w->told[i] = false;
  }
}

static void written(writer *w, const entry *e, size_t n) {
  scribe *s = w->s;
  for (size_t k = 0; k < n; k++) {
    end(w, e[k].x, e[k].ring);
    if (e[k].status == EV_OK) {
      atomic_fetch_add_explicit(&s->records, 1, memory_order_relaxed);
    } else if (!has_ticket(e[k].x)) {
      note(s, w->wrong);
      atomic_fetch_add(&s->dropped, 1);
      if (ev_now_ns() < w->dropped_ns) continue; /* there may be many of the kind */
      w->dropped_ns = ev_now_ns() + UINT64_C(1000000000);
      ev_log(EV_LOG_ERROR, "rows were not taken by the ledger: %s", w->wrong);
    }
  }
  atomic_fetch_add(&s->commits, 1);
}

/* The disk or a lock refused it: who waits is told so. */
static void refuse(writer *w, record *x, size_t i, ev_status status, const char *error) {
  if (!has_ticket(x)) return;
  set_outcome(x, status, error, &(ev_ledger_receipt){0});
  end(w, x, i);
}

/* ---- Promotions ----------------------------------------------------------------------------------------*/
typedef struct bound { /* a parameter; zeroed: NULL */
  const char *text;
  char type; /* t, i, r */
  int64_t number;
  double real;
} bound;

/* Runs it, and gives the first column of its first row. */
static ev_status run_with(ev_ledger *l, const char *sql, const bound *b, int n, int64_t *out) {
  sqlite3 *db = ev_ledger_db(l);
  sqlite3_stmt *s = NULL;
  int code = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
  for (int i = 0; i < n && code == SQLITE_OK; i++) {
    if (b[i].type == 't' && b[i].text != NULL) code = sqlite3_bind_text(s, i + 1, b[i].text, -1, SQLITE_STATIC);
    else if (b[i].type == 'i') code = sqlite3_bind_int64(s, i + 1, b[i].number);
    else if (b[i].type == 'r') code = sqlite3_bind_double(s, i + 1, b[i].real);
  }
  if (code == SQLITE_OK) code = sqlite3_step(s);
  if (code == SQLITE_ROW && out != NULL) *out = sqlite3_column_int64(s, 0);
  ev_status status = code == SQLITE_ROW || code == SQLITE_DONE ? EV_OK : ev_fail(EV_EIO, "a promotion cannot be written: %s", sqlite3_errmsg(db));
  sqlite3_finalize(s);
  return status;
}

static ev_status number_of_version(ev_ledger *l, const char *version, int64_t at_ms, bound *out) {
  const bound b[] = {{.type = 't', .text = version}, {.type = 'i', .number = at_ms}};
  *out = (bound){0};
  if (version == NULL) return EV_OK;
  EV_TRY(run_with(l, "INSERT INTO versions (version, made_ms_wall) VALUES (?, ?) ON CONFLICT (version) DO NOTHING", b, 2, NULL));
  out->type = 'i';
  return run_with(l, "SELECT number FROM versions WHERE version = ?", b, 1, &out->number);
}

static ev_status put_promotion(ev_ledger *l, const wire_promotion *w) {
  const promotion *p = &w->p;
  const bound at = {.type = 'i', .number = w->at_ms}, nothing = {0}, share = {.type = 'r', .real = p->share}, action = {.type = 't', .text = p->action},
              reason = {.type = 't', .text = p->reason}, evidence = {.type = 't', .text = p->evidence};
  bound version, against;
  EV_TRY(number_of_version(l, p->version, w->at_ms, &version));
  EV_TRY(number_of_version(l, p->against, w->at_ms, &against));
  if (p->ends_canary) EV_TRY(run_with(l, "UPDATE promotions SET until_ms = ? WHERE version = ? AND action = 'canary' AND until_ms IS NULL", (const bound[]){at, version}, 2, NULL));
  return run_with(l, "INSERT INTO promotions (version, against, action, share, reason, evidence, from_ms, at_ms_wall) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8"
                     " WHERE NOT EXISTS (SELECT 1 FROM promotions WHERE version = ?1 AND action = ?3 AND reason = ?5 AND at_ms_wall = ?8)",
                  (const bound[]){version, against, action, isnan(p->share) ? nothing : share, reason, evidence, strcmp(p->action, "canary") == 0 ? at : nothing, at}, 8, NULL);
}

/* ---- Commits -------------------------------------------------------------------------------------------*/
/* One record into the transaction. *wrong: it is, and nothing of it was written. */
static ev_status write_record(writer *w, record *x, ev_ledger_receipt *receipt, bool *wrong) {
  ev_ledger_batch batch;
  wire_promotion p;
  *receipt = (ev_ledger_receipt){0};
  *wrong = true;
  if (x->kind == RECORD_PROMOTION) {
    EV_TRY(wire_read_promotion(record_payload(x), x->bytes, &p));
    if (p.p.version == NULL || p.p.action == NULL || p.p.reason == NULL) return ev_fail(EV_EINVAL, "a promotion lacks its version, action or reason");
    *wrong = false;
    return put_promotion(w->l, &p);
  }
  ev_status status = wire_read_batch(&w->wire, record_payload(x), x->bytes, &batch);
  *wrong = status == EV_ECORRUPT;
  if (status == EV_OK) {
    status = ev_ledger_add(w->l, &batch, receipt);
    *wrong = status == EV_EINVAL;
  }
  return status;
}

static ev_status mark(writer *w, uint64_t serial) {
  char text[48];
  snprintf(text, sizeof text, "%016" PRIx64 " %" PRIu64, w->s->nonce, serial);
  sqlite3_bind_text(w->mark, 1, text, -1, SQLITE_STATIC);
  int code = sqlite3_step(w->mark);
  sqlite3_reset(w->mark);
  sqlite3_clear_bindings(w->mark);
  return code == SQLITE_DONE ? EV_OK : ev_fail(EV_EIO, "the ledger: %s", sqlite3_errmsg(ev_ledger_db(w->l)));
}

/* The records in one transaction. A wrong one fails alone; anything else is the status of all. *begun: it was not the lock. */
static ev_status commit(writer *w, entry *list, size_t n, bool *begun) {
  uint64_t serial = atomic_fetch_add(&w->s->serial, 1) + 1;
  w->begun_ns = w->breath_ns = ev_now_ns();
  ev_status status = ev_ledger_begin(w->l);
  *begun = status == EV_OK;
  for (entry *e = list; e < list + n && status == EV_OK; e++) {
    ev_ledger_receipt receipt;
    bool wrong;
    e->status = EV_OK;
    if (atomic_load_explicit(&e->x->state, memory_order_relaxed) == RECORD_WRITTEN) continue; /* it only has to come to the disk */
    ev_status own = write_record(w, e->x, &receipt, &wrong);
    if (own != EV_OK && !wrong) {
      status = own;
      break;
    }
    e->status = own;
    if (own != EV_OK) snprintf(w->wrong, sizeof w->wrong, "%s", ev_error());
    set_outcome(e->x, own, own == EV_OK ? "" : w->wrong, &receipt);
    e->x->serial = serial;
  }
  if (!*begun) return status;
  if (status == EV_OK) status = mark(w, serial);
  if (status == EV_OK) return ev_ledger_commit(w->l);
  ev_ledger_rollback(w->l);
  return status;
}

/* Of all records that lay in the rings when they were looked at. */
static void refuse_all(writer *w, ev_status status, const char *error) {
  for (size_t i = 0; i < w->s->n_rings; i++) {
    w->at[i] = atomic_load(&w->s->rings[i].done);
    for (record *x; (x = next_record(w, i)) != NULL;) refuse(w, x, i, status, error);
  }
}

/* Each for itself. */
static void commit_singly(writer *w) {
  char error[SCRIBE_ERROR_BYTES];
  size_t failed = 0;
  for (size_t k = 0; k < w->n; k++) {
    entry *e = &w->list[k];
    bool begun;
    if (failed >= HOPELESS && !has_ticket(e->x)) continue;
    ev_status status = commit(w, e, 1, &begun);
    if (status == EV_OK) {
      written(w, e, 1);
      failed = 0;
      continue;
    }
    failed++;
    snprintf(error, sizeof error, "%s", ev_error());
    note(w->s, error);
    atomic_fetch_add(&w->s->failures, 1);
    if (!begun) {
      refuse_all(w, status, error);
      return;
    }
    refuse(w, e->x, e->ring, status, error);
  }
}

static void commit_list(writer *w) {
  bool begun;
  char error[SCRIBE_ERROR_BYTES] = "";
  ev_status status = commit(w, w->list, w->n, &begun);
  w->retry_ns = 0;
  if (status == EV_OK) {
    written(w, w->list, w->n);
  } else {
    snprintf(error, sizeof error, "%s", ev_error());
    note(w->s, error);
    atomic_fetch_add(&w->s->failures, 1);
    if (!begun) refuse_all(w, status, error); /* waiting for the lock once more for each would help nobody */
    else if (w->n == 1) refuse(w, w->list[0].x, w->list[0].ring, status, error);
    else commit_singly(w);
    w->retry_ns = ev_now_ns() + RETRY_MS * UINT64_C(1000000);
  }
  tell(w);
  if (w->said == (w->retry_ns != 0)) return;
  w->said = w->retry_ns != 0;
  if (w->said) ev_log(EV_LOG_ERROR, "the ledger cannot be written, what nobody waits for is tried again: %s", error);
  else ev_log(EV_LOG_INFO, "the ledger is written again");
}

/* ---- Going on ------------------------------------------------------------------------------------------*/
static ev_status last_commit(writer *w, uint64_t *serial) {
  sqlite3_stmt *s = NULL;
  sqlite3 *db = ev_ledger_db(w->l);
  uint64_t nonce, found;
  *serial = 0;
  int code = sqlite3_prepare_v2(db, "SELECT value FROM settings WHERE name = 'scribe'", -1, &s, NULL);
  if (code == SQLITE_OK) code = sqlite3_step(s);
  if (code == SQLITE_ROW) {
    const char *text = (const char *)sqlite3_column_text(s, 0);
    if (text != NULL && sscanf(text, "%" SCNx64 " %" SCNu64, &nonce, &found) == 2 && nonce == w->s->nonce) *serial = found;
  }
  ev_status status = code == SQLITE_ROW || code == SQLITE_DONE ? EV_OK : ev_fail(EV_EIO, "the ledger: %s", sqlite3_errmsg(db));
  sqlite3_finalize(s);
  return status;
}

/* Records of the last commit that a writer made and could not tell of. They are told with the next one: its sync is theirs. */
static ev_status recover(writer *w) {
  uint64_t serial;
  EV_TRY(last_commit(w, &serial));
  look(w);
  for (size_t i = 0; i < w->s->n_rings && serial != 0; i++)
    for (record *x; (x = next_record(w, i)) != NULL;)
      if (x->serial == serial) atomic_store(&x->state, RECORD_WRITTEN);
  tell(w); /* what was done with, and not passed yet */
  for (size_t i = 0; i < w->s->n_rings; i++) bell_ring(w->s->rings[i].bell);
  return EV_OK;
}

/* ---- The process ---------------------------------------------------------------------------------------*/
static void rest(writer *w, uint32_t mode, int64_t ms, bool stopping) {
  scribe *s = w->s;
  atomic_store(&s->mode, mode); /* before the heads are looked at: who posts looks at the mode after he did */
  bool stays = stopping || atomic_load(&s->stopping) == 0;
  for (size_t i = 0; i < s->n_rings && stays; i++) {
    uint64_t head = atomic_load(&s->rings[i].head);
    if (mode == SLEEPS) stays = head == w->heads[i];
    else if (mode == LINGERS && head - atomic_load(&s->rings[i].done) > s->ring_bytes / 2) stays = false;
    if (atomic_load(&s->rings[i].posted) != w->posted[i]) stays = false;
  }
  if (stays) scribe_futex_wait(&s->mode, mode, ms);
  atomic_store(&s->mode, AWAKE);
}

static int64_t ms_until(uint64_t ns, uint64_t now) { return ns > now ? (int64_t)((ns - now + 999999) / 1000000) : 0; }

static ev_status work(writer *w) {
  uint64_t since_ns = 0, stop_ns = 0, busy_ns = ev_now_ns();
  for (;;) {
    bool stopping = atomic_load(&w->s->stopping) != 0;
    uint64_t now = ev_now_ns();
    bool trouble = now < w->retry_ns;
    if (stopping && stop_ns == 0) stop_ns = now + SCRIBE_LAST_MS * UINT64_C(1000000);
    gather(w, trouble);
    if (w->n == 0) {
      since_ns = 0;
      if (stopping && (!trouble || now >= stop_ns)) break;
      if (trouble) {
        rest(w, IN_TROUBLE, ms_until(w->retry_ns, now), stopping);
        continue;
      }
      bool unsettled = ev_ledger_unsettled(w->l);
      if (unsettled && now - busy_ns >= IDLE_MS * UINT64_C(1000000)) {
        ev_ledger_settle(w->l); /* a failure is no loss: the rows are outside the totals until the next time */
        busy_ns = ev_now_ns();
        continue;
      }
      rest(w, SLEEPS, unsettled ? IDLE_MS : LOOK_MS, false);
      continue;
    }
    if (!w->urgent && !stopping) {
      if (since_ns == 0) since_ns = now;
      if (now < since_ns + LINGER_MS * UINT64_C(1000000)) {
        rest(w, LINGERS, ms_until(since_ns + LINGER_MS * UINT64_C(1000000), now), false);
        continue;
      }
    }
    since_ns = 0;
    commit_list(w);
    busy_ns = ev_now_ns();
    if (stopping && busy_ns >= stop_ns) break;
  }
  scribe_stats st;
  size_t lost = 0;
  look(w);
  tell(w); /* fillers at the end */
  for (size_t i = 0; i < w->s->n_rings; i++) lost += (size_t)(w->heads[i] - atomic_load(&w->s->rings[i].done));
  scribe_stat(w->s, &st);
  return lost == 0 ? EV_OK : ev_fail(EV_EIO, "%zu bytes of records that waited for the ledger are lost: %s", lost, st.error);
}

ev_status scribe_run(scribe *s, const char *ledger_path) {
  writer w = {.s = s};
  atomic_store(&s->mode, AWAKE);
  w.list = ev_alloc(COMMIT_ROWS, sizeof *w.list);
  w.heads = ev_zalloc(s->n_rings, sizeof *w.heads);
  w.posted = ev_zalloc(s->n_rings, sizeof *w.posted);
  w.at = ev_zalloc(s->n_rings, sizeof *w.at);
  w.told = ev_zalloc(s->n_rings, sizeof *w.told);
  ev_status status = w.list != NULL && w.heads != NULL && w.posted != NULL && w.at != NULL && w.told != NULL ? EV_OK : EV_ENOMEM;
  if (status == EV_OK) status = ev_ledger_open(&w.l, ledger_path);
  if (status == EV_OK) {
    sqlite3_busy_timeout(ev_ledger_db(w.l), BUSY_MS);
    sqlite3_progress_handler(ev_ledger_db(w.l), BREATH_OPS, breathe, &w);
    static const char sql[] = "INSERT INTO settings VALUES ('scribe', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    if (sqlite3_prepare_v3(ev_ledger_db(w.l), sql, -1, SQLITE_PREPARE_PERSISTENT, &w.mark, NULL) != SQLITE_OK)
      status = ev_fail(EV_EIO, "the ledger: %s", sqlite3_errmsg(ev_ledger_db(w.l)));
  }
  if (status == EV_OK) status = recover(&w);
  if (status == EV_OK) status = work(&w);
  if (status == EV_OK) ev_ledger_settle(w.l);
  sqlite3_finalize(w.mark);
  ev_ledger_close(w.l);
  wire_free(&w.wire);
  ev_free(w.list);
  ev_free(w.heads);
  ev_free(w.posted);
  ev_free(w.at);
  ev_free(w.told);
  return status;
}
