/* items.c - the live table as a whole: opening and closing, writing calls, group commit.
 *
 * A writing call is encoded and checked by its own thread and put into a queue. If nobody leads, the thread leads: it takes all
 * that wait, applies them, writes them with one write and one sync, shows them and wakes their threads; calls that came meanwhile
 * are the next group, led by one of theirs. So one thread commits at the pace of the disk, and many share each sync.
 *
 * Opening takes the newest snapshot and every log from its generation on. Nothing in the folder is changed before all of it has
 * been read and found right. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "items.h"

#define COMPACT_BYTES ((size_t)64 << 20)
#define GROUP_CALLS 1024
#define GROUP_BYTES ((size_t)16 << 20)
#define REPLAY_PENDING 8192 /* vectors that enter the index together */
#define WORK_OFF 256        /* rows taken out of the index after a commit, at most: it takes as long as putting them in */

void ev_items_defaults(ev_items_options *o) {
  *o = (ev_items_options){0};
  ev_index_defaults(&o->index);
}

/* ---- Group commit ---------------------------------------------------------------------------------------*/
static void finish(items_waiting *w, ev_status status) {
  w->status = status;
  if (status != EV_OK) snprintf(w->message, sizeof w->message, "%s", ev_error());
}

/* Applies what can be, writes and syncs it, shows it. Leading, without the lock. */
static void commit(ev_items *t, items_waiting *first) {
  items_waiting *good[GROUP_CALLS];
  ev_buf *bufs[GROUP_CALLS];
  size_t n = 0;
  bool usable = true;
  if (t->broken[0] != '\0') {
    for (items_waiting *w = first; w != NULL; w = w->next) {
      ev_fail(EV_EIO, "%s: nothing can be written until it is opened again: %s", t->folder, t->broken);
      finish(w, EV_EIO);
    }
    return;
  }
  for (items_waiting *w = first; w != NULL; w = w->next) {
    finish(w, items_apply(&t->table, w->buf.data + ITEMS_RECORD_HEAD, w->buf.len - ITEMS_RECORD_HEAD, t->n_seq + 1 + n));
    if (w->status == EV_OK) bufs[n] = &w->buf, good[n++] = w;
  }
  if (n == 0) return;
  ev_status status = items_settle(&t->table);
  if (status == EV_OK) status = items_log_append(&t->log, bufs, n, t->n_seq + 1, &usable);
  if (!usable) snprintf(t->broken, sizeof t->broken, "%s", ev_error());
  if (status != EV_OK) {
    items_take_back(&t->table);
    for (size_t i = 0; i < n; i++) finish(good[i], status);
    return;
  }
  t->n_seq += n;
  items_show(&t->table, t->n_seq);
  atomic_store_explicit(&t->log_bytes, t->log.end, memory_order_relaxed);
  atomic_fetch_add_explicit(&t->n_commits, n, memory_order_relaxed);
  atomic_fetch_add_explicit(&t->n_syncs, 1, memory_order_relaxed);
}

/* With the lock held: takes the first group off the queue. Something to be done alone is a group of its own. */
static items_waiting *next_group(ev_items *t) {
  items_waiting *first = t->first, *last = first;
  size_t n = 1, bytes = first->buf.len;
  while (first->alone == NULL && last->next != NULL && last->next->alone == NULL && n < GROUP_CALLS && bytes < GROUP_BYTES) {
    last = last->next;
    n++;
    bytes += last->buf.len;
  }
  t->first = last->next;
  if (t->first == NULL) t->last = NULL;
  last->next = NULL;
  return first;
}

static void *compact_behind(void *arg);

/* With the lock held. A thread that has ended is joined when the next one starts, or at closing. */
static void compact_if_long(ev_items *t) {
  uint64_t bytes = atomic_load(&t->log_bytes) + atomic_load(&t->older_log_bytes);
  if (t->compacting || bytes < t->compact_at || bytes / 2 < atomic_load(&t->snapshot_bytes) / 4 || t->broken[0] != '\0') return;
  if (t->has_background) pthread_join(t->background, NULL);
  t->has_background = pthread_create(&t->background, NULL, compact_behind, t) == 0;
  t->compacting = t->has_background;
}

