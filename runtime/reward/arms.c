/* arms.c - learning state in a mapping that processes share.
 *
 * A file's lock (flock) says whether anybody else has it open. Who finds himself alone makes the file, or puts fresh locks
 * where those of dead processes were; all others wait for that. In use, a robust mutex tells the next owner that the last one
 * died, and since a slot turns to its new copy in one store, there is never anything to mend. What a crash of the machine left is
 * not trusted: the kernel may have written some pages and not others. The state is then what the snapshot says, and where there is
 * none, every slot must at least be a possible one.
 *
 * Rejected: one lock free compare-and-swap a number (a matrix is many), a log of updates (its replay is what the mapping avoids). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arms.h"

#define VERSION 1
#define HEAD_BYTES 4096
#define LOCKS_MAX 64
#define BYTES_MAX (UINT64_C(1) << 34)

static const char *const kind_names[EV_ARMS_KINDS] = {"counts", "linear", "logistic", "weights", "policy", "cma"};

const char *ev_arms_kind_name(ev_arms_kind kind) { return kind_names[kind]; }

bool ev_arms_kind_find(ev_arms_kind *out, const char *name) {
  for (int k = 0; k < EV_ARMS_KINDS; k++)
    if (strcmp(name, kind_names[k]) == 0) {
      *out = (ev_arms_kind)k;
      return true;
    }
  return false;
}

void ev_arms_defaults(ev_arms_options *o, ev_arms_kind kind) {
  *o = (ev_arms_options){.kind = kind, .n = 1, .window = 1024, .decay = 1, .ridge = 1, .rate = 0.1, .seed = 1};
  if (kind == EV_ARMS_POLICY) o->rate = 0.05;
  if (kind == EV_ARMS_CMA) o->rate = 0.3, o->window = 0;
}

static ev_status check(const ev_arms_options *o) {
  static const struct { uint32_t least, most; } dims[EV_ARMS_KINDS] = {{0, 0}, {1, 1024}, {1, 1024}, {0, 1024}, {1, 1024}, {1, 256}};
  if ((unsigned)o->kind >= EV_ARMS_KINDS) return ev_fail(EV_EINVAL, "learning state of kind %d", (int)o->kind);
  const char *kind = kind_names[o->kind];
  if (o->n < 1 || o->n > 1u << 26) return ev_fail(EV_EINVAL, "%s: n must be from 1 to %u, not %u", kind, 1u << 26, o->n);
  if ((o->kind == EV_ARMS_POLICY || o->kind == EV_ARMS_CMA) && o->n != 1) return ev_fail(EV_EINVAL, "%s: n must be 1, not %u", kind, o->n);
  if (o->kind == EV_ARMS_WEIGHTS && o->n > 4096) return ev_fail(EV_EINVAL, "weights: at most 4096 arms, not %u", o->n);
  if (o->n_dims < dims[o->kind].least || o->n_dims > dims[o->kind].most)
    return ev_fail(EV_EINVAL, "%s: n_dims must be from %u to %u, not %u", kind, dims[o->kind].least, dims[o->kind].most, o->n_dims);
  if (o->kind == EV_ARMS_WEIGHTS && o->n_dims != 0 && o->n_dims != o->n) return ev_fail(EV_EINVAL, "weights: n_dims must be 0 or n, not %u", o->n_dims);
  if (o->window > 1u << 22) return ev_fail(EV_EINVAL, "%s: a window of %u impressions; at most %u", kind, o->window, 1u << 22);
  if (!(o->decay > 0 && o->decay <= 1)) return ev_fail(EV_EINVAL, "%s: decay must be in (0, 1], not %g", kind, o->decay);
  if (!(o->ridge > 0) || !isfinite(o->ridge)) return ev_fail(EV_EINVAL, "%s: ridge must be above 0, not %g", kind, o->ridge);
  if (!(o->rate > 0) || !isfinite(o->rate) || (o->kind == EV_ARMS_WEIGHTS && o->rate > 1)) return ev_fail(EV_EINVAL, "%s: rate %g is out of range", kind, o->rate);
  if (!(o->share >= 0 && o->share <= 1)) return ev_fail(EV_EINVAL, "%s: share must be in [0, 1], not %g", kind, o->share);
  if (!(o->examination >= 0 && o->examination <= 10)) return ev_fail(EV_EINVAL, "%s: examination must be in [0, 10], not %g", kind, o->examination);
  return EV_OK;
}

static uint64_t up(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static uint64_t slot_size(const ev_arms_options *o) {
  uint64_t d = o->n_dims;
  switch (o->kind) {
    case EV_ARMS_LINEAR:
    case EV_ARMS_LOGISTIC: return ARMS_SLOT_HEAD + 2 * d + (o->diagonal ? d : d * d);
    case EV_ARMS_WEIGHTS: return ARMS_SLOT_HEAD + o->n;
    case EV_ARMS_POLICY: return ARMS_SLOT_HEAD + d;
    case EV_ARMS_CMA: return ARMS_SLOT_HEAD + 4 * d + 2 * d * d; /* mean, both paths, axes' lengths; C, axes */
    default: return ARMS_SLOT_HEAD;
  }
}

