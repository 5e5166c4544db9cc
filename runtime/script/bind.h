/* bind.h - what the binding files share; private to this room.
 *
 * A handle is a userdata whose metatable scripts cannot reach (__metatable = false), checked by luaL_checkudata
 * at each call. What a handle borrows from is anchored in its environment table. Numbers from scripts are range
 * checked before C sees them: lists count from 1, users and items are snapshot indices from 0. */
#ifndef EV_SCRIPT_BIND_H
#define EV_SCRIPT_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "../learn/learn.h"
#include "../reward/reward.h"
#include "../store/store.h"
#include "script.h"

#define EV_VECTOR "ev.vector"
#define EV_SLATE "ev.slate"
#define EV_SNAPSHOT "ev.snapshot"
#define EV_DATA "ev.data"
#define EV_MODEL "ev.model"
#define EV_REQUEST "ev.request"
#define EV_ROWS "ev.rows"
#define EV_INDEX "ev.index"
#define EV_ITEMS "ev.items"
#define EV_GRAPH "ev.graph"   /* a net */
#define EV_TENSOR "ev.tensor"

/* Raises the thread's last error as { status, message }; never returns. */
int ev_lua_fail(lua_State *L, ev_status status);
#define EV_CHECK(L, call)                                   \
  do {                                                      \
    ev_status ev_check_ = (call);                           \
    if (ev_check_ != EV_OK) return ev_lua_fail(L, ev_check_); \
  } while (0)

/* Makes the metatable of a handle: methods by name, and a sealed __metatable. Leaves it on the stack. */
void ev_lua_class(lua_State *L, const char *name, const luaL_Reg *methods);
/* Further methods of a class that is there already. */
void ev_lua_extend(lua_State *L, const char *name, const luaL_Reg *methods);
/* Anchors the value at `owner` to the userdata at `handle`, so that it lives as long. */
void ev_lua_anchor(lua_State *L, int handle, int owner);
/* A whole number within [low, high], or an argument error. */
int64_t ev_lua_integer(lua_State *L, int arg, int64_t low, int64_t high);
/* Field `key` of the options table at `arg`: absent → fallback, wrong type or out of range → error. */
bool ev_lua_field_bool(lua_State *L, int arg, const char *key, bool fallback);
double ev_lua_field_number(lua_State *L, int arg, const char *key, double fallback, double low, double high);
const char *ev_lua_field_string(lua_State *L, int arg, const char *key, const char *fallback);

/* Vectors: n floats, owned or a slate's column. The pointer holds until the next call into Lua. */
float *ev_lua_vector(lua_State *L, int arg, size_t *n);
float *ev_lua_new_vector(lua_State *L, size_t n); /* pushed, not cleared; raises when memory runs out */
/* Before much memory is taken from a Lua heap with a cap: what is not in use any more is freed if it would not fit; LuaJIT's collector goes by
 * the number of objects and lets large ones pile up. */
void ev_lua_make_room(lua_State *L, size_t bytes);
/* A vector or a list of numbers: how many, -1 when it is neither; and its finite numbers, or an error that begins with `what`. */
int64_t ev_lua_n_numbers(lua_State *L, int index);
void ev_lua_numbers(lua_State *L, int index, const char *what, float *out, size_t n);
/* Pushed memory of n * size bytes, at most 2^30 of them, that lives as long as it stands on the stack. */
void *ev_lua_scratch(lua_State *L, size_t n, size_t size);
/* The options table at `arg` has no other keys than these words, or is absent; an error names the one that it has. */
void ev_lua_only(lua_State *L, int arg, const char *words);

/* What a table says of an index: kind, metric, form, rescore, n_dims, max_rows, n_links, effort_build, n_lists, effort, seed. */
#define EV_INDEX_WORDS "kind metric form rescore n_dims max_rows n_links effort_build n_lists effort seed"
void ev_lua_index_options(lua_State *L, int arg, ev_index_options *o);

typedef struct ev_lslate {
  ev_slate *slate; /* owned */
} ev_lslate;
ev_slate *ev_lua_slate(lua_State *L, int arg);

typedef struct ev_lsnapshot {
  ev_snapshot *snapshot; /* owned */
} ev_lsnapshot;
ev_snapshot *ev_lua_snapshot(lua_State *L, int arg);

typedef struct ev_ldata {
  ev_view *view;        /* owned; its snapshot is anchored */
  ev_rank_rows *rows;   /* owned; what a ranker learns from, or NULL */
  char *artifact;       /* owned; where a fit writes, or NULL: this handle cannot fit */
  char *checkpoint;     /* owned; where trainings of this fit keep what they have reached, or NULL: nowhere */
  double checkpoint_s;  /* between two of them */
  uint64_t seed;        /* of a fit that does not name one */
  unsigned n_fits;      /* models made so far: each has its own file */
  unsigned n_discarded; /* of them */
  unsigned n_trainings; /* likewise: each has its own checkpoint */
} ev_ldata;
ev_ldata *ev_lua_data(lua_State *L, int arg);
ev_ldata *ev_lua_new_data(lua_State *L, int of); /* pushed, empty; anchored to the snapshot or the data at `of` */
#define EV_DATA_MODELS 16 /* that one fit may have at a time */

