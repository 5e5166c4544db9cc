/* store.h - what is known about users and items, and the candidates in flight.
 *
 *   pack      one file of named, typed arrays, checksummed, written whole, mapped read-only
 *   snapshot  a data set in a pack: interactions both ways, ids, feature columns, folds
 *   view      the interactions of some folds, as compressed rows both ways: all that training may see
 *   import    text files → snapshot; and a generated world → snapshot
 *   slate     candidates in flight, as columns
 *   index     vectors, and the k best of them for a query: exact or approximate
 *   where     a predicate over feature columns, compiled
 *   items     a live table of items beside an index: durable, changed while it is read
 *   batch     items on their way into it
 *
 * Read-only objects (pack, snapshot, view) may be shared by threads; a slate belongs to one. An index and a table have
 * one writer at a time, which they see to themselves, and any number of readers, which never wait for it.
 */
#ifndef EV_STORE_H
#define EV_STORE_H

#include "../math/math.h"

/* ---- Pack --------------------------------------------------------------------------------------------*/
typedef enum ev_dtype { EV_U8, EV_U32, EV_U64, EV_I64, EV_F32, EV_F64 } ev_dtype;
size_t ev_dtype_size(ev_dtype t);

typedef struct ev_array {
  const void *data; /* borrowed from the pack until ev_pack_close; 64-byte aligned */
  ev_dtype dtype;
  size_t rows, cols; /* cols = 1 for a vector */
} ev_array;

typedef struct ev_pack ev_pack;
typedef struct ev_pack_writer ev_pack_writer;

ev_status ev_pack_writer_open(ev_pack_writer **out, const char *path, const char *kind); /* kind: at most 31 bytes, e.g. "snapshot", "factors" */
ev_status ev_pack_write(ev_pack_writer *w, const char *name, ev_dtype dtype, const void *data, size_t rows, size_t cols); /* written at once; data is not kept. name: at most 47 bytes, unique */
/* An array in pieces: begin, append whole rows, end. */
ev_status ev_pack_begin(ev_pack_writer *w, const char *name, ev_dtype dtype, size_t cols);
ev_status ev_pack_append(ev_pack_writer *w, const void *data, size_t rows);
ev_status ev_pack_end(ev_pack_writer *w);
ev_status ev_pack_writer_commit(ev_pack_writer *w); /* frees w in every case */
void ev_pack_writer_abort(ev_pack_writer *w);       /* NULL does nothing */

ev_status ev_pack_open(ev_pack **out, const char *path); /* checks the header, bounds and every checksum: EV_ECORRUPT names what is wrong */
void ev_pack_close(ev_pack *p);
const char *ev_pack_kind(const ev_pack *p);
const char *ev_pack_path(const ev_pack *p);
void ev_pack_hash(const ev_pack *p, ev_hash *out); /* content address: of the kind, names, shapes and checksums */
size_t ev_pack_size(const ev_pack *p);             /* number of arrays */
const char *ev_pack_name(const ev_pack *p, size_t i, ev_array *out); /* the i-th array */
bool ev_pack_find(const ev_pack *p, const char *name, ev_array *out);
ev_status ev_pack_get(const ev_pack *p, const char *name, ev_dtype dtype, ev_array *out); /* EV_ECORRUPT when absent or of another type */
ev_status ev_pack_map(ev_pack **out, const char *path); /* as ev_pack_open, but arrays are not read: milliseconds whatever the size. ev_pack_verify does */
ev_status ev_pack_verify(const ev_pack *p);             /* every checksum: EV_ECORRUPT */
uint64_t ev_pack_offset(const ev_pack *p, const ev_array *a); /* where the array lies in the file; those of a page or more start on a page boundary */
bool ev_pack_current(const ev_pack *p); /* the file under its path is still this one: asked after mapping more of it by ev_region_map */
ev_status ev_pack_validate(const void *data, size_t size, bool deep); /* what ev_pack_open runs; fuzzed */