static uint32_t n_slots(const ev_arms_options *o) { return o->kind == EV_ARMS_WEIGHTS ? 1 : o->n; }

static ev_status lay_out(arms_layout *l, const ev_arms_options *o) {
  EV_TRY(check(o));
  memset(l, 0, sizeof *l);
  memcpy(l->magic, "EVARMS\0", 8);
  l->version = VERSION;
  l->kind = (uint32_t)o->kind;
  l->n = o->n;
  l->n_dims = o->n_dims;
  l->diagonal = o->diagonal;
  l->window = o->window;
  uint32_t slots = n_slots(o);
  l->n_locks = 1 + (slots < LOCKS_MAX ? slots : LOCKS_MAX);
  l->lock_bytes = sizeof(pthread_mutex_t);
  l->slot_size = slot_size(o);
  l->slot_bytes = sizeof(uint64_t) + 2 * l->slot_size * sizeof(double);
  if (l->slot_bytes > 256) l->slot_bytes = up(l->slot_bytes, 64);
  l->locks_at = HEAD_BYTES;
  l->slots_at = up(l->locks_at + (uint64_t)l->n_locks * l->lock_bytes, 64);
  l->window_at = up(l->slots_at + slots * l->slot_bytes, 64);
  l->entry_bytes = up(sizeof(arms_entry) + o->n_dims * sizeof(float), 8);
  l->total = up(l->window_at + (uint64_t)l->window * l->entry_bytes, HEAD_BYTES);
  if (l->total > BYTES_MAX) return ev_fail(EV_ELIMIT, "%s: a state of %llu bytes is larger than %llu", kind_names[o->kind], (unsigned long long)l->total, (unsigned long long)BYTES_MAX);
  return EV_OK;
}

/* ---- Slots and locks -------------------------------------------------------------------------------------*/
static _Atomic uint64_t *turn_of(const ev_arms *a, uint32_t i) { return (_Atomic uint64_t *)(void *)(a->base + a->layout.slots_at + i * a->layout.slot_bytes); }
static double *copy_of(const ev_arms *a, uint32_t i, uint64_t turn) { return (double *)(void *)(turn_of(a, i) + 1) + turn % 2 * a->layout.slot_size; }
static size_t lock_number(const ev_arms *a, uint32_t i) { return 1 + i % (a->layout.n_locks - 1); }

static ev_status make_locks(ev_arms *a) {
  pthread_mutexattr_t attr;
  int error = pthread_mutexattr_init(&attr);
  if (error == 0) error = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  if (error == 0) error = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  for (size_t k = 0; k < a->layout.n_locks && error == 0; k++) {
    memset(arms_lock_of(a, k), 0, sizeof(pthread_mutex_t));
    error = pthread_mutex_init(arms_lock_of(a, k), &attr);
  }
  pthread_mutexattr_destroy(&attr);
  errno = error;
  return error == 0 ? EV_OK : ev_fail_errno("cannot make a lock");
}

