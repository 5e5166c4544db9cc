/* serve_catalog.c - items and users as they are now: what was put stands over the snapshot, also after a restart; conditions let
 * through exactly those that a walk over all entries finds; readers see whole entries while a writer works. */
#include <math.h>
#include <pthread.h>
#include <sys/stat.h>

#include "catalog_world.h"

/* A disk that takes its time, before the C library's. */
static unsigned slow_disk_us;

int fdatasync(int fd) {
  if (slow_disk_us > 0) usleep(slow_disk_us);
  return fd >= 0 ? 0 : -1;
}

int fsync(int fd) { return fdatasync(fd); }

static ev_snapshot *world;

static int make(void **state) {
  if (make_folder(state) != 0) return 1;
  world = make_world();
  return 0;
}

static int unmake(void **state) {
  ev_snapshot_close(world);
  free(the_masks);
  return remove_folder(state);
}

#define OK(x)                                                                                 \
  do {                                                                                        \
    ev_status is_ = (x);                                                                      \
    if (is_ != EV_OK) fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, ev_status_name(is_), ev_error()); \
  } while (0)

static uint32_t found(const catalog *c, const char *id) { return catalog_find(c, id, strlen(id)); }

static void refused(catalog *c, const char *text, ev_status status, const char *message) {
  ev_status is = put_text(c, CATALOG_ITEM, text, false);
  if (is != status || strcmp(ev_error(), message) != 0) fail_msg("%s\nis %s: %s\nwanted %s: %s", text, ev_status_name(is), ev_error(), ev_status_name(status), message);
}

/* ---- Entries -------------------------------------------------------------------------------------------*/
static void without_a_folder_the_snapshot_is_shown_and_nothing_is_written(void **s) {
  (void)s;
  struct stat st;
  ev_buf scratch = {0};
  catalog *c = open_catalog(world, "none");
  assert_int_equal(catalog_n_items(c), WORLD_ITEMS);
  uint32_t i = found(c, "i7"), mask;
  char id[USER_MAX + 1];
  assert_true(catalog_id(c, i, id));
  assert_string_equal(id, "i7");
  assert_false(catalog_id(c, WORLD_ITEMS, id));
  assert_false(catalog_hidden(c, i));
  assert_true(catalog_hidden(c, WORLD_ITEMS));
  assert_string_equal(catalog_title(c, i, &scratch), "The Film 7");
  assert_int_equal(found(c, "nobody"), EV_NONE);
  OK(catalog_where(c, NULL, &mask));
  assert_int_equal(mask, EV_NONE);
  shown_as(c, CATALOG_ITEM, "i7", "{'id': 'i7', 'hidden': false, 'genre': ['g2'], 'year': 1957, 'title': ['The', 'Film', '7']}");
  shown_as(c, CATALOG_USER, "u4", "{'id': 'u4', 'age': 24, 'job': 'j1'}");
  shown_as(c, CATALOG_ITEM, "nobody", NULL);
  assert_int_equal(catalog_delete(c, CATALOG_ITEM, "nobody"), EV_ENOTFOUND);
  catalog_release(c, EV_NONE);
  catalog_close(c);
  assert_int_not_equal(stat(in_folder("none"), &st), 0);
  ev_buf_free(&scratch);
}

static void a_put_replaces_and_a_patch_keeps(void **s) {
  (void)s;
  ev_buf scratch = {0};
  catalog *c = open_catalog(world, "patch");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i7', 'year': 2001.5, 'colour': 'red'}", true));
  shown_as(c, CATALOG_ITEM, "i7", "{'id': 'i7', 'hidden': false, 'genre': ['g2'], 'year': 2001.5, 'title': ['The', 'Film', '7'], 'colour': 'red'}");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i7', 'genre': null, 'hidden': true, 'time': '2026-01-31T12:00:00.25+01:00'}", true));
  shown_as(c, CATALOG_ITEM, "i7", "{'id': 'i7', 'hidden': true, 'year': 2001.5, 'title': ['The', 'Film', '7'], 'colour': 'red', 'time': 1769857200.25}");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i7', 'year': 3}", false));
  shown_as(c, CATALOG_ITEM, "i7", "{'id': 'i7', 'hidden': false, 'year': 3}");
  assert_null(catalog_title(c, found(c, "i7"), &scratch));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i7', 'title': 'Sieben'}", true));
  assert_string_equal(catalog_title(c, found(c, "i7"), &scratch), "Sieben");
  OK(put_text(c, CATALOG_USER, "{'id': 'u4', 'age': 99}", true));
  shown_as(c, CATALOG_USER, "u4", "{'id': 'u4', 'age': 99, 'job': 'j1'}");
  OK(put_text(c, CATALOG_USER, "{'id': 'stranger', 'comment': 'new', 'tags': [true, 5, 'x']}", false));
  shown_as(c, CATALOG_USER, "stranger", "{'id': 'stranger', 'comment': 'new', 'tags': ['true', '5', 'x']}");
  assert_int_equal(put_text(c, CATALOG_USER, "{'id': 'nobody', 'age': 1}", true), EV_ENOTFOUND);
  assert_string_equal(ev_error(), "no such user: 'nobody'");
  catalog_close(c);
  ev_buf_free(&scratch);
}

