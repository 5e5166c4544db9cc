/* rows.c - batches whose rows are what a ranker learns from, seen through its fields. */
#include <math.h>
#include <string.h>

#include "batches.h"

#define GRAIN 64 /* rows a thread takes at once */

static const ev_word_of words[] = {{"codes", EV_W_CODES, true, EV_ALONG_SLOTS}, {"weights", EV_W_WEIGHTS, false, EV_ALONG_SLOTS},
                                   {"dense", EV_W_DENSE, false, EV_ALONG_DENSE},
                                   {"label", EV_W_LABEL, false, EV_ALONG_ROWS}, {NULL, EV_WORDS, false, EV_ALONG_ROWS}};

typedef struct table {
  const ev_rank_rows *rows;
  ev_fields *fields;     /* owned */
  ev_row_reader *reader; /* owned */
  uint32_t *order;       /* (epoch_rows) rows of the epoch that is arranged */
  uint32_t *held;        /* (n_held) rows that no epoch has, in their order */
  uint8_t *is_held;      /* (n_rows) */
  uint32_t *codes;       /* (n_rows, n_slots) scratch: what nobody asked for is written there */
  float *weights;
} table;

static void close_table(ev_batches *b) {
  table *t = b->state;
  if (t == NULL) return;
  ev_row_reader_free(t->reader);
  ev_fields_free(t->fields);
  ev_free(t->order);
  ev_free(t->held);
  ev_free(t->is_held);
  ev_free(t->codes);
  ev_free(t->weights);
  ev_free(t);
}

/* Of m negatives beside so many positives: how many an epoch has. */
static size_t share_of(const ev_batches *b, const ev_rank_rows *rows, size_t positives, size_t m) {
  double wanted = round(b->o.negatives_per_positive * (double)(positives > 0 ? positives : 1));
  return b->o.negatives_per_positive > 0 && !rows->impressions && wanted < (double)m ? (size_t)wanted : m;
}

/* Goes over the slates: out NULL: how many rows an epoch has; else they are written there, each slate's negatives chosen so that
 * any set of so many is as likely as another (Knuth's algorithm S). */
static size_t choose(const ev_batches *b, const table *t, uint32_t *out, ev_rng *r) {
  const ev_rank_rows *rows = t->rows;
  size_t n = 0;
  for (size_t begin = 0, end; begin < rows->n_rows; begin = end) {
    size_t positives = 0, all = 0;
    for (end = begin; end < rows->n_rows && rows->group[end] == rows->group[begin]; end++) {
      all += !t->is_held[end];
      positives += !t->is_held[end] && rows->label[end] > 0;
    }
    size_t left = all - positives, wanted = all > 0 ? share_of(b, rows, positives, left) : 0;
    if (out == NULL) {
      n += positives + wanted;
      continue;
    }
    for (size_t i = begin; i < end; i++) {
      if (t->is_held[i]) continue;
      bool taken = rows->label[i] > 0;
      if (!taken) {
        taken = ev_rng_below(r, (uint32_t)left--) < wanted;
        wanted -= taken;
      }
      if (taken) out[n++] = (uint32_t)i;
    }
  }
  return n;
}

typedef struct row_job {
  ev_batches *b;
  const uint32_t *rows;
} row_job;

static void fill_rows(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  row_job *j = ctx;
  ev_batches *b = j->b;
  const table *t = b->state;
  bool tokens = b->ids[EV_W_CODES] != NULL || b->values[EV_W_WEIGHTS] != NULL;
  uint32_t *codes = b->ids[EV_W_CODES] != NULL ? b->ids[EV_W_CODES] : t->codes;
  float *weights = b->values[EV_W_WEIGHTS] != NULL ? b->values[EV_W_WEIGHTS] : t->weights, *dense = b->values[EV_W_DENSE];
  ev_row_columns(tokens ? codes + begin * b->n_slots : NULL, tokens ? weights + begin * b->n_slots : NULL,
                 dense != NULL ? dense + begin * b->n_dense : NULL, t->reader, j->rows + begin, 0, end - begin, 0);
  for (size_t i = begin; i < end && b->values[EV_W_LABEL] != NULL; i++) b->values[EV_W_LABEL][i] = t->rows->label[j->rows[i]];
}

static ev_status fill_from(ev_batches *b, const uint32_t *rows, size_t n) {
  EV_TRY(ev_graph_set_live(b->g, b->rows, n));
  row_job j = {b, rows};
  ev_parallel_for(n, GRAIN, fill_rows, &j);
  return EV_OK;
}

