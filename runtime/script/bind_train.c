/* bind_train.c - plans and optimisers for scripts, and what a training's checkpoint needs of files.
 *
 * A plan outlives its optimisers and a net its plans: they are counted like the net itself (bind_graph.c). An optimiser's
 * step must follow a training run of its plan, with nothing filled in between: the rows it updates are those that the run
 * looked at. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "bind_graph.h"

#define EV_PLAN "ev.plan"
#define EV_OPTIMISER "ev.optimiser"
#define EV_LOCK "ev.lock"
#define OUTPUTS_MAX 64
#define STEP_MAX INT64_C(9007199254740992)

typedef struct plan { /* shared by its handle and its optimisers */
  ev_plan *plan;
  ev_lnet *net;      /* shared */
  size_t refs, n_outputs;
  ev_tensor outputs[OUTPUTS_MAX], loss;
  bool ran, trained; /* trained: the last run left gradients */
  uint64_t seen;     /* the net's n_changes at the last run */
} plan;

typedef struct lplan {
  plan *of; /* NULL: finalised */
} lplan;

typedef struct loptimiser {
  ev_optimiser *optimiser; /* owned */
  plan *of;                /* shared */
} loptimiser;

static void release(plan *p) {
  if (p == NULL || --p->refs > 0) return;
  ev_plan_free(p->plan);
  ev_lnet_release(p->net);
  ev_free(p);
}

static plan *check_plan(lua_State *L, int arg) {
  lplan *h = luaL_checkudata(L, arg, EV_PLAN);
  if (h->of == NULL) luaL_error(L, "the plan is gone");
  return h->of;
}

/* ---- Plans ---------------------------------------------------------------------------------------------*/
int ev_lua_net_plan(lua_State *L) { /* net:plan{ loss = tensor | nil, outputs = { tensor, … } } */
  lua_settop(L, 2);
  ev_lnet *net = ev_lua_net(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  ev_lua_only(L, 2, "loss outputs");
  lplan *h = lua_newuserdata(L, sizeof *h);
  h->of = NULL;
  luaL_getmetatable(L, EV_PLAN);
  lua_setmetatable(L, -2);
  plan *p = ev_zalloc(1, sizeof *p);
  if (p == NULL) return ev_lua_fail(L, EV_ENOMEM);
  *p = (plan){.net = net, .refs = 1, .loss = EV_NONE};
  net->refs++;
  h->of = p;
  lua_getfield(L, 2, "loss");
  if (!lua_isnil(L, -1)) p->loss = ev_lua_tensor(L, lua_gettop(L), net->graph);
  lua_pop(L, 1);
  lua_getfield(L, 2, "outputs");
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    size_t n = lua_objlen(L, -1);
    if (n > OUTPUTS_MAX) return luaL_error(L, "a plan has at most %d outputs", OUTPUTS_MAX);
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, -1, (int)i + 1);
      p->outputs[p->n_outputs++] = ev_lua_tensor(L, lua_gettop(L), net->graph);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  if (p->loss == EV_NONE && p->n_outputs == 0) return luaL_error(L, "a plan wants a loss or outputs");
  ev_status status = ev_plan_new(&p->plan, net->graph, p->outputs, p->n_outputs, p->loss);
  if (status == EV_ELIMIT) { /* plans that nobody holds any more may be in the way */
    lua_gc(L, LUA_GCCOLLECT, 0);
    status = ev_plan_new(&p->plan, net->graph, p->outputs, p->n_outputs, p->loss);
  }
  EV_CHECK(L, status);
  return 1;
}

static int plan_close(lua_State *L) {
  lplan *h = luaL_checkudata(L, 1, EV_PLAN);
  release(h->of);
  h->of = NULL;
  return 0;
}

static int plan_run(lua_State *L) { /* plan:run(step, training) → the loss, or nil without one */
  plan *p = check_plan(L, 1);
  uint64_t step = (uint64_t)(lua_isnoneornil(L, 2) ? 0 : ev_lua_integer(L, 2, 0, STEP_MAX));
  bool training = lua_toboolean(L, 3);
  double loss = 0;
  p->ran = p->trained = false;
  EV_CHECK(L, ev_plan_run(p->plan, training, step, &loss));
  p->ran = true;
  p->trained = training && p->loss != EV_NONE;
  p->seen = p->net->n_changes;
  if (p->loss == EV_NONE) lua_pushnil(L);
  else lua_pushnumber(L, loss);
  return 1;
}