static void new_items_are_numbered_behind_the_snapshots_in_the_order_they_came(void **s) {
  (void)s;
  catalog *c = open_catalog(world, "new");
  char id[USER_MAX + 1];
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1', 'year': 1999}", false));
  OK(put_text(c, CATALOG_ITEM, "{'id': 77, 'genre': 'g1'}", false));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1', 'year': 2000}", false));
  assert_int_equal(found(c, "n1"), WORLD_ITEMS);
  assert_int_equal(found(c, "77"), WORLD_ITEMS + 1);
  assert_int_equal(catalog_n_items(c), WORLD_ITEMS + 2);
  assert_true(catalog_id(c, WORLD_ITEMS + 1, id));
  assert_string_equal(id, "77");
  shown_as(c, CATALOG_ITEM, "77", "{'id': '77', 'hidden': false, 'genre': ['g1']}"); /* the type that the snapshot's column has */
  OK(catalog_delete(c, CATALOG_ITEM, "n1"));
  assert_int_equal(found(c, "n1"), EV_NONE);
  assert_int_equal(catalog_known(c, "n1", 2), WORLD_ITEMS);
  assert_true(catalog_hidden(c, WORLD_ITEMS));
  shown_as(c, CATALOG_ITEM, "n1", NULL);
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1'}", false));
  assert_int_equal(found(c, "n1"), WORLD_ITEMS);
  assert_false(catalog_hidden(c, WORLD_ITEMS));
  catalog_close(c);
}

static void everything_stands_after_a_restart(void **s) {
  (void)s;
  catalog *c = open_catalog(world, "restart");
  uint32_t mask;
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i3', 'hidden': true}", true));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n1', 'title': 'New'}", false));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n2', 'hidden': true}", false));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n3'}", false));
  OK(catalog_delete(c, CATALOG_ITEM, "i5"));
  OK(catalog_delete(c, CATALOG_ITEM, "i6"));
  OK(catalog_delete(c, CATALOG_ITEM, "n3"));
  OK(catalog_delete(c, CATALOG_USER, "u3"));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i6', 'year': 1}", false)); /* revived */
  for (int round = 0; round < 2; round++) {
    assert_int_equal(found(c, "i5"), EV_NONE);
    assert_int_equal(catalog_delete(c, CATALOG_ITEM, "i5"), EV_ENOTFOUND);
    assert_int_equal(put_text(c, CATALOG_ITEM, "{'id': 'i5', 'year': 1}", true), EV_ENOTFOUND);
    assert_true(catalog_hidden(c, catalog_known(c, "i5", 2)));
    assert_true(catalog_hidden(c, found(c, "i3")));
    assert_true(catalog_hidden(c, found(c, "n2")));
    assert_false(catalog_hidden(c, found(c, "n1")));
    assert_false(catalog_hidden(c, found(c, "i6")));
    shown_as(c, CATALOG_ITEM, "i5", NULL);
    shown_as(c, CATALOG_ITEM, "n3", NULL);
    shown_as(c, CATALOG_USER, "u3", NULL);
    shown_as(c, CATALOG_ITEM, "i6", "{'id': 'i6', 'hidden': false, 'year': 1}");
    shown_as(c, CATALOG_ITEM, "n1", "{'id': 'n1', 'hidden': false, 'title': ['New']}");
    OK(catalog_where(c, NULL, &mask));
    assert_int_equal(mask, 0);
    catalog_close(c);
    c = open_catalog(world, "restart");
  }
  assert_int_equal(catalog_known(c, "n3", 2), EV_NONE);
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i5'}", false));
  assert_false(catalog_hidden(c, found(c, "i5")));
  catalog_close(c);
}

