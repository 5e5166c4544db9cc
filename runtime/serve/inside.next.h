/* inside.h - the parts of the service; private to this room.
 *
 *   supervisor.c  the process that was started: sockets, children, signals, edited files, which version is what
 *   board.c       memory that front, teams and workers share: requests in slots, workers with a box each
 *   team.c        one version: loads and warms it once, forks its workers, replaces those that end
 *   worker.c      a script worker: takes from its box, answers into the slot
 *   scribe.c      the ledger's writer, a process of its own, and the rings that lead to it
 *   front.c       HTTP threads; dispatch.c hands over; recommend.c, events.c, api_*.c are what the routes do
 *   users.c       what users had; catalog.c items and users as they are now; canary.c what a challenger is worth
 *
 * Processes: supervisor → front, scribe, teams; team → workers. Only workers and teams run Lua. Each dies with its parent. */
#ifndef EV_SERVE_INSIDE_H
#define EV_SERVE_INSIDE_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "../reward/reward.h"
#include "../script/script.h"
#include "../store/store.h"
#include "serve.h"

#define HISTORY_MAX 1000   /* the latest items of a user that a request carries */
#define SEEN_MAX 16384     /* the latest distinct ones that a worker leaves out; the front leaves out all of them */
#define SLATE_MAX EV_ASK_MAX
#define USER_MAX 256       /* bytes of a user's or an item's id */
#define LIVE_ITEMS_MAX 65536 /* items that the snapshot has not */

/* ---- Board ------------------------------------------------------------------------------------------------
 * Made by the supervisor, inherited by all. No lock is shared with a worker: it may be killed anywhere.
 *
 * A slot holds one request. FREE → READY (front: it lies in a box) → RUNNING (worker) ⇄ WRITING (worker: the answer changes)
 * → DONE (worker). The front closes a READY or RUNNING slot when its time is over; a worker that finds it closed leaves it alone,
 * so an answer that the front reads never changes under it.
 *
 * A box is a ring of BOX_DEPTH slots that one worker takes from: head and tail are one word, so that a worker can close an empty one. */
#define SLOTS_MAX 1024
#define WORKERS_MAX 256
#define TEAMS_MAX 8
#define THREADS_MAX 16
#define BOX_DEPTH 4
#define TEXT_MAX_BYTES 32768
#define MASKS_MAX 32

typedef enum slot_state { SLOT_FREE, SLOT_READY, SLOT_RUNNING, SLOT_WRITING, SLOT_DONE, SLOT_CLOSED } slot_state;
typedef enum slot_kind { ASK_SLATE, ASK_LEARN } slot_kind;

typedef struct slot {
  _Atomic uint32_t state;
  uint32_t serial;      /* counts its uses: a box's entry names it, so that an old entry is known */
  uint32_t kind, thread;
  uint64_t started_ns;  /* by the worker */
  /* ASK_SLATE */
  uint32_t user, n, n_history, n_seen, mask, explain; /* mask: of MASKS_MAX; EV_NONE: none */
  uint64_t deadline_ns; /* of the script */
  uint32_t history[HISTORY_MAX], seen[SEEN_MAX];
  /* ASK_LEARN: n_events of them; SLOT_EVENTS at most */
  uint32_t n_events;
  /* what came of it */
  uint32_t failed;      /* 1: text is the error */
  ev_answer answer;     /* also in between: the best so far */
  uint32_t text_len;
  char text[TEXT_MAX_BYTES]; /* JSON of explain, or an error */
} slot;
/* Events to learn from lie where history and seen do. */
#define SLOT_EVENTS 256

typedef enum worker_state { WORKER_NONE, WORKER_READY, WORKER_DEAD } worker_state;
typedef struct seat { /* of a worker */
  _Atomic uint32_t state;      /* DEAD: the front has still to see to its box */
  _Atomic int32_t pid;
  uint32_t team;
  _Atomic uint32_t condemned;  /* the front wants it killed */
  _Atomic uint64_t box;        /* low 32 bits: tail, its top bit closed; high: head */
  _Atomic uint32_t asleep;
  _Atomic uint32_t ring[BOX_DEPTH]; /* slot | serial << 10 */
} seat;