ev_status items_submit(ev_items *t, items_waiting *w) {
  pthread_cond_init(&w->wake, NULL);
  w->next = NULL;
  w->done = false;
  pthread_mutex_lock(&t->lock);
  if (t->last != NULL) t->last->next = w;
  else t->first = w;
  t->last = w;
  while (!w->done && t->leading) pthread_cond_wait(&w->wake, &t->lock);
  if (!w->done) { /* and so it leads: whoever is woken undone is the first of the queue */
    t->leading = true;
    while (!w->done) {
      items_waiting *group = next_group(t);
      pthread_mutex_unlock(&t->lock);
      if (group->alone != NULL) finish(group, group->alone(t, group));
      else commit(t, group);
      pthread_mutex_lock(&t->lock);
      for (items_waiting *g = group, *next; g != NULL; g = next) {
        next = g->next; /* once it is done its thread may be gone */
        g->done = true;
        if (g != w) pthread_cond_signal(&g->wake);
      }
    }
    pthread_mutex_unlock(&t->lock);
    size_t some = 16 + t->table.ended.n / 64;
    items_work_off(&t->table, some < WORK_OFF ? some : WORK_OFF);
    pthread_mutex_lock(&t->lock);
    t->leading = false;
    if (t->first != NULL) pthread_cond_signal(&t->first->wake);
    if (w->alone == NULL) compact_if_long(t);
  }
  pthread_mutex_unlock(&t->lock);
  pthread_cond_destroy(&w->wake);
  return w->status == EV_OK ? EV_OK : ev_fail(w->status, "%s", w->message);
}

static ev_status write_call(ev_items *t, const ev_item *items, const char *const *ids, size_t n) {
  static const char head[ITEMS_RECORD_HEAD];
  if (t->read_only) return ev_fail(EV_EINVAL, "%s: opened for reading only", t->folder);
  if (n == 0) return EV_OK;
  items_waiting w = {.alone = NULL};
  ev_status status = ev_buf_append(&w.buf, head, sizeof head);
  if (status == EV_OK) status = items != NULL ? items_encode_put(&w.buf, items, n, t->table.index) : items_encode_delete(&w.buf, ids, n);
  if (status == EV_OK) status = items_submit(t, &w);
  ev_buf_free(&w.buf);
  return status;
}

ev_status ev_items_put(ev_items *t, const ev_item *items, size_t n) { return write_call(t, items, NULL, n); }
ev_status ev_items_delete(ev_items *t, const char *const *ids, size_t n) { return write_call(t, NULL, ids, n); }

/* ---- Compaction -----------------------------------------------------------------------------------------*/
static void compacted(ev_items *t, ev_status status) { /* with the lock held */
  uint64_t bytes = atomic_load(&t->log_bytes) + atomic_load(&t->older_log_bytes);
  t->compact_at = status == EV_OK ? t->compact_bytes : 2 * bytes;
  if (t->compact_at < t->compact_bytes) t->compact_at = t->compact_bytes;
  snprintf(t->compact_error, sizeof t->compact_error, "%s", status == EV_OK ? "" : ev_error());
  t->compacting = false;
  pthread_cond_broadcast(&t->idle);
}

static void *compact_behind(void *arg) {
  ev_items *t = arg;
  ev_status status = items_compact(t);
  pthread_mutex_lock(&t->lock);
  compacted(t, status);
  pthread_mutex_unlock(&t->lock);
  return NULL;
}

ev_status ev_items_compact(ev_items *t) {
  if (t->read_only) return ev_fail(EV_EINVAL, "%s: opened for reading only", t->folder);
  pthread_mutex_lock(&t->lock);
  while (t->compacting) pthread_cond_wait(&t->idle, &t->lock);
  t->compacting = true;
  pthread_mutex_unlock(&t->lock);
  ev_status status = items_compact(t);
  pthread_mutex_lock(&t->lock);
  compacted(t, status);
  pthread_mutex_unlock(&t->lock);
  return status;
}

