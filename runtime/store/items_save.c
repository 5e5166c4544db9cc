/* items_save.c - snapshots of the live table, and compaction.
 *
 *   items.state      U64  version, number of the last call in it, rows, columns
 *   items.options    U8   an items_options
 *   items.columns    U8   (columns, 64): name, type
 *   items.id.*       the ids of its rows, in their order
 *   items.N.values   of column N: F32, U32 codes, or U64 offsets;  .lengths, .pool U32 of lists;  .token.* the vocabulary
 *   index.*          rows with a vector come first, so that the index's numbers are the table's
 *
 * Compaction is a reader. The writer starts the next log and says at which state it did; the rows of that state are then written
 * out, renumbered, while everything goes on: nothing that they need is used again before this reader leaves. The new snapshot
 * appears by renaming; then the older files go. A crash in between leaves the old snapshot and both logs, or both snapshots, of
 * which the newer is taken. The old snapshot is verified before its bytes are carried over: damage must not get new checksums. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "items.h"

#define VERSION 1
#define VERIFIED_BYTES ((size_t)64 << 20) /* files up to this are verified at opening */
#define PIECE 8192

/* ---- Writing --------------------------------------------------------------------------------------------*/
typedef struct kept { /* the rows of a state; new number → row */
  uint32_t *rows;
  size_t n, n_vectors; /* those with vectors come first */
} kept;

static ev_status keep_rows(const ev_items_reader *r, kept *out) {
  const items_table *t = &r->table->table;
  uint32_t *bare = NULL;
  size_t n = atomic_load_explicit(&t->n_rows, memory_order_acquire), n_bare = 0;
  *out = (kept){.rows = ev_alloc(n, sizeof *out->rows)};
  bare = ev_alloc(n, sizeof *bare);
  if (out->rows == NULL || bare == NULL) {
    ev_free(bare);
    return EV_ENOMEM;
  }
  for (uint32_t row = ev_items_next(r, 0); row != EV_NONE; row = ev_items_next(r, row + 1)) {
    if (row >= n) break; /* made after this state */
    if (t->index != NULL && ev_index_has(t->index, row)) out->rows[out->n++] = row;
    else bare[n_bare++] = row;
  }
  out->n_vectors = out->n;
  memcpy(out->rows + out->n, bare, n_bare * sizeof *bare);
  out->n += n_bare;
  ev_free(bare);
  return EV_OK;
}

static void array_name(char out[48], size_t column, const char *what) { snprintf(out, 48, "items.%zu.%s", column, what); }

static ev_status write_numbers(ev_pack_writer *w, const char *name, const ev_column *c, const kept *k) {
  float piece[PIECE];
  EV_TRY(ev_pack_begin(w, name, EV_F32, 1));
  for (size_t first = 0; first < k->n; first += PIECE) {
    size_t n = k->n - first < PIECE ? k->n - first : PIECE;
    for (size_t i = 0; i < n; i++) piece[i] = c->values[k->rows[first + i]];
    EV_TRY(ev_pack_append(w, piece, n));
  }
  return ev_pack_end(w);
}

/* Codes of the rows kept, lists one behind the other. */
static ev_status write_codes(ev_pack_writer *w, const char *name, const ev_column *c, const kept *k, const uint32_t *renumber) {
  static const uint32_t none = EV_NONE;
  uint32_t piece[PIECE];
  size_t used = 0;
  EV_TRY(ev_pack_begin(w, name, EV_U32, 1));
  for (size_t i = 0; i < k->n; i++) {
    const uint32_t *codes = NULL;
    size_t n = ev_column_tokens(c, k->rows[i], &codes);
    if (c->type == EV_TOKEN && n == 0) codes = &none, n = 1;
    for (size_t j = 0; j < n; j++) {
      if (used == PIECE) {
        EV_TRY(ev_pack_append(w, piece, used));
        used = 0;
      }
      piece[used++] = codes[j] < c->n_tokens ? renumber[codes[j]] : EV_NONE;
    }
  }
  EV_TRY(ev_pack_append(w, piece, used));
  return ev_pack_end(w);
}