static void wrong_entries_are_refused_by_name_and_nothing_of_their_call_is_kept(void **s) {
  (void)s;
  catalog *c = open_catalog(world, "wrong");
  refused(c, "7", EV_EINVAL, "item 0: not an object");
  refused(c, "{'year': 1}", EV_EINVAL, "item 0: it has no id");
  refused(c, "{'id': ''}", EV_EINVAL, "item 0: id must be a text of 1 to 255 bytes without NUL, or a whole number");
  refused(c, "{'id': 'a\\u0000b'}", EV_EINVAL, "item 0: id must be a text of 1 to 255 bytes without NUL, or a whole number");
  refused(c, "{'id': 1.5}", EV_EINVAL, "item 0: id must be a text of 1 to 255 bytes without NUL, or a whole number");
  refused(c, "{'id': 'x', 'year': 'old'}", EV_EINVAL, "item 'x': field 'year' is a number, here and for others");
  refused(c, "{'id': 'x', 'year': [1]}", EV_EINVAL, "item 'x': field 'year' is a number, here and for others");
  refused(c, "{'id': 'x', 'year': 1e39}", EV_EINVAL, "item 'x': field 'year' is beyond what 32 bits hold");
  refused(c, "{'id': 'x', 'hidden': 1}", EV_EINVAL, "item 'x': field 'hidden' is true or false");
  refused(c, "{'id': 'x', 'vector': [1]}", EV_EINVAL, "item 'x': field 'vector' cannot be kept: vectors belong to models");
  refused(c, "{'id': 'x', '_deleted': 1}", EV_EINVAL, "item 'x': field '_deleted' begins with '_'; such names are kept for the catalog itself");
  refused(c, "{'id': 'x', 'labels': {'a': 1}}", EV_EINVAL, "item 'x': field 'labels' is an object; a field is a number, a text or a list of texts");
  refused(c, "{'id': 'x', 'w': [1.5]}", EV_EINVAL, "item 'x': field 'w' is a list of something else than texts and whole numbers");
  refused(c, "{'id': 'x', 'time': 'soon'}", EV_EINVAL, "item 'x': time: 'soon' is no time; 2026-01-31, or 2026-01-31T12:00:00Z");
  refused(c, "{'id': 'x', 'time': 1769857200000}", EV_EINVAL, "item 'x': field 'time' is in seconds since 1970: this is too far away");
  refused(c, "{'id': 'x', 'a name that is longer than forty-seven bytes ......': 1}", EV_EINVAL,
          "item 'x': field 'a name that is longer than forty-seven bytes ......' has a name that has not 1 to 47 bytes");
  refused(c, "{'id': 'x', 't': 'a\\u0000b'}", EV_EINVAL, "a text with a NUL character: 'a…'");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'first', 'size': 'XL'}", false));
  refused(c, "{'id': 'x', 'size': ['a', 'b']}", EV_EINVAL, "item 'x': field 'size' is one text, here and for others, not a list");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'second', 'size': 42, 'year': '1999'}", false));
  shown_as(c, CATALOG_ITEM, "second", "{'id': 'second', 'hidden': false, 'size': '42', 'year': 1999}");
  json_t *a = json_of("{'id': 'good'}"), *b = json_of("{'id': 'bad', 'hidden': 'no'}");
  const json_t *both[] = {a, b}, *twice[] = {a, a};
  assert_int_equal(catalog_put(c, CATALOG_ITEM, both, 2, false), EV_EINVAL);
  assert_int_equal(catalog_put(c, CATALOG_ITEM, twice, 2, false), EV_EINVAL);
  shown_as(c, CATALOG_ITEM, "good", NULL);
  assert_int_equal(catalog_known(c, "good", 4), EV_NONE);
  assert_int_equal(put_text(c, CATALOG_USER, "{'id': 'u1', 'hidden': true}", false), EV_EINVAL);
  assert_string_equal(ev_error(), "user 'u1': field 'hidden' is of items only");
  OK(catalog_put(c, CATALOG_ITEM, both, 0, false));
  json_decref(a);
  json_decref(b);
  catalog_close(c);
}

static void times_are_read_as_iso_8601_writes_them(void **s) {
  (void)s;
  static const struct { const char *text; double seconds; } good[] = {
      {"1970-01-01", 0}, {"2026-01-31T12:00:00Z", 1769860800}, {"2026-01-31 12:00", 1769860800}, {"2026-01-31T12:00:00.5-0130", 1769866200.5},
      {"2026-01-31t13:00:00+01", 1769860800}, {"2000-02-29", 951782400}, {"1969-12-31T23:59:59Z", -1}, {"0001-01-01T00:00:00Z", -62135596800.0}};
  static const char *const bad[] = {"", "2026", "2026-1-31", "2026-13-01", "2026-02-30", "2026-02-29", "2026-01-31T", "2026-01-31T24:00:00Z", "2026-01-31T12",
                                    "2026-01-31T12:00:00.", "2026-01-31T12:00:00+", "2026-01-31T12:00:00Zz", "2026-01-31x", "2026-00-10", "2026-01-00", "12026-01-01"};
  double t;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    OK(catalog_time(good[i].text, strlen(good[i].text), &t));
    if (fabs(t - good[i].seconds) > 1e-6) fail_msg("%s is %.3f", good[i].text, t);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (catalog_time(bad[i], strlen(bad[i]), &t) != EV_EINVAL) fail_msg("taken: %s", bad[i]);
}

