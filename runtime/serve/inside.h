/* inside.h - the parts of the service; private to this room.
 *
 *   supervisor.c  the process that was started: sockets, children, signals, edited files, which version is what
 *   board.c       memory that front, teams and workers share: requests in slots, workers with a box each
 *   team.c        one version: loads and warms it once, forks its workers, replaces those that end
 *   worker.c      a script worker: takes from its box, answers into the slot
 *   scribe.c      the ledger's writer, a process of its own, and the rings that lead to it
 *   front.c       HTTP threads; dispatch.c hands over; recommend.c, events.c, api_*.c are what the routes do
 *   users.c       what users had; catalog.c items and users as they are now; arrivals.c the latest new ones
 *   canary.c      what a challenger is worth; lately.c who proposed what in the latest slates
 *
 * Processes: supervisor → front, scribe, teams; team → workers. Only workers and teams run Lua. Each dies with its parent. */
#ifndef EV_SERVE_INSIDE_H
#define EV_SERVE_INSIDE_H

#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>
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
 * so an answer that the front reads never changes under it. One that is WRITING is left until it is not: a worker that lost its
 * processor there would go on in the next request's answer. The state carries the number of the slot's use, so that a worker
 * that is late by a whole use changes nothing either.
 *
 * A box is a ring of slots that one worker takes from: head and tail are one word, so that a worker can close an empty one. */
#define SLOTS_MAX 1024
#define TEAMS_MAX 8
#define TEAM_SEATS 32
#define SEATS_MAX (TEAMS_MAX * TEAM_SEATS)
#define THREADS_MAX 16
#define BOX_DEPTH 4
#define TEXT_BYTES 32768
#define MASKS_MAX 32
#define SLOT_LESSONS 256

typedef enum slot_state { SLOT_FREE, SLOT_READY, SLOT_RUNNING, SLOT_WRITING, SLOT_DONE, SLOT_CLOSED } slot_state;
typedef enum slot_kind { ASK_SLATE, ASK_LEARN } slot_kind;
typedef enum slot_failure { FAILED_NOT, FAILED_SCRIPT, FAILED_CORRUPT, FAILED_DEAD } slot_failure; /* DEAD: the worker is no more */

typedef struct slot {
  _Atomic uint32_t state;      /* slot_state | use << 3 */
  uint32_t kind, thread;
  /* ASK_SLATE */
  uint32_t user, n, n_history, n_seen, mask, explain; /* user: the snapshot's, or EV_NONE. mask: of MASKS_MAX; EV_NONE: none */
  uint64_t deadline_ns, kill_ns; /* for the script; for the worker, if that did not help */
  uint64_t least_ns;           /* that a worker has from when it takes it, however long it lay: its kill is put off */
  uint32_t n_lessons;          /* ASK_LEARN */
  union {
    struct {
      uint32_t history[HISTORY_MAX], seen[SEEN_MAX];
    };
    ev_lesson lessons[SLOT_LESSONS];
  };
  /* what came of it */
  uint64_t taken_ns;           /* when a worker took it */
  uint32_t failed, text_len;   /* slot_failure; text is the error, or what explain asked for */
  ev_answer answer;            /* in between: the best so far */
  char text[TEXT_BYTES];
} slot;

typedef enum seat_state { SEAT_FREE, SEAT_READY, SEAT_DEAD } seat_state;
typedef struct seat { /* of a worker; team t has seats t * TEAM_SEATS … */
  _Atomic uint32_t state;      /* DEAD: the front has still to see to its box */
  _Atomic int32_t pid;
  _Atomic uint32_t condemned;  /* the front wants it killed */
  _Atomic uint32_t asleep;
  _Atomic uint32_t confined;   /* ev_confine succeeded */
  _Atomic uint64_t due_ns;     /* at work, and to be killed when this is over; 0: idle */
  _Atomic uint64_t begun_ns, begun_cpu_ns; /* of what it is at: now, and its processor time then */
  _Atomic uint64_t box;        /* low half: tail, its top bit: closed; high half: head */
  _Atomic uint32_t ring[BOX_DEPTH]; /* slot | use << 10 */
} seat;

