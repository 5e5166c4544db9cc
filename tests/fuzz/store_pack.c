/* store_pack.c (fuzz) - damaged packs and snapshots: refused, or nothing is read out of bounds. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

static const char *input;

static void seed_file(const char *path) {
  ev_buf b = {0};
  FUZZ_REQUIRE(ev_file_read(&b, path, 1 << 24) == EV_OK);
  fuzz_seed(b.data, b.len);
  ev_buf_free(&b);
}

static void seed_snapshot(const char *rows, const char *items, ev_split split) {
  static int number;
  char name[3][32];
  snprintf(name[0], sizeof name[0], "%d.csv", number);
  snprintf(name[1], sizeof name[1], "%d.item", number);
  snprintf(name[2], sizeof name[2], "%d", number++);
  const char *files[2] = {fuzz_path(name[0]), fuzz_path(name[1])}, *out = fuzz_path(name[2]);
  ev_import_options o;
  ev_import_defaults(&o);
  fuzz_write(files[0], rows, strlen(rows));
  if (items != NULL) fuzz_write(files[1], items, strlen(items));
  o.files = files;
  o.n_files = items != NULL ? 2 : 1;
  o.split = split;
  FUZZ_REQUIRE(ev_import(&o, out) == EV_OK);
  seed_file(out);
}

static void make_seeds(void) {
  const float numbers[7] = {1, 2, 3};
  const uint8_t letters[130] = "letters";
  const uint64_t wide[6] = {1, 2, 3};
  ev_pack_writer *w;
  input = fuzz_path("input");
  FUZZ_REQUIRE(ev_pack_writer_open(&w, input, "anything") == EV_OK);
  FUZZ_REQUIRE(ev_pack_write(w, "numbers", EV_F32, numbers, 7, 1) == EV_OK && ev_pack_write(w, "letters", EV_U8, letters, 130, 1) == EV_OK);
  FUZZ_REQUIRE(ev_pack_write(w, "nothing", EV_I64, NULL, 0, 3) == EV_OK && ev_pack_write(w, "wide", EV_U64, wide, 3, 2) == EV_OK);
  FUZZ_REQUIRE(ev_pack_begin(w, "pieces", EV_U8, 13) == EV_OK && ev_pack_append(w, letters, 4) == EV_OK && ev_pack_append(w, letters, 6) == EV_OK);
  FUZZ_REQUIRE(ev_pack_end(w) == EV_OK && ev_pack_writer_commit(w) == EV_OK);
  seed_file(input);
  seed_snapshot("user,item\nu,a\nu,b\nv,a\n", NULL, EV_SPLIT_RATIO);
  seed_snapshot("user,item,time,rating,place\nu1,a,10,4,home\nu2,b,20,3,home\nu1,b,30,5,\nu3,c,40,2.5,away\nu2,a,50,1,away\nu3,a,60,4,home\n",
                "item_id:token\tgenre:token_seq\tyear:float\tmaker:token\na\tx y\t1999\tm\nb\t\t\t\nc\ty\t2001\tn\nd\tz x\t2004\tm\n", EV_SPLIT_TIME);
  seed_snapshot("user,item,time\nu,a,1\nu,b,2\nu,c,3\nu,d,4\nv,a,3\nv,c,1\nv,e,9\n", "item_id:token\ttag:token_seq\na\tp q r\nb\tp\nc\tq p\nd\t\ne\tr r r\n",
                EV_SPLIT_LEAVE_ONE_OUT);
}

static size_t look_at(const void *data, size_t len) {
  const unsigned char *p = data;
  size_t sum = 0;
  for (size_t i = 0; i < len; i++) sum += p[i];
  return sum;
}

static void walk_view(const ev_view *v) {
  const ev_csr *both[2] = {&v->by_user, &v->by_item};
  for (int k = 0; k < 2; k++) {
    FUZZ_REQUIRE(both[k]->ptr[0] == 0 && both[k]->ptr[both[k]->n_rows] == both[1 - k]->ptr[both[1 - k]->n_rows]);
    for (size_t i = 0; i < both[k]->n_rows; i++) {
      FUZZ_REQUIRE(both[k]->ptr[i] <= both[k]->ptr[i + 1]);
      for (uint64_t e = both[k]->ptr[i]; e < both[k]->ptr[i + 1]; e++) FUZZ_REQUIRE(both[k]->idx[e] < both[k]->n_cols);
    }
  }
}

static void walk_views(const ev_snapshot *s) {
  ev_view *v, *rest, *held;
  for (unsigned folds = 0; folds < 8; folds += 3) { /* none; train and validation; validation and test */
    FUZZ_REQUIRE(ev_view_new(&v, s, folds) == EV_OK);
    walk_view(v);
    FUZZ_REQUIRE(ev_view_split(&rest, &held, v, 0.4, 1) == EV_OK);
    walk_view(rest);
    walk_view(held);
    ev_view_free(v);
    ev_view_free(rest);
    ev_view_free(held);
  }
}