/* ---- Opening --------------------------------------------------------------------------------------------*/
typedef struct listing {
  bool snapshot, log;
  uint64_t newest_snapshot, first_log, last_log;
} listing;

static bool number_of(const char *name, const char *prefix, uint64_t *out) { /* "log.12", and not "log.12.tmp.99" or "log.012" */
  size_t len = strlen(prefix);
  char again[64];
  if (strncmp(name, prefix, len) != 0 || name[len] < '0' || name[len] > '9') return false;
  *out = strtoull(name + len, NULL, 10);
  snprintf(again, sizeof again, "%s%llu", prefix, (unsigned long long)*out);
  return strcmp(again, name) == 0 && *out < INT64_MAX;
}

static ev_status list_folder(const char *folder, listing *out) {
  DIR *d = opendir(folder);
  *out = (listing){0};
  if (d == NULL) return ev_fail_errno("%s", folder);
  uint64_t g;
  struct dirent *e;
  for (errno = 0; (e = readdir(d)) != NULL; errno = 0) {
    if (number_of(e->d_name, "snapshot.", &g)) {
      if (!out->snapshot || g > out->newest_snapshot) out->newest_snapshot = g;
      out->snapshot = true;
    } else if (number_of(e->d_name, "log.", &g)) {
      if (!out->log || g < out->first_log) out->first_log = g;
      if (!out->log || g > out->last_log) out->last_log = g;
      out->log = true;
    }
  }
  ev_status status = errno == 0 ? EV_OK : ev_fail_errno("%s", folder);
  closedir(d);
  return status;
}

static ev_status lock_folder(ev_items *t) {
  char path[4096];
  snprintf(path, sizeof path, "%s/lock", t->folder);
  t->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (t->lock_fd < 0) return ev_fail_errno("%s: cannot open for writing", path);
  if (flock(t->lock_fd, LOCK_EX | LOCK_NB) == 0) return EV_OK;
  return errno == EWOULDBLOCK ? ev_fail(EV_EEXIST, "%s: another process has the table open for writing", t->folder) : ev_fail_errno("%s: cannot lock", path);
}

static ev_status replay_one(void *ctx, const void *payload, size_t len, uint64_t seq) {
  ev_items *t = ctx;
  if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
  EV_TRY(items_apply(&t->table, payload, len, seq));
  if (t->table.n_pending < REPLAY_PENDING && t->table.n_changes < 4 * REPLAY_PENDING) return EV_OK;
  EV_TRY(items_settle(&t->table));
  items_show(&t->table, seq);
  items_work_off(&t->table, SIZE_MAX);
  return EV_OK;
}

static bool same_options(const items_options *a, const items_options *b) { return memcmp(a, b, sizeof *a) == 0; }

/* The logs from one generation to another, in order; the last stays open. */
static ev_status replay(ev_items *t, uint64_t from, uint64_t to) {
  char path[4096];
  for (uint64_t g = from;; g++) {
    items_path(path, t->folder, "log", g);
    items_log_close(&t->log);
    ev_status status = items_log_open(&t->log, path, g, t->read_only);
    if (status == EV_ENOTFOUND) return ev_fail(EV_ECORRUPT, "%s: is missing", path);
    if (status != EV_OK) return status;
    if (t->log.first != t->n_seq + 1 || !same_options(&t->log.options, &t->options))
      return ev_fail(EV_ECORRUPT, "%s: does not follow what is before it", path);
    EV_TRY(items_log_replay(&t->log, &t->n_seq, g == to, replay_one, t, &t->cut_bytes));
    atomic_store(&t->log_bytes, t->log.end);
    if (g == to) break;
    atomic_fetch_add(&t->older_log_bytes, t->log.end);
  }
  ev_status status = items_settle(&t->table);
  if (status == EV_EINVAL) return ev_fail(EV_ECORRUPT, "%s: before offset %llu: %s", path, (unsigned long long)t->log.end, ev_error());
  if (status != EV_OK) return status;
  items_show(&t->table, t->n_seq);
  items_work_off(&t->table, SIZE_MAX);
  atomic_store(&t->generation, to);
  return EV_OK;
}