ev_status arms_lock(ev_arms *a, size_t k) {
  int error = pthread_mutex_lock(arms_lock_of(a, k));
  if (error == EOWNERDEAD) { /* the copy that he was filling is not the one that stands */
    atomic_fetch_add(&a->head->repaired, 1);
    error = pthread_mutex_consistent(arms_lock_of(a, k));
  }
  errno = error;
  return error == 0 ? EV_OK : ev_fail_errno("cannot lock learning state");
}

void arms_unlock(ev_arms *a, size_t k) { pthread_mutex_unlock(arms_lock_of(a, k)); }

ev_status arms_begin(ev_arms *a, uint32_t i, const double **from, double **to) {
  EV_TRY(arms_lock(a, lock_number(a, i)));
  uint64_t turn = atomic_load_explicit(turn_of(a, i), memory_order_acquire);
  *from = copy_of(a, i, turn);
  *to = copy_of(a, i, turn + 1);
  return EV_OK;
}

void arms_end(ev_arms *a, uint32_t i, bool turn) {
  if (turn) {
    atomic_fetch_add_explicit(turn_of(a, i), 1, memory_order_release);
    atomic_fetch_add_explicit(&a->head->ticks, 1, memory_order_relaxed);
  }
  arms_unlock(a, lock_number(a, i));
}

/* While turn stands still nobody writes the copy that it names. Numbers are read one by one, so that no read is torn. */
ev_status arms_copy(const ev_arms *a, uint32_t i, double *out, size_t size) {
  for (unsigned tries = 0;; tries++) {
    uint64_t turn = atomic_load_explicit(turn_of(a, i), memory_order_acquire);
    const double *from = copy_of(a, i, turn);
    if (tries < 100) {
      for (size_t k = 0; k < size; k++) out[k] = ((const volatile double *)from)[k];
      atomic_thread_fence(memory_order_acquire);
      if (atomic_load_explicit(turn_of(a, i), memory_order_relaxed) == turn) return EV_OK;
      continue;
    }
    ev_arms *mine = (ev_arms *)(uintptr_t)a; /* updates come too fast: have them wait */
    double *ignored;
    EV_TRY(arms_begin(mine, i, &from, &ignored));
    memcpy(out, from, size * sizeof *out);
    arms_end(mine, i, false);
    return EV_OK;
  }
}

size_t ev_arms_slot_size(const ev_arms *a) { return a->layout.slot_size; }
const ev_arms_options *ev_arms_options_of(const ev_arms *a) { return &a->o; }

void arms_first(const ev_arms *a, double *slot) {
  size_t d = arms_dim(a);
  memset(slot, 0, a->layout.slot_size * sizeof *slot);
  if (a->o.kind == EV_ARMS_LINEAR || a->o.kind == EV_ARMS_LOGISTIC) {
    double *inverse = slot + ARMS_SLOT_HEAD + 2 * d;
    for (size_t k = 0; k < d; k++) inverse[a->o.diagonal ? k : k * d + k] = 1 / a->o.ridge;
  } else if (a->o.kind == EV_ARMS_CMA) {
    slot[1] = a->o.rate; /* σ */
    double *lengths = slot + ARMS_SLOT_HEAD + 3 * d, *c = lengths + d, *axes = c + d * d;
    for (size_t k = 0; k < d; k++) lengths[k] = c[k * d + k] = axes[k * d + k] = 1;
  }
}

ev_status arms_check_slot(const ev_arms *a, const double *slot) {
  size_t d = arms_dim(a);
  for (size_t k = 0; k < a->layout.slot_size; k++)
    if (!isfinite(slot[k])) return ev_fail(EV_ECORRUPT, "%s: a number of the state is not finite", kind_names[a->o.kind]);
  if (slot[0] < 0) return ev_fail(EV_ECORRUPT, "%s: a count of the state is negative", kind_names[a->o.kind]);
  if (a->o.kind == EV_ARMS_CMA && !(slot[1] > 0)) return ev_fail(EV_ECORRUPT, "cma: a step size that is not positive");
  const double *m = a->o.kind == EV_ARMS_CMA ? slot + ARMS_SLOT_HEAD + 4 * d : slot + ARMS_SLOT_HEAD + 2 * d;
  if (a->o.kind != EV_ARMS_LINEAR && a->o.kind != EV_ARMS_LOGISTIC && a->o.kind != EV_ARMS_CMA) return EV_OK;
  for (size_t k = 0; k < d; k++)
    if (!(m[a->o.diagonal ? k : k * d + k] > 0)) return ev_fail(EV_ECORRUPT, "%s: a variance of the state is not positive", kind_names[a->o.kind]);
  return EV_OK;
}

