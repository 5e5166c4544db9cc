/* import.c - text files → snapshot: which parser, which folds, what is kept. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "import.h"

void ev_import_defaults(ev_import_options *o) {
  *o = (ev_import_options){.min_rating = -INFINITY, .valid_share = 0.1, .test_share = 0.2, .seed = 1};
}

ev_status raw_add(raw *r, const interaction *x, uint8_t fold, uint8_t file, size_t line) {
  if (r->n == 0) r->timed = x->timed, r->rated = !isnan(x->rating);
  if (x->timed != r->timed) return ev_fail(EV_EINVAL, "%s:%zu: %s", r->names[file], line, r->timed ? "no time here, and times before" : "a time here, and none before");
  if (isnan(x->rating) == r->rated) return ev_fail(EV_EINVAL, "%s:%zu: %s", r->names[file], line, r->rated ? "no rating here, and ratings before" : "a rating here, and none before");
  if (r->n == r->cap) {
    size_t cap = r->cap == 0 ? 1024 : 2 * r->cap;
    struct {
      void **array;
      size_t size;
    } all[] = {{(void **)&r->user, 4}, {(void **)&r->item, 4}, {(void **)&r->line, 4}, {(void **)&r->fold, 1},
               {(void **)&r->file, 1}, {(void **)&r->time, r->timed ? 8 : 0}, {(void **)&r->rating, r->rated ? 4 : 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
      if (all[i].size == 0) continue;
      void *p = ev_resize(*all[i].array, cap, all[i].size);
      if (p == NULL) return EV_ENOMEM;
      *all[i].array = p;
    }
    r->cap = cap;
  }
  if (line > UINT32_MAX) return ev_fail(EV_ELIMIT, "%s: more than 2^32 lines", r->names[file]);
  EV_TRY(dict_add(&r->users, x->user, x->user_len, &r->user[r->n]));
  EV_TRY(dict_add(&r->items, x->item, x->item_len, &r->item[r->n]));
  r->line[r->n] = (uint32_t)line;
  r->fold[r->n] = fold;
  r->file[r->n] = file;
  if (r->timed) r->time[r->n] = x->time;
  if (r->rated) r->rating[r->n] = (float)x->rating;
  r->n++;
  if ((r->n & 0xFFFF) == 0) {
    if (ev_interrupted()) return ev_fail(EV_EINTR, "interrupted");
    if (r->o->progress != NULL) r->o->progress(r->o->progress_ctx, r->bytes_done + r->bytes_here, r->bytes_all);
  }
  return EV_OK;
}

/* ---- Formats -------------------------------------------------------------------------------------------*/
static bool ends_with(const char *s, const char *tail) {
  size_t n = strlen(s), m = strlen(tail);
  return n >= m && strcmp(s + n - m, tail) == 0;
}

static ev_format detect(const char *path, ev_map map) {
  static const struct {
    const char *tail;
    ev_format format;
  } tails[] = {{".inter", EV_FORMAT_ATOMIC}, {".csv", EV_FORMAT_CSV}, {".tsv", EV_FORMAT_TSV}, {".jsonl", EV_FORMAT_JSONL}, {".ndjson", EV_FORMAT_JSONL}};
  for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
    if (ends_with(path, tails[i].tail)) return tails[i].format;
  const char *s = map.data, *newline = memchr(s, '\n', map.size < 65536 ? map.size : 65536);
  size_t len = newline != NULL ? (size_t)(newline - s) : map.size < 65536 ? map.size : 65536;
  if (len > 0 && s[0] == '{') return EV_FORMAT_JSONL;
  bool tab = memchr(s, '\t', len) != NULL, letters = false;
  for (size_t i = 0; i < len && !letters; i++) letters = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z');
  if (letters && tab) return memchr(s, ':', len) != NULL ? EV_FORMAT_ATOMIC : EV_FORMAT_TSV;
  if (memchr(s, ',', len) != NULL) return EV_FORMAT_CSV;
  return EV_FORMAT_LISTS;
}

static ev_status read_file(raw *r, const char *path, uint8_t fold) {
  if (r->n_names == 256) return ev_fail(EV_EINVAL, "%s: more than 256 files", path);
  uint8_t number = (uint8_t)r->n_names;
  r->names[r->n_names++] = path;
  ev_map map;
  EV_TRY(ev_map_open(&map, path));
  ev_status status;
  if (map.size == 0) {
    status = ev_fail(EV_EINVAL, "%s:1: the file is empty", path);
  } else if (ends_with(path, ".user") || ends_with(path, ".item")) {
    status = parse_features(r, path, map, ends_with(path, ".user") ? EV_USER : EV_ITEM);
  } else if (ends_with(path, ".json")) {
    status = parse_attributes(r, path, map);
  } else {
    ev_format format = r->o->format != EV_FORMAT_AUTO ? r->o->format : detect(path, map);
    if (format == EV_FORMAT_LISTS) status = parse_lists(r, path, map, fold, number);
    else if (format == EV_FORMAT_JSONL) status = parse_jsonl(r, path, map, fold, number);
    else status = parse_table(r, path, map, fold, number, format);
  }
  r->bytes_done += map.size;
  r->bytes_here = 0;
  ev_map_close(&map);
  return status;
}

static bool is_feature_file(const char *path) { return ends_with(path, ".user") || ends_with(path, ".item") || ends_with(path, ".json"); }