static ev_status open_options(ev_items *t, const char *path) { /* of a table without a snapshot: its first log's */
  items_log first;
  ev_index_options o;
  EV_TRY(items_log_open(&first, path, 0, true));
  t->options = first.options;
  items_log_close(&first);
  EV_TRY(items_options_unpack(&o, &t->options, path));
  ev_status status = items_table_open(&t->table, &o);
  return status == EV_EINVAL ? ev_fail(EV_ECORRUPT, "%s: %s", path, ev_error()) : status;
}

static ev_status read_all(ev_items *t, const listing *l) {
  char path[4096];
  uint64_t from = l->snapshot ? l->newest_snapshot : 0;
  items_path(path, t->folder, "log", from);
  if (!l->log || l->last_log < from || (!l->snapshot && l->first_log > 0)) return ev_fail(EV_ECORRUPT, "%s: is missing", path);
  if (l->snapshot) EV_TRY(items_snapshot_map(t, from, &t->n_seq));
  else EV_TRY(open_options(t, path));
  atomic_store(&t->snapshot_generation, from);
  return replay(t, from, l->last_log);
}

static ev_status make_table(ev_items *t, const ev_index_options *given) {
  char path[4096];
  ev_index_options o = *given, defaults;
  ev_index_defaults(&defaults);
  if (o.n_dims == 0) o.kind = defaults.kind, o.metric = defaults.metric, o.form = defaults.form;
  EV_TRY(items_table_open(&t->table, &o));
  items_options_pack(&t->options, t->table.index != NULL ? ev_index_opts(t->table.index) : &o);
  items_path(path, t->folder, "log", 0);
  EV_TRY(items_log_create(&t->log, path, 0, 1, &t->options));
  atomic_store(&t->log_bytes, t->log.end);
  return EV_OK;
}

/* What crashes have left: unfinished files of former processes, and what a finished snapshot has replaced. */
static void sweep(ev_items *t) {
  DIR *d = opendir(t->folder);
  if (d == NULL) return;
  uint64_t g, keep = atomic_load(&t->snapshot_generation);
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    bool ours = strncmp(e->d_name, "snapshot.", 9) == 0 || strncmp(e->d_name, "log.", 4) == 0;
    bool old = (number_of(e->d_name, "snapshot.", &g) || number_of(e->d_name, "log.", &g)) && g < keep;
    if (old || (ours && strstr(e->d_name, ".tmp.") != NULL)) unlinkat(dirfd(d), e->d_name, 0);
  }
  closedir(d);
}

static void reset(ev_items *t) { /* before another attempt, and at the end */
  items_table_close(&t->table);
  ev_pack_close(t->pack);
  items_log_close(&t->log);
  t->pack = NULL;
  t->n_seq = t->cut_bytes = 0;
  atomic_store(&t->older_log_bytes, 0);
  atomic_store(&t->snapshot_bytes, 0);
}

static ev_status open_table(ev_items *t, const ev_items_options *o) {
  listing l;
  if (o->create && !o->read_only) EV_TRY(ev_mkdirs(t->folder));
  EV_TRY(list_folder(t->folder, &l));
  bool there = l.snapshot || l.log;
  if (!there && (!o->create || o->read_only)) return ev_fail(EV_ENOTFOUND, "%s: no table of items", t->folder);
  if (o->read_only) { /* a compaction may take files away between listing and opening */
    ev_status status = read_all(t, &l);
    for (int tries = 0; (status == EV_ENOTFOUND || status == EV_ECORRUPT) && tries < 8; tries++) {
      listing again;
      EV_TRY(list_folder(t->folder, &again));
      if (memcmp(&again, &l, sizeof l) == 0) break;
      l = again;
      reset(t);
      status = read_all(t, &l);
    }
    return status;
  }
  EV_TRY(lock_folder(t));
  EV_TRY(list_folder(t->folder, &l)); /* nobody else changes it now */
  if (!l.snapshot && !l.log) return make_table(t, &o->index);
  EV_TRY(read_all(t, &l));
  if (t->cut_bytes > 0) EV_TRY(items_log_cut(&t->log));
  sweep(t);
  return EV_OK;
}