/* ---- Feature columns -----------------------------------------------------------------------------------*/
typedef enum ev_column_type { EV_TOKEN, EV_TOKEN_LIST, EV_FLOAT } ev_column_type;
typedef enum ev_side { EV_USER, EV_ITEM, EV_INTERACTION } ev_side;

typedef struct ev_column { /* everything borrowed from the snapshot */
  const char *name;
  ev_column_type type;
  size_t n_rows;
  const float *values;       /* FLOAT: (n_rows), NaN = missing */
  const uint32_t *codes;     /* TOKEN: (n_rows), EV_NONE = missing; TOKEN_LIST: (ptr[n_rows]) */
  const uint64_t *ptr;       /* TOKEN_LIST: (n_rows + 1), or where lengths is set (n_rows) */
  const uint32_t *lengths;   /* TOKEN_LIST of a live table: (n_rows); NULL: ptr[row + 1] − ptr[row] */
  size_t n_codes;            /* where lengths is set: of codes. A list that does not lie in them is empty: damage */
  size_t n_tokens;           /* vocabulary size, in order of first appearance */
  const uint64_t *token_ptr; /* (n_tokens + 1) into token_bytes */
  const char *token_bytes;
  const struct ev_ids *ids;  /* of a live table: the vocabulary as what finds a token at once, inside an epoch; NULL: it is walked */
} ev_column;

const char *ev_column_token(const ev_column *c, uint32_t code, size_t *len); /* not NUL-terminated */
size_t ev_column_tokens(const ev_column *c, size_t row, const uint32_t **codes); /* of a TOKEN or TOKEN_LIST row: how many, and the first; none behind the last row */
double ev_column_alike(const ev_column *c, size_t a, size_t b); /* Jaccard index of two rows' tokens as sets; 0 when neither has any */

/* ---- Snapshot ------------------------------------------------------------------------------------------
 * Interactions are user-major; within a user by time where there is a time, else in the order of the file
 * (train before valid before test for given folds). Users and items are numbered from 0 in order of first
 * appearance in the interactions, then in the feature files. */
typedef enum ev_fold { EV_TRAIN = 1, EV_VALID = 2, EV_TEST = 4 } ev_fold; /* a set of folds is a sum of these */

typedef struct ev_snapshot ev_snapshot;
ev_status ev_snapshot_open(ev_snapshot **out, const char *path); /* validates every index: afterwards nothing reads out of bounds */
void ev_snapshot_close(ev_snapshot *s);
void ev_snapshot_hash(const ev_snapshot *s, ev_hash *out);
size_t ev_snapshot_n_users(const ev_snapshot *s);
size_t ev_snapshot_n_items(const ev_snapshot *s);
size_t ev_snapshot_n_interactions(const ev_snapshot *s);
const uint64_t *ev_snapshot_user_ptr(const ev_snapshot *s); /* (n_users + 1) */
const uint32_t *ev_snapshot_items(const ev_snapshot *s);    /* (n_interactions) */
const uint64_t *ev_snapshot_item_ptr(const ev_snapshot *s); /* (n_items + 1) into the next */
const uint32_t *ev_snapshot_item_interactions(const ev_snapshot *s); /* (n_interactions) positions, ascending within an item */
const uint8_t *ev_snapshot_folds(const ev_snapshot *s);     /* (n_interactions) of ev_fold */
const int64_t *ev_snapshot_times(const ev_snapshot *s);     /* (n_interactions) in seconds; NULL when untimed */
const float *ev_snapshot_ratings(const ev_snapshot *s);     /* (n_interactions); NULL when unrated */
const char *ev_snapshot_user_id(const ev_snapshot *s, uint32_t user, size_t *len); /* not NUL-terminated */
const char *ev_snapshot_item_id(const ev_snapshot *s, uint32_t item, size_t *len);
uint32_t ev_snapshot_find_user(const ev_snapshot *s, const char *id, size_t len); /* EV_NONE: unknown. O(1) */
uint32_t ev_snapshot_find_item(const ev_snapshot *s, const char *id, size_t len);
size_t ev_snapshot_n_columns(const ev_snapshot *s, ev_side side);
const ev_column *ev_snapshot_column_at(const ev_snapshot *s, ev_side side, size_t i);
const ev_column *ev_snapshot_column(const ev_snapshot *s, ev_side side, const char *name); /* NULL: no such */
int64_t ev_snapshot_cut_time(const ev_snapshot *s, ev_fold fold); /* time cut: first second of that fold; INT64_MIN otherwise */
bool ev_snapshot_sequential(const ev_snapshot *s); /* a user's later folds hold what came later (time cut, leave one out, last), so training may hold out its own last */

