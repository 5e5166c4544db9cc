/* gbdt_columns.c - a row as trees see it. */
#include <math.h>
#include <string.h>

#include "gbdt.h"

/* Whether every token of a column is a number; fills what each says. */
static bool says_numbers(float *numbers, const ev_column *c) {
  for (uint32_t code = 0; code < c->n_tokens; code++) {
    size_t len;
    double x;
    const char *token = ev_column_token(c, code, &len);
    if (!ev_parse_f64(token, len, &x)) return false;
    numbers[code] = (float)x;
  }
  return true;
}

static ev_status add(ev_tree_column *columns, size_t *n, ev_tree_kind kind, size_t field, size_t code) {
  if (*n == EV_TREE_COLUMNS_MAX) return ev_fail(EV_ELIMIT, "trees take at most %d columns", EV_TREE_COLUMNS_MAX);
  columns[(*n)++] = (ev_tree_column){(uint32_t)kind, (uint32_t)field, (uint32_t)code};
  return EV_OK;
}

ev_status ev_tree_columns(ev_tree_column *columns, size_t *n, float *numbers, const ev_fields *f, const ev_snapshot *s, size_t one_hot) {
  if (one_hot > EV_BINS_MAX - 2) one_hot = EV_BINS_MAX - 2;
  *n = 0;
  for (size_t i = 0; i < ev_fields_n_features(f); i++) numbers[i] = NAN;
  for (size_t i = 0; i < ev_fields_n(f); i++) {
    const ev_rank_field *x = ev_fields_at(f, i);
    const ev_column *c = x->from == EV_FROM_SLATE || x->id ? NULL : ev_snapshot_column(s, x->from == EV_FROM_USER ? EV_USER : EV_ITEM, x->name);
    if (x->type == EV_FLOAT) {
      EV_TRY(add(columns, n, EV_TREE_NUMBER, i, 0));
    } else if (x->type == EV_TOKEN_LIST) {
      if (x->size > one_hot) EV_TRY(add(columns, n, EV_TREE_MEAN, i, 0));
      for (size_t code = 0; code < x->size && x->size <= one_hot; code++) EV_TRY(add(columns, n, EV_TREE_HAS, i, code));
    } else {
      if (c != NULL && says_numbers(numbers + x->offset, c)) EV_TRY(add(columns, n, EV_TREE_TOKEN_NUMBER, i, 0));
      if (x->size <= one_hot && !x->id) {
        EV_TRY(add(columns, n, EV_TREE_CATEGORY, i, 0));
      } else {
        EV_TRY(add(columns, n, EV_TREE_MEAN, i, 0));
        EV_TRY(add(columns, n, EV_TREE_COUNT, i, 0));
      }
    }
  }
  return EV_OK;
}

static float mean_of(const ev_rank_field *x, const float *facts, float prior, const uint32_t *codes, const float *weights) {
  float sum = 0, all = 0;
  for (size_t k = x->slot; k < x->slot + x->n_slots; k++) sum += weights[k] * facts[codes[k] * EV_TOKEN_FACTS + EV_TOKEN_MEAN], all += weights[k];
  return all > 0 ? sum / all : prior;
}

void ev_tree_row(float *out, const ev_tree_column *columns, size_t n, const ev_fields *f, const float *facts, float prior,
                 const uint32_t *codes, const float *weights, const float *values) {
  for (size_t j = 0; j < n; j++) {
    const ev_rank_field *x = ev_fields_at(f, columns[j].field);
    bool has = x->type != EV_FLOAT && weights[x->slot] > 0;
    uint32_t code = x->type != EV_FLOAT ? codes[x->slot] : 0;
    const float *fact = facts + (size_t)code * EV_TOKEN_FACTS;
    switch ((ev_tree_kind)columns[j].kind) {
      case EV_TREE_NUMBER: out[j] = values[x->dense]; break;
      case EV_TREE_TOKEN_NUMBER: out[j] = has ? fact[EV_TOKEN_NUMBER] : NAN; break;
      case EV_TREE_CATEGORY: out[j] = has ? (float)(code - x->offset) : (float)x->size; break;
      case EV_TREE_MEAN: out[j] = mean_of(x, facts, prior, codes, weights); break;
      case EV_TREE_COUNT: out[j] = has && fact[EV_TOKEN_COUNT] > 0 ? fact[EV_TOKEN_COUNT] : NAN; break;
      case EV_TREE_HAS:
        out[j] = 0;
        for (size_t k = x->slot; k < x->slot + x->n_slots; k++)
          if (weights[k] > 0 && codes[k] == x->offset + columns[j].code) out[j] = 1;
        break;
    }
  }
}