static ev_status write_places(ev_pack_writer *w, size_t column, const ev_column *c, const kept *k) {
  char name[48];
  uint64_t ptr[PIECE], end = 0;
  uint32_t lengths[PIECE];
  for (int pass = 0; pass < 2; pass++) {
    array_name(name, column, pass == 0 ? "values" : "lengths");
    EV_TRY(ev_pack_begin(w, name, pass == 0 ? EV_U64 : EV_U32, 1));
    for (size_t first = 0; first < k->n; first += PIECE) {
      size_t n = k->n - first < PIECE ? k->n - first : PIECE;
      for (size_t i = 0; i < n; i++) {
        const uint32_t *codes;
        lengths[i] = (uint32_t)ev_column_tokens(c, k->rows[first + i], &codes);
        ptr[i] = end;
        end += lengths[i];
      }
      EV_TRY(ev_pack_append(w, pass == 0 ? (const void *)ptr : lengths, n));
    }
    EV_TRY(ev_pack_end(w));
  }
  return EV_OK;
}

/* The tokens that some row uses keep their order. @param[out] renumber (n_tokens), used (n_used of them) */
static size_t used_tokens(const ev_column *c, const kept *k, uint32_t *renumber, uint32_t *used) {
  size_t n_used = 0;
  memset(renumber, 0, c->n_tokens * sizeof *renumber);
  for (size_t i = 0; i < k->n; i++) {
    const uint32_t *codes = NULL;
    size_t n = ev_column_tokens(c, k->rows[i], &codes);
    for (size_t j = 0; j < n; j++)
      if (codes[j] < c->n_tokens) renumber[codes[j]] = 1;
  }
  for (uint32_t code = 0; code < c->n_tokens; code++) {
    if (renumber[code] == 0) continue;
    renumber[code] = (uint32_t)n_used;
    used[n_used++] = code;
  }
  return n_used;
}

static ev_status write_column(ev_pack_writer *w, size_t i, const items_column *column, const ev_column *c, const kept *k) {
  char name[48];
  array_name(name, i, "values");
  if (c->type == EV_FLOAT) return write_numbers(w, name, c, k);
  uint32_t *renumber = ev_alloc(c->n_tokens, sizeof *renumber), *used = ev_alloc(c->n_tokens, sizeof *used);
  ev_status status = renumber == NULL || used == NULL ? EV_ENOMEM : EV_OK;
  size_t n_used = status == EV_OK ? used_tokens(c, k, renumber, used) : 0;
  if (status == EV_OK && c->type == EV_TOKEN) status = write_codes(w, name, c, k, renumber);
  if (status == EV_OK && c->type == EV_TOKEN_LIST) {
    status = write_places(w, i, c, k);
    array_name(name, i, "pool");
    if (status == EV_OK) status = write_codes(w, name, c, k, renumber);
  }
  array_name(name, i, "token");
  if (status == EV_OK) status = ev_ids_write(&column->tokens, w, name, used, n_used);
  ev_free(renumber);
  ev_free(used);
  return status;
}

static ev_status write_ids(ev_pack_writer *w, const items_table *t, const kept *k) {
  uint32_t *items = ev_alloc(k->n, sizeof *items);
  if (items == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < k->n; i++) items[i] = items_item_of(t, k->rows[i]);
  ev_status status = ev_ids_write(&t->ids, w, "items.id", items, k->n);
  ev_free(items);
  return status;
}

static ev_status write_pack(ev_pack_writer *w, const ev_items_reader *r, const kept *k) {
  const items_table *t = &r->table->table;
  char columns[ITEMS_COLUMNS_MAX][64] = {{0}};
  size_t n_columns = ev_items_n_columns(r);
  const uint64_t state[4] = {VERSION, r->state, k->n, n_columns};
  EV_TRY(ev_pack_write(w, "items.state", EV_U64, state, 4, 1));
  EV_TRY(ev_pack_write(w, "items.options", EV_U8, &r->table->options, sizeof r->table->options, 1));
  for (size_t i = 0; i < n_columns; i++) {
    const ev_column *c = ev_items_column_at(r, i);
    snprintf(columns[i], 48, "%s", c->name);
    columns[i][63] = (char)c->type;
  }
  EV_TRY(ev_pack_write(w, "items.columns", EV_U8, columns, n_columns, 64));
  EV_TRY(write_ids(w, t, k));
  for (size_t i = 0; i < n_columns; i++) {
    EV_TRY(write_column(w, i, t->columns[i], ev_items_column_at(r, i), k));
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
  }
  return t->index != NULL ? ev_index_write(t->index, w, k->rows, k->n_vectors) : EV_OK;
}

static ev_status write_snapshot(const ev_items_reader *r, const char *path) {
  kept k;
  ev_pack_writer *w;
  ev_status status = keep_rows(r, &k);
  if (status == EV_OK) status = ev_pack_writer_open(&w, path, "items");
  if (status == EV_OK) {
    status = write_pack(w, r, &k);
    if (status == EV_OK) status = ev_pack_writer_commit(w);
    else ev_pack_writer_abort(w);
  }
  ev_free(k.rows);
  return status;
}