/* ---- View ----------------------------------------------------------------------------------------------*/
typedef struct ev_csr {
  size_t n_rows, n_cols;
  const uint64_t *ptr;  /* (n_rows + 1) */
  const uint32_t *idx;  /* (ptr[n_rows]) column of each entry */
  const float *rating;  /* same length; NULL when unrated */
  const int64_t *time;  /* same length, seconds; NULL when untimed */
} ev_csr;

typedef struct ev_view {
  const ev_snapshot *snapshot; /* borrowed: must outlive the view */
  unsigned folds;              /* the folds it was made of */
  ev_csr by_user;              /* a user's items, oldest first */
  ev_csr by_item;              /* an item's users, ascending */
  const uint32_t *seen;        /* as by_user.idx, ascending within a user: rows at by_user.ptr */
} ev_view;

ev_status ev_view_new(ev_view **out, const ev_snapshot *s, unsigned folds);
/* Cuts a view in two: held takes of every user with at least 2 interactions ⌈share·n⌉ (never all), the last ones when
 * the snapshot is sequential, else a seeded choice: as the folds themselves were cut. What a ranker learns from. */
ev_status ev_view_split(ev_view **rest, ev_view **held, const ev_view *v, double share, uint64_t seed);
/* The same of at most n_users users, a seeded choice among those with at least 2; the others keep all they have. What early
 * stopping is measured on. */
ev_status ev_view_hold(ev_view **rest, ev_view **held, const ev_view *v, double share, size_t n_users, uint64_t seed);
/* What users block, block + n_blocks, block + 2 n_blocks, … have in a view; the others have nothing. A figure that is told of whole
 * views only is told of each block, so that its error can be seen. */
ev_status ev_view_block(ev_view **out, const ev_view *v, size_t block, size_t n_blocks);
void ev_view_free(ev_view *v);
bool ev_sorted_has(const uint32_t *sorted, size_t n, uint32_t x); /* of ascending numbers, such as a user's in seen */

/* ---- Import --------------------------------------------------------------------------------------------*/
typedef enum ev_format { EV_FORMAT_AUTO, EV_FORMAT_LISTS, EV_FORMAT_ATOMIC, EV_FORMAT_CSV, EV_FORMAT_TSV, EV_FORMAT_JSONL } ev_format;
typedef enum ev_split { EV_SPLIT_AUTO, EV_SPLIT_GIVEN, EV_SPLIT_LEAVE_ONE_OUT, EV_SPLIT_TIME, EV_SPLIT_RATIO, EV_SPLIT_LAST } ev_split;
typedef enum ev_duplicates { EV_DUP_ERROR, EV_DUP_FIRST, EV_DUP_LAST } ev_duplicates;

typedef struct ev_import_options { /* zero-initialise, then set; see ev_import_defaults */
  const char *const *files; /* interaction files, feature files (.user, .item) in any order */
  size_t n_files;
  const char *train, *valid, *test; /* files of given folds; any may be NULL */
  ev_format format;
  bool ordered;             /* lists: a row is in time order (else a set) */
  const char *user, *item, *rating, *time; /* column names; NULL = the usual ones */
  unsigned k_core;          /* repeat until every user and item has this many; 0 = off */
  double min_rating;        /* interactions rated below are left out; -INFINITY = off */
  ev_duplicates duplicates;
  ev_split split;
  double valid_share, test_share; /* ratio, last and time cut, default 0.1 and 0.2; given split without validation: valid_share of train, default 0.1 */
  uint64_t seed;
  void (*progress)(void *ctx, uint64_t done_bytes, uint64_t all_bytes); /* may be NULL */
  void *progress_ctx;
} ev_import_options;

