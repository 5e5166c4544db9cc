/* ledger_writer.c - one thread that writes for many: a bounded queue, and commits that serve all who wait (group commit).
 *
 * While a commit waits for the disk, batches gather in the queue; the next commit takes them all, so that the price of a sync
 * is shared by whoever came in the meantime and nobody waits on purpose. Only rows that nobody waits for linger for company.
 * A caller who finds nobody at work commits himself, which spares two changes of threads.
 * A job is a batch with what becomes of it: on its caller's stack when that one waits, else a copy on the heap. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ledger.h"

#define IDLE_MS 250  /* without a commit, before rows are folded into the totals: a busy time's are folded together */
#define RETRY_MS 200 /* after a failed commit, for batches that nobody waits for */

typedef struct job {
  ev_ledger_batch batch;
  size_t rows;
  struct job *next;
  bool waits;               /* for its caller, which is inside submit or flush */
  ev_ledger_done_fn *done;  /* of a posted one */
  void *ctx;
  uint64_t since_ns;
  /* What became of it. */
  bool ended;
  ev_status status;
  ev_ledger_receipt receipt;
  char error[512];
} job;

struct ev_ledger_writer {
  ev_ledger *ledger;
  ev_ledger_writer_options o;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t work, room, ended; /* for the thread; for who wants to queue; for who waits */
  job *first, **end;                /* the queue, and … */
  size_t rows;                      /* … its rows */
  bool busy;                        /* somebody commits: the ledger is his */
  bool closing;
  uint64_t lost_rows;
  ev_ledger_writer_stats stats;
  ev_status failed;                 /* of batches that nobody waited for: wrong ones since the last flush, and those not through yet */
  char why[512];
};

static const ev_ledger_writer_options defaults = {.queue_rows = 65536, .commit_rows = 8192, .linger_ms = 20, .busy_ms = 5000};

void ev_ledger_writer_defaults(ev_ledger_writer_options *o) { *o = defaults; }

static size_t rows_of(const ev_ledger_batch *b) {
  size_t n = b->n_events + b->n_impressions;
  for (size_t i = 0; i < b->n_impressions; i++) n += b->impressions[i].n_items;
  return n > 0 ? n : 1;
}

/* ---- Commits, in the thread ------------------------------------------------------------------------------*/
static void end_with(job *j, ev_status status) {
  j->status = status;
  j->error[0] = '\0';
  if (status == EV_OK) return;
  snprintf(j->error, sizeof j->error, "%s", ev_error());
  j->receipt = (ev_ledger_receipt){0};
}

/* The list in one transaction. A batch out of range fails alone; anything else is the status of all. *begun: it was not the lock. */
static ev_status commit_list(ev_ledger *l, job *list, bool *begun) {
  ev_status status = ledger_begin(l);
  *begun = status == EV_OK;
  for (job *j = list; j != NULL && status == EV_OK; j = j->next) {
    ev_status own = ledger_apply(l, &j->batch, &j->receipt);
    if (own == EV_OK || own == EV_EINVAL) end_with(j, own);
    else status = own;
  }
  if (status == EV_OK) return ev_ledger_commit(l);
  ledger_rollback(l);
  return status;
}

static void commit_group(ev_ledger_writer *w, job *list, uint64_t *failures) {
  bool begun;
  ev_status status = commit_list(w->ledger, list, &begun);
  if (status == EV_OK) return;
  ++*failures;
  if (list->next == NULL || !begun) { /* waiting for the lock once more for each would help nobody */
    for (job *j = list; j != NULL; j = j->next) end_with(j, status);
    return;
  }
  for (job *j = list; j != NULL; j = j->next) { /* each for itself */
    job *next = j->next;
    j->next = NULL;
    status = commit_list(w->ledger, j, &begun);
    j->next = next;
    if (status == EV_OK) continue;
    end_with(j, status);
    ++*failures;
  }
}

/* ---- The queue -----------------------------------------------------------------------------------------*/
static struct timespec in_ms(uint64_t ms) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += (time_t)(ms / 1000);
  t.tv_nsec += (long)(ms % 1000) * 1000000;
  if (t.tv_nsec >= 1000000000) {
    t.tv_nsec -= 1000000000;
    t.tv_sec++;
  }
  return t;
}