static ev_status read_interactions(raw *r) {
  const ev_import_options *o = r->o;
  const char *given[3] = {o->train, o->valid, o->test};
  static const uint8_t folds[3] = {EV_TRAIN, EV_VALID, EV_TEST};
  for (size_t i = 0; i < o->n_files; i++)
    if (!is_feature_file(o->files[i])) EV_TRY(read_file(r, o->files[i], EV_TRAIN));
  for (size_t i = 0; i < 3; i++)
    if (given[i] != NULL) EV_TRY(read_file(r, given[i], folds[i]));
  if (r->n == 0) return ev_fail(EV_EINVAL, "no interactions were given");
  return EV_OK;
}

static void count_bytes(raw *r) {
  const ev_import_options *o = r->o;
  const char *given[3] = {o->train, o->valid, o->test};
  struct stat st;
  for (size_t i = 0; i < o->n_files + 3; i++) {
    const char *path = i < 3 ? given[i] : o->files[i - 3];
    if (path != NULL && stat(path, &st) == 0) r->bytes_all += (uint64_t)st.st_size; /* opening it will tell what is wrong */
  }
}

static ev_split choose_split(const raw *r) {
  const ev_import_options *o = r->o;
  if (o->split != EV_SPLIT_AUTO) return o->split;
  if (o->test != NULL || o->valid != NULL) return EV_SPLIT_GIVEN;
  return r->timed ? EV_SPLIT_TIME : r->sequences ? EV_SPLIT_LEAVE_ONE_OUT : EV_SPLIT_RATIO;
}

static ev_status write_snapshot(raw *r, bool sequential, int64_t valid_cut, int64_t test_cut, const char *path) {
  static const uint64_t no_ids[1];
  ev_column *made[3] = {NULL};
  size_t rows[3] = {r->users.n, r->items.n, r->n};
  ev_status status = EV_OK;
  for (int side = 0; side < 3 && status == EV_OK; side++) status = columns_finish(&r->columns[side], rows[side], &made[side]);
  ev_snapshot_parts parts = {
      .n_users = r->users.n, .n_items = r->items.n, .n = r->n,
      .user_ids = {r->users.bytes, r->users.ptr != NULL ? r->users.ptr : no_ids, r->users.n},
      .item_ids = {r->items.bytes, r->items.ptr != NULL ? r->items.ptr : no_ids, r->items.n},
      .user = r->user, .item = r->item, .fold = r->fold, .time = r->timed ? r->time : NULL, .rating = r->rated ? r->rating : NULL,
      .valid_cut = valid_cut, .test_cut = test_cut, .sequential = sequential,
      .user_columns = made[EV_USER], .item_columns = made[EV_ITEM], .interaction_columns = made[EV_INTERACTION],
      .n_user_columns = r->columns[EV_USER].n, .n_item_columns = r->columns[EV_ITEM].n, .n_interaction_columns = r->columns[EV_INTERACTION].n,
  };
  ev_free(r->line); /* not needed any more: the writer's own arrays take its place */
  ev_free(r->file);
  r->line = NULL;
  r->file = NULL;
  if (status == EV_OK) status = ev_snapshot_write(&parts, path);
  for (int side = 0; side < 3; side++) ev_free(made[side]);
  return status;
}

static ev_status check_options(const ev_import_options *o) {
  if (!(o->valid_share >= 0 && o->valid_share < 1) || !(o->test_share >= 0 && o->test_share < 1) || o->valid_share + o->test_share >= 1)
    return ev_fail(EV_EINVAL, "shares of %g and %g leave nothing to train on", o->valid_share, o->test_share);
  if (o->split == EV_SPLIT_GIVEN && o->test == NULL && o->valid == NULL) return ev_fail(EV_EINVAL, "a given split wants --test or --valid");
  return EV_OK;
}

static ev_status import(raw *r, const char *path) {
  const ev_import_options *o = r->o;
  int64_t valid_cut = INT64_MIN, test_cut = INT64_MIN;
  EV_TRY(check_options(o));
  count_bytes(r);
  EV_TRY(read_interactions(r));
  if (isfinite(o->min_rating)) {
    if (!r->rated) return ev_fail(EV_EINVAL, "a least rating, and the files have no ratings");
    uint8_t *keep = ev_alloc(r->n, 1);
    if (keep == NULL) return EV_ENOMEM;
    for (size_t i = 0; i < r->n; i++) keep[i] = r->rating[i] >= o->min_rating;
    ev_status status = keep_rows(r, keep);
    ev_free(keep);
    EV_TRY(status);
  }
  EV_TRY(check_duplicates(r));
  if (o->k_core > 1) EV_TRY(keep_core(r));
  if (r->n == 0) return ev_fail(EV_EINVAL, "no interaction is left (k-core %u, least rating %g)", o->k_core, o->min_rating);
  for (size_t i = 0; i < o->n_files; i++)
    if (is_feature_file(o->files[i])) EV_TRY(read_file(r, o->files[i], EV_TRAIN));
  ev_split split = choose_split(r);
  EV_TRY(cut_folds(r, split, &valid_cut, &test_cut));
  return write_snapshot(r, cut_in_order(r, split), valid_cut, test_cut, path);
}

ev_status ev_import(const ev_import_options *o, const char *path) {
  raw *r = ev_zalloc(1, sizeof *r);
  if (r == NULL) return EV_ENOMEM;
  r->o = o;
  ev_status status = import(r, path);
  void *arrays[] = {r->user, r->item, r->line, r->fold, r->file, r->time, r->rating};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) ev_free(arrays[i]);
  for (int side = 0; side < 3; side++) columns_free(&r->columns[side]);
  dict_free(&r->users);
  dict_free(&r->items);
  ev_free(r);
  return status;
}