void ev_import_defaults(ev_import_options *o);
/* Reads the files and writes a snapshot to path, whole or not at all. EV_EINVAL: "FILE:LINE: …". */
ev_status ev_import(const ev_import_options *o, const char *path);

typedef struct ev_generate_options {
  size_t n_users, n_items, n_sessions_per_user;
  uint64_t seed;
} ev_generate_options;
void ev_generate_defaults(ev_generate_options *o); /* a world about the size of MovieLens 100K */
/* A world of users with drifting tastes, items with features and birth dates, slates with position-biased
 * clicks; the clicks are the interactions, split by time. Same seed, same bytes. */
ev_status ev_generate(const ev_generate_options *o, const char *path);

/* ---- Slate ---------------------------------------------------------------------------------------------
 * Candidates as columns of equal length. item, score and source are always there; further float columns are
 * made by name. A column pointer holds until the next call that changes the slate's capacity or columns. */
#define EV_SLATE_MAX_COLUMNS 64
#define EV_SLATE_MAX_ITEMS 65536

typedef struct ev_slate ev_slate;
ev_slate *ev_slate_new(void); /* NULL: out of memory */
void ev_slate_free(ev_slate *s);
void ev_slate_clear(ev_slate *s);  /* no candidates, no extra columns; memory kept */
size_t ev_slate_n(const ev_slate *s);
uint32_t *ev_slate_items(ev_slate *s);
float *ev_slate_scores(ev_slate *s);
uint32_t *ev_slate_sources(ev_slate *s); /* bit b: recall b of the composition proposed it */
ev_status ev_slate_append(ev_slate *s, const uint32_t *items, const float *scores, size_t n, uint32_t source); /* stops at EV_NONE; extra columns get 0 */
ev_status ev_slate_column(ev_slate *s, const char *name, float **out); /* finds or makes (zeros); name at most 47 bytes; EV_ELIMIT */
float *ev_slate_find(ev_slate *s, const char *name); /* NULL: no such */
size_t ev_slate_n_columns(const ev_slate *s);
const char *ev_slate_column_name(const ev_slate *s, size_t i);
float *ev_slate_column_at(ev_slate *s, size_t i);
ev_status ev_slate_sort(ev_slate *s);                 /* by score descending, then item ascending; NaN last; all columns move along */
ev_status ev_slate_best(ev_slate *s, size_t n);       /* the first n after sorting; the others are gone */
void ev_slate_truncate(ev_slate *s, size_t n);
ev_status ev_slate_permute(ev_slate *s, const uint32_t *order, size_t n); /* keeps order[0..n): distinct rows; EV_EINVAL otherwise */
ev_status ev_slate_copy(ev_slate *out, const ev_slate *s);
/* The union of several slates: one row an item, ordered by item of first appearance; sources or-ed; score 0;
 * columns "score.NAME" (0 where absent) and "rank.NAME" (1-based; 0 where absent) for each input, and the
 * inputs' own extra columns (first holder wins). */
ev_status ev_slate_union(ev_slate *out, ev_slate *const *in, const char *const *names, size_t n_in);