/* A fit of the data at argument 1, its options at 2: where it writes; and the model that it made, pushed. */
typedef struct ev_lfit {
  ev_ldata *data;
  char path[4096];
  ev_progress progress;
} ev_lfit;
void ev_lua_fit_begin(lua_State *L, ev_lfit *f);
int ev_lua_fit_end(lua_State *L, ev_lfit *f, ev_status status);

#define EV_NAMES_MAX 64 /* in a list of columns */
size_t ev_lua_names(lua_State *L, int arg, const char *what, const char *out[EV_NAMES_MAX]);       /* a list of names at `arg`, borrowed from it */
size_t ev_lua_names_field(lua_State *L, int arg, const char *key, const char *out[EV_NAMES_MAX]); /* field `key` of the options at `arg`; none: 0 */
/* The feature columns that are used where none are named: numbers, and tokens that as a rule at least four rows share (a column
 * with a value for every row says who somebody is, not what he is like). */
/* Option use_ids of the table at `arg`: "clicks" (user and item are fields when the rows are impressions, which have no scores that know
 * them; the default), "always", "never". */
bool ev_lua_use_ids(lua_State *L, int arg, const ev_rank_rows *rows);
size_t ev_lua_describing_columns(const ev_snapshot *s, ev_side side, const char *out[EV_NAMES_MAX]);

/* Nets and their tensors (bind_graph.c). */
ev_graph *ev_lua_graph(lua_State *L, int arg);                /* as long as a handle of it stands on the stack or is anchored */
void ev_lua_push_tensor(lua_State *L, int net, ev_tensor t);  /* net: stack index of its net, which it keeps alive */
ev_tensor ev_lua_tensor(lua_State *L, int arg, ev_graph *of); /* a tensor of this net, or an error */
void ev_lua_place(lua_State *L, ev_graph *g);                 /* what is recorded next stands where the script is now */

/* One asker, or a row of a batch of them. */
typedef struct ev_lbatch {
  ev_requests r;      /* arrays owned below */
  uint32_t *user, *history, *seen;
  uint64_t *history_ptr, *seen_ptr;
  uint64_t serial;    /* names the batch in a model's memory */
  size_t n_users, n_items; /* of the snapshot */
} ev_lbatch;
typedef struct ev_lrequest {
  ev_lbatch batch;
  size_t row; /* which asker the script is looking at */
  uint32_t n; /* how many candidates the node wants */
  const ev_arrival *arrivals; /* (n_arrivals) borrowed: of one that is served */
  size_t n_arrivals;
} ev_lrequest;
ev_lrequest *ev_lua_request(lua_State *L, int arg);
ev_requests ev_lua_one(const ev_lrequest *q); /* the row alone, borrowed */
ev_lrequest *ev_lua_new_request(lua_State *L); /* pushed, of nobody */
uint64_t ev_lua_batch_serial(void);            /* of a batch that no model has seen */

typedef struct ev_lmodel {
  ev_model *model; /* owned */
  uint64_t serial; /* batch whose answers are kept; 0 = none */
  size_t k, rows;
  unsigned effort;
  uint32_t *ids;   /* (rows, k) owned */
  float *scores;
} ev_lmodel;
ev_lmodel *ev_lua_model(lua_State *L, int arg);
void ev_lua_push_model(lua_State *L, ev_model *m); /* takes m, also when it raises */

/* JSON text ↔ values; arrays decoded from JSON carry a mark, so that [] stays []. */
ev_status ev_lua_json_encode(lua_State *L, int index, ev_buf *out);
ev_status ev_lua_json_decode(lua_State *L, const char *text, size_t len); /* pushes the value */

ev_status ev_json_text(const char *s, size_t len, ev_buf *out); /* quoted; EV_EINVAL: not UTF-8 */
ev_status ev_json_number(double x, ev_buf *out);                /* the shortest that reads back the same; not finite: null */

/* Each adds its functions to the table on top of the stack. */
void ev_bind_base(lua_State *L);
void ev_bind_process(lua_State *L);
void ev_bind_json(lua_State *L);
void ev_bind_yaml(lua_State *L);
void ev_bind_vector(lua_State *L);
void ev_bind_slate(lua_State *L);
void ev_bind_data(lua_State *L);
void ev_bind_fits(lua_State *L);
void ev_bind_model(lua_State *L);
void ev_bind_eval(lua_State *L);
void ev_bind_ledger(lua_State *L);
void ev_bind_ope(lua_State *L);
void ev_bind_index(lua_State *L);
void ev_bind_items(lua_State *L);
void ev_bind_sequential(lua_State *L);
void ev_bind_feed(lua_State *L);
void ev_bind_arms(lua_State *L);
void ev_bind_graph(lua_State *L);
void ev_bind_tensor(lua_State *L);
void ev_bind_train(lua_State *L);
void ev_bind_pareto(lua_State *L);
void ev_bind_step(lua_State *L);
void ev_bind_asks(lua_State *L);
void ev_bind_columns(lua_State *L); /* after data, fits and models */
int ev_lua_slate_weigh(lua_State *L); /* a method of slates */
int ev_lua_request_arrivals(lua_State *L); /* a method of requests */
void ev_bind_batches(lua_State *L); /* after data, models and graphs: it gives them methods */

#endif