typedef enum team_state { TEAM_FREE, TEAM_LOADING, TEAM_READY, TEAM_LEAVING } team_state;
typedef struct team_board {
  _Atomic uint32_t state;
  _Atomic uint32_t strikes;    /* deaths, deadlines, errors, corrupt slates since it came */
  _Atomic uint32_t used;       /* counts the versions that had this place */
  _Atomic uint32_t learnt;     /* a worker has taught its agents something since the last snapshot */
  char version[65];
  char recalls[32][48];        /* name of the recall behind each source bit */
} team_board;

/* Items that the snapshot has not and that were put lately: written by the front's catalog, read by workers (arrivals.c). */
#define ARRIVALS_MAX EV_ARRIVALS_MAX
typedef struct arrivals_board {
  _Atomic uint64_t sequence;   /* odd: it is being written */
  _Atomic uint32_t n;
  _Atomic uint32_t item[ARRIVALS_MAX];
  _Atomic int64_t time_ms[ARRIVALS_MAX];
} arrivals_board;

typedef struct board {
  _Atomic uint32_t champion, challenger, reserve; /* team + 1; 0: none. Set by the supervisor */
  _Atomic uint64_t share_bits, salt;              /* of users for the challenger: a double's bits; and what chooses them */
  _Atomic uint32_t stopping, strikes_max;
  _Atomic uint32_t asleep[THREADS_MAX];           /* front threads that want to be rung */
  _Atomic uint64_t reloads, failed_reloads, quarantined, deaths, takeovers, takeover_ns_max, since_ms, late;
  _Atomic uint32_t told_unconfined;               /* who could not be confined has said so */
  char error[1024];                               /* why the last edit was not taken; "" */
  _Atomic uint32_t error_lock;
  uint32_t n_items, n_mask_words;
  team_board teams[TEAMS_MAX];
  seat seats[SEATS_MAX];
  arrivals_board arrivals;
} board;

ev_status board_new(board **out, size_t n_items);    /* shared memory; n_items: of the snapshot */
void board_free(board *b);
slot *board_slot(board *b, uint32_t i);
size_t board_confined(const board *b, size_t *n_workers); /* workers under a system-call filter, of those that are there */
uint64_t *board_mask(board *b, uint32_t i);          /* (n_mask_words); bit = item that is left out. Mask 0: items deleted or hidden */
void board_set_error(board *b, const char *why);
void board_error(board *b, char out[1024]);
uint32_t slot_state_of(const slot *s, uint32_t *use); /* what a state says */
bool slot_move(slot *s, uint32_t use, slot_state from, slot_state to);
/* The worker's side */
bool box_take(board *b, uint32_t at, uint32_t *slot_index, uint32_t *use); /* waits; false: its team leaves and the box is closed */
void box_done(board *b, uint32_t at);                /* the entry that was taken is dealt with */
void box_wake(board *b, uint32_t at);                /* it looks whether its team leaves */
/* The supervisor's side: workers whose team was killed. Their boxes are the front's to see to: true: there are some */
bool seats_bury(board *b, pid_t pid);                /* that it has waited for */
bool seats_bury_lost(board *b, uint32_t team);       /* that the team had waited for, and died before it said so */
/* The front's side, one thread at a time */
size_t box_waiting(const board *b, uint32_t at);     /* entries, the one at work included */
bool box_push(board *b, uint32_t at, uint32_t slot_index, uint32_t use); /* false: full or closed */
size_t box_salvage(board *b, uint32_t at, uint32_t entries[BOX_DEPTH]);  /* of a dead worker: what lay in its box (slot | use << 10), the one at work first; the seat is free then */

/* ---- Arrivals ------------------------------------------------------------------------------------------------
 * The youngest ARRIVALS_MAX of them, the youngest first. */
typedef struct arrival {
  uint32_t item;               /* its index, behind the snapshot's */
  int64_t time_ms;             /* when it was put */
} arrival;
void arrivals_put(board *b, const arrival *list, size_t n);     /* one writer at a time */
size_t arrivals_get(const board *b, arrival out[ARRIVALS_MAX]); /* any process, without a lock: how many. 0 also while they are being written without end */
size_t arrivals_insert(arrival *list, size_t n, arrival x);     /* into an ordered list (ARRIVALS_MAX), in place of an entry of its own: how many there are then */
size_t arrivals_remove(arrival *list, size_t n, uint32_t item);

/* ---- Bells --------------------------------------------------------------------------------------------------
 * Event descriptors made before anything is forked, so that every process has all of them. */