static void pages_show_everyone_once(void **s) {
  (void)s;
  catalog *c = open_catalog(world, "pages");
  char id[32];
  OK(catalog_delete(c, CATALOG_ITEM, "i9"));
  for (int i = 0; i < 7; i++) {
    snprintf(id, sizeof id, "{'id': 'n%d'}", i);
    OK(put_text(c, CATALOG_ITEM, id, false));
  }
  OK(catalog_delete(c, CATALOG_ITEM, "n2"));
  char after[USER_MAX + 1] = "";
  json_t *all = json_object();
  for (int pages = 0;; pages++) {
    json_t *page = catalog_list(c, CATALOG_ITEM, pages > 0 ? after : NULL, 11);
    size_t i, n = json_array_size(page);
    json_t *o;
    json_array_foreach(page, i, o) {
      const char *name = json_string_value(json_object_get(o, "id"));
      assert_null(json_object_get(all, name));
      json_object_set(all, name, o);
      snprintf(after, sizeof after, "%s", name);
    }
    json_decref(page);
    if (n < 11) break;
    if (pages == 3) OK(catalog_delete(c, CATALOG_ITEM, after)); /* which ended a page, and is still where to go on from */
  }
  assert_int_equal(json_object_size(all), WORLD_ITEMS - 1 + 7 - 1);
  assert_null(json_object_get(all, "i9"));
  assert_null(catalog_list(c, CATALOG_ITEM, "nobody", 3));
  json_decref(all);
  catalog_close(c);
}

static void items_that_feedback_names_are_made_but_not_brought_back(void **s) {
  (void)s;
  catalog *c = open_catalog(world, "ensure");
  const char *ids[] = {"i1", "a", "b", "a", "i2"}, *empty[] = {""};
  OK(catalog_delete(c, CATALOG_ITEM, "i2"));
  OK(catalog_ensure(c, ids, 5));
  assert_int_equal(catalog_n_items(c), WORLD_ITEMS + 2);
  assert_int_equal(found(c, "i2"), EV_NONE);
  shown_as(c, CATALOG_ITEM, "a", "{'id': 'a', 'hidden': false}");
  OK(put_text(c, CATALOG_ITEM, "{'id': 'a', 'year': 5}", false));
  OK(catalog_ensure(c, ids, 5));
  shown_as(c, CATALOG_ITEM, "a", "{'id': 'a', 'hidden': false, 'year': 5}");
  assert_int_equal(catalog_ensure(c, empty, 1), EV_EINVAL);
  catalog_close(c);
}

static void there_is_a_last_place_for_new_items(void **s) {
  (void)s;
  catalog *c;
  make_board(WORLD_ITEMS);
  the_board.n_mask_words = (WORLD_ITEMS + 63) / 64; /* no more than the rest of the last word: 256 − 200 */
  OK(catalog_open(&c, in_folder("full"), world, &the_board));
  char ids[57][16];
  const char *list[57];
  for (int i = 0; i < 57; i++) snprintf(ids[i], sizeof ids[i], "n%d", i), list[i] = ids[i];
  assert_int_equal(catalog_ensure(c, list, 57), EV_ELIMIT);
  assert_string_equal(ev_error(), "57 items that the data set has not: at most 56; import them with the data");
  assert_int_equal(catalog_n_items(c), WORLD_ITEMS);
  OK(catalog_ensure(c, list, 56));
  assert_int_equal(put_text(c, CATALOG_ITEM, "{'id': 'more'}", false), EV_ELIMIT);
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n55', 'year': 1}", false));
  uint32_t mask;
  OK(catalog_where(c, "year == 1", &mask));
  assert_false(catalog_barred(c, mask, WORLD_ITEMS + 55));
  assert_true(catalog_barred(c, mask, WORLD_ITEMS + 56));
  catalog_close(c);
}

/* ---- Conditions ------------------------------------------------------------------------------------------*/
static bool has_text(const json_t *o, const char *field, const char *text) { /* of an entry as it is shown */
  const json_t *v = json_object_get(o, field), *one;
  size_t i;
  if (json_is_string(v)) return strcmp(json_string_value(v), text) == 0;
  json_array_foreach(v, i, one)
    if (strcmp(json_string_value(one), text) == 0) return true;
  return false;
}