/* ---- Opening ---------------------------------------------------------------------------------------------*/
static uint64_t this_boot(void) { /* a number of the machine's run; 0 where it cannot be told */
  ev_buf text = {0};
  uint64_t sum = 0;
  if (ev_file_read(&text, "/proc/sys/kernel/random/boot_id", 256) == EV_OK && text.len > 0) sum = ev_checksum(text.data, text.len);
  ev_buf_free(&text);
  return sum;
}

static void fill_first(ev_arms *a) {
  for (uint32_t i = 0; i < n_slots(&a->o); i++) {
    atomic_store_explicit(turn_of(a, i), 0, memory_order_relaxed);
    if (a->o.kind != EV_ARMS_COUNTS) arms_first(a, copy_of(a, i, 0)); /* counts begin as zeros, which new pages are */
  }
}

static ev_status format(ev_arms *a) {
  a->head->layout = a->layout;
  a->head->sum = ev_checksum(&a->layout, sizeof a->layout);
  EV_TRY(make_locks(a));
  fill_first(a);
  atomic_store(&a->head->boot, this_boot());
  atomic_store(&a->head->snapshot_ms, ev_wall_ms());
  atomic_store(&a->head->ready, 1);
  return EV_OK;
}

static ev_status check_layout(const ev_arms *a, const char *path) {
  const arms_layout *l = &a->head->layout;
  if (memcmp(l->magic, a->layout.magic, sizeof l->magic) != 0) return ev_fail(EV_ECORRUPT, "%s: not a learning state", path);
  if (a->head->sum != ev_checksum(l, sizeof *l)) return ev_fail(EV_ECORRUPT, "%s: the layout is damaged", path);
  if (memcmp(l, &a->layout, sizeof *l) == 0) return EV_OK;
  if (l->version != VERSION || l->kind >= EV_ARMS_KINDS) return ev_fail(EV_EINVAL, "%s: version %u of a learning state; %d is known", path, l->version, VERSION);
  return ev_fail(EV_EINVAL, "%s: holds %s of n %u, n_dims %u, window %u%s; asked for %s of n %u, n_dims %u, window %u%s", path, kind_names[l->kind], l->n, l->n_dims, l->window,
                 l->diagonal ? ", diagonal" : "", kind_names[a->o.kind], a->o.n, a->o.n_dims, a->o.window, a->o.diagonal ? ", diagonal" : "");
}

static ev_status check_slots(const ev_arms *a, const char *path) {
  for (uint32_t i = 0; i < n_slots(&a->o); i++) {
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    ev_status status = arms_check_slot(a, copy_of(a, i, atomic_load(turn_of(a, i))));
    if (status != EV_OK) return ev_fail(status, "%s: slot %u: after a crash of the machine, and there is no snapshot: it is damaged", path, i);
  }
  return EV_OK;
}

/* Alone with the file: locks anew, and what the last run of the machine left looked at. */
static ev_status take_over(ev_arms *a, const char *path) {
  char snapshot[4096];
  EV_TRY(make_locks(a));
  uint64_t shown = atomic_load(&a->head->shown), settled = atomic_load(&a->head->settled);
  if (settled > shown || shown - settled > a->layout.window) atomic_store(&a->head->settled, shown); /* no window that can be */
  uint64_t boot = this_boot();
  if (boot != 0 && atomic_load(&a->head->boot) != boot) {
    snprintf(snapshot, sizeof snapshot, "%s.snapshot", path);
    if (ev_file_exists(snapshot)) EV_TRY(ev_arms_restore(a, snapshot));
    else EV_TRY(check_slots(a, path));
    atomic_store(&a->head->boot, boot);
  }
  return EV_OK;
}