typedef struct bells {
  int thread[THREADS_MAX]; /* a slot of this front thread has changed, or a worker died */
  int supervisor;          /* something on the board for it */
  int team[TEAMS_MAX];     /* a worker of this team is condemned */
} bells;
void bell_ring(int fd);
void bell_hush(int fd);    /* reads what was rung */

/* ---- Teams ---------------------------------------------------------------------------------------------------
 * A team's process stages, loads and warms one version, then forks workers of that state: a new one costs a fork. It tells the
 * supervisor over `report` (one JSON document a message): {"ready": {"version", "recalls", "files", "composition", …}} or {"error",
 * "status"}; takes {"workers": n}, and says {"working": n} when they are there. Neither returns. */
_Noreturn void team_run(const ev_serve_options *o, board *b, const bells *bell, uint32_t team, const char *args, int report);
_Noreturn void worker_run(ev_host *h, board *b, const bells *bell, uint32_t at, uint64_t asked_ns); /* asked_ns: when the one before was found dead; 0: none was */
void process_begin(const char *name, pid_t parent, bool ignore_interrupts); /* of a child: dies with its parent, default signals, a name in ps */

/* ---- Scribe -------------------------------------------------------------------------------------------------
 * The ledger's writer, a process of its own, and one ring of shared memory from each front thread (and one from the supervisor) to
 * it. A record stays in its ring until it is on disk: a writer that is killed is followed by one that goes on where it stood. The
 * ledger itself says which commit was the last, so nothing is lost, written twice or answered wrongly. Records of one ring are
 * written in order, and what gathers shares a sync; one that fails alone may be overtaken. */
typedef struct scribe scribe;
/* @param n_rings of producers @param ring_bytes each, rounded up to pages; half of it is the largest record (10000 events: about
 * 1.5 MB). Before any fork. done[i] (of the bells; -1: none) is rung when tickets of ring i are done with, or there is room after
 * an EV_ELIMIT. */
ev_status scribe_new(scribe **out, size_t n_rings, size_t ring_bytes, const int *done);
void scribe_free(scribe *s);       /* unmaps it in this process alone; NULL does nothing */
/* The writer's process, one at a time: until scribe_stop, then writes what is left. EV_OK: all of it. Else the ledger cannot be
 * opened, or EV_EIO: some was refused by the disk until SCRIBE_LAST_MS after the stop, and is lost with the rings.
 * A ledger that is locked by others is waited for (2 s, so 4 s for a record that comes meanwhile), then tickets fail with EV_EIO. */
#define SCRIBE_LAST_MS 5000
ev_status scribe_run(scribe *s, const char *ledger_path);
void scribe_stop(scribe *s);       /* any process, also from a signal's handler. Producers should have stopped before */
/* A producer that starts (again): what an earlier one of this ring left is still written, its tickets are nobody's. Waits up to ms
 * milliseconds until that is done, else EV_ELIMIT: the ring is the new one's in either case. */
ev_status scribe_attach(scribe *s, size_t ring, int ms);
/* Copies the batch into the ring and returns: from now on it survives any process but the supervisor. ticket (may be NULL: nobody
 * waits, and it is tried until it gets through) comes back by scribe_collect. EV_ELIMIT: no room now. EV_EINVAL: it could never fit.
 * What is in the batch is checked by the writer: EV_EINVAL comes with the ticket; without one it is dropped and counted. One thread a ring. */
ev_status scribe_post(scribe *s, size_t ring, const ev_ledger_batch *b, void *ticket);
typedef struct promotion {         /* what was done with a version: rows of versions and promotions */
  const char *version, *against, *action; /* "stage", "canary", "promote", "rollback"; against may be NULL */
  const char *reason, *evidence;   /* evidence: JSON or NULL */
  double share;                    /* of a canary; NaN: none */
  bool ends_canary;                /* of this version: its row gets its end */
} promotion;
ev_status scribe_promote(scribe *s, size_t ring, const promotion *p); /* as post without a ticket; EV_EINVAL at once */
typedef void scribe_done_fn(void *ctx, void *ticket, ev_status status, const char *error, const ev_ledger_receipt *receipt);
/* Tickets that are done with, in order. fn may post; error and receipt are borrowed until it returns. */
void scribe_collect(scribe *s, size_t ring, scribe_done_fn *fn, void *ctx);
size_t scribe_waiting(const scribe *s, size_t ring);   /* tickets not collected */
typedef struct scribe_stats {
  uint64_t records, commits, failures; /* on disk; commits that failed */
  uint64_t dropped;                /* records that nobody waited for and that were wrong */
  size_t waiting_bytes;            /* in all rings */
  char error[256];                 /* the last failure; "" */
} scribe_stats;
void scribe_stat(const scribe *s, scribe_stats *out);  /* any process */