typedef enum team_state { TEAM_FREE, TEAM_LOADING, TEAM_READY, TEAM_LEAVING } team_state;
typedef struct team_board {
  _Atomic uint32_t state;
  _Atomic uint32_t strikes;     /* crashes, deadlines, errors, corrupt slates since it came */
  char version[65];
  char recalls[32][48];         /* name of the recall behind each source bit */
  _Atomic uint64_t deaths;      /* of its workers */
} team_board;

typedef struct board {
  _Atomic uint32_t champion, challenger, reserve; /* team + 1; 0: none. Set by the supervisor */
  _Atomic uint32_t share_millionths;              /* of users, for the challenger */
  _Atomic uint64_t salt;                          /* of the canary's choice of users */
  _Atomic uint32_t stopping;
  _Atomic uint64_t reloads, failed_reloads, quarantined, takeovers, takeover_ns_max;
  uint32_t n_mask_words;
  team_board teams[TEAMS_MAX];
  seat seats[WORKERS_MAX];
} board;

ev_status board_new(board **out, size_t n_items);    /* shared memory; n_items: of the snapshot */
void board_free(board *b);
slot *board_slot(board *b, uint32_t i);
uint64_t *board_mask(board *b, uint32_t i);          /* (n_mask_words); bit = item that is left out. Mask 0: items deleted or hidden */
/* The worker's side */
bool box_take(board *b, uint32_t seat, uint32_t *slot); /* waits; false: the team is leaving and the box is closed, or interrupted */
void box_done(board *b, uint32_t seat);              /* the entry that was taken is dealt with */
/* The front's side, one thread at a time */
size_t box_waiting(const board *b, uint32_t seat);   /* entries, the one at work included */
bool box_push(board *b, uint32_t seat, uint32_t slot); /* false: full or closed */
size_t box_salvage(board *b, uint32_t seat, uint32_t *slots, size_t most); /* of a dead worker: what lay in its box, the one at work first; the seat is free then */

/* ---- Bells --------------------------------------------------------------------------------------------------
 * Event descriptors made before anything is forked, so that every process has all of them. */
typedef struct bells {
  int thread[THREADS_MAX]; /* a slot of this front thread has changed, or a worker died */
  int supervisor;          /* something on the board for it */
  int team[TEAMS_MAX];     /* a worker of this team is condemned */
} bells;
void bell_ring(int fd);
void bell_hush(int fd);    /* reads what was rung */

/* ---- Scribe -------------------------------------------------------------------------------------------------
 * The ledger's writer, a process of its own, and one ring of shared memory from each front thread (and one from the supervisor) to
 * it. A record stays in its ring until it is on disk: a writer that is killed is followed by one that goes on where it stood, and
 * since ids make rows count once, nothing is lost or doubled. Records of one ring are written in order; what gathers shares a sync. */
typedef struct scribe scribe;
/* @param n_rings of producers @param ring_bytes each. Before any fork. done[i] (of the bells) is rung when records of ring i are done with. */
ev_status scribe_new(scribe **out, size_t n_rings, size_t ring_bytes, const int *done);
void scribe_free(scribe *s);
/* The writer's process: until scribe_stop, then writes what is left. EV_EIO only when the ledger cannot be opened at all. */
ev_status scribe_run(scribe *s, const char *ledger_path);
void scribe_stop(scribe *s);       /* any process, also from a signal's handler */
/* A producer that starts (again): what an earlier one of this ring left is still written, its tickets are nobody's. Waits up to ms
 * milliseconds until that is done. */
ev_status scribe_attach(scribe *s, size_t ring, int ms);
/* Copies the batch into the ring and returns: from now on it survives any process but the supervisor. ticket (may be NULL: nobody
 * waits) comes back by scribe_collect. EV_ELIMIT: no room now. EV_EINVAL: it could never fit. One thread a ring. */