/* Greedy re-ranking of the first n places; the rest keeps its order behind them.
 * mmr: argmax λ s(i) − (1−λ) max_{j chosen} sim(i, j), scores scaled to [0, 1] first (Carbonell and Goldstein
 * 1998); sim is the Jaccard index of the items' tokens in a TOKEN or TOKEN_LIST column.
 * quota: at most cap of the first n may share a token of the column; then the best of what is left fills up.
 * cap: the same by a column of the slate's own, whose numbers say what is alike (clusters of items, say); score is one.
 * dpp: greedy maximum of log det of the determinantal point process with kernel Lᵢⱼ = qᵢ Sᵢⱼ qⱼ (Chen, Zhang and Zhou 2018):
 * qᵢ = exp(θ s(i) / (2 (1 − θ))), scores scaled to [0, 1], Sᵢᵢ = 1, Sᵢⱼ = alike · sim(i, j). 0 <= θ < 1 is how much scores
 * count, 0 <= alike <= 1 how much being alike does; at 1, no two items of the same tokens are chosen. It stops early when
 * nothing left adds to the determinant.
 * calibrated: argmax (1−λ) s(i) − λ KL(p ‖ (1−α) q + α p), scores scaled to [0, 1]; p and q are the shares of the column's
 * tokens in the history and in what is chosen with i, an item of m tokens giving 1/m to each (Steck 2018). A history without
 * tokens leaves the slate as it is. */
ev_status ev_slate_mmr(ev_slate *s, const ev_column *c, float lambda, size_t n);
ev_status ev_slate_quota(ev_slate *s, const ev_column *c, size_t cap, size_t n);
ev_status ev_slate_cap(ev_slate *s, const char *column, size_t cap, size_t n); /* EV_EINVAL: no such column */
ev_status ev_slate_dpp(ev_slate *s, const ev_column *c, float theta, float alike, size_t n);
ev_status ev_slate_calibrate(ev_slate *s, const ev_column *c, const uint32_t *history, size_t n_history, float lambda, float alpha, size_t n);

/* ---- Index -----------------------------------------------------------------------------------------------
 * Vectors by row number, and the k best for a query. Rows are the caller's numbers, from 0 and dense: memory goes with
 * the highest. Scores: dot, cosine, l2 (−|q − x|²) as in math.h: more is nearer.
 *
 *   flat  exact                                    every row is looked at; batches go through BLAS
 *   hnsw  hierarchical small world graph           Malkov and Yashunin 2018; deleted rows are unlinked and their
 *                                                  neighbours joined
 *   ivf   lists around k-means centres             n_probe of them are looked at
 *
 * `form` is what search reads (f32, f16, bf16, i8). With rescore the f32 vectors are kept beside a smaller form, and the best are
 * ordered by them.
 *
 * Threads: any number of readers while one writer works (a second waits); a reader finds every row that was live
 * before it began and is not deleted meanwhile. Same seed, same calls: the same bits, whatever the number of threads. */
typedef struct ev_index_options { /* ev_index_defaults, then set */
  const char *kind;      /* "flat", "hnsw", "ivf"; default "hnsw" */
  const char *metric;    /* "dot", "cosine", "l2"; default "dot" */
  const char *form;      /* default "i8" */
  bool rescore;          /* default true; means nothing for f32 */
  size_t n_dims;         /* 1 … 65536; no default */
  size_t max_rows;       /* address space is reserved for so many; default 2^26 */
  unsigned n_links;      /* hnsw: links of a node above the ground level, twice as many on it; default 16 */
  unsigned effort_build; /* hnsw: candidates kept while inserting; default 200 */
  unsigned n_lists;      /* ivf: 0 = 4 √n. Lists are made when 4096 rows are there, and anew when there are 8 times as many */
  unsigned effort;       /* of a search that names none. hnsw: candidates kept (default 64); ivf: lists of mean length looked at (default 32) */
  uint64_t seed;
} ev_index_options;
void ev_index_defaults(ev_index_options *o);