/* ---- Supervisor ----------------------------------------------------------------------------------------------*/
typedef struct sockets {
  int http[THREADS_MAX]; /* one a thread (SO_REUSEPORT), or one that was handed over, again and again */
  size_t n_http;
  int admin;             /* home/control.sock */
  uint16_t port;
} sockets;
ev_status sockets_open(sockets *out, const ev_serve_options *o); /* binds, or takes what LISTEN_FDS hands over */
void sockets_close(sockets *s, const ev_serve_options *o);
ev_status privileges_drop(const ev_serve_options *o);           /* to o->user; and never more from then on */
void notify_system(const char *state);                          /* to $NOTIFY_SOCKET, when there is one: sd_notify(3) */

typedef struct watch watch; /* files that a version was made of */
ev_status watch_open(watch **out);
void watch_close(watch *w);
int watch_fd(const watch *w);
void watch_files(watch *w, const json_t *files);                /* an array of paths; their folders are watched: editors replace files */
bool watch_read(watch *w, bool any_source);                     /* one of them was edited, or any source file beside them */

typedef enum member_state { MEMBER_NONE, MEMBER_STAGING, MEMBER_STAGED, MEMBER_CHAMPION, MEMBER_CHALLENGER, MEMBER_RESERVE, MEMBER_LEAVING } member_state;
typedef struct member {  /* a team, as the supervisor sees it */
  member_state state;
  pid_t pid;
  int report;
  char version[65], source[4096];
  char then[16];         /* what is done when it is ready: "nothing", "publish", "canary" */
  char reason[256];
  bool of_file;          /* staged from a file that is to be watched */
  bool ordered;          /* its workers are being started */
  json_t *options, *said; /* of a canary; what staging found */
  json_int_t ticket;     /* whose command it was; -1: nobody's */
  int64_t since_ms;
} member;

typedef struct supervisor {
  const ev_serve_options *o;
  board *b;
  bells bells;
  scribe *scribe;
  ev_snapshot *snapshot;
  sockets sockets;
  watch *watch;
  int epoll, signals, control; /* control: to the front */
  pid_t front, writer;
  member members[TEAMS_MAX];
  char source[4096];     /* of the version that follows edits */
  uint64_t edited_ns, stop_ns, started_ns;
  json_t *pending;       /* commands that wait for a team's place */
  unsigned quick_deaths; /* of front or writer, shortly after one another */
  bool stopping, told, failed;
} supervisor;
/* versions.c */
ev_status versions_stage(supervisor *s, const char *source, const char *then, const json_t *command, json_int_t ticket, const char *reason);
void versions_heard(supervisor *s, member *m);       /* its report is readable */
void versions_ended(supervisor *s, member *m, int how); /* its process has ended */
void versions_strikes(supervisor *s);                /* quarantines what has too many */
void versions_edited(supervisor *s);
void versions_stop(supervisor *s);                   /* who waits for a version is told that it does not come */
extern const char *const member_state_names[];
member *member_in(supervisor *s, member_state state);                 /* the first one, or NULL */
member *member_of(supervisor *s, const char *version);                /* that is loaded; version: its name, or at least 6 bytes of its beginning */
json_t *member_describe(const member *m);
void member_order(member *m, int n_workers);
void member_owe(supervisor *s, member *m, json_int_t ticket); /* the answer, to who asked last; who asked before is told so */
void member_intend(member *m, const char *then, const char *reason);  /* what is to be done with it, and why */
#define ROLLED_BACK "rolled back"                    /* the reason that makes publishing a rollback in the ledger */
void member_go_on(supervisor *s, member *m);         /* does what `then` says, now or when its workers are there */
double json_number_or(const json_t *o, const char *key, double fallback); /* of an object, or NULL */
void member_publish(supervisor *s, member *m, const char *action, const char *reason, const json_t *evidence);
void member_end_canary(supervisor *s, member *m, const char *reason, const json_t *evidence);
void version_path(const supervisor *s, char out[4096], const char *name, const char *suffix);
bool version_quarantined(const supervisor *s, const char *version);
void control_reply(supervisor *s, json_int_t ticket, int code, json_t *body); /* takes it; ticket -1: nobody asked */
void control_refuse(supervisor *s, json_int_t ticket, int code, const char *why);
/* commands.c */
void versions_command(supervisor *s, json_t *command); /* from the front; takes it */
void versions_pending(supervisor *s);                /* a team's place is free: what waits for one */
void control_tell(supervisor *s, json_t *message);   /* to the front; takes it */