static int plan_value(lua_State *L) { /* plan:value(output) → a vector of its live rows, and its shape as a list */
  plan *p = check_plan(L, 1);
  ev_tensor t = ev_lua_tensor(L, 2, p->net->graph);
  bool known = t == p->loss;
  for (size_t i = 0; i < p->n_outputs && !known; i++) known = p->outputs[i] == t;
  if (!known) return luaL_error(L, "%s is no output of this plan", ev_graph_name(p->net->graph, t));
  if (!p->ran) return luaL_error(L, "the plan has not run");
  if (p->seen != p->net->n_changes) return luaL_error(L, "something was filled since the plan ran: run it again");
  ev_shape s;
  size_t n = 1;
  ev_plan_value(p->plan, t, &s);
  for (unsigned i = 0; i < s.rank; i++) n *= s.dim[i];
  float *out = ev_lua_new_vector(L, n);
  memcpy(out, ev_plan_value(p->plan, t, &s), n * sizeof *out);
  lua_createtable(L, (int)s.rank, 0);
  for (unsigned i = 0; i < s.rank; i++) {
    lua_pushnumber(L, (double)s.dim[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 2;
}

static int plan_gradient(lua_State *L) { /* plan:gradient(parameter) → a vector, after a training run */
  plan *p = check_plan(L, 1);
  ev_tensor t = ev_lua_tensor(L, 2, p->net->graph);
  if (!p->trained || p->seen != p->net->n_changes) return luaL_error(L, "a gradient follows a training run");
  const ev_shape *s = ev_graph_shape(p->net->graph, t);
  size_t n = 1;
  for (unsigned i = 0; i < s->rank; i++) n *= s->dim[i];
  if (s->axis != 0) return luaL_error(L, "%s is no parameter", ev_graph_name(p->net->graph, t));
  EV_CHECK(L, ev_plan_gradient(p->plan, t, ev_lua_new_vector(L, n)));
  return 1;
}

static int plan_bytes(lua_State *L) {
  lua_pushnumber(L, (double)ev_plan_bytes(check_plan(L, 1)->plan));
  return 1;
}

static int plan_text(lua_State *L) {
  plan *p = check_plan(L, 1);
  char text[128];
  snprintf(text, sizeof text, "plan (%s%zu outputs, %.1f MB)", p->loss != EV_NONE ? "a loss and " : "", p->n_outputs, (double)ev_plan_bytes(p->plan) / 1e6);
  lua_pushstring(L, text);
  return 1;
}

/* ---- Optimisers ----------------------------------------------------------------------------------------*/
static loptimiser *check_optimiser(lua_State *L, int arg) {
  loptimiser *h = luaL_checkudata(L, arg, EV_OPTIMISER);
  if (h->optimiser == NULL) luaL_error(L, "the optimiser is gone");
  return h;
}

static int plan_optimiser(lua_State *L) { /* plan:optimiser{ kind =, momentum =, beta1 =, beta2 =, epsilon =, weight_decay =, clip_norm = } */
  static const char *const kinds[] = {"sgd", "momentum", "adagrad", "adam", "adamw", NULL};
  static const ev_optimiser_kind of[] = {EV_SGD, EV_MOMENTUM, EV_ADAGRAD, EV_ADAM, EV_ADAMW};
  lua_settop(L, 2);
  plan *p = check_plan(L, 1);
  ev_lua_only(L, 2, "kind momentum beta1 beta2 epsilon weight_decay clip_norm");
  const char *word = ev_lua_field_string(L, 2, "kind", "adam");
  int which = 0;
  while (kinds[which] != NULL && strcmp(kinds[which], word) != 0) which++;
  if (kinds[which] == NULL) return luaL_error(L, "kind: '%s' is none of sgd, momentum, adagrad, adam, adamw", word);
  ev_optimiser_options o;
  ev_optimiser_defaults(&o, of[which]);
  o.momentum = (float)ev_lua_field_number(L, 2, "momentum", o.momentum, 0, 1);
  o.beta1 = (float)ev_lua_field_number(L, 2, "beta1", o.beta1, 0, 1);
  o.beta2 = (float)ev_lua_field_number(L, 2, "beta2", o.beta2, 0, 1);
  o.epsilon = (float)ev_lua_field_number(L, 2, "epsilon", o.epsilon, 0, 1);
  o.weight_decay = (float)ev_lua_field_number(L, 2, "weight_decay", 0, 0, 1e3);
  o.clip_norm = (float)ev_lua_field_number(L, 2, "clip_norm", 0, 0, 1e30);
  loptimiser *h = lua_newuserdata(L, sizeof *h);
  *h = (loptimiser){NULL, NULL};
  luaL_getmetatable(L, EV_OPTIMISER);
  lua_setmetatable(L, -2);
  EV_CHECK(L, ev_optimiser_new(&h->optimiser, p->plan, &o));
  h->of = p;
  p->refs++;
  return 1;
}

static int optimiser_close(lua_State *L) {
  loptimiser *h = luaL_checkudata(L, 1, EV_OPTIMISER);
  ev_optimiser_free(h->optimiser);
  release(h->of);
  *h = (loptimiser){NULL, NULL};
  return 0;
}

static int optimiser_step(lua_State *L) { /* optimiser:step(rate) */
  loptimiser *h = check_optimiser(L, 1);
  double rate = luaL_checknumber(L, 2);
  if (!h->of->trained) return luaL_error(L, "an optimiser's step follows a training run of its plan");
  if (h->of->seen != h->of->net->n_changes) return luaL_error(L, "something was filled between the run and the optimiser's step");
  EV_CHECK(L, ev_optimiser_step(h->optimiser, (float)rate));
  h->of->trained = false; /* its gradients are spent */
  return 0;
}

static int optimiser_steps(lua_State *L) {
  lua_pushnumber(L, (double)ev_optimiser_steps(check_optimiser(L, 1)->optimiser));
  return 1;
}

static int optimiser_norm(lua_State *L) { /* of the last step's gradients; 0 unless clip_norm is set */
  lua_pushnumber(L, ev_optimiser_norm(check_optimiser(L, 1)->optimiser));
  return 1;
}

static int optimiser_save(lua_State *L) { /* trusted: (optimiser, path) */
  loptimiser *h = check_optimiser(L, 1);
  EV_CHECK(L, ev_optimiser_save(h->optimiser, luaL_checkstring(L, 2)));
  return 0;
}

static int optimiser_load(lua_State *L) { /* trusted: (optimiser, path) */
  loptimiser *h = check_optimiser(L, 1);
  h->of->ran = h->of->trained = false;
  EV_CHECK(L, ev_optimiser_load(h->optimiser, luaL_checkstring(L, 2)));
  return 0;
}

/* ---- Files of a training ---------------------------------------------------------------------------------*/
static int data_checkpoint(lua_State *L) { /* trusted: (data) → where its next training keeps what it has reached, and every how many seconds; or nil */
  ev_ldata *d = ev_lua_data(L, 1);
  if (d->checkpoint == NULL) return 0;
  lua_pushfstring(L, "%s.%d", d->checkpoint, (int)++d->n_trainings);
  lua_pushnumber(L, d->checkpoint_s);
  return 2;
}

/* trusted: (data, path) → the model in that file, as if this fit had just made it: it stands under a draft's name too */
static int data_adopt(lua_State *L) {
  ev_ldata *d = ev_lua_data(L, 1);
  const char *path = luaL_checkstring(L, 2);
  if (d->artifact == NULL) return luaL_error(L, "this data handle cannot fit");
  lua_pushfstring(L, "%s.%d", d->artifact, (int)++d->n_fits);
  const char *draft = lua_tostring(L, -1);
  if (link(path, draft) != 0) return ev_lua_fail(L, ev_fail_errno("%s: cannot link to %s", path, draft));
  ev_model *m;
  EV_CHECK(L, ev_model_open(&m, draft));
  ev_lua_push_model(L, m);
  return 1;
}

static int link_file(lua_State *L) { /* trusted: (from, to): a second name for a file that is never written again; whatever stood there is gone */
  const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
  unlink(to);
  if (link(from, to) != 0) return ev_lua_fail(L, ev_fail_errno("%s: cannot link to %s", from, to));
  return 0;
}

typedef struct llock {
  int fd; /* −1: let go */
} llock;

/* trusted: lock(path) → a lock that holds until it is collected or the process ends; nil: another process has it */
static int lock_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  llock *h = lua_newuserdata(L, sizeof *h);
  h->fd = -1;
  luaL_getmetatable(L, EV_LOCK);
  lua_setmetatable(L, -2);
  h->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (h->fd < 0) return ev_lua_fail(L, ev_fail_errno("%s", path));
  if (flock(h->fd, LOCK_EX | LOCK_NB) == 0) return 1;
  if (errno != EWOULDBLOCK) return ev_lua_fail(L, ev_fail_errno("%s: cannot lock", path));
  return 0;
}

static int lock_close(lua_State *L) {
  llock *h = luaL_checkudata(L, 1, EV_LOCK);
  if (h->fd >= 0) close(h->fd);
  h->fd = -1;
  return 0;
}

static int progress(lua_State *L) { /* trusted: what on_progress was given, or nil */
  lua_getfield(L, LUA_REGISTRYINDEX, "ev.progress");
  return 1;
}

void ev_bind_train(lua_State *L) {
  static const luaL_Reg plan_methods[] = {
      {"run", plan_run}, {"value", plan_value}, {"gradient", plan_gradient}, {"bytes", plan_bytes}, {"optimiser", plan_optimiser},
      {"__gc", plan_close}, {"__tostring", plan_text}, {NULL, NULL}};
  static const luaL_Reg optimiser_methods[] = {
      {"step", optimiser_step}, {"steps", optimiser_steps}, {"norm", optimiser_norm}, {"__gc", optimiser_close}, {NULL, NULL}};
  static const luaL_Reg lock_methods[] = {{"release", lock_close}, {"__gc", lock_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"optimiser_save", optimiser_save}, {"optimiser_load", optimiser_load}, {"data_checkpoint", data_checkpoint}, {"data_adopt", data_adopt},
      {"link", link_file}, {"lock", lock_file}, {"progress", progress}, {NULL, NULL}};
  ev_lua_class(L, EV_PLAN, plan_methods);
  ev_lua_class(L, EV_OPTIMISER, optimiser_methods);
  ev_lua_class(L, EV_LOCK, lock_methods);
  lua_pop(L, 3);
  luaL_register(L, NULL, functions);
}
