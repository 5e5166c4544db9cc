/* sequences.c - batches whose rows are the items of users' histories, in order.
 *
 * An epoch: the users are shuffled, sorted by length (longest first, like lengths in the shuffled order) and cut into layers
 * of as many users as the epoch has batches; each layer is shuffled and dealt out, a user to each batch. So a batch holds one
 * user of each layer, longest first, and no batch has more rows than the longest users of all layers together, which is
 * what memory is planned for: on Amazon Beauty 256 sequences of at most 50 items need room for some 1 600 rows, where a
 * plain shuffle, which may draw the 256 longest together, needs 12 800. */
#include <string.h>

#include "batches.h"

#define GRAIN 8 /* sequences a thread takes at once */

static const ev_word_of words[] = {
    {"item", EV_W_ITEM, true, EV_ALONG_ROWS}, {"target", EV_W_TARGET, true, EV_ALONG_ROWS}, {"position", EV_W_POSITION, true, EV_ALONG_ROWS},
    {"negative", EV_W_NEGATIVE, true, EV_ALONG_NEGATIVES}, {"target_log_q", EV_W_LOG_Q, false, EV_ALONG_ROWS},
    {"negative_log_q", EV_W_NEGATIVE_LOG_Q, false, EV_ALONG_NEGATIVES}, {"target_log_share", EV_W_LOG_SHARE, false, EV_ALONG_ROWS},
    {"item_known", EV_W_ITEM_KNOWN, true, EV_ALONG_ROWS}, {"target_known", EV_W_TARGET_KNOWN, true, EV_ALONG_ROWS},
    {"negative_known", EV_W_NEGATIVE_KNOWN, true, EV_ALONG_NEGATIVES}, {"sequence", EV_W_SEQUENCE, true, EV_ALONG_ROWS},
    {"length", EV_W_LENGTH, true, EV_ALONG_SEQUENCES}, {"last", EV_W_LAST, true, EV_ALONG_SEQUENCES}, {"user", EV_W_USER, true, EV_ALONG_SEQUENCES},
    {"user_known", EV_W_USER_KNOWN, true, EV_ALONG_SEQUENCES}, {NULL, EV_WORDS, false, EV_ALONG_ROWS}};

typedef struct deal {
  size_t n_users, n_layers;
  uint32_t *users;   /* (n_users) of two interactions or more */
  uint32_t *order;   /* (n_users) scratch: shuffled, then sorted */
  uint32_t *sorted;
  uint32_t *place;   /* (max_length + 1) scratch: where the next user of a length goes */
  uint32_t *dealt;   /* (n_layers, per_epoch) a user, EV_NONE where the last layer has none */
  uint32_t *batch;   /* (n_layers) users of the batch that is filled */
  uint32_t *first;   /* (n_layers + 1) their first rows */
} deal;

static size_t length_of(const ev_batches *b, uint32_t user) { /* rows of a user's sequence: each predicts one item */
  const ev_csr *m = &b->v->by_user;
  size_t n = m->ptr[user + 1] - m->ptr[user];
  return n < 2 ? 0 : n - 1 < b->o.max_length ? n - 1 : b->o.max_length;
}

static void close_deal(ev_batches *b) {
  deal *d = b->state;
  if (d == NULL) return;
  uint32_t *all[] = {d->users, d->order, d->sorted, d->place, d->dealt, d->batch, d->first};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ev_free(all[i]);
  ev_free(d);
}

/* sorted = from (n), longest first, the order of equals kept. */
static void sort_by_length(const ev_batches *b, const uint32_t *from) {
  deal *d = b->state;
  size_t longest = b->o.max_length;
  memset(d->place, 0, (longest + 1) * sizeof *d->place);
  for (size_t i = 0; i < d->n_users; i++) d->place[longest - length_of(b, from[i])]++;
  for (size_t l = 0, before = 0; l <= longest; l++) {
    size_t here = d->place[l];
    d->place[l] = (uint32_t)before;
    before += here;
  }
  for (size_t i = 0; i < d->n_users; i++) d->sorted[d->place[longest - length_of(b, from[i])]++] = from[i];
}

static void arrange(ev_batches *b, uint64_t epoch) {
  deal *d = b->state;
  size_t width = b->per_epoch;
  ev_rng r;
  ev_rng_seed(&r, ev_batches_key(b, EV_FOR_ORDER, epoch), 0);
  memcpy(d->order, d->users, d->n_users * sizeof *d->order);
  ev_batches_shuffle(d->order, d->n_users, &r);
  sort_by_length(b, d->order);
  for (size_t l = 0; l < d->n_layers; l++) {
    uint32_t *layer = d->dealt + l * width;
    for (size_t k = 0; k < width; k++) layer[k] = l * width + k < d->n_users ? d->sorted[l * width + k] : EV_NONE;
    ev_batches_shuffle(layer, width, &r);
  }
  b->epoch = epoch;
}

typedef struct sequence_job {
  ev_batches *b;
  uint64_t epoch;
  ev_row_keys keys;
} sequence_job;

