/* items_data.c - `evection items put NAME --data DATA --factors MODEL`: what is known of a data set's items, as a table.
 *
 * The vectors are the item factors of a fitted model (its kind is "factors", see ../learn/ials.c), whose score of a user and an
 * item is the inner product: a table with the metric dot ranks as the model does. An item that nobody had in the training fold
 * has factors of zero, which lie in no direction: it is put without a vector. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../jobs/jobs.h"
#include "items.h"

/* Fits the composition (or finds its artifacts) and gives the path of the one that holds factors. */
static ev_status fit(const putting *p, const char *composition, const char *data, char path[4096]) {
  ev_host_options ho = {.home = ev_opt_home(p->opts)};
  ev_host *host = NULL;
  ev_buf out = {0};
  json_error_t error;
  json_t *opts = json_pack("{s:[s], s:s, s:b, s:b}", "args", composition, "data", data, "json", 1, "quiet", ev_opt_flag(p->opts, "quiet")), *result = NULL;
  char *text = json_dumps(opts, 0);
  ev_status status = text == NULL ? ev_fail(EV_ENOMEM, "out of memory") : ev_host_new(&host, &ho);
  if (status == EV_OK) status = ev_jobs_bind(host);
  if (status == EV_OK) status = ev_host_call(host, "evection.verbs.fit", "main", text, &out);
  if (status == EV_OK) result = json_loadb(out.data, out.len, 0, &error);
  size_t i, found = 0;
  json_t *node;
  json_array_foreach(json_object_get(result, "nodes"), i, node) {
    const char *kind = json_string_value(json_object_get(node, "kind")), *artifact = json_string_value(json_object_get(node, "artifact"));
    if (kind == NULL || artifact == NULL || strcmp(kind, "factors") != 0) continue;
    snprintf(path, 4096, "%s/%s", ev_opt_home(p->opts), artifact);
    found++;
  }
  if (status == EV_OK && found != 1)
    status = ev_fail(EV_EINVAL, "--factors: %zu agents of '%.80s' fit factors, where one is wanted; agent:ials does", found, composition);
  json_decref(opts);
  json_decref(result);
  free(text);
  ev_buf_free(&out);
  ev_host_free(host);
  return status;
}

static ev_status open_factors(const putting *p, const char *data, size_t n_items, ev_pack **pack, ev_array *factors) {
  const char *model = ev_opt_string(p->opts, "factors", NULL);
  size_t len = strlen(model);
  char path[4096];
  if (len > 4 && strcmp(model + len - 4, ".evm") == 0) snprintf(path, sizeof path, "%s", model);
  else EV_TRY(fit(p, model, data, path));
  EV_TRY(ev_pack_open(pack, path));
  if (strcmp(ev_pack_kind(*pack), "factors") != 0) return ev_fail(EV_EINVAL, "%s: a model of kind '%s', not factors", path, ev_pack_kind(*pack));
  EV_TRY(ev_pack_get(*pack, "item", EV_F32, factors));
  if (factors->rows != n_items) return ev_fail(EV_EINVAL, "%s: factors of %zu items, and '%s' has %zu", path, factors->rows, data, n_items);
  return EV_OK;
}

static ev_status add_features(ev_item_batch *b, const ev_snapshot *s, uint32_t item) {
  for (size_t k = 0; k < ev_snapshot_n_columns(s, EV_ITEM); k++) {
    const ev_column *c = ev_snapshot_column_at(s, EV_ITEM, k);
    const uint32_t *codes = NULL;
    size_t len, n = c->type == EV_FLOAT ? 0 : ev_column_tokens(c, item, &codes);
    if (c->type == EV_FLOAT && !isnan(c->values[item])) EV_TRY(ev_item_batch_field(b, c->name, strlen(c->name), EV_FLOAT, (double)c->values[item]));
    if (n > 0) EV_TRY(ev_item_batch_field(b, c->name, strlen(c->name), c->type, 0));
    for (size_t i = 0; i < n; i++) {
      const char *text = ev_column_token(c, codes[i], &len);
      EV_TRY(ev_item_batch_token(b, text, len));
    }
  }
  return EV_OK;
}

static ev_status put_all(putting *p, const char *data, const ev_snapshot *s, const ev_array *factors) {
  size_t n = ev_snapshot_n_items(s), d = factors->cols, len;
  for (uint32_t i = 0; i < n; i++) {
    const float *v = factors->data != NULL ? (const float *)factors->data + i * d : NULL;
    const char *id = ev_snapshot_item_id(s, i, &len);
    bool zero = true;
    float *out;
    for (size_t k = 0; v != NULL && k < d && zero; k++) zero = v[k] == 0;
    EV_TRY(ev_item_batch_add(p->batch, id, len));
    if (!zero) {
      EV_TRY(ev_item_batch_vector(p->batch, d, &out));
      memcpy(out, v, d * sizeof *out);
    }
    EV_TRY(add_features(p->batch, s, i));
    EV_TRY(ev_buf_append(&p->places, &(place){data, i + 1}, sizeof(place)));
    if (ev_item_batch_n(p->batch) < p->batch_rows) continue;
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    EV_TRY(cli_items_flush(p));
    ev_bar_update(&p->bar, (double)p->n_put * 1e-3, (double)n * 1e-3);
  }
  return EV_OK;
}

ev_status cli_items_put_data(putting *p) {
  const char *data = ev_opt_string(p->opts, "data", NULL);
  ev_snapshot *s;
  ev_pack *pack = NULL;
  ev_array factors = {0};
  p->bar.unit = "thousand";
  EV_TRY(ev_data_open(p->opts, data, &s));
  ev_status status = json_object_get(p->opts, "factors") != NULL ? open_factors(p, data, ev_snapshot_n_items(s), &pack, &factors) : EV_OK;
  if (status == EV_OK && p->dims == SIZE_MAX) p->dims = factors.cols;
  if (status == EV_OK && pack != NULL && p->dims != factors.cols)
    status = ev_fail(EV_EINVAL, "factors of %zu numbers; vectors of table '%s' have %zu", factors.cols, p->name, p->dims);
  if (status == EV_OK) status = put_all(p, data, s, &factors);
  if (status == EV_OK) status = cli_items_flush(p);
  ev_pack_close(pack);
  ev_snapshot_close(s);
  return status;
}