/* ---- Users --------------------------------------------------------------------------------------------------
 * Histories, from the snapshot and from events. Any thread. */
typedef struct users users;
ev_status users_open(users **out, const ev_snapshot *s);
void users_close(users *u);
ev_status users_add(users *u, const char *user, uint32_t item); /* an event: the user may be new */
typedef struct past { /* what a request carries of a user */
  uint32_t user;                     /* the snapshot's index, or EV_NONE */
  uint32_t n_history, n_seen;
  uint64_t mark;                     /* of this moment; UINT64_MAX: seen is not all that he has seen */
} past;
/* The latest HISTORY_MAX items, oldest first, and the SEEN_MAX latest as distinct ones, ascending. */
void users_fill(users *u, const char *user, past *out, uint32_t *history, uint32_t *seen);
bool users_has_seen(users *u, const char *user, uint32_t item);    /* of all of them */
bool users_changed(users *u, const char *user, uint64_t mark);     /* he has seen something since */
const uint32_t *users_popular(const users *u, size_t *n);          /* items, most popular first */
size_t users_bytes(users *u, size_t *n_users, size_t *n_events);   /* memory in use for events */

/* ---- Catalog ------------------------------------------------------------------------------------------------
 * Items and users as they are now: those of the snapshot, and over them what was put, patched and deleted while serving, in two
 * live tables of the store under folder. An item that the snapshot has not gets an index behind the snapshot's, for the life of
 * the process. Any thread. */
typedef struct catalog catalog;
ev_status catalog_open(catalog **out, const char *folder, const ev_snapshot *s, board *b);
void catalog_close(catalog *c);
size_t catalog_n_items(const catalog *c);   /* one more than the highest index there is */
uint32_t catalog_find(const catalog *c, const char *id, size_t len); /* EV_NONE: no such item, or deleted */
uint32_t catalog_known(const catalog *c, const char *id, size_t len); /* also a deleted one: what events may still be about */
bool catalog_id(const catalog *c, uint32_t item, char out[USER_MAX + 1]);
bool catalog_hidden(const catalog *c, uint32_t item); /* deleted, or is_hidden: never in a slate */
const char *catalog_title(const catalog *c, uint32_t item, ev_buf *scratch); /* NULL: it has none */
/* A mask of the board with all items that do not satisfy `where` (and the hidden ones): the same text gives the same mask while it
 * is in use and nothing was changed. NULL where: mask 0, or EV_NONE when no item is hidden. EV_EINVAL, EV_ELIMIT: all are in use. */
ev_status catalog_where(catalog *c, const char *where, uint32_t *mask);
void catalog_release(catalog *c, uint32_t mask); /* EV_NONE does nothing */
bool catalog_barred(const catalog *c, uint32_t mask, uint32_t item); /* also of items that the snapshot has not */
/* One item or user: JSON of {"id", "hidden", "time", "comment", …fields}: docs/reference/catalog.md. All or none, on disk when it returns.
 * merge: what is not given stays, null takes it away (PATCH); EV_ENOTFOUND names one that is not there. EV_EINVAL names the field.
 * EV_ELIMIT: more than LIVE_ITEMS_MAX items that the snapshot has not. */