static double number_of(const json_t *o, const char *field) { return json_object_get(o, field) != NULL ? json_number_value(json_object_get(o, field)) : NAN; }

static bool is_old(const json_t *o) { return number_of(o, "year") < 1980; }
static bool is_even(const json_t *o) { return has_text(o, "genre", "even") && !(number_of(o, "year") >= 1990); }
static bool is_red(const json_t *o) { return has_text(o, "colour", "red") || has_text(o, "genre", "g3"); }
static bool has_no_year(const json_t *o) { return json_object_get(o, "year") == NULL; }
static bool is_recent(const json_t *o) { return number_of(o, "time") >= 1700000000; }

static const struct { const char *where; bool (*holds)(const json_t *o); } conditions[] = {
    {"year < 1980", is_old}, {"genre == 'even' and (year == nil or year < 1990)", is_even}, {"colour == 'red' or genre in {'g3', 'g9'}", is_red},
    {"year == nil", has_no_year}, {"time >= 1700000000", is_recent}};

static void all_as_they_should(catalog *c, uint32_t mask, bool (*holds)(const json_t *o), const char *where, uint64_t seed) {
  for (uint32_t i = 0; i < catalog_n_items(c); i++) {
    char id[USER_MAX + 1];
    assert_true(catalog_id(c, i, id));
    json_t *o = catalog_get(c, CATALOG_ITEM, id);
    bool barred = o == NULL || json_is_true(json_object_get(o, "hidden")) || !holds(o);
    if (catalog_barred(c, mask, i) != barred) fail_msg("seed %d: %s: %s is %s", (int)seed, where, id, barred ? "let through" : "barred");
    json_decref(o);
  }
}

static void random_change(catalog *c, ev_rng *r) {
  char text[256], id[16];
  uint32_t what = ev_rng_below(r, 12);
  if (ev_rng_below(r, 3) > 0) snprintf(id, sizeof id, "i%d", (int)ev_rng_below(r, WORLD_ITEMS));
  else snprintf(id, sizeof id, "n%d", (int)ev_rng_below(r, 150));
  if (what == 0) {
    ev_status status = catalog_delete(c, CATALOG_ITEM, id);
    assert_true(status == EV_OK || status == EV_ENOTFOUND);
    return;
  }
  int n = snprintf(text, sizeof text, "{'id': '%s'", id);
  if (ev_rng_below(r, 2) > 0) n += snprintf(text + n, sizeof text - (size_t)n, ", 'year': %d", 1950 + (int)ev_rng_below(r, 70));
  if (ev_rng_below(r, 2) > 0) n += snprintf(text + n, sizeof text - (size_t)n, ", 'genre': ['g%d', 'even']", (int)ev_rng_below(r, 5));
  if (ev_rng_below(r, 2) > 0) n += snprintf(text + n, sizeof text - (size_t)n, ", 'colour': '%s'", ev_rng_below(r, 2) > 0 ? "red" : "blue");
  if (ev_rng_below(r, 3) == 0) n += snprintf(text + n, sizeof text - (size_t)n, ", 'time': %d", 1699990000 + 1000 * (int)ev_rng_below(r, 20));
  if (ev_rng_below(r, 4) == 0) n += snprintf(text + n, sizeof text - (size_t)n, ", 'hidden': true");
  snprintf(text + n, sizeof text - (size_t)n, "}");
  ev_status status = put_text(c, CATALOG_ITEM, text, what < 6);
  if (status != EV_OK && !(what < 6 && status == EV_ENOTFOUND)) fail_msg("%s: %s", text, ev_error());
}

static void a_condition_lets_through_what_a_walk_over_all_entries_does(void **s) {
  (void)s;
  for (uint64_t seed = 1; seed <= 6; seed++) {
    char name[16];
    ev_rng r;
    uint32_t mask;
    ev_rng_seed(&r, seed, 0);
    snprintf(name, sizeof name, "where%d", (int)seed);
    catalog *c = open_catalog(world, name);
    OK(put_text(c, CATALOG_ITEM, "{'id': 'n0', 'colour': 'blue'}", false)); /* there is such a field from now on */
    for (int round = 0; round < 12; round++) {
      for (size_t k = 0; k < sizeof conditions / sizeof *conditions; k++) {
        OK(catalog_where(c, conditions[k].where, &mask));
        assert_true(mask != 0 && mask != EV_NONE);
        all_as_they_should(c, mask, conditions[k].holds, conditions[k].where, seed);
        catalog_release(c, mask);
      }
      for (int k = 0; k < 40; k++) random_change(c, &r);
      if (round == 6) {
        catalog_close(c);
        c = open_catalog(world, name);
      }
    }
    catalog_close(c);
  }
}