ev_status scribe_post(scribe *s, size_t ring, const ev_ledger_batch *b, void *ticket);
typedef struct promotion {         /* what was done with a version: rows of versions and promotions */
  const char *version, *against, *action; /* "stage", "canary", "promote", "rollback"; against may be NULL */
  const char *reason, *evidence;   /* evidence: JSON or NULL */
  double share;                    /* of a canary; NaN: none */
  bool ends_canary;                /* of this version: its row gets its end */
} promotion;
ev_status scribe_promote(scribe *s, size_t ring, const promotion *p);
typedef void scribe_done_fn(void *ctx, void *ticket, ev_status status, const char *error, const ev_ledger_receipt *receipt);
void scribe_collect(scribe *s, size_t ring, scribe_done_fn *fn, void *ctx); /* tickets that are done with, in order */
size_t scribe_waiting(const scribe *s, size_t ring);   /* tickets not collected */
typedef struct scribe_stats {
  uint64_t records, commits, failures;
  size_t waiting_bytes;            /* in all rings */
  char error[256];                 /* the last failure; "" */
} scribe_stats;
void scribe_stat(const scribe *s, scribe_stats *out);

/* ---- Users --------------------------------------------------------------------------------------------------
 * Histories, from the snapshot and from events. Any thread. */
typedef struct users users;
ev_status users_open(users **out, const ev_snapshot *s);
void users_close(users *u);
ev_status users_add(users *u, const char *user, uint32_t item); /* an event: the user may be new */
/* The latest HISTORY_MAX items, oldest first, and the SEEN_MAX latest distinct ones, ascending. */
void users_fill(const users *u, const char *user, uint32_t *history, uint32_t *n_history, uint32_t *seen, uint32_t *n_seen);
bool users_has_seen(const users *u, const char *user, uint32_t item); /* all of them */
/* The n most popular items from the `from`-th on: what is shown when nobody answers. → how many */
size_t users_popular(const users *u, uint32_t *items, size_t from, size_t n);
size_t users_bytes(const users *u); /* memory in use */

/* ---- Catalog ------------------------------------------------------------------------------------------------
 * Items and users as they are now: those of the snapshot, and over them what was put, patched and deleted while serving, in two
 * live tables of the store under folder. An item that the snapshot has not gets an index behind the snapshot's, for the life of
 * the process. Any thread. */
typedef struct catalog catalog;
ev_status catalog_open(catalog **out, const char *folder, const ev_snapshot *s, board *b);
void catalog_close(catalog *c);
size_t catalog_n_items(const catalog *c);   /* one more than the highest index there is */
uint32_t catalog_find(const catalog *c, const char *id, size_t len); /* EV_NONE: no such item, or deleted */
bool catalog_id(const catalog *c, uint32_t item, char out[USER_MAX + 1]);
bool catalog_hidden(const catalog *c, uint32_t item); /* deleted, or is_hidden: never in a slate */
const char *catalog_title(const catalog *c, uint32_t item, ev_buf *scratch); /* NULL: it has none */
/* A mask of the board with all items that do not satisfy `where` (and the hidden ones): the same text gives the same mask while it
 * is in use and nothing was changed. NULL where: mask 0, or EV_NONE when no item is hidden. EV_EINVAL, EV_ELIMIT: all are in use. */
ev_status catalog_where(catalog *c, const char *where, uint32_t *mask);
void catalog_release(catalog *c, uint32_t mask); /* EV_NONE does nothing */
bool catalog_barred(const catalog *c, uint32_t mask, uint32_t item); /* also of items that the snapshot has not */
/* One item or user: JSON of {"id", "hidden", "time", "comment", …fields}; merge: fields that are not given stay (PATCH). EV_EINVAL names the field. */
typedef enum catalog_side { CATALOG_ITEM, CATALOG_USER } catalog_side;
ev_status catalog_put(catalog *c, catalog_side side, const json_t *const *entries, size_t n, bool merge);
ev_status catalog_delete(catalog *c, catalog_side side, const char *id); /* EV_ENOTFOUND */
json_t *catalog_get(const catalog *c, catalog_side side, const char *id); /* NULL: no such */
json_t *catalog_list(const catalog *c, catalog_side side, const char *after, size_t n); /* in an order that stays; after: the id that ended the page before */