typedef enum catalog_side { CATALOG_ITEM, CATALOG_USER } catalog_side;
ev_status catalog_put(catalog *c, catalog_side side, const json_t *const *entries, size_t n, bool merge);
ev_status catalog_ensure(catalog *c, const char *const *ids, size_t n); /* items nobody has heard of are put with an id and nothing else; ids may come twice */
ev_status catalog_delete(catalog *c, catalog_side side, const char *id); /* EV_ENOTFOUND */
json_t *catalog_get(const catalog *c, catalog_side side, const char *id); /* NULL: no such */
json_t *catalog_list(const catalog *c, catalog_side side, const char *after, size_t n); /* in an order that stays; after: the id that ended the page before, or NULL. NULL: after is no id */
ev_status catalog_time(const char *s, size_t len, double *seconds); /* ISO 8601: a day, or a day and a time; without a zone UTC. EV_EINVAL */
const char *catalog_field(size_t i, ev_column_type *type); /* fields that a condition may always ask for, whether anybody has them or not; NULL behind the last */

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
const canary_options *canary_opts(const canary *c);
bool canary_is(const canary *c, const canary_options *o); /* of the same two versions and users */
json_t *canary_status(const canary *c);  /* for /canary, the CLI and as evidence; what is not known is left out */
ev_status canary_save(const canary *c, const char *path);  /* whole or not at all; any thread, nobody waits for the disk */
ev_status canary_load(canary **out, const char *path);     /* EV_ECORRUPT, EV_ENOTFOUND */

/* ---- Lately --------------------------------------------------------------------------------------------------
 * While a canary runs, the latest LATELY_SLATES slates, or as many of them as have LATELY_ITEMS items: which agents proposed what. Any thread. */
#define LATELY_SLATES 65536
#define LATELY_ITEMS (1u << 20)
typedef struct lately lately;
lately *lately_new(void); /* 12 MB, touched as it fills; NULL: out of memory */
void lately_free(lately *s);
/* A slate that was logged as `impression`; recalls as in team_board, copied; NULL: popular items, from nobody. */
void lately_add(lately *s, const char *impression, const char (*recalls)[48], const ev_answer *answer);
/* The agents that proposed the item in that slate: how many ("fallback" where nobody chose). 0: the slate or the item in it is not known.
 * The names hold as long as s. impression may be NULL. */
size_t lately_agents(lately *s, const char *impression, uint32_t item, const char *out[32]);

/* ---- HTTP ---------------------------------------------------------------------------------------------------
 * A call is one request being answered, on the thread that has it. A handler answers at once, or holds it and answers later. */