static ev_status map(ev_arms *a) {
  int flags = a->fd >= 0 ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS;
  if (ev_mem_fails()) return EV_ENOMEM;
  void *p = mmap(NULL, a->layout.total, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, a->fd, 0);
  if (p == MAP_FAILED) return ev_fail_errno("cannot map learning state");
  a->base = p;
  a->head = p;
  return EV_OK;
}

/* The first attempt at a file, or the next when its maker died: EV_OK and *again. */
static ev_status open_once(ev_arms *a, const char *path, bool *again) {
  struct stat st;
  *again = false;
  bool alone = flock(a->fd, LOCK_EX | LOCK_NB) == 0;
  while (!alone && flock(a->fd, LOCK_SH) != 0)
    if (errno != EINTR || ev_interrupted()) return ev_fail_errno("%s: cannot lock", path);
  if (fstat(a->fd, &st) != 0) return ev_fail_errno("%s", path);
  bool fresh = st.st_size == 0;
  if (fresh && !alone) {
    *again = true;
    return EV_OK;
  }
  if (!fresh && (uint64_t)st.st_size < sizeof(arms_head)) return ev_fail(EV_ECORRUPT, "%s: not a learning state", path);
  if (!fresh && (uint64_t)st.st_size != a->layout.total) { /* another layout, or cut: its head can tell */
    arms_head head;
    if (pread(a->fd, &head, sizeof head, 0) != (ssize_t)sizeof head) return ev_fail_errno("%s: cannot read", path);
    arms_head *mine = a->head;
    a->head = &head;
    ev_status status = check_layout(a, path);
    a->head = mine;
    return status != EV_OK ? status : ev_fail(EV_ECORRUPT, "%s: %lld bytes long, %llu expected", path, (long long)st.st_size, (unsigned long long)a->layout.total);
  }
  if (fresh && ftruncate(a->fd, (off_t)a->layout.total) != 0) return ev_fail_errno("%s: cannot make %llu bytes", path, (unsigned long long)a->layout.total);
  EV_TRY(map(a));
  static const char nothing[sizeof(arms_layout)];
  bool half = atomic_load(&a->head->ready) == 0 && (memcmp(&a->head->layout, nothing, sizeof nothing) == 0 || check_layout(a, path) == EV_OK);
  if (half && !alone) {
    munmap(a->base, a->layout.total);
    a->base = NULL;
    *again = true;
    return EV_OK;
  }
  if (half) {
    EV_TRY(format(a));
  } else {
    EV_TRY(check_layout(a, path));
    if (alone) EV_TRY(take_over(a, path));
  }
  while (alone && flock(a->fd, LOCK_SH) != 0)
    if (errno != EINTR) return ev_fail_errno("%s: cannot lock", path);
  return EV_OK;
}

ev_status ev_arms_open(ev_arms **out, const char *path, const ev_arms_options *o) {
  *out = NULL;
  arms_layout layout;
  EV_TRY(lay_out(&layout, o));
  ev_arms *a = ev_zalloc(1, sizeof *a);
  if (a == NULL) return EV_ENOMEM;
  a->o = *o;
  a->layout = layout;
  a->fd = -1;
  ev_status status = EV_OK;
  if (path == NULL) {
    status = map(a);
    if (status == EV_OK) status = format(a);
  } else {
    a->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (a->fd < 0) status = ev_fail_errno("%s", path);
    bool again = true;
    for (unsigned tries = 0; status == EV_OK && again; tries++) {
      status = open_once(a, path, &again);
      if (!again || status != EV_OK) break;
      flock(a->fd, LOCK_UN);
      if (tries > 2000) status = ev_fail(EV_EIO, "%s: somebody else is making it and does not come to an end", path);
      else usleep(1000);
    }
  }
  if (status != EV_OK) {
    ev_arms_close(a);
    return status;
  }
  *out = a;
  return EV_OK;
}