/* ---- Compaction -----------------------------------------------------------------------------------------*/
void items_path(char out[4096], const char *folder, const char *kind, uint64_t generation) {
  snprintf(out, 4096, "%s/%s.%llu", folder, kind, (unsigned long long)generation);
}

/* As the writer, between two calls: the next log begins, and this reader sees all that came before. */
typedef struct rotation {
  items_waiting waiting; /* first */
  ev_items_reader reader;
} rotation;

static ev_status rotate(ev_items *t, items_waiting *w) {
  rotation *x = (rotation *)(void *)w;
  char path[4096];
  items_log next;
  if (t->broken[0] != '\0') return ev_fail(EV_EIO, "%s: nothing can be written until it is opened again: %s", t->folder, t->broken);
  items_path(path, t->folder, "log", t->log.generation + 1);
  ev_status status = items_log_create(&next, path, t->log.generation + 1, t->n_seq + 1, &t->options);
  if (status != EV_OK) { /* a log that is there begins where this one must end */
    snprintf(t->broken, sizeof t->broken, "%s", ev_error());
    unlink(path);
    if (!ev_file_exists(path) && items_sync_folder(t->folder) == EV_OK) t->broken[0] = '\0';
    else ev_fail(status, "%s", t->broken);
    return status;
  }
  atomic_fetch_add(&t->older_log_bytes, t->log.end);
  atomic_store(&t->log_bytes, next.end);
  atomic_store(&t->generation, next.generation);
  items_log_close(&t->log);
  t->log = next;
  ev_items_begin(&x->reader, t);
  return EV_OK;
}

static ev_status remove_older(ev_items *t, uint64_t from, uint64_t to) {
  char path[4096];
  for (uint64_t g = from; g < to; g++) {
    items_path(path, t->folder, "snapshot", g);
    unlink(path);
    items_path(path, t->folder, "log", g);
    unlink(path);
  }
  return items_sync_folder(t->folder);
}

ev_status items_compact(ev_items *t) {
  char path[4096];
  struct stat st;
  uint64_t before = atomic_load(&t->snapshot_generation);
  if (t->pack != NULL) EV_TRY(ev_pack_verify(t->pack));
  rotation x = {.waiting = {.alone = rotate}};
  EV_TRY(items_submit(t, &x.waiting));
  uint64_t generation = atomic_load(&t->generation); /* nobody else rotates meanwhile */
  items_path(path, t->folder, "snapshot", generation);
  ev_status status = write_snapshot(&x.reader, path);
  ev_items_end(&x.reader);
  if (status != EV_OK) return status;
  EV_TRY(items_sync_folder(t->folder)); /* before what it replaces goes */
  atomic_store(&t->snapshot_generation, generation);
  atomic_store(&t->older_log_bytes, 0);
  if (stat(path, &st) == 0) atomic_store(&t->snapshot_bytes, (uint64_t)st.st_size);
  return remove_older(t, before, generation);
}

/* ---- Mapping --------------------------------------------------------------------------------------------*/
static ev_status wrong(const ev_pack *p, const char *what) { return ev_fail(EV_ECORRUPT, "%s: %s", ev_pack_path(p), what); }

static ev_status take_array(const ev_pack *p, const char *name, ev_dtype dtype, size_t rows, size_t limit, ev_region *out) {
  ev_array a;
  EV_TRY(ev_pack_get(p, name, dtype, &a));
  if (a.cols != 1 || (rows != SIZE_MAX && a.rows != rows)) return ev_fail(EV_ECORRUPT, "%s: array '%s' is not of %zu rows", ev_pack_path(p), name, rows);
  return ev_region_take(out, limit, p, &a);
}

static ev_status map_column(items_table *t, const ev_pack *p, size_t i, const char *about, size_t n) {
  char name[48];
  items_column *c;
  ev_array pool;
  unsigned char type = (unsigned char)about[63];
  size_t len = strnlen(about, 48);
  if (len == 0 || len == 48 || type > EV_FLOAT) return wrong(p, "a column that makes no sense");
  for (size_t k = 0; k < i; k++)
    if (strcmp(t->columns[k]->name, about) == 0) return wrong(p, "two columns of one name");
  EV_TRY(items_column_new(t, about, len, (ev_column_type)type, &c));
  array_name(name, i, "values");
  EV_TRY(take_array(p, name, c->type == EV_FLOAT ? EV_F32 : c->type == EV_TOKEN ? EV_U32 : EV_U64, n, t->max_rows * sizeof(uint64_t), &c->values));
  if (c->type == EV_TOKEN_LIST) {
    array_name(name, i, "lengths");
    EV_TRY(take_array(p, name, EV_U32, n, t->max_rows * sizeof(uint32_t), &c->lengths));
    array_name(name, i, "pool");
    EV_TRY(ev_pack_get(p, name, EV_U32, &pool));
    EV_TRY(take_array(p, name, EV_U32, SIZE_MAX, items_most_bytes(t), &c->pool));
    c->pool_used = c->pool_mapped = pool.rows;
  }
  array_name(name, i, "token");
  if (c->type != EV_FLOAT) EV_TRY(ev_ids_map(&c->tokens, items_most_tokens(t), items_most_bytes(t), p, name));
  return items_column_room(t, c, n);
}