static void a_mask_is_found_again_until_something_changes_and_stays_while_in_use(void **s) {
  (void)s;
  uint32_t a, b, d, all[MASKS_MAX];
  catalog *c = open_catalog(world, "masks");
  OK(catalog_where(c, "year < 1980", &a));
  OK(catalog_where(c, "year < 1980", &b));
  assert_int_equal(a, b);
  uint32_t i8 = found(c, "i8");
  assert_false(catalog_barred(c, a, i8));
  OK(put_text(c, CATALOG_ITEM, "{'id': 'i8', 'year': 2000}", true));
  OK(catalog_where(c, "year < 1980", &b));
  assert_int_not_equal(a, b);
  assert_false(catalog_barred(c, a, i8));
  assert_true(catalog_barred(c, b, i8));
  OK(put_text(c, CATALOG_USER, "{'id': 'u1', 'age': 3}", true)); /* a user changes nothing */
  OK(catalog_where(c, "year < 1980", &d));
  assert_int_equal(b, d);
  catalog_release(c, d);
  catalog_release(c, b);
  catalog_release(c, a);
  catalog_release(c, a);
  OK(catalog_where(c, "year < 1980", &d));
  assert_int_equal(b, d); /* nobody had it, and it was not forgotten */
  catalog_release(c, d);
  for (int i = 1; i < MASKS_MAX; i++) {
    char where[32];
    snprintf(where, sizeof where, "year < %d", i);
    OK(catalog_where(c, where, &all[i]));
    for (int k = 1; k < i; k++) assert_int_not_equal(all[i], all[k]);
  }
  assert_int_equal(catalog_where(c, "year < 1980", &a), EV_ELIMIT);
  assert_int_equal(a, EV_NONE);
  assert_string_equal(ev_error(), "more than 31 conditions at the same time");
  catalog_release(c, all[7]);
  OK(catalog_where(c, "year < 1980", &a));
  assert_int_equal(a, all[7]);
  catalog_close(c);
}

static void a_wrong_condition_is_refused_with_what_was_meant(void **s) {
  (void)s;
  uint32_t mask;
  catalog *c = open_catalog(world, "words");
  OK(catalog_where(c, "categories == 'x' or title == 'y' or time > 3", &mask)); /* always known */
  for (uint32_t i = 0; i < WORLD_ITEMS; i++) assert_true(catalog_barred(c, mask, i));
  assert_int_equal(catalog_where(c, "yaer < 3", &mask), EV_EINVAL);
  assert_string_equal(ev_error(), "where: column 1: no column 'yaer'; did you mean 'year'?");
  assert_int_equal(catalog_where(c, "colour == 'red'", &mask), EV_EINVAL);
  OK(put_text(c, CATALOG_ITEM, "{'id': 'n', 'colour': 'red'}", false));
  OK(catalog_where(c, "colour == 'red'", &mask));
  assert_false(catalog_barred(c, mask, found(c, "n")));
  assert_true(catalog_barred(c, mask, 0));
  assert_int_equal(catalog_where(c, "_hidden == 1", &mask), EV_EINVAL);
  assert_int_equal(catalog_where(c, "", &mask), EV_EINVAL);
  for (int i = 0; i < 100; i++) assert_int_equal(catalog_where(c, "nonsense", &mask), EV_EINVAL); /* and takes no place */
  OK(catalog_where(c, "year > 3", &mask));
  catalog_close(c);
}

/* ---- Threads and faults --------------------------------------------------------------------------------*/
typedef struct shared {
  catalog *c;
  _Atomic bool stop;
  _Atomic uint64_t reads, torn;
} shared;

static void *read_on(void *arg) {
  shared *x = arg;
  uint32_t mask;
  char id[USER_MAX + 1];
  ev_buf scratch = {0};
  while (!x->stop) {
    json_t *o = catalog_get(x->c, CATALOG_ITEM, "i8");
    double year = number_of(o, "year"), twin = number_of(o, "twin");
    if (!(year == twin) && !isnan(twin)) x->torn++;
    json_decref(o);
    if (catalog_where(x->c, "year ~= nil and twin ~= nil or year == 3", &mask) == EV_OK) {
      (void)catalog_barred(x->c, mask, 8);
      catalog_release(x->c, mask);
    }
    uint32_t n = (uint32_t)catalog_n_items(x->c);
    if (!catalog_id(x->c, n - 1, id) || catalog_known(x->c, id, strlen(id)) != n - 1) x->torn++;
    (void)catalog_title(x->c, n - 1, &scratch);
    x->reads++;
  }
  ev_buf_free(&scratch);
  return NULL;
}