typedef enum role { ROLE_NONE, ROLE_READ, ROLE_FEEDBACK, ROLE_ADMIN } role; /* each may do what those before it may */
typedef struct front front;
typedef struct guard guard;
typedef struct http_thread http_thread;
typedef struct call {
  struct MHD_Connection *connection;
  http_thread *at;
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

typedef struct dispatch dispatch;
struct front {
  const ev_serve_options *o;
  board *b;
  const bells *bells;
  scribe *scribe;
  ev_snapshot *snapshot;
  users *users;
  catalog *catalog;
  guard *guard;
  dispatch *dispatch;
  canary *canary;                  /* under canary_lock; NULL: none runs */
  lately *lately;                  /* likewise; NULL also when there was no memory */
  pthread_rwlock_t canary_lock;
  int control;                     /* socket to the supervisor */
  size_t n_threads;
  http_thread *threads;
};
front *call_front(const call *c);
ev_status front_run(front *f, sockets *s); /* the front's process, until the board says that it stops */

/* A slate is wanted; answered as JSON by `form`. */
typedef struct served served;
typedef struct wanted {
  char user[USER_MAX + 1];         /* "": a session without one */
  size_t n_recent, n;
  char *where;                     /* owned; NULL: none */
  uint32_t *excluded;              /* owned; items that are not to come */
  size_t n_excluded;
  bool again;                      /* seen items may come */
  bool explain;
  size_t offset;                   /* places to leave out at the top */
  void (*form)(call *c, const struct wanted *w, const served *s);
  uint32_t recent[HISTORY_MAX];    /* (n_recent) items of the session, oldest first, behind those of the user. Last: it is copied no further than it is filled */
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
void events_kept(void *ctx, void *ticket, ev_status status, const char *error, const ev_ledger_receipt *receipt); /* ctx: the thread */
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
ev_status guard_open(guard **out, const char *tokens_file, double rate_per_s, double burst); /* file NULL: no tokens: read and feedback for all, admin on the Unix socket */
void guard_close(guard *g);
role guard_role(const guard *g, const char *token, bool admin_socket); /* compared in constant time */
bool guard_allows(guard *g, const struct sockaddr *from, uint64_t now_ns); /* rate; false: 429 */

/* ---- Dispatch -------------------------------------------------------------------------------------------------
 * A job is a request on its way over the board. It goes to the team that serves its user; to the one that is idle first; what that
 * one fails at goes to the reserve while there is time; and at worst nobody's answer comes back. */
typedef struct job {
  call *call;                      /* NULL: a lesson */
  wanted *w;
  uint32_t slot, use, team;
  char version[65];                /* of the team, whatever that is by the time it is answered */
  uint32_t mask;                   /* that is to be released */
  past past;
  bool challenger, second;         /* second: this is the reserve's try */
  bool pushed, queued;             /* in a box or several; in the queue before them */
  uint64_t begun_ns, due_ns, end_ns; /* of this try: put on the board, over; of all tries */
  struct job *next;                /* waits for a worker */
} job;
ev_status dispatch_open(dispatch **out, front *f);        /* makes the board's slots anew */
void dispatch_close(dispatch *d);
slot *dispatch_begin(http_thread *t, job *j);             /* a slot to fill; NULL: none is free. It is the job's from then on */
void dispatch_send(http_thread *t, job *j);               /* answered by job_done, perhaps at once */
void dispatch_collect(http_thread *t);                    /* jobs that are done, or over */
int dispatch_wait_ms(const http_thread *t);               /* until it wants to be called again; -1: when rung */
bool dispatch_ready(const http_thread *t);                /* a job of its is done */
size_t dispatch_outstanding(const http_thread *t);
/* recommend.c: what came of it: an answer (of which team), or NULL. The job is freed there. */
void job_done(http_thread *t, job *j, slot *s, const ev_answer *answer, bool degraded);
void job_free(http_thread *t, job *j);
void lessons_send(http_thread *t, const parsed_events *e); /* agents learn of these events */

typedef struct counters { /* of a thread; others only read them */
  _Atomic uint64_t requests, errors, slates, degraded, fallbacks, second_tries, events, impressions, impressions_lost, unlearned, refused;
  _Atomic uint64_t latency[16];    /* slates, by the buckets of status.c */
  _Atomic uint64_t latency_us;
} counters;

struct http_thread {
  front *f;
  size_t index;
  pthread_t id;
  int epoll;
  struct MHD_Daemon *daemons[2];   /* HTTP; and, of the first thread, the admin socket */
  size_t n_daemons;
  size_t n_held;                   /* calls that wait for something */
  uint32_t free_slots[SLOTS_MAX];
  size_t n_free;
  job *jobs[SLOTS_MAX];            /* in slots */
  size_t n_jobs, n_lessons;
  uint32_t lost[SLOTS_MAX];        /* slots whose job is answered, but whose worker stopped while it wrote */
  size_t n_lost;
  uint64_t first_id, n_impressions; /* ids of impressions: drawn at the start, and counted on */
  struct asked *told;              /* answers of the supervisor, under the control lock */
  struct connection *connections;
  uint64_t swept_ns;
  counters n;
};
void control_heard(front *f);                              /* the supervisor has said something */
void control_collect(http_thread *t);                      /* answers for calls of this thread */
void canary_work(front *f);                                /* ticks, saves, tells the supervisor its verdict */
void canary_begin(front *f, const json_t *options);
void canary_end(front *f);
uint64_t counted(const front *f, size_t offset);           /* sum over the threads; offset of a counter */
void latency_count(http_thread *t, double ms);

/* ---- Control --------------------------------------------------------------------------------------------------
 * The front asks the supervisor over a socket, one JSON document a message:
 *   {"op": "stage", "source": "FILE or agent:NAME", "then": "nothing" | "publish" | "canary", "share": 0.1, "options": {…}, "drop_state": false}
 *   {"op": "canary", "version": "…", "share": 0.1, "options": {…}}   {"op": "promote", "version": "…"}   {"op": "rollback", "version": "…" (optional)}
 *   {"op": "versions"}   {"op": "reload"}
 * and is answered {"ticket", "code": 200, "body": {…}}. An answer may take as long as a fit does. */
void versions_rewarded(const front *f, json_t *said); /* rewards.c: of each of its versions "reward": {"impressions", "events", "value": a slate's mean}. Reads the ledger */
ev_status control_ask(call *c, json_t *command);               /* takes it; holds the call and answers it with what comes back */

#endif