static void append(ev_ledger_writer *w, job *j) {
  j->next = NULL;
  j->since_ns = ev_now_ns();
  *w->end = j;
  w->end = &j->next;
  w->rows += j->rows;
}

static job *take(ev_ledger_writer *w) { /* as many as one commit takes */
  job *list = w->first, *last = list;
  size_t rows = list->rows;
  while (last->next != NULL && rows + last->next->rows <= w->o.commit_rows) {
    last = last->next;
    rows += last->rows;
  }
  w->first = last->next;
  if (w->first == NULL) w->end = &w->first;
  w->rows -= rows;
  last->next = NULL;
  return list;
}

static bool urgent(const ev_ledger_writer *w) {
  if (w->closing || w->rows >= w->o.commit_rows) return true;
  for (const job *j = w->first; j != NULL; j = j->next)
    if (j->waits || j->done != NULL) return true;
  return false;
}

static void put_back(ev_ledger_writer *w, job *j) {
  j->next = w->first;
  if (w->first == NULL) w->end = &j->next;
  w->first = j;
  w->rows += j->rows;
}

/* Tells everybody; what nobody waited for and the disk refused goes back to the head of the queue. → it did */
static bool deliver(ev_ledger_writer *w, job *list) {
  job *again = NULL;
  for (job *j = list, *next; j != NULL; j = next) {
    next = j->next;
    if (j->status == EV_OK) {
      w->stats.batches++;
      w->stats.rows += j->rows;
    } else {
      snprintf(w->stats.error, sizeof w->stats.error, "%s", j->error);
    }
    if (j->waits) {
      j->ended = true; /* from here on it is its caller's */
      continue;
    }
    if (j->done != NULL) {
      pthread_mutex_unlock(&w->lock);
      j->done(j->ctx, j->status, j->error, &j->receipt);
      pthread_mutex_lock(&w->lock);
    } else if (j->status != EV_OK) {
      if (w->failed != EV_EINVAL) {
        w->failed = j->status;
        snprintf(w->why, sizeof w->why, "%s", j->error);
      }
      if (j->status == EV_EINVAL) w->stats.refused++;
      else if (w->closing) w->lost_rows += j->rows;
      else {
        j->next = again;
        again = j;
        continue;
      }
    }
    ev_free(j);
  }
  bool any = again != NULL;
  if (!any && w->failed != EV_EINVAL) w->failed = EV_OK; /* what failed before is through */
  for (job *next; again != NULL; again = next) { /* reversed twice: in their order */
    next = again->next;
    put_back(w, again);
  }
  pthread_cond_broadcast(&w->ended);
  pthread_cond_broadcast(&w->room);
  return any;
}

/* Commits the head of the queue; the lock is let go meanwhile. → some of it is to be tried again */
static bool commit_head(ev_ledger_writer *w) {
  job *list = take(w);
  uint64_t failures = 0;
  w->busy = true;
  pthread_mutex_unlock(&w->lock);
  commit_group(w, list, &failures);
  pthread_mutex_lock(&w->lock);
  w->stats.commits++;
  w->stats.failures += failures;
  bool again = deliver(w, list);
  w->busy = false;
  return again;
}

