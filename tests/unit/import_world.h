/* import_world.h - a data set from the texts of its files, for the unit tests of what learns from one. */
#ifndef TESTS_IMPORT_WORLD_H
#define TESTS_IMPORT_WORLD_H

#include "store/store.h"
#include "support.h"

/* Imports interactions (CSV) with users and items (atomic files; users may be NULL) and opens the snapshot; frees the texts. */
static void import_world(ev_snapshot **s, ev_split split, ev_buf *inter, ev_buf *users, ev_buf *items) {
  const char *files[3] = {in_folder("world.csv"), in_folder("world.item"), in_folder("world.user")};
  ev_buf *texts[3] = {inter, items, users};
  ev_import_options o;
  ev_import_defaults(&o);
  o.files = files;
  o.n_files = users != NULL ? 3 : 2;
  o.split = split;
  for (size_t i = 0; i < o.n_files; i++) {
    write_text(files[i], texts[i]->data, texts[i]->len);
    ev_buf_free(texts[i]);
  }
  const char *path = in_folder("world");
  if (ev_import(&o, path) != EV_OK || ev_snapshot_open(s, path) != EV_OK) fail_msg("%s", ev_error());
}

#endif