/* ---- Canary -------------------------------------------------------------------------------------------------
 * A challenger against the champion on a stable share of the users. The unit is a user: which arm he is in is a hash of his id and
 * the canary's salt, so one user's slates are alike, and only users are independent. A unit opens with the user's first slate and
 * closes settle_ms after his slates_per_user-th, at the latest when window_ms is over: the mean reward of the slates until then, held
 * within [low, high]. Units enter the sequences once, in the order in which the users came. docs/reference/canary.md.
 *
 * `challenger` is the arm that the user is in, whoever answered: a slate that the challenger failed to give is its slate, degraded. Any
 * thread; slates and events cost some hundred nanoseconds, a tick some microseconds for each user who came or was measured. */
typedef struct canary canary;
typedef struct canary_options {
  char challenger[65], champion[65];
  double share;                    /* of users */
  uint64_t salt;
  ev_canary_options test;          /* margin, harm, low, high, confidence, caution of the outer reward */
  unsigned slates_per_user;        /* default 5 */
  int64_t settle_ms, window_ms;    /* defaults 30 s, 30 min */
  double errors_max, late_ms;      /* guardrails: share of degraded slates beyond the champion's, default 0.02; what is late, default 100 */
  bool automatic;                  /* promote and roll back by itself; else only says so. For the caller: the verdict is the same */
} canary_options;
void canary_defaults(canary_options *o);
bool canary_picks(uint64_t salt, double share, const char *user); /* in the challenger's share; "" and NULL never are. A larger share keeps those of a smaller one */
ev_status canary_new(canary **out, const canary_options *o); /* EV_EINVAL */
void canary_free(canary *c);
void canary_slate(canary *c, const char *user, bool challenger, bool degraded, double ms, int64_t now_ms); /* he was shown one */
/* He did something about an item; agents: who proposed it, each of whom earned it. */
void canary_event(canary *c, const char *user, double value, const char *const *agents, size_t n_agents, int64_t now_ms);
typedef enum canary_verdict { CANARY_WAITS, CANARY_PROMOTES, CANARY_ROLLS_BACK } canary_verdict;
canary_verdict canary_tick(canary *c, int64_t now_ms, char why[256]); /* closes units; cheap: called every 100 ms. A verdict stays; why may be NULL */
json_t *canary_status(const canary *c);  /* for /canary, the CLI and as evidence; what is not known is left out */
ev_status canary_save(const canary *c, const char *path);  /* whole or not at all; any thread, nobody waits for the disk */
ev_status canary_load(canary **out, const char *path);     /* EV_ECORRUPT, EV_ENOTFOUND */

/* ---- HTTP ---------------------------------------------------------------------------------------------------
 * A call is one request being answered, on the thread that has it. A handler answers at once, or holds it and answers later. */
typedef enum role { ROLE_NONE, ROLE_READ, ROLE_FEEDBACK, ROLE_ADMIN } role; /* each may do what those before it may */
typedef struct front front;
typedef struct thread thread;
typedef struct call {
  struct MHD_Connection *connection;
  thread *at;
  const char *method, *path;       /* path without the query, decoded */
  char rest[USER_MAX + 1];         /* of the path, behind the route's prefix */
  ev_buf body;
  role role;
  bool too_large, held, answered, told;
  bool admin_socket;
  unsigned code;
  const char *type;
  ev_buf response;
  uint64_t started_ns;
  void *work;                      /* of the handler */
  void (*work_free)(void *work);
} call;
void call_json(call *c, unsigned code, json_t *document);      /* takes it; NULL: 500 */
void call_text(call *c, unsigned code, const char *type, const char *text, size_t len);
void call_error(call *c, unsigned code, const char *format, ...) EV_PRINTF(3, 4); /* {"error": "…"} */
void call_fail(call *c, ev_status status);                     /* the last error, with the code that suits it */
const char *call_arg(const call *c, const char *name);         /* of the query, decoded; NULL: not given */
const char *call_header(const call *c, const char *name);
json_t *call_body(call *c);                                    /* the body as JSON, or NULL when it was none and the call is answered (400) */
void call_hold(call *c);                                       /* not answered yet: the thread goes on */
void call_go_on(call *c);                                      /* of one that was held; it has been answered */