static void *work(void *arg) {
  ev_ledger_writer *w = arg;
  bool retry = false;
  pthread_mutex_lock(&w->lock);
  for (;;) {
    struct timespec until = in_ms(retry ? RETRY_MS : w->first == NULL ? IDLE_MS : w->o.linger_ms);
    uint64_t commits = w->stats.commits;
    while (w->busy || (!w->closing && (w->first == NULL || retry || !urgent(w)))) {
      if (w->busy || (w->first == NULL && !ev_ledger_unsettled(w->ledger))) {
        pthread_cond_wait(&w->work, &w->lock);
        if (!retry) until = in_ms(w->first == NULL ? IDLE_MS : w->o.linger_ms);
        continue;
      }
      bool empty = w->first == NULL;
      if (pthread_cond_timedwait(&w->work, &w->lock, &until) == ETIMEDOUT && !w->busy) {
        if (w->first != NULL || commits == w->stats.commits) break;
        commits = w->stats.commits; /* somebody has been at work: not idle */
        until = in_ms(IDLE_MS);
      } else if (empty && w->first != NULL) {
        until = in_ms(w->o.linger_ms);
      }
    }
    if (w->first == NULL && w->closing) break;
    retry = false;
    if (w->first != NULL) {
      retry = commit_head(w);
      continue;
    }
    w->busy = true;
    pthread_mutex_unlock(&w->lock);
    ev_ledger_settle(w->ledger); /* a failure is no loss: the rows are outside the totals until the next time */
    pthread_mutex_lock(&w->lock);
    w->busy = false;
  }
  pthread_mutex_unlock(&w->lock);
  ev_ledger_settle(w->ledger);
  return NULL;
}

/* ---- Callers -------------------------------------------------------------------------------------------*/
static bool has_room(const ev_ledger_writer *w, size_t rows) { return w->first == NULL || w->rows + rows <= w->o.queue_rows; }

static ev_status wait_for(ev_ledger_writer *w, job *j) {
  pthread_cond_signal(&w->work);
  while (!j->ended) pthread_cond_wait(&w->ended, &w->lock);
  return j->status;
}

ev_status ev_ledger_submit(ev_ledger_writer *w, const ev_ledger_batch *b, ev_ledger_receipt *out) {
  job j = {.batch = *b, .rows = rows_of(b), .waits = true};
  *out = (ev_ledger_receipt){0};
  EV_TRY(ledger_check_batch(b));
  pthread_mutex_lock(&w->lock);
  while (!has_room(w, j.rows)) pthread_cond_wait(&w->room, &w->lock);
  bool alone = w->first == NULL && !w->busy;
  append(w, &j);
  if (alone) commit_head(w); /* a batch that is waited for is never to be tried again */
  ev_status status = wait_for(w, &j);
  pthread_mutex_unlock(&w->lock);
  *out = j.receipt;
  return status == EV_OK ? EV_OK : ev_fail(status, "%s", j.error);
}

/* Everything of the batch behind the job, in one block. */
typedef struct block {
  char *at; /* NULL: only measuring */
  size_t used;
} block;

static void *put_bytes(block *b, const void *data, size_t n, size_t align) {
  b->used = (b->used + align - 1) / align * align;
  void *to = b->at != NULL ? b->at + b->used : NULL;
  if (to != NULL && n > 0) memcpy(to, data, n);
  b->used += n;
  return to;
}

static const char *put_text(block *b, const char *s) { return s != NULL ? put_bytes(b, s, strlen(s) + 1, 1) : NULL; }

static void copy_batch(block *to, const ev_ledger_batch *b, ev_ledger_batch *out) {
  ev_impression *impressions = put_bytes(to, b->impressions, b->n_impressions * sizeof *impressions, 16);
  ev_event *events = put_bytes(to, b->events, b->n_events * sizeof *events, 16);
  for (size_t i = 0; i < b->n_impressions; i++) {
    const ev_impression *from = &b->impressions[i];
    ev_shown *items = put_bytes(to, from->items, from->n_items * sizeof *items, 16);
    ev_impression copy = {put_text(to, from->id), put_text(to, from->user), put_text(to, from->version), from->propensity, from->time_ms, items, from->n_items};
    for (size_t k = 0; k < from->n_items; k++) {
      const char *item = put_text(to, from->items[k].item), *agent = put_text(to, from->items[k].agent);
      if (items == NULL) continue;
      items[k].item = item;
      items[k].agent = agent;
    }
    if (impressions != NULL) impressions[i] = copy;
  }
  for (size_t i = 0; i < b->n_events; i++) {
    const ev_event *from = &b->events[i];
    ev_event copy = {put_text(to, from->id),   put_text(to, from->user),    put_text(to, from->item),      put_text(to, from->type), from->value,
                     from->time_ms,            put_text(to, from->version), put_text(to, from->impression)};
    if (events != NULL) events[i] = copy;
  }
  *out = (ev_ledger_batch){impressions, b->n_impressions, events, b->n_events};
}