void ev_arms_close(ev_arms *a) {
  if (a == NULL) return;
  if (a->base != NULL) munmap(a->base, a->layout.total);
  if (a->fd >= 0) close(a->fd);
  ev_free(a);
}

/* ---- Snapshots -------------------------------------------------------------------------------------------*/
static ev_status lock_all(ev_arms *a) {
  for (size_t k = 0; k < a->layout.n_locks; k++) {
    ev_status status = arms_lock(a, k);
    if (status == EV_OK) continue;
    while (k > 0) arms_unlock(a, --k);
    return status;
  }
  return EV_OK;
}

static void unlock_all(ev_arms *a) {
  for (size_t k = a->layout.n_locks; k > 0; k--) arms_unlock(a, k - 1);
}

ev_status ev_arms_snapshot(ev_arms *a, const char *path) {
  uint32_t slots = n_slots(&a->o);
  size_t size = a->layout.slot_size;
  double *copy = ev_alloc(slots, size * sizeof *copy);
  if (copy == NULL) return EV_ENOMEM;
  ev_status status = lock_all(a);
  if (status != EV_OK) goto end;
  for (uint32_t i = 0; i < slots; i++) memcpy(copy + i * size, copy_of(a, i, atomic_load(turn_of(a, i))), size * sizeof *copy);
  const uint64_t counts[] = {atomic_load(&a->head->ticks), atomic_load(&a->head->decisions)};
  unlock_all(a); /* the disk is slow, and nobody waits for it */
  ev_pack_writer *w;
  status = ev_pack_writer_open(&w, path, "arms");
  if (status != EV_OK) goto end;
  status = ev_pack_write(w, "layout", EV_U8, &a->layout, 1, sizeof a->layout);
  if (status == EV_OK) status = ev_pack_write(w, "counts", EV_U64, counts, 1, 2);
  if (status == EV_OK) status = ev_pack_write(w, "slots", EV_F64, copy, slots, size);
  if (status == EV_OK) status = ev_pack_writer_commit(w);
  else ev_pack_writer_abort(w);
end:
  ev_free(copy);
  return status;
}

ev_status ev_arms_restore(ev_arms *a, const char *path) {
  uint32_t slots = n_slots(&a->o);
  size_t size = a->layout.slot_size;
  ev_pack *p;
  ev_array layout, counts, values;
  EV_TRY(ev_pack_open(&p, path));
  ev_status status = strcmp(ev_pack_kind(p), "arms") == 0 ? EV_OK : ev_fail(EV_EINVAL, "%s: a file of kind '%s', not arms", path, ev_pack_kind(p));
  if (status == EV_OK) status = ev_pack_get(p, "layout", EV_U8, &layout);
  if (status == EV_OK) status = ev_pack_get(p, "counts", EV_U64, &counts);
  if (status == EV_OK) status = ev_pack_get(p, "slots", EV_F64, &values);
  if (status == EV_OK && (layout.rows * layout.cols != sizeof a->layout || memcmp(layout.data, &a->layout, sizeof a->layout) != 0))
    status = ev_fail(EV_EINVAL, "%s: a snapshot of a state of another layout", path);
  if (status == EV_OK && (values.rows != slots || values.cols != size || counts.rows * counts.cols != 2)) status = ev_fail(EV_ECORRUPT, "%s: %zu slots of %zu numbers; %u of %zu expected", path, (size_t)values.rows, (size_t)values.cols, slots, size);
  for (uint32_t i = 0; i < slots && status == EV_OK; i++) {
    status = arms_check_slot(a, (const double *)values.data + i * size);
    if (status != EV_OK) status = ev_fail(status, "%s: slot %u is no possible state", path, i);
  }
  if (status == EV_OK) status = lock_all(a);
  if (status == EV_OK) {
    for (uint32_t i = 0; i < slots; i++) {
      uint64_t turn = atomic_load(turn_of(a, i));
      memcpy(copy_of(a, i, turn + 1), (const double *)values.data + i * size, size * sizeof(double));
      atomic_store_explicit(turn_of(a, i), turn + 1, memory_order_release);
    }
    atomic_store(&a->head->ticks, ((const uint64_t *)counts.data)[0]);
    atomic_store(&a->head->decisions, ((const uint64_t *)counts.data)[1]);
    atomic_store(&a->head->settled, atomic_load(&a->head->shown)); /* what was remembered belongs to another state */
    unlock_all(a);
  }
  ev_pack_close(p);
  return status;
}

