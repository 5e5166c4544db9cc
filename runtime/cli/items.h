/* items.h - what the files of `evection items …` share; private to this room.
 *
 *   items.c      get, delete, search, stats, list, compact, verify
 *   items_put.c  put: JSON Lines into a table */
#ifndef EV_CLI_ITEMS_H
#define EV_CLI_ITEMS_H

#include "../store/store.h"
#include "cli.h"

typedef enum items_mode { ITEMS_READ, ITEMS_WRITE, ITEMS_CREATE } items_mode;

/* $EVECTION_HOME/items/NAME; the name is checked. */
ev_status items_folder(const json_t *opts, const char *name, char out[4096]);
/* o may be NULL: the defaults. EV_ENOTFOUND says where tables are listed. */
ev_status items_open_named(const json_t *opts, const char *name, items_mode mode, const ev_items_options *o, ev_items **out);
bool items_there(const json_t *opts, const char *name);
/* Numbers of a JSON array → out (n); EV_EINVAL says what is wrong with which. */
ev_status items_read_vector(const json_t *v, float *out);

#endif
