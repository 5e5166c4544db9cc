/* catalog_world.h - a small data set with a catalog over it, and a board that is plain memory. */
#ifndef TESTS_CATALOG_WORLD_H
#define TESTS_CATALOG_WORLD_H

#include "import_world.h"

#include "../../runtime/serve/inside.h"

#define WORLD_ITEMS 200 /* "i0" … ; a genre or two of "g0" … "g4", a year, every third without; titles */
#define WORLD_USERS 20

static board the_board;
static uint64_t *the_masks;

uint64_t *board_mask(board *b, uint32_t i) { return the_masks + (size_t)i * b->n_mask_words; }

__attribute__((unused)) static void make_board(size_t n_items) {
  the_board.n_mask_words = (uint32_t)((n_items + LIVE_ITEMS_MAX + 63) / 64);
  free(the_masks);
  the_masks = calloc((size_t)MASKS_MAX * the_board.n_mask_words, sizeof *the_masks);
}

static int genre_of(int i) { return i % 5; }
static bool has_year(int i) { return i % 3 != 0; }
static int year_of(int i) { return 1950 + i % 70; }

__attribute__((unused)) static ev_snapshot *make_world(void) {
  ev_buf inter = {0}, items = {0}, people = {0};
  ev_snapshot *s;
  ev_buf_printf(&inter, "user,item,timestamp\n");
  ev_buf_printf(&items, "item_id:token\tgenre:token_seq\tyear:float\ttitle:token_seq\n");
  ev_buf_printf(&people, "user_id:token\tage:float\tjob:token\n");
  for (int u = 0; u < WORLD_USERS; u++)
    for (int k = 0; k < 20; k++) ev_buf_printf(&inter, "u%d,i%d,%d\n", u, (u * 11 + k * 10) % WORLD_ITEMS, 1000 + u + k);
  for (int i = 0; i < WORLD_ITEMS; i++) {
    ev_buf_printf(&items, "i%d\tg%d%s\t", i, genre_of(i), i % 2 == 0 ? " even" : "");
    if (has_year(i)) ev_buf_printf(&items, "%d", year_of(i));
    ev_buf_printf(&items, "\tThe Film %d\n", i);
  }
  for (int u = 0; u < WORLD_USERS; u++) ev_buf_printf(&people, "u%d\t%d\tj%d\n", u, 20 + u, u % 3);
  import_world(&s, EV_SPLIT_TIME, &inter, &people, &items);
  return s;
}

__attribute__((unused)) static catalog *open_catalog(const ev_snapshot *s, const char *name) {
  catalog *c;
  make_board(ev_snapshot_n_items(s));
  if (catalog_open(&c, in_folder(name), s, &the_board) != EV_OK) fail_msg("%s", ev_error());
  return c;
}

__attribute__((unused)) static json_t *json_of(const char *text) { /* with ' for " */
  char *copy = strdup(text);
  for (char *p = copy; *p != '\0'; p++)
    if (*p == '\'') *p = '"';
  json_error_t error;
  json_t *o = json_loads(copy, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
  if (o == NULL) fail_msg("%s: %s", text, error.text);
  free(copy);
  return o;
}

__attribute__((unused)) static ev_status put_text(catalog *c, catalog_side side, const char *text, bool merge) {
  json_t *o = json_of(text);
  const json_t *entry = o;
  ev_status status = catalog_put(c, side, &entry, 1, merge);
  json_decref(o);
  return status;
}

__attribute__((unused)) static void shown_as(catalog *c, catalog_side side, const char *id, const char *text) { /* NULL: not there */
  json_t *is = catalog_get(c, side, id), *should = text != NULL ? json_of(text) : NULL;
  if ((is == NULL) != (should == NULL) || (is != NULL && !json_equal(is, should))) fail_msg("%s is %s\nwanted %s", id, is != NULL ? json_dumps(is, JSON_SORT_KEYS) : "not there", text);
  json_decref(is);
  json_decref(should);
}

#endif
