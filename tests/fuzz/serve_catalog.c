/* serve_catalog.c (fuzz) - damaged entries of the catalog: refused by name, or taken, shown, and the same after another put and after a
 * restart. Conditions over what came of them are compiled or refused. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

#include "../../runtime/serve/inside.h"

static ev_snapshot *world;
static board *the_board;
static uint64_t *masks;
static const char *place, *table, *people;

uint64_t *board_mask(board *b, uint32_t i) { return masks + (size_t)i * b->n_mask_words; }
int fdatasync(int fd) { return fd >= 0 ? 0 : -1; } /* a disk is not what is looked for */
int fsync(int fd) { return fdatasync(fd); }

static const char *const words[] = {"\"id\"", "\"hidden\"", "\"time\"", "\"title\"", "\"comment\"", "\"categories\"", "\"genre\"", "\"birth\"", "null", "true", "false", "[]", "{}", "1e39", "-0.0",
                                    "\"2026-01-31T12:00:00.5+01:00\"", "\"1999\"", "\"\\u0000\"", "\"G\xC3\xA4rten\"", "\"i1\"", "\"_deleted\"", "\"vector\"", ",", ":", NULL};

static void make_seeds(void) {
  static const char *const texts[] = {
      "{\"id\": \"i1\", \"hidden\": true, \"time\": \"2026-01-31T12:00:00.5+01:00\", \"title\": \"x\", \"size\": 4.25}",
      "[{\"id\": \"a\", \"genre\": [\"x\", \"y\"], \"time\": 1.7e9}, {\"id\": 7, \"categories\": \"one\", \"deep\": [1, true, \"z\"]}, {\"id\": \"i2\", \"hidden\": false}]",
      "{\"id\": \"\xC3\xA4\", \"comment\": \"\\\"\\\\\\n\", \"a\": \"1999\", \"b\": null, \"c\": [], \"d\": \"\"}"};
  ev_generate_options o;
  ev_generate_defaults(&o);
  o.n_users = 20;
  o.n_items = 30;
  o.n_sessions_per_user = 3;
  const char *path = fuzz_path("world");
  FUZZ_REQUIRE(ev_generate(&o, path) == EV_OK && ev_snapshot_open(&world, path) == EV_OK);
  the_board = calloc(1, sizeof *the_board);
  the_board->n_mask_words = 2;
  masks = calloc(MASKS_MAX * 2, sizeof *masks);
  place = fuzz_path("catalog");
  table = fuzz_path("catalog/items");
  people = fuzz_path("catalog/users");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) fuzz_seed(texts[i], strlen(texts[i]));
}

static void remove_folder(const char *folder) {
  DIR *d = opendir(folder);
  if (d == NULL) return;
  for (struct dirent *e; (e = readdir(d)) != NULL;)
    if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
  closedir(d);
  FUZZ_REQUIRE(rmdir(folder) == 0);
}

static void remove_tables(void) {
  remove_folder(table);
  remove_folder(people);
  remove_folder(place);
}

static catalog *opened(void) {
  catalog *c;
  FUZZ_REQUIRE(catalog_open(&c, place, world, the_board) == EV_OK);
  return c;
}

static void id_of(const json_t *entry, char out[64 + USER_MAX]) {
  const json_t *id = json_object_get(entry, "id");
  if (json_is_integer(id)) snprintf(out, 64, "%lld", (long long)json_integer_value(id));
  else snprintf(out, 64 + USER_MAX, "%s", json_string_value(id));
}

static void one(const uint8_t *data, size_t len) {
  json_t *o = json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
  const json_t *entries[8];
  json_t *shown[8] = {NULL};
  char id[64 + USER_MAX];
  double t;
  if (catalog_time((const char *)data, len, &t) == EV_OK) FUZZ_REQUIRE(t > -1e12 && t < 1e12);
  if (o == NULL) return;
  size_t n = json_is_array(o) ? json_array_size(o) : 1;
  if (n > 8) n = 8;
  for (size_t i = 0; i < n; i++) entries[i] = json_is_array(o) ? json_array_get(o, i) : o;
  catalog *c = opened();
  ev_status status = catalog_put(c, CATALOG_ITEM, entries, n, false);
  FUZZ_REQUIRE(status == EV_OK || status == EV_EINVAL || status == EV_ELIMIT);
  for (size_t i = 0; i < n && status == EV_OK; i++) {
    id_of(entries[i], id);
    shown[i] = catalog_get(c, CATALOG_ITEM, id);
    FUZZ_REQUIRE(shown[i] != NULL && catalog_find(c, id, strlen(id)) != EV_NONE);
    const json_t *again = shown[i];
    FUZZ_REQUIRE(catalog_put(c, CATALOG_ITEM, &again, 1, i % 2 == 1) == EV_OK);
  }
  for (int restart = 0; restart < 2; restart++) {
    const char *key;
    json_t *v;
    for (size_t i = 0; i < n && status == EV_OK; i++) {
      id_of(entries[i], id);
      json_t *is = catalog_get(c, CATALOG_ITEM, id);
      FUZZ_REQUIRE(json_equal(is, shown[i]));
      FUZZ_REQUIRE(catalog_hidden(c, catalog_find(c, id, strlen(id))) == json_is_true(json_object_get(is, "hidden")));
      json_object_foreach(is, key, v) {
        char where[256];
        uint32_t mask;
        snprintf(where, sizeof where, "\"%s\" ~= nil", key);
        if (strpbrk(key, "\"\\") != NULL || catalog_where(c, where, &mask) != EV_OK) continue;
        if (!json_is_true(json_object_get(is, "hidden"))) FUZZ_REQUIRE(!catalog_barred(c, mask, catalog_find(c, id, strlen(id))));
        catalog_release(c, mask);
      }
      json_decref(is);
    }
    catalog_close(c);
    if (restart == 0) c = opened();
  }
  for (size_t i = 0; i < n; i++) json_decref(shown[i]);
  json_decref(o);
  remove_tables();
}

const fuzz_target fuzz = {make_seeds, one, NULL, words};