ev_status ev_items_open(ev_items **out, const char *folder, const ev_items_options *o) {
  uint64_t start = ev_now_ns();
  *out = NULL;
  if (strlen(folder) > 4000) return ev_fail(EV_EINVAL, "'%.64s…': not a folder name", folder);
  ev_items *t = ev_zalloc(1, sizeof *t);
  if (t == NULL) return EV_ENOMEM;
  t->lock_fd = t->log.fd = -1;
  t->read_only = o->read_only;
  t->compact_bytes = t->compact_at = o->compact_bytes > 0 ? o->compact_bytes : COMPACT_BYTES;
  pthread_mutex_init(&t->lock, NULL);
  pthread_cond_init(&t->idle, NULL);
  t->folder = ev_strndup(folder, strlen(folder));
  ev_status status = t->folder == NULL ? EV_ENOMEM : open_table(t, o);
  if (status != EV_OK) {
    ev_items_close(t);
    return status;
  }
  t->open_ms = (double)(ev_now_ns() - start) / 1e6;
  *out = t;
  return EV_OK;
}

void ev_items_close(ev_items *t) {
  if (t == NULL) return;
  pthread_mutex_lock(&t->lock);
  while (t->compacting) pthread_cond_wait(&t->idle, &t->lock);
  pthread_mutex_unlock(&t->lock);
  if (t->has_background) pthread_join(t->background, NULL);
  reset(t);
  if (t->lock_fd >= 0) close(t->lock_fd); /* and with it the lock */
  pthread_mutex_destroy(&t->lock);
  pthread_cond_destroy(&t->idle);
  ev_free(t->folder);
  ev_free(t);
}

/* ---- Looking on -----------------------------------------------------------------------------------------*/
const ev_index_options *ev_items_index(const ev_items *t) { return t->table.index != NULL ? ev_index_opts(t->table.index) : NULL; }

typedef struct counting {
  items_waiting waiting; /* first */
  ev_items_stats *out;
} counting;

static ev_status count(ev_items *t, items_waiting *w) { /* as the writer: sizes of what grows */
  ev_items_stats *out = ((counting *)(void *)w)->out;
  out->n_columns = t->table.shown_columns;
  out->memory_bytes = items_table_bytes(&t->table);
  snprintf(out->broken, sizeof out->broken, "%.255s", t->broken);
  return EV_OK;
}

void ev_items_stat(const ev_items *given, ev_items_stats *out) {
  ev_items *t = (ev_items *)(uintptr_t)given;
  counting c = {.waiting = {.alone = count}, .out = out};
  *out = (ev_items_stats){.n_dims = t->table.n_dims, .cut_bytes = t->cut_bytes, .open_ms = t->open_ms};
  if (t->read_only) count(t, &c.waiting);
  else items_submit(t, &c.waiting);
  out->n_items = atomic_load(&t->table.n_items);
  out->n_vectors = atomic_load(&t->table.n_vectors);
  out->n_rows = atomic_load(&t->table.n_rows);
  out->log_bytes = atomic_load(&t->log_bytes) + atomic_load(&t->older_log_bytes);
  out->snapshot_bytes = atomic_load(&t->snapshot_bytes);
  out->generation = atomic_load(&t->generation);
  out->n_commits = atomic_load(&t->n_commits);
  out->n_syncs = atomic_load(&t->n_syncs);
  pthread_mutex_lock(&t->lock);
  out->compacting = t->compacting;
  snprintf(out->compact_error, sizeof out->compact_error, "%s", t->compact_error);
  pthread_mutex_unlock(&t->lock);
}
