/* import_filter.c - what is kept of the interactions, and which fold each is in. All of it in linear time, but for
 * the sort behind a time cut. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"

/* Moves the kept elements of an array to its front. */
#define KEEP(array)                                                     \
  do {                                                                  \
    size_t to_ = 0;                                                     \
    if ((array) != NULL)                                                \
      for (size_t i_ = 0; i_ < r->n; i_++)                              \
        if (keep[i_]) (array)[to_++] = (array)[i_];                     \
  } while (0)

/* A dictionary of the ids in use, and their new numbers in `number`. */
static ev_status shrink(dict *d, uint32_t *used, size_t n) {
  dict small = {0};
  uint32_t *number = ev_alloc(d->n, sizeof *number);
  if (number == NULL) return EV_ENOMEM;
  memset(number, 0xFF, d->n * sizeof *number);
  ev_status status = EV_OK;
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    uint32_t old = used[i];
    if (number[old] == EV_NONE) status = dict_add(&small, d->bytes + d->ptr[old], d->ptr[old + 1] - d->ptr[old], &number[old]);
    used[i] = number[old];
  }
  ev_free(number);
  dict_free(d);
  *d = small;
  return status;
}

static void keep_column(column *c, const raw *r, const uint8_t *keep, size_t kept) {
  if (c->type == EV_TOKEN_LIST) {
    size_t to = 0, codes = 0;
    for (size_t i = 0; i < c->n; i++) {
      size_t begin = c->ptr[i], n = c->ptr[i + 1] - begin;
      if (!keep[i]) continue;
      memmove(c->codes + codes, c->codes + begin, n * sizeof *c->codes);
      c->ptr[to++] = codes;
      codes += n;
    }
    if (c->ptr != NULL) c->ptr[to] = codes;
    c->n_codes = codes;
  } else if (c->type == EV_FLOAT) {
    KEEP(c->values);
  } else {
    KEEP(c->codes);
  }
  c->n = kept;
}

ev_status keep_rows(raw *r, const uint8_t *keep) {
  size_t kept = 0;
  for (size_t i = 0; i < r->n; i++) kept += keep[i];
  for (size_t c = 0; c < r->columns[EV_INTERACTION].n; c++) {
    EV_TRY(column_pad(&r->columns[EV_INTERACTION].at[c], r->n));
    keep_column(&r->columns[EV_INTERACTION].at[c], r, keep, kept);
  }
  KEEP(r->user);
  KEEP(r->item);
  KEEP(r->line);
  KEEP(r->fold);
  KEEP(r->file);
  KEEP(r->time);
  KEEP(r->rating);
  r->n = kept;
  EV_TRY(shrink(&r->users, r->user, kept));
  return shrink(&r->items, r->item, kept);
}

/* order: interactions grouped by user, in the order of the files within one. begin: (n_users + 1). */
static ev_status group_by_user(const raw *r, uint32_t **order, uint64_t **begin) {
  *order = ev_alloc(r->n, sizeof **order);
  *begin = ev_zalloc(r->users.n + 1, sizeof **begin);
  if (*order == NULL || *begin == NULL) {
    ev_free(*order);
    ev_free(*begin);
    *order = NULL;
    *begin = NULL;
    return EV_ENOMEM;
  }
  for (size_t i = 0; i < r->n; i++) (*begin)[r->user[i] + 1]++;
  for (size_t u = 0; u < r->users.n; u++) (*begin)[u + 1] += (*begin)[u];
  for (size_t i = 0; i < r->n; i++) (*order)[(*begin)[r->user[i]]++] = (uint32_t)i;
  for (size_t u = r->users.n; u > 0; u--) (*begin)[u] = (*begin)[u - 1];
  (*begin)[0] = 0;
  return EV_OK;
}

static ev_status duplicate(const raw *r, uint32_t first, uint32_t second) {
  char user[48], item[48];
  uint32_t u = r->user[second], i = r->item[second];
  return ev_fail(EV_EINVAL, "%s:%u: user %s and item %s stand at %s:%u already; keep one with --duplicates first or last", r->names[r->file[second]],
                 r->line[second], quoted(user, r->users.bytes + r->users.ptr[u], r->users.ptr[u + 1] - r->users.ptr[u]),
                 quoted(item, r->items.bytes + r->items.ptr[i], r->items.ptr[i + 1] - r->items.ptr[i]), r->names[r->file[first]], r->line[first]);
}