typedef struct ev_search { /* zero-initialise, then set */
  size_t k;
  unsigned effort;          /* 0 = the index's own */
  bool walk;                /* by the kind's own way, where a plain scan is thought cheaper too: for who wants its time, not the exact answer */
  const uint64_t *allowed;  /* bit i of word i / 64: row i may be found; NULL: all. Rows beyond n_allowed may not */
  size_t n_allowed;         /* bits */
  bool (*pass)(void *ctx, uint32_t row); /* a further condition, or NULL; called from several threads, for live rows only */
  uint64_t (*pass_word)(void *ctx, uint32_t row, uint64_t of); /* the same of rows row … row + 63 at once, those set in `of`; NULL: pass alone is asked */
  void *pass_ctx;
  double pass_share;        /* about how many of the rows pass, in (0, 1]; 0 = unknown. Chooses the way, not the answer */
  const uint64_t *seen_ptr; /* (n_queries + 1) or NULL: rows that a query leaves out, */
  const uint32_t *seen;     /* ascending within a query */
  size_t *n_looked_at;      /* out, or NULL: vectors compared, all queries together */
} ev_search;

typedef struct ev_index ev_index;
ev_status ev_index_new(ev_index **out, const ev_index_options *o); /* EV_EINVAL names the option */
void ev_index_free(ev_index *x);
/* All or none. @param rows (n) distinct and not live: EV_EEXIST names one that is. @param vectors (n, n_dims) finite: EV_EINVAL
 * names the row. Threaded. A row deleted before is waited for until its last readers have left. EV_ELIMIT, EV_ENOMEM, EV_EINTR. */
ev_status ev_index_put(ev_index *x, const uint32_t *rows, const float *vectors, size_t n);
ev_status ev_index_delete(ev_index *x, const uint32_t *rows, size_t n); /* EV_ENOTFOUND names a row that is not live; all or none */
bool ev_index_has(const ev_index *x, uint32_t row);
ev_status ev_index_get(const ev_index *x, uint32_t row, float *out); /* out (n_dims): as it was put, or decoded where only a smaller form is kept. EV_ENOTFOUND */
/* The k best live rows of each query that may be found, in ev_topk's order and padding. Filters act during the search:
 * k rows come back when k exist. @param q (m, n_dims) finite  @param[out] rows, scores (m, k). Threaded over queries. */
ev_status ev_index_search(const ev_index *x, const float *q, size_t m, const ev_search *s, uint32_t *rows, float *scores);
size_t ev_index_n(const ev_index *x);      /* live rows */
size_t ev_index_n_rows(const ev_index *x); /* one more than the highest row ever put */
size_t ev_index_bytes(const ev_index *x);  /* memory in use, mapped pages included */
const ev_index_options *ev_index_opts(const ev_index *x); /* borrowed */
ev_epochs *ev_index_epochs(const ev_index *x); /* which searches enter; for a caller that hangs more on a row */
/* Writes the index into a pack as arrays "index.…". keep (n_keep): the rows that stay, renumbered 0, 1, …; NULL: all
 * live rows under their own numbers. Readers and the writer may go on meanwhile if no row of keep is deleted. */
ev_status ev_index_write(const ev_index *x, ev_pack_writer *w, const uint32_t *keep, size_t n_keep);
/* Maps an index out of a pack; nothing is read yet. Later writes stay in memory. What is wrong in unverified bytes gives
 * wrong answers at worst: every number read from them is checked before it is followed. */
ev_status ev_index_map(ev_index **out, const ev_pack *p, size_t max_rows);

/* ---- Clusters --------------------------------------------------------------------------------------------
 * out (n): the number, below k, of the spherical k-means cluster that each of x (n, d) is in; x are unit vectors, or zero.
 * Threaded; same seed, same numbers for any number of threads. EV_ENOMEM, EV_EINTR. */
ev_status ev_clusters(uint32_t *out, const float *x, size_t n, size_t d, size_t k, unsigned n_rounds, uint64_t seed);

/* ---- Where ------------------------------------------------------------------------------------------------
 * A predicate over feature columns, compiled from text:
 *   genre in {"Drama", "War"} and year >= 1990 and not (title == "x" or price < 2.5)
 * Comparisons: == ~= != < <= > >= in, not in; and, or, not, parentheses. Left of a comparison stands a column, in quotes where its
 * name is not of letters, digits, _ and dots. Text against numbers is an error; only numbers have an order. A token list equals a
 * token, and is in a set, when one of its tokens is. A missing value satisfies no comparison, nor does it when `not` stands before
 * it (the third truth value of SQL); `year == nil` and `year ~= nil` ask for it. Numbers are rounded to 32 bits, as values are. */