static ev_status fill(ev_batches *b, uint64_t step, size_t *n_rows) {
  table *t = b->state;
  uint64_t epoch = step / b->per_epoch, first = step % b->per_epoch * b->n_rows;
  size_t n = b->epoch_rows - first < b->n_rows ? b->epoch_rows - first : b->n_rows;
  if (epoch != b->epoch) {
    ev_rng r;
    ev_rng_seed(&r, ev_batches_key(b, EV_FOR_ORDER, epoch), 0);
    choose(b, t, t->order, &r);
    ev_batches_shuffle(t->order, b->epoch_rows, &r);
    b->epoch = epoch;
  }
  *n_rows = n;
  return fill_from(b, t->order + first, n);
}

static ev_status fill_held(ev_batches *b, size_t first, size_t *n_rows) {
  *n_rows = b->n_held - first < b->n_rows ? b->n_held - first : b->n_rows;
  return fill_from(b, ((const table *)b->state)->held + first, *n_rows);
}

static const ev_batch_kind kind = {words, fill, close_table, fill_held};

/* Which rows no epoch has: each row, or each group, by a draw of its own. */
static ev_status hold(ev_batches *b, table *t) {
  const ev_rank_rows *rows = t->rows;
  uint64_t key = ev_batches_key(b, EV_FOR_WINDOW, 0); /* rows have no windows: the stream is free */
  t->is_held = ev_zalloc(rows->n_rows, sizeof *t->is_held);
  t->held = ev_alloc(rows->n_rows, sizeof *t->held);
  if (t->is_held == NULL || t->held == NULL) return EV_ENOMEM;
  for (size_t i = 0; i < rows->n_rows && b->o.held > 0; i++) {
    ev_rng r;
    ev_rng_seed(&r, key, b->o.held_groups ? rows->group[i] : i);
    if (ev_rng_f64(&r) < b->o.held) t->is_held[i] = 1, t->held[b->n_held++] = (uint32_t)i;
  }
  return EV_OK;
}

static ev_status prepare(ev_batches *b, table *t) {
  if (t->rows->n_rows == 0 || t->rows->n_rows >= EV_NONE) return ev_fail(EV_EINVAL, "a ranker with %zu candidates to learn from", t->rows->n_rows);
  if (!(b->o.negatives_per_positive >= 0)) return ev_fail(EV_EINVAL, "negatives_per_positive %g", b->o.negatives_per_positive);
  if (!(b->o.held >= 0 && b->o.held <= 0.9)) return ev_fail(EV_EINVAL, "held %g is not between 0 and 0.9", b->o.held);
  b->n_slots = ev_fields_n_slots(t->fields);
  b->n_dense = ev_fields_n_dense(t->fields);
  b->n_rows = b->o.size > 0 ? b->o.size : 2048;
  EV_TRY(hold(b, t));
  b->epoch_rows = choose(b, t, NULL, NULL);
  if (b->epoch_rows == 0) return ev_fail(EV_EINVAL, "no candidates to learn from");
  b->per_epoch = (b->epoch_rows - 1) / b->n_rows + 1;
  t->order = ev_alloc(b->epoch_rows, sizeof *t->order);
  t->codes = ev_alloc(b->n_rows, b->n_slots * sizeof *t->codes);
  t->weights = ev_alloc(b->n_rows, b->n_slots * sizeof *t->weights);
  if (t->order == NULL || t->codes == NULL || t->weights == NULL) return EV_ENOMEM;
  EV_TRY(ev_row_reader_of_rows(&t->reader, t->fields, b->v->snapshot, t->rows));
  return ev_graph_axis(b->g, &b->rows, b->n_rows);
}

ev_status ev_rows_new(ev_batches **out, ev_graph *g, const ev_view *v, const ev_rank_rows *rows, ev_fields *fields, const ev_batch_options *o) {
  ev_batch_options plain = *o;
  plain.n_negatives = 0; /* they are rows */
  *out = NULL;
  table *t = ev_zalloc(1, sizeof *t);
  ev_status status = t == NULL ? EV_ENOMEM : ev_batches_new(out, &kind, g, v, &plain);
  if (*out == NULL) {
    ev_free(t);
    ev_fields_free(fields);
    return status;
  }
  *t = (table){.rows = rows, .fields = fields};
  (*out)->state = t;
  if (status == EV_OK) status = prepare(*out, t);
  if (status == EV_OK) return EV_OK;
  ev_batches_free(*out);
  *out = NULL;
  return status;
}

const ev_fields *ev_batches_fields(const ev_batches *b) { return b->kind == &kind ? ((const table *)b->state)->fields : NULL; }
