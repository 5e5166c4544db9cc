/* store_snapshot.c - snapshots: what an import wrote can be walked whole; damage is refused, forgeries read nothing out of bounds. */
#include "pack_bytes.h"

static void make_snapshot(const char *path) {
  static const char rows[] = "user,item,time,rating,place\nu1,a,10,4,home\nu2,b,20,3,home\nu1,b,30,5,\nu3,c,40,2.5,away\nu2,a,50,1,away\nü,a,60,4,home\n";
  static const char items[] = "item_id:token\tgenre:token_seq\tyear:float\tmaker:token\na\tx y\t1999\tm\nb\t\t\t\nc\ty\t2001\tn\nd\tz x\t2004\tm\n";
  char csv[200], item[200];
  snprintf(csv, sizeof csv, "%s.csv", path);
  snprintf(item, sizeof item, "%s.item", path);
  const char *files[] = {csv, item};
  write_text(csv, rows, sizeof rows - 1);
  write_text(item, items, sizeof items - 1);
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = 2;
  assert_int_equal(ev_import(&o, path), EV_OK);
}

static size_t look_at(const char *text, size_t len) { /* every byte, so that a sanitizer sees it read */
  size_t sum = 0;
  for (size_t i = 0; i < len; i++) sum += (unsigned char)text[i];
  return sum;
}

/* Goes everywhere an index of the snapshot can lead: afterwards nothing may be out of bounds. */
static size_t walk(const ev_snapshot *s) {
  size_t n_users = ev_snapshot_n_users(s), n_items = ev_snapshot_n_items(s), n = ev_snapshot_n_interactions(s), len, sum = 0;
  const uint64_t *user_ptr = ev_snapshot_user_ptr(s), *item_ptr = ev_snapshot_item_ptr(s);
  assert_true(user_ptr[0] == 0 && user_ptr[n_users] == n && item_ptr[0] == 0 && item_ptr[n_items] == n);
  for (size_t u = 0; u < n_users; u++) assert_true(user_ptr[u] <= user_ptr[u + 1]);
  for (size_t i = 0; i < n_items; i++) {
    assert_true(item_ptr[i] <= item_ptr[i + 1]);
    for (uint64_t k = item_ptr[i]; k < item_ptr[i + 1]; k++) {
      assert_true(ev_snapshot_item_interactions(s)[k] < n);
      assert_int_equal(ev_snapshot_items(s)[ev_snapshot_item_interactions(s)[k]], i);
    }
  }
  for (size_t i = 0; i < n; i++) {
    assert_true(ev_snapshot_items(s)[i] < n_items);
    sum += ev_snapshot_folds(s)[i] + (ev_snapshot_times(s) != NULL && ev_snapshot_times(s)[i] > 0) + (ev_snapshot_ratings(s) != NULL && ev_snapshot_ratings(s)[i] > 0);
  }
  for (uint32_t u = 0; u < n_users; u++) {
    const char *id = ev_snapshot_user_id(s, u, &len);
    sum += look_at(id, len) + ev_snapshot_find_user(s, id, len);
  }
  for (uint32_t i = 0; i < n_items; i++) {
    const char *id = ev_snapshot_item_id(s, i, &len);
    sum += look_at(id, len) + ev_snapshot_find_item(s, id, len);
  }
  assert_int_equal(ev_snapshot_find_item(s, "no such item", 12), EV_NONE);
  for (ev_side side = EV_USER; side <= EV_INTERACTION; side++) {
    for (size_t c = 0; c < ev_snapshot_n_columns(s, side); c++) {
      const ev_column *x = ev_snapshot_column_at(s, side, c);
      assert_int_equal(x->n_rows, side == EV_USER ? n_users : side == EV_ITEM ? n_items : n);
      for (size_t i = 0; x->type == EV_FLOAT && i < x->n_rows; i++) sum += x->values[i] > 0;
      size_t n_codes = x->type == EV_FLOAT ? 0 : x->type == EV_TOKEN ? x->n_rows : x->ptr[x->n_rows];
      for (size_t i = 0; x->type == EV_TOKEN_LIST && i < x->n_rows; i++) assert_true(x->ptr[i] <= x->ptr[i + 1]);
      for (size_t i = 0; i < n_codes; i++) assert_true(x->codes[i] < x->n_tokens || (x->type == EV_TOKEN && x->codes[i] == EV_NONE));
      for (uint32_t t = 0; t < x->n_tokens; t++) {
        const char *token = ev_column_token(x, t, &len);
        sum += look_at(token, len);
      }
    }
  }
  return sum;
}