bool ev_arms_snapshot_due(ev_arms *a, double seconds) {
  int64_t last = atomic_load(&a->head->snapshot_ms), now = ev_wall_ms();
  if (now >= last && (double)(now - last) < seconds * 1000) return false;
  return atomic_compare_exchange_strong(&a->head->snapshot_ms, &last, now);
}

/* ---- What every kind has ---------------------------------------------------------------------------------*/
ev_status ev_arms_read(ev_arms *a, uint32_t i, double *out) {
  if (i >= n_slots(&a->o)) return ev_fail(EV_EINVAL, "%s: there is no slot %u of %u", kind_names[a->o.kind], i, n_slots(&a->o));
  EV_TRY(arms_copy(a, i, out, a->layout.slot_size));
  if (a->o.kind == EV_ARMS_COUNTS) arms_counts_now(a, out, atomic_load(&a->head->ticks));
  return EV_OK;
}

ev_status ev_arms_write(ev_arms *a, uint32_t i, const double *slot) {
  const double *from;
  double *to;
  if (i >= n_slots(&a->o)) return ev_fail(EV_EINVAL, "%s: there is no slot %u of %u", kind_names[a->o.kind], i, n_slots(&a->o));
  if (arms_check_slot(a, slot) != EV_OK) return ev_fail(EV_EINVAL, "slot %u: %s", i, ev_error());
  uint64_t none = 0;
  atomic_compare_exchange_strong(&a->head->ticks, &none, 1); /* it has learnt something now */
  EV_TRY(arms_begin(a, i, &from, &to));
  memcpy(to, slot, a->layout.slot_size * sizeof *to);
  if (a->o.kind == EV_ARMS_COUNTS) to[3] = (double)atomic_load(&a->head->ticks);
  atomic_fetch_add_explicit(turn_of(a, i), 1, memory_order_release); /* no tick: nothing fades for it */
  arms_end(a, i, false);
  return EV_OK;
}

size_t ev_arms_slots(const ev_arms *a) { return n_slots(&a->o); }

void ev_arms_stats_of(ev_arms *a, ev_arms_stats *out) {
  const arms_head *h = a->head;
  *out = (ev_arms_stats){atomic_load(&h->ticks), atomic_load(&h->decisions), atomic_load(&h->shown), atomic_load(&h->rewarded), atomic_load(&h->late), atomic_load(&h->repaired)};
}

ev_status ev_arms_update(ev_arms *a, uint32_t i, const float *x, double reward, double propensity, double seen) {
  const char *kind = kind_names[a->o.kind];
  if (i >= a->o.n) return ev_fail(EV_EINVAL, "%s: there is no arm %u of %u", kind, i, a->o.n);
  if (!isfinite(reward) || fabs(reward) > 1e9) return ev_fail(EV_EINVAL, "%s: a reward of %g", kind, reward);
  if (!(seen > 0 && seen <= 1)) return ev_fail(EV_EINVAL, "%s: looked at with probability %g", kind, seen);
  for (size_t k = 0; k < a->o.n_dims; k++)
    if (x == NULL || !isfinite(x[k])) return ev_fail(EV_EINVAL, "%s: %s", kind, x == NULL ? "features are missing" : "a feature is not finite");
  switch (a->o.kind) {
    case EV_ARMS_COUNTS: return arms_counts_update(a, i, reward, seen);
    case EV_ARMS_LINEAR:
    case EV_ARMS_LOGISTIC: return arms_linear_update(a, i, x, reward, seen);
    case EV_ARMS_WEIGHTS: return arms_weights_update(a, i, x, reward, propensity, seen);
    case EV_ARMS_POLICY: return arms_policy_update(a, x, reward, seen);
    default: return ev_fail(EV_EINVAL, "cma: points are told, not updated");
  }
}