static void rerank(const ev_column *c) {
  ev_slate *x = ev_slate_new();
  FUZZ_REQUIRE(x != NULL);
  for (uint32_t i = 0; i < 20; i++) FUZZ_REQUIRE(ev_slate_append(x, &i, &(float){(float)(i * 7 % 11)}, 1, 1) == EV_OK);
  FUZZ_REQUIRE(ev_slate_mmr(x, c, 0.5f, 10) == EV_OK && ev_slate_quota(x, c, 1, 15) == EV_OK && ev_slate_n(x) == 20);
  ev_slate_free(x);
}

static size_t walk_columns(const ev_snapshot *s) {
  size_t rows[3] = {ev_snapshot_n_users(s), ev_snapshot_n_items(s), ev_snapshot_n_interactions(s)}, sum = 0, len;
  for (ev_side side = EV_USER; side <= EV_INTERACTION; side++)
    for (size_t k = 0; k < ev_snapshot_n_columns(s, side); k++) {
      const ev_column *c = ev_snapshot_column_at(s, side, k);
      FUZZ_REQUIRE(c->n_rows == rows[side] && ev_snapshot_column(s, side, c->name) != NULL);
      if (c->type == EV_FLOAT) {
        sum += look_at(c->values, c->n_rows * sizeof *c->values);
        continue;
      }
      size_t n = c->type == EV_TOKEN ? c->n_rows : c->ptr[c->n_rows];
      for (size_t i = 0; c->type == EV_TOKEN_LIST && i < c->n_rows; i++) FUZZ_REQUIRE(c->ptr[i] <= c->ptr[i + 1]);
      for (size_t i = 0; i < n; i++) FUZZ_REQUIRE(c->codes[i] < c->n_tokens || (c->type == EV_TOKEN && c->codes[i] == EV_NONE));
      for (uint32_t t = 0; t < c->n_tokens; t++) {
        const char *token = ev_column_token(c, t, &len);
        sum += look_at(token, len);
      }
      rerank(c);
    }
  return sum;
}

static size_t walk(const ev_snapshot *s) {
  size_t n = ev_snapshot_n_interactions(s), len, sum = 0;
  for (uint32_t u = 0; u < ev_snapshot_n_users(s); u++) {
    const char *id = ev_snapshot_user_id(s, u, &len);
    sum += look_at(id, len) + ev_snapshot_find_user(s, id, len);
  }
  for (uint32_t i = 0; i < ev_snapshot_n_items(s); i++) {
    const char *id = ev_snapshot_item_id(s, i, &len);
    sum += look_at(id, len) + ev_snapshot_find_item(s, id, len);
  }
  FUZZ_REQUIRE(ev_snapshot_find_item(s, "none such", 9) == EV_NONE);
  for (size_t i = 0; i < n; i++) FUZZ_REQUIRE(ev_snapshot_items(s)[i] < ev_snapshot_n_items(s) && ev_snapshot_item_interactions(s)[i] < n);
  if (ev_snapshot_times(s) != NULL) sum += look_at(ev_snapshot_times(s), n * sizeof(int64_t));
  if (ev_snapshot_ratings(s) != NULL) sum += look_at(ev_snapshot_ratings(s), n * sizeof(float));
  walk_views(s);
  return sum + walk_columns(s);
}

static void one(const uint8_t *data, size_t len) {
  ev_pack *p;
  ev_snapshot *s;
  ev_array a, b;
  ev_hash h;
  volatile size_t sum = 0;
  bool sound = ev_pack_validate(data, len, true) == EV_OK;
  FUZZ_REQUIRE(!sound || ev_pack_validate(data, len, false) == EV_OK);
  fuzz_write(input, data, len);
  ev_status status = ev_pack_open(&p, input);
  FUZZ_REQUIRE(status == (sound ? EV_OK : EV_ECORRUPT));
  for (size_t i = 0; sound && i < ev_pack_size(p); i++) {
    const char *name = ev_pack_name(p, i, &a);
    FUZZ_REQUIRE(ev_pack_find(p, name, &b));
    sum = sum + look_at(a.data, a.rows * a.cols * ev_dtype_size(a.dtype));
  }
  if (sound) ev_pack_hash(p, &h);
  ev_pack_close(p);
  bool shallow = ev_pack_validate(data, len, false) == EV_OK;
  status = ev_pack_map(&p, input);
  FUZZ_REQUIRE(status == (shallow ? EV_OK : EV_ECORRUPT));
  for (size_t i = 0; shallow && i < ev_pack_size(p); i++) {
    ev_pack_name(p, i, &a);
    size_t size = a.rows * a.cols * ev_dtype_size(a.dtype);
    FUZZ_REQUIRE(ev_pack_offset(p, &a) <= len && size <= len - ev_pack_offset(p, &a));
    sum = sum + look_at(a.data, size);
  }
  FUZZ_REQUIRE(!shallow || ev_pack_verify(p) == (sound ? EV_OK : EV_ECORRUPT));
  ev_pack_close(p);
  status = ev_snapshot_open(&s, input);
  FUZZ_REQUIRE(status == EV_OK || status == EV_ECORRUPT);
  FUZZ_REQUIRE(status != EV_OK || sound);
  if (status == EV_OK) sum = sum + walk(s);
  ev_snapshot_close(s);
}

const fuzz_target fuzz = {make_seeds, one, fuzz_repair_pack, NULL};