static void a_damaged_snapshot_is_refused(void **s) {
  (void)s;
  char path[160];
  ev_snapshot *x;
  snprintf(path, sizeof path, "%s", in_folder("damaged"));
  make_snapshot(path);
  assert_int_equal(ev_snapshot_open(&x, path), EV_OK);
  assert_true(walk(x) > 0);
  ev_snapshot_close(x);
  ev_snapshot_close(NULL);
  bytes b = read_bytes(path);
  for (size_t i = 0; i < b.size; i++) {
    b.data[i] ^= 0x10;
    rewrite(path, b.data, b.size);
    assert_int_equal(ev_snapshot_open(&x, path), EV_ECORRUPT);
    assert_null(x);
    b.data[i] ^= 0x10;
  }
  for (size_t size = 0; size < b.size; size += 7) {
    rewrite(path, b.data, size);
    assert_int_equal(ev_snapshot_open(&x, path), EV_ECORRUPT);
  }
  free(b.data);
  assert_int_equal(write_small(path, "snapshot", 1), EV_OK); /* a pack, and of the right kind, but not a snapshot */
  assert_int_equal(ev_snapshot_open(&x, path), EV_ECORRUPT);
  assert_int_equal(write_small(path, "factors", 1), EV_OK);
  assert_int_equal(ev_snapshot_open(&x, path), EV_ECORRUPT);
  assert_non_null(strstr(ev_error(), "not a snapshot"));
}

static void a_forged_snapshot_is_refused_or_read_in_bounds(void **s) {
  (void)s;
  static const uint8_t masks[] = {0x01, 0x02, 0x80, 0xFF};
  char path[160];
  ev_snapshot *x;
  size_t opened = 0, refused = 0;
  snprintf(path, sizeof path, "%s", in_folder("forged-snapshot"));
  make_snapshot(path);
  bytes b = read_bytes(path), whole = read_bytes(path);
  size_t table = *word(b, 16), n = *word(b, 8);
  alarm(60); /* a table of ids without a free place would be searched for ever */
  for (size_t e = 0; e < n; e++) { /* each byte of each array, each word all ones, the array all zeros or ones; checksums made good again */
    uint8_t *entry = b.data + table + 96 * e;
    uint64_t at = *word(b, table + 96 * e + 72), size = ev_dtype_size((ev_dtype)entry[48]) * *word(b, table + 96 * e + 56), words = size / 4;
    for (uint64_t i = 0; i < size * sizeof masks + words + 2; i++) {
      if (i < size * sizeof masks) b.data[at + i / sizeof masks] ^= masks[i % sizeof masks];
      else if (i < size * sizeof masks + words) memset(b.data + at + 4 * (i - size * sizeof masks), 0xFF, 4);
      else memset(b.data + at, i % 2 == 0 ? 0 : 0xFF, size);
      *word(b, table + 96 * e + 80) = ev_checksum(b.data + at, size);
      seal(b);
      rewrite(path, b.data, b.size);
      ev_status status = ev_snapshot_open(&x, path);
      if (status == EV_OK) walk(x), opened++;
      else if (status == EV_ECORRUPT) refused++;
      else fail_msg("array %.48s, forgery %d: %s", (const char *)entry, (int)i, ev_error());
      ev_snapshot_close(x);
      memcpy(b.data, whole.data, b.size);
    }
  }
  alarm(0);
  assert_true(opened > 100 && refused > 500); /* both ways were tried: a time may be anything, an index may not */
  free(b.data);
  free(whole.data);
}

static void opening_a_snapshot_survives_faults(void **s) {
  (void)s;
  char path[160];
  ev_snapshot *x;
  snprintf(path, sizeof path, "%s", in_folder("faulty"));
  make_snapshot(path);
  ASSERT_SURVIVES_FAULTS(ev_snapshot_open(&x, path), ev_snapshot_close(x));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_damaged_snapshot_is_refused),
      cmocka_unit_test(a_forged_snapshot_is_refused_or_read_in_bounds),
      cmocka_unit_test(opening_a_snapshot_survives_faults),
  };
  return RUN(tests);
}