static void readers_see_whole_entries_and_do_not_wait_for_the_disk(void **s) {
  (void)s;
  shared x = {.c = open_catalog(world, "threads")};
  pthread_t threads[3];
  char text[128];
  OK(put_text(x.c, CATALOG_ITEM, "{'id': 'i8', 'year': 1, 'twin': 1}", false));
  slow_disk_us = 3000;
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, read_on, &x);
  uint64_t before = x.reads;
  for (int i = 0; i < 60; i++) {
    snprintf(text, sizeof text, "{'id': '%s%d', 'year': %d, 'twin': %d}", i % 2 == 0 ? "i" : "n", i % 2 == 0 ? 8 : i, i, i);
    OK(put_text(x.c, CATALOG_ITEM, text, false));
  }
  uint64_t reads = x.reads - before;
  x.stop = true;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  slow_disk_us = 0;
  assert_int_equal(x.torn, 0);
  assert_true(reads > 60 * 3); /* who waited for every sync would have made one a write */
  catalog_close(x.c);
}

static ev_status open_change_close(void) {
  catalog *c;
  uint32_t mask;
  make_board(WORLD_ITEMS);
  ev_status status = catalog_open(&c, in_folder("faults"), world, &the_board);
  if (status != EV_OK) return status;
  const char *ids[] = {"e1", "e2"};
  status = put_text(c, CATALOG_ITEM, "{'id': 'f1', 'year': 3, 'genre': ['a'], 'time': 5}", false);
  if (status == EV_OK) status = put_text(c, CATALOG_ITEM, "{'id': 'i8', 'year': 4}", true);
  if (status == EV_OK) status = catalog_ensure(c, ids, 2);
  if (status == EV_OK) status = catalog_where(c, "year == 4", &mask);
  if (status == EV_OK && catalog_barred(c, mask, found(c, "i8"))) status = EV_ECORRUPT;
  if (status == EV_OK) status = catalog_delete(c, CATALOG_ITEM, "i9");
  if (status == EV_ENOTFOUND) status = EV_OK; /* an earlier round came as far */
  catalog_close(c);
  return status;
}

static void memory_that_runs_out_breaks_nothing(void **s) {
  (void)s;
  ASSERT_SURVIVES_FAULTS(open_change_close(), (void)0);
}

static void any_json_is_taken_or_refused_and_what_is_taken_comes_back(void **s) {
  (void)s;
  static const char *const values[] = {"1", "-2.5", "1e300", "'x'", "''", "'1999'", "true", "null", "[]", "['a']", "['a', 'b']", "[1, 'a', true]", "[null]", "[[1]]", "{}",
                                       "{'a': 1}", "'2026-01-31'", "1e10", "[2.5]", "'Gärten'"};
  static const char *const names[] = {"year", "genre", "title", "hidden", "time", "comment", "categories", "size", "weight", "tags", "vector", "_x", "naïve name"};
  catalog *c = open_catalog(world, "any");
  ev_rng r;
  int taken = 0;
  ev_rng_seed(&r, 5, 0);
  for (int i = 0; i < 1500; i++) {
    ev_buf text = {0};
    bool used[sizeof names / sizeof *names] = {false};
    ev_buf_printf(&text, "{'id': 'x%d'", (int)ev_rng_below(&r, 20));
    for (uint32_t k = ev_rng_below(&r, 4); k > 0; k--) {
      uint32_t name = ev_rng_below(&r, sizeof names / sizeof *names);
      if (!used[name]) ev_buf_printf(&text, ", '%s': %s", names[name], values[ev_rng_below(&r, sizeof values / sizeof *values)]);
      used[name] = true;
    }
    ev_buf_printf(&text, "}");
    json_t *given = json_of(text.data);
    const json_t *entry = given;
    ev_status status = catalog_put(c, CATALOG_ITEM, &entry, 1, false);
    if (status != EV_OK && status != EV_EINVAL) fail_msg("%s: %s", text.data, ev_error());
    if (status == EV_OK) { /* what is shown, put again, is the same: nothing is lost on the way */
      const char *id = json_string_value(json_object_get(given, "id"));
      json_t *is = catalog_get(c, CATALOG_ITEM, id);
      entry = is;
      OK(catalog_put(c, CATALOG_ITEM, &entry, 1, false));
      json_t *again = catalog_get(c, CATALOG_ITEM, id);
      if (!json_equal(is, again)) fail_msg("%s: %s", text.data, json_dumps(again, 0));
      json_decref(again);
      json_decref(is);
      taken++;
    }
    json_decref(given);
    ev_buf_free(&text);
  }
  assert_true(taken > 300);
  catalog_close(c);
}