static ev_status map_table(items_table *t, const ev_pack *p, uint64_t *seq, items_options *options) {
  ev_array state, stored, columns;
  ev_index_options o;
  EV_TRY(ev_pack_get(p, "items.state", EV_U64, &state));
  EV_TRY(ev_pack_get(p, "items.options", EV_U8, &stored));
  EV_TRY(ev_pack_get(p, "items.columns", EV_U8, &columns));
  const uint64_t *v = state.data;
  if (strcmp(ev_pack_kind(p), "items") != 0 || state.rows != 4 || state.cols != 1 || v[0] != VERSION || stored.rows != sizeof *options || stored.cols != 1)
    return wrong(p, "not a snapshot of items, or one of another format");
  memcpy(options, stored.data, sizeof *options);
  EV_TRY(items_options_unpack(&o, options, ev_pack_path(p)));
  size_t n = v[2];
  if (n > o.max_rows || o.max_rows >= EV_NONE || o.max_rows == 0 || v[3] > ITEMS_COLUMNS_MAX || columns.rows != v[3] || columns.cols != 64 || v[1] >= INT64_MAX)
    return wrong(p, "its sizes make no sense");
  *seq = v[1];
  t->n_dims = o.n_dims;
  t->max_rows = o.max_rows;
  if (o.n_dims > 0) EV_TRY(ev_index_map(&t->index, p, o.max_rows));
  t->epochs = t->index != NULL ? ev_index_epochs(t->index) : ev_epochs_new();
  if (t->epochs == NULL) return EV_ENOMEM;
  if (t->index != NULL && (ev_index_opts(t->index)->n_dims != o.n_dims || ev_index_n(t->index) > n || ev_index_n_rows(t->index) > n))
    return wrong(p, "its index is of another table");
  EV_TRY(ev_ids_map(&t->ids, 4 * t->max_rows, items_most_bytes(t), p, "items.id"));
  if (atomic_load(&t->ids.n) != n) return wrong(p, "not as many ids as rows");
  EV_TRY(items_table_frame(t));
  EV_TRY(ev_region_grow(&t->heads, (n + 1) * sizeof(uint32_t)));
  EV_TRY(items_table_room(t, n));
  atomic_store(&t->n_rows, (uint32_t)n);
  for (size_t i = 0; i < v[3]; i++) EV_TRY(map_column(t, p, i, (const char *)columns.data + 64 * i, n));
  t->view_changed = true;
  EV_TRY(items_settle(t));
  t->more_items = (ptrdiff_t)n;
  items_show(t, *seq);
  return EV_OK;
}

ev_status items_snapshot_map(ev_items *t, uint64_t generation, uint64_t *seq) {
  char path[4096];
  struct stat st;
  items_path(path, t->folder, "snapshot", generation);
  if (stat(path, &st) != 0) return ev_fail_errno("%s", path);
  EV_TRY((size_t)st.st_size <= VERIFIED_BYTES ? ev_pack_open(&t->pack, path) : ev_pack_map(&t->pack, path));
  atomic_store(&t->snapshot_bytes, (uint64_t)st.st_size);
  memset(&t->table, 0, sizeof t->table);
  return map_table(&t->table, t->pack, seq, &t->options);
}

ev_status ev_items_verify(const ev_items *t) {
  char path[4096];
  for (int tries = 0;; tries++) { /* a compaction may replace it meanwhile */
    ev_pack *p;
    uint64_t generation = atomic_load(&t->snapshot_generation);
    items_path(path, t->folder, "snapshot", generation);
    if (atomic_load(&t->snapshot_bytes) == 0) return EV_OK;
    ev_status status = ev_pack_open(&p, path);
    ev_pack_close(p);
    if (status != EV_ENOTFOUND || tries == 8 || (!t->read_only && generation == atomic_load(&t->snapshot_generation))) return status;
  }
}