ev_status ev_ledger_post(ev_ledger_writer *w, const ev_ledger_batch *b, ev_ledger_done_fn *done, void *ctx) {
  block measure = {0};
  ev_ledger_batch copy;
  EV_TRY(ledger_check_batch(b));
  copy_batch(&measure, b, &copy);
  size_t head = (sizeof(job) + 15) / 16 * 16;
  job *j = ev_alloc(head + measure.used, 1);
  if (j == NULL) return EV_ENOMEM;
  *j = (job){.rows = rows_of(b), .done = done, .ctx = ctx};
  block to = {(char *)j + head, 0};
  copy_batch(&to, b, &j->batch);
  pthread_mutex_lock(&w->lock);
  bool room = has_room(w, j->rows) && !w->closing;
  if (room) append(w, j);
  if (room) pthread_cond_signal(&w->work);
  pthread_mutex_unlock(&w->lock);
  if (room) return EV_OK;
  size_t rows = j->rows;
  ev_free(j);
  return ev_fail(EV_ELIMIT, "the ledger's queue is full: %zu rows more than its %zu", rows, w->o.queue_rows);
}

ev_status ev_ledger_flush(ev_ledger_writer *w) {
  job j = {.rows = 0, .waits = true};
  pthread_mutex_lock(&w->lock);
  append(w, &j);
  ev_status status = wait_for(w, &j);
  if (status == EV_OK) status = w->failed;
  else snprintf(w->why, sizeof w->why, "%s", j.error);
  w->failed = EV_OK;
  if (status != EV_OK) ev_fail(status, "%s", w->why);
  pthread_mutex_unlock(&w->lock);
  return status;
}

void ev_ledger_writer_stat(ev_ledger_writer *w, ev_ledger_writer_stats *out) {
  pthread_mutex_lock(&w->lock);
  *out = w->stats;
  out->waiting = w->rows;
  pthread_mutex_unlock(&w->lock);
}

/* ---- Opening and closing -------------------------------------------------------------------------------*/
ev_status ev_ledger_writer_open(ev_ledger_writer **out, const char *path, const ev_ledger_writer_options *o) {
  *out = NULL;
  ev_ledger_writer *w = ev_zalloc(1, sizeof *w);
  if (w == NULL) return EV_ENOMEM;
  w->o = o != NULL ? *o : defaults;
  w->end = &w->first;
  ev_status status = ev_ledger_open(&w->ledger, path);
  if (status != EV_OK) {
    ev_free(w);
    return status;
  }
  sqlite3_busy_timeout(ev_ledger_db(w->ledger), (int)w->o.busy_ms);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->work, &monotonic);
  pthread_cond_init(&w->room, &monotonic);
  pthread_cond_init(&w->ended, &monotonic);
  pthread_condattr_destroy(&monotonic);
  errno = pthread_create(&w->thread, NULL, work, w);
  if (errno == 0) {
    *out = w;
    return EV_OK;
  }
  status = ev_fail_errno("cannot start the ledger's writer");
  ev_ledger_close(w->ledger);
  ev_free(w);
  return status;
}

ev_status ev_ledger_writer_close(ev_ledger_writer *w) {
  if (w == NULL) return EV_OK;
  pthread_mutex_lock(&w->lock);
  w->closing = true;
  pthread_cond_signal(&w->work);
  pthread_mutex_unlock(&w->lock);
  pthread_join(w->thread, NULL);
  ev_status status = w->lost_rows == 0 ? EV_OK : ev_fail(EV_EIO, "%llu rows that waited for the ledger are lost: %s", (unsigned long long)w->lost_rows, w->why);
  pthread_mutex_destroy(&w->lock);
  pthread_cond_destroy(&w->work);
  pthread_cond_destroy(&w->room);
  pthread_cond_destroy(&w->ended);
  ev_ledger_close(w->ledger);
  ev_free(w);
  return status;
}