typedef struct ev_where ev_where;
typedef const ev_column *ev_where_column_fn(void *ctx, size_t i); /* the i-th column there is; NULL behind the last */
/* columns NULL: only the grammar is checked. What a column's pointers lead to must outlive *out, the ev_column need not; of a column
 * that grows, *out knows the rows and tokens that were there. EV_EINVAL: "where: column 14: …" */
ev_status ev_where_compile(ev_where **out, const char *text, ev_where_column_fn *columns, void *ctx);
void ev_where_free(ev_where *w); /* NULL does nothing */
bool ev_where_holds(const ev_where *w, size_t row); /* rows behind a column's end have no value. Any thread */
/* Of the rows row … row + 63, row a multiple of 64, those whose bit is set in `of` and that hold: for whole tables. The values of
 * all of them are read where there are any. */
uint64_t ev_where_word(const ev_where *w, size_t row, uint64_t of);

/* ---- Items ------------------------------------------------------------------------------------------------
 * A live table: items by id, each with a vector and features, in a folder of its own.
 *
 *   folder/snapshot.G   a pack: everything as it was when it was made, mapped at opening
 *   folder/log.G        what came after it: one checksummed record a call, synced before the call returns
 *
 * Calls that wait at the same time share one sync (group commit). A call is there whole or not at all, also for readers: a
 * search sees the table as it was when it began. Compaction writes snapshot G + 1 beside running readers and writers and
 * then drops the older pair. A record cut short at the log's end (a crash in the middle of a write that nobody was told of)
 * is cut off and counted; anything else wrong is EV_ECORRUPT, and nothing is changed. One process has a table open for
 * writing (EV_EEXIST otherwise); others may open it read-only, and see it as it was then.
 * After a failed write the log is cut back to what was acknowledged and the call fails; where even that fails, or syncing does,
 * so does every later write until the table is opened again.
 * Opening maps the snapshot and replays the log: milliseconds whatever the size, and what putting the log's vectors into the
 * index takes. Snapshots up to 64 MiB are verified then, larger ones by ev_items_verify and before each compaction.
 * Rows and lists of features are used again; ids of deleted items, and tokens that no item has any more, take memory until the
 * table is opened again after a compaction. Threads: all functions, from any. */
typedef struct ev_items ev_items;
typedef struct ev_items_options {
  ev_index_options index;  /* n_dims 0: a table without vectors. Only a new table looks at it */
  bool read_only, create;  /* create: EV_ENOTFOUND otherwise when there is none */
  size_t compact_bytes;    /* a log longer than this and than half the snapshot is compacted in the background; 0 = 64 MiB */
} ev_items_options;
void ev_items_defaults(ev_items_options *o);
ev_status ev_items_open(ev_items **out, const char *folder, const ev_items_options *o);
void ev_items_close(ev_items *t); /* waits for a compaction. No reader may be open, no call running; NULL does nothing */

typedef struct ev_field {
  const char *name;           /* at most 47 bytes */
  ev_column_type type;        /* a column has the type of its first value: EV_EINVAL for another */
  double number;              /* FLOAT */
  const char *const *tokens;  /* TOKEN: one; TOKEN_LIST: n_tokens; UTF-8, at most 65535 bytes each */
  size_t n_tokens;
} ev_field;
typedef struct ev_item {
  const char *id;       /* UTF-8, 1 … 255 bytes, without NUL */
  const float *vector;  /* (n_dims) finite, or NULL: not to be searched for */
  const ev_field *fields;
  size_t n_fields;
} ev_item;
/* Inserts or replaces whole items; durable and visible when it returns. An id twice in one call: EV_EINVAL. */
ev_status ev_items_put(ev_items *t, const ev_item *items, size_t n);
ev_status ev_items_delete(ev_items *t, const char *const *ids, size_t n); /* EV_ENOTFOUND names one that is not there; all or none */
ev_status ev_items_compact(ev_items *t); /* now, and waits */
ev_status ev_items_verify(const ev_items *t); /* reads every checksum of the snapshot: EV_ECORRUPT */