struct front {
  const ev_serve_options *o;
  board *b;
  bells *bells;
  scribe *scribe;
  ev_snapshot *snapshot;
  users *users;
  catalog *catalog;
  int control;                     /* socket to the supervisor */
  size_t n_threads;
};
front *call_front(const call *c);

/* A slate is wanted; answered as JSON by `form`. */
typedef struct served served;
typedef struct wanted {
  char user[USER_MAX + 1];         /* "": a session without one */
  uint32_t recent[HISTORY_MAX];    /* items of the session, oldest first, behind those of the user */
  size_t n_recent, n;
  char *where;                     /* owned; NULL: none */
  uint32_t *excluded;              /* owned; items that are not to come */
  size_t n_excluded;
  bool again;                      /* seen items may come */
  bool explain;
  size_t offset;                   /* places to leave out at the top */
  void (*form)(call *c, const struct wanted *w, const served *s);
} wanted;
struct served {
  const char *version;             /* "" with the fallback when none is live */
  const ev_answer *answer;
  bool fallback;                   /* popular items */
  const char *impression;          /* "" when it was not logged */
  const char *explain;             /* JSON, or NULL */
  const char (*recalls)[48];       /* (32) names of the source bits; NULL with the fallback */
};
void recommend(call *c, wanted *w);                            /* takes what w owns */
/* Checked events go to the ledger, then into users, agents and the canary, then the call is answered by form (NULL: {"accepted", "new"}). */
typedef struct parsed_events {
  ev_event *events; /* strings borrowed from document */
  uint32_t *items;  /* index of each */
  size_t n;
  json_t *document;
} parsed_events;
/* One object or an array of our own form; all or none. EV_EINVAL names the event and its field. */
ev_status events_parse(parsed_events *out, const char *body, size_t len, const catalog *c);
void events_free(parsed_events *e);
typedef void events_form_fn(call *c, size_t n, size_t n_new, size_t n_expired);
void events_take(call *c, parsed_events *e, bool queued, events_form_fn *form); /* takes *e; queued: answered once they are in the ring */

/* Routes. Each handler finds what is behind its prefix in c->rest. */
typedef void handler(call *c);
typedef struct route {
  const char *method, *prefix;     /* a prefix that ends in '/' takes one more part, or several when `deep` */
  role needs;
  handler *fn;
  bool deep;
} route;
extern const route recommend_routes[], event_routes[], catalog_routes[], gorse_routes[], version_routes[], status_routes[]; /* ended by .method NULL */

/* ---- Who may what ---------------------------------------------------------------------------------------------*/
typedef struct guard guard;
ev_status guard_open(guard **out, const char *tokens_file, double rate_per_s, double burst); /* file NULL: no tokens: read and feedback for all, admin on the Unix socket */
void guard_close(guard *g);
role guard_role(const guard *g, const char *token, bool admin_socket); /* compared in constant time */
bool guard_allows(guard *g, const struct sockaddr *from, uint64_t now_ns); /* rate; false: 429 */

/* ---- Control --------------------------------------------------------------------------------------------------
 * The front asks the supervisor over a socket, one JSON document a message:
 *   {"op": "stage", "source": "FILE or agent:NAME", "then": "nothing" | "publish" | "canary", "share": 0.1, "options": {…}, "drop_state": false}
 *   {"op": "canary", "version": "…", "share": 0.1, "options": {…}}   {"op": "promote", "version": "…"}   {"op": "rollback", "version": "…" (optional)}
 *   {"op": "versions"}   {"op": "reload"}
 * and is answered {"ticket", "code": 200, "body": {…}}. An answer may take as long as a fit does. */
ev_status control_ask(call *c, json_t *command);               /* takes it; holds the call and answers it with what comes back */

#endif