ev_status check_duplicates(raw *r) {
  uint32_t *order, *owner = ev_alloc(r->items.n, sizeof *owner), *where = ev_alloc(r->items.n, sizeof *where);
  uint64_t *begin;
  uint8_t *keep = NULL;
  ev_status status = group_by_user(r, &order, &begin);
  if (status == EV_OK && (owner == NULL || where == NULL)) status = EV_ENOMEM;
  if (status != EV_OK) goto done;
  memset(owner, 0xFF, r->items.n * sizeof *owner);
  for (size_t k = 0; k < r->n; k++) {
    uint32_t i = order[k], item = r->item[i], user = r->user[i];
    if (owner[item] == user) {
      if (r->o->duplicates == EV_DUP_ERROR) {
        status = duplicate(r, where[item], i);
        goto done;
      }
      if (keep == NULL) {
        keep = ev_alloc(r->n, 1);
        if (keep == NULL) {
          status = EV_ENOMEM;
          goto done;
        }
        memset(keep, 1, r->n);
      }
      /* last: by time where there is one, else by place in the files */
      bool later = !r->timed || r->time[i] >= r->time[where[item]];
      uint32_t drop = (r->o->duplicates == EV_DUP_LAST) == later ? where[item] : i;
      keep[drop] = 0;
      if (drop == i) continue;
    }
    owner[item] = user;
    where[item] = i;
  }
  if (keep != NULL) status = keep_rows(r, keep);
done:
  ev_free(owner);
  ev_free(where);
  ev_free(order);
  ev_free(begin);
  ev_free(keep);
  return status;
}

/* Drops interactions of users and items with fewer than k, until none has. */
ev_status keep_core(raw *r) {
  uint32_t *users = ev_alloc(r->users.n, sizeof *users), *items = ev_alloc(r->items.n, sizeof *items);
  uint8_t *keep = ev_alloc(r->n, 1);
  ev_status status = users == NULL || items == NULL || keep == NULL ? EV_ENOMEM : EV_OK;
  if (status == EV_OK) memset(keep, 1, r->n);
  for (bool changed = true; changed && status == EV_OK;) {
    changed = false;
    memset(users, 0, r->users.n * sizeof *users);
    memset(items, 0, r->items.n * sizeof *items);
    for (size_t i = 0; i < r->n; i++) users[r->user[i]] += keep[i], items[r->item[i]] += keep[i];
    for (size_t i = 0; i < r->n; i++) {
      if (!keep[i] || (users[r->user[i]] >= r->o->k_core && items[r->item[i]] >= r->o->k_core)) continue;
      keep[i] = 0;
      changed = true;
    }
  }
  if (status == EV_OK) status = keep_rows(r, keep);
  ev_free(users);
  ev_free(items);
  ev_free(keep);
  return status;
}

/* ---- Folds ---------------------------------------------------------------------------------------------*/
static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* Everything from the cut on is later than everything before it: equal times stay together. */
static ev_status cut_by_time(raw *r, int64_t *valid_cut, int64_t *test_cut) {
  int64_t *sorted = ev_alloc(r->n, sizeof *sorted);
  if (sorted == NULL) return EV_ENOMEM;
  memcpy(sorted, r->time, r->n * sizeof *sorted);
  qsort(sorted, r->n, sizeof *sorted, by_value);
  double n = (double)r->n;
  size_t test = (size_t)(n * (1 - r->o->test_share)), valid = (size_t)(n * (1 - r->o->test_share - r->o->valid_share));
  *test_cut = test < r->n ? sorted[test] : INT64_MAX;
  *valid_cut = valid < r->n ? sorted[valid] : INT64_MAX;
  int64_t first = sorted[0];
  ev_free(sorted);
  if (*valid_cut == first) return ev_fail(EV_EINVAL, "a time cut leaves nothing to train on: too many interactions have the same time");
  for (size_t i = 0; i < r->n; i++) r->fold[i] = r->time[i] >= *test_cut ? EV_TEST : r->time[i] >= *valid_cut ? EV_VALID : EV_TRAIN;
  return EV_OK;
}