/* EVECTION_CATALOG_ITEMS=1000000 says what it takes for so many. */
static void a_mask_over_many_items_is_filled_at_once(void **s) {
  (void)s;
  const char *many = getenv("EVECTION_CATALOG_ITEMS");
  static const char *const wheres[] = {"year < 1980", "maker == 'm7' and year >= 1960", "genre in {'g1', 'g2'}", "genre in {'g1', 'g2'} and not (year < 1960 or maker == 'm3')"};
  int n = many != NULL ? atoi(many) : 41000, n_changed = 2000;
  ev_buf inter = {0}, items = {0};
  ev_snapshot *large;
  ev_buf_printf(&inter, "user,item\nu,i0\nu,i1\nu,i2\n");
  ev_buf_printf(&items, "item_id:token\tmaker:token\tyear:float\tgenre:token_seq\n");
  for (int i = 0; i < n; i++) ev_buf_printf(&items, "i%d\tm%d\t%d\tg%d g%d\n", i, i % 20, 1950 + i % 70, i % 9, 10 + i % 4);
  import_world(&large, EV_SPLIT_RATIO, &inter, NULL, &items);
  assert_int_equal(ev_snapshot_n_items(large), n);
  catalog *c = open_catalog(large, "many");
  for (int changed = 0; changed <= n_changed; changed += n_changed) {
    json_t *some = json_array();
    for (int i = 0; i < changed; i++) json_array_append_new(some, json_pack("{s:o, s:i, s:s}", "id", json_sprintf("%c%d", i % 2 == 0 ? 'i' : 'n', i), "year", 1970 + i % 20, "maker", "m7"));
    const json_t **list = calloc((size_t)changed + 1, sizeof *list);
    for (int i = 0; i < changed; i++) list[i] = json_array_get(some, (size_t)i);
    OK(catalog_put(c, CATALOG_ITEM, list, (size_t)changed, false));
    free(list);
    json_decref(some);
    for (size_t k = 0; k < sizeof wheres / sizeof *wheres; k++) {
      double best = INFINITY;
      uint32_t mask;
      for (int round = 0; round < 9; round++) {
        OK(put_text(c, CATALOG_ITEM, round % 2 == 0 ? "{'id': 'i1', 'hidden': true}" : "{'id': 'i1', 'hidden': false}", true)); /* so that it is filled anew */
        uint64_t began = ev_now_ns();
        OK(catalog_where(c, wheres[k], &mask));
        double ms = (double)(ev_now_ns() - began) * 1e-6;
        if (ms < best) best = ms;
        catalog_release(c, mask);
      }
      if (many != NULL) print_message("%d items, %d of them live: %.3f ms: %s\n", n, changed, best, wheres[k]);
      if (n <= 41000) assert_true(best < 20); /* it takes a hundredth of that, but for sanitizers */
    }
  }
  catalog_close(c);
  ev_snapshot_close(large);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_a_folder_the_snapshot_is_shown_and_nothing_is_written), cmocka_unit_test(a_put_replaces_and_a_patch_keeps),
      cmocka_unit_test(new_items_are_numbered_behind_the_snapshots_in_the_order_they_came), cmocka_unit_test(everything_stands_after_a_restart),
      cmocka_unit_test(wrong_entries_are_refused_by_name_and_nothing_of_their_call_is_kept), cmocka_unit_test(times_are_read_as_iso_8601_writes_them),
      cmocka_unit_test(pages_show_everyone_once), cmocka_unit_test(items_that_feedback_names_are_made_but_not_brought_back),
      cmocka_unit_test(there_is_a_last_place_for_new_items), cmocka_unit_test(a_condition_lets_through_what_a_walk_over_all_entries_does),
      cmocka_unit_test(a_mask_is_found_again_until_something_changes_and_stays_while_in_use), cmocka_unit_test(a_wrong_condition_is_refused_with_what_was_meant),
      cmocka_unit_test(readers_see_whole_entries_and_do_not_wait_for_the_disk), cmocka_unit_test(memory_that_runs_out_breaks_nothing),
      cmocka_unit_test(any_json_is_taken_or_refused_and_what_is_taken_comes_back),
      cmocka_unit_test(a_mask_over_many_items_is_filled_at_once)};
  return cmocka_run_group_tests(tests, make, unmake);
}