/* A reader: everything it is given holds until its end, and shows one state of the table. Short-lived: rows that are
 * replaced are not used again while it is open. One thread a reader. */
typedef struct ev_items_reader {
  const ev_items *table;
  const void *view;
  uint64_t state;
  unsigned place;
} ev_items_reader;
void ev_items_begin(ev_items_reader *r, const ev_items *t);
void ev_items_end(ev_items_reader *r);
uint32_t ev_items_find(const ev_items_reader *r, const char *id, size_t len); /* the item's row; EV_NONE: not there */
uint32_t ev_items_next(const ev_items_reader *r, uint32_t row); /* the first item's row from this one on: all of them, from 0; EV_NONE: no more */
const char *ev_items_id(const ev_items_reader *r, uint32_t row, size_t *len); /* not NUL-terminated */
ev_status ev_items_vector(const ev_items_reader *r, uint32_t row, float *out); /* EV_ENOTFOUND: it has none */
size_t ev_items_n_columns(const ev_items_reader *r);
const ev_column *ev_items_column_at(const ev_items_reader *r, size_t i); /* rows of this reader; tokens by ev_column_token */
/* q (m, n_dims); where may be NULL. s as for an index: effort, k, seen (rows); its filters are the table's own. */
ev_status ev_items_search(const ev_items_reader *r, const float *q, size_t m, const ev_search *s, const char *where, uint32_t *rows, float *scores);

typedef struct ev_items_stats {
  size_t n_items, n_vectors, n_dims, n_rows, n_columns;
  size_t memory_bytes, log_bytes, snapshot_bytes;
  uint64_t generation, n_commits, n_syncs; /* since opening */
  uint64_t cut_bytes;   /* of a torn tail, at opening */
  double open_ms;
  bool compacting;
  char compact_error[256]; /* why the last compaction failed; "": it did not. The log grows on, and it is tried again when it has doubled */
  char broken[256];        /* why nothing can be written any more; "": it can */
} ev_items_stats;
void ev_items_stat(const ev_items *t, ev_items_stats *out);
const ev_index_options *ev_items_index(const ev_items *t); /* NULL: a table without vectors */

/* ---- Item batch ------------------------------------------------------------------------------------------
 * Items under construction, in memory of their own: what a put is made of where items come as text or from a script. Strings
 * are given with their length and copied; one with a NUL inside is EV_EINVAL. One thread. */
typedef struct ev_item_batch ev_item_batch;
ev_item_batch *ev_item_batch_new(void); /* NULL: out of memory */
void ev_item_batch_free(ev_item_batch *b);
void ev_item_batch_clear(ev_item_batch *b); /* memory is kept */
size_t ev_item_batch_n(const ev_item_batch *b);
size_t ev_item_batch_dims(const ev_item_batch *b); /* of its first vector; 0: none of them has one */
/* An item is begun; what follows is about the last one begun, a token about the last field. */
ev_status ev_item_batch_add(ev_item_batch *b, const char *id, size_t len);
void ev_item_batch_drop(ev_item_batch *b); /* the last one begun, as if it never had been */
ev_status ev_item_batch_vector(ev_item_batch *b, size_t n, float **out); /* out (n): to be filled before the next call */
ev_status ev_item_batch_field(ev_item_batch *b, const char *name, size_t len, ev_column_type type, double number); /* number: of a FLOAT */
ev_status ev_item_batch_token(ev_item_batch *b, const char *s, size_t len);
ev_status ev_item_batch_get(ev_item_batch *b, size_t n_dims, const ev_item **items); /* all of them, until the next call; EV_EINVAL names one whose vector has not n_dims numbers */

#endif