static void fill_sequence(const sequence_job *j, size_t s) {
  ev_batches *b = j->b;
  const deal *d = b->state;
  const ev_csr *m = &b->v->by_user;
  uint32_t user = d->batch[s];
  size_t first = d->first[s], n = d->first[s + 1] - first, all = m->ptr[user + 1] - m->ptr[user], spare = all - 1 - n, from = spare;
  ev_rng r;
  if (b->o.window && spare > 0) {
    ev_rng_seed(&r, ev_batches_key(b, EV_FOR_WINDOW, j->epoch), user);
    from = ev_rng_below(&r, (uint32_t)(spare + 1));
  }
  const uint32_t *items = m->idx + m->ptr[user] + from;
  for (size_t i = 0; i < n; i++) {
    size_t row = first + i;
    if (b->ids[EV_W_ITEM] != NULL) b->ids[EV_W_ITEM][row] = items[i];
    if (b->ids[EV_W_TARGET] != NULL) b->ids[EV_W_TARGET][row] = items[i + 1];
    if (b->ids[EV_W_POSITION] != NULL) b->ids[EV_W_POSITION][row] = (uint32_t)(b->o.from_start ? i : n - 1 - i);
    if (b->ids[EV_W_SEQUENCE] != NULL) b->ids[EV_W_SEQUENCE][row] = (uint32_t)s;
    ev_batches_describe(b, &j->keys, row, user, items[i], items[i + 1]);
  }
  if (b->ids[EV_W_LENGTH] != NULL) b->ids[EV_W_LENGTH][s] = (uint32_t)n;
  if (b->ids[EV_W_LAST] != NULL) b->ids[EV_W_LAST][s] = (uint32_t)(first + n - 1);
  if (b->ids[EV_W_USER] != NULL) b->ids[EV_W_USER][s] = user;
  if (b->ids[EV_W_USER_KNOWN] != NULL) { /* rows have the streams before n_rows */
    ev_rng_seed(&r, j->keys.dropout, b->n_rows + s);
    b->ids[EV_W_USER_KNOWN][s] = b->o.id_dropout > 0 && ev_rng_f64(&r) < b->o.id_dropout ? EV_NONE : user;
  }
}

static void fill_range(void *ctx, size_t begin, size_t end, int worker) {
  (void)worker;
  for (size_t s = begin; s < end; s++) fill_sequence(ctx, s);
}

static ev_status fill(ev_batches *b, uint64_t step, size_t *n_rows) {
  deal *d = b->state;
  uint64_t epoch = step / b->per_epoch, k = step % b->per_epoch;
  size_t n = 0;
  if (epoch != b->epoch) arrange(b, epoch);
  d->first[0] = 0;
  for (size_t l = 0; l < d->n_layers; l++) {
    uint32_t user = d->dealt[l * b->per_epoch + k];
    if (user == EV_NONE) continue;
    d->batch[n] = user;
    d->first[n + 1] = d->first[n] + (uint32_t)length_of(b, user);
    n++;
  }
  EV_TRY(ev_graph_set_live(b->g, b->sequences, n));
  EV_TRY(ev_graph_set_live(b->g, b->rows, d->first[n]));
  sequence_job j = {b, epoch, ev_batches_keys(b, step)};
  ev_batches_shared(b, &j.keys);
  ev_parallel_for(n, GRAIN, fill_range, &j);
  *n_rows = d->first[n];
  return EV_OK;
}

static const ev_batch_kind kind = {words, fill, close_deal, NULL};

static ev_status prepare(ev_batches *b) {
  const ev_csr *m = &b->v->by_user;
  size_t size = b->o.size > 0 ? b->o.size : 128, longest = b->o.max_length;
  deal *d = b->state = ev_zalloc(1, sizeof *d);
  if (d == NULL) return EV_ENOMEM;
  for (size_t u = 0; u < m->n_rows; u++) d->n_users += m->ptr[u + 1] - m->ptr[u] >= 2;
  if (d->n_users == 0) return ev_fail(EV_EINVAL, "no user has two interactions: there is nothing to predict");
  b->per_epoch = (d->n_users - 1) / size + 1;
  d->n_layers = (d->n_users - 1) / b->per_epoch + 1;
  d->users = ev_alloc(d->n_users, sizeof *d->users);
  d->order = ev_alloc(d->n_users, sizeof *d->order);
  d->sorted = ev_alloc(d->n_users, sizeof *d->sorted);
  d->place = ev_alloc(longest + 1, sizeof *d->place);
  d->dealt = ev_alloc(d->n_layers, b->per_epoch * sizeof *d->dealt);
  d->batch = ev_alloc(d->n_layers, sizeof *d->batch);
  d->first = ev_alloc(d->n_layers + 1, sizeof *d->first);
  if (d->users == NULL || d->order == NULL || d->sorted == NULL || d->place == NULL || d->dealt == NULL || d->batch == NULL || d->first == NULL) return EV_ENOMEM;
  for (size_t u = 0, n = 0; u < m->n_rows; u++) {
    if (m->ptr[u + 1] - m->ptr[u] >= 2) d->users[n++] = (uint32_t)u;
    b->epoch_rows += length_of(b, (uint32_t)u);
  }
  sort_by_length(b, d->users);
  for (size_t l = 0; l < d->n_layers; l++) b->n_rows += length_of(b, d->sorted[l * b->per_epoch]);
  if (b->n_rows < longest) b->n_rows = longest; /* one whole history: what an encoder is asked about */
  b->n_sequences = d->n_layers;
  EV_TRY(ev_graph_axis(b->g, &b->sequences, b->n_sequences));
  return ev_graph_axis(b->g, &b->rows, b->n_rows);
}

ev_status ev_sequences_new(ev_batches **out, ev_graph *g, const ev_view *v, const ev_batch_options *o) {
  if (o->max_length == 0 || o->max_length > 65536) {
    *out = NULL;
    return ev_fail(EV_EINVAL, "sequences of at most %zu items: 1 to 65536", o->max_length);
  }
  ev_status status = ev_batches_new(out, &kind, g, v, o);
  if (status == EV_OK) status = prepare(*out);
  if (status == EV_OK) return EV_OK;
  ev_batches_free(*out);
  *out = NULL;
  return status;
}
