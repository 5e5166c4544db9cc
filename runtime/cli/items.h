/* items.h - what the files of `evection items …` share; private to this room.
 *
 *   items.c         get, delete, stats, list, compact, verify
 *   items_search.c  search
 *   items_put.c     put: JSON Lines into a table
 *   items_data.c    put: a data set's items, with the factors of a model */
#ifndef EV_CLI_ITEMS_H
#define EV_CLI_ITEMS_H

#include "../store/store.h"
#include "cli.h"

typedef enum items_mode { ITEMS_READ, ITEMS_WRITE, ITEMS_CREATE } items_mode;

/* $EVECTION_HOME/items/NAME; the name is checked. */
ev_status cli_items_folder(const json_t *opts, const char *name, char out[4096]);
/* o may be NULL: the defaults. EV_ENOTFOUND says where tables are listed. */
ev_status cli_items_open_named(const json_t *opts, const char *name, items_mode mode, const ev_items_options *o, ev_items **out);
bool cli_items_there(const json_t *opts, const char *name);
size_t cli_items_dims(const ev_items *t); /* 0: no vectors */
ev_status cli_items_find_row(const ev_items_reader *r, const char *table, const char *id, uint32_t *row); /* EV_ENOTFOUND */
json_t *cli_items_value_json(const ev_column *c, uint32_t row); /* NULL: it has none */

typedef struct place { /* where an item stood */
  const char *file;
  size_t line;
} place;

typedef struct putting {
  json_t *opts;
  const char *name;
  ev_items *table;       /* NULL until the first batch is complete, where it is a new one */
  size_t dims;           /* of its vectors; SIZE_MAX: the first will tell */
  ev_item_batch *batch;
  ev_buf places;         /* of place, one an item of the batch */
  json_t *ids;           /* of the batch: id → true */
  size_t batch_rows, batch_bytes;
  size_t n_put;          /* items acknowledged */
  ev_bar bar;
} putting;

/* Puts the batch, or as much of it as comes before the first item that is refused, and says where that stood. */
ev_status cli_items_flush(putting *p);
ev_status cli_items_put_data(putting *p);

/* Numbers of a JSON array → out (n); EV_EINVAL says what is wrong with which. */
ev_status cli_items_read_vector(const json_t *v, float *out);

#endif