typedef struct moment {
  int64_t time;
  uint32_t row;
} moment;

static int by_moment(const void *a, const void *b) {
  const moment *x = a, *y = b;
  if (x->time != y->time) return x->time < y->time ? -1 : 1;
  return x->row < y->row ? -1 : x->row > y->row;
}

/* A user's interactions in time order (where timed) or shuffled by his own stream of the seed. */
static void arrange(const raw *r, uint32_t *mine, size_t n, bool shuffle, moment *scratch) {
  if (shuffle) {
    ev_rng rng;
    ev_rng_seed(&rng, r->o->seed, (uint64_t)r->user[mine[0]] + 1);
    for (size_t i = n; i > 1; i--) {
      size_t j = ev_rng_below(&rng, (uint32_t)i);
      uint32_t swap = mine[i - 1];
      mine[i - 1] = mine[j];
      mine[j] = swap;
    }
  } else if (r->timed) {
    for (size_t i = 0; i < n; i++) scratch[i] = (moment){r->time[mine[i]], mine[i]};
    qsort(scratch, n, sizeof *scratch, by_moment);
    for (size_t i = 0; i < n; i++) mine[i] = scratch[i].row;
  }
}

/* How many of a user's n go to test and validation, at least one staying in train. */
static void shares(const raw *r, ev_split split, size_t n, size_t *valid, size_t *test) {
  if (split == EV_SPLIT_LEAVE_ONE_OUT) {
    *valid = *test = n >= 3;
    return;
  }
  *test = split == EV_SPLIT_GIVEN ? 0 : (size_t)floor(r->o->test_share * (double)n + 0.5);
  *valid = (size_t)floor(r->o->valid_share * (double)n + 0.5);
  while (*test + *valid >= n && *test + *valid > 0) --*(*test > *valid ? test : valid);
}

bool cut_in_order(const raw *r, ev_split split) {
  return split == EV_SPLIT_TIME || split == EV_SPLIT_LEAVE_ONE_OUT || split == EV_SPLIT_LAST || (split == EV_SPLIT_GIVEN && (r->timed || r->o->ordered));
}

ev_status cut_folds(raw *r, ev_split split, int64_t *valid_cut, int64_t *test_cut) {
  if (split == EV_SPLIT_TIME) {
    if (!r->timed) return ev_fail(EV_EINVAL, "a time cut, and the files have no times");
    return cut_by_time(r, valid_cut, test_cut);
  }
  if (split == EV_SPLIT_LEAVE_ONE_OUT && !r->timed && !r->sequences) return ev_fail(EV_EINVAL, "leave one out by time, and the files have no times");
  if (split == EV_SPLIT_LAST && !r->timed && !r->sequences) return ev_fail(EV_EINVAL, "each user's last by time, and the files have no times");
  if (split == EV_SPLIT_GIVEN && r->o->valid != NULL) return EV_OK;
  uint32_t *order, *mine = ev_alloc(r->n, sizeof *mine);
  uint64_t *begin;
  moment *scratch = ev_alloc(r->timed ? r->n : 0, sizeof *scratch);
  ev_status status = group_by_user(r, &order, &begin);
  if (status == EV_OK && (mine == NULL || scratch == NULL)) status = EV_ENOMEM;
  for (size_t u = 0; status == EV_OK && u < r->users.n; u++) {
    size_t n = 0, valid, test;
    for (uint64_t k = begin[u]; k < begin[u + 1]; k++)
      if (r->fold[order[k]] == EV_TRAIN) mine[n++] = order[k];
    if (n == 0) continue;
    arrange(r, mine, n, !cut_in_order(r, split), scratch);
    shares(r, split, n, &valid, &test);
    for (size_t i = 0; i < valid; i++) r->fold[mine[n - test - valid + i]] = EV_VALID;
    for (size_t i = 0; i < test; i++) r->fold[mine[n - test + i]] = EV_TEST;
  }
  ev_free(order);
  ev_free(begin);
  ev_free(mine);
  ev_free(scratch);
  return status;
}
